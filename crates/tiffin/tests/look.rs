//! `inspect`, `diff` and `lint` on archives of a few files.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Config, Content, Entry, Silent};

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtz\n-----END OPENSSH PRIVATE KEY-----\n";

fn file(path: &str, mode: u32, content: &str) -> Entry {
    Entry {
        path: path.into(),
        mode,
        uid: 0,
        gid: 0,
        content: Content::File(content.into()),
    }
}

/// An archive named `name` of layers, each with what made it.
fn archive(place: &Path, name: &str, layers: &[(&str, Vec<Entry>)]) -> PathBuf {
    let blobs = place.join("blobs");
    let made: Vec<image::Layer> = layers
        .iter()
        .map(|(_, entries)| {
            image::layer_from_entries(entries, &blobs, 1_700_000_000, image::Packing::Gzip).unwrap()
        })
        .collect();
    let config = Config {
        architecture: image::Platform::here().architecture,
        os: "linux".into(),
        created_epoch: 1_700_000_000,
        entrypoint: vec!["/init".into()],
        history: layers.iter().map(|(by, _)| (*by).to_owned()).collect(),
        ..Config::default()
    };
    let path = place.join(name);
    image::write_archive(&path, &["acme/box:v1".to_owned()], &config, &made, &Silent).unwrap();
    path
}

/// Exit code and standard output.
fn tiffin(arguments: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tiffin"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
    (out.status.code().unwrap(), text)
}

#[test]
fn inspect_tells_what_is_in_it() {
    let place = tempfile::tempdir().unwrap();
    let path = archive(
        place.path(),
        "a.tar",
        &[
            (
                "tiffin: layer rootfs",
                vec![file("etc/motd", 0o644, &"x".repeat(5000))],
            ),
            (
                "tiffin: layer app",
                vec![file("a", 0o644, "a"), file("evil\x1b[2J", 0o644, "b")],
            ),
        ],
    );
    let path = path.to_str().unwrap();
    let (code, text) = tiffin(&["inspect", path]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("2 files  tiffin: layer app"), "{text}");
    assert!(
        text.contains("5.0 kB  /etc/motd") && !text.contains('\x1b'),
        "{text}"
    );
    let (_, text) = tiffin(&["inspect", "--json", path]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["layers"].as_array().unwrap().len(), 2);
    assert_eq!(json["entrypoint"], serde_json::json!(["/init"]));
    assert_eq!(json["layers"][0]["compression"], "gzip");
    let (code, text) = tiffin(&["inspect", "/etc/hosts"]);
    assert_eq!(code, 1);
    assert!(
        text.starts_with("error: cannot use the image /etc/hosts: "),
        "{text}"
    );
}

#[test]
fn diff_names_layer_file_and_cause() {
    let place = tempfile::tempdir().unwrap();
    let base = ("base", vec![file("same", 0o644, "same")]);
    let one = archive(
        place.path(),
        "1.tar",
        &[
            base.clone(),
            (
                "app",
                vec![
                    file("a", 0o644, "1"),
                    file("b", 0o644, "b"),
                    file("c", 0o644, "c"),
                ],
            ),
        ],
    );
    let other = archive(
        place.path(),
        "2.tar",
        &[
            base,
            (
                "app",
                vec![
                    file("a", 0o644, "2"),
                    file("b", 0o600, "b"),
                    file("d", 0o644, "d"),
                ],
            ),
        ],
    );
    let (one, other) = (one.to_str().unwrap(), other.to_str().unwrap());
    assert_eq!(tiffin(&["diff", one, one]), (0, String::new()));
    let (code, text) = tiffin(&["diff", one, other]);
    assert_eq!(code, 3);
    assert_eq!(
        text,
        "layer 2 (app): 4 differences\n  /a: content, 1 bytes\n  /b: mode 0644 | 0600\n  /c: only in the first\n  /d: only in the second\n"
    );
}

#[test]
fn lint_finds_secrets_identity_and_waste() {
    let place = tempfile::tempdir().unwrap();
    let token = format!("token = glpat-{}\n", "x".repeat(20));
    let large = "x".repeat(2_000_000);
    let bad = archive(
        place.path(),
        "bad.tar",
        &[
            (
                "base",
                vec![
                    file("opt/old", 0o644, &large),
                    file("opt/kept", 0o644, &large),
                ],
            ),
            (
                "app",
                vec![
                    file("opt/old", 0o644, "new"),
                    file(
                        "etc/machine-id",
                        0o444,
                        "0123456789abcdef0123456789abcdef\n",
                    ),
                    file("etc/ssh/ssh_host_rsa_key", 0o600, KEY),
                    file("home/me/id", 0o600, KEY),
                    file("home/me/.bash_history", 0o600, "ls\n"),
                    file("srv/app/.git/config", 0o644, ""),
                    file("srv/app/settings", 0o644, &token),
                    file("usr/bin/su", 0o4755, "su"),
                    // What is no secret, though it looks like one.
                    file(
                        "usr/lib/reader",
                        0o755,
                        "-----BEGIN PRIVATE KEY-----\nAKIA glpat-short",
                    ),
                    file("usr/lib/tests/key.pem", 0o644, KEY),
                    file("var/lib/dbus/machine-id", 0o444, ""),
                ],
            ),
        ],
    );
    let (code, text) = tiffin(&["lint", bad.to_str().unwrap()]);
    assert_eq!(code, 3, "{text}");
    assert_eq!(
        text,
        "error: /etc/machine-id: this machine's identity: every box would have the same\n\
         error: /etc/ssh/ssh_host_rsa_key: an SSH host key: every box would have the same\n\
         error: /home/me/.bash_history: what somebody typed\n\
         error: /home/me/id: a private key\n\
         error: /srv/app/.git: a repository's history\n\
         error: /srv/app/settings: a GitLab token\n\
         note: 2.0 MB are hidden or deleted by layers above: /opt/old 2.0 MB\n\
         note: /usr/bin/su: setuid, of user 0\n"
    );
    let good = archive(
        place.path(),
        "good.tar",
        &[("base", vec![file("etc/machine-id", 0o444, "")])],
    );
    assert_eq!(
        tiffin(&["lint", good.to_str().unwrap()]),
        (0, String::new())
    );
}
