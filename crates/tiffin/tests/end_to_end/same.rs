//! The same inputs give the same bytes, with all that packages and tools leave behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::build::Small;
use crate::harness::*;
use crate::steps::in_archive;

/// A cache without layers, and with the packages of the one that all tests share.
fn cache() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shared = std::env::var("TIFFIN_CACHE").unwrap();
    let downloads = Path::new(&shared).join("downloads");
    must(Command::new("cp").arg("-a").arg(downloads).arg(dir.path()));
    dir
}

/// The same build by somebody else: another host name, time zone, directory for temporary files
/// and number of processors, with no layer in the cache and the same packages. Later, besides.
fn elsewhere(build: Command, cache: &Path) -> Command {
    for gone in ["layers", "blobs"] {
        fs::remove_dir_all(cache.join(gone)).unwrap();
    }
    let tmp = cache.join("other tmp");
    fs::create_dir(&tmp).unwrap();
    let script = "hostname somebody-elses; umask 077; cd /usr; exec taskset --cpu-list 0 \"$@\"";
    let mut other = Command::new("unshare");
    other.args(["--uts", "sh", "-c", script, "sh"]);
    other.arg(build.get_program()).args(build.get_args());
    other
        .env("TMPDIR", tmp)
        .env("USER", "somebody")
        .env("TZ", "Pacific/Kiritimati")
        .env("LC_ALL", "POSIX");
    other
}

/// No byte differs; where one does, it is told where.
fn same(one: &Path, other: &Path) {
    let equal = output(Command::new("cmp").args([one, other]))
        .status
        .success();
    if !equal {
        let why = output(Command::new(tiffin()).arg("diff").args([one, other]));
        panic!("they differ:\n{}", String::from_utf8_lossy(&why.stdout));
    }
    let said = must(
        Command::new("diffoscope")
            .args(["--text", "-"])
            .args([one, other]),
    );
    assert_eq!(said, "");
}

/// What makes keys, accounts, identities, caches, logs, backups and bytecode.
const LEAVERS: &str = r#"
    - debconf: {name: tzdata, question: tzdata/Areas, vtype: select, value: Europe}
    - apt: {name: [cron, dbus, openssh-server, python3-yaml, tzdata], update_cache: true}
    - user: {name: portal, shell: /bin/sh}
    - cron: {name: tidy, minute: "5", job: "true"}
    - file: {path: /opt/shop, state: directory}
    - copy: {content: "price = 5\n", dest: /opt/shop/shop.py}
    - command: {cmd: python3 -c "import shop", chdir: /opt/shop}
    - shell: |
        ldconfig
        dbus-uuidgen >/etc/machine-id
        ssh-keygen -q -t dsa -N "" -f /etc/ssh/ssh_host_dsa_key
        mktemp -d
        mktemp -d -p /var/tmp
        date +%N >/root/.python_history
        date +%N >/var/log/made
    - stat: {path: "{{ item }}"}
      loop:
        - /etc/machine-id
        - /etc/passwd-
        - /etc/shadow-
        - /etc/ssh/ssh_host_dsa_key
        - /etc/ssh/ssh_host_ecdsa_key
        - /etc/ssh/ssh_host_ed25519_key.pub
        - /etc/ssh/ssh_host_rsa_key
        - /var/cache/debconf/config.dat
        - /var/cache/ldconfig/aux-cache
        - /var/lib/dpkg/status-old
        - /var/log/dpkg.log
        - /root/.python_history
      register: left
    - assert: {that: item.stat.exists, fail_msg: "{{ item.item }}"}
      loop: "{{ left.results }}"
    - shell: ls /opt/shop/__pycache__/shop.*.pyc
"#;

#[test]
#[ignore = "needs a baked box and minutes: make test-long"]
fn long_packages_leave_nothing_that_differs() {
    let cache = cache();
    let at = cache.path();
    let base = at.join("base.tar");
    let lowest = r#"blob=$(tar -xOf "$1" manifest.json | grep -o 'blobs/sha256/[0-9a-f]*' | sed -n 2p)
        tar -xOf "$1" "$blob" | gunzip >"$2""#;
    let mut take = Command::new("sh");
    must(take.args(["-c", lowest, "sh"]).arg(archive()).arg(&base));
    let builds = [false, true].map(|other| {
        let small = Small::new(LEAVERS);
        let recipe = format!(
            "name: test/small\nbase: rootfs:{}\nplaybook: site.yml\n",
            base.display()
        );
        small.write("tiffin.yaml", &recipe);
        let mut build = small.build();
        build.arg("--cache").arg(at);
        if other {
            build = elsewhere(build, at);
        }
        must(&mut build);
        small
    });
    let archives = [0, 1].map(|n| builds[n].dist().join("small-v1.tar"));
    same(&archives[0], &archives[1]);
    let list = r#"for blob in $(tar -xOf "$1" manifest.json | grep -o 'blobs/sha256/[0-9a-f]*' | tail -n +2); do
        tar -xOf "$1" $blob | tar -tz; done"#;
    let files = must(
        Command::new("bash")
            .args(["-c", list, "bash"])
            .arg(&archives[0]),
    );
    let files: Vec<&str> = files
        .lines()
        .map(|line| line.trim_start_matches("./"))
        // Nor what a layer says of those below it.
        .filter(|line| !line.ends_with('/') && !line.contains("/.wh."))
        .collect();
    assert!(files.contains(&"usr/sbin/sshd") && files.contains(&"opt/shop/shop.py"));
    for gone in [
        "etc/passwd-",
        "etc/shadow-",
        "etc/ssh/ssh_host_",
        "opt/shop/__pycache__/",
        "root/.",
        "tmp/",
        "var/cache/apt/",
        "var/cache/debconf/",
        "var/cache/ldconfig/",
        "var/lib/apt/lists/",
        "var/lib/dpkg/status-old",
        "var/log/",
        "var/tmp/",
    ] {
        let left: Vec<_> = files.iter().filter(|f| f.starts_with(gone)).collect();
        let left: Vec<_> = left
            .into_iter()
            .filter(|f| !["root/.bashrc", "root/.profile"].contains(f))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let at = |path: &str| in_archive(&archives[0], path).0;
    assert_eq!(at("etc/machine-id"), "");
    // By content, not by time: PEP 552's flags.
    let compiled = |f: &&&str| f.contains("/yaml/__pycache__/__init__");
    let compiled = files.iter().find(compiled).expect("bytecode stays");
    let head = r#"for blob in $(tar -xOf "$1" manifest.json | grep -o 'blobs/sha256/[0-9a-f]*' | tail -n +2); do
        tar -xOf "$1" $blob | tar -xzO "$2" 2>/dev/null | od -A n -t u1 -j 4 -N 4 2>/dev/null; done; true"#;
    let mut flags = Command::new("bash");
    flags.args(["-c", head, "bash"]).arg(&archives[0]);
    let flags = must(flags.arg(compiled));
    assert_eq!(flags.split_whitespace().next(), Some("3"), "{flags}");
    // The day of the build in neither.
    let day = |line: &str| line.split(':').nth(2).map(str::to_owned);
    let shadow = at("etc/shadow");
    // Between what the layers hold stands a listing of it.
    let accounts = shadow.lines().filter(|line| line.split(':').count() == 9);
    let days: Vec<_> = accounts.map(day).collect();
    assert!(days.len() > 30, "{shadow}");
    assert!(days.iter().all(|d| *d == days[0]), "{shadow}");
}

#[test]
#[ignore = "bakes the reference stack twice: make test-long"]
fn long_the_reference_stack_is_the_same_twice() {
    let cache = cache();
    let dist = tempfile::tempdir().unwrap();
    let archives: [PathBuf; 2] = [false, true].map(|other| {
        let sources = copy_of_sources();
        let dist = dist.path().join(if other { "other" } else { "one" });
        let mut build = Command::new(tiffin());
        build
            .args(["build", "--version", "v1", "--file"])
            .arg(sources.path().join("examples/reference/tiffin.yaml"))
            .arg("--cache")
            .arg(cache.path())
            .arg("--output")
            .arg(&dist);
        if other {
            build = elsewhere(build, cache.path());
        }
        must(&mut build);
        dist.join("backend-v1.tar")
    });
    same(&archives[0], &archives[1]);
}
