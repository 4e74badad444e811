//! Secrets in a whole box: nobody sees them, and changing a setting changes the password.

use std::time::Duration;

use crate::harness::*;

const SECRETS: [&str; 4] = [
    "MONGODB_PASSWORD",
    "MONGODB_ADMIN_PASSWORD",
    "REDIS_PASSWORD",
    "MAIL_PASSWORD",
];

/// Looks through the box from the inside, as root: command lines of all processes,
/// environments of all but PID 1 and the backend's (whose configuration is its environment),
/// and what every user may read.
const SEARCH: &str = r#"
import os, pwd, stat, sys
canary = sys.argv[1].encode()
seen = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    try:
        command = open(f"/proc/{pid}/cmdline", "rb").read()
        owner = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
    except OSError:
        continue
    seen += 1
    if canary in command:
        print("command line of", pid, command)
    # The box's own processes hold secrets to mask them; the application needs them.
    if pid == "1" or owner == "backend" or os.readlink(f"/proc/{pid}/exe") == os.readlink("/proc/1/exe"):
        continue
    try:
        if canary in open(f"/proc/{pid}/environ", "rb").read():
            print("environment of", pid, command)
    except OSError as error:
        print("cannot look into", pid, command, error)
print("processes:", seen, file=sys.stderr)
for folder, folders, names in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/proc", "/sys", "/usr/share", "/usr/lib")]
    for name in names:
        path = os.path.join(folder, name)
        try:
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_mode & 0o004 and canary in open(path, "rb").read():
                print("world-readable", path)
        except OSError:
            pass
"#;

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn no_secret_of_the_settings_is_seen_anywhere() {
    let canary = "canary7Value0of";
    let given: Vec<String> = SECRETS
        .iter()
        .map(|name| format!("{name}={canary}{name}"))
        .collect();
    // So that root may look into the environments of others.
    let mut flags = vec!["--cap-add", "SYS_PTRACE"];
    for pair in &given {
        flags.extend(["-e", pair]);
    }
    flags.extend(["-e", "MAIL_USERNAME=box", "-e", "MAIL_SERVER=mail.invalid"]);
    flags.extend(["-e", STATUS_PAGE]);
    let container = Container::run(&flags);
    container.round_trip();
    container.until_healthy();

    let redis = must(&mut container.exec(&["grep", "-c", canary, "/etc/redis/redis.conf"]));
    assert_eq!(redis, "1", "the canaries are in use");
    let mut search = container.exec(&["python3", "-c", SEARCH, canary]);
    let out = output(&mut search);
    let found = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && found.is_empty(),
        "{}",
        told(&search, &out)
    );

    let mut said = everything_said(&container);
    let mut wrong = docker(&["run", "--rm"]);
    wrong
        .args(&flags)
        .args(["-e", "REDIS_PORT=x", "-e", "REDIS_PASWORD=canary7Value0of"])
        .arg(image());
    said += &must_fail(&mut wrong, 78);
    said += &must(&mut docker(&["image", "inspect", &image()]));
    assert!(said.contains("mongod") && !said.contains(canary), "{said}");
    must(&mut docker(&["stop", "-t", "60", &container.name]));
    drop(container);

    // The same of passwords that nobody gave.
    let container = Container::run(&["--cap-add", "SYS_PTRACE", "-e", STATUS_PAGE]);
    container.round_trip();
    container.until_healthy();
    let kept = must(&mut container.exec(&["cat", "/data/.tiffin/settings.json"]));
    let kept: std::collections::BTreeMap<String, String> = serde_json::from_str(&kept).unwrap();
    assert!(
        kept.len() >= 3 && kept.contains_key("REDIS_PASSWORD"),
        "{kept:?}"
    );
    let said = everything_said(&container);
    for (name, value) in &kept {
        assert!(value.len() >= 16, "{name}");
        assert!(!said.contains(value), "{name} is shown");
        let mut search = container.exec(&["python3", "-c", SEARCH, value]);
        assert_eq!(must(&mut search), "", "{name}");
    }
}

const STATUS_PAGE: &str = "TIFFIN_STATUS_PAGE=127.0.0.1:9001";

/// Gets pages of the status page, as whoever has its token.
const PAGES: &str = r#"
import sys, urllib.request
for path in sys.argv[2:]:
    request = urllib.request.Request("http://127.0.0.1:9001" + path, headers={"Authorization": "Bearer " + sys.argv[1]})
    print("==>", path)
    print(urllib.request.urlopen(request).read().decode())
"#;

/// What a box that runs says to whoever asks: each verb, its status page, its support bundle.
fn everything_said(container: &Container) -> String {
    let mut said = container.logs();
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["logs"],
        &["settings"],
        &["settings", "--origin"],
        &["settings", "--origin", "--format", "json"],
        &["settings", "--format", "schema"],
        &["check"],
        &["render"],
        &["help"],
    ] {
        let mut command = container.exec(&["tiffin"]);
        said += &must(command.args(words));
    }
    let link = must(&mut container.exec(&["tiffin", "status-page"]));
    let (_, token) = link.rsplit_once('/').unwrap();
    let mut pages = container.exec(&["python3", "-c", PAGES, token]);
    pages.args([
        "/",
        "/settings",
        "/logs",
        "/logs/tiffin",
        "/logs/mongod",
        "/status",
    ]);
    let pages = must(&mut pages);
    assert!(
        pages.contains("REDIS_MAXMEMORY") && pages.contains("redis-server"),
        "{pages}"
    );
    said += &pages;

    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("support.tar.gz");
    let mut command = container.exec(&["tiffin", "support-bundle"]);
    must(command.stdout(std::fs::File::create(&bundle).unwrap()));
    let mut open = std::process::Command::new("tar");
    let bundled = must(open.arg("-xzOf").arg(&bundle));
    // What the databases say of themselves is in it.
    assert!(
        bundled.contains("==> serverStatus") && bundled.contains("redis_version"),
        "{bundled}"
    );
    said + &bundled
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn passwords_change_with_the_settings() {
    let volume = Volume::new();
    let mount = volume.flag();
    let first = Container::run(&[
        "-v",
        &mount,
        "-e",
        "MONGODB_PASSWORD=first-app",
        "-e",
        "MONGODB_ADMIN_PASSWORD=first-admin",
    ]);
    let report = first.round_trip();
    must(&mut docker(&["stop", "-t", "60", &first.name]));
    drop(first);

    let second = Container::run(&[
        "-v",
        &mount,
        "-e",
        "MONGODB_PASSWORD=second-app",
        "-e",
        "MONGODB_ADMIN_PASSWORD=second-admin",
        "-e",
        "REDIS_PASSWORD=second-redis",
    ]);
    let answers = || second.get(&format!("/reports/{report}")).0 == 200;
    assert!(
        within(Duration::from_secs(120), answers),
        "the report is gone:\n{}",
        second.logs()
    );
    second.round_trip();
    let login = |user: &str, password: &str, database: &str| {
        let code = format!(
            "from pymongo import MongoClient; c = MongoClient('127.0.0.1', 27017, username='{user}', \
             password='{password}', authSource='{database}'); print(c['{database}'].command('connectionStatus')['ok'])"
        );
        output(&mut second.exec(&["/opt/mongodb/venv/bin/python", "-c", &code]))
            .status
            .success()
    };
    assert!(login("admin", "second-admin", "admin") && login("backend", "second-app", "backend"));
    assert!(
        !login("admin", "first-admin", "admin"),
        "the old password still works"
    );
    assert!(
        !login("backend", "first-app", "backend"),
        "the old password still works"
    );
    let redis = |password: &str| {
        must(&mut second.exec(&["redis-cli", "--no-auth-warning", "-a", password, "ping"]))
    };
    assert_eq!(redis("second-redis"), "PONG");
    let mode = must(&mut second.exec(&["stat", "-c", "%a %U", "/data/mongodb/administrator.hash"]));
    assert_eq!(mode, "600 mongodb");

    // Without them: nothing is generated in place of what was given.
    drop(second);
    let said = must_fail(docker(&["run", "--rm", "-v", &mount]).arg(image()), 78);
    for name in [
        "MONGODB_PASSWORD",
        "MONGODB_ADMIN_PASSWORD",
        "REDIS_PASSWORD",
    ] {
        let generated = name == "REDIS_PASSWORD";
        assert_eq!(
            said.contains(&format!("{name}: an earlier start was given it")),
            !generated,
            "{said}"
        );
    }
}

/// A mail server that wants the password of a file and says what it was given: `right` or
/// `wrong`, and `mail` for each that it took.
const SMTP: &str = r#"
import base64, socketserver

class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write((text + "\r\n").encode())

    def handle(self):
        self.say("220 smtp")
        trusted = False
        for line in self.rfile:
            words = line.decode().split() or [""]
            verb = words[0].upper()
            if verb == "EHLO":
                self.say("250-smtp")
                self.say("250 AUTH PLAIN")
            elif verb == "AUTH":
                _, user, password = base64.b64decode(words[2]).decode().split("\0")
                trusted = user == "box" and password == open("/tmp/password").read().strip()
                print("right" if trusted else "wrong", flush=True)
                self.say("235 welcome" if trusted else "535 no")
            elif verb == "MAIL" and not trusted:
                self.say("530 who are you")
            elif verb == "DATA":
                self.say("354 go on")
                while self.rfile.readline().strip() != b".":
                    pass
                print("mail", flush=True)
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")

socketserver.ThreadingTCPServer(("0.0.0.0", 2525), Session).serve_forever()
"#;

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn the_password_of_the_mail_server_changes_with_a_reload() {
    let network = Network::new();
    let server = Container {
        name: unique("smtp"),
    };
    let net = ["--network", network.name.as_str()];
    let mut command = docker(&["run", "-d", "--name", &server.name]);
    command.args(net).args(["--entrypoint", "/bin/sh"]);
    let start = "echo first-mail > /tmp/password && exec python3 -c \"$0\"";
    must(command.arg(image()).args(["-c", start, SMTP]));

    let volume = Volume::new();
    let mount = volume.flag();
    let settings = |password: &str| {
        format!(
            "umask 077; printf 'MAIL_USERNAME=box\\nMAIL_SERVER={}\\nMAIL_PORT=2525\\nMAIL_PASSWORD={password}\\n' > /data/settings.env",
            server.name
        )
    };
    let mut write = docker(&["run", "--rm", "-v", &mount, "--entrypoint", "/bin/sh"]);
    must(write.arg(image()).args(["-c", &settings("first-mail")]));
    let container = Container::run(&["-v", &mount, net[0], net[1]]);
    let mails = |count: usize| {
        let all = || server.logs().lines().filter(|l| *l == "mail").count();
        assert!(
            within(Duration::from_secs(60), || all() == count),
            "{}\n{}",
            server.logs(),
            container.logs()
        );
    };
    container.round_trip_with_mail("auditor@bank.test");
    mails(1);

    must(&mut server.exec(&["sh", "-c", "echo second-mail > /tmp/password"]));
    must(&mut container.exec(&["sh", "-c", &settings("second-mail")]));
    let told = must(&mut container.exec(&["tiffin", "reload"]));
    let shown = ["first-mail", "second-mail"]
        .iter()
        .any(|password| told.contains(password));
    assert!(!shown, "{told}");
    container.until_healthy();
    container.round_trip_with_mail("auditor@bank.test");
    mails(2);
    assert!(!server.logs().contains("wrong"), "{}", server.logs());
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn the_env_file_of_the_volume_is_read_and_what_is_lost_is_not_made_anew() {
    let volume = Volume::new();
    let mount = volume.flag();
    let shell = |script: &str| {
        let mut command = docker(&["run", "--rm", "-v", &mount, "--entrypoint", "/bin/sh"]);
        must(command.arg(image()).args(["-c", script]))
    };
    shell(
        "echo REDIS_MAXMEMORY=88mb > /data/settings.env; echo TIMEZONE=Europe/Paris >> /data/settings.env",
    );
    let first = Container::run(&["-v", &mount]);
    first.until_healthy();
    let conf = must(&mut first.exec(&["grep", "^maxmemory ", "/etc/redis/redis.conf"]));
    assert_eq!(conf, "maxmemory 88mb");
    let origin = must(&mut first.exec(&["tiffin", "settings", "--origin"]));
    assert!(origin.contains("/data/settings.env, line 1"), "{origin}");
    assert!(origin.contains("generated by an earlier start"), "{origin}");
    drop(first);

    shell("echo TIMEZONE=Europe/Pariss > /data/settings.env");
    let said = must_fail(docker(&["run", "--rm", "-v", &mount]).arg(image()), 78);
    assert!(said.contains("did you mean `Europe/Paris`?"), "{said}");
    shell("rm /data/settings.env /data/.tiffin/settings.json");
    let said = must_fail(docker(&["run", "--rm", "-v", &mount]).arg(image()), 78);
    assert!(
        said.contains("MONGODB_PASSWORD: /data/.tiffin/settings.json is gone"),
        "{said}"
    );
    shell("rm -r /data/.tiffin");
    let said = must_fail(docker(&["run", "--rm", "-v", &mount]).arg(image()), 78);
    assert!(said.contains("the volume has data (/data/"), "{said}");
}

/// The schema is one, and it takes and refuses what the box does.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn the_schema_agrees_with_the_box() {
    let tools = std::env::var("TIFFIN_TEST_TOOLS").expect("TIFFIN_TEST_TOOLS is set by ci/e2e");
    let dir = tempfile::tempdir().unwrap();
    let schema = must(
        docker(&["run", "--rm"])
            .arg(image())
            .args(["settings", "--format", "schema"]),
    );
    let path = dir.path().join("schema.json");
    std::fs::write(&path, &schema).unwrap();
    let check = r#"
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
print(json.dumps([validator.is_valid(json.loads(line)) for line in sys.argv[2:]]))
"#;
    let cases = [
        (r#"{}"#, true),
        (
            r#"{"REDIS_PORT": "6380", "MAIL_USE_TLS": "yes", "WEB_WORKERS": "4"}"#,
            true,
        ),
        (r#"{"REDIS_PORT": "many"}"#, false),
        (r#"{"WEB_WORKERS": "four"}"#, false),
        (r#"{"LOG_LEVEL": "verbose"}"#, false),
        (r#"{"MAX_UPLOAD": "250mb"}"#, false),
        (
            r#"{"REDIS_PASSWORD": "x", "REDIS_PASSWORD_FILE": "/run/secrets/x"}"#,
            false,
        ),
    ];
    let mut command = std::process::Command::new(format!("{tools}/bin/python"));
    command
        .args(["-c", check])
        .arg(&path)
        .args(cases.iter().map(|(text, _)| text));
    let said: Vec<bool> = serde_json::from_str(&must(&mut command)).unwrap();
    for ((text, good), valid) in cases.iter().zip(said) {
        assert_eq!(*good, valid, "{text}");
        let environment: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).unwrap();
        let mut command = docker(&["run", "--rm"]);
        for (name, value) in environment {
            command.args(["-e", &format!("{name}={}", value.as_str().unwrap())]);
        }
        let checked = output(command.arg(image()).arg("check")).status.success();
        assert_eq!(checked, *good, "{text}");
    }
}
