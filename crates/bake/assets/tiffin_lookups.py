"""What lookups answered, for the box: it is not the machine that Ansible runs on.

Those that only compute are computed again at each start ($TIFFIN_LOOKUPS names them). Of
all others the answers are kept by plugin and arguments:

    {"name": "env", "terms": ["LANG"], "options": {}, "result": ["C.UTF-8"]}

An answer that is secret is not kept. Where a start can have one of its own, a variable
stands for it, which becomes a setting, and during the play a placeholder stands for that:

    {"name": "password", "terms": ["credentials/db"], "options": {}, "variables": ["credentials_db"]}

Where it cannot, the record says so (`"secret": true`), and the file stays as it is.
"""

import functools
import json
import os
import re

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.parsing.vault import VaultLib
from ansible.plugins.loader import lookup_loader
from jinja2 import nodes
from jinja2.exceptions import UndefinedError

import tiffin_reads
from tiffin_closure import PRIVATE, Unportable
from tiffin_records import PREFIX, hashed, placeholder, placeholders, record
from tiffin_vault import PUBLIC

COMPUTED = set(json.loads(os.environ.get("TIFFIN_LOOKUPS", "[]")))
# Under this name a template's records are among its variables; the same in jinja's lookups.rs.
FROZEN = "(lookups)"
COLLECTIONS = ("ansible.builtin.", "ansible.legacy.", "community.general.")
# They ask for secrets and nothing else. `password` and vaulted files are told apart below.
SECRET = {
    "bitwarden", "bitwarden_secrets_manager", "conjur_variable", "credstash", "cyberarkpassword", "dsv", "github_app_access_token",
    "hashi_vault", "keyring", "lastpass", "onepassword", "onepassword_doc", "onepassword_raw", "onepassword_ssh_key",
    "passwordstore", "random_string", "secretsmanager_secret", "aws_secret", "ssm_parameter", "aws_ssm", "tss",
    "vault_kv1_get", "vault_kv2_get", "vault_login", "vault_read", "vault_token_create", "azure_keyvault_secret",
    "gcp_secret_manager",
}
SECRET_NAME = re.compile(r"passw|passphrase|secret|token|credential|private_?key|api_?key|access_?key", re.I)
PEM = {"PRIVATE KEY-----": "key", "-----BEGIN CERTIFICATE": "certificate"}
# What settings.rs generates: letters and digits.
LENGTHS = range(8, 1025)
WHOLE = re.compile(r"\{\{\s*(?:lookup|query|q)\(\s*(['\"])(?:ansible\.builtin\.)?password\1\s*,\s*(['\"])([^'\"]*)\2\s*\)\s*\}\}")

# What the current task's lookups answered, in order; texts of looked-up templates, and
# names of variables that were looked up.
answers = []
texts = {}
names = set()
decrypted = [0]


def clear():
    del answers[:]
    texts.clear()
    names.clear()


def plain_name(name):
    return next((name[len(prefix):] for prefix in COLLECTIONS if name.startswith(prefix)), name)


def plain(value):
    """An argument or a result as JSON."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "items"):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    raise Unportable(type(value).__name__)


def variable_of(path, variables):
    """The name of the variable that stands for a secret file's content."""
    for base in ("role_path", "inventory_dir", "playbook_dir"):
        base = str(variables.get(base) or "").rstrip("/") + "/"
        if path.startswith(base) and base != "/":
            path = path[len(base):]
            break
    if path.startswith(("/", "~")):
        path = os.path.basename(path)
    if path.startswith("files/"):
        path = path[len("files/"):]
    name = re.sub(r"[^A-Za-z0-9]+", "_", os.path.splitext(path)[0]).strip("_").lower() or "lookup"
    if not name[0].isalpha():
        name = "secret_" + name
    raw = variables.get(name)
    # Somebody else's name.
    return "lookup_" + name if raw is not None and "lookup" not in str(raw) and PREFIX not in str(raw) else name


def kv(text):
    """`key=value` words after the path of the lookup `password`."""
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def password(terms, options, variables):
    """Placeholders for the passwords that the lookup would make; `None` where it makes none."""
    found = []
    for term in terms:
        path, _, rest = str(term).partition(" ")
        given = dict(options, **kv(rest))
        if path == "/dev/null":
            return None
        wholes = [
            name for name, raw in list(variables.items())
            if isinstance(raw, str) and (match := WHOLE.fullmatch(raw.strip())) and match.group(3) == str(term)
        ]
        name = wholes[0] if len(wholes) == 1 else variable_of(path, variables)
        chars = given.get("chars")
        chars = ",".join(chars) if isinstance(chars, (list, tuple)) else str(chars or "ascii_letters,digits")
        length = str(given.get("length") or 20)
        free = {"ascii_letters", "digits"} <= set(chars.split(",")) and length.isdigit() and int(length) in LENGTHS
        record({
            "event": "vaulted", "variable": name, "file": path, "lookup": "password",
            "generate": int(length) if free else None,
        })
        if given.get("encrypt"):
            hashed.add((placeholder(name), "the lookup password with `encrypt`"))
        found.append((name, bool(given.get("encrypt"))))
    return found


def vaulted(lookup, terms, result, variables):
    found = []
    for term, text in zip(terms, result):
        name = variable_of(str(term), variables)
        # A secret of another kind is one line.
        kind = next((kind for mark, kind in PEM.items() if mark in str(text)), "secret")
        record({"event": "vaulted", "variable": name, "file": os.path.basename(str(term)), "lookup": lookup, "kind": kind})
        found.append((name, False))
    return found


def is_private(name, terms):
    return name == "env" and any(
        str(term).upper().startswith(PRIVATE) or str(term).lower().endswith("_proxy") or SECRET_NAME.search(str(term))
        for term in terms
    )


def keep(name, terms, options, **answer):
    try:
        entry = dict({"name": name, "terms": plain(list(terms)), "options": plain(options)}, **answer)
    except (Unportable, AnsibleUndefinedVariable, UnicodeDecodeError, UndefinedError):
        return
    if placeholders(entry["terms"]) or placeholders(entry["options"]):
        # Every start would ask something else.
        return
    answers.append(entry)


def stand_in(name, terms, options, found):
    if any(hidden for _, hidden in found):
        keep(name, terms, options, secret=True)
    else:
        keep(name, terms, options, variables=[variable for variable, _ in found])
    return [placeholder(variable) for variable, _ in found]


def computed(plugin, name, terms, variables):
    if name == "vars":
        names.update(str(term) for term in terms)
    elif name == "template":
        for term in terms:
            path = plugin.find_file_in_search_path(variables, "templates", term)
            if path:
                text = plugin._loader.get_text_file_contents(path) if hasattr(
                    plugin._loader, "get_text_file_contents") else plugin._loader._get_file_contents(path)[0]
                texts[str(term)] = text.decode() if isinstance(text, bytes) else str.__str__(text)


def watch(plugin, full_name):
    name, run = plain_name(full_name), plugin.run

    @functools.wraps(run)
    def watched(*args, **kwargs):
        terms = args[0] if args else kwargs.get("terms")
        terms = list(terms) if isinstance(terms, (list, tuple)) else [terms]
        variables = args[1] if len(args) > 1 else kwargs.get("variables")
        variables = variables if hasattr(variables, "items") else {}
        options = {k: v for k, v in kwargs.items() if k not in ("terms", "variables", "inject")}
        if name == "env":
            for term in terms:
                tiffin_reads.asked_for(term)
        if name in COMPUTED and name != "password":
            result = run(*args, **kwargs)
            computed(plugin, name, terms, variables)
            return result
        if name == "password":
            found = password(terms, options, variables)
            if found is not None:
                return stand_in(name, terms, options, found)
            return run(*args, **kwargs)
        before = decrypted[0]
        try:
            result = run(*args, **kwargs)
        except (AnsibleUndefinedVariable, UndefinedError):
            raise
        except Exception:
            # Kept for `errors='ignore'`.
            keep(name, terms, options, result=None)
            raise
        hashed.update((found, "the lookup " + name) for found in placeholders([str(term) for term in terms]))
        if not isinstance(result, (list, tuple)):
            return result
        opened = decrypted[0] != before
        if opened and PUBLIC.issuperset(variable_of(str(term), variables) for term in terms):
            opened = False
        if opened and len(result) == len(terms):
            return stand_in(name, terms, options, vaulted(name, terms, result, variables))
        if opened or name.rpartition(".")[2] in SECRET or is_private(name, terms) and any(result):
            keep(name, terms, options, secret=True)
        else:
            try:
                result_of = plain(list(result))
            except (Unportable, UnicodeDecodeError):
                return result
            if not placeholders(result_of):
                keep(name, terms, options, result=result_of)
        return result

    plugin.run = watched
    return plugin


def install():
    get = lookup_loader.get

    @functools.wraps(get)
    def watching(name, *args, **kwargs):
        plugin = get(name, *args, **kwargs)
        if plugin is None or isinstance(plugin, type) or kwargs.get("class_only"):
            return plugin
        return watch(plugin, name)

    lookup_loader.get = watching
    for name in ("decrypt", "decrypt_and_get_vault_id"):
        inner = getattr(VaultLib, name)

        def counting(self, *args, _inner=inner, **kwargs):
            decrypted[0] += 1
            return _inner(self, *args, **kwargs)

        setattr(VaultLib, name, functools.wraps(inner)(counting))


def add(closure, kept):
    """What a template or an argument needs to look the same things up again, as variables."""
    for term, text in texts.items():
        if term not in closure.includes:
            closure.includes[term] = text
            closure.text(text)
    for name in sorted(names):
        closure.name(name)
    different = []
    for entry in kept:
        if entry not in different:
            different.append(entry)
        for name in entry.get("variables", ()):
            closure.found[name] = placeholder(name)
    return {FROZEN: different} if different else {}


def bound(closure):
    """Variables on which it depends what is looked up."""
    inner = type(closure)(closure.environment, closure.variables)
    for name in sorted(closure.asked):
        inner.name(name)
    return inner.names()
