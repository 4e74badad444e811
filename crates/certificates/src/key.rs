//! Public keys of certificates, and the private ones that belong to them.

use std::fmt;

use crypto_bigint::{BoxedUint, ConcatenatingMul as _, Resize as _};
use x509_cert::der::asn1::{AnyRef, OctetStringRef, UintRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, SliceReader, Tag, Tagged as _};
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoOwned};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Of an RSA modulus. Reckoning with more takes long, and nobody has one.
const BITS: u32 = 8192;

#[derive(Clone, PartialEq)]
pub enum Public {
    P256(p256::PublicKey),
    P384(p384::PublicKey),
    Rsa {
        modulus: BoxedUint,
        exponent: BoxedUint,
    },
    Other(String),
}

impl Public {
    /// # Errors
    ///
    /// When it is none of its own type.
    pub fn parse(info: &SubjectPublicKeyInfoOwned) -> Result<Self, String> {
        let bytes = info.subject_public_key.raw_bytes();
        let curve = || {
            info.algorithm
                .parameters
                .as_ref()?
                .decode_as::<ObjectIdentifier>()
                .ok()
        };
        let no_point = |_| "its public key is no point of its curve".to_owned();
        Ok(match (info.algorithm.oid, curve()) {
            (RSA, _) => {
                let [modulus, exponent] = numbers(bytes).ok_or("its public key is no RSA key")?;
                Public::Rsa { modulus, exponent }
            }
            (EC, Some(P256)) => {
                Public::P256(p256::PublicKey::from_sec1_bytes(bytes).map_err(no_point)?)
            }
            (EC, Some(P384)) => {
                Public::P384(p384::PublicKey::from_sec1_bytes(bytes).map_err(no_point)?)
            }
            (EC, Some(curve)) => Public::Other(format!("elliptic curve {curve}")),
            (other, _) => Public::Other(match other.to_string().as_str() {
                "1.3.101.112" => "Ed25519".to_owned(),
                "1.3.101.113" => "Ed448".to_owned(),
                "1.2.840.113549.1.1.10" => "RSA-PSS".to_owned(),
                "1.2.840.10040.4.1" => "DSA".to_owned(),
                oid => format!("type {oid}"),
            }),
        })
    }

    /// # Errors
    ///
    /// Why browsers refuse it.
    pub fn servable(&self) -> Result<(), String> {
        match self {
            Public::Other(kind) => {
                Err(format!("its key is of a kind that browsers refuse: {kind}"))
            }
            Public::Rsa { modulus, .. } if modulus.bits() < 2048 => Err(format!(
                "its RSA key has {} bits, which is too few",
                modulus.bits()
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Public::P256(_) => f.write_str("P-256"),
            Public::P384(_) => f.write_str("P-384"),
            Public::Rsa { modulus, .. } => write!(f, "RSA {}", modulus.bits()),
            Public::Other(kind) => f.write_str(kind),
        }
    }
}

/// What of a private key says to whom it belongs. Neither shown nor compared but with that.
pub enum Private {
    P256(p256::PublicKey),
    P384(p384::PublicKey),
    Rsa {
        modulus: BoxedUint,
        exponent: BoxedUint,
    },
    /// Of another kind, which no certificate that is served has.
    Other,
}

impl Private {
    pub fn belongs_to(&self, public: &Public) -> bool {
        match (self, public) {
            (Private::P256(own), Public::P256(other)) => own == other,
            (Private::P384(own), Public::P384(other)) => own == other,
            (
                Private::Rsa { modulus, exponent },
                Public::Rsa {
                    modulus: n,
                    exponent: e,
                },
            ) => modulus == n && exponent == e,
            _ => false,
        }
    }
}

/// # Errors
///
/// What is wrong, without the key.
pub fn parse(text: &str) -> Result<Private, String> {
    let none = || "it is no private key, or a damaged one".to_owned();
    for block in values::pem::blocks(text)? {
        let bytes = block.content.as_slice();
        return match block.label {
            "EC PARAMETERS" => continue,
            "PRIVATE KEY" => pkcs8(bytes),
            "RSA PRIVATE KEY" => rsa_key(bytes),
            "EC PRIVATE KEY" => ec_key(bytes, None),
            _ => None,
        }
        .ok_or_else(none);
    }
    Err("it has no `-----BEGIN PRIVATE KEY-----`".to_owned())
}

/// RFC 5958: version, algorithm, key.
fn pkcs8(bytes: &[u8]) -> Option<Private> {
    let mut inside = sequence(bytes)?;
    UintRef::decode(&mut inside).ok()?;
    let algorithm = AlgorithmIdentifierRef::decode(&mut inside).ok()?;
    let key = <&OctetStringRef>::decode(&mut inside).ok()?.as_bytes();
    match algorithm.oid {
        RSA => rsa_key(key),
        EC => {
            let curve = algorithm.parameters?.decode_as::<ObjectIdentifier>().ok()?;
            ec_key(key, Some(curve))
        }
        _ => Some(Private::Other),
    }
}

/// RFC 5915: version, key, and perhaps the curve, which PKCS#8 names before.
fn ec_key(bytes: &[u8], curve: Option<ObjectIdentifier>) -> Option<Private> {
    let mut inside = sequence(bytes)?;
    UintRef::decode(&mut inside).ok()?;
    let key = <&OctetStringRef>::decode(&mut inside).ok()?.as_bytes();
    let curve = match curve {
        Some(curve) => curve,
        // [0] EXPLICIT
        None => AnyRef::decode(&mut inside)
            .ok()
            .and_then(|tagged| ObjectIdentifier::from_der(tagged.value()).ok())?,
    };
    match curve {
        P256 => p256::SecretKey::from_slice(key)
            .ok()
            .map(|key| Private::P256(key.public_key())),
        P384 => p384::SecretKey::from_slice(key)
            .ok()
            .map(|key| Private::P384(key.public_key())),
        _ => Some(Private::Other),
    }
}

/// RFC 8017, A.1.2: version, modulus, public and private exponent, and the two primes.
fn rsa_key(bytes: &[u8]) -> Option<Private> {
    let [_, modulus, exponent, _, p, q] = numbers(bytes)?;
    // One whose primes are not those of its modulus signs nothing that anybody takes.
    let product = p.concatenating_mul(&q);
    let width = product.bits_precision().max(modulus.bits_precision());
    let same = product.resize_unchecked(width) == modulus.clone().resize_unchecked(width);
    same.then_some(Private::Rsa { modulus, exponent })
}

fn sequence(bytes: &[u8]) -> Option<SliceReader<'_>> {
    let any = AnyRef::from_der(bytes).ok()?;
    match any.tag() {
        Tag::Sequence => SliceReader::new(any.value()).ok(),
        _ => None,
    }
}

/// The first numbers of a sequence.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<[BoxedUint; N]> {
    let mut inside = sequence(bytes)?;
    let mut out = Vec::with_capacity(N);
    for _ in 0..N {
        let number = UintRef::decode(&mut inside).ok()?;
        let bits = u32::try_from(number.as_bytes().len())
            .ok()?
            .checked_mul(8)?;
        if bits > BITS {
            return None;
        }
        out.push(BoxedUint::from_be_slice(number.as_bytes(), bits.max(8)).ok()?);
    }
    out.try_into().ok()
}
