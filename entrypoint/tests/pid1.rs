//! What only PID 1 of a namespace can show, and what the binary is made of. Needs root for
//! `unshare`; says so and passes where that is missing.

mod common;

use std::process::Command;

use common::TestBox;

fn can_unshare() -> bool {
    let can = Command::new("unshare")
        .args(["-p", "-f", "--mount-proc", "true"])
        .status()
        .is_ok_and(|s| s.success());
    if !can {
        eprintln!("skipped: this test needs the right to make a PID namespace");
    }
    can
}

#[test]
fn as_pid_1_orphans_are_reaped_and_sigterm_ends_all() {
    if !can_unshare() {
        return;
    }
    let mut b = TestBox::new();
    // 300 orphans at once; then the zombies are counted.
    b.script(
        "orphans",
        "for i in $(seq 300); do (sleep 0.2 &) ; done\nsleep 0.6\ngrep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l > ROOT/zombies\nexec sleep 1000",
    );
    b.unit("orphans.service", "[Service]\nExecStart=ROOT/bin/orphans\n");
    b.file("/usr/lib/tiffin/contract.json", &b.contract.to_string());
    let child = Command::new("unshare")
        .args([
            "-p",
            "-f",
            "--kill-child",
            "--mount-proc",
            env!("CARGO_BIN_EXE_entrypoint"),
            "--root",
        ])
        .arg(b.dir.path())
        .arg("start")
        // A variable of the test's own, such as TIFFIN_TOOLS, is no setting of the box.
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(b.wait_for("/zombies").trim(), "0");
    // unshare's only child is PID 1.
    let task = format!("/proc/{0}/task/{0}/children", child.id());
    let init = std::fs::read_to_string(task).unwrap();
    assert!(
        Command::new("/bin/kill")
            .args(["-TERM", init.trim()])
            .status()
            .unwrap()
            .success()
    );
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("orphans is ready"), "{said}");
    assert!(!said.contains("not process 1"), "{said}");
}

#[test]
fn not_as_pid_1_it_says_what_is_lost() {
    let mut b = TestBox::new();
    b.unit("a.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = b.start().until(&b, "a ready");
    let ended = running.stop();
    ended
        .exits(0)
        .says("note: this is not process 1: what `docker exec` leaves behind is not reaped here, and services outlive a SIGKILL of this process");
}

#[test]
fn a_shell_on_a_terminal_has_job_control() {
    if !can_unshare() {
        return;
    }
    let b = TestBox::new();
    b.file("/usr/lib/tiffin/contract.json", &b.contract.to_string());
    // As engines do: process 1 leads a session, to which the terminal belongs.
    let output = Command::new("/usr/bin/python3")
        .args(["-c", include_str!("terminal.py")])
        .args(["unshare", "-p", "-f", "--kill-child", "--mount-proc"])
        .args(["setsid", "-c", env!("CARGO_BIN_EXE_entrypoint"), "--root"])
        .arg(b.dir.path())
        .args(["bash", "--norc", "-i"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("TERM", "xterm")
        .output()
        .unwrap();
    common::Ended::of(output).exits(0).says("exit code 7");
}

#[test]
fn idle_means_idle() {
    let mut b = TestBox::new();
    b.unit("a.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = b.start();
    b.wait_status("a ready");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
        status
            .lines()
            .find(|l| l.starts_with("voluntary_ctxt_switches"))
            .map(str::to_owned)
    };
    let before = switches();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(before, switches());
    running.stop().exits(0);
}

#[test]
fn the_entrypoint_links_no_async_runtime_and_no_tls() {
    let out = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "-p",
            "entrypoint",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(out.stdout).unwrap();
    assert!(tree.contains("rustix"), "{tree}");
    for banned in [
        "tokio",
        "rustls",
        "openssl",
        "native-tls",
        "mio",
        "async-std",
        "smol",
        "hickory",
    ] {
        assert!(
            !tree
                .lines()
                .any(|line| line.starts_with(&format!("{banned} "))),
            "{banned} is in\n{tree}"
        );
    }
}
