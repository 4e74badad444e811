//! Settings that change while the box runs: what is restarted, what is refused, what is shown.

mod common;

use std::fs;

use common::{Running, TestBox, wait};
use serde_json::json;

const OLD: &str = "OLDcanarySECRET1";
const NEW: &str = "NEWcanarySECRET2";

/// A service that says each time it starts, and again on SIGHUP.
fn service(b: &mut TestBox, name: &str, more: &str) {
    b.script(
        name,
        &format!(
            "trap 'echo hup >> ROOT/{name}.log' HUP\necho start >> ROOT/{name}.log\nwhile :; do sleep 0.05; done"
        ),
    );
    b.unit(
        &format!("{name}.service"),
        &format!("[Service]\nExecStart=ROOT/bin/{name}\n{more}"),
    );
}

/// Two services that restart by a handler, one that is reloaded, one that nobody names.
fn a_box() -> TestBox {
    let mut b = TestBox::new();
    for (name, kind) in [("PORT", "port"), ("TOKEN", "secret"), ("BUNDLED", "bool")] {
        let variable = name.to_lowercase();
        b.put(
            "settings",
            name,
            json!({"variable": variable, "type": kind}),
        );
    }
    for (name, value) in [
        ("port", json!(1)),
        ("token", json!("")),
        ("bundled", json!(true)),
    ] {
        b.put("variables", name, value);
    }
    for (dest, body, notify) in [
        ("/etc/web.conf", "port={{ port }}\n", json!(["restart web"])),
        (
            "/etc/proxy.conf",
            "port={{ port }}\n",
            json!(["reload proxy"]),
        ),
        ("/etc/db.conf", "token={{ token }}\n", json!(["restart db"])),
    ] {
        b.template(dest, body);
        let templates = b.contract["templates"].as_array_mut().unwrap();
        templates.last_mut().unwrap()["notify"] = notify;
    }
    for (handler, service, action) in [
        ("restart web", "web", "restart"),
        ("reload proxy", "proxy", "reload"),
        ("restart db", "db", "restart"),
    ] {
        b.put(
            "handlers",
            handler,
            json!([{"service": service, "action": action}]),
        );
    }
    for name in ["web", "proxy", "db", "bystander"] {
        service(&mut b, name, "");
    }
    b.put("services", "db", json!({"when": "bundled"}));
    from_files(&mut b, &format!("PORT=1\nTOKEN={OLD}\nBUNDLED=yes\n"));
    b
}

fn started(b: &TestBox) -> Running {
    let running = b.start();
    for name in ["web", "proxy", "db", "bystander"] {
        b.wait_for(&format!("/{name}.log"));
    }
    b.wait_status("bystander ready");
    running
}

fn log(b: &TestBox, name: &str) -> String {
    fs::read_to_string(b.path(&format!("/{name}.log"))).unwrap()
}

/// Changes what the files of `NAME_FILE` hold.
fn edit(b: &TestBox, text: &str) {
    for line in text.lines() {
        let (name, value) = line.split_once('=').unwrap();
        b.file(&format!("/settings/{name}"), value);
    }
}

/// Settings that are read from files, which may be edited while the box runs.
fn from_files(b: &mut TestBox, text: &str) {
    edit(b, text);
    for line in text.lines() {
        let (name, _) = line.split_once('=').unwrap();
        let path = b.path(&format!("/settings/{name}")).display().to_string();
        b.env(&format!("{name}_FILE"), &path);
    }
}

/// Says RELOADING=1 on SIGHUP, and READY=1 when `/go` is there.
const RENEWS: &str = "\
import os, signal, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
say = lambda text: s.sendto(text, os.environ['NOTIFY_SOCKET'])
def renew(*_):
    say(b'RELOADING=1\\nMONOTONIC_USEC=%d' % (time.monotonic_ns() // 1000))
    while not os.path.exists('ROOT/go'): time.sleep(0.01)
    os.unlink('ROOT/go')
    open('ROOT/done', 'a').write('done\\n')
    say(b'READY=1\\nSTATUS=renewed')
signal.signal(signal.SIGHUP, renew)
say(b'READY=1')
while True: time.sleep(1000)
";

#[test]
fn who_says_that_it_reloads_is_waited_for() {
    for keys in [
        "Type=notify\nExecReload=/bin/kill -HUP $MAINPID\n",
        "Type=notify\n",
        "Type=notify-reload\n",
    ] {
        let mut b = TestBox::new();
        b.file("/renews.py", RENEWS);
        b.unit(
            "app.service",
            &format!("[Service]\nExecStart=/usr/bin/python3 ROOT/renews.py\n{keys}"),
        );
        let running = b.start().until(&b, "app ready");
        let mut reload = b.spawn(&["reload", "app"]);
        common::wait("reloading", || {
            let out = b.run(&["status"]).out;
            out.lines()
                .any(|line| line.starts_with("app") && line.ends_with("  reloading"))
                .then_some(())
        });
        b.run(&["reload", "app"])
            .exits(1)
            .says("it is reloading already");
        assert!(!b.path("/done").exists(), "{keys}");
        assert!(reload.try_wait().unwrap().is_none(), "{keys}: it waits");
        b.file("/go", "");
        common::Ended::of(reload.wait_with_output().unwrap()).exits(0);
        assert!(b.path("/done").exists(), "{keys}");
        assert_eq!(b.wait_for("/done"), "done\n", "{keys}");
        let out = b.run(&["status"]).out;
        assert!(
            out.contains("  renewed") && !out.contains("reloading"),
            "{out}"
        );
        running.stop().exits(0).says("app is reloaded");
    }
}

#[test]
fn a_reload_that_never_ends_is_refused_in_time() {
    let mut b = TestBox::new();
    b.file("/renews.py", RENEWS);
    b.unit(
        "app.service",
        "[Service]\nType=notify-reload\nTimeoutStartSec=600ms\nExecStart=/usr/bin/python3 ROOT/renews.py\n",
    );
    // One that says nothing about it is done when it was told.
    b.file(
        "/quiet.py",
        "import os,signal,socket,time\nsignal.signal(signal.SIGHUP, lambda *_: open('ROOT/hup','a').write('x\\n'))\n\
         socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n\
         while True: time.sleep(1000)\n",
    );
    b.unit(
        "quiet.service",
        "[Service]\nType=notify\nExecStart=/usr/bin/python3 ROOT/quiet.py\n",
    );
    let running = b.start().until(&b, "app ready").until(&b, "quiet ready");
    b.run(&["reload", "app"])
        .exits(1)
        .says("cannot reload app: it did not say READY=1 in time");
    b.wait_status("app ready");
    b.run(&["reload", "quiet"]).exits(0);
    assert_eq!(b.wait_for("/hup"), "x\n");
    running.stop().exits(0);
}

#[test]
fn only_services_whose_files_changed_are_touched_and_as_their_handler_says() {
    let b = a_box();
    let running = started(&b);
    edit(&b, "PORT=2\n");
    let dry = b.run(&["reload", "--dry-run"]);
    dry.exits(0)
        .says("--- /etc/web.conf\n+++ /etc/web.conf\n@@ -1 +1 @@\n-port=1\n+port=2\n")
        .says("web restarts: handler `restart web`")
        .says("proxy reloads: handler `reload proxy`");
    assert_eq!(
        fs::read_to_string(b.path("/etc/web.conf")).unwrap(),
        "port=1\n"
    );

    b.run(&["reload"]).exits(0).says("+port=2");
    assert_eq!(
        fs::read_to_string(b.path("/etc/web.conf")).unwrap(),
        "port=2\n"
    );
    wait("proxy has its SIGHUP", || {
        log(&b, "proxy").contains("hup").then_some(())
    });
    wait("web has started again", || {
        (log(&b, "web") == "start\nstart\n").then_some(())
    });
    assert_eq!(log(&b, "proxy"), "start\nhup\n");
    assert_eq!(
        (log(&b, "db"), log(&b, "bystander")),
        ("start\n".into(), "start\n".into())
    );

    b.run(&["reload"]).exits(0).says("nothing changes");
    assert_eq!(log(&b, "web"), "start\nstart\n");
    running.stop().exits(0).says("reload: 2 files changed");
}

#[test]
fn wrong_settings_are_refused_all_at_once_and_nothing_changes() {
    let b = a_box();
    let running = started(&b);
    edit(&b, "PORT=seven\nBUNDLED=perhaps\n");
    b.run(&["reload"])
        .exits(1)
        .says("2 settings are wrong")
        .says("PORT = `seven`")
        .says("BUNDLED = `perhaps`");
    assert_eq!(
        fs::read_to_string(b.path("/etc/web.conf")).unwrap(),
        "port=1\n"
    );
    running.signal("-HUP");
    running.stop().exits(0);
    assert_eq!(log(&b, "web"), "start\n");
}

#[test]
fn the_file_on_the_volume_is_read_again() {
    let mut b = a_box();
    b.environment.retain(|(name, _)| name != "PORT_FILE");
    let running = started(&b);
    b.file("/data/settings.env", "# the web's\nPORT=4\n");
    b.run(&["reload"])
        .exits(0)
        .says("+port=4")
        .says("web restarts");
    b.file("/data/settings.env", "PORT=zero\n");
    b.run(&["reload"]).exits(1).says("PORT = `zero`");
    running.stop().exits(0);
}

#[test]
fn a_hangup_signal_reloads_and_the_log_has_the_difference() {
    let b = a_box();
    let running = started(&b);
    edit(&b, "PORT=3\n");
    running.signal("-HUP");
    wait("web has started again", || {
        (log(&b, "web") == "start\nstart\n").then_some(())
    });
    b.wait_status("web ready");
    running.stop().exits(0).says("+port=3").says("web restarts");
}

#[test]
fn a_secret_is_on_no_side_of_a_difference() {
    let b = a_box();
    let running = started(&b);
    edit(&b, &format!("TOKEN={NEW}\n"));
    for words in [
        &["render", "--diff"][..],
        &["reload", "--dry-run"],
        &["reload"],
    ] {
        let ended = b.run(words);
        ended.says("-token=********\n+token=********");
        let text = format!("{}{}", ended.out, ended.err);
        assert!(!text.contains(OLD) && !text.contains(NEW), "{text}");
    }
    let conf = fs::read_to_string(b.path("/etc/db.conf")).unwrap();
    assert_eq!(conf, format!("token={NEW}\n"));
    let ended = running.stop();
    let text = format!("{}{}", ended.out, ended.err);
    assert!(!text.contains(OLD) && !text.contains(NEW), "{text}");
}

#[test]
fn a_service_whose_condition_flips_stops_and_starts() {
    let b = a_box();
    let running = started(&b);
    edit(&b, "BUNDLED=no\n");
    b.run(&["reload"])
        .exits(0)
        .says("db stops: `bundled` does not hold");
    b.wait_status("db skipped");
    b.run(&["health"]).exits(0);
    edit(&b, "BUNDLED=yes\n");
    b.run(&["reload"]).exits(0).says("db starts");
    b.wait_status("db ready");
    assert_eq!(
        (log(&b, "db").as_str(), log(&b, "web").as_str()),
        ("start\nstart\n", "start\n")
    );
    running.stop().exits(0);
}

#[test]
fn programs_appear_change_and_vanish_with_their_file() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "WORKERS",
        json!({"variable": "workers", "type": "list"}),
    );
    b.put(
        "settings",
        "LEVEL",
        json!({"variable": "level", "type": "string"}),
    );
    b.put("variables", "workers", json!(["one", "two"]));
    b.put("variables", "level", json!("info"));
    b.script("worker", "echo $1 $2 >> ROOT/worker.log\nexec sleep 1000");
    b.template(
        "/etc/supervisor/conf.d/workers.conf",
        "{% for w in workers %}\n[program:{{ w }}]\ncommand=ROOT/bin/worker {{ w }} {{ level }}\nstartsecs=0\n{% endfor %}\n",
    );
    let root = b.dir.path().to_str().unwrap().to_owned();
    let template = b.contract["templates"][0].as_object_mut().unwrap();
    let body = template["body"].as_str().unwrap().replace("ROOT", &root);
    template["body"] = json!(body);
    b.file(
        "/etc/supervisor/supervisord.conf",
        "[supervisord]\n[include]\nfiles=/etc/supervisor/conf.d/*.conf\n",
    );
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf\n",
    );
    from_files(&mut b, "WORKERS=one,two\nLEVEL=info\n");
    let running = b.start();
    b.wait_status("one ready");
    b.wait_status("two ready");
    edit(&b, "WORKERS=two,three\n");
    b.run(&["reload"])
        .exits(0)
        .says("one stops: it is no part of the box any more")
        .says("three starts: it is new");
    let status = b.run(&["status"]).out;
    assert!(
        !status.contains("one ") && status.contains("three "),
        "{status}"
    );
    b.run(&["restart", "one"])
        .exits(1)
        .says("no service is called one");
    edit(&b, "WORKERS=two,three\nLEVEL=debug\n");
    b.run(&["reload"])
        .exits(0)
        .says("two restarts: its unit or program changed");
    b.wait_status("two ready");
    let log = b.wait_for("/worker.log");
    assert!(
        log.contains("two debug") && log.contains("three debug"),
        "{log}"
    );
    assert_eq!(log.matches("two info").count(), 1, "{log}");
    edit(&b, "WORKERS=one\n");
    b.run(&["reload"]).exits(0).says("one starts: it is new");
    b.wait_status("one ready");
    running.stop().exits(0);
}

#[test]
fn one_service_is_reloaded_by_its_own_command_or_by_a_signal_that_it_handles() {
    let mut b = a_box();
    service(
        &mut b,
        "own",
        "ExecReload=/bin/sh -c 'echo reload $MAINPID >> ROOT/own.log'\n",
    );
    service(&mut b, "bad", "ExecReload=/bin/false\n");
    b.unit("deaf.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = started(&b);
    b.wait_status("deaf ready");
    b.wait_for("/own.log");
    b.run(&["reload", "own"]).exits(0);
    assert!(
        log(&b, "own").starts_with("start\nreload "),
        "{}",
        log(&b, "own")
    );
    b.run(&["reload", "proxy"]).exits(0);
    wait("proxy has its SIGHUP", || {
        log(&b, "proxy").contains("hup").then_some(())
    });
    b.run(&["reload", "bad"])
        .exits(1)
        .says("its reload command exited with code 1");
    b.run(&["reload", "deaf"])
        .exits(1)
        .says("does not handle SIGHUP");
    b.run(&["reload", "nobody"])
        .exits(1)
        .says("no service is called nobody");
    b.wait_status("deaf ready");
    b.run(&["stop", "web"]).exits(0);
    b.run(&["reload", "web"])
        .exits(1)
        .says("it is not running (stopped)");
    running.stop().exits(0);
}

#[test]
fn services_that_restart_together_keep_their_order() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "PORT",
        json!({"variable": "port", "type": "port"}),
    );
    b.put("variables", "port", json!(1));
    b.template("/etc/all.conf", "{{ port }}\n");
    for name in ["lower", "upper"] {
        b.script(
            name,
            &format!(
                "trap 'echo {name} stops >> ROOT/order.log; exit 0' TERM\necho {name} starts >> ROOT/order.log\nwhile :; do sleep 0.02; done"
            ),
        );
        b.unit(
            &format!("{name}.service"),
            &format!("[Service]\nExecStart=ROOT/bin/{name}\n"),
        );
    }
    let said = |name: &str| format!("grep -q '{name} starts' ROOT/order.log");
    let root = b.dir.path().to_str().unwrap().to_owned();
    for (name, after) in [("lower", json!([])), ("upper", json!(["lower"]))] {
        let count = format!("sh -c \"{}\"", said(name)).replace("ROOT", &root);
        b.put(
            "services",
            name,
            json!({"uses": ["/etc/all.conf"], "after": after, "ready": {"command": count}}),
        );
    }
    from_files(&mut b, "PORT=1\n");
    let running = b.start();
    b.wait_status("upper ready");
    edit(&b, "PORT=2\n");
    b.run(&["reload"])
        .exits(0)
        .says("upper restarts: the recipe's `uses`");
    wait("upper has started again", || {
        let log = fs::read_to_string(b.path("/order.log")).unwrap();
        (log.lines().count() >= 6).then(|| {
            assert_eq!(
                log,
                "lower starts\nupper starts\nupper stops\nlower stops\nlower starts\nupper starts\n"
            );
        })
    });
    running.stop().exits(0);
}

#[test]
fn a_refused_file_stays_as_it_was_and_so_do_those_before_it() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "PORT",
        json!({"variable": "port", "type": "port"}),
    );
    b.put(
        "settings",
        "TOKEN",
        json!({"variable": "token", "type": "secret"}),
    );
    b.put("variables", "port", json!(1));
    b.put("variables", "token", json!(""));
    from_files(&mut b, &format!("PORT=1\nTOKEN={OLD}\n"));
    b.template("/etc/first.conf", "{{ port }}\n");
    b.template("/etc/second.conf", "port={{ port }}\ntoken={{ token }}\n");
    b.template("/etc/third.conf", "{{ port }}\n");
    b.script(
        "check",
        "grep -q '^port=[0-9]$' $2 || { echo \"line 1 of $2 is wrong:\"; cat $2; exit 3; }",
    );
    b.contract["templates"][1]["validate"] = json!("/bin/check -c %s");
    b.contract["templates"][2]["validate"] = json!("/bin/is-not-there %s");
    service(&mut b, "web", "");
    let running = b.start();
    b.wait_status("web ready");
    let contents = || {
        ["first", "second", "third"]
            .map(|name| fs::read_to_string(b.path(&format!("/etc/{name}.conf"))).unwrap())
    };
    let before = contents();
    assert_eq!(
        before[2], "1\n",
        "a check that the box does not have is not asked"
    );
    edit(&b, "PORT=99\n");
    let ended = b.run(&["reload"]);
    ended
        .exits(1)
        .says("cannot write /etc/second.conf: its check `/bin/check -c %s` refuses it")
        .says("line 1 of /etc/second.conf is wrong:")
        .says("port=99")
        .says("token=********");
    assert!(!ended.err.contains(OLD), "{ended:?}");
    assert_eq!(contents(), before);
    assert_eq!(log(&b, "web"), "start\n");
    running.stop().exits(0);
    // At the start as well: nothing runs with a file that is known to be wrong.
    b.run(&["start"]).exits(78).says("refuses it");
    assert_eq!(contents(), before);
}

#[test]
fn while_a_check_runs_services_and_clients_are_served_and_a_stop_ends_it() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "PORT",
        json!({"variable": "port", "type": "port"}),
    );
    b.put("variables", "port", json!(1));
    from_files(&mut b, "PORT=1\n");
    b.template("/etc/first.conf", "{{ port }}\n");
    b.template("/etc/checked.conf", "port={{ port }}\n");
    b.script(
        "check",
        "[ -e ROOT/go ] || echo up > ROOT/checking; until [ -e ROOT/go ]; do sleep 0.02; done",
    );
    b.contract["templates"][1]["validate"] = json!("/bin/check %s");
    service(&mut b, "web", "Restart=always\n");
    b.file("/go", "");
    let running = b.start();
    b.wait_for("/web.log");
    let contents = || {
        ["first", "checked"]
            .map(|name| fs::read_to_string(b.path(&format!("/etc/{name}.conf"))).unwrap())
    };
    let reload = |text: &str| {
        fs::remove_file(b.path("/go")).unwrap();
        let _ = fs::remove_file(b.path("/checking"));
        edit(&b, text);
        let client = b.spawn(&["reload"]);
        b.wait_for("/checking");
        (client, std::time::Instant::now())
    };

    let (client, begun) = reload("PORT=2\n");
    let status = b.run(&["status", "--json"]).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let pid = status["services"][0]["pid"].to_string();
    assert!(
        std::process::Command::new("/bin/kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
    wait("web again", || {
        (log(&b, "web") == "start\nstart\n").then_some(())
    });
    b.run(&["reload"])
        .exits(1)
        .says("another reload is under way");
    // A check has 20 s.
    assert!(begun.elapsed().as_secs() < 15, "the box stood still");
    b.file("/go", "");
    common::Ended::of(client.wait_with_output().unwrap()).exits(0);
    assert_eq!(contents(), ["2\n", "port=2\n"]);

    let (client, begun) = reload("PORT=3\n");
    running.stop().exits(0);
    assert!(begun.elapsed().as_secs() < 15, "the box stood still");
    common::Ended::of(client.wait_with_output().unwrap())
        .exits(1)
        .says("the box is stopping");
    assert_eq!(contents(), ["2\n", "port=2\n"]);
}

#[test]
fn long_a_check_that_does_not_end_is_killed_and_refuses() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "PORT",
        json!({"variable": "port", "type": "port"}),
    );
    b.put("variables", "port", json!(1));
    from_files(&mut b, "PORT=1\n");
    b.template("/etc/checked.conf", "port={{ port }}\n");
    b.script("check", "[ -e ROOT/go ] || exec sleep 1000");
    b.contract["templates"][0]["validate"] = json!("/bin/check %s");
    service(&mut b, "web", "");
    b.file("/go", "");
    let running = b.start().until(&b, "web ready");
    fs::remove_file(b.path("/go")).unwrap();
    edit(&b, "PORT=2\n");
    b.run(&["reload"])
        .exits(1)
        .says("cannot write /etc/checked.conf: its check `/bin/check %s` refuses it")
        .says("it did not end within 20 s");
    let text = fs::read_to_string(b.path("/etc/checked.conf")).unwrap();
    assert_eq!(text, "port=1\n");
    running.stop().exits(0);
    // At the start as well.
    b.run(&["start"])
        .exits(78)
        .says("it did not end within 20 s");
}
