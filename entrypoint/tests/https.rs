//! Certificates of the box's own servers: given, made, renewed, told of; and authorities that
//! its services trust.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use common::{TestBox, wait};
use serde_json::{Value, json};

/// In a folder of the box, `NAME.pem` and `NAME.key`, signed by `issuer` or by itself.
fn certificate(b: &TestBox, name: &str, issuer: Option<&str>, days: u32, names: &str) {
    let folder = b.path("/given");
    fs::create_dir_all(&folder).unwrap();
    let openssl = |line: &str| {
        let mut command = Command::new("openssl");
        let out = command
            .args(line.split(' '))
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    let extensions = match names {
        "" => "basicConstraints=critical,CA:TRUE\n".to_owned(),
        names => format!("subjectAltName={names}\n"),
    };
    fs::write(folder.join("extensions"), extensions).unwrap();
    openssl(&format!(
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
    ));
    openssl(&format!(
        "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
    ));
    let by = match issuer {
        Some(issuer) => format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"),
        None => format!("-signkey {name}.key"),
    };
    openssl(&format!(
        "x509 -req -in {name}.csr {by} -days {days} -extfile extensions -out {name}.pem"
    ));
}

/// The same, self-signed, with an end that is only seconds away from a round number of days.
fn ending(b: &TestBox, name: &str, days: u64, seconds: u64) {
    certificate(b, name, None, 1, "DNS:localhost,IP:127.0.0.1,IP:::1");
    let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nserial=serial\ndefault_md=sha256\n\
                  unique_subject=no\npolicy=p\n[p]\ncommonName=supplied\n";
    b.file("/given/ca.cnf", config).file("/given/index", "");
    b.file("/given/serial", "01\n");
    let end = format!("now + {days} days + {seconds} seconds");
    let line = format!(
        "openssl ca -batch -config ca.cnf -selfsign -keyfile {name}.key -in {name}.csr -out {name}.pem -notext \
         -startdate 20200101000000Z -enddate $(date -u -d '{end}' +%Y%m%d%H%M%SZ) -extfile extensions"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]).current_dir(b.path("/given"));
    let out = command.output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

fn given(b: &TestBox, name: &str) -> String {
    fs::read_to_string(b.path(&format!("/given/{name}"))).unwrap()
}

fn fingerprint(b: &TestBox, path: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]);
    let out = command.arg(b.path(path)).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.trim()
        .split_once('=')
        .unwrap_or_else(|| panic!("{path}: {text}"))
        .1
        .to_owned()
}

const CERT: &str = "/etc/web/cert.pem";
const KEY: &str = "/etc/web/key.pem";

/// A web server that says when it starts and when it reads its files again.
fn a_box() -> TestBox {
    let mut b = TestBox::new();
    for (name, kind) in [
        ("HTTPS", "bool"),
        ("CERT", "certificate"),
        ("KEY", "key"),
        ("SERVER_NAME", "string"),
        ("PORT", "port"),
        ("CA", "certificate"),
    ] {
        let variable = name.to_lowercase();
        b.put(
            "settings",
            name,
            json!({"variable": variable, "type": kind}),
        );
    }
    for (name, value) in [
        ("https", json!(false)),
        ("cert", json!("")),
        ("key", json!("")),
        ("server_name", json!("_")),
        ("port", json!(1)),
    ] {
        b.put("variables", name, value);
    }
    for (dest, body) in [
        (CERT, "{{ cert }}\n"),
        (KEY, "{{ key }}\n"),
        ("/etc/web/port", "{{ port }}\n"),
    ] {
        b.template(dest, body);
        let templates = b.contract["templates"].as_array_mut().unwrap();
        templates.last_mut().unwrap()["notify"] = json!(["reload web"]);
    }
    b.put(
        "handlers",
        "reload web",
        json!([{"service": "web", "action": "reload"}]),
    );
    b.put(
        "certificates",
        "web",
        json!({"certificate": "CERT", "key": "KEY", "when": "https", "names": "{{ server_name }}"}),
    );
    b.script(
        "web",
        "trap 'echo hup >> ROOT/web.log' HUP\necho start >> ROOT/web.log\nwhile :; do sleep 0.05; done",
    );
    b.unit("web.service", "[Service]\nExecStart=ROOT/bin/web\n");
    b.env("HTTPS", "on");
    b
}

fn text(b: &TestBox, path: &str) -> String {
    fs::read_to_string(b.path(path)).unwrap_or_default()
}

fn certificates(b: &TestBox) -> Value {
    let ended = b.run(&["certificates", "--json"]);
    serde_json::from_str(&ended.exits(0).out).unwrap()
}

#[test]
fn a_box_makes_one_certificate_for_itself_and_keeps_it() {
    let mut b = a_box();
    b.env("SERVER_NAME", "Portal.example *.portal.example ~^x$");
    b.run(&["check"]).exits(0);
    let running = b.start().until(&b, "web ready");
    let (first, secret) = (text(&b, CERT), text(&b, KEY));
    let kept = b.path("/data/.tiffin/certificate-web.pem");
    assert_eq!(
        fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let found = &certificates(&b)[0];
    let names = json!([
        "portal.example",
        "*.portal.example",
        "localhost",
        "127.0.0.1",
        "::1"
    ]);
    assert_eq!(found["names"], names);
    assert_eq!(
        (&found["self_signed"], &found["made"]),
        (&json!(true), &json!(true))
    );
    let days = found["left"].as_i64().unwrap() / 86_400;
    assert!((800..825).contains(&days), "{found}");
    let told = fingerprint(&b, CERT);
    assert_eq!(found["fingerprint"], json!(told));
    let out = b.run(&["status"]);
    out.exits(0)
        .says("certificate web: portal.example, *.portal.example and 3 more, until 20")
        .says(&told);
    let ended = running.stop();
    ended
        .exits(0)
        .says(&format!("SHA-256 {told}"))
        .says("made by this box")
        .says("a self-signed certificate is made");
    assert!(
        !ended.err.contains(secret.lines().nth(1).unwrap()),
        "the key is in the log"
    );

    // Another start, and a command, take the same.
    b.start().until(&b, "web ready").stop().exits(0).says(&told);
    b.run(&["cat", b.path(CERT).to_str().unwrap()])
        .exits(0)
        .says(&first);
    assert_eq!((text(&b, CERT), text(&b, KEY)), (first.clone(), secret));

    // For other names another one is made; for fewer it does.
    b.environment.pop();
    b.env("SERVER_NAME", "other.example");
    b.start().until(&b, "web ready").stop().exits(0);
    let other = text(&b, CERT);
    assert!(other != first && other.contains("BEGIN CERTIFICATE"));
    b.environment.pop();
    b.start().until(&b, "web ready").stop().exits(0);
    assert_eq!(text(&b, CERT), other);

    // One with little time left is replaced, a damaged one is not.
    certificate(&b, "old", None, 10, "DNS:localhost,IP:127.0.0.1,IP:::1");
    fs::write(&kept, given(&b, "old.key") + &given(&b, "old.pem")).unwrap();
    b.start().until(&b, "web ready").stop().exits(0);
    assert!(text(&b, CERT) != given(&b, "old.pem") && text(&b, CERT) != other);
    certificate(&b, "foreign", None, 100, "DNS:localhost");
    for damage in [
        given(&b, "old.key") + &given(&b, "foreign.pem"),
        "nothing".to_owned(),
        String::new(),
    ] {
        fs::write(&kept, &damage).unwrap();
        b.run(&["start"])
            .exits(78)
            .says("certificate-web.pem, which this box made, is damaged");
        assert_eq!(fs::read_to_string(&kept).unwrap(), damage);
    }
}

#[test]
fn a_certificate_is_given_as_text_file_or_secret() {
    let b = a_box();
    certificate(&b, "ca", None, 100, "");
    certificate(&b, "own", Some("ca"), 90, "DNS:portal.example");
    let (public, private) = (
        given(&b, "own.pem") + &given(&b, "ca.pem"),
        given(&b, "own.key"),
    );
    let path = |b: &TestBox, name: &str| b.path(&format!("/given/{name}")).display().to_string();
    for way in ["text", "file", "secret", "settings.env"] {
        let mut b = a_box();
        for (name, text) in [("CERT", &public), ("KEY", &private)] {
            b.file(&format!("/given/{name}"), text);
            match way {
                "text" => drop(b.env(name, text)),
                "file" => {
                    let path = path(&b, name);
                    b.env(&format!("{name}_FILE"), &path);
                }
                "secret" => drop(b.file(&format!("/run/secrets/{name}"), text)),
                _ => {
                    let old = self::text(&b, "/data/settings.env");
                    b.file(
                        "/data/settings.env",
                        &format!("{old}{name}=\"{}\"\n", text.trim().replace('\n', "\\n")),
                    );
                    fs::set_permissions(
                        b.path("/data/settings.env"),
                        fs::Permissions::from_mode(0o600),
                    )
                    .unwrap();
                }
            }
        }
        let running = b.start().until(&b, "web ready");
        assert_eq!(
            (text(&b, CERT), text(&b, KEY)),
            (public.clone(), private.clone()),
            "{way}"
        );
        let found = &certificates(&b)[0];
        assert_eq!(
            (&found["issuer"], &found["made"]),
            (&json!("CN=ca"), &json!(false))
        );
        running.stop().exits(0).says(&fingerprint(&b, CERT));
        assert!(!b.path("/data/.tiffin/certificate-web.pem").exists());
    }
}

#[test]
fn wrong_pairs_are_refused_with_all_that_is_wrong_and_nothing_is_started() {
    let b = a_box();
    certificate(&b, "ca", None, 100, "");
    certificate(&b, "own", Some("ca"), 90, "DNS:portal.example");
    certificate(&b, "other", Some("ca"), 90, "DNS:portal.example");
    certificate(
        &b,
        "client",
        Some("ca"),
        90,
        "DNS:x\nextendedKeyUsage=clientAuth",
    );
    certificate(&b, "ended", Some("ca"), 0, "DNS:portal.example");
    wait("its end", || {
        let mut command = Command::new("openssl");
        command
            .args(["x509", "-checkend", "0", "-noout", "-in"])
            .arg(b.path("/given/ended.pem"));
        (!command.output().unwrap().status.success()).then_some(())
    });
    // That very second still counts.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let all = |names: &[&str]| names.iter().map(|name| given(&b, name)).collect::<String>();
    let own = given(&b, "own.pem");
    for (public, private, reasons) in [
        (
            Some(own.clone()),
            None,
            &["KEY: it is required together with CERT"][..],
        ),
        (
            None,
            Some(given(&b, "own.key")),
            &["CERT: it is required together with KEY"],
        ),
        (
            Some(own.clone()),
            Some(given(&b, "other.key")),
            &["KEY: it does not belong to the certificate of CN=own"],
        ),
        (
            Some(all(&["ca.pem", "own.pem"])),
            Some(given(&b, "own.key")),
            &[
                "CERT: the key belongs to certificate 2 of it (CN=own)",
                "CERT: certificate 2 of it (CN=own) is not the issuer of the one before it",
            ],
        ),
        (
            Some(given(&b, "client.pem")),
            Some(given(&b, "other.key")),
            &["KEY: it does not belong", "CERT: it is not for servers"],
        ),
        (
            Some(given(&b, "ended.pem")),
            Some(given(&b, "ended.key")),
            &["CERT: it ended on 20"],
        ),
    ] {
        let mut b = a_box();
        b.env("PORT", "seven");
        for (name, text) in [("CERT", &public), ("KEY", &private)] {
            if let Some(text) = text {
                b.env(name, text);
            }
        }
        let ended = b.run(&["start"]);
        ended.exits(78).says("PORT = `seven`");
        for reason in reasons {
            ended.says(reason);
        }
        if let Some(private) = &private {
            assert!(
                !ended.err.contains(private.lines().nth(1).unwrap()),
                "{}",
                ended.err
            );
        }
        assert!(!b.path("/web.log").exists() && !b.path("/data/.tiffin/lock").exists());
    }
}

#[test]
fn what_is_not_used_is_not_checked_but_told() {
    let mut b = a_box();
    certificate(&b, "own", None, 90, "DNS:portal.example");
    let public = given(&b, "own.pem");
    b.environment.clear();
    b.start().until(&b, "web ready").stop().exits(0);
    assert_eq!(text(&b, CERT), "\n");
    b.env("CERT", &public);
    let running = b.start().until(&b, "web ready");
    assert_eq!(certificates(&b), json!([]));
    running
        .stop()
        .exits(0)
        .says("CERT and KEY are given and not used, as `https` does not hold");
}

#[test]
fn files_that_change_are_taken_without_a_word_and_nothing_else_is() {
    let mut b = a_box();
    certificate(&b, "own", None, 90, "DNS:portal.example");
    let first = given(&b, "own.pem");
    for name in ["CERT", "KEY"] {
        let file = if name == "CERT" { "own.pem" } else { "own.key" };
        let path = b.path(&format!("/given/{file}")).display().to_string();
        b.env(&format!("{name}_FILE"), &path);
    }
    let running = b.start().until(&b, "web ready");
    b.wait_for("/web.log");
    assert_eq!(text(&b, CERT), first);

    // What somebody is editing waits.
    b.file("/data/settings.env", "PORT=2\n");
    let other = TestBox::new();
    certificate(&other, "own", None, 60, "DNS:portal.example");
    // As certbot does: a new file takes the old one's place. The key follows a moment later.
    let replace = |file: &str| {
        b.file("/given/new", &given(&other, file));
        fs::rename(b.path("/given/new"), b.path(&format!("/given/{file}"))).unwrap();
    };
    replace("own.pem");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(text(&b, CERT), first, "the key is not there yet");
    replace("own.key");
    wait("the new certificate", || {
        (text(&b, CERT) == given(&other, "own.pem")).then_some(())
    });
    wait("the server's reload", || {
        text(&b, "/web.log").contains("hup").then_some(())
    });
    assert_eq!(text(&b, "/web.log"), "start\nhup\n");
    assert_eq!(
        (text(&b, KEY), text(&b, "/etc/web/port").as_str()),
        (given(&other, "own.key"), "1\n")
    );
    assert_eq!(
        certificates(&b)[0]["fingerprint"],
        json!(fingerprint(&other, "/given/own.pem"))
    );

    // By writing into the files, as one does with a file that is mounted by itself.
    certificate(&other, "own", None, 70, "DNS:portal.example");
    for file in ["own.pem", "own.key"] {
        b.file(&format!("/given/{file}"), &given(&other, file));
    }
    wait("the third certificate", || {
        (text(&b, CERT) == given(&other, "own.pem")).then_some(())
    });

    // A wrong pair changes nothing, also when asked for.
    let good = text(&b, CERT);
    b.file("/given/own.pem", &first);
    b.run(&["reload"])
        .exits(1)
        .says("KEY: it does not belong to the certificate of CN=own");
    assert_eq!(text(&b, CERT), good);
    b.run(&["health"]).exits(0);
    b.file("/given/own.pem", &given(&other, "own.pem"));
    b.run(&["reload"]).exits(0);
    assert_eq!(text(&b, "/etc/web/port"), "2\n");
    let ended = running.stop();
    ended
        .exits(0)
        .says("certificates are renewed")
        .says("certificates are not renewed, the former stay in use");
    assert_eq!(
        text(&b, "/web.log").matches("start").count(),
        1,
        "it was never restarted"
    );
}

/// Kubernetes mounts a secret as links to links, and exchanges the one in the middle.
#[test]
fn a_link_that_is_exchanged_is_a_renewal() {
    let mut b = a_box();
    let turn = |b: &TestBox, to: &str| {
        certificate(b, "own", None, 90, "DNS:portal.example");
        for name in ["own.pem", "own.key"] {
            b.file(&format!("/secret/{to}/{name}"), &given(b, name));
        }
        let link = b.path("/secret/..new");
        std::os::unix::fs::symlink(to, &link).unwrap();
        fs::rename(link, b.path("/secret/..data")).unwrap();
    };
    turn(&b, "..1");
    for (name, file) in [("CERT", "own.pem"), ("KEY", "own.key")] {
        let path = b.path(&format!("/secret/{file}"));
        std::os::unix::fs::symlink(format!("..data/{file}"), &path).unwrap();
        b.env(&format!("{name}_FILE"), &path.display().to_string());
    }
    let running = b.start().until(&b, "web ready");
    b.wait_for("/web.log");
    for to in ["..2", "..3"] {
        turn(&b, to);
        wait("the renewed certificate", || {
            (text(&b, CERT) == given(&b, "own.pem")).then_some(())
        });
    }
    running.stop().exits(0).says("certificates are renewed");
    assert_eq!(text(&b, "/web.log").matches("start").count(), 1);
}

fn metrics(b: &TestBox) -> String {
    let log = b.run(&["logs", "tiffin"]).out;
    let address = log.split("http://").nth(1).unwrap().lines().next().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut figures = String::new();
    stream.read_to_string(&mut figures).unwrap();
    figures
}

/// When the certificate ends, in Unix time.
fn ends(figures: &str, name: &str) -> i64 {
    let start = format!("tiffin_certificate_not_after_seconds{{certificate=\"{name}\"}} ");
    let line = figures.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{figures}")).parse().unwrap()
}

#[test]
fn the_end_is_told_in_status_figures_log_and_preflight() {
    let mut b = a_box();
    certificate(&b, "own", None, 10, "DNS:portal.example");
    let (public, private) = (given(&b, "own.pem"), given(&b, "own.key"));
    b.env("CERT", &public).env("KEY", &private);
    b.env("SERVER_NAME", "portal.example www.portal.example");
    b.env("TIFFIN_HTTP", "127.0.0.1:0");
    let running = b.start().until(&b, "web ready");
    b.run(&["status"])
        .exits(0)
        .says("certificate web: portal.example, until 20")
        .says(" days), self-signed");
    b.run(&["preflight"])
        .says("certificate web")
        .says("-> renew it in time");
    let end = ends(&metrics(&b), "web");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(
        (end - i64::try_from(now).unwrap() - 10 * 86_400).abs() < 60,
        "{end}"
    );
    let ended = running.stop();
    ended
        .exits(0)
        .says("preflight: certificate web: portal.example, until");
    ended.says("CERT: it is not for www.portal.example");
}

/// Certificates that reach these many days before their end within seconds, by name.
fn with_ends(b: &mut TestBox, stages: &[(&str, u64)]) {
    for (name, _) in stages {
        let upper = name.to_uppercase();
        for (what, kind, end) in [("cert", "certificate", "pem"), ("key", "key", "key")] {
            let variable = format!("{name}_{what}");
            let setting = variable.to_uppercase();
            b.put("variables", &variable, json!(""));
            b.put(
                "settings",
                &setting,
                json!({"variable": variable, "type": kind}),
            );
            let path = b.path(&format!("/given/{name}.{end}"));
            b.env(&format!("{setting}_FILE"), path.to_str().unwrap());
        }
        b.put(
            "certificates",
            name,
            json!({"certificate": format!("{upper}_CERT"), "key": format!("{upper}_KEY")}),
        );
    }
    for (name, days) in stages {
        ending(b, name, *days, 8);
    }
}

/// Waits until the box has said all this: whatever happens beside the files makes it look at
/// its clock.
fn until_told(b: &TestBox, expected: &[&str]) {
    wait("the ends to be told", || {
        b.file("/given/beside", "");
        let said = b.run(&["logs", "tiffin"]).out;
        let all = expected.iter().all(|text| said.contains(text));
        all.then_some(())
    });
}

#[test]
fn as_time_goes_on_each_end_is_told() {
    let mut b = a_box();
    b.environment.clear();
    b.env("TIFFIN_HTTP", "127.0.0.1:0");
    let stages = [
        ("month", 30),
        ("fortnight", 14),
        ("week", 7),
        ("day", 1),
        ("over", 0),
    ];
    with_ends(&mut b, &stages);
    let running = b.start().until(&b, "web ready");
    let left = |name: &str| {
        let told: Value = serde_json::from_str(&b.run(&["status", "--json"]).out).unwrap();
        let all = told["certificates"].as_array().unwrap().clone();
        let found = all.iter().find(|one| one["name"] == name);
        found.unwrap_or_else(|| panic!("{told}"))["left"]
            .as_i64()
            .unwrap()
    };
    let said = b.run(&["logs", "tiffin"]).out;
    assert!(
        !said.contains("has ended") && !said.contains("ends in"),
        "{said}"
    );
    let expected = [
        "the certificate month ends in ",
        "the certificate fortnight ends in ",
        "the certificate week ends in ",
        "the certificate day ends in ",
        "the certificate over has ended: clients refuse it",
    ];
    until_told(&b, &expected);
    assert!(left("over") <= 0 && left("day") > 80_000, "{}", left("day"));
    b.run(&["status"])
        .says("certificate over: localhost, 127.0.0.1, ::1, until 20")
        .says("(it has ended), self-signed");
    let figures = metrics(&b);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs()).unwrap();
    for (name, days) in stages {
        let late = ends(&figures, name) - now - i64::try_from(days).unwrap() * 86_400;
        assert!((-60..=0).contains(&late), "{name}: {late}");
    }
    let ended = running.stop();
    ended.exits(0);
    for text in expected {
        assert_eq!(ended.err.matches(text).count(), 1, "{text}: {}", ended.err);
    }
    // It does not start with it again; that very second still counts.
    wait("its end", || {
        (b.run(&["check"]).code == Some(78)).then_some(())
    });
    b.run(&["check"]).says("OVER_CERT: it ended on 20");
}

#[test]
fn what_the_box_made_is_made_anew_while_it_runs() {
    let mut b = a_box();
    with_ends(&mut b, &[("month", 30)]);
    ending(&b, "own", 30, 8);
    let own = given(&b, "own.key") + &given(&b, "own.pem");
    b.file("/data/.tiffin/certificate-web.pem", &own);
    let running = b.start().until(&b, "web ready");
    let first = text(&b, CERT);
    assert!(own.contains(first.trim()), "{first}");
    until_told(&b, &["certificates are renewed"]);
    wait("the server to read it", || {
        text(&b, "/web.log").contains("hup").then_some(())
    });
    let made = text(&b, CERT);
    assert!(
        made != first && made.contains("BEGIN CERTIFICATE"),
        "{made}"
    );
    let all = certificates(&b);
    let web = all
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "web");
    assert!(web.unwrap()["left"].as_i64() > Some(800 * 86_400), "{all}");
    running.stop().exits(0);
    assert_eq!(text(&b, "/web.log").matches("start").count(), 1);
}

#[test]
fn services_trust_the_operators_authorities_besides_those_of_the_box() {
    let mut b = a_box();
    b.environment.clear();
    certificate(&b, "ca", None, 100, "");
    certificate(&b, "server", Some("ca"), 90, "DNS:localhost");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    b.script("server", &format!("cd ROOT/given\nexec openssl s_server -quiet -www -accept {port} -cert server.pem -key server.key"));
    b.unit("server.service", "[Service]\nExecStart=ROOT/bin/server\n");
    b.script(
        "caller",
        &format!("while :; do\ncurl -sS -o /dev/null https://localhost:{port}/; echo \"$? $SSL_CERT_FILE\" >> ROOT/called\nsleep 0.1\ndone"),
    );
    b.unit(
        "caller.service",
        "[Service]\nExecStart=ROOT/bin/caller 2>/dev/null\n",
    );
    b.script(
        "bystander",
        "echo \"${SSL_CERT_FILE:-nothing}\" > ROOT/bystander.log\nexec sleep 1000",
    );
    b.unit(
        "bystander.service",
        "[Service]\nExecStart=ROOT/bin/bystander\n",
    );
    b.contract["ca_bundle"] = json!({"setting": "CA", "services": ["caller"]});
    b.file("/etc/ssl/certs/ca-certificates.crt", "# the public ones");
    b.file("/data/settings.env", "");
    let running = b.start().until(&b, "caller ready");
    wait("a refused server", || {
        text(&b, "/called").contains("60 \n").then_some(())
    });

    let path = b.path("/given/ca.pem").display().to_string();
    b.file("/data/settings.env", &format!("CA_FILE={path}\n"));
    b.run(&["reload"])
        .exits(0)
        .says("caller restarts: its unit or program changed");
    wait("a trusted server", || {
        let last = text(&b, "/called").lines().last()?.to_owned();
        last.starts_with("0 ").then_some(())
    });
    let called = text(&b, "/called");
    let bundle = called.trim_end().rsplit(' ').next().unwrap();
    let whole = fs::read_to_string(bundle).unwrap();
    assert_eq!(whole, format!("# the public ones\n{}", given(&b, "ca.pem")));
    assert_eq!(text(&b, "/bystander.log"), "nothing\n");
    b.run(&["reload"]).exits(0).says("nothing changes");

    // Others are another file, so that who read the old one starts again.
    certificate(&b, "ca", None, 100, "");
    b.run(&["reload"]).exits(0).says("caller restarts");
    wait("a refused server", || {
        text(&b, "/called")
            .trim_end()
            .lines()
            .last()?
            .starts_with("60 ")
            .then_some(())
    });
    running.stop().exits(0);
    b.contract["ca_bundle"]["services"] = json!(["nobody"]);
    b.run(&["start"])
        .exits(78)
        .says("the recipe's `ca_bundle` is for `nobody`");
}
