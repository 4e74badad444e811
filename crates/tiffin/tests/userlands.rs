//! Bases that are not Debian.

mod common;

use std::fs;
use std::process::Command;

use common::{Small, can_build, in_box, must};

/// A system as Rocky 8 has it, of this machine's programs: Python under its other name alone.
const ROCKY: &str = r#"
set -e
root=$1
mkdir -p "$root/etc" "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$root/usr/libexec" "$root/var/cache/dnf" "$root/var/lib/dnf" "$root/var/log" "$root/root" "$root/tmp"
for name in bin sbin lib lib64; do ln -s usr/$name "$root/$name"; done
add() {
    for file in "$1" $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [ -e "$root$file" ] || { mkdir -p "$root${file%/*}"; cp -L "$file" "$root$file"; }
    done
}
for program in sh cat chmod cp id ls mkdir mv rm sleep stat; do add "$(PATH=/usr/bin:/bin command -v $program)"; done
python=$(realpath /usr/bin/python3)
add "$python"
mv "$root$python" "$root/usr/libexec/platform-python"
modules=/usr/lib/${python##*/}
mkdir -p "$root$modules"
tar -C "$modules" --exclude=__pycache__ --exclude=./test --exclude='./config-*' --exclude=./ensurepip --exclude=./sitecustomize.py -c . | tar -C "$root$modules" -x
for library in "$modules"/lib-dynload/*.so; do add "$library"; done
cat >"$root/etc/os-release" <<END
NAME="Rocky Linux"
VERSION="8.9 (Green Obsidian)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="8.9"
PRETTY_NAME="Rocky Linux 8.9 (Green Obsidian)"
END
echo "Rocky Linux release 8.9 (Green Obsidian)" >"$root/etc/redhat-release"
echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
echo root:x:0: >"$root/etc/group"
tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$2" .
"#;

const TASKS: &str = r#"- hosts: all
  tasks:
    - template: {src: system.j2, dest: /etc/system}
    - copy: {src: web.service, dest: /etc/systemd/system/}
    - service: {name: web, state: started, enabled: true}
    - command: systemctl is-active web
    - name: As dnf and rpm leave it
      shell: |
        for file in cache/dnf/baseos.solv lib/dnf/history.sqlite lib/dnf/history.sqlite-wal lib/rpm/rpmdb.sqlite-shm log/dnf.log; do
            mkdir -p /var/${file%/*}
            cat /proc/sys/kernel/random/uuid >/var/$file
        done
        echo packages >/var/lib/rpm/rpmdb.sqlite
"#;

#[test]
fn a_system_of_red_hats_family_is_baked_by_its_own_python_the_same_twice() {
    if !can_build() {
        return;
    }
    let small = Small::new(0);
    let root = small.at("root");
    let make = ["-c", ROCKY, "sh"];
    must(
        Command::new("sh")
            .args(make)
            .args([&root, &small.at("base.tar")]),
    );
    fs::remove_dir_all(root).unwrap();
    small.write(
        "tiffin.yaml",
        "name: acme/small\nbase: rootfs:base.tar\nplaybook: site.yml\n",
    );
    small.write("site.yml", TASKS);
    small.write(
        "system.j2",
        "{{ ansible_distribution }} {{ ansible_distribution_version }} {{ ansible_os_family }} {{ ansible_python.executable }}\n",
    );
    small.write(
        "web.service",
        "[Service]\nExecStart=/usr/bin/sleep 1000\n\n[Install]\nWantedBy=multi-user.target\n",
    );
    let sums = ["one", "other"].map(|place| {
        let place = small.at(place);
        must(&mut small.build_in(&place));
        fs::read_to_string(place.join("dist/small-v1.tar.sha256")).unwrap()
    });
    assert_eq!(sums[0], sums[1]);
    let archive = small.at("one/dist/small-v1.tar");
    let has = |path: &str| in_box(&archive, path);
    assert_eq!(
        has("etc/system").unwrap(),
        "Rocky 8.9 RedHat /usr/libexec/platform-python\n"
    );
    let contract = has("usr/lib/tiffin/contract.json").unwrap();
    assert!(contract.contains("\"web.service\""), "{contract}");
    assert_eq!(has("var/lib/rpm/rpmdb.sqlite").unwrap(), "packages\n");
    for gone in [
        "var/cache/dnf/baseos.solv",
        "var/lib/dnf/history.sqlite",
        "var/lib/dnf/history.sqlite-wal",
        "var/lib/rpm/rpmdb.sqlite-shm",
        "var/log/dnf.log",
    ] {
        assert_eq!(has(gone), None, "{gone}");
    }
}
