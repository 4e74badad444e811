//! `tiffin cache` on a cache of a few things.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{Content, Entry};

/// Exit code and both streams.
fn cache(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tiffin"))
        .args(["cache", "--cache"])
        .arg(dir)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
    (out.status.code().unwrap(), text)
}

#[test]
fn each_damaged_thing_is_named_and_pruning_empties_it() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let layer = |text: &str| {
        let entry = Entry {
            path: "file".into(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            content: Content::File(text.into()),
        };
        image::layer_from_entries(&[entry], &dir.join("blobs"), 0, image::Packing::Gzip).unwrap()
    };
    let blobs = [layer("one"), layer("two")];
    let baked = dir.join("layers/key");
    fs::create_dir_all(baked.join("tree")).unwrap();
    fs::write(baked.join("record.json"), bake::sealed::seal(b"{}")).unwrap();
    assert_eq!(cache(dir, &["verify"]), (0, String::new()));
    let (code, text) = cache(dir, &["list"]);
    assert!(
        code == 0 && text.contains("2 compressed layers") && text.contains("layer key"),
        "{text}"
    );

    let hint = "hint: remove what is named; the next build makes it anew\n";
    for blob in &blobs {
        let good = fs::read(&blob.blob).unwrap();
        let mut bad = good.clone();
        bad[15] ^= 1;
        fs::write(&blob.blob, &bad).unwrap();
        let found = image::sha256(&mut &bad[..]).unwrap();
        let told = format!(
            "{}: it is damaged: its digest is sha256:{found}\n{hint}",
            blob.blob.display()
        );
        assert_eq!(cache(dir, &["verify"]), (3, told));
        fs::write(&blob.blob, good).unwrap();
    }
    fs::write(baked.join("record.json"), "{").unwrap();
    let told = format!("{}: its record is damaged\n{hint}", baked.display());
    assert_eq!(cache(dir, &["verify"]), (3, told));

    let (code, text) = cache(dir, &["prune", "--keep", "lots"]);
    assert_eq!(
        (code, text.as_str()),
        (1, "error: `lots` is no size: write it as 20G or 500M\n")
    );
    assert_eq!(
        cache(dir, &["prune", "--keep", "1G"]).1,
        "0.0 kB removed, 0 things\n"
    );
    assert!(
        cache(dir, &["prune", "--keep", "0"])
            .1
            .ends_with("3 things\n")
    );
    assert_eq!(cache(dir, &["list"]), (0, String::new()));
}
