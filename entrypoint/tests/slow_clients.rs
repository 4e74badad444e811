//! Clients of the unix sockets that say nothing, too little, or do not read.

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
    let mut drip = connect(&b, RPC, b"POST /RPC2 HTTP/1.1\r\nX: ");
    let dripping = std::thread::spawn(move || {
        while drip.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
            assert!(begun.elapsed() < Duration::from_secs(40), "it is kept");
        }
        begun.elapsed().as_secs_f64()
    });
    let mut kept = connect(&b, RPC, call(true).as_bytes());
    for client in &mut silent {
        let took = closed(client, begun);
        assert!((9.0..25.0).contains(&took), "{took}");
    }
    let took = dripping.join().unwrap();
    assert!((9.0..25.0).contains(&took), "{took}");
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
