//! Signatures of certificates by others of the same chain.

use rsa::pkcs1v15;
use x509_cert::der::oid::ObjectIdentifier;

use crate::key::Public;
use crate::parse::Certificate;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const RSA_SHA256: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = oid("1.2.840.113549.1.1.13");
const ECDSA_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = oid("1.2.840.10045.4.3.4");

/// # Errors
///
/// The algorithm, where it is none of those that public authorities use.
pub fn signed_by(one: &Certificate, issuer: &Certificate) -> Result<bool, String> {
    use sha2::{Digest as _, Sha256, Sha384, Sha512};
    let (text, signature) = (one.signed.as_slice(), one.signature.as_slice());
    Ok(match (&issuer.key, one.algorithm) {
        (Public::Rsa { modulus, exponent }, RSA_SHA256 | RSA_SHA384 | RSA_SHA512) => {
            let Ok(key) = rsa::RsaPublicKey::new(modulus.clone(), exponent.clone()) else {
                return Ok(false);
            };
            let (scheme, hash) = match one.algorithm {
                RSA_SHA256 => (
                    pkcs1v15::Pkcs1v15Sign::new::<Sha256>(),
                    Sha256::digest(text).to_vec(),
                ),
                RSA_SHA384 => (
                    pkcs1v15::Pkcs1v15Sign::new::<Sha384>(),
                    Sha384::digest(text).to_vec(),
                ),
                _ => (
                    pkcs1v15::Pkcs1v15Sign::new::<Sha512>(),
                    Sha512::digest(text).to_vec(),
                ),
            };
            key.verify(scheme, &hash, signature).is_ok()
        }
        (Public::P256(key), ECDSA_SHA256 | ECDSA_SHA384 | ECDSA_SHA512) => {
            use p256::ecdsa::{
                DerSignature, VerifyingKey, signature::hazmat::PrehashVerifier as _,
            };
            DerSignature::from_bytes(signature).is_ok_and(|signature| {
                VerifyingKey::from(key)
                    .verify_prehash(&hash(one.algorithm, text), &signature)
                    .is_ok()
            })
        }
        (Public::P384(key), ECDSA_SHA256 | ECDSA_SHA384 | ECDSA_SHA512) => {
            use p384::ecdsa::{
                DerSignature, VerifyingKey, signature::hazmat::PrehashVerifier as _,
            };
            DerSignature::from_bytes(signature).is_ok_and(|signature| {
                VerifyingKey::from(key)
                    .verify_prehash(&hash(one.algorithm, text), &signature)
                    .is_ok()
            })
        }
        (Public::Other(kind), _) => return Err(kind.clone()),
        (_, algorithm) => return Err(format!("algorithm {algorithm}")),
    })
}

fn hash(algorithm: ObjectIdentifier, text: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256, Sha384, Sha512};
    match algorithm {
        ECDSA_SHA256 => Sha256::digest(text).to_vec(),
        ECDSA_SHA384 => Sha384::digest(text).to_vec(),
        _ => Sha512::digest(text).to_vec(),
    }
}
