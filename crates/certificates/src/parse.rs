//! One certificate (RFC 5280) of DER bytes.

use std::net::IpAddr;

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};

use crate::Time;
use crate::key::Public;

const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

pub struct Certificate {
    pub der: Vec<u8>,
    /// What the issuer signed.
    pub signed: Vec<u8>,
    pub signature: Vec<u8>,
    /// Of the signature.
    pub algorithm: ObjectIdentifier,
    pub subject: String,
    pub issuer: String,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    pub names: Vec<String>,
    pub not_before: Time,
    pub not_after: Time,
    /// The same, for people.
    pub begins: String,
    pub ends: String,
    pub key: Public,
    pub is_for_servers: bool,
    pub may_issue: bool,
}

impl Certificate {
    /// # Errors
    ///
    /// Why it is none.
    pub fn parse(der: Vec<u8>) -> Result<Self, String> {
        let none = |error: x509_cert::der::Error| format!("it is no X.509 certificate ({error})");
        let parsed = CertificateInner::<Raw>::from_der(&der).map_err(none)?;
        let tbs = parsed.tbs_certificate();
        // RFC 5280, 4.1.1.2: only one of the two is signed.
        if parsed.signature_algorithm() != tbs.signature() {
            return Err("it names two algorithms for its one signature".to_owned());
        }
        let time = |time: x509_cert::time::Time| {
            let seconds = time.to_unix_duration().as_secs();
            (
                Time::try_from(seconds).unwrap_or(Time::MAX),
                time.to_string(),
            )
        };
        let (not_before, begins) = time(tbs.validity().not_before);
        let (not_after, ends) = time(tbs.validity().not_after);
        let names = tbs.get_extension::<SubjectAltName>().map_err(none)?;
        let purposes = tbs.get_extension::<ExtendedKeyUsage>().map_err(none)?;
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(none)?;
        Ok(Certificate {
            signed: signed_part(&der).map_err(none)?,
            signature: parsed
                .signature()
                .as_bytes()
                .ok_or("its signature is no whole number of bytes")?
                .to_vec(),
            algorithm: parsed.signature_algorithm().oid,
            subject: shown(&tbs.subject().to_string()),
            issuer: shown(&tbs.issuer().to_string()),
            subject_der: tbs.subject().to_der().map_err(none)?,
            issuer_der: tbs.issuer().to_der().map_err(none)?,
            names: names.map_or_else(Vec::new, |(_, all)| all.0.iter().filter_map(name).collect()),
            not_before,
            not_after,
            begins,
            ends,
            key: Public::parse(tbs.subject_public_key_info())?,
            is_for_servers: purposes.is_none_or(|(_, all)| {
                all.0
                    .iter()
                    .any(|one| *one == SERVER || *one == ANY_PURPOSE)
            }),
            may_issue: constraints.is_some_and(|(_, constraints)| constraints.ca),
            der,
        })
    }

    pub fn names_as_issuer(&self, other: &Certificate) -> bool {
        self.issuer_der == other.subject_der
    }

    pub fn is_own_issuer(&self) -> bool {
        self.names_as_issuer(self)
    }
}

/// The first part of the outermost sequence, byte for byte as it was signed.
fn signed_part(der: &[u8]) -> x509_cert::der::Result<Vec<u8>> {
    let mut reader = SliceReader::new(der)?;
    x509_cert::der::Header::decode(&mut reader)?;
    Ok(reader.tlv_bytes()?.to_vec())
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(text) => Some(shown(&text.as_str().to_ascii_lowercase())),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes().len() {
            4 => <[u8; 4]>::try_from(bytes.as_bytes()).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes.as_bytes())
                .ok()
                .map(IpAddr::from),
            _ => None,
        }
        .map(|address| address.to_string()),
        _ => None,
    }
}

/// For a log: short, and without letters that a terminal obeys.
pub fn shown(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(200)
        .collect();
    match clean.is_empty() {
        true => "(nobody)".to_owned(),
        false => clean,
    }
}
