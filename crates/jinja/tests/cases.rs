//! Every `cases/NAME.yaml` renders to `cases/NAME.expected`, which Ansible wrote
//! (`tests/expected.py`). A new case is a new file.

use std::path::Path;

use contract::{Parity, Template, Variables};
use jinja::Scope;
use serde_json::Value;

fn template(case: &Value) -> Template {
    let part = |key: &str| case.get(key).cloned().unwrap_or_default();
    Template {
        dest: "/out".into(),
        source: "case.j2".into(),
        task: String::new(),
        uid: 0,
        gid: 0,
        mode: "0644".into(),
        body: part("template").as_str().unwrap_or_default().to_owned(),
        options: serde_json::from_value(part("options")).unwrap_or_default(),
        variables: Variables::new(),
        includes: serde_json::from_value(part("includes")).unwrap_or_default(),
        parity: Parity::Identical,
        link: false,
        notify: Vec::new(),
        validate: None,
    }
}

#[test]
fn ansible_renders_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut failures = Vec::new();
    let mut count = 0;
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
    {
        count += 1;
        let case: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let variables = case["variables"].as_object().cloned().unwrap_or_default();
        let settings = Variables::new();
        let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match jinja::render(&template(&case), &Scope::new(&settings, &[&variables])) {
            Ok(text) if text == expected => {}
            Ok(text) => {
                for (at, (ours, theirs)) in text.lines().zip(expected.lines()).enumerate() {
                    if ours != theirs {
                        failures.push(format!(
                            "{name}:{}\n  ansible: {theirs}\n  here:    {ours}",
                            at + 1
                        ));
                    }
                }
                if text.lines().count() != expected.lines().count()
                    || text.ends_with('\n') != expected.ends_with('\n')
                {
                    failures.push(format!("{name}: another number of lines"));
                }
            }
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(count > 5);
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
