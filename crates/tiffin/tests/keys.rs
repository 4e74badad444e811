//! Which layers a change bakes again: those that could use what has changed, and those above.

mod common;

use common::{Small, can_build, must, said};

const RECIPE: &str =
    "variables: {GIVEN}\nlayers:\n  - {name: low, tags: [low]}\n  - {name: high, tags: [high]}\n";
const LOW: &str = "- name: Write the address
  raw: echo {{ url }} {{ extra | default('') }} >/etc/low
- name: Write the words
  raw: echo {{ item }} >>/etc/words
  loop: \"{{ words }}\"
  notify: count the words
";
const ALL: &str = "host: one.test\nunrelated: 1\n";

fn small() -> Small {
    let small = Small::new(1000);
    small.recipe(&RECIPE.replace("GIVEN", "given: 1, other: 1"));
    small.write(
        "site.yml",
        "- hosts: all\n  gather_facts: false\n  roles:\n    - {role: low, tags: [low]}\n    - {role: high, tags: [high]}\n",
    );
    small.write("group_vars/all.yml", ALL);
    small.write("roles/low/tasks/main.yml", LOW);
    small.write(
        "roles/low/defaults/main.yml",
        "url: \"http://{{ host }}/\"\nwords: [a, b]\n",
    );
    small.write(
        "roles/low/handlers/main.yml",
        "- name: count the words\n  raw: echo 2 >/etc/counted\n",
    );
    small.write(
        "roles/high/tasks/main.yml",
        "- name: Write the version\n  raw: echo {{ version }} {{ given }} >/etc/high\n  notify: reload\n",
    );
    small.write("roles/high/defaults/main.yml", "version: 1\n");
    small.write(
        "roles/high/handlers/main.yml",
        "- name: reload\n  raw: echo 1 >/etc/reloaded\n",
    );
    small
}

/// Builds; the layers that were baked.
fn baked(small: &Small) -> Vec<&'static str> {
    let said = must(&mut small.build());
    let baked = |name: &&str| said.contains(&format!("layer {name}: baked in"));
    ["low", "high"].into_iter().filter(baked).collect()
}

#[test]
#[ignore = "14 builds: make test-long"]
fn a_change_bakes_again_what_could_use_it_and_nothing_below() {
    if !can_build() {
        return;
    }
    let small = small();
    let all = ["low", "high"];
    assert_eq!(baked(&small), all);
    assert!(baked(&small).is_empty());
    let first = std::fs::read(small.archive()).unwrap();
    let defaults = "roles/high/defaults/main.yml";
    let change = |name: &str, text: &str| {
        small.write(name, text);
        baked(&small)
    };

    assert_eq!(change(defaults, "version: 2\n"), ["high"]);
    assert_eq!(
        change(
            "roles/high/handlers/main.yml",
            "- name: reload\n  raw: echo 2 >/etc/reloaded\n"
        ),
        ["high"]
    );
    assert_eq!(
        change("group_vars/all.yml", "host: one.test\nunrelated: 2\n"),
        [""; 0]
    );
    small.recipe(&RECIPE.replace("GIVEN", "given: 1, other: 2"));
    assert_eq!(baked(&small), [""; 0]);
    small.recipe(&RECIPE.replace("GIVEN", "given: 2, other: 2"));
    assert_eq!(baked(&small), ["high"]);

    // At two removes, a loop's item, and a name that had no value before.
    assert_eq!(
        change("group_vars/all.yml", "host: two.test\nunrelated: 2\n"),
        all
    );
    assert_eq!(
        change(
            "roles/low/defaults/main.yml",
            "url: \"http://{{ host }}/\"\nwords: [a, c]\n"
        ),
        all
    );
    assert_eq!(change(defaults, "version: 2\nextra: more\n"), all);
    small.recipe(&RECIPE.replace("GIVEN", "given: 2, other: 2, host: three.test"));
    assert_eq!(baked(&small), all);
    // A handler of another role by the name that is notified below.
    let handlers = "- name: reload\n  raw: echo 2 >/etc/reloaded\n- name: x\n  listen: count the words\n  raw: echo x >/etc/x\n";
    assert_eq!(change("roles/high/handlers/main.yml", handlers), all);

    // As it was at first: what was baked then is found.
    let again = self::small();
    for name in [
        "group_vars/all.yml",
        defaults,
        "roles/low/defaults/main.yml",
        "roles/high/handlers/main.yml",
    ] {
        std::fs::copy(again.at(name), small.at(name)).unwrap();
    }
    small.recipe(&RECIPE.replace("GIVEN", "given: 1, other: 1"));
    assert_eq!(baked(&small), [""; 0]);
    assert!(std::fs::read(small.archive()).unwrap() == first);
}

#[test]
fn where_a_name_is_computed_every_variable_counts() {
    if !can_build() {
        return;
    }
    let small = small();
    small.write(
        "roles/low/tasks/main.yml",
        "- name: Write the address\n  raw: echo {{ lookup('vars', 'ho' ~ 'st') }} >/etc/low\n",
    );
    assert_eq!(baked(&small), ["low", "high"]);
    small.write("group_vars/all.yml", "host: one.test\nunrelated: 2\n");
    assert_eq!(baked(&small), ["low", "high"]);
    small.recipe(&RECIPE.replace("GIVEN", "given: 1, other: 2"));
    assert_eq!(baked(&small), ["low", "high"]);
}

#[test]
fn another_version_of_ansible_bakes_again_what_it_baked() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    small.recipe("layers: [{name: low, tags: [stack]}]\n");
    // The same Ansible, which says that it is another.
    let real = must(std::process::Command::new("sh").args(["-c", "command -v ansible-playbook"]));
    let script = std::fs::read_to_string(real.trim()).unwrap();
    let python = script
        .lines()
        .next()
        .unwrap()
        .trim_start_matches("#!")
        .trim();
    let bin = tempfile::tempdir().unwrap();
    let fake = bin.path().join("python");
    let program = |path: &std::path::Path, text: String| {
        std::fs::write(path, text).unwrap();
        must(std::process::Command::new("chmod").arg("+x").arg(path));
    };
    let first = format!("#!{}\n", fake.display());
    program(&bin.path().join("ansible-playbook"), first);
    let path = format!(
        "{}:{}",
        bin.path().display(),
        std::env::var("PATH").unwrap()
    );
    let build = |version: &str| {
        let text = format!(
            "#!/bin/sh\ncase $2 in *__version__*) echo {version} 3.1.2;; *) exec {python} \"$@\";; esac\n"
        );
        program(&fake, text);
        let told = must(small.build().env("PATH", &path));
        ["rootfs", "low"].map(|name| told.contains(&format!("layer {name}: baked in")))
    };
    assert_eq!(build("2.14.18"), [true, true]);
    assert_eq!(build("2.14.18"), [false, false]);
    assert_eq!(build("2.14.19"), [false, true]);
    assert_eq!(build("2.14.18"), [false, false]);
}

#[test]
fn another_version_of_a_collection_bakes_again_what_uses_it() {
    if !can_build() {
        return;
    }
    let small = small();
    let collection = |version: &str, word: &str| {
        let at = |name: &str| format!("collections/ansible_collections/acme/tools/{name}");
        let galaxy = format!("namespace: acme\nname: tools\nversion: {version}\n");
        small.write(&at("galaxy.yml"), &galaxy);
        let filter = format!(
            "def shout(text):\n    return text + '{word}'\n\n\nclass FilterModule:\n    def filters(self):\n        return {{'shout': shout}}\n"
        );
        small.write(&at("plugins/filter/shout.py"), &filter);
    };
    collection("1.0.0", "!");
    small.write(
        "roles/high/tasks/main.yml",
        "- name: Shout\n  raw: echo {{ 'up' | acme.tools.shout }} >/etc/high\n",
    );
    assert_eq!(baked(&small), ["low", "high"]);
    assert!(baked(&small).is_empty());
    collection("1.1.0", "!!");
    assert_eq!(baked(&small), ["high"]);
}

#[test]
fn facts_results_and_variables_reach_later_layers_baked_or_not() {
    if !can_build() {
        return;
    }
    let small = small();
    let low = "- name: Find out
  set_fact: {word: one, cacheable: true}
- name: Set
  set_fact: {plain: two}
- name: Say
  raw: echo three
  register: said
";
    small.write("roles/low/tasks/main.yml", low);
    // Only what is a fact is among `ansible_facts`.
    let high = |more: &str| {
        small.write(
            "roles/high/tasks/main.yml",
            &format!(
                "- name: Look
  assert:
    that:
      - ansible_facts.word == 'one' and word == 'one'
      - plain == 'two' and 'plain' not in ansible_facts
      - said.stdout is search('three')
- name: Write
  raw: echo {more} >/etc/high
"
            ),
        );
    };
    high("a");
    assert_eq!(baked(&small), ["low", "high"]);
    high("b");
    assert_eq!(
        baked(&small),
        ["high"],
        "with those of a layer from the cache"
    );
    small.write("roles/low/tasks/main.yml", &low.replace("one", "other"));
    let told = said(&small.build().output().unwrap());
    let failed = "cannot bake layer `high`: task `high : Look` failed";
    assert!(told.contains(failed), "{told}");
}

#[test]
fn a_handler_that_wants_what_a_later_layer_brings_says_so() {
    if !can_build() {
        return;
    }
    let small = small();
    let handler = "- name: count the words\n  raw: \"[ -e /etc/high ]\"\n";
    small.write("roles/low/handlers/main.yml", handler);
    let out = small.build().output().unwrap();
    let told = said(&out);
    assert_eq!(out.status.code(), Some(1), "{told}");
    for part in [
        "error: cannot bake layer `low`: handler `low : count the words` failed\n",
        "\nhint: handlers run at the end of the layer that notified them, here `low`: where this one needs what a later layer (`high`) brings, notify it from a task of that layer, or give both the same layer\nwhat ran: ",
    ] {
        assert!(told.contains(part), "{told}");
    }
    // In one layer it finds it.
    small.recipe("variables: {given: 1}\nlayers: [{name: both, tags: [low, high]}]\n");
    must(&mut small.build());
}
