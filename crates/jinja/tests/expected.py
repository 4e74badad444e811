#!/usr/bin/python3
"""Writes cases/NAME.expected from cases/NAME.yaml with the installed Ansible. Those with a
variable `ansible_version` are written by ansible-core 2.19 or later, all others by 2.14.

With --stream, reads one JSON case a line ({"template", "variables", "options",
"includes"}) and writes Ansible's answer a line instead ({"text": …} or {"error": …}),
for comparing many templates at once. Works with ansible-core 2.14 and 2.19 alike: the
Python that runs this decides.

With --names, writes the names that this Ansible and its Jinja know, as JSON.

Templates may come from anywhere, so no lookup reaches this machine: those that would run
a command, read or write a file or ask the network answer made-up text. What they answered
stands in "lookups", as the builder keeps it for the box.
"""
import json
import pathlib
import signal
import sys
import tempfile
import warnings

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase
from ansible.template import Templar
from ansible.utils.display import Display
from ansible.vars.hostvars import HostVars, HostVarsVars
from jinja2 import DictLoader

try:
    from ansible.template import AnsibleEnvironment
    trust_as_template = None
except ImportError:  # since 2.19
    from ansible.template import trust_as_template

# Longer than any template that means well needs on a busy machine.
SECONDS = 20


# They only compute.
HARMLESS = set("""cartesian dict flattened indexed_items items list nested sequence subelements template together
    varnames vars""".split())


class MadeUp(LookupBase):
    """Stands for a lookup that would reach this machine or the network."""

    def __init__(self, name, args, options):
        super().__init__(**{key: value for key, value in options.items() if key in ('loader', 'templar')})
        self.name, self.args, self.options = name, args, options

    def run(self, terms, variables=None, **options):
        if self.name == 'env':
            return [options.get('default', '') for _ in terms]
        if self.name == 'password':
            if str(terms[0]).startswith('/dev/null') and 'seed' in str(terms) + str(options):
                return real_lookup('password', *self.args, **self.options).run(terms, variables, **options)
            return ['Password0123456789ab' for _ in terms]
        return ['%s of %s' % (self.name, term if isinstance(term, str) else 'it') for term in terms]


class Recorded:
    """A lookup whose answers are kept."""

    def __init__(self, name, lookup, kept):
        self.name, self.lookup, self.kept = name, lookup, kept

    def __getattr__(self, name):
        return getattr(self.lookup, name)

    def run(self, terms, variables=None, **options):
        result = self.lookup.run(terms, variables, **options)
        try:
            entry = json.loads(json.dumps({'name': self.name, 'terms': terms, 'options': options, 'result': result}))
            self.kept.append(entry)
        except TypeError:
            pass
        return result


real_lookup = lookup_loader.get
kept_lookups = []
texts = {}


def careful_lookup(name, *args, **kwargs):
    plain = name.split('.')[-1]
    if plain in HARMLESS:
        return real_lookup(name, *args, **kwargs)
    return Recorded(known_as(name), MadeUp(plain, args, kwargs), kept_lookups)


def known_as(name):
    """A lookup's name as the box looks for it."""
    for collection in ('ansible.builtin.', 'ansible.legacy.', 'community.general.'):
        name = name.removeprefix(collection)
    return name


def find_included(self, variables, subdir, name, ignore_missing=False):
    """Where the lookup `template` finds a text of the case."""
    if name not in texts:
        return None
    path = pathlib.Path(folder, name.lstrip('/').replace('..', '_'))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(texts[name])
    return str(path)


class Hosts(HostVars):
    """`hostvars` of the one host; Ansible treats the type apart."""

    def __init__(self, host, variables):
        arguments = (variables, DataLoader()) + ((host,) if trust_as_template else ())
        self._entries = {host: HostVarsVars(*arguments)}

    def raw_get(self, host_name):
        return self._entries[host_name]

    def __getitem__(self, host_name):
        return self._entries[host_name]

    def __contains__(self, host_name):
        return host_name in self._entries

    def __iter__(self):
        return iter(self._entries)

    def __len__(self):
        return len(self._entries)

    def __repr__(self):
        return repr(self._entries)

    def __deepcopy__(self, memo):
        return self


def mark(value):
    """Reads the contract's way to write unsafe text."""
    if isinstance(value, dict):
        if set(value) == {'__ansible_unsafe'}:
            text = value['__ansible_unsafe']
            if trust_as_template:
                return text
            from ansible.utils.unsafe_proxy import wrap_var
            return wrap_var(text)
        return {key: mark(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mark(item) for item in value]
    if isinstance(value, str) and trust_as_template:
        return trust_as_template(value)
    return value


def render(case):
    variables = mark(case.get('variables') or {})
    variables.setdefault('vars', dict(variables))
    if 'inventory_hostname' in variables:
        variables.setdefault('hostvars', Hosts(variables['inventory_hostname'], variables))
    includes = case.get('includes') or {}
    texts.clear()
    texts.update(includes)
    options = case.get('options') or {}
    templar = Templar(loader=DataLoader(), variables=variables)
    if trust_as_template:
        templar = templar.copy_with_new_env(searchpath=['/nonexistent'], available_variables=variables)
        if includes:
            engine = templar._engine
            engine.environment.loader = DictLoader({k: trust_as_template(v) for k, v in includes.items()})
        text = templar.template(trust_as_template(case['template']), escape_backslashes=False,
                                overrides={'trim_blocks': True, **options})
        return '' if text is None else text
    templar = templar.copy_with_new_env(environment_class=AnsibleEnvironment)
    if includes:
        templar.environment.loader = DictLoader(includes)
    for name, value in options.items():
        setattr(templar.environment, name, value)
    return templar.do_template(case['template'], preserve_trailing_newlines=True, escape_backslashes=False)


class TooLong(BaseException):
    pass


def too_long(*_):
    raise TooLong


def stream():
    signal.signal(signal.SIGALRM, too_long)
    warnings.simplefilter('ignore')
    Display.warning = Display.deprecated = Display.display = lambda *_, **__: None
    for line in sys.stdin:
        signal.alarm(SECONDS)
        kept_lookups.clear()
        try:
            answer = {'text': str(render(json.loads(line)))}
            if kept_lookups:
                answer['lookups'] = list(kept_lookups)
        except TooLong:
            answer = {'error': 'TooLong: %d s' % SECONDS}
        except Exception as error:
            answer = {'error': '%s: %s' % (type(error).__name__, error)}
        signal.alarm(0)
        print(json.dumps(answer), flush=True)


def main():
    global folder
    if '--names' in sys.argv:
        return print(json.dumps(names()))
    lookup_loader.get = careful_lookup
    LookupBase.find_file_in_search_path = find_included
    with tempfile.TemporaryDirectory() as folder:
        if '--stream' in sys.argv:
            return stream()
        write_expected()


def names():
    from ansible.plugins import lookup
    from ansible.plugins.filter import core, encryption, mathstuff, urls, urlsplit
    from ansible.plugins.test import core as core_tests, files, mathstuff as math_tests, uri
    from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_NAMESPACE
    from jinja2.tests import TESTS
    filters, tests = set(DEFAULT_FILTERS), set(TESTS)
    for module in (core, encryption, mathstuff, urls, urlsplit):
        filters.update(module.FilterModule().filters())
    for module in (core_tests, files, math_tests, uri):
        tests.update(module.TestModule().tests())
    lookups = {path.stem for path in pathlib.Path(lookup.__file__).parent.glob('*.py')} - {'__init__'}
    functions = set(DEFAULT_NAMESPACE) | {'lookup', 'query', 'q', 'now', 'undef'}
    return {'filter': sorted(filters), 'test': sorted(tests), 'lookup': sorted(lookups), 'function': sorted(functions)}


def write_expected():
    for path in sorted(pathlib.Path(__file__).parent.joinpath('cases').glob('*.yaml')):
        # Through JSON, as variables reach the box.
        case = json.loads(json.dumps(yaml.safe_load(path.read_text())))
        since_219 = 'ansible_version' in (case.get('variables') or {})
        if since_219 != bool(trust_as_template):
            continue
        path.with_suffix('.expected').write_text(str(render(case)))


if __name__ == '__main__':
    main()
