//! The file that is shipped, as other tools and a download see it.

use std::{fs, process::Command, time::Duration};

use crate::harness::*;

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn others_read_the_archive() {
    let archive = archive();
    let path = archive.display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let oci = format!("oci:{}/layout:box", dir.path().display());
    must(Command::new("skopeo").args(["inspect", &format!("docker-archive:{path}")]));
    must(Command::new("skopeo").args(["copy", "--quiet", &format!("oci-archive:{path}"), &oci]));
    let layout = format!("{}/layout:box", dir.path().display());
    let bundle = dir.path().join("bundle");
    must(
        Command::new("umoci")
            .args(["unpack", "--image", &layout])
            .arg(&bundle),
    );
    assert!(bundle.join("rootfs/usr/lib/tiffin/contract.json").exists());
    let shadow = fs::read_to_string(bundle.join("rootfs/etc/shadow")).unwrap();
    assert!(shadow.contains("root:"));
    assert!(
        !bundle.join("rootfs/usr/sbin/policy-rc.d").exists(),
        "nothing of the build stays"
    );
    assert_eq!(
        fs::read_to_string(bundle.join("rootfs/etc/resolv.conf")).unwrap(),
        ""
    );
    let binary = fs::read_to_string(bundle.join("rootfs/usr/bin/systemctl")).unwrap_or_default();
    assert!(
        !binary.contains("while a box is baked"),
        "the stand-in stays outside"
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn container_structure_test_accepts_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("box.yaml");
    fs::write(
        &config,
        "schemaVersion: 2.0.0
fileExistenceTests:
  - {name: entrypoint, path: /usr/lib/tiffin/entrypoint, shouldExist: true, permissions: '-rwxr-xr-x'}
  - {name: contract, path: /usr/lib/tiffin/contract.json, shouldExist: true}
  - {name: no package lists, path: /var/lib/apt/lists/lock, shouldExist: false}
metadataTest:
  entrypoint: [/usr/lib/tiffin/entrypoint]
  exposedPorts: ['80']
  volumes: [/data]
",
    )
    .unwrap();
    let tool = std::env::var("TIFFIN_TEST_TOOLS").expect("set by ci/e2e")
        + "/bin/container-structure-test";
    let said = must(
        Command::new(tool)
            .args(["test", "--driver", "tar", "--image"])
            .arg(archive())
            .arg("--config")
            .arg(&config),
    );
    assert!(said.contains("PASS"), "{said}");
}

/// Neither a secret nor an identity is in what the reference stack's playbooks make.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn lint_passes_the_box() {
    let said = must(Command::new(tiffin()).arg("lint").arg(archive()));
    assert!(!said.contains("error:"), "{said}");
    // It has looked: Debian's own setuid programs are worth a note.
    assert!(said.contains("note: /usr/bin/su: setuid"), "{said}");
}

/// A vendor's download site: nginx with basic authentication on a port of loopback.
struct Site {
    child: std::process::Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Site {
    fn serve(root: &std::path::Path) -> Site {
        let dir = tempfile::Builder::new()
            .prefix("tiffin-site")
            .tempdir()
            .unwrap();
        // Workers of nginx run as another user.
        must(Command::new("chmod").args(["755"]).arg(dir.path()));
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let users = dir.path().join("users");
        fs::write(
            &users,
            "customer:{PLAIN}let-me-in
",
        )
        .unwrap();
        let at = dir.path().display();
        let conf = dir.path().join("nginx.conf");
        fs::write(
            &conf,
            format!(
                "user root; daemon off; pid {at}/pid; error_log {at}/error.log; events {{}}
http {{ access_log off; client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c;
 uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;
 server {{ listen 127.0.0.1:{port}; root {}; auth_basic box; auth_basic_user_file {at}/users; }} }}",
                root.display()
            ),
        )
        .unwrap();
        let child = Command::new("nginx").arg("-c").arg(&conf).spawn().unwrap();
        let up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let site = Site {
            child,
            port,
            _dir: dir,
        };
        assert!(within(Duration::from_secs(10), up), "nginx does not start");
        site
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_download_that_was_interrupted_goes_on_and_loads() {
    let archive = archive();
    let name = archive.file_name().unwrap().to_string_lossy().into_owned();
    let site = Site::serve(archive.parent().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let base = format!("http://127.0.0.1:{}", site.port);
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command
            .args(["-sSf", "-u", "customer:let-me-in", "-O"])
            .args(arguments)
            .current_dir(dir.path());
        command
    };
    let refused = output(
        Command::new("curl")
            .args(["-sf", "-O", &format!("{base}/{name}")])
            .current_dir(dir.path()),
    );
    assert!(!refused.status.success(), "no password, no box");

    let half = output(&mut curl(&[
        "--limit-rate",
        "40M",
        "--max-time",
        "1",
        &format!("{base}/{name}"),
    ]));
    assert_eq!(
        half.status.code(),
        Some(28),
        "the download was to be cut by its time limit"
    );
    let got = fs::metadata(dir.path().join(&name)).unwrap().len();
    assert!(
        got > 0 && got < fs::metadata(&archive).unwrap().len(),
        "cut in the middle, at {got}"
    );
    must(&mut curl(&["-C", "-", &format!("{base}/{name}")]));
    must(&mut curl(&[&format!("{base}/{name}.sha256")]));
    must(
        Command::new("sha256sum")
            .args(["-c", &format!("{name}.sha256")])
            .current_dir(dir.path()),
    );
    let loaded = must(&mut docker(&[
        "load",
        "-i",
        &dir.path().join(&name).display().to_string(),
    ]));
    assert!(loaded.contains(&image()), "{loaded}");
}
