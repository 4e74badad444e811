//! WatchdogSec=: what hangs is aborted and restarted, what lives is left alone.

mod common;

use common::TestBox;

/// Ready at once; gives signs of life as `LIVES` says.
const SERVICE: &str = "\
import os,signal,socket,sys,time
DEAF
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)
def say(text): s.sendto(text, os.environ['NOTIFY_SOCKET'])
second=os.path.exists('ROOT/first')
open('ROOT/first','w').close()
print('period', os.environ['WATCHDOG_USEC'], flush=True)
say(b'READY=1')
if second:
    for i in range(10**6):
        say(b'WATCHDOG=1')
        time.sleep(0.05)
        if i == 100: open('ROOT/lived','w').write('x\\n')
FIRST
time.sleep(1000)
";

fn service(b: &mut TestBox, deaf: &str, first: &str, more: &str) {
    let script = SERVICE.replace("DEAF", deaf).replace("FIRST", first);
    b.file("/service.py", &script);
    b.unit(
        "app.service",
        &format!(
            "[Service]\nType=notify\nExecStart=/usr/bin/python3 ROOT/service.py\nRestart=on-failure\n{more}"
        ),
    );
}

#[test]
fn a_service_that_hangs_is_aborted_and_restarted_and_one_that_lives_is_not() {
    let mut b = TestBox::new();
    service(&mut b, "", "", "WatchdogSec=2\n");
    let running = b.start();
    // Five seconds of life: more than two periods.
    b.wait_for("/lived");
    let status = b.run(&["status", "--json"]).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let status = &status["services"][0];
    assert_eq!(status["state"], "ready");
    assert_eq!(status["restarts"], 1);
    assert_eq!(status["last_end"], "was killed by SIGABRT");
    running
        .stop()
        .exits(0)
        .says("app: it hangs: no WATCHDOG=1 within 2.0 s (WatchdogSec=); it gets SIGABRT")
        .says("app | period 2000000");
}

#[test]
fn one_that_is_deaf_to_sigabrt_is_killed_and_a_service_may_ask_for_it() {
    let mut b = TestBox::new();
    service(
        &mut b,
        "signal.signal(signal.SIGABRT, signal.SIG_IGN)",
        "say(b'WATCHDOG=trigger')",
        "WatchdogSec=100\nTimeoutStopSec=1\n",
    );
    let running = b.start();
    b.wait_status("app ready");
    common::wait("the second start", || {
        b.run(&["status", "--json"])
            .out
            .contains("was killed by SIGKILL")
            .then_some(())
    });
    running
        .stop()
        .exits(0)
        .says("app: it did not end within 1.0 s of SIGABRT, killed");
}

#[test]
fn a_simple_service_may_have_a_watchdog_and_restart_no_ends_the_box() {
    let mut b = TestBox::new();
    b.unit(
        "app.service",
        "[Service]\nExecStart=/bin/sleep 1000\nWatchdogSec=300ms\n",
    );
    b.start()
        .end()
        .exits(134)
        .says("app is given up: it was killed by SIGABRT");
}
