//! Every part of an archive and every file of a cache, damaged in turn: each verb says what is
//! damaged, in the same words each time, and nothing is made of it.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::{Small, can_build, entry, must, said, tiffin};
use image::Content;

/// An archive of two layers: enough of a root file system to bake on.
fn archive(place: &Path) -> PathBuf {
    let dirs = ["etc", "proc", "sys", "dev", "run", "tmp", "usr"];
    let dirs = dirs.map(|dir| entry(dir, 0o755, Content::Directory));
    let text = Content::File(vec![b'x'; 3000]);
    let motd = vec![entry("etc/motd", 0o644, text)];
    common::write_archive(place, "box.tar", &[dirs.to_vec(), motd])
}

/// Where each file of the archive lies: its name, and where its content begins and ends.
fn files(archive: &[u8]) -> BTreeMap<String, (usize, usize)> {
    let mut found = BTreeMap::new();
    for file in tar::Archive::new(archive).entries().unwrap() {
        let file = file.unwrap();
        let start = file.raw_file_position() as usize;
        let name = file.path().unwrap().display().to_string();
        if file.size() > 0 {
            found.insert(name, (start, start + file.size() as usize));
        }
    }
    found
}

fn find(bytes: &[u8], from: usize, text: &str) -> usize {
    let at = bytes[from..]
        .windows(text.len())
        .position(|w| w == text.as_bytes());
    from + at.unwrap_or_else(|| panic!("`{text}` is not there"))
}

/// A build on the archive as its base, by one table of contents or the other.
fn build(place: &Path, archive: &Path, kind: &str) -> (i32, String) {
    let recipe = place.join("tiffin.yaml");
    let text = format!(
        "name: acme/small\nbase: {kind}:{}\nplaybook: site.yml\nlayers:\n  - name: files\n    steps:\n      - copy: {{from: site.yml, to: /etc/site.yml}}\n",
        archive.display()
    );
    fs::write(&recipe, text).unwrap();
    fs::write(place.join("site.yml"), "- hosts: all\n  tasks: []\n").unwrap();
    let at = |name: &str| place.join(name).display().to_string();
    tiffin(&[
        "build",
        "--progress",
        "quiet",
        "--version",
        "v1",
        "--file",
        recipe.to_str().unwrap(),
        "--entrypoint",
        &at("site.yml"),
        "--cache",
        &at("cache"),
        "--output",
        &at("dist"),
    ])
}

/// What is changed, and what must be said of it: by what reads `index.json`, and by what
/// reads `manifest.json`. `None` where that one does not look.
struct Damage {
    what: String,
    bytes: Vec<u8>,
    oci: Option<String>,
    docker: Option<String>,
}

fn damages(good: &[u8]) -> Vec<Damage> {
    let files = files(good);
    let (index, manifest, layout) = (
        files["index.json"],
        files["manifest.json"],
        files["oci-layout"],
    );
    let text = |(start, end): (usize, usize)| String::from_utf8(good[start..end].into()).unwrap();
    let json = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let manifest_digest = json(&text(index))["manifests"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let config = json(&text(manifest))[0]["Config"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut made = Vec::new();
    let mut flip = |what: &str, at: usize, to: u8, oci: Option<String>, docker: Option<String>| {
        let mut bytes = good.to_vec();
        assert_ne!(bytes[at], to);
        bytes[at] = to;
        made.push(Damage {
            what: what.to_owned(),
            bytes,
            oci,
            docker,
        });
    };
    // Each blob, at its start, in its middle and at its end.
    for (name, (start, end)) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
        let digest = format!("sha256:{}", name.rsplit('/').next().unwrap());
        for at in [*start, (start + end) / 2, end - 1] {
            let to = good[at] ^ 1;
            let mut bad = good[*start..*end].to_vec();
            bad[at - start] = to;
            let found = image::sha256(&mut &bad[..]).unwrap();
            let is = format!("is damaged: its digest is sha256:{found}");
            let (oci, docker) = match &digest {
                digest if *digest == manifest_digest => {
                    (Some(format!("the blob {digest} {is}")), None)
                }
                digest if config.ends_with(&digest[7..]) => (
                    Some(format!("the blob {digest} {is}")),
                    Some(format!("{config} {is}")),
                ),
                digest => {
                    let told = Some(format!("the layer {digest} {is}"));
                    (told.clone(), told)
                }
            };
            flip(&format!("{name} at {}", at - start), at, to, oci, docker);
        }
    }
    let malformed = |name: &str| Some(format!("{name}: it is malformed: "));
    flip("oci-layout", layout.0, b'x', malformed("oci-layout"), None);
    let version = find(good, layout.0, "1.0.0");
    let unknown = "its oci-layout is of version `9.0.0`, and only 1.0.0 is known";
    flip(
        "oci-layout's version",
        version,
        b'9',
        Some(unknown.into()),
        None,
    );
    flip("index.json", index.0, b'x', malformed("index.json"), None);
    let digest = find(good, index.0, &manifest_digest) + 7;
    let other = if good[digest] == b'0' { b'1' } else { b'0' };
    let missing = format!(
        "the file blobs/sha256/{}{} is missing in it",
        other as char,
        &manifest_digest[8..]
    );
    flip("index.json's digest", digest, other, Some(missing), None);
    flip(
        "manifest.json",
        manifest.0,
        b'x',
        None,
        malformed("manifest.json"),
    );
    let digest = find(good, manifest.0, &config) + "blobs/sha256/".len();
    let other = if good[digest] == b'0' { b'1' } else { b'0' };
    let missing = format!(
        "the file blobs/sha256/{}{} is missing in it",
        other as char,
        &config["blobs/sha256/.".len()..]
    );
    flip("manifest.json's digest", digest, other, None, Some(missing));
    made
}

#[test]
fn each_part_of_an_archive_is_missed_by_name() {
    let place = tempfile::tempdir().unwrap();
    let path = archive(place.path());
    let good = fs::read(&path).unwrap();
    let keys = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let signed = minisign::sign(Some(&keys.pk), &keys.sk, &good[..], None, None).unwrap();
    let signature = place.path().join("box.tar.minisig");
    fs::write(&signature, signed.to_string()).unwrap();
    let key = keys.pk.to_base64();

    let bad = place.path().join("bad.tar");
    let (shown, sound) = (bad.to_str().unwrap(), path.to_str().unwrap());
    let verify = |archive: &str| {
        let signature = signature.to_str().unwrap();
        tiffin(&["verify", archive, "--key", &key, "--signature", signature])
    };
    assert_eq!(verify(sound).0, 0);
    assert_eq!(tiffin(&["inspect", sound]).0, 0);
    // Nobody listens there: what is damaged is found before anything is asked or sent.
    let nowhere = "127.0.0.1:9/acme/box:v1";
    for damage in damages(&good) {
        fs::write(&bad, &damage.bytes).unwrap();
        let what = &damage.what;
        let told = damage.oci.as_ref().or(damage.docker.as_ref()).unwrap();
        let whole = format!("error: cannot use the image {shown}: {told}");
        for words in [
            vec!["inspect", shown],
            vec!["inspect", "--json", shown],
            vec!["diff", sound, shown],
            vec!["diff", shown, sound],
            vec!["lint", shown],
        ] {
            let (code, said) = tiffin(&words);
            assert_eq!(code, 1, "{what}: {words:?}: {said}");
            assert!(said.starts_with(&whole), "{what}: {words:?}: {said}");
        }
        let (code, said) = tiffin(&["push", "--progress", "quiet", shown, nowhere]);
        assert_eq!(code, 1, "{what}: {said}");
        assert!(said.contains(told.as_str()), "{what}: {said}");
        let wrong = format!("error: {shown} is not what was signed: do not load it\n");
        assert_eq!(verify(shown), (3, wrong), "{what}");
        if !can_build() {
            continue;
        }
        for (kind, told) in [
            ("oci-archive", &damage.oci),
            ("docker-archive", &damage.docker),
        ] {
            let Some(told) = told else { continue };
            let (code, said) = build(place.path(), &bad, kind);
            let whole = format!("error: cannot use the image {shown}: {told}");
            assert_eq!(code, 1, "{what}: {kind}: {said}");
            assert!(said.starts_with(&whole), "{what}: {kind}: {said}");
            let dist = fs::read_dir(place.path().join("dist"));
            assert_eq!(dist.map_or(0, |d| d.count()), 0, "{what}: {kind}");
        }
    }
}

#[test]
fn two_tables_of_contents_that_disagree_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = archive(place.path());
    let good = fs::read(&path).unwrap();
    let manifest = files(&good)["manifest.json"];
    let mut bytes = good.clone();
    bytes[find(&good, manifest.0, "acme/base:v1") + "acme/base:v".len()] = b'2';
    fs::write(&path, &bytes).unwrap();
    let shown = path.to_str().unwrap();
    let (code, said) = tiffin(&["inspect", shown]);
    assert_eq!(
        (code, said),
        (
            1,
            format!(
                "error: cannot use the image {shown}: its index.json calls it docker.io/acme/base:v1, its manifest.json docker.io/acme/base:v2\n"
            )
        )
    );
    // The layers the other way round: an engine before 29 would find another content.
    let text = String::from_utf8(good[manifest.0..manifest.1].to_vec()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers: Vec<&str> = json[0]["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l.as_str().unwrap())
        .collect();
    let swapped = text
        .replace(layers[0], "?")
        .replace(layers[1], layers[0])
        .replace('?', layers[1]);
    let mut bytes = good.clone();
    bytes[manifest.0..manifest.1].copy_from_slice(swapped.as_bytes());
    fs::write(&path, &bytes).unwrap();
    let (code, said) = tiffin(&["inspect", shown]);
    assert_eq!(code, 1);
    assert!(
        said.ends_with("its index.json and manifest.json name different layers\n"),
        "{said}"
    );
}

/// All files below `dir`.
fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            below(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn each_file_of_the_cache_is_missed_by_name_and_made_anew() {
    if !can_build() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let path = archive(place.path());
    let (code, said) = build(place.path(), &path, "oci-archive");
    assert_eq!(code, 0, "{said}");
    let written = place.path().join("dist/small-v1.tar");
    let bytes = fs::read(&written).unwrap();
    let cache = place.path().join("cache");
    let verify = || tiffin(&["cache", "verify", "--cache", cache.to_str().unwrap()]);
    assert_eq!(verify(), (0, String::new()));

    let mut all = Vec::new();
    for part in ["layers", "blobs"] {
        below(&cache.join(part), &mut all);
    }
    all.retain(|path| fs::metadata(path).unwrap().len() > 0);
    let hint = "hint: remove what is named; the next build makes it anew\n";
    let mut kinds = std::collections::BTreeSet::new();
    for file in &all {
        let good = fs::read(file).unwrap();
        let time = fs::metadata(file).unwrap().modified().unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        // In place, as a disk would.
        let write = |bytes: &[u8]| {
            let mut open = fs::OpenOptions::new().write(true).open(file).unwrap();
            open.write_all(bytes).unwrap();
        };
        write(&bad);
        let layer = file
            .ancestors()
            .find(|dir| dir.parent().is_some_and(|above| above.ends_with("layers")));
        let name = file.file_name().unwrap().to_str().unwrap();
        let in_tree = file.components().any(|part| part.as_os_str() == "tree");
        let (kind, told) = if file.parent().unwrap().ends_with("blobs") {
            let found = image::sha256(&mut &bad[..]).unwrap();
            let told = format!(
                "{}: it is damaged: its digest is sha256:{found}",
                file.display()
            );
            ("blob", told)
        } else if in_tree {
            let layer = layer.unwrap().display();
            let told = format!("{layer}: its files are not those that were baked");
            ("file", told)
        } else if name == "record.json" {
            let told = format!("{}: its record is damaged", layer.unwrap().display());
            ("record", told)
        } else {
            ("note", format!("{}: it is damaged", file.display()))
        };
        kinds.insert(kind);
        assert_eq!(
            verify(),
            (3, format!("{told}\n{hint}")),
            "{}",
            file.display()
        );

        fs::remove_file(&written).unwrap();
        let (code, said) = build(place.path(), &path, "oci-archive");
        match kind {
            // Never into an archive.
            "blob" if code == 1 => {
                let shown = file.display();
                assert!(
                    said.starts_with(&format!(
                        "error: cannot use the layer {shown}: it is damaged: its digest is sha256:"
                    )) && said
                        .ends_with("hint: remove the file and build again; it will be made anew\n"),
                    "{said}"
                );
                assert!(!written.exists());
                fs::remove_file(file).unwrap();
                let (code, said) = build(place.path(), &path, "oci-archive");
                assert_eq!(code, 0, "{said}");
            }
            _ => assert_eq!(code, 0, "{}: {said}", file.display()),
        }
        assert_eq!(
            fs::read(&written).unwrap(),
            bytes,
            "after damage of {}",
            file.display()
        );
        if kind == "file" {
            write(&good);
            let open = fs::File::options().write(true).open(file).unwrap();
            open.set_modified(time).unwrap();
        }
        assert_eq!(verify(), (0, String::new()), "after {}", file.display());
    }
    assert_eq!(Vec::from_iter(kinds), ["blob", "file", "note", "record"]);

    // A layer whose files have changed is not packed again in silence.
    let motd = all.iter().find(|path| path.ends_with("etc/motd")).unwrap();
    fs::write(motd, "changed").unwrap();
    fs::remove_dir_all(cache.join("blobs")).unwrap();
    let (code, said) = build(place.path(), &path, "oci-archive");
    assert_eq!(code, 1);
    assert!(
        said.contains(
            ": its files are not those that were baked\nhint: remove the directory and build again"
        ),
        "{said}"
    );
    let layer = motd.ancestors().nth(3).unwrap();
    fs::remove_dir_all(layer).unwrap();
    let (code, said) = build(place.path(), &path, "oci-archive");
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read(&written).unwrap(), bytes);
}

/// Changes one bit in the middle in place, as a disk would; answers what was there, and the
/// digest of what is there now.
fn flip(file: &Path) -> (Vec<u8>, String) {
    let good = fs::read(file).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    put_back(file, &bad);
    (good, image::sha256(&mut &bad[..]).unwrap())
}

fn put_back(file: &Path, bytes: &[u8]) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    let mut open = fs::OpenOptions::new().write(true).open(file).unwrap();
    open.write_all(bytes).unwrap();
    open.set_modified(time).unwrap();
}

#[test]
fn each_download_and_each_note_is_missed_by_name_and_no_download_is_used() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    small.recipe("layers: [{name: stack, tags: [stack]}]\n");
    let downloads = [
        "apt/hello_1.0_amd64.deb",
        "pip/http-v2/a/b/body",
        "wheels/hello-1.0-py3-none-any.whl",
        "base/bookworm/archives/hello_1.0_amd64.deb",
        "base/bookworm/lists/deb.example_InRelease",
        "lists/bookworm/deb.example_InRelease",
    ];
    let downloads = downloads.map(|name| small.at("cache/downloads").join(name));
    for path in &downloads {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("content of {}", path.display())).unwrap();
    }
    must(&mut small.build());
    let archive = fs::read(small.archive()).unwrap();
    let cache = small.at("cache");
    let shown = cache.display().to_string();
    let verify = || tiffin(&["cache", "verify", "--cache", &shown]);
    assert_eq!(verify(), (0, String::new()));
    let hint = "hint: remove what is named; the next build makes it anew\n";

    let mut notes = Vec::new();
    below(&cache.join("known"), &mut notes);
    assert_eq!(notes.len(), 2, "of the layer, and of its roles");
    below(&cache.join("downloads/digests"), &mut notes);
    assert_eq!(notes.len(), 2 + downloads.len());
    for note in &notes {
        let (good, _) = flip(note);
        let told = format!("{}: it is damaged\n{hint}", note.display());
        assert_eq!(verify(), (3, told));
        put_back(note, &good);
    }
    notes.iter().for_each(|note| drop(flip(note)));
    let told = must(&mut small.build());
    assert!(told.contains("layer stack: baked in"), "{told}");
    assert!(fs::read(small.archive()).unwrap() == archive);
    assert_eq!(verify(), (0, String::new()), "all were made anew");

    for path in &downloads {
        let (good, found) = flip(path);
        let wrong = format!(
            "{}: it is damaged: its digest is sha256:{found}\n",
            path.display()
        );
        assert_eq!(verify(), (3, wrong + hint));
        let out = small
            .build()
            .args(["--offline", "--no-cache"])
            .output()
            .unwrap();
        let told = said(&out);
        assert_eq!(out.status.code(), Some(1), "{told}");
        let whole = format!(
            "error: cannot use the download {}: it is damaged: its digest is sha256:{found}\nhint: remove the file and build without --offline; it will be fetched anew\n",
            path.display()
        );
        assert!(told.ends_with(&whole), "{told}");
        put_back(path, &good);
    }
    downloads.iter().for_each(|path| drop(flip(path)));
    let told = must(small.build().arg("--no-cache"));
    for path in &downloads {
        let note = format!(
            "{} is damaged: it is removed, to be fetched again",
            path.display()
        );
        assert!(told.contains(&note), "{told}");
        assert!(!path.exists());
    }
    assert!(fs::read(small.archive()).unwrap() == archive);
    assert_eq!(verify(), (0, String::new()));
}
