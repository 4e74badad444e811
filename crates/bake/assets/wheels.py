"""Keeps the distributions that pip fetched as files that it finds again without a network.

pip's own cache holds only what servers allow to be kept, and pip asks them before it believes it.
Called with pip's log (PIP_LOG), its cache and the directory for the files: what the log says was
downloaded is taken from the cache, or else fetched once more. What is there already stays.
"""

import hashlib
import os
import re
import struct
import sys
import tempfile
import urllib.parse
import urllib.request

# A name, or the whole URL where the index and its files have different hosts.
WANTED = re.compile(r"(?:Downloading|Using cached) (\S+)")
LINK = re.compile(r"Found link (https?://[^\s#]+)(?:#sha256=([0-9a-f]{64}))?")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+!-]*\.(whl|tar\.gz|zip|tar\.bz2)$")
LARGEST = 4 << 30


def cached(cache, url):
    """What pip's cache has of it: `http-v2` as a file, `http` (pip before 23.3) inside msgpack."""
    name = hashlib.sha224(url.encode()).hexdigest()
    path = os.path.join(*name[:5], name)
    try:
        with open(os.path.join(cache, "http-v2", path + ".body"), "rb") as file:
            return file.read()
    except OSError:
        pass
    try:
        with open(os.path.join(cache, "http", path), "rb") as file:
            data = file.read()
    except OSError:
        return None
    for mark, form in ((b"\xa4body\xc6", ">I"), (b"\xa4body\xc5", ">H")):
        at = data.find(mark)
        if at >= 0:
            start = at + len(mark) + struct.calcsize(form)
            (length,) = struct.unpack(form, data[at + len(mark) : start])
            return data[start : start + length]
    return None


def fetched(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read(LARGEST)


def named(url):
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1])


def keep(url, digest, cache, into):
    name = named(url)
    path = os.path.join(into, name)
    if not NAME.match(name) or os.path.exists(path):
        return
    right = lambda data: data and (not digest or hashlib.sha256(data).hexdigest() == digest)
    data = cached(cache, url)
    if not right(data):
        data = fetched(url)
    if not right(data):
        raise ValueError("what came is not what the index says")
    handle, fresh = tempfile.mkstemp(dir=into, prefix=".tiffin-partial-")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chmod(fresh, 0o644)
    os.rename(fresh, path)


def main(log, cache, into):
    with open(log, errors="replace") as file:
        text = file.read()
    links = {named(url): (url, digest) for url, digest in LINK.findall(text)}
    lost = []
    for wanted in dict.fromkeys(WANTED.findall(text)):
        url, digest = links.get(named(wanted), (wanted, None))
        if not url.startswith(("https://", "http://")):
            continue
        try:
            keep(url, digest, cache, into)
        except (OSError, ValueError) as problem:
            lost.append("%s: %s" % (url, problem))
    sys.exit("\n".join(lost) or None)


main(*sys.argv[1:])
