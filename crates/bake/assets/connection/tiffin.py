"""Runs the commands of a play inside Tiffin's sandbox, by entering its namespaces."""

import json
import os
import shutil
import subprocess

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

import tiffin_reads

DOCUMENTATION = """
name: tiffin
short_description: run tasks in the root file system that Tiffin bakes
description:
  - Enters the mount, pid, uts and ipc namespaces of Tiffin's sandbox with nsenter.
options:
  pid:
    description: Process ID of the sandbox's first process.
    env: [{name: TIFFIN_SANDBOX_PID}]
    vars: [{name: tiffin_sandbox_pid}]
    type: int
    required: true
"""

display = Display()
NAMESPACES = ("--mount", "--pid", "--uts", "--ipc")
# What would reach through to the machine, as in sandbox.rs.
WITHOUT = "-net_admin,-sys_module,-sys_rawio,-sys_boot,-sys_time"


class Connection(ConnectionBase):
    transport = "tiffin"
    has_pipelining = True
    # sudo and su need no terminal here: every command already runs as root.
    has_tty = False

    def _connect(self):
        self._connected = True
        return self

    def _enter(self, command, stdin=None):
        enter = ["nsenter", "--target", str(self.get_option("pid")), *NAMESPACES, "--"]
        prefix = ["setpriv", "--bounding-set=" + WITHOUT, "--inh-caps=" + WITHOUT, "--", *enter]
        environment = json.loads(os.environ["TIFFIN_SANDBOX_ENV"])
        # These two are found on the host's PATH, the command on the box's.
        for name in ("setpriv", "nsenter"):
            prefix[prefix.index(name)] = shutil.which(name) or "/usr/bin/" + name
        try:
            process = subprocess.Popen(
                [*prefix, *command],
                env=environment,
                cwd="/",
                stdin=subprocess.PIPE if stdin is None or isinstance(stdin, bytes) else stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as problem:
            raise AnsibleConnectionFailure("cannot enter the sandbox: %s" % problem)
        return process

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        display.vvv("EXEC %s" % cmd, host=self._play_context.remote_addr)
        process = self._enter(["/bin/sh", "-c", cmd])
        out, err = process.communicate(in_data)
        return process.returncode, out, err

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        if not os.path.exists(in_path):
            raise AnsibleFileNotFound("cannot copy %s into the box: it does not exist" % in_path)
        with tiffin_reads.sent(in_path) as source:
            process = self._enter(["/bin/sh", "-c", 'cat > "$0"', out_path], stdin=source)
            _, err = process.communicate()
        if process.returncode != 0:
            raise AnsibleError("cannot write %s in the box: %s" % (out_path, err.decode(errors="replace")))

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        process = self._enter(["cat", in_path])
        with open(out_path, "wb") as target:
            out, err = process.communicate()
            target.write(out)
        if process.returncode != 0:
            raise AnsibleError("cannot read %s in the box: %s" % (in_path, err.decode(errors="replace")))

    def close(self):
        self._connected = False
