//! Releases of the reference stack over the same volume: forward, back, forward again, and
//! never a document lost.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::harness::*;

const PYTHON: &str = "/opt/backend/venv/bin/python";
const DOCUMENTS: usize = 2000;

/// The application's own way to its database.
const COMMON: &str = "import sys\nfrom reports import settings\nfrom reports.store import Store\nreports = Store(settings.load()).reports\n";
pub const FILL: &str = "reports.insert_many({'_id': f'old-{n}', 'title': str(n), 'values': [n], 'state': 'pending', 'mail': None} for n in range(int(sys.argv[1])))";
pub const ADD: &str = "reports.insert_one({'_id': 'later', 'title': 'later', 'values': [1], 'state': 'pending', 'mail': None, 'unit': 'm', 'scale': 1})";
/// How many there are, how many a migration has changed, how many are whole.
pub const COUNT: &str = "found = list(reports.find({'_id': {'$regex': '^old-'}}))\n\
    whole = sum(d['title'] == d['_id'][4:] and d['values'] == [int(d['title'])] for d in found)\n\
    print(len(found), sum('unit' in d for d in found), sum('scale' in d for d in found), whole, reports.count_documents({'_id': 'later'}))";

/// Adds a migration to the application's: it changes documents one by one.
fn migration(field: &str, and_then: &str) -> String {
    format!(
        "\n\nbefore_{field} = Store.migrate\n\n\n\
         def migrate_{field}(self):\n    before_{field}(self)\n    \
         for number, report in enumerate(self.reports.find({{\"{field}\": {{\"$exists\": False}}}}).batch_size(50)):\n        \
         self.reports.update_one({{\"_id\": report[\"_id\"]}}, {{\"$set\": {{\"{field}\": 1}}}})\n{and_then}\n\n\
         Store.migrate = migrate_{field}\n"
    )
}

/// A copy of the stack's sources in which releases are made; their images end with it.
pub struct Releases {
    dir: tempfile::TempDir,
    /// Of other releases that are made meanwhile, the versions are others.
    mark: u32,
    images: Vec<Loaded>,
    store: String,
}

impl Releases {
    pub fn new() -> Releases {
        let dir = copy_of_sources();
        let store = dir
            .path()
            .join("examples/reference/backend/reports/store.py");
        let store = fs::read_to_string(store).unwrap();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Releases {
            dir,
            mark: NEXT.fetch_add(1, Ordering::Relaxed),
            images: Vec::new(),
            store,
        }
    }

    fn recipe(&self) -> PathBuf {
        self.dir.path().join("examples/reference/tiffin.yaml")
    }

    /// A release whose application has these migrations besides; gives its version.
    fn build(&mut self, number: &str, migrations: &str, recipe: &str) -> String {
        let sources = self.dir.path().join("release").join(number);
        fs::create_dir_all(&sources).unwrap();
        fs::write(
            sources.join("store.py"),
            format!("{}{migrations}", self.store),
        )
        .unwrap();
        let step = format!(
            "{SOURCE}  - name: release\n    steps:\n      - copy: {{from: ../../release/{number}/store.py, to: /opt/backend/app/reports/}}\n"
        );
        let text = stack().replace(SOURCE, &step);
        self.make(number, &(text + recipe))
    }

    /// A release of this recipe; gives its version.
    pub fn make(&mut self, number: &str, recipe: &str) -> String {
        let version = format!("{number}-e2e.{}.{}", std::process::id(), self.mark);
        fs::write(self.recipe(), recipe).unwrap();
        let dist = self.dir.path().join("dist");
        let mut build = Command::new(tiffin());
        build.args(["build", "--version", &version, "--file"]);
        must(build.arg(self.recipe()).arg("--output").arg(&dist));
        let archive = dist.join(format!("backend-{version}.tar"));
        self.images.push(Loaded::new(&archive, &image_of(&version)));
        fs::remove_file(archive).unwrap();
        version
    }
}

/// The stack's recipe.
pub fn stack() -> String {
    fs::read_to_string(repository().join("examples/reference/tiffin.yaml")).unwrap()
}

/// Its last layer.
pub const SOURCE: &str = "  - {name: source, tags: [source]}\n";

pub fn image_of(version: &str) -> String {
    format!("acme/backend:{version}")
}

/// The data of one customer.
pub struct Customer {
    pub volume: Volume,
}

impl Customer {
    pub fn start(&self, image: &str) -> Container {
        Container::of(image, &["-v", &self.volume.flag()])
    }

    pub fn stop(&self, container: Container) {
        must(&mut docker(&["stop", "-t", "60", &container.name]));
        assert_eq!(
            container.wait(Duration::from_secs(5)),
            0,
            "{}",
            container.logs()
        );
    }

    pub fn command(&self, image: &str, words: &[&str]) -> Command {
        let mut command = docker(&["run", "--rm", "-v", &self.volume.flag(), image]);
        command.args(words);
        command
    }
}

pub fn python(container: &Container, script: &str, words: &[&str]) -> String {
    let script = format!("{COMMON}{script}");
    let mut command = container.exec(&["/opt/backend/bin/run", PYTHON, "-c", &script]);
    must(command.args(words))
}

/// Counts as [`COUNT`] prints them.
fn counts(migrated: [usize; 2], later: usize) -> String {
    format!(
        "{DOCUMENTS} {} {} {DOCUMENTS} {later}",
        migrated[0], migrated[1]
    )
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn releases_go_forward_and_back_and_no_document_is_lost() {
    let mut releases = Releases::new();
    let unit = migration("unit", "");
    let fails = migration(
        "unit",
        "        if number > 900:\n            raise SystemExit(\"no such unit\")\n",
    );
    let slow = migration("unit", "        import time\n        time.sleep(0.01)\n");
    let bad = releases.build("v1.0.0", &fails, "");
    let slow = releases.build("v1.0.1", &slow, "");
    let next = releases.build("v1.1.0", &unit, "");
    let upgrade = format!("upgrade: {{from: {next}}}\n");
    let last = releases.build("v2.0.0", &(unit + &migration("scale", "")), &upgrade);

    let customer = Customer {
        volume: Volume::new(),
    };
    let first = image();
    let container = customer.start(&first);
    let report = container.round_trip();
    python(&container, FILL, &[&DOCUMENTS.to_string()]);
    must(&mut container.exec(&["sh", "-c", "echo mine >/data/backend/upload"]));
    customer.stop(container);

    // A migration that fails after 900 documents.
    let container = customer.start(&image_of(&bad));
    assert_eq!(
        container.wait(Duration::from_secs(180)),
        69,
        "{}",
        container.logs()
    );
    let logs = container.logs();
    assert!(
        logs.contains("no such unit") && logs.contains("back"),
        "{logs}"
    );
    drop(container);
    // One that somebody kills in the middle.
    let container = customer.start(&image_of(&slow));
    let begun = || container.logs().contains("mongod is ready");
    assert!(
        within(Duration::from_secs(120), begun),
        "{}",
        container.logs()
    );
    std::thread::sleep(Duration::from_secs(5));
    must(&mut docker(&["kill", "--signal", "KILL", &container.name]));
    drop(container);
    // The old version runs as before.
    let container = customer.start(&first);
    container.until_healthy();
    assert_eq!(python(&container, COUNT, &[]), counts([0, 0], 0));
    assert_eq!(container.get(&format!("/reports/{report}")).0, 200);
    customer.stop(container);

    // The release after the next asks for the next one first.
    let said = must_fail(&mut customer.command(&image_of(&last), &[]), 78);
    assert!(
        said.contains(&next) && said.contains("nothing was touched"),
        "{said}"
    );

    let container = customer.start(&image_of(&next));
    container.until_healthy();
    let logs = container.logs();
    assert!(
        logs.contains("upgraded from") && logs.contains(&next),
        "{logs}"
    );
    assert_eq!(python(&container, COUNT, &[]), counts([DOCUMENTS, 0], 0));
    python(&container, ADD, &[]);
    container.round_trip();
    customer.stop(container);

    // Regretted: back, without what was written since, and forward again, with it.
    let said = must_fail(&mut customer.command(&first, &[]), 78);
    assert!(said.contains("rollback"), "{said}");
    must(&mut customer.command(&image_of(&next), &["rollback", "--yes"]));
    let container = customer.start(&first);
    container.until_healthy();
    assert_eq!(python(&container, COUNT, &[]), counts([0, 0], 0));
    customer.stop(container);
    must(&mut customer.command(&image_of(&next), &["rollback", &next, "--yes"]));

    // Across the release that may not be skipped.
    let container = customer.start(&image_of(&last));
    container.until_healthy();
    assert_eq!(
        python(&container, COUNT, &[]),
        counts([DOCUMENTS, DOCUMENTS], 1)
    );
    assert_eq!(container.get(&format!("/reports/{report}")).0, 200);
    container.round_trip();
    let upload = must(&mut container.exec(&["cat", "/data/backend/upload"]));
    assert_eq!(upload, "mine");
    customer.stop(container);
}

/// Documents that are large, so that the copy takes a while; and how many of them are whole.
const BALLAST: usize = 300;
const FILL_BALLAST: &str = "import hashlib, os\nfor n in range(int(sys.argv[1])):\n    \
    pad = os.urandom(1 << 20)\n    \
    reports.database.ballast.insert_one({'_id': n, 'pad': pad, 'sum': hashlib.sha256(pad).hexdigest()})";
const COUNT_BALLAST: &str = "import hashlib\n\
    print(sum(hashlib.sha256(d['pad']).hexdigest() == d['sum'] for d in reports.database.ballast.find()))";

/// Where an upgrade was when it was killed, as far as its log had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Before,
    Copy,
    Start,
    Migration,
    After,
}

impl Phase {
    fn of(logs: &str) -> Phase {
        let has = |text: &str| logs.contains(text);
        match () {
            () if has("backend-migrate is done") => Phase::After,
            () if has("mongod is ready") && has("redis-server is ready") => Phase::Migration,
            () if has("files changed") => Phase::Start,
            () if has(": copying the data") => Phase::Copy,
            () => Phase::Before,
        }
    }
}

/// A point between 0 and 1 that is another one in each run and round.
fn random() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let hasher = std::hash::RandomState::new().build_hasher();
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Waits until the log has come there, looking more often than [`within`] does.
#[track_caller]
fn until(container: &Container, phase: Phase) {
    let end = Instant::now() + Duration::from_secs(240);
    loop {
        let logs = container.logs();
        let now = Phase::of(&logs);
        if now as u8 >= phase as u8 {
            return;
        }
        assert!(Instant::now() < end, "not in {phase:?} but {now:?}: {logs}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn long_a_migration_killed_at_30_random_points_loses_no_document() {
    let mut releases = Releases::new();
    let slow = migration("unit", "        import time\n        time.sleep(0.002)\n");
    let next = image_of(&releases.build("v1.0.1", &slow, ""));
    let first = image();
    let customer = Customer {
        volume: Volume::new(),
    };
    let container = customer.start(&first);
    let report = container.round_trip();
    python(&container, FILL, &[&DOCUMENTS.to_string()]);
    python(&container, FILL_BALLAST, &[&BALLAST.to_string()]);
    customer.stop(container);
    let complete = |container: &Container, migrated: usize| {
        container.until_healthy();
        assert_eq!(python(container, COUNT, &[]), counts([migrated, 0], 0));
        assert_eq!(python(container, COUNT_BALLAST, &[]), BALLAST.to_string());
        assert_eq!(container.get(&format!("/reports/{report}")).0, 200);
    };
    let back = || must(&mut customer.command(&next, &["rollback", "--yes"]));

    // How long it takes when nobody kills it.
    let container = customer.start(&next);
    until(&container, Phase::Copy);
    let began = Instant::now();
    let health =
        |words: &[&str]| output(&mut container.exec(&[&["tiffin", "health"], words].concat()));
    let live = health(&["--live"]);
    assert!(
        live.status.success(),
        "{}",
        String::from_utf8_lossy(&live.stdout)
    );
    assert!(!health(&["--ready"]).status.success());
    until(&container, Phase::Start);
    let copy = began.elapsed();
    until(&container, Phase::Migration);
    let began = Instant::now();
    until(&container, Phase::After);
    let migrating = began.elapsed();
    complete(&container, DOCUMENTS);
    customer.stop(container);
    back();
    println!("the copy takes {copy:.1?}, the migration {migrating:.1?}");

    // `docker stop` while it copies.
    let container = customer.start(&next);
    until(&container, Phase::Copy);
    let began = Instant::now();
    must(&mut docker(&["stop", "-t", "60", &container.name]));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        container.wait(Duration::from_secs(1)),
        0,
        "{}",
        container.logs()
    );
    let logs = container.logs();
    assert!(logs.contains("the data is as it was"), "{logs}");
    drop(container);

    let mut killed = Vec::new();
    for round in 0..30 {
        let container = customer.start(&next);
        // A third of them each: anywhere, in the copy, in the migration.
        let whole = (copy + migrating).mul_f64(1.3);
        let span = match round % 3 {
            0 => whole,
            1 => {
                until(&container, Phase::Copy);
                copy.mul_f64(0.9)
            }
            _ => {
                until(&container, Phase::Migration);
                migrating.mul_f64(0.9)
            }
        };
        let wait = span.mul_f64(random());
        std::thread::sleep(wait);
        must(&mut docker(&["kill", "--signal", "KILL", &container.name]));
        let phase = Phase::of(&container.logs());
        println!("{round}: killed after {wait:.2?}, in {phase:?}");
        killed.push(phase);
        drop(container);
        // Whoever comes next finds it: the old version and the new one in turn.
        if round % 2 == 0 && phase != Phase::After {
            let container = customer.start(&first);
            complete(&container, 0);
            customer.stop(container);
        } else {
            let container = customer.start(&next);
            complete(&container, DOCUMENTS);
            customer.stop(container);
            back();
        }
    }
    for phase in [Phase::Copy, Phase::Migration] {
        let count = killed.iter().filter(|p| **p == phase).count();
        assert!(count >= 5, "{count} in {phase:?}: {killed:?}");
    }
}

/// An ext4 of its own, in a file.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new(size: &str) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        must(
            Command::new("truncate")
                .args(["-s", size])
                .arg(path("image")),
        );
        must(Command::new("mkfs.ext4").arg("-q").arg(path("image")));
        fs::create_dir(path("data")).unwrap();
        let mut mount = Command::new("mount");
        must(
            mount
                .args(["-o", "loop"])
                .arg(path("image"))
                .arg(path("data")),
        );
        Disk { dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// MiB.
    fn free(&self) -> u64 {
        let mut df = Command::new("df");
        let said = must(df.args(["--output=avail", "-BM"]).arg(self.data()));
        let number = said.lines().last().unwrap().trim().trim_end_matches('M');
        number.parse().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.data()).output();
    }
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn long_a_full_disk_in_the_middle_loses_no_document() {
    let mut releases = Releases::new();
    let fills = migration(
        "unit",
        "        import os\n        self.reports.database.filler.insert_many({\"pad\": os.urandom(1 << 20)} for _ in range(8))\n",
    );
    let fills = image_of(&releases.build("v1.0.1", &fills, ""));
    let good = image_of(&releases.build("v1.1.0", &migration("unit", ""), ""));
    let disk = Disk::new("1600M");
    let data = disk.data().display().to_string();
    let customer = Customer {
        volume: Volume { name: data },
    };
    let first = image();
    let container = customer.start(&first);
    let report = container.round_trip();
    python(&container, FILL, &[&DOCUMENTS.to_string()]);
    customer.stop(container);
    let before = disk.free();

    let container = customer.start(&fills);
    let code = container.wait(Duration::from_secs(400));
    let logs = container.logs();
    assert_eq!(code, 69, "{logs}");
    for wanted in [
        ": copying the data",
        "No space left on device",
        "the data is as it was before",
    ] {
        assert!(logs.contains(wanted), "no `{wanted}` in {logs}");
    }
    drop(container);
    let left = disk.free();
    assert!(left + 50 > before, "{left} of {before} MiB are free again");

    let container = customer.start(&first);
    container.until_healthy();
    assert_eq!(python(&container, COUNT, &[]), counts([0, 0], 0));
    assert_eq!(container.get(&format!("/reports/{report}")).0, 200);
    customer.stop(container);
    // And one that needs less goes through on the same disk.
    let container = customer.start(&good);
    container.until_healthy();
    assert_eq!(python(&container, COUNT, &[]), counts([DOCUMENTS, 0], 0));
    container.round_trip();
    customer.stop(container);
}
