//! Certificates and keys of servers, as PEM text: whether they belong together and can be
//! served now, and one that is made because nobody gave one. No I/O and no clock: the
//! caller says what time it is and where random bytes come from.
//!
//! Who else vouches for a certificate is not asked: that is for those who connect.

mod key;
mod made;
mod names;
mod parse;
mod verify;

pub use made::{Made, Wanted, make};
pub use names::{covers, is_name};

use parse::{Certificate, shown};

/// Certificates in one text; more is no chain.
const CHAIN: usize = 16;

/// Seconds since 1970.
pub type Time = i64;

/// What a certificate says, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// `CN=portal.example`; without letters that a terminal obeys.
    pub subject: String,
    pub issuer: String,
    /// DNS names and IP addresses that it is for.
    pub names: Vec<String>,
    pub not_before: Time,
    /// When the first of the chain ends, but for a root.
    pub not_after: Time,
    /// SHA-256 of the first certificate, as openssl writes it: `AB:CD:…`.
    pub fingerprint: String,
    /// `P-256`, `RSA 2048`.
    pub key: String,
    /// It names itself as its issuer.
    pub is_self_signed: bool,
    /// What is served all the same.
    pub warnings: Vec<String>,
}

/// Which of the two texts is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Certificate,
    Key,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub part: Part,
    /// Without the key.
    pub reason: String,
    pub hint: Option<String>,
}

impl Problem {
    fn new(part: Part, reason: impl Into<String>) -> Self {
        Problem {
            part,
            reason: reason.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Whether a server can use the two now.
///
/// # Errors
///
/// All that is wrong.
pub fn check(certificate: &str, key: &str, now: Time) -> Result<Summary, Vec<Problem>> {
    let mut problems = Vec::new();
    let private = key::parse(key).map_err(|reason| Problem::new(Part::Key, reason));
    let chain = match chain(certificate) {
        Ok(chain) => chain,
        Err(reason) => {
            problems.push(Problem::new(Part::Certificate, reason));
            problems.extend(private.err());
            return Err(problems);
        }
    };
    let own = &chain[0];
    let mut warnings = Vec::new();
    if let Err(problem) = own.key.servable() {
        problems.push(Problem::new(Part::Certificate, problem).hint(
            "browsers take RSA keys from 2048 bits, and the elliptic curves P-256 and P-384",
        ));
    }
    match private {
        Err(problem) => problems.push(problem),
        Ok(private) if !private.belongs_to(&own.key) => {
            let other = chain
                .iter()
                .position(|other| private.belongs_to(&other.key));
            problems.push(match other {
                Some(at) => Problem::new(
                    Part::Certificate,
                    format!(
                        "the key belongs to certificate {} of it ({})",
                        at + 1,
                        chain[at].subject
                    ),
                )
                .hint("put the server's own certificate first, then that of its issuer, and so on"),
                None => Problem::new(
                    Part::Key,
                    format!("it does not belong to the certificate of {}", own.subject),
                )
                .hint("give the key with which that certificate was asked for"),
            });
        }
        Ok(_) => {}
    }
    if !own.is_for_servers {
        problems.push(Problem::new(
            Part::Certificate,
            format!(
                "it is not for servers: {} says what it is for, without serverAuth",
                own.subject
            ),
        ));
    }
    order(&chain, &mut problems, &mut warnings);
    for (at, one) in chain.iter().enumerate() {
        dates(at, one, now, &mut problems);
    }
    if own.names.is_empty() {
        warnings.push("it has no subjectAltName: browsers take it for no host".to_owned());
    }
    match problems.is_empty() {
        true => Ok(told(&chain, warnings)),
        false => Err(problems),
    }
}

/// What a text of certificates says, also when nothing could be served with it.
///
/// # Errors
///
/// What is wrong with it.
pub fn summary(certificate: &str) -> Result<Summary, String> {
    Ok(told(&chain(certificate)?, Vec::new()))
}

fn told(chain: &[Certificate], warnings: Vec<String>) -> Summary {
    let own = &chain[0];
    let ends = chain.iter().enumerate();
    let ends = ends.filter(|(at, one)| *at == 0 || !one.is_own_issuer());
    Summary {
        subject: own.subject.clone(),
        issuer: own.issuer.clone(),
        names: own.names.clone(),
        not_before: own.not_before,
        not_after: ends
            .map(|(_, one)| one.not_after)
            .min()
            .unwrap_or(own.not_after),
        fingerprint: fingerprint(&own.der),
        key: own.key.to_string(),
        is_self_signed: own.is_own_issuer(),
        warnings,
    }
}

fn chain(text: &str) -> Result<Vec<Certificate>, String> {
    let blocks = values::pem::blocks(text)?;
    if blocks.is_empty() {
        return Err("it has no `-----BEGIN CERTIFICATE-----`".to_owned());
    }
    if blocks.len() > CHAIN {
        return Err(format!(
            "it holds {} certificates, and a server sends its own and those of its issuers",
            blocks.len()
        ));
    }
    blocks
        .into_iter()
        .enumerate()
        .map(|(at, block)| {
            let parsed = match block.label {
                "CERTIFICATE" | "X509 CERTIFICATE" => Certificate::parse(block.content),
                label => Err(format!("it is a block `{}`", shown(label))),
            };
            parsed
                .map_err(|reason| format!("certificate {} of it cannot be read: {reason}", at + 1))
        })
        .collect()
}

/// Each was issued by the next.
fn order(chain: &[Certificate], problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    for (at, pair) in chain.windows(2).enumerate() {
        let (one, issuer) = (&pair[0], &pair[1]);
        let which = format!("certificate {} of it ({})", at + 2, issuer.subject);
        if !one.names_as_issuer(issuer) {
            let reason = format!(
                "{which} is not the issuer of the one before it, which is {}",
                one.issuer
            );
            problems.push(Problem::new(Part::Certificate, reason).hint(
                "put the server's own certificate first, then that of its issuer, and so on",
            ));
            continue;
        }
        if !issuer.may_issue {
            let reason =
                format!("{which} is no certification authority, and others were issued by it");
            problems.push(Problem::new(Part::Certificate, reason));
            continue;
        }
        match verify::signed_by(one, issuer) {
            Ok(true) => {}
            Ok(false) => problems.push(Problem::new(
                Part::Certificate,
                format!("certificate {} of it ({}) was not signed with the key of {which}", at + 1, one.subject),
            ).hint("an issuer can have several certificates of one name: take the one that came with yours")),
            Err(algorithm) => warnings.push(format!(
                "the signature of certificate {} of it was not verified: {algorithm}",
                at + 1
            )),
        }
    }
}

fn dates(at: usize, one: &Certificate, now: Time, problems: &mut Vec<Problem>) {
    // Nobody needs a root that is sent along.
    if at > 0 && one.is_own_issuer() {
        return;
    }
    let which = match at {
        0 => "it".to_owned(),
        at => format!("certificate {} of it ({})", at + 1, one.subject),
    };
    if now < one.not_before {
        problems.push(
            Problem::new(
                Part::Certificate,
                format!("{which} is not valid before {}", one.begins),
            )
            .hint("look at the machine's clock"),
        );
    } else if now > one.not_after {
        problems.push(
            Problem::new(Part::Certificate, format!("{which} ended on {}", one.ends))
                .hint("give a renewed one"),
        );
    }
}

fn fingerprint(der: &[u8]) -> String {
    use sha2::Digest as _;
    let bytes = sha2::Sha256::digest(der);
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    hex.join(":")
}
