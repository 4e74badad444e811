//! A certificate that a box makes for itself, because nobody gave it one.

use std::net::IpAddr;
use std::time::Duration;

use p256::ecdsa::{DerSignature, SigningKey};
use x509_cert::TbsCertificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::builder::{Builder as _, CertificateBuilder, profile::BuilderProfile};
use x509_cert::der::asn1::{GeneralizedTime, Ia5String, UtcTime, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Encode as _, asn1::Any};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time as X509Time, Validity};

use crate::Time;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");

/// Which certificate is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// For people; at most 64 letters of it are used (RFC 5280, upper bounds).
    pub common_name: String,
    /// DNS names and IP addresses, at least one; others are errors.
    pub names: Vec<String>,
    pub not_before: Time,
    pub not_after: Time,
}

/// Two PEM texts.
pub struct Made {
    pub certificate: String,
    /// PKCS#8; a secret.
    pub key: String,
}

struct Profile {
    name: Name,
    names: Vec<GeneralName>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    /// It vouches for nothing but itself: one that could sign others would be refused by
    /// Firefox as a server's. No keyUsage, since without keyCertSign OpenSSL would not hold it to
    /// be its own issuer, and with it browsers would not hold it to be a server's.
    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let constraints = BasicConstraints {
            ca: false,
            path_len_constraint: None,
        };
        let names = SubjectAltName(self.names.clone());
        let purposes = ExtendedKeyUsage(vec![SERVER]);
        let (subject, none) = (tbs.subject(), Vec::new());
        Ok(vec![
            constraints.to_extension(subject, &none)?,
            names.to_extension(subject, &none)?,
            purposes.to_extension(subject, &none)?,
        ])
    }
}

/// A key on P-256 and its certificate, signed with itself. `random` fills a slice with bytes
/// that nobody can guess.
///
/// # Errors
///
/// Why it cannot be made.
pub fn make<E: std::fmt::Display>(
    wanted: &Wanted,
    mut random: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<Made, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let names = wanted.names.iter().map(|name| general(name));
    let profile = Profile {
        name: common_name(&wanted.common_name).map_err(|e| told(&e))?,
        names: names.collect::<Result<_, _>>()?,
    };
    let mut bytes = [0_u8; 32];
    let key = loop {
        random(&mut bytes).map_err(|e| told(&e))?;
        // One in 2^32 is no number below the curve's order.
        if let Ok(key) = p256::SecretKey::from_slice(&bytes) {
            break key;
        }
    };
    let mut serial = [0_u8; 16];
    random(&mut serial).map_err(|e| told(&e))?;
    // Positive and not zero (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let signer = SigningKey::from(&key);
    let public = SubjectPublicKeyInfo::from_key(signer.verifying_key()).map_err(|e| told(&e))?;
    let validity = Validity::new(time(wanted.not_before)?, time(wanted.not_after)?);
    let serial = SerialNumber::new(&serial).map_err(|e| told(&e))?;
    let certificate = CertificateBuilder::new(profile, serial, validity, public)
        .and_then(|builder| builder.build::<_, DerSignature>(&signer))
        .map_err(|e| told(&e))?;
    let certificate = certificate.to_der().map_err(|e| told(&e))?;
    use p256::pkcs8::EncodePrivateKey as _;
    let key = key.to_pkcs8_der().map_err(|e| told(&e))?;
    Ok(Made {
        certificate: pem("CERTIFICATE", &certificate),
        key: pem("PRIVATE KEY", key.as_bytes()),
    })
}

fn general(name: &str) -> Result<GeneralName, String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(address.into());
    }
    match crate::is_name(name) {
        true => Ia5String::new(&name.to_ascii_lowercase())
            .map(GeneralName::DnsName)
            .map_err(|error| error.to_string()),
        false => Err(format!(
            "`{}` is no host name or address",
            name.escape_debug()
        )),
    }
}

fn common_name(text: &str) -> x509_cert::der::Result<Name> {
    let short: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
    let value = Any::from(x509_cert::der::asn1::AnyRef::from(Utf8StringRef::new(
        &short,
    )?));
    let attribute = AttributeTypeAndValue {
        oid: COMMON_NAME,
        value,
    };
    let relative = RelativeDistinguishedName::try_from(vec![attribute])?;
    Ok(Name::hazmat_from_rdn_sequence(RdnSequence::from(vec![
        relative,
    ])))
}

fn time(seconds: Time) -> Result<X509Time, String> {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    // RFC 5280, 4.1.2.5: UTCTime until 2049.
    match UtcTime::from_unix_duration(since) {
        Ok(time) => Ok(X509Time::UtcTime(time)),
        Err(_) => GeneralizedTime::from_unix_duration(since)
            .map(X509Time::GeneralTime)
            .map_err(|error| error.to_string()),
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            out.push('\n');
        }
        out.push(letter);
    }
    out + &format!("\n-----END {label}-----\n")
}
