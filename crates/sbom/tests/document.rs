//! The document of stacked trees, against CycloneDX's own schema.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use image::Source;
use sbom::{Found, Product};
use serde_json::{Value, json};

const PRODUCT: Product = Product {
    name: "registry.acme.example/acme/backend",
    version: "v1.2.3",
    description: Some("A backend."),
    vendor: Some("Acme"),
    licenses: Some("Apache-2.0 AND SSPL-1.0"),
    sha256: "61dd96fe8dd815a3dad7ab45f9cca3c5ca132f2adca441e2e09ad9bdb9014ac6",
    manifest_digest: "sha256:b2021bb79f7a19322b4192cfcebd11c52d28ccd0b4c3b3ab11ed35318db2ed3a",
    builder: "0.1.0",
    created: "2023-11-14T22:13:20Z",
};

/// Part of CycloneDX 1.6's schema is that of signatures, which Tiffin does not write here.
/// The copy lacks descriptions and examples, and has the list of SPDX within.
fn valid(document: &[u8]) -> Value {
    let schema: Value = serde_json::from_str(include_str!("cyclonedx-1.6.schema.json")).unwrap();
    let document: Value = serde_json::from_slice(document).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The schema cannot say it: references are unique and lead somewhere.
    let mut references: Vec<&str> = document["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["bom-ref"].as_str().unwrap())
        .collect();
    let asked: Vec<&str> = document["dependencies"][0]["dependsOn"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reference| reference.as_str().unwrap())
        .collect();
    assert_eq!(asked, references);
    references.sort_unstable();
    let count = references.len();
    references.dedup();
    assert_eq!(count, references.len());
    document
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn trees(place: &Path) -> (PathBuf, PathBuf) {
    let (base, app) = (place.join("base"), place.join("app"));
    write(
        &base,
        "usr/lib/os-release",
        "ID=debian\nVERSION_ID=\"12\"\n",
    );
    write(
        &base,
        "var/lib/dpkg/status",
        "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n",
    );
    write(
        &app,
        "var/lib/dpkg/status",
        "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:12.2.0-14+deb12u1\n",
    );
    let flask = "Name: Flask_Login\nVersion: 0.6.3\nLicense-Expression: MIT\n";
    let other = "Name: flask.login\nVersion: 0.6.3\n";
    let one = "opt/a/lib/python3.11/site-packages/Flask_Login-0.6.3.dist-info/METADATA";
    let two = "opt/b/lib/python3.11/site-packages/flask_login-0.6.3.dist-info/METADATA";
    write(&app, one, flask);
    write(&app, two, other);
    write(
        &app,
        "opt/a/lib/python3.11/site-packages/bad-1.dist-info/METADATA",
        "\n",
    );
    (base, app)
}

fn found(base: &Path, app: &Path) -> Found {
    sbom::find(&[(base, Source::Tree), (app, Source::Overlay)]).unwrap()
}

#[test]
fn a_document_is_valid_and_names_what_the_upper_tree_says() {
    let place = tempfile::tempdir().unwrap();
    let (base, app) = trees(place.path());
    let found = found(&base, &app);
    assert_eq!(
        found.unreadable,
        ["/opt/a/lib/python3.11/site-packages/bad-1.dist-info/METADATA names no distribution"]
    );
    let document = sbom::document(&PRODUCT, &found);
    let json = valid(&document);
    assert_eq!(
        json["components"],
        json!([
            {
                "type": "library",
                "bom-ref": "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
                "name": "libstdc++6",
                "version": "1:12.2.0-14+deb12u1",
                "purl": "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
            },
            {
                "type": "library",
                "bom-ref": "pkg:pypi/flask-login@0.6.3",
                "name": "Flask_Login",
                "version": "0.6.3",
                "licenses": [{"expression": "MIT"}],
                "purl": "pkg:pypi/flask-login@0.6.3",
                "evidence": {"occurrences": [
                    {"location": "/opt/a/lib/python3.11/site-packages/Flask_Login-0.6.3.dist-info/METADATA"},
                    {"location": "/opt/b/lib/python3.11/site-packages/flask_login-0.6.3.dist-info/METADATA"},
                ]},
            },
            {"type": "application", "bom-ref": "tiffin-entrypoint", "name": "tiffin-entrypoint", "version": "0.1.0"},
        ])
    );
    assert_eq!(
        json["metadata"]["component"],
        json!({
            "type": "container",
            "bom-ref": "box",
            "supplier": {"name": "Acme"},
            "name": "registry.acme.example/acme/backend",
            "version": "v1.2.3",
            "description": "A backend.",
            "hashes": [{"alg": "SHA-256", "content": PRODUCT.sha256}],
            "licenses": [{"expression": "Apache-2.0 AND SSPL-1.0"}],
            "purl": format!("pkg:oci/backend@{}?repository_url=registry.acme.example%2Facme%2Fbackend&tag=v1.2.3", PRODUCT.manifest_digest),
        })
    );
    assert_eq!(json["metadata"]["timestamp"], PRODUCT.created);
}

#[test]
fn the_same_content_is_the_same_document_and_other_content_has_another_number() {
    let place = tempfile::tempdir().unwrap();
    let (base, app) = trees(place.path());
    let found = found(&base, &app);
    let one = sbom::document(&PRODUCT, &found);
    // What a build keeps of an earlier one.
    let kept: Found = serde_json::from_slice(&serde_json::to_vec(&found).unwrap()).unwrap();
    assert_eq!(sbom::document(&PRODUCT, &kept), one);
    let number = |document: &[u8]| {
        let json: Value = serde_json::from_slice(document).unwrap();
        json["serialNumber"].as_str().unwrap().to_owned()
    };
    let other = Product {
        version: "v1.2.4",
        ..PRODUCT
    };
    assert_ne!(number(&one), number(&sbom::document(&other, &found)));
    assert_eq!(number(&one), number(&one));
}

/// A database that is a link would be read from the machine that builds.
#[test]
fn links_are_not_followed_out_of_the_tree() {
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("outside");
    write(
        &outside,
        "a-1.dist-info/METADATA",
        "Name: outside\nVersion: 1\n",
    );
    write(
        &outside,
        "status",
        "Package: outside\nStatus: install ok installed\nVersion: 1\n",
    );
    let root = place.path().join("root");
    fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
    symlink(outside.join("status"), root.join("var/lib/dpkg/status")).unwrap();
    fs::create_dir_all(root.join("venv")).unwrap();
    symlink(&outside, root.join("venv/site-packages")).unwrap();
    let found = sbom::find(&[(&root, Source::Tree)]).unwrap();
    assert_eq!(found, Found::default());
}

#[test]
fn a_box_of_nothing_known_is_still_a_document() {
    let bare = Product {
        name: "backend",
        description: None,
        vendor: None,
        licenses: None,
        ..PRODUCT
    };
    let json = valid(&sbom::document(&bare, &Found::default()));
    assert_eq!(json["components"].as_array().unwrap().len(), 1);
    assert_eq!(
        json["metadata"]["component"]["purl"],
        format!("pkg:oci/backend@{}?tag=v1.2.3", bare.manifest_digest)
    );
}
