"""Asks a real supervisord and the entrypoint the same, and compares the answers field by field.

compare.py SUPERVISORD CONFIGURATION THEIR_SOCKET OUR_SOCKET

Runs on the Python of a venv that holds supervisor. The entrypoint runs already; the real
supervisord is started here, on a configuration with the same programs. What differs in
any two runs (process ids, times, paths of log files) is compared by kind alone.
"""

import pprint
import re
import subprocess
import sys
import time
import xmlrpc.client

from supervisor.xmlrpc import SupervisorTransport

STARTED = time.time()


def normal(value, key=None):
    """The value without what differs between any two runs."""
    if isinstance(value, dict):
        return {k: normal(v, k) for k, v in value.items()}
    if isinstance(value, list):
        items = [normal(item) for item in value]
        if all(isinstance(i, dict) and "name" in i for i in items):
            items.sort(key=lambda i: (i.get("group"), i["name"]))
        return items
    if key == "pid":
        return "pid" if value else 0
    if key in ("start", "stop", "now"):
        return "time" if value >= STARTED - 60 else value
    if key is not None and key.endswith("logfile"):
        return "log"
    if key == "description" and isinstance(value, str):
        value = re.sub(r"pid \d+, uptime 0:00:\d\d", "pid N, uptime T", value)
        return re.sub(r"^[A-Z][a-z]{2} \d\d \d\d:\d\d [AP]M$", "moment", value)
    return value


class Side:
    def __init__(self, socket):
        self.socket = socket

    def call(self, method, *args):
        transport = SupervisorTransport("operator", "pässword", "unix://" + self.socket)
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport)
        try:
            function = server
            for part in method.split("."):
                function = getattr(function, part)
            return function(*args)
        except xmlrpc.client.Fault as fault:
            return {"faultCode": fault.faultCode, "faultString": fault.faultString}
        except xmlrpc.client.ProtocolError as error:
            return "HTTP %d" % error.errcode
        finally:
            transport.close()

    def until(self, name, state):
        end = time.time() + 20
        while True:
            info = self.call("supervisor.getProcessInfo", name)
            if info.get("statename") == state:
                return
            if time.time() > end:
                raise SystemExit("%s: %s did not become %s: %s" % (self.socket, name, state, info))
            time.sleep(0.02)


S = "supervisor."
# A call, or a state to wait for: (name, state).
SCRIPT = [
    ("web", "RUNNING"),
    ("pair:a", "RUNNING"),
    ("pair:b", "RUNNING"),
    ("many:many_01", "RUNNING"),
    ("once", "EXITED"),
    ("cat", "RUNNING"),
    [S + "getAPIVersion"],
    [S + "getVersion"],
    [S + "getIdentification"],
    [S + "getState"],
    ["system.listMethods"],
    ["system.methodSignature", S + "startProcess"],
    ["system.methodSignature", S + "readProcessLog"],
    ["system.methodSignature", "system.multicall"],
    ["system.methodSignature", "no.such"],
    ["system.methodHelp", "no.such"],
    [S + "noSuchMethod"],
    ["nowhere.atAll"],
    ["a.b.c"],
    [S + "_update", "x"],
    [S + "startProcess"],
    [S + "startProcess", "web", True, 3],
    [S + "getProcessInfo"],
    # What there is.
    [S + "getAllProcessInfo"],
    [S + "getProcessInfo", "web"],
    [S + "getProcessInfo", "pair:a"],
    [S + "getProcessInfo", "pair"],
    [S + "getProcessInfo", "pair:*"],
    [S + "getProcessInfo", "a"],
    [S + "getProcessInfo", "nope"],
    [S + "getProcessInfo", "web:nope"],
    [S + "getProcessInfo", ""],
    [S + "getAllConfigInfo"],
    # Starts and stops.
    [S + "startProcess", "web"],
    [S + "startProcess", "web", False],
    [S + "startProcess", "nope"],
    [S + "startProcess", "missing"],
    [S + "startProcess", "notexec"],
    [S + "startProcess", "directory"],
    [S + "startProcess", "quick"],
    ("quick", "FATAL"),
    [S + "getProcessInfo", "quick"],
    [S + "stopProcess", "quick"],
    [S + "startProcess", "late"],
    [S + "getProcessInfo", "late"],
    [S + "stopProcess", "late"],
    [S + "stopProcess", "late"],
    [S + "getProcessInfo", "late"],
    [S + "startProcess", "late", False],
    ("late", "RUNNING"),
    [S + "stopProcess", "late", False],
    ("late", "STOPPED"),
    [S + "startProcess", "once"],
    ("once", "EXITED"),
    [S + "getProcessInfo", "once"],
    [S + "stopProcess", "once"],
    [S + "startProcess", "bad"],
    ("bad", "EXITED"),
    [S + "getProcessInfo", "bad"],
    [S + "stopProcess", "nope"],
    [S + "stopProcess", "pair:*"],
    [S + "getAllProcessInfo"],
    [S + "startProcess", "pair:"],
    [S + "startProcessGroup", "pair"],
    [S + "stopProcessGroup", "pair"],
    [S + "startProcessGroup", "pair", False],
    ("pair:a", "RUNNING"),
    ("pair:b", "RUNNING"),
    [S + "startProcessGroup", "nope"],
    [S + "stopProcessGroup", "nope"],
    # Signals.
    [S + "signalProcess", "web", "CONT"],
    [S + "signalProcess", "web", "18"],
    [S + "signalProcess", "web", "SIGNOPE"],
    [S + "signalProcess", "web", "99"],
    [S + "signalProcess", "late", "HUP"],
    [S + "signalProcess", "nope", "HUP"],
    [S + "signalProcess", "pair:*", "CONT"],
    [S + "signalProcessGroup", "pair", "CONT"],
    [S + "signalProcessGroup", "nope", "CONT"],
    [S + "signalAllProcesses", "CONT"],
    # Logs.
    [S + "readProcessStdoutLog", "web", 0, 0],
    [S + "readProcessStdoutLog", "web", 3, 4],
    [S + "readProcessStdoutLog", "web", -4, 0],
    [S + "readProcessStdoutLog", "web", -400, 0],
    [S + "readProcessStdoutLog", "web", -4, 1],
    [S + "readProcessStdoutLog", "web", 0, -1],
    [S + "readProcessLog", "web", 0, 0],
    [S + "readProcessStderrLog", "web", 0, 0],
    [S + "readProcessStderrLog", "joined", 0, 0],
    [S + "readProcessStdoutLog", "joined", 0, 0],
    [S + "readProcessStdoutLog", "nope", 0, 0],
    [S + "tailProcessStdoutLog", "web", 0, 5],
    [S + "tailProcessStdoutLog", "web", 0, 100],
    [S + "tailProcessStdoutLog", "web", 10, 100],
    [S + "tailProcessStdoutLog", "web", 100, 100],
    [S + "tailProcessStderrLog", "web", 0, 100],
    [S + "tailProcessLog", "web", 0, 100],
    [S + "tailProcessStderrLog", "joined", 0, 100],
    [S + "tailProcessStdoutLog", "nope", 0, 100],
    [S + "clearProcessLogs", "web"],
    [S + "readProcessStdoutLog", "web", 0, 0],
    [S + "clearProcessLogs", "nope"],
    [S + "clearProcessLog", "pair:*"],
    [S + "clearAllProcessLogs"],
    # Standard input.
    [S + "sendProcessStdin", "cat", "héllo\n"],
    ("cat", "RUNNING"),
    0.3,
    [S + "readProcessStdoutLog", "cat", 0, 0],
    [S + "sendProcessStdin", "late", "x"],
    [S + "sendProcessStdin", "nope", "x"],
    [S + "sendProcessStdin", "cat", 5],
    [S + "sendRemoteCommEvent", "kind", "data"],
    # Many at once.
    ["system.multicall", [
        {"methodName": S + "getProcessInfo", "params": ["web"]},
        {"methodName": S + "stopProcess", "params": ["web"]},
        {"methodName": S + "startProcess", "params": ["web"]},
        {"methodName": S + "startProcess", "params": ["nope"]},
        {"methodName": S + "getAPIVersion"},
        {"methodName": "system.multicall", "params": [[]]},
        {"params": []},
        {"methodName": "no.such", "params": []},
    ]],
    # Groups.
    [S + "addProcessGroup", "web"],
    [S + "addProcessGroup", "nope"],
    [S + "removeProcessGroup", "web"],
    [S + "removeProcessGroup", "nope"],
    [S + "stopProcess", "web"],
    [S + "removeProcessGroup", "web"],
    [S + "getProcessInfo", "web"],
    [S + "startProcess", "web"],
    [S + "reloadConfig"],
    [S + "addProcessGroup", "web"],
    ("web", "RUNNING"),
    [S + "getProcessInfo", "web"],
    [S + "getAllConfigInfo"],
    [S + "reloadConfig"],
    "change the configuration",
    [S + "reloadConfig"],
    [S + "getAllConfigInfo"],
    [S + "addProcessGroup", "fresh"],
    ("fresh", "RUNNING"),
    [S + "stopProcess", "late"],
    [S + "removeProcessGroup", "late"],
    [S + "reloadConfig"],
    "break the configuration",
    [S + "reloadConfig"],
    [S + "getAllProcessInfo"],
    [S + "stopAllProcesses"],
    [S + "getAllProcessInfo"],
    [S + "shutdown"],
]


def change(path, broken):
    text = open(path).read()
    text = text.replace("[program:late]\ncommand=/bin/sleep 1000\nautostart=false", "[program:fresh]\ncommand=/bin/sleep 1001")
    if broken:
        text = text.replace("startsecs=1 ; web", "startsecs=often")
    open(path, "w").write(text)


def same(method, ours, theirs):
    """A fault's text may say more than theirs; its code and first word may not differ."""
    if "faultCode" in str(theirs) and method == S + "reloadConfig":
        return ours.get("faultCode") == theirs.get("faultCode")
    return ours == theirs


def main():
    supervisord, configuration, their_socket, our_socket = sys.argv[1:]
    real = subprocess.Popen([supervisord, "-n", "-c", configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    their, our = Side(their_socket), Side(our_socket)
    different = compared = 0
    try:
        end = time.time() + 20
        while True:
            try:
                their.call(S + "getState")
                break
            except OSError:
                if time.time() > end:
                    raise
                time.sleep(0.05)
        for step in SCRIPT:
            if isinstance(step, tuple):
                their.until(*step)
                our.until(*step)
            elif isinstance(step, float):
                time.sleep(step)
            elif isinstance(step, str):
                for path in (configuration, configuration + ".box"):
                    change(path, step.startswith("break"))
            else:
                got = normal(our.call(*step))
                want = normal(their.call(*step))
                compared += 1
                if not same(step[0], got, want):
                    different += 1
                    print("DIFFERENT: %s%r\n  supervisord: %s\n  entrypoint:  %s" % (
                        step[0], tuple(step[1:]), pprint.pformat(want, width=150), pprint.pformat(got, width=150)))
    finally:
        real.terminate()
        real.wait()
    print("%d calls compared, %d different" % (compared, different))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
