//! Containers that take away what most images count on. The same box runs in each, without
//! a setting: it gets healthy, answers its monitoring, computes a report, takes a body that
//! must be put somewhere, and stops with 0.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::{build::Small, harness::*};

fn lives(container: &Container) {
    container.until_healthy();
    container.round_trip();
    let (code, body) = container.get("/status");
    assert_eq!(code, 200, "{body}\n{}", container.logs());
    // More than nginx keeps in memory: the backend refuses it, after nginx has stored it.
    let line = format!(
        "printf '%03000000d' 0 | curl -sS -o /dev/null -w '%{{http_code}}' -H 'Content-Type: application/json' --data-binary @- {}/reports",
        container.url()
    );
    let code = must(Command::new("sh").args(["-c", &line]));
    assert_eq!(code, "400", "{}", container.logs());
    // Its socket lies in /run too.
    let told = must(&mut container.exec(&["supervisorctl", "status", "backend-web"]));
    assert!(told.contains("RUNNING"), "{told}");
    must(&mut docker(&["stop", "-t", "60", &container.name]));
    let code = container.wait(Duration::from_secs(1));
    assert_eq!(code, 0, "{}", container.logs());
}

/// A box with these flags and a new volume: its whole life, then another one on what the
/// first one left.
fn survives(flags: &[&str]) {
    let volume = Volume::new();
    let data = volume.flag();
    let container = Container::run(&[flags, &["-v", &data]].concat());
    lives(&container);
    must(&mut docker(&["start", &container.name]));
    lives(&container);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn any_user_of_group_0() {
    survives(&["--user", "12345:0"]);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_read_only_root() {
    survives(&["--read-only"]);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_read_only_root_with_run_in_memory() {
    survives(&["--read-only", "--tmpfs", "/run"]);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn no_capability_at_all() {
    survives(&["--cap-drop", "ALL"]);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn no_new_privileges() {
    lives(&Container::run(&["--security-opt", "no-new-privileges"]));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn an_init_of_dockers_own_before_it() {
    lives(&Container::run(&["--init"]));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_process_namespace_that_is_somebody_elses() {
    let first = Container {
        name: unique("first"),
    };
    let image = image();
    let mut command = docker(&["run", "-d", "--name", &first.name, &image]);
    must(command.args(["sleep", "1000"]));
    let shared = format!("container:{}", first.name);
    let container = Container::run(&["--pid", &shared]);
    lives(&container);
    // What is not the box's own was left alone.
    let state = ["inspect", "-f", "{{.State.Running}}", &first.name];
    assert_eq!(must(&mut docker(&state)), "true");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn little_memory() {
    lives(&Container::run(&[
        "--memory",
        "768m",
        "--memory-swap",
        "768m",
    ]));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn few_processes() {
    lives(&Container::run(&["--pids-limit", "160"]));
}

/// As root of a namespace in which there is nobody else: what rootless engines give when
/// the machine's administrator gave them no further user numbers. `dockerd --userns-remap`,
/// which maps 65,536 of them, changes nothing for a box.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_user_namespace_of_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let never = unique("exported");
    must(&mut docker(&["create", "--name", &never, &image()]));
    let made = Container { name: never };
    let unpack = format!("docker export {} | tar x -C {}", made.name, root.display());
    must(Command::new("sh").args(["-c", &unpack]));
    drop(made);

    let log = dir.path().join("log");
    let out = std::fs::File::create(&log).unwrap();
    let mut unshare = Command::new("unshare")
        .args(["--map-root-user", "--mount", "--pid", "--fork", "--net"])
        .args(["--kill-child", "sh", "-eu", "-c", ENGINE, "sh"])
        .arg(&root)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let ready = within(Duration::from_secs(120), || {
        said().contains("tiffin: ready after") || unshare.try_wait().unwrap().is_some()
    });
    let inner = must(Command::new("pgrep").args(["-P", &unshare.id().to_string()]));
    let asked = output(
        Command::new("nsenter")
            .args(["--net", "--target", &inner, "sh"])
            .arg(repository().join("examples/reference/smoke.sh"))
            .args(["http://127.0.0.1", MONITORING])
            .env("SMOKE_TIMEOUT", "120"),
    );
    must(Command::new("kill").args(["-TERM", &inner]));
    let code = unshare.wait().unwrap().code();
    assert!(ready && asked.status.success(), "{asked:?}\n{}", said());
    assert!(said().contains("may not change users"), "{}", said());
    assert_eq!(code, Some(0), "{}", said());
}

/// What an engine does between the namespaces and the first process, for the root in $1.
const ENGINE: &str = r#"
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for node in null zero full random urandom; do
    : >"$1/dev/$node"
    mount --bind "/dev/$node" "$1/dev/$node"
done
ln -s /proc/self/fd "$1/dev/fd"
ln -s fd/0 "$1/dev/stdin"
ln -s fd/1 "$1/dev/stdout"
ln -s fd/2 "$1/dev/stderr"
mkdir -m 1777 "$1/dev/shm"
ip link set lo up
exec chroot "$1" /usr/lib/tiffin/entrypoint
"#;

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn everything_at_once() {
    survives(&[
        "--read-only",
        "--user",
        "12345:0",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--init",
    ]);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn an_operators_own_file_wins_over_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let mine = dir.path().join("timezone");
    std::fs::write(&mine, "Antarctica/Troll\n").unwrap();
    let mount = format!("{}:/etc/timezone:ro", mine.display());
    for flags in [
        &[][..],
        &["--read-only"],
        &["--read-only", "--tmpfs", "/run"],
        &["--user", "12345:0"],
    ] {
        let container = Container::run(&[flags, &["-v", &mount]].concat());
        container.until_healthy();
        let seen = must(&mut container.exec(&["cat", "/etc/timezone"]));
        assert_eq!(seen, "Antarctica/Troll", "{flags:?}\n{}", container.logs());
        assert!(
            container
                .logs()
                .contains("/etc/timezone is mounted from outside and left as it is"),
            "{}",
            container.logs()
        );
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_volume_of_another_user_is_refused_with_the_way_out() {
    let volume = Volume::new();
    let data = volume.flag();
    let container = Container::run(&["-v", &data]);
    container.until_healthy();
    drop(container);
    let image = image();
    let out = must_fail(
        &mut docker(&["run", "--rm", "-u", "12345:0", "-v", &data, &image]),
        73,
    );
    assert!(out.contains("12345:0") && out.contains("hint: "), "{out}");
    assert!(!out.contains("--tmpfs"), "{out}");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn without_any_memory_file_system_the_hint_is_one_flag() {
    let image = image();
    let run = |flags: &[&str]| {
        let mut command = docker(&["run", "--rm", "--read-only", "--ipc", "none"]);
        command.args(flags).args([image.as_str(), "true"]);
        command
    };
    let out = must_fail(&mut run(&[]), 73);
    assert!(out.trim_end().ends_with("--tmpfs /run"), "{out}");
    must(&mut run(&["--tmpfs", "/run"]));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn secrets_of_the_settings_reach_no_disk() {
    let secret = "canary-of-the-memory-9173";
    let container = Container::run(&["-e", &format!("REDIS_PASSWORD={secret}")]);
    container.until_healthy();
    let conf = must(&mut container.exec(&["cat", "/etc/redis/redis.conf"]));
    assert!(conf.contains(secret), "{conf}");
    // The container's own layer and its volume, as the host has them.
    let mut export = docker(&["export", &container.name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let found = Command::new("grep")
        .args(["-a", "-c", secret])
        .stdin(export.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(export.wait().unwrap().success());
    assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), "0");
    let search = format!("grep -r -l -a -s {secret} /data || true");
    assert_eq!(must(&mut container.exec(&["sh", "-c", &search])), "");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn what_must_be_a_real_file_is_one_and_says_what_it_needs() {
    let small = Small::new(
        "    - {template: {src: c.j2, dest: /etc/linked}}\n\
         \x20   - {template: {src: c.j2, dest: /etc/real}}\n\
         \x20   - {template: {src: c.j2, dest: /etc/cron.d/real}}\n\
         \x20   - {template: {src: c.j2, dest: /usr/local/bin/run, mode: '0755'}}\n\
         \x20   - {template: {src: d.j2, dest: /etc/constant}}\n",
    );
    let recipe = |files: &str| {
        let text = format!(
            "name: test/links\nplaybook: site.yml\nvariables: {{color: blue}}\nsettings: {{COLOR: {{}}}}\nfiles: {{{files}: {{link: false}}}}\n"
        );
        small.write("tiffin.yaml", &text);
    };
    small.write("c.j2", "{{ color }}\n");
    small.write("d.j2", "always\n");
    recipe("/etc/reel");
    let said = must_fail(&mut small.build(), 1);
    assert!(said.contains("/etc/reel: no template writes it"), "{said}");
    recipe("/etc/real");
    must(&mut small.build());
    let loaded = Loaded::new(&small.dist().join("links-v1.tar"), "test/links:v1");

    let run = |flags: &[&str], line: &str| {
        let mut command = docker(&["run", "--rm", "-e", "COLOR=red"]);
        command
            .args(flags)
            .args([loaded.image.as_str(), "sh", "-c", line]);
        command
    };
    let files = "/etc/linked /etc/real /etc/cron.d/real /usr/local/bin/run /etc/constant";
    let kinds = must(&mut run(&[], &format!("stat -c %F {files}; cat {files}")));
    let wanted = [
        "symbolic link",
        "regular file",
        "regular file",
        "regular file",
        "regular file",
        "red",
        "red",
        "red",
        "red",
        "always",
    ];
    assert_eq!(kinds.lines().collect::<Vec<_>>(), wanted);
    let said = must_fail(&mut run(&["--read-only"], "true"), 73);
    assert!(
        said.contains("hint: this file can only be changed in a writable root: run without --read-only, or leave COLOR alone"),
        "{said}"
    );
}
