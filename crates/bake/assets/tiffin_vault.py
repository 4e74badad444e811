"""Vaulted values never enter a build: a placeholder stands for each.

What YAML marks with !vault is replaced as soon as a file is read, so that no password is
needed. A file that is vaulted as a whole has to be decrypted to know its variables
(Ansible's own means name the password), and all text and numbers in it are replaced.

    redis_password: !vault ...    ->  redis_password: PLACEHOLDER
    db: {password: !vault ...}    ->  db: {password: "{{ db_password | default('PLACEHOLDER') }}"}

so that a setting for the variable `redis_password` or `db_password` reaches all that
uses it. A value that stands directly in a task has no variable and is refused.
"""

import json
import os

from ansible.errors import AnsibleParserError
from ansible.parsing.dataloader import DataLoader

from tiffin_records import placeholder, record

try:  # since ansible-core 2.19
    from ansible._internal._datatag._tags import SourceWasEncrypted
    from ansible.parsing.vault import EncryptedString as Vaulted
    from ansible.template import trust_as_template as trusted

    def was_vaulted(data, show_content):
        return SourceWasEncrypted.is_tagged_on(data)
except ImportError:
    from ansible.parsing.yaml.objects import AnsibleVaultEncryptedUnicode as Vaulted

    def trusted(text):
        return text

    def was_vaulted(data, show_content):
        return not show_content

# Variables that the recipe calls no secrets although they are vaulted.
PUBLIC = set(json.loads(os.environ.get("TIFFIN_PUBLIC", "[]")))
KNOWN = {}


class Reader:
    """Replaces the vaulted values of one document."""

    def __init__(self, file_name, whole):
        self.file_name = file_name
        self.whole = whole

    def variable(self, path):
        """The name behind a path of keys: what follows the last `vars`, or all of a map of variables."""
        starts = [at for at, key in enumerate(path) if key in ("vars", "set_fact", "ansible.builtin.set_fact")]
        if starts:
            names = path[starts[-1] + 1:]
        elif isinstance(path[0], int):
            names = []  # a playbook's or a role's tasks
        elif "hosts" in path:
            names = path[path.index("hosts") + 2:]  # an inventory
        else:
            names = path
        if not names:
            raise AnsibleParserError(
                "tiffin: a vaulted value stands in a task of %s (%s): give it to a variable, "
                "which then becomes a setting" % (self.file_name, " -> ".join(str(key) for key in path))
            )
        return "_".join("".join(c if c.isalnum() else "_" for c in str(key)) for key in names), len(names) > 1

    def stand_in(self, path):
        name, nested = self.variable(path)
        if name in PUBLIC:
            return None
        where = "%s:%s" % (self.file_name, ".".join(str(key) for key in path))
        if name not in KNOWN:
            KNOWN[name] = where
            record({"event": "vaulted", "variable": name, "file": os.path.basename(str(self.file_name))})
        if not nested:
            return trusted(placeholder(name))
        return trusted("{{ %s | default('%s') }}" % (name, placeholder(name)))

    def is_vaulted(self, value):
        text = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        return isinstance(value, Vaulted) or self.whole and text

    def walk(self, value, path=()):
        if self.is_vaulted(value):
            replaced = self.stand_in(path)
            return value if replaced is None else replaced
        if isinstance(value, dict):
            for key in list(value):
                fresh = self.walk(value[key], path + (key,))
                if fresh is not value[key]:
                    value[key] = fresh
        elif isinstance(value, list):
            for at, item in enumerate(value):
                fresh = self.walk(item, path + (at,))
                if fresh is not item:
                    value[at] = fresh
        return value


def install():
    load = DataLoader.load

    def loaded(self, data, file_name=None, show_content=True, *args, **kwargs):
        file_name = file_name or "<string>"
        value = load(self, data, file_name, show_content, *args, **kwargs)
        return Reader(file_name, was_vaulted(data, show_content)).walk(value)

    real_file = DataLoader.get_real_file

    def decrypted(self, file_path, decrypt=True):
        found = real_file(self, file_path, decrypt)
        if decrypt and found != os.path.realpath(file_path) and found in getattr(self, "_tempfiles", ()):
            self.cleanup_tmp_file(found)
            raise AnsibleParserError(
                "tiffin: %s is vaulted, and would be in the image in clear: write it with a template "
                "whose secrets are variables, or copy it with `decrypt: false`" % file_path
            )
        return found

    DataLoader.load = loaded
    DataLoader.get_real_file = decrypted
