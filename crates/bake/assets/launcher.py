"""Runs ansible-playbook and records what its tasks did.

Tiffin starts Ansible through this file instead of the `ansible-playbook` script. Before
the workers fork, it wraps the function with which the executor picks the action plugin
of a task, so it sees the class that is really used: `template:` and
`ansible.builtin.template:` alike, in loops, handlers, roles and collections. An action
plugin of our own beside the playbook would only see the short name.

Each record is one line of JSON appended to $TIFFIN_EVENTS (bake::capture reads them):

  template  a file that a template task wrote
  edit      a file that a task wrote from its arguments (tiffin_edits.py)
  service   a service, systemd or supervisorctl task that succeeded
  use       another task whose arguments come from variables
  left_out  a task that was delegated, or skipped by its `when`
  hashed    a filter, lookup or module that hides a placeholder from the search for secrets
  vaulted   a variable that is a secret (tiffin_vault.py, tiffin_lookups.py)
  play      the handlers of a play, at its end (tiffin_handlers.py)
  state     what later layers may ask for, at the end of a play (tiffin_carry.py)
"""

import functools
import json
import os
import sys

import tiffin_reads

tiffin_reads.install()

from ansible import __version__ as ansible_version
from ansible.executor.task_executor import TaskExecutor
from ansible.template import Templar

try:
    from ansible.template import JinjaPluginIntercept
except ImportError:  # since ansible-core 2.19
    from ansible._internal._templating._jinja_plugins import JinjaPluginIntercept

import tiffin_carry
import tiffin_compiled
import tiffin_edits
import tiffin_handlers
import tiffin_lookups
import tiffin_vault
from tiffin_closure import Closure, environment_of, names_of
from tiffin_edits import place_of, raw_item, when_of, with_raw_item
from tiffin_handlers import SERVICE_MODULES
from tiffin_records import hashed, placeholders, record

# Expressions of the recipe (`when:`, `ready:`), whose variables the box needs too.
EXPRESSIONS = json.loads(os.environ.get("TIFFIN_EXPRESSIONS", "[]"))
# What they answer shows no placeholder that went in.
HASHES = {"password_hash", "hash", "sha1", "md5", "checksum", "to_uuid", "vault", "mysql_password", "shake_256"}
HASHING_MODULES = {"htpasswd"}
# They write nothing into the box.
HARMLESS = {"debug", "assert", "fail", "set_fact", "include_vars", "setup", "stat", "meta", "pause", "add_host", "group_by"}

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
        since = len(tiffin_lookups.answers)
        result = function(text, *args, **kwargs)
        if self._options is not None and "text" not in self._seen:
            # Where the options stand depends on the version of ansible-core.
            options = dict(self._options, **(kwargs.get("overrides") or {}))
            self._seen.update(
                text=str.__str__(text), result=str.__str__(result), templar=self._spied, options=options,
                lookups=tiffin_lookups.answers[since:],
            )
        return result

    def do_template(self, text, *args, **kwargs):
        return self._render(self._spied.do_template, text, *args, **kwargs)

    def template(self, text, *args, **kwargs):
        return self._render(self._spied.template, text, *args, **kwargs)


def record_template(handler, raw, seen, result):
    options = {k: v for k, v in seen["options"].items() if k in OPTIONS and v is not None}
    header, body = header_options(seen["text"])
    options.update(header)
    templar = seen["templar"]
    environment = environment_of(templar).overlay(
        **{k: v for k, v in options.items() if k != "newline_sequence"}
    )
    task = handler._task
    variables = seen["options"].get("available_variables") or templar.available_variables
    plain = Templar(loader=handler._loader, variables=variables)
    item = raw_item(task, plain, variables)
    closure = Closure(environment, with_raw_item(variables, item))
    try:
        closure.tree(environment.parse(body))
    except Exception as problem:
        closure.dynamic.add(str(problem))
    lookups = tiffin_lookups.add(closure, seen["lookups"])
    # Since 2.19 templates keep types that they lost before; the box must know.
    if [int(part) for part in ansible_version.split(".")[:2]] >= [2, 19]:
        closure.name("ansible_version")
    expressions = Closure(environment_of(plain), variables)
    for expression in EXPRESSIONS:
        expressions.text(expression)
    args = task.args
    record({
        "event": "template",
        "dest": result.get("dest") or result.get("path") or args.get("dest"),
        "source": variables.get("template_fullpath") or args.get("src"),
        "task": task.get_name(),
        "body": body,
        "options": options,
        "result": seen["result"],
        "variables": dict(closure.encoded(), **lookups),
        "expressions": expressions.encoded(),
        "bound": tiffin_lookups.bound(closure),
        "includes": closure.includes,
        "missing": sorted(closure.missing),
        "dynamic": sorted(closure.dynamic),
        "place": place_of(task, environment_of(plain), variables, raw, (), item),
        "when": when_of(task, environment_of(plain), variables),
        "notify": [str(name) for name in (task.notify or [])],
        "validate": args.get("validate"),
        "no_log": bool(task.no_log),
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


def record_use(handler, raw, variables):
    """Which variables a task fixed in the image for good."""
    task = handler._task
    names = names_of(environment_of(Templar(loader=handler._loader, variables=variables)), variables, raw.values())
    names = [name for name in names if not name.startswith("ansible_")]
    if names:
        module = task.action.rpartition(".")[2]
        record({"event": "use", "task": task.get_name(), "module": module, "names": names})


def record_hidden(handler, dest):
    """A placeholder that went into a hash is in no file that the search for secrets could find."""
    task = handler._task
    module = task.action.rpartition(".")[2]
    if module in HASHING_MODULES:
        hashed.update((found, "the module " + module) for found in placeholders(task.args))
    for found, how in sorted(hashed):
        record({"event": "hashed", "task": task.get_name(), "placeholder": found, "how": how, "dest": dest})
    hashed.clear()


def wrap(handler, raw, variables):
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
            record_template(handler, raw, seen, result)
            record_hidden(handler, result.get("dest") or result.get("path"))
        return result

    def run_other(*args, **kwargs):
        result = run(*args, **kwargs)
        if result.get("failed"):
            return result
        dest = None
        if action in SERVICE_MODULES:
            record_service(handler)
        elif action in tiffin_edits.MODULES:
            tiffin_edits.record_edit(handler, raw, variables, result)
            dest = result.get("dest") or result.get("path") or handler._task.args.get("path")
        elif action not in HARMLESS:
            record_use(handler, raw, variables)
        if action not in ("debug", "assert", "fail"):
            record_hidden(handler, dest)
        return result

    def run_reboot(*args, **kwargs):
        why = "a box starts anew for each operator, with what is enabled"
        record({"event": "recorded", "what": "reboot, by task `%s`" % handler._task.get_name(), "why": why})
        return {"changed": True, "rebooted": True, "elapsed": 0}

    def run_cron(*args, **kwargs):
        result = run_other(*args, **kwargs)
        if not result.get("failed") and handler._task.args.get("state") != "absent":
            record({"event": "cron", "task": handler._task.get_name()})
        return result

    own = {"template": run_template, "reboot": run_reboot, "cron": run_cron}
    handler.run = own.get(action, run_other)
    return handler


def is_elsewhere(task, variables):
    """Whether a task configures some other machine, not the box."""
    return task.delegate_to is not None and task.delegate_to != variables.get("inventory_hostname")


def watch_tasks():
    execute = TaskExecutor._execute

    def executed(self, *args, **kwargs):
        # Before Ansible replaces them by what they render to.
        self._tiffin_raw = dict(self._task.args)
        hashed.clear()
        tiffin_lookups.clear()
        if self._task.action.rpartition(".")[2] == "include_role":
            tiffin_reads.role_chosen()
        result = execute(self, *args, **kwargs)
        action = self._task.action.rpartition(".")[2]
        if result.get("skipped") and (action == "template" or action in tiffin_edits.MODULES):
            variables = kwargs.get("variables") or next((a for a in args if isinstance(a, dict)), None) or self._job_vars
            environment = environment_of(Templar(loader=self._loader, variables=variables))
            names = when_of(self._task, environment, variables)
            if names:
                record({"event": "left_out", "task": self._task.get_name(), "reason": "skipped", "names": names})
        return result

    TaskExecutor._execute = executed

    for name in ("_get_action_handler_with_module_context", "_get_action_handler_with_context"):
        inner = getattr(TaskExecutor, name, None)
        if inner is None:
            continue

        def outer(self, *args, _inner=inner, **kwargs):
            handler, context = _inner(self, *args, **kwargs)
            templar = kwargs.get("templar") or args[-1]
            variables = templar.available_variables
            action = self._task.action.rpartition(".")[2]
            if not is_elsewhere(self._task, variables):
                handler = wrap(handler, self._tiffin_raw, variables)
            elif action == "template" or action in tiffin_edits.MODULES | SERVICE_MODULES:
                reason = "delegated to %s" % self._task.delegate_to
                record({"event": "left_out", "task": self._task.get_name(), "reason": reason})
            return handler, context

        setattr(TaskExecutor, name, outer)
        return
    sys.exit("tiffin: ansible-core %s has no known place to watch tasks from" % ansible_version)


def watch_filters():
    get = JinjaPluginIntercept.__getitem__

    def watched(self, key):
        function = get(self, key)
        name = key.rpartition(".")[2]
        if name not in HASHES:
            return function

        @functools.wraps(function)
        def noticing(*args, **kwargs):
            for value in args:
                hashed.update((found, "the filter " + name) for found in placeholders(value))
            return function(*args, **kwargs)

        return noticing

    JinjaPluginIntercept.__getitem__ = watched


if __name__ == "__main__":
    watch_tasks()
    watch_filters()
    tiffin_compiled.install()
    tiffin_vault.install()
    tiffin_lookups.install()
    tiffin_handlers.install(EXPRESSIONS)
    tiffin_carry.install()
    tiffin_reads.watch_ansible()
    from ansible.cli.playbook import main

    sys.argv[0] = "ansible-playbook"
    main(sys.argv)
