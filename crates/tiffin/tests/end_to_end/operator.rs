//! What an operator asks of a box, and what it says when something is wrong.

use std::time::Duration;

use crate::harness::*;

fn run(flags: &[&str], words: &[&str]) -> std::process::Command {
    let image = image();
    let mut command = docker(&["run", "--rm"]);
    command.args(flags).arg(&image).args(words);
    command
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn explains_itself() {
    let help = must(&mut run(&[], &["help"]));
    for verb in ["settings", "check", "render", "status"] {
        assert!(help.contains(verb), "{help}");
    }
    let settings = must(&mut run(&[], &["settings"]));
    assert!(
        settings.contains("REDIS_MAXMEMORY") && settings.contains("/etc/redis/redis.conf"),
        "{settings}"
    );
    must(&mut run(&[], &["check"]));
    let rendered = must(&mut run(&["-e", "REDIS_MAXMEMORY=99mb"], &["render"]));
    assert!(rendered.contains("maxmemory 99mb"), "{rendered}");
    assert_eq!(
        must(&mut run(
            &["-e", "REDIS_MAXMEMORY=98mb"],
            &["grep", "^maxmemory ", "/etc/redis/redis.conf"]
        )),
        "maxmemory 98mb"
    );
    must_fail(&mut run(&[], &["sh", "-c", "exit 7"]), 7);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_shell_has_job_control() {
    let script = include_str!("../../../../entrypoint/tests/terminal.py");
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script, "docker", "run", "--rm", "-it"]);
    command.arg(image()).args(["bash", "--norc"]);
    assert_eq!(must(&mut command), "exit code 7");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn without_a_volume_it_warns_and_two_on_one_volume_are_one_too_many() {
    let settings = must(&mut run(&[], &["settings"]));
    let volume = "All that must last lies on /data: run the box with a volume there, -v data:/data";
    assert!(settings.contains(volume), "{settings}");
    let bare = Container::run(&[]);
    bare.until_healthy();
    let logs = bare.logs();
    assert!(
        logs.contains("preflight: volume /data") && logs.contains("-v data:/data"),
        "{logs}"
    );
    must(&mut docker(&["stop", "-t", "60", &bare.name]));
    drop(bare);

    let volume = Volume::new();
    let flag = volume.flag();
    let first = Container::run(&["-v", &flag]);
    first.until_healthy();
    let logs = first.logs();
    assert!(!logs.contains("preflight: volume /data"), "{logs}");
    let said = must_fail(&mut run(&["-v", &flag], &[]), 75);
    let host = must(&mut first.exec(&["hostname"]));
    for wanted in [
        "another running box has locked it",
        &host,
        "stop that container first",
    ] {
        assert!(said.contains(wanted), "no `{wanted}` in {said}");
    }
    // The first one has not noticed.
    first.round_trip();
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn names_all_wrong_settings_at_once_and_starts_nothing() {
    let flags = [
        "-e",
        "REDIS_PORT=many",
        "-e",
        "MONGODB_HOTS=db.corp",
        "-e",
        "WEB_WORKERS=0",
    ];
    let said = must_fail(&mut run(&flags, &[]), 78);
    for word in [
        "REDIS_PORT",
        "many",
        "MONGODB_HOTS",
        "MONGODB_HOST",
        "WEB_WORKERS",
    ] {
        assert!(said.contains(word), "`{word}` is missing:\n{said}");
    }
    assert!(!said.contains("mongod |"), "{said}");
    must_fail(&mut run(&flags, &["check"]), 78);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn secrets_given_as_files_are_used_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "canary7Secret0Value";
    std::fs::write(dir.path().join("redis"), format!("{secret}\n")).unwrap();
    let mount = format!("{}:/run/given:ro", dir.path().display());
    let flags = [
        "-v",
        mount.as_str(),
        "-e",
        "REDIS_PASSWORD_FILE=/run/given/redis",
    ];
    let container = Container::run(&flags);
    container.until_healthy();
    let pong = must(&mut container.exec(&["redis-cli", "--no-auth-warning", "-a", secret, "ping"]));
    assert_eq!(pong, "PONG");
    assert!(!container.logs().contains(secret));
    let processes = must(&mut docker(&["top", &container.name, "-eo", "pid,args"]));
    assert!(!processes.contains(secret), "{processes}");
    let shown = must(&mut run(&flags, &["render"])) + &must(&mut run(&flags, &["settings"]));
    assert!(!shown.contains(secret));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_value_of_two_lines_is_refused() {
    let said = must_fail(
        &mut run(&["-e", "REDIS_PASSWORD=first7half\nport 7777"], &["check"]),
        78,
    );
    assert!(
        said.contains("REDIS_PASSWORD") && !said.contains("first7half"),
        "{said}"
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn the_log_is_of_the_level_and_the_time_zone_of_the_settings() {
    let level = |level: &str| format!("LOG_LEVEL={level}");
    let run = |level: &str| {
        let container = Container::run(&["-e", level, "-e", "TIMEZONE=Asia/Kathmandu"]);
        container.round_trip();
        container
    };
    let lines = |container: &Container, service: &str| -> Vec<String> {
        let logs = container.logs();
        let of_it = logs.lines().filter(|line| line.starts_with(service));
        of_it.map(str::to_owned).collect()
    };
    let has = |lines: &[String], word: &str| lines.iter().any(|line| line.contains(word));
    // A quarter of an hour off from everybody else.
    let there = || {
        let mut date = std::process::Command::new("date");
        must(date.env("TZ", "UTC-05:45").arg("+%Y-%m-%d %H:"))
    };
    let before = there();
    let container = run(&level("debug"));
    let (web, worker) = (
        lines(&container, "backend-web"),
        lines(&container, "backend-worker"),
    );
    let in_time = |lines: &[String]| has(lines, &before) || has(lines, &there());
    assert!(in_time(&web) && has(&web, " +0545]"), "{web:?}");
    assert!(in_time(&worker), "{worker:?}");
    assert!(
        has(&web, "[DEBUG]") && has(&worker, ": DEBUG/"),
        "{web:?} {worker:?}"
    );
    let nginx = lines(&container, "nginx");
    assert!(has(&nginx, " +0545] \"GET /reports"), "{nginx:?}");
    let mongod = lines(&container, "mongod");
    assert!(has(&mongod, "+05:45\"}"), "{mongod:?}");
    drop(container);

    let container = run(&level("error"));
    let (web, worker) = (
        lines(&container, "backend-web"),
        lines(&container, "backend-worker"),
    );
    for word in ["[DEBUG]", "[INFO]", "[WARNING]"] {
        assert!(!has(&web, word), "{web:?}");
    }
    for word in [": DEBUG/", ": INFO/", ": WARNING/"] {
        assert!(!has(&worker, word), "{worker:?}");
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_command_in_a_running_box_leaves_its_files_alone() {
    let container = Container::run(&[]);
    container.until_healthy();
    must(&mut docker(&[
        "exec",
        "-e",
        "REDIS_PORT=7000",
        &container.name,
        "tiffin",
        "true",
    ]));
    let conf = must(&mut container.exec(&["grep", "^port ", "/etc/redis/redis.conf"]));
    assert_eq!(conf, "port 6379");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_service_that_keeps_dying_ends_the_container() {
    let container = Container::run(&["-v", "/bin/false:/usr/bin/redis-server:ro"]);
    assert_eq!(
        container.wait(Duration::from_secs(120)),
        69,
        "{}",
        container.logs()
    );
    let logs = container.logs();
    assert!(logs.contains("redis-server"), "{logs}");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn orphans_are_reaped_and_killed_services_come_back() {
    let container = Container::run(&[]);
    container.round_trip();
    must(&mut container.exec(&[
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.1 &) ; done",
    ]));
    must(&mut container.exec(&["sh", "-c", "kill -9 $(pidof redis-server)"]));
    container.until_healthy();
    container.round_trip();
    let zombies = must(&mut container.exec(&[
        "sh",
        "-c",
        "grep -h ^State: /proc/[0-9]*/status | grep -c Z || true",
    ]));
    assert_eq!(zombies, "0");
}
