"""Redis by its URL, for the store and for the queue: a server, or sentinels.

redis:// and rediss:// are known to all that speaks Redis. Sentinels have no URL of their own
that both redis-py and celery know; here it is
sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/?master=NAME[&tls=true][&sentinel_password=…].
"""

import ssl
from urllib.parse import parse_qs, unquote, urlsplit

from redis import Redis
from redis.sentinel import Sentinel

# Seconds that a server may be silent.
SILENCE = 3


class Sentinels:
    def __init__(self, url):
        parts = urlsplit(url)
        self.user, _, hosts = parts.netloc.rpartition("@")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        each = [urlsplit(f"//{host}") for host in hosts.split(",")]
        self.hosts = [(one.hostname, one.port or 26379) for one in each]
        self.master = query["master"]
        self.tls = query.get("tls") == "true"
        # What the sentinels themselves want.
        self.own = {"socket_timeout": SILENCE, "socket_connect_timeout": SILENCE}
        if self.tls:
            self.own["ssl"] = True
        if "sentinel_password" in query:
            self.own["password"] = query["sentinel_password"]

    def client(self, database):
        name, _, password = self.user.partition(":")
        sentinel = Sentinel(
            self.hosts,
            sentinel_kwargs=self.own,
            username=unquote(name) or None,
            password=unquote(password) or None,
            db=database,
            ssl=self.tls,
            socket_timeout=SILENCE,
            socket_connect_timeout=SILENCE,
        )
        return sentinel.master_for(self.master)

    def broker(self, database):
        user = f"{self.user}@" if self.user else ""
        return ";".join(
            f"sentinel://{user}{f'[{host}]' if ':' in host else host}:{port}/{database}" for host, port in self.hosts
        )


def client(url, database):
    """A client of that database."""
    if url.startswith("sentinel:"):
        return Sentinels(url).client(database)
    return Redis.from_url(f"{url.rstrip('/')}/{database}", socket_timeout=SILENCE)


def broker(url, database, options):
    """What celery is configured with for its queue to be in that database, with these transport options."""
    found = {"broker_url": f"{url.rstrip('/')}/{database}", "broker_transport_options": options}
    tls = url.startswith("rediss:")
    if url.startswith("sentinel:"):
        sentinels = Sentinels(url)
        tls = sentinels.tls
        found["broker_url"] = sentinels.broker(database)
        found["broker_transport_options"] = options | {
            "master_name": sentinels.master,
            "sentinel_kwargs": sentinels.own,
        }
    if tls:
        # Celery would take any certificate otherwise.
        found["broker_use_ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return found
