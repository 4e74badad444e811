//! Clients of the unix sockets that say nothing, too little or too much, wait, or do not read;
//! and who may be one.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Running, TestBox};

const CONTROL: &str = "/run/tiffin/control.sock";
const RPC: &str = "/run/sup.sock";

fn a_box(app: &str) -> (TestBox, Running) {
    let mut b = TestBox::new();
    b.script("app", app);
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\n",
    );
    b.file(
        "/etc/supervisord.conf",
        "[unix_http_server]\nfile=/run/sup.sock\n[supervisord]\n[program:app]\ncommand=ROOT/bin/app\nstartsecs=0\n",
    );
    let running = b.start().until(&b, "app ready");
    (b, running)
}

fn connect(b: &TestBox, path: &str, said: &[u8]) -> UnixStream {
    let mut client = UnixStream::connect(b.path(path)).unwrap();
    client.write_all(said).unwrap();
    client
}

/// Seconds until the box closes the connection.
fn closed(client: &mut UnixStream, since: Instant) -> f64 {
    let limit = Some(Duration::from_secs(60));
    client.set_read_timeout(limit).unwrap();
    let mut rest = Vec::new();
    // A reset is an end as well.
    if let Err(error) = client.read_to_end(&mut rest) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it is kept");
    }
    since.elapsed().as_secs_f64()
}

const CALL: &str = "<methodCall><methodName>supervisor.getState</methodName></methodCall>";

fn call(keep_alive: bool) -> String {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!(
        "POST /RPC2 HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n{CALL}",
        CALL.len()
    )
}

#[test]
fn who_does_not_ask_is_let_go_and_who_was_answered_may_think() {
    let (b, running) = a_box("exec sleep 1000");
    let begun = Instant::now();
    let mut silent: Vec<UnixStream> = [CONTROL, RPC].map(|path| connect(&b, path, b"")).into();
    silent.push(connect(&b, CONTROL, b"{\"verb\": \"sta"));
    silent.push(connect(&b, RPC, b"POST /RPC2 HTTP/1.1\r\nContent-Le"));
    // Bytes that come one by one make no request.
    let drips = [
        connect(&b, RPC, b"POST /RPC2 HTTP/1.1\r\nX: "),
        connect(&b, CONTROL, b"{\"verb\": \""),
    ];
    let dripping = drips.map(|mut drip| {
        std::thread::spawn(move || {
            while drip.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(200));
                assert!(begun.elapsed() < Duration::from_secs(40), "it is kept");
            }
            begun.elapsed().as_secs_f64()
        })
    });
    let mut kept = connect(&b, RPC, call(true).as_bytes());
    for client in &mut silent {
        let took = closed(client, begun);
        assert!((9.0..25.0).contains(&took), "{took}");
    }
    for thread in dripping {
        let took = thread.join().unwrap();
        assert!((9.0..25.0).contains(&took), "{took}");
    }
    // Between requests supervisorctl has its prompt.
    kept.write_all(call(false).as_bytes()).unwrap();
    let mut answers = String::new();
    kept.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("RUNNING").count(), 2, "{answers}");
    b.run(&["status"]).exits(0);
    running.stop().exits(0);
}

#[test]
fn who_does_not_read_is_let_go() {
    // More than the sockets' own buffers take.
    let (b, running) =
        a_box("while :; do head -c 40000 /dev/zero | tr '\\0' x | fold -w 1000; sleep 0.2; done");
    let begun = Instant::now();
    let open = || {
        let all = std::fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap();
        all.count()
    };
    // Whoever asked while the box started may still be there.
    let looks = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(100));
        open()
    });
    let before = looks.take(10).min().unwrap();
    let follower = connect(
        &b,
        CONTROL,
        b"{\"verb\":\"logs\",\"name\":null,\"follow\":true}\n",
    );
    let tail = connect(&b, RPC, b"GET /logtail/app HTTP/1.1\r\n\r\n");
    common::wait("both", || (open() >= before + 2).then_some(()));
    while open() > before {
        assert!(begun.elapsed() < Duration::from_secs(90), "they are kept");
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = begun.elapsed().as_secs_f64();
    assert!(took > 25.0, "{took}");
    drop((follower, tail));
    running.stop().exits(0);
}

/// What the box answers to these bytes.
fn answer(b: &TestBox, said: &[u8]) -> String {
    let mut client = UnixStream::connect(b.path(CONTROL)).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // It may be answered before all is said.
    let _ = client.write_all(said);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_request_is_bounded_and_whole() {
    let (b, running) = a_box("exec sleep 1000");
    let status = |spaces: usize| format!("{{\"verb\":\"status\"{}}}\n", " ".repeat(spaces));
    let good = answer(&b, status(4000).as_bytes());
    assert!(good.contains("\"name\":\"app\""), "{good}");
    for said in [
        status(5000).as_bytes(),
        &[b' '; 5000],
        &[b'{'; 5000],
        &[0; 1 << 20],
    ] {
        let told = answer(&b, said);
        assert!(
            told.contains("the request is longer than 4096 bytes"),
            "{told}"
        );
    }
    for said in ["\n", "{}\n", "{\"verb\":\"dance\"}\n", "\u{0}\n"] {
        let told = answer(&b, said.as_bytes());
        assert!(told.contains("the request cannot be read"), "{told}");
    }
    b.run(&["status"]).exits(0);
    running.stop().exits(0);
}

#[test]
fn the_control_socket_is_its_owners_alone() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let (b, running) = a_box("exec sleep 1000");
    let socket = b.path(CONTROL);
    let meta = std::fs::metadata(&socket).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o600);
    if meta.uid() != 0 {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Nothing else is in the way.
    set(b.dir.path(), 0o755);
    let nobody = || {
        let script = "import os, socket, sys\nos.setgid(65534)\nos.setgroups([])\nos.setuid(65534)\n\
                      s = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nprint('connected')";
        let mut command = std::process::Command::new("/usr/bin/python3");
        let output = command.args(["-c", script]).arg(&socket).output();
        common::Ended::of(output.unwrap())
    };
    nobody().exits(1).says("PermissionError");
    set(&socket, 0o666);
    nobody().exits(0).says("connected");
    set(&socket, 0o600);
    running.stop().exits(0);
}

#[test]
fn who_waits_for_services_is_counted_and_makes_room_when_he_goes() {
    let mut b = TestBox::new();
    // It is on its way for as long as the test lasts.
    b.unit(
        "slow.service",
        "[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=infinity\nExecStart=/bin/sleep 1000\n",
    );
    let running = b.start().until(&b, "slow starting");
    let start = b"{\"verb\":\"start\",\"name\":\"slow\"}\n";
    let open = || {
        let all = std::fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap();
        all.count()
    };
    // Whoever asked for the status may still be there.
    let looks = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(20));
        open()
    });
    let before = looks.take(10).min().unwrap();
    let mut waiting: Vec<UnixStream> = (0..64).map(|_| connect(&b, CONTROL, start)).collect();
    common::wait("all of them", || (open() >= before + 64).then_some(()));
    b.run(&["status"]).exits(0);
    for verb in ["start", "stop"] {
        let said = format!("{{\"verb\":\"{verb}\",\"name\":\"slow\"}}\n");
        let told = answer(&b, said.as_bytes());
        assert!(
            told.contains("64 others wait for services already"),
            "{told}"
        );
    }
    b.wait_status("slow starting");
    waiting.truncate(32);
    // Whoever comes next is not refused, and all are told how it ended.
    waiting.push(connect(&b, CONTROL, start));
    b.run(&["stop", "slow"]).exits(0);
    for mut client in waiting {
        let mut told = String::new();
        client.read_to_string(&mut told).unwrap();
        assert!(told.contains("it did not start"), "{told}");
    }
    running.stop().exits(0);
}

#[test]
fn an_answer_that_is_not_read_holds_up_nobody_and_waits_for_its_reader() {
    let mut b = TestBox::new();
    // More than the sockets' own buffers take.
    b.script(
        "app",
        "head -c 300000 /dev/zero | tr '\\0' x | fold -w 5000\necho\nexec sleep 1000",
    );
    for name in ["a", "b", "c"] {
        b.unit(
            &format!("{name}.service"),
            "[Service]\nExecStart=ROOT/bin/app\n",
        );
    }
    let running = b.start().until(&b, "c ready");
    let logs = b"{\"verb\":\"logs\",\"name\":null,\"follow\":false}\n";
    common::wait("logs", || {
        let mut client = connect(&b, CONTROL, logs);
        let mut text = Vec::new();
        client.read_to_end(&mut text).unwrap();
        (text.len() > 600_000).then_some(())
    });
    // What it takes to make such answers, on this machine at this time.
    let begun = Instant::now();
    for _ in 0..10 {
        let mut text = Vec::new();
        connect(&b, CONTROL, logs).read_to_end(&mut text).unwrap();
    }
    let usual = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let mut slow: Vec<UnixStream> = (0..10).map(|_| connect(&b, CONTROL, logs)).collect();
    b.run(&["status"]).exits(0).says("c ");
    let took = begun.elapsed().as_secs_f64();
    assert!(took < 3.0 * usual + 2.0, "{took}, with readers {usual}");
    std::thread::sleep(Duration::from_secs(1));
    let mut text = String::new();
    slow[0].read_to_string(&mut text).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(answer.to_string().len() > 600_000, "{}", text.len());
    // The others are let go.
    for client in &mut slow[1..3] {
        let mut text = Vec::new();
        std::thread::sleep(Duration::from_secs(11).saturating_sub(begun.elapsed()));
        client.read_to_end(&mut text).unwrap();
        assert!(text.len() < 600_000, "{}", text.len());
    }
    running.stop().exits(0);
}
