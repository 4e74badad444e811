//! The invariants of ARCHITECTURE.md that dependencies show.

use std::process::Command;

/// The crates of the workspace and from outside that a package is built from.
fn tree(package: &str) -> Vec<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{lib}",
            "--package",
            package,
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|l| l.trim_end_matches(" (*)").to_owned())
        .collect()
}

fn knows(package: &str, other: &str) -> bool {
    tree(package).iter().any(|name| name == other)
}

#[test]
fn bake_and_image_do_not_know_each_other() {
    assert!(
        knows("tiffin", "bake") && knows("tiffin", "image"),
        "the listing works"
    );
    for package in ["bake", "recipe"] {
        assert!(!knows(package, "image"), "{package} knows image");
    }
    assert!(!knows("image", "bake"));
    for other in ["recipe", "jinja", "contract"] {
        assert!(!knows("image", other), "image knows {other}");
    }
}

#[test]
fn the_entrypoint_has_no_async_runtime_no_tls_and_nothing_of_the_builder() {
    for other in [
        "tokio",
        "mio",
        "rustls",
        "openssl",
        "native_tls",
        "reqwest",
        "hyper",
        "bake",
        "image",
        "recipe",
    ] {
        assert!(
            !knows("entrypoint", other),
            "the entrypoint is built from {other}"
        );
    }
}

#[test]
fn the_contract_is_types_alone() {
    let own = include_str!("../../contract/Cargo.toml");
    let asked: Vec<&str> = own
        .lines()
        .filter_map(|l| l.split_once(".workspace = true"))
        .map(|(name, _)| name)
        .collect();
    let asked: Vec<&str> = asked
        .into_iter()
        .skip_while(|name| *name != "serde")
        .collect();
    assert_eq!(asked, ["serde", "serde_json"]);
}

#[test]
fn services_does_no_io() {
    assert!(!knows("services", "rustix") && !knows("services", "libc"));
}

#[test]
fn the_rules_of_values_are_one_crate_without_io_that_both_halves_use() {
    assert!(knows("entrypoint", "values") && knows("recipe", "values"));
    for other in ["rustix", "jinja", "recipe", "nix"] {
        assert!(!knows("values", other), "values knows {other}");
    }
}

#[test]
fn certificates_are_read_and_made_without_io() {
    assert!(knows("entrypoint", "certificates"));
    for other in ["rustix", "nix", "getrandom", "ring"] {
        assert!(!knows("certificates", other), "certificates knows {other}");
    }
}
