//! What somebody sees who watches a build, and what a program is told meanwhile.

mod common;

use std::process::Command;

use common::{Small, can_build, must, said};

/// A task that takes a while, and in which a package arrives as apt makes it arrive.
fn small() -> Small {
    let small = Small::new(30_000_000);
    small.write(
        "site.yml",
        "- hosts: all
  gather_facts: false
  tags: [stack]
  tasks:
    - name: Be quick
      raw: echo one >/etc/one
    - name: Fetch
      raw: head -c 3210000 /dev/zero >/run/tiffin/cache/apt/web_1.0_all.deb
    - name: Take a while
      raw: sleep 2.5
",
    );
    small
}

/// The words of a build, but for `--progress plain`.
fn words(small: &Small) -> Vec<String> {
    let build = small.build();
    let words = build.get_args().map(|word| word.to_str().unwrap());
    let words = words.filter(|word| !["--progress", "plain"].contains(word));
    words.map(str::to_owned).collect()
}

#[test]
fn a_terminal_shows_phases_tasks_with_their_times_and_bytes() {
    if !can_build() {
        return;
    }
    let small = small();
    let line = format!(
        "stty cols 100 rows 30; exec '{}' '{}'",
        env!("CARGO_BIN_EXE_tiffin"),
        words(&small).join("' '")
    );
    let mut watched = Command::new("script");
    watched.args(["--quiet", "--return", "--flush", "--command", &line]);
    watched.arg("/dev/null").env("TERM", "xterm");
    watched.env("SOURCE_DATE_EPOCH", common::EPOCH.to_string());
    let out = watched.env_remove("TIFFIN_CACHE").output().unwrap();
    let told = said(&out);
    assert!(out.status.success(), "{told}");
    // Each redrawing ends where the cursor is taken back.
    let shown: Vec<&str> = told.split(['\r', '\n']).collect();
    let has = |words: &[&str]| {
        let all = |line: &&&str| words.iter().all(|word| line.contains(word));
        assert!(shown.iter().any(|line| all(&line)), "{words:?}:\n{told}");
    };
    // Moving, ...
    has(&["[00:00:0", "layer stack", "Take a while"]);
    has(&["layer stack", "(3.2 MB fetched)", "Take a while"]);
    has(&["layers", " MB"]);
    // ... and staying.
    has(&[" s  Take a while"]);
    has(&["layer stack: baked in ", ", 3.2 MB fetched"]);
    has(&[
        "acme/small:v1: ",
        ", 3.2 MB of packages fetched, at most ",
        " MB of memory",
    ]);
    assert!(!told.contains(" s  Be quick"), "it stays:\n{told}");
    assert!(!told.contains("==> "), "lines for no terminal:\n{told}");
}

#[test]
fn a_program_is_told_what_is_fetched_while_it_is() {
    if !can_build() {
        return;
    }
    let small = small();
    let lines = |extra: &[&str]| {
        let mut build = Command::new(env!("CARGO_BIN_EXE_tiffin"));
        build.args(words(&small)).args(["--progress", "json"]);
        build.env("SOURCE_DATE_EPOCH", common::EPOCH.to_string());
        let told = must(build.env_remove("TIFFIN_CACHE").args(extra));
        let events = told.lines().filter(|line| line.starts_with('{'));
        let events = events.map(|line| serde_json::from_str(line).unwrap());
        events.collect::<Vec<serde_json::Value>>()
    };
    let place = |events: &[serde_json::Value], event: &str, name: Option<&str>| {
        let found = |e: &serde_json::Value| e["event"] == event && e["name"].as_str() == name;
        events.iter().position(found)
    };
    let events = lines(&[]);
    let fetched = place(&events, "fetched", None).expect("it is told");
    assert_eq!(events[fetched]["bytes"], 3_210_000);
    let ended = place(&events, "task_end", Some("Take a while")).unwrap();
    assert!(fetched < ended, "only afterwards");
    let layer = &events[place(&events, "layer", Some("stack")).unwrap()];
    assert_eq!(layer["fetched"], 3_210_000);
    let summary = events.last().unwrap();
    assert_eq!(summary["fetched"], 3_210_000);
    let memory = summary["memory"].as_u64().unwrap();
    assert!((1_000_000..256_000_000).contains(&memory), "{memory}");

    // From the cache: nothing is.
    let events = lines(&[]);
    assert_eq!(place(&events, "fetched", None), None);
    assert_eq!(events.last().unwrap()["fetched"], 0);
    // What an earlier build fetched is not fetched again.
    let events = lines(&["--no-cache"]);
    assert_eq!(events.last().unwrap()["fetched"], 0);
}
