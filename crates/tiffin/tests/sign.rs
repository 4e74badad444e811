//! Signatures as a vendor makes them and a customer checks them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use minisign::KeyPair;

/// Exit code and both streams.
fn tiffin(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tiffin"))
        .args(arguments)
        .env_remove("TIFFIN_SIGN_KEY")
        .env_remove("TIFFIN_SIGN_PASSWORD")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
    (out.status.code().unwrap(), text)
}

/// An archive with its signature, made by the same library that `tiffin build` uses.
fn signed(place: &Path, keys: &KeyPair, comment: &str) -> PathBuf {
    let archive = place.join("backend-v1.tar");
    // Longer than one read.
    fs::write(&archive, vec![7; 3_000_000]).unwrap();
    let file = fs::File::open(&archive).unwrap();
    let text = minisign::sign(None, &keys.sk, file, Some(comment), None).unwrap();
    fs::write(place.join("backend-v1.tar.minisig"), text.into_string()).unwrap();
    archive
}

#[test]
fn a_right_signature_passes_and_nothing_else_does() {
    let place = tempfile::tempdir().unwrap();
    let keys = KeyPair::generate_unencrypted_keypair().unwrap();
    let archive = signed(place.path(), &keys, "file:backend-v1.tar\x1b[2J");
    let public = place.path().join("acme.pub");
    fs::write(&public, keys.pk.to_box().unwrap().into_string()).unwrap();
    let (archive, public) = (archive.to_str().unwrap(), public.to_str().unwrap());
    let verify = |key: &str| tiffin(&["verify", archive, "--key", key], &[]);

    // The key as a file and as text.
    for key in [public, &keys.pk.to_base64()] {
        let (code, text) = verify(key);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains("file:backend-v1.tar") && !text.contains('\x1b'),
            "{text}"
        );
    }
    let other = KeyPair::generate_unencrypted_keypair().unwrap();
    let (code, text) = verify(&other.pk.to_base64());
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("was signed with another key"), "{text}");
    let (code, text) = verify(archive);
    assert_eq!(code, 1, "{text}");

    // Each part of what is trusted.
    let signature = format!("{archive}.minisig");
    let text = fs::read_to_string(&signature).unwrap();
    fs::write(&signature, text.replace("backend-v1", "backend-v2")).unwrap();
    let (code, told) = verify(public);
    assert_eq!(code, 3, "{told}");
    fs::write(&signature, "no signature\n").unwrap();
    let (code, told) = verify(public);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("it is no signature of minisign"), "{told}");
    fs::write(&signature, text).unwrap();
    let mut bytes = fs::read(archive).unwrap();
    bytes[2_500_000] ^= 1;
    fs::write(archive, bytes).unwrap();
    let (code, told) = verify(public);
    assert_eq!(code, 3, "{told}");
    assert!(
        told.contains("is not what was signed: do not load it"),
        "{told}"
    );
    fs::remove_file(&signature).unwrap();
    assert_eq!(verify(public).0, 1);
}

/// Before anything is baked, and without the password in what is said.
#[test]
fn a_build_refuses_a_key_that_it_cannot_use_at_once() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("tiffin.yaml"), "name: test/small\nplaybook: site.yml\n").unwrap();
    fs::write(at("site.yml"), "- hosts: all\n").unwrap();
    fs::write(at("entrypoint"), "").unwrap();
    fs::write(at("other"), "not a key\n").unwrap();
    let keys = KeyPair::generate_encrypted_keypair(Some("right".to_owned())).unwrap();
    fs::write(at("key"), keys.sk.to_box(None).unwrap().into_string()).unwrap();
    let build = |key: &str, password: Option<&str>| {
        let (recipe, entrypoint, output) = (at("tiffin.yaml"), at("entrypoint"), at("dist"));
        let arguments = [
            "build",
            "--version",
            "v1",
            "--file",
            &recipe,
            "--entrypoint",
            &entrypoint,
            "--output",
            &output,
            "--cache",
            &at("cache"),
            "--sign",
            key,
        ];
        let password = password.map(|text| ("TIFFIN_SIGN_PASSWORD", text));
        let (code, text) = tiffin(&arguments, password.as_slice());
        assert_eq!(code, 1, "{text}");
        assert!(
            text.starts_with(&format!("error: cannot use the signing key {key}: ")),
            "{text}"
        );
        assert!(!Path::new(&output).exists());
        text
    };
    assert!(build(&at("missing"), None).contains("No such file"));
    assert!(build(&at("other"), None).contains("no secret key of minisign"));
    assert!(build(&at("key"), None).contains("give its password in TIFFIN_SIGN_PASSWORD"));
    let told = build(&at("key"), Some("sesame"));
    assert!(
        told.contains("Wrong password") && !told.contains("sesame"),
        "{told}"
    );
}
