//! A box in a directory: a contract, units and a volume below a temporary root, and the
//! real binary run on it as a subreaper.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub struct TestBox {
    pub dir: tempfile::TempDir,
    pub contract: Value,
    pub environment: Vec<(String, String)>,
}

pub struct Running {
    child: Option<Child>,
    root: PathBuf,
}

#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl TestBox {
    pub fn new() -> Self {
        TestBox {
            dir: tempfile::tempdir().unwrap(),
            contract: json!({
                "format": 2,
                "product": {"name": "acme/test", "title": "Test", "version": "v1"},
                "volumes": [{"path": "/data"}],
            }),
            environment: Vec::new(),
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            text.replace("ROOT", self.dir.path().to_str().unwrap()),
        )
        .unwrap();
        self
    }

    /// A script that units call as ROOT/bin/NAME.
    pub fn script(&self, name: &str, text: &str) -> &Self {
        let path = format!("/bin/{name}");
        self.file(&path, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    pub fn unit(&mut self, name: &str, text: &str) -> &mut Self {
        let path = format!("/lib/systemd/system/{name}");
        self.file(&path, text);
        self.push("units", json!({"name": name, "path": path}));
        self
    }

    /// The one-shot `db`, which lasts until `/go` is there and then notes itself in `/log`.
    pub fn db_that_waits(&mut self) -> &mut Self {
        self.script(
            "db",
            "while ! [ -e ROOT/go ]; do sleep 0.02; done; echo db >> ROOT/log",
        );
        self.unit(
            "db.service",
            "[Service]\nType=oneshot\nExecStart=ROOT/bin/db\n",
        )
    }

    pub fn push(&mut self, list: &str, item: Value) -> &mut Self {
        let entry = self
            .contract
            .as_object_mut()
            .unwrap()
            .entry(list)
            .or_insert(json!([]));
        entry.as_array_mut().unwrap().push(item);
        self
    }

    pub fn put(&mut self, map: &str, key: &str, item: Value) -> &mut Self {
        let entry = self
            .contract
            .as_object_mut()
            .unwrap()
            .entry(map)
            .or_insert(json!({}));
        entry.as_object_mut().unwrap().insert(key.to_owned(), item);
        self
    }

    pub fn template(&mut self, dest: &str, body: &str) -> &mut Self {
        let meta = fs::metadata(self.dir.path()).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        self.push(
            "templates",
            json!({"dest": dest, "source": "x.j2", "task": "x : y", "uid": meta.uid(), "gid": meta.gid(),
                "mode": "0640", "body": body, "parity": {"result": "identical"}}),
        )
    }

    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn command(&self, words: &[&str]) -> Command {
        // A running box may be reading it at this moment.
        let path = self.path("/usr/lib/tiffin/contract.json");
        let text = self.contract.to_string();
        if fs::read_to_string(path).ok().as_ref() != Some(&text) {
            self.file("/usr/lib/tiffin/contract.json", &text);
        }
        self.command_as_is(words)
    }

    /// With the contract that lies there.
    fn command_as_is(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_entrypoint"));
        command
            .arg("--root")
            .arg(self.dir.path())
            .args(words)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end.
    pub fn run(&self, words: &[&str]) -> Ended {
        Ended::of(self.command(words).output().unwrap())
    }

    /// The same, and the contract stays as it was put there.
    pub fn run_as_is(&self, words: &[&str]) -> Ended {
        Ended::of(self.command_as_is(words).output().unwrap())
    }

    /// Starts a verb; what it prints is the caller's to read.
    pub fn spawn(&self, words: &[&str]) -> Child {
        self.command(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn start(&self) -> Running {
        self.running(self.spawn(&["start"]))
    }

    /// A box that was started with streams of the caller's.
    pub fn running(&self, child: Child) -> Running {
        Running {
            child: Some(child),
            root: self.dir.path().to_owned(),
        }
    }

    /// Waits until the file exists and ends with a line end; returns its text.
    pub fn wait_for(&self, path: &str) -> String {
        let path = self.path(path);
        wait(&format!("{}", path.display()), || {
            fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
    }

    /// A simple service is ready when its process is started, not when it has said something.
    pub fn wait_log(&self, wanted: &str) {
        wait(wanted, || {
            self.run(&["logs"]).out.contains(wanted).then_some(())
        });
    }

    pub fn wait_status(&self, wanted: &str) {
        wait(wanted, || {
            let out = self.run(&["status"]).out;
            out.lines()
                .any(|line| {
                    line.split_whitespace()
                        .collect::<Vec<_>>()
                        .join(" ")
                        .starts_with(wanted)
                })
                .then_some(())
        });
    }
}

pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("/bin/kill")
            .args([signal, &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for a line of `status`.
    pub fn until(self, b: &TestBox, wanted: &str) -> Self {
        b.wait_status(wanted);
        self
    }

    /// Waits for the end, asserts that nothing is left of the box.
    pub fn end(mut self) -> Ended {
        let ended = Ended::of(self.child.take().unwrap().wait_with_output().unwrap());
        let left = processes_of(&self.root);
        assert!(left.is_empty(), "left behind: {left:?}\n{ended:?}");
        ended
    }

    pub fn stop(self) -> Ended {
        self.signal("-TERM");
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only after a failed assertion: the box stops what it started.
        if let Some(child) = &mut self.child {
            let pid = child.id().to_string();
            for _ in 0..3 {
                let _ = Command::new("/bin/kill").args(["-TERM", &pid]).status();
            }
            let _ = child.wait();
        }
    }
}

/// Processes whose command line names the root.
fn processes_of(root: &std::path::Path) -> Vec<String> {
    let root = root.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(bytes) = fs::read(entry.path().join("cmdline")) {
            let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
            if text.contains(root) {
                found.push(text);
            }
        }
    }
    found
}

impl Ended {
    pub fn of(output: Output) -> Self {
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(
            self.out.contains(text) || self.err.contains(text),
            "no `{text}` in {self:#?}"
        );
        self
    }
}
