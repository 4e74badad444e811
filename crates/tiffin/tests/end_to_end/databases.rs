//! MongoDB's major upgrades: which data its server opens is known before it is started.

use crate::harness::*;

const NOTE: &str = "/data/mongodb/feature-compatibility-version";

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn data_that_mongod_cannot_open_is_refused_with_the_release_to_pass_through() {
    let volume = Volume::new();
    let container = Container::run(&["-v", &volume.flag()]);
    container.until_healthy();
    let note = || must(&mut container.exec(&["cat", NOTE]));
    let server = must(&mut container.exec(&["/opt/mongodb/bin/mongod", "--version"]));
    assert!(
        server.starts_with("db version v6.0."),
        "the cases are for 6.0: {server}"
    );
    assert_eq!(note(), "6.0");

    // The variable of the role sets it, both ways.
    for wanted in ["5.0", "6.0"] {
        let script = format!(
            "import json, subprocess; c = json.load(open('/etc/mongodb/users.json')); c['feature_compatibility'] = '{wanted}'; \
             json.dump(c, open('/dev/shm/users.json', 'w')); \
             subprocess.run(['/opt/mongodb/bin/ensure-users', '/dev/shm/users.json'], check=True)"
        );
        let mut command = docker(&["exec", "-u", "mongodb", &container.name]);
        let said = must(command.args(["/opt/mongodb/venv/bin/python", "-c", &script]));
        assert!(said.contains(&format!("is {wanted} now")), "{said}");
        assert_eq!(note(), wanted);
    }
    must(&mut docker(&["stop", "-t", "60", &container.name]));
    drop(container);

    let shell = |script: &str| {
        let mut command = docker(&[
            "run",
            "--rm",
            "-v",
            &volume.flag(),
            "--entrypoint",
            "/bin/sh",
        ]);
        must(command.arg(image()).args(["-c", script]))
    };
    let list = "cd /data && find . -path ./.tiffin/lock -o -printf '%p %T@ %s\\n' | grep -v '^./.tiffin ' | sort";
    for (data, wanted) in [
        (
            "4.4",
            "First run a release with MongoDB 5.0 that sets the feature compatibility version to 5.0.",
        ),
        ("4.2", "First run a release with MongoDB 4.4"),
        ("7.0", "A release with MongoDB 7.0 opens it"),
    ] {
        shell(&format!("echo {data} > {NOTE}"));
        let before = shell(list);
        let said = must_fail(
            docker(&["run", "--rm", "-v", &volume.flag()]).arg(image()),
            78,
        );
        assert!(
            said.contains(wanted) && said.contains("nothing was touched"),
            "{data}: {said}"
        );
        assert!(!said.contains("mongod |"), "{said}");
        assert_eq!(shell(list), before, "{data}");
    }
    // The version before is opened; what is true is noted again.
    shell(&format!("echo 5.0 > {NOTE}"));
    let container = Container::run(&["-v", &volume.flag()]);
    container.until_healthy();
    assert_eq!(must(&mut container.exec(&["cat", NOTE])), "6.0");
}
