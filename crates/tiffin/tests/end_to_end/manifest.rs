//! `manifest`: what the box writes for a platform runs it there, unchanged but for names
//! and host ports that tests must not share.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::*;

fn manifest(flags: &[&str], words: &[&str]) -> String {
    let image = image();
    let mut command = docker(&["run", "--rm"]);
    command.args(flags).args([&image, "manifest"]).args(words);
    must(&mut command) + "\n"
}

/// The project and all that is its own.
struct Project<'a> {
    folder: &'a Path,
    name: String,
}

impl Project<'_> {
    fn compose(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command
            .args(["--file", "compose.yaml", "--project-name", &self.name])
            .args(words)
            .current_dir(self.folder);
        command
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let _ = self.compose(&["down", "--volumes"]).output();
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn compose_runs_what_it_writes_with_a_secret_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let text = manifest(
        &[
            "-e",
            "REDIS_MAXMEMORY=77mb",
            "-e",
            "REDIS_PASSWORD_FILE=/given",
        ],
        &["compose", "--memory", "2g"],
    );
    assert!(text.contains("\"80:80\""), "{text}");
    let text = text
        .replace("\"80:80\"", "\"127.0.0.1::80\"")
        .replace("\"443:443\"", "\"127.0.0.1::443\"");
    std::fs::write(dir.path().join("compose.yaml"), text).unwrap();
    let project = Project {
        folder: dir.path(),
        name: unique("compose"),
    };
    // Nothing starts before the secret is there.
    let refused = output(&mut project.compose(&["up", "--detach"]));
    assert!(!refused.status.success(), "a secret is missing");
    let _ = project.compose(&["down", "--volumes"]).output();
    std::fs::create_dir(dir.path().join("secrets")).unwrap();
    std::fs::write(dir.path().join("secrets/REDIS_PASSWORD"), "fromAFile7\n").unwrap();
    must(&mut project.compose(&["up", "--detach"]));
    let name = must(&mut project.compose(&["ps", "--quiet"]));
    let container = Container { name };
    container.round_trip();
    let answer = must(&mut container.exec(&[
        "redis-cli",
        "--no-auth-warning",
        "-a",
        "fromAFile7",
        "config",
        "get",
        "maxmemory",
    ]));
    assert!(answer.contains("80740352"), "{answer}");
    let wanted = [
        ("{{.HostConfig.ReadonlyRootfs}}", "true"),
        ("{{.HostConfig.Memory}}", "2147483648"),
        ("{{.HostConfig.SecurityOpt}}", "[no-new-privileges:true]"),
        ("{{.HostConfig.CapDrop}}", "[ALL]"),
    ];
    for (what, value) in wanted {
        assert_eq!(
            must(&mut docker(&["inspect", "-f", what, &container.name])),
            value,
            "{what}"
        );
    }
    let healthy = || {
        must(&mut docker(&[
            "inspect",
            "-f",
            "{{.State.Health.Status}}",
            &container.name,
        ])) == "healthy"
    };
    assert!(
        within(Duration::from_secs(30), healthy),
        "{}",
        container.logs()
    );
    // The grace is the file's: databases end in time.
    must(&mut project.compose(&["stop"]));
    assert_eq!(
        container.wait(Duration::from_secs(1)),
        0,
        "{}",
        container.logs()
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn the_shell_script_runs_the_box() {
    let dir = tempfile::tempdir().unwrap();
    let container = Container {
        name: unique("script"),
    };
    let text = manifest(&[], &["docker-run", "--name", &container.name]);
    let text = text
        .replace("--publish 80:80", "--publish 127.0.0.1::80")
        .replace("--publish 443:443", "--publish 127.0.0.1::443");
    let volume = Volume {
        name: format!("{}-data", container.name),
    };
    must(
        Command::new("sh")
            .args(["-c", &text])
            .current_dir(dir.path()),
    );
    container.round_trip();
    must(&mut docker(&["stop", &container.name]));
    assert_eq!(
        container.wait(Duration::from_secs(1)),
        0,
        "{}",
        container.logs()
    );
    drop(container);
    assert!(must(&mut docker(&["volume", "ls", "-q"])).contains(&volume.name));
}

/// podman with storage of the test's own.
struct Podman {
    dir: tempfile::TempDir,
    file: std::path::PathBuf,
}

impl Podman {
    fn command(&self, words: &[&str]) -> Command {
        let path = |name: &str| self.dir.path().join(name);
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", path("containers.conf"))
            .arg("--root")
            .arg(path("root"))
            .arg("--runroot")
            .arg(path("run"))
            .arg("--tmpdir")
            .arg(path("tmp"))
            .args([
                "--storage-driver",
                "vfs",
                "--runtime",
                "runc",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "file",
            ])
            .args(words);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let file = self.file.display().to_string();
        let _ = self.command(&["kube", "down", &file]).output();
        let _ = self.command(&["system", "reset", "--force"]).output();
    }
}

#[test]
#[ignore = "needs a baked box and minutes: make test-long"]
fn long_podman_plays_what_is_written_for_kubernetes() {
    let dir = tempfile::tempdir().unwrap();
    // Its default is a million open files, which not every machine's root may have.
    let files = must(Command::new("sh").args(["-c", "ulimit -Hn"]));
    let limits = format!("[containers]\ndefault_ulimits = [\"nofile={files}:{files}\"]\n");
    std::fs::write(dir.path().join("containers.conf"), limits).unwrap();
    let file = dir.path().join("box.yaml");
    let podman = Podman { dir, file };
    let name = unique("pod");
    let text = manifest(
        &["-e", "REDIS_PASSWORD_FILE=/given"],
        &["kubernetes", "--name", &name],
    );
    let empty = "REDIS_PASSWORD: \"\"";
    assert!(text.contains(empty), "{text}");
    let text = text.replace(empty, "REDIS_PASSWORD: fromAFile7").replace(
        "{containerPort: 80}",
        "{containerPort: 80, hostPort: 18093}",
    );
    std::fs::write(&podman.file, text).unwrap();
    let archive = archive().display().to_string();
    must(&mut podman.command(&["load", "--input", &archive]));
    let path = podman.file.display().to_string();
    must(&mut podman.command(&["kube", "play", &path]));
    let container = format!("{name}-pod-0-{name}");
    let ready = || {
        output(&mut podman.command(&["exec", &container, "tiffin", "health", "--ready"]))
            .status
            .success()
    };
    let is_ready = within(Duration::from_secs(120), ready);
    assert!(
        is_ready,
        "{}",
        must(&mut podman.command(&["logs", &container]))
    );
    let said = must(&mut podman.command(&[
        "exec",
        &container,
        "redis-cli",
        "--no-auth-warning",
        "-a",
        "fromAFile7",
        "ping",
    ]));
    assert_eq!(said, "PONG");
    let mut smoke = Command::new("sh");
    smoke
        .arg(repository().join("examples/reference/smoke.sh"))
        .args(["http://127.0.0.1:18093", MONITORING]);
    must(&mut smoke);
}
