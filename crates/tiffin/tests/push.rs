//! What a machine says of registries, in variables and Docker's files, reaches `tiffin push` and
//! a build's base: proxies, authorities, credentials, mirrors.

mod common;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Small, can_build, entry, said, write_archive};
use image::Content;

/// bcrypt, the only kind that docker-registry takes, of `let-me-in`.
const USERS: &str = "customer:$2a$04$abcdefghijklmnopqrstuudxA/1BY5FxPYA69jUrJOJFmTyoe9T1a\n";

struct Registry {
    child: Child,
    host: String,
    place: tempfile::TempDir,
}

impl Registry {
    /// Debian's docker-registry; `None` where it is not installed. With `tls`, `ca.crt` beside its
    /// data is the authority of the name `registry.test`.
    fn start(tls: bool, password: bool) -> Option<Registry> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            assert!(std::env::var_os("CI").is_none(), "no docker-registry");
            eprintln!("skipped: docker-registry is not installed");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = port.local_addr().unwrap().to_string();
        drop(port);
        let at = place.path().display();
        let mut http = format!("addr: '{host}'");
        if tls {
            certificates(place.path());
            http += &format!(", tls: {{certificate: {at}/host.crt, key: {at}/host.key}}");
        }
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{{http}}}\n"
        );
        if password {
            fs::write(place.path().join("users"), USERS).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {at}/users}}}}\n");
        }
        fs::write(place.path().join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(place.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { child, host, place };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < end, "docker-registry does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificates(place: &Path) {
    let script = "exec 2>/dev/null
        key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $key -keyout ca.key -out ca.crt -subj '/CN=an authority' -days 2 &&
        openssl req $key -keyout host.key -out host.csr -subj /CN=registry &&
        echo subjectAltName=DNS:registry.test >names &&
        openssl x509 -req -in host.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out host.crt";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(place)
        .status();
    assert!(made.unwrap().success(), "openssl makes no certificate");
}

/// A proxy that takes every name for the registry, and what was asked of it first on each
/// connection.
fn proxy(registry: &Registry) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, backend) = (Arc::clone(&asked), registry.host.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (log, backend) = (Arc::clone(&log), backend.clone());
            std::thread::spawn(move || pass(client, &backend, &log));
        }
    });
    (address, asked)
}

fn pass(mut client: TcpStream, backend: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    from.read_line(&mut head)?;
    log.lock().unwrap().push(head.trim().to_owned());
    let mut server = TcpStream::connect(backend)?;
    if head.starts_with("CONNECT ") {
        let mut line = String::new();
        while from.read_line(&mut line)? > 2 {
            line.clear();
        }
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    } else {
        // A server takes the absolute form, too (RFC 9112, 3.2.2).
        server.write_all(head.as_bytes())?;
    }
    let mut back = server.try_clone()?;
    std::thread::spawn(move || {
        let _ = io::copy(&mut back, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
    let _ = io::copy(&mut from, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Both);
    Ok(())
}

fn archive(place: &Path) -> PathBuf {
    let file = entry("motd", 0o644, Content::File(b"Welcome.\n".to_vec()));
    write_archive(place, "a.tar", &[vec![file]])
}

/// Exit code and both streams, with these variables and no others of the kind.
fn push(archive: &Path, image: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiffin"));
    command.arg("push").arg(archive).arg(image);
    clean(&mut command);
    command.envs(variables.iter().copied());
    let out = command.output().unwrap();
    (out.status.code().unwrap(), said(&out))
}

fn clean(command: &mut Command) {
    for name in [
        "DOCKER_CONFIG",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "REQUEST_METHOD",
    ] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    for name in ["TIFFIN_REGISTRY_CA", "TIFFIN_MIRRORS", "TIFFIN_PLAIN_HTTP"] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent");
}

#[test]
fn a_proxy_is_asked() {
    let Some(registry) = Registry::start(false, false) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let (address, asked) = proxy(&registry);
    let asked = || std::mem::take(&mut *asked.lock().unwrap());
    let plain = ("TIFFIN_PLAIN_HTTP", "other.test,registry.test:5000");
    let name = "registry.test:5000/acme/box:v1";

    for variable in ["HTTP_PROXY", "http_proxy"] {
        let (code, text) = push(&archive, name, &[plain, (variable, &address)]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains(&format!("{name}@sha256:")), "{text}");
        let lines = asked();
        assert!(!lines.is_empty());
        for line in &lines {
            assert!(
                line.contains(" http://registry.test:5000/v2/acme/box/"),
                "{variable}: {lines:?}"
            );
        }
    }
    // The one for encrypted connections is not asked for others, and none for a name that is
    // excepted, or for this machine.
    let proxies = [("HTTP_PROXY", &*address), ("HTTPS_PROXY", &*address)];
    let mut attempts = vec![vec![plain], vec![plain, proxies[1]]];
    for except in ["registry.test", "x.example, .test", "*"] {
        attempts.push([&proxies[..], &[plain, ("NO_PROXY", except)]].concat());
    }
    // At once, since each is tried again for a while.
    std::thread::scope(|scope| {
        for variables in &attempts {
            let archive = &archive;
            scope.spawn(move || {
                let (code, text) = push(archive, name, variables);
                assert_eq!(code, 1, "{variables:?}: {text}");
                let told = "cannot push {name}: registry.test:5000 cannot be reached: ";
                assert!(text.contains(&told.replace("{name}", name)), "{text}");
            });
        }
    });
    assert_eq!(asked(), Vec::<String>::new());
    let local = format!("{}/acme/box:v1", registry.host);
    let (code, text) = push(&archive, &local, &proxies);
    assert_eq!((code, asked()), (0, Vec::new()), "{text}");
}

#[test]
fn an_authority_is_named_in_a_variable_and_a_tunnel_leads_to_it() {
    let Some(registry) = Registry::start(true, false) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let (address, asked) = proxy(&registry);
    let authority = registry.place.path().join("ca.crt").display().to_string();
    let proxy = ("HTTPS_PROXY", &*address);
    let name = "registry.test/acme/box:v1";
    let (code, text) = push(&archive, name, &[proxy]);
    assert_eq!(code, 1);
    assert!(
        text.ends_with(&format!(
            "error: cannot push {name}: the certificate of registry.test is not trusted: its authority is unknown\nhint: name the certificate of its authority in TIFFIN_REGISTRY_CA, or put it into /etc/docker/certs.d/registry.test/ca.crt\n"
        )),
        "{text}"
    );
    for variable in ["TIFFIN_REGISTRY_CA", "SSL_CERT_FILE"] {
        let (code, text) = push(&archive, name, &[proxy, (variable, &authority)]);
        assert_eq!(code, 0, "{variable}: {text}");
    }
    let lines = asked.lock().unwrap().clone();
    assert!(
        lines
            .iter()
            .all(|line| line == "CONNECT registry.test:443 HTTP/1.1"),
        "{lines:?}"
    );
    // Another name than the certificate's, though its authority is known.
    let other = "other.test/acme/box:v1";
    let variables = [proxy, ("TIFFIN_REGISTRY_CA", &*authority)];
    let (code, text) = push(&archive, other, &variables);
    assert_eq!(code, 1);
    assert!(
        text.contains("the certificate of other.test is not trusted: "),
        "{text}"
    );
    let missing = ("TIFFIN_REGISTRY_CA", "/no/such/file");
    let (code, text) = push(&archive, name, &[proxy, missing]);
    assert_eq!(code, 1);
    assert!(text.contains("/no/such/file: No such file"), "{text}");
}

#[test]
fn credentials_are_taken_from_home_or_where_docker_is_told() {
    let Some(registry) = Registry::start(false, true) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let archive = archive(place.path());
    let name = format!("{}/acme/box:v1", registry.host);
    let config = |dir: &str, login: &str| {
        let dir = place.path().join(dir);
        fs::create_dir_all(&dir).unwrap();
        let auths = serde_json::json!({"auths": {&registry.host: {"auth": login}}});
        fs::write(dir.join("config.json"), auths.to_string()).unwrap();
        dir.display().to_string()
    };
    // base64 of customer:let-me-in and customer:wrong.
    config("home/.docker", "Y3VzdG9tZXI6bGV0LW1lLWlu");
    let wrong = config("wrong", "Y3VzdG9tZXI6d3Jvbmc=");
    let home = place.path().join("home").display().to_string();
    let (code, text) = push(&archive, &name, &[]);
    assert_eq!(code, 1);
    let hint = format!(
        "hint: `docker login {}` keeps credentials for it\n",
        registry.host
    );
    assert!(
        text.contains("asks for a password\n") && text.ends_with(&hint),
        "{text}"
    );
    let (code, text) = push(&archive, &name, &[("HOME", &home)]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = push(
        &archive,
        &name,
        &[("HOME", &home), ("DOCKER_CONFIG", &wrong)],
    );
    assert_eq!(code, 1, "the directory that was told goes before");
    assert!(
        !text.contains("wrong:") && text.contains("refuses"),
        "{text}"
    );
}

/// `base: docker://…` from a mirror, which is the only one that answers.
#[test]
fn a_base_is_pulled_from_a_mirror() {
    let Some(registry) = Registry::start(false, false) else {
        return;
    };
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    let name = format!("{}/acme/base:v1", registry.host);
    let (code, text) = push(&small.at("base.tar"), &name, &[]);
    assert_eq!(code, 0, "{text}");
    small.write(
        "tiffin.yaml",
        "name: acme/small\nbase: docker://r.invalid/acme/base:v1\nplaybook: site.yml\nlayers: [{name: files, steps: [{run: 'echo x >/srv/x'}]}]\n",
    );
    let build = |mirrors: &str| {
        let mut command = small.build();
        clean(&mut command);
        let out = command.env("TIFFIN_MIRRORS", mirrors).output().unwrap();
        (out.status.code(), said(&out))
    };
    let (code, text) = build(&format!("other.invalid=http://{}", registry.host));
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("cannot pull r.invalid/acme/base:v1: r.invalid cannot be reached: "),
        "{text}"
    );
    let mirror = format!("x.invalid=y.invalid, r.invalid=http://{}/", registry.host);
    let (code, text) = build(&mirror);
    assert_eq!(code, Some(0), "{text}");
    assert!(small.archive().exists());
}

/// `--offline` on a base of a registry that is gone: all that a build has asked it for is kept.
#[test]
fn a_base_that_was_pulled_once_serves_builds_without_a_network() {
    let Some(registry) = Registry::start(false, false) else {
        return;
    };
    if !can_build() {
        return;
    }
    let small = Small::new(1000);
    let name = format!("{}/acme/base:v1", registry.host);
    let (code, text) = push(&small.at("base.tar"), &name, &[]);
    assert_eq!(code, 0, "{text}");
    small.write(
        "tiffin.yaml",
        &format!("name: acme/small\nbase: docker://{name}\nplaybook: site.yml\nlayers: [{{name: files, steps: [{{run: 'echo x >/srv/x'}}]}}]\n"),
    );
    let build = |words: &[&str]| {
        let mut command = small.build();
        clean(&mut command);
        let out = command.args(words).output().unwrap();
        (out.status.code().unwrap(), said(&out))
    };
    let (code, text) = build(&[]);
    assert_eq!(code, 0, "{text}");
    let good = fs::read(small.archive()).unwrap();
    drop(registry);

    for words in [&["--offline"][..], &["--offline", "--no-cache"]] {
        fs::remove_file(small.archive()).unwrap();
        let (code, text) = build(words);
        assert_eq!(code, 0, "{words:?}: {text}");
        assert!(fs::read(small.archive()).unwrap() == good, "{words:?}");
    }
    let (code, text) = build(&[]);
    assert_eq!(code, 1);
    assert!(text.contains("cannot be reached"), "{text}");

    // Each file of it, damaged in turn.
    let cache = small.at("cache");
    let shown = cache.display().to_string();
    let verify = || common::tiffin(&["cache", "verify", "--cache", &shown]);
    assert_eq!(verify(), (0, String::new()));
    let hint = "hint: remove what is named; the next build makes it anew\n";
    let mut kinds = std::collections::BTreeSet::new();
    let pulled = fs::read_dir(cache.join("pulled")).unwrap();
    for path in pulled.map(|entry| entry.unwrap().path()) {
        let whole = fs::read(&path).unwrap();
        let mut bad = whole.clone();
        bad[whole.len() / 2] ^= 1;
        fs::write(&path, &bad).unwrap();
        let found = image::sha256(&mut &bad[..]).unwrap();
        let told = format!(
            "{}: it is damaged: its digest is sha256:{found}\n{hint}",
            path.display()
        );
        assert_eq!(verify(), (3, told));
        let (code, text) = build(&["--offline", "--no-cache"]);
        assert_eq!(code, 1, "{text}");
        let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        let document = |what: &str| {
            format!(
                "error: cannot pull {name}: its {what} in the cache, {}: the blob {digest} is damaged: its digest is sha256:{found}\n",
                path.display()
            )
        };
        let wanted = [
            ("manifest", document("manifest")),
            ("configuration", document("configuration")),
            (
                "layer",
                format!(
                    "error: cannot pull {name}: the blob {digest} is not in the cache, or damaged there, and this build has no network\n"
                ),
            ),
        ];
        let kind = wanted
            .iter()
            .find(|(_, wanted)| text.ends_with(wanted.as_str()));
        kinds.insert(kind.unwrap_or_else(|| panic!("{text}")).0);
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(
        Vec::from_iter(kinds),
        ["configuration", "layer", "manifest"]
    );
    fs::remove_dir_all(cache.join("known")).unwrap();
    let (code, text) = build(&["--offline"]);
    assert_eq!(code, 1);
    assert!(
        text.contains("no build with this cache has asked for it"),
        "{text}"
    );
}
