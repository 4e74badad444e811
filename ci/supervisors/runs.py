"""A supervisor that runs in a PID namespace, and what its services say."""

import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def eventually(what, look, seconds=60.0):
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.001)


class Stamps:
    """What services say, in the order in which it arrives."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def next(self, seconds):
        """Name, event, nanoseconds, and the sender's PID as we see it."""
        self.socket.settimeout(seconds)
        text, control, _, _ = self.socket.recvmsg(256, 64)
        name, event, at = text.decode().split()
        return name, event, int(at), struct.unpack("iII", control[0][2])[0]

    def wait(self, event, names, seconds=60.0):
        """Until each has said it; times and PIDs by name."""
        found = {}
        end = time.monotonic() + seconds
        while set(names) - set(found):
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{len(found)} of {len(names)} said `{event}`")
            try:
                name, said, at, pid = self.next(left)
            except TimeoutError:
                continue
            if said == event and name in names:
                found[name] = (at, pid)
        return found


class Run:
    """A tool that runs; its output is read and thrown away, or given to `sink`."""

    def __init__(self, tool, words, sink=None):
        self.tool = tool
        self.began = time.monotonic_ns()
        isolate = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self.outer = subprocess.Popen(
            ["chrt", "-r", "10", *isolate, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )
        self.reader = threading.Thread(target=self.drain, args=(sink,), daemon=True)
        self.reader.start()
        outer = self.outer.pid
        children = f"/proc/{outer}/task/{outer}/children"
        self.pid = int(eventually(tool.name, lambda: read(children).split())[0])

    def drain(self, sink):
        fd = self.outer.stdout.fileno()
        while True:
            try:
                block = os.read(fd, 1 << 20)
            except OSError:
                break
            if not block:
                break
            if sink:
                sink(block)

    def own(self):
        """The tool's own processes."""
        found, queue = [], [self.pid]
        while queue:
            pid = queue.pop()
            if read(f"/proc/{pid}/comm").strip() in self.tool.processes:
                found.append(pid)
            queue += map(int, read(f"/proc/{pid}/task/{pid}/children").split())
        # Figures of nobody would be 0, and that is the best that there can be.
        assert found, f"no process below {self.pid} is called {', '.join(self.tool.processes)}"
        return found

    def pss(self):
        """KiB."""
        return sum(
            int(re.search(r"^Pss:\s+(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.M)[1])
            for pid in self.own()
        )

    def used(self):
        """Nanoseconds of CPU, and context switches."""
        cpu = switches = 0
        for pid in self.own():
            cpu += int(read(f"/proc/{pid}/schedstat").split()[0])
            switches += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", read(f"/proc/{pid}/status"))))
        return cpu, switches

    def end(self, with_signal=signal.SIGKILL):
        """Seconds until it has ended."""
        began = time.monotonic()
        os.kill(self.pid, with_signal)
        try:
            self.outer.wait(30)
        except subprocess.TimeoutExpired:
            self.outer.kill()
            self.outer.wait()
        took = time.monotonic() - began
        self.reader.join(5)
        self.outer.stdout.close()
        return took
