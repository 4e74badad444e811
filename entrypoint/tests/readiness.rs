//! Readiness by what a service makes or says: files and lines of its output.

mod common;

use common::{TestBox, wait};
use serde_json::json;

/// `app` begins once `db` is ready; both write to ROOT/order.
fn pair(ready: serde_json::Value, db: &str) -> TestBox {
    let mut b = TestBox::new();
    b.script("db", db);
    b.unit("db.service", "[Service]\nExecStart=ROOT/bin/db\n");
    b.unit(
        "app.service",
        "[Unit]\nAfter=db.service\n[Service]\nExecStart=/bin/sh -c 'echo app >> ROOT/order; exec sleep 1000'\n",
    );
    b.put("services", "db", json!({"ready": ready}));
    b
}

fn order(b: &TestBox) {
    b.wait_status("app ready");
    wait("the order", || {
        (b.wait_for("/order") == "db\napp\n").then_some(())
    });
}

#[test]
fn a_line_of_output_makes_a_service_ready() {
    let b = pair(
        json!({"log": "^ready for \\w+ on port [0-9]+$"}),
        // Not in the middle of another line, not in pieces, and whichever way it is written.
        "echo 'not ready for work on port 1'; sleep 0.3; echo db >> ROOT/order\n\
         printf 'ready for work' >&2; sleep 0.1; echo ' on port 80' >&2; exec sleep 1000",
    );
    let running = b.start();
    order(&b);
    running
        .stop()
        .exits(0)
        .says("db | ready for work on port 80");
}

#[test]
fn a_programs_stderr_counts_too_and_the_line_is_awaited_anew_at_each_start() {
    let mut b = TestBox::new();
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\n",
    );
    b.file(
        "/etc/supervisord.conf",
        "[supervisord]\n[program:web]\ncommand=ROOT/bin/web\nredirect_stderr=false\nstartsecs=0\n",
    );
    // The second start says nothing until it may.
    b.script(
        "web",
        "if [ -e ROOT/again ]; then while ! [ -e ROOT/go ]; do sleep 0.02; done; fi\n\
         echo > ROOT/again; echo 'up (at last)' >&2; exec sleep 1000",
    );
    b.put(
        "services",
        "web",
        json!({"ready": {"log": "\\(at last\\)"}}),
    );
    let running = b.start().until(&b, "web ready");
    let restart = b.spawn(&["restart", "web"]);
    b.wait_status("web starting");
    std::thread::sleep(std::time::Duration::from_millis(200));
    b.wait_status("web starting");
    b.run(&["health"]).exits(1);
    b.file("/go", "");
    common::Ended::of(restart.wait_with_output().unwrap()).exits(0);
    b.wait_status("web ready");
    running.stop().exits(0);
}

#[test]
fn a_file_makes_a_service_ready_and_one_from_before_does_not() {
    let b = pair(
        json!({"file": "{{ where }}/ready"}),
        "sleep 0.3; echo db >> ROOT/order; echo > ROOT/ready; exec sleep 1000",
    );
    let mut b = b;
    let root = b.dir.path().to_str().unwrap().to_owned();
    b.put("variables", "where", json!(root));
    b.file("/ready", "of the last run");
    let running = b.start();
    order(&b);
    running.stop().exits(0);
}

/// A port that nobody listens on, and the root, as variables.
fn with_port(mut b: TestBox) -> TestBox {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    b.put("variables", "port", json!(port));
    b.put("variables", "root", json!(b.dir.path()));
    b
}

/// Its line in the order is written before it can be reached: whoever comes first is first.
fn waits_for(ready: serde_json::Value, python: &str) {
    let b = with_port(pair(ready, "exec python3 ROOT/db.py"));
    let port = b.contract["variables"]["port"].to_string();
    let head = "import socket, time\nROOM = 'ROOT'\ndef ready():\n    open(ROOM + '/order', 'a').write('db\\n')\n";
    b.file("/db.py", &format!("{head}PORT = {port}\n{python}"));
    let running = b.start();
    order(&b);
    running.stop().exits(0);
}

#[test]
fn a_port_that_is_bound_late_makes_a_service_ready() {
    waits_for(
        json!({"tcp": "127.0.0.1:{{ port }}"}),
        "
s = socket.socket()
s.bind(('127.0.0.1', PORT))  # Nobody listens yet.
time.sleep(0.5)
ready()
s.listen()
time.sleep(1000)
",
    );
}

#[test]
fn a_unix_socket_that_is_bound_late_makes_a_service_ready() {
    waits_for(
        json!({"unix": "{{ root }}/db.sock"}),
        "
s = socket.socket(socket.AF_UNIX)
time.sleep(0.2)
s.bind(ROOM + '/db.sock')  # The file is there, and nobody listens yet.
time.sleep(0.3)
ready()
s.listen()
time.sleep(1000)
",
    );
}

#[test]
fn a_page_that_is_an_error_at_first_makes_a_service_ready_once_it_is_not() {
    waits_for(
        json!({"http": "http://127.0.0.1:{{ port }}/health?deep=1"}),
        "
import http.server
asked = 0
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += 1
        if self.path != '/health?deep=1' or self.headers['Host'] != f'127.0.0.1:{PORT}':
            return self.send_error(404)
        if asked < 6:
            return self.send_error([503, 500, 404, 401][asked % 4])
        if asked == 6:
            ready()
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', PORT), Page).serve_forever()
",
    );
}

#[test]
fn what_did_not_come_is_named() {
    for (ready, missing) in [
        (
            json!({"log": "listening", "timeout": 1}),
            "no line of its output matches `listening`",
        ),
        (
            json!({"file": "/nowhere/at/all", "timeout": 1}),
            "/nowhere/at/all was not made since it started",
        ),
        (
            json!({"unix": "/nowhere.sock", "timeout": 1}),
            "nothing accepts connections at /nowhere.sock",
        ),
    ] {
        let b = pair(ready, "echo 'I listen'; exec sleep 1000");
        b.start().end().exits(69).says(&format!(
            "db is given up: it did not become ready in time: {missing}"
        ));
        assert!(!b.path("/order").exists());
    }
}

#[test]
fn what_cannot_be_awaited_starts_nothing() {
    for (ready, reason) in [
        (json!({"log": "("}), "`(` is no regular expression"),
        (
            json!({"file": "{{ 'here' }}"}),
            "`here` is not an absolute path",
        ),
    ] {
        let b = pair(ready, "echo > ROOT/order");
        b.start().end().exits(78).says(reason);
        assert!(!b.path("/order").exists());
    }
}

#[test]
fn a_flood_before_the_line_and_a_pattern_that_backtracks_hold_up_nobody() {
    let b = pair(
        json!({"log": "^(a|aa)+(?=!)$|^done$"}),
        "i=0; while [ $i -lt 2000 ]; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; i=$((i+1)); done\n\
         echo db >> ROOT/order; echo done; exec sleep 1000",
    );
    let running = b.start();
    order(&b);
    running.stop().exits(0);
}
