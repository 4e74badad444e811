//! What a build says, to people and to programs.

use std::{fs, process::Command};

use serde_json::Value;

use crate::build::Small;
use crate::harness::*;

/// Standard error as events; every line of it must be one.
fn events(text: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(text)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn json(small: &Small, version: &str) -> Command {
    let mut command = small.build();
    command.args(["--progress", "json"]);
    let place = command.get_args().position(|a| a == "v1").unwrap();
    let mut arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    arguments[place] = version.into();
    let mut command = Command::new(tiffin());
    command.args(arguments);
    command
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_program_follows_a_build_line_by_line() {
    let task = format!(
        "    - name: Say hello\n      copy: {{content: '{}', dest: /etc/hello}}\n",
        unique("hello")
    );
    let small = Small::new(&task);
    let out = output(&mut json(&small, "v1"));
    assert!(out.status.success(), "{}", told(&json(&small, "v1"), &out));
    let said = events(&out.stderr);
    let of = |said: &[Value], event: &str| -> Vec<Value> {
        let found = said.iter().filter(|line| line["event"] == event);
        found.cloned().collect()
    };
    let phases: Vec<_> = of(&said, "phase")
        .iter()
        .map(|p| p["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        phases,
        ["recipe", "layer stack", "contract", "layers", "archive"]
    );
    let ended = of(&said, "task_end");
    assert_eq!(ended[0]["name"], "Say hello");
    assert!(ended[0]["took"].as_f64().unwrap() > 0.0);
    assert_eq!(of(&said, "packed")[0]["name"], "stack");
    let layers: Vec<_> = of(&said, "layer")
        .iter()
        .map(|l| (l["name"].clone(), l["cached"].clone()))
        .collect();
    assert_eq!(layers[0], ("rootfs".into(), true.into()));
    assert_eq!(layers[1], ("stack".into(), false.into()));
    let mut last = 0.0;
    for line in &said {
        let now = line["seconds"].as_f64().unwrap();
        assert!(now >= last, "{line}");
        last = now;
    }

    let summary = said.last().unwrap();
    assert_eq!(summary["event"], "summary");
    let archive = small.dist().join("small-v1.tar");
    assert_eq!(summary["bytes"], fs::metadata(&archive).unwrap().len());
    let sum = fs::read_to_string(small.dist().join("small-v1.tar.sha256")).unwrap();
    assert_eq!(summary["sha256"], sum[..64]);
    let layers = summary["layers"].as_array().unwrap();
    let names: Vec<_> = layers.iter().map(|l| &l["name"]).collect();
    assert_eq!(names, ["rootfs", "stack", "contract"]);
    let digest = layers[1]["digest"].as_str().unwrap();
    let manifest = must(
        Command::new("tar")
            .arg("-xOf")
            .arg(&archive)
            .arg("manifest.json"),
    );
    assert!(manifest.contains(&digest[7..]), "{manifest}");
    let directories = summary["directories"].as_array().unwrap();
    assert_eq!(directories.len(), 10);
    assert!(
        directories
            .iter()
            .any(|d| d["path"].as_str().unwrap().starts_with("/usr/lib")),
        "{directories:?}"
    );
    assert_eq!(summary["previous"], Value::Null);

    // Another version, of which only the uppermost layer is new.
    let out = output(&mut json(&small, "v2"));
    let said = events(&out.stderr);
    let summary = said.last().unwrap();
    assert_eq!(summary["previous"]["archive"], "small-v1.tar");
    let layers = summary["layers"].as_array().unwrap();
    assert_eq!(summary["previous"]["new"], layers[2]["bytes"]);
    assert!(of(&said, "task").is_empty() && of(&said, "packed").is_empty());

    // The same for people.
    let out = output(&mut small.build());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    for word in [
        "largest directories:",
        "in 3 layers (2 unchanged)",
        "small-v2.tar: ",
        " of layers that it does not have",
    ] {
        assert!(text.contains(word), "`{word}` is missing:\n{text}");
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_program_learns_why_a_build_failed() {
    let small = Small::new("    - name: Go wrong\n      command: sh -c 'exit 3'\n");
    let out = output(&mut json(&small, "v1"));
    assert_eq!(out.status.code(), Some(1));
    assert!(out.stdout.is_empty());
    let said = events(&out.stderr);
    let last = said.last().unwrap();
    assert_eq!(
        (&last["event"], &last["code"]),
        (&"error".into(), &1.into())
    );
    assert!(last["text"].as_str().unwrap().contains("Go wrong"));
    assert!(last["hints"][0].as_str().unwrap().contains("what ran:"));

    small.write("tiffin.yaml", "name: test/small\nplaybok: site.yml\n");
    let said = events(&output(&mut json(&small, "v1")).stderr);
    assert_eq!(said[0]["code"], 78);
    let both = output(json(&small, "v1").arg("--shell-on-failure"));
    assert_eq!(both.status.code(), Some(2));
}
