//! From the bundled databases to servers of the customer's own: what is there before is there
//! afterwards, and whatever goes wrong in between leaves the box as it was.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::*;
use crate::https;

const PYTHON: &str = "/opt/backend/venv/bin/python";

/// `mongo` is the database and `cache` the Redis of the box or, with an argument, of the others.
const COMMON: &str = r#"
import datetime, hashlib, json, os, re, sys, time
import bson, pymongo, redis
from bson import json_util
if len(sys.argv) > 1:
    tls = os.path.exists("/tls")
    mongo = pymongo.MongoClient("127.0.0.1", **({"tls": True, "tlsInsecure": True} if tls else {})).reports
    cache = redis.Redis(port=6380, password=sys.argv[1], **({"ssl": True, "ssl_cert_reqs": "none"} if tls else {}))
else:
    config = json.load(open("/etc/mongodb/users.json"))
    admin = config["admin"]
    mongo = pymongo.MongoClient("127.0.0.1", config["port"], username=admin["user"], password=admin["password"]).backend
    cache = redis.Redis(password=re.search(r'^requirepass "(.*)"$', open("/etc/redis/redis.conf").read(), re.M)[1])
"#;

/// Several thousand documents and keys of all the types that people use.
const FILL: &str = r#"
day = datetime.datetime(2024, 2, 29, 12, 34, 56, 789000)
def document(n):
    return {"_id": n if n % 3 else bson.ObjectId(hashlib.md5(str(n).encode()).digest()[:12]), "n": bson.Int64(n),
            "when": day + datetime.timedelta(hours=n), "raw": bytes(range(256)), "money": bson.Decimal128("1.10"),
            "float": n / 7, "nothing": None, "list": [1, "two", {"three": [3]}], "pattern": re.compile("^a", re.I),
            "code": bson.Code("x"), "stamp": bson.Timestamp(n + 1, 2), "low": bson.MinKey(), "text": "ü\u0000 " * (n % 50),
            "key.with": {"$dots": 1}, "twice": n}
mongo.moved.insert_many([document(n) for n in range(5000)])
mongo.moved.create_index([("n", 1), ("when", -1)], unique=True)
mongo.moved.create_index([("text", "text")], default_language="none")
mongo.moved.create_index("twice", partialFilterExpression={"n": {"$gt": 10}}, name="some")
now = datetime.datetime.now(datetime.timezone.utc)
mongo.passing.create_index("until", expireAfterSeconds=3600)
mongo.passing.insert_many([{"_id": n, "until": now - datetime.timedelta(hours=n - 5)} for n in range(10)])
mongo.create_collection("bounded", capped=True, size=1 << 20, max=100)
mongo.bounded.insert_many([{"n": n} for n in range(150)])
mongo.create_collection("strict", validator={"n": {"$type": "int"}}, collation={"locale": "de", "strength": 2})
mongo.strict.insert_one({"n": 1})
mongo.create_collection("empty")
mongo.create_collection("seen", viewOn="moved", pipeline=[{"$match": {"n": {"$lt": 5}}}])
pipe = cache.pipeline()
for n in range(4000):
    pipe.set(f"moved:{n}", os.urandom(20), px=None if n % 2 else 10**9 + n)
pipe.set(b"moved:\x00\xff\r\n", bytes(range(256)) * 1000)
pipe.rpush("moved:list", *range(3000))
pipe.sadd("moved:set", *range(1000))
pipe.sadd("moved:words", *"abc")
pipe.zadd("moved:zset", {f"m{n}": n / 3 for n in range(1000)})
pipe.hset("moved:hash", mapping={f"f{n}": n for n in range(1000)})
for n in range(300):
    pipe.xadd("moved:stream", {"n": n})
pipe.xgroup_create("moved:stream", "readers", "0")
pipe.xreadgroup("readers", "one", {"moved:stream": ">"}, count=7)
pipe.set("moved:soon", "x", px=20000)
pipe.execute()
pipe = cache.pipeline()
pipe.execute_command("SELECT", 3)
pipe.set("moved:elsewhere", "3")
pipe.execute_command("SELECT", 0)
pipe.execute()
"#;

/// What of it is there, by means of its own.
const DIGEST: &str = r#"
whole = hashlib.sha256()
def add(*what):
    whole.update(repr(what).encode())
counts = []
for name in ("moved", "bounded", "strict", "empty", "seen"):
    found = sorted(json_util.dumps(one) for one in mongo[name].find())
    counts.append(len(found))
    add(name, found)
for name in ("moved", "passing", "bounded", "strict"):
    add(sorted(json_util.dumps(dict(index)) for index in mongo[name].list_indexes()))
    add(json_util.dumps(mongo[name].options()))
keys = sorted(cache.scan_iter("moved:*", count=1000))
keys.remove(b"moved:soon") if b"moved:soon" in keys else None
counts.append(len(keys))
for key in keys:
    kind = cache.type(key)
    read = {b"string": cache.get, b"list": lambda k: cache.lrange(k, 0, -1), b"set": lambda k: sorted(cache.smembers(k)),
            b"zset": lambda k: cache.zrange(k, 0, -1, withscores=True), b"hash": lambda k: sorted(cache.hgetall(k).items()),
            b"stream": lambda k: [cache.xrange(k), [[g["name"], g["pending"], g["last-delivered-id"]] for g in cache.xinfo_groups(k)]]}[kind](key)
    add(key, kind, read, cache.execute_command("PEXPIRETIME", key))
cache.execute_command("SELECT", 3)
add(cache.get("moved:elsewhere"))
print(*counts, whole.hexdigest())
"#;

fn python(container: &Container, script: &str, external: bool) -> String {
    let script = format!("{COMMON}{script}");
    let mut command = container.exec(&[PYTHON, "-c", &script]);
    must(command.args(external.then_some(Databases::PASSWORD)))
}

/// Settings as an operator writes them into a file.
pub fn target(server: &Databases, password: &str) -> String {
    let host = &server.container.name;
    format!(
        "# ours\nMONGODB_HOST={host}\nMONGODB_DATABASE=reports\nMONGODB_USER=app\nMONGODB_PASSWORD='{password}'\n\
         REDIS_HOST={host}\nREDIS_PORT=6380\nREDIS_PASSWORD='{password}'\n"
    )
}

struct Mover<'a> {
    network: &'a Network,
    volume: &'a Volume,
}

impl Mover<'_> {
    /// `docker run --rm -i … move OPTIONS - <SETTINGS`, begun.
    fn begin(&self, name: &str, flags: &[&str], options: &[&str], settings: &str) -> Child {
        let volume = self.volume.flag();
        let mut command = docker(&["run", "--rm", "-i", "--name", name, "-v", &volume]);
        command.args(["--network", &self.network.name]).args(flags);
        command.arg(image()).arg("move").args(options).arg("-");
        given(&mut command, settings)
    }

    fn ends(&self, flags: &[&str], options: &[&str], settings: &str, code: i32) -> String {
        let child = self.begin(&unique("move"), flags, options, settings);
        let said = ended(child, code);
        assert!(
            !said.contains("pass?word") && !said.contains("pass%3Fword"),
            "{said}"
        );
        said
    }

    /// One step of a role's own program, without Tiffin.
    fn step(&self, words: &[&str], url: &str, code: i32) -> String {
        let volume = self.volume.flag();
        let mut command = docker(&["run", "--rm", "-i", "-v", &volume, "-u", "12345:0"]);
        command.args(["--network", &self.network.name]);
        command
            .args(["--entrypoint", words[0], &image()])
            .args(&words[1..]);
        ended(given(&mut command, url), code)
    }

    fn shell(&self, script: &str) -> String {
        let volume = self.volume.flag();
        let command = ["run", "--rm", "-v", &volume, "--entrypoint", "/bin/sh"];
        must(docker(&command).arg(image()).args(["-c", script]))
    }

    fn start(&self) -> Container {
        let volume = self.volume.flag();
        let container = Container::run(&["--network", &self.network.name, "-v", &volume]);
        container.until_healthy();
        container
    }
}

fn given(command: &mut Command, input: &str) -> Child {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that ends before it reads says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child
}

#[track_caller]
fn ended(child: Child, code: i32) -> String {
    let out: Output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{said}");
    said
}

fn stop(container: Container) {
    must(&mut docker(&["stop", "-t", "90", &container.name]));
}

/// Ends a server of the others as soon as something has reached it.
fn ends_once_it_has_data(server: &Databases, which: &str) {
    let script = match which {
        "mongod" => {
            "while not mongo.moved.estimated_document_count(): pass\nos.system('kill -9 $(pgrep mongod || cat /tmp/db/mongod.lock)')"
        }
        _ => "while cache.dbsize() < 100: pass\ncache.shutdown(nosave=True)",
    };
    let script = format!("{COMMON}{script}");
    let command = ["exec", "-d", &server.container.name, PYTHON, "-c", &script];
    must(docker(&command).arg(Databases::PASSWORD));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn bundled_databases_move_to_servers_of_the_customers_own() {
    let (network, volume) = (Network::new(), Volume::new());
    let mover = Mover {
        network: &network,
        volume: &volume,
    };
    let container = mover.start();
    let report = container.round_trip();
    python(&container, FILL, false);
    let before = python(&container, DIGEST, false);
    assert!(before.starts_with("5000 100 1 0 5 4007 "), "{before}");
    // Data that is in use stays where it is, and the servers can be looked at meanwhile.
    let server = Databases::new(&network.name);
    let settings = target(&server, Databases::PASSWORD);
    let said = mover.ends(&[], &[], &settings, 75);
    assert!(said.contains("another running box has locked it"), "{said}");
    let said = mover.ends(&[], &["--check"], &settings, 0);
    assert!(
        said.contains("OK: mongod, redis-server can be moved"),
        "{said}"
    );
    stop(container);

    let list = "cd /data && ls settings.env 2>/dev/null; find mongodb redis -name '*.wt' -o -name '*.aof' | sort";
    let files = mover.shell(list);
    let said = mover.ends(&[], &[], &target(&server, "wrong"), 1);
    assert!(
        said.contains("mongod: the new server does not take the user with this password"),
        "{said}"
    );
    let wrong = settings.replace("REDIS_PASSWORD='", "REDIS_PASSWORD='x");
    let said = mover.ends(&[], &[], &wrong, 1);
    assert!(said.contains("does not take the password"), "{said}");
    assert_eq!(mover.shell(list), files);

    // A server that goes away in the middle.
    for which in ["mongod", "redis"] {
        let short_lived = Databases::new(&network.name);
        ends_once_it_has_data(&short_lived, which);
        let settings = target(&short_lived, Databases::PASSWORD);
        let said = mover.ends(&[], &[], &settings, 1);
        assert!(said.contains("nothing of the box was changed"), "{said}");
        assert!(
            said.contains("the box is as it was and may be started"),
            "{said}"
        );
    }
    // Somebody kills it in the middle.
    let name = unique("move");
    let mut child = mover.begin(&name, &[], &[], &settings);
    let script = format!("{COMMON}while not mongo.moved.estimated_document_count(): pass");
    must(
        &mut server
            .container
            .exec(&[PYTHON, "-c", &script, Databases::PASSWORD]),
    );
    must(&mut docker(&["kill", &name]));
    child.wait().unwrap();
    assert_eq!(
        mover.shell("ls /data/settings.env 2>&1; true"),
        "ls: cannot access '/data/settings.env': No such file or directory"
    );
    let container = mover.start();
    assert_eq!(python(&container, DIGEST, false), before);
    stop(container);

    // What it left is not taken for nothing.
    let said = mover.ends(&[], &[], &settings, 1);
    assert!(said.contains("/reports is not empty: it has "), "{said}");
    let said = mover.ends(&["--read-only"], &["--overwrite"], &settings, 0);
    for wanted in [
        "mongod: moved: 5000 documents are the same, sha256 ",
        "mongod, redis-server: copied and compared in ",
        "/data/settings.env has the new MONGODB_HOST, ",
        "the data of mongod is still in /data/mongodb",
    ] {
        assert!(said.contains(wanted), "no `{wanted}` in {said}");
    }
    assert_eq!(mover.shell("stat -c '%a %u' /data/settings.env"), "600 0");

    let container = mover.start();
    let status = must(&mut container.exec(&["tiffin", "status"]));
    for name in ["mongod", "redis-server"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains("skipped"), "{status}");
    }
    assert_eq!(python(&server.container, DIGEST, true), before);
    let (code, body) = container.get(&format!("/reports/{report}"));
    assert_eq!(code, 200, "{body}");
    container.round_trip();
    assert!(
        !container.logs().contains("pass?word"),
        "{}",
        container.logs()
    );
    stop(container);

    // The way back, to what the data was when it was moved.
    mover.shell("rm /data/settings.env");
    let container = mover.start();
    assert_eq!(python(&container, DIGEST, false), before);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_copy_that_is_not_the_same_is_never_taken_for_one() {
    let (network, volume) = (Network::new(), Volume::new());
    let mover = Mover {
        network: &network,
        volume: &volume,
    };
    // It is moved as the user that it runs as, whoever that is.
    let hard = ["--user", "12345:0", "--read-only", "--cap-drop", "ALL"];
    let data = volume.flag();
    let container = Container::run(&[&hard[..], &["-v", &data]].concat());
    container.until_healthy();
    python(&container, FILL, false);
    stop(container);
    let server = Databases::new(&network.name);
    // The copy is compared again below; by then the server may have taken out what is due.
    let keep = "mongo.client.admin.command({'setParameter': 1, 'ttlMonitorEnabled': False})";
    python(&server.container, keep, true);
    let settings = target(&server, Databases::PASSWORD);
    let said = mover.ends(&hard, &["--copy-only"], &settings, 0);
    assert!(
        said.contains("start the box with the new MONGODB_HOST"),
        "{said}"
    );

    let host = &server.container.name;
    let mongodb = [
        "/opt/mongodb/bin/move",
        "/data/mongodb",
        "backend",
        "verify",
    ];
    let redis = ["/usr/local/lib/redis/move", "/data/redis", "yes", "verify"];
    let password = "external%3A%2Fpass%3Fword";
    let urls = [
        format!("mongodb://app:{password}@{host}/reports?authSource=reports\n"),
        format!("redis://:{password}@{host}:6380\n"),
    ];
    let verify = |redis_too: bool, code| match redis_too {
        false => mover.step(&mongodb, &urls[0], code),
        true => mover.step(&redis, &urls[1], code),
    };
    // Redis without an append-only file; a dump that Redis would pass over is not passed over.
    mover.shell(
        "redis-server --port 7777 --dir /data/redis --appendonly yes --save '' --daemonize yes >/dev/null\n\
         until redis-cli -p 7777 ping 2>&1 | grep -q PONG; do sleep 0.1; done\n\
         redis-cli -p 7777 save; redis-cli -p 7777 shutdown nosave; mkdir /data/dumped\n\
         cp /data/redis/dump.rdb /data/dumped; rm /data/redis/dump.rdb; chown -R 12345 /data/redis /data/dumped",
    );
    let mut dumped = redis;
    dumped[1..3].copy_from_slice(&["/data/dumped", "no"]);
    let told = mover.step(&dumped, &urls[1], 0);
    assert!(told.contains("database 3: 1 keys are the same"), "{told}");
    dumped[2] = "yes";
    let told = mover.step(&dumped, &urls[1], 1);
    assert!(
        told.contains("has a dump and no append-only file"),
        "{told}"
    );
    for (is_redis, damage, mend, said) in [
        (
            false,
            "mongo.moved.update_one({'n': 7}, {'$set': {'twice': 8}})",
            "mongo.moved.update_one({'n': 7}, {'$set': {'twice': 7}})",
            "moved differs from the document with the _id 7 on: 5000 documents here, 5000 there",
        ),
        (
            false,
            "mongo.strict.insert_one({'_id': 1, 'n': 2})",
            "mongo.strict.delete_one({'n': 2})",
            "strict differs",
        ),
        (
            false,
            "mongo.moved.drop_index('some')",
            "mongo.moved.create_index('twice', partialFilterExpression={'n': {'$gt': 10}}, name='some')",
            "the indexes of moved differ",
        ),
        (
            false,
            "mongo.other.insert_one({})",
            "mongo.other.drop()",
            "the collections differ",
        ),
        (
            true,
            "cache.setrange('moved:1', 3, 'x')",
            "",
            "1 keys of the database 0 differ, such as b'moved:1'",
        ),
        (
            true,
            "cache.persist('moved:2')",
            "cache.delete('moved:1')",
            "b'moved:2'",
        ),
        (true, "cache.set('more', 1)", "", "b'more'"),
    ] {
        python(&server.container, damage, true);
        let told = verify(is_redis, 1);
        assert!(told.contains(said), "{damage}: {told}");
        python(&server.container, mend, true);
        if !is_redis {
            verify(false, 0);
        }
    }
    // An index with a time to live is there only once all is the same.
    let index = "print(mongo.passing.index_information()['until_1']['expireAfterSeconds'])";
    assert_eq!(python(&server.container, index, true), "3600");
}

/// The servers speak TLS alone, and are known by the customer's own authority.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn databases_move_to_servers_with_tls_of_an_authority_of_the_customers_own() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = https::pair(folder.path(), "authority", None);
    https::pair(folder.path(), "server", Some("authority"));
    let (network, volume) = (Network::new(), Volume::new());
    let mover = Mover {
        network: &network,
        volume: &volume,
    };
    let container = mover.start();
    let report = container.round_trip();
    python(&container, FILL, false);
    let before = python(&container, DIGEST, false);
    stop(container);
    let server = Databases::with_tls(&network.name, https::NAME, folder.path());

    // What is no TLS, of an authority that nobody named, or of another name is found out.
    let plain = target(&server, Databases::PASSWORD).replace(&server.container.name, https::NAME);
    let unknown = format!("{plain}MONGODB_TLS=on\nREDIS_TLS=on\n");
    let known = format!("{unknown}CA_BUNDLE_FILE=/data/authority.pem\n");
    mover.shell(&format!(
        "cat >/data/authority.pem <<END\n{authority}END\nchmod 644 /data/authority.pem"
    ));
    let other_name = known.replace(https::NAME, &server.container.name);
    let only_redis = |settings: &str| {
        let lines = settings
            .lines()
            .filter(|line| !line.starts_with("MONGODB_"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    for (settings, wanted) in [
        (plain.clone(), "mongod: the connection failed: "),
        (only_redis(&plain), "redis-server: the connection broke: "),
        (unknown.clone(), "CERTIFICATE_VERIFY_FAILED"),
        (only_redis(&unknown), "CERTIFICATE_VERIFY_FAILED"),
        (other_name.clone(), "Hostname mismatch"),
        (only_redis(&other_name), "Hostname mismatch"),
    ] {
        let said = mover.ends(&[], &["--check"], &settings, 1);
        assert!(said.contains(wanted), "no `{wanted}` in {said}");
        assert!(said.contains("the server is not as it must be"), "{said}");
    }

    let said = mover.ends(&["--read-only"], &[], &known, 0);
    for wanted in [
        "mongod: moved: 5000 documents are the same, sha256 ",
        "mongod, redis-server: copied and compared in ",
        "/data/settings.env has the new MONGODB_HOST, ",
    ] {
        assert!(said.contains(wanted), "no `{wanted}` in {said}");
    }
    assert_eq!(python(&server.container, DIGEST, true), before);

    // All of the application's ways lead there: migration, web, worker and scheduler.
    let container = mover.start();
    let (code, body) = container.get(&format!("/reports/{report}"));
    assert_eq!(code, 200, "{body}");
    container.round_trip();
    let status = must(&mut container.exec(&["tiffin", "status"]));
    for name in ["mongod", "redis-server"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains("skipped"), "{status}");
    }
    // The queue's client would take any certificate if it were not told to look.
    let queue =
        "from reports.tasks import celery; celery.connection().ensure_connection(max_retries=1)";
    let words = ["/opt/backend/bin/run", "python", "-c", queue];
    let said = must_fail(&mut container.exec(&words), 1);
    assert!(said.contains("CERTIFICATE_VERIFY_FAILED"), "{said}");
    let bundle = folder.path().join("support.tar.gz");
    let mut command = container.exec(&["tiffin", "support-bundle"]);
    must(command.stdout(std::fs::File::create(&bundle).unwrap()));
    let mut tar = Command::new("tar");
    tar.arg("-xzOf").arg(&bundle);
    let figures = must(tar.args(["--wildcards", "*/support/redis.txt"]));
    assert!(figures.contains("redis_version:"), "{figures}");
}
