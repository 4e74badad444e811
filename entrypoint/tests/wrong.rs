//! Environments and contracts that are wrong in many ways at once: each ends in a list that
//! names every mistake, nothing is started, no secret is shown, and nothing crashes.

mod common;

use common::TestBox;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

const CANARY: &str = "CANARY7value";

fn rich_box() -> TestBox {
    let mut b = TestBox::new();
    for (name, setting) in [
        (
            "LISTEN_PORT",
            json!({"variable": "a", "type": "port", "default": 80, "min": 1024}),
        ),
        (
            "WORKERS",
            json!({"variable": "b", "type": "int", "min": 1, "max": 64}),
        ),
        ("VERBOSE", json!({"variable": "c", "type": "bool"})),
        (
            "DATABASE_HOST",
            json!({"variable": "d", "type": "host", "deprecated": ["OLD_HOST"]}),
        ),
        ("SITE_URL", json!({"variable": "e", "type": "url"})),
        ("SENDER", json!({"variable": "f", "type": "email"})),
        (
            "LEVEL",
            json!({"variable": "g", "type": "enum", "choices": ["debug", "info"]}),
        ),
        ("NAMES", json!({"variable": "h", "type": "list"})),
        ("EXTRA", json!({"variable": "i", "type": "map"})),
        (
            "GRACE",
            json!({"variable": "j", "type": "duration", "max": 3600}),
        ),
        ("MEMORY", json!({"variable": "k", "type": "size"})),
        ("FOLDER", json!({"variable": "l", "type": "path"})),
        ("SHARE", json!({"variable": "m", "type": "percent"})),
        ("BACKUP_TIME", json!({"variable": "n", "type": "cron"})),
        ("TIMEZONE", json!({"variable": "o", "type": "timezone"})),
        (
            "TLS_CERTIFICATE",
            json!({"variable": "p", "type": "certificate"}),
        ),
        ("TLS_KEY", json!({"variable": "q", "type": "key"})),
        (
            "API_TOKEN",
            json!({"variable": "r", "type": "secret", "pattern": "[a-f0-9]{8}"}),
        ),
        (
            "DB_PASSWORD",
            json!({"variable": "s", "type": "secret", "generate": 24}),
        ),
        (
            "GREETING",
            json!({"variable": "t", "type": "string", "conflicts": ["WORKERS"]}),
        ),
    ] {
        b.put("settings", name, setting);
    }
    b.put("variables", "a", json!(80));
    b.put(
        "variables",
        "mailing",
        json!({"server": "x", "ports": [1, 2]}),
    );
    b.template("/etc/app.conf", "port={{ a }}\n");
    b.put("services", "app", json!({"once": true, "again": ["WORKERS"], "ready": {"tcp": "127.0.0.1:{{ a }}", "timeout": 3}}));
    b.unit(
        "app.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'touch ROOT/started'\n",
    );
    b.contract["volumes"] = json!([{"path": "/data", "directories": [{"path": "/data/x", "uid": 0, "gid": 0, "mode": "0750"}]}]);
    b
}

/// Removes what a failed case left, which is being shrunk.
fn clear(b: &TestBox) {
    for left in ["/data", "/etc", "/run", "/started"] {
        let path = b.path(left);
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
}

/// One mistake: the variable, its value, and what the list must name.
type Mistake = (String, String, &'static str);

fn wrong(name: &'static str, values: &'static str) -> BoxedStrategy<Mistake> {
    values
        .prop_map(move |value| (name.to_owned(), value, name))
        .boxed()
}

fn mistakes() -> Vec<BoxedStrategy<Mistake>> {
    let secret = |name: &'static str, value: &'static str| {
        value
            .prop_map(move |text| (name.to_owned(), format!("{CANARY}{text}"), name))
            .boxed()
    };
    let mistyped = |name: &'static str| {
        (1..name.len() - 1)
            .prop_map(move |at| {
                let mut letters: Vec<char> = name.chars().collect();
                letters.insert(at, 'Q');
                (letters.into_iter().collect(), CANARY.to_owned(), name)
            })
            .boxed()
    };
    vec![
        wrong(
            "LISTEN_PORT",
            "[0-9]{1,3}|[6-9][0-9]{5}|-[0-9]{4}|[a-z:/]{1,9}|tcp://10[.]0[.]0[.]1:80",
        ),
        wrong(
            "WORKERS",
            "0|6[5-9]|[1-9][0-9]{3,30}|[0-9][.][0-9]|[a-z ]{0,5}",
        ),
        wrong("VERBOSE", "[2-9]|ja|nein|tru|10|"),
        wrong(
            "DATABASE_HOST",
            "[a-z]{1,5}:[0-9]{2}|[a-z]{1,4} [a-z]{1,4}|-[a-z]{1,70}|10[.]0[.]0[.]999|[a-z]{1,9}[^a-zA-Z0-9._:\u{0}\\[\\]-]x",
        ),
        wrong(
            "SITE_URL",
            "[a-z]{0,9}|http://|http:/x|[0-9]://a|http://a:[1-9][0-9]{5}|http://[a-z]{2} [a-z]",
        ),
        wrong(
            "SENDER",
            "[a-z]{0,9}|@[a-z]{1,5}|[a-z]{1,5}@|[a-z]@[a-z]@[a-z]|[a-z]{1,4} <[a-z]@[a-z]>",
        ),
        wrong("LEVEL", "DEBUG|Info|[a-c]{0,4}|warning"),
        wrong("NAMES", "\\[[a-z]{1,5}|[a-z],,[a-z]|[a-z]\n[a-z]|,,"),
        wrong(
            "EXTRA",
            "\\[1\\]|\\{|[a-z]{0,6}|\\{\"a\":1,\"a\":2\\}|\\{\"a\":\\}",
        ),
        wrong(
            "GRACE",
            "[0-9]{1,3}[a-ce-gi-lno-rt-z]|-[1-9]|[2-9]h|[1-9][0-9]{29}s|1h30m",
        ),
        wrong(
            "MEMORY",
            "[0-9]{1,4}[a-fh-jln-su-z]|-[1-9]k|[0-9] mb|[a-z]{0,3}[0-9]x|[1-9][0-9]{29}",
        ),
        wrong("FOLDER", "[a-z.][a-z/.]{0,9}|/[a-z]\n[a-z]|"),
        wrong("SHARE", "1[1-9][0-9]%?|-[1-9]|[a-z%]{1,4}|1e1"),
        wrong(
            "BACKUP_TIME",
            "[0-9*]{1,2}( [0-9*]){1,3}|6[0-9] \\* \\* \\* \\*|@[a-c]{1,6}|\\* 2[4-9] \\* \\* \\*|",
        ),
        wrong(
            "TIMEZONE",
            "[.]{2}/[a-z]{1,5}|/[A-Z][a-z]{1,5}|[A-Z][a-z]{1,4} [a-z]|[A-Z]//[A-Z]",
        ),
        wrong(
            "TLS_CERTIFICATE",
            "[a-z]{1,9}|-----BEGIN CERTIFICATE-----\n[a-z]{4}|-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ),
        wrong("TIFFIN_STOP_TIMEOUT", "[a-z]{1,5}|-[0-9]|[1-9][0-9]{10}|"),
        wrong(
            "TIFFIN_HTTP",
            "[0-9]{1,5}|:[0-9]{1,4}|localhost:80|1\\.2\\.3\\.4(:[7-9][0-9]{4})?|::1:80|",
        ),
        wrong("TIFFIN_LOG", "[a-i]{1,5}|JSON|json |"),
        secret(
            "TLS_KEY",
            "[a-z]{0,9}|\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        ),
        secret("API_TOKEN", "[ -~äß€]{0,20}"),
        secret("DB_PASSWORD", "[a-z]{0,5}[\n\r\u{7}\u{85}][a-z]{0,5}"),
        mistyped("DB_PASSWORD"),
        mistyped("DATABASE_HOST"),
        mistyped("TLS_CERTIFICATE"),
        "[A-Z]{1,8}"
            .prop_map(|rest| (format!("TEST_{rest}"), CANARY.to_owned(), "TEST_"))
            .boxed(),
        "[A-Z]{4,8}"
            .prop_map(|rest| (format!("TIFFIN_{rest}"), CANARY.to_owned(), "TIFFIN_"))
            .boxed(),
        Just((
            "DB_PASSWORD_FILE".to_owned(),
            format!("/nowhere/{}", "x"),
            "DB_PASSWORD",
        ))
        .boxed(),
        Just(("API_TOKEN_FILE".to_owned(), String::new(), "API_TOKEN")).boxed(),
        Just(("db_password".to_owned(), CANARY.to_owned(), "db_password")).boxed(),
    ]
}

#[test]
fn a_thousand_wrong_environments_are_told_in_full_and_start_nothing() {
    let b = std::cell::RefCell::new(rich_box());
    let strategy = prop::sample::subsequence((0..mistakes().len()).collect::<Vec<_>>(), 1..7)
        .prop_flat_map(|chosen| {
            let all = mistakes();
            chosen
                .into_iter()
                .map(|at| all[at].clone())
                .collect::<Vec<_>>()
        });
    let mut runner = TestRunner::new(Config {
        cases: 1000,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&strategy, |mistakes| {
        let mut b = b.borrow_mut();
        b.environment = mistakes
            .iter()
            .map(|(name, value, _)| (name.clone(), value.clone()))
            .collect();
        clear(&b);
        let ended = b.run(&["start"]);
        prop_assert_eq!(ended.code, Some(78), "{:#?}", ended);
        prop_assert!(
            ended.err.contains("cannot start: ") && ended.err.contains(" wrong\n"),
            "{:#?}",
            ended
        );
        for (_, _, named) in &mistakes {
            let told = [
                format!("\ntiffin:   {named}"),
                format!("did you mean {named}?"),
            ];
            prop_assert!(
                told.iter().any(|words| ended.err.contains(words)),
                "{} is not named in {:#?}",
                named,
                ended
            );
        }
        prop_assert!(
            !ended.err.contains(CANARY) && ended.out.is_empty(),
            "{:#?}",
            ended
        );
        prop_assert!(!ended.err.contains("defect"), "{:#?}", ended);
        for path in ["/data", "/started", "/etc/app.conf", "/run/tiffin"] {
            prop_assert!(!b.path(path).exists(), "{} was touched", path);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Every place of a document, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| places(value, &format!("{at}/{key}"), out)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(n, value)| places(value, &format!("{at}/{n}"), out)),
        _ => {}
    }
}

/// A value that no field of that type takes.
fn of_another_type(value: &Value) -> Value {
    match value {
        Value::Object(_) => json!("x"),
        Value::Array(_) => json!({}),
        Value::String(_) => json!(7),
        _ => json!("x"),
    }
}

/// A mistake in the sense, not in the types.
fn nonsense() -> Vec<(&'static str, Value)> {
    vec![
        ("/format", json!(99)),
        ("/templates/0/mode", json!("0999")),
        ("/templates/0/mode", json!("")),
        ("/templates/0/dest", json!("etc/x")),
        ("/templates/0/dest", json!("/etc/../../x")),
        ("/templates/0/dest", json!("/")),
        ("/volumes/0/path", json!("data")),
        ("/volumes/0/path", json!("/a\u{0}b")),
        ("/volumes/0/directories/0/mode", json!("rwx")),
        ("/units/0/name", json!("../x.service")),
        ("/units/0/path", json!("x")),
        ("/settings/API_TOKEN/pattern", json!("(")),
        ("/settings/API_TOKEN/pattern", json!(")(")),
        ("/settings/WORKERS/min", json!(100)),
        ("/settings/LEVEL/choices", json!([])),
        ("/settings/GREETING/conflicts/0", json!("NOBODY")),
        ("/settings/DATABASE_HOST/deprecated/0", json!("WORKERS")),
        ("/settings/DB_PASSWORD/generate", json!(0)),
        ("/settings/DB_PASSWORD/type", json!("port")),
        ("/settings/SENDER/variable", json!("{{ x }}")),
        ("/services/app/again/0", json!("NOBODY")),
    ]
}

#[derive(Debug, Clone)]
enum Damage {
    Type(prop::sample::Index),
    UnknownKey(prop::sample::Index),
    Nonsense(prop::sample::Index),
    Cut(prop::sample::Index),
    Byte(prop::sample::Index, u8),
    Deep(u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    use prop::sample::Index;
    prop_oneof![
        4 => any::<Index>().prop_map(Damage::Type),
        2 => any::<Index>().prop_map(Damage::UnknownKey),
        2 => any::<Index>().prop_map(Damage::Nonsense),
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        1 => any::<u8>().prop_map(Damage::Deep),
    ]
}

#[test]
fn five_hundred_malformed_contracts_are_errors_and_no_crash() {
    let b = rich_box();
    let sound = b.contract.clone();
    let path = b.path("/usr/lib/tiffin/contract.json");
    b.run(&["check"]).exits(0);
    let mut all = Vec::new();
    places(&sound, "", &mut all);
    // Free values and what has free keys.
    let free = |place: &&String| place.starts_with("/variables/") || place.ends_with("/default");
    let typed: Vec<&String> = all.iter().filter(|place| !free(place)).collect();
    let records: Vec<&String> = typed
        .iter()
        .filter(|place| sound.pointer(place).unwrap().is_object())
        .filter(|place| {
            ![
                "/settings",
                "/variables",
                "/services",
                "/templates/0/variables",
                // serde takes any key beside a tag alone
                "/templates/0/parity",
            ]
            .contains(&place.as_str())
        })
        .copied()
        .collect();
    let verbs = [
        &["check"][..],
        &["settings"],
        &["settings", "--origin"],
        &["render"],
        &["help"],
        &["start"],
    ];
    let mut runner = TestRunner::new(Config {
        cases: 500,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&(damage(), 0..verbs.len()), |(damage, verb)| {
        let mut contract = sound.clone();
        let mut words = verbs[verb];
        let mut malformed = true;
        let mut bytes = None;
        match &damage {
            Damage::Type(at) => {
                let place = contract.pointer_mut(typed[at.index(typed.len())]).unwrap();
                *place = of_another_type(place);
            }
            Damage::UnknownKey(at) => {
                contract
                    .pointer_mut(records[at.index(records.len())])
                    .unwrap()["surprise"] = json!(1)
            }
            Damage::Nonsense(at) => {
                let all = nonsense();
                let (place, value) = at.get(&all);
                *contract.pointer_mut(place).unwrap() = value.clone();
            }
            Damage::Cut(at) => {
                let text = sound.to_string();
                bytes = Some(text.as_bytes()[..at.index(text.len())].to_vec());
            }
            Damage::Byte(at, byte) => {
                let mut text = sound.to_string().into_bytes();
                let at = at.index(text.len());
                text[at] = *byte;
                bytes = Some(text);
                // Another letter in a help text is another help text.
                malformed = false;
                words = &["check"];
            }
            Damage::Deep(depth) => {
                let open = if depth % 2 == 0 { "[" } else { "{\"a\":" };
                bytes = Some(open.repeat(usize::from(*depth) * 1000 + 200).into_bytes());
            }
        }
        let text = bytes.unwrap_or_else(|| contract.to_string().into_bytes());
        std::fs::write(&path, text).unwrap();
        clear(&b);
        let ended = b.run_as_is(words);
        prop_assert!(
            !ended.err.contains("defect") && !ended.err.contains("panicked"),
            "{:?} {:#?}",
            damage,
            ended
        );
        if malformed {
            prop_assert_eq!(ended.code, Some(70), "{:?} {:#?}", damage, ended);
            prop_assert!(
                ended
                    .err
                    .contains("cannot read /usr/lib/tiffin/contract.json"),
                "{:?} {:#?}",
                damage,
                ended
            );
        } else {
            prop_assert!(
                matches!(ended.code, Some(0 | 70 | 78)),
                "{:?} {:#?}",
                damage,
                ended
            );
        }
        prop_assert!(!b.path("/data").exists() && !b.path("/started").exists());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
