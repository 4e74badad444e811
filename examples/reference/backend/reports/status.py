"""Whether each part works, for the monitoring."""

from . import __version__
from .store import HEARTBEAT


def check(probe):
    try:
        return "ok" if probe() else "down"
    except Exception:  # Whatever a part fails with, the answer is that it is down.
        return "down"


def report(store, celery):
    parts = {
        "mongodb": check(lambda: store.reports.find_one({}, {"_id": 1}) or True),
        "redis": check(store.redis.ping),
        "worker": check(lambda: celery.control.ping(timeout=2, limit=1)),
        "beat": check(lambda: store.redis.exists(HEARTBEAT)),
    }
    healthy = all(state == "ok" for state in parts.values())
    return {"status": "ok" if healthy else "down", "version": __version__, "parts": parts}
