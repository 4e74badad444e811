//! Layers without a playbook, what layers know of each other, and what is no input.

use std::{fs, path::Path, process::Command};

use crate::build::Small;
use crate::harness::*;

/// What a build said; it must succeed.
pub fn built(small: &Small) -> String {
    let out = output(&mut small.build());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    said
}

/// A file of the box, and how `tar` lists it.
pub fn in_box(small: &Small, path: &str) -> (String, String) {
    in_archive(&small.dist().join("small-v1.tar"), path)
}

pub fn in_archive(archive: &Path, path: &str) -> (String, String) {
    let script = r#"for blob in $(tar -xOf "$1" manifest.json | grep -o 'blobs/sha256/[0-9a-f]*' | tail -n +2); do
        tar -xOf "$1" $blob | tar -tvz --numeric-owner "$2" 2>/dev/null && tar -xOf "$1" $blob | tar -xzO "$2"
        done; true"#;
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).arg(archive).arg(path);
    let text = must(&mut command);
    let (line, content) = text.split_once('\n').unwrap_or((&text, ""));
    (content.to_owned(), line.to_owned())
}

/// Ansible's memory ends with a layer: what later ones ask for must be given back, also
/// when the tasks that made it did not run because their layer was in the cache.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn results_facts_and_handlers_of_a_lower_layer_reach_later_ones_from_the_cache_too() {
    let small = Small::new("");
    let name = unique("carried");
    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\nlayers:\n  - {name: one, tags: [one]}\n  - {name: two, tags: [two]}\n",
    );
    small.write(
        "site.yml",
        "- hosts: all\n  gather_facts: false\n  roles:\n    - {role: one, tags: [one]}\n    - {role: two, tags: [two]}\n",
    );
    small.write(
        "roles/one/tasks/main.yml",
        &format!(
            r#"- name: Say it
  command: echo '{name} {{{{ "{{{{" }}}} not_there {{{{ "}}}}" }}}}'
  register: said
  notify: Note it
- name: Choose
  set_fact: {{chosen: ["{name}", 7], by_number: {{1: one}}, nothing: null}}
- name: Read more
  include_vars: more.yml
- name: Write one
  copy: {{content: old, dest: /etc/one}}
"#
        ),
    );
    small.write(
        "roles/one/vars/more.yml",
        "greeting: \"hello {{ chosen[0] }}\"\n",
    );
    small.write(
        "roles/one/handlers/main.yml",
        "- name: Note it\n  shell: echo ran >> /etc/handled\n",
    );
    let two = |word: &str| {
        let line = "{{ said.stdout }}|{{ said is changed }}|{{ chosen[1] + 1 }}|{{ by_number[1] }}|{{ nothing is none }}|{{ greeting }}";
        format!("- name: Write two\n  copy: {{content: '{word} {line}', dest: /etc/two}}\n")
    };
    let expected = format!("{name} {{{{ not_there }}}}|True|8|one|True|hello {name}");

    small.write("roles/two/tasks/main.yml", &two("first"));
    let said = built(&small);
    assert!(said.contains("layer one: baked in"), "{said}");
    assert_eq!(in_box(&small, "etc/two").0, format!("first {expected}"));
    assert_eq!(in_box(&small, "etc/handled").0, "ran");

    small.write("roles/two/tasks/main.yml", &two("second"));
    let said = built(&small);
    assert!(
        said.contains("layer one: unchanged") && said.contains("layer two: baked in"),
        "{said}"
    );
    assert_eq!(in_box(&small, "etc/two").0, format!("second {expected}"));
    assert_eq!(in_box(&small, "etc/handled").0, "ran", "once");

    // A set fact keeps its precedence: a later one wins over what was carried.
    let again = "- name: Choose again\n  set_fact: {chosen: [mine, 1]}\n";
    small.write(
        "roles/two/tasks/main.yml",
        &(again.to_owned() + &two("third")),
    );
    built(&small);
    let expected = expected
        .replace("|8|", "|2|")
        .replace(&format!("hello {name}"), "hello mine");
    assert_eq!(in_box(&small, "etc/two").0, format!("third {expected}"));
}

/// `--list-tasks` shows such a task without its role, which then did not count.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_change_in_a_task_without_a_name_is_noticed() {
    let small = Small::new("");
    small.write(
        "site.yml",
        "- hosts: all\n  gather_facts: false\n  roles: [web]\n",
    );
    for word in [unique("first"), unique("second")] {
        let task = format!("- copy: {{content: {word}, dest: /etc/word}}\n");
        small.write("roles/web/tasks/main.yml", &task);
        let said = built(&small);
        assert!(said.contains("layer stack: baked in"), "{said}");
        assert_eq!(in_box(&small, "etc/word").0, word);
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn steps_stand_for_what_has_no_playbook() {
    let small = Small::new("    - debug: {msg: nothing}\n");
    let name = unique("steps");
    let recipe = |steps: &str| {
        let head = "name: test/small\nplaybook: site.yml\nlayers:\n  - name: tools\n    steps:\n";
        small.write(
            "tiffin.yaml",
            &format!("{head}{steps}  - {{name: stack}}\n"),
        );
    };
    let steps = format!(
        "      - run: |\n          echo {name} > /etc/made\n          test \"$PWD\" = / && test -d /run/systemd/system\n      - copy: {{from: files, to: /srv/files, owner: www-data}}\n      - copy: {{from: motd, to: /etc/welcome, mode: \"0600\"}}\n"
    );
    recipe(&steps);
    small.write("motd", "welcome");
    small.write("files/a", "a");
    small.write("files/draft.txt", "draft");
    small.write(".tiffinignore", "*.txt\n/notes\n");
    small.write("notes/n", "n");
    let said = built(&small);
    assert!(said.contains("layer tools: baked in"), "{said}");
    assert_eq!(in_box(&small, "etc/made").0, name);
    let (text, line) = in_box(&small, "srv/files/a");
    assert!(
        text == "a" && line.starts_with("-rw-r--r-- 33/33 "),
        "{line}"
    );
    let (text, line) = in_box(&small, "etc/welcome");
    assert!(
        text == "welcome" && line.starts_with("-rw------- 0/0 "),
        "{line}"
    );
    assert_eq!(in_box(&small, "srv/files/draft.txt").1, "", "ignored");

    // What is ignored is no input of any layer, nor is what a build wrote.
    small.write("files/draft.txt", "another");
    small.write("notes/n", "another");
    let mut aside = Command::new(tiffin());
    aside.args(["build", "--version", "v1", "--file"]);
    aside.arg(small.dir.path().join("tiffin.yaml"));
    aside.arg("--output").arg(small.dir.path().join("releases"));
    must(&mut aside);
    must(&mut aside);
    let out = output(&mut aside);
    assert!(!String::from_utf8_lossy(&out.stderr).contains("baked in"));
    fs::remove_dir_all(small.dir.path().join("releases")).unwrap();
    let said = built(&small);
    assert!(!said.contains("baked in"), "{said}");
    small.write("files/a", "b");
    let said = built(&small);
    assert!(said.contains("layer tools: baked in"), "{said}");
    assert_eq!(in_box(&small, "srv/files/a").0, "b");

    recipe(
        "      - run: |\n          echo so far\n          echo deep trouble >&2\n          false\n          echo never\n",
    );
    let said = must_fail(&mut small.build(), 1);
    assert!(
        said.contains("layer `tools`") && said.contains("so far\ndeep trouble\nit ended with"),
        "{said}"
    );
    assert!(!said.contains("never"), "{said}");
    recipe("      - copy: {from: motd, to: /etc/motd, owner: nobody-of-that-name}\n");
    let said = must_fail(&mut small.build(), 1);
    assert!(
        said.contains("the box has no user `nobody-of-that-name`"),
        "{said}"
    );
    fs::write(small.dir.path().join(".tiffinignore"), "ok\n{a\n").unwrap();
    let said = must_fail(&mut small.build(), 1);
    assert!(said.contains(".tiffinignore at line 2"), "{said}");
}
