//! The bundle for support: what is in it, what never is, and that nothing holds it up.

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::TestBox;
use serde_json::{Value, json};

/// The files of a bundle, by their path in its folder.
fn opened(b: &TestBox, path: &str) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let tar = Command::new("tar")
        .args([
            "-xzf",
            b.path(path).to_str().unwrap(),
            "--strip-components=1",
            "-C",
        ])
        .arg(folder.path())
        .status();
    assert!(tar.unwrap().success());
    let find = Command::new("find")
        .args([".", "-type", "f"])
        .current_dir(folder.path())
        .output();
    let names = String::from_utf8(find.unwrap().stdout).unwrap();
    let read = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        (name.trim_start_matches("./").to_owned(), text)
    };
    names.lines().map(read).collect()
}

fn bundle(b: &TestBox) -> BTreeMap<String, String> {
    let path = b.path("/support.tar.gz");
    b.run(&["support-bundle", "-o", path.to_str().unwrap()])
        .exits(0);
    opened(b, "/support.tar.gz")
}

fn part<'i>(index: &'i Value, name: &str) -> &'i Value {
    let parts = index["parts"].as_array().unwrap();
    let part = parts.iter().find(|part| part["name"] == name);
    part.unwrap_or_else(|| panic!("no {name} in {index:#}"))
}

const CANARY: &str = "c4n@ry/\"x\" w\u{f6}rd+1";

/// Prints a secret in every form that programs give it.
const LEAK: &str = r#"import base64,html,json,re,sys,urllib.parse as u
s=open(sys.argv[1]).read().rstrip('\n'); b=s.encode()
for f in (s, json.dumps(s), json.dumps(s,ensure_ascii=False), json.dumps(json.dumps(s)), repr(s), repr(b), u.quote(s), u.quote(s,safe=''), re.sub('%..',lambda m:m[0].lower(),u.quote_plus(s)), html.escape(s), b.hex(), b.hex().upper(),
    base64.b64encode(b).decode(), base64.urlsafe_b64encode(b'u:'+b).decode(), base64.b64encode(b'{"password": "'+b+b'"}').decode(), 'redis://u:'+u.quote(s,safe='')+'@host/0'):
    print('leak', f, flush=True)
"#;

#[test]
fn no_secret_is_in_a_bundle_in_any_form() {
    let mut b = TestBox::new();
    let generated = "GeneratedCanary0123456789abcdef";
    b.put(
        "settings",
        "PASSWORD",
        json!({"variable": "password", "type": "secret"}),
    );
    b.put(
        "settings",
        "MADE",
        json!({"variable": "made", "type": "secret", "generate": 31}),
    );
    b.put(
        "settings",
        "QUEUE",
        json!({"variable": "queue", "type": "url"}),
    );
    b.file(
        "/data/.tiffin/settings.json",
        &json!({"MADE": generated}).to_string(),
    );
    b.file("/data/.tiffin/page-token", "TokenCanary0123456789\n");
    b.env("PASSWORD", CANARY)
        .env("QUEUE", "amqp://u:UrlCanary%2F1@host.invalid/x");
    b.env("OTHER_TOKEN", "EnvironmentCanary1");
    b.file("/leak.py", LEAK);
    // Where the leaking programs know them from is no secret's concern here.
    b.file("/canaries/0", CANARY);
    b.file("/canaries/1", generated);
    b.file("/canaries/2", "UrlCanary/1");
    b.file("/canaries/3", "EnvironmentCanary1");
    b.file("/canaries/4", "TokenCanary0123456789");
    b.template(
        "/etc/app.conf",
        "password={{ password }}\nhash={{ made | hash('sha256') }}\n",
    );
    b.script(
        "app",
        "for at in 0 1 2 3 4; do python3 ROOT/leak.py ROOT/canaries/$at; done; cat ROOT/etc/app.conf; echo told; exec sleep 1000",
    );
    b.unit("app.service", "[Service]\nExecStart=ROOT/bin/app\n");
    for at in 0..5 {
        let words = json!([
            "python3",
            b.path("/leak.py"),
            b.path(&format!("/canaries/{at}"))
        ]);
        b.put("support", &format!("leak-{at}"), words);
    }
    let running = b.start();
    b.wait_log("told");
    let hash = std::fs::read_to_string(b.path("/etc/app.conf")).unwrap();
    let hash = hash
        .lines()
        .find_map(|line| line.strip_prefix("hash="))
        .unwrap()
        .to_owned();
    let files = bundle(&b);
    running.stop().exits(0);
    let all: String = files.values().map(String::as_str).collect();
    assert!(
        files["logs/services.txt"].matches("app | leak ").count() >= 80,
        "{all}"
    );
    assert!(
        files["support/leak-4.txt"].matches("leak ").count() >= 16,
        "{all}"
    );
    assert!(
        !all.contains(&hash),
        "what a filter made of a secret: {all}"
    );
    // In none of the forms that the leaking program itself made.
    for at in 0..5 {
        let made = Command::new("python3")
            .args([b.path("/leak.py"), b.path(&format!("/canaries/{at}"))])
            .output()
            .unwrap();
        for form in String::from_utf8(made.stdout).unwrap().lines() {
            let form = form.strip_prefix("leak ").unwrap();
            let form = form
                .strip_prefix("redis://u:")
                .map_or(form, |rest| rest.trim_end_matches("@host/0"));
            let form = form
                .trim_start_matches("b'")
                .trim_matches(['\'', '"', '\\']);
            assert!(!all.contains(form), "{form} is in the bundle:\n{all}");
        }
    }
}

#[test]
fn a_bundle_says_how_the_box_is() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "PORT",
        json!({"variable": "port", "type": "port", "default": 1}),
    );
    b.put("variables", "port", json!(4711));
    b.put("support", "words", json!(["/bin/echo", "port {{ port }}"]));
    b.script("app", "echo working; exec sleep 1000");
    b.unit("app.service", "[Service]\nExecStart=ROOT/bin/app\n");
    let running = b.start();
    b.wait_log("working");
    let files = bundle(&b);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(b.path("/support.tar.gz"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    running.stop().exits(0);
    let index: Value = serde_json::from_str(&files["index.json"]).unwrap();
    assert_eq!(index["version"], "v1");
    for name in [
        "status.json",
        "settings.json",
        "versions.json",
        "logs/services.txt",
    ] {
        assert_eq!(part(&index, name).get("problem"), None, "{index:#}");
    }
    let status: Value = serde_json::from_str(&files["status.json"]).unwrap();
    assert_eq!(status["services"][0]["name"], "app");
    let settings: Value = serde_json::from_str(&files["settings.json"]).unwrap();
    assert_eq!(settings[0]["value"], "4711");
    assert!(files["logs/services.txt"].contains("app | working"));
    assert!(files["logs/tiffin.txt"].contains("Test v1: "), "{files:?}");
    assert_eq!(files["support/words.txt"], "port 4711\n");
    let versions: Value = serde_json::from_str(&files["versions.json"]).unwrap();
    assert_eq!(versions["contract_sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn what_fails_or_hangs_is_named_and_holds_up_nothing() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "PORT",
        json!({"variable": "port", "type": "port"}),
    );
    b.env("PORT", "many");
    b.put(
        "support",
        "hangs",
        json!(["/bin/sh", "-c", "echo begun; sleep 1000 & sleep 1000"]),
    );
    b.put(
        "support",
        "fails",
        json!(["/bin/sh", "-c", "echo so far; echo why >&2; exit 3"]),
    );
    b.put("support", "missing", json!(["/bin/no-such-program"]));
    b.put(
        "support",
        "endless",
        json!(["/bin/sh", "-c", "exec cat /dev/zero"]),
    );
    let begun = Instant::now();
    let files = bundle(&b);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    let index: Value = serde_json::from_str(&files["index.json"]).unwrap();
    let problem = |name: &str| {
        part(&index, name)["problem"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(problem("support/hangs.txt"), "it did not end within 5 s");
    assert_eq!(files["support/hangs.txt"], "begun\n");
    assert!(problem("support/fails.txt").contains("3"));
    assert_eq!(files["support/fails.txt"], "so far\nwhy\n");
    assert!(problem("support/missing.txt").contains("No such file"));
    assert_eq!(
        part(&index, "support/endless.txt")["cut"],
        "only its beginning is here"
    );
    // No box runs, and a setting is wrong.
    assert!(problem("status.json").contains("cannot ask"));
    assert!(problem("settings.json").contains("PORT"));
    assert!(files["preflight.txt"].contains("1 setting is wrong"));
}

#[test]
fn a_bundle_is_a_stream_and_not_for_a_terminal() {
    let b = TestBox::new();
    b.run(&["version"]).exits(0);
    let program = format!(
        "{} --root {} support-bundle",
        env!("CARGO_BIN_EXE_entrypoint"),
        b.dir.path().display()
    );
    let out = b.path("/stream.tar.gz");
    let shell = Command::new("/bin/sh")
        .args(["-c", &format!("{program} > {}", out.display())])
        .stdin(Stdio::null())
        .status();
    assert!(shell.unwrap().success());
    assert!(opened(&b, "/stream.tar.gz").contains_key("index.json"));
    // script(1) gives it a terminal.
    let told = Command::new("script")
        .args(["-qec", &program, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(told.status.code(), Some(64), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stdout).contains("to a terminal"));
}
