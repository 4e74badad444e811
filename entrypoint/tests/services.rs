//! Services of every kind, from start to stop.

mod common;

use std::process::Command;

use common::{TestBox, wait};
use serde_json::json;

#[test]
fn a_clean_stop_is_0_and_lines_carry_the_services_name() {
    let mut b = TestBox::new();
    b.script(
        "web",
        "trap 'echo bye; exit 0' TERM; echo hello; echo up > ROOT/up; while :; do sleep 0.05; done",
    );
    b.unit("web.service", "[Service]\nExecStart=ROOT/bin/web\n");
    let running = b.start();
    b.wait_for("/up");
    b.wait_status("web ready");
    b.run(&["health"]).exits(0).says("all services are ready");
    b.wait_log("web | hello");
    b.run(&["logs", "web"]).exits(0).says("web | hello");
    running
        .stop()
        .exits(0)
        .says("web | hello")
        .says("web | bye")
        .says("tiffin: web is ready");
}

#[test]
fn a_crash_loop_ends_the_box_with_its_last_lines() {
    let mut b = TestBox::new();
    b.script("bad", "echo 'no such table'; exit 3");
    b.unit(
        "bad.service",
        "[Unit]\nStartLimitBurst=3\n[Service]\nExecStart=ROOT/bin/bad\nRestart=always\n",
    );
    b.unit("good.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.start()
        .end()
        .exits(69)
        .says("bad is given up: it exited with code 3")
        .says("  bad | no such table")
        .says("3. time in a row");
}

#[test]
fn each_transition_is_told_once() {
    let mut b = TestBox::new();
    b.script("db", "while ! [ -e ROOT/go ]; do sleep 0.02; done");
    b.script(
        "app",
        "echo try >>ROOT/tries\nn=$(wc -l <ROOT/tries)\nif [ $n = 1 ]; then seq 30; echo why >&2; exit 3; fi\n\
         [ $n = 2 ] && kill -SEGV $$\ntrap 'exit 4' TERM; echo $n >ROOT/up-$n; while :; do sleep 0.02; done",
    );
    b.unit(
        "db.service",
        "[Service]\nType=oneshot\nExecStart=ROOT/bin/db\n",
    );
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.unit(
        "app.service",
        "[Unit]\nAfter=db.service\n[Service]\nExecStart=ROOT/bin/app\nRestart=always\n",
    );
    let running = b.start().until(&b, "db starting");
    b.file("/go", "");
    b.wait_for("/up-3");
    b.wait_status("app ready");
    b.run(&["restart", "app"]).exits(0);
    b.wait_for("/up-4");
    b.run(&["stop", "app"]).exits(0);
    b.run(&["start", "app"]).exits(0);
    b.wait_for("/up-5");
    let ended = running.stop();
    let mut wanted = vec![
        "web is ready".to_owned(),
        "starting db".to_owned(),
        "db is done".to_owned(),
        "app is ready".to_owned(),
        "ready after T".to_owned(),
        "app: it exited with code 3 after T; restarting in T, attempt 2 of 5".to_owned(),
        "its last lines:".to_owned(),
    ];
    wanted.extend((12..=30).map(|n| format!("  app | {n}")));
    for line in [
        "  app | why",
        "app is ready",
        "app: it was killed by SIGSEGV after T; restarting in T, attempt 3 of 5",
        "it wrote nothing",
        "app is ready",
        "stopping app (tiffin restart)",
        "app is ready",
        "stopping app (tiffin stop)",
        "app is stopped: it exited with code 4",
        "app is ready",
        "SIGTERM: stopping, within T at most",
        "stopping web, app",
        "web is stopped",
        "app is stopped: it exited with code 4",
    ] {
        wanted.push(line.to_owned());
    }
    let time = |word: &str| word.parse::<f64>().is_ok() && word.contains('.') || word == "30";
    let mut said: Vec<String> = Vec::new();
    for line in ended
        .err
        .lines()
        .skip_while(|line| !line.ends_with("web is ready"))
    {
        let line = line.strip_prefix("tiffin: ").unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let mut out = String::new();
        for (at, word) in words.iter().enumerate() {
            // `0.1 s;` is a time, and `s` its unit.
            let unit = words
                .get(at + 1)
                .is_some_and(|next| next.trim_end_matches([';', ',']) == "s");
            let is_unit = word.trim_end_matches([';', ',']) == "s";
            if is_unit {
                out.push_str(&word[1..]);
                continue;
            }
            if at > 0 {
                out.push(' ');
            }
            out.push_str(if unit && time(word) { "T" } else { word });
        }
        said.push(out);
    }
    // The two of them end when they like.
    let end = said.pop().unwrap();
    assert!(end.starts_with("stopped in "), "{end}");
    let last = said.len().saturating_sub(2);
    if said[last].starts_with("app is stopped") {
        said.swap(last, last + 1);
    }
    assert_eq!(said, wanted);
}

#[test]
fn what_has_no_effect_is_named() {
    let mut b = TestBox::new();
    b.unit(
        "web.service",
        "[Unit]\nOnFailure=alarm.service\nConditionVirtualization=!container\n[Service]\nExecStart=/bin/sleep 1000\n\
         PassEnvironment=A\nSendSIGKILL=no\nFinalKillSignal=SIGABRT\nPrivateTmp=yes\nMemoryMax=1G\nStandardOutput=journal\n",
    );
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\n",
    );
    b.file(
        "/etc/supervisord.conf",
        "[supervisord]\nminfds=9\nlogfil=x\n[program:app]\ncommand=/bin/sleep 1000\nstdout_capture_maxbytes=1MB\nstdout_logfile=/srv/app.log\n",
    );
    let running = b.start().until(&b, "web ready");
    let ended = running.stop();
    let notes: Vec<&str> = ended
        .err
        .lines()
        .filter_map(|line| line.strip_prefix("tiffin: note: "))
        // Of the container that it runs in, if any.
        .filter(|line| !line.contains("capabilit") && !line.contains("process 1"))
        .collect();
    assert_eq!(
        notes,
        [
            "web.service: without effect in a box: OnFailure=, ConditionVirtualization=, PassEnvironment=, SendSIGKILL=, FinalKillSignal=",
            "/etc/supervisord.conf: [supervisord]: unknown key `logfil`",
            "/etc/supervisord.conf: [supervisord]: without effect in a box: minfds",
            "/etc/supervisord.conf: [program:app]: without effect in a box: stdout_capture_maxbytes, stdout_logfile=/srv/app.log (its output goes to the container's log)",
        ]
    );
}

#[test]
fn an_exit_code_forces_a_restart() {
    let mut b = TestBox::new();
    b.script("it", "[ -e ROOT/once ] && exit 5; touch ROOT/once; exit 0");
    b.unit(
        "it.service",
        "[Service]\nExecStart=ROOT/bin/it\nRestart=no\nRestartForceExitStatus=0 6\n",
    );
    b.start().end().exits(5).says("restarting in");
}

#[test]
fn one_that_is_not_required_leaves_the_box_degraded() {
    let mut b = TestBox::new();
    b.script("mail", "[ -e ROOT/mended ] && exec sleep 1000; exit 3");
    b.unit(
        "mail.service",
        "[Unit]\nStartLimitBurst=2\n[Service]\nExecStart=ROOT/bin/mail\nRestart=always\n",
    );
    b.unit(
        "app.service",
        "[Unit]\nAfter=mail.service\n[Service]\nExecStart=/bin/sleep 1000\n",
    );
    let ready = json!({"command": format!("test -e {}", b.path("/mended").display())});
    b.put(
        "services",
        "mail",
        json!({"required": false, "ready": ready}),
    );
    let running = b.start();
    b.wait_status("mail failed");
    // What waits for it starts all the same.
    b.wait_status("app ready");
    let lacking = "degraded: mail is failed (it exited with code 3)";
    for option in ["--live", "--ready"] {
        b.run(&["health", option]).exits(0).says(lacking);
    }
    b.run(&["health"]).exits(0).says(lacking);
    b.run(&["health", "--started"])
        .exits(0)
        .says("all services have started");
    // Who mended it starts it again, and all is well.
    b.file("/mended", "");
    b.run(&["start", "mail"]).exits(0);
    let all_well = "all services are ready";
    b.run(&["health"]).exits(0).says(all_well);
    b.run(&["stop", "mail"]).exits(0);
    b.run(&["health"])
        .exits(0)
        .says("degraded: mail is stopped");
    running
        .stop()
        .exits(0)
        .says("mail is given up: it exited with code 3")
        .says("the box goes on without it")
        .says(", degraded");
}

#[test]
fn a_box_whose_services_were_all_given_up_ends() {
    let mut b = TestBox::new();
    for name in ["a", "b"] {
        b.unit(
            &format!("{name}.service"),
            "[Service]\nExecStart=/bin/sh -c 'exit 3'\n",
        );
        b.put("services", name, json!({"required": false}));
    }
    b.start()
        .end()
        .exits(69)
        .says("a is given up")
        .says("b is given up");
}

#[test]
fn a_service_that_may_not_be_restarted_ends_the_box() {
    let mut b = TestBox::new();
    b.script("bad", "kill -SEGV $$");
    b.unit("bad.service", "[Service]\nExecStart=ROOT/bin/bad\n");
    b.unit("good.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.start().end().exits(69).says("was killed by SIGSEGV");
}

/// A box with one service, whose script this is.
fn alone(script: &str, keys: &str) -> TestBox {
    let mut b = TestBox::new();
    b.script("it", script);
    b.unit(
        "it.service",
        &format!("[Service]\nExecStart=ROOT/bin/it\n{keys}"),
    );
    // None of these is what the box is for.
    b.unit(
        "migrate.service",
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    );
    b.unit("mail.service", "[Service]\nExecStart=/bin/false\n");
    b.put("services", "mail", json!({"when": "no_mail"}));
    b.put("variables", "no_mail", json!(false));
    b
}

#[test]
fn the_only_services_own_exit_code_is_the_containers() {
    let always = "Restart=always\nStartLimitBurst=2\n";
    for (script, keys, code) in [
        ("exit 0", "", 0),
        ("exit 1", "", 1),
        ("exit 42", "", 42),
        ("exit 255", "", 255),
        ("exit 7", "SuccessExitStatus=7\n", 7),
        ("kill -TERM $$", "", 143),
        ("kill -KILL $$", "", 137),
        ("kill -SEGV $$", "", 139),
        ("exit 3", always, 3),
        // 0 would say that all is well.
        ("exit 0", always, 69),
        ("exit 4", "ExecStartPre=/bin/sh -c 'exit 6'\n", 6),
    ] {
        alone(script, keys).start().end().exits(code);
    }
    // What never ran has no code.
    let mut b = TestBox::new();
    b.unit("it.service", "[Service]\nExecStart=/nowhere/it\n");
    b.start().end().exits(69);
}

#[test]
fn a_stop_that_was_asked_for_is_0_unless_it_goes_wrong() {
    let trap =
        |what: &str| format!("trap '{what}' TERM; echo >ROOT/up; while :; do sleep 0.02; done");
    for (script, keys, code) in [
        (trap("exit 0"), "", 0),
        (trap("exit 5"), "", 5),
        (trap("exit 143"), "", 143),
        (trap("exit 143"), "SuccessExitStatus=143\n", 0),
        (trap("trap - TERM; kill -TERM $$"), "", 0),
        (trap("kill -ABRT $$"), "", 134),
        (trap(""), "TimeoutStopSec=200ms\n", 137),
    ] {
        let b = alone(&script, keys);
        let running = b.start();
        b.wait_for("/up");
        b.wait_status("it ready");
        running.stop().exits(code);
    }
}

#[test]
fn one_of_several_has_no_say_in_the_exit_code() {
    let mut b = alone(
        "trap 'exit 5' TERM; echo >ROOT/up; while :; do sleep 0.02; done",
        "",
    );
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = b.start();
    b.wait_for("/up");
    b.wait_status("it ready");
    running.stop().exits(0);
    // Nor when a one-shot is given up while it runs.
    let mut b = alone(
        "trap 'exit 5' TERM; echo >ROOT/up; while :; do sleep 0.02; done",
        "",
    );
    b.unit(
        "late.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'while ! [ -e ROOT/up ]; do sleep 0.02; done; exit 3'\n",
    );
    b.start().end().exits(69);
}

#[test]
fn signals_reach_the_only_service() {
    let script = "for s in USR1 USR2 WINCH ALRM RTMIN; do trap \"echo $s >>ROOT/got\" $s; done\necho >ROOT/up; while :; do sleep 0.02; done";
    let b = alone(&format!("exec bash -c '{script}'"), "");
    let running = b.start();
    b.wait_for("/up");
    b.wait_status("it ready");
    let mut wanted = String::new();
    for signal in ["USR1", "USR2", "WINCH", "ALRM", "RTMIN"] {
        running.signal(&format!("-{signal}"));
        wanted.push_str(&format!("{signal}\n"));
        common::wait(signal, || (b.wait_for("/got") == wanted).then_some(()));
    }
    running.stop().exits(0);
    // With several nobody is meant.
    let mut b = alone(
        "trap 'echo >ROOT/got' USR1; echo >ROOT/up; while :; do sleep 0.02; done",
        "",
    );
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = b.start();
    b.wait_for("/up");
    b.wait_status("web ready");
    for signal in ["-USR1", "-WINCH", "-ALRM"] {
        running.signal(signal);
    }
    common::wait("a word", || {
        let said = b.run(&["logs", "tiffin"]).out;
        said.contains("this signal has no meaning here")
            .then_some(())
    });
    assert!(!b.path("/got").exists());
    running.stop().exits(0);
}

#[test]
fn a_second_term_leaves_a_database_its_own_signal() {
    let mut b = TestBox::new();
    b.script(
        "db",
        "trap 'echo flushed; exit 0' TERM; while :; do sleep 0.05; done",
    );
    b.script(
        "deaf",
        "trap '' TERM; echo up > ROOT/up; while :; do sleep 0.05; done",
    );
    b.unit("db.service", "[Service]\nExecStart=ROOT/bin/db\n");
    b.unit(
        "deaf.service",
        "[Unit]\nAfter=db.service\n[Service]\nExecStart=ROOT/bin/deaf\n",
    );
    let running = b.start();
    b.wait_for("/up");
    b.wait_status("deaf ready");
    running.signal("-TERM");
    b.wait_status("deaf stopping");
    running
        .stop()
        .exits(0)
        .says("SIGTERM again")
        .says("db | flushed");
}

#[test]
fn a_forking_daemon_is_known_by_its_pid_file() {
    let mut b = TestBox::new();
    b.script(
        "daemon",
        "setsid ROOT/bin/work >/dev/null 2>&1 </dev/null &\nexit 0",
    );
    b.script("work", "trap 'echo stopped > ROOT/stopped; exit 0' TERM; sleep 0.1; echo $$ > ROOT/run/d.pid; echo up > ROOT/up; while :; do sleep 0.05; done");
    b.file("/run/x", "");
    b.unit("d.service", "[Service]\nType=forking\nPIDFile=/run/d.pid\nExecStart=ROOT/bin/daemon\nExecStartPost=/bin/sh -c 'echo post $MAINPID > ROOT/post'\nKillMode=mixed\n");
    let running = b.start();
    b.wait_status("d ready");
    let pid = b.wait_for("/run/d.pid");
    assert_eq!(b.wait_for("/post"), format!("post {pid}"));
    running.stop().exits(0);
    b.wait_for("/stopped");
}

#[test]
fn notify_waits_for_ready_and_holds_up_what_comes_after() {
    let mut b = TestBox::new();
    b.file(
        "/notify.py",
        "import os,socket,time\ntime.sleep(0.3)\nopen('ROOT/order','a').write('db\\n')\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.sendto(b'READY=1\\nSTATUS=fine', os.environ['NOTIFY_SOCKET'])\ntime.sleep(1000)\n",
    );
    b.unit(
        "db.service",
        "[Service]\nType=notify\nExecStart=/usr/bin/python3 ROOT/notify.py\n",
    );
    b.unit("app.service", "[Unit]\nAfter=db.service\n[Service]\nExecStart=/bin/sh -c 'echo app >> ROOT/order; exec sleep 1000'\n");
    let running = b.start();
    b.wait_status("app ready");
    common::wait("order", || {
        (b.wait_for("/order") == "db\napp\n").then_some(())
    });
    b.run(&["status"]).says("fine");
    running.stop().exits(0);
}

#[test]
fn a_oneshot_runs_all_its_commands_and_once_means_once() {
    let mut b = TestBox::new();
    b.unit("migrate.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo one >> ROOT/log'\nExecStart=/bin/sh -c 'echo two >> ROOT/log'\n");
    b.unit(
        "app.service",
        "[Service]\nExecStart=/bin/sh -c 'echo app >> ROOT/log; exec sleep 1000'\n",
    );
    b.put("services", "migrate", json!({"once": true}));
    b.put("services", "app", json!({"after": ["migrate"]}));
    for log in ["one\ntwo\napp\n", "one\ntwo\napp\napp\n"] {
        let running = b.start();
        b.wait_status("app ready");
        common::wait("log", || (b.wait_for("/log") == log).then_some(()));
        running.stop().exits(0);
    }
}

#[test]
fn a_failed_oneshot_ends_the_box() {
    let mut b = TestBox::new();
    b.unit(
        "migrate.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo broken; exit 4'\n",
    );
    b.unit(
        "app.service",
        "[Unit]\nRequires=migrate.service\n[Service]\nExecStart=/bin/sh -c 'echo > ROOT/started'\n",
    );
    b.start()
        .end()
        .exits(69)
        .says("migrate is given up: it exited with code 4")
        .says("migrate | broken");
    assert!(!b.path("/started").exists());
}

#[test]
fn programs_of_supervisord_run_instead_of_it() {
    let mut b = TestBox::new();
    b.unit("supervisor.service", "[Unit]\nAfter=db.service\n[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf\n");
    b.unit("db.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.file(
        "/etc/supervisor/supervisord.conf",
        "[supervisord]\n[include]\nfiles = conf.d/*.conf\n",
    );
    b.file(
        "/etc/supervisor/conf.d/app.conf",
        "[program:worker]\ncommand=/bin/sh -c \"echo n=%(process_num)s $KEY $SECRET.; exec sleep 1000\"\nprocess_name=%(program_name)s_%(process_num)02d\nnumprocs=2\nstartsecs=0\nenvironment=KEY=\"%(ENV_WHO)s\"\nstdout_logfile=/dev/stdout\nnonsense=1\n[program:off]\ncommand=/bin/false\nautostart=false\n",
    );
    b.env("WHO", "me").env("SECRET", "canary");
    let running = b.start();
    b.wait_status("worker:worker_01 ready");
    b.wait_status("off stopped");
    b.run(&["health"]).exits(0);
    b.run(&["restart", "worker"]).exits(0);
    b.run(&["stop", "worker:worker_00"]).exits(0);
    b.wait_status("worker:worker_00 stopped");
    b.run(&["start", "worker:worker_00"]).exits(0);
    b.run(&["start", "nobody"])
        .exits(1)
        .says("no service is called nobody");
    b.wait_log("worker:worker_00 | n=0");
    b.wait_log("worker:worker_01 | n=1");
    let ended = running.stop();
    ended
        .exits(0)
        .says("worker:worker_00 | n=0 me .")
        .says("worker:worker_01 | n=1 me .")
        .says("unknown key `nonsense`");
    assert!(!ended.out.contains("canary"));
}

/// What a service starts and forgets: in its process group, in a session of its own, as a
/// daemon with a parent that has ended, and all of that without environment and output.
const LEAKY: &str = "ROOT/bin/child a &
setsid ROOT/bin/child b &
(setsid ROOT/bin/child c &)
setsid env -i ROOT/bin/child d &
(setsid env -i ROOT/bin/child e </dev/null >/dev/null 2>&1 &)
(setsid env -i ROOT/bin/child f >/dev/null 2>&1 &)
until [ $(wc -l < ROOT/children) -ge $1 ]; do sleep 0.01; done
";
const LEAKS: usize = 6;

/// Those of the file's processes that live.
fn living(pids: &str) -> Vec<&str> {
    let lives = |pid: &&str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|text| !text.contains("\nState:\tZ") && !text.contains("\nState:\tX"))
    };
    pids.lines().filter(lives).collect()
}

#[test]
fn what_a_crashed_service_left_is_gone_before_it_starts_again() {
    let mut b = TestBox::new();
    // Before anything else the second start looks at what lives of the first.
    b.script(
        "leaky",
        &format!(
            "echo start >> ROOT/starts
if [ $(wc -l < ROOT/starts) -gt 1 ]; then
  for pid in $(cat ROOT/children); do
    grep -q '^State:.[^ZX]' /proc/$pid/status 2>/dev/null && echo $pid >> ROOT/alive
  done
  set -- {}
else
  set -- {LEAKS}
fi
{LEAKY}
[ $1 -gt {LEAKS} ] && echo up > ROOT/up && exec sleep 1000
kill -KILL $$",
            2 * LEAKS
        ),
    );
    b.script(
        "child",
        "trap '' TERM; echo $$ >> ROOT/children; while :; do sleep 0.1; done",
    );
    b.file("/children", "");
    b.unit(
        "leaky.service",
        "[Service]\nExecStart=ROOT/bin/leaky\nRestart=always\nTimeoutStopSec=1\n",
    );
    let running = b.start();
    b.wait_for("/up");
    let children = b.wait_for("/children");
    assert_eq!(children.lines().count(), 2 * LEAKS);
    let alive = std::fs::read_to_string(b.path("/alive"));
    assert!(alive.is_err(), "of {children:?} {alive:?} lived");
    assert_eq!(living(&children).len(), LEAKS);
    b.run(&["stop", "leaky"]).exits(0);
    assert_eq!(living(&children), Vec::<&str>::new());
    running.stop().exits(0);
}

#[test]
fn what_another_service_started_is_not_a_crashed_ones() {
    let mut b = TestBox::new();
    // Both leave daemons without a trace; only those of the one that ends are killed.
    for name in ["crashes", "stays"] {
        b.script(
            name,
            &format!("(setsid env -i ROOT/bin/child {name} >/dev/null 2>&1 &)\nuntil [ -s ROOT/{name} ]; do sleep 0.01; done\necho up >> ROOT/up-{name}\nexec sleep 1000"),
        );
        b.unit(
            &format!("{name}.service"),
            &format!("[Service]\nExecStart=ROOT/bin/{name}\nRestart=always\n"),
        );
    }
    b.script("child", "echo $$ >> ROOT/$1; exec sleep 1001");
    let running = b.start();
    let stays = {
        b.wait_for("/up-stays");
        b.wait_for("/stays")
    };
    b.wait_for("/up-crashes");
    let crashes = b.wait_for("/crashes");
    b.run(&["restart", "crashes"]).exits(0);
    assert_eq!(living(&crashes), Vec::<&str>::new());
    assert_eq!(living(&stays).len(), 1);
    running.stop().exits(0);
    assert_eq!(living(&stays), Vec::<&str>::new());
}

#[test]
fn a_service_that_ignores_its_signal_is_killed_in_time() {
    let mut b = TestBox::new();
    b.script(
        "deaf",
        "trap '' TERM; echo up > ROOT/up; while :; do sleep 0.05; done",
    );
    b.unit(
        "deaf.service",
        "[Service]\nExecStart=ROOT/bin/deaf\nTimeoutStopSec=300ms\n",
    );
    let running = b.start();
    b.wait_for("/up");
    let begun = std::time::Instant::now();
    running
        .stop()
        .exits(137)
        .says("deaf: did not stop within 0.3 s, killed");
    assert!(begun.elapsed().as_secs() < 3);
}

/// On SIGTERM it ends: at once, never, with a child that never ends, or at once and then has an
/// ExecStopPost= that does not end.
fn bad_stoppers(mut b: TestBox) -> (TestBox, common::Running) {
    let wait = "echo up >> ROOT/ups; while :; do sleep 0.05; done";
    b.script("quick", &format!("trap 'exit 0' TERM; {wait}"));
    b.script("deaf", &format!("trap '' TERM; {wait}"));
    b.script(
        "parent",
        &format!("ROOT/bin/deaf & trap 'exit 0' TERM; {wait}"),
    );
    let unit = |name: &str, more: &str| {
        format!("[Service]\nExecStart=ROOT/bin/{name}\nTimeoutStopSec=50\n{more}")
    };
    b.unit("quick.service", &unit("quick", ""));
    let post = "ExecStopPost=/bin/sleep 60\n";
    b.unit("deaf.service", &unit("deaf", post));
    b.unit("parent.service", &unit("parent", ""));
    b.unit("post.service", &unit("quick", post));
    let running = b.start();
    common::wait("all", || {
        (b.wait_for("/ups").lines().count() == 5).then_some(())
    });
    (b, running)
}

#[test]
fn a_stop_is_bounded_and_says_who_took_it() {
    let mut b = TestBox::new();
    b.env("TIFFIN_STOP_TIMEOUT", "3");
    let (_b, running) = bad_stoppers(b);
    let ended = running.stop();
    ended.exits(0);
    let mut lines = ended.err.lines();
    let told = lines
        .find_map(|line| line.strip_prefix("tiffin: stopped in "))
        .unwrap_or_else(|| panic!("{ended:#?}"));
    let (total, services) = told.split_once(" s: ").unwrap();
    let total: f64 = total.parse().unwrap();
    assert!((2.0..4.0).contains(&total), "{told}");
    let services: Vec<&str> = services.split(", ").collect();
    let of = |name: &str| {
        let text = services.iter().find_map(|text| text.strip_prefix(name));
        text.unwrap_or_else(|| panic!("no {name} in {told}"))
    };
    // A part of the time is ExecStopPost='s, and it has that part.
    assert!(of("deaf ").ends_with(" s (killed)"), "{told}");
    ended.says("deaf: did not stop within 2.4 s, killed");
    ended.says("post: its ExecStopPost= did not end in time, killed");
    assert!(of("parent ").starts_with("2."), "{told}");
    let quick = services.iter().find_map(|text| text.strip_prefix("quick "));
    assert!(quick.is_none_or(|time| time.starts_with("0.")), "{told}");
}

#[test]
fn a_third_term_kills() {
    let mut b = TestBox::new();
    b.env("TIFFIN_STOP_TIMEOUT", "60");
    let (b, running) = bad_stoppers(b);
    running.signal("-TERM");
    b.wait_status("quick stopped");
    b.wait_status("post stopping");
    running.signal("-TERM");
    let begun = std::time::Instant::now();
    // Two that come at once are one.
    std::thread::sleep(std::time::Duration::from_millis(200));
    running
        .stop()
        .exits(0)
        .says("SIGTERM again: stopping within 2.0 s")
        .says("SIGTERM again: stopping within 0.0 s");
    let took = begun.elapsed().as_secs_f64();
    assert!(took < 1.7, "{took}");
}

#[test]
fn a_term_while_a_box_stops_by_itself_leaves_services_their_time() {
    let mut b = TestBox::new();
    b.script(
        "db",
        "trap 'echo > ROOT/stopping; sleep 0.7; echo flushed; exit 0' TERM; echo > ROOT/up; while :; do sleep 0.05; done",
    );
    b.script("bad", "until [ -e ROOT/up ]; do sleep 0.01; done; exit 3");
    b.unit("db.service", "[Service]\nExecStart=ROOT/bin/db\n");
    b.unit("bad.service", "[Service]\nExecStart=ROOT/bin/bad\n");
    let running = b.start();
    b.wait_for("/stopping");
    // As `docker stop` does, which knows of nothing.
    running
        .stop()
        .exits(69)
        .says("SIGTERM: stopping already")
        .says("db | flushed");
}

#[test]
fn int_and_quit_drain_and_stop_as_term_does() {
    for signal in ["INT", "QUIT", "TERM"] {
        let mut b = TestBox::new();
        b.script(
            "web",
            "trap 'echo term > ROOT/stopped; exit 0' TERM; echo up > ROOT/up; while :; do sleep 0.02; done",
        );
        b.unit("web.service", "[Service]\nExecStart=ROOT/bin/web\n");
        b.env("TIFFIN_DRAIN", "60");
        let running = b.start();
        b.wait_for("/up");
        running.signal(&format!("-{signal}"));
        common::wait("draining", || {
            (b.run(&["health", "--ready"]).code == Some(1)).then_some(())
        });
        b.wait_status("web ready");
        running.signal(&format!("-{signal}"));
        running
            .end()
            .exits(0)
            .says(&format!("SIG{signal}: not ready from now on"))
            .says(&format!("SIG{signal}: stopping"));
        assert_eq!(b.wait_for("/stopped"), "term\n");
    }
}

#[test]
fn databases_stop_last_without_any_order() {
    let mut b = TestBox::new();
    // The database would be the first to end, what it needs has ended before everybody.
    for (name, pause) in [("db", "0"), ("helper", "0"), ("app", "0.5"), ("job", "0.3")] {
        b.script(name, &format!("trap 'sleep {pause}; echo {name} >> ROOT/stops; exit 0' TERM; echo up > ROOT/up-{name}; while :; do sleep 0.02; done"));
        let after = if name == "db" {
            "After=helper.service"
        } else {
            ""
        };
        b.unit(
            &format!("{name}.service"),
            &format!("[Unit]\n{after}\n[Service]\nExecStart=ROOT/bin/{name}\n"),
        );
    }
    b.put("services", "db", json!({"data": ["/data/db"]}));
    let running = b.start();
    for name in ["db", "helper", "app", "job"] {
        b.wait_for(&format!("/up-{name}"));
    }
    running.stop().exits(0);
    assert_eq!(b.wait_for("/stops"), "job\napp\ndb\nhelper\n");
}

#[test]
fn services_stop_in_reverse_order() {
    let mut b = TestBox::new();
    for name in ["db", "app"] {
        b.script(name, &format!("trap 'echo {name} >> ROOT/stops; exit 0' TERM; echo > ROOT/up-{name}; while :; do sleep 0.02; done"));
    }
    b.unit("db.service", "[Service]\nExecStart=ROOT/bin/db\n");
    b.unit(
        "app.service",
        "[Unit]\nAfter=db.service\n[Service]\nExecStart=ROOT/bin/app\n",
    );
    let running = b.start();
    b.wait_for("/up-app");
    b.wait_for("/up-db");
    running.stop().exits(0);
    assert_eq!(b.wait_for("/stops"), "app\ndb\n");
}

#[test]
fn a_readiness_check_gates_what_comes_after() {
    let mut b = TestBox::new();
    b.unit(
        "db.service",
        "[Service]\nExecStart=/bin/sh -c 'sleep 0.3; echo > ROOT/up; exec sleep 1000'\n",
    );
    b.unit(
        "app.service",
        "[Unit]\nAfter=db.service\n[Service]\nExecStart=/bin/sh -c 'ls ROOT/up; exec sleep 1000'\n",
    );
    b.put(
        "services",
        "db",
        json!({"ready": {"command": format!("test -e {}", b.path("/up").display())}}),
    );
    let running = b.start();
    b.wait_status("app ready");
    b.wait_log("app | ");
    let ended = running.stop();
    ended.exits(0).says("app | ");
    assert!(!ended.out.contains("No such file"), "{ended:#?}");
}

#[test]
fn not_ready_in_time_is_a_failure() {
    let mut b = TestBox::new();
    b.unit("db.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.put(
        "services",
        "db",
        json!({"ready": {"tcp": "127.0.0.1:1", "timeout": 1}}),
    );
    b.start()
        .end()
        .exits(69)
        .says("db is given up: it did not become ready in time");
}

#[test]
fn a_skipped_service_is_not_waited_for() {
    let mut b = TestBox::new();
    b.unit("mail.service", "[Service]\nExecStart=/bin/false\n");
    b.unit(
        "ssh.service",
        "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/false\n",
    );
    b.unit(
        "app.service",
        "[Unit]\nAfter=mail.service ssh.service\n[Service]\nExecStart=/bin/sleep 1000\n",
    );
    b.put("services", "mail", json!({"when": "with_mail"}));
    b.put("variables", "with_mail", json!(false));
    let running = b.start();
    b.wait_status("app ready");
    b.run(&["health"]).exits(0);
    running
        .stop()
        .exits(0)
        .says("mail is left out: `with_mail` does not hold")
        .says("ssh is left out: /nowhere does not exist");
}

#[test]
fn services_that_wait_for_each_other_are_named() {
    let mut b = TestBox::new();
    b.unit(
        "a.service",
        "[Unit]\nAfter=b.service\n[Service]\nExecStart=/bin/true\n",
    );
    b.unit(
        "b.service",
        "[Unit]\nAfter=a.service\n[Service]\nExecStart=/bin/true\n",
    );
    b.run(&["start"]).exits(78).says("a -> b -> a");
}

#[test]
fn a_flood_is_relayed_whole_and_in_order() {
    let mut b = TestBox::new();
    b.unit(
        "flood.service",
        "[Service]\nType=oneshot\nExecStart=/usr/bin/seq 300000\n",
    );
    let ended = b.start().end();
    ended.exits(0).says("every service has ended");
    let mut lines = ended.out.lines();
    for n in 1..=300_000 {
        assert_eq!(lines.next(), Some(format!("flood | {n}").as_str()));
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn privileges_that_a_unit_gives_up_are_gone() {
    let mut b = TestBox::new();
    b.script("look", "grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status >ROOT/$1.new; mv ROOT/$1.new ROOT/$1; sleep 1000");
    b.unit(
        "narrow.service",
        "[Service]\nExecStart=ROOT/bin/look narrow\nCapabilityBoundingSet=CAP_CHOWN CAP_KILL\nNoNewPrivileges=yes\n",
    );
    b.unit("wide.service", "[Service]\nExecStart=ROOT/bin/look wide\n");
    let running = b.start();
    let read = |name: &str| b.wait_for(&format!("/{name}"));
    let (narrow, wide) = (read("narrow"), read("wide"));
    let set = |text: &str| {
        let mask = text.split_whitespace().nth(1).unwrap();
        u64::from_str_radix(mask, 16).unwrap()
    };
    // As far as whoever runs the test has them.
    let may_drop = set(&wide) & 1 << 8 != 0;
    if may_drop {
        assert_eq!(set(&narrow), set(&wide) & 0b10_0001);
    }
    assert!(narrow.contains("NoNewPrivs:\t1"), "{narrow}");
    assert!(wide.contains("NoNewPrivs:\t0"), "{wide}");
    assert_eq!(running.stop().code, Some(0));
}

#[test]
fn a_service_cannot_take_another_ones_process_for_its_own() {
    let mut b = TestBox::new();
    b.script("victim", "echo $$ >ROOT/victim\nexec sleep 1000");
    b.file(
        "/thief.py",
        "import os,socket,time\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\npid=open('ROOT/victim','rb').read().strip()\ns.sendto(b'READY=1\\nMAINPID='+pid, os.environ['NOTIFY_SOCKET'])\ntime.sleep(1000)\n",
    );
    b.unit("victim.service", "[Service]\nExecStart=ROOT/bin/victim\n");
    b.unit(
        "thief.service",
        "[Unit]\nAfter=victim.service\n[Service]\nType=notify\nExecStartPre=/bin/sh -c 'until [ -s ROOT/victim ]; do sleep 0.01; done'\nExecStart=/usr/bin/python3 ROOT/thief.py\n",
    );
    let running = b.start().until(&b, "thief ready");
    let victim = b.wait_for("/victim");
    b.run(&["stop", "thief"]).exits(0);
    b.wait_status("victim ready");
    let status = b.run(&["status", "--json"]).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let services = status["services"].as_array().unwrap();
    let found = services.iter().find(|s| s["name"] == "victim").unwrap();
    assert_eq!(found["pid"].to_string(), victim.trim());
    assert_eq!(found["restarts"], 0);
    running.stop().exits(0);
}

#[test]
fn a_units_own_stop_signal_delay_and_host_name_hold() {
    let mut b = TestBox::new();
    b.script(
        "usr2",
        "trap '' TERM; trap 'echo usr2 > ROOT/got; exit 0' USR2; echo > ROOT/up; while :; do sleep 0.02; done",
    );
    b.unit(
        "usr2.service",
        "[Service]\nType=exec\nExecStart=ROOT/bin/usr2\nKillSignal=SIGUSR2\n",
    );
    b.script("dies", "date +%s%N >> ROOT/starts; exit 1");
    b.unit(
        "dies.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=ROOT/bin/dies\nRestart=always\nRestartSec=900ms\n",
    );
    b.unit(
        "idle.service",
        "[Unit]\nAfter=usr2.service\n[Service]\nType=idle\nExecStart=/bin/sh -c 'echo %H > ROOT/host; exec sleep 1000'\n",
    );
    let running = b.start();
    b.wait_for("/up");
    b.wait_status("usr2 ready");
    b.wait_status("idle ready");
    let name = Command::new("/bin/uname").arg("-n").output().unwrap();
    assert_eq!(b.wait_for("/host").into_bytes(), name.stdout);
    let starts: Vec<u64> = wait("four starts", || {
        let text = b.wait_for("/starts");
        let starts: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (starts.len() >= 4).then_some(starts)
    });
    for pair in starts.windows(2) {
        let gap = (pair[1] - pair[0]) as f64 / 1e9;
        assert!((0.9..5.0).contains(&gap), "{gap} s in {starts:?}");
    }
    running.stop().exits(0);
    assert_eq!(b.wait_for("/got"), "usr2\n");
}

#[test]
fn a_service_of_type_exec_that_cannot_be_executed_is_given_up() {
    let mut b = TestBox::new();
    b.unit("x.service", "[Service]\nType=exec\nExecStart=/nowhere/x\n");
    b.start()
        .end()
        .exits(69)
        .says("x is given up: ")
        .says("cannot execute /nowhere/x");
}
