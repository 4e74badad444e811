use super::*;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use serde_json::json;

fn setting(kind: &str) -> Setting {
    serde_json::from_value(json!({"variable": "v", "type": kind})).unwrap()
}

#[test]
fn typed_values() {
    for (kind, text, value) in [
        ("int", "-5", json!(-5)),
        ("int", " 12 ", json!(12)),
        ("port", "8080", json!(8080)),
        ("bool", "YES", json!(true)),
        ("bool", "0", json!(false)),
        ("list", "a, b,", json!(["a", "b"])),
        ("list", "", json!([])),
        ("list", "[1, \"x\"]", json!([1, "x"])),
        (
            "map",
            "{\"b\":1,\"a\":{\"c\":[null,2.5]}}",
            json!({"b": 1, "a": {"c": [null, 2.5]}}),
        ),
        ("size", "256MB", json!("256MB")),
        ("duration", "15m", json!("15m")),
        ("host", "::1", json!("::1")),
        ("host", "[::1]", json!("[::1]")),
        ("host", "mail.acme.example", json!("mail.acme.example")),
        ("host", "my_service", json!("my_service")),
        ("url", "redis://x:1/0", json!("redis://x:1/0")),
        (
            "url",
            "mongodb://u:p%40@a:27017,b:27018/db?x=1",
            json!("mongodb://u:p%40@a:27017,b:27018/db?x=1"),
        ),
        ("url", "unix:///run/x.sock", json!("unix:///run/x.sock")),
        ("url", "http://[::1]:8080/", json!("http://[::1]:8080/")),
        ("email", "a.b+c@acme.example", json!("a.b+c@acme.example")),
        ("email", "backend@localhost", json!("backend@localhost")),
        ("path", "/data", json!("/data")),
        ("percent", "75%", json!("75%")),
        ("percent", "12.5", json!("12.5")),
        (
            "cron",
            "*/5 0-6,22 1,15 jan-mar Sun",
            json!("*/5 0-6,22 1,15 jan-mar Sun"),
        ),
        ("cron", "@daily", json!("@daily")),
        (
            "timezone",
            "America/Argentina/Buenos_Aires",
            json!("America/Argentina/Buenos_Aires"),
        ),
        ("timezone", "Etc/GMT+1", json!("Etc/GMT+1")),
    ] {
        assert_eq!(convert(&setting(kind), text), Ok(value), "{kind} {text}");
    }
}

#[test]
fn refused_values() {
    for (kind, text) in [
        ("string", "a\nb"),
        ("string", "a\u{1b}[2J"),
        ("secret", "a\u{2028}b"),
        ("int", "1.5"),
        ("int", ""),
        ("port", "0"),
        ("port", "65536"),
        ("bool", "maybe"),
        ("list", "[1"),
        ("list", "a,,b"),
        ("list", ","),
        ("list", "a\nb,c"),
        ("list", "[\"a\\nb\"]"),
        ("map", "[]"),
        ("map", "{\"a\":1,\"a\":2}"),
        ("map", "{\"a\\n\":1}"),
        ("map", "{} x"),
        ("size", "12q"),
        ("size", "-1"),
        ("size", "256 mb"),
        ("size", "mb"),
        ("size", "9999999999999g"),
        ("duration", "m"),
        ("duration", "1h30m"),
        ("duration", "99999999999999999d"),
        ("host", "a:80"),
        ("host", "a b"),
        ("host", "10.0.0.256"),
        ("host", "[a]"),
        ("host", "-a"),
        ("host", ""),
        ("url", "acme.example"),
        ("url", "http://"),
        ("url", "http://a b"),
        ("url", "http://a:99999/"),
        ("url", "http://a/%zz"),
        ("url", "1http://a"),
        ("email", "x@"),
        ("email", "a..b@x"),
        ("email", "A <a@x>"),
        ("email", "a@b@x"),
        ("path", "data"),
        ("path", "/a\nb"),
        ("percent", "101"),
        ("percent", "-1"),
        ("percent", "1e1"),
        ("percent", ".5"),
        ("percent", "%"),
        ("cron", "* * * *"),
        ("cron", "60 * * * *"),
        ("cron", "* 24 * * *"),
        ("cron", "* * 0 * *"),
        ("cron", "* * * 13 *"),
        ("cron", "* * * * 8"),
        ("cron", "5-1 * * * *"),
        ("cron", "*/0 * * * *"),
        ("cron", "5/2 * * * *"),
        ("cron", "* * * jan,,feb *"),
        ("cron", "@often"),
        ("cron", "0 0 * * *\n* * * * * x"),
        ("timezone", "../../etc/passwd"),
        ("timezone", "/Europe/Paris"),
        ("timezone", "Europe//Paris"),
        ("timezone", "Europe/Paris; x"),
    ] {
        let said = convert(&setting(kind), text);
        assert!(said.is_err(), "{kind} {text}: {said:?}");
    }
}

#[test]
fn ranges_and_patterns() {
    let mut s = setting("size");
    s.min = Some(1 << 20);
    assert!(convert(&s, "512k").is_err());
    assert!(convert(&s, "1m").is_ok());
    let mut s = setting("percent");
    s.max = Some(50);
    assert!(convert(&s, "50.5%").is_err());
    assert!(convert(&s, "50%").is_ok());
    let mut s = setting("string");
    s.pattern = Some("[a-z]+|x1".to_owned());
    assert!(convert(&s, "abc").is_ok());
    assert!(convert(&s, "abc\n").is_err());
    assert_eq!(
        convert(&s, "abc1"),
        Err("text that matches [a-z]+|x1".to_owned())
    );
    assert!(pattern(")(").is_err());
}

#[test]
fn nothing_is_a_value_where_the_default_is_nothing() {
    let mut s = setting("host");
    assert!(convert(&s, "").is_err());
    s.default = Some(json!(""));
    assert_eq!(convert(&s, ""), Ok(json!("")));
    s.required = true;
    assert!(convert(&s, "").is_err());
    assert!(
        convert(&setting("secret"), "").is_ok(),
        "one line; the sources refuse it"
    );
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ 0..128 => out.push(n as u8),
        n => out.extend([0x82, (n >> 8) as u8, n as u8]),
    }
    out.extend(content);
    out
}

fn pem_text(label: &str, content: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(content);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// `openssl req -x509 -newkey ed25519 -nodes -subj /CN=box.example`
const REAL: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBQjCB9aADAgECAhRECR71k6DMej/lQkxzDf2BkBtz5jAFBgMrZXAwFjEUMBIG\n\
A1UEAwwLYm94LmV4YW1wbGUwIBcNMjYxMTIxMDczNzE0WhgPMjEyNjEwMjgwNzM3\n\
MTRaMBYxFDASBgNVBAMMC2JveC5leGFtcGxlMCowBQYDK2VwAyEAinnOKwbKVwSv\n\
OZFN//mQJhnSHTL7BqmtWZHArQMP2PSjUzBRMB0GA1UdDgQWBBRmSSlT2RiJq1dA\n\
gLeRqiUU0O+63zAfBgNVHSMEGDAWgBRmSSlT2RiJq1dAgLeRqiUU0O+63zAPBgNV\n\
HRMBAf8EBTADAQH/MAUGAytlcANBAOxet8wlW0hUjPXybTCMSQUXZYSdsgLN+JHO\n\
PIU8BavNTzPQY7p6PvdRoODt6BXbQ3QMrNGTcJ71T7R+jBTkxQM=\n\
-----END CERTIFICATE-----\n\n";

#[test]
fn certificates_are_taken_as_programs_write_them() {
    let c = setting("certificate");
    for good in [
        REAL.to_owned(),
        REAL.replace('\n', "\r\n"),
        format!("subject=CN = box.example\n{REAL}\n{REAL}"),
    ] {
        assert!(convert(&c, &good).is_ok(), "{good}");
    }
    let key = pem_text("PRIVATE KEY", &der(0x30, &[2, 1, 0, 0x30, 0, 4, 0]));
    let middle = REAL.len() / 2;
    for bad in [
        "x".to_owned(),
        REAL.replace("END CERTIFICATE", "END KEY"),
        REAL.replace("-----END CERTIFICATE-----", ""),
        format!("{}{}", &REAL[..middle], &REAL[middle + 4..]),
        format!("{}!{}", &REAL[..middle], &REAL[middle + 1..]),
        REAL.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
        pem_text("CERTIFICATE", &der(0x30, &[2, 1, 0])),
        pem_text("CERTIFICATE", b"hello"),
        format!("{REAL}{key}"),
    ] {
        let said = convert(&c, &bad);
        assert!(said.is_err(), "{bad}");
    }
    assert!(
        convert(&c, &format!("{REAL}{key}"))
            .unwrap_err()
            .contains("everybody could read")
    );
}

#[test]
fn keys_are_whole_and_not_encrypted() {
    let k = setting("key");
    let nine: Vec<u8> = [2, 1, 5].repeat(9);
    let pkcs8 = pem_text("PRIVATE KEY", &der(0x30, &[2, 1, 0, 0x30, 0, 4, 0]));
    let rsa = pem_text("RSA PRIVATE KEY", &der(0x30, &nine));
    let ec = pem_text("EC PRIVATE KEY", &der(0x30, &[2, 1, 1, 4, 1, 9]));
    let curve = pem_text("EC PARAMETERS", &[6, 1, 1]);
    for good in [&pkcs8, &rsa, &ec, &format!("{curve}{ec}")] {
        assert!(convert(&k, good).is_ok(), "{good}");
    }
    let encrypted = pem_text("ENCRYPTED PRIVATE KEY", &der(0x30, &[0x30, 0, 4, 0]));
    let old = rsa.replacen(
        '\n',
        "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n",
        1,
    );
    for bad in [&encrypted, &old] {
        assert!(convert(&k, bad).unwrap_err().contains("encrypted"), "{bad}");
    }
    for bad in [
        REAL,
        &curve,
        &format!("{pkcs8}{rsa}"),
        &pem_text("PRIVATE KEY", &der(0x30, &nine)),
    ] {
        assert!(convert(&k, bad).is_err(), "{bad}");
    }
}

fn kinds() -> impl Strategy<Value = Setting> {
    proptest::sample::select(vec![
        "string",
        "int",
        "bool",
        "port",
        "host",
        "url",
        "email",
        "list",
        "map",
        "duration",
        "size",
        "path",
        "percent",
        "cron",
        "timezone",
        "certificate",
        "key",
        "secret",
    ])
    .prop_map(setting)
}

#[test]
fn a_class_by_unicode_property_is_refused_whoever_brings_its_tables() {
    for text in [r"\p{Greek}+", r"[\PL]", r"\\\pN", r"(?i)x\p{Lu}"] {
        assert!(pattern(text).unwrap_err().contains("property"), "{text}");
        assert!(search(text).unwrap_err().contains("property"), "{text}");
    }
    for (text, value) in [(r"\\p", r"\p"), (r"\w+", "größe7"), (r"(?i)É\d", "é٣")] {
        assert!(pattern(text).unwrap().is_match(value).unwrap(), "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_no_refusal_quotes_the_text(setting in kinds(), text in ".{0,80}|[-0-9a-z*/@:,.%\\[\\]]{0,40}") {
        if let Err(said) = convert(&setting, &format!("CANARY{text}")) {
            prop_assert!(!said.contains("CANARY"));
        }
        let _ = convert(&setting, &text);
    }

    #[test]
    fn no_value_but_a_certificate_or_key_has_two_lines(setting in kinds(), text in "[a-z0-9/:@.]{1,8}[\n\r\u{b}\u{85}][a-z0-9/:@.]{1,8}") {
        if let Ok(value) = convert(&setting, &text) {
            prop_assert!(!text_of(&value).contains(|c: char| c.is_control()), "{value}");
        }
    }

    #[test]
    fn corrupt_pem_is_an_error_and_no_crash(at in 0usize..400, byte in any::<u8>()) {
        let mut bytes = REAL.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = convert(&setting("certificate"), &String::from_utf8_lossy(&bytes));
        let _ = convert(&setting("key"), &String::from_utf8_lossy(&bytes));
    }
}
