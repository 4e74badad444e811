//! Documents of the cache, each with its own digest on the line after it: what a disk, a
//! full file system or a person has changed since is noticed when it is read.

use std::{fs, io, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::cache::hex;

/// A document, which must have no newline in it, as it is written.
pub fn seal(document: &[u8]) -> Vec<u8> {
    let digest = hex(&Sha256::digest(document));
    let line = format!("\n{{\"sha256\":\"{digest}\"}}\n");
    [document, line.as_bytes()].concat()
}

/// A value as a sealed document.
pub fn of(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    Ok(seal(&serde_json::to_vec(value)?))
}

/// The value at `path`, `None` when it is damaged or of another form.
///
/// # Errors
///
/// It is not there, or cannot be read.
pub fn value<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    Ok(read(path)?.and_then(|document| serde_json::from_slice(&document).ok()))
}

/// The document in `text`; `None` unless it is what was sealed.
pub fn open(text: &[u8]) -> Option<&[u8]> {
    let line = text.strip_suffix(b"\n")?;
    let end = line.iter().rposition(|byte| *byte == b'\n')?;
    let document = &text[..end];
    (seal(document) == text).then_some(document)
}

/// The document at `path`, `None` when it is damaged.
///
/// # Errors
///
/// It is not there, or cannot be read.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let text = fs::read(path)?;
    Ok(open(&text).map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let text = seal(b"{\"a\":1}");
        assert_eq!(open(&text), Some(&b"{\"a\":1}"[..]));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bad = text.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(open(&bad), None, "byte {at}, bit {bit}");
            }
            assert_eq!(open(&text[..at]), None, "cut at {at}");
        }
        assert_eq!(open(b""), None);
        assert_eq!(open(b"\n"), None);
    }
}
