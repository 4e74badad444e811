//! A layer is baked again when something that its play read has changed, and only then.

use std::{fs, thread, time::Duration};

use crate::{build::Small, harness::*};

const RECIPE: &str = "name: test/small\nplaybook: site.yml\nlayers:\n- {name: one, tags: [one]}\n- {name: two, tags: [two]}\n";

/// The layers that were baked, and all that was said.
fn baked(small: &Small, environment: &[(&str, &str)]) -> (Vec<&'static str>, String) {
    let out = output(small.build().envs(environment.iter().copied()));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    let again = ["one", "two"]
        .into_iter()
        .filter(|name| said.contains(&format!("layer {name}: baked in")));
    (again.collect(), said)
}

fn sum(small: &Small) -> Vec<u8> {
    fs::read(small.dist().join("small-v1.tar.sha256")).unwrap()
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_change_makes_again_the_layers_that_read_it() {
    let outside = tempfile::tempdir().unwrap();
    let far = outside.path().join("licence");
    fs::write(&far, "free").unwrap();
    let small = Small::new(&format!(
        "    - copy: {{src: one.txt, dest: /etc/one}}\n      tags: one\n\
         \x20   - copy: {{src: app/, dest: /opt/app/}}\n      tags: two\n\
         \x20   - copy: {{src: {}, dest: /opt/licence}}\n      tags: two\n\
         \x20   - copy: {{content: \"{{{{ lookup('env', 'TIFFIN_TEST_WORD') }}}} {{{{ word | default('none') }}}}\", dest: /etc/word}}\n      tags: two\n",
        far.display()
    ));
    small.write("tiffin.yaml", RECIPE);
    let name = unique("reads");
    small.write("one.txt", &name);
    small.write("app/main.py", "print(1)\n");
    small.write("notes/unread.txt", "1");
    let word = [("TIFFIN_TEST_WORD", "first")];
    let two = || baked(&small, &word).0;
    assert_eq!(two(), ["one", "two"]);
    let first = sum(&small);
    assert!(two().is_empty());

    small.write("notes/unread.txt", "2");
    assert!(two().is_empty(), "nothing reads it");
    small.write("app/main.py", "print(2)\n");
    let (again, said) = baked(&small, &word);
    assert_eq!(again, ["two"]);
    let told = "layer two is made again: app/main.py has changed";
    assert!(said.contains(told), "{said}");
    small.write("app/new.py", "");
    assert_eq!(two(), ["two"], "a file in a directory that is copied");
    fs::write(&far, "not free").unwrap();
    assert_eq!(two(), ["two"], "a file far away");
    let (again, said) = baked(&small, &[("TIFFIN_TEST_WORD", "second")]);
    assert_eq!(again, ["two"], "a variable of the environment");
    assert!(!said.contains("second"), "{said}");
    // Where Ansible looked in vain before.
    small.write("group_vars/all.yml", "word: given\n");
    assert_eq!(two(), ["one", "two"]);

    // As it was: what was baked then is found, and the same bytes come of it.
    fs::remove_file(small.dir.path().join("app/new.py")).unwrap();
    fs::remove_dir_all(small.dir.path().join("group_vars")).unwrap();
    small.write("app/main.py", "print(1)\n");
    fs::write(&far, "free").unwrap();
    assert!(two().is_empty());
    assert_eq!(sum(&small), first);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn when_a_program_runs_on_the_build_machine_all_files_count() {
    let small = Small::new(
        "    - command: cat notes/word\n      args: {chdir: '{{ playbook_dir }}'}\n      delegate_to: localhost\n      register: said\n      tags: one\n\
         \x20   - copy: {content: '{{ said.stdout }}', dest: /etc/word}\n      tags: one\n\
         \x20   - copy: {content: two, dest: /etc/two}\n      tags: two\n",
    );
    small.write("tiffin.yaml", RECIPE);
    small.write("notes/word", &unique("word"));
    let (again, said) = baked(&small, &[]);
    assert_eq!(again, ["one", "two"]);
    assert!(said.contains("on this machine, outside the box"), "{said}");
    assert!(baked(&small, &[]).0.is_empty());
    small.write("notes/word", &unique("word"));
    assert_eq!(baked(&small, &[]).0, ["one", "two"]);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn what_changes_while_a_layer_is_made_is_not_taken_for_what_it_read() {
    let small = Small::new(
        "    - copy: {src: word, dest: /etc/word}\n      tags: one\n    - command: sleep 3\n      tags: one\n\
         \x20   - copy: {content: two, dest: /etc/two}\n      tags: two\n",
    );
    small.write("tiffin.yaml", RECIPE);
    let (old, new) = (unique("old"), unique("new"));
    small.write("word", &old);
    let (again, said) = thread::scope(|scope| {
        scope.spawn(|| {
            let reached = || {
                output(std::process::Command::new("pgrep").args(["-fx", "sleep 3"]))
                    .status
                    .success()
            };
            if within(Duration::from_secs(60), reached) {
                small.write("word", &new);
            }
        });
        baked(&small, &[])
    });
    assert_eq!(again, ["one", "two"]);
    assert!(said.contains("were changed meanwhile"), "{said}");
    assert_eq!(baked(&small, &[]).0, ["one", "two"]);
    assert!(baked(&small, &[]).0.is_empty());
}
