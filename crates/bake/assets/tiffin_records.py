"""Where records go, and the placeholders that stand for secrets during a build."""

import fcntl
import hashlib
import json
import os
import re

EVENTS = os.environ["TIFFIN_EVENTS"]
PREFIX = "tiffin-placeholder-"
PLACEHOLDER = re.compile(PREFIX + "[0-9a-f]{24}")

# Placeholders that the current task gave to something that hides them, and to what.
hashed = set()


def record(event):
    line = (json.dumps(event) + "\n").encode()
    with open(EVENTS, "ab") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        out.write(line)


def placeholder(variable):
    """The same as in secrets.rs."""
    digest = hashlib.sha256()
    for part in (b"placeholder", variable.encode()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return PREFIX + digest.hexdigest()[:24]


def placeholders(value):
    """Those in a value, however deep."""
    if isinstance(value, str):
        return set(PLACEHOLDER.findall(value)) if PREFIX in value else set()
    if hasattr(value, "items"):
        return set().union(*(placeholders(v) for v in value.values()), *(placeholders(k) for k in value))
    if isinstance(value, (list, tuple)):
        return set().union(*(placeholders(v) for v in value))
    return set()
