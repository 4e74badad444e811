//! Logs: for machines (`TIFFIN_LOG=json`), and followed (`logs -f`).

mod common;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{TestBox, wait};
use serde_json::{Value, json};

/// `logs -f`, and what it has printed so far.
struct Follower {
    child: Child,
    out: std::path::PathBuf,
}

impl Follower {
    fn new(b: &TestBox, words: &[&str]) -> Self {
        let out = b.path(&format!("/followed-{}", words.join("-")));
        let child = Command::new(env!("CARGO_BIN_EXE_entrypoint"))
            .arg("--root")
            .arg(b.dir.path())
            .arg("logs")
            .args(words)
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .spawn()
            .unwrap();
        Follower { child, out }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.out).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn wait_for(&self, wanted: &str) {
        wait(wanted, || self.text().contains(wanted).then_some(()));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
        })
        .collect()
}

#[test]
fn json_is_one_object_a_line_whatever_a_service_writes() {
    let mut b = TestBox::new();
    b.script(
        "web",
        "echo 'plain \"quoted\" gr\u{fc}n'; printf '<3>broken\\n'; printf 'a\\000\\377\\033b\\n'; printf 'not ended'; echo > ROOT/written; exec sleep 1000",
    );
    b.unit("web.service", "[Service]\nExecStart=ROOT/bin/web\n");
    b.env("TIFFIN_LOG", "json");
    let running = b.start();
    b.wait_for("/written");
    // What is not ended yet comes out at the end.
    b.wait_log("\u{1b}b");
    let ended = running.stop();
    ended.exits(0);
    let lines = objects(&ended.out);
    let got: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| {
            assert_eq!(line["service"], "web", "{line}");
            (
                line["level"].as_str().unwrap(),
                line["message"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        got,
        [
            ("info", "plain \"quoted\" gr\u{fc}n"),
            ("error", "broken"),
            ("info", "a\0\u{fffd}\u{1b}b"),
            ("info", "not ended"),
        ]
    );
    // What is no text is there whole all the same.
    assert_eq!(lines[2]["base64"], "YQD/G2I=");
    for line in &lines {
        let time = line["time"].as_str().unwrap();
        let output = Command::new("date")
            .args(["-u", "-d", time, "+%s"])
            .output()
            .unwrap();
        let seconds: i64 = String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        assert!(
            (now.as_secs().cast_signed() - seconds).abs() < 300,
            "{time}"
        );
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
    // The entrypoint's own are of the same form.
    let own = objects(&ended.err);
    assert!(
        own.iter().all(|line| line["service"] == "tiffin"),
        "{own:?}"
    );
    let messages = || own.iter().filter_map(|line| line["message"].as_str());
    assert!(messages().any(|text| text == "web is ready"), "{own:?}");
    assert!(messages().any(|text| text.starts_with("stopped in ")));
}

#[test]
fn in_json_a_service_that_is_given_up_and_wrong_settings_are_errors() {
    let mut b = TestBox::new();
    b.script("bad", "echo 'no such table'; exit 3");
    b.unit("bad.service", "[Service]\nExecStart=ROOT/bin/bad\n");
    b.env("TIFFIN_LOG", "json");
    let ended = b.start().end();
    ended.exits(3);
    let errors: Vec<Value> = objects(&ended.err)
        .into_iter()
        .filter(|line| line["level"] == "error")
        .collect();
    // One object, its lines within it.
    let message = errors[0]["message"].as_str().unwrap();
    assert!(message.starts_with("bad is given up"), "{message}");
    assert!(message.ends_with("\n  bad | no such table"), "{message}");
    b.env("TIFFIN_STOP_TIMEOUT", "never");
    let ended = b.start().end();
    let told = objects(&ended.exits(78).err);
    assert_eq!(told.last().unwrap()["level"], "error");
    // People are answered in words.
    b.run(&["check"]).exits(78).says("tiffin: ");
}

#[test]
fn in_text_a_level_that_is_not_info_stands_before_the_line() {
    let mut b = TestBox::new();
    b.script(
        "web",
        "printf '<6>up\\n<3>broken\\n<4>odd\\r\\n<7>detail\\nplain <3>\\n'; echo > ROOT/written; exec sleep 1000",
    );
    b.unit("web.service", "[Service]\nExecStart=ROOT/bin/web\n");
    let running = b.start();
    b.wait_for("/written");
    b.wait_log("plain <3>");
    let wanted = "web | up\nweb | error: broken\nweb | warning: odd\r\nweb | debug: detail\nweb | plain <3>\n";
    assert_eq!(b.run(&["logs", "web"]).out, wanted);
    let follower = Follower::new(&b, &["-f", "web"]);
    follower.wait_for(wanted);
    assert_eq!(running.stop().exits(0).out, wanted);
}

#[test]
fn nobody_reads_stdout_for_a_while_and_nothing_is_lost() {
    const LINES: u32 = 1_000_000;
    let mut b = TestBox::new();
    b.script(
        "flood",
        "while ! [ -e ROOT/go ]; do sleep 0.02; done; seq 1 1000000; echo > ROOT/done; exec sleep 1000",
    );
    b.unit("flood.service", "[Service]\nExecStart=ROOT/bin/flood\n");
    b.unit("other.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    // As with `docker run -t`: the box's own messages wait for the same reader.
    let (reader, writer) = std::io::pipe().unwrap();
    let child = b
        .command(&["start"])
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    let (read, begin) = std::sync::mpsc::channel();
    let lines = std::thread::spawn(move || {
        // At the latest then: a box that waits for its reader would make the test wait too.
        let _ = begin.recv_timeout(Duration::from_secs(30));
        BufReader::new(reader).lines().collect::<Vec<_>>()
    });
    let running = b.running(child).until(&b, "flood ready");
    b.file("/go", "");
    let begun = Instant::now();
    let mut restarts = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        for words in [&["status"][..], &["restart", "other"]] {
            let asked = Instant::now();
            b.run(words).exits(0);
            let took = asked.elapsed().as_secs_f64();
            assert!(took < 2.0, "{words:?} took {took} s");
        }
        restarts += 1;
    }
    assert!(!b.path("/done").exists(), "there was room for all of it");
    read.send(()).unwrap();
    b.wait_for("/done");
    b.run(&["stop", "flood"]).exits(0);
    running.stop().exits(0);
    let mut next = 1;
    let mut ready = 0;
    for line in lines.join().unwrap() {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("flood | ") {
            assert_eq!(number, next.to_string());
            next += 1;
        } else {
            // Nor is one torn.
            assert!(line.starts_with("tiffin: "), "{line}");
            ready += u32::from(line == "tiffin: other is ready");
        }
    }
    assert_eq!(next - 1, LINES);
    assert_eq!(ready, restarts + 1);
}

#[test]
fn another_log_format_is_refused() {
    let mut b = TestBox::new();
    b.unit("a.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.env("TIFFIN_LOG", "xml");
    b.start()
        .end()
        .exits(78)
        .says("TIFFIN_LOG = `xml`")
        .says("it takes `text` or `json`");
}

#[test]
fn followed_logs_begin_with_the_past_and_lose_nothing() {
    let mut b = TestBox::new();
    // More lines at once than are remembered.
    b.script(
        "many",
        "echo first; trap 'seq 1 20000' HUP; echo up > ROOT/up; while :; do sleep 0.05; done",
    );
    b.script("other", "echo other; exec sleep 1000");
    b.unit(
        "many.service",
        "[Service]\nExecStart=ROOT/bin/many\nExecReload=/bin/kill -HUP $MAINPID\n",
    );
    b.unit("other.service", "[Service]\nExecStart=ROOT/bin/other\n");
    let running = b.start();
    // Nobody has to read stdout slowly: that would be back-pressure, which is another test.
    b.wait_for("/up");
    b.wait_log("other | other");
    b.run(&["logs", "-f", "nobody"])
        .exits(1)
        .says("no service is called nobody");
    let all = Follower::new(&b, &["-f"]);
    let many = Follower::new(&b, &["many", "--follow"]);
    all.wait_for("other | other\n");
    many.wait_for("many | first\n");
    let drained = drain(running);
    b.run(&["reload", "many"]).exits(0);
    many.wait_for("many | 20000\n");
    all.wait_for("many | 20000\n");
    let expected: String = std::iter::once("many | first\n".to_owned())
        .chain((1..=20_000).map(|n| format!("many | {n}\n")))
        .collect();
    assert_eq!(many.text(), expected);
    assert!(!many.text().contains("other"));
    drained();
    // They end with the box.
    for mut follower in [all, many] {
        let code = wait("the end of logs -f", || follower.child.try_wait().unwrap());
        assert_eq!(code.code(), Some(0));
    }
}

/// Reads what the box writes until it is stopped by what is returned.
fn drain(running: common::Running) -> impl FnOnce() {
    let pid = running.pid();
    let thread = std::thread::spawn(move || running.end());
    move || {
        let status = Command::new("/bin/kill")
            .args(["-TERM", &pid.to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        thread.join().unwrap().exits(0);
    }
}

#[test]
fn who_follows_and_does_not_read_holds_up_nobody() {
    let mut b = TestBox::new();
    b.script(
        "flood",
        "echo 0; while ! [ -e ROOT/go ]; do sleep 0.05; done; seq 1 2000000; echo done > ROOT/done; exec sleep 1000",
    );
    b.unit("flood.service", "[Service]\nExecStart=ROOT/bin/flood\n");
    let running = b.start();
    b.wait_log("flood | 0");
    let mut child = Command::new(env!("CARGO_BIN_EXE_entrypoint"))
        .arg("--root")
        .arg(b.dir.path())
        .args(["logs", "-f"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "flood | 0");
    let drained = drain(running);
    b.file("/go", "");
    b.wait_for("/done");
    // Then it reads, and is told of the gap in its place: the numbers only ever grow.
    let mut told = None;
    let mut last = 0_u64;
    let mut read = 0_u64;
    for line in lines.by_ref() {
        let line = line.unwrap();
        if let Some(rest) = line.strip_prefix("tiffin: ") {
            assert!(rest.contains("were not read in time"), "{line}");
            told = rest.split(' ').next().unwrap().parse::<u64>().ok();
            break;
        }
        let number = line.strip_prefix("flood | ").unwrap().parse().unwrap();
        assert!(number > last, "{number} after {last}");
        last = number;
        read += 1;
    }
    assert_eq!(read + told.unwrap(), 2_000_000);
    drained();
    let mut rest = String::new();
    for line in lines {
        rest.push_str(&line.unwrap());
    }
    assert_eq!(rest, "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A service that appends numbers to a file, and opens it anew upon USR1.
const WRITER: &str = r#"
import os, signal, sys, time
path, last = sys.argv[1], int(sys.argv[2])
def reopen(*_):
    global log
    log = open(path, 'a', buffering=1)
reopen()
signal.signal(signal.SIGUSR1, reopen)
for n in range(1, last + 1):
    log.write(f'{n:07}\n')
    if n % 100 == 0:
        time.sleep(0.01)
open(path + '.done', 'w').write('\n')
time.sleep(1000)
"#;

/// What is kept, the oldest first.
fn rotated(b: &TestBox, path: &str, keep: usize) -> String {
    let numbers = (1..=keep).rev().map(|n| format!("{path}.{n}"));
    numbers
        .chain([path.to_owned()])
        .map(|path| std::fs::read_to_string(b.path(&path)).unwrap_or_default())
        .collect()
}

#[test]
fn files_that_a_service_insists_on_are_rotated() {
    let mut b = TestBox::new();
    let own = b.path("/writer.py");
    std::fs::write(&own, WRITER).unwrap();
    for (name, signal) in [("moved", Some("USR1")), ("copied", None)] {
        b.file(&format!("/log/{name}/.dir"), "");
        b.unit(
            &format!("{name}.service"),
            &format!(
                "[Service]\nExecStart=/usr/bin/python3 ROOT/writer.py ROOT/log/{name}/app.log 40000\n"
            ),
        );
        let mut file = json!({"path": format!("/log/{name}/app.log"), "max": 20_000, "keep": 99});
        if let Some(signal) = signal {
            file["signal"] = json!(signal);
        }
        b.put("services", name, json!({"log_files": [file]}));
    }
    let running = b.start();
    for name in ["moved", "copied"] {
        b.wait_for(&format!("/log/{name}/app.log.done"));
    }
    let written: String = (1..=40_000).map(|n| format!("{n:07}\n")).collect();
    // Renamed, nothing is lost.
    assert!(b.path("/log/moved/app.log.2").exists());
    assert!(rotated(&b, "/log/moved/app.log", 99) == written);
    // Copied, there may be a gap at the border, and no line twice.
    assert!(b.path("/log/copied/app.log.2").exists());
    let kept = rotated(&b, "/log/copied/app.log", 99);
    let kept: Vec<u32> = kept.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(kept.is_sorted_by(|a, b| a < b));
    assert!(kept.len() > 39_000, "{} are left", kept.len());
    running
        .stop()
        .exits(0)
        .says("tiffin: moved: ")
        .says("/log/copied/app.log is rotated");
}
