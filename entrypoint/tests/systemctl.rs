//! The names systemctl and service in a running box: what scripts compare with.

mod common;

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use common::{Ended, TestBox};

fn ask(b: &TestBox, name: &str, words: &str) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_entrypoint"))
        .arg0(name)
        .arg("--root")
        .arg(b.dir.path())
        .args(words.split(' '))
        .output()
        .unwrap();
    Ended::of(output)
}

#[test]
fn scripts_find_the_systemctl_and_service_that_they_know() {
    let mut b = TestBox::new();
    b.script(
        "web",
        "trap 'echo reloaded' HUP; trap 'exit 0' TERM; echo hello; while :; do sleep 0.05; done",
    );
    b.unit("web.service", "[Unit]\nDescription=The web\n[Service]\nExecStart=ROOT/bin/web\nExecReload=/bin/kill -HUP $MAINPID\n");
    b.unit("other.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let ctl = |words: &str| ask(&b, "systemctl", words);
    let service = |words: &str| ask(&b, "/usr/sbin/service", words);
    ctl("is-active web").exits(1).says("has not been booted");
    let running = b.start();
    b.wait_status("web ready");
    b.wait_log("web | hello");
    assert_eq!(ctl("is-active web.service").exits(0).out, "active\n");
    assert_eq!(ctl("is-active --quiet web").exits(0).out, "");
    assert_eq!(ctl("is-active nope").exits(4).out, "inactive\n");
    assert_eq!(ctl("is-enabled web").exits(0).out, "enabled\n");
    ctl("is-enabled nope").exits(1).says("No such file");
    assert_eq!(ctl("is-failed web").exits(1).out, "active\n");
    ctl("status web --no-pager")
        .exits(0)
        .says("\u{25cf} web.service - The web")
        .says("Active: active (running)")
        .says("web | hello");
    ctl("status nope").exits(4).says("could not be found");
    let shown = ctl("show -p MainPID --value web").exits(0).out.clone();
    assert!(shown.trim().parse::<u32>().unwrap() > 1);
    ctl("show web --property=ActiveState,SubState,LoadState")
        .exits(0)
        .says("LoadState=loaded\nActiveState=active\nSubState=running\n");
    ctl("show nope -p LoadState")
        .exits(0)
        .says("LoadState=not-found");
    ctl("daemon-reload").exits(0);
    ctl("reload web").exits(0);
    b.wait_log("web | reloaded");
    assert_eq!(ctl("show -p MainPID --value web").out, shown);
    ctl("restart web").exits(0);
    assert_ne!(ctl("show -p MainPID --value web").out, shown);
    ctl("stop web other").exits(0);
    assert_eq!(ctl("is-active web").exits(3).out, "inactive\n");
    ctl("status web").exits(3).says("inactive (dead)");
    service("web status").exits(3);
    ctl("try-restart web").exits(0);
    ctl("reload web").exits(1).says("not active");
    ctl("is-active web").exits(3);
    service("web start").exits(0);
    service("web status").exits(0);
    service("nope start").exits(1).says("unrecognized service");
    service("--status-all")
        .exits(0)
        .says(" [ + ]  web\n [ - ]  other");
    ctl("start nope")
        .exits(5)
        .says("Unit nope.service not found.");
    ctl("list-units --type=service --all")
        .exits(0)
        .says("web.service   loaded active running The web");
    ctl("enable web").exits(0);
    ctl("disable web").exits(1).says("part of the image");
    ctl("frobnicate").exits(1).says("Unknown command verb");
    running.stop().exits(0);
}

#[test]
fn a_one_shot_that_remains_is_active_when_it_is_done() {
    let mut b = TestBox::new();
    for (name, remains) in [("all", "RemainAfterExit=on\n"), ("once", "")] {
        let text = format!("[Service]\nType=oneshot\n{remains}ExecStart=/bin/true\n");
        b.unit(&format!("{name}.service"), &text);
    }
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = b.start();
    b.wait_status("all finished");
    b.wait_status("once finished");
    let ctl = |words: &str| ask(&b, "systemctl", words);
    assert_eq!(ctl("is-active all").exits(0).out, "active\n");
    ctl("status all").exits(0).says("active (exited)");
    assert_eq!(ctl("is-active once").exits(3).out, "inactive\n");
    running.stop().exits(0);
}
