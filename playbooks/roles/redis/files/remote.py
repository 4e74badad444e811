"""The way to a Redis by its URL, which may be that of sentinels.

redis://[[USER]:PASSWORD@]HOST[:PORT], rediss:// with TLS, and, for the server that sentinels call
the master NAME at the moment, sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/?master=NAME, with
tls=true for TLS to all of them and sentinel_password=… for the sentinels' own password.
"""

import socket
import ssl
from urllib.parse import parse_qs, unquote, urlsplit

import resp
from resp import Refused


def connect(url, seconds, silence, kind=resp.Connection):
    """A connection of that kind to the server, which has taken the password. Its `name` is the
    server's address. It may take so many seconds, and the server be silent for so long."""
    try:
        scheme, query, words, hosts = _parts(url)
    except ValueError as error:
        raise Refused(f"the URL of the new server is wrong: {error}") from None
    if scheme not in ("redis", "rediss", "sentinel") or not all(host for host, _ in hosts):
        raise Refused("the URL of the new server is none of redis://, rediss:// and sentinel://")
    tls = scheme == "rediss" or query.get("tls") == "true"

    def enter(address, words):
        return _enter(address, words, _context(query) if tls else None, seconds, silence, kind)

    if scheme != "sentinel":
        return enter(hosts[0], words)
    if "master" not in query:
        raise Refused("the URL of the sentinels does not say master=NAME")
    own = [query["sentinel_password"]] if "sentinel_password" in query else []
    problems = []
    for address in hosts:
        try:
            sentinel = enter(address, own)
            found = sentinel("SENTINEL", "GET-MASTER-ADDR-BY-NAME", query["master"])
            if found:
                server = enter((found[0].decode(), int(found[1])), words)
                if server("ROLE")[0] == b"master":
                    return server
            problems.append(f"{sentinel.name} knows no master {query['master']} that is one")
        except (Refused, OSError, EOFError) as error:
            problems.append(str(error))
    raise Refused(f"no sentinel leads to a server: {'; '.join(problems)}")


def _parts(url):
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    words = [unquote(word) for word in (name, password) if word] if password else []
    usual = 26379 if parts.scheme == "sentinel" else 6379
    each = [urlsplit(f"//{host}") for host in hosts.split(",")]
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return parts.scheme, query, words, [(one.hostname, one.port or usual) for one in each]


def _context(query):
    context = ssl.create_default_context(cafile=query.get("ssl_ca_certs"))
    if query.get("ssl_cert_reqs", "").lower() in ("none", "cert_none"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _enter(address, words, context, seconds, silence, kind):
    name = f"{address[0]}:{address[1]}"
    try:
        opened = socket.create_connection(address, timeout=seconds)
        if context:
            opened = context.wrap_socket(opened, server_hostname=address[0])
    except OSError as error:
        raise Refused(f"{name} cannot be reached: {error}") from None
    opened.settimeout(silence)
    server = kind(opened)
    server.name = name
    if words:
        try:
            server("AUTH", *words)
        except Refused as error:
            raise Refused(f"{name} does not take the password ({error})") from None
    return server
