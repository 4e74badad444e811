//! Registries: Debian's `docker-registry` on loopback, and one of the test's own that asks
//! for tokens, breaks off and lies.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{have, names, root, run, same, two_layers, write};
use image::registry::{Options, Remote};
use image::{Format, Image, Platform, Reference, Silent};
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

/// bcrypt, the only kind that docker-registry takes, of `let-me-in`.
const USERS: &str = "customer:$2a$04$abcdefghijklmnopqrstuudxA/1BY5FxPYA69jUrJOJFmTyoe9T1a\n";

struct Registry {
    child: Child,
    host: String,
    place: tempfile::TempDir,
}

impl Registry {
    /// `None` where it is not installed.
    fn start(password: bool) -> Option<Registry> {
        if !have("docker-registry", &["--version"]) {
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        let at = place.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: '{host}'}}\n"
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

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An archive of two layers and what they must come out as.
fn archive(place: &Path) -> (Image, PathBuf) {
    let (layers, expected) = two_layers(place);
    let path = place.join("a.tar");
    write(&path, &["acme/backend:v1"], &layers);
    (
        Image::open(&path, Format::Any, &amd64(), place).unwrap(),
        expected,
    )
}

fn pull(from: &Reference, options: &Options, blobs: &Path) -> Result<Image, String> {
    let remote = Remote::find(from, &amd64(), options).map_err(|error| error.to_string())?;
    remote
        .fetch(blobs, &Silent)
        .map_err(|error| error.to_string())
}

#[test]
fn what_was_pushed_comes_back_the_same() {
    let Some(registry) = Registry::start(false) else {
        return;
    };
    if !root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (image, expected) = archive(place.path());
    let options = Options::default();
    let target = registry.reference("acme/backend:v1");
    let pushed = image.push(&target, None, &options, &Silent).unwrap();
    assert_eq!(
        Some(&pushed.manifest_digest),
        image.manifest_digest.as_ref()
    );
    assert_eq!(pushed.sent, 3, "two layers and a configuration");
    let again = image.push(
        &registry.reference("acme/backend:v2"),
        None,
        &options,
        &Silent,
    );
    assert_eq!(again.unwrap().sent, 0);
    let other = registry.reference("other/name:v1");
    let mounted = image
        .push(&other, Some("acme/backend"), &options, &Silent)
        .unwrap();
    assert_eq!(
        mounted.sent, 0,
        "the registry has them in the other repository"
    );

    let digest = registry.reference(&format!("acme/backend@{}", pushed.manifest_digest));
    for (index, from) in [target.clone(), digest, other].iter().enumerate() {
        let blobs = place.path().join(format!("pulled-{index}"));
        let pulled = pull(from, &options, &blobs).unwrap();
        assert_eq!(pulled.config_digest, image.config_digest);
        let tree = place.path().join(format!("tree-{index}"));
        fs::create_dir(&tree).unwrap();
        pulled.unpack(&tree, &Silent).unwrap();
        same(&expected, &tree);
        assert_eq!(names(&blobs).len(), 2, "nothing else stays");
    }
    // Others read what was pushed.
    if have("skopeo", &["--version"]) {
        let shown = run(
            "skopeo",
            &[
                "inspect",
                "--tls-verify=false",
                &format!("docker://{target}"),
            ],
        );
        assert!(shown.contains(&pushed.manifest_digest), "{shown}");
    }
    let missing = pull(
        &registry.reference("acme/backend:v9"),
        &options,
        place.path(),
    )
    .unwrap_err();
    assert!(
        missing.contains("has no acme/backend:v9: manifest unknown (404)"),
        "{missing}"
    );
    let mirrored = Options {
        mirrors: vec![("r.invalid".into(), format!("http://{}", registry.host))],
        ..Options::default()
    };
    let from = "r.invalid/acme/backend:v1".parse().unwrap();
    pull(&from, &mirrored, &place.path().join("mirrored")).unwrap();

    // Damage where the registry keeps its blobs.
    let layer = image.layers[0].digest.as_ref().unwrap();
    let hex_digits = layer.strip_prefix("sha256:").unwrap();
    let data = registry.place.path().join(format!(
        "data/docker/registry/v2/blobs/sha256/{}/{hex_digits}/data",
        &hex_digits[..2]
    ));
    let mut bytes = fs::read(&data).unwrap();
    bytes[20] ^= 1;
    fs::write(&data, &bytes).unwrap();
    let blobs = place.path().join("damaged");
    assert_eq!(
        pull(&target, &options, &blobs).unwrap_err(),
        format!(
            "cannot pull {target}: the blob {layer} that {} sent is damaged: its digest is sha256:{}",
            registry.host,
            hex(&bytes)
        )
    );
    assert!(names(&blobs).is_empty(), "a damaged blob does not stay");
}

#[test]
fn passwords_come_from_dockers_files_and_helpers() {
    let Some(registry) = Registry::start(true) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let (image, _) = archive(place.path());
    let target = registry.reference("acme/backend:v1");
    let with = |config: serde_json::Value| {
        let dir = tempfile::tempdir_in(place.path()).unwrap().keep();
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        Options {
            docker_config: Some(dir),
            ..Options::default()
        }
    };
    let error = image
        .push(&target, None, &Options::default(), &Silent)
        .unwrap_err();
    assert!(
        error.to_string().ends_with("asks for a password"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("docker login"));

    // base64 of customer:let-me-in, as docker login writes it.
    let good =
        with(serde_json::json!({"auths": {&registry.host: {"auth": "Y3VzdG9tZXI6bGV0LW1lLWlu"}}}));
    image.push(&target, None, &good, &Silent).unwrap();
    pull(&target, &good, &place.path().join("pulled")).unwrap();

    let wrong = with(
        serde_json::json!({"auths": {&registry.host: {"username": "customer", "password": "canary9"}}}),
    );
    let told = pull(&target, &wrong, place.path()).unwrap_err();
    assert!(
        told.contains("refuses") && !told.contains("canary9"),
        "{told}"
    );

    // A helper is a program on the path; this test's name is nobody else's.
    let bin = tempfile::tempdir().unwrap();
    let name = format!("tiffin-test-{}", std::process::id());
    let helper = bin.path().join(format!("docker-credential-{name}"));
    let script = format!(
        "#!/bin/sh\nread host\n[ \"$1 $host\" = 'get {}' ] && echo '{{\"Username\":\"customer\",\"Secret\":\"let-me-in\"}}'\n",
        registry.host
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let helped = with(serde_json::json!({"credHelpers": {&registry.host: name}}));
    let missing = pull(&target, &helped, place.path()).unwrap_err();
    assert!(
        missing.contains(&format!("docker-credential-{name} does not answer")),
        "{missing}"
    );
    let installed = Path::new("/usr/local/bin").join(helper.file_name().unwrap());
    if fs::copy(&helper, &installed).is_err() {
        return;
    }
    let pulled = pull(&target, &helped, &place.path().join("helped"));
    fs::remove_file(&installed).unwrap();
    pulled.unwrap();
}

/// A registry of this test: an image of one layer, behind tokens, over a bad line.
#[derive(Default)]
struct Fake {
    files: HashMap<String, Vec<u8>>,
    /// Blobs break off after so many bytes of an answer.
    cut: Option<usize>,
    /// So many answers are 503 first.
    busy: usize,
    tokens: bool,
    log: Vec<String>,
}

impl Fake {
    fn serve(self) -> (String, Arc<Mutex<Fake>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let fake = Arc::new(Mutex::new(self));
        let (shared, name) = (Arc::clone(&fake), host.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &shared, &name);
            }
        });
        (host, fake)
    }
}

fn answer(mut stream: TcpStream, fake: &Mutex<Fake>, host: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((key, value)) = line.split_once(": ") else {
            break;
        };
        headers.insert(key.to_lowercase(), value.to_owned());
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut fake = fake.lock().unwrap();
    let range = headers.get("range").cloned().unwrap_or_default();
    fake.log.push(format!("{path} {range}").trim().to_owned());
    let mut reply = |status: &str, more: &str, body: &[u8], sent: usize| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
        )?;
        stream.write_all(&body[..sent])
    };
    let authorization = headers.get("authorization").map_or("", String::as_str);
    if path.starts_with("/token") {
        // base64 of customer:let-me-in
        return match authorization == "Basic Y3VzdG9tZXI6bGV0LW1lLWlu"
            && path.contains("scope=repository%3Aa%2Fb%3Apull")
        {
            true => reply("200 OK", "", br#"{"token": "sesame"}"#, 19),
            false => reply("401 Unauthorized", "", b"", 0),
        };
    }
    if fake.busy > 0 {
        fake.busy -= 1;
        return reply("503 Service Unavailable", "", b"", 0);
    }
    if fake.tokens && authorization != "Bearer sesame" {
        let ask = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"x\",scope=\"y\"\r\n"
        );
        return reply("401 Unauthorized", &ask, b"", 0);
    }
    let Some(body) = fake.files.get(&path) else {
        return reply("404 Not Found", "", b"", 0);
    };
    let from = range
        .trim_start_matches("bytes=")
        .trim_end_matches('-')
        .parse()
        .unwrap_or(0);
    let rest = &body[from..];
    let sent = match fake.cut {
        Some(cut) if path.contains("/blobs/") => rest.len().min(cut),
        _ => rest.len(),
    };
    match from {
        0 => reply("200 OK", "", rest, sent),
        _ => {
            let part = format!(
                "Content-Range: bytes {from}-{}/{}\r\n",
                body.len() - 1,
                body.len()
            );
            reply("206 Partial Content", &part, rest, sent)
        }
    }
}

fn fake() -> (Fake, Vec<u8>, String) {
    // 600 kB that nothing compresses; a tar it need not be to be fetched.
    let blob: Vec<u8> = (0..150_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let digest = format!("sha256:{}", hex(&blob));
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]},
    }))
    .unwrap();
    let config_digest = format!("sha256:{}", hex(&config));
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"digest": config_digest, "size": config.len()},
        "layers": [{"digest": digest, "size": blob.len()}],
    });
    let files = HashMap::from([
        (
            "/v2/a/b/manifests/v1".to_owned(),
            serde_json::to_vec(&manifest).unwrap(),
        ),
        (format!("/v2/a/b/blobs/{config_digest}"), config),
        (format!("/v2/a/b/blobs/{digest}"), blob.clone()),
    ]);
    let fake = Fake {
        files,
        ..Fake::default()
    };
    (fake, blob, digest)
}

fn customer(place: &Path, host: &str) -> Options {
    let auth = serde_json::json!({"auths": {host: {"auth": "Y3VzdG9tZXI6bGV0LW1lLWlu"}}});
    fs::write(place.join("config.json"), auth.to_string()).unwrap();
    Options {
        docker_config: Some(place.to_owned()),
        plain: vec![host.to_owned()],
        ..Options::default()
    }
}

#[test]
fn a_token_is_fetched_and_a_busy_registry_asked_again() {
    let place = tempfile::tempdir().unwrap();
    let (mut served, blob, digest) = fake();
    (served.tokens, served.busy) = (true, 2);
    let (host, fake) = served.serve();
    let from: Reference = format!("{host}/a/b:v1").parse().unwrap();
    let options = customer(place.path(), &host);
    let blobs = place.path().join("blobs");
    pull(&from, &options, &blobs).unwrap();
    let stored = blobs.join(digest.trim_start_matches("sha256:"));
    assert_eq!(fs::read(&stored).unwrap(), blob);
    let tokens = |fake: &Mutex<Fake>| {
        let fake = fake.lock().unwrap();
        fake.log
            .iter()
            .filter(|path| path.starts_with("/token"))
            .count()
    };
    assert_eq!(tokens(&fake), 1, "one token serves the whole pull");

    // What is there is not fetched again, and what was damaged meanwhile is.
    let asked = |fake: &Mutex<Fake>| {
        let fake = fake.lock().unwrap();
        fake.log
            .iter()
            .filter(|path| path.contains(&digest))
            .count()
    };
    let before = asked(&fake);
    pull(&from, &options, &blobs).unwrap();
    assert_eq!(asked(&fake), before);
    fs::write(&stored, b"damaged").unwrap();
    pull(&from, &options, &blobs).unwrap();
    assert_eq!(fs::read(&stored).unwrap(), blob);

    let told = pull(
        &from,
        &Options {
            docker_config: None,
            ..options
        },
        place.path(),
    )
    .unwrap_err();
    assert!(told.contains("refuses the credentials: 401"), "{told}");
}

#[test]
fn a_line_that_breaks_again_and_again_is_continued() {
    let place = tempfile::tempdir().unwrap();
    let (mut served, blob, digest) = fake();
    served.cut = Some(90_000);
    let (host, fake) = served.serve();
    let from: Reference = format!("{host}/a/b:v1").parse().unwrap();
    let options = customer(place.path(), &host);
    // A build that was killed had the beginning.
    let blobs = place.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let name = digest.trim_start_matches("sha256:");
    fs::write(blobs.join(format!("{name}.download")), &blob[..1000]).unwrap();
    pull(&from, &options, &blobs).unwrap();
    assert_eq!(fs::read(blobs.join(name)).unwrap(), blob);
    assert_eq!(names(&blobs).len(), 1);
    let fake = fake.lock().unwrap();
    let asked: Vec<&String> = fake.log.iter().filter(|path| path.contains(name)).collect();
    assert!(asked.len() >= 7, "600 kB in pieces of 90 kB: {asked:?}");
    assert!(asked[0].ends_with("bytes=1000-"), "{asked:?}");
}

#[test]
fn what_a_registry_says_is_not_believed() {
    let place = tempfile::tempdir().unwrap();
    let (mut served, _, digest) = fake();
    for (path, content) in &mut served.files {
        if path.contains(&digest) {
            content.push(0);
        }
    }
    let (host, _fake) = served.serve();
    let from: Reference = format!("{host}/a/b:v1").parse().unwrap();
    let options = customer(place.path(), &host);
    let told = pull(&from, &options, &place.path().join("blobs")).unwrap_err();
    assert_eq!(
        told,
        format!(
            "cannot pull {from}: the blob {digest} that {host} sends is longer than 600000 bytes"
        )
    );
    assert!(names(&place.path().join("blobs")).is_empty());

    // Another manifest than the digest that was asked for.
    let (mut served, ..) = self::fake();
    let manifest = served.files["/v2/a/b/manifests/v1"].clone();
    let wanted = format!("sha256:{}", "0".repeat(64));
    served
        .files
        .insert(format!("/v2/a/b/manifests/{wanted}"), manifest.clone());
    let (host, _fake) = served.serve();
    let from: Reference = format!("{host}/a/b@{wanted}").parse().unwrap();
    let told = pull(&from, &customer(place.path(), &host), place.path()).unwrap_err();
    assert!(
        told.ends_with(&format!(
            "the blob {wanted} is damaged: its digest is sha256:{}",
            hex(&manifest)
        )),
        "{told}"
    );
}

#[test]
fn a_host_that_is_not_there_is_named() {
    let place = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let from: Reference = format!("127.0.0.1:{port}/a/b:v1").parse().unwrap();
    let told = pull(&from, &Options::default(), place.path()).unwrap_err();
    assert!(
        told.contains(&format!("127.0.0.1:{port} cannot be reached: ")),
        "{told}"
    );
}
