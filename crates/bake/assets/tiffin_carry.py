"""What tasks of lower layers left in Ansible's memory, for the tasks of later ones.

A layer is a run of Ansible of its own. Registered results, set facts, included variables and
gathered facts of the layers below must be there when it begins, whether these ran in the same
build or came from the cache. So they are recorded at the end of each play, kept with the
layer, and put back where Ansible itself has them, which gives them their usual precedence.

Handlers need nothing of the kind: they run at the end of the play that notified them, and
what they did is in that layer.
"""

import datetime
import json
import os

from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.plugins.strategy import StrategyBase

from tiffin_records import record

try:  # since ansible-core 2.19
    from ansible._internal._datatag._tags import TrustedAsTemplate
    from ansible.template import trust_as_template

    def is_template(text):
        return TrustedAsTemplate.is_tagged_on(text)

    def as_template(text):
        return trust_as_template(text)

    def as_text(text):
        return text
except ImportError:
    from ansible.utils.unsafe_proxy import AnsibleUnsafe, wrap_var

    def is_template(text):
        return not isinstance(text, AnsibleUnsafe)

    def as_template(text):
        return text

    def as_text(text):
        return wrap_var(text)

# bake::ansible's name of the one host.
HOST = "box"
# What a text must have in it for the difference between template and text to matter.
MARKS = ("{{", "{%", "{#")
TEMPLATE = "__tiffin_template"
PAIRS = "__tiffin_pairs"


def encoded(value):
    """As JSON, with what it cannot say: what is a template, and keys that are no text."""
    if isinstance(value, str):
        text = str.__str__(value)
        return {TEMPLATE: text} if any(mark in text for mark in MARKS) and is_template(value) else text
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if hasattr(value, "items"):
        pairs = [(key, encoded(each)) for key, each in value.items()]
        if all(isinstance(key, str) for key, _ in pairs):
            return {str.__str__(key): each for key, each in pairs}
        return {PAIRS: [[key, each] for key, each in pairs]}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [encoded(each) for each in value]
    raise TypeError(type(value).__name__)


def decoded(value):
    if isinstance(value, str):
        return as_text(value) if any(mark in value for mark in MARKS) else value
    if isinstance(value, list):
        return [decoded(each) for each in value]
    if isinstance(value, dict):
        if set(value) == {TEMPLATE}:
            return as_template(value[TEMPLATE])
        if set(value) == {PAIRS}:
            return {key: decoded(each) for key, each in value[PAIRS]}
        return {key: decoded(each) for key, each in value.items()}
    return value


def of_host(cache):
    try:
        return cache.get(HOST) or {}
    except KeyError:  # a cache plugin, since ansible-core 2.19
        return {}


def kept(variables):
    found = {}
    for name, value in dict(variables).items():
        try:
            found[str(name)] = encoded(value)
        except TypeError:  # no module answers such a thing; whoever asks for it finds it undefined
            pass
    return found


def record_state(manager):
    state = {
        "facts": kept(of_host(manager._fact_cache)),
        "included": kept(of_host(manager._vars_cache)),
        "set": kept(of_host(manager._nonpersistent_fact_cache)),
    }
    if any(state.values()):
        record({"event": "state", "text": json.dumps(state)})


def give_back(manager, state):
    if state["facts"]:
        manager.set_host_facts(HOST, decoded(state["facts"]))
    for name, value in state["included"].items():
        manager.set_host_variable(HOST, name, decoded(value))
    if state["set"]:
        manager.set_nonpersistent_facts(HOST, decoded(state["set"]))


def install():
    path = os.environ.get("TIFFIN_CARRIED")
    waiting = []
    if path:
        with open(path, encoding="utf-8") as text:
            waiting.append(json.load(text))

    run_play = TaskQueueManager.run

    def begun(self, play):
        if waiting:
            give_back(self._variable_manager, waiting.pop())
        return run_play(self, play)

    TaskQueueManager.run = begun

    run = StrategyBase.run

    def finished(self, iterator, play_context, result=0):
        answer = run(self, iterator, play_context, result)
        record_state(self._variable_manager)
        return answer

    StrategyBase.run = finished
