//! The reference playbooks on hosts, as vendors use them without Tiffin.

use std::path::Path;
use std::process::Command;

/// What an ad-hoc command of Ansible says, run where the playbooks lie.
fn said(playbooks: &Path, arguments: &[&str]) -> String {
    let out = Command::new("ansible")
        .args(["-i", "inventories/local", "all", "-c", "local"])
        .args(arguments)
        .env("ANSIBLE_NOCOLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .current_dir(playbooks)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}{errors}");
    text
}

/// A bug once: the passwords lay in the folder that is given as inventory, and each was the name of a
/// host in the second deployment.
#[test]
fn generated_passwords_are_no_hosts_of_the_next_deployment() {
    let place = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks");
    let copied = Command::new("cp")
        .args(["-r", source.to_str().unwrap(), "."])
        .current_dir(place.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let playbooks = place.path().join("playbooks");
    let _ = std::fs::remove_dir_all(playbooks.join("credentials"));
    let ask = ["-m", "debug", "-a", "var=mongodb_password,redis_password"];
    let first = said(&playbooks, &ask);
    let hosts = said(&playbooks, &["--list-hosts"]);
    assert_eq!(hosts.trim(), "hosts (1):\n    localhost");
    assert_eq!(said(&playbooks, &ask), first, "they are kept");
}
