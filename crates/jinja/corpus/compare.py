#!/usr/bin/python3
"""Renders every template of a folder of role repositories with Ansible and with the crate.

  corpus/compare.py FOLDER [--python PYTHON] [--render EXAMPLE] [--report FILE] [--jobs N]

PYTHON is one that can import Ansible (the default is this one; a current ansible-core
lives in a venv). Every template is rendered up to three times:

  defaults   the role's defaults and vars, the repository's group_vars/all, corpus/facts.json
  filled     and a made-up value for every name that is not set, or empty (corpus/shapes.py)
  flipped    and every boolean turned round

What Ansible refuses is no case. For the others the answer is identical, differs, or is an
error of the crate; the report counts them, and lists causes. Exit 1 when anything differs.
"""
import argparse
import collections
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
VARIANTS = ("defaults", "filled", "flipped")


def load(path):
    """A file of variables, as the contract would hold it."""
    import yaml
    from ansible.parsing.dataloader import DataLoader
    from ansible.parsing.yaml.objects import AnsibleVaultEncryptedUnicode
    from ansible.utils.unsafe_proxy import AnsibleUnsafe

    def plain(value):
        if isinstance(value, AnsibleVaultEncryptedUnicode):
            return "vaulted"
        if isinstance(value, AnsibleUnsafe):
            return {"__ansible_unsafe": str.__str__(value)}
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            return [plain(item) for item in value]
        if hasattr(value, "isoformat"):
            return {"__ansible_unsafe": str(value)}
        return value

    try:
        found = DataLoader().load_from_file(str(path), cache=False, unsafe=False)
        json.dumps(plain(found), allow_nan=False)
    except Exception:
        return {}
    del yaml
    return plain(found) if isinstance(found, dict) else {}


def variables_of(folder, name):
    """NAME.yml, NAME.yaml, NAME, and what lies in a folder of that name."""
    out = {}
    for path in sorted(folder.glob(name + "*")) + sorted(folder.glob(name + "/**/*")):
        if path.is_file() and path.suffix in (".yml", ".yaml", "") and path.stem in (name, path.stem):
            if path.parent == folder and path.stem != name:
                continue
            out.update(load(path))
    return out


def repositories(root):
    return sorted(path for path in root.iterdir() if path.is_dir())


def group_vars(repository):
    out = {}
    for folder in sorted(repository.rglob("group_vars")):
        if folder.is_dir() and "molecule" not in folder.parts and "tests" not in folder.parts:
            out.update(variables_of(folder, "all"))
    return out


def templates(repository):
    for path in sorted(repository.rglob("*")):
        if not path.is_file() or path.is_symlink() or ".git" in path.parts:
            continue
        parents = [parent for parent in path.parents if parent.name == "templates"]
        if path.suffix not in (".j2", ".jinja2", ".jinja") and not (parents and (parents[-1].parent / "tasks").is_dir()):
            continue
        if "collections" in path.relative_to(repository).parts and "ansible_collections" in path.parts:
            continue
        try:
            text = path.read_text()
        except (UnicodeDecodeError, OSError):
            continue
        if len(text) > 200_000:
            continue
        yield path, (parents[-1] if parents else path.parent), text


OPTIONS = """newline_sequence block_start_string block_end_string variable_start_string variable_end_string
    comment_start_string comment_end_string trim_blocks lstrip_blocks""".split()


def header(text):
    """The options of a `#jinja2:` line, and the text without it."""
    if not text.startswith("#jinja2:"):
        return {}, text
    line, _, rest = text.partition("\n")
    options = {}
    for pair in line[len("#jinja2:"):].split(","):
        key, _, value = pair.partition(":")
        value = value.strip()
        if key.strip() in OPTIONS:
            options[key.strip()] = {"True": True, "False": False}.get(value, value.strip("'\""))
    return options, rest


TAG = re.compile(r"\{%[-+]?\s*(?:include|import|extends|from)\s+([^%]*)%\}|lookup\(\s*['\"]template['\"]\s*,([^)]*)\)")


def includes(path, folder, text):
    """Texts that the template includes, by every name that finds them, transitively."""
    if not TAG.search(text):
        return {}
    texts = {}
    for base in (folder, path.parent):
        for other in sorted(base.rglob("*")):
            if other.is_file() and other.stat().st_size < 200_000:
                try:
                    texts[str(other.relative_to(base))] = other.read_text()
                except (UnicodeDecodeError, OSError):
                    pass
    for name in list(texts):
        if (folder / name).is_file():
            texts.setdefault("templates/" + name, texts[name])
    found, waiting = {}, [text]
    while waiting:
        mentioned = ["".join(match) for match in TAG.findall(waiting.pop())]
        for name, other in texts.items():
            # A name that is computed could be any of them.
            if name not in found and any(name in mention or not re.search("['\"]", mention) for mention in mentioned):
                found[name] = other
                waiting.append(other)
    return found


def parser_of():
    from ansible.template import AnsibleEnvironment, Templar
    from ansible.parsing.dataloader import DataLoader
    templar = Templar(loader=DataLoader(), variables={}).copy_with_new_env(environment_class=AnsibleEnvironment)
    return templar.environment


def usage(environment, text, options, variables, others):
    from shapes import Usage
    environment = environment.overlay(**{k: v for k, v in options.items() if k != "newline_sequence"})
    found, done = Usage(), set()
    for source in [text, *others]:
        try:
            found.add(environment.parse(source))
        except Exception:
            pass
    waiting = list(found.names)
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        for source in strings(variables.get(name)):
            if "{{" in source or "{%" in source:
                before = set(found.names)
                try:
                    found.add(environment.parse(source))
                except Exception:
                    continue
                waiting.extend(set(found.names) - before)
    return found


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and "__ansible_unsafe" not in value:
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


GLOBALS = set("lookup query q now range dict namespace joiner cycler lipsum undef vars hostvars loop caller self omit super".split())


def filled(variables, found):
    out = dict(variables)
    for name, shape in sorted(found.names.items()):
        if name in GLOBALS:
            continue
        if name == "groups":
            out["groups"] = dict(out["groups"])
            for group in shape.attributes:
                out["groups"].setdefault(group, ["box"])
        elif name not in out or out[name] in ("", None, [], {}):
            out[name] = shape.value(name)
    return out


def flipped(variables, found):
    out = {}
    for name, value in variables.items():
        flip = isinstance(value, bool) or isinstance(value, str) and value.lower() in ("yes", "no", "true", "false")
        if flip and name in found.names:
            value = not value if isinstance(value, bool) else {"yes": "no", "no": "yes", "true": "false", "false": "true"}[value.lower()]
        out[name] = value
    return out


def closure(variables, found):
    """What the template could touch: all is kept when it asks for everything."""
    if {"vars", "hostvars", "lookup", "query", "q"} & set(found.names):
        return variables
    return {name: value for name, value in variables.items() if name in found.names or name in ("omit", "inventory_hostname")}


def cases(root, only, version):
    environment = parser_of()
    facts = json.loads((HERE / "facts.json").read_text())
    facts["ansible_version"] = version
    facts["ansible_facts"] = {name.removeprefix("ansible_"): value for name, value in facts.items() if name.startswith("ansible_")}
    for repository in repositories(root):
        if only and only not in repository.name:
            continue
        shared = {**facts, **group_vars(repository)}
        roles = {}
        for path, folder, text in templates(repository):
            role = folder.parent
            if role not in roles:
                roles[role] = {**shared, **variables_of(role / "defaults", "main"), **variables_of(role / "vars", "main"),
                               "role_name": role.name, "ansible_role_name": role.name, "role_path": "/srv/playbooks/roles/" + role.name}
            name = str(path.relative_to(root))
            options, body = header(text)
            variables = {**roles[role], "template_path": "/srv/playbooks/" + name, "template_fullpath": "/srv/playbooks/" + name}
            texts = includes(path, folder, body)
            found = usage(environment, body, options, variables, texts.values())
            looked_up = [each for used in found.names for each in strings(variables.get(used)) if TAG.search(each)]
            if looked_up:
                texts = {**includes(path, folder, "\n".join(looked_up)), **texts}
                found = usage(environment, body, options, variables, texts.values())
            more = filled(variables, found)
            seen = set()
            for variant, values in zip(VARIANTS, (variables, more, flipped(more, found))):
                values = closure(values, found)
                key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
                if key in seen:
                    continue
                seen.add(key)
                yield {"name": name, "repository": repository.name, "variant": variant, "template": body,
                       "variables": values, "includes": texts, "options": options}


class Engine:
    """A process that answers one line for each line."""

    def __init__(self, command):
        self.command = command
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, case):
        line = json.dumps({key: case[key] for key in ("template", "variables", "includes", "options")})
        timer = threading.Timer(60, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        timer.cancel()
        if not answer:
            self.process.kill()
            self.process.wait()
            self.start()
            return {"error": "died"}
        return json.loads(answer)


def refusal(error):
    """Why Ansible did not render a case."""
    if "Could not load" in error or "No filter named" in error or "plugin" in error and "not found" in error:
        return "a plugin of the project's own"
    if "ndefined" in error or "has no attribute" in error or "has no element" in error:
        return "an undefined value"
    return "another error"


def cause(error):
    """An error without what is particular to one template."""
    error = re.sub(r"^cannot render [^:]*: ", "", error)
    error = re.sub(r" \(in the variable .*", "", error)
    error = re.sub(r"the attribute \S+ of", "an attribute of", error)
    error = re.sub(r"\S+ is undefined", "… is undefined", error)
    return re.sub(r", which .*", "", error)[:120]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--render", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release/examples/render")
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("--answers", type=pathlib.Path, help="keeps Ansible's answers here, so that a second run only asks the crate")
    parser.add_argument("--only", help="part of a repository's name")
    parser.add_argument("--show", type=int, default=3, help="differences and errors to print for each cause")
    arguments = parser.parse_args()
    saved = arguments.answers
    program = "from ansible.release import __version__; print(__version__)"
    text = subprocess.run([arguments.python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    numbers = [int(part) for part in re.findall(r"\d+", text)[:3]]
    version = dict(zip(("major", "minor", "revision"), numbers), full=text, string=text)
    if saved and saved.exists():
        answers = (json.loads(line) for line in saved.open())
    else:
        ansible = Engine([arguments.python, str(HERE.parent / "tests/expected.py"), "--stream"])
        answers = ((case, ansible.ask(case)) for case in cases(arguments.folder, arguments.only, version))
    crate = Engine([arguments.render])
    out = saved.open("w") if saved and not saved.exists() else None
    counts = collections.defaultdict(collections.Counter)
    files, sources, causes, failures = set(), set(), collections.defaultdict(list), collections.Counter()
    for case, theirs in answers:
        if out:
            out.write(json.dumps([case, theirs]) + "\n")
        if arguments.only and arguments.only not in case["repository"]:
            continue
        label = "%s (%s)" % (case["name"], case["variant"])
        count = counts[case["variant"]]
        if "text" not in theirs:
            count["refused by Ansible"] += 1
            failures[refusal(theirs["error"])] += 1
            continue
        files.add(case["name"])
        sources.add(case["repository"])
        # What the builder would keep of lookups; a password is a secret, which it would not.
        kept = [entry for entry in theirs.get("lookups", []) if entry["name"] != "password"]
        case["variables"] = {"ansible_version": version, **case["variables"]}
        if kept:
            case["variables"] = {**case["variables"], "(lookups)": kept}
        ours = crate.ask(case)
        if "the lookup `password` makes a secret" in ours.get("error", ""):
            # Such a variable is a setting in a box: the same again with its value given.
            case["variables"]["(lookups)"] = theirs["lookups"]
            given = crate.ask(case)
            count["identical with passwords given"] += given.get("text") == theirs["text"]
        if "error" in ours:
            count["error"] += 1
            causes["error: " + cause(ours["error"])].append((label, ours["error"]))
        elif ours["text"] == theirs["text"]:
            count["identical"] += 1
        else:
            count["differ"] += 1
            pairs = zip(ours["text"].split("\n") + ["<end>"], theirs["text"].split("\n") + ["<end>"])
            first = next((f"here    {a!r}\n      Ansible {b!r}" for a, b in pairs if a != b), "length")
            causes["differs"].append((label, first))
    total = sum(counts.values(), collections.Counter())
    rendered = total["identical"] + total["differ"] + total["error"]
    lines = ["%d templates of %d repositories; %d renders that Ansible did" % (len(files), len(sources), rendered), ""]
    lines += ["| variables | identical | differ | error | refused by Ansible |", "| --- | --- | --- | --- | --- |"]
    for variant, count in list(counts.items()) + [("all", total)]:
        done = count["identical"] + count["differ"] + count["error"]
        lines.append("| %s | %d of %d (%.2f %%) | %d | %d | %d |" % (
            variant, count["identical"], done, 100 * count["identical"] / max(done, 1), count["differ"], count["error"],
            count["refused by Ansible"]))
    lines.append("")
    for name, found in sorted(causes.items(), key=lambda item: -len(item[1])):
        lines.append("%d × %s" % (len(found), name))
        lines += ["    %s\n      %s" % pair for pair in found[:arguments.show]]
    lines.append("%d renders are identical once their passwords are given as settings" % total["identical with passwords given"])
    lines.append("not rendered by Ansible here: %s" % ", ".join("%s %d" % item for item in failures.most_common()))
    text = "\n".join(lines)
    print(text)
    if arguments.report:
        arguments.report.write_text(text + "\n")
    return 1 if total["differ"] else 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
