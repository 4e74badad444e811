//! A disk that is full at any moment of a build.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Small, can_build, must};

/// Builds on file systems of `count` sizes, none of which can hold what is to be kept, then
/// gives each enough room and builds again.
fn full_at(count: u64) {
    if !can_build() {
        return;
    }
    let small = Small::new(4_000_000);
    let disk = small.at("disk");
    fs::create_dir(&disk).unwrap();
    // Seen by these builds alone, and gone with them.
    let script = "
        set -e
        size=$1 disk=$2 told=$3; shift 3
        mount -t tmpfs -o size=$size tmpfs $disk
        code=0; \"$@\" >$told.1 2>&1 || code=$?
        echo $code >$told.code
        ls -A $disk/dist >$told.files 2>/dev/null || true
        [ ! -e $disk/dist/small-v1.tar ] || sha256sum <$disk/dist/small-v1.tar >$told.sum1
        du -sk $disk | cut -f1 >$told.size
        mount -o remount,size=500m $disk
        \"$@\" >$told.2 2>&1
        sha256sum <$disk/dist/small-v1.tar >$told.sum2
        ls -A $disk/cache/work >$told.work
    ";
    let run = |size: &str, told: &Path| {
        let build = small.build_in(&disk);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh", size])
            .args([&disk, told])
            .arg(build.get_program())
            .args(build.get_args());
        for (name, value) in build.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        must(&mut command);
    };
    let read =
        |told: &Path, part: &str| fs::read_to_string(told.with_extension(part)).unwrap_or_default();
    let told = small.at("roomy");
    run("500m", &told);
    assert_eq!(read(&told, "code"), "0\n", "{}", read(&told, "1"));
    let good = read(&told, "sum1");
    assert_eq!(good.len(), 68, "{good}");
    let whole: u64 = read(&told, "size").trim().parse().unwrap();
    let place = disk.display().to_string();
    let mut words = std::collections::BTreeSet::new();
    for index in 0..count {
        // From nothing to a page less than what there must be in the end.
        let size = (whole - 4) * (index + 1) / count;
        let told = small.at(&format!("told-{size}"));
        run(&format!("{size}k"), &told);
        let said = read(&told, "1");
        assert_eq!(read(&told, "code"), "1\n", "with {size} kB: {said}");
        let mut lines = said.lines().skip_while(|line| !line.starts_with("error: "));
        let error = lines.next().unwrap_or_default();
        words.insert(error.split(&place).next().unwrap().to_owned());
        let hint: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("hint: "))
            .collect();
        assert!(
            said.to_lowercase().contains("no space left"),
            "with {size} kB: {said}"
        );
        // What is full, and what to do.
        let about = hint
            .iter()
            .any(|hint| hint.contains(&place) && hint.contains("free some"));
        assert!(about, "with {size} kB: {said}");
        for name in read(&told, "files").lines() {
            assert!(
                name.starts_with("small-") && !name.ends_with(".tmp"),
                "with {size} kB: {name} is left"
            );
        }
        let sum = read(&told, "sum1");
        assert!(sum.is_empty() || sum == good, "with {size} kB");
        assert_eq!(read(&told, "sum2"), good, "with {size} kB, then with more");
        assert_eq!(read(&told, "work"), "", "with {size} kB");
    }
    eprintln!("of {whole} kB; what could not be done: {words:#?}");
}

#[test]
fn a_full_disk_is_named_and_the_next_build_is_good() {
    full_at(3);
}

#[test]
#[ignore = "100 builds: make test-long"]
fn a_disk_that_is_full_at_50_points_is_named_each_time() {
    full_at(50);
}
