"""Runs ansible-playbook and records what its tasks did.

Tiffin starts Ansible through this file instead of the `ansible-playbook` script. Before
the workers fork, it wraps the function with which the executor picks the action plugin
of a task, so it sees the class that is really used: `template:` and
`ansible.builtin.template:` alike, in loops, handlers, roles and collections. An action
plugin of our own beside the playbook would only see the short name.

Each record is one line of JSON appended to $TIFFIN_EVENTS:

  {"event": "template", ...}  a file that a template task wrote
  {"event": "service", ...}   a service, systemd or supervisorctl task that succeeded
"""

import fcntl
import json
import os
import sys

from ansible import __version__ as ansible_version
from ansible.executor.task_executor import TaskExecutor
from ansible.parsing.yaml.objects import AnsibleVaultEncryptedUnicode
from ansible.utils.unsafe_proxy import AnsibleUnsafe
from jinja2 import meta, nodes

EVENTS = os.environ["TIFFIN_EVENTS"]
# Expressions of the recipe (`when:`, `ready:`), whose variables the box needs too.
EXPRESSIONS = json.loads(os.environ.get("TIFFIN_EXPRESSIONS", "[]"))
SERVICE_MODULES = {"service", "systemd", "systemd_service", "sysvinit", "supervisorctl"}
# What Ansible itself adds to every task: never captured wholesale, since it holds the
# build machine's own state.
MAGIC = {"vars", "hostvars", "groups", "play_hosts", "ansible_play_hosts"}
# Variables of the environment that serve the build and may hold credentials.
PRIVATE = ("PIP_", "TIFFIN_", "APT_")


def record(event):
    line = (json.dumps(event) + "\n").encode()
    with open(EVENTS, "ab") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        out.write(line)


class Unportable(Exception):
    pass


def encode(value):
    """A raw variable as JSON, marked up as Ansible's own encoder does."""
    if isinstance(value, AnsibleVaultEncryptedUnicode):
        return {"__ansible_vault": value._ciphertext.decode()}
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        text = str.__str__(value)
        return {"__ansible_unsafe": text} if isinstance(value, AnsibleUnsafe) else text
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
    raise Unportable(type(value).__name__)


class Closure:
    """The raw variables that a template needs, transitively."""

    def __init__(self, environment, variables):
        self.environment = environment
        self.variables = variables
        self.found = {}
        # Of these only what a template names is kept: as a whole they describe the build
        # machine, its environment and the credentials in it.
        self.partial = {"ansible_facts": {}, "ansible_env": {}}
        self.dynamic = set()
        self.includes = {}

    def text(self, text):
        if "{{" not in text and "{%" not in text:
            return
        try:
            tree = self.environment.parse(text)
        except Exception:  # its own error is reported when the text is used
            return
        self.tree(tree)

    def tree(self, tree):
        for name, kept in self.partial.items():
            self.attributes(tree, name, kept)
        for node in tree.find_all(nodes.Call):
            if isinstance(node.node, nodes.Name) and node.node.name in ("lookup", "query", "q"):
                first = node.args[0] if node.args else None
                if isinstance(first, nodes.Const) and first.value == "vars":
                    for arg in node.args[1:]:
                        if isinstance(arg, nodes.Const):
                            self.name(arg.value)
        for name in sorted(meta.find_undeclared_variables(tree)):
            self.name(name)
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

    def attributes(self, tree, name, kept):
        whole = sum(1 for node in tree.find_all(nodes.Name) if node.name == name)
        for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
            if not (isinstance(node.node, nodes.Name) and node.node.name == name):
                continue
            key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
            if not isinstance(key, str) or (name == "ansible_facts" and key == "env"):
                continue
            if name == "ansible_env" and key.upper().startswith(PRIVATE) or key.lower().endswith("_proxy"):
                continue
            whole -= 1
            values = self.variables.get(name, {})
            if key in values:
                kept[key] = values[key]
        if whole > 0:
            self.dynamic.add(name)

    def name(self, name):
        if name in self.found or name in self.partial or name not in self.variables:
            return
        if name in MAGIC:
            self.dynamic.add(name)
            return
        value = self.variables[name]
        self.found[name] = value
        self.value(value)

    def value(self, value):
        if isinstance(value, AnsibleUnsafe):
            return
        if isinstance(value, str):
            self.text(str.__str__(value))
        elif hasattr(value, "items"):
            for item in value.values():
                self.value(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.value(item)

    def encoded(self):
        out = {}
        for name, value in self.found.items():
            try:
                out[name] = encode(value)
            except Unportable as problem:
                self.dynamic.add("%s (%s)" % (name, problem))
        for name, kept in self.partial.items():
            if kept:
                out[name] = encode(kept)
        return out


OPTIONS = (
    "newline_sequence block_start_string block_end_string variable_start_string "
    "variable_end_string comment_start_string comment_end_string trim_blocks lstrip_blocks"
).split()


def header_options(text):
    """Splits off the `#jinja2: key:value, ...` line: (options, body)."""
    if not text.startswith("#jinja2:"):
        return {}, text
    end = text.find("\n")
    end = len(text) if end < 0 else end
    options = {}
    for pair in text[len("#jinja2:"):end].split(","):
        key, _, value = pair.partition(":")
        key, value = key.strip(), value.strip()
        if key not in OPTIONS:
            continue
        if value in ("True", "False"):
            value = value == "True"
        options[key] = value.strip("'\"") if isinstance(value, str) else value
    return options, text[end + 1:]


class SpyTemplar:
    """Stands for the task's templar and keeps what the template action renders.

    The action renders the file with a copy of the templar that it makes for that alone;
    what it templates with the original (a path, the interpreter) is not the file.
    """

    def __init__(self, templar, seen, options=None):
        self._spied = templar
        self._seen = seen
        self._options = options

    def __getattr__(self, name):
        return getattr(self._spied, name)

    def copy_with_new_env(self, **kwargs):
        return SpyTemplar(self._spied.copy_with_new_env(**kwargs), self._seen, kwargs)

    def _render(self, function, text, *args, **kwargs):
        result = function(text, *args, **kwargs)
        if self._options is not None and "text" not in self._seen:
            self._seen.update(
                text=str.__str__(text), result=str.__str__(result), templar=self._spied, options=self._options
            )
        return result

    def do_template(self, text, *args, **kwargs):
        return self._render(self._spied.do_template, text, *args, **kwargs)

    def template(self, text, *args, **kwargs):
        return self._render(self._spied.template, text, *args, **kwargs)


def record_template(handler, seen, result):
    options = {k: v for k, v in seen["options"].items() if k in OPTIONS and v is not None}
    header, body = header_options(seen["text"])
    options.update(header)
    templar = seen["templar"]
    environment = templar.environment.overlay(
        **{k: v for k, v in options.items() if k != "newline_sequence"}
    ) if header else templar.environment
    closure = Closure(environment, seen["options"].get("available_variables") or templar.available_variables)
    try:
        closure.tree(environment.parse(body))
    except Exception as problem:
        closure.dynamic.add(str(problem))
    # Since 2.19 templates keep types that they lost before; the box must know.
    if [int(part) for part in ansible_version.split(".")[:2]] >= [2, 19]:
        closure.name("ansible_version")
    expressions = Closure(templar.environment, closure.variables)
    for expression in EXPRESSIONS:
        expressions.text(expression)
    args = handler._task.args
    record({
        "event": "template",
        "dest": result.get("dest") or result.get("path") or args.get("dest"),
        "source": closure.variables.get("template_fullpath") or args.get("src"),
        "task": handler._task.get_name(),
        "body": body,
        "options": options,
        "result": seen["result"],
        "variables": closure.encoded(),
        "expressions": expressions.encoded(),
        "includes": closure.includes,
        "dynamic": sorted(closure.dynamic),
        "notify": [str(name) for name in (handler._task.notify or [])],
        "validate": args.get("validate"),
        "no_log": bool(handler._task.no_log),
    })


def record_service(handler):
    args = handler._task.args
    record({
        "event": "service",
        "module": handler._task.action.rpartition(".")[2],
        "name": args.get("name") or args.get("service") or args.get("unit"),
        "state": args.get("state"),
        "enabled": args.get("enabled"),
        "task": handler._task.get_name(),
    })


def wrap(handler):
    run = handler.run
    action = handler._task.action.rpartition(".")[2]

    def run_template(*args, **kwargs):
        seen = {}
        own, handler._templar = handler._templar, SpyTemplar(handler._templar, seen)
        try:
            result = run(*args, **kwargs)
        finally:
            handler._templar = own
        if "text" in seen and not result.get("failed"):
            record_template(handler, seen, result)
        return result

    def run_service(*args, **kwargs):
        result = run(*args, **kwargs)
        if not result.get("failed"):
            record_service(handler)
        return result

    if action == "template":
        handler.run = run_template
    elif action in SERVICE_MODULES:
        handler.run = run_service
    return handler


def install():
    for name in ("_get_action_handler_with_module_context", "_get_action_handler_with_context"):
        inner = getattr(TaskExecutor, name, None)
        if inner is None:
            continue

        def outer(self, *args, _inner=inner, **kwargs):
            handler, context = _inner(self, *args, **kwargs)
            # A delegated task configures some other machine, not the box.
            if self._task.delegate_to is None:
                handler = wrap(handler)
            return handler, context

        setattr(TaskExecutor, name, outer)
        return
    sys.exit("tiffin: ansible-core %s has no known place to watch tasks from" % ansible_version)


if __name__ == "__main__":
    install()
    from ansible.cli.playbook import main

    sys.argv[0] = "ansible-playbook"
    main(sys.argv)
