//! What a customer does: run it, use it, keep the data, stop it.

use std::{fs, time::Duration};

use crate::harness::*;

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn answers_its_monitoring_and_computes_reports() {
    let volume = Volume::new();
    let container = Container::run(&["-v", &volume.flag()]);
    let report = container.round_trip();

    // The report outlives the container.
    drop(container);
    let container = Container::run(&["-v", &volume.flag()]);
    let there = within(Duration::from_secs(120), || {
        container.get(&format!("/reports/{report}")).0 == 200
    });
    assert!(there, "the report is gone:\n{}", container.logs());
    let (_, body) = container.get(&format!("/reports/{report}"));
    assert!(body.contains("2.5"), "{body}");

    container.until_healthy();
    let status = must(&mut container.exec(&["tiffin", "status"]));
    for service in [
        "mongod",
        "redis-server",
        "backend-web",
        "backend-worker",
        "nginx",
    ] {
        assert!(status.contains(service), "{status}");
    }

    // Stops in order, and says so.
    must(&mut docker(&["stop", "-t", "60", &container.name]));
    assert_eq!(
        container.wait(Duration::from_secs(1)),
        0,
        "{}",
        container.logs()
    );
    assert!(
        container.logs().contains("mongod | "),
        "service output reaches docker logs:\n{}",
        container.logs()
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn an_empty_directory_of_the_host_serves_as_volume() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let container = Container::run(&["-v", &format!("{}:/data", data.display())]);
    container.round_trip();
    assert!(data.join("mongodb/WiredTiger").exists());
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_setting_changes_the_files_that_it_reaches() {
    let container = Container::run(&[
        "-e",
        "REDIS_MAXMEMORY=77mb",
        "-e",
        "MONITORING_USER_AGENT=corp-probe/2",
    ]);
    let answers = || {
        let url = container.url() + "/status";
        let mut curl = std::process::Command::new("curl");
        output(curl.args(["-sf", "-A", "corp-probe/2", &url]))
            .status
            .success()
    };
    assert!(
        within(Duration::from_secs(120), answers),
        "{}",
        container.logs()
    );
    assert_eq!(
        container.get("/status").0,
        404,
        "the old User-Agent is a stranger now"
    );
    let conf = must(&mut container.exec(&["cat", "/etc/redis/redis.conf"]));
    assert!(conf.lines().any(|l| l.trim() == "maxmemory 77mb"), "{conf}");
    let mode =
        must(&mut container.exec(&["stat", "-L", "-c", "%U:%G %a", "/etc/redis/redis.conf"]));
    assert!(
        mode.starts_with("redis:") || mode.ends_with("640"),
        "owner and mode stay: {mode}"
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn generated_passwords_stay_over_a_new_container() {
    let volume = Volume::new();
    let password = |container: &Container| {
        container.until_healthy();
        must(&mut container.exec(&["sed", "-n", "s/^requirepass //p", "/etc/redis/redis.conf"]))
    };
    let first = password(&Container::run(&["-v", &volume.flag()]));
    let container = Container::run(&["-v", &volume.flag()]);
    let second = password(&container);
    assert!(
        first.len() >= 32 && !first.contains("placeholder"),
        "{first}"
    );
    assert_eq!(first, second);
    assert!(
        !container.logs().contains(&first),
        "the password is in the log"
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_report_is_mailed_through_the_smtp_server_of_the_settings() {
    let network = Network::new();
    // The box has Python, and any command runs in it: a mail server that prints what it gets.
    let server = Container {
        name: unique("smtp"),
    };
    let mut command = docker(&[
        "run",
        "-d",
        "--name",
        &server.name,
        "--network",
        &network.name,
        &image(),
    ]);
    must(command.args([
        "python3",
        "-u",
        "-W",
        "ignore",
        "-m",
        "smtpd",
        "-n",
        "-c",
        "DebuggingServer",
        "0.0.0.0:2525",
    ]));
    let to = format!("MAIL_SERVER={}", server.name);
    let container = Container::run(&[
        "--network",
        &network.name,
        "-e",
        &to,
        "-e",
        "MAIL_PORT=2525",
        "-e",
        "MAIL_FROM=box@acme.test",
    ]);
    container.round_trip_with_mail("auditor@bank.test");
    let arrived =
        || server.logs().contains("auditor@bank.test") && server.logs().contains("box@acme.test");
    assert!(
        within(Duration::from_secs(30), arrived),
        "{}\n{}",
        server.logs(),
        container.logs()
    );
}
