"""Modules come into the box with their code compiled, a third less work for each of them.

The archive that Ansible makes of a module holds source text, which the box's Python would compile
anew for every task. The code that this machine's Python compiled when Ansible was installed is put
beside it. An interpreter of another version passes over that and compiles, as without it.
"""

import importlib.util
import os
import types
import zipfile

import ansible
from ansible.executor import module_common

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(ansible.__file__)))
# Of a .pyc that is used without looking at its source's date (PEP 552).
UNCHECKED = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)


def compiled(name, source):
    """What was compiled from just this source of Ansible's, if there is such."""
    path = os.path.join(ROOT, name)
    try:
        with open(path, "rb") as file:
            if file.read() != source:
                return None
            stat = os.fstat(file.fileno())
        with open(importlib.util.cache_from_source(path), "rb") as file:
            kept = file.read()
    except (OSError, NotImplementedError):
        return None
    fresh = importlib.util.MAGIC_NUMBER + bytes(4) + b"".join(
        (number & 0xFFFFFFFF).to_bytes(4, "little") for number in (int(stat.st_mtime), stat.st_size))
    return UNCHECKED + kept[16:] if kept[:16] == fresh else None


class Archive(zipfile.ZipFile):
    def writestr(self, name, data, *args, **kwargs):
        super().writestr(name, data, *args, **kwargs)
        path = name.filename if isinstance(name, zipfile.ZipInfo) else name
        code = compiled(path, data.encode() if isinstance(data, str) else data) if path.endswith(".py") else None
        if code:
            super().writestr(path + "c", code)


def install():
    """Before the workers fork."""
    own = types.ModuleType("zipfile")
    own.__dict__.update(vars(zipfile), ZipFile=Archive)
    module_common.zipfile = own
