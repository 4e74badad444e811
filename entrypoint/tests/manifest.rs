//! `manifest`: what is written is what those who run it read. Settings and paths are as
//! hostile as a contract can make them, and each platform's own parser, or the nearest one
//! there is, reads them back.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::TestBox;
use serde_json::{Value, json};

const SECRET: &str = "CANARYsecret1234";

/// What quoting is about in any of the languages.
const HOSTILE: &str = r##"a'b"c\d $HOME ${X:-y} $$ $(id) `id` %n %{z} #e: {f} [g], - h é"##;

const PLATFORMS: [&str; 7] = [
    "docker-run",
    "compose",
    "swarm",
    "kubernetes",
    "quadlet",
    "systemd",
    "nomad",
];

fn hostile() -> TestBox {
    let mut b = TestBox::new();
    b.contract["product"] = json!({"name": "registry.test:5000/acme/my_box", "title": "Acme \"box\"\n# 100%\n\\", "version": "v1.0"});
    b.contract["ports"] = json!([80, 9000]);
    b.contract["volumes"] = json!([{"path": "/data"}, {"path": "/up loads, \"$X\" é"}]);
    for (name, setting) in [
        (
            "MOTTO",
            json!({"variable": "motto", "type": "string", "help": "Shown.\nx: \"y\"\\"}),
        ),
        (
            "HINT",
            json!({"variable": "hint", "type": "string", "default": HOSTILE, "help": "# }}\u{2028}'"}),
        ),
        (
            "TITLE",
            json!({"variable": "title", "type": "string", "required": true, "help": "Must be given."}),
        ),
        (
            "API_TOKEN",
            json!({"variable": "api_token", "type": "secret", "required": true, "help": "Of \"them\"."}),
        ),
        (
            "DB_PASSWORD",
            json!({"variable": "db_password", "type": "secret", "generate": 32}),
        ),
        (
            "MAIL_PASSWORD",
            json!({"variable": "mail_password", "type": "secret"}),
        ),
    ] {
        b.put("settings", name, setting);
    }
    b.unit(
        "db.service",
        "[Service]\nExecStart=/bin/sleep 1000\nTimeoutStopSec=60\n",
    );
    b.unit(
        "web.service",
        "[Unit]\nAfter=db.service\n[Service]\nExecStart=/bin/sleep 1000\nTimeoutStopSec=20\n",
    );
    b.unit(
        "side.service",
        "[Service]\nExecStart=/bin/sleep 1000\nTimeoutStopSec=5\n",
    );
    b.put(
        "services",
        "db",
        json!({"ready": {"tcp": "127.0.0.1:1", "timeout": 240}}),
    );
    b.env("MOTTO", HOSTILE).env("MAIL_PASSWORD", SECRET);
    b
}

fn manifest(b: &TestBox, words: &[&str]) -> String {
    let words: Vec<&str> = ["manifest"].iter().chain(words).copied().collect();
    let ended = b.run(&words);
    ended.exits(0);
    assert_eq!(ended.err, "", "{words:?}");
    assert_eq!(b.run(&words).out, ended.out, "the same every time");
    ended.out
}

/// A program of `ci/setup test`; where CI is set it must be there.
fn tool(name: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("TIFFIN_TOOLS").map(|tools| PathBuf::from(tools).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = tools
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{name} is missing: make setup-test installs it"
        );
        eprintln!("skipped: there is no {name}");
    }
    found
}

fn must(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{command:?}\n{}{told}",
        String::from_utf8_lossy(&out.stdout)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// Documents of a YAML stream as PyYAML, which Ansible, docker-compose and podman-compose
/// use, reads them, and as the YAML organisation's own crate does: both the same.
fn yaml(text: &str) -> Vec<Value> {
    let read = |document| serde::Deserialize::deserialize(document).unwrap();
    let documents: Vec<Value> = serde_yaml::Deserializer::from_str(text).map(read).collect();
    let script =
        "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin.buffer))))";
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let out = python.wait_with_output().unwrap();
    assert!(out.status.success(), "PyYAML refuses\n{text}");
    let other: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(documents, other, "{text}");
    documents
}

#[test]
fn no_manifest_holds_a_secret_and_each_asks_for_those_needed() {
    let b = hostile();
    for platform in PLATFORMS {
        let text = manifest(&b, &[platform]);
        assert!(!text.contains(SECRET), "{text}");
        assert!(
            text.contains("API_TOKEN") && text.contains("MAIL_PASSWORD"),
            "{text}"
        );
        assert!(
            !text.contains("DB_PASSWORD"),
            "it is generated and kept:\n{text}"
        );
        assert!(!text.contains('\u{2028}') && !text.contains('\r'), "{text}");
        assert!(text.contains("TIFFIN_STOP_TIMEOUT"), "{text}");
    }
}

#[test]
fn a_stop_has_as_long_as_the_services_need_one_after_the_other() {
    let b = hostile();
    // 20 s of web, then 60 s of db; side stops meanwhile.
    let service = &yaml(&manifest(&b, &["compose"]))[0]["services"]["my-box"];
    assert_eq!(service["environment"]["TIFFIN_STOP_TIMEOUT"], json!("80"));
    assert_eq!(service["stop_grace_period"], json!("90s"));
    // 240 s until db is ready, and some more.
    assert_eq!(service["healthcheck"]["start_period"], json!("300s"));
    let mut b = hostile();
    b.env("TIFFIN_STOP_TIMEOUT", "7");
    let text = manifest(&b, &["kubernetes"]);
    assert!(text.contains("terminationGracePeriodSeconds: 17"), "{text}");
}

#[test]
fn wrong_words_and_wrong_settings_are_refused() {
    let mut b = hostile();
    b.run(&["manifest"])
        .exits(64)
        .says("docker-run|compose|swarm|kubernetes|quadlet|systemd|nomad");
    b.run(&["manifest", "kubernets"])
        .exits(64)
        .says("did you mean `kubernetes`?");
    for words in [
        &["compose", "--name", "A b"][..],
        &["compose", "--name"],
        &["compose", "--memory", "much"],
        &["compose", "--cpus", "-1"],
        &["compose", "--cpus", "1e9"],
        &["compose", "more"],
    ] {
        let words: Vec<&str> = ["manifest"].iter().chain(words).copied().collect();
        b.run(&words).exits(64);
    }
    b.env("TITEL", "x");
    b.run(&["manifest", "compose"])
        .exits(78)
        .says("did you mean TITLE?");
}

#[test]
fn compose_reads_it() {
    let b = hostile();
    let text = manifest(&b, &["compose", "--memory", "4g", "--cpus", "1.5"]);
    let file = &yaml(&text)[0];
    let service = &file["services"]["my-box"];
    assert_eq!(
        service["image"],
        json!("registry.test:5000/acme/my_box:v1.0")
    );
    assert_eq!(service["mem_limit"], json!("4096m"));
    assert_eq!(
        service["environment"]["MOTTO"],
        json!(HOSTILE.replace('$', "$$"))
    );
    assert_eq!(
        service["volumes"][1]["target"],
        json!("/up loads, \"$$X\" é")
    );
    assert_eq!(service["secrets"], json!(["API_TOKEN", "MAIL_PASSWORD"]));
    let Some(compose) = tool("docker-compose") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("compose.yaml"), &text).unwrap();
    let config = |title: Option<&str>| {
        let mut command = Command::new(&compose);
        command
            .args(["-f", "compose.yaml", "config"])
            .current_dir(dir.path());
        command.envs(title.map(|title| ("TITLE", title)));
        command
    };
    let refused = config(None).output().unwrap();
    assert!(!refused.status.success(), "a required setting is missing");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("TITLE") && told.contains("required"),
        "{told}"
    );
    // What it prints is a Compose file again, with `$` doubled again.
    let read = &yaml(&must(&mut config(Some("x"))))[0]["services"]["my-box"];
    assert_eq!(
        read["environment"]["MOTTO"],
        json!(HOSTILE.replace('$', "$$"))
    );
    assert_eq!(read["environment"]["TITLE"], json!("x"));
}

#[test]
fn a_stack_is_read_back() {
    let b = hostile();
    let text = manifest(&b, &["swarm", "--name", "portal"]);
    let file = &yaml(&text)[0];
    assert_eq!(
        file["services"]["portal"]["deploy"]["update_config"]["order"],
        json!("stop-first")
    );
    assert_eq!(
        file["secrets"]["API_TOKEN"],
        json!({"external": true, "name": "portal-API_TOKEN"})
    );
    let Some(docker) = tool("docker") else { return };
    if !must(Command::new(&docker).args(["stack", "--help"])).contains("config") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stack.yaml");
    std::fs::write(&path, &text).unwrap();
    let config = |title: Option<&str>| {
        let mut command = Command::new(&docker);
        command
            .args(["stack", "config", "--compose-file"])
            .arg(&path);
        command.envs(title.map(|title| ("TITLE", title)));
        command
    };
    assert!(
        !config(None).output().unwrap().status.success(),
        "a required setting is missing"
    );
    let read = &yaml(&must(&mut config(Some("x"))))[0]["services"]["portal"];
    assert_eq!(read["environment"]["MOTTO"], json!(HOSTILE));
    assert_eq!(read["volumes"][1]["target"], json!("/up loads, \"$X\" é"));
}

#[test]
fn kubernetes_objects_are_valid() {
    let b = hostile();
    let text = manifest(&b, &["kubernetes", "--memory", "2g", "--cpus", "2"]);
    let objects = yaml(&text);
    let kinds: Vec<&Value> = objects.iter().map(|object| &object["kind"]).collect();
    assert_eq!(
        kinds,
        [
            "PersistentVolumeClaim",
            "PersistentVolumeClaim",
            "Secret",
            "Deployment",
            "Service"
        ]
    );
    let container = &objects[3]["spec"]["template"]["spec"]["containers"][0];
    let value = |name: &str| {
        let mut all = container["env"].as_array().unwrap().iter();
        all.find(|variable| variable["name"] == name).unwrap()["value"].clone()
    };
    // Kubernetes makes `$(id)` of `$$(id)`.
    assert_eq!(value("MOTTO"), json!(HOSTILE.replace("$(", "$$(")));
    assert_eq!(value("TITLE"), json!(""), "which the box refuses");
    assert_eq!(value("API_TOKEN_FILE"), json!("/etc/box-secrets/API_TOKEN"));
    assert_eq!(container["startupProbe"]["failureThreshold"], json!(60));
    valid(&text);
}

/// By Kubernetes' own schemas, where there is the tool.
fn valid(text: &str) {
    let Some(validate) = tool("kubernetes-validate") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("box.yaml");
    std::fs::write(&path, text).unwrap();
    must(
        Command::new(validate)
            .args(["--strict", "--quiet"])
            .arg(&path),
    );
}

#[test]
fn kubernetes_objects_of_roles_are_valid() {
    let mut b = hostile();
    let role = |service: &str| json!({"services": [service]});
    b.contract["roles"] = json!({"web": role("web"), "work": role("side"), "move": role("job")});
    b.contract["roles"]["web"]["ports"] = json!([80]);
    b.unit(
        "job.service",
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    );
    b.put("services", "job", json!({"once": true}));
    b.put("services", "db", json!({"when": "bundled"}));
    b.put("variables", "bundled", json!(false));
    let text = manifest(&b, &["kubernetes", "--scale", "web=3,work=2"]);
    let objects = yaml(&text);
    let with = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).count();
    assert_eq!((with("Deployment"), with("Job")), (2, 1), "{text}");
    let replicas = |name: &str| {
        let mut all = objects.iter().filter(|o| o["kind"] == "Deployment");
        let found = all.find(|o| o["metadata"]["name"] == format!("my-box-{name}"));
        found.unwrap_or_else(|| panic!("no {name}: {text}"))["spec"]["replicas"].clone()
    };
    assert_eq!((replicas("web"), replicas("work")), (json!(3), json!(2)));
    valid(&text);
}

/// Docker keeps all that a box says unless it is told otherwise; podman, systemd and Nomad have
/// limits of their own.
#[test]
fn logs_are_bounded() {
    let b = hostile();
    for platform in ["compose", "swarm"] {
        let service = &yaml(&manifest(&b, &[platform]))[0]["services"]["my-box"]["logging"];
        let options = json!({"max-size": "10m", "max-file": "5"});
        assert_eq!(service["options"], options, "{platform}");
        assert_eq!(service["driver"], json!("json-file"), "{platform}");
    }
    let run = manifest(&b, &["docker-run"]);
    assert!(run.contains("--log-driver json-file"), "{run}");
    assert!(
        run.contains("--log-opt max-size=10m --log-opt max-file=5"),
        "{run}"
    );
    // The journal has them.
    let unit = manifest(&b, &["systemd"]);
    assert!(unit.contains("--log-driver none"), "{unit}");
}

#[test]
fn a_shell_gives_docker_the_very_values() {
    let b = hostile();
    let text = manifest(&b, &["docker-run"]);
    let dir = tempfile::tempdir().unwrap();
    let stub = dir.path().join("docker");
    std::fs::write(&stub, "#!/bin/sh\nprintf '%s\\0' \"$@\"\n").unwrap();
    must(Command::new("chmod").arg("755").arg(&stub));
    let run = |title: Option<&str>| {
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let mut command = Command::new("sh");
        command
            .args(["-c", &text])
            .env("PATH", path)
            .current_dir(dir.path());
        command.envs(title.map(|title| ("TITLE", title)));
        command
    };
    assert!(
        !run(None).output().unwrap().status.success(),
        "a required setting is missing"
    );
    let out = must(&mut run(Some("x  y")));
    let words: Vec<&str> = out.trim_end_matches('\0').split('\0').collect();
    let motto = format!("MOTTO={HOSTILE}");
    for word in [motto.as_str(), "TITLE=x  y", "--read-only"] {
        assert!(words.contains(&word), "{word} is not among {words:#?}");
    }
    let mount = "type=volume,source=my-box-up-loads-x,\"target=/up loads, \"\"$X\"\" é\"";
    assert!(words.contains(&mount), "{words:#?}");
    assert_eq!(words.last(), Some(&"registry.test:5000/acme/my_box:v1.0"));
}

#[test]
fn systemd_reads_the_unit() {
    let b = hostile();
    let text = manifest(&b, &["systemd"]);
    let parsed = services::systemd::parse("my-box.service", &[&text])
        .unwrap()
        .value;
    let words = &parsed.commands.start[0].words;
    // `$$` is one dollar sign by the time that docker sees it.
    let motto = format!("MOTTO={}", HOSTILE.replace('$', "$$"));
    assert!(words.contains(&motto), "{words:#?}");
    let Some(analyze) = tool("systemd-analyze") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my-box.service");
    // Docker need not be installed for the unit to be right.
    let text = text
        .replace("/usr/bin/docker", "/bin/true")
        .replace("docker.service", "sysinit.target");
    std::fs::write(&path, text).unwrap();
    let out = Command::new(analyze)
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !told.contains("my-box"), "{told}");
}

#[test]
fn a_quadlet_has_the_values_in_systemd_s_words() {
    let mut b = hostile();
    let text = manifest(&b, &["quadlet"]);
    // Its words are a unit's: read as one, they give what the generator hands to ExecStart=.
    let environment: String = text
        .lines()
        .filter(|line| line.starts_with("Environment="))
        .map(|line| format!("{line}\n"))
        .collect();
    let unit = format!("[Service]\nExecStart=/bin/true\n{environment}");
    let parsed = services::systemd::parse("x.service", &[&unit])
        .unwrap()
        .value;
    let motto = parsed
        .environment
        .iter()
        .find(|(name, _)| name == "MOTTO")
        .unwrap();
    assert_eq!(motto.1, HOSTILE.replace('$', "$$"));
    b.contract["volumes"] = json!([{"path": "/a:b"}]);
    b.run(&["manifest", "quadlet"]).exits(78).says("colon");
}

/// What systemd makes of the generator's unit is what podman is given, word for word.
#[test]
#[ignore = "needs podman's generator: make test-long QUADLET=FILE"]
fn podman_s_generator_makes_a_unit_of_a_quadlet() {
    let generator = std::env::var_os("QUADLET").expect("QUADLET=FILE, podman's generator");
    let b = hostile();
    let text = manifest(&b, &["quadlet", "--memory", "1g", "--cpus", "1.5"]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("my-box.container"), text).unwrap();
    let out = Command::new(generator)
        .args(["-dryrun", "-no-kmsg-log"])
        .env("QUADLET_UNIT_DIRS", dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    let made = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{told}");
    // A key that it does not know is named there.
    let complaints: Vec<&str> = (told.lines())
        .filter(|line| line.to_lowercase().contains("my-box") && !line.contains("Loading source"))
        .collect();
    assert!(complaints.is_empty(), "{told}");
    let (_, unit) = made.split_once("---my-box.service---\n").expect(&made);
    let parsed = services::systemd::parse("my-box.service", &[unit]).unwrap();
    let words = &parsed.value.commands.start[0].words;
    let value_of = |flag: &str, begin: &str| {
        let found: Vec<&String> = (words.windows(2))
            .filter(|pair| pair[0] == flag && pair[1].starts_with(begin))
            .map(|pair| &pair[1])
            .chain((words.iter()).filter(|word| word.starts_with(&format!("{flag}={begin}"))))
            .collect();
        assert_eq!(found.len(), 1, "{flag} {begin}: {words:#?}");
        found[0].trim_start_matches(&format!("{flag}=")).to_owned()
    };
    // systemd makes one dollar sign of two.
    let motto = value_of("--env", "MOTTO=").replace("$$", "$");
    assert_eq!(motto, format!("MOTTO={HOSTILE}"));
    assert_eq!(
        value_of("--env", "TITLE="),
        "TITLE=",
        "what must be given is asked for"
    );
    value_of("--secret", "my-box-API_TOKEN,type=mount");
    value_of("--publish", "9000:9000");
    value_of("-v", "my-box-data:/data");
    // It kept the quotes, once, as part of the path.
    let uploads = value_of("-v", "my-box-up-loads-x:").replace("$$", "$");
    assert_eq!(uploads, "my-box-up-loads-x:/up loads, \"$X\" é");
    value_of("--stop-timeout", "");
    value_of("--memory", "1024m");
    value_of("--cpus", "1.5");
    value_of("--health-cmd", "tiffin health --ready");
    value_of("--cap-drop", "all");
    assert!(words.iter().any(|w| w == "--read-only"), "{words:#?}");
    let image = "registry.test:5000/acme/my_box:v1.0";
    assert_eq!(words.last().unwrap(), image);
    assert!(!made.contains(SECRET), "{made}");
    let analyze = tool("systemd-analyze").expect("systemd-analyze");
    let path = dir.path().join("my-box.service");
    let text = unit.replace("/usr/bin/podman", "/bin/true");
    std::fs::write(&path, text).unwrap();
    let out = Command::new(analyze)
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !told.contains("my-box"), "{told}");
}

#[test]
fn nomad_s_language_is_read_back() {
    let b = hostile();
    let text = manifest(&b, &["nomad", "--memory", "1g", "--cpus", "1.5"]);
    assert!(
        text.contains("port \"p9000\"") && text.contains("to = 9001"),
        "{text}"
    );
    let Some(python) = tool("hcl2tojson").map(|tool| tool.with_file_name("python3")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("box.hcl");
    std::fs::write(&path, &text).unwrap();
    let script = "import sys, json, hcl2; print(json.dumps(hcl2.load(open(sys.argv[1]))))";
    let read = must(Command::new(python).args(["-c", script]).arg(&path));
    let read: Value = serde_json::from_str(&read).unwrap();
    // The parser leaves strings as they are written, which is JSON's way but for templates.
    let task = &read["job"][0]["\"my-box\""]["group"][0]["\"box\""]["task"][0]["\"my-box\""];
    let value = |name: &str| -> String {
        let written = task["env"][0][name]
            .as_str()
            .unwrap_or_else(|| panic!("{task:#}"));
        serde_json::from_str(&written.replace("$${", "${").replace("%%{", "%{")).unwrap()
    };
    assert_eq!(value("MOTTO"), HOSTILE);
    assert_eq!(value("TITLE"), "");
    assert_eq!(value("API_TOKEN_FILE"), "/secrets/API_TOKEN");
    assert_eq!(task["kill_timeout"], json!("\"90s\""));
}
