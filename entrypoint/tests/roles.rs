//! `TIFFIN_ROLE`: parts of one image as boxes of their own.

mod common;

use common::TestBox;
use serde_json::json;

/// A database that a setting can put elsewhere, a job, and two services that wait for both.
fn stack() -> TestBox {
    let mut b = TestBox::new();
    b.contract["roles"] = json!({
        "web": {"services": ["web"], "ports": [80]},
        "worker": {"services": ["worker"]},
        "migrate": {"services": ["migrate"], "single": true},
    });
    b.contract["ports"] = json!([80]);
    b.contract["variables"] =
        json!({"db_host": "127.0.0.1", "db_bundled": "{{ db_host == '127.0.0.1' }}"});
    for (name, setting) in [
        ("DB_HOST", json!({"variable": "db_host", "type": "host"})),
        (
            "DB_ADMIN",
            json!({"variable": "db_admin", "type": "secret", "generate": 8}),
        ),
        (
            "SESSION_KEY",
            json!({"variable": "session_key", "type": "secret", "generate": 8}),
        ),
    ] {
        b.put("settings", name, setting);
    }
    for name in ["db", "web", "worker"] {
        b.script(name, &format!("echo {name} runs; exec sleep 1000"));
        b.unit(
            &format!("{name}.service"),
            &format!("[Service]\nExecStart=ROOT/bin/{name}\nEnvironmentFile=ROOT/etc/{name}.env\n"),
        );
    }
    b.script("migrate", "echo migrated; echo done >> ROOT/migrated");
    b.unit(
        "migrate.service",
        "[Service]\nType=oneshot\nExecStart=ROOT/bin/migrate\n",
    );
    let root = b.dir.path().to_str().unwrap().to_owned();
    b.put("services", "db", json!({"when": "db_bundled"}));
    b.put(
        "services",
        "migrate",
        json!({"once": true, "after": ["db"], "done": format!("echo looked >> {root}/looked; test -e {root}/migrated")}),
    );
    for name in ["web", "worker"] {
        b.put("services", name, json!({"after": ["db", "migrate"]}));
    }
    for (dest, body) in [
        ("/etc/db.env", "ADMIN={{ db_admin }}\n"),
        ("/etc/web.env", "KEY={{ session_key }}\n"),
        ("/etc/worker.env", "HOST={{ db_host }}\n"),
    ] {
        b.template(&format!("{root}{dest}"), body);
        b.file(dest, "");
    }
    b
}

fn elsewhere(role: &str) -> TestBox {
    let mut b = stack();
    b.env("TIFFIN_ROLE", role)
        .env("DB_HOST", "db.test")
        .env("SESSION_KEY", "k3y");
    b
}

#[test]
fn without_a_role_all_services_run() {
    for role in [None, Some("all")] {
        let mut b = stack();
        if let Some(role) = role {
            b.env("TIFFIN_ROLE", role);
        }
        let running = b.start().until(&b, "web ready").until(&b, "worker ready");
        b.wait_status("db ready");
        b.wait_for("/migrated");
        assert!(!b.path("/looked").exists(), "the job is the box's own");
        running.stop().exits(0);
    }
}

#[test]
fn a_box_of_a_role_runs_its_services_and_waits_for_the_job_of_another() {
    let b = elsewhere("web");
    let running = b.start();
    b.wait_log("migrate is another box's: waiting until it is done");
    let ready = b.run(&["health", "--ready"]);
    ready.exits(1).says("migrate");
    b.file("/migrated", "by another box\n");
    let running = running.until(&b, "web ready");
    b.run(&["health", "--ready"]).exits(0);
    let status = b.run(&["status", "--json"]).out;
    assert!(status.contains("it is part of the role worker"), "{status}");
    let ended = running.stop();
    ended.exits(0);
    assert!(!ended.out.contains("worker runs") && !ended.out.contains("db runs"));
    assert!(!ended.out.contains("migrated\n"), "{}", ended.out);
}

#[test]
fn a_box_of_jobs_ends_when_they_are_done() {
    let b = elsewhere("migrate");
    let ended = b.start().end();
    ended.exits(0).says("every service has ended");
    assert_eq!(b.wait_for("/migrated"), "done\n");
    assert!(!b.path("/looked").exists());
}

#[test]
fn several_roles_share_a_box() {
    let b = elsewhere("worker, migrate");
    let running = b.start().until(&b, "worker ready");
    b.wait_for("/migrated");
    let ended = running.stop();
    ended.exits(0);
    assert!(!ended.out.contains("web runs"), "{}", ended.out);
}

#[test]
fn what_boxes_must_agree_on_is_asked_for_at_once_and_nothing_is_touched() {
    let mut b = stack();
    b.env("TIFFIN_ROLE", "web");
    let ended = b.start().end();
    ended
        .exits(78)
        .says("DB_HOST: db is part of no role, so it must be elsewhere, and `db_bundled` says that it is bundled")
        .says("SESSION_KEY: it is generated where one box runs all services");
    // Of the database's own password no box of a role knows anything.
    assert!(!ended.err.contains("DB_ADMIN"), "{}", ended.err);
    assert!(!b.path("/data/.tiffin").exists());
}

#[test]
fn a_password_that_a_url_takes_the_place_of_is_not_asked_for() {
    let start = |url: Option<&str>| {
        let mut b = elsewhere("web");
        for (name, setting) in [
            (
                "DB_URL",
                json!({"variable": "db_url", "type": "url", "secret": true}),
            ),
            (
                "DB_PASSWORD",
                json!({"variable": "db_password", "type": "secret", "generate": 8}),
            ),
        ] {
            b.put("settings", name, setting);
        }
        b.contract["variables"]["db_url"] = json!("");
        let dest = format!("{}/etc/url.env", b.dir.path().display());
        let body = "URL={{ db_url if db_url else 'db://:' ~ db_password ~ '@db.test' }}\n";
        b.template(&dest, body);
        b.file("/etc/url.env", "");
        if let Some(url) = url {
            b.env("DB_URL", url);
        }
        b.file("/migrated", "by another box\n");
        b
    };
    let ended = start(None).start().end();
    ended.exits(78).says("DB_PASSWORD: it is generated");
    let b = start(Some("db://:x@db.test"));
    b.start().until(&b, "web ready").stop().exits(0);
}

#[test]
fn a_role_that_the_box_has_not_is_named() {
    let mut b = stack();
    b.env("TIFFIN_ROLE", "wrker").env("TIFFIN_DRAIN", "soon");
    b.start()
        .end()
        .exits(78)
        .says("TIFFIN_ROLE")
        .says("did you mean `worker`?")
        .says("TIFFIN_DRAIN")
        .says("a number of seconds");
    let mut b = TestBox::new();
    b.unit("a.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.env("TIFFIN_ROLE", "web");
    b.start().end().exits(78).says("this box has no roles");
}

#[test]
fn a_box_that_drains_serves_and_says_that_it_is_not_ready() {
    let mut b = elsewhere("web");
    b.env("TIFFIN_DRAIN", "2");
    b.file("/migrated", "\n");
    let running = b.start().until(&b, "web ready");
    running.signal("-TERM");
    b.wait_log("web runs");
    common::wait("the drain", || {
        (b.run(&["health", "--ready"]).code == Some(1)).then_some(())
    });
    b.run(&["health", "--ready"])
        .exits(1)
        .says("the box drains");
    b.run(&["health", "--live"]).exits(0);
    b.wait_status("web ready");
    let begun = std::time::Instant::now();
    let ended = running.end();
    assert!(begun.elapsed().as_secs_f64() > 0.5, "it served for a while");
    ended
        .exits(0)
        .says("not ready from now on, and stopping in 2.0 s");
}

#[test]
fn a_second_signal_ends_the_drain() {
    let mut b = elsewhere("web");
    b.env("TIFFIN_DRAIN", "600");
    b.file("/migrated", "\n");
    let running = b.start().until(&b, "web ready");
    running.signal("-TERM");
    b.run(&["health", "--live"]).exits(0);
    running.stop().exits(0);
}

#[test]
fn a_manifest_has_a_service_for_each_role() {
    let mut b = stack();
    b.env("DB_HOST", "db.test");
    let swarm = b.run(&["manifest", "swarm", "--scale", "web=3"]);
    swarm.exits(0);
    let read: serde_json::Value = serde_yaml::from_str(&swarm.out).unwrap();
    let service = |name: &str| read["services"][format!("test-{name}")].clone();
    assert_eq!(service("web")["deploy"]["replicas"], 3);
    assert_eq!(service("worker")["deploy"]["replicas"], 1);
    assert_eq!(service("web")["environment"]["TIFFIN_ROLE"], "web");
    assert_eq!(service("web")["environment"]["TIFFIN_DRAIN"], "10");
    assert_eq!(service("web")["environment"]["DB_HOST"], "db.test");
    assert_eq!(
        service("web")["deploy"]["update_config"]["order"],
        "start-first"
    );
    assert_eq!(service("web")["ports"][0]["target"], 80);
    assert_eq!(service("worker")["ports"], json!(null));
    let job = service("migrate");
    assert_eq!(job["deploy"]["restart_policy"]["condition"], "on-failure");
    // Nothing lasts in such a box, and what all must agree on is a secret of the platform.
    assert_eq!(service("web")["volumes"][0]["type"], "tmpfs");
    assert_eq!(service("web")["secrets"], json!(["SESSION_KEY"]));
    assert_eq!(read["volumes"], json!(null));
}

#[test]
fn boxes_that_serve_https_are_given_one_certificate() {
    let with_https = |mut b: TestBox| {
        for (name, kind) in [("CERT", "certificate"), ("CERT_KEY", "key")] {
            let variable = name.to_lowercase();
            b.put("variables", &variable, json!(""));
            b.put(
                "settings",
                name,
                json!({"variable": variable, "type": kind}),
            );
        }
        b.put(
            "certificates",
            "web",
            json!({"certificate": "CERT", "key": "CERT_KEY"}),
        );
        let root = b.dir.path().to_str().unwrap().to_owned();
        b.template(
            &format!("{root}/etc/web.env"),
            "KEY={{ session_key }}\nCERT={{ cert | hash }}{{ cert_key | hash }}\n",
        );
        b
    };
    // A pair that each box makes for itself would be another one with each request.
    let mut b = with_https(stack());
    b.env("DB_HOST", "db.test");
    for platform in ["swarm", "kubernetes"] {
        let text = b.run(&["manifest", platform, "--scale", "web=3"]);
        text.exits(0);
        for name in ["CERT", "CERT_KEY", "SESSION_KEY"] {
            assert!(text.out.contains(name), "{platform}, {name}: {}", text.out);
        }
        if platform == "swarm" {
            let read: serde_json::Value = serde_yaml::from_str(&text.out).unwrap();
            let web = &read["services"]["test-web"]["secrets"];
            assert_eq!(*web, json!(["CERT", "CERT_KEY", "SESSION_KEY"]));
            assert_eq!(read["secrets"]["CERT_KEY"]["name"], "test-CERT_KEY");
        }
    }
    let b = with_https(elsewhere("web"));
    b.run(&["start"])
        .exits(78)
        .says("CERT: it is generated where one box runs all services")
        .says("CERT_KEY: it is generated");
    // Who serves nothing needs none.
    let b = with_https(elsewhere("worker"));
    b.file("/migrated", "by another box\n");
    b.start().until(&b, "worker ready").stop().exits(0);
    // One box has nobody to agree with.
    let b = with_https(stack());
    let alone = b.run(&["manifest", "swarm"]);
    assert!(
        !alone.exits(0).out.contains("name: test-CERT"),
        "{}",
        alone.out
    );
}

#[test]
fn what_a_scaled_manifest_lacks_stays_open() {
    let b = stack();
    let swarm = b.run(&["manifest", "swarm", "--scale", "worker=0"]);
    swarm.exits(0);
    assert!(swarm.out.contains("${DB_HOST:?required}"), "{}", swarm.out);
    assert!(!swarm.out.contains("test-worker"), "{}", swarm.out);
    let b = elsewhere("all");
    let kubernetes = b.run(&["manifest", "kubernetes", "--scale", "web=2"]);
    kubernetes.exits(0);
    for wanted in [
        "kind: Job",
        "name: test-migrate-v1",
        "replicas: 2",
        "maxUnavailable: 0",
        "emptyDir",
    ] {
        assert!(
            kubernetes.out.contains(wanted),
            "{wanted}: {}",
            kubernetes.out
        );
    }
    assert!(!kubernetes.out.contains("PersistentVolumeClaim"));
    for (words, says) in [
        (["swarm", "--scale", "wab=2"], "which the box has not"),
        (
            ["swarm", "--scale", "migrate=2"],
            "there may be one box, not 2",
        ),
        (["swarm", "--scale", "web"], "roles and numbers"),
        (
            ["compose", "--scale", "web=2"],
            "write one for swarm or kubernetes",
        ),
    ] {
        let words: Vec<&str> = ["manifest"].into_iter().chain(words).collect();
        b.run(&words).exits(64).says(says);
    }
}
