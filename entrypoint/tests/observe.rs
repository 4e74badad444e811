//! What orchestrators and Prometheus are told, by HTTP and by `health`, and what hostile
//! clients get.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Running, TestBox, wait};
use serde_json::json;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// A box with `TIFFIN_HTTP` at a port that was free a moment ago.
struct Observed {
    b: TestBox,
    address: String,
}

impl Observed {
    fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        let mut b = TestBox::new();
        b.env("TIFFIN_HTTP", &address);
        Observed { b, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = wait("the port", || TcpStream::connect(&self.address).ok());
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    fn send(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        Answer::read(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n").as_bytes())
    }

    /// All three, by HTTP and by `health`, which must agree.
    #[track_caller]
    fn says(&self, wanted: [(u16, &str); 3]) {
        let probes = [
            ("/livez", "--live"),
            ("/readyz", "--ready"),
            ("/startupz", "--started"),
        ];
        for ((path, option), (status, reason)) in probes.into_iter().zip(wanted) {
            let answer = self.get(path);
            assert_eq!(
                (answer.status, answer.body.trim_end()),
                (status, reason),
                "{path}"
            );
            let ended = self.b.run(&["health", option]);
            ended.exits(i32::from(status != 200));
            assert_eq!(ended.out.trim_end(), reason, "{option}");
        }
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value.trim().parse().unwrap()
    }
}

impl Answer {
    /// The connection is closed after the answer.
    fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap();
        Answer {
            status: status.split(' ').next().unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }
}

const LIVE: (u16, &str) = (200, "the services are supervised");
const READY: (u16, &str) = (200, "all services are ready");
const STARTED: (u16, &str) = (200, "all services have started");

#[test]
fn live_ready_and_started_are_three_answers() {
    let mut o = Observed::new();
    let b = &mut o.b;
    b.script("migrate", "while ! [ -e ROOT/go ]; do sleep 0.02; done");
    b.unit(
        "migrate.service",
        "[Service]\nType=oneshot\nExecStart=ROOT/bin/migrate\n",
    );
    b.script(
        "app",
        "trap 'while ! [ -e ROOT/end ]; do sleep 0.02; done; exit 0' TERM; echo > ROOT/up; while :; do sleep 0.02; done",
    );
    b.unit("app.service", "[Service]\nExecStart=ROOT/bin/app\n");
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.put("services", "app", json!({"after": ["migrate"]}));
    let running = o.b.start().until(&o.b, "migrate starting");
    let waiting = "migrate is starting, app is waiting";
    o.says([LIVE, (503, waiting), (503, waiting)]);
    o.b.run(&["health"]).exits(1).says(waiting);
    o.b.file("/go", "");
    o.b.wait_for("/up");
    o.b.wait_status("app ready");
    o.says([LIVE, READY, STARTED]);
    // Once started it has started, whatever happens then.
    o.b.run(&["stop", "web"]).exits(0);
    o.says([LIVE, (503, "web is stopped"), STARTED]);
    o.b.run(&["start", "web"]).exits(0);
    o.says([LIVE, READY, STARTED]);
    // No new work while it drains, and no reason to kill it.
    running.signal("-TERM");
    o.b.wait_status("app stopping");
    let live = (200, "the box stops, as it was asked to");
    o.says([live, (503, "the box stops"), STARTED]);
    o.b.file("/end", "");
    running.end().exits(0);
}

#[test]
fn a_box_that_gave_up_a_service_is_not_live() {
    let mut o = Observed::new();
    o.b.script(
        "slow",
        "trap 'while ! [ -e ROOT/end ]; do sleep 0.02; done; exit 0' TERM; echo > ROOT/up; while :; do sleep 0.02; done",
    );
    o.b.script("bad", "while ! [ -e ROOT/up ]; do sleep 0.02; done; exit 3");
    o.b.unit("slow.service", "[Service]\nExecStart=ROOT/bin/slow\n");
    o.b.unit("bad.service", "[Service]\nExecStart=ROOT/bin/bad\n");
    let running = o.b.start().until(&o.b, "bad failed");
    let answer = o.get("/livez");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (503, "bad is failed (it exited with code 3)\n")
    );
    o.b.run(&["health", "--live"]).exits(1);
    o.b.file("/end", "");
    running.end().exits(69);
    // Without a box there is no answer but no.
    o.b.run(&["health", "--live"]).exits(1);
}

#[test]
fn a_box_without_what_it_can_do_without_is_ready_and_degraded() {
    let mut o = Observed::new();
    o.b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    o.b.unit("mail.service", "[Service]\nExecStart=/bin/sh -c 'exit 3'\n");
    o.b.put("services", "mail", json!({"required": false}));
    let running =
        o.b.start()
            .until(&o.b, "mail failed")
            .until(&o.b, "web ready");
    let degraded = (200, "degraded: mail is failed (it exited with code 3)");
    o.says([degraded, degraded, STARTED]);
    assert_eq!(o.metric("tiffin_degraded"), 1.0);
    assert_eq!(o.metric("tiffin_ready"), 1.0);
    let failed = "tiffin_service_state{service=\"mail\",state=\"failed\"}";
    assert_eq!(o.metric(failed), 1.0);
    // What is required counts as ever.
    o.b.run(&["stop", "web"]).exits(0);
    o.says([degraded, (503, "web is stopped"), STARTED]);
    running.stop().exits(0);
}

#[test]
fn metrics_are_what_prometheus_reads_and_true() {
    let mut o = Observed::new();
    o.b.script(
        "crash",
        "[ -e ROOT/once ] && exec sleep 1000; touch ROOT/once; exit 1",
    );
    // 64 MiB, and about a second of CPU time in a child that has ended.
    o.b.file(
        "/use.py",
        "import subprocess,time\nx=bytearray(64<<20)\nsubprocess.run(['python3','-c','import time\\nwhile time.process_time()<0.7: pass'])\nopen('ROOT/used','w').write('x\\n')\ntime.sleep(1000)\n",
    );
    o.b.unit(
        "crash.service",
        "[Service]\nExecStart=ROOT/bin/crash\nRestart=always\n",
    );
    o.b.unit(
        "use.service",
        "[Service]\nExecStart=/usr/bin/python3 ROOT/use.py\n",
    );
    let running = o.b.start().until(&o.b, "use ready");
    o.b.wait_for("/used");
    wait("the restart", || {
        (o.metric("tiffin_service_state{service=\"crash\",state=\"ready\"}") == 1.0
            && o.metric("tiffin_service_restarts_total{service=\"crash\"}") == 1.0)
            .then_some(())
    });
    // Figures may be a second old.
    wait("the memory", || {
        (o.metric("tiffin_service_resident_memory_bytes{service=\"use\"}") > 64e6).then_some(())
    });
    wait("the CPU time", || {
        (o.metric("tiffin_service_cpu_seconds_total{service=\"use\"}") >= 0.7).then_some(())
    });
    assert!(o.metric("tiffin_service_uptime_seconds{service=\"use\"}") >= 0.7);
    assert_eq!(
        o.metric("tiffin_service_restarts_total{service=\"use\"}"),
        0.0
    );
    assert_eq!(o.metric("tiffin_ready"), 1.0);
    assert_eq!(o.metric("tiffin_info{version=\"v1\"}"), 1.0);
    let answer = o.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{}",
        answer.head
    );
    // The grammar: each sample belongs to the family that was named last, each family once.
    let mut family = String::new();
    let mut seen = Vec::new();
    for line in answer.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(!seen.contains(&name), "{line}");
            seen.push(name);
            family = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(name, family, "{line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    assert!(answer.body.ends_with('\n'));
    // `status` knows the same.
    let status = o.b.run(&["status", "--json"]).exits(0).out.clone();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let of = |name: &str| {
        let all = status["services"].as_array().unwrap();
        all.iter().find(|s| s["name"] == name).unwrap()
    };
    assert!(of("use")["memory"].as_u64().unwrap() > 64 << 20);
    assert!(of("use")["cpu_seconds"].as_f64().unwrap() >= 0.7);
    assert_eq!(of("use")["ready"], true);
    assert_eq!(of("crash")["restarts"], 1);
    assert_eq!(of("crash")["last_end"], "exited with code 1");
    let since = of("use")["since"].as_str().unwrap();
    assert!(since.ends_with('Z') && since.starts_with("20"), "{since}");
    let table = o.b.run(&["status"]).out;
    let line = table.lines().find(|line| line.starts_with("use ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let pid = of("use")["pid"].to_string();
    assert_eq!((words[1], words[3], words[4]), ("ready", "0", pid.as_str()));
    assert!(words[5].ends_with('M') && words[6].ends_with('s'), "{line}");
    assert!(table.contains("last exited with code 1"), "{table}");
    // What a service used is not forgotten when it ends, or a counter would fall.
    o.b.run(&["stop", "use"]).exits(0);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(o.metric("tiffin_service_cpu_seconds_total{service=\"use\"}") >= 0.7);
    let gone = o.metric("tiffin_service_resident_memory_bytes{service=\"use\"}");
    assert_eq!(gone, 0.0);
    assert_eq!(
        o.metric("tiffin_service_uptime_seconds{service=\"use\"}"),
        0.0
    );
    running.stop().exits(0);
}

fn quiet() -> (Observed, Running) {
    let mut o = Observed::new();
    o.b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = o.b.start().until(&o.b, "web ready");
    (o, running)
}

#[test]
fn hostile_requests_are_refused_and_change_nothing() {
    let (o, running) = quiet();
    let head = o.send(b"HEAD /readyz HTTP/1.1\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("Content-Length: 23"), "{}", head.head);
    assert_eq!(o.get("/").status, 404);
    assert_eq!(o.get("/livez/../../etc/passwd").status, 404);
    assert_eq!(o.get("/livez?verbose=1").status, 200);
    // Nothing that is pipelined behind the first request is looked at.
    let answer = o.send(b"GET /livez HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n");
    assert_eq!(answer.body, "the services are supervised\n");
    let long = |size: usize| [&b"GET /livez HTTP/1.1\r\nX: "[..], &vec![b'a'; size]].concat();
    for (request, status) in [
        (
            &b"POST /RPC2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"[..],
            405,
        ),
        (b"DELETE /livez HTTP/1.1\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400),
        (b"GET /livez HTTP/9\r\n\r\n", 400),
        (
            b"GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            411,
        ),
        (
            b"GET /livez HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
            413,
        ),
        (&long(17 << 10), 400),
        (
            &[
                &b"GET /livez HTTP/1.1\r\nContent-Length: 999999\r\n\r\n"[..],
                &[b'x'; 60 << 10],
            ]
            .concat(),
            413,
        ),
    ] {
        let answer = o.send(request);
        assert_eq!(
            answer.status,
            status,
            "{}",
            String::from_utf8_lossy(request)
        );
        if status == 405 {
            assert!(answer.head.contains("Allow: GET, HEAD"), "{}", answer.head);
        }
    }
    o.says([LIVE, READY, STARTED]);
    running.stop().exits(0);
}

#[test]
fn silent_and_slow_clients_hold_nothing_up_and_are_let_go() {
    let (o, running) = quiet();
    let silent: Vec<TcpStream> = (0..200).map(|_| o.connect()).collect();
    let mut slow = o.connect();
    slow.write_all(b"GET /livez HT").unwrap();
    o.says([LIVE, READY, STARTED]);
    let open = || {
        let all = std::fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap();
        all.count()
    };
    assert!(open() < 80, "{} descriptors are open", open());
    // The last of them end by their time.
    let mut bytes = Vec::new();
    let _ = slow.read_to_end(&mut bytes);
    assert_eq!(bytes, b"");
    drop(silent);
    // Who does not read its answers is let go as well.
    let unread: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = o.connect();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            stream
        })
        .collect();
    o.says([LIVE, READY, STARTED]);
    drop(unread);
    running.stop().exits(0);
}

#[test]
fn without_the_setting_nothing_listens_and_a_taken_port_is_an_error() {
    let mut b = TestBox::new();
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = b.start().until(&b, "web ready");
    let own = std::fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap();
    let sockets: Vec<String> = own
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(
                link.strip_prefix("socket:[")?
                    .trim_end_matches(']')
                    .to_owned(),
            )
        })
        .collect();
    assert!(!sockets.is_empty(), "the control socket is one");
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{}/net/{table}", running.pid()));
        for line in text.unwrap_or_default().lines().skip(1) {
            let inode = line.split_whitespace().nth(9).unwrap();
            assert!(!sockets.iter().any(|own| own == inode), "{line}");
        }
    }
    running.stop().exits(0);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    b.env("TIFFIN_HTTP", &address);
    b.start()
        .end()
        .exits(73)
        .says(&format!("cannot serve TIFFIN_HTTP = {address}"))
        .says("hint: ");
    b.env("TIFFIN_HTTP", "localhost");
    b.start().end().exits(78).says("TIFFIN_HTTP = `localhost`");
}

/// Nanoseconds of CPU, and file descriptors.
fn used(running: &Running) -> (u64, usize) {
    let read = |name: &str| format!("/proc/{}/{name}", running.pid());
    let stat = std::fs::read_to_string(read("schedstat")).unwrap();
    let cpu = stat.split_whitespace().next().unwrap().parse().unwrap();
    (cpu, std::fs::read_dir(read("fd")).unwrap().count())
}

#[test]
fn without_descriptors_clients_are_turned_away_and_nothing_spins() {
    let mut observed = Observed::new();
    let b = &mut observed.b;
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\n",
    );
    b.file(
        "/etc/supervisord.conf",
        "[unix_http_server]\nfile=/run/sup.sock\n[supervisord]\n[program:app]\ncommand=/bin/sleep 1000\nstartsecs=0\n",
    );
    let running = b.start().until(b, "web ready").until(b, "app ready");
    let (_, open) = used(&running);
    // Room for two more.
    let limit = format!("--nofile={}", open + 2);
    let status = std::process::Command::new("prlimit")
        .args(["--pid", &running.pid().to_string(), &limit])
        .status()
        .unwrap();
    assert!(status.success());
    let port: Vec<TcpStream> = (0..20).map(|_| observed.connect()).collect();
    let sockets: Vec<UnixStream> = ["/run/tiffin/control.sock", "/run/sup.sock"]
        .iter()
        .flat_map(|path| {
            let path = observed.b.path(path);
            (0..20).map(move |_| UnixStream::connect(&path).unwrap())
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let (before, _) = used(&running);
    std::thread::sleep(Duration::from_secs(1));
    let (after, now) = used(&running);
    assert!(after - before < 50_000_000, "{} ns", after - before);
    drop((port, sockets));
    wait("room again", || {
        (observed.get("/readyz").status == 200).then_some(())
    });
    observed.b.run(&["status"]).exits(0);
    assert!(now < open + 10, "{open} -> {now}");
    assert_eq!(running.stop().code, Some(0));
}
