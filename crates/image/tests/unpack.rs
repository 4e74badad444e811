//! Images of others: made by the tools that make them, made to do harm, and damaged.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{But, have, root, run, same, same_but, stored, two_layers, write};
use image::{Format, Image, Platform, Silent};
use sha2::{Digest, Sha256};

fn amd64() -> Platform {
    Platform {
        architecture: "amd64".into(),
        os: "linux".into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One entry: its header is written as it is asked for, however wrong.
fn entry(path: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    entry_with(path, kind, link, content, &[])
}

fn entry_with(
    path: &str,
    kind: u8,
    link: &str,
    content: &[u8],
    records: &[(&str, &[u8])],
) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(records.to_vec()).unwrap();
    let mut header = tar::Header::new_ustar();
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    header.set_cksum();
    builder.append(&header, content).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes
}

fn file(path: &str) -> Vec<u8> {
    entry(path, b'0', "", path.as_bytes())
}

fn dir(path: &str) -> Vec<u8> {
    entry(path, b'5', "", b"")
}

fn link(path: &str, to: &str) -> Vec<u8> {
    entry(path, b'2', to, b"")
}

fn hard(path: &str, to: &str) -> Vec<u8> {
    entry(path, b'1', to, b"")
}

fn gone(path: &str) -> Vec<u8> {
    entry(path, b'0', "", b"")
}

/// An archive as `docker save` wrote it before 25.
fn docker_archive(at: &Path, layers: &[Vec<Vec<u8>>]) -> PathBuf {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut names = Vec::new();
    let mut diff_ids = Vec::new();
    for (index, entries) in layers.iter().enumerate() {
        let mut tar = entries.concat();
        tar.extend([0; 1024]);
        diff_ids.push(format!("sha256:{}", hex(&tar)));
        names.push(format!("{index}/layer.tar"));
        files.push((format!("{index}/layer.tar"), tar));
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let name = format!("{}.json", hex(&config));
    let manifest = serde_json::json!([{"Config": name, "RepoTags": null, "Layers": names}]);
    files.push((name, config));
    files.push((
        "manifest.json".into(),
        serde_json::to_vec(&manifest).unwrap(),
    ));
    let path = at.join("image.tar");
    tar_of(&path, &files);
    path
}

fn tar_of(path: &Path, files: &[(String, Vec<u8>)]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, &content[..])
            .unwrap();
    }
    builder.finish().unwrap();
}

fn unpack(archive: &Path, format: Format, into: &Path) -> Result<Image, String> {
    fs::create_dir_all(into).unwrap();
    let scratch = archive.parent().unwrap();
    let image = Image::open(archive, format, &amd64(), scratch).map_err(|e| e.to_string())?;
    image.unpack(into, &Silent).map_err(|e| e.to_string())?;
    Ok(image)
}

/// Unpacks layers in a place beside which a file lies that nothing may touch.
fn attempt(layers: &[Vec<Vec<u8>>]) -> (tempfile::TempDir, Result<Image, String>) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path().join("etc")).unwrap();
    fs::write(place.path().join("etc/precious"), "precious").unwrap();
    let archive = docker_archive(place.path(), layers);
    let done = unpack(&archive, Format::Docker, &place.path().join("root"));
    let precious = fs::read_to_string(place.path().join("etc/precious"));
    assert_eq!(precious.unwrap(), "precious", "the outside was reached");
    assert_eq!(fs::read_dir(place.path().join("etc")).unwrap().count(), 1);
    (place, done)
}

fn refused(why: &str, layers: &[Vec<Vec<u8>>]) {
    let (_place, done) = attempt(layers);
    let told = done.err().unwrap_or_else(|| panic!("taken: {why}"));
    assert!(told.ends_with(why), "{told}\nand not: {why}");
}

/// kaniko, and what every unpacker was asked at some time.
#[test]
fn cve_2026_28406_a_path_that_leads_out_of_the_root_is_refused() {
    if !root() {
        return;
    }
    refused(
        "/../etc/x: the path has `..` in it",
        &[vec![file("../etc/x")]],
    );
    refused(
        "/a/../../etc/x: the path has `..` in it",
        &[vec![file("a/../../etc/x")]],
    );
    refused("/etc/x: the path is absolute", &[vec![file("/etc/x")]]);
}

/// buildah, and docker CVE-2014-9356: a link, then something through it.
#[test]
fn cve_2020_10696_nothing_is_put_through_a_link_of_the_same_layer() {
    if !root() {
        return;
    }
    for to in ["../etc", "/etc", "..", "/proc/self/cwd"] {
        let told = "it lies behind a symbolic link of the same layer";
        refused(&format!("/a: {told}"), &[vec![link("a", to), file("a/x")]]);
        refused(
            &format!("/a: {told}"),
            &[vec![link("a", to), gone("a/.wh.precious")]],
        );
        refused(
            &format!("/a: {told}"),
            &[vec![link("a", to), gone("a/.wh..wh..opq")]],
        );
        refused(
            &format!("/a: {told}"),
            &[vec![link("a", to), hard("b", "a/precious")]],
        );
    }
}

/// umoci: a link in place of the root itself.
#[test]
fn cve_2021_29136_the_root_is_a_directory() {
    if !root() {
        return;
    }
    for path in [".", "./", "/", "./."] {
        refused(
            "the root can only be a directory",
            &[vec![link(path, "/etc")]],
        );
    }
}

#[test]
fn hard_links_that_lead_out_of_the_root_are_refused() {
    if !root() {
        return;
    }
    refused(
        "/b: it is a hard link to ../etc/precious, which is not a path inside",
        &[vec![hard("b", "../etc/precious")]],
    );
    refused(
        "/b: it is a hard link to /etc/precious, which is not a path inside",
        &[vec![hard("b", "/etc/precious")]],
    );
    refused(
        "/b: it is a hard link to itself",
        &[vec![file("b")], vec![hard("b", "b")]],
    );
    refused("/b: it is a link to nothing", &[vec![hard("b", "c")]]);
    refused(
        "/b: it is a hard link to a directory",
        &[vec![dir("d"), hard("b", "d")]],
    );
}

/// tar changed modes, buildkit CVE-2024-23652 deleted, through such links.
#[test]
fn cve_2026_33056_a_link_of_a_lower_layer_is_followed_inside_the_root_alone() {
    if !root() {
        return;
    }
    let lower = vec![
        dir("etc"),
        link("run", "/etc"),
        link("up", "../../../etc"),
        link("lib", "usr/lib"),
        dir("usr/lib"),
    ];
    let upper = vec![
        file("run/new"),
        file("up/other"),
        file("lib/so"),
        gone("up/.wh.precious"),
        hard("up/hard", "run/new"),
    ];
    let (place, done) = attempt(&[lower, upper]);
    done.unwrap();
    let root = place.path().join("root");
    for name in ["etc/new", "etc/other", "etc/hard", "usr/lib/so"] {
        assert!(
            root.join(name).symlink_metadata().unwrap().is_file(),
            "{name}"
        );
    }
    assert!(root.join("lib").is_symlink(), "the link stays");
    // A directory in place of the link replaces it, and the link's target stays.
    let (place, done) = attempt(&[
        vec![dir("etc"), file("etc/a"), link("run", "etc")],
        vec![dir("run"), file("run/b")],
    ]);
    done.unwrap();
    assert!(place.path().join("root/run/b").is_file());
    assert!(!place.path().join("root/etc/b").exists());
    assert!(place.path().join("root/etc/a").exists());
    // Links that lead nowhere make nothing.
    let told = "its symbolic link leads nowhere";
    refused(told, &[vec![link("a", "b")], vec![file("a/x")]]);
    refused(
        "its symbolic links lead nowhere",
        &[vec![link("a", "a")], vec![file("a/x")]],
    );
}

#[test]
fn whiteouts_delete_what_lower_layers_have_and_nothing_else() {
    if !root() {
        return;
    }
    for name in [
        ".wh.",
        ".wh..",
        ".wh...",
        ".wh..wh.x",
        ".wh..wh..",
        ".wh..wh.plnk",
    ] {
        let place = attempt(&[
            vec![dir("a"), file("a/b")],
            vec![gone(&format!("a/{name}"))],
        ]);
        let told = place.1.unwrap_err();
        assert!(
            told.ends_with("it is the deletion of nothing"),
            "{name}: {told}"
        );
        assert!(place.0.path().join("root/a/b").exists());
    }
    refused(
        "a deletion is an empty file",
        &[vec![link(".wh.a", "/etc")]],
    );
    refused("a deletion is an empty file", &[vec![file(".wh.a")]]);

    let lower = || {
        vec![
            dir("d"),
            file("d/old"),
            dir("d/sub"),
            file("d/sub/old"),
            file("f"),
            dir("e"),
            file("e/old"),
        ]
    };
    // In whatever order: a layer's own files stay.
    let marks = [
        vec![
            gone("d/.wh..wh..opq"),
            gone(".wh.f"),
            gone(".wh.e"),
            gone(".wh.nothing"),
            gone("no/.wh.x"),
        ],
        vec![file("d/new"), file("d/sub/new"), dir("e"), file("e/new")],
    ];
    for order in [[0, 1], [1, 0]] {
        let upper: Vec<Vec<u8>> = order.iter().flat_map(|part| marks[*part].clone()).collect();
        let (place, done) = attempt(&[lower(), upper]);
        done.unwrap();
        let out = run(
            "find",
            &[
                place.path().join("root").to_str().unwrap(),
                "-printf",
                "%P\n",
            ],
        );
        let mut found: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
        found.sort();
        assert_eq!(
            found,
            ["d", "d/new", "d/sub", "d/sub/new", "e", "e/new"],
            "{order:?}"
        );
    }
    // The root as a whole.
    let (place, done) = attempt(&[lower(), vec![gone(".wh..wh..opq"), file("only")]]);
    done.unwrap();
    assert_eq!(fs::read_dir(place.path().join("root")).unwrap().count(), 1);
    // Through a link of a lower layer, inside the root.
    let (place, done) = attempt(&[
        vec![dir("etc"), file("etc/precious"), link("out", "../etc")],
        vec![gone("out/.wh.precious")],
    ]);
    done.unwrap();
    assert!(!place.path().join("root/etc/precious").exists());
}

#[test]
fn what_readers_would_read_differently_is_refused() {
    if !root() {
        return;
    }
    refused("/a: it is there twice", &[vec![file("a"), file("a")]]);
    refused("/a: it is there twice", &[vec![file("a"), file("./a")]]);
    refused(
        "/a: it is there twice",
        &[vec![dir("a"), file("a/b"), link("a", "/etc")]],
    );
    refused(
        "/a: it is there twice",
        &[vec![file("a/b"), link("a", "/etc"), file("a/c")]],
    );
    refused(
        "/a: it is no directory, but has entries",
        &[vec![file("a")], vec![file("a/b")]],
    );
    // Directories may come twice: builders that put trees together write them so.
    attempt(&[vec![dir("a"), file("a/b"), dir("a/")]])
        .1
        .unwrap();
}

/// tar: a size in two places is taken from the record, as everybody does.
#[test]
fn cve_2026_33055_a_size_in_two_places_hides_nothing() {
    if !root() {
        return;
    }
    let inner = [file("evil"), vec![0; 512]].concat();
    let size = inner.len().to_string();
    let mut smuggled = entry_with("a", b'0', "", &inner, &[("size", size.as_bytes())]);
    // The header says that nothing follows.
    let header = smuggled.len() - inner.len() - 512;
    smuggled[header + 124..header + 136].copy_from_slice(b"00000000000\0");
    let mut fresh = tar::Header::from_byte_slice(&smuggled[header..header + 512]).clone();
    fresh.set_cksum();
    smuggled[header..header + 512].copy_from_slice(fresh.as_bytes());
    let (place, done) = attempt(&[vec![smuggled, file("b")]]);
    done.unwrap();
    let root = place.path().join("root");
    assert_eq!(
        fs::metadata(root.join("a")).unwrap().len(),
        inner.len() as u64
    );
    assert!(root.join("b").exists() && !root.join("evil").exists());
}

#[test]
fn devices_and_notes_of_overlayfs_do_not_get_in() {
    if !root() {
        return;
    }
    // 0:0 would be a whiteout for the overlay above.
    refused(
        "/etc/null: it is a device node outside of /dev",
        &[vec![entry("etc/null", b'3', "", b"")]],
    );
    refused(
        "/sda: it is a device node outside of /dev",
        &[vec![entry("sda", b'4', "", b"")]],
    );
    let notes: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.x", b"1"),
        (
            "SCHILY.xattr.security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    let (place, done) = attempt(&[vec![
        entry("dev/null", b'3', "", b""),
        entry("dev/deep/sda", b'4', "", b""),
        entry_with("d", b'5', "", b"", &notes[..3]),
        entry_with("ping", b'0', "", b"ping", &notes),
    ]]);
    done.unwrap();
    let root = place.path().join("root");
    assert!(!root.join("dev/null").exists());
    let attributes = |name: &str| {
        let mut list = [0; 1000];
        let size = rustix::fs::llistxattr(root.join(name), &mut list[..]).unwrap();
        String::from_utf8_lossy(&list[..size]).into_owned()
    };
    assert_eq!(attributes("d"), "");
    assert_eq!(attributes("ping"), "security.capability\0");
}

#[test]
fn bombs_are_bounded() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    // 2 GiB of zeros in 2 MB, and then an archive of it.
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_size(2 << 30);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    zeros.write_all(header.as_bytes()).unwrap();
    let block = vec![0; 1 << 20];
    for _ in 0..2049 {
        zeros.write_all(&block).unwrap();
    }
    let blob = zeros.finish().unwrap();
    let archive = docker_archive(place.path(), &[vec![blob[..].to_vec()]]);
    // `docker_archive` adds the end of a tar; a gzip stream may have zeros behind it.
    let told = unpack(&archive, Format::Docker, &place.path().join("root")).unwrap_err();
    assert!(
        told.contains("it becomes more than 200 times larger when it is decompressed"),
        "{told}"
    );
    // An entry that claims more than there is room for writes nothing.
    let mut header = tar::Header::new_gnu();
    header.set_path("large").unwrap();
    header.set_size(1 << 60);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let archive = docker_archive(place.path(), &[vec![header.as_bytes().to_vec()]]);
    let into = place.path().join("second");
    let told = unpack(&archive, Format::Docker, &into).unwrap_err();
    assert!(told.contains("no space left on"), "{told}");
    // Records that never end.
    let records = vec![b'x'; 2 << 20];
    let archive = docker_archive(place.path(), &[vec![entry("p", b'x', "", &records)]]);
    let told = unpack(&archive, Format::Docker, &place.path().join("third")).unwrap_err();
    assert!(
        told.ends_with("the records of an entry are larger than 1 MiB"),
        "{told}"
    );
}

/// A base of `rootfs:` is somebody else's file as an image is: what GNU tar would do as root
/// with it is not done.
#[test]
fn a_root_file_system_is_read_with_the_rules_of_images() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path().join("etc")).unwrap();
    fs::write(place.path().join("etc/precious"), "precious").unwrap();
    let file_at = place.path().join("root.tar");
    let attempt = |bytes: &[u8]| {
        fs::write(&file_at, bytes).unwrap();
        let into = tempfile::tempdir_in(place.path()).unwrap();
        let done = image::unpack_root(&file_at, into.path(), &Silent);
        let precious = fs::read_to_string(place.path().join("etc/precious"));
        assert_eq!(precious.unwrap(), "precious", "the outside was reached");
        assert_eq!(fs::read_dir(place.path().join("etc")).unwrap().count(), 1);
        done.map(|()| into).map_err(|error| error.to_string())
    };
    let tar = |entries: &[Vec<u8>]| [&entries.concat()[..], &[0; 1024]].concat();
    for (why, entries) in [
        ("/../etc/x: the path has `..` in it", vec![file("../etc/x")]),
        ("/etc/x: the path is absolute", vec![file("/etc/x")]),
        (
            "/a: it lies behind a symbolic link of the same layer",
            vec![link("a", "../etc"), file("a/precious")],
        ),
        (
            "/b: it is a hard link to ../etc/precious, which is not a path inside",
            vec![hard("b", "../etc/precious")],
        ),
        ("/a: it is there twice", vec![file("a"), link("a", "/etc")]),
        (
            "/srv/sda: it is a device node outside of /dev",
            vec![entry("srv/sda", b'4', "", b"")],
        ),
        (
            "/: the root can only be a directory",
            vec![link(".", "/etc")],
        ),
    ] {
        let told = attempt(&tar(&entries)).err();
        let wanted = format!(
            "cannot use the root file system {}: it has {why}",
            file_at.display()
        );
        assert_eq!(told, Some(wanted));
    }
    // Notes of overlayfs and of the machine stay out, and what is below /dev.
    let notes: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.note", b"kept"),
    ];
    let good = tar(&[
        dir("./"),
        entry("./dev/null", b'3', "", b""),
        entry_with("./d", b'5', "", b"", &notes),
        file("./d/f"),
        link("./l", "d/f"),
    ]);
    let plain = attempt(&good).unwrap();
    let attributes = common::attributes(&plain.path().join("d"));
    assert_eq!(attributes.into_keys().collect::<Vec<_>>(), ["user.note"]);
    let mut list = [0; 100];
    let size = rustix::fs::llistxattr(plain.path().join("d"), &mut list[..]).unwrap();
    assert_eq!(&list[..size], b"user.note\0");
    assert!(!plain.path().join("dev/null").exists());
    // However it is compressed.
    let packed = |tool: &str, bytes: &[u8]| {
        let from = place.path().join("plain");
        fs::write(&from, bytes).unwrap();
        let mut command = std::process::Command::new(tool);
        command.arg("-c").stdin(fs::File::open(from).unwrap());
        command.output().unwrap().stdout
    };
    for tool in ["gzip", "xz", "bzip2", "zstd"] {
        if !have(tool, &["--version"]) {
            continue;
        }
        let bytes = packed(tool, &good);
        same(plain.path(), attempt(&bytes).unwrap().path());
        let told = attempt(&bytes[..bytes.len() - 9]).unwrap_err();
        let start = format!("cannot use the root file system {}: it ", file_at.display());
        assert!(told.starts_with(&start), "{tool}: {told}");
    }
    // Zeros behind the end of the tar, which go to no disk, are counted too.
    let from = place.path().join("plain");
    fs::write(&from, &good).unwrap();
    let bomb = std::process::Command::new("sh")
        .args(["-c", "(cat; head -c 1100M /dev/zero) | gzip -1 -c"])
        .stdin(fs::File::open(from).unwrap())
        .output()
        .unwrap();
    let told = attempt(&bomb.stdout).unwrap_err();
    assert!(
        told.ends_with("it becomes more than 200 times larger when it is decompressed"),
        "{told}"
    );
}

#[test]
fn what_other_tools_write_gives_the_same_tree() {
    if !root() || !have("umoci", &["--version"]) || !have("skopeo", &["--version"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (layers, expected) = two_layers(place.path());
    let ours = place.path().join("ours.tar");
    let written = write(&ours, &["acme/backend:v1", "acme/backend:latest"], &layers);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let at = |name: &str| text(&place.path().join(name));
    for (target, format) in [
        ("docker-archive", Format::Docker),
        ("oci-archive", Format::Oci),
    ] {
        let to = format!("{target}:{}:acme/backend:v1", at(target));
        let from = format!("oci-archive:{}:v1", text(&ours));
        run(
            "skopeo",
            &["--insecure-policy", "copy", "--quiet", &from, &to],
        );
        let image = unpack(
            &place.path().join(target),
            format,
            &place.path().join(format!("{target}.tree")),
        )
        .unwrap();
        same(&expected, &place.path().join(format!("{target}.tree")));
        assert_eq!(image.config_digest, written.config_digest);
        // As many ship it.
        for (tool, suffix) in [("gzip", "gz"), ("zstd", "zst")] {
            if !have(tool, &["--version"]) {
                continue;
            }
            let packed = format!("{}.{suffix}", at(target));
            fs::write(
                &packed,
                std::process::Command::new(tool)
                    .args(["-1", "-c", &at(target)])
                    .output()
                    .unwrap()
                    .stdout,
            )
            .unwrap();
            let image = Image::open(Path::new(&packed), format, &amd64(), place.path()).unwrap();
            assert_eq!(image.config_digest, written.config_digest, "{tool}");
        }
    }
    // And with the tool that unpacks to the letter of the specification.
    let layout = at("layout");
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            &format!("oci-archive:{}", at("oci-archive")),
            &format!("oci:{layout}:v1"),
        ],
    );
    run(
        "umoci",
        &["unpack", "--image", &format!("{layout}:v1"), &at("bundle")],
    );
    same(
        &place.path().join("bundle/rootfs"),
        &place.path().join("oci-archive.tree"),
    );
    for name in ["etc", "etc/keep/a", "hidden/ping", "link"] {
        let date = |root: &str| {
            Path::new(root)
                .join(name)
                .symlink_metadata()
                .unwrap()
                .mtime()
        };
        assert_eq!(
            date(&at("bundle/rootfs")),
            date(&at("oci-archive.tree")),
            "{name}"
        );
    }
    // Zstandard layers, as others write them on request.
    let (from, plain) = (
        format!("oci-archive:{}", at("oci-archive")),
        format!("dir:{}", at("plain")),
    );
    let to = format!("oci-archive:{}", at("zstd"));
    let copy = ["--insecure-policy", "copy", "--quiet"];
    run(
        "skopeo",
        &[&copy[..], &["--dest-decompress", &from, &plain]].concat(),
    );
    run(
        "skopeo",
        &[&copy[..], &["--dest-compress-format", "zstd", &plain, &to]].concat(),
    );
    let bytes = fs::read(at("zstd")).unwrap();
    assert!(bytes.windows(8).any(|part| part == b"tar+zstd"));
    let zstd = place.path().join("zstd");
    unpack(&zstd, Format::Oci, &place.path().join("zstd.tree")).unwrap();
    same(&expected, &place.path().join("zstd.tree"));
}

/// Loaded into storage and saved again, and written layer by layer by a `Containerfile`'s means.
#[test]
fn what_podman_and_buildah_write_gives_the_same_tree() {
    if !root() || !have("podman", &["--version"]) || !have("buildah", &["--version"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (layers, expected) = two_layers(place.path());
    let ours = place.path().join("ours.tar");
    // The lowest layer twice, which podman saves as a link.
    let layers = [layers[0].clone(), layers[0].clone(), layers[1].clone()];
    let written = write(&ours, &["acme/backend:v1"], &layers);
    let at = |name: &str| place.path().join(name).display().to_string();
    let podman = |args: &[&str]| stored("podman", "vfs", place.path(), args);
    let buildah = |args: &[&str]| {
        stored("buildah", "vfs", place.path(), args)
            .trim()
            .to_owned()
    };
    podman(&["load", "--quiet", "--input", &at("ours.tar")]);
    let kinds = [
        ("docker-archive", Format::Docker),
        ("oci-archive", Format::Oci),
    ];
    let unpacked = |name: &str, format, but| {
        let tree = place.path().join(format!("{name}.tree"));
        let image = unpack(&place.path().join(name), format, &tree).unwrap();
        same_but(but, &expected, &tree);
        image
    };
    let all = But::default();
    for (kind, format) in kinds {
        let name = format!("podman-{kind}");
        let to = at(&name);
        podman(&[
            "save",
            "--quiet",
            "--format",
            kind,
            "--output",
            &to,
            "acme/backend:v1",
        ]);
        let image = unpacked(&name, format, all);
        assert_eq!(image.config_digest, written.config_digest, "{kind}");

        let name = format!("buildah-{kind}");
        let to = format!("{kind}:{}:acme/other:v2", at(&name));
        buildah(&["push", "--quiet", "acme/backend:v1", &to]);
        let image = unpacked(&name, format, all);
        assert_eq!(image.config_digest, written.config_digest, "{kind}");
        assert!(image.tags[0].ends_with("acme/other:v2"), "{:?}", image.tags);
    }
    // What buildah itself makes of a tree.
    let container = buildah(&["from", "--quiet", "scratch"]);
    let mounted = buildah(&["mount", &container]);
    run(
        "cp",
        &["-a", &format!("{}/.", expected.display()), &mounted],
    );
    // The kernel gave the copy of the root the time of now; nobody compares that one.
    buildah(&["umount", &container]);
    buildah(&["commit", "--quiet", &container, "made"]);
    for (kind, format) in kinds {
        let name = format!("made-{kind}");
        buildah(&[
            "push",
            "--quiet",
            "made",
            &format!("{kind}:{}:made:x", at(&name)),
        ]);
        // buildah itself packs no access control lists.
        let but = But { lists: true, ..all };
        unpacked(&name, format, but);
    }
    buildah(&["rm", &container]);
    podman(&["rmi", "--all", "--force"]);
}

#[test]
fn what_the_engine_saves_gives_the_same_tree() {
    if !root() || !have("docker", &["info"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (layers, expected) = two_layers(place.path());
    let ours = place.path().join("ours.tar");
    let name = format!("tiffin-image-save-{}:v1", std::process::id());
    // The lowest layer twice: the engine saves the second as a link.
    let layers = [layers[0].clone(), layers[0].clone(), layers[1].clone()];
    let written = write(&ours, &[&name], &layers);
    let saved = place.path().join("saved.tar");
    run("docker", &["load", "-i", ours.to_str().unwrap()]);
    let done =
        std::panic::catch_unwind(|| run("docker", &["save", "-o", saved.to_str().unwrap(), &name]));
    run("docker", &["rmi", &name]);
    done.unwrap();
    let image = unpack(&saved, Format::Docker, &place.path().join("tree")).unwrap();
    assert_eq!(image.config_digest, written.config_digest);
    assert_eq!(image.tags, [name]);
    same(&expected, &place.path().join("tree"));
}

#[test]
fn every_damaged_blob_is_named() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (layers, _) = two_layers(place.path());
    let ours = place.path().join("ours.tar");
    let written = write(&ours, &["acme/backend:v1"], &layers);
    let good = fs::read(&ours).unwrap();
    let mut archive = tar::Archive::new(&good[..]);
    let blobs: Vec<(String, u64, u64)> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.size() > 0)
        .map(|entry| {
            let name = entry.path().unwrap().display().to_string();
            (name, entry.raw_file_position(), entry.size())
        })
        .filter(|(name, ..)| name.starts_with("blobs/"))
        .collect();
    assert_eq!(blobs.len(), 4);
    for (name, at, size) in blobs {
        let mut bad = good.clone();
        bad[(at + size / 2) as usize] ^= 1;
        let path = place.path().join("bad.tar");
        fs::write(&path, &bad).unwrap();
        let digest = name.replace("blobs/sha256/", "sha256:");
        let found = format!("sha256:{}", hex(&bad[at as usize..(at + size) as usize]));
        let layer = layers.iter().any(|layer| layer.digest == digest);
        for format in [Format::Oci, Format::Docker] {
            let told = unpack(&path, format, &place.path().join("tree"));
            fs::remove_dir_all(place.path().join("tree")).unwrap();
            let what = match (layer, format) {
                // Docker's list does not name the manifest.
                (false, Format::Docker) if digest == written.manifest_digest => {
                    told.unwrap();
                    continue;
                }
                (true, _) => format!("the layer {digest}"),
                (false, Format::Docker) => name.clone(),
                (false, _) => format!("the blob {digest}"),
            };
            assert_eq!(
                told.unwrap_err(),
                format!(
                    "cannot use the image {}: {what} is damaged: its digest is {found}",
                    path.display()
                )
            );
        }
    }
    // Cut anywhere, it is an error and never half an image.
    for at in [0, 100, 600, 5000, good.len() / 2, good.len() - 3000] {
        let path = place.path().join("cut.tar");
        fs::write(&path, &good[..at]).unwrap();
        let told = unpack(&path, Format::Any, &place.path().join("tree")).unwrap_err();
        fs::remove_dir_all(place.path().join("tree")).unwrap();
        assert!(told.starts_with("cannot use the image "), "{told}");
    }
}

#[test]
fn the_image_for_this_platform_is_chosen() {
    let place = tempfile::tempdir().unwrap();
    let mut files = vec![(
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    )];
    let mut blob = |bytes: Vec<u8>| {
        let digest = format!("sha256:{}", hex(&bytes));
        let size = bytes.len();
        files.push((format!("blobs/sha256/{}", hex(&bytes)), bytes));
        (digest, size)
    };
    let mut list = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let config = serde_json::json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
        let (digest, size) = blob(serde_json::to_vec(&config).unwrap());
        let manifest = serde_json::json!({"schemaVersion": 2, "config": {"digest": digest, "size": size}, "layers": []});
        let (digest, size) = blob(serde_json::to_vec(&manifest).unwrap());
        list.push(serde_json::json!({"digest": digest, "size": size, "platform": {"architecture": architecture, "os": "linux"}}));
    }
    list.push(serde_json::json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 1, "platform": {"architecture": "unknown", "os": "unknown"}}));
    let (digest, size) = blob(serde_json::to_vec(&serde_json::json!({"manifests": list})).unwrap());
    let both = serde_json::json!({"manifests": [], "layers": [], "config": {"digest": digest, "size": size}});
    let (confused, confused_size) = blob(serde_json::to_vec(&both).unwrap());
    let index = |digest: &str, size: usize| {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": digest, "size": size}]});
        ("index.json".to_owned(), serde_json::to_vec(&index).unwrap())
    };
    let path = place.path().join("a.tar");
    tar_of(&path, &[files.clone(), vec![index(&digest, size)]].concat());
    let open = |architecture: &str| {
        let platform = Platform {
            architecture: architecture.into(),
            os: "linux".into(),
        };
        Image::open(&path, Format::Oci, &platform, place.path()).map_err(|error| error.to_string())
    };
    assert_eq!(open("arm64").unwrap().settings.architecture, "arm64");
    assert_eq!(open("amd64").unwrap().settings.architecture, "amd64");
    let told = open("riscv64").unwrap_err();
    assert!(
        told.ends_with("it is for linux/amd64, linux/arm64, not for linux/riscv64"),
        "{told}"
    );
    // CVE-2021-41190: an index and a manifest at once.
    tar_of(
        &path,
        &[files.clone(), vec![index(&confused, confused_size)]].concat(),
    );
    let told = open("amd64").unwrap_err();
    assert!(
        told.ends_with("it is an index and a manifest at once"),
        "{told}"
    );
    // CVE-2024-3727: a digest that is a path.
    tar_of(
        &path,
        &[files, vec![index("sha256:../../etc/passwd", 1)]].concat(),
    );
    let told = open("amd64").unwrap_err();
    assert!(
        told.ends_with("is not `sha256:` and 64 hexadecimal digits"),
        "{told}"
    );
}
