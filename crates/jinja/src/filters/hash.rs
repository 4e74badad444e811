//! Digests and encodings.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use minijinja::value::Value;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::Filter;
use crate::fault::{self, Result};
use crate::runtime::Call;
use crate::value::{View, view};
use crate::{budget, python};

pub const FILTERS: &[(&str, Filter)] = &[
    ("b64decode", |call| {
        let bytes = decode(&call.input()?).ok_or_else(|| fault::refused("no base64"))?;
        String::from_utf8(bytes)
            .map(Value::from)
            .map_err(|_| fault::error("base64 of what is no UTF-8"))
    }),
    ("b64encode", |call| {
        Ok(Value::from(
            BASE64_STANDARD.encode(call.input()?.as_bytes()),
        ))
    }),
    ("checksum", |call| {
        Ok(Value::from(hex(&sha1(call.input()?.as_bytes()))))
    }),
    ("hash", hash),
    ("md5", |call| {
        Ok(Value::from(hex(&md5(call.input()?.as_bytes()))))
    }),
    ("password_hash", password_hash),
    ("sha1", |call| {
        Ok(Value::from(hex(&sha1(call.input()?.as_bytes()))))
    }),
    ("to_uuid", |call| {
        // The namespace 361E6D51-FAEC-444A-9079-341386DA8E2E is Ansible's.
        let mut data = vec![
            0x36, 0x1e, 0x6d, 0x51, 0xfa, 0xec, 0x44, 0x4a, 0x90, 0x79, 0x34, 0x13, 0x86, 0xda,
            0x8e, 0x2e,
        ];
        if call.arg(1, "namespace").is_some() {
            let text = call.text(1, "namespace")?.replace('-', "");
            data = (0..16)
                .map(|at| {
                    text.get(at * 2..at * 2 + 2)
                        .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                })
                .collect::<Option<_>>()
                .ok_or_else(|| fault::error("a namespace that is no UUID"))?;
        }
        data.extend(call.input()?.bytes());
        let mut digest = sha1(&data)[..16].to_vec();
        digest[6] = digest[6] & 0x0f | 0x50;
        digest[8] = digest[8] & 0x3f | 0x80;
        let text = hex(&digest);
        Ok(Value::from(
            [
                &text[..8],
                &text[8..12],
                &text[12..16],
                &text[16..20],
                &text[20..],
            ]
            .join("-"),
        ))
    }),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let data = text.as_bytes();
    Ok(Value::from(
        match call.text_or(1, "hashtype", "sha1")?.as_str() {
            "sha1" => hex(&sha1(data)),
            "md5" => hex(&md5(data)),
            "sha224" => hex(&Sha224::digest(data)),
            "sha256" => hex(&Sha256::digest(data)),
            "sha384" => hex(&Sha384::digest(data)),
            "sha512" => hex(&Sha512::digest(data)),
            _ => return fault::fail("a hash that is not supported"),
        },
    ))
}

/// SHA-crypt with a given salt. Without one Ansible draws another at every run, which would
/// change the file at every start.
///
/// Without `rounds` this is crypt(3)'s default of 5,000, as Ansible has it where passlib is
/// not installed; with passlib Ansible takes 535,000 or 656,000, so that such a template fails
/// its proof at the build. Not here: bcrypt, which Ansible makes only with passlib, and MD5.
fn password_hash(call: &mut Call) -> Result<Value> {
    let View::Text(password) = view(call.value()) else {
        return fault::fail("password_hash takes a string");
    };
    let kind = call.text_or(1, "hashtype", "sha512")?;
    let salt = match call.arg(2, "salt") {
        Some(salt) if salt.is_true() => python::defined_text(&salt)?,
        _ => {
            return fault::fail(
                "without a salt `password_hash` gives another result at every start; give one with `salt=`",
            );
        }
    };
    let (id, implicit) = match kind.as_str() {
        "sha256" | "sha256_crypt" => ('5', 535_000),
        "sha512" | "sha512_crypt" => ('6', 656_000),
        _ => return fault::fail("password_hash knows sha256 and sha512 here"),
    };
    let valid = |c: char| c.is_ascii_alphanumeric() || "./".contains(c);
    if salt.len() > 16 || !salt.chars().all(valid) {
        return fault::fail("a salt is at most 16 letters, digits, `.` and `/`");
    }
    // Ansible leaves out what it takes for the default.
    let rounds = call
        .integer(4, "rounds")?
        .filter(|rounds| *rounds != 0 && *rounds != implicit);
    let count = u32::try_from(rounds.unwrap_or(5_000)).unwrap_or(0);
    let params = Some(count)
        .filter(|count| *count <= 1_000_000)
        .and_then(|count| sha_crypt::Params::new(count).ok())
        .ok_or_else(|| fault::error("rounds are a number from 1,000 to 1,000,000"))?;
    budget::room(count as usize * 100)?;
    budget::spend(count as usize * 100);
    let (password, salt_bytes) = (password.as_bytes(), salt.as_bytes());
    let digest = match id {
        '5' => sha_crypt::sha256_crypt(password, salt_bytes, params).to_vec(),
        _ => sha_crypt::sha512_crypt(password, salt_bytes, params).to_vec(),
    };
    let shown = rounds.map_or(String::new(), |rounds| format!("rounds={rounds}$"));
    Ok(Value::from(format!(
        "${id}${shown}{salt}${}",
        crypt_text(&digest)
    )))
}

/// SHA-crypt's own base64: three bytes from the three thirds of the digest at a time, whose
/// order turns from one group to the next.
fn crypt_text(digest: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let byte = |at: usize| u32::from(digest.get(at).copied().unwrap_or(0));
    let mut out = String::new();
    let mut write = |mut word: u32, count: usize| {
        for _ in 0..count {
            out.push(LETTERS[(word & 63) as usize] as char);
            word >>= 6;
        }
    };
    let third = digest.len() / 3;
    let (mut a, mut b, mut c) = (0, third, 2 * third);
    for _ in 0..third {
        write(byte(a) << 16 | byte(b) << 8 | byte(c), 4);
        (a, b, c) = match digest.len() {
            64 => (b + 1, c + 1, a + 1),
            _ => (c + 1, a + 1, b + 1),
        };
    }
    match digest.len() {
        64 => write(byte(63), 2),
        _ => write(byte(31) << 8 | byte(30), 3),
    }
    out
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// As Python's `b64decode`: characters outside the alphabet are skipped.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    let mut count = 0;
    for byte in text.bytes() {
        if byte == b'=' {
            if count % 4 >= 2 {
                count += 4 - count % 4;
                break;
            }
            continue;
        }
        let Some(value) = ALPHABET.iter().position(|other| *other == byte) else {
            continue;
        };
        count += 1;
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    (count % 4 == 0).then_some(out)
}

/// MD5's padding.
fn padded(data: &[u8]) -> Vec<u8> {
    let bits = (data.len() as u64).wrapping_mul(8);
    let mut out = data.to_vec();
    out.push(0x80);
    while out.len() % 64 != 56 {
        out.push(0);
    }
    out.extend(bits.to_le_bytes());
    out
}

fn sha1(data: &[u8]) -> Vec<u8> {
    Sha1::digest(data).to_vec()
}

/// RFC 1321.
fn md5(data: &[u8]) -> Vec<u8> {
    const SHIFTS: [[u32; 4]; 4] = [
        [7, 12, 17, 22],
        [5, 9, 14, 20],
        [4, 11, 16, 23],
        [6, 10, 15, 21],
    ];
    let mut state: [u32; 4] = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476];
    for block in padded(data).chunks_exact(64) {
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        let [mut a, mut b, mut c, mut d] = state;
        for i in 0..64 {
            let (f, g) = match i / 16 {
                0 => (b & c | !b & d, i),
                1 => (d & b | !d & c, 5 * i + 1),
                2 => (b ^ c ^ d, 3 * i + 5),
                _ => (c ^ (b | !d), 7 * i),
            };
            let constant = ((i as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a
                .wrapping_add(f)
                .wrapping_add(constant)
                .wrapping_add(words[g % 16]);
            (a, d, c, b) = (
                d,
                c,
                b,
                b.wrapping_add(sum.rotate_left(SHIFTS[i / 16][i % 4])),
            );
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d]) {
            *sum = sum.wrapping_add(value);
        }
    }
    state.iter().flat_map(|word| word.to_le_bytes()).collect()
}
