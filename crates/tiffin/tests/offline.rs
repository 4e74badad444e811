//! `--offline`: no task, lookup or step has a network. What it does with packages is shown on
//! the reference stack's base (`end_to_end`).

mod common;

use common::{Small, can_build, must, said};

/// Fails when there is a network interface besides the loopback.
const ALONE: &str = "while read -r name rest; do case $name in lo:*|Inter*|face*) ;; *) exit 7; esac; done </proc/net/dev";

#[test]
fn nothing_has_a_network_and_what_fails_says_so() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    small.recipe(&format!(
        "layers:
  - {{name: stack, tags: [stack]}}
  - name: files
    steps: [{{run: '{ALONE}; read -r up </sys/class/net/lo/operstate; test \"$up\" = unknown'}}]
"
    ));
    // On the machine, where lookups run, and in the box.
    let play = "- hosts: all
  gather_facts: false
  tags: [stack]
  tasks:
    - assert: {that: \"lookup('pipe', 'ls /proc/self/ns/net && cat /proc/self/net/dev') | regex_findall('(?m)^ *[a-z0-9@]+:') | map('trim') | list == ['lo:']\"}
";
    small.write("site.yml", &format!("{play}    - raw: {ALONE}\n"));
    must(small.build().arg("--offline"));
    let archive = std::fs::read(small.archive()).unwrap();
    // It is no input: the layers of one are those of the other.
    std::fs::remove_file(small.archive()).unwrap();
    let told = must(&mut small.build());
    assert!(!told.contains("baked in"), "{told}");
    assert!(std::fs::read(small.archive()).unwrap() == archive);

    small.write(
        "site.yml",
        &format!("{play}    - raw: echo no way out; exit 1\n"),
    );
    let out = small.build().arg("--offline").output().unwrap();
    let told = said(&out);
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(
        told.contains("no way out") && told.contains("hint: this build is --offline: it has the apt and pip packages of earlier builds with this cache, and no network"),
        "{told}"
    );
    let text = std::fs::read_to_string(small.at("tiffin.yaml")).unwrap();
    let base = text.lines().find(|line| line.starts_with("base:")).unwrap();
    small.write(
        "tiffin.yaml",
        &text.replace(base, "base: docker://registry.acme.example/base:v1"),
    );
    let told = said(&small.build().arg("--offline").output().unwrap());
    assert!(
        told.contains("error: cannot ask for the base docker://registry.acme.example/base:v1 without a network, and no build with this cache has asked for it: build once without --offline, or save it as an archive"),
        "{told}"
    );
}
