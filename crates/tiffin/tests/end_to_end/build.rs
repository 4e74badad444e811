//! What a release engineer meets: good errors, nothing left behind, nothing done twice.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::harness::*;

/// A recipe of one layer on the base that the reference stack has, which is in the cache.
pub struct Small {
    pub dir: tempfile::TempDir,
}

impl Small {
    pub fn new(tasks: &str) -> Small {
        let dir = tempfile::tempdir().unwrap();
        let small = Small { dir };
        small.write("tiffin.yaml", "name: test/small\nplaybook: site.yml\n");
        small.write(
            "site.yml",
            &format!("- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}"),
        );
        small
    }

    /// A file, and the directories that it lies in.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn dist(&self) -> PathBuf {
        self.dir.path().join("dist")
    }

    pub fn build(&self) -> Command {
        let mut command = Command::new(tiffin());
        command
            .args(["build", "--version", "v1", "--file"])
            .arg(self.dir.path().join("tiffin.yaml"));
        command.arg("--output").arg(self.dist());
        command
    }

    /// The contract in the top layer of what was built last.
    pub fn contract_text(&self) -> String {
        let archive = self.dist().join("small-v1.tar");
        let manifest = must(
            Command::new("tar")
                .arg("-xOf")
                .arg(&archive)
                .arg("manifest.json"),
        );
        let top = manifest.rsplit("blobs/sha256/").next().unwrap();
        let top = top.split('"').next().unwrap();
        let script = "tar -xOf \"$1\" blobs/sha256/$2 | tar -xzO usr/lib/tiffin/contract.json";
        must(
            Command::new("sh")
                .args(["-c", script, "sh"])
                .arg(&archive)
                .arg(top),
        )
    }

    pub fn contract(&self) -> contract::Contract {
        serde_json::from_str(&self.contract_text()).unwrap()
    }

    /// Nothing in `dist`, no mount, no process, no work of this build.
    fn nothing_is_left(&self) {
        let there: Vec<_> = fs::read_dir(self.dist())
            .map(|d| d.flatten().map(|e| e.path()).collect())
            .unwrap_or_default();
        assert!(there.is_empty(), "half-written: {there:?}");
        nothing_runs_or_is_mounted(self.dir.path());
    }
}

fn nothing_runs_or_is_mounted(about: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cache = std::env::var("TIFFIN_CACHE").unwrap();
    assert!(!mounts.contains(&cache), "a mount is left:\n{mounts}");
    let about = about.display().to_string();
    let gone = || {
        !Command::new("pgrep")
            .args(["-f", &about])
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    assert!(
        within(Duration::from_secs(10), gone),
        "a process is left: {}",
        must(Command::new("pgrep").args(["-af", &about]))
    );
}

/// A task whose layer no earlier run has left in the cache.
fn write() -> String {
    format!(
        "    - copy: {{content: '{}', dest: /etc/hello}}\n",
        unique("hello")
    )
}

/// What a vendor's key signs, the vendor's public key checks; a play never sees the password.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_release_is_signed_and_lists_what_is_in_it() {
    let keys = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let task = "    - assert: {that: \"lookup('env', 'TIFFIN_SIGN_PASSWORD') == ''\"}\n";
    let small = Small::new(&format!("{}{task}", write()));
    small.write("key", &keys.sk.to_box(None).unwrap().into_string());
    let build = || {
        let mut command = small.build();
        command.env("TIFFIN_SIGN_KEY", small.dir.path().join("key"));
        command.env("TIFFIN_SIGN_PASSWORD", "canary");
        must(&mut command);
        let archive = small.dist().join("small-v1.tar");
        let public = keys.pk.to_base64();
        let mut verify = Command::new(tiffin());
        verify.args(["verify", "--key", &public]).arg(archive);
        let told = must(&mut verify);
        assert!(told.contains("file:small-v1.tar"), "{told}");
        fs::read_to_string(small.dist().join("small-v1.cdx.json")).unwrap()
    };
    let bill = build();
    let sum = fs::read_to_string(small.dist().join("small-v1.tar.sha256")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&bill).unwrap();
    let about = &json["metadata"]["component"];
    assert_eq!(about["name"], "test/small");
    assert_eq!(about["hashes"][0]["content"], sum[..64]);
    for package in ["\"pkg:deb/debian/dpkg@", "\"pkg:deb/debian/python3@"] {
        assert!(bill.contains(package), "{package} is missing");
    }
    assert!(bill.contains("?arch=amd64&distro=debian-12\""));
    assert_eq!(build(), bill, "again from the cache");
    // Of other bytes under the same name, an old signature is none.
    small.write("site.yml", &format!("- hosts: all\n  tasks:\n{}", write()));
    must(&mut small.build());
    assert!(!small.dist().join("small-v1.tar.minisig").exists());
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn an_unchanged_recipe_runs_no_playbook_and_gives_the_same_bytes() {
    let small = Small::new(&write());
    must(&mut small.build());
    let sum = fs::read(small.dist().join("small-v1.tar.sha256")).unwrap();
    let out = output(&mut small.build());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && !said.contains("baked in"), "{said}");
    assert_eq!(
        fs::read(small.dist().join("small-v1.tar.sha256")).unwrap(),
        sum
    );
    must(
        Command::new("sha256sum")
            .args(["-c", "small-v1.tar.sha256"])
            .current_dir(small.dist()),
    );
    assert!(small.dist().join("small-latest.tar").exists());
    nothing_runs_or_is_mounted(small.dir.path());

    // Baked by somebody else, from nothing: the same bytes.
    let cache = small.dir.path().join("cache");
    let out = output(small.build().arg("--cache").arg(&cache));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && said.contains("layer rootfs: baked in"),
        "{said}"
    );
    assert_eq!(
        fs::read(small.dist().join("small-v1.tar.sha256")).unwrap(),
        sum
    );

    small.write("site.yml", &format!("- hosts: all\n  tasks:\n{}", write()));
    let out = output(&mut small.build());
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("layer stack: baked in"),
        "a change is noticed"
    );
    assert_ne!(
        fs::read(small.dist().join("small-v1.tar.sha256")).unwrap(),
        sum
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_failing_task_is_shown_in_ansibles_words() {
    let small =
        Small::new("    - name: Go wrong\n      command: sh -c 'echo deep trouble >&2; exit 3'\n");
    let said = must_fail(&mut small.build(), 1);
    for word in [
        "Go wrong",
        "deep trouble",
        "ansible-playbook",
        "--shell-on-failure",
        "layer `stack`",
    ] {
        assert!(said.contains(word), "`{word}` is missing:\n{said}");
    }
    small.nothing_is_left();
    // A failed layer is never taken from the cache.
    must_fail(&mut small.build(), 1);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn mistakes_in_the_recipe_are_named() {
    let small = Small::new(&write());
    small.write("tiffin.yaml", "name: test/small\nplaybok: site.yml\n");
    let said = must_fail(&mut small.build(), 78);
    assert!(
        said.contains("unknown key `playbok` at line 2")
            && said.contains("did you mean `playbook`?"),
        "{said}"
    );
    small.write("tiffin.yaml", "name: test/small\nplaybook: nowhere.yml\n");
    let said = must_fail(&mut small.build(), 78);
    assert!(
        said.contains("nowhere.yml") && said.contains("does not exist"),
        "{said}"
    );
    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\nsettings:\n  GREETING: {help: none}\n",
    );
    let said = must_fail(&mut small.build(), 1);
    assert!(
        said.contains("GREETING") && said.contains("no template"),
        "{said}"
    );
    small.nothing_is_left();
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_secret_that_no_template_could_renew_stops_the_build() {
    let small = Small::new("    - shell: echo '{{ token }}' > /etc/token\n");
    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\nsettings:\n  TOKEN: {type: secret, generate: 32}\n",
    );
    let said = must_fail(&mut small.build(), 1);
    assert!(
        said.contains("TOKEN") && said.contains("/etc/token"),
        "{said}"
    );
    small.nothing_is_left();
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_secret_in_base64_is_found_too() {
    let small =
        Small::new("    - shell: echo '{{ (\"user:\" ~ token) | b64encode }}' > /etc/token\n");
    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\nsettings:\n  TOKEN: {type: secret, generate: 32}\n",
    );
    let said = must_fail(&mut small.build(), 1);
    assert!(
        said.contains("base64") && said.contains("/etc/token"),
        "{said}"
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn another_inventory_and_a_file_deep_below_are_noticed() {
    let small = Small::new(
        "    - copy: {content: '{{ who }}', dest: /etc/who}\n    - copy: {src: web/dist/app.js, dest: /etc/app.js}\n",
    );
    let name = unique("who");
    small.write("one.ini", &format!("[all:vars]\nwho={name}-one\n"));
    small.write("two.ini", &format!("[all:vars]\nwho={name}-two\n"));
    fs::create_dir_all(small.dir.path().join("web/dist")).unwrap();
    small.write("web/dist/app.js", "first");
    let recipe =
        |inventory: &str| format!("name: test/small\nplaybook: site.yml\ninventory: {inventory}\n");
    let baked = || {
        let out = output(&mut small.build());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{said}");
        said.contains("layer stack: baked in")
    };
    small.write("tiffin.yaml", &recipe("one.ini"));
    assert!(baked());
    small.write("tiffin.yaml", &recipe("two.ini"));
    assert!(baked(), "another inventory");
    small.write("web/dist/app.js", "second");
    assert!(baked(), "another file");
    small.write("tiffin.yaml", &(recipe("two.ini") + "title: Small\n"));
    assert!(!baked(), "a title changes no layer");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn what_the_build_machine_keeps_for_itself_never_reaches_the_contract() {
    let small = Small::new("    - template: {src: env.j2, dest: /etc/env}\n");
    let site = fs::read_to_string(small.dir.path().join("site.yml")).unwrap();
    small.write(
        "site.yml",
        &site.replace("gather_facts: false", "gather_facts: true"),
    );
    small.write(
        "env.j2",
        &format!("{} {{{{ ansible_env.HOME }}}}\n", unique("home")),
    );
    must(small.build().env(
        "PIP_EXTRA_INDEX_URL",
        "http://user:canary9pip@127.0.0.1:9/simple",
    ));
    let contract = small.contract_text();
    assert!(
        contract.contains("/etc/env") && contract.contains("\"identical\""),
        "{contract}"
    );
    assert!(!contract.contains("canary9pip"), "{contract}");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn interrupted_or_killed_it_leaves_nothing_behind() {
    for signal in ["INT", "TERM", "KILL"] {
        let small = Small::new("    - command: sleep 300.25\n");
        let mut child = small.build().stderr(Stdio::null()).spawn().unwrap();
        let sleeping = || {
            Command::new("pgrep")
                .args(["-f", "sleep 300.25"])
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
        };
        assert!(
            within(Duration::from_secs(120), sleeping),
            "the task does not start"
        );
        must(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]));
        let since = Instant::now();
        let status = child.wait().unwrap();
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{signal} takes {:?}",
            since.elapsed()
        );
        if signal != "KILL" {
            assert_eq!(status.code(), Some(130), "{signal}");
        }
        assert!(
            within(Duration::from_secs(10), || !sleeping()),
            "the task goes on after {signal}"
        );
        small.nothing_is_left();
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_full_disk_is_named_and_leaves_nothing() {
    let small = Small::new(&write());
    let full = small.dist();
    fs::create_dir(&full).unwrap();
    // A file system of 1 MB, seen by this build alone.
    let script = format!(
        "mount -t tmpfs -o size=1m tmpfs {} && exec \"$@\"",
        full.display()
    );
    let build = small.build();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(build.get_program())
        .args(build.get_args());
    let said = must_fail(&mut command, 1);
    assert!(said.contains("space"), "{said}");
    small.nothing_is_left();
}

/// From nothing, with packages of apt and pip; then everything again but the packages, with no
/// network: the same bytes.
#[test]
#[ignore = "makes a base twice: make test-long"]
fn long_a_build_without_a_network_has_the_packages_of_one_with() {
    let tasks = "    - apt: {name: [hello, python3-pip, python3-venv], update_cache: true}
    - pip: {name: iniconfig==2.0.0, virtualenv: /opt/venv, virtualenv_command: python3 -m venv}
";
    let small = Small::new(tasks);
    let cache = small.dir.path().join("cache");
    let build = |arguments: &[&str]| {
        let mut command = small.build();
        command.arg("--cache").arg(&cache).args(arguments);
        command
    };
    must(&mut build(&[]));
    let archive = small.dist().join("small-v1.tar");
    let sum = must(Command::new("sha256sum").arg(&archive));
    for gone in ["layers", "blobs"] {
        fs::remove_dir_all(cache.join(gone)).unwrap();
    }
    let before = small.dir.path().join("before.tar");
    fs::rename(&archive, &before).unwrap();
    let out = output(&mut build(&["--offline"]));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && said.contains("layer rootfs: baked in"),
        "{said}"
    );
    assert_eq!(must(Command::new("sha256sum").arg(&archive)), sum);
    let differences = |one: &Path, other: &Path| {
        let mut command = Command::new("diffoscope");
        output(command.args(["--text", "-"]).args([one, other]))
    };
    let out = differences(&before, &archive);
    assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
    let sums = small.dist().join("small-v1.tar.sha256");
    assert_eq!(
        differences(&archive, &sums).status.code(),
        Some(1),
        "it can tell"
    );

    // What was never fetched is named, with what to do.
    for (task, name) in [
        ("apt: {name: sl, update_cache: true}", "sl"),
        (
            "pip: {name: iniconfig==1.1.1, virtualenv: /opt/venv, virtualenv_command: python3 -m venv}",
            "iniconfig",
        ),
    ] {
        small.write(
            "site.yml",
            &format!("- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}    - {task}\n"),
        );
        let said = must_fail(&mut build(&["--offline"]), 1);
        assert!(
            said.contains(name) && said.contains("hint: this build is --offline"),
            "{said}"
        );
    }
}

/// apt locks the directory of its packages, which builds shared.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn two_builds_that_share_a_cache_install_packages_at_the_same_time() {
    let lock = "import fcntl, time; f = open('/run/tiffin/cache/apt/lock', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(20.5)";
    let script = format!("    - command: {{argv: [python3, -c, \"{lock}\"]}}\n");
    let one = Small::new(&(write() + &script));
    let other = Small::new(&format!("{}    - apt: {{name: tree}}\n", write()));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| must(&mut one.build()));
        let locked = || {
            output(Command::new("pgrep").args(["-f", "time.sleep.20.5"]))
                .status
                .success()
        };
        assert!(within(Duration::from_secs(60), locked));
        must(&mut other.build());
        first.join().unwrap();
    });
}
