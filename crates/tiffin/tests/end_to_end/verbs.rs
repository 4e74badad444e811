//! Every verb of an operator on a box that holds data: 10,000 documents and a gigabyte of files
//! of all sizes. After each, every document and the sum of every file are what they were.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::harness::*;
use crate::moving;
use crate::upgrade::{self, Customer, FILL, Releases, image_of, stack};

const DOCUMENTS: usize = 10_000;

/// Files of many sizes, an empty one and one of a third of all among them, and names that
/// programs stumble over.
const FILES: &str = r#"
import os, random
os.makedirs("/data/backend/files/deep/" + "/".join("abcdefgh"), exist_ok=True)
os.chdir("/data/backend/files")
left, number, sizes = 1 << 30, 0, [0, 1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, 350 << 20]
random.seed(1)
while left:
    size = min(left, sizes[number] if number < len(sizes) else random.choice([1000, 50_000, 300_000, 2_000_000, 7_000_000]))
    name = [f"{number}.bin", f"with space {number}", f"ünïcode-{number}\n", f"deep/a/b/c/{number}"][number % 4]
    with open(name, "wb") as file:
        rest = size
        while rest:
            rest -= file.write(os.urandom(min(rest, 1 << 20)))
    left, number = left - size, number + 1
os.symlink("0.bin", "link")
"#;

/// Number and sum of the documents, number, bytes and sum of the files.
const DIGEST: &str = r#"
import hashlib, os
from bson import json_util
documents, count = hashlib.sha256(), 0
for found in reports.find().sort("_id"):
    documents.update(json_util.dumps(found).encode())
    count += 1
files, number, size = hashlib.sha256(), 0, 0
for folder, inner, names in os.walk("/data/backend/files"):
    inner.sort()
    for name in sorted(names):
        path = os.path.join(folder, name)
        one, state = hashlib.sha256(), os.lstat(path)
        if os.path.islink(path):
            one.update(os.readlink(path).encode())
        else:
            with open(path, "rb") as file:
                while part := file.read(1 << 20):
                    one.update(part)
        files.update(f"{path} {state.st_mode} {state.st_uid} {state.st_size} {one.hexdigest()}\n".encode())
        number, size = number + 1, size + state.st_size
print(count, documents.hexdigest(), number, size, files.hexdigest())
"#;

/// Takes some away, changes some and adds some; files are replaced whole, as uploads are.
const SPOIL: &str = r#"
import os
reports.delete_many({"_id": {"$regex": "^old-1"}})
reports.update_many({}, {"$set": {"title": "spoiled"}})
os.chdir("/data/backend/files")
os.unlink("0.bin")
open("new", "wb").write(b"spoiled")
os.rename("new", "4.bin")
open("more", "wb").write(b"more")
"#;

fn digest(container: &Container) -> String {
    upgrade::python(container, DIGEST, &[])
}

/// The most memory that the entrypoint's processes of a container have had, by their command
/// lines: the kernel keeps it (VmHWM), and it is asked for until they end.
struct Watch {
    ends: std::sync::Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, u64>>,
}

impl Watch {
    fn of(container: &str) -> Watch {
        let ends = std::sync::Arc::new(AtomicBool::new(false));
        let (name, told) = (container.to_owned(), ends.clone());
        let thread = std::thread::spawn(move || {
            let (mut id, mut most) = (String::new(), BTreeMap::new());
            while !told.load(Ordering::Relaxed) {
                if id.is_empty() {
                    let out = output(&mut docker(&["inspect", "-f", "{{.Id}}", &name]));
                    id = String::from_utf8_lossy(&out.stdout).trim().to_owned();
                } else {
                    look(&id, &mut most);
                }
                sleep(Duration::from_millis(50));
            }
            most
        });
        Watch { ends, thread }
    }

    /// Kilobytes of the process whose command line ends so.
    fn of_verb(self, verb: &str) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        let most = self.thread.join().unwrap();
        let found = most.iter().filter(|(words, _)| words.ends_with(verb));
        found
            .map(|(_, kilobytes)| *kilobytes)
            .max()
            .unwrap_or_else(|| panic!("no process `{verb}`: {most:?}"))
    }
}

fn look(id: &str, most: &mut BTreeMap<String, u64>) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        if !fs::read_link(path.join("exe")).is_ok_and(|exe| exe.ends_with("lib/tiffin/entrypoint"))
            || !read("cgroup").contains(id)
        {
            continue;
        }
        let words = read("cmdline").trim_end_matches('\0').replace('\0', " ");
        let status = read("status");
        let peak: Option<u64> = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next())
            .and_then(|number| number.parse().ok());
        if let Some(peak) = peak {
            let known = most.entry(words).or_insert(0);
            *known = peak.max(*known);
        }
    }
}

/// What is told at the end, a line for each verb.
struct Account {
    lines: Vec<String>,
}

impl Account {
    /// Runs it, and says how long it took and how much memory `verb` had at most.
    fn of<T>(&mut self, what: &str, container: &str, verb: &str, run: impl FnOnce() -> T) -> T {
        let watch = Watch::of(container);
        let begun = Instant::now();
        let gives = run();
        let took = begun.elapsed().as_secs_f64();
        let peak = watch.of_verb(verb);
        self.lines
            .push(format!("{what}: {took:.1} s, at most {peak} kB of memory"));
        // The largest file alone has 350 MiB, all of them a gigabyte.
        assert!(peak < 32 << 10, "{what} is no stream: {:?}", self.lines);
        gives
    }

    fn size(&mut self, file: &Path) {
        let size = fs::metadata(file).unwrap().len() / 1000;
        self.lines.push(format!("  a file of {size} kB"));
    }

    fn seconds(&mut self, what: &str, begun: Instant) {
        let took = begun.elapsed().as_secs_f64();
        self.lines.push(format!("{what}: {took:.1} s"));
    }
}

/// `docker run --rm -i --name NAME -v … IMAGE WORDS < FILE`
fn with_input(name: &str, volume: &Volume, words: &[&str], input: Stdio) -> Command {
    let flag = volume.flag();
    let mut command = docker(&["run", "--rm", "-i", "--name", name, "-v", &flag, &image()]);
    command.args(words).stdin(input);
    command
}

fn shell(script: &str) {
    must(Command::new("bash").args(["-c", &format!("set -euo pipefail\n{script}")]));
}

/// What is on a volume, but for what a look at it changes.
fn list(volume: &Volume) -> String {
    let script = "cd /data && find . -mindepth 1 -path ./.tiffin -prune -o -printf '%p %T@ %m %s\\n' | sort | sha256sum";
    let flag = volume.flag();
    let mut command = docker(&["run", "--rm", "-v", &flag, "--entrypoint", "/bin/sh"]);
    must(command.arg(image()).args(["-c", script]))
}

/// `docker exec BOX tiffin VERB`, which says this.
fn told_within(account: &mut Account, container: &Container, verb: &str, wanted: &str) {
    let words: Vec<&str> = std::iter::once("tiffin").chain(verb.split(' ')).collect();
    let begun = Instant::now();
    let said = must(&mut container.exec(&words));
    account.seconds(verb, begun);
    assert!(said.contains(wanted), "{verb}: {said}");
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn long_every_verb_keeps_ten_thousand_documents_and_a_gigabyte_of_files() {
    let mut releases = Releases::new();
    let next = image_of(&releases.make("v1.0.0", &stack()));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut account = Account { lines: Vec::new() };
    let customer = Customer {
        volume: Volume::new(),
    };
    let container = Container::run(&[
        "-v",
        &customer.volume.flag(),
        "-e",
        "TIFFIN_STATUS_PAGE=127.0.0.1:9001",
        "-e",
        "TIFFIN_BACKUP_SCHEDULE=*-01-01 04:00",
        "-e",
        "TIFFIN_BACKUP_DIRECTORY=/data/backups",
    ]);
    container.round_trip();
    upgrade::python(&container, FILL, &[&DOCUMENTS.to_string()]);
    let begun = Instant::now();
    let make = [
        "exec",
        "-u",
        "backend",
        &container.name,
        "python3",
        "-c",
        FILES,
    ];
    must(&mut docker(&make));
    account.seconds("the files are made", begun);
    container.until_healthy();
    let before = digest(&container);
    println!("documents, their sum, files, bytes, their sum: {before}");
    let said: Vec<&str> = before.split(' ').collect();
    assert_eq!((said[0], said[3]), ("10001", "1073741829"), "{before}");

    // Questions that an operator asks.
    for (verb, wanted) in [
        ("preflight", "0 errors"),
        ("status", "mongod"),
        ("settings --origin", "MONGODB_HOST"),
        ("explain MONGODB_URL", "/etc/backend/environment"),
        ("check", "OK"),
        ("render /etc/redis/redis.conf", "maxmemory 256mb"),
        ("manifest compose", "services:"),
        ("logs mongod", "mongod"),
        ("top --once", "mongod"),
        ("certificates", ""),
        ("status-page", "http://"),
        ("health", ""),
        ("health --started", ""),
        ("version", "acme/backend"),
    ] {
        told_within(&mut account, &container, verb, wanted);
    }
    // Changes that are no upgrade.
    let health = || container.until_healthy();
    let set = "echo REDIS_MAXMEMORY=111mb >/data/settings.env";
    must(&mut container.exec(&["sh", "-c", set]));
    for (verb, wanted) in [
        ("reload --dry-run", "redis-server"),
        ("reload", "redis-server"),
        ("restart mongod", ""),
        ("restart backend-web", ""),
        ("stop backend-worker", ""),
        ("start backend-worker", ""),
        ("reload nginx", ""),
    ] {
        told_within(&mut account, &container, verb, wanted);
        if !verb.starts_with("stop") {
            health();
        }
        assert_eq!(digest(&container), before, "{verb}");
    }
    let conf = must(&mut container.exec(&["grep", "^maxmemory ", "/etc/redis/redis.conf"]));
    assert_eq!(conf, "maxmemory 111mb");
    must(&mut container.exec(&["rm", "/data/settings.env"]));
    told_within(&mut account, &container, "reload", "redis-server");
    health();

    // As a timer does it, at night.
    let begun = Instant::now();
    must(&mut container.exec(&["tiffin", "start", "scheduled-backup"]));
    let file =
        || must(&mut container.exec(&["sh", "-c", "ls /data/backups/*.tar.gz 2>&1 || true"]));
    let is_whole = || {
        let mut verify = container.exec(&["tiffin", "backup", "verify", &file()]);
        output(&mut verify).status.success()
    };
    assert!(
        within(Duration::from_secs(180), is_whole),
        "{}",
        container.logs()
    );
    account.seconds("a scheduled backup, until it is found whole", begun);
    assert!(must(&mut container.exec(&["tiffin", "status"])).contains("backup"));
    must(&mut container.exec(&["rm", "-r", "/data/backups"]));
    assert_eq!(digest(&container), before);
    let bundle = path("support.tar.gz");
    account.of("support-bundle", &container.name, "support-bundle", || {
        let mut command = container.exec(&["tiffin", "support-bundle"]);
        must(command.stdout(File::create(&bundle).unwrap()))
    });
    account.size(&bundle);
    let index = must(
        Command::new("tar")
            .args(["-xzOf"])
            .arg(&bundle)
            .args(["--wildcards", "*index.json"]),
    );
    assert!(!index.contains("problem"), "{index}");

    // Backups: streamed, into a file, encrypted on its way.
    let backup = path("backup.tar.gz");
    account.of("backup >FILE", &container.name, "backup", || {
        let mut command = container.exec(&["tiffin", "backup"]);
        must(command.stdout(File::create(&backup).unwrap()))
    });
    account.size(&backup);
    account.of(
        "backup -o FILE",
        &container.name,
        "backup -o /data/mine.tar.gz",
        || must(&mut container.exec(&["tiffin", "backup", "-o", "/data/mine.tar.gz"])),
    );
    let verb = "backup verify /data/mine.tar.gz";
    account.of("backup verify FILE", &container.name, verb, || {
        must(&mut container.exec(&["tiffin", "backup", "verify", "/data/mine.tar.gz"]))
    });
    must(&mut container.exec(&["rm", "/data/mine.tar.gz"]));
    let (key, encrypted) = (path("key.txt"), path("backup.tar.gz.age"));
    let (key, encrypted) = (key.display(), encrypted.display());
    shell(&format!("age-keygen -o {key} 2>/dev/null"));
    account.of("backup | age", &container.name, "backup", || {
        let name = &container.name;
        shell(&format!(
            "docker exec {name} tiffin backup | age -r $(age-keygen -y {key}) >{encrypted}"
        ));
    });
    assert_eq!(digest(&container), before);
    let (name, image_name) = (unique("verify"), image());
    account.of("age -d | backup verify -", &name, "backup verify -", || {
        shell(&format!(
            "age -d -i {key} {encrypted} | docker run --rm -i --name {name} {image_name} backup verify -"
        ));
    });
    customer.stop(container);

    // Into an empty volume, of the encrypted one.
    let other = Customer {
        volume: Volume::new(),
    };
    let (name, flag) = (unique("restore"), other.volume.flag());
    account.of("age -d | restore -", &name, "restore -", || {
        shell(&format!(
            "age -d -i {key} {encrypted} | docker run --rm -i --name {name} -v {flag} {image_name} restore -"
        ));
    });
    let container = other.start(&image());
    container.until_healthy();
    assert_eq!(digest(&container), before);
    container.round_trip();
    // Over what somebody has spoiled, and only when the backup is whole.
    upgrade::python(&container, SPOIL, &[]);
    let spoiled = digest(&container);
    assert_ne!(spoiled, before);
    other.stop(container);
    let there = list(&other.volume);
    let damaged = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&backup)
        .unwrap();
    // In the middle of what no program packs any smaller.
    let (at, mut byte) = (damaged.metadata().unwrap().len() / 2, [0]);
    damaged.read_exact_at(&mut byte, at).unwrap();
    damaged.write_all_at(&[byte[0] ^ 1], at).unwrap();
    for words in [
        &["backup", "verify", "-"][..],
        &["restore", "--overwrite", "-"],
    ] {
        let name = unique("damaged");
        let said = account.of("a damaged byte", &name, &words.join(" "), || {
            let input = File::open(&backup).unwrap().into();
            must_fail(&mut with_input(&name, &other.volume, words, input), 65)
        });
        account.lines.push(format!("  {}", said.trim_end()));
        assert_eq!(list(&other.volume), there);
    }
    damaged.write_all_at(&byte, at).unwrap();
    let container = other.start(&image());
    container.until_healthy();
    assert_eq!(digest(&container), spoiled);
    other.stop(container);
    let name = unique("restore");
    account.of(
        "restore --overwrite -",
        &name,
        "restore --overwrite -",
        || {
            let input = File::open(&backup).unwrap().into();
            let words = ["restore", "--overwrite", "-"];
            must(&mut with_input(&name, &other.volume, &words, input))
        },
    );
    let container = other.start(&image());
    container.until_healthy();
    assert_eq!(digest(&container), before);
    other.stop(container);
    drop(other);

    // Forward with a copy, and back.
    let begun = Instant::now();
    let container = customer.start(&next);
    container.until_healthy();
    account.seconds("upgrade, until all is ready", begun);
    let logs = container.logs();
    assert!(
        logs.contains("copying the data") && logs.contains("upgraded from"),
        "{logs}"
    );
    assert_eq!(digest(&container), before);
    upgrade::python(&container, SPOIL, &[]);
    customer.stop(container);
    let begun = Instant::now();
    must(&mut customer.command(&next, &["rollback", "--yes"]));
    account.seconds("rollback", begun);
    let container = customer.start(&image());
    container.until_healthy();
    assert_eq!(digest(&container), before);
    customer.stop(container);

    // The databases to servers elsewhere; the files stay.
    let network = Network::new();
    let server = Databases::new(&network.name);
    let path = path("databases.env");
    fs::write(&path, moving::target(&server, Databases::PASSWORD)).unwrap();
    let (name, flag) = (unique("move"), customer.volume.flag());
    let said = account.of("move -", &name, "move -", || {
        let mut command = docker(&["run", "--rm", "-i", "--name", &name, "-v", &flag]);
        command.args(["--network", &network.name]);
        command.args([&image(), "move", "-"]);
        let out = output(command.stdin(File::open(&path).unwrap()));
        assert!(out.status.success(), "{}", told(&command, &out));
        String::from_utf8_lossy(&out.stderr).into_owned()
    });
    assert!(said.contains("10001 documents of "), "{said}");
    let container = Container::run(&["--network", &network.name, "-v", &flag]);
    container.until_healthy();
    assert_eq!(digest(&container), before);
    let status = must(&mut container.exec(&["tiffin", "status"]));
    let line = status.lines().find(|line| line.starts_with("mongod"));
    assert!(
        line.is_some_and(|line| line.contains("skipped")),
        "{status}"
    );
    container.round_trip();
    println!("{}", account.lines.join("\n"));
}
