//! The reference stack and a hundred small services under random signals, orphans and a flood of
//! output: no acknowledged document, no line and no service is lost, and nothing is left behind.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use crate::harness::*;
use crate::upgrade::python;

const SIGNALS: u32 = 10_000;
const ORPHANS: u32 = 100_000;
/// Of a gigabyte, without the service's name.
const LINES: u64 = 10_000_000;

const TASKS: &str = r#"
- name: Small services, a flood, orphans
  copy:
    dest: /etc/supervisor/conf.d/storm.conf
    content: |
      [program:small]
      command=/bin/sleep 1000000
      numprocs=100
      process_name=%(program_name)s_%(process_num)03d
      autorestart=true
      startsecs=0
      startretries=1000000
      [program:flood]
      command=/bin/sh -c "yes $(printf %%099d 0) | head -n LINES"
      autostart=false
      autorestart=false
      startsecs=0
      [program:orphans]
      command=/usr/bin/python3 /usr/local/bin/orphans
      autostart=false
      autorestart=false
      startsecs=0
- name: Orphans
  copy:
    dest: /usr/local/bin/orphans
    content: |
      import os
      for _ in range(ORPHANS):
          child = os.fork()
          if child == 0:
              os.fork()
              os._exit(0)
          os.waitpid(child, 0)
- file: {path: "/etc/systemd/system/{{ item }}.service.d", state: directory}
  loop: [mongod, redis-server, nginx]
- name: What dies again and again comes back
  copy: {dest: "/etc/systemd/system/{{ item }}.service.d/storm.conf", content: "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=0\n"}
  loop: [mongod, redis-server, nginx]
"#;

/// Signals to processes of the box, whichever they are, but for those that `docker exec` began.
const STORM: &str = r#"
import os, random, signal, sys, time
random.seed(int(sys.argv[2]))
def theirs():
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/stat") as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent:
                yield int(name)
sent = {}
while sum(sent.values()) < int(sys.argv[1]):
    pids = list(theirs())
    # Who dies sooner than after some seconds only waits, longer and longer, to be started.
    kind = random.choices((signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP), (1, 1, 5))[0]
    try:
        pid = random.choice(pids)
        os.kill(pid, kind)
        if kind == signal.SIGSTOP:
            time.sleep(0.002)
            os.kill(pid, signal.SIGCONT)
        sent[kind.name] = sent.get(kind.name, 0) + 1
    except (ProcessLookupError, IndexError):
        pass
    time.sleep(0.02)
print(sent)
"#;

/// Counts until it is told to stop; what it has counted is on MongoDB's disk.
const WRITE: &str = r#"
import os, time
from pymongo import WriteConcern
from pymongo.errors import DuplicateKeyError, PyMongoError
safe = reports.with_options(write_concern=WriteConcern(w=1, j=True))
number = 0
while not os.path.exists("/tmp/storm-is-over"):
    try:
        safe.insert_one({"_id": f"storm-{number}"})
        number += 1
    except DuplicateKeyError:
        number += 1
    except PyMongoError:
        time.sleep(0.05)
print(number, len({r["_id"] for r in reports.find({"_id": {"$regex": "^storm-"}})} & {f"storm-{n}" for n in range(number)}))
"#;

/// What comes out of the box.
#[derive(Default)]
struct Seen {
    flood: u64,
    others: Vec<String>,
}

fn follow(stream: impl Read + Send + 'static, seen: &Arc<Mutex<Seen>>) -> JoinHandle<()> {
    let seen = seen.clone();
    std::thread::spawn(move || {
        let flood = format!("flood | {:099}\n", 0);
        let mut stream = BufReader::with_capacity(1 << 20, stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).unwrap() > 0 {
            let mut seen = seen.lock().unwrap();
            if line == flood.as_bytes() {
                seen.flood += 1;
            } else {
                seen.others
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
            line.clear();
        }
    })
}

/// Descriptors and resident pages of the first process, and how many others there are.
fn state(container: &Container) -> (u64, u64, u64) {
    let script = "ls /proc/1/fd | wc -l; cut -d' ' -f2 /proc/1/statm; cat /proc/[0-9]*/stat 2>/dev/null | awk '{ sub(/.*\\) /, \"\"); if ($2 != 0) n++ } END { print n }'";
    let said = must(&mut container.exec(&["sh", "-c", script]));
    let numbers: Vec<u64> = said
        .lines()
        .map(|line| line.trim().parse().unwrap())
        .collect();
    (numbers[0], numbers[1], numbers[2])
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn long_a_storm_over_the_whole_stack_loses_nothing() {
    let dir = copy_of_sources();
    let at = |path: &str| dir.path().join(path);
    let change = |path: &str, from: &str, to: &str| {
        let text = fs::read_to_string(at(path)).unwrap();
        assert!(text.contains(from), "{path}: {from}");
        fs::write(at(path), text.replace(from, to)).unwrap();
    };
    let tasks = TASKS
        .replace("LINES", &LINES.to_string())
        .replace("ORPHANS", &ORPHANS.to_string());
    fs::create_dir_all(at("playbooks/roles/storm/tasks")).unwrap();
    fs::write(at("playbooks/roles/storm/tasks/main.yml"), tasks).unwrap();
    let role = "    - role: storm\n      tags: [storm]\n";
    let site = fs::read_to_string(at("playbooks/site.yml")).unwrap();
    fs::write(at("playbooks/site.yml"), site + role).unwrap();
    let programs = "playbooks/roles/backend/templates/supervisor.conf.j2";
    change(
        programs,
        "autorestart=true",
        "autorestart=true\nstartretries=1000000",
    );
    let recipe = "examples/reference/tiffin.yaml";
    let source = "  - {name: source, tags: [source]}\n";
    let storm = format!("{source}  - {{name: storm, tags: [storm]}}\n");
    change(recipe, source, &storm);
    let version = unique("v0-storm");
    let mut build = std::process::Command::new(tiffin());
    build.args(["build", "--version", &version, "--file"]);
    must(build.arg(at(recipe)).arg("--output").arg(at("dist")));
    let archive = at(&format!("dist/backend-{version}.tar"));
    let loaded = Loaded::new(&archive, &format!("acme/backend:{version}"));

    let container = Container {
        name: unique("storm"),
    };
    let mut run = docker(&["run", "--name", &container.name, "--log-driver", "none"]);
    run.args(["--memory", "3g", "-p", "127.0.0.1::80", &loaded.image]);
    let mut run: Child = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let readers = [
        follow(run.stdout.take().unwrap(), &seen),
        follow(run.stderr.take().unwrap(), &seen),
    ];
    let last = || {
        let seen = seen.lock().unwrap();
        let from = seen.others.len().saturating_sub(60);
        seen.others[from..].concat()
    };
    let healthy = || {
        output(&mut container.exec(&["tiffin", "health"]))
            .status
            .success()
    };
    assert!(within(Duration::from_secs(180), healthy), "{}", last());
    container.round_trip();
    let before = state(&container);

    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| python(&container, WRITE, &[]));
        let seed = std::process::id().to_string();
        let words = ["python3", "-c", STORM, &SIGNALS.to_string(), &seed];
        let sent = output(&mut container.exec(&words));
        println!("{}", String::from_utf8_lossy(&sent.stdout).trim());
        // However it went, the writer is let go.
        must(&mut container.exec(&["touch", "/tmp/storm-is-over"]));
        assert!(sent.status.success(), "{sent:?}\n{}", last());
        // Who died often waits up to 12 s, and MongoDB reads its journal.
        assert!(within(Duration::from_secs(180), healthy), "{}", last());
        writer.join().unwrap()
    });
    println!("documents: {written}");
    let (acknowledged, found) = written.split_once(' ').unwrap();
    assert!(acknowledged.parse::<u32>().unwrap() > 100, "{written}");
    assert_eq!(acknowledged, found);
    let status = must(&mut container.exec(&["tiffin", "status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let ready = |s: &&serde_json::Value| {
        s["name"].as_str().unwrap().contains("small_") && s["ready"] == true
    };
    assert_eq!(
        status["services"]
            .as_array()
            .unwrap()
            .iter()
            .filter(ready)
            .count(),
        100
    );
    container.round_trip();

    for program in ["orphans", "flood"] {
        must(&mut container.exec(&["supervisorctl", "start", program]));
        let over = || {
            let said = output(&mut container.exec(&["supervisorctl", "status", program]));
            String::from_utf8_lossy(&said.stdout).contains("EXITED")
        };
        assert!(
            within(Duration::from_secs(600), over),
            "{program}\n{}",
            last()
        );
    }
    let all = || seen.lock().unwrap().flood == LINES;
    assert!(
        within(Duration::from_secs(120), all),
        "{} of {LINES}",
        seen.lock().unwrap().flood
    );

    // As before: nobody is left, and what each service has in its ring is all that grew.
    let calm = || state(&container).2 == before.2;
    assert!(
        within(Duration::from_secs(60), calm),
        "{before:?}, {:?}",
        state(&container)
    );
    let after = state(&container);
    println!("descriptors, pages, processes: {before:?}, then {after:?}");
    assert_eq!(after.0, before.0);
    let more = after.1.saturating_sub(before.1) * 4096;
    assert!(more < 12 << 20, "{more} bytes more than before");

    must(&mut docker(&["stop", "--time", "90", &container.name]));
    assert_eq!(run.wait().unwrap().code(), Some(0), "{}", last());
    for reader in readers {
        reader.join().unwrap();
    }
}
