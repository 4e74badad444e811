//! What openssl makes is taken or refused as it should be, and what is made here openssl takes.

use std::fs;
use std::process::Command;

use certificates::{Part, Problem, Summary, Wanted, check, make, summary};
use proptest::prelude::*;

const DAY: i64 = 86_400;

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn openssl(&self, line: &str) -> String {
        let out = Command::new("openssl")
            .args(line.split(' ').map(|word| word.replace('~', " ")))
            .current_dir(&self.0)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "openssl {line}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    }

    fn text(&self, names: &[&str]) -> String {
        names
            .iter()
            .map(|name| fs::read_to_string(self.0.path().join(name)).unwrap())
            .collect()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// `NAME.key` and `NAME.pem`; signed by `issuer`, or by itself.
    fn certificate(&self, name: &str, algorithm: &str, issuer: Option<&str>, extensions: &str) {
        self.openssl(&format!("genpkey {algorithm} -out {name}.key"));
        self.again(name, issuer, extensions);
    }

    fn again(&self, name: &str, issuer: Option<&str>, extensions: &str) {
        self.write("extensions", &extensions.replace(';', "\n"));
        self.openssl(&format!(
            "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
        ));
        let by = match issuer {
            Some(issuer) => format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"),
            None => format!("-signkey {name}.key"),
        };
        self.openssl(&format!(
            "x509 -req -in {name}.csr {by} -days 30 -extfile extensions -out {name}.pem"
        ));
    }

    /// A root, an issuer below it and a server's certificate, all with such keys.
    fn chain(algorithm: &str) -> Self {
        let folder = Folder::new();
        folder.certificate("root", algorithm, None, CA);
        folder.certificate("issuer", algorithm, Some("root"), CA);
        folder.certificate("server", algorithm, Some("issuer"), LEAF);
        folder
    }
}

const CA: &str = "basicConstraints=critical,CA:TRUE;keyUsage=critical,keyCertSign";
const LEAF: &str = "subjectAltName=DNS:portal.example,DNS:*.Portal.example,IP:10.1.2.3,IP:fd00::1;extendedKeyUsage=serverAuth";
const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
const P384: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";
const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";

#[track_caller]
fn one(result: Result<Summary, Vec<Problem>>, part: Part, reason: &str) {
    let problems = result.expect_err("it is taken");
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].part, part, "{problems:#?}");
    assert!(problems[0].reason.contains(reason), "{problems:#?}");
}

#[test]
fn chains_of_all_common_kinds_are_taken_and_wrong_signatures_are_not() {
    for (algorithm, key) in [(P256, "P-256"), (P384, "P-384"), (RSA, "RSA 2048")] {
        let folder = Folder::chain(algorithm);
        let private = folder.text(&["server.key"]);
        let full = folder.text(&["server.pem", "issuer.pem", "root.pem"]);
        let found = check(&full, &private, now()).unwrap();
        assert_eq!(
            (found.subject.as_str(), found.issuer.as_str()),
            ("CN=server", "CN=issuer")
        );
        assert_eq!(found.key, key);
        assert_eq!(
            found.names,
            ["portal.example", "*.portal.example", "10.1.2.3", "fd00::1"]
        );
        assert!(
            found.warnings.is_empty() && !found.is_self_signed,
            "{found:?}"
        );
        assert!((found.not_after - now() - 30 * DAY).abs() < 3600);
        let told = folder.openssl("x509 -in server.pem -noout -fingerprint -sha256");
        assert!(
            told.trim().ends_with(&format!("={}", found.fingerprint)),
            "{told}"
        );
        check(&folder.text(&["server.pem"]), &private, now()).unwrap();

        // Of the same name, with another key.
        folder.certificate("issuer", algorithm, Some("root"), CA);
        let other = folder.text(&["server.pem", "issuer.pem"]);
        one(
            check(&other, &private, now()),
            Part::Certificate,
            "was not signed with the key",
        );
    }
}

#[test]
fn an_issuer_with_another_kind_of_key_is_taken_and_one_that_cannot_be_verified_is_named() {
    let folder = Folder::chain(RSA);
    folder.certificate("server", P384, Some("issuer"), LEAF);
    let private = folder.text(&["server.key"]);
    let found = check(&folder.text(&["server.pem", "issuer.pem"]), &private, now()).unwrap();
    assert_eq!((found.key.as_str(), found.warnings.len()), ("P-384", 0));

    folder.certificate("issuer", "-algorithm ED25519", Some("root"), CA);
    folder.certificate("server", P256, Some("issuer"), LEAF);
    let private = folder.text(&["server.key"]);
    let found = check(&folder.text(&["server.pem", "issuer.pem"]), &private, now()).unwrap();
    assert!(
        found.warnings[0].contains("was not verified: Ed25519"),
        "{found:?}"
    );
}

#[test]
fn keys_are_taken_in_every_form_and_only_with_their_own_certificate() {
    for (algorithm, traditional) in [(P256, "ec"), (P384, "ec"), (RSA, "rsa")] {
        let folder = Folder::chain(algorithm);
        let certificate = folder.text(&["server.pem"]);
        folder.openssl(
            &format!("{traditional} -in server.key -out old.key -traditional").replace(
                match traditional {
                    "ec" => " -traditional",
                    _ => "\0",
                },
                "",
            ),
        );
        let old = folder.text(&["old.key"]);
        assert!(old.contains(&format!("BEGIN {} PRIVATE KEY", traditional.to_uppercase())));
        check(&certificate, &old, now()).unwrap();
        let other = folder.text(&["root.key"]);
        one(
            check(&certificate, &other, now()),
            Part::Key,
            "does not belong to the certificate of CN=server",
        );
        let foreign = if traditional == "ec" { RSA } else { P256 };
        folder.openssl(&format!("genpkey {foreign} -out foreign.key"));
        let foreign = folder.text(&["foreign.key"]);
        one(
            check(&certificate, &foreign, now()),
            Part::Key,
            "does not belong",
        );
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_all_its_reasons() {
    let folder = Folder::chain(P256);
    let private = folder.text(&["server.key"]);
    let good = folder.text(&["server.pem", "issuer.pem"]);

    let reversed = folder.text(&["issuer.pem", "server.pem"]);
    let problems = check(&reversed, &private, now()).unwrap_err();
    assert!(
        problems[0]
            .reason
            .contains("the key belongs to certificate 2 of it (CN=server)"),
        "{problems:?}"
    );
    assert!(
        problems[1]
            .reason
            .contains("is not the issuer of the one before it"),
        "{problems:?}"
    );
    assert!(
        problems[0]
            .hint
            .as_ref()
            .unwrap()
            .contains("own certificate first")
    );

    let both = check(&good, &private, now() + 31 * DAY).unwrap_err();
    assert_eq!(both.len(), 2, "the issuer's has ended too: {both:?}");
    let late = check(&folder.text(&["server.pem"]), &private, now() + 31 * DAY).unwrap_err();
    assert!(late[0].reason.starts_with("it ended on 20"), "{late:?}");
    let early = check(&folder.text(&["server.pem"]), &private, now() - DAY).unwrap_err();
    assert!(early[0].reason.contains("is not valid before"), "{early:?}");

    for (name, algorithm, extensions, reason) in [
        (
            "client",
            P256,
            "extendedKeyUsage=clientAuth",
            "it is not for servers",
        ),
        (
            "short",
            "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
            "",
            "1024 bits",
        ),
        ("edwards", "-algorithm ED25519", "", "Ed25519"),
        (
            "curve",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
            "",
            "elliptic curve",
        ),
    ] {
        folder.certificate(name, algorithm, Some("issuer"), extensions);
        let problems = check(
            &folder.text(&[&format!("{name}.pem")]),
            &folder.text(&[&format!("{name}.key")]),
            now(),
        );
        let problems = problems.unwrap_err();
        assert!(problems[0].reason.contains(reason), "{name}: {problems:?}");
    }
    // One that is no authority cannot have issued another.
    folder.certificate("below", P256, Some("server"), "");
    let below = folder.text(&["below.pem", "server.pem"]);
    one(
        check(&below, &folder.text(&["below.key"]), now()),
        Part::Certificate,
        "no certification authority",
    );
    folder.certificate("nameless", P256, Some("issuer"), "");
    let nameless = check(
        &folder.text(&["nameless.pem"]),
        &folder.text(&["nameless.key"]),
        now(),
    );
    assert!(nameless.unwrap().warnings[0].contains("no subjectAltName"));

    let problems = check("nothing", "nothing", now()).unwrap_err();
    let parts: Vec<Part> = problems.iter().map(|problem| problem.part).collect();
    assert_eq!(
        parts,
        [Part::Certificate, Part::Key],
        "both at once: {problems:?}"
    );
    let many = folder.text(&["server.pem"; 17]);
    one(
        check(&many, &private, now()),
        Part::Certificate,
        "it holds 17 certificates",
    );
}

#[test]
fn what_is_made_here_is_taken_by_openssl_and_by_ourselves() {
    let folder = Folder::new();
    let wanted = Wanted {
        common_name: "Acme, \"reports\" = \u{1b}[31m".to_owned(),
        names: [
            "portal.example",
            "*.portal.example",
            "localhost",
            "127.0.0.1",
            "::1",
        ]
        .map(str::to_owned)
        .into(),
        not_before: now() - 3600,
        not_after: now() + 800 * DAY,
    };
    let random = |bytes: &mut [u8]| -> std::io::Result<()> {
        use std::io::Read as _;
        fs::File::open("/dev/urandom")?.read_exact(bytes)
    };
    let made = make(&wanted, random).unwrap();
    let found = check(&made.certificate, &made.key, now()).unwrap();
    assert_eq!(found.names, wanted.names);
    assert!(
        found.is_self_signed && found.warnings.is_empty() && !found.subject.contains('\u{1b}'),
        "{found:?}"
    );
    assert_eq!(
        (found.not_before, found.not_after),
        (wanted.not_before, wanted.not_after)
    );
    folder.write("c.pem", &made.certificate);
    folder.write("k.pem", &made.key);
    folder.openssl("verify -x509_strict -CAfile c.pem -purpose sslserver -verify_hostname x.portal.example c.pem");
    folder.openssl("verify -CAfile c.pem -purpose sslserver -verify_ip 127.0.0.1 c.pem");
    let public = folder.openssl("pkey -in k.pem -pubout");
    assert_eq!(folder.openssl("x509 -in c.pem -noout -pubkey"), public);
    assert!(
        folder
            .openssl("pkey -in k.pem -check -noout")
            .contains("valid")
    );
    let text = folder.openssl("x509 -in c.pem -noout -text");
    for part in [
        "CA:FALSE",
        "TLS Web Server Authentication",
        "ecdsa-with-SHA256",
        "IP Address:0:0:0:0:0:0:0:1",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let again = make(&wanted, random).unwrap();
    assert!(again.key != made.key && again.certificate != made.certificate);
    let mut wrong = wanted.clone();
    wrong.names.push("a b".to_owned());
    assert!(make(&wrong, random).is_err());
    assert!(make(&wanted, |_| Err("no entropy")).is_err_and(|error| error == "no entropy"));
    // Past 2049 another form of time is due.
    let late = Wanted {
        not_after: 2_600_000_000,
        ..wanted
    };
    let late = make(&late, random).unwrap();
    assert_eq!(summary(&late.certificate).unwrap().not_after, 2_600_000_000);
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let folder = Folder::chain(P256);
    let (certificate, key) = (
        folder.text(&["server.pem", "issuer.pem"]),
        folder.text(&["server.key"]),
    );
    let der = |text: &str| values::pem::blocks(text).unwrap().remove(0).content;
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let (whole, private) = (der(&certificate), der(&key));
    let strategy = (
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<bool>(),
        any::<bool>(),
    );
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&strategy, |(at, byte, cut, which)| {
            let mut bytes = if which {
                whole.clone()
            } else {
                private.clone()
            };
            let at = at.index(bytes.len());
            let same = bytes[at] == byte;
            match cut {
                true => bytes.truncate(at),
                false => bytes[at] = byte,
            }
            let result = match which {
                true => check(
                    &format!(
                        "{}{}",
                        pem("CERTIFICATE", &bytes),
                        folder.text(&["issuer.pem"])
                    ),
                    &key,
                    now(),
                ),
                false => check(&certificate, &pem("PRIVATE KEY", &bytes), now()),
            };
            // Every byte of a certificate is signed, or its signature.
            prop_assert!(!which || result.is_err() || (same && !cut), "{at} {byte}");
            Ok(())
        })
        .unwrap();
}
