"""Prepares the database: run before each new version starts, harmless when repeated.

With --check it only says whether that is done, by its exit code.
"""

import sys

from . import settings
from .store import Store

if __name__ == "__main__":
    store = Store(settings.load())
    if "--check" in sys.argv[1:]:
        sys.exit(None if store.is_migrated() else "The database is not up to date.")
    store.migrate()
    print("The database is up to date.", flush=True)
