"""Tasks that write a file from their arguments: `copy: content=`, lineinfile and the like.

A template keeps its text in a file of its own; these keep it in an argument, so it is the
raw argument that is captured. Where in the file its value ended, the builder works out.
"""

import hashlib
import json
import re

from ansible.template import Templar
from jinja2 import nodes

import tiffin_lookups
from tiffin_closure import Closure, Unportable, attribute, encode, environment_of, names_of, rename
from tiffin_records import record

# The argument that holds the text, by module, with its aliases.
VALUES = {
    "copy": ("content",),
    "lineinfile": ("line", "value"),
    "blockinfile": ("block", "content"),
    "replace": ("replace",),
    "ini_file": ("value",),
}
# They change files too, but where only they know.
OTHERS = {
    "assemble", "authorized_key", "cron", "cronvar", "debconf", "hostname", "htpasswd", "known_hosts", "locale_gen",
    "mount", "pam_limits", "pamd", "sudoers", "sysctl", "timezone", "xml",
}
MODULES = set(VALUES) | OTHERS
PATHS = ("path", "dest", "destfile", "name")


def loop_names(task, variables):
    names = {variables.get("ansible_loop_var") or getattr(task.loop_control, "loop_var", None) or "item", "ansible_loop"}
    index = getattr(task.loop_control, "index_var", None)
    return names | {index} if index else names


def sole(loop):
    """`loop: "{{ ports }}"`, which is a list of that text since ansible-core 2.19."""
    return loop[0] if isinstance(loop, list) and len(loop) == 1 and isinstance(loop[0], str) else loop


def raw_item(task, templar, variables):
    """The loop's item as the playbook wrote it, before the loop rendered it: `None` when unknown."""
    name = variables.get("ansible_loop_var")
    if task.loop is None or not name or name not in variables:
        return None
    found = item_of(task.loop, task.loop_with == "dict", variables[name], templar, variables)
    return item_of(sole(task.loop), task.loop_with == "dict", variables[name], templar, variables) if found is None else found


def item_of(raw, as_dict, item, templar, variables):
    for _ in range(5):
        if not isinstance(raw, str):
            break
        found = re.fullmatch(r"\{\{\s*(\w+)\s*(\|\s*dict2items\s*)?\}\}", raw.strip())
        if not found:
            return None
        as_dict = as_dict or bool(found.group(2))
        raw = variables.get(found.group(1))
    if as_dict and hasattr(raw, "items"):
        if isinstance(item, dict) and item.get("key") in raw:
            return {"key": item["key"], "value": raw[item["key"]]}
        return None
    for each in raw if isinstance(raw, list) else []:
        try:
            if (templar.template(each) if templar.is_template(each) else each) == item:
                return each
        except Exception:
            continue
    return None


def with_raw_item(variables, item):
    return variables if item is None else dict(variables, **{variables["ansible_loop_var"]: item})


def texts(value):
    if isinstance(value, str):
        yield value
    elif hasattr(value, "items"):
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from texts(each)


def used_of_item(environment, values, name, item):
    """Those parts of a loop's item that texts name: of `{regexp: …, line: …}` maybe one."""
    used = []
    for text in texts(values):
        try:
            tree = environment.parse(text)
        except Exception:  # its own error is reported when the text is used
            continue
        whole = sum(1 for node in tree.find_all(nodes.Name) if node.name == name)
        for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
            of_item = isinstance(node.node, nodes.Name) and node.node.name == name
            if of_item and isinstance(item, dict) and isinstance(attribute(node), str):
                whole -= 1
                used.append(item.get(attribute(node)))
        if whole > 0:
            return [item]
    return used


def place_of(task, environment, variables, raw, values, item):
    """Names of variables that decide where a task writes and how often, not what.

    `item` is the loop's item as the playbook wrote it, `None` when unknown.
    """
    loop_var = variables.get("ansible_loop_var")
    where = [value for key, value in raw.items() if key not in values]
    closure = Closure(environment, {k: v for k, v in variables.items() if k != loop_var})
    closure.value(where)
    if item is not None:
        closure.value(used_of_item(environment, where, loop_var, item))
    names = set(closure.names())
    if task.loop is not None:
        loop = Closure(environment, variables)
        loop.value(task.loop)
        # Of a known item only the list that it is in is left to be named.
        named = set(re.findall(r"\w+", sole(task.loop))) if isinstance(sole(task.loop), str) else set()
        names.update(name for name in loop.names() if item is None or name in named)
    return sorted(names - loop_names(task, variables))


def when_of(task, environment, variables):
    closure = Closure(environment, variables)
    for condition in task.when or []:
        closure.expression(str(condition))
    return closure.names()


def own_names(task, closure):
    """The same text with names of its own for what only this turn of a loop means by them."""
    local = {name for name in loop_names(task, closure.variables) if name in closure.found}
    if not local:
        return {}
    pattern = re.compile(r"\b(%s)\b" % "|".join(sorted(local)))
    grown = True
    while grown:
        grown = False
        for name, value in closure.found.items():
            if name not in local and isinstance(value, str) and pattern.search(value):
                local.add(name)
                pattern = re.compile(r"\b(%s)\b" % "|".join(sorted(local)))
                grown = True
    try:
        text = json.dumps({name: encode(closure.found[name]) for name in sorted(local)})
    except Unportable:
        return {}
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    return {name: "%s_%s" % (name, mark) for name in local}


def renamed(environment, value, names):
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        return rename(environment, value, names) or value
    if isinstance(value, dict):
        return {key: renamed(environment, each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [renamed(environment, each, names) for each in value]
    return value


def record_edit(handler, raw, variables, result):
    task = handler._task
    module = task.action.rpartition(".")[2]
    args = task.args
    path = result.get("dest") or result.get("path") or next((args[p] for p in PATHS if args.get(p)), None)
    event = {
        "event": "edit",
        "module": module,
        "dest": str(path) if path else "",
        "task": task.get_name(),
        "notify": [str(name) for name in (task.notify or [])],
        "validate": args.get("validate"),
        "no_log": bool(task.no_log),
    }
    looked_up = list(tiffin_lookups.answers)
    templar = Templar(loader=handler._loader, variables=variables)
    item = raw_item(task, templar, variables)
    variables = with_raw_item(variables, item)
    environment = environment_of(templar)
    keys = [key for key in VALUES.get(module, ()) if key in raw]
    closure = Closure(environment, variables)
    for key in keys if module in VALUES else raw:
        closure.value(raw[key])
    lookups = tiffin_lookups.add(closure, looked_up)
    fixed = loop_names(task, variables)
    own = set(closure.names())
    # An item that was rendered before it could be seen: the variables behind it are lost.
    loop = [task.loop] if task.loop is not None and own & fixed else []
    if own - fixed or any("{{" in str(variables.get(name)) for name in fixed) or names_of(environment, variables, loop):
        names = own_names(task, closure)
        found = closure.encoded()
        found = {names.get(k, k): renamed(environment, v, names) for k, v in found.items()}
        event.update(
            variables=dict(found, **lookups),
            bound=tiffin_lookups.bound(closure),
            missing=sorted(closure.missing),
            dynamic=sorted(closure.dynamic),
            place=place_of(task, environment, variables, raw, keys, item),
            when=when_of(task, environment, variables),
        )
        if keys:
            event["raw"] = renamed(environment, encode(raw[keys[0]]), names)
            event["value"] = encode_plain(args.get(keys[0]))
            event["args"] = {k: encode_plain(v) for k, v in args.items() if k not in keys and not k.startswith("_")}
    record(event)


def encode_plain(value):
    """A rendered argument: nothing in it is looked at again."""
    if isinstance(value, dict):
        return {str(k): encode_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)
