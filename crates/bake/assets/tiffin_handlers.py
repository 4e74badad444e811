"""What a play's handlers do to services, whether they ran or not."""

import re
import shlex

from ansible.template import Templar

from tiffin_closure import Closure, environment_of
from tiffin_records import record

SERVICE_MODULES = {"service", "systemd", "systemd_service", "sysvinit", "supervisorctl"}
RELOAD = {"reload", "reloaded", "force-reload", "reload-or-restart", "try-reload-or-restart"}
RESTART = {"restart", "restarted", "try-restart", "condrestart"}
SHELL = {"command", "shell", "raw"}


def action_of(state):
    return "reload" if state in RELOAD else "restart" if state in RESTART else None


def of_module(module, args):
    """(service, what happens) of one service task."""
    name = args.get("name") or args.get("service") or args.get("unit")
    state = str(args.get("state") or "")
    action = action_of(state)
    if module == "supervisorctl" and state == "signalled" and str(args.get("signal")).upper() in ("HUP", "SIGHUP"):
        action = "reload"
    if not name or not action:
        return []
    names = name if isinstance(name, list) else [name]
    return [(service_name(str(each)), action) for each in names]


def service_name(name):
    """`nginx.service`, and supervisor's `group:*` and `group:program`."""
    if name.endswith(".service"):
        return name[: -len(".service")]
    group, colon, program = name.partition(":")
    return program if colon and program not in ("", "*") else group


def of_command(line):
    """`systemctl reload nginx`, `service nginx restart`, `supervisorctl restart app` on a command line."""
    if re.search(r"[;&|<>$`\n]", line):
        return []
    try:
        words = [word for word in shlex.split(line) if not word.startswith("-")]
    except ValueError:
        return []
    program = words[0].rpartition("/")[2] if words else ""
    if program in ("systemctl", "supervisorctl") and len(words) > 2 and action_of(words[1]):
        return [(service_name(name), action_of(words[1])) for name in words[2:]]
    if program in ("service", "invoke-rc.d") and len(words) == 3 and action_of(words[2]):
        return [(service_name(words[1]), action_of(words[2]))]
    return []


def effects(task, templar):
    module = task.action.rpartition(".")[2]
    if module in SERVICE_MODULES:
        return of_module(module, templar.template(task.args, fail_on_undefined=False))
    if module in SHELL:
        line = task.args.get("_raw_params") or task.args.get("cmd")
        return of_command(str(templar.template(line, fail_on_undefined=False))) if line else []
    return []


def items_of(task, templar):
    """A loop's items; one `None` without a loop."""
    if task.loop is None:
        return [None]
    items = templar.template(task.loop, fail_on_undefined=False)
    if isinstance(items, dict):
        return [{"key": key, "value": value} for key, value in items.items()]
    flat = []
    for item in items if isinstance(items, list) else []:
        flat.extend(item if isinstance(item, list) and task.loop_with == "items" else [item])
    return flat


def names_of(task, templar):
    names = [task.get_name(include_role_fqcn=fqcn) for fqcn in (False, True)] + [task.name]
    names = [templar.template(name, fail_on_undefined=False) for name in names if name]
    return sorted(set(str(name) for name in names))


def tasks_of(blocks):
    for block in blocks:
        if hasattr(block, "block"):
            yield from tasks_of(block.block)
        else:
            yield block


def is_met(task, templar):
    if hasattr(task, "evaluate_conditional"):
        return task.evaluate_conditional(templar, templar.available_variables)
    return all(templar.evaluate_conditional(condition) for condition in task.when)


def describe(task, variables, loader):
    templar = Templar(loader=loader, variables=variables)
    found = []
    variable = getattr(task.loop_control, "loop_var", None) or "item"
    for item in items_of(task, templar):
        if item is not None:
            templar = Templar(loader=loader, variables=dict(variables, **{variable: item}))
        try:
            if not is_met(task, templar):
                continue
        except Exception:  # it asks for what only a run knows: it may well act
            pass
        found += effects(task, templar)
    listen = task.listen if isinstance(task.listen, list) else [task.listen] if task.listen else []
    return {
        "names": names_of(task, templar),
        "listen": [str(templar.template(topic, fail_on_undefined=False)) for topic in listen],
        "module": task.action.rpartition(".")[2],
        "effects": [{"service": service, "action": action} for service, action in dict.fromkeys(found)],
    }


def record_play(strategy, iterator, expressions):
    play = iterator._play
    hosts = strategy._inventory.get_hosts(play.hosts)
    host = hosts[0] if hosts else None
    handlers = []
    for task in tasks_of(play.handlers):
        if task.action in ("meta", "ansible.builtin.meta"):
            continue
        variables = strategy._variable_manager.get_vars(play=play, host=host, task=task)
        try:
            handlers.append(describe(task, variables, strategy._loader))
        except Exception as problem:
            handlers.append({"names": [str(task.name)], "listen": [], "module": task.action, "effects": [], "problem": str(problem)})
    variables = strategy._variable_manager.get_vars(play=play, host=host)
    closure = Closure(environment_of(Templar(loader=strategy._loader, variables=variables)), variables)
    for text in expressions:
        closure.text(text)
    record({"event": "play", "handlers": handlers, "expressions": closure.encoded()})


def install(expressions):
    from ansible.plugins.strategy import StrategyBase

    run = StrategyBase.run

    # Every strategy ends in this one, when all tasks and handlers have run and roles that
    # were included on the way have brought their handlers.
    def finished(self, iterator, play_context, result=0):
        record_play(self, iterator, expressions)
        return run(self, iterator, play_context, result)

    StrategyBase.run = finished
