//! Servers of the customer's own that are more than one: a replica set of MongoDB and a Redis that
//! sentinels look after. The box follows when another one becomes the primary.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::*;
use crate::https::{NAME, open_to_all, pair};

/// Three of MongoDB, two of Redis and three sentinels, which speak TLS alone and know each other by
/// the name of their certificate.
const SERVERS: &str = r#"
set -e
cat /tls/server.pem /tls/server.key >/tmp/pem
for port in 27017 27018 27019; do
    mkdir /tmp/$port
    /opt/mongodb/bin/mongod --bind_ip_all --port $port --dbpath /tmp/$port --replSet main --fork --logpath /tmp/$port.log \
        --pidfilepath /tmp/$port.pid --oplogSize 50 --wiredTigerCacheSizeGB 0.25 --tlsMode requireTLS \
        --tlsCertificateKeyFile /tmp/pem --tlsCAFile /tls/authority.pem --tlsAllowConnectionsWithoutCertificates
done
tls="--tls-cert-file /tls/server.pem --tls-key-file /tls/server.key --tls-ca-cert-file /tls/authority.pem --tls-auth-clients no --tls-replication yes"
for port in 6380 6381; do
    mkdir /tmp/$port
    replica=
    [ $port = 6380 ] || replica="--replicaof NAME 6380"
    redis-server --bind 0.0.0.0 --port 0 --tls-port $port $tls --dir /tmp/$port --pidfile /tmp/$port.pid --daemonize yes \
        --requirepass 'PASSWORD' --masterauth 'PASSWORD' --replica-announce-ip NAME --replica-announce-port $port $replica
done
for port in 26379 26380 26381; do
    cat >/tmp/$port.conf <<CONF
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip NAME
sentinel announce-port $port
sentinel monitor main NAME 6380 2
sentinel auth-pass main PASSWORD
sentinel down-after-milliseconds main 1000
sentinel failover-timeout main 5000
requirepass own/pass
sentinel sentinel-pass own/pass
CONF
    redis-server /tmp/$port.conf --sentinel --bind 0.0.0.0 --port 0 --tls-port $port $tls --daemonize yes --logfile /tmp/$port.log
done
/opt/mongodb/venv/bin/python - <<PYTHON
import pymongo
tls = {"tls": True, "tlsCAFile": "/tls/authority.pem"}
members = [{"_id": n, "host": f"NAME:{27017 + n}"} for n in range(3)]
config = {"_id": "main", "settings": {"electionTimeoutMillis": 2000}, "members": members}
pymongo.MongoClient("NAME", 27017, directConnection=True, **tls).admin.command("replSetInitiate", config)
client = pymongo.MongoClient("mongodb://NAME:27017/?replicaSet=main", **tls)
client["reports"].command("createUser", "app", pwd="PASSWORD", roles=["readWrite"])
PYTHON
touch /tmp/ready
exec sleep 1000000
"#;

/// Port of MongoDB's primary, then of the master of Redis.
const PRIMARIES: &str = r#"
import pymongo
from redis.sentinel import Sentinel
tls = {"tls": True, "tlsCAFile": "/tls/authority.pem"}
client = pymongo.MongoClient("mongodb://NAME:27017,NAME:27018,NAME:27019/?replicaSet=main", **tls)
client.admin.command("ping")
own = {"password": "own/pass", "ssl": True, "ssl_ca_certs": "/tls/authority.pem"}
sentinel = Sentinel([("NAME", 26379)], sentinel_kwargs=own)
print(client.primary[1], sentinel.discover_master("main")[1])
"#;

fn of(text: &str) -> String {
    text.replace("NAME", NAME)
        .replace("PASSWORD", Databases::PASSWORD)
}

fn start(network: &Network, mount: &str) -> Container {
    let container = Container {
        name: unique("servers"),
    };
    let mut command = docker(&["run", "-d", "--name", &container.name, "-v", mount]);
    command.args(["--network", &network.name, "--network-alias", NAME]);
    command.args(["--entrypoint", "/bin/sh"]);
    must(command.args([&image(), "-c", &of(SERVERS)]));
    let ready = || {
        output(&mut container.exec(&["test", "-e", "/tmp/ready"]))
            .status
            .success()
    };
    assert!(
        within(Duration::from_secs(90), ready),
        "{}",
        container.logs()
    );
    container
}

fn primaries(servers: &Container) -> (String, String) {
    let script = of(PRIMARIES);
    let ports = must(&mut servers.exec(&["/opt/backend/venv/bin/python", "-c", &script]));
    let (mongodb, redis) = ports.split_once(' ').unwrap();
    (mongodb.to_owned(), redis.to_owned())
}

fn stop(container: Container) {
    must(&mut docker(&["stop", "-t", "90", &container.name]));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_replica_set_and_sentinels_fail_over_under_the_box() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    pair(folder, "authority", None);
    pair(folder, "server", Some("authority"));
    let hosts = |ports: [u16; 3]| ports.map(|port| format!("{NAME}:{port}")).join(",");
    let mongodb = format!(
        "mongodb://app:external%3A%2Fpass%3Fword@{}/reports?replicaSet=main&tls=true",
        hosts([27017, 27018, 27019])
    );
    let redis = format!(
        "sentinel://:external%3A%2Fpass%3Fword@{}/?master=main&tls=true&sentinel_password=own%2Fpass",
        hosts([26379, 26380, 26381])
    );
    let settings =
        format!("MONGODB_URL={mongodb}\nREDIS_URL={redis}\nCA_BUNDLE_FILE=/tls/authority.pem\n");
    fs::write(folder.join("settings"), settings).unwrap();
    open_to_all(folder);
    let (network, volume) = (Network::new(), Volume::new());
    let mount = format!("{}:/tls:ro", folder.display());
    let data = volume.flag();
    let flags = ["--network", &network.name, "-v", &mount, "-v", &data];
    let servers = start(&network, &mount);

    // What an operator has is moved there, through whatever is the primary.
    let container = Container::run(&flags);
    container.until_healthy();
    let before = container.round_trip();
    stop(container);
    let image = image();
    let one_off = |words: &[&str]| {
        let mut command = docker(&["run", "--rm"]);
        command.args(flags).arg(&image).args(words);
        command
    };
    let moved = output(&mut one_off(&["move", "/tls/settings"]));
    let said = String::from_utf8_lossy(&moved.stderr);
    assert!(moved.status.success(), "{said}");
    for wanted in [
        "mongod: reports: 1 documents are the same",
        "mongod, redis-server: copied and compared in ",
        "has the new MONGODB_URL, REDIS_URL, CA_BUNDLE_FILE",
    ] {
        assert!(said.contains(wanted), "no `{wanted}` in {said}");
    }

    let container = Container::run(&flags);
    container.until_healthy();
    let is_there = |id: &str| {
        let (code, body) = container.get(&format!("/reports/{id}"));
        assert_eq!(code, 200, "{id}: {body}");
    };
    is_there(&before);
    let report = container.round_trip();
    let processes = must(&mut docker(&["top", &container.name, "-eo", "pid,args"]));
    for server in ["mongod ", "redis-server "] {
        assert!(!processes.contains(server), "{processes}");
    }

    // Whoever looks for a fault sees the servers too, and no password.
    let said = must(&mut container.exec(&["tiffin", "preflight"]));
    for (setting, port) in [("MONGODB_URL", 27018), ("REDIS_URL", 26381)] {
        let wanted = format!("{NAME} port {port} answers");
        let mut lines = said.lines().filter(|line| line.contains(setting));
        assert!(lines.any(|line| line.contains(&wanted)), "{said}");
    }
    let bundle = folder.join("support.tar.gz");
    let mut command = container.exec(&["tiffin", "support-bundle"]);
    must(command.stdout(fs::File::create(&bundle).unwrap()));
    let all = must(Command::new("tar").arg("-xzOf").arg(&bundle));
    for wanted in [
        "\"setName\": \"main\"",
        "\"PRIMARY\"",
        "redis_version:",
        "role:master",
    ] {
        assert!(all.contains(wanted), "no `{wanted}` in {all}");
    }
    for secret in ["pass?word", "pass%3Fword", "own/pass", "own%2Fpass"] {
        assert!(!all.contains(secret), "{secret}");
        assert!(!container.logs().contains(secret), "{secret}");
    }

    let (mongodb_was, redis_was) = primaries(&servers);
    let kill = format!("kill -9 $(cat /tmp/{mongodb_was}.pid) $(cat /tmp/{redis_was}.pid)");
    let killed = Instant::now();
    must(&mut servers.exec(&["sh", "-c", &kill]));
    let later = container.round_trip();
    println!(
        "after {:.1} s all works again",
        killed.elapsed().as_secs_f64()
    );
    let (mongodb_is, redis_is) = primaries(&servers);
    assert_ne!(mongodb_is, mongodb_was);
    assert_ne!(redis_is, redis_was);
    [&before, &report, &later]
        .into_iter()
        .for_each(|id| is_there(id));

    // A box of a role wants no password that is in a URL already; a wrong URL says what is right.
    let given = [
        format!("MONGODB_URL={mongodb}"),
        format!("REDIS_URL={redis}"),
    ];
    let authority = "CA_BUNDLE_FILE=/tls/authority.pem";
    let mut flags = vec!["--network", &network.name, "-v", &mount];
    flags.extend(["-e", "TIFFIN_ROLE=web", "--tmpfs", "/data", "-e", authority]);
    flags.extend(["-e", &given[0], "-e", &given[1]]);
    Container::run(&flags).until_healthy();
    let wrong = "MONGODB_URL=mongodb://app:canary7@db.test/";
    let said = must_fail(
        &mut docker(&["run", "--rm", "-e", wrong, &image, "check"]),
        78,
    );
    assert!(
        said.contains("MONGODB_URL = (a secret, not shown): it takes text that matches mongodb")
            && !said.contains("canary7"),
        "{said}"
    );
}
