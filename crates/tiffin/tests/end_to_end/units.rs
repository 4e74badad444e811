//! Units that really run while a box is baked.

use std::{
    fs,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::build::Small;
use crate::harness::*;
use crate::steps::{built, in_box};

const START: &str = "start: [redis-server, forgotten]\n";

/// A Redis on a port of its own, its data on the volume. The first layer is always the same.
fn redis(small: &Small, recipe: &str, port: u16, tasks: &str) {
    small.write(
        "tiffin.yaml",
        &format!(
            "name: test/small\nplaybook: site.yml\nlayers:\n  - {{name: packages, tags: [packages]}}\n  - {{name: cache, tags: [cache]}}\n  - {{name: later, tags: [later]}}\n{recipe}"
        ),
    );
    small.write(
        "roles/cache/files/redis.conf",
        &format!("bind 127.0.0.1\nport {port}\ndir /data/redis\nsave 900 1\nmaxmemory 16mb\n"),
    );
    small.write(
        "roles/packages/tasks/main.yml",
        "- apt: {name: redis-server}\n",
    );
    small.write(
        "roles/cache/tasks/main.yml",
        &format!(
            r#"- name: Place for data
  file: {{path: /data/redis, state: directory, owner: redis, group: redis, mode: "0750"}}
- name: Place for uploads
  file: {{path: /data/uploads, state: directory}}
- name: Configure it
  copy: {{src: redis.conf, dest: /etc/redis/redis.conf, owner: redis}}
- name: Start it
  service: {{name: redis-server, state: started, enabled: true}}
{tasks}"#
        ),
    );
    if !small.dir.path().join("roles/later/tasks/main.yml").exists() {
        small.write("roles/later/tasks/main.yml", "- debug: {msg: later}\n");
    }
    small.write(
        "site.yml",
        "- hosts: all\n  gather_facts: false\n  roles:\n    - {role: packages, tags: [packages]}\n    - {role: cache, tags: [cache]}\n    - {role: later, tags: [later]}\n",
    );
}

fn is_running(port: u16) -> bool {
    Command::new("pgrep")
        .args(["-f", &format!("redis-server .*:{port}")])
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_unit_that_tasks_talk_to_runs_under_the_boxs_own_supervisor_and_is_stopped_cleanly() {
    let small = Small::new("");
    let note = unique("note");
    small.write(
        "roles/later/tasks/main.yml",
        &format!(
            r#"- name: It runs here too, with its data
  command: redis-cli -p 16390 mget saved unsaved
  register: got
- assert: {{that: "got.stdout_lines == ['{note}', '{note}']"}}
- name: A package's script starts nothing
  command: systemctl restart redis-server
  environment: {{DPKG_MAINTSCRIPT_PACKAGE: redis-server}}
- command: redis-cli -p 16390 config get maxmemory
  register: limit
- assert: {{that: "'33554432' in limit.stdout"}}
- copy: {{content: "{{{{ got.stdout_lines[0] }}}}", dest: /etc/note}}
"#
        ),
    );
    let tasks = format!(
        r#"- wait_for: {{port: 16390, timeout: 20}}
- command: redis-cli -p 16390 {{{{ item }}}}
  loop:
    - config set maxmemory 32mb
    - config rewrite
    - set saved {note}
    - save
    - set unsaved {note}
- name: Under the entrypoint
  shell: |
    redis=$(grep -l '^redis-server' /proc/[0-9]*/comm | cut -d/ -f3)
    grep -q '^tiffin-units' /proc/$(cut -d' ' -f4 /proc/$redis/stat)/cmdline
- name: It is known to run
  command: systemctl is-active redis-server
"#
    );
    redis(&small, START, 16390, &tasks);
    let said = built(&small);
    let conf = in_box(&small, "etc/redis/redis.conf").0;
    assert!(conf.contains("maxmemory 32mb"), "{conf}");
    assert_eq!(in_box(&small, "etc/note").0, note, "{said}");
    for told in [
        "ran while it was baked: redis-server",
        "that appeared in /data/redis then are not in the box",
        "`start` names forgotten, and no task started it",
    ] {
        assert!(said.contains(told), "`{told}` is missing:\n{said}");
    }
    assert!(!said.contains("lies on a volume"), "{said}");
    let contract = small.contract();
    let directories: Vec<&str> = contract.volumes[0]
        .directories
        .iter()
        .map(|d| &*d.path)
        .collect();
    assert_eq!(directories, ["/data", "/data/redis", "/data/uploads"]);
    let archive = fs::read(small.dist().join("small-v1.tar")).unwrap();
    assert!(!archive.is_empty());
    for left in ["data/redis/dump.rdb", "run/redis/redis-server.pid"] {
        assert_eq!(in_box(&small, left), Default::default(), "{left}");
    }
    assert!(!is_running(16390), "it runs on");
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_unit_that_does_not_start_fails_its_task_with_its_last_words() {
    let small = Small::new("");
    redis(&small, START, 16391, "");
    let conf = fs::read_to_string(small.dir.path().join("roles/cache/files/redis.conf")).unwrap();
    small.write(
        "roles/cache/files/redis.conf",
        &format!("{conf}nonsense-{} yes\n", std::process::id()),
    );
    let said = must_fail(&mut small.build(), 1);
    for told in [
        "cache : Start it",
        "FATAL CONFIG FILE ERROR",
        "redis-server is given up: it exited with code 1",
    ] {
        assert!(said.contains(told), "`{told}` is missing:\n{said}");
    }

    // Without `start` it is recorded, and whoever talks to it is told of that.
    redis(&small, "", 16391, "- command: redis-cli -p 16391 ping\n");
    let said = must_fail(&mut small.build(), 1);
    for told in [
        "Connection refused",
        "redis-server is recorded as started, and runs nothing",
        "start: [redis-server]",
    ] {
        assert!(said.contains(told), "`{told}` is missing:\n{said}");
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_killed_build_leaves_no_unit_running() {
    let small = Small::new("");
    let wait = format!(
        "- command: sleep 60\n  environment: {{MARK: {}}}\n",
        unique("wait")
    );
    redis(&small, START, 16392, &wait);
    let mut build = small.build();
    build.stdout(Stdio::null()).stderr(Stdio::null());
    let mut build = build.spawn().unwrap();
    let up = within(Duration::from_secs(400), || is_running(16392));
    sleep(Duration::from_millis(300));
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(up, "it never ran");
    assert!(
        within(Duration::from_secs(10), || !is_running(16392)),
        "the unit outlives its build"
    );
}

/// The reference's own role, whose mongod runs while the box is baked, and tasks that talk to it.
const MONGODB: &str = r#"- hosts: all
  roles: [mongodb]
  tasks:
    - wait_for: {port: "{{ mongodb_port }}", timeout: 60}
    - name: Add a user
      community.mongodb.mongodb_user:
        login_port: "{{ mongodb_port }}"
        login_user: "{{ mongodb_admin_user }}"
        login_password: "{{ mongodb_admin_password }}"
        database: "{{ mongodb_database }}"
        name: auditor
        password: from-the-build
        roles: [read]
      vars: {ansible_python_interpreter: /opt/mongodb/venv/bin/python}
    - name: Fill it
      command:
        argv:
          - /opt/mongodb/venv/bin/python
          - -c
          - import pymongo; pymongo.MongoClient(port=16395, username='app', password='app', authSource='reports').reports.word.insert_one({'text':'from the build'})
"#;

#[test]
#[ignore = "needs a baked box and minutes: make test-long"]
fn long_mongodb_is_filled_by_ansibles_module() {
    let small = Small::new("");
    let role = repository().join("playbooks/roles/mongodb");
    fs::create_dir(small.dir.path().join("roles")).unwrap();
    must(
        Command::new("cp")
            .arg("-a")
            .arg(role)
            .arg(small.dir.path().join("roles")),
    );
    small.write("site.yml", MONGODB);
    // Its data is no volume's here, so that the box has it.
    small.write(
        "tiffin.yaml",
        "name: test/small
playbook: site.yml
start: [mongod]
variables:
  mongodb_port: 16395
  mongodb_user: app
  mongodb_password: app
  mongodb_admin_password: admin
  mongodb_database: reports
",
    );
    let said = built(&small);
    assert!(said.contains("ran while it was baked: mongod"), "{said}");
    let loaded = Loaded::new(&small.dist().join("small-v1.tar"), "test/small:v1");
    let running = Container::of(&loaded.image, &[]);
    running.until_healthy();
    let read = |user: &str, password: &str| {
        let script = format!(
            "import pymongo; print(pymongo.MongoClient(port=16395, username='{user}', password='{password}', authSource='reports').reports.word.find_one()['text'])"
        );
        running.exec(&["/opt/mongodb/venv/bin/python", "-c", &script])
    };
    assert_eq!(
        must(&mut read("auditor", "from-the-build")),
        "from the build"
    );
    let refused = must_fail(&mut read("auditor", "another"), 1);
    assert!(refused.contains("Authentication failed"), "{refused}");
    // It was stopped as its unit says.
    let logs = running.logs();
    assert!(!logs.contains("unclean shutdown"), "{logs}");
    must(&mut docker(&["stop", "--time", "60", &running.name]));
    assert_eq!(
        running.wait(Duration::from_secs(1)),
        0,
        "{}",
        running.logs()
    );
}

/// Roles for databases make users and tables while the server runs.
const DATABASES: &str = r#"
    - apt:
        name: [mariadb-server, postgresql, python3-psycopg2, python3-pymysql]
        install_recommends: false
        update_cache: true
        cache_valid_time: 3600
    - copy:
        dest: /etc/mysql/mariadb.conf.d/90-port.cnf
        content: "[mysqld]\nport = 16394\n"
    - copy:
        dest: /etc/postgresql/15/main/conf.d/port.conf
        content: "port = 16393\n"
    - service: {name: "{{ item }}", state: started, enabled: true}
      loop: [postgresql, mariadb]
    - wait_for: {port: 16394, timeout: 60}
    - become: true
      become_user: postgres
      block:
        - community.postgresql.postgresql_user: {name: app, role_attr_flags: NOSUPERUSER, port: 16393}
        - community.postgresql.postgresql_db: {name: app, owner: app, port: 16393}
        - community.postgresql.postgresql_query:
            db: app
            port: 16393
            query: create table word (text varchar); insert into word values ('from the build')
    - community.mysql.mysql_db: {name: app, login_unix_socket: /run/mysqld/mysqld.sock}
    - community.mysql.mysql_user:
        name: app
        priv: "app.*:ALL"
        plugin: unix_socket
        login_unix_socket: /run/mysqld/mysqld.sock
    - community.mysql.mysql_query:
        login_db: app
        login_unix_socket: /run/mysqld/mysqld.sock
        query: ["create table word (text varchar(20))", "insert into word values ('from the build')"]
"#;

#[test]
#[ignore = "needs a baked box and minutes: make test-long"]
fn long_databases_are_filled_by_ansibles_modules_and_are_whole_in_the_box() {
    let small = Small::new(DATABASES);
    let recipe = "name: test/small\nplaybook: site.yml\nstart: [postgresql, mariadb]\n";
    small.write("tiffin.yaml", recipe);
    let said = built(&small);
    assert!(
        said.contains("ran while it was baked") && !said.contains("no task started it"),
        "{said}"
    );
    let loaded = Loaded::new(&small.dist().join("small-v1.tar"), "test/small:v1");
    let running = Container::of(&loaded.image, &[]);
    running.until_healthy();
    let ask = |script: &str| must(&mut running.exec(&["bash", "-c", script]));
    let read = "select text from word";
    let postgresql = format!("su postgres -c \"psql -p 16393 -tAc '{read}' app\"");
    assert_eq!(ask(&postgresql), "from the build");
    assert_eq!(
        ask(&format!("mariadb -N -e '{read}' app")),
        "from the build"
    );
    // They were stopped as their units say: neither had to recover.
    let logs = "cat /var/log/postgresql/* /var/log/mysql/* 2>/dev/null; true";
    let logs = ask(logs) + &running.logs();
    for recovery in ["not properly shut down", "crash recovery"] {
        assert!(!logs.contains(recovery), "{logs}");
    }
    must(&mut docker(&["stop", "--time", "60", &running.name]));
    assert_eq!(
        running.wait(Duration::from_secs(1)),
        0,
        "{}",
        running.logs()
    );
}
