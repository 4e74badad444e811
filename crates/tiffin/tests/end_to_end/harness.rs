//! Commands that explain themselves when they fail, and containers that end with their test.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

pub const MONITORING: &str = "acme-monitoring";

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run these tests through `make test-e2e`"))
}

/// The image that all tests share.
pub fn image() -> String {
    variable("TIFFIN_TEST_IMAGE")
}

/// Its archive, with its checksum beside it.
pub fn archive() -> PathBuf {
    variable("TIFFIN_TEST_ARCHIVE").into()
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The release build, which finds its entrypoint beside itself.
pub fn tiffin() -> PathBuf {
    variable("TIFFIN_TEST_PROGRAM").into()
}

/// Puts a current ansible-core first on a build's PATH, with the collections of Debian's
/// package; answers `false` where `ci/setup test` has not installed it.
pub fn with_current_ansible(command: &mut Command) -> bool {
    let bin = Path::new(&variable("TIFFIN_TEST_TOOLS")).join("ansible-core/bin");
    if !bin.join("ansible-playbook").exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have a current ansible-core: ci/setup test installs it"
        );
        eprintln!("skipped: no current ansible-core is installed");
        return false;
    }
    let old = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(bin).chain(std::env::split_paths(&old));
    command
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("ANSIBLE_COLLECTIONS_PATH", "/usr/lib/python3/dist-packages");
    true
}

pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"))
}

pub fn told(command: &Command, out: &Output) -> String {
    format!(
        "command: {command:?}\nstatus: {}\nstdout:\n{}\nstderr:\n{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

/// Standard output of a command that must succeed.
pub fn must(command: &mut Command) -> String {
    let out = output(command);
    assert!(out.status.success(), "{}", told(command, &out));
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// Both streams of a command that must end with this code.
pub fn must_fail(command: &mut Command, code: i32) -> String {
    let out = output(command);
    assert_eq!(out.status.code(), Some(code), "{}", told(command, &out));
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

pub fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments);
    command
}

/// A name that no other test and no other run has.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "tiffin-test-{what}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

pub struct Container {
    pub name: String,
}

impl Container {
    /// `docker run -d` of the shared image, its port 80 on a free port of loopback.
    pub fn run(flags: &[&str]) -> Container {
        Container::of(&image(), flags)
    }

    /// The same of another image.
    pub fn of(image: &str, flags: &[&str]) -> Container {
        let name = unique("box");
        let mut command = docker(&["run", "-d", "--name", &name, "-p", "127.0.0.1::80"]);
        command.args(flags).arg(image);
        let container = Container { name };
        must(&mut command);
        container
    }

    pub fn url(&self) -> String {
        let address = must(&mut docker(&["port", &self.name, "80/tcp"]));
        format!("http://{}", address.lines().next().unwrap())
    }

    pub fn exec(&self, arguments: &[&str]) -> Command {
        let mut command = docker(&["exec", &self.name]);
        command.args(arguments);
        command
    }

    pub fn logs(&self) -> String {
        let out = output(&mut docker(&["logs", &self.name]));
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }

    /// The code with which the container ended.
    pub fn wait(&self, at_most: Duration) -> i32 {
        let ended = || {
            must(&mut docker(&[
                "inspect",
                "-f",
                "{{.State.Running}}",
                &self.name,
            ])) == "false"
        };
        assert!(
            within(at_most, ended),
            "{} still runs after {at_most:?}:\n{}",
            self.name,
            self.logs()
        );
        must(&mut docker(&[
            "inspect",
            "-f",
            "{{.State.ExitCode}}",
            &self.name,
        ]))
        .parse()
        .unwrap()
    }

    /// Waits until all services are ready.
    pub fn until_healthy(&self) {
        let ready = || {
            output(&mut self.exec(&["tiffin", "health"]))
                .status
                .success()
        };
        assert!(within(Duration::from_secs(120), ready), "{}", self.logs());
    }

    /// Waits until the box answers its monitoring, then does the report round trip; answers
    /// the report's id.
    pub fn round_trip(&self) -> String {
        self.round_trip_with_mail("")
    }

    /// The same, and the report goes to a mail address too.
    pub fn round_trip_with_mail(&self, address: &str) -> String {
        let mut command = Command::new("sh");
        command
            .arg(repository().join("examples/reference/smoke.sh"))
            .args([&self.url(), MONITORING]);
        command
            .env("SMOKE_TIMEOUT", "120")
            .env("SMOKE_MAIL", address);
        let out = output(&mut command);
        assert!(
            out.status.success(),
            "{}\nlogs of the box:\n{}",
            told(&command, &out),
            self.logs()
        );
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Status code and body of a GET as the monitoring; code 0 while nobody answers.
    pub fn get(&self, path: &str) -> (u16, String) {
        let url = self.url() + path;
        let mut curl = Command::new("curl");
        let out = output(curl.args([
            "-sS",
            "--max-time",
            "20",
            "-A",
            MONITORING,
            "-w",
            "\n%{http_code}",
            &url,
        ]));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or(("", "0"));
        (code.parse().unwrap_or(0), body.to_owned())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "-f", "-v", &self.name]).output();
    }
}

/// The reference stack's sources, to be changed. With the history, by which files get their dates.
pub fn copy_of_sources() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["playbooks", "examples", ".git"] {
        let from = repository().join(name);
        if from.exists() {
            must(Command::new("cp").arg("-a").arg(from).arg(dir.path()));
        }
    }
    dir
}

/// The box's services on a Swarm, whichever engine is asked.
pub trait Stack {
    fn name(&self) -> &str;

    fn docker(&self, words: &[&str]) -> Command;

    fn service(&self, role: &str) -> String {
        format!("{}_backend-{role}", self.name())
    }

    /// The file is what `manifest swarm` wrote, but for its network: it is that of the databases. Its
    /// ports would be the machine's.
    fn deploy(&self, manifest: &str, network: &str) {
        let networks = format!("\nnetworks:\n  default: {{external: true, name: {network}}}\n");
        let text = manifest
            .replace("published: 80, ", "")
            .replace("published: 443, ", "");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stack.yaml"), text + &networks).unwrap();
        let mut deploy = self.docker(&["stack", "deploy", "--resolve-image", "never"]);
        deploy.args(["--compose-file", "stack.yaml", self.name()]);
        must(deploy.current_dir(dir.path()));
    }

    fn update(&self, role: &str) {
        let mut update = self.docker(&["service", "update", "--force", "--detach=false"]);
        must(update.args(["--quiet", &self.service(role)]));
    }

    fn scale(&self, role: &str, number: u32) {
        let wanted = format!("{}={number}", self.service(role));
        must(&mut self.docker(&["service", "scale", "--detach=false", &wanted]));
    }

    fn replicas(&self, role: &str) -> String {
        let filter = format!("name={}", self.service(role));
        let mut list = self.docker(&["service", "ls", "--filter", &filter]);
        must(list.args(["--format", "{{.Replicas}}"]))
    }

    /// Waits until as many run as there are to be: `2/2`.
    #[track_caller]
    fn until(&self, role: &str, replicas: &str, at_most: u64) {
        let is_so = || self.replicas(role) == replicas;
        if !within(Duration::from_secs(at_most), is_so) {
            let service = self.service(role);
            let tasks = must(&mut self.docker(&["service", "ps", "--no-trunc", &service]));
            panic!(
                "{role} is {} after {at_most} s, not {replicas}:\n{tasks}",
                self.replicas(role)
            );
        }
    }
}

/// An image that a test gave to the engine, and takes away again.
pub struct Loaded {
    pub image: String,
}

impl Loaded {
    pub fn new(archive: &Path, image: &str) -> Loaded {
        let image = image.to_owned();
        let loaded = Loaded { image };
        must(docker(&["load", "--quiet", "--input"]).arg(archive));
        loaded
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = docker(&["image", "rm", "-f", &self.image]).output();
    }
}

pub struct Volume {
    pub name: String,
}

impl Volume {
    pub fn new() -> Volume {
        let name = unique("data");
        must(&mut docker(&["volume", "create", &name]));
        Volume { name }
    }

    pub fn flag(&self) -> String {
        format!("{}:/data", self.name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = docker(&["volume", "rm", "-f", &self.name]).output();
    }
}

/// A network of a test's own.
pub struct Network {
    pub name: String,
}

impl Network {
    pub fn new() -> Network {
        let name = unique("net");
        must(&mut docker(&["network", "create", &name]));
        Network { name }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = docker(&["network", "rm", &self.name]).output();
    }
}

pub fn within(at_most: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + at_most;
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_millis(200));
    }
}

/// MongoDB and Redis as a customer has them: on a machine of their own, with passwords.
pub struct Databases {
    pub container: Container,
}

impl Databases {
    pub const PASSWORD: &str = "external:/pass?word";

    /// What starts them in the same image, which has the servers; nothing of Tiffin does.
    pub fn script() -> String {
        Self::script_with("", "", "--port 6380")
    }

    fn script_with(client: &str, mongod: &str, redis: &str) -> String {
        let password = Self::PASSWORD;
        let user = format!(
            "import pymongo; pymongo.MongoClient({client})['reports'].command('createUser', 'app', pwd='{password}', roles=['readWrite'])"
        );
        format!(
            "mkdir /tmp/db && /opt/mongodb/bin/mongod --bind_ip_all --dbpath /tmp/db --fork --logpath /tmp/mongod.log {mongod} \
             && /opt/mongodb/venv/bin/python -c \"{user}\" \
             && exec redis-server --bind 0.0.0.0 {redis} --requirepass '{password}'"
        )
    }

    pub fn new(network: &str) -> Databases {
        Self::start(&["--network", network], &Self::script(), &[])
    }

    /// They speak TLS alone, with the `server.pem` and `server.key` of that folder, and are reached
    /// by that name.
    pub fn with_tls(network: &str, name: &str, folder: &Path) -> Databases {
        let mount = format!("{}:/tls:ro", folder.display());
        let flags = ["--network", network, "--network-alias", name, "-v", &mount];
        let script = Self::script_with(
            "tls=True, tlsInsecure=True",
            "--tlsMode requireTLS --tlsCertificateKeyFile /tmp/pem",
            "--port 0 --tls-port 6380 --tls-cert-file /tls/server.pem --tls-key-file /tls/server.key --tls-auth-clients no \
             --tls-ca-cert-file /tls/server.pem",
        );
        let script = format!("cat /tls/server.pem /tls/server.key >/tmp/pem && {script}");
        Self::start(&flags, &script, &["--tls", "--insecure"])
    }

    fn start(flags: &[&str], script: &str, client: &[&str]) -> Databases {
        let password = Self::PASSWORD;
        let container = Container {
            name: unique("databases"),
        };
        let image = image();
        let mut command = docker(&["run", "-d", "--name", &container.name]);
        command.args(flags).args(["--entrypoint", "/bin/sh"]);
        must(command.args([&image, "-c", script]));
        let answers = || {
            let ping = ["redis-cli", "-p", "6380", "-a", password];
            output(&mut container.exec(&[&ping, client, &["ping"]].concat()))
                .stdout
                .starts_with(b"PONG")
        };
        assert!(
            within(Duration::from_secs(90), answers),
            "{}",
            container.logs()
        );
        Databases { container }
    }

    /// The settings with which a box uses them, but for the passwords.
    pub fn settings(&self) -> Vec<String> {
        Self::settings_of(&self.container.name)
    }

    pub fn settings_of(host: &str) -> Vec<String> {
        [
            ("MONGODB_HOST", host),
            ("MONGODB_DATABASE", "reports"),
            ("MONGODB_USER", "app"),
            ("REDIS_HOST", host),
            ("REDIS_PORT", "6380"),
        ]
        .iter()
        .flat_map(|(name, value)| ["-e".to_owned(), format!("{name}={value}")])
        .collect()
    }

    /// All of them.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = self.settings();
        for name in ["MONGODB_PASSWORD", "REDIS_PASSWORD"] {
            flags.extend(["-e".to_owned(), format!("{name}={}", Self::PASSWORD)]);
        }
        flags
    }
}
