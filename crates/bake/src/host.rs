//! What of the build machine serves the build and must not reach a layer: the resolver,
//! proxies, CA certificates and the package managers' settings.
//!
//! All of it is shown to the sandbox under `/run/tiffin`, a file system that ends with the
//! sandbox, and found there through environment variables that the tools document.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    base::System,
    clean,
    error::{Error, Result},
    sandbox::Sandbox,
};

/// The stand-ins of systemctl and its kin come first.
const PATH: &str = "/run/tiffin/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the host's bundle of certificates may lie (Debian's path, then Red Hat's).
const CA_BUNDLES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];
/// Variables by which common tools find a bundle: OpenSSL, requests, curl, pip, git, node.
const CA_VARIABLES: [&str; 6] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
];
const PROXY_VARIABLES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
];
/// apt's settings of the host that the box's apt needs too.
const APT_SETTINGS: [&str; 3] = [
    "Acquire::http",
    "Acquire::https",
    "Acquire::Check-Valid-Until",
];

/// How old apt's package lists may be at the beginning of a layer.
const FRESH: Duration = Duration::from_secs(3600);

/// One line of apt's sources, in its one-line format.
pub fn apt_sources(suite: &str) -> String {
    let mut files: Vec<PathBuf> = vec!["/etc/apt/sources.list".into()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|e| e.path()));
    }
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => lines.extend(one_line_sources(&text, suite)),
            Some("sources") => lines.extend(deb822_sources(&text, suite)),
            _ => {}
        }
    }
    lines.dedup();
    lines.join("\n") + "\n"
}

/// A suite of the release itself: `bookworm`, `bookworm-updates`, `bookworm-security`.
fn belongs(candidate: &str, suite: &str) -> bool {
    candidate.split('/').next().is_some_and(|name| {
        name.strip_prefix(suite)
            .is_some_and(|rest| ["", "-updates", "-security"].contains(&rest))
    })
}

fn one_line_sources(text: &str, suite: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("deb "))
        .filter(|line| {
            let rest = line["deb ".len()..].trim_start();
            let rest = rest
                .strip_prefix('[')
                .and_then(|r| r.split_once(']'))
                .map_or(rest, |(_, r)| r);
            rest.split_whitespace()
                .nth(1)
                .is_some_and(|s| belongs(s, suite))
        })
        .map(str::to_owned)
        .collect()
}

fn deb822_sources(text: &str, suite: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for stanza in text.split("\n\n") {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        for line in stanza
            .lines()
            .filter(|l| !l.starts_with('#') && !l.starts_with(' '))
        {
            if let Some((key, value)) = line.split_once(':') {
                fields.insert(key.trim().to_lowercase(), value.trim().to_owned());
            }
        }
        let get = |key: &str| fields.get(key).map(String::as_str).unwrap_or_default();
        if !get("types").split_whitespace().any(|t| t == "deb")
            || get("enabled").eq_ignore_ascii_case("no")
        {
            continue;
        }
        let signed = match get("signed-by") {
            path if path.starts_with('/') => format!("[signed-by={path}] "),
            _ => String::new(),
        };
        for uri in get("uris").split_whitespace() {
            for name in get("suites")
                .split_whitespace()
                .filter(|s| belongs(s, suite))
            {
                lines.push(format!("deb {signed}{uri} {name} {}", get("components")));
            }
        }
    }
    lines
}

/// The service that the host does to a sandbox: files under `dir` and variables for its commands.
pub struct Host {
    pub binds: Vec<(PathBuf, PathBuf)>,
    pub environment: BTreeMap<String, String>,
    /// Packages that all builds share, and those of this one.
    kept: PathBuf,
    archives: PathBuf,
    /// apt's package lists, of the release alone.
    lists: PathBuf,
    /// What pip says it did, the answers of servers that it keeps, and what it had as files.
    pip_log: PathBuf,
    pip: PathBuf,
    wheels: PathBuf,
    offline: bool,
    /// Bytes of packages, answers and files that were there before this layer.
    had: [u64; 3],
}

/// What is kept of packages between builds, and whether there is anything else.
pub struct Packages<'a> {
    /// Downloads of earlier builds.
    pub cache: &'a Path,
    /// No network: what is not in the cache is not there.
    pub offline: bool,
}

/// Makes files of what pip has fetched (`assets/wheels.py`), and apt's method for indexes
/// that cannot be fetched.
const WHEELS: &str = include_str!("../assets/wheels.py");
const APT_OFFLINE: &str = include_str!("../assets/apt-offline");

impl Host {
    /// Prepares `dir`, shown as `/run/tiffin`.
    pub fn prepare(dir: &Path, packages: &Packages, system: &System, epoch: u64) -> Result<Host> {
        let suite = &system.suite;
        let Packages { cache, offline } = *packages;
        let make = |path: &Path| fs::create_dir_all(path).map_err(Error::io("make", path));
        let mut environment = BTreeMap::new();
        let mut set = |key: &str, value: &str| environment.insert(key.to_owned(), value.to_owned());
        set("PATH", PATH);
        set("HOME", "/root");
        set("USER", "root");
        set("LOGNAME", "root");
        set("SHELL", "/bin/sh");
        set("LANG", "C.UTF-8");
        set("DEBIAN_FRONTEND", "noninteractive");
        for (key, value, _) in clean::TOLD {
            set(key, value.unwrap_or(&epoch.to_string()));
        }
        set("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        set("PIP_ROOT_USER_ACTION", "ignore");
        set("PIP_CACHE_DIR", "/run/tiffin/cache/pip");
        set("APT_CONFIG", "/run/tiffin/apt/apt.conf");
        set("TIFFIN_STATE", "/run/tiffin/state");
        for key in PROXY_VARIABLES {
            if let Ok(value) = std::env::var(key) {
                set(key, &value);
            }
        }
        if offline {
            set("PIP_NO_INDEX", "1");
            set("PIP_FIND_LINKS", "/run/tiffin/cache/wheels");
        } else {
            set("PIP_LOG", "/run/tiffin/state/pip.log");
            for (key, value) in pip_settings() {
                set(&key, &value);
            }
        }

        for sub in ["apt", "state", "bin"] {
            make(&dir.join(sub))?;
        }
        // A build's own, by other names of the same files: apt locks the directory.
        let (kept, archives) = (cache.join("apt"), dir.with_file_name("archives"));
        make(&kept)?;
        make(&archives.join("partial"))?;
        share(&kept, &archives, false)?;
        let (pip, wheels) = (cache.join("pip"), cache.join("wheels"));
        make(&pip)?;
        make(&wheels)?;
        let mut binds = vec![
            (dir.to_owned(), PathBuf::from("/run/tiffin")),
            (archives.clone(), "/run/tiffin/cache/apt".into()),
            (pip.clone(), "/run/tiffin/cache/pip".into()),
            (wheels.clone(), "/run/tiffin/cache/wheels".into()),
        ];
        let lists = cache.join("lists").join(&system.lists);
        make(&lists.join("partial"))?;
        binds.push((lists.clone(), "/var/lib/apt/lists".into()));
        make(&dir.join("cache/apt"))?;
        make(&dir.join("cache/pip"))?;
        make(&dir.join("cache/wheels"))?;
        let bundle = std::env::var("SSL_CERT_FILE")
            .ok()
            .into_iter()
            .chain(CA_BUNDLES.map(str::to_owned));
        if let Some(bundle) = bundle.map(PathBuf::from).find(|p| p.is_file()) {
            let copy = dir.join("ca-certificates.crt");
            copy_file(&bundle, &copy)?;
            for key in CA_VARIABLES {
                set(key, "/run/tiffin/ca-certificates.crt");
            }
        }
        if Path::new("/etc/resolv.conf").exists() {
            binds.push(("/etc/resolv.conf".into(), "/etc/resolv.conf".into()));
        }
        let keys = Path::new("/usr/share/keyrings");
        if keys.is_dir() {
            copy_keys(keys, &dir.join("apt/keyrings"))?;
        }
        let sources = dir.join("apt/sources.list");
        let text = apt_sources(suite).replace("/usr/share/keyrings/", "/run/tiffin/apt/keyrings/");
        fs::write(&sources, text).map_err(Error::io("write", &sources))?;
        let conf = dir.join("apt/apt.conf");
        let mut text = apt_configuration(suite);
        if offline {
            let method = dir.join("apt/offline");
            fs::write(&method, APT_OFFLINE)
                .and_then(|()| fs::set_permissions(&method, fs::Permissions::from_mode(0o755)))
                .map_err(Error::io("write", &method))?;
            for access in ["http", "https", "ftp"] {
                text += &format!("Dir::Bin::Methods::{access} \"/run/tiffin/apt/offline\";\n");
            }
            // Indexes are as old as the build that fetched them.
            text += "Acquire::Check-Valid-Until \"false\";\n";
        }
        fs::write(&conf, text).map_err(Error::io("write", &conf))?;
        let had = [&archives, &pip, &wheels].map(|dir| bytes_below(dir));
        Ok(Host {
            binds,
            environment,
            kept,
            archives,
            lists,
            pip_log: dir.join("state/pip.log"),
            pip,
            wheels,
            offline,
            had,
        })
    }

    /// Bytes that apt and pip have fetched for this layer so far. What pip is told not to keep
    /// (`--no-cache-dir`) counts once [`Host::keep_wheels`] has made files of it.
    pub fn fetched(&self) -> u64 {
        let [apt, pip, wheels] = [&self.archives, &self.pip, &self.wheels].map(|d| bytes_below(d));
        let [had_apt, had_pip, had_wheels] = self.had;
        let of_pip = pip.saturating_sub(had_pip);
        apt.saturating_sub(had_apt) + of_pip.max(wheels.saturating_sub(had_wheels))
    }

    /// Leaves the packages that apt has fetched to later builds.
    pub fn keep_packages(&self) -> Result<()> {
        share(&self.archives, &self.kept, true)
    }

    /// Makes files of what pip has fetched for this layer, for builds without a network. The
    /// reason why not is the answer.
    pub fn keep_wheels(&self) -> Option<String> {
        if self.offline || !self.pip_log.is_file() {
            return None;
        }
        let out = Command::new("python3")
            .args(["-c", WHEELS])
            .args([&self.pip_log, &self.pip, &self.wheels])
            .output();
        match out {
            Ok(out) if out.status.success() => None,
            Ok(out) => Some(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
            Err(error) => Some(format!("cannot run python3: {error}")),
        }
    }

    /// Fetches apt's package lists unless they are fresh: on a host that Ansible manages
    /// they are there, and roles count on it. Without them (no network) a task that needs
    /// them says so itself; the reason is the answer.
    ///
    /// Lists are kept between builds, else a layer without packages would wait for them.
    pub fn fetch_lists(&self, sandbox: &Sandbox) -> Result<Option<String>> {
        if self.offline {
            return Ok(None);
        }
        // One build at a time; another one then finds them fresh.
        let path = self.lists.with_extension("lock");
        let lock = File::create(&path).map_err(Error::io("make", &path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", &path)(e.into()))?;
        let stamp = self.lists.with_extension("fetched");
        let age = fs::metadata(&stamp)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|then| then.elapsed().ok());
        if age.is_some_and(|age| age < FRESH) || sandbox.handle("/usr/bin/apt-get").is_err() {
            return Ok(None);
        }
        let mut command = sandbox.command(&self.environment, &["apt-get", "-qq", "update"]);
        let out = command.output().map_err(|source| Error::Spawn {
            program: "nsenter".into(),
            source,
        })?;
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        // apt-get ends with 0 and a warning when a server cannot be reached.
        if !out.status.success() || !said.is_empty() {
            return Ok(Some(said));
        }
        // Ansible's `cache_valid_time` asks how old the directory is.
        let now = SystemTime::now();
        File::open(&self.lists)
            .and_then(|dir| dir.set_modified(now))
            .map_err(Error::io("date", &self.lists))?;
        fs::write(&stamp, "").map_err(Error::io("write", &stamp))?;
        Ok(None)
    }
}

/// What cannot be read any more, since somebody else tidies up, counts as nothing.
pub fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, found)| match found.is_dir() {
            true => bytes_below(&path),
            false => found.len(),
        })
        .sum()
}

/// Gives the packages in one directory names in another too. apt moves a package to its name
/// when it is whole, and dates it as its server does; `dated` gives those that are new the
/// present as their time, by which they are pruned.
fn share(from: &Path, to: &Path, dated: bool) -> Result<()> {
    for entry in fs::read_dir(from)
        .map_err(Error::io("read", from))?
        .flatten()
    {
        let path = entry.path();
        if path.extension().is_none_or(|end| end != "deb") {
            continue;
        }
        match fs::hard_link(&path, to.join(entry.file_name())) {
            // A prune may have taken it meanwhile: it is fetched again.
            Err(e) if !matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                return Err(Error::io("link", &path)(e));
            }
            Ok(()) if dated => {
                let _ = File::open(&path).and_then(|deb| deb.set_modified(SystemTime::now()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// An error names the one of the two files that it is about.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).map_err(Error::io("read", from))?;
    fs::write(to, content).map_err(Error::io("write", to))
}

fn copy_keys(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io("make", to))?;
    for entry in fs::read_dir(from)
        .map_err(Error::io("read", from))?
        .flatten()
    {
        if entry.path().is_file() {
            copy_file(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// apt.conf(5): lists and archives are kept outside the root file system.
fn apt_configuration(suite: &str) -> String {
    // A system that is not Debian keeps its own sources.
    let mut text = match suite {
        "" => String::new(),
        _ => "Dir::Etc::sourcelist \"/run/tiffin/apt/sources.list\";\n".to_owned(),
    };
    text.push_str(
        "Dir::Cache::archives \"/run/tiffin/cache/apt\";\n\
         Dir::Cache::pkgcache \"\";\n\
         Dir::Cache::srcpkgcache \"\";\n\
         APT::Keep-Downloaded-Packages \"true\";\n\
         APT::Sandbox::User \"root\";\n\
         APT::Install-Recommends \"false\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::https::CAInfo \"/run/tiffin/ca-certificates.crt\";\n",
    );
    // apt gives dpkg a PATH of its own, and with it packages' scripts a systemctl that finds no
    // systemd: postgresql's ends then.
    text.push_str(&format!("DPkg::Path \"{PATH}\";\n"));
    let Ok(out) = Command::new("apt-config").arg("dump").output() else {
        return text;
    };
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let key = line.split_whitespace().next().unwrap_or_default();
        let wanted = APT_SETTINGS.iter().any(|s| {
            key.strip_prefix(s)
                .is_some_and(|r| r.is_empty() || r.starts_with("::"))
        });
        if wanted && !line.ends_with("\"\";") && !key.ends_with("CAInfo") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// pip's settings on the host, as the environment variables that pip documents for them.
fn pip_settings() -> Vec<(String, String)> {
    const SERVES: [&str; 4] = ["index-url", "extra-index-url", "trusted-host", "timeout"];
    let mut settings: Vec<(String, String)> = Vec::new();
    if let Ok(out) = Command::new("pip3").args(["config", "list"]).output() {
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let Some(name) = key.rsplit('.').next() else {
                continue;
            };
            if SERVES.contains(&name) {
                let variable = format!("PIP_{}", name.to_uppercase().replace('-', "_"));
                settings.push((variable, value.trim_matches('\'').to_owned()));
            }
        }
    }
    for name in SERVES {
        let variable = format!("PIP_{}", name.to_uppercase().replace('-', "_"));
        if let Ok(value) = std::env::var(&variable) {
            settings.push((variable, value));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From either kind of pip's cache, else from where pip had it; never what the index does
    /// not know, nor under a name that leads elsewhere.
    #[test]
    fn what_pip_fetched_is_found_again_by_name() {
        use std::io::{Read, Write};

        let place = tempfile::tempdir().unwrap();
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("http://{}", server.local_addr().unwrap());
        let answers = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = server.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nnet";
                stream.write_all(head.as_bytes()).unwrap();
            }
        });
        let make = r#"
import hashlib, os, struct, sys
host = sys.argv[1]
log = open("log", "w")
def say(url, data, digest=None):
    log.write("  Found link %s#sha256=%s (from x)\n" % (url, digest or hashlib.sha256(data).hexdigest()))
    log.write("2024 Downloading %s (3 kB)\n" % (url if "old" in url else url.rsplit("/", 1)[1]))
def put(part, url, data, end=""):
    name = hashlib.sha224(url.encode()).hexdigest()
    path = os.path.join("pip", part, *name[:5], name + end)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "wb").write(data)
url = host + "/new-1.0-py3-none-any.whl"; say(url, b"new"); put("http-v2", url, b"new", ".body")
url = host + "/old-1.0.tar.gz"; say(url, b"old"); put("http", url, b"cc=4,\xa4body\xc6" + struct.pack(">I", 3) + b"old\xa4vary\x80")
url = host + "/fetched-1.0.whl"; say(url, b"net"); put("http-v2", url, b"damaged", ".body")
say(host + "/evil%2f..%2f..%2fx-1.whl", b"net")
log.write("2024   Downloading simple-page\n2024 Using cached metadata\n")
say(host + "/wrong-1.0.whl", b"", "0" * 64)
"#;
        let run = |arguments: &[&str]| {
            let mut command = Command::new("python3");
            command.arg("-c").args(arguments).current_dir(place.path());
            command.env("no_proxy", "*").output().unwrap()
        };
        let out = run(&[make, &host]);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        fs::create_dir(place.path().join("wheels")).unwrap();
        let out = run(&[WHEELS, "log", "pip", "wheels"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let told = format!("{host}/wrong-1.0.whl: what came is not what the index says\n");
        assert_eq!((out.status.code(), said), (Some(1), told));
        answers.join().unwrap();
        let mut kept: Vec<(String, String)> = fs::read_dir(place.path().join("wheels"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        kept.sort();
        let kept: Vec<(&str, &str)> = kept.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(
            kept,
            [
                ("fetched-1.0.whl", "net"),
                ("new-1.0-py3-none-any.whl", "new"),
                ("old-1.0.tar.gz", "old")
            ]
        );
    }

    #[test]
    fn an_index_is_as_it_was_and_nothing_else_is_there() {
        let ask = "600 URI Acquire\nURI: http://a/InRelease\nFilename: /lists/InRelease\nLast-Modified: Fri, 01 Jan 2021 00:00:00 GMT\n\n600 URI Acquire\nURI: http://a/x.deb\nFilename: /x.deb\n\n";
        let script = "printf '%s' \"$1\" | sh -c \"$2\"";
        let out = Command::new("sh")
            .args(["-c", script, "sh", ask, APT_OFFLINE])
            .output()
            .unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        let (head, answers) = said.split_once("\n\n").unwrap();
        assert!(head.starts_with("100 Capabilities\n"), "{said}");
        assert_eq!(
            answers,
            "201 URI Done\nURI: http://a/InRelease\nFilename: /lists/InRelease\nLast-Modified: Fri, 01 Jan 2021 00:00:00 GMT\nIMS-Hit: true\n\n400 URI Failure\nURI: http://a/x.deb\nMessage: it is not in the cache of packages, and this build is --offline\n\n"
        );
    }

    #[test]
    fn takes_only_the_sources_of_the_release() {
        let text = "Types: deb\n# comment\nURIs: http://a.test/debian\nSuites: bookworm bookworm-updates trixie\nComponents: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://b.test/node\nSuites: nodistro\nComponents: main\n";
        assert_eq!(
            deb822_sources(text, "bookworm"),
            [
                "deb [signed-by=/k.gpg] http://a.test/debian bookworm main",
                "deb [signed-by=/k.gpg] http://a.test/debian bookworm-updates main"
            ]
        );
        let text = "deb [arch=amd64 signed-by=/k] http://c.test bookworm-security main\ndeb http://d.test cloud-sdk-bookworm main\n";
        assert_eq!(one_line_sources(text, "bookworm").len(), 1);
    }
}
