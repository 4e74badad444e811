"""Prepares the database: run before each new version starts, harmless when repeated."""

from . import settings
from .store import Store

if __name__ == "__main__":
    Store(settings.load()).migrate()
    print("The database is up to date.", flush=True)
