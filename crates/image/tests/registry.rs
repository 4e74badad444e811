//! Registries: Debian's `docker-registry` on loopback, and one of the test's own that asks
//! for tokens, breaks off and lies. Proxies and variables are in tiffin's `tests/push.rs`.

mod common;

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{have, names, root, run, same, two_layers, write};
use image::registry::{Options, Remote};
use image::{
    Config, Content, Entry, Format, Image, Packing, Platform, Reference, Silent,
    layer_from_entries, write_archive,
};
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
        Registry::start_with(tempfile::tempdir().unwrap(), password, false)
    }

    /// With TLS it serves with what [`certificates`] has put into `place`.
    fn start_with(place: tempfile::TempDir, password: bool, tls: bool) -> Option<Registry> {
        if !have("docker-registry", &["--version"]) {
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        let at = place.path().display();
        let tls = match tls {
            true => format!(", tls: {{certificate: {at}/host.crt, key: {at}/host.key}}"),
            false => String::new(),
        };
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: '{host}'{tls}}}\n"
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

    let name = format!("tiffin-test-{}", std::process::id());
    let helped = with(serde_json::json!({"credHelpers": {&registry.host: &name}}));
    let missing = pull(&target, &helped, place.path()).unwrap_err();
    assert!(
        missing.contains(&format!("docker-credential-{name} does not answer")),
        "{missing}"
    );
    let answer = format!(
        "[ \"$1 $host\" = 'get {}' ] && echo '{{\"Username\":\"customer\",\"Secret\":\"let-me-in\"}}'",
        registry.host
    );
    let Some(helper) = Helper::install(&name, &answer) else {
        return;
    };
    pull(&target, &helped, &place.path().join("helped")).unwrap();
    // One for all hosts, which one for a host goes before.
    let store = with(serde_json::json!({"credsStore": &name}));
    pull(&target, &store, &place.path().join("store")).unwrap();
    let nobody = Helper::install(&format!("{name}-not"), "exit 3").unwrap();
    let first = with(
        serde_json::json!({"credsStore": format!("{name}-not"), "credHelpers": {&registry.host: &name}}),
    );
    pull(&target, &first, &place.path().join("first")).unwrap();
    drop((helper, nobody));

    // It knows nothing of this host: then the file counts, and nobody is a user without one.
    let unknown = "echo 'credentials not found in native keychain'; exit 1";
    let _helper = Helper::install(&name, unknown).unwrap();
    let auth = serde_json::json!({"credsStore": &name, "auths": {&registry.host: {"auth": "Y3VzdG9tZXI6bGV0LW1lLWlu"}}});
    pull(&target, &with(auth), &place.path().join("file")).unwrap();
    let told = pull(&target, &store, place.path()).unwrap_err();
    assert!(told.ends_with("asks for a password"), "{told}");
}

/// A keychain that is locked is not one that knows nothing of the host.
#[test]
fn a_credential_helper_that_fails_is_named_with_what_it_said() {
    let place = tempfile::tempdir().unwrap();
    let name = format!("tiffin-fails-{}", std::process::id());
    let store = serde_json::json!({"credsStore": &name});
    fs::write(place.path().join("config.json"), store.to_string()).unwrap();
    let options = Options {
        docker_config: Some(place.path().to_owned()),
        plain: vec!["127.0.0.1:9".into()],
        ..Options::default()
    };
    let target: Reference = "127.0.0.1:9/a/b:v1".parse().unwrap();
    for (script, told) in [
        (
            "echo 'the keychain is locked'; echo canary9 >&2; exit 1",
            "the keychain is locked",
        ),
        ("exit 4", "exit status: 4"),
        ("echo canary9", "not JSON as expected"),
        ("echo '{\"Username\": \"canary9\"}'", "not JSON as expected"),
    ] {
        let Some(_helper) = Helper::install(&name, script) else {
            return;
        };
        let error = pull(&target, &options, place.path()).unwrap_err();
        assert_eq!(
            error,
            format!("cannot pull {target}: docker-credential-{name} does not answer: {told}")
        );
    }
}

/// A program on the path, under a name that is nobody else's; it has the host in `$host`.
struct Helper(PathBuf);

impl Helper {
    /// `None` where this may not be done.
    fn install(name: &str, script: &str) -> Option<Helper> {
        let path = Path::new("/usr/local/bin").join(format!("docker-credential-{name}"));
        // Under another name first: a program that is written to cannot be started.
        let fresh = path.with_extension("new");
        if fs::write(&fresh, format!("#!/bin/sh\nread host\n{script}\n")).is_err() {
            eprintln!("skipped: needs root");
            return None;
        }
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&fresh, &path).unwrap();
        Some(Helper(path))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An authority in `ca.crt`, and a certificate of it for a registry on this machine.
fn certificates(place: &Path) {
    let script = "exec 2>/dev/null
        key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $key -keyout ca.key -out ca.crt -subj '/CN=an authority' -days 2 &&
        openssl req $key -keyout host.key -out host.csr -subj /CN=registry &&
        echo subjectAltName=IP:127.0.0.1 >names &&
        openssl x509 -req -in host.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out host.crt";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(place)
        .status();
    assert!(made.unwrap().success(), "openssl makes no certificate");
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let place = tempfile::tempdir().unwrap();
    certificates(place.path());
    let (authority, other) = (place.path().join("ca.crt"), place.path().join("other"));
    fs::create_dir(&other).unwrap();
    certificates(&other);
    let Some(registry) = Registry::start_with(place, false, true) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let image = noise_image(scratch.path(), 1000, "amd64");
    let target = registry.reference("acme/backend:v1");
    let push = |options: &Options| image.push(&target, None, options, &Silent);
    // Nowhere, by an authority that is another, and for another host.
    let elsewhere = scratch.path().join("certs.d");
    fs::create_dir_all(elsewhere.join("127.0.0.1")).unwrap();
    fs::copy(&authority, elsewhere.join("127.0.0.1/ca.crt")).unwrap();
    for options in [
        Options::default(),
        Options {
            authority: Some(other.join("ca.crt")),
            ..Options::default()
        },
        Options {
            certificates: elsewhere.clone(),
            ..Options::default()
        },
    ] {
        let begin = Instant::now();
        let error = push(&options).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!(
                "cannot push {target}: the certificate of {} is not trusted: ",
                registry.host
            )),
            "{error}"
        );
        assert_eq!(
            error.hint().unwrap(),
            format!(
                "name the certificate of its authority in TIFFIN_REGISTRY_CA, or put it into /etc/docker/certs.d/{}/ca.crt",
                registry.host
            )
        );
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "it was tried again"
        );
    }
    // Where it is named: for all registries, or for this one.
    let named = Options {
        authority: Some(authority.clone()),
        ..Options::default()
    };
    assert_eq!(push(&named).unwrap().sent, 2);
    let of_host = elsewhere.join(&registry.host);
    fs::create_dir(&of_host).unwrap();
    // Not of that ending: Docker reads no such file either.
    fs::copy(&authority, of_host.join("ca.pem")).unwrap();
    let options = Options {
        certificates: elsewhere,
        ..Options::default()
    };
    push(&options).unwrap_err();
    fs::copy(&authority, of_host.join("ca.crt")).unwrap();
    pull(&target, &options, &scratch.path().join("pulled")).unwrap();

    let wrong = scratch.path().join("empty.pem");
    fs::write(&wrong, "not a certificate\n").unwrap();
    let error = push(&Options {
        authority: Some(wrong.clone()),
        ..Options::default()
    });
    assert_eq!(
        error.unwrap_err().to_string(),
        format!(
            "cannot push {target}: {}: it holds no certificate",
            wrong.display()
        )
    );
}

/// An image of one layer of bytes that do not compress.
fn noise_image(place: &Path, length: usize, architecture: &str) -> Image {
    let mut seed = 88_172_645_463_325_252u64 ^ length as u64;
    let noise = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    });
    let entry = Entry {
        path: "noise".into(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        content: Content::File(noise.take(length).collect()),
    };
    let blobs = place.join(format!("blobs-{architecture}"));
    let layer = layer_from_entries(&[entry], &blobs, 0, Packing::Gzip).unwrap();
    let config = Config {
        architecture: architecture.into(),
        os: "linux".into(),
        ..Config::default()
    };
    let path = place.join(format!("{architecture}.tar"));
    let names = ["acme/backend:v1".to_owned()];
    write_archive(&path, &names, &config, &[layer], &Silent).unwrap();
    let platform = Platform {
        architecture: architecture.into(),
        os: "linux".into(),
    };
    Image::open(&path, Format::Any, &platform, place).unwrap()
}

/// What a client of its own would not send: status and body of the answer.
fn put(host: &str, path: &str, media_type: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_platform_is_chosen_from_an_index() {
    let Some(registry) = Registry::start(false) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let options = Options::default();
    let mut list = Vec::new();
    let mut images = HashMap::new();
    for (length, architecture) in [(1000, "arm64"), (2000, "amd64")] {
        let image = noise_image(place.path(), length, architecture);
        let target = registry.reference(&format!("acme/backend:{architecture}"));
        let pushed = image.push(&target, None, &options, &Silent).unwrap();
        let manifest = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": pushed.manifest_digest,
            "size": fs_size(&registry, &pushed.manifest_digest),
            "platform": {"architecture": architecture, "os": "linux", "variant": "v8"},
        });
        list.push(manifest);
        images.insert(architecture, image);
    }
    // As buildx adds it: an attestation is for no platform.
    let mut attestation = list[0].clone();
    attestation["platform"] = serde_json::json!({"architecture": "unknown", "os": "unknown"});
    list.insert(0, attestation);
    for (tag, kind) in [
        ("oci", "application/vnd.oci.image.index.v1+json"),
        (
            "docker",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ),
    ] {
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": list});
        let path = format!("/v2/acme/backend/manifests/{tag}");
        let answer = put(&registry.host, &path, kind, index.to_string().as_bytes());
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        let digest = format!("sha256:{}", hex(index.to_string().as_bytes()));
        for name in [
            format!("acme/backend:{tag}"),
            format!("acme/backend@{digest}"),
        ] {
            let from = registry.reference(&name);
            for (architecture, image) in &images {
                let platform = Platform {
                    architecture: (*architecture).into(),
                    os: "linux".into(),
                };
                let found = Remote::find(&from, &platform, &options).unwrap();
                assert_eq!(found.config_digest, image.config_digest);
                assert_eq!(Some(&found.manifest_digest), image.manifest_digest.as_ref());
                let blobs = place.path().join(format!("{tag}-{architecture}"));
                let fetched = found.fetch(&blobs, &Silent).unwrap();
                assert_eq!(fetched.layers[0].diff_id, image.layers[0].diff_id);
            }
            let other = Platform {
                architecture: "riscv64".into(),
                os: "linux".into(),
            };
            let told = Remote::find(&from, &other, &options).err().unwrap();
            assert_eq!(
                told.to_string(),
                format!(
                    "cannot pull {from}: it is for linux/amd64, linux/arm64, not for linux/riscv64"
                )
            );
        }
    }
    // An image without an index, for another machine.
    let told = pull(
        &registry.reference("acme/backend:arm64"),
        &options,
        place.path(),
    );
    assert!(
        told.unwrap_err()
            .ends_with("it is for linux/arm64, not for linux/amd64")
    );
}

/// Bytes of a blob where the registry keeps it.
fn fs_size(registry: &Registry, digest: &str) -> u64 {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let data = format!(
        "data/docker/registry/v2/blobs/sha256/{}/{hex}/data",
        &hex[..2]
    );
    fs::metadata(registry.place.path().join(data))
        .unwrap()
        .len()
}

/// What goes wrong with a part of an upload that a client sends.
#[derive(Clone, Copy)]
enum Fault {
    /// So many bytes of it arrive, then the connection ends.
    Cut(usize),
    /// All of it arrives, then the connection ends.
    Unanswered,
    Busy,
    TooMany,
    /// The token is good no longer.
    Expired,
    /// The registry was started anew.
    Forgotten,
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
    /// What an identity token is exchanged for, instead of a password.
    identity: bool,
    /// Tokens are good until this grows.
    age: usize,
    log: Vec<String>,
    /// What was uploaded so far, by path.
    uploads: HashMap<String, Vec<u8>>,
    /// For the next parts of uploads, in turn.
    faults: VecDeque<Fault>,
    /// For the next ends of uploads.
    unanswered: usize,
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

    fn logged(&self, text: &str) -> Vec<&String> {
        self.log.iter().filter(|line| line.contains(text)).collect()
    }

    /// An answer to something about uploads: status, headers and whether there is one at all.
    fn upload(
        &mut self,
        (method, path): (&str, &str),
        headers: &HashMap<String, String>,
        body: &mut dyn Read,
    ) -> std::io::Result<Option<(&'static str, String)>> {
        let length = headers
            .get("content-length")
            .map_or(0, |text| text.parse().unwrap());
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let state = |path: &str, have: usize| {
            format!("Location: {path}\r\nRange: 0-{}\r\n", have.max(1) - 1)
        };
        if method == "POST" {
            let path = format!("{path}{}", self.log.len());
            self.uploads.insert(path.clone(), Vec::new());
            return Ok(Some(("202 Accepted", state(&path, 0))));
        }
        let fault = match method {
            "PATCH" => self.faults.pop_front(),
            _ => None,
        };
        let taken = match fault {
            Some(Fault::Cut(bytes)) => length.min(bytes),
            _ => length,
        };
        let mut part = vec![0; taken];
        body.read_exact(&mut part)?;
        match fault {
            Some(Fault::Busy) => return Ok(Some(("503 Service Unavailable", String::new()))),
            Some(Fault::TooMany) => {
                return Ok(Some(("429 Too Many Requests", "Retry-After: 1\r\n".into())));
            }
            Some(Fault::Expired) => {
                self.age += 1;
                return Ok(Some(("401 Unauthorized", String::new())));
            }
            Some(Fault::Forgotten) => self.uploads.clear(),
            _ => {}
        }
        let Some(have) = self.uploads.get_mut(path) else {
            return Ok(Some(("404 Not Found", String::new())));
        };
        if method == "GET" {
            return Ok(Some(("204 No Content", state(path, have.len()))));
        }
        if method == "PUT" {
            let wanted = query.trim_start_matches("digest=").replace("%3A", ":");
            if format!("sha256:{}", hex(have)) != wanted {
                return Ok(Some(("400 Bad Request", String::new())));
            }
            let content = self.uploads.remove(path).unwrap();
            self.files
                .insert(format!("/v2/a/b/blobs/{wanted}"), content);
            let silent = self.unanswered > 0;
            self.unanswered -= usize::from(silent);
            return Ok((!silent).then(|| ("201 Created", String::new())));
        }
        if !headers["content-range"].starts_with(&format!("{}-", have.len())) {
            return Ok(Some(("416 Range Not Satisfiable", String::new())));
        }
        have.extend(part);
        let answer = ("202 Accepted", state(path, have.len()));
        Ok(match fault {
            Some(Fault::Cut(_) | Fault::Unanswered) => None,
            _ => Some(answer),
        })
    }
}

fn answer(mut stream: TcpStream, fake: &Mutex<Fake>, host: &str) -> std::io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(key.to_lowercase(), value.to_owned());
    }
    let mut fake = fake.lock().unwrap();
    let range = headers
        .get("range")
        .or(headers.get("content-range"))
        .cloned()
        .unwrap_or_default();
    let shown = format!("{method} {path} {range}");
    fake.log
        .push(shown.trim_start_matches("GET ").trim().to_owned());
    let mut reply = |status: &str, more: &str, body: &[u8], sent: usize| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
        )?;
        stream.write_all(&body[..sent])
    };
    let authorization = headers.get("authorization").map_or("", String::as_str);
    let good = format!("sesame{}", fake.age);
    let token = format!("{{\"access_token\": \"{good}\"}}");
    if path == "/token" && fake.identity {
        let mut form = vec![0; headers["content-length"].parse().unwrap()];
        from.read_exact(&mut form)?;
        let form = String::from_utf8(form).unwrap();
        let granted = form.contains("grant_type=refresh_token")
            && form.contains("refresh_token=identity%2F9")
            && form.contains("scope=repository%3Aa%2Fb%3Apull");
        return match granted {
            true => reply("200 OK", "", token.as_bytes(), token.len()),
            false => reply("401 Unauthorized", "", b"", 0),
        };
    }
    if path.starts_with("/token") {
        // base64 of customer:let-me-in
        return match authorization == "Basic Y3VzdG9tZXI6bGV0LW1lLWlu"
            && path.contains("scope=repository%3Aa%2Fb%3Apull")
        {
            true => reply("200 OK", "", token.as_bytes(), token.len()),
            false => reply("401 Unauthorized", "", b"", 0),
        };
    }
    if fake.busy > 0 {
        fake.busy -= 1;
        return reply("503 Service Unavailable", "", b"", 0);
    }
    if fake.tokens && authorization != format!("Bearer {good}") {
        let ask = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"x\",scope=\"y\"\r\n"
        );
        return reply("401 Unauthorized", &ask, b"", 0);
    }
    if path.contains("/blobs/uploads/") {
        return match fake.upload((&method, &path), &headers, &mut from)? {
            Some((status, more)) => reply(status, &more, b"", 0),
            None => Ok(()),
        };
    }
    if method == "PUT" {
        let mut manifest = vec![0; headers["content-length"].parse().unwrap()];
        from.read_exact(&mut manifest)?;
        fake.files.insert(path, manifest);
        return reply("201 Created", "", b"", 0);
    }
    let Some(body) = fake.files.get(&path) else {
        return reply("404 Not Found", "", b"", 0);
    };
    if method == "HEAD" {
        return reply("200 OK", "", body, 0);
    }
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

#[test]
fn an_identity_token_of_a_helper_is_exchanged() {
    let (mut served, blob, digest) = fake();
    (served.tokens, served.identity) = (true, true);
    let (host, fake) = served.serve();
    let name = format!("tiffin-token-{}", std::process::id());
    let answer = "echo '{\"Username\":\"<token>\",\"Secret\":\"identity/9\"}'";
    let Some(_helper) = Helper::install(&name, answer) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let from: Reference = format!("{host}/a/b:v1").parse().unwrap();
    let configs = [
        serde_json::json!({"credsStore": &name}),
        // As `docker login` writes it where no helper is.
        serde_json::json!({"auths": {&host: {"auth": "MDAwOg==", "identitytoken": "identity/9"}}}),
    ];
    for (index, config) in configs.iter().enumerate() {
        fs::write(place.path().join("config.json"), config.to_string()).unwrap();
        let options = Options {
            docker_config: Some(place.path().to_owned()),
            plain: vec![host.clone()],
            ..Options::default()
        };
        let blobs = place.path().join(index.to_string());
        pull(&from, &options, &blobs).unwrap();
        let stored = blobs.join(digest.trim_start_matches("sha256:"));
        assert_eq!(fs::read(&stored).unwrap(), blob);
        let asked = fake.lock().unwrap().logged("POST /token").len();
        assert_eq!(asked, index + 1, "one token serves the whole pull");
    }
    let other = serde_json::json!({"auths": {&host: {"identitytoken": "canary9"}}});
    fs::write(place.path().join("config.json"), other.to_string()).unwrap();
    let options = Options {
        docker_config: Some(place.path().to_owned()),
        plain: vec![host.clone()],
        ..Options::default()
    };
    let told = pull(&from, &options, place.path()).unwrap_err();
    assert_eq!(
        told,
        format!("cannot pull {from}: {host} refuses the credentials: 401 Unauthorized")
    );
}

/// 10 MB in parts of 8 MiB, and all that can happen to one on its way.
#[test]
fn an_upload_that_breaks_is_continued() {
    let place = tempfile::tempdir().unwrap();
    let image = noise_image(place.path(), 10_000_000, "amd64");
    let layer = image.layers[0].digest.clone().unwrap();
    let size = image.layers[0].size() as usize;
    let push = |fake: Fake| {
        let (host, fake) = fake.serve();
        let target: Reference = format!("{host}/a/b:v2").parse().unwrap();
        let options = customer(place.path(), &host);
        let done = image.push(&target, None, &options, &Silent);
        (
            target,
            options,
            fake,
            done.map_err(|error| error.to_string()),
        )
    };
    let faults = [
        Fault::Cut(3_000_000),
        Fault::Busy,
        Fault::Unanswered,
        Fault::TooMany,
        Fault::Expired,
    ];
    let (target, options, fake, done) = push(Fake {
        tokens: true,
        busy: 1,
        unanswered: 1,
        faults: faults.into(),
        ..Fake::default()
    });
    assert_eq!(done.unwrap().sent, 2);
    {
        let fake = fake.lock().unwrap();
        let parts: Vec<String> = fake
            .logged("PATCH ")
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().to_owned())
            .collect();
        let range = |from: usize, to: usize| format!("{from}-{}", to.min(size) - 1);
        let second = 3_000_000 + (8 << 20);
        let config = format!("0-{}", image.config.len() - 1);
        assert_eq!(
            parts,
            [
                range(0, 8 << 20),
                // What arrived is not sent again.
                range(3_000_000, second),
                range(3_000_000, second),
                // The last part had arrived whole when the connection ended.
                config.clone(),
                config.clone(),
                config,
            ]
        );
        assert_eq!(fake.logged("/token").len(), 2, "one expired");
        assert!(fake.logged("/token")[0].contains("pull%2Cpush"));
        assert_eq!(fake.logged("POST ").len(), 2, "each blob was begun once");
    }
    let blobs = place.path().join("pulled");
    let pulled = pull(&target, &options, &blobs).unwrap();
    assert_eq!(pulled.config_digest, image.config_digest);
    assert_eq!(pulled.manifest_digest, image.manifest_digest);

    // A registry that forgot the upload gets it from the start.
    let (_, _, fake, done) = push(Fake {
        faults: [Fault::Cut(0), Fault::Cut(5000), Fault::Forgotten].into(),
        ..Fake::default()
    });
    assert_eq!(done.unwrap().sent, 2);
    let fake = fake.lock().unwrap();
    let name = format!("/v2/a/b/blobs/{layer}");
    assert_eq!(fake.files[&name].len(), size);
    assert_eq!(fake.logged("POST ").len(), 3);
    drop(fake);

    // It ends when nothing comes through again and again.
    let (target, _, fake, done) = push(Fake {
        faults: [Fault::Busy; 9].into(),
        ..Fake::default()
    });
    let told = done.unwrap_err();
    let host = target.registry().unwrap();
    assert_eq!(
        told,
        format!("cannot push {target}: {host} fails at upload: 503 Service Unavailable")
    );
    assert_eq!(fake.lock().unwrap().logged("PATCH ").len(), 5);
    assert!(fake.lock().unwrap().logged("manifests").is_empty());
}
