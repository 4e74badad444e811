#!/usr/bin/python3
"""Writes cases/NAME.expected from cases/NAME.yaml with the installed Ansible.

With --stream, reads one JSON case a line and writes Ansible's answer a line instead
({"text": …} or {"error": …}), for comparing many templates at once.
"""
import json
import pathlib
import sys

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import AnsibleEnvironment, Templar
from ansible.utils.unsafe_proxy import wrap_var


def mark(value):
    """Reads the contract's way to write unsafe text."""
    if isinstance(value, dict):
        if set(value) == {'__ansible_unsafe'}:
            return wrap_var(value['__ansible_unsafe'])
        return {key: mark(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mark(item) for item in value]
    return value


def render(case):
    variables = mark(case.get('variables') or {})
    variables.setdefault('vars', dict(variables))
    templar = Templar(loader=DataLoader(), variables=variables)
    templar = templar.copy_with_new_env(environment_class=AnsibleEnvironment)
    includes = case.get('includes')
    if includes:
        from jinja2 import DictLoader
        templar.environment.loader = DictLoader(includes)
    for name, value in (case.get('options') or {}).items():
        setattr(templar.environment, name, value)
    return templar.do_template(case['template'], preserve_trailing_newlines=True, escape_backslashes=False)


def main():
    if '--stream' in sys.argv:
        for line in sys.stdin:
            try:
                answer = {'text': str(render(json.loads(line)))}
            except Exception as error:
                answer = {'error': '%s: %s' % (type(error).__name__, error)}
            print(json.dumps(answer), flush=True)
        return
    for path in sorted(pathlib.Path(__file__).parent.joinpath('cases').glob('*.yaml')):
        # Through JSON, as variables reach the box.
        case = json.loads(json.dumps(yaml.safe_load(path.read_text())))
        path.with_suffix('.expected').write_text(str(render(case)))


if __name__ == '__main__':
    main()
