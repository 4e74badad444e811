//! What a recipe means when it is right, and that no text at all makes the reader panic.

use std::fs;
use std::path::Path;

use contract::Kind;
use proptest::prelude::*;
use recipe::{Base, Recipe, Step};
use serde_json::json;

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("site.yml"), "").unwrap();
    fs::write(home.path().join("hosts"), "").unwrap();
    home
}

fn parse(text: &str) -> Recipe {
    let home = home();
    recipe::parse(text, &home.path().join("tiffin.yaml")).unwrap()
}

#[test]
fn the_least_recipe_has_the_documented_defaults() {
    let home = home();
    let path = home.path().join("tiffin.yaml");
    fs::write(&path, "name: acme/backend\nplaybook: site.yml\n").unwrap();
    let recipe = recipe::read(&path).unwrap();
    assert_eq!(recipe.path, path);
    assert_eq!(recipe.folder(), home.path());
    assert_eq!(recipe.playbook, home.path().join("site.yml"));
    assert_eq!(
        recipe.base,
        Base::Debootstrap {
            suite: "bookworm".to_owned()
        }
    );
    assert_eq!(recipe.volumes, ["/data"]);
    assert_eq!(recipe.layers.len(), 1);
    assert_eq!(recipe.layers[0].name, "stack");
    assert!(recipe.layers[0].tags.is_empty());
    assert!(recipe.settings.is_empty() && recipe.ports.is_empty() && recipe.health.is_none());
}

#[test]
fn steps_and_packages_are_read_as_written() {
    let recipe = parse(
        r#"
name: acme/backend
playbook: site.yml
base: debootstrap:trixie
base_packages: [curl, libc6:amd64, g++]
layers:
  - name: tools
    steps:
      - run: "true"
      - copy: {from: site.yml, to: /srv//plays/, mode: 0640, owner: "www-data:0"}
      - copy: {from: ., to: /srv, mode: "4755"}
"#,
    );
    assert_eq!(recipe.base_packages, ["curl", "libc6:amd64", "g++"]);
    let [Step::Run(run), Step::Copy(file), Step::Copy(dir)] = &recipe.layers[0].steps[..] else {
        panic!("{:?}", recipe.layers);
    };
    assert_eq!(run, "true");
    assert_eq!((file.to.as_str(), file.mode), ("/srv/plays/", Some(0o640)));
    assert_eq!(file.owner.as_deref(), Some("www-data:0"));
    assert!(file.from.ends_with("site.yml") && dir.from.is_absolute());
    assert_eq!((dir.mode, &dir.owner), (Some(0o4755), &None));
}

#[test]
fn a_full_recipe_is_read_as_written() {
    let recipe = parse(
        r#"
name: acme/backend
registry: registry.acme.example:5000
title: Acme Backend
licenses: Apache-2.0
base: docker://docker.io/library/debian:12
playbook: site.yml
inventory: hosts
groups: [database, web]
layers:
  - name: packages
    tags: [packages]
  - name: stack
    skip_tags: [packages]
settings:
  REDIS_MAXMEMORY:
    type: size
    min: 64mb
    help: Memory for the cache.
  ADMIN_PASSWORD:
    variable: backend_admin_password
    secret: true
    generate: true
  LOG_LEVEL:
    type: enum
    values: [debug, info]
  SMTP_HOST:
volumes: [/data, /var/lib//files/]
ports: [80, 443]
services:
  redis-server:
    ready: {tcp: "127.0.0.1:{{ redis_port }}", timeout: 2m}
    data: [/data//redis/, "{{ redis_spill }}"]
  mongod: {needs: {memory: 1G, files: 64000, cpu: [avx, sse4_2], huge_pages: never}}
  migrate: {once: true, after: [mongod], when: "migrate | bool"}
  mail: {required: no}
files:
  /etc/redis/redis.conf: {link: no}
  /etc/portal.conf:
stop_signal: QUIT
stop_timeout: 90
labels: {com.acme.team: "1"}
needs: {cores: 2, disk: 10g}
support: {redis-info: [redis-cli, -p, "{{ redis_port }}", INFO]}
health: {interval: 10s}
"#,
    );
    assert_eq!(
        recipe.registry.as_deref(),
        Some("registry.acme.example:5000")
    );
    assert_eq!(
        recipe.base,
        Base::Docker("docker.io/library/debian:12".to_owned())
    );
    assert_eq!(recipe.groups, ["database", "web"]);
    assert_eq!(recipe.layers[1].skip_tags, ["packages"]);
    let memory = &recipe.settings["REDIS_MAXMEMORY"];
    assert_eq!((memory.kind, memory.min), (Kind::Size, Some(64 << 20)));
    assert_eq!(memory.variable, "redis_maxmemory");
    let password = &recipe.settings["ADMIN_PASSWORD"];
    assert_eq!(
        (password.kind, password.secret, password.generate),
        (Kind::Secret, true, Some(32))
    );
    assert_eq!(recipe.settings["LOG_LEVEL"].choices, ["debug", "info"]);
    assert_eq!(recipe.settings["SMTP_HOST"].kind, Kind::String);
    assert_eq!(recipe.volumes, ["/data", "/var/lib/files"]);
    let ready = recipe.services["redis-server"].ready.as_ref().unwrap();
    assert_eq!(ready.timeout, Some(120));
    let data = &recipe.services["redis-server"].data;
    assert_eq!(data, &["/data/redis", "{{ redis_spill }}"]);
    assert!(recipe.services["migrate"].once);
    assert_eq!(recipe.services["migrate"].required, None);
    assert_eq!(recipe.services["mail"].required, Some(false));
    assert_eq!(
        recipe.links,
        [("/etc/redis/redis.conf".to_owned(), false)].into()
    );
    assert_eq!(recipe.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(recipe.health.unwrap().interval, 10);
    assert_eq!(
        (recipe.needs.cores, recipe.needs.disk),
        (Some(2), Some(10 << 30))
    );
    assert_eq!(recipe.support["redis-info"][2], "{{ redis_port }}");
    let needs = &recipe.services["mongod"].needs;
    assert_eq!((needs.memory, needs.files), (Some(1 << 30), Some(64_000)));
    assert_eq!(needs.cpu, ["avx", "sse4_2"]);
    assert_eq!(needs.huge_pages, Some(contract::HugePages::Never));
}

/// Expected values are what `yaml.safe_load` of PyYAML 6 gives, which is what Ansible reads with.
#[test]
fn unquoted_values_mean_what_they_mean_in_a_playbook() {
    let recipe = parse(
        "name: a\nplaybook: site.yml\nvariables:\n  a: yes\n  b: off\n  c: 'no'\n  d: 0644\n  e: 0x1f\n  f: 1_000\n  g: 1.5\n  \
         h: 1e3\n  i: ~\n  j:\n  k: 089\n  l: -5\n  m: 1.0e+3\n  n: .5\n  o: '{{ x }}'\n  p: [y, n]\n  q: 2026-11-21\n  r: 18446744073709551615\n  s: 0b101\n  t: +3\n  u: !!str 5\n  v: 0\n  w: 00\n  x: 1.\n  y: .\n  z: 0o17\n",
    );
    let expected = json!({
        "a": true, "b": false, "c": "no", "d": 420, "e": 31, "f": 1000, "g": 1.5, "h": "1e3", "i": null, "j": null,
        "k": "089", "l": -5, "m": 1000.0, "n": 0.5, "o": "{{ x }}", "p": ["y", "n"], "q": "2026-11-21",
        "r": 18446744073709551615u64, "s": 5, "t": 3, "u": "5", "v": 0, "w": 0, "x": 1.0, "y": ".", "z": "0o17",
    });
    assert_eq!(serde_json::Value::Object(recipe.variables), expected);
}

#[test]
fn an_alias_is_a_copy() {
    let recipe = parse("name: a\nplaybook: site.yml\nvariables:\n  a: &a {x: 1}\n  b: *a\n");
    assert_eq!(recipe.variables["b"], json!({"x": 1}));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = recipe::read(Path::new("no/such/tiffin.yaml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read no/such/tiffin.yaml: No such file or directory (os error 2)"
    );
    assert!(error.hint().unwrap().contains("-f FILE"));

    let home = home();
    let path = home.path().join("tiffin.yaml");
    fs::write(&path, b"name: a\ntitle: \xff\n").unwrap();
    let error = recipe::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("it is not UTF-8 text at line 2"), "{error}");
    fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    let error = recipe::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("it is larger than 1 MiB"), "{error}");
}

/// Recipes in pieces, so that random ones get past the first line.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "name: ",
        "a",
        "\n",
        "playbook: site.yml\n",
        "  ",
        "- ",
        "settings:\n",
        "  A:\n",
        "    type: ",
        "size",
        "min: ",
        "[",
        "]",
        "{",
        "}",
        ": ",
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        "|\n",
        ">\n",
        "'",
        "\"",
        "\\x",
        "é",
        "\u{feff}",
        "\t",
        "services:\n",
        "ready: ",
        "tcp: ",
        "9",
        "-",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "? ",
        "<<: ",
        "~",
        "0x",
        "_",
        "health: ",
        "layers:\n",
        "base: ",
        "docker://",
        "rootfs:",
        "\r",
        "\u{85}",
        "#",
        "ports: ",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_panics(text in prop_oneof![pieces(), ".{0,200}"]) {
        if let Err(error) = recipe::parse(&text, Path::new("/nowhere/tiffin.yaml")) {
            prop_assert!(!error.to_string().contains('\n'), "more than a line: {error}");
        }
    }
}

#[test]
fn layers_are_compressed_as_the_recipe_says() {
    use recipe::Compression;
    for (line, meant) in [
        ("", Compression::Gzip),
        ("compression: gzip", Compression::Gzip),
        ("compression: zstd", Compression::Zstd { level: 3 }),
        ("compression: zstd:19", Compression::Zstd { level: 19 }),
    ] {
        let recipe = parse(&format!("name: acme/backend\nplaybook: site.yml\n{line}\n"));
        assert_eq!(recipe.compression, meant, "{line}");
    }
}

#[test]
fn how_processes_run_and_which_files_are_rotated() {
    let recipe = parse(
        "name: acme/backend\nplaybook: site.yml\nservices:\n  redis:\n    nice: 5\n    oom_score_adj: -100\n    \
         limits: {nofile: 65536, core: infinity, stack: \"8M:64M\"}\n    \
         log_files:\n      - path: /var/log//a.log\n      - {path: /var/log/b.log, max: 1g, keep: 0, signal: USR1}\n\
         jobs:\n  sweep: {command: x, every: 1h, nice: 19, limits: {nproc: 10}}\n",
    );
    let redis = &recipe.services["redis"];
    assert_eq!((redis.nice, redis.oom_score_adj), (Some(5), Some(-100)));
    let limits: Vec<_> = redis
        .limits
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(limits, ["core=infinity", "nofile=65536", "stack=8M:64M"]);
    let file = |path: &str, max, keep, signal: Option<&str>| contract::LogFile {
        path: path.to_owned(),
        max,
        keep,
        signal: signal.map(str::to_owned),
    };
    assert_eq!(
        redis.log_files,
        [
            file("/var/log/a.log", 50 << 20, 5, None),
            file("/var/log/b.log", 1 << 30, 0, Some("USR1"))
        ]
    );
    let sweep = &recipe.services["sweep"];
    assert_eq!(
        (sweep.nice, sweep.limits["nproc"].as_str()),
        (Some(19), "10")
    );
}
