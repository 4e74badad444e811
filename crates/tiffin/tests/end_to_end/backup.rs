//! Backups of the reference stack while it is written to, and boxes made of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::*;

const PYTHON: &str = "/opt/backend/venv/bin/python";

/// How the others reach the databases.
const COMMON: &str = r#"
import hashlib, json, os, re, sys, threading, time
import pymongo, redis
config = json.load(open("/etc/mongodb/users.json"))
admin = config["admin"]
mongo = pymongo.MongoClient("127.0.0.1", config["port"], username=admin["user"], password=admin["password"])
documents = mongo.storm.documents
text = open("/etc/redis/redis.conf").read()
cache = redis.Redis(password=re.search(r'^requirepass "(.*)"$', text, re.M)[1])
def document(n):
    pad = hashlib.sha256(str(n).encode()).hexdigest() * 16
    return {"_id": n, "odd": n % 7, "pad": pad}
"#;

/// Writes one document after the other, each to MongoDB and then to Redis, until its standard
/// input ends; says of each when it was begun and when MongoDB had acknowledged it.
const WRITER: &str = r#"
ahead = int(sys.argv[1])
documents.create_index("odd")
for start in range(1, ahead + 1, 1000):
    numbers = range(start, min(start + 1000, ahead + 1))
    documents.insert_many([document(n) for n in numbers])
    cache.rpush("storm", *numbers)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
n = ahead
while True:
    n += 1
    begun = time.time()
    documents.insert_one(document(n))
    done = time.time()
    cache.rpush("storm", n)
    print(n, begun, done, flush=True)
"#;

/// What is there: how many documents without a hole, and how many of them Redis has.
const READER: &str = r#"
count = 0
for found in documents.find().sort("_id"):
    count += 1
    assert found == document(count), f"document {count} is {found['_id']}, or not whole"
check = mongo.storm.command("validate", "documents", full=True)
assert check["valid"] and not check["errors"], check
assert check["keysPerIndex"] == {"_id_": count, "odd_1": count}, check
numbers = [int(n) for n in cache.lrange("storm", 0, -1)]
assert numbers == list(range(1, len(numbers) + 1)), "the list in Redis has a hole"
print(count, len(numbers))
"#;

struct Writer {
    child: Child,
    file: PathBuf,
}

/// A document, and when it was begun and acknowledged, in seconds since 1970.
type Written = (u64, f64, f64);

impl Writer {
    fn start(container: &Container, ahead: u64, folder: &Path) -> Self {
        let file = folder.join("written");
        let script = format!("{COMMON}{WRITER}");
        let mut command = docker(&["exec", "-i", &container.name, PYTHON, "-c", &script]);
        let child = command
            .arg(ahead.to_string())
            .stdin(Stdio::piped())
            .stdout(File::create(&file).unwrap())
            .spawn()
            .unwrap();
        Writer { child, file }
    }

    fn written(&self) -> Vec<Written> {
        let text = fs::read_to_string(&self.file).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let line = |line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap();
            let number = word().parse().unwrap();
            (number, word().parse().unwrap(), word().parse().unwrap())
        };
        whole.lines().map(line).collect()
    }

    fn until(&self, count: usize) {
        let there = || self.written().len() >= count;
        assert!(
            within(Duration::from_secs(120), there),
            "the writer is slow or dead"
        );
    }

    fn end(mut self) -> Vec<Written> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        self.written()
    }
}

/// Documents and how many of them Redis has.
fn read(container: &Container) -> (u64, u64) {
    let script = format!("{COMMON}{READER}");
    let said = must(&mut container.exec(&[PYTHON, "-c", &script]));
    let (documents, list) = said.split_once(' ').unwrap();
    (documents.parse().unwrap(), list.parse().unwrap())
}

/// `docker exec BOX tiffin backup > FILE`; answers what it said.
fn back_up(container: &Container, file: &Path) -> String {
    let mut command = container.exec(&["tiffin", "backup"]);
    command.stdout(File::create(file).unwrap());
    let out = output(&mut command);
    assert!(
        out.status.success(),
        "{}\n{}",
        told(&command, &out),
        container.logs()
    );
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// `docker run --rm -i -v … IMAGE WORDS < FILE`
fn with_input(volume: &Volume, words: &[&str], file: &Path) -> Command {
    let mut command = docker(&["run", "--rm", "-i", "-v", &volume.flag(), &image()]);
    command.args(words).stdin(File::open(file).unwrap());
    command
}

fn shell(volume: &Volume, script: &str) -> String {
    let mut command = docker(&[
        "run",
        "--rm",
        "-v",
        &volume.flag(),
        "--entrypoint",
        "/bin/sh",
    ]);
    must(command.arg(image()).args(["-c", script]))
}

/// When mongod said this, in seconds since 1970.
fn when(container: &Container, message: &str) -> f64 {
    let logs = container.logs();
    let line = logs.lines().rfind(|line| line.contains(message));
    let line = line.unwrap_or_else(|| panic!("mongod never said `{message}`:\n{logs}"));
    let time = line
        .split("\"$date\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    must(Command::new("date").args(["-d", time, "+%s.%N"]))
        .parse()
        .unwrap()
}

fn stop(container: &Container) {
    must(&mut docker(&["stop", "-t", "60", &container.name]));
}

/// What passwords the box has, masked for people.
fn passwords(volume: &Volume) -> String {
    shell(volume, "sha256sum < /data/.tiffin/settings.json")
}

/// A box that is written to is backed up, and another one made of the archive.
fn round_trip(ahead: u64, megabytes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let old = Volume::new();
    let container = Container::run(&["-v", &old.flag()]);
    let report = container.round_trip();
    container.until_healthy();
    let make = format!(
        "mkdir -p /data/backend/uploads && cd /data/backend/uploads && \
         head -c {megabytes}M /dev/urandom | split -b 16M - part- && sha256sum part-* > sums"
    );
    must(&mut container.exec(&["sh", "-c", &make]));

    let writer = Writer::start(&container, ahead, folder.path());
    writer.until(1000);
    let file = folder.path().join("backup.tar.gz");
    let begun = Instant::now();
    let said = back_up(&container, &file);
    let took = begun.elapsed();
    writer.until(writer.written().len() + 500);
    let written = writer.end();
    let (_, blocked) = said.split_once("writes were blocked for ").expect(&said);
    let blocked: f64 = blocked.split(' ').next().unwrap().parse().unwrap();
    assert!(blocked <= 5.0, "{said}");
    stop(&container);
    let frozen = when(&container, "CMD fsync\"");
    let thawed = when(&container, "fsyncUnlock complete");
    drop(container);

    let new = Volume::new();
    let verified = must(&mut with_input(&new, &["backup", "verify", "-"], &file));
    for service in ["mongod", "redis-server"] {
        let line = format!("{service}: /data/{} (consistent", &service[..5]);
        let line = line.replace("mongo ", "mongodb ");
        assert!(verified.contains(&line), "{line} is missing:\n{verified}");
    }
    let begun = Instant::now();
    must(&mut with_input(&new, &["restore", "-"], &file));
    let restored = begun.elapsed();
    assert_eq!(passwords(&old), passwords(&new), "the generated passwords");

    let container = Container::run(&["-v", &new.flag()]);
    container.until_healthy();
    let (documents, list) = read(&container);
    let acknowledged = written
        .iter()
        .filter(|(_, _, done)| *done < frozen)
        .map(|w| w.0)
        .max();
    let before = acknowledged.unwrap_or(ahead);
    let after = written
        .iter()
        .filter(|(_, begun, _)| *begun > thawed)
        .map(|w| w.0)
        .min();
    assert!(
        documents >= before,
        "{before} were acknowledged, {documents} are there"
    );
    let after = after.expect("the writer went on");
    assert!(
        documents < after,
        "{after} came after the thaw, {documents} are there"
    );
    // One moment for both: each document goes to MongoDB, then to Redis.
    assert!(
        list == documents || list + 1 == documents,
        "{documents} in MongoDB, {list} in Redis"
    );
    assert_eq!(
        container.get(&format!("/reports/{report}")).0,
        200,
        "{}",
        container.logs()
    );
    container.round_trip();
    must(&mut container.exec(&[
        "sh",
        "-c",
        "cd /data/backend/uploads && sha256sum -c --quiet sums",
    ]));
    let longest = written
        .windows(2)
        .map(|pair| pair[1].2 - pair[0].2)
        .fold(0.0, f64::max);
    // What the writer saw of it, with what a busy machine adds.
    assert!(longest <= 10.0, "it waited for {longest:.2} s\n{said}");
    assert!(
        thawed - frozen <= 5.0,
        "mongod was still for {}",
        thawed - frozen
    );
    println!(
        "{documents} documents of {} and {megabytes} MB: backed up in {:.1} s to {} MB, restored in {:.1} s;\n{}\
         the longest that the writer waited for a document: {longest:.2} s",
        written.last().unwrap().0,
        took.as_secs_f64(),
        fs::metadata(&file).unwrap().len() / 1_000_000,
        restored.as_secs_f64(),
        said.lines()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_backup_under_load_makes_a_box_of_one_moment() {
    round_trip(3000, 20);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn long_a_backup_of_ten_thousand_documents_and_a_gigabyte_of_files() {
    round_trip(10_000, 1024);
}

/// A bit near the middle is another one. Not any: within a run of zeros, of which databases have
/// many, a match at another distance unpacks to the same.
fn damaged(good: &[u8], scratch: &Path) -> Vec<u8> {
    for at in (good.len() / 2..good.len()).step_by(997) {
        let mut flipped = good.to_vec();
        flipped[at] ^= 1;
        fs::write(scratch, &flipped).unwrap();
        let unpacks = Command::new("gzip")
            .arg("-t")
            .stdin(File::open(scratch).unwrap())
            .output();
        if !unpacks.unwrap().status.success() {
            return flipped;
        }
    }
    panic!("gzip takes any bit for good");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn what_is_no_backup_or_damaged_is_refused_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let old = Volume::new();
    let container = Container::run(&["-v", &old.flag()]);
    container.until_healthy();
    let file = folder.path().join("backup.tar.gz");
    back_up(&container, &file);
    drop(container);
    let good = fs::read(&file).unwrap();

    let target = Volume::new();
    shell(
        &target,
        "mkdir /data/mongodb && echo mine > /data/mongodb/file",
    );
    let list =
        "cd /data && find . -mindepth 1 -path ./.tiffin -prune -o -printf '%p %T@ %m %s\\n' | sort";
    let before = shell(&target, list);
    let bad = folder.path().join("bad");
    let flipped = damaged(&good, &bad);
    let other = fs::read(archive().with_extension("tar.sha256")).unwrap();
    for (what, bytes) in [
        ("a flipped bit", &flipped[..]),
        ("a cut", &good[..good.len() - 100]),
        ("half a file", &good[..good.len() / 2]),
        ("another file", &other[..]),
        ("nothing", &[][..]),
    ] {
        fs::write(&bad, bytes).unwrap();
        let said = must_fail(
            &mut with_input(&target, &["backup", "verify", "-"], &bad),
            65,
        );
        let words = ["restore", "--overwrite", "-"];
        must_fail(&mut with_input(&target, &words, &bad), 65);
        assert_eq!(shell(&target, list), before, "{what}: {said}");
    }
    // Without --overwrite not even a good one.
    must_fail(&mut with_input(&target, &["restore", "-"], &file), 73);
    assert_eq!(shell(&target, list), before);
    must(&mut with_input(
        &target,
        &["restore", "--overwrite", "-"],
        &file,
    ));
    let container = Container::run(&["-v", &target.flag()]);
    container.round_trip();
}

/// Finds the program whose command line holds the first word, and signals it.
const SIGNAL: &str = r#"
import os, sys, time
word, number = sys.argv[1], int(sys.argv[2])
def find():
    for pid in sorted((int(p) for p in os.listdir("/proc") if p.isdigit())):
        try:
            command = open(f"/proc/{pid}/cmdline").read().split("\0")
        except OSError:
            continue
        if word in command and pid != os.getpid():
            return pid
while not (pid := find()):
    time.sleep(0.05)
os.kill(pid, number)
"#;

/// Seconds until one write is through; to MongoDB or Redis.
const WRITE: &str = r#"
import time
begun = time.monotonic()
if sys.argv[1] == "mongod":
    mongo.storm.probe.insert_one({})
else:
    cache.set("probe", 1)
print(time.monotonic() - begun)
"#;

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_database_goes_on_however_its_freeze_ends() {
    let container = Container::run(&[]);
    container.until_healthy();
    for (service, user, words) in [
        (
            "mongod",
            "mongodb",
            ["/opt/mongodb/bin/freeze", "/etc/mongodb/users.json"],
        ),
        (
            "redis-server",
            "redis",
            ["/usr/local/lib/redis/freeze", "/etc/redis/redis.conf"],
        ),
    ] {
        let freeze = |limit: &str| {
            let mut command = docker(&["exec", "-i", "-u", user, &container.name]);
            command.args(words).arg(limit);
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = [0; 7];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
            assert_eq!(&line, b"frozen\n", "{service}");
            child
        };
        let write = || -> f64 {
            let script = format!("{COMMON}{WRITE}");
            must(&mut container.exec(&[PYTHON, "-c", &script, service]))
                .parse()
                .unwrap()
        };
        let signal = |number: &str| {
            must(&mut container.exec(&["python3", "-c", SIGNAL, words[0], number]));
        };
        let ends = |child: Child| {
            let out = child.wait_with_output().unwrap();
            (
                out.status.code(),
                String::from_utf8_lossy(&out.stderr).into_owned(),
            )
        };

        // Asked to go on, it does; until then nothing is written.
        let mut child = freeze("60");
        let hold = child.stdin.take();
        let blocked = std::thread::scope(|scope| {
            let write = scope.spawn(write);
            std::thread::sleep(Duration::from_secs(6));
            drop(hold);
            write.join().unwrap()
        });
        assert!(
            blocked > 1.0,
            "{service} was written to while frozen: {blocked} s"
        );
        assert_eq!(ends(child), (Some(0), String::new()), "{service}");

        // Its own limit, a request to end, and a violent end.
        let mut child = freeze("1");
        let hold = child.stdin.take();
        let (code, said) = ends(child);
        assert!(
            code == Some(1) && said.contains("frozen for 1 s"),
            "{service}: {said}"
        );
        drop(hold);
        for number in ["15", "9"] {
            let child = freeze("60");
            signal(number);
            let waited = write();
            assert!(
                waited < 15.0,
                "{service} waited for {waited} s after signal {number}"
            );
            let (code, said) = ends(child);
            assert_ne!(code, Some(0), "{service}, signal {number}: {said}");
        }
        assert!(write() < 2.0, "{service} goes on");
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn redis_without_an_append_only_file_is_backed_up_and_kept_over_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::new();
    let data = volume.flag();
    let container = Container::run(&["-v", &data]);
    container.until_healthy();
    // An operator's own file wins: dumps alone, and none of them by itself so soon.
    let conf = must(&mut container.exec(&["cat", "/etc/redis/redis.conf"]));
    let conf = conf.replace("appendonly yes", "appendonly no");
    assert!(
        conf.contains("\nsave 900 1 300 10\n"),
        "the case is for these dumps"
    );
    let mine = folder.path().join("redis.conf");
    fs::write(&mine, conf).unwrap();
    let mount = format!("{}:/etc/redis/redis.conf:ro", mine.display());
    stop(&container);
    drop(container);
    shell(&volume, "rm -r /data/redis; ls /data");
    let run = |volume: &Volume| {
        let container = Container::run(&["-v", &volume.flag(), "-v", &mount]);
        container.until_healthy();
        container
    };
    let keys = |container: &Container, script: &str| {
        let script = format!("{COMMON}{script}");
        must(&mut container.exec(&[PYTHON, "-c", &script]))
    };
    const COUNT: &str = "print(sum(1 for _ in cache.scan_iter('kept:*')))";
    let container = run(&volume);
    keys(
        &container,
        "for n in range(2000): cache.set(f'kept:{n}', n)",
    );
    let file = folder.path().join("backup.tar.gz");
    back_up(&container, &file);
    let files = must(&mut container.exec(&["ls", "/data/redis"]));
    assert_eq!(files, "dump.rdb");
    // What a new version copies is what a stop has left.
    keys(&container, "cache.set('kept:last', 1)");
    stop(&container);
    drop(container);
    assert_eq!(keys(&run(&volume), COUNT), "2001");

    let other = Volume::new();
    must(&mut with_input(&other, &["restore", "-"], &file));
    assert_eq!(keys(&run(&other), COUNT), "2000");
}
