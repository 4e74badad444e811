"""What a text with expressions needs: raw variables, transitively, and no more."""

import re

from ansible.utils.unsafe_proxy import AnsibleUnsafe
from jinja2 import meta, nodes

try:
    from ansible.template import is_trusted_as_template as is_trusted
except ImportError:  # before ansible-core 2.19
    is_trusted = None

from tiffin_records import placeholder

# What Ansible itself adds to every task: never captured wholesale, since it holds the
# build machine's own state.
MAGIC = {"vars", "hostvars", "groups", "play_hosts", "ansible_play_hosts"}
# Of these only what a template names is kept, and a template that uses one as a whole is
# not rendered again: the build machine's facts, its environment and the credentials in
# it, and the names of all hosts that the inventory knows.
NEVER_WHOLE = ("ansible_facts", "ansible_env", "groups")
# Variables of the environment that serve the build and may hold credentials.
PRIVATE = ("PIP_", "TIFFIN_", "APT_")
# What tiffin_vault.py leaves where a vaulted value stood inside a map or list.
NESTED = re.compile(r"(\w+) \| default\('tiffin-placeholder-")


class Unportable(Exception):
    pass


def unsafe(value):
    """Whether Ansible never renders a text."""
    if is_trusted is not None:
        return isinstance(value, str) and ("{{" in value or "{%" in value) and not is_trusted(value)
    return isinstance(value, AnsibleUnsafe)


def environment_of(templar):
    """Jinja's environment behind a templar; since ansible-core 2.19 it belongs to its engine."""
    return getattr(templar, "_engine", templar).environment


def encode(value):
    """A raw variable as JSON, marked up as Ansible's own encoder does."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        text = str.__str__(value)
        return {"__ansible_unsafe": text} if unsafe(value) else text
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "items"):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return [encode(v) for v in sorted(value)]
    # Dates of YAML: what templates do with them is to print them.
    if hasattr(value, "isoformat"):
        return {"__ansible_unsafe": str(value)}
    # Vaulted text is replaced when it is read, so none comes here.
    raise Unportable(type(value).__name__)


class Closure:
    def __init__(self, environment, variables):
        self.environment = environment
        self.variables = variables
        self.found = {}
        self.partial = {name: {} for name in NEVER_WHOLE}
        self.used = set()
        # Facts that this machine does not have, or not without a program that the box lacks.
        self.missing = set()
        self.dynamic = set()
        self.includes = {}
        self.texts = {}
        # Names in the arguments of lookups.
        self.asked = set()

    def is_fact(self, name):
        """Facts that are maps: kept by what a template names of them, where it names it."""
        if not name.startswith("ansible_") or not hasattr(self.variables.get(name), "items"):
            return False
        facts = self.variables.get("ansible_facts")
        return hasattr(facts, "items") and name[len("ansible_"):] in facts

    def text(self, text):
        if text in self.texts or "{{" not in text and "{%" not in text:
            return
        self.texts[text] = True
        for name in NESTED.findall(text):
            self.found[name] = placeholder(name)
        try:
            tree = self.environment.parse(text)
        except Exception:  # its own error is reported when the text is used
            return
        self.tree(tree)

    def expression(self, text):
        """Text without braces: a `when`."""
        self.text("{{ %s }}" % text)

    def tree(self, tree):
        undeclared = meta.find_undeclared_variables(tree)
        for name in sorted(undeclared):
            if name == "hostvars":
                self.hostvars(tree)
            elif name in self.partial or self.is_fact(name):
                self.attributes(tree, name)
            else:
                self.name(name)
        for node in tree.find_all(nodes.Call):
            if isinstance(node.node, nodes.Name) and node.node.name in ("lookup", "query", "q"):
                first = node.args[0] if node.args else None
                asks = node.args + [keyword.value for keyword in node.kwargs]
                self.asked.update(
                    name.name for arg in asks for name in ([arg] if isinstance(arg, nodes.Name) else arg.find_all(nodes.Name))
                )
                if isinstance(first, nodes.Const) and first.value == "vars":
                    for arg in node.args[1:]:
                        if isinstance(arg, nodes.Const):
                            self.name(arg.value)
        for name in meta.find_referenced_templates(tree):
            if name is None:
                self.dynamic.add("include")
            elif name not in self.includes:
                try:
                    source = self.environment.loader.get_source(self.environment, name)[0]
                except Exception:
                    continue
                self.includes[name] = source
                self.text(source)

    def attributes(self, tree, name):
        values = self.variables.get(name)
        values = values if hasattr(values, "items") else {}
        kept = self.partial.setdefault(name, {})
        self.used.add(name)
        whole = sum(1 for node in tree.find_all(nodes.Name) if node.name == name)
        for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
            if not (isinstance(node.node, nodes.Name) and node.node.name == name):
                continue
            key = attribute(node)
            if not isinstance(key, str) or (name == "ansible_facts" and key == "env"):
                continue
            if name == "ansible_env" and (key.upper().startswith(PRIVATE) or key.lower().endswith("_proxy")):
                continue
            whole -= 1
            if key in values:
                kept[key] = values[key]
                self.value(values[key])
            elif name == "ansible_facts":
                self.missing.add("ansible_facts." + key)
        if whole > 0 and name in NEVER_WHOLE:
            self.dynamic.add(name)
        elif whole > 0:
            self.name(name)

    def hostvars(self, tree):
        """`hostvars[inventory_hostname].port`: a box is the only host there is."""
        whole = sum(1 for node in tree.find_all(nodes.Name) if node.name == "hostvars")
        for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
            host = node.node
            if isinstance(host, nodes.Getitem) and isinstance(host.node, nodes.Name) and host.node.name == "hostvars":
                key = attribute(node)
                if isinstance(key, str):
                    whole -= 1
                    self.name(key)
                    self.name("inventory_hostname")
        if whole > 0:
            self.dynamic.add("hostvars")

    def name(self, name):
        if name not in self.variables and name.startswith("ansible_"):
            self.missing.add(name)
        if name in self.found or name in self.partial or name not in self.variables:
            return
        if name in MAGIC:
            self.dynamic.add(name)
            return
        value = self.variables[name]
        self.found[name] = value
        self.value(value)

    def value(self, value):
        if unsafe(value):
            return
        if isinstance(value, str):
            self.text(str.__str__(value))
        elif hasattr(value, "items"):
            for item in value.values():
                self.value(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.value(item)

    def names(self):
        return sorted(set(self.found) | self.used)

    def encoded(self):
        out = {}
        for name, value in self.found.items():
            try:
                out[name] = encode(value)
            except Unportable as problem:
                self.dynamic.add("%s (%s)" % (name, problem))
        for name in sorted(self.used):
            # Empty too: `groups.x | default([])` needs `groups` itself.
            if name not in out:
                out[name] = encode(self.partial[name])
        return out


def attribute(node):
    return node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)


def names_of(environment, variables, values):
    """Names of all variables behind some raw values."""
    closure = Closure(environment, variables)
    for value in values:
        closure.value(value)
    return closure.names()


def rename(environment, text, names):
    """The text with other names for some variables; `None` when that cannot be done."""
    out, before = [], ""
    try:
        tokens = list(environment.lex(text))
    except Exception:
        return None
    if "".join(value for _, _, value in tokens) != text:
        return None
    words = [(kind, value) for _, kind, value in tokens]
    for at, (kind, value) in enumerate(words):
        after = next((v for k, v in words[at + 1:] if k != "whitespace"), "")
        # `.item` is an attribute, `item=` an argument's name.
        if kind == "name" and value in names and before != "." and after != "=":
            value = names[value]
        out.append(value)
        if kind != "whitespace":
            before = value
    return "".join(out)
