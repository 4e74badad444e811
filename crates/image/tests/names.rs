//! References and times against the text forms that others define.

use image::{Reference, rfc3339};

#[test]
fn references_are_read_and_qualified() {
    for (text, full) in [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        ("acme/backend:v1", "docker.io/acme/backend:v1"),
        ("docker.io/redis:7", "docker.io/library/redis:7"),
        ("localhost/a:1", "localhost/a:1"),
        (
            "r.example:5000/a/b__c/d--e.f:1.0_x-y",
            "r.example:5000/a/b__c/d--e.f:1.0_x-y",
        ),
        ("[2001:db8::1]:5000/a:1", "[2001:db8::1]:5000/a:1"),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.fully_qualified(), full);
        assert_eq!(reference.to_string(), text);
    }
    let digest = format!("acme/a@sha256:{}", "0".repeat(64));
    assert_eq!(
        digest.parse::<Reference>().unwrap().fully_qualified(),
        format!("docker.io/{digest}")
    );
}

#[test]
fn what_is_no_reference_is_refused() {
    let long = "a".repeat(256);
    for text in [
        "",
        "A",
        "a/",
        "/a",
        "a//b",
        "a:",
        "a:-x",
        "a b",
        "a_-b",
        "a..b",
        "a___b",
        "-a",
        "a-",
        "a:b:c",
        "é",
        "r.example:0/a",
        "r.example:99999/a",
        "https://r.example/a",
        "a@sha256:12",
        "a@md5:x",
        &long,
    ] {
        assert!(text.parse::<Reference>().is_err(), "{text} was taken");
    }
}

#[test]
fn parts_must_stay_the_parts_they_are() {
    let reference = Reference::new(Some("r.example"), "acme/backend", "v1").unwrap();
    assert_eq!(reference.to_string(), "r.example/acme/backend:v1");
    assert!(Reference::new(None, "r.example/backend", "v1").is_err());
    assert!(Reference::new(Some("acme"), "backend", "v1").is_err());
    assert!(Reference::new(None, "backend", "v1+2").is_err());
}

#[test]
fn times_are_those_of_the_calendar() {
    for (epoch, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (4_107_542_399, "2100-02-28T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(rfc3339(epoch), text);
    }
}
