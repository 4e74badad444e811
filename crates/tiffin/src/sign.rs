//! Signatures of archives, as the public tool `minisign` writes and checks them: Ed25519 over
//! BLAKE2b, with a trusted comment that names the release.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minisign::{PublicKey as PublicHalf, SecretKey, SecretKeyBox};
use minisign_verify::{PublicKey, Signature};

use crate::cli;

/// Where the password of a key comes from: never the command line, which everybody sees.
pub const PASSWORD: &str = "TIFFIN_SIGN_PASSWORD";

/// Keys and signatures are files of some hundred bytes.
const MAX_SMALL: u64 = 64 << 10;

/// A secret key, ready to sign.
pub struct Key(SecretKey);

impl Key {
    /// Reads the key file; `password` is for one that is encrypted.
    ///
    /// To be called before a build begins, so that a wrong password costs no build.
    pub fn read(path: &Path, password: Option<String>) -> Result<Key> {
        let cannot = || format!("cannot use the signing key {}", path.display());
        let text = small(path).with_context(cannot)?;
        let parsed = SecretKeyBox::from_string(&text)
            .map_err(|_| anyhow!("it is not a secret key of minisign"))
            .with_context(cannot)?;
        if let Some(key) = without_checksum(&text) {
            return Ok(Key(key));
        }
        // Only the plain form says by an error of its own that it is not the plain form.
        let key = match (parsed.into_unencrypted_secret_key(), password) {
            (Ok(key), _) => key,
            (Err(error), None) if !matches!(error.kind(), minisign::ErrorKind::Verify) => {
                return Err(anyhow!(
                    "it is encrypted or no secret key of minisign: give its password in {PASSWORD}"
                ))
                .with_context(cannot);
            }
            (Err(error), None) => return Err(anyhow!("{error}")).with_context(cannot),
            (Err(_), Some(password)) => SecretKeyBox::from_string(&text)
                .and_then(|parsed| parsed.into_secret_key(Some(password)))
                .map_err(|error| anyhow!("{error} ({PASSWORD} was tried)"))
                .with_context(cannot)?,
        };
        Ok(Key(key))
    }

    /// The text of ARCHIVE.minisig.
    pub fn sign(&self, archive: &Path, epoch: u64) -> Result<String> {
        let file =
            File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        let name = archive
            .file_name()
            .unwrap_or(OsStr::new(""))
            .to_string_lossy();
        // As minisign itself writes it: with the version in it, an old release that is
        // served under a new name does not pass unseen.
        let trusted = format!("timestamp:{epoch}\tfile:{name}\thashed");
        let public = PublicHalf::from_secret_key(&self.0).map_err(|error| anyhow!("{error}"))?;
        let signed = minisign::sign(
            // Compared with the signature: a damaged key signs nothing.
            Some(&public),
            &self.0,
            file,
            Some(&trusted),
            Some("signature of a release by tiffin"),
        )
        .map_err(|error| anyhow!("cannot sign {}: {error}", archive.display()))?;
        Ok(signed.into_string())
    }
}

/// A key without password as `minisign -G -W` writes it, with zeros for a checksum, which the
/// library takes for damage. Its layout: algorithms 6, salt and limits 48, key number 8,
/// Ed25519 key 64, checksum 32 bytes.
fn without_checksum(text: &str) -> Option<SecretKey> {
    let bytes = BASE64_STANDARD.decode(text.lines().nth(1)?.trim()).ok()?;
    let plain = bytes.len() == 158 && bytes[2..4] == [0, 0] && bytes[126..] == [0; 32];
    plain.then(|| SecretKey::from_bytes(&bytes).ok()).flatten()
}

/// `tiffin verify`; whether the signature is wrong.
pub fn verify(words: &cli::Verify) -> Result<bool> {
    let key = public_key(&words.key)?;
    let place = match &words.signature {
        Some(path) => path.clone(),
        None => signature_of(&words.archive),
    };
    let text =
        small(&place).with_context(|| format!("cannot read the signature {}", place.display()))?;
    let signature = Signature::decode(&text).map_err(|_| {
        anyhow!(
            "cannot use {}: it is no signature of minisign",
            place.display()
        )
    })?;
    let shown = words.archive.display();
    let mut check = match key.verify_stream(&signature) {
        Ok(check) => check,
        Err(minisign_verify::Error::UnexpectedKeyId) => {
            eprintln!("error: {shown} was signed with another key than the one given");
            return Ok(true);
        }
        Err(error) => bail!("cannot use {}: {error}", place.display()),
    };
    let cannot = || format!("cannot read {shown}");
    let mut file = File::open(&words.archive).with_context(cannot)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(cannot)? {
            0 => break,
            count => check.update(&buffer[..count]),
        }
    }
    if check.finalize().is_err() {
        eprintln!("error: {shown} is not what was signed: do not load it");
        return Ok(true);
    }
    println!("{shown}: the signature is right");
    println!(
        "{}",
        crate::inspect::shown(signature.trusted_comment().as_bytes())
    );
    Ok(false)
}

pub fn signature_of(archive: &Path) -> PathBuf {
    let mut name = archive.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// A file that `minisign -G` wrote, or the key itself.
fn public_key(given: &str) -> Result<PublicKey> {
    if let Ok(key) = PublicKey::from_base64(given) {
        return Ok(key);
    }
    let text =
        small(Path::new(given)).with_context(|| format!("cannot read the public key {given}"))?;
    PublicKey::decode(&text)
        .map_err(|_| anyhow!("cannot use {given}: it is no public key of minisign"))
}

fn small(path: &Path) -> Result<String> {
    let mut text = String::new();
    let size = File::open(path)?
        .take(MAX_SMALL + 1)
        .read_to_string(&mut text)? as u64;
    if size > MAX_SMALL {
        bail!("it is larger than {MAX_SMALL} bytes");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_password_and_checksum_signs_unless_it_is_damaged() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let keys = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let mut bytes = keys.sk.to_bytes();
        bytes[126..].fill(0);
        std::fs::write(at("a.tar"), "content").unwrap();
        let sign = |bytes: &[u8]| {
            let text = format!("untrusted comment: x\n{}\n", BASE64_STANDARD.encode(bytes));
            std::fs::write(at("key"), text).unwrap();
            Key::read(&at("key"), None)?.sign(&at("a.tar"), 1)
        };
        let text = sign(&bytes).unwrap();
        let signature = Signature::decode(&text).unwrap();
        let public = public_key(&keys.pk.to_base64()).unwrap();
        public.verify(b"content", &signature, false).unwrap();
        assert_eq!(
            signature.trusted_comment(),
            "timestamp:1\tfile:a.tar\thashed"
        );
        bytes[70] ^= 1;
        assert!(sign(&bytes).is_err());
    }
}
