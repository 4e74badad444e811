//! Signatures of archives, as the public tool `minisign` writes and checks them: Ed25519 over
//! BLAKE2b, with a trusted comment that names the release.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use minisign::{SecretKey, SecretKeyBox};
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
        let signed = minisign::sign(
            None,
            &self.0,
            file,
            Some(&trusted),
            Some("signature of a release by tiffin"),
        )
        .map_err(|error| anyhow!("cannot sign {}: {error}", archive.display()))?;
        Ok(signed.into_string())
    }
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
