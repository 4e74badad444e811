//! Timer units: jobs that run at their times, never twice at once.

mod common;

use common::{TestBox, wait};

fn job(b: &mut TestBox, timer: &str, command: &str) {
    b.script("job", command);
    b.file(
        "/lib/systemd/system/job.service",
        "[Unit]\nAfter=db.service\n[Service]\nType=oneshot\nExecStart=ROOT/bin/job\n",
    );
    b.unit("job.timer", &format!("[Timer]\n{timer}\n"));
}

fn lines(b: &TestBox, wanted: usize) -> Vec<String> {
    wait("the job's runs", || {
        let text = std::fs::read_to_string(b.path("/log")).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= wanted).then_some(lines)
    })
}

#[test]
fn a_job_runs_again_and_again_but_never_twice_at_once_nor_before_what_it_needs() {
    let mut b = TestBox::new();
    job(
        &mut b,
        "OnBootSec=0\nOnUnitActiveSec=100ms\nUnit=job.service",
        "echo begin >> ROOT/log; sleep 0.3; echo end >> ROOT/log",
    );
    b.db_that_waits();
    let running = b.start().until(&b, "db starting");
    b.wait_status("job stopped");
    b.file("/go", "");
    let lines = lines(&b, 8);
    assert_eq!(lines[0], "db");
    for (at, line) in lines[1..].iter().enumerate() {
        assert_eq!(line, ["begin", "end"][at % 2], "{lines:?}");
    }
    // One that is between its times is nothing to worry about.
    b.run(&["health"]).exits(0);
    running.stop().exits(0).says("job is started by its timer");
}

#[test]
fn a_job_that_fails_ends_nothing_and_runs_at_its_next_time() {
    let mut b = TestBox::new();
    job(&mut b, "OnCalendar=*:*:*", "echo run >> ROOT/log; exit 3");
    let running = b.start();
    lines(&b, 3);
    b.run(&["health", "--live"]).exits(0);
    running
        .stop()
        .exits(0)
        .says("job is given up: it exited with code 3");
}

#[test]
fn a_time_that_cannot_be_read_or_a_service_that_is_not_there_starts_nothing() {
    let mut b = TestBox::new();
    job(&mut b, "OnCalendar=sometimes", "echo run >> ROOT/log");
    b.start()
        .end()
        .exits(78)
        .says("cannot run job.timer: OnCalendar=sometimes");
    let mut b = TestBox::new();
    job(&mut b, "OnBootSec=1\nUnit=other.service", "");
    b.start()
        .end()
        .exits(78)
        .says("other.service does not exist");
}
