//! `SUPPORTED.md` says what the code supports, and knows every name that Ansible has.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/SUPPORTED.md");

#[test]
fn the_table_is_what_the_code_says() {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(TABLE, jinja::table()).unwrap();
    }
    let written = std::fs::read_to_string(TABLE).unwrap_or_default();
    assert!(
        written == jinja::table(),
        "SUPPORTED.md is stale: UPDATE=1 cargo test -p jinja --test table"
    );
}

#[test]
fn the_table_knows_every_name_of_ansible() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected.py");
    let output = Command::new("/usr/bin/python3")
        .arg(script)
        .arg("--names")
        .stderr(Stdio::null())
        .output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have Ansible: ci/setup test installs it"
        );
        eprintln!("skipped: no Ansible is installed");
        return;
    };
    let names: Value = serde_json::from_slice(&output.stdout).unwrap();
    let table = jinja::table();
    let (mut count, mut unknown) = (0, Vec::new());
    for (kind, title) in [
        ("filter", "Filters"),
        ("test", "Tests"),
        ("lookup", "Lookups"),
        ("function", "Functions"),
    ] {
        let (_, rest) = table.split_once(&format!("\n## {title}\n")).unwrap();
        let section = rest.split("\n## ").next().unwrap();
        for name in names[kind].as_array().unwrap() {
            let name = name.as_str().unwrap();
            count += 1;
            if !section.contains(&format!("\n| `{name}` |")) {
                unknown.push(format!("{kind} {name}"));
            }
        }
    }
    assert!(count > 200, "Ansible names only {count}");
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
}
