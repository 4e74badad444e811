"""mongod on the data of this machine, for one program alone: without passwords, and reachable
through a socket in a private directory only."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure


def wait(open_client, seconds, alive=lambda: True):
    """The server's version, once it answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with open_client() as client:
                return client.server_info()["version"]
        except ConnectionFailure:
            if not alive():
                raise SystemExit("mongod ended before it answered") from None
            if time.monotonic() > deadline:
                raise SystemExit(f"mongod did not answer within {seconds} s") from None
            time.sleep(0.1)


def _end(*_):
    raise SystemExit("it was told to end")


@contextlib.contextmanager
def alone(mongod, data_dir, seconds, options=()):
    """A client of it. However the program ends, short of SIGKILL, the server is stopped first."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        folder = tempfile.TemporaryDirectory()
    except FileNotFoundError:  # no writable /tmp
        folder = tempfile.TemporaryDirectory(dir=data_dir)
    with folder as private:
        socket, log = os.path.join(private, "only.sock"), os.path.join(private, "log")
        command = [mongod, "--dbpath", data_dir, "--noauth", "--bind_ip", socket]
        command += ["--unixSocketPrefix", private, "--filePermissions", "0700", "--logpath", log, *options]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def client():
            url = f"mongodb://{quote(socket, safe='')}"
            return MongoClient(url, directConnection=True, serverSelectionTimeoutMS=1000)

        try:
            try:
                wait(client, seconds, lambda: server.poll() is None)
            except SystemExit:
                with open(log, encoding="utf-8", errors="replace") as file:
                    sys.stderr.writelines(file.readlines()[-10:])
                raise
            with client() as connection:
                yield connection
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            server.terminate()
            server.wait()
            signal.signal(signal.SIGTERM, before)
