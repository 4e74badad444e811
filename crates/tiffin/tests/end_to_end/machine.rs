//! Modules that expect a running system: each works in the sandbox, or the build says what
//! was recorded instead.

use crate::build::Small;
use crate::harness::*;
use crate::steps::{built, in_box};

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn modules_for_a_running_system_work_or_are_named_as_recorded() {
    let small = Small::new("");
    let name = unique("machine");
    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\nlayers:\n  - {name: packages, tags: [packages]}\n  - {name: machine, tags: [machine]}\n",
    );
    small.write(
        "site.yml",
        "- hosts: all\n  gather_facts: false\n  roles:\n    - {role: packages, tags: [packages]}\n    - {role: machine, tags: [machine]}\n",
    );
    small.write(
        "roles/packages/tasks/main.yml",
        "- apt: {name: [cron, locales, tzdata]}\n",
    );
    small.write(
        "roles/machine/tasks/main.yml",
        &format!(
            r#"- hostname: {{name: portal-host}}
- ansible.posix.sysctl: {{name: vm.overcommit_memory, value: "1", sysctl_set: true}}
- command: sysctl -n vm.overcommit_memory
  register: overcommit
- assert: {{that: "overcommit.stdout == '1'"}}
- ansible.posix.mount: {{path: /mnt/share, src: "files.example:/share", fstype: nfs, state: mounted}}
- ansible.posix.mount: {{path: /mnt/memory, src: tmpfs, fstype: tmpfs, state: mounted}}
- shell: grep -q ' /mnt/memory tmpfs ' /proc/mounts
- name: Start anew
  reboot:
- community.general.ufw: {{rule: allow, port: "80", proto: tcp}}
- community.general.ufw: {{state: enabled, policy: deny}}
- name: Tidy
  cron: {{name: tidy, minute: "5", job: "echo {name}"}}
- community.general.timezone: {{name: Europe/Paris}}
- user: {{name: portal, uid: 4321, shell: /bin/sh}}
- community.general.locale_gen: {{name: fr_FR.UTF-8}}
- name: What reaches through to the machine
  shell: grep CapEff /proc/self/status | cut -f2
  register: capabilities
- assert: {{that: "('0x' ~ capabilities.stdout) | int(base=16) // 4096 % 2 == 0"}}
"#
        ),
    );
    let host = must(&mut std::process::Command::new("hostname"));
    let said = built(&small);
    assert_eq!(must(&mut std::process::Command::new("hostname")), host);
    for told in [
        "host name portal-host: whoever runs a box names it",
        "sysctl vm.overcommit_memory=1: the kernel is the machine's",
        "mount of /mnt/share (files.example:/share): whoever runs a box mounts volumes",
        "reboot, by task `machine : Start anew`",
        "ufw allow from any to any port 80 proto tcp: ",
        "ufw default deny",
        "the job of task `machine : Tidy` (cron): no task starts or enables a cron in the box",
    ] {
        assert!(said.contains(told), "`{told}` is missing:\n{said}");
    }
    assert!(!said.contains("/mnt/memory"), "{said}");
    for (path, text) in [
        ("etc/timezone", "Europe/Paris"),
        ("etc/passwd", "portal:x:4321:4321"),
        ("etc/fstab", "files.example:/share /mnt/share nfs"),
        ("etc/sysctl.conf", "vm.overcommit_memory=1"),
        ("var/spool/cron/crontabs/root", &name),
        ("etc/locale.gen", "\nfr_FR.UTF-8"),
    ] {
        let content = in_box(&small, path).0;
        assert!(content.contains(text), "{path} has no `{text}`:\n{content}");
    }
    let (_, localtime) = in_box(&small, "etc/localtime");
    assert!(!localtime.is_empty(), "/etc/localtime is not there");
    let crontab = in_box(&small, "var/spool/cron/crontabs/root").0;
    assert!(
        !crontab.contains("installed on"),
        "a time of the build: {crontab}"
    );
}
