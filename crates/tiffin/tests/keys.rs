//! Which layers a change bakes again: those that could use what has changed, and those above.

mod common;

use common::{Small, can_build, must};

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
