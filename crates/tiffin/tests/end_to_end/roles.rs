//! One image as several boxes: a web tier, workers, a scheduler and the migration, with
//! databases elsewhere.

use std::process::Command;
use std::time::Duration;

use crate::harness::*;
use crate::https::{fingerprint, pair};

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn boxes_of_roles_make_one_product() {
    let network = Network::new();
    let databases = Databases::new(&network.name);
    let flags = databases.flags();
    let start = |role: &str| {
        let role = format!("TIFFIN_ROLE={role}");
        let mut all = vec![
            "--network",
            &network.name,
            "--read-only",
            "--tmpfs",
            "/data",
        ];
        all.extend(["-e", &role]);
        all.extend(flags.iter().map(String::as_str));
        Container::run(&all)
    };
    let ready = |container: &Container| {
        output(&mut container.exec(&["tiffin", "health", "--ready"]))
            .status
            .success()
    };
    let web = start("web");
    let others = [start("worker"), start("scheduler")];
    // Nobody serves an old schema.
    let waits = || {
        web.logs()
            .contains("backend-migrate is another box's: waiting")
    };
    assert!(within(Duration::from_secs(60), waits), "{}", web.logs());
    assert!(!ready(&web), "{}", web.logs());
    let migrate = start("migrate");
    assert_eq!(
        migrate.wait(Duration::from_secs(90)),
        0,
        "{}",
        migrate.logs()
    );
    web.until_healthy();
    others.iter().for_each(Container::until_healthy);
    web.round_trip();
    // Another one is ready at once: its migration is long done.
    let second = start("web");
    second.round_trip();
    let status = must(&mut web.exec(&["tiffin", "status"]));
    for (name, said) in [
        ("backend-worker", "it is part of the role worker"),
        ("mongod", "does not hold"),
        ("nginx", "ready"),
    ] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(said), "{status}");
    }
    // Over HTTPS all boxes have one certificate, given as a platform's secrets are.
    let dir = tempfile::tempdir().unwrap();
    pair(dir.path(), "server", None);
    let role = "TIFFIN_ROLE=web";
    let mut with_https = vec![
        "--network",
        &network.name,
        "--read-only",
        "--tmpfs",
        "/data",
    ];
    with_https.extend(["-e", role, "-e", "HTTPS=on", "-p", "127.0.0.1::443"]);
    with_https.extend(flags.iter().map(String::as_str));
    let refused = Container::run(&with_https);
    assert_eq!(refused.wait(Duration::from_secs(30)), 78);
    let said = refused.logs();
    assert!(
        said.contains("HTTPS_CERTIFICATE: ") && said.contains("HTTPS_KEY: "),
        "{said}"
    );
    let secrets = [("HTTPS_CERTIFICATE", "pem"), ("HTTPS_KEY", "key")].map(|(name, end)| {
        format!(
            "{}:/run/secrets/{name}:ro",
            dir.path().join(format!("server.{end}")).display()
        )
    });
    for secret in &secrets {
        with_https.extend(["-v", secret]);
    }
    let served = [(); 2].map(|()| {
        let container = Container::run(&with_https);
        container.until_healthy();
        fingerprint(&container, dir.path())
    });
    let own = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
    let own = must(
        Command::new("openssl")
            .args(own)
            .arg(dir.path().join("server.pem")),
    );
    assert!(
        served.iter().all(|one| own.ends_with(one.as_str())),
        "{served:?} {own}"
    );

    // What it forgets is asked for, all at once.
    let image = image();
    let out = must_fail(
        &mut docker(&["run", "--rm", "-e", "TIFFIN_ROLE=web", &image]),
        78,
    );
    for name in [
        "MONGODB_HOST",
        "REDIS_HOST",
        "MONGODB_PASSWORD",
        "REDIS_PASSWORD",
    ] {
        assert!(out.contains(&format!("{name}: ")), "{out}");
    }
}

/// A Swarm of this engine alone; what was made for it ends with it.
struct Swarm {
    stack: String,
    network: String,
}

impl Swarm {
    fn new() -> Swarm {
        let state = must(&mut docker(&["info", "-f", "{{.Swarm.LocalNodeState}}"]));
        assert_eq!(state, "inactive", "the engine is part of a swarm already");
        must(&mut docker(&[
            "swarm",
            "init",
            "--advertise-addr",
            "127.0.0.1",
        ]));
        let swarm = Swarm {
            stack: unique("stack"),
            network: unique("overlay"),
        };
        must(&mut docker(&[
            "network",
            "create",
            "--driver",
            "overlay",
            "--attachable",
            &swarm.network,
        ]));
        swarm
    }

    fn secret(&self, name: &str, value: &str) {
        let script = format!("printf %s \"$1\" | docker secret create '{name}' -");
        must(Command::new("sh").args(["-c", &script, "sh", value]));
    }
}

impl Stack for Swarm {
    fn name(&self) -> &str {
        &self.stack
    }

    fn docker(&self, words: &[&str]) -> Command {
        docker(words)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ = docker(&["stack", "rm", &self.stack]).output();
        let none_left = || {
            let label = format!("label=com.docker.stack.namespace={}", self.stack);
            output(&mut docker(&["ps", "-aq", "--filter", &label]))
                .stdout
                .is_empty()
        };
        within(Duration::from_secs(90), none_left);
        let _ = docker(&["swarm", "leave", "--force"]).output();
        let _ = docker(&["network", "rm", &self.network, "docker_gwbridge"]).output();
    }
}

#[test]
#[ignore = "needs a baked box: make test-long"]
fn long_a_stack_is_updated_and_scaled_under_load_without_a_failed_request_or_a_lost_job() {
    let swarm = Swarm::new();
    let databases = Databases::new(&swarm.network);
    for name in ["MONGODB_PASSWORD", "REDIS_PASSWORD"] {
        swarm.secret(&format!("backend-{name}"), Databases::PASSWORD);
    }
    let image = image();
    let mut command = docker(&["run", "--rm"]);
    command.args(databases.settings());
    command.args([&image, "manifest", "swarm", "--scale", "web=2,worker=2"]);
    swarm.deploy(&must(&mut command), &swarm.network);
    for (role, replicas) in [
        ("web", "2/2"),
        ("worker", "2/2"),
        ("scheduler", "1/1"),
        ("migrate", "0/1"),
    ] {
        swarm.until(role, replicas, 180);
    }

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("load.py"), include_str!("load.py")).unwrap();
    let load = Container {
        name: unique("load"),
    };
    let mount = format!("{}:/load.py:ro", dir.path().join("load.py").display());
    let tasks = format!("tasks.{}", swarm.service("web"));
    let mut command = docker(&[
        "run",
        "-d",
        "--name",
        &load.name,
        "--network",
        &swarm.network,
    ]);
    command.args(["-v", &mount, "--entrypoint", "/usr/bin/python3", &image]);
    must(command.args(["/load.py", &tasks, "150"]));
    swarm.update("web");
    swarm.update("worker");
    swarm.scale("web", 4);
    swarm.scale("web", 1);
    swarm.scale("worker", 1);
    let running = must(&mut docker(&[
        "inspect",
        "-f",
        "{{.State.Running}}",
        &load.name,
    ]));
    assert_eq!(running, "true", "the load was over before the updates were");
    assert_eq!(load.wait(Duration::from_secs(300)), 0, "{}", load.logs());
    let told: serde_json::Value =
        serde_json::from_str(load.logs().lines().last().unwrap()).unwrap();
    eprintln!("{told}");
    assert_eq!(told["failures"], serde_json::json!([]), "{told}");
    assert_eq!(told["lost"], serde_json::json!([]), "{told}");
    assert!(
        told["boxes"].as_u64() >= Some(5) && told["jobs"].as_u64() >= Some(50),
        "{told}"
    );
}
