"""Records what Ansible reads on the build machine, so that a layer is baked again when that
has changed, and only then.

The record ($TIFFIN_READS; bake::reads reads it) is one entry after the other, each ended by
a NUL byte: a word, and after a space what it is about.

  read PATH         the content of a file, which need not be there
  vars PATH         a file from which Ansible took variables: of groups, hosts, roles or vars_files
  sent PATH         the content of a file that is hashed or goes into the box as it is
  list PATH         the names in a directory
  seen PATH         whether something is there, and what
  wrote PATH        a file that was written before it was read
  env NAME          a variable of the environment that a lookup asked for
  ran PROGRAM       a program outside the sandbox: nobody knows what it read
  tasks             the playbook is parsed; from here on its tasks run
  roles             a task chose a role while it ran

Python tells of each file that is opened and each directory that is listed (PEP 578). It
does not tell of questions like os.path.exists(), so those functions are wrapped.

As a program it is `ansible`, watched: `tiffin_reads.py playbook --list-tasks …`.
"""

import os
import sys
import sysconfig

PLACE = os.environ.get("TIFFIN_READS", "")
# The system's own files, which Ansible's version stands for; and what is made for a build.
SYSTEM = ("/proc/", "/sys/", "/dev/", "/run/", "/etc/", "/usr/", "/lib", "/bin/", "/sbin/")
NOT_SYSTEM = ("/etc/ansible/", "/usr/share/ansible/", "/usr/local/src/", "/usr/src/")
# Ansible's own; each is asked about the machine, not about inputs.
HARMLESS = {"ldconfig", "ldconfig.real", "gcc", "cc", "ld", "objdump", "uname", "locale"}
INPUTS = tuple(path.rstrip("/") + "/" for path in os.environ.get("TIFFIN_INPUTS", "").split(":") if path)

LIBRARIES = tuple({path.rstrip("/") + "/" for path in sysconfig.get_paths().values()} | {
    path.rstrip("/") + "/" for path in sys.path if path.endswith(("-packages", "/lib-dynload"))
})
# What this build itself has made.
OWN = tuple(os.path.dirname(os.path.abspath(path)) + "/" for path in (PLACE, __file__))
noted = set()
record = -1
# What one file is opened for at this moment: a word of the record, and its path.
purpose = (b"read", None)


def counts(path):
    if (path + "/").startswith(OWN) or any(own.startswith(path + "/") for own in OWN):
        return False
    if path.startswith(INPUTS):
        return True
    if "/ansible_collections/" in path:
        return True
    if path.startswith(LIBRARIES):
        return False
    return not path.startswith(SYSTEM) or path.startswith(NOT_SYSTEM)


def write(word, about=b""):
    entry = word + b" " + about + b"\0" if about else word + b"\0"
    if entry in noted:
        return
    noted.add(entry)
    os.write(record, entry)


def note(word, path):
    if isinstance(path, int) or record < 0:
        return
    try:
        path = os.path.abspath(os.fsdecode(path))
        if path.endswith(".pyc"):
            # Python reads this instead of the source.
            folder, name = os.path.split(path)
            if os.path.basename(folder) == "__pycache__":
                path = os.path.join(os.path.dirname(folder), name.partition(".")[0] + ".py")
        if counts(path):
            encoded = os.fsencode(path)
            if word == b"wrote" and any(known + encoded + b"\0" in noted for known in (b"read ", b"vars ", b"sent ")):
                return
            write(word, encoded)
    except (TypeError, ValueError, OSError):
        pass


def purpose_of(path):
    word, about = purpose
    if about is None or isinstance(path, int):
        return b"read"
    try:
        return word if os.path.abspath(os.fsdecode(path)) == about else b"read"
    except (TypeError, ValueError, OSError):
        return b"read"


def opening(word, path, function, *args, **kwargs):
    """Calls a function that opens the file at `path` for what the word says."""
    global purpose
    before = purpose
    try:
        purpose = (word, os.path.abspath(os.fsdecode(path)))
    except (TypeError, ValueError, OSError):
        pass
    try:
        return function(*args, **kwargs)
    finally:
        purpose = before


def sent(path):
    """Opens a file whose bytes go into the box."""
    return opening(b"sent", path, open, path, "rb")


def started(program, words):
    words = [os.fsdecode(word) for word in words or ()]
    name = os.path.basename(os.fsdecode(program) if program else (words or ["?"])[0])
    enters = name in ("setpriv", "nsenter") and "--target" in words and os.environ.get("TIFFIN_SANDBOX_PID") in words
    # Ansible asks once whether this machine's ssh knows that option.
    asks = name == "ssh" and words[1:] == ["-o", "ControlPersist"]
    if not (enters or asks or name in HARMLESS):
        write(b"ran", os.fsencode(name))


def hook(event, arguments):
    if record < 0:
        return
    if event == "open":
        path, _, flags = arguments
        access = (flags or 0) & os.O_ACCMODE
        if access == os.O_WRONLY or access == os.O_RDWR and flags & (os.O_TRUNC | os.O_EXCL):
            note(b"wrote", path)
        else:
            note(purpose_of(path), path)
    elif event in ("os.listdir", "os.scandir"):
        note(b"list", arguments[0] if arguments[0] is not None else ".")
    elif event == "subprocess.Popen":
        program, words = arguments[0], arguments[1]
        started(program, words if isinstance(words, (list, tuple)) else [words])
    elif event == "os.posix_spawn":
        started(arguments[0], arguments[1])
    elif event == "os.system":
        write(b"ran", b"sh")
    elif event == "os.exec":
        started(arguments[0], arguments[1])


def wrapped(function):
    def asking(path, *args, **kwargs):
        if kwargs.get("dir_fd") is None:
            note(b"seen", path)
        return function(path, *args, **kwargs)

    asking.__name__ = function.__name__
    return asking


def asked_for(name):
    """A lookup asked for a variable of the environment."""
    if record >= 0:
        write(b"env", os.fsencode(str(name)))


def tasks_begin():
    # What is read again from now on is read by a task.
    if record >= 0 and b"tasks\0" not in noted:
        noted.clear()
        write(b"tasks")


def role_chosen():
    if record >= 0:
        write(b"roles")


def install():
    """As early as can be: what was imported before keeps functions that are not wrapped."""
    global record
    if not PLACE:
        return
    record = os.open(PLACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for name in ("stat", "lstat", "access", "readlink"):
        function = wrapped(getattr(os, name))
        for known in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks):
            if getattr(os, name) in known:
                known.add(function)
        setattr(os, name, function)
    sys.addaudithook(hook)


def takes_variables(frame):
    """Whether who loads a file takes nothing but variables from it, each under its own name."""
    code = frame.f_code
    if code.co_filename.endswith(("/ansible/plugins/vars/host_group_vars.py", "/ansible/vars/manager.py")):
        return True
    return code.co_name == "_load_role_yaml" and frame.f_locals.get("subdir") in ("defaults", "vars")


def watch_ansible():
    """What Ansible answers from its own memory is read by whoever asks."""
    import ansible.utils.hashing as hashing
    from ansible.executor.task_queue_manager import TaskQueueManager
    from ansible.parsing.dataloader import DataLoader

    run, load, real_file = TaskQueueManager.run, DataLoader.load_from_file, DataLoader.get_real_file
    secure_hash = hashing.secure_hash

    def running(self, *args, **kwargs):
        tasks_begin()
        return run(self, *args, **kwargs)

    def loading(self, file_name, *args, **kwargs):
        path = self.path_dwim(file_name)
        word = b"vars" if takes_variables(sys._getframe(1)) else b"read"
        note(word, path)
        return opening(word, path, load, self, file_name, *args, **kwargs)

    # Looks whether a file is vaulted; who then reads it is noted as ever.
    def finding(self, file_path, *args, **kwargs):
        path = self.path_dwim(file_path) if file_path and isinstance(file_path, (str, bytes)) else None
        return opening(b"sent", path, real_file, self, file_path, *args, **kwargs)

    def hashed(filename, *args, **kwargs):
        return opening(b"sent", filename, secure_hash, filename, *args, **kwargs)

    TaskQueueManager.run, DataLoader.load_from_file = running, loading
    DataLoader.get_real_file = finding
    hashing.secure_hash = hashing.checksum = hashed


if __name__ == "__main__":
    install()
    from importlib import import_module

    verb = sys.argv[1]
    sys.argv = ["ansible-" + verb, *sys.argv[2:]]
    import_module("ansible.cli." + verb).main(sys.argv)
