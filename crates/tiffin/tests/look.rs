//! `inspect`, `diff` and `lint` on archives of a few files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Config, Content, Entry, LayerOptions, Packing, Silent, Source};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtz\n-----END OPENSSH PRIVATE KEY-----\n";

fn file(path: &str, mode: u32, content: &str) -> Entry {
    Entry {
        path: path.into(),
        mode,
        uid: 0,
        gid: 0,
        content: Content::File(content.into()),
    }
}

/// An archive named `name` of layers, each with what made it.
fn archive(place: &Path, name: &str, layers: &[(&str, Vec<Entry>)]) -> PathBuf {
    let blobs = place.join("blobs");
    let made: Vec<image::Layer> = layers
        .iter()
        .map(|(_, entries)| {
            image::layer_from_entries(entries, &blobs, 1_700_000_000, image::Packing::Gzip).unwrap()
        })
        .collect();
    let config = Config {
        architecture: image::Platform::here().architecture,
        os: "linux".into(),
        created_epoch: 1_700_000_000,
        entrypoint: vec!["/init".into()],
        history: layers.iter().map(|(by, _)| (*by).to_owned()).collect(),
        ..Config::default()
    };
    let path = place.join(name);
    image::write_archive(&path, &["acme/box:v1".to_owned()], &config, &made, &Silent).unwrap();
    path
}

/// Exit code and standard output.
fn tiffin(arguments: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tiffin"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
    (out.status.code().unwrap(), text)
}

#[test]
fn inspect_tells_what_is_in_it() {
    let place = tempfile::tempdir().unwrap();
    let path = archive(
        place.path(),
        "a.tar",
        &[
            (
                "tiffin: layer rootfs",
                vec![file("etc/motd", 0o644, &"x".repeat(5000))],
            ),
            (
                "tiffin: layer app",
                vec![file("a", 0o644, "a"), file("evil\x1b[2J", 0o644, "b")],
            ),
        ],
    );
    let path = path.to_str().unwrap();
    let (code, text) = tiffin(&["inspect", path]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("2 files  tiffin: layer app"), "{text}");
    assert!(
        text.contains("5.0 kB  /etc/motd") && !text.contains('\x1b'),
        "{text}"
    );
    let (_, text) = tiffin(&["inspect", "--json", path]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["layers"].as_array().unwrap().len(), 2);
    assert_eq!(json["entrypoint"], serde_json::json!(["/init"]));
    assert_eq!(json["layers"][0]["compression"], "gzip");
    let (code, text) = tiffin(&["inspect", "/etc/hosts"]);
    assert_eq!(code, 1);
    assert!(
        text.starts_with("error: cannot use the image /etc/hosts: "),
        "{text}"
    );
}

/// What a box says of itself: settings with their types, and all that will be supervised.
#[test]
fn inspect_shows_settings_services_and_files_of_a_box() {
    let place = tempfile::tempdir().unwrap();
    let contract = r#"{
        "format": 2, "product": {"name": "acme/box", "title": "Box", "version": "v1"},
        "settings": {
            "REDIS_PORT": {"variable": "redis_port", "type": "port", "default": 6379, "help": "Where Redis listens."},
            "ADMIN_PASSWORD": {"variable": "admin", "type": "secret", "required": true, "secret": true}
        },
        "units": [{"name": "redis-server.service", "path": "/lib/systemd/system/redis-server.service"}],
        "services": {"web": {"once": false}},
        "jobs": {"nightly": {"command": "true", "at": "daily"}}
    }"#;
    let programs = "[supervisord]\nnodaemon=true\n[program:web]\ncommand=x\n[program:worker]\n";
    let gone = Entry {
        content: Content::Removed,
        ..file("etc/old", 0, "")
    };
    let link = Entry {
        content: Content::Symlink("../lib/tiffin/entrypoint".into()),
        ..file("usr/bin/tiffin", 0o777, "")
    };
    let path = archive(
        place.path(),
        "a.tar",
        &[
            (
                "base",
                vec![
                    file("etc/old", 0o644, "old"),
                    file("etc/kept", 0o640, "1"),
                    file("etc/supervisor/conf.d/app.conf", 0o644, programs),
                ],
            ),
            (
                "contract",
                vec![
                    gone,
                    link,
                    file("etc/kept", 0o600, "22"),
                    file("srv/index.html", 0o644, "x"),
                    file("usr/lib/tiffin/contract.json", 0o644, contract),
                ],
            ),
        ],
    );
    let path = path.to_str().unwrap();
    let (code, text) = tiffin(&["inspect", path]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("services    nightly redis-server web worker\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "settings\n  ADMIN_PASSWORD  secret, required, secret\n  REDIS_PORT  port, default 6379\n"
        ),
        "{text}"
    );
    // A deletion is no file.
    assert!(
        text.contains("     3 files  contract\n") && !text.contains(".wh."),
        "{text}"
    );
    let (_, text) = tiffin(&["inspect", "--json", "--files", path]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let told = &json["box"];
    assert_eq!(
        told["services"],
        serde_json::json!(["nightly", "redis-server", "web", "worker"])
    );
    assert_eq!(
        told["settings"],
        serde_json::json!(["ADMIN_PASSWORD", "REDIS_PORT"])
    );
    assert_eq!(told["details"]["REDIS_PORT"]["default"], 6379);
    assert_eq!(
        told["details"]["REDIS_PORT"]["help"],
        "Where Redis listens."
    );
    assert_eq!(told["product"]["version"], "v1");
    // The merged view: what the top layer deleted is not there, what it replaced is its own.
    let files: Vec<&str> = json["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        files,
        [
            "etc/kept",
            "etc/supervisor/conf.d/app.conf",
            "srv/index.html",
            "usr/bin/tiffin",
            "usr/lib/tiffin/contract.json"
        ]
    );
    assert_eq!(
        json["files"][0],
        serde_json::json!({"path": "etc/kept", "type": "file", "mode": "0600", "uid": 0, "gid": 0, "size": 2, "layer": 2})
    );
    assert_eq!(json["files"][3]["to"], "../lib/tiffin/entrypoint");
    let (_, text) = tiffin(&["inspect", "--files", path]);
    assert!(
        text.contains("   2  link       0777          0:0             0  /usr/bin/tiffin -> ../lib/tiffin/entrypoint\n"),
        "{text}"
    );
}

/// Layers of real trees, since entries of bytes have no attributes and one time.
#[test]
fn diff_tells_every_cause() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let names = [
        "attribute",
        "capability",
        "device",
        "fifo",
        "link",
        "owner",
        "time",
        "type",
    ];
    let make = |other: bool| {
        let tree = place.path().join(format!("tree-{other}"));
        fs::create_dir(&tree).unwrap();
        let at = |name: &str| tree.join(name);
        let pick = |one: &'static str, two: &'static str| if other { two } else { one };
        for name in ["attribute", "capability", "owner", "time"] {
            fs::write(at(name), "").unwrap();
        }
        let set = |name: &str, key: &str, value: &[u8]| {
            setxattr(at(name), key, value, XattrFlags::empty()).unwrap();
        };
        set("attribute", "user.both", pick("1", "2").as_bytes());
        set("attribute", pick("user.one", "user.two"), b"x");
        if other {
            let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            set("capability", "security.capability", &capability);
        }
        let minor = if other { 5 } else { 3 };
        let mode = Mode::from_raw_mode(0o600);
        let number = makedev(1, minor);
        mknodat(CWD, at("device"), FileType::CharacterDevice, mode, number).unwrap();
        match other {
            true => fs::write(at("fifo"), "").unwrap(),
            false => mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).unwrap(),
        }
        fs::set_permissions(at("fifo"), PermissionsExt::from_mode(0o600)).unwrap();
        symlink(pick("a", "b"), at("link")).unwrap();
        let owner = if other { (33, 44) } else { (0, 3_000_000) };
        std::os::unix::fs::chown(at("owner"), Some(owner.0), Some(owner.1)).unwrap();
        match other {
            true => symlink("time", at("type")).unwrap(),
            false => fs::create_dir(at("type")).unwrap(),
        }
        let dated = |name: &str, seconds: i64| {
            let time = rustix::fs::Timespec {
                tv_sec: seconds,
                tv_nsec: 0,
            };
            let times = rustix::fs::Timestamps {
                last_access: time,
                last_modification: time,
            };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(CWD, at(name), &times, flags).unwrap();
        };
        names.iter().for_each(|name| dated(name, 1000));
        dated("time", if other { 2000 } else { 1000 });
        if other {
            fs::set_permissions(at("time"), PermissionsExt::from_mode(0o4711)).unwrap();
        }
        tree
    };
    let write = |name: &str, tree: &Path, packing: Packing, config: Config| {
        let options = LayerOptions {
            epoch: 1_700_000_000,
            skip: &|_| false,
            devices: &|_| true,
            kind: Source::Tree,
            progress: &Silent,
            threads: 1,
            packing,
        };
        let layer = image::write_layer(tree, &place.path().join("blobs"), &options).unwrap();
        let config = Config {
            architecture: image::Platform::here().architecture,
            os: "linux".into(),
            created_epoch: 1_700_000_000,
            ..config
        };
        let path = place.path().join(name);
        let names = ["acme/box:v1".to_owned()];
        image::write_archive(&path, &names, &config, &[layer], &Silent).unwrap();
        path.display().to_string()
    };
    let (one, two) = (make(false), make(true));
    let first = write("1.tar", &one, Packing::Gzip, Config::default());
    let second = write("2.tar", &two, Packing::Gzip, Config::default());
    let (code, text) = tiffin(&["diff", &first, &second]);
    assert_eq!(code, 3, "{text}");
    assert_eq!(
        text,
        "layer 1: 8 differences\n  \
         /attribute: attribute user.both another value, attribute user.one only in the first, attribute user.two only in the second\n  \
         /capability: attribute security.capability only in the second\n  \
         /device: device 1:3 | 1:5\n  \
         /fifo: type Fifo | File\n  \
         /link: target a | b\n  \
         /owner: owner 0:3000000 | 33:44\n  \
         /time: mode 0644 | 4711, time 1000 | 2000\n  \
         /type: type Directory | Symlink, target  | time, mode 0755 | 0777\n"
    );
    // The configuration, by its places.
    let config = Config {
        env: vec!["A=1".into()],
        entrypoint: vec!["/init".into()],
        exposed_ports: vec!["80/tcp".into()],
        labels: [("kept".to_owned(), "new".to_owned())].into(),
        stop_signal: Some("SIGINT".into()),
        ..Config::default()
    };
    let third = write("3.tar", &one, Packing::Gzip, config);
    let (code, text) = tiffin(&["diff", &first, &third]);
    assert_eq!(code, 3, "{text}");
    for line in [
        "configuration: config.Env: null | [\"A=1\"]\n",
        "configuration: config.Entrypoint: null | [\"/init\"]\n",
        "configuration: config.ExposedPorts: null | {\"80/tcp\":{}}\n",
        "configuration: config.Labels: null | {\"kept\":\"new\"}\n",
        "configuration: config.StopSignal: null | \"SIGINT\"\n",
    ] {
        assert!(text.contains(line), "{line}in:\n{text}");
    }
    assert_eq!(text.lines().count(), 5, "{text}");
    // The same content in another form.
    let fourth = write("4.tar", &one, Packing::Zstd { level: 3 }, Config::default());
    let (code, text) = tiffin(&["diff", &first, &fourth]);
    assert_eq!(code, 3, "{text}");
    assert!(
        text.starts_with("layer 1: the same content, compressed otherwise: gzip, ")
            && text.contains(" bytes | zstd, ")
            && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn diff_names_layer_file_and_cause() {
    let place = tempfile::tempdir().unwrap();
    let base = ("base", vec![file("same", 0o644, "same")]);
    let one = archive(
        place.path(),
        "1.tar",
        &[
            base.clone(),
            (
                "app",
                vec![
                    file("a", 0o644, "1"),
                    file("b", 0o644, "b"),
                    file("c", 0o644, "c"),
                ],
            ),
        ],
    );
    let other = archive(
        place.path(),
        "2.tar",
        &[
            base,
            (
                "app",
                vec![
                    file("a", 0o644, "2"),
                    file("b", 0o600, "b"),
                    file("d", 0o644, "d"),
                ],
            ),
        ],
    );
    let (one, other) = (one.to_str().unwrap(), other.to_str().unwrap());
    assert_eq!(tiffin(&["diff", one, one]), (0, String::new()));
    let (code, text) = tiffin(&["diff", one, other]);
    assert_eq!(code, 3);
    assert_eq!(
        text,
        "layer 2 (app): 4 differences\n  /a: content, 1 bytes\n  /b: mode 0644 | 0600\n  /c: only in the first\n  /d: only in the second\n"
    );
}

#[test]
fn lint_finds_secrets_identity_and_waste() {
    let place = tempfile::tempdir().unwrap();
    let token = format!("token = glpat-{}\n", "x".repeat(20));
    let large = "x".repeat(2_000_000);
    let bad = archive(
        place.path(),
        "bad.tar",
        &[
            (
                "base",
                vec![
                    file("opt/old", 0o644, &large),
                    file("opt/kept", 0o644, &large),
                ],
            ),
            (
                "app",
                vec![
                    file("opt/old", 0o644, "new"),
                    file(
                        "etc/machine-id",
                        0o444,
                        "0123456789abcdef0123456789abcdef\n",
                    ),
                    file("etc/ssh/ssh_host_rsa_key", 0o600, KEY),
                    file("home/me/id", 0o600, KEY),
                    file("home/me/.bash_history", 0o600, "ls\n"),
                    file("srv/app/.git/config", 0o644, ""),
                    file("srv/app/settings", 0o644, &token),
                    file("usr/bin/su", 0o4755, "su"),
                    // What is no secret, though it looks like one.
                    file(
                        "usr/lib/reader",
                        0o755,
                        "-----BEGIN PRIVATE KEY-----\nAKIA glpat-short",
                    ),
                    file("usr/lib/tests/key.pem", 0o644, KEY),
                    file("var/lib/dbus/machine-id", 0o444, ""),
                ],
            ),
        ],
    );
    let (code, text) = tiffin(&["lint", bad.to_str().unwrap()]);
    assert_eq!(code, 3, "{text}");
    assert_eq!(
        text,
        "error: /etc/machine-id: this machine's identity: every box would have the same\n\
         error: /etc/ssh/ssh_host_rsa_key: an SSH host key: every box would have the same\n\
         error: /home/me/.bash_history: what somebody typed\n\
         error: /home/me/id: a private key\n\
         error: /srv/app/.git: a repository's history\n\
         error: /srv/app/settings: a GitLab token\n\
         note: 2.0 MB are hidden or deleted by layers above: /opt/old 2.0 MB\n\
         note: /usr/bin/su: setuid, of user 0\n"
    );
    let good = archive(
        place.path(),
        "good.tar",
        &[("base", vec![file("etc/machine-id", 0o444, "")])],
    );
    assert_eq!(
        tiffin(&["lint", good.to_str().unwrap()]),
        (0, String::new())
    );
}

/// What each kind of finding is called, and what is left alone beside it.
#[test]
fn lint_knows_every_kind_of_secret_and_identity() {
    let place = tempfile::tempdir().unwrap();
    let letters = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6kL9nO2qR5tU8wX1zA4cD7fG0iJ3lM6o";
    let token = |start: &str, length: usize| format!("key = {start}{}\n", &letters[..length]);
    let mut errors: Vec<(String, String, &str)> = Vec::new();
    for (name, start, length, what) in [
        ("aws", "AKIA", 16, "an AWS access key"),
        ("aws-session", "ASIA", 16, "an AWS access key"),
        ("github-1", "ghp_", 36, "a GitHub token"),
        ("github-2", "gho_", 36, "a GitHub token"),
        ("github-3", "ghu_", 36, "a GitHub token"),
        ("github-4", "ghs_", 36, "a GitHub token"),
        ("github-5", "ghr_", 36, "a GitHub token"),
        ("github-6", "github_pat_", 60, "a GitHub token"),
        ("gitlab-1", "glpat-", 20, "a GitLab token"),
        ("gitlab-2", "gldt-", 20, "a GitLab token"),
        ("gitlab-3", "glrt-", 20, "a GitLab token"),
        ("slack-1", "xoxb-", 24, "a Slack token"),
        ("slack-2", "xoxp-", 24, "a Slack token"),
        ("slack-3", "xapp-", 24, "a Slack token"),
        ("stripe-1", "sk_live_", 24, "a Stripe key"),
        ("stripe-2", "rk_live_", 24, "a Stripe key"),
        ("npm", "npm_", 36, "an npm token"),
        ("pypi", "pypi-AgEI", 50, "a PyPI token"),
        ("google", "AIza", 35, "a Google API key"),
        ("anthropic", "sk-ant-", 40, "an Anthropic API key"),
        ("vault", "hvs.", 24, "a token of Vault"),
        ("docker", "dckr_pat_", 24, "a Docker token"),
        ("shopify", "shpat_", 32, "a Shopify token"),
        ("age", "AGE-SECRET-KEY-1", 58, "a private key"),
    ] {
        errors.push((format!("srv/tokens/{name}"), token(start, length), what));
        // Too short, and inside of another word.
        errors.push((
            format!("srv/tokens/{name}-short"),
            token(start, length - 1),
            "",
        ));
        errors.push((
            format!("srv/tokens/{name}-inside"),
            format!("keyx{}", &token(start, length)[6..]),
            "",
        ));
    }
    let same = "every box would have the same";
    for (path, content, what) in [
        (
            "etc/machine-id",
            "0123456789abcdef\n",
            "this machine's identity",
        ),
        ("etc/ssh/ssh_host_ed25519_key", KEY, "an SSH host key"),
        ("var/lib/systemd/random-seed", "xxxx", "a random seed"),
        ("var/lib/urandom/random-seed", "xxxx", "a random seed"),
        (
            "var/lib/systemd/credential.secret",
            "xxxx",
            "the key of systemd's credentials",
        ),
        (
            "var/lib/mysql/auto.cnf",
            "[auto]\nserver-uuid=1\n",
            "a server's identity",
        ),
    ] {
        let what = format!("{what}: {same}").leak();
        errors.push((path.to_owned(), content.to_owned(), what));
    }
    for name in [
        ".bash_history",
        ".zsh_history",
        ".zhistory",
        ".ash_history",
        ".sh_history",
        ".histfile",
        ".local/share/fish/fish_history",
        ".python_history",
        ".node_repl_history",
        ".irb_history",
        ".php_history",
        ".mysql_history",
        ".mariadb_history",
        ".psql_history",
        ".sqlite_history",
        ".dbshell",
        ".mongodb/mongosh/mongosh_repl_history",
        ".rediscli_history",
        ".lesshst",
        ".viminfo",
    ] {
        errors.push((format!("root/{name}"), "x\n".into(), "what somebody typed"));
        errors.push((format!("home/empty/{name}"), String::new(), ""));
    }
    for name in [
        ".netrc",
        ".pgpass",
        ".git-credentials",
        ".pypirc",
        ".mylogin.cnf",
        ".s3cfg",
        ".boto",
        ".vault-token",
        ".htpasswd",
        ".aws/credentials",
        ".kube/config",
    ] {
        errors.push((format!("root/{name}"), "x\n".into(), "passwords"));
        errors.push((format!("home/empty/{name}"), String::new(), ""));
    }
    for (name, content, harmless) in [
        (".my.cnf", "[client]\npassword=x\n", "[client]\nuser=x\n"),
        (
            ".npmrc",
            "//r.example/:_authToken=x\n",
            "registry=https://r.example\n",
        ),
        (
            ".docker/config.json",
            "{\"auths\": {\"r\": {\"auth\": \"eA==\"}}}",
            "{}",
        ),
    ] {
        errors.push((format!("root/{name}"), content.into(), "passwords"));
        errors.push((format!("home/other/{name}"), harmless.into(), ""));
    }
    for (name, content) in [
        ("openssh", KEY.to_owned()),
        ("pkcs8", KEY.replace("OPENSSH ", "")),
        (
            "rsa",
            KEY.replace("OPENSSH", "RSA")
                .replace("\nb3", "\nProc-Type: 4,ENCRYPTED\nb3"),
        ),
        (
            "pgp",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nx\n".to_owned(),
        ),
        (
            "putty",
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n".to_owned(),
        ),
    ] {
        errors.push((format!("srv/keys/{name}"), content.clone(), "a private key"));
        errors.push((format!("srv/keys/tests/{name}"), content, ""));
    }
    let entries: Vec<Entry> = errors
        .iter()
        .map(|(path, content, _)| file(path, 0o600, content))
        .collect();
    let path = archive(place.path(), "a.tar", &[("all", entries)]);
    let (code, text) = tiffin(&["lint", path.to_str().unwrap()]);
    assert_eq!(code, 3, "{text}");
    let mut expected: Vec<String> = errors
        .iter()
        .filter(|(_, _, what)| !what.is_empty())
        .map(|(path, _, what)| format!("error: /{path}: {what}"))
        .collect();
    expected.sort();
    let mut found: Vec<&str> = text.lines().collect();
    found.sort();
    assert_eq!(found, expected);
}

/// A task that sets a password leaves its hash; everybody with the box can try to guess it.
#[test]
fn lint_names_accounts_with_a_password() {
    let place = tempfile::tempdir().unwrap();
    let shadow = "root:$y$j9T$abcdefgh$ijklmnopqrst:19000:0:99999:7:::
daemon:*:19000:0:99999:7:::
locked:!:19000::::::
guessable:!$6$salt$hash:19000::::::
old:ab0123456789.:19000::::::
open::19000:0:99999:7:::
new:!!:19000::::::
";
    let path = archive(
        place.path(),
        "a.tar",
        &[(
            "users",
            vec![
                file("etc/shadow", 0o640, shadow),
                file("etc/gshadow", 0o640, "root:*::\nstaff:$6$x$y::\nusers:::\n"),
                file("srv/etc/shadow", 0o640, shadow),
            ],
        )],
    );
    let (code, text) = tiffin(&["lint", path.to_str().unwrap()]);
    assert_eq!(code, 3, "{text}");
    assert_eq!(
        text,
        "error: /etc/gshadow: the password of staff: every box would have the same\n\
         error: /etc/shadow: the password of root: every box would have the same\n\
         error: /etc/shadow: the password of guessable: every box would have the same\n\
         error: /etc/shadow: the password of old: every box would have the same\n\
         error: /etc/shadow: open gets in without a password\n"
    );
}

/// What a task may have generated is to be looked at; it stops nobody.
#[test]
fn lint_asks_to_look_at_what_may_be_a_generated_password() {
    let place = tempfile::tempdir().unwrap();
    let made_up = "k3Jd9sLq0PzX";
    let env = format!(
        "DB_HOST=db\nexport DB_PASSWORD='{made_up}'\nAPI_TOKEN={made_up}\n# OLD_PASSWORD={made_up}\n"
    );
    let yaml = format!("user: app\npassword: {made_up}\nurl: postgres://app:{made_up}@db/app\n");
    let path = archive(
        place.path(),
        "a.tar",
        &[(
            "app",
            vec![
                file("srv/app/.env", 0o600, &env),
                file("srv/app/config.yml", 0o600, &yaml),
                file(
                    "srv/app/app.json",
                    0o600,
                    &format!("{{\n \"secret_key\": \"{made_up}\",\n \"debug\": false\n}}\n"),
                ),
                file(
                    "etc/redis/redis.conf",
                    0o640,
                    &format!("port 6379\nrequirepass {made_up}\n"),
                ),
                // What says where a password comes from, or is none.
                file(
                    "srv/app/other.conf",
                    0o600,
                    &format!(
                        "password = ${{DB_PASSWORD}}\npassword_file = /run/secrets/{made_up}\nsecret = <changeme123>\ntoken = {{{{ token1 }}}}\npassword = required\npwd = /srv/app1\ntokens = 12345678\nurl = http://app@db1/\n"
                    ),
                ),
                file("usr/share/app/.env", 0o644, &env),
                file("usr/lib/python3/dist-packages/x/settings.py", 0o644, &env),
                file("srv/app/venv/lib/site-packages/x.ini", 0o644, &env),
                file("srv/app/tests/.env", 0o644, &env),
                file("srv/app/notes.txt", 0o644, &env),
            ],
        )],
    );
    let (code, text) = tiffin(&["lint", path.to_str().unwrap()]);
    assert_eq!(
        text,
        "look: /etc/redis/redis.conf: values of requirepass: every box would have the same\n\
         look: /srv/app/.env: values of DB_PASSWORD, API_TOKEN: every box would have the same\n\
         look: /srv/app/app.json: values of secret_key: every box would have the same\n\
         look: /srv/app/config.yml: values of password, url: every box would have the same\n"
    );
    assert_eq!(code, 0, "nothing that must not be shipped for certain");
}

/// What layers hide of one another, by whiteouts, opaque directories and files in their place.
#[test]
fn lint_counts_waste_over_layers_large_files_and_setgid() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (lower, upper) = (place.path().join("lower"), place.path().join("upper"));
    for dir in ["opaque", "gone", "replaced"] {
        fs::create_dir_all(lower.join(dir)).unwrap();
        fs::write(lower.join(dir).join("a"), vec![0; 1_000_000]).unwrap();
    }
    let large = fs::File::create(lower.join("large")).unwrap();
    large.set_len(100_000_001).unwrap();
    let exact = fs::File::create(lower.join("exact")).unwrap();
    exact.set_len(100_000_000).unwrap();
    fs::create_dir_all(upper.join("opaque")).unwrap();
    setxattr(
        upper.join("opaque"),
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    mknodat(
        CWD,
        upper.join("gone"),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
    fs::write(upper.join("replaced"), "").unwrap();
    fs::write(upper.join("wall"), "").unwrap();
    std::os::unix::fs::chown(upper.join("wall"), Some(1), Some(5)).unwrap();
    fs::set_permissions(upper.join("wall"), PermissionsExt::from_mode(0o2755)).unwrap();
    let pack = |tree: &Path, kind| {
        let options = LayerOptions {
            epoch: 1_700_000_000,
            skip: &|_| false,
            devices: &|_| false,
            kind,
            progress: &Silent,
            threads: 0,
            packing: Packing::Gzip,
        };
        image::write_layer(tree, &place.path().join("blobs"), &options).unwrap()
    };
    let layers = [pack(&lower, Source::Tree), pack(&upper, Source::Overlay)];
    let config = Config {
        architecture: image::Platform::here().architecture,
        os: "linux".into(),
        ..Config::default()
    };
    let path = place.path().join("a.tar");
    image::write_archive(&path, &["a/b:v1".to_owned()], &config, &layers, &Silent).unwrap();
    let (code, text) = tiffin(&["lint", path.to_str().unwrap()]);
    assert_eq!(
        text,
        "note: 3.0 MB are hidden or deleted by layers above: /gone/a 1.0 MB, /opaque/a 1.0 MB, /replaced/a 1.0 MB\n\
         note: /large: 100.0 MB\n\
         note: /wall: setgid, of user 1\n"
    );
    assert_eq!(code, 0);
}
