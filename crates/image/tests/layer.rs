//! Trees against what a layer of them holds.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;

use common::{EPOCH, entries, have, names, options, pack, paths, root, run};
use image::{
    Content, Entry, Error, LayerOptions, Progress, Source, layer_from_entries, write_layer,
};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

fn scratch() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let (tree, blobs) = (place.path().join("tree"), place.path().join("blobs"));
    fs::create_dir(&tree).unwrap();
    (place, tree, blobs)
}

fn device(path: &Path, kind: FileType, major: u32, minor: u32) {
    mknodat(
        CWD,
        path,
        kind,
        Mode::from_raw_mode(0o600),
        makedev(major, minor),
    )
    .unwrap();
}

fn small() -> Vec<Entry> {
    let entry = |path: &str, mode, content| Entry {
        path: path.to_owned(),
        mode,
        uid: 0,
        gid: 0,
        content,
    };
    vec![
        entry(
            "/usr/lib/tiffin/contract.json",
            0o644,
            Content::File(b"{}".to_vec()),
        ),
        entry("/usr/lib/tiffin", 0o755, Content::Directory),
        entry(
            "/usr/bin/tiffin",
            0o777,
            Content::Symlink("../lib/tiffin/entrypoint".to_owned()),
        ),
    ]
}

/// Change these only together with the cache's output version: released blobs stop being shared.
#[test]
fn the_bytes_of_a_small_layer_are_pinned() {
    let (_place, _, blobs) = scratch();
    let layer = layer_from_entries(&small(), &blobs, EPOCH, image::Packing::Gzip).unwrap();
    assert_eq!(
        paths(&layer),
        [
            "usr/bin/tiffin",
            "usr/lib/tiffin/",
            "usr/lib/tiffin/contract.json"
        ]
    );
    assert_eq!(
        layer.diff_id,
        "sha256:b2021bb79f7a19322b4192cfcebd11c52d28ccd0b4c3b3ab11ed35318db2ed3a"
    );
    assert_eq!(
        layer.digest,
        "sha256:1acb46895b5cdd045314edb6f2323c95b3e52e790c7acef8d56a50b044eb2825"
    );
    assert_eq!(names(&blobs), std::slice::from_ref(&layer.blob));
    assert_eq!(
        layer.blob.file_name().unwrap().to_str().unwrap(),
        &layer.digest[7..]
    );
    // The same again is the same file.
    assert_eq!(
        layer_from_entries(&small(), &blobs, EPOCH, image::Packing::Gzip).unwrap(),
        layer
    );
    assert_eq!(names(&blobs).len(), 1);
}

#[test]
fn entries_that_could_not_be_meant_are_refused() {
    let (_place, _, blobs) = scratch();
    for (path, reason) in [
        ("/", "it is the root"),
        ("a/../b", "it has `..` in it"),
        (
            "a/.wh.b",
            "names that begin with `.wh.` mean a deletion in a layer",
        ),
        ("//usr/lib/tiffin/", "it is given twice"),
    ] {
        let mut all = small();
        all.push(Entry {
            path: path.to_owned(),
            mode: 0,
            uid: 0,
            gid: 0,
            content: Content::Directory,
        });
        let error = layer_from_entries(&all, &blobs, 0, image::Packing::Gzip).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot pack `{path}`: {reason}"));
    }
}

#[test]
fn everything_that_a_file_is_comes_through() {
    if !root() {
        return;
    }
    let (_place, tree, blobs) = scratch();
    let at = |name: &str| tree.join(name);
    fs::write(at("b"), "content").unwrap();
    fs::hard_link(at("b"), at("c")).unwrap();
    fs::create_dir(at("a")).unwrap();
    fs::hard_link(at("b"), at("a/link")).unwrap();
    fs::set_permissions(at("b"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(at("a"), Some(1000), Some(3_000_000_000)).unwrap();
    fs::set_permissions(at("a"), PermissionsExt::from_mode(0o3770)).unwrap();
    symlink("/../x/", at("l")).unwrap();
    symlink("t".repeat(200), at("ll")).unwrap();
    mknodat(
        CWD,
        at("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let long = "n".repeat(250);
    fs::write(at(&long), "").unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
    // cap_net_bind_service=ep, VFS_CAP_REVISION_2.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(
        at("b"),
        "security.capability",
        capability,
        XattrFlags::empty(),
    )
    .unwrap();
    setxattr(at("b"), "user.note", b"a\0=b", XattrFlags::empty()).unwrap();
    setxattr(at("b"), "trusted.other", b"x", XattrFlags::empty()).unwrap();
    let old = File::open(at(&long)).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1000, 999))
        .unwrap();

    let found = entries(&pack(&tree, &blobs, Source::Tree));
    let get = |path: &[u8]| found.iter().find(|entry| entry.path == path).unwrap();
    let order: Vec<&[u8]> = found.iter().map(|entry| &entry.path[..]).collect();
    let expected: Vec<&[u8]> = vec![
        b"a/",
        b"a/link",
        b"b",
        b"c",
        b"fifo",
        b"l",
        b"ll",
        long.as_bytes(),
        b"\xff\xfe",
    ];
    assert_eq!(order, expected);
    let dir = get(b"a/");
    assert_eq!(
        (dir.kind, dir.mode, dir.uid, dir.mtime),
        (b'5', 0o3770, 1000, EPOCH)
    );
    assert!(
        dir.pax
            .contains(&("gid".to_owned(), b"3000000000".to_vec())),
        "{:?}",
        dir.pax
    );
    let first = get(b"a/link");
    assert_eq!(
        (first.kind, first.mode, &first.content[..]),
        (b'0', 0o4755, &b"content"[..])
    );
    let attributes = vec![
        (
            "SCHILY.xattr.security.capability".to_owned(),
            capability.to_vec(),
        ),
        ("SCHILY.xattr.user.note".to_owned(), b"a\0=b".to_vec()),
    ];
    assert_eq!(first.pax, attributes);
    for other in [get(b"b"), get(b"c")] {
        assert_eq!(
            (other.kind, other.link.as_deref()),
            (b'1', Some(&b"a/link"[..]))
        );
        assert_eq!(other.pax, attributes);
    }
    assert_eq!(get(b"l").link.as_deref(), Some(&b"/../x/"[..]));
    assert_eq!(get(b"ll").link.as_deref(), Some("t".repeat(200).as_bytes()));
    assert_eq!(get(b"fifo").kind, b'6');
    assert_eq!(get(long.as_bytes()).mtime, 1000);
}

#[test]
fn an_upper_directory_becomes_whiteouts() {
    if !root() {
        return;
    }
    let (_place, tree, blobs) = scratch();
    fs::create_dir_all(tree.join("etc/opaque")).unwrap();
    fs::create_dir_all(tree.join("etc/holds")).unwrap();
    fs::write(tree.join("etc/opaque/new"), "").unwrap();
    fs::write(tree.join("etc/holds/gone"), "").unwrap();
    setxattr(
        tree.join("etc/opaque"),
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    setxattr(
        tree.join("etc/holds"),
        "trusted.overlay.opaque",
        b"x",
        XattrFlags::empty(),
    )
    .unwrap();
    setxattr(
        tree.join("etc/holds/gone"),
        "trusted.overlay.whiteout",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    device(&tree.join("etc/deleted"), FileType::CharacterDevice, 0, 0);
    device(&tree.join("etc/kept"), FileType::CharacterDevice, 0, 0);

    let options = LayerOptions {
        skip: &|path| path == Path::new("etc/kept"),
        ..options(Source::Overlay)
    };
    let layer = write_layer(&tree, &blobs, &options).unwrap();
    assert_eq!(
        paths(&layer),
        [
            "etc/",
            "etc/.wh.deleted",
            "etc/holds/",
            "etc/holds/.wh.gone",
            "etc/opaque/",
            "etc/opaque/.wh..wh..opq",
            "etc/opaque/new"
        ]
    );
    assert!(entries(&layer).iter().all(|entry| entry.pax.is_empty()));

    setxattr(&tree, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    assert_eq!(
        paths(&pack(&tree, &blobs, Source::Overlay))[0],
        ".wh..wh..opq"
    );

    setxattr(
        tree.join("etc"),
        "trusted.overlay.redirect",
        b"/old",
        XattrFlags::empty(),
    )
    .unwrap();
    let error = write_layer(&tree, &blobs, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot pack /etc: the overlay was mounted with redirect_dir"
    );
}

#[test]
fn what_has_no_place_in_a_layer_is_refused_and_nothing_is_left() {
    if !root() {
        return;
    }
    let (_place, tree, blobs) = scratch();
    let refused = |kind| {
        write_layer(&tree, &blobs, &options(kind))
            .unwrap_err()
            .to_string()
    };
    // More than a chunk, so that the failure comes while others compress.
    fs::write(tree.join("a"), vec![7; 5 << 20]).unwrap();
    device(&tree.join("x"), FileType::CharacterDevice, 0, 0);
    assert_eq!(
        refused(Source::Tree),
        "cannot pack /x: it is a character device (0:0)"
    );
    fs::remove_file(tree.join("x")).unwrap();
    device(&tree.join("x"), FileType::BlockDevice, 8, 1);
    assert_eq!(
        refused(Source::Overlay),
        "cannot pack /x: it is a block device (8:1)"
    );
    fs::remove_file(tree.join("x")).unwrap();
    fs::write(tree.join(".wh.x"), "").unwrap();
    assert_eq!(
        refused(Source::Overlay),
        "cannot pack /.wh.x: names that begin with `.wh.` mean a deletion in a layer"
    );
    assert!(names(&blobs).is_empty());
}

/// As umoci unpacks them, and nowhere else than where they were allowed.
#[test]
fn devices_that_are_allowed_come_through() {
    if !root() || !have("umoci", &["--version"]) {
        return;
    }
    let (place, tree, blobs) = scratch();
    fs::create_dir(tree.join("jail")).unwrap();
    let nodes = [
        ("null", FileType::CharacterDevice, 1, 3),
        ("disk", FileType::BlockDevice, 8, 1),
        ("far", FileType::CharacterDevice, 4000, 1_000_000),
    ];
    for (name, kind, major, minor) in nodes {
        let path = tree.join("jail").join(name);
        device(&path, kind, major, minor);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
    }
    let allowed = LayerOptions {
        devices: &|path| path.starts_with("jail"),
        ..options(Source::Overlay)
    };
    let layer = write_layer(&tree, &blobs, &allowed).unwrap();
    assert_eq!(
        image::tree_digest(&tree, &allowed).unwrap(),
        layer.diff_id,
        "without compression it is the same"
    );
    let archive = place.path().join("a.tar");
    common::write(&archive, &["test/devices:v1"], &[layer]);
    let layout = place.path().join("layout");
    fs::create_dir(&layout).unwrap();
    let (archive, at) = (archive.to_str().unwrap(), layout.to_str().unwrap());
    run("tar", &["-xf", archive, "-C", at]);
    let (image, bundle) = (format!("{at}:v1"), place.path().join("bundle"));
    run(
        "umoci",
        &["unpack", "--image", &image, bundle.to_str().unwrap()],
    );
    for (name, kind, major, minor) in nodes {
        let stat = rustix::fs::stat(bundle.join("rootfs/jail").join(name)).unwrap();
        let number = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        assert_eq!(FileType::from_raw_mode(stat.st_mode), kind, "{name}");
        assert_eq!(number, (major, minor), "{name}");
        assert_eq!(
            (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid),
            (0o640, 7, 8),
            "{name}"
        );
    }
    // Another one is refused as ever, and what overlayfs takes for a deletion always is.
    device(&tree.join("other"), FileType::CharacterDevice, 1, 5);
    let error = write_layer(&tree, &blobs, &allowed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot pack /other: it is a character device (1:5)"
    );
    fs::remove_file(tree.join("other")).unwrap();
    device(&tree.join("jail/gone"), FileType::CharacterDevice, 0, 0);
    let allowed = LayerOptions {
        kind: Source::Tree,
        ..allowed
    };
    let error = write_layer(&tree, &blobs, &allowed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot pack /jail/gone: it is a character device (0:0)"
    );
}

#[test]
fn a_missing_tree_is_named() {
    let (_place, _, blobs) = scratch();
    let error =
        write_layer(Path::new("/no/such/tree"), &blobs, &options(Source::Tree)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot open /no/such/tree: No such file or directory (os error 2)"
    );
}

/// Writes to the file that is being read, once.
struct Meddler(Mutex<Option<File>>);

impl Progress for Meddler {
    fn bytes(&self, _read: u64) {
        if let Some(file) = self.0.lock().unwrap().take() {
            file.set_len(100).unwrap();
        }
    }
}

#[test]
fn a_file_that_shrinks_meanwhile_is_an_error() {
    let (_place, tree, blobs) = scratch();
    fs::write(tree.join("a"), vec![7; 3 << 20]).unwrap();
    let file = File::options().write(true).open(tree.join("a")).unwrap();
    let meddler = Meddler(Mutex::new(Some(file)));
    let options = LayerOptions {
        progress: &meddler,
        ..options(Source::Tree)
    };
    let error = write_layer(&tree, &blobs, &options).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert!(names(&blobs).is_empty());
}

#[derive(Default)]
struct Told(Mutex<(u64, Vec<String>)>);

impl Progress for Told {
    fn bytes(&self, read: u64) {
        self.0.lock().unwrap().0 += read;
    }
    fn warning(&self, text: &str) {
        self.0.lock().unwrap().1.push(text.to_owned());
    }
}

/// 9 GiB, nearly all of it a hole: the size needs a PAX record, the hole a warning.
#[test]
#[ignore = "compresses 9 GiB"]
fn a_sparse_file_of_more_than_8_gib_is_whole_and_told() {
    let (_place, tree, blobs) = scratch();
    let mut file = File::create(tree.join("large")).unwrap();
    let size: u64 = 9 << 30;
    file.seek(SeekFrom::Start(size - 4)).unwrap();
    file.write_all(b"tail").unwrap();
    drop(file);
    let told = Told::default();
    let options = LayerOptions {
        progress: &told,
        ..options(Source::Tree)
    };
    let layer = write_layer(&tree, &blobs, &options).unwrap();
    let (bytes, warnings) = &*told.0.lock().unwrap();
    assert_eq!(*bytes, size);
    assert!(
        warnings[0].starts_with("/large is sparse: its 96"),
        "{warnings:?}"
    );
    let blob = File::open(&layer.blob).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(blob));
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.size(), size);
}

#[test]
fn holes_are_zeros_and_large_ones_are_told() {
    let (_place, tree, blobs) = scratch();
    let mut file = File::create(tree.join("holes")).unwrap();
    file.write_all(b"head").unwrap();
    file.seek(SeekFrom::Start(70 << 20)).unwrap();
    file.write_all(b"middle").unwrap();
    file.set_len(80 << 20).unwrap();
    drop(file);
    let told = Told::default();
    let layer = write_layer(
        &tree,
        &blobs,
        &LayerOptions {
            progress: &told,
            ..options(Source::Tree)
        },
    )
    .unwrap();
    let found = entries(&layer);
    assert!(found[0].content == fs::read(tree.join("holes")).unwrap());
    assert_eq!(told.0.lock().unwrap().1.len(), 1);
}

/// Bytes that neither compress to nothing nor stay as they are.
fn text(length: usize, mut seed: u64) -> Vec<u8> {
    let next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b"abcdefghijklmnop"[(seed >> 60) as usize]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn the_number_of_threads_does_not_show() {
    let (_place, tree, blobs) = scratch();
    // Ends of chunks at every kind of place, the last one full to the byte.
    for (name, length) in [
        ("a", (1 << 20) - 512),
        ("b", 7_777_777),
        ("c", 3 << 20),
        ("d", 0),
    ] {
        fs::write(tree.join(name), text(length, length as u64)).unwrap();
    }
    let layers: Vec<_> = [1, 2, 8, 0]
        .map(|threads| {
            write_layer(
                &tree,
                &blobs,
                &LayerOptions {
                    threads,
                    ..options(Source::Tree)
                },
            )
            .unwrap()
        })
        .into();
    assert!(layers.iter().all(|layer| *layer == layers[0]));
    for entry in entries(&layers[0]) {
        assert!(entry.content == fs::read(tree.join(OsStr::from_bytes(&entry.path))).unwrap());
    }
}

#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, u32),
    Symlink(Vec<u8>),
    Directory(Vec<(Vec<u8>, Node)>),
}

fn tree() -> impl Strategy<Value = Vec<(Vec<u8>, Node)>> {
    let name = prop::collection::vec(
        prop::sample::select(b"ab.-\xff\xc3\xa9 \t=\\".to_vec()),
        1..120,
    )
    .prop_filter("a name", |name| {
        !matches!(&name[..], b"." | b"..") && !name.starts_with(b".wh.")
    });
    // The reader of these tests cannot read a PAX record with an end of line in it; others can.
    let target = prop::collection::vec(
        (1u8..=255).prop_filter("a line", |byte| *byte != b'\n'),
        1..300,
    );
    let leaf = prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..2000), 0u32..0o10000)
            .prop_map(|(bytes, mode)| Node::File(bytes, mode)),
        target.prop_map(Node::Symlink),
    ];
    let names = name.boxed();
    let inner = names.clone();
    let node = leaf.prop_recursive(3, 20, 5, move |node| {
        prop::collection::vec((inner.clone(), node), 0..5).prop_map(Node::Directory)
    });
    prop::collection::vec((names, node), 0..6)
}

fn make(dir: &Path, nodes: &[(Vec<u8>, Node)], expected: &mut Vec<(Vec<u8>, Node)>, prefix: &[u8]) {
    for (name, node) in nodes {
        let path = dir.join(OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        let inside = [prefix, name].concat();
        match node {
            Node::File(bytes, mode) => {
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, PermissionsExt::from_mode(*mode)).unwrap();
                expected.push((inside, node.clone()));
            }
            Node::Symlink(target) => {
                symlink(OsStr::from_bytes(target), &path).unwrap();
                expected.push((inside, node.clone()));
            }
            Node::Directory(nodes) => {
                fs::create_dir(&path).unwrap();
                let inside = [&inside[..], b"/"].concat();
                expected.push((inside.clone(), Node::Directory(Vec::new())));
                make(&path, nodes, expected, &inside);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_tree_comes_back(nodes in tree()) {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let (_place, tree, blobs) = scratch();
        let mut expected = Vec::new();
        make(&tree, &nodes, &mut expected, b"");
        let mut found = entries(&pack(&tree, &blobs, Source::Tree));
        found.sort_by(|a, b| a.path.cmp(&b.path));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        prop_assert_eq!(found.len(), expected.len());
        for (found, (path, node)) in found.iter().zip(&expected) {
            prop_assert_eq!(&found.path, path);
            match node {
                Node::File(bytes, mode) => {
                    prop_assert_eq!((found.kind, &found.content, found.mode), (b'0', bytes, *mode));
                }
                Node::Symlink(target) => prop_assert_eq!(found.link.as_ref(), Some(target)),
                Node::Directory(_) => prop_assert_eq!(found.kind, b'5'),
            }
        }
    }
}

/// Change these only together with the cache's output version: released blobs stop being shared.
#[test]
fn zstd_is_the_same_on_any_number_of_threads_and_pinned() {
    let (_place, tree, blobs) = scratch();
    // One byte more and less than whole frames.
    for (name, length) in [("a", (4 << 20) - 513), ("b", 4 << 20), ("c", 9_000_001)] {
        fs::write(tree.join(name), text(length, length as u64)).unwrap();
    }
    let write = |threads, packing| {
        let options = LayerOptions {
            threads,
            packing,
            ..options(Source::Tree)
        };
        write_layer(&tree, &blobs, &options).unwrap()
    };
    let zstd = image::Packing::Zstd { level: 3 };
    let layer = write(1, zstd);
    for threads in [2, 8] {
        assert_eq!(write(threads, zstd), layer);
    }
    let gzip = write(2, image::Packing::Gzip);
    assert_eq!(gzip.diff_id, layer.diff_id, "the same tar");
    assert_eq!(layer.compression, image::Compression::Zstd);
    // Another reader: frames one after the other.
    let blob = layer.blob.to_str().unwrap();
    if have("zstd", &["--version"]) {
        let sum = run("sh", &["-c", &format!("zstd -dc < {blob} | sha256sum")]);
        assert_eq!(sum[..64], layer.diff_id[7..]);
    }
    let level = write(2, image::Packing::Zstd { level: 19 });
    assert!(level.size < layer.size && level.diff_id == layer.diff_id);
    let small = layer_from_entries(&small(), &blobs, EPOCH, zstd).unwrap();
    assert_eq!(
        small.digest,
        "sha256:e8cb0595b24c0b6b532eaf9540a4ed4da1080e2b1bed29a3ffc53366d0a46f39"
    );
}
