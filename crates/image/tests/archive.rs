//! Archives against the tools that read them, and against damage.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{
    But, EPOCH, attributes, config, have, names, pack, root, run, same, same_but, stored, succeeds,
    two_layers, write,
};
use image::{Content, Entry, Layer, Silent, Source, layer_from_entries, write_archive};

fn small_layer(blobs: &Path) -> Layer {
    let entry = Entry {
        path: "hello".to_owned(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        content: Content::File(b"hello\n".to_vec()),
    };
    layer_from_entries(&[entry], blobs, EPOCH, image::Packing::Gzip).unwrap()
}

#[test]
fn the_bytes_of_a_small_archive_are_pinned() {
    let place = tempfile::tempdir().unwrap();
    let layer = small_layer(&place.path().join("blobs"));
    let out = place.path().join("a.tar");
    // The same layer twice is one blob.
    let archive = write(
        &out,
        &["acme/backend:v1", "r.example:5000/acme/backend:v1"],
        &[layer.clone(), layer],
    );
    assert_eq!(archive.size, fs::metadata(&out).unwrap().len());
    assert_eq!(
        run("sha256sum", &[out.to_str().unwrap()])
            .split(' ')
            .next()
            .unwrap(),
        archive.sha256
    );
    let mut tar = tar::Archive::new(fs::File::open(&out).unwrap());
    let listed: Vec<String> = tar
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(
        listed[..5],
        [
            "oci-layout",
            "index.json",
            "manifest.json",
            "blobs/",
            "blobs/sha256/"
        ]
    );
    assert_eq!(listed.len(), 8);
    assert_eq!(
        archive.sha256,
        "7ee9905ecad38a62821f908dd492f295a1a1daa5d30ad128143b6d467a485559"
    );
}

#[test]
fn damage_is_found_and_nothing_appears() {
    let place = tempfile::tempdir().unwrap();
    let layer = small_layer(&place.path().join("blobs"));
    let good = fs::read(&layer.blob).unwrap();
    let dist = place.path().join("dist");
    let out = dist.join("a.tar");
    let refused = |layer: &Layer| {
        let references = ["acme/backend:v1".to_owned()];
        let error = write_archive(
            &out,
            &references,
            &config(),
            std::slice::from_ref(layer),
            &Silent,
        )
        .unwrap_err();
        assert!(
            dist.read_dir()
                .map_or(true, |mut entries| entries.next().is_none()),
            "something was left"
        );
        error
            .to_string()
            .replace(&format!("{}/", layer.blob.parent().unwrap().display()), "")
    };
    let name = layer.blob.file_name().unwrap().to_str().unwrap();

    let mut bad = good.clone();
    bad[20] ^= 1;
    fs::write(&layer.blob, &bad).unwrap();
    let told = refused(&layer);
    assert!(
        told.starts_with(&format!(
            "cannot use the layer {name}: it is damaged: its digest is sha256:"
        )),
        "{told}"
    );
    fs::write(&layer.blob, &good[1..]).unwrap();
    let told = refused(&layer);
    assert_eq!(
        told,
        format!(
            "cannot use the layer {name}: it has {} bytes instead of {}",
            good.len() - 1,
            good.len()
        )
    );
    fs::remove_file(&layer.blob).unwrap();
    assert_eq!(
        refused(&layer),
        format!("cannot open {name}: No such file or directory (os error 2)")
    );
}

/// More than all buffers on their way between reading, hashing and the disk, to the byte.
#[test]
fn a_large_archive_is_hashed_as_it_lies_on_the_disk() {
    let place = tempfile::tempdir().unwrap();
    let mut seed = 88_172_645_463_325_252u64;
    let noise = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    });
    let entry = Entry {
        path: "noise".to_owned(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        content: Content::File(noise.take(2_300_001).flatten().collect()),
    };
    let blobs = place.path().join("blobs");
    let layer = layer_from_entries(&[entry], &blobs, EPOCH, image::Packing::Gzip).unwrap();
    assert!(layer.size > 18_000_000);
    let out = place.path().join("a.tar");
    let archive = write(
        &out,
        &["acme/backend:v1"],
        &[layer.clone(), small_layer(&blobs)],
    );
    assert_eq!(archive.size, fs::metadata(&out).unwrap().len());
    let sum = run("sha256sum", &[out.to_str().unwrap()]);
    assert_eq!(sum[..64], archive.sha256);
    let digest = layer.digest.trim_start_matches("sha256:");
    let copied = format!(
        "tar -xOf {} blobs/sha256/{digest} | sha256sum",
        out.display()
    );
    assert_eq!(&run("sh", &["-c", &copied])[..64], digest);
    // The last byte counts.
    let mut bytes = fs::read(&layer.blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&layer.blob, bytes).unwrap();
    let references = ["acme/backend:v1".to_owned()];
    let told = write_archive(&out, &references, &config(), &[layer], &Silent).unwrap_err();
    assert!(told.to_string().contains("it is damaged: its digest is"));
}

#[test]
fn an_older_archive_stays_until_the_new_one_is_whole() {
    let place = tempfile::tempdir().unwrap();
    let layer = small_layer(&place.path().join("blobs"));
    let out = place.path().join("a.tar");
    fs::write(&out, "old").unwrap();
    let untagged = ["acme/backend".to_owned()];
    let error = write_archive(
        &out,
        &untagged,
        &config(),
        std::slice::from_ref(&layer),
        &Silent,
    )
    .unwrap_err();
    assert!(error.to_string().ends_with("every reference needs a tag"));
    let missing = Layer {
        blob: PathBuf::from("/no/such/blob"),
        ..layer
    };
    let references = ["acme/backend:v1".to_owned()];
    write_archive(&out, &references, &config(), &[missing], &Silent).unwrap_err();
    assert_eq!(fs::read(&out).unwrap(), b"old");
    assert_eq!(
        names(place.path()).len(),
        2,
        "only the archive and the blobs"
    );
}

/// A file system of 4 MB that is full before the layer is.
#[test]
fn a_full_disk_is_named_and_nothing_appears() {
    if !root() || !have("unshare", &["-m", "true"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mount = place.path().join("mnt");
    fs::create_dir(&mount).unwrap();
    if !have(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=4m",
            "tmpfs",
            mount.to_str().unwrap(),
        ],
    ) {
        return;
    }
    let tree = place.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let noise: Vec<u8> = (0..6u32 << 18)
        .flat_map(|n| {
            n.wrapping_mul(2_654_435_761)
                .rotate_left(n % 31)
                .to_le_bytes()
        })
        .collect();
    fs::write(tree.join("noise"), noise).unwrap();
    let told = image::write_layer(&tree, &mount, &common::options(Source::Tree))
        .map_err(|error| error.to_string());
    let layer = pack(&tree, &place.path().join("blobs"), Source::Tree);
    let references = ["acme/backend:v1".to_owned()];
    let archive = write_archive(
        &mount.join("a.tar"),
        &references,
        &config(),
        &[layer],
        &Silent,
    );
    let left = names(&mount);
    run("umount", &[mount.to_str().unwrap()]);
    let told = told.unwrap_err();
    let device = mount.display();
    assert!(
        told.starts_with(&format!(
            "cannot write {device}/layer: no space left on {device}: "
        )),
        "{told}"
    );
    let archive = archive.unwrap_err();
    assert!(
        archive.to_string().contains(" MB needed, 4 MB free"),
        "{archive}"
    );
    assert!(archive.hint().unwrap().starts_with("free some space on "));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn umoci_and_skopeo_take_it_and_the_tree_is_the_same() {
    if !root() || !have("umoci", &["--version"]) || !have("skopeo", &["--version"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (layers, expected) = two_layers(place.path());
    let out = place.path().join("a.tar");
    let archive = write(&out, &["acme/backend:v1"], &layers);
    let text = |path: &Path| path.to_str().unwrap().to_owned();

    let layout = place.path().join("layout");
    fs::create_dir(&layout).unwrap();
    run("tar", &["-xf", &text(&out), "-C", &text(&layout)]);
    let bundle = place.path().join("bundle");
    run(
        "umoci",
        &[
            "unpack",
            "--image",
            &format!("{}:v1", text(&layout)),
            &text(&bundle),
        ],
    );
    same(&expected, &bundle.join("rootfs"));

    let inspected = run(
        "skopeo",
        &["inspect", &format!("oci-archive:{}", text(&out))],
    );
    assert!(inspected.contains(&archive.manifest_digest), "{inspected}");
    run(
        "skopeo",
        &[
            "inspect",
            "--config",
            &format!("docker-archive:{}", text(&out)),
        ],
    );
    // A copy reads every layer and checks its diff_id.
    for kind in ["oci-archive", "docker-archive"] {
        let copy = format!("dir:{}", text(&place.path().join(kind)));
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                &format!("{kind}:{}", text(&out)),
                &copy,
            ],
        );
    }
}

/// skopeo reads every layer as podman and containerd do, and this crate's own reader, too.
#[test]
fn an_archive_of_zstd_layers_says_so_and_is_read() {
    let place = tempfile::tempdir().unwrap();
    let blobs = place.path().join("blobs");
    let entry = Entry {
        path: "hello".to_owned(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        content: Content::File(vec![7; 5_000_000]),
    };
    let zstd = image::Packing::Zstd { level: 3 };
    let layers = [
        small_layer(&blobs),
        layer_from_entries(&[entry], &blobs, EPOCH, zstd).unwrap(),
    ];
    let out = place.path().join("a.tar");
    let loaded = format!("tiffin-image-zstd-test-{}:v1", std::process::id());
    let archive = write(&out, &[&loaded], &layers);
    let path = out.to_str().unwrap();
    let name = format!("blobs/{}", archive.manifest_digest.replace(':', "/"));
    let manifest = run("tar", &["-xOf", path, &name]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let kinds: Vec<&str> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["mediaType"].as_str().unwrap())
        .collect();
    let tar = "application/vnd.oci.image.layer.v1.tar";
    assert_eq!(kinds, [format!("{tar}+gzip"), format!("{tar}+zstd")]);
    let platform = image::Platform {
        architecture: config().architecture,
        os: "linux".to_owned(),
    };
    let image = image::Image::open(&out, image::Format::Any, &platform, place.path()).unwrap();
    if root() {
        let tree = place.path().join("tree");
        fs::create_dir(&tree).unwrap();
        image.unpack(&tree, &Silent).unwrap();
        assert_eq!(fs::read(tree.join("hello")).unwrap(), vec![7; 5_000_000]);
    }
    if have("skopeo", &["--version"]) {
        for kind in ["oci-archive", "docker-archive"] {
            let copy = format!("dir:{}", place.path().join(kind).display());
            let from = format!("{kind}:{path}");
            run("skopeo", &["--insecure-policy", "copy", &from, &copy]);
        }
    }
    // The engine compares each layer with its diff_id. One before 23 reads no zstd.
    if root() && have("docker", &["info"]) {
        let version = run("docker", &["version", "--format", "{{.Server.Version}}"]);
        let major: u32 = version.split('.').next().unwrap().parse().unwrap();
        assert_eq!(
            succeeds("docker", &["load", "-i", path]),
            major >= 23,
            "{version}"
        );
        succeeds("docker", &["rmi", &loaded]);
    }
}

#[test]
fn the_engine_loads_it_and_the_tree_is_the_same() {
    if !root() || !have("docker", &["info"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (layers, expected) = two_layers(place.path());
    let out = place.path().join("a.tar");
    let name = format!("tiffin-image-test-{}:v1", std::process::id());
    let archive = write(&out, &[&name], &layers);
    let path = out.to_str().unwrap();
    assert!(run("docker", &["load", "-i", path]).contains(&name));
    let checked = std::panic::catch_unwind(|| {
        let format = "{{.Id}} {{.Config.StopSignal}} {{.Config.Healthcheck.Interval}} {{.Config.ExposedPorts}}";
        let told = run("docker", &["image", "inspect", "-f", format, &name]);
        assert_eq!(
            told.trim(),
            format!(
                "{} SIGTERM 30000000000 map[80/tcp:map[]]",
                archive.config_digest
            )
        );
        let container = run("docker", &["create", &name]);
        let container = container.trim();
        let exported = place.path().join("export.tar");
        let export = std::panic::catch_unwind(|| {
            run(
                "docker",
                &["export", "-o", exported.to_str().unwrap(), container],
            )
        });
        run("docker", &["rm", "-v", container]);
        export.unwrap();
        let tree = place.path().join("docker");
        fs::create_dir(&tree).unwrap();
        // What the engine adds to a container of its own.
        let own: Vec<String> = [
            ".dockerenv",
            "etc/hostname",
            "etc/hosts",
            "etc/resolv.conf",
            "etc/mtab",
            "dev",
            "proc",
            "sys",
            "data",
        ]
        .iter()
        .map(|path| format!("--exclude={path}"))
        .collect();
        let mut flags = vec!["--xattrs", "--xattrs-include=*", "--numeric-owner"];
        flags.extend(own.iter().map(String::as_str));
        let from = ["-xpf", exported.to_str().unwrap(), "-C"];
        run(
            "tar",
            &[&flags[..], &from, &[tree.to_str().unwrap()]].concat(),
        );
        // An export has no other attributes, and the container changed /etc.
        let but = But {
            attributes: true,
            time: Some("/etc"),
            ..But::default()
        };
        same_but(but, &expected, &tree);
        // The engine itself has them, in the directories of its layers.
        let format = "{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}";
        let layers = run("docker", &["image", "inspect", "-f", format, &name]);
        let layers: Vec<&Path> = layers.trim().split(':').map(Path::new).collect();
        if layers.iter().all(|layer| layer.is_dir()) {
            for path in ["etc/listed", "hidden/new", "hidden/shared", "hidden/ping"] {
                let found = layers.iter().map(|layer| layer.join(path));
                let found = found.filter(|path| path.exists()).map(|path| {
                    let mut kept = attributes(&path);
                    // Notes of the engine's own overlay.
                    kept.retain(|name, _| !name.contains("overlay"));
                    kept
                });
                assert_eq!(
                    found.collect::<Vec<_>>(),
                    [attributes(&expected.join(path))],
                    "{path}"
                );
            }
        }
    });
    run("docker", &["rmi", &name]);
    checked.unwrap();
}

/// podman reads the OCI layout first, and the other table where it is asked to.
#[test]
fn podman_takes_it_and_the_tree_is_the_same() {
    if !root() || !have("podman", &["--version"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (layers, expected) = two_layers(place.path());
    let out = place.path().join("a.tar");
    let names = ["acme/backend:v1", "acme/backend:latest"];
    let archive = write(&out, &names, &layers);
    let out = out.display();
    let load = format!("{out}");
    for (how, from) in [
        ("load", vec!["load", "--quiet", "--input", &load]),
        (
            "oci",
            vec!["pull", "--quiet", &format!("oci-archive:{out}:v1")],
        ),
        (
            "docker",
            vec![
                "pull",
                "--quiet",
                &format!("docker-archive:{out}:acme/backend:v1"),
            ],
        ),
    ] {
        let own = tempfile::tempdir_in(place.path()).unwrap();
        let podman = |args: &[&str]| {
            stored("podman", "overlay", own.path(), args)
                .trim()
                .to_owned()
        };
        podman(&from);
        let listed = podman(&[
            "images",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Repository}}:{{.Tag}}",
        ]);
        assert!(listed.contains(&archive.config_digest), "{how}: {listed}");
        if how == "load" {
            for name in names {
                assert!(listed.contains(name), "{listed}");
            }
        }
        let id = archive.config_digest.trim_start_matches("sha256:");
        let mounted = podman(&["image", "mount", id]);
        same(&expected, Path::new(&mounted));
        podman(&["image", "umount", id]);
        podman(&["rmi", "--force", id]);
        // The driver mounts its own directory on itself.
        succeeds(
            "umount",
            &[&own.path().join("storage/overlay").display().to_string()],
        );
    }
}

/// containerd, with which nerdctl and Kubernetes load images. (nerdctl itself is no package of
/// Debian 12; it hands an archive to this import.)
#[test]
fn containerd_takes_it_and_the_tree_is_the_same() {
    if !root() || !have("containerd", &["--version"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (layers, expected) = two_layers(place.path());
    let out = place.path().join("a.tar");
    let archive = write(
        &out,
        &["acme/backend:v1", "r.example:5000/acme/backend:v1"],
        &layers,
    );
    let containerd = Containerd::start(place.path());
    let ctr = |args: &[&str]| {
        let socket = containerd.socket.to_str().unwrap();
        run(
            "ctr",
            &[&["--address", socket, "--namespace", "test"], args].concat(),
        )
    };
    // Unpacks each layer, and compares it with its diff_id.
    ctr(&[
        "images",
        "import",
        "--snapshotter",
        "native",
        out.to_str().unwrap(),
    ]);
    let listed = ctr(&["images", "list"]);
    for name in [
        "docker.io/acme/backend:v1",
        "r.example:5000/acme/backend:v1",
    ] {
        let line = listed.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {listed}"));
        assert!(line.contains(&archive.manifest_digest), "{listed}");
        let mount = place.path().join("mnt");
        fs::create_dir_all(&mount).unwrap();
        let mount = mount.to_str().unwrap();
        ctr(&["images", "mount", "--snapshotter", "native", name, mount]);
        let checked = std::panic::catch_unwind(|| same(&expected, Path::new(mount)));
        ctr(&[
            "images",
            "unmount",
            "--snapshotter",
            "native",
            "--rm",
            mount,
        ]);
        checked.unwrap();
    }
    let checked = ctr(&["images", "check", "--snapshotter", "native"]);
    assert_eq!(checked.matches(" complete (3/3) ").count(), 2, "{checked}");
}

/// A daemon of the test's own; its files end with `place`.
struct Containerd {
    child: std::process::Child,
    socket: PathBuf,
}

impl Containerd {
    fn start(place: &Path) -> Containerd {
        let at = |name: &str| place.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt']\n[grpc]\naddress = '{}'\n[ttrpc]\naddress = '{}'\n",
            at("containerd"),
            at("state"),
            at("containerd.sock"),
            at("containerd.ttrpc"),
        );
        fs::write(place.join("containerd.toml"), config).unwrap();
        let log = fs::File::create(place.join("containerd.log")).unwrap();
        let child = std::process::Command::new("containerd")
            .args(["--config", &at("containerd.toml")])
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let socket = place.join("containerd.sock");
        let daemon = Containerd { child, socket };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let version = ["--address", daemon.socket.to_str().unwrap(), "version"];
        while !succeeds("ctr", &version) {
            let log = || fs::read_to_string(place.join("containerd.log")).unwrap();
            assert!(std::time::Instant::now() < end, "{}", log());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        daemon
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
