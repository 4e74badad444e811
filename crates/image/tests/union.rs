//! Stacked trees read as one, and compared with what the kernel's overlayfs makes of them.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{have, root, run};
use image::{Source, union_files};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn read(trees: &[(&Path, Source)]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    union_files(trees, &|_| Some(1 << 20), &mut |file| {
        let path = String::from_utf8(file.path.to_vec()).unwrap();
        assert_eq!(file.size, file.content.len() as u64);
        let content = String::from_utf8(file.content).unwrap();
        assert_eq!(found.insert(path, content), None, "a file is visited once");
    })
    .unwrap();
    found
}

#[test]
fn stacked_trees_are_what_the_kernel_makes_of_them() {
    if !root() || !have("unshare", &["-m", "true"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| place.path().join(name));
    for name in [
        "kept",
        "hidden",
        "d/one",
        "d/two",
        "opaque/x",
        "file-then-dir",
        "dir-then-file/x",
        "gone/x",
        "again/x",
        "link/x",
    ] {
        write(&a, name, "a");
    }
    write(&b, "hidden", "b");
    write(&b, "d/three", "b");
    write(&b, "opaque/y", "b");
    write(&b, "dir-then-file", "b");
    write(&b, "again/deep/y", "b");
    for path in ["gone", "d/two"] {
        mknodat(
            CWD,
            b.join(path),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
    }
    setxattr(
        b.join("opaque"),
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    symlink("/etc", b.join("link")).unwrap();
    write(&c, "d/two", "c");
    write(&c, "again/x", "c");
    write(&c, "gone/z", "c");
    setxattr(
        c.join("gone"),
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    fs::create_dir_all(c.join("file-then-dir")).unwrap();
    setxattr(
        c.join("file-then-dir"),
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    write(&c, "file-then-dir/x", "c");

    let ours = read(&[
        (&a, Source::Tree),
        (&b, Source::Overlay),
        (&c, Source::Overlay),
    ]);
    let shown: Vec<String> = ours
        .iter()
        .map(|(path, from)| format!("{path}={from}"))
        .collect();
    // In a mount namespace of its own, which ends with it.
    let mount = place.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let script = format!(
        "mount -t overlay -o lowerdir={}:{}:{} overlay {mount} && cd {mount} && find . -type f -printf %P= -exec cat {{}} ';' -printf '\\n'",
        c.display(),
        b.display(),
        a.display(),
        mount = mount.display()
    );
    let kernel = run("unshare", &["-m", "sh", "-c", &script]);
    let mut kernel: Vec<&str> = kernel.lines().collect();
    kernel.sort_unstable();
    assert_eq!(shown, kernel);
    assert_eq!(
        shown,
        [
            "again/deep/y=b",
            "again/x=c",
            "d/one=a",
            "d/three=b",
            "d/two=c",
            "dir-then-file=b",
            "file-then-dir/x=c",
            "gone/z=c",
            "hidden=b",
            "kept=a",
            "opaque/y=b"
        ]
    );
}

#[test]
fn no_more_is_read_than_was_asked_for() {
    let place = tempfile::tempdir().unwrap();
    write(place.path(), "large", &"x".repeat(1000));
    write(place.path(), "other", "y");
    let mut seen = Vec::new();
    let wanted = |path: &[u8]| (path == b"large").then_some(10);
    union_files(&[(place.path(), Source::Tree)], &wanted, &mut |file| {
        seen.push((file.path.to_vec(), file.content.len(), file.size));
    })
    .unwrap();
    assert_eq!(seen, [(b"large".to_vec(), 10, 1000)]);
}
