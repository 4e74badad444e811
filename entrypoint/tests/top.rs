//! `top`: what services use, on a terminal and without one.

mod common;

use std::process::Command;

use common::TestBox;

fn a_box() -> TestBox {
    let mut b = TestBox::new();
    b.script("busy", "while :; do :; done");
    b.unit("busy.service", "[Service]\nExecStart=ROOT/bin/busy\n");
    b.unit(
        "calm.service",
        "[Service]\nExecStart=/bin/sh -c 'sleep 1001 & sleep 1002; true'\n",
    );
    b.unit(
        "off.service",
        "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/sleep 1\n",
    );
    b
}

/// The words of a service's line, by the names of their columns.
fn column(table: &str, service: &str, name: &str) -> String {
    let mut lines = table
        .lines()
        .skip_while(|line| !line.starts_with("SERVICE"));
    let head: Vec<&str> = lines.next().expect("a head").split_whitespace().collect();
    let at = head.iter().position(|word| *word == name).unwrap();
    let line = lines.find(|line| line.starts_with(service)).unwrap();
    line.split_whitespace().nth(at).unwrap().to_owned()
}

#[test]
fn without_a_terminal_the_table_is_printed_once() {
    let b = a_box();
    let running = b.start().until(&b, "calm ready").until(&b, "busy ready");
    for words in [&["top"][..], &["top", "--once"]] {
        let told = b.run(words);
        told.exits(0).says("3 services, 3 up; CPU ");
        let of = |service, name| column(&told.out, service, name);
        let busy: f64 = of("busy", "CPU%").parse().unwrap();
        // The machine has others to serve too.
        assert!((5.0..130.0).contains(&busy), "{}", told.out);
        let calm: f64 = of("calm", "CPU%").parse().unwrap();
        assert!(calm < 5.0, "{}", told.out);
        assert_eq!(
            (of("busy", "PIDS"), of("calm", "PIDS")),
            ("1".into(), "3".into())
        );
        assert!(of("calm", "MEMORY").ends_with('K'), "{}", told.out);
        assert_eq!(of("calm", "RESTARTS"), "0");
        assert_eq!(
            (of("off", "STATE"), of("off", "CPU%")),
            ("skipped".into(), "-".into())
        );
        assert!(!told.out.contains('\x1b'), "{}", told.out);
    }
    running.stop().exits(0);
    b.run(&["top"]).exits(1).says("cannot ask the running box");
}

/// Runs `top` on a terminal of 12 lines and 60 columns, ends it by `how`, and checks that the
/// terminal is as it was.
const PTY: &str = r#"
import fcntl, os, pty, select, signal, struct, subprocess, sys, termios, time
how, command = sys.argv[1], sys.argv[2:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
before = termios.tcgetattr(slave)
def start():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
top = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=start)
seen = b""
def read(until, wanted=None):
    global seen
    end = time.monotonic() + until
    while time.monotonic() < end:
        if select.select([master], [], [], 0.05)[0]:
            seen += os.read(master, 65536)
        if wanted is not None and wanted(seen):
            return True
        if wanted is None and top.poll() is not None:
            return True
    return False
# The second table: there are figures by then.
assert read(10, lambda text: text.count(b"\x1b[H") >= 2 and b"busy" in text), seen
raw = termios.tcgetattr(slave)
assert not raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG), raw
frames = seen.split(b"\x1b[H")
assert seen.startswith(b"\x1b[?1049h\x1b[?25l"), frames[0]
for line in frames[1].replace(b"\x1b[K", b"").replace(b"\x1b[J", b"").decode().splitlines():
    assert len(line) <= 60, line
if how == "sort":
    count = seen.count(b"\x1b[H")
    os.write(master, b"n")
    assert read(5, lambda text: text.count(b"\x1b[H") > count), seen
    last = [part for part in seen.split(b"\x1b[H") if b"\x1b[J" in part][-1]
    assert last.index(b"busy") < last.index(b"calm") < last.index(b"off"), last
    os.write(master, b"\x1b[A")   # an arrow ends nothing
    time.sleep(0.3)
    assert top.poll() is None
    os.write(master, b"q")
elif how == "ctrl-c":
    os.write(master, b"\x03")
elif how == "term":
    top.send_signal(signal.SIGTERM)
elif how == "box":
    os.kill(int(os.environ["BOX"]), signal.SIGTERM)
assert read(20), "it goes on"
code = top.wait()
read(0.2, lambda text: False)
assert seen.rstrip().endswith(b"\x1b[?25h\x1b[?1049l") or how == "box", seen
assert b"\x1b[?25h\x1b[?1049l" in seen, seen
assert termios.tcgetattr(slave) == before
print("exit code", code, seen.split(b"\x1b[?1049l")[-1].decode())
"#;

#[test]
fn a_terminal_is_as_it_was_whatever_ends_it() {
    let b = a_box();
    let running = b.start().until(&b, "calm ready").until(&b, "busy ready");
    // A test before made the contract; the box is asked by its socket alone.
    for how in ["sort", "ctrl-c", "term", "box"] {
        let output = Command::new("/usr/bin/python3")
            .args(["-c", PTY, how, env!("CARGO_BIN_EXE_entrypoint"), "--root"])
            .arg(b.dir.path())
            .arg("top")
            .env("BOX", running.pid().to_string())
            .output()
            .unwrap();
        let told = common::Ended::of(output);
        let told = told.exits(0);
        match how {
            "box" => told.says("exit code 1").says("cannot ask the running box"),
            _ => told.says("exit code 0"),
        };
    }
    running.end().exits(0);
}
