use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use super::super::report;
use super::*;
use serde_json::json;

struct Home {
    dir: tempfile::TempDir,
    contract: Contract,
    kept: BTreeMap<String, String>,
    lost: Option<&'static str>,
    given: BTreeSet<String>,
}

fn contract() -> Contract {
    serde_json::from_value(json!({
        "format": 2,
        "product": {"name": "acme/portal", "title": "X", "version": "v1"},
        "volumes": [{"path": "/data"}],
        "variables": {"mail_server": "", "mail_user": ""},
        "settings": {
            "REDIS_PORT": {"variable": "redis_port", "type": "port"},
            "DB_PASSWORD": {"variable": "db_password", "type": "secret", "generate": 24, "deprecated": ["MONGO_PASSWORD"]},
            "API_TOKEN": {"variable": "api_token", "type": "secret", "required": true, "pattern": "[a-z]+"},
            "LEVEL": {"variable": "level", "type": "enum", "choices": ["debug", "info"]},
            "CERT_FILE": {"variable": "cert_file", "type": "path"},
            "CERT": {"variable": "cert", "type": "string"},
            "MAIL_SERVER": {"variable": "mail_server", "type": "host", "default": "", "deprecated": ["SMTP_HOST", "SMTP_SERVER"]},
            "MAIL_USER": {"variable": "mail_user", "type": "string", "required_if": "mail_server != ''", "example": "box"},
            "RELAY_URL": {"variable": "relay_url", "type": "url", "conflicts": ["MAIL_SERVER"]},
            "ZONE": {"variable": "zone", "type": "timezone"}
        }
    }))
    .unwrap()
}

impl Home {
    fn new() -> Self {
        Home {
            dir: tempfile::tempdir().unwrap(),
            contract: contract(),
            kept: BTreeMap::new(),
            lost: None,
            given: BTreeSet::new(),
        }
    }

    fn file(&self, path: &str, content: &[u8], mode: u32) -> String {
        let full = self.dir.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(&full, content).unwrap();
        std::fs::set_permissions(&full, std::fs::Permissions::from_mode(mode)).unwrap();
        full.to_str().unwrap().to_owned()
    }

    /// With API_TOKEN given.
    fn with(&self, pairs: &[(&str, &str)]) -> Result<Resolved, Vec<Problem>> {
        let mut all = vec![("API_TOKEN", "abc")];
        all.extend(pairs);
        self.with_only(&all)
    }

    fn with_only(&self, pairs: &[(&str, &str)]) -> Result<Resolved, Vec<Problem>> {
        let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let environment = Environment {
            variables: pairs.iter().map(pair).collect(),
            unreadable: Vec::new(),
        };
        resolve(
            &self.contract,
            &Sources {
                directory: None,
                environment: &environment,
                root: &Root::new(self.dir.path()),
                kept: &self.kept,
                lost: self.lost,
                given: &self.given,
            },
        )
    }

    #[track_caller]
    fn says(&self, pairs: &[(&str, &str)], words: &[&str]) {
        let text = report(&self.with(pairs).expect_err("it is accepted"));
        for word in words {
            assert!(text.contains(word), "no `{word}` in {text}");
        }
        assert!(!text.contains("CANARY"), "{text}");
    }
}

fn environment(name: &str) -> Given {
    Given::Environment {
        variable: name.to_owned(),
    }
}

#[test]
fn all_problems_at_once_and_no_secret_among_them() {
    let text = report(
        &Home::new()
            .with_only(&[
                ("REDIS_PORT", "canary-port"),
                ("API_TOKEN", "CANARY-1"),
                ("LEVEL", "INFO"),
                ("DB_PASWORD", "CANARY-2"),
                ("RELAY_URL", "smtp://user:CANARY-3@host:99999"),
                ("PORTAL_PASSWORD", "CANARY-4"),
            ])
            .unwrap_err(),
    );
    assert!(
        text.starts_with("cannot start: 6 settings are wrong\n"),
        "{text}"
    );
    for words in [
        "REDIS_PORT = `canary-port`: it takes a port from 1 to 65535",
        "did you mean `info`?",
        "did you mean DB_PASSWORD?",
        "RELAY_URL = `smtp://********@host:99999`: it takes a URL",
        "PORTAL_PASSWORD: it is no setting of this box",
    ] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    assert!(!text.contains("CANARY"), "{text}");
}

#[test]
fn the_first_source_wins() {
    let mut home = Home::new();
    home.kept
        .insert("DB_PASSWORD".to_owned(), "kept".to_owned());
    let source = |home: &Home, pairs: &[(&str, &str)]| {
        home.with(pairs).unwrap().values["DB_PASSWORD"].clone()
    };
    assert_eq!(source(&home, &[]), (json!("kept"), Given::Kept));
    home.file(
        "/data/settings.env",
        b"# mine\nDB_PASSWORD='env file'\n",
        0o600,
    );
    let path = "/data/settings.env".to_owned();
    assert_eq!(
        source(&home, &[]),
        (json!("env file"), Given::EnvFile { path, line: 2 })
    );
    home.file("/run/secrets/DB_PASSWORD", b"mounted\n", 0o444);
    let path = "/run/secrets/DB_PASSWORD".to_owned();
    assert_eq!(source(&home, &[]), (json!("mounted"), Given::File { path }));
    let path = home.file("/elsewhere", b"named\r\n\n", 0o400);
    assert_eq!(
        source(&home, &[("DB_PASSWORD_FILE", &path)]),
        (json!("named"), Given::File { path: path.clone() })
    );
    assert_eq!(
        source(&home, &[("DB_PASSWORD", "given")]),
        (json!("given"), environment("DB_PASSWORD"))
    );
    home.says(
        &[("DB_PASSWORD", "x"), ("DB_PASSWORD_FILE", &path)],
        &["both DB_PASSWORD and DB_PASSWORD_FILE are set"],
    );
}

#[test]
fn files_that_are_none_are_named() {
    let home = Home::new();
    home.says(
        &[("DB_PASSWORD_FILE", "")],
        &["DB_PASSWORD_FILE is empty; it takes the path of a file"],
    );
    home.says(
        &[("DB_PASSWORD_FILE", "/nowhere")],
        &["/nowhere", "cannot be read"],
    );
    home.says(
        &[("DB_PASSWORD_FILE", "/dev/zero")],
        &["it is no plain file"],
    );
    home.says(&[("DB_PASSWORD_FILE", "/proc")], &["it is a directory"]);
    let empty = home.file("/empty", b"\n", 0o600);
    home.says(&[("DB_PASSWORD_FILE", &empty)], &["is empty"]);
    let large = home.file("/large", &vec![b'x'; (1 << 20) + 1], 0o600);
    home.says(&[("DB_PASSWORD_FILE", &large)], &["larger than 1 MiB"]);
    let binary = home.file("/binary", b"CANARY\xff", 0o600);
    home.says(&[("DB_PASSWORD_FILE", &binary)], &["not UTF-8"]);
    std::fs::create_dir_all(home.dir.path().join("run/secrets/DB_PASSWORD")).unwrap();
    home.says(
        &[],
        &["/run/secrets/DB_PASSWORD cannot be read: it is a directory"],
    );
}

#[test]
fn mistakes_in_the_env_file_are_named_by_line() {
    let home = Home::new();
    home.file(
        "/data/settings.env",
        b"REDIS_PORT=1\nREDIS_PORT=2\nnonsense CANARY\n",
        0o600,
    );
    home.says(
        &[],
        &[
            "/data/settings.env, line 2: REDIS_PORT is given in line 1",
            "/data/settings.env, line 3: it is not NAME=VALUE",
        ],
    );
    home.file(
        "/data/settings.env",
        b"REDIS_PROT=CANARY\nTIFFIN_UNKNOWN=warn\nredis_port=1\nSOMETHING=CANARY",
        0o600,
    );
    home.says(
        &[],
        &[
            "REDIS_PROT (/data/settings.env, line 1): it is no setting of this box",
            "did you mean REDIS_PORT?",
            "TIFFIN_UNKNOWN (/data/settings.env, line 2): it is read from the environment alone",
            "redis_port (/data/settings.env, line 3)",
            "SOMETHING (/data/settings.env, line 4)",
        ],
    );
    home.file("/data/settings.env", b"REDIS_PORT=1\n", 0o602);
    home.says(
        &[],
        &[
            "every user in the box may write it",
            "chmod 600 /data/settings.env",
        ],
    );
    home.file("/data/settings.env", b"REDIS_PORT=1\n", 0o644);
    assert!(home.with(&[]).is_ok(), "no secret in it");
    home.file(
        "/data/settings.env",
        b"REDIS_PORT=1\nDB_PASSWORD=CANARY",
        0o644,
    );
    home.says(
        &[],
        &["every user in the box may read it, and it holds DB_PASSWORD"],
    );
    std::fs::remove_file(home.dir.path().join("data/settings.env")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", home.dir.path().join("data/settings.env")).unwrap();
    home.says(
        &[],
        &["/data/settings.env: it cannot be read: it is a symbolic link"],
    );
}

#[test]
fn generated_when_nobody_gives_it_and_never_over_what_was_lost() {
    let mut home = Home::new();
    let resolved = home.with(&[]).unwrap();
    assert_eq!(
        resolved.to_generate,
        BTreeMap::from([("DB_PASSWORD".to_owned(), 24)])
    );
    let resolved = home.with(&[("DB_PASSWORD", "given")]).unwrap();
    assert!(resolved.to_generate.is_empty());
    assert_eq!(
        resolved.variables(&home.contract)["db_password"],
        json!("given")
    );
    home.given.insert("DB_PASSWORD".to_owned());
    home.says(&[], &["DB_PASSWORD: an earlier start was given it"]);
    home.lost = Some("it is gone");
    home.says(&[], &["DB_PASSWORD: it is gone", "restore the file"]);
    assert!(home.with(&[("DB_PASSWORD", "again")]).is_ok());
}

#[test]
fn former_names_are_read_with_a_warning() {
    let mut home = Home::new();
    let resolved = home
        .with(&[("SMTP_HOST", "mail"), ("MAIL_USER", "x")])
        .unwrap();
    assert_eq!(
        resolved.values["MAIL_SERVER"],
        (json!("mail"), environment("SMTP_HOST"))
    );
    assert_eq!(
        resolved.warnings,
        ["SMTP_HOST is a former name of MAIL_SERVER: give MAIL_SERVER instead"]
    );
    let file = home.file("/host", b"mail", 0o600);
    let resolved = home
        .with(&[("SMTP_SERVER_FILE", &file), ("MAIL_USER", "x")])
        .unwrap();
    assert_eq!(resolved.values["MAIL_SERVER"].0, json!("mail"));
    home.says(
        &[("SMTP_HOST", "a"), ("MAIL_SERVER", "b")],
        &["both MAIL_SERVER and SMTP_HOST are set", "remove SMTP_HOST"],
    );
    home.says(&[("SMTP_HOTS", "a")], &["did you mean SMTP_HOST?"]);
    // What was generated under the former name is not generated anew.
    home.kept
        .insert("MONGO_PASSWORD".to_owned(), "old".to_owned());
    assert_eq!(
        home.with(&[]).unwrap().values["DB_PASSWORD"],
        (json!("old"), Given::Kept)
    );
}

#[test]
fn required_if_and_conflicts() {
    let home = Home::new();
    assert!(home.with(&[]).is_ok());
    home.says(
        &[("MAIL_SERVER", "mail")],
        &[
            "MAIL_USER: it is required because `mail_server != ''` holds",
            "give -e MAIL_USER=box",
        ],
    );
    home.says(
        &[("MAIL_SERVER", "mail"), ("MAIL_USER", "")],
        &["MAIL_USER: it is required"],
    );
    assert!(
        home.with(&[("MAIL_SERVER", "mail"), ("MAIL_USER", "x")])
            .is_ok()
    );
    assert!(
        home.with(&[("MAIL_SERVER", "")]).is_ok(),
        "the default is empty too"
    );
    home.says(
        &[
            ("MAIL_SERVER", "mail"),
            ("MAIL_USER", "x"),
            ("RELAY_URL", "smtp://a"),
        ],
        &["MAIL_SERVER: it cannot be given together with RELAY_URL"],
    );
    let mut home = Home::new();
    home.contract
        .settings
        .get_mut("MAIL_USER")
        .unwrap()
        .required_if = Some("no_such_variable".to_owned());
    home.says(
        &[],
        &[
            "MAIL_USER: whether it is required cannot be told",
            "no_such_variable",
        ],
    );
}

#[test]
fn a_setting_called_file_is_no_file_of_another() {
    let resolved = Home::new()
        .with(&[("CERT_FILE", "/x"), ("CERT", "y")])
        .unwrap();
    assert_eq!(resolved.values["CERT_FILE"].0, json!("/x"));
}

#[test]
fn time_zones_are_those_of_the_box() {
    let home = Home::new();
    let resolved = home.with(&[("ZONE", "Europe/Paris")]).unwrap();
    assert!(
        resolved.warnings[0].contains("no zone files"),
        "{:?}",
        resolved.warnings
    );
    for zone in ["Europe/Paris", "Etc/UTC", "posix/Europe/Paris"] {
        home.file(&format!("/usr/share/zoneinfo/{zone}"), b"TZif2...", 0o644);
    }
    home.file("/usr/share/zoneinfo/zone.tab", b"# text", 0o644);
    assert!(
        home.with(&[("ZONE", " Europe/Paris ")])
            .unwrap()
            .warnings
            .is_empty()
    );
    home.says(
        &[("ZONE", "Europe/Pari")],
        &[
            "ZONE = `Europe/Pari`: the box has no time zone",
            "did you mean `Europe/Paris`?",
        ],
    );
    home.says(&[("ZONE", "paris")], &["did you mean `Europe/Paris`?"]);
    home.says(&[("ZONE", "zone.tab")], &["ZONE = `zone.tab`"]);
    home.says(&[("ZONE", "Europe")], &["no time zone"]);
}

#[test]
fn names_that_nobody_knows() {
    let home = Home::new();
    for (name, meant) in [
        ("redis_port", "did you mean REDIS_PORT?"),
        ("redis-port", "did you mean REDIS_PORT?"),
        ("REDIS_PROT_FILE", "did you mean REDIS_PORT_FILE?"),
        ("TIFFIN_STOP_TIMOUT", "did you mean TIFFIN_STOP_TIMEOUT?"),
        ("tiffin_stop_timeout", "did you mean TIFFIN_STOP_TIMEOUT?"),
        ("TIFFIN_WHATEVER", "the entrypoint knows no such variable"),
        ("PORTAL_X", "it is no setting of this box"),
    ] {
        home.says(&[(name, "1")], &[&format!("{name}: "), meant]);
        let resolved = home
            .with(&[(name, "1"), ("TIFFIN_UNKNOWN", "warn")])
            .unwrap();
        assert_eq!(resolved.warnings.len(), 1, "{name}");
    }
    let harmless = [
        ("PORTAL_SERVICE_HOST", "10.0.0.1"),
        ("PORTAL_PORT", "tcp://10.0.0.1:80"),
        ("PORTAL_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("PORTAL_SERVICE_PORT_HTTP", "80"),
        ("http_proxy", "http://x"),
        ("LC_ALL", "C"),
        ("PYTHON_VERSION", "3.11"),
        ("TIFFIN_SERVICE", "x"),
    ];
    assert!(home.with(&harmless).unwrap().warnings.is_empty());
    home.says(
        &[
            ("TIFFIN_STOP_TIMEOUT", "1m"),
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("DB_PASSWORD", ""),
        ],
        &[
            "TIFFIN_STOP_TIMEOUT = `1m`",
            "enableServiceLinks",
            "DB_PASSWORD: it is empty",
        ],
    );
}
