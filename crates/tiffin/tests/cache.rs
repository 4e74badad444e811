//! `tiffin cache`, and what builds do to a cache.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Small, can_build, must, noise, said};
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

/// Bytes of all that `tiffin cache list` counts.
fn held(dir: &Path) -> u64 {
    let kept = bake::cache::Cache::open(dir).unwrap().list().unwrap();
    kept.iter().map(|kept| kept.bytes).sum()
}

#[test]
fn a_build_keeps_the_cache_below_its_size() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    small.recipe("layers:\n  - name: files\n    steps: [{copy: {from: data, to: /srv/data}}]\n");
    let dir = small.at("cache");
    let build = |seed: u64, size: &str| {
        fs::write(small.at("data"), noise(3_000_000, seed)).unwrap();
        must(small.build().args(["--cache-size", size]))
    };
    build(1, "1G");
    // One more layer and its blob are 6 MB, and two are too much.
    let limit = held(&dir) + 8_000_000;
    let size = limit.to_string();
    assert!(!build(2, &size).contains("removed from the cache"));
    assert!(held(&dir) > limit - 4_000_000);
    for seed in [3, 4, 5] {
        // What was used a second before a build began is taken for its own.
        std::thread::sleep(Duration::from_millis(1100));
        let told = build(seed, &size);
        assert!(told.contains(" removed from the cache, "), "{told}");
        assert!(!told.contains("layer rootfs: baked in"), "{told}");
        assert!(held(&dir) <= limit);
    }
    assert!(!build(5, &size).contains("baked in"));
    let told = build(1, &size);
    assert!(told.contains("layer files: baked in"), "{told}");
    assert!(!told.contains("layer rootfs: baked in"), "{told}");
    // What this build has used stays, whatever was allowed.
    let told = build(1, "1M");
    assert!(told.contains(", more than its size of 1.0 MB: "), "{told}");
    assert!(!build(1, "1M").contains("baked in"));
    assert_eq!(cache(&dir, &["verify"]), (0, String::new()));

    let out = small.build().args(["--cache-size", "lots"]).output();
    let told = said(&out.unwrap());
    assert_eq!(told, "error: `lots` is no size: write it as 20G or 500M\n");
}

/// Rounds of two builds that begin with nothing, beside somebody who removes all that he may.
fn two_builds_and_a_prune(rounds: u32) {
    if !can_build() {
        return;
    }
    let small = Small::new(1_000_000);
    must(&mut small.build());
    let good = fs::read(small.archive()).unwrap();
    for round in 0..rounds {
        let place = tempfile::tempdir().unwrap();
        let shared = place.path().join("cache");
        fs::create_dir(&shared).unwrap();
        let places = ["one", "two"].map(|name| place.path().join(name));
        let mut builds = places.each_ref().map(|place| {
            fs::create_dir(place).unwrap();
            symlink(&shared, place.join("cache")).unwrap();
            let mut build = small.build_in(place);
            build.stdout(Stdio::piped()).stderr(Stdio::piped());
            build.spawn().unwrap()
        });
        let mut prunes = 0;
        while builds
            .iter_mut()
            .any(|build| build.try_wait().unwrap().is_none())
        {
            let (code, told) = cache(&shared, &["prune", "--keep", "0"]);
            assert_eq!(code, 0, "{told}");
            prunes += 1;
        }
        assert!(prunes > 5, "{prunes} prunes beside a build");
        for (build, place) in builds.into_iter().zip(&places) {
            let out = build.wait_with_output().unwrap();
            assert!(out.status.success(), "round {round}: {}", said(&out));
            assert!(fs::read(place.join("dist/small-v1.tar")).unwrap() == good);
        }
        assert_eq!(cache(&shared, &["verify"]), (0, String::new()));
        assert_eq!(fs::read_dir(shared.join("work")).unwrap().count(), 0);
        // And what is left is of use.
        must(&mut small.build_in(&places[0]));
        assert!(fs::read(places[0].join("dist/small-v1.tar")).unwrap() == good);
    }
}

#[test]
fn two_builds_and_a_prune_at_once() {
    two_builds_and_a_prune(2);
}

#[test]
#[ignore = "40 builds: make test-long"]
fn many_times_two_builds_and_a_prune_at_once() {
    two_builds_and_a_prune(20);
}
