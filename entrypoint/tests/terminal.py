"""A command that becomes an interactive bash, on a terminal of 12 lines and 60 columns: job
control, the terminal's size and the exit code are as in any shell."""
import fcntl, os, pty, select, struct, subprocess, sys, termios, time

master, slave = pty.openpty()


def size(lines, columns):
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def start():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


size(12, 60)
shell = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave, stderr=slave, preexec_fn=start)
seen = ""


def wait(wanted, typed=None, limit=30):
    """Types, and waits for what comes after that."""
    global seen
    begun = len(seen)
    if typed is not None:
        os.write(master, typed.encode())
    end = time.monotonic() + limit
    while wanted not in seen[begun:]:
        assert time.monotonic() < end, f"no {wanted!r} in {seen!r}"
        assert shell.poll() is None, seen
        if select.select([master], [], [], 0.05)[0]:
            seen += os.read(master, 65536).decode(errors="replace")


try:
    # What is typed is echoed; the answers are not in it.
    wait("up-2", "PS1='%'; echo up-$((1+1))\n")
    wait("tty-0-0-0", "test -t 0; a=$?; test -t 1; b=$?; test -t 2; echo tty-$a-$b-$?\n")
    wait("12 60", "stty size\n")
    size(20, 70)
    end = time.monotonic() + 20
    while "20 70" not in seen:
        assert time.monotonic() < end, seen
        wait("size", "stty size; echo si''ze\n")
    wait("begun", "sh -c 'echo be\"\"gun; exec sleep 100'\n")
    wait("Stopped", "\x1a")
    wait("alive-1", "jobs -r | wc -l; jobs | grep -c Stopped | sed s/^/alive-/\n")
    wait("sleep 100", "fg\n")
    time.sleep(0.3)
    wait("after-130", "\x03echo after-$?\n")
    wait("none-0", "jobs | wc -l | sed s/^/none-/\n")
    for complaint in ["no job control", "cannot set terminal", "Inappropriate ioctl"]:
        assert complaint not in seen, seen
    os.write(master, b"exit 7\n")
    print("exit code", shell.wait(30))
finally:
    shell.kill()
