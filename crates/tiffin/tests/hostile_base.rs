//! Bases that were made to reach the machine that bakes on them.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Small, can_build, entry, must, said, write_archive};
use image::Content;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A directory of the machine, and all that is in it.
fn precious(small: &Small) -> (String, impl Fn() -> String) {
    let dir = small.at("precious");
    for path in ["log", "lib/apt/lists", "tmp", "cache/apt", ".cache"] {
        fs::create_dir_all(dir.join(path)).unwrap();
        fs::write(dir.join(path).join("file"), "precious").unwrap();
    }
    fs::write(dir.join("machine-id"), "precious").unwrap();
    let shown = dir.display().to_string();
    let look = move || {
        let script = "find . -printf '%p %y %m %s\\n' | sort; cat machine-id";
        must(Command::new("sh").args(["-c", script]).current_dir(&dir))
    };
    (shown, look)
}

/// buildah CVE-2024-1753 and buildkit CVE-2024-23651 mounted on, buildkit CVE-2024-23652
/// deleted through, links of an image that lead to the machine.
#[test]
fn cve_2024_1753_and_23652_links_of_a_base_lead_nowhere_on_the_machine() {
    if !can_build() {
        return;
    }
    let names = ["var", "root", "etc", "proc", "sys", "dev", "run", "tmp"];
    // Absolute links, and those that go up far enough.
    let ways = [(0, false), (0, true)].into_iter();
    for (index, up) in ways.chain((1..names.len()).map(|index| (index, index % 2 == 0))) {
        let name = names[index];
        let small = Small::new(1000);
        let (place, look) = precious(&small);
        let before = look();
        let to = match up {
            true => format!("../../../../../../../../../../..{place}"),
            false => place,
        };
        // The base again, with a link in place of that directory.
        let mut entries = common::root_file_system();
        entries.retain(|entry| entry.path != name);
        entries.push(entry(name, 0o777, Content::Symlink(to)));
        write_archive(small.dir.path(), "base.tar", &[entries]);
        small.recipe(
            "volumes: [/var/lib/data]
layers:
  - name: files
    steps: [{run: echo x >/srv/x}, {copy: {from: motd, to: /var/log/motd}}]
",
        );
        let out = small.build().output().unwrap();
        let told = said(&out);
        assert_eq!(look(), before, "{name}: {told}");
        let mounted = ["proc", "sys", "dev", "run", "tmp"].contains(&name);
        if mounted {
            assert!(
                told.contains(&format!(
                    "cannot mount /{name}: in this root file system it is no directory"
                )),
                "{told}"
            );
        }
        if name == "etc" {
            assert!(told.contains("its /etc is no directory"), "{told}");
        }
        if mounted || name == "etc" {
            assert_eq!(out.status.code(), Some(1), "{name}: {told}");
            assert!(!small.archive().exists());
        }
    }
}

/// buildkit CVE-2024-23651: what was a directory when it was looked at is a link when it is mounted
/// on. Somebody swaps the two all the time while sandboxes open.
#[test]
fn cve_2024_23651_a_directory_that_becomes_a_link_is_not_followed() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    let (place, look) = precious(&small);
    let tree = small.at("tree");
    for name in ["proc", "sys", "dev", "run", "tmp", "etc", "usr"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    // Of the machine, and in both: a bind covers the one of the box alone.
    fs::write(tree.join("etc/hosts"), "").unwrap();
    fs::write(small.at("precious/hosts"), "precious").unwrap();
    let now = || look() + &fs::read_to_string(small.at("precious/hosts")).unwrap();
    let before = now();
    fs::create_dir(small.at("mount")).unwrap();
    fs::create_dir(small.at("work")).unwrap();
    let open = || {
        let layout = serde_json::json!({
            "lower": [], "upper": {"upper": tree, "work": small.at("work")},
            "mount_point": small.at("mount"), "host_name": "box", "offline": false,
            "binds": [["/usr", "/run/tiffin/usr"], ["/etc/hosts", "/etc/hosts"]],
        });
        let out = Command::new(env!("CARGO_BIN_EXE_tiffin"))
            .arg("sandbox-init")
            .env("TIFFIN_SANDBOX_LAYOUT", layout.to_string())
            .stdin(Stdio::null())
            .output();
        said(&out.unwrap())
    };
    assert!(open().trim().parse::<u32>().is_ok(), "{}", open());
    for name in ["dev", "run", "tmp", "proc", "sys", "etc"] {
        let (there, link) = (tree.join(name), small.at("link"));
        symlink(&place, &link).unwrap();
        let stop = AtomicBool::new(false);
        let swap = || renameat_with(CWD, &there, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    swap();
                }
            });
            let mut opened = 0;
            for _ in 0..60 {
                opened += usize::from(open().trim().parse::<u32>().is_ok());
            }
            stop.store(true, Ordering::Relaxed);
            assert!(opened > 0, "{name}: the swapping hides everything");
        });
        assert_eq!(now(), before, "{name}");
        // And with a link there, or anything else.
        if !there.is_symlink() {
            swap();
        }
        let told = open();
        if name == "etc" {
            assert!(told.trim().parse::<u32>().is_ok(), "{told}");
        } else {
            let wanted =
                format!("cannot mount /{name}: in this root file system it is no directory\n");
            assert_eq!(told, wanted);
            fs::remove_file(&there).unwrap();
            fs::write(&there, "").unwrap();
            assert_eq!(open(), wanted);
        }
        assert_eq!(now(), before, "{name}");
        fs::remove_file(&there).unwrap();
        fs::rename(&link, &there).unwrap();
    }
}

/// The same by steps of a recipe: one layer takes a mount off and puts a link in its place.
#[test]
fn cve_2024_23651_a_link_that_a_layer_put_under_a_mount_is_not_followed_by_the_next() {
    if !can_build() {
        return;
    }
    for name in ["run", "tmp"] {
        let small = Small::new(1000);
        let (place, look) = precious(&small);
        let before = look();
        let programs = ["umount", "rmdir", "ln"];
        let entries = common::root_file_system_with(&programs);
        write_archive(small.dir.path(), "base.tar", &[entries]);
        small.recipe(&format!(
            "layers:
  - name: swap
    steps: [{{run: umount -l /{name} && rmdir /{name} && ln -s {place} /{name}}}]
  - name: next
    steps: [{{run: echo x >/srv/x}}]
"
        ));
        let out = small.build().output().unwrap();
        let told = said(&out);
        assert_eq!(look(), before, "{name}: {told}");
        assert_eq!(out.status.code(), Some(1), "{told}");
        assert!(
            told.contains(&format!(
                "cannot mount /{name}: in this root file system it is no directory"
            )),
            "{told}"
        );
    }
}

/// docker CVE-2019-14271: a helper with the machine's powers loaded a library of the box.
#[test]
fn cve_2019_14271_no_library_of_the_box_is_loaded_by_the_builder() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    let ran = small.at("ran");
    let source = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void run(void) {{ open(\"{0}\", O_CREAT, 0600); open(\"/ran\", O_CREAT, 0600); }}\n",
        ran.display()
    );
    small.write("evil.c", &source);
    let library = small.at("evil.so");
    must(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(small.at("evil.c")),
    );
    let bytes = fs::read(&library).unwrap();
    let mut entries = common::root_file_system();
    let file = |path: &str, bytes: &[u8]| entry(path, 0o755, Content::File(bytes.to_vec()));
    entries.push(file(
        "etc/nsswitch.conf",
        b"passwd: evil files\ngroup: evil files\n",
    ));
    entries.push(file("etc/passwd", b"web:x:33:33::/:/bin/sh\n"));
    entries.push(file("etc/group", b"web:x:33:\n"));
    for name in ["libnss_evil.so.2", "libnss_files.so.2", "libnss_dns.so.2"] {
        entries.push(file(&format!("usr/lib/x86_64-linux-gnu/{name}"), &bytes));
    }
    write_archive(small.dir.path(), "base.tar", &[entries]);
    small.recipe(
        "layers:
  - name: files
    steps: [{copy: {from: motd, to: /srv/motd, owner: web}}]
",
    );
    must(&mut small.build());
    assert!(!ran.exists(), "the library ran on the machine");
    let archive = small.archive();
    let told = must(
        Command::new("sh")
            .args(["-c", "for blob in $(tar -tf \"$1\" | grep blobs/sha256/.); do tar -xOf \"$1\" $blob | tar -tvz 2>/dev/null; done", "sh"])
            .arg(archive),
    );
    assert!(told.contains("srv/motd"), "{told}");
    assert!(
        !told.contains(" ran"),
        "the library ran in the sandbox: {told}"
    );
    assert!(told.contains("33/33"), "{told}");
}

/// buildkit CVE-2024-23653: steps that took more rights than they were given.
#[test]
fn cve_2024_23653_a_step_cannot_change_the_machines_kernel_or_devices() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    for attempt in [
        "echo 1 >/proc/sys/vm/drop_caches",
        "echo x >/proc/sys/kernel/core_pattern",
        "echo 1 >/sys/kernel/mm/ksm/run",
        "mknod /srv/mem c 1 1 && head -c 1 /srv/mem",
        "mknod /srv/zero c 1 5 && head -c 1 /srv/zero",
    ] {
        small.recipe(&format!(
            "layers: [{{name: attempt, steps: [{{run: '{attempt}'}}]}}]\n"
        ));
        let out = small.build().output().unwrap();
        let told = said(&out);
        assert_eq!(out.status.code(), Some(1), "{attempt}: {told}");
        assert!(
            told.contains(&format!("the step `run: {attempt}` failed")),
            "{told}"
        );
    }
}

/// A tar as a base: what an image may not do it may not do either.
#[test]
fn a_tar_of_a_root_file_system_cannot_reach_the_machine() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    let (place, look) = precious(&small);
    let before = look();
    let tar = |name: &str, more: &[(&str, tar::EntryType, &str)]| {
        let mut builder = tar::Builder::new(fs::File::create(small.at(name)).unwrap());
        for entry in common::root_file_system() {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_size(0);
            header.set_mtime(1);
            match &entry.content {
                Content::Directory => header.set_entry_type(tar::EntryType::Directory),
                Content::File(bytes) => header.set_size(bytes.len() as u64),
                _ => header.set_entry_type(tar::EntryType::Symlink),
            }
            match &entry.content {
                Content::File(bytes) => builder.append_data(&mut header, &entry.path, &bytes[..]),
                Content::Symlink(to) => builder.append_link(&mut header, &entry.path, to),
                _ => builder.append_data(&mut header, &entry.path, &[][..]),
            }
            .unwrap();
        }
        for (path, kind, to) in more {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_size(0);
            header.set_mtime(1);
            // Unlike the crate, which refuses such paths.
            let old = header.as_old_mut();
            old.name[..path.len()].copy_from_slice(path.as_bytes());
            old.linkname[..to.len()].copy_from_slice(to.as_bytes());
            header.set_cksum();
            builder.append(&header, &[][..]).unwrap();
        }
        builder.finish().unwrap();
    };
    let build = |name: &str| {
        small.write(
            "tiffin.yaml",
            &format!(
                "name: acme/small\nbase: rootfs:{name}\nplaybook: site.yml\nlayers: [{{name: files, steps: [{{run: 'echo x >/srv/x'}}]}}]\n"
            ),
        );
        small.build().output().unwrap()
    };
    let (file, symlink) = (tar::EntryType::Regular, tar::EntryType::Symlink);
    let out = format!("../../../../../../../..{place}");
    let through = [("srv/out", symlink, &*out), ("srv/out/log", file, "")];
    let above = format!("{out}/log");
    let hard = [("srv/hard", tar::EntryType::Link, &*above)];
    let device = [("srv/memory", tar::EntryType::Char, "")];
    for (name, more, told) in [
        (
            "through.tar",
            &through[..],
            "it has /srv/out: it lies behind a symbolic link of the same layer",
        ),
        ("hard.tar", &hard[..], "which is not a path inside"),
        (
            "device.tar",
            &device[..],
            "it has /srv/memory: it is a device node outside of /dev",
        ),
    ] {
        tar(name, more);
        let out = build(name);
        assert_eq!(look(), before, "{name}");
        assert_eq!(out.status.code(), Some(1), "{}", said(&out));
        let file = small.at(name).display().to_string();
        let start = format!("cannot use the root file system {file}: ");
        assert!(
            said(&out).contains(&start) && said(&out).contains(told),
            "{}",
            said(&out)
        );
    }
    tar("good.tar", &[]);
    let out = build("good.tar");
    assert!(out.status.success(), "{}", said(&out));
    assert!(small.archive().exists());
}

/// Device nodes: named in the recipe, or not in the box.
#[test]
fn device_nodes_are_in_a_box_when_the_recipe_names_them() {
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    let step = "layers: [{name: jail, steps: [{run: mknod -m 640 /srv/null c 1 3}]}]\n";
    small.recipe(step);
    let out = small.build().output().unwrap();
    let told = said(&out);
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(
        told.contains("error: cannot pack /srv/null: it is a character device (1:3)\nhint: engines make /dev themselves; leave the device node out of the image, or name it under `devices` in the recipe\n"),
        "{told}"
    );
    small.recipe(&format!("devices: [/srv/null]\n{step}"));
    must(&mut small.build());
    let archive = small.archive().display().to_string();
    let lint = Command::new(env!("CARGO_BIN_EXE_tiffin"))
        .args(["lint", &archive])
        .output()
        .unwrap();
    assert!(
        said(&lint).contains("note: /srv/null: a device node (1:3)"),
        "{}",
        said(&lint)
    );
    // What the cache has of another recipe is not taken for allowed.
    small.recipe(step);
    assert_eq!(small.build().output().unwrap().status.code(), Some(1));
}
