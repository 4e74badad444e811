//! The box with HTTPS, as curl and openssl see it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::harness::*;

pub const NAME: &str = "portal.bank.test";

fn openssl(folder: &Path, line: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(line.split(' ')).current_dir(folder);
    must(command.stdin(Stdio::null()))
}

/// Certificate and key as PEM, also as `NAME.pem` and `NAME.key` in the folder; signed by the
/// pair of that name there, or by itself as an authority.
pub fn pair(folder: &Path, name: &str, issuer: Option<&str>) -> (String, String) {
    openssl(
        folder,
        &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"),
    );
    let (by, extensions) = match issuer {
        Some(issuer) => (
            format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"),
            format!("subjectAltName=DNS:{NAME}\n"),
        ),
        None => (
            format!("-signkey {name}.key"),
            "basicConstraints=critical,CA:TRUE\n".to_owned(),
        ),
    };
    fs::write(folder.join("extensions"), extensions).unwrap();
    openssl(
        folder,
        &format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"),
    );
    openssl(
        folder,
        &format!("x509 -req -in {name}.csr {by} -days 90 -extfile extensions -out {name}.pem"),
    );
    let text = |end: &str| fs::read_to_string(folder.join(format!("{name}.{end}"))).unwrap();
    (text("pem"), text("key"))
}

fn port(container: &Container, port: u16) -> String {
    let address = must(&mut docker(&[
        "port",
        &container.name,
        &format!("{port}/tcp"),
    ]));
    address
        .lines()
        .next()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned()
}

fn run(flags: &[&str]) -> Container {
    let mut all = vec!["-p", "127.0.0.1::443", "-e", "HTTPS=on"];
    all.extend(flags);
    let container = Container::run(&all);
    container.until_healthy();
    container
}

/// curl of a path, which trusts that file alone.
fn curl(container: &Container, name: &str, trusted: &Path, path: &str) -> Command {
    let port = port(container, 443);
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "60", "-A", MONITORING, "--cacert"])
        .arg(trusted)
        .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
        .arg(format!("https://{name}:{port}{path}"));
    command
}

/// Of the certificate that the box serves.
pub fn fingerprint(container: &Container, folder: &Path) -> String {
    let port = port(container, 443);
    let served = openssl(
        folder,
        &format!("s_client -connect 127.0.0.1:{port} -servername {NAME}"),
    );
    fs::write(folder.join("served.pem"), served).unwrap();
    let told = openssl(folder, "x509 -in served.pem -noout -fingerprint -sha256");
    told.split_once('=').unwrap().1.to_owned()
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_box_without_a_certificate_makes_one_keeps_it_and_leads_http_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new();
    let flags = ["-v", &volume.flag(), "-e", "SERVER_NAME=portal.bank.test"];
    let container = run(&flags);
    let first = fingerprint(&container, dir.path());
    let logs = container.logs();
    assert!(
        logs.contains(&format!("SHA-256 {first}")),
        "{first}\n{logs}"
    );
    let status = must(&mut container.exec(&["tiffin", "status"]));
    assert!(
        status.contains(&first) && status.contains("certificate web: portal.bank.test"),
        "{status}"
    );

    // Who trusts it needs nothing else.
    let trusted = dir.path().join("served.pem");
    must(&mut curl(&container, NAME, &trusted, "/status"));
    must(&mut curl(&container, "localhost", &trusted, "/status"));
    must_fail(
        &mut curl(&container, "other.bank.test", &trusted, "/status"),
        60,
    );

    // HTTP leads to HTTPS, with host, path and question.
    let head = must(Command::new("curl").args([
        "-sSi",
        "-H",
        "Host: portal.bank.test",
        &format!("{}/reports?page=2", container.url()),
    ]));
    assert!(head.starts_with("HTTP/1.1 308"), "{head}");
    assert!(
        head.contains("Location: https://portal.bank.test/reports?page=2\r"),
        "{head}"
    );

    // The protocols of today, and none before.
    for (version, taken) in [("1.3", true), ("1.2", true), ("1.1", false), ("1.0", false)] {
        let mut old = curl(&container, NAME, &trusted, "/status");
        old.args(["--tls-max", version, "--ciphers", "DEFAULT:@SECLEVEL=0"]);
        if version < "1.2" {
            old.args([format!("--tlsv{version}")]);
        }
        match taken {
            true => drop(must(&mut old)),
            false => drop(must_fail(&mut old, 35)),
        }
    }
    let negotiated = openssl(
        dir.path(),
        &format!(
            "s_client -connect 127.0.0.1:{} -alpn h2",
            port(&container, 443)
        ),
    );
    assert!(negotiated.contains("ALPN protocol: h2"), "{negotiated}");

    // The next container serves the same, also with a read-only root.
    let key = must(&mut container.exec(&["cat", "/etc/nginx/https/key.pem"]));
    assert!(!container.logs().contains(key.lines().nth(1).unwrap()));
    let mode =
        must(&mut container.exec(&["stat", "-L", "-c", "%U %a", "/etc/nginx/https/key.pem"]));
    assert_eq!(mode, "root 600");
    drop(container);
    let mut again = flags.to_vec();
    again.push("--read-only");
    assert_eq!(fingerprint(&run(&again), dir.path()), first);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_certificate_of_ones_own_is_served_from_the_environment_and_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    pair(folder, "ca", None);
    let (certificate, key) = pair(folder, "server", Some("ca"));
    let trusted = folder.join("ca.pem");
    let (given, secret) = (
        format!("HTTPS_CERTIFICATE={certificate}"),
        format!("HTTPS_KEY={key}"),
    );
    let mount = format!("{}:/tls:ro", folder.display());
    for flags in [
        vec!["-e", &given, "-e", &secret],
        vec![
            "-v",
            &mount,
            "-e",
            "HTTPS_CERTIFICATE_FILE=/tls/server.pem",
            "-e",
            "HTTPS_KEY_FILE=/tls/server.key",
            "-e",
            "HTTPS_PORT=8443",
        ],
    ] {
        let container = run(&flags);
        must(&mut curl(&container, NAME, &trusted, "/status"));
        let logs = container.logs();
        assert!(logs.contains("issued by CN=ca"), "{logs}");
        assert!(!logs.contains(key.lines().nth(1).unwrap()), "{logs}");
        if flags.contains(&"HTTPS_PORT=8443") {
            let head =
                must(Command::new("curl").args(["-sSi", "-H", "Host: a.test", &container.url()]));
            assert!(head.contains("Location: https://a.test:8443/\r"), "{head}");
        }
    }

    // What cannot be served starts nothing, and all of it is told.
    let (_, other) = pair(folder, "other", Some("ca"));
    let wrong = [
        "run",
        "--rm",
        "-e",
        "HTTPS=on",
        "-e",
        &given,
        "-e",
        &format!("HTTPS_KEY={other}"),
        "-e",
        "WEB_WORKERS=none",
        &image(),
    ]
    .map(str::to_owned);
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    let said = must_fail(&mut docker(&wrong), 78);
    assert!(
        said.contains("HTTPS_KEY: it does not belong to the certificate of CN=server"),
        "{said}"
    );
    assert!(
        said.contains("WEB_WORKERS") && !said.contains("is ready"),
        "{said}"
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_renewal_drops_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    pair(folder, "ca", None);
    pair(folder, "server", Some("ca"));
    let trusted = folder.join("ca.pem");
    let mount = format!("{}:/tls:ro", folder.display());
    let container = run(&[
        "-v",
        &mount,
        "-e",
        "HTTPS_CERTIFICATE_FILE=/tls/server.pem",
        "-e",
        "HTTPS_KEY_FILE=/tls/server.key",
    ]);
    let before = fingerprint(&container, folder);
    let pid =
        |container: &Container| must(&mut container.exec(&["sh", "-c", "cat /run/nginx.pid"]));
    let master = pid(&container);

    // An upload that takes some 10 s goes on over it.
    let size = 6_000_000;
    fs::write(folder.join("upload"), vec![b'x'; size]).unwrap();
    let mut slow = curl(&container, NAME, &trusted, "/reports");
    slow.args([
        "--limit-rate",
        "600k",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_upload} %{num_connects}",
    ]);
    slow.args(["-H", "Expect:", "--data-binary"]);
    slow.arg(format!("@{}", folder.join("upload").display()));
    let child: Child = slow
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));

    let renewed = tempfile::tempdir().unwrap();
    for file in ["ca.pem", "ca.key"] {
        fs::copy(folder.join(file), renewed.path().join(file)).unwrap();
    }
    pair(renewed.path(), "server", Some("ca"));
    for file in ["server.pem", "server.key"] {
        fs::copy(renewed.path().join(file), folder.join("new")).unwrap();
        fs::rename(folder.join("new"), folder.join(file)).unwrap();
    }
    let is_new = within(Duration::from_secs(6), || {
        fingerprint(&container, folder) != before
    });
    assert!(is_new, "{}", container.logs());
    let mut child = child;
    assert!(
        child.try_wait().unwrap().is_none(),
        "the upload was to last longer"
    );
    let out = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    let words: Vec<&str> = told.split(' ').collect();
    // The application refuses it as no JSON: it has had all of it.
    assert!(
        out.status.success() && words[0].starts_with('4'),
        "{told} {out:?}"
    );
    assert_eq!((words[1], words[2]), (size.to_string().as_str(), "1"));
    assert_eq!(pid(&container), master, "nginx was not restarted");
    let logs = container.logs();
    assert!(
        logs.contains("certificates are renewed") && logs.contains("nginx is reloaded"),
        "{logs}"
    );

    // One that does not match changes nothing.
    let after = fingerprint(&container, folder);
    pair(folder, "server", Some("ca"));
    fs::copy(renewed.path().join("server.key"), folder.join("server.key")).unwrap();
    let told = within(Duration::from_secs(10), || {
        container
            .logs()
            .contains("certificates are not renewed, the former stay in use")
    });
    assert!(told, "{}", container.logs());
    assert_eq!(fingerprint(&container, folder), after);
}

/// Gives the folder's content to whoever the box runs as.
pub fn open_to_all(folder: &Path) {
    must(Command::new("chmod").args(["-R", "a+rX"]).arg(folder));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn any_user_serves_https_and_renews() {
    let hard = ["--user", "12345:0", "--read-only", "--cap-drop", "ALL"];
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let volume = Volume::new();
    let data = volume.flag();
    let name = format!("SERVER_NAME={NAME}");
    // Its own, made once and readable to nobody else.
    let mut flags = hard.to_vec();
    flags.extend(["-v", &data, "-e", &name]);
    let container = run(&flags);
    let made = fingerprint(&container, folder);
    must(&mut curl(
        &container,
        NAME,
        &folder.join("served.pem"),
        "/status",
    ));
    let key = ["stat", "-L", "-c", "%u %a", "/etc/nginx/https/key.pem"];
    assert_eq!(must(&mut container.exec(&key)), "12345 600");
    drop(container);
    let container = run(&flags);
    assert_eq!(fingerprint(&container, folder), made);
    drop(container);

    // The operator's, which nginx reads anew although it is not root either.
    pair(folder, "ca", None);
    pair(folder, "server", Some("ca"));
    open_to_all(folder);
    let mount = format!("{}:/tls:ro", folder.display());
    flags.extend(["-v", &mount]);
    flags.extend(["-e", "HTTPS_CERTIFICATE_FILE=/tls/server.pem"]);
    flags.extend(["-e", "HTTPS_KEY_FILE=/tls/server.key"]);
    let container = run(&flags);
    must(&mut curl(
        &container,
        NAME,
        &folder.join("ca.pem"),
        "/status",
    ));
    let before = fingerprint(&container, folder);
    assert_ne!(before, made);
    pair(folder, "server", Some("ca"));
    open_to_all(folder);
    let is_new = || fingerprint(&container, folder) != before;
    assert!(
        within(Duration::from_secs(20), is_new),
        "{}",
        container.logs()
    );
    must(&mut curl(
        &container,
        NAME,
        &folder.join("ca.pem"),
        "/status",
    ));
}

/// A mail server that takes mail over TLS and from its user alone, and prints it: on the port 2525
/// after STARTTLS, on 2465 over TLS from the beginning.
const MAIL: &str = r#"
import base64, socketserver, ssl, threading
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("/tls/server.pem", "/tls/server.key")
class Session(socketserver.StreamRequestHandler):
    def say(self, line):
        self.connection.sendall(line.encode() + b"\r\n")
    def secure(self):
        try:
            self.connection = context.wrap_socket(self.connection, server_side=True)
        except OSError as error:
            print("REFUSED", error, flush=True)
            return False
        self.rfile = self.connection.makefile("rb")
        return True
    def handle(self):
        tls = known = False
        if self.server.server_address[1] == 2465:
            if not self.secure():
                return
            tls = True
            print("SMTPS", flush=True)
        self.say("220 ready")
        while line := self.rfile.readline():
            word, _, rest = line.decode().strip().partition(" ")
            word = word.upper()
            if word == "EHLO":
                self.say("250-mail\r\n250 " + ("AUTH PLAIN" if tls else "STARTTLS"))
            elif word == "STARTTLS":
                self.say("220 go on")
                if not self.secure():
                    return
                tls = True
            elif word == "AUTH" and tls:
                known = base64.b64decode(rest.split()[1]) == b"\0box\0s3cret/+ "
                self.say("235 yes" if known else "535 no")
            elif word == "DATA" and known:
                self.say("354 go on")
                print(self.connection.version(), flush=True)
                while (line := self.rfile.readline()).strip() != b".":
                    print("MAIL", line.decode().strip(), flush=True)
                self.say("250 taken")
            elif word == "QUIT":
                return self.say("221 bye")
            else:
                self.say("250 ok" if known else "530 first STARTTLS, then AUTH")
socketserver.ThreadingTCPServer.allow_reuse_address = True
for port in 2465, 2525:
    server = socketserver.ThreadingTCPServer(("0.0.0.0", port), Session)
    threading.Thread(target=server.serve_forever).start()
"#;

/// It, known by [`NAME`] and by the name of its container.
fn mail_server(network: &Network, mount: &str) -> Container {
    let server = Container {
        name: unique("smtp"),
    };
    let mut command = docker(&["run", "-d", "--name", &server.name]);
    command.args(["--network", &network.name, "--network-alias", NAME]);
    command.args(["-v", mount, "--entrypoint", "/usr/bin/python3", &image()]);
    must(command.args(["-u", "-c", MAIL]));
    server
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn mail_goes_to_a_server_that_a_private_authority_vouches_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    pair(folder, "ca", None);
    pair(folder, "server", Some("ca"));
    open_to_all(folder);
    fs::write(folder.join("password"), "s3cret/+ \n").unwrap();
    let mount = format!("{}:/tls:ro", folder.display());
    let network = Network::new();
    let server = mail_server(&network, &mount);
    let to = format!("MAIL_SERVER={NAME}");
    let mut flags = vec!["--network", &network.name, "-v", &mount, "-e", &to];
    flags.extend(["-e", "MAIL_PORT=2525", "-e", "MAIL_USE_TLS=on"]);
    flags.extend(["-e", "MAIL_FROM=box@bank.test", "-e", "MAIL_USERNAME=box"]);
    flags.extend(["-e", "MAIL_PASSWORD_FILE=/tls/password"]);
    // Whom nobody vouches for gets neither mail nor password.
    let container = Container::run(&flags);
    container.round_trip_with_mail("auditor@bank.test");
    let refused = || container.logs().contains("CERTIFICATE_VERIFY_FAILED");
    assert!(
        within(Duration::from_secs(60), refused),
        "{}",
        container.logs()
    );
    let told = server.logs();
    assert!(told.contains("REFUSED") && !told.contains("MAIL"), "{told}");
    drop(container);

    flags.extend(["-e", "CA_BUNDLE_FILE=/tls/ca.pem", "--read-only"]);
    let container = Container::run(&flags);
    container.round_trip_with_mail("auditor@bank.test");
    let arrived = || {
        let told = server.logs();
        told.contains("TLSv1.3") && told.contains("MAIL To: auditor@bank.test")
    };
    assert!(
        within(Duration::from_secs(60), arrived),
        "{}\n{}",
        server.logs(),
        container.logs()
    );
    assert!(!container.logs().contains("s3cret"), "{}", container.logs());
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn mail_over_tls_from_the_beginning_goes_to_a_server_that_a_private_authority_vouches_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    pair(folder, "ca", None);
    pair(folder, "server", Some("ca"));
    open_to_all(folder);
    fs::write(folder.join("password"), "s3cret/+ \n").unwrap();
    let mount = format!("{}:/tls:ro", folder.display());
    let network = Network::new();
    let server = mail_server(&network, &mount);
    let to = format!("MAIL_SERVER={NAME}");
    let mut flags = vec!["--network", &network.name, "-v", &mount, "-e", &to];
    // What STARTTLS is says nothing then.
    flags.extend(["-e", "MAIL_PORT=2465", "-e", "MAIL_USE_SSL=on"]);
    flags.extend(["-e", "MAIL_USE_TLS=on", "-e", "MAIL_FROM=box@bank.test"]);
    flags.extend([
        "-e",
        "MAIL_USERNAME=box",
        "-e",
        "MAIL_PASSWORD_FILE=/tls/password",
    ]);
    flags.extend(["-e", "CA_BUNDLE_FILE=/tls/ca.pem", "--read-only"]);
    let container = Container::run(&flags);
    container.round_trip_with_mail("auditor@bank.test");
    let arrived = || {
        let told = server.logs();
        told.contains("SMTPS") && told.contains("MAIL To: auditor@bank.test")
    };
    assert!(
        within(Duration::from_secs(60), arrived),
        "{}\n{}",
        server.logs(),
        container.logs()
    );
    assert!(!container.logs().contains("s3cret"), "{}", container.logs());

    // One of another name, or of an authority that nobody named, gets neither mail nor password.
    let script = "import dataclasses, sys\nfrom reports import mail, settings\n\
        mail.connect(dataclasses.replace(settings.load().mail, host=sys.argv[1]))";
    for (host, trusted, wanted) in [
        (
            NAME,
            "/etc/ssl/certs/ca-certificates.crt",
            "CERTIFICATE_VERIFY_FAILED",
        ),
        (&server.name, "/tls/ca.pem", "Hostname mismatch"),
    ] {
        let trusted = format!("SSL_CERT_FILE={trusted}");
        let mut command = docker(&["exec", "-e", &trusted, &container.name]);
        command.args(["/opt/backend/bin/run", "python", "-c", script, host]);
        let said = must_fail(&mut command, 1);
        assert!(said.contains(wanted), "{said}");
    }
}
