//! Building as an ordinary user, and in a container without privileges.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::*;

/// Programs of this machine with their libraries: a base that needs no network.
const BASE: &str = r#"
set -e
mkdir -p "$1/etc" "$1/srv" "$1/tmp" "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/usr/lib64"
for name in bin sbin lib lib64; do ln -s usr/$name "$1/$name"; done
for program in sh cat chmod chown ln mkdir rm setcap; do
    path=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v $program)
    for file in "$path" $(ldd "$path" | grep -o '/[^ ]*'); do
        [ -e "$1$file" ] || { mkdir -p "$1${file%/*}"; cp -L "$file" "$1$file"; }
    done
done
tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$2" .
"#;

/// All that owners, bits, attributes and removals can be.
const RECIPE: &str = r#"name: test/small
base: rootfs:base.tar
playbook: site.yml
layers:
  - name: one
    steps:
      - run: |
          mkdir -p /srv/a /srv/replaced /srv/gone
          for name in one kept capable theirs; do echo $name >/srv/a/$name; done
          chown 33:44 /srv/a/one
          chmod 4755 /srv/a/one
          ln /srv/a/one /srv/a/two
          ln -s one /srv/a/link
          setcap cap_net_raw+ep /srv/a/capable
          chown 60000:65534 /srv/a/theirs
          echo x >/srv/replaced/x
          echo x >/srv/gone/x
  - name: two
    steps:
      - run: |
          rm /srv/a/two
          rm -r /srv/gone /srv/replaced
          mkdir /srv/replaced
          echo y >/srv/replaced/y
          chown 1:2 /srv/a/kept
  - {name: three, tags: [three]}
"#;

/// By Ansible, in a layer of its own; needs no Python in the box.
const PLAY: &str = r#"- hosts: all
  gather_facts: false
  tags: [three]
  tasks:
    - name: Become somebody else's
      raw: rm /srv/a/theirs; echo ours >/srv/a/ours; chown 4321:8765 /srv/a/ours
    - raw: cat /srv/a/ours
      register: said
    - assert: {that: "said.stdout | trim == 'ours'"}
"#;

/// A user with a home, in which the program, its entrypoint and a recipe are.
struct User {
    name: String,
    home: tempfile::TempDir,
}

impl User {
    fn new() -> User {
        let name = unique("user");
        let home = tempfile::tempdir().unwrap();
        let base = tempfile::tempdir().unwrap();
        let user = User { name, home };
        let at = user.home.path();
        must(
            Command::new("sh")
                .args(["-c", BASE, "sh"])
                .arg(base.path())
                .arg(at.join("base.tar")),
        );
        fs::copy(tiffin(), at.join("tiffin")).unwrap();
        fs::copy(tiffin().with_file_name("entrypoint"), at.join("entrypoint")).unwrap();
        fs::write(at.join("tiffin.yaml"), RECIPE).unwrap();
        fs::write(at.join("site.yml"), PLAY).unwrap();
        // Whatever ranges it has, none is this test's wish.
        must(Command::new("useradd").args(["--home-dir"]).arg(at).args([
            "--no-create-home",
            "--shell",
            "/bin/sh",
            &user.name,
        ]));
        user.ids("del");
        must(Command::new("chown").args(["-R", &user.name]).arg(at));
        user
    }

    /// Gives or takes the range of subordinate ids that these tests use.
    fn ids(&self, verb: &str) {
        let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let prefix = format!("{}:", self.name);
        if verb == "del" {
            for line in text.lines().filter(|line| line.starts_with(&prefix)) {
                let fields: Vec<u64> = line.split(':').skip(1).flat_map(str::parse).collect();
                let range = format!("{}-{}", fields[0], fields[0] + fields[1] - 1);
                let mut command = Command::new("usermod");
                command.args(["--del-subuids", &range, "--del-subgids", &range, &self.name]);
                must(&mut command);
            }
            return;
        }
        let range = "2000000000-2000065535";
        let mut command = Command::new("usermod");
        command.args(["--add-subuids", range, "--add-subgids", range, &self.name]);
        must(&mut command);
    }

    fn build(&self, dist: &str) -> Command {
        let mut command = Command::new("/usr/sbin/runuser");
        let at = self.home.path();
        command.args(["-u", &self.name, "--", "/usr/bin/env", "-u", "TIFFIN_CACHE"]);
        command.arg(format!("HOME={}", at.display()));
        command.arg(at.join("tiffin"));
        command.args(["build", "--version", "v1", "--output", dist]);
        command.current_dir(at);
        command
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).status();
    }
}

fn sum(path: PathBuf) -> String {
    let told = must(Command::new("sha256sum").arg(&path));
    told.split(' ').next().unwrap().to_owned()
}

fn of_root(at: &Path) -> String {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(at.join("tiffin"));
    command.args(["build", "--version", "v1", "--output", "by-root"]);
    command.env("TIFFIN_CACHE", cache.path()).current_dir(at);
    must(&mut command);
    sum(at.join("by-root/small-v1.tar"))
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_user_with_subordinate_ids_builds_the_bytes_that_root_builds() {
    let user = User::new();
    let at = user.home.path();
    let said = must_fail(&mut user.build("none"), 1);
    for told in [
        &format!(
            "cannot bake without root: /etc/subuid grants {} 0 ids",
            user.name
        ),
        "usermod --add-subuids",
    ] {
        assert!(said.contains(told), "`{told}` is missing:\n{said}");
    }
    user.ids("add");
    let mut hidden = user.build("none");
    // Without the programs of Debian's package uidmap.
    hidden.env("PATH", "/nonexistent");
    let said = must_fail(&mut hidden, 1);
    assert!(
        said.contains("newuidmap is missing") && said.contains("apt-get install uidmap"),
        "{said}"
    );

    must(&mut user.build("by-user"));
    assert_eq!(sum(at.join("by-user/small-v1.tar")), of_root(at));
    // Warm, and what is kept can be removed again by who made it.
    let warm = output(&mut user.build("by-user"));
    let said = String::from_utf8_lossy(&warm.stderr).into_owned();
    assert!(
        warm.status.success() && said.contains("layer three: unchanged"),
        "{said}"
    );
    let mut prune = Command::new("runuser");
    prune.args(["-u", &user.name, "--"]).arg(at.join("tiffin"));
    prune.args(["cache", "prune", "--keep", "0", "--cache"]);
    must(prune.arg(at.join(".cache/tiffin")));
    let mut kept = fs::read_dir(at.join(".cache/tiffin/layers")).unwrap();
    assert!(!kept.any(|entry| entry.unwrap().path().is_dir()));
}

/// The base too, with packages of apt, their accounts and a template.
#[test]
#[ignore = "makes a base twice: make test-long"]
fn long_a_user_bakes_a_base_and_packages_as_root_does() {
    let user = User::new();
    let at = user.home.path();
    user.ids("add");
    for (name, text) in [
        ("tiffin.yaml", "name: test/small\nplaybook: site.yml\n"),
        (
            "site.yml",
            "- hosts: all
  tasks:
    - apt: {name: [cron, memcached], update_cache: true}
    - user: {name: portal, system: true}
    - template: {src: motd.j2, dest: /etc/motd, owner: portal, mode: '0640'}
    - service: {name: memcached, state: started, enabled: true}
",
        ),
        (
            "motd.j2",
            "{{ ansible_distribution_release }} for {{ ansible_user_id }}\n",
        ),
    ] {
        fs::write(at.join(name), text).unwrap();
    }
    must(&mut user.build("by-user"));
    assert_eq!(sum(at.join("by-user/small-v1.tar")), of_root(at));
    let contract = crate::steps::in_archive(
        &at.join("by-user/small-v1.tar"),
        "usr/lib/tiffin/contract.json",
    );
    assert!(contract.0.contains("memcached.service"), "{}", contract.0);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_machine_without_user_namespaces_is_named_as_such() {
    let user = User::new();
    // The limit of a namespace is its own, and so is nobody else's here.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$0\" build";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-ec", script]);
    command
        .arg(user.home.path().join("tiffin"))
        .current_dir(user.home.path());
    let said = must_fail(&mut command, 1);
    assert!(
        said.contains("user namespaces are switched off")
            && said.contains("sysctl -w user.max_user_namespaces"),
        "{said}"
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_container_without_privileges_builds_where_the_engine_lets_it() {
    let user = User::new();
    let at = user.home.path();
    let image = unique("tiny");
    must(&mut docker(&[
        "import",
        &at.join("base.tar").display().to_string(),
        &image,
    ]));
    let loaded = Loaded {
        image: image.clone(),
    };
    let run = |flags: &[&str], dist: &str| {
        let mut command = docker(&["run", "--rm"]);
        command.args(flags);
        // Ansible, tar and this program's libraries are the machine's.
        for path in ["/usr", "/etc"] {
            command.args(["-v", &format!("{path}:{path}:ro")]);
        }
        command.args(["-v", &format!("{}:/home:rw", at.display()), "-w", "/home"]);
        command.args([
            "-e",
            "TIFFIN_CACHE=/home/containers-cache",
            "-e",
            "HOME=/home",
        ]);
        command.args([
            &image,
            "/home/tiffin",
            "build",
            "--version",
            "v1",
            "--output",
            dist,
        ]);
        command
    };
    let refused = must_fail(&mut run(&[], "none"), 1);
    let allowed = [
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined",
    ];
    let masked = must_fail(&mut run(&allowed[..2], "none"), 1);
    must(&mut run(&allowed, "in-container"));
    let same = sum(at.join("in-container/small-v1.tar")) == of_root(at);
    drop(loaded);
    assert!(same, "other bytes than root's");
    for (said, why) in [
        (refused, "this container may not make user namespaces"),
        (masked, "cannot mount /proc"),
    ] {
        for told in [why, "--security-opt seccomp=unconfined"] {
            assert!(said.contains(told), "`{told}` is missing:\n{said}");
        }
    }
}
