"""The supervisors: how each is told of services, started, and asked."""

import json
import os
import re
import shlex
import shutil
import signal

from runs import TOP, read


def contract_format():
    source = read(os.path.join(TOP, "crates/contract/src/lib.rs"))
    return int(re.search(r"FORMAT: u32 = (\d+)", source)[1])


class Tool:
    """`services` are pairs of a name and the words of its command."""

    name = ""
    programs = ()  # that must be there
    processes = ()  # names of its own processes
    restarts = True
    # How services' output reaches its stdout: "relayed", "inherited", or None.
    output = "inherited"
    stop = signal.SIGTERM

    def __init__(self, bench):
        self.bench = bench

    def missing(self):
        return [p for p in self.programs if not shutil.which(p)]

    def prepare(self, directory, services):
        """Writes its files; the words that start it."""
        raise NotImplementedError

    def status(self, directory):
        return None


class Tiffin(Tool):
    name = "tiffin"
    processes = ("entrypoint",)
    output = "relayed"

    def prepare(self, directory, services, more=None):
        units = os.path.join(directory, "lib/systemd/system")
        os.makedirs(units)
        os.makedirs(os.path.join(directory, "usr/lib/tiffin"))
        listed = []
        for name, words in services:
            path = f"/lib/systemd/system/{name}.service"
            with open(directory + path, "w") as unit:
                unit.write(f"[Service]\nExecStart={shlex.join(words)}\nRestart=always\n")
            listed.append({"name": f"{name}.service", "path": path})
        contract = {
            "format": self.bench.contract_format,
            "product": {"name": "acme/bench", "title": "Bench", "version": "v1"},
            "volumes": [{"path": "/data"}],
            "units": listed,
        }
        contract.update(more or {})
        with open(os.path.join(directory, "usr/lib/tiffin/contract.json"), "w") as file:
            json.dump(contract, file)
        return [self.bench.entrypoint, "--root", directory]

    def status(self, directory):
        return [self.bench.entrypoint, "--root", directory, "status"]


class Supervisord(Tool):
    name = "supervisord"
    programs = ("supervisord", "supervisorctl")
    processes = ("supervisord",)
    output = "relayed"

    def prepare(self, directory, services):
        path = os.path.join(directory, "supervisord.conf")
        with open(path, "w") as conf:
            conf.write(
                f"[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
                f"pidfile={directory}/pid\n[unix_http_server]\nfile={directory}/sock\n"
                "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory="
                "supervisor.rpcinterface:make_main_rpcinterface\n"
                f"[supervisorctl]\nserverurl=unix://{directory}/sock\n"
            )
            for name, words in services:
                conf.write(
                    f"[program:{name}]\ncommand={shlex.join(words)}\nautorestart=true\n"
                    "stdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\nredirect_stderr=true\n"
                )
        return [shutil.which("supervisord"), "-c", path]

    def status(self, directory):
        return ["supervisorctl", "-c", f"{directory}/supervisord.conf", "status"]


class Scripts(Tool):
    """A directory of directories with a `run`."""

    def prepare(self, directory, services):
        for name, words in services:
            os.makedirs(os.path.join(directory, name))
            run = os.path.join(directory, name, "run")
            with open(run, "w") as script:
                script.write(f"#!/bin/sh\nexec {shlex.join(words)}\n")
            os.chmod(run, 0o755)
        return [*self.start, directory]


class S6(Scripts):
    name = "s6"
    programs = ("s6-svscan", "s6-svstat")
    processes = ("s6-svscan", "s6-supervise")
    start = ("s6-svscan",)

    def status(self, directory):
        return ["sh", "-c", f"for d in {directory}/*/; do s6-svstat $d; done"]


class Runit(Scripts):
    name = "runit"
    programs = ("runsvdir", "sv")
    processes = ("runsvdir", "runsv")
    start = ("runsvdir", "-P")
    stop = signal.SIGHUP

    def status(self, directory):
        return ["sh", "-c", f"sv status {directory}/*"]


class Dinit(Tool):
    name = "dinit"
    processes = ("dinit",)
    output = None

    def missing(self):
        return [] if self.bench.dinit else ["dinit (no package: see --dinit)"]

    def prepare(self, directory, services):
        for name, words in services:
            with open(os.path.join(directory, name), "w") as file:
                file.write(f"type = process\ncommand = {shlex.join(words)}\nrestart = true\n")
        with open(os.path.join(directory, "boot"), "w") as file:
            file.write("type = internal\n")
            file.writelines(f"waits-for = {name}\n" for name, _ in services)
        # -o: as in a container, it ends with its services.
        return [f"{self.bench.dinit}/dinit", "-o", "-d", directory, "-p", f"{directory}/ctl"]

    def status(self, directory):
        return [f"{self.bench.dinit}/dinitctl", "-p", f"{directory}/ctl", "list"]


class Init(Tool):
    """For one command: a shell that starts the rest."""

    restarts = False

    def prepare(self, directory, services):
        script = "".join(f"{shlex.join(words)} &\n" for _, words in services) + "wait\n"
        return [self.programs[0], "--", "/bin/sh", "-c", script]


class Tini(Init):
    name = "tini"
    programs = ("tini",)
    processes = ("tini",)


class DumbInit(Init):
    name = "dumb-init"
    programs = ("dumb-init",)
    processes = ("dumb-init",)


ALL = (Tiffin, Dinit, S6, Runit, Supervisord, Tini, DumbInit)
