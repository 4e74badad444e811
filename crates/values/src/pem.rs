//! Certificates and keys in PEM (RFC 7468): the text, its base64, and the outermost
//! structure of what it holds. Whether a signature is good is for those who use it.

/// One block of PEM text.
pub struct Block<'a> {
    /// `CERTIFICATE`
    pub label: &'a str,
    /// Has headers of RFC 1421, which only encrypted keys have.
    pub headers: bool,
    /// What its base64 stands for.
    pub content: Vec<u8>,
}

/// # Errors
///
/// What is wrong, without the text.
pub fn certificates(text: &str) -> Result<(), String> {
    let blocks = blocks(text)?;
    if blocks.is_empty() {
        return Err("it has no `-----BEGIN CERTIFICATE-----`".to_owned());
    }
    for block in &blocks {
        match block.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => {}
            label if label.ends_with("PRIVATE KEY") => {
                return Err("a private key is in it, which everybody could read here".to_owned());
            }
            label => return Err(format!("it has a block `{label}`")),
        }
        // tbsCertificate, signatureAlgorithm, signatureValue (RFC 5280, 4.1).
        match sequence(&block.content).as_deref() {
            Some([SEQUENCE, SEQUENCE, BIT_STRING]) if !block.headers => {}
            _ => return Err("what is in the PEM text is no certificate".to_owned()),
        }
    }
    Ok(())
}

/// # Errors
///
/// What is wrong, without the text.
pub fn key(text: &str) -> Result<(), String> {
    let blocks = blocks(text)?;
    let mut keys = 0;
    for block in &blocks {
        let inside = sequence(&block.content);
        let good = match (block.label, inside.as_deref()) {
            ("ENCRYPTED PRIVATE KEY", _) => false,
            _ if block.headers => false,
            // openssl ecparam writes the curve before the key.
            ("EC PARAMETERS", _) => continue,
            // version, algorithm, key (RFC 5958)
            ("PRIVATE KEY", Some([INTEGER, SEQUENCE, OCTET_STRING, ..])) => true,
            // version, modulus, … (RFC 8017, A.1.2)
            ("RSA PRIVATE KEY", Some(parts)) => {
                parts.len() >= 9 && parts.iter().take(9).all(|p| *p == INTEGER)
            }
            // version, key (RFC 5915)
            ("EC PRIVATE KEY", Some([INTEGER, OCTET_STRING, ..])) => true,
            ("PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY", _) => {
                return Err("what is in the PEM text is no private key".to_owned());
            }
            (label, _) => return Err(format!("it has a block `{label}`")),
        };
        if !good {
            return Err(
                "it is encrypted, and nobody in the box could type the passphrase".to_owned(),
            );
        }
        keys += 1;
    }
    match keys {
        1 => Ok(()),
        0 => Err("it has no `-----BEGIN PRIVATE KEY-----`".to_owned()),
        n => Err(format!("it holds {n} keys")),
    }
}

/// All blocks; text between them is explanation (RFC 7468, 2).
///
/// # Errors
///
/// What is wrong, without the text.
pub fn blocks(text: &str) -> Result<Vec<Block<'_>>, String> {
    let mut out = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, "BEGIN") else {
            if line.starts_with("-----") {
                return Err("a block does not begin with -----BEGIN …-----".to_owned());
            }
            continue;
        };
        if label.is_empty()
            || !label
                .bytes()
                .all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b' '))
        {
            return Err("the name of a block is malformed".to_owned());
        }
        let mut base64 = String::new();
        let mut headers = false;
        loop {
            let line = lines
                .next()
                .ok_or_else(|| format!("the block `{label}` has no end"))?;
            match boundary(line, "END") {
                Some(end) if end == label => break,
                Some(_) => return Err(format!("the block `{label}` ends as another one")),
                None if line.contains(':') => headers = true,
                None => base64.push_str(line.trim()),
            }
        }
        let content = decode(&base64)
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| format!("the base64 of the block `{label}` is malformed"))?;
        out.push(Block {
            label,
            headers,
            content,
        });
    }
    Ok(out)
}

fn boundary<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?
        .strip_prefix(word)?
        .strip_prefix(' ')?
        .strip_suffix("-----")
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let bare = text.trim_end_matches('=');
    if text.len() - bare.len() > 2 {
        return None;
    }
    base64_digits(bare.bytes())
}

/// The bytes that base64 digits (RFC 4648) without padding stand for; `None` when one is no digit. Bits that
/// are left over count for nothing.
pub fn base64_digits(text: impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The tags of what the one DER sequence in `bytes` holds; `None` when a length is wrong.
fn sequence(bytes: &[u8]) -> Option<Vec<u8>> {
    let (tag, mut inside, rest) = element(bytes)?;
    if tag != SEQUENCE || !rest.is_empty() {
        return None;
    }
    let mut tags = Vec::new();
    while !inside.is_empty() {
        let (tag, _, rest) = element(inside)?;
        tags.push(tag);
        inside = rest;
    }
    Some(tags)
}

/// Tag, content and what follows of one DER element with a short tag.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let length = match first {
        0..=0x7f => usize::from(*first),
        0x81..=0x84 => {
            let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = after;
            digits
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}
