//! Certificates of the box's own servers: what the operator gave, checked as a pair, or one
//! that the box makes for itself and keeps on the volume.
//!
//! Both become values of the settings that the recipe names, so that everything behind
//! (templates, handlers, reload) treats them as it treats any other setting.

use std::collections::BTreeMap;

use ::certificates::{Part, Summary, Wanted, check, covers, is_name, make, summary};
use contract::{Contract, ServerCertificate, Value};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::root::{Root, cannot_create};
use crate::settings::{Given, Problem, Resolved, text_of};
use crate::supervisord::words::{Moment, unix_time};
use crate::volume::{State, own};

pub const DAY: i64 = 86_400;
/// What the box makes is good for so long: Apple's programs take none that is longer.
const DAYS: i64 = 825;
/// When so little is left, the box makes another one.
const RENEWED: i64 = 30;
/// A certificate has no more names.
const NAMES: usize = 100;

/// One that a server of the box uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    pub name: String,
    pub summary: Summary,
    /// The box made it.
    pub is_made: bool,
    /// From which the operator gave certificate and key.
    pub files: Vec<String>,
}

/// One that is to be made, as nobody gave it.
#[derive(Debug, Clone)]
pub struct ToMake {
    name: String,
    wanted: Wanted,
}

impl ToMake {
    /// By which the contract knows it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What is told of it, by `certificates --json` too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub name: String,
    pub subject: String,
    pub issuer: String,
    pub names: Vec<String>,
    /// RFC 3339.
    pub not_before: String,
    pub not_after: String,
    /// Seconds until then; negative afterwards.
    pub left: i64,
    /// SHA-256.
    pub fingerprint: String,
    pub key: String,
    pub self_signed: bool,
    /// By the box.
    pub made: bool,
}

impl InUse {
    pub fn told(&self) -> Told {
        let summary = &self.summary;
        let time = |time| Moment::of(time).rfc3339(0).replace(".000", "");
        Told {
            name: self.name.clone(),
            subject: summary.subject.clone(),
            issuer: summary.issuer.clone(),
            names: summary.names.clone(),
            not_before: time(summary.not_before),
            not_after: time(summary.not_after),
            left: summary.not_after - unix_time(),
            fingerprint: summary.fingerprint.clone(),
            key: summary.key.clone(),
            self_signed: summary.is_self_signed,
            made: self.is_made,
        }
    }

    /// The box's own has too little time left.
    pub fn is_due(&self, now: i64) -> bool {
        self.is_made && is_old(&self.summary, now)
    }
}

impl Told {
    /// `portal.example, until 2027-02-19 (90 days), issued by CN=Acme CA`
    pub fn line(&self) -> String {
        let names = match &self.names[..] {
            [] => self.subject.clone(),
            [_] | [_, _] | [_, _, _] => self.names.join(", "),
            [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
        };
        let by = match (self.made, self.self_signed) {
            (true, _) => "made by this box".to_owned(),
            (false, true) => "self-signed".to_owned(),
            (false, false) => format!("issued by {}", self.issuer),
        };
        let date = self.not_after.split('T').next().unwrap_or_default();
        format!("{names}, until {date} ({}), {by}", left(self.left))
    }
}

/// `90 days`, `5 hours`, `it has ended`
pub fn left(seconds: i64) -> String {
    let plural = |n: i64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match seconds {
        ..=0 => "it has ended".to_owned(),
        s if s < 2 * DAY => plural(s / 3600, "hour"),
        s => plural(s / DAY, "day"),
    }
}

/// All in use, for the log.
pub fn announce(certificates: &[InUse]) {
    for certificate in certificates {
        let told = certificate.told();
        say(&format!(
            "certificate {}: {}\n  SHA-256 {}",
            told.name,
            told.line(),
            told.fingerprint
        ));
    }
}

/// Finds the pairs among the settings' values, or what was made before, or what is to be
/// made. `directory` is where the box keeps its own; without one nothing is made.
pub fn settle(
    contract: &Contract,
    root: &Root,
    directory: Option<&str>,
    resolved: &mut Resolved,
    problems: &mut Vec<Problem>,
) {
    if contract.certificates.is_empty() {
        return;
    }
    let variables = resolved.variables(contract);
    let engine = Engine::new(contract, &variables);
    for (name, certificate) in &contract.certificates {
        let told = |name: &String| problems.iter().any(|problem| problem.name == *name);
        if told(&certificate.certificate) || told(&certificate.key) {
            continue;
        }
        let one = One { name, certificate };
        let defect = |what: &str, reason: String| {
            Problem::new(
                &certificate.certificate,
                format!("{what} cannot be told: {reason}"),
            )
            .hint("that is a mistake in the box, or follows from another wrong setting")
        };
        let is_used = certificate
            .when
            .as_ref()
            .map_or(Ok(true), |when| engine.holds(when));
        let is_used = match is_used {
            Ok(is_used) => is_used,
            Err(reason) => {
                problems.push(defect("whether it is used", reason));
                continue;
            }
        };
        let texts = one.given(resolved);
        let names = match certificate.names.as_ref().map(|names| engine.text(names)) {
            None => Vec::new(),
            Some(Ok(text)) => server_names(&text),
            Some(Err(reason)) => {
                problems.push(defect("for which names it is", reason));
                continue;
            }
        };
        match (is_used, texts) {
            (false, (None, None)) => {}
            (false, _) => resolved.warnings.push(format!(
                "{} and {} are given and not used, as `{}` does not hold",
                certificate.certificate,
                certificate.key,
                certificate.when.as_deref().unwrap_or_default()
            )),
            (true, (Some(public), Some(private))) => {
                one.check(&public, &private, &names, resolved, problems);
            }
            (true, (None, None)) => one.own(root, directory, names, resolved, problems),
            (true, (public, _)) => {
                let (missing, other) = match public {
                    Some(_) => (&certificate.key, &certificate.certificate),
                    None => (&certificate.certificate, &certificate.key),
                };
                problems.push(
                    Problem::new(missing, format!("it is required together with {other}"))
                        .hint(format!(
                            "give -e {missing}_FILE=…, or neither: the box then makes a certificate for itself"
                        )),
                );
            }
        }
    }
}

struct One<'a> {
    name: &'a String,
    certificate: &'a ServerCertificate,
}

impl One<'_> {
    /// The two texts, where somebody gave them.
    fn given(&self, resolved: &Resolved) -> (Option<String>, Option<String>) {
        let text = |name: &String| {
            let (value, _) = resolved.values.get(name)?;
            Some(text_of(value)).filter(|text| !text.is_empty())
        };
        (
            text(&self.certificate.certificate),
            text(&self.certificate.key),
        )
    }

    fn check(
        &self,
        public: &str,
        private: &str,
        names: &[String],
        resolved: &mut Resolved,
        problems: &mut Vec<Problem>,
    ) {
        let setting = &self.certificate.certificate;
        let summary = match check(public, private, unix_time()) {
            Ok(summary) => summary,
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| {
                    let name = match problem.part {
                        Part::Certificate => setting,
                        Part::Key => &self.certificate.key,
                    };
                    let told = Problem::new(name, problem.reason);
                    match problem.hint {
                        Some(hint) => told.hint(hint),
                        None => told,
                    }
                }));
                return;
            }
        };
        let other = names.iter().filter(|name| !covers(&summary.names, name));
        let other: Vec<&str> = other.map(String::as_str).collect();
        let uncovered = (!other.is_empty() && !summary.names.is_empty())
            .then(|| format!("it is not for {}", other.join(", ")));
        let warnings = summary.warnings.iter().cloned().chain(uncovered);
        resolved
            .warnings
            .extend(warnings.map(|warning| format!("{setting}: {warning}")));
        let file = |name: &String| match resolved.values.get(name) {
            Some((_, Given::File { path })) => Some(path.clone()),
            _ => None,
        };
        let files = [setting, &self.certificate.key]
            .into_iter()
            .filter_map(file);
        let files = files.collect();
        resolved.certificates.push(InUse {
            name: self.name.clone(),
            summary,
            is_made: false,
            files,
        });
    }

    /// What an earlier start made, unless it is old or for other names.
    fn own(
        &self,
        root: &Root,
        directory: Option<&str>,
        mut names: Vec<String>,
        resolved: &mut Resolved,
        problems: &mut Vec<Problem>,
    ) {
        for local in ["localhost", "127.0.0.1", "::1"] {
            if !names.iter().any(|name| name == local) {
                names.push(local.to_owned());
            }
        }
        let now = unix_time();
        let path = directory.map(|directory| file(directory, self.name));
        let kept = match &path {
            Some(path) => root.read(path).map(|text| text.map(|text| (path, text))),
            None => Ok(None),
        };
        let kept = match kept {
            Ok(kept) => kept,
            Err(failure) => {
                problems.push(Problem::new(&self.certificate.certificate, failure.message));
                return;
            }
        };
        if let Some((path, text)) = kept {
            match read(&text) {
                Ok((pair, summary)) => {
                    let is_for = |name: &String| covers(&summary.names, name);
                    if !is_old(&summary, now) && names.iter().all(is_for) {
                        self.use_made(pair, summary, resolved);
                        return;
                    }
                }
                Err(reason) => {
                    problems.push(
                        Problem::new(
                            &self.certificate.certificate,
                            format!("{path}, which this box made, is damaged: {reason}"),
                        )
                        .hint("restore it from a backup of the volume, or remove it: the next start makes another"),
                    );
                    return;
                }
            }
        }
        resolved.to_make.push(ToMake {
            name: self.name.clone(),
            wanted: Wanted {
                common_name: names[0].clone(),
                names,
                // Clocks of clients may be late.
                not_before: now - DAY,
                not_after: now + (DAYS - 1) * DAY,
            },
        });
    }

    fn use_made(&self, pair: [String; 2], summary: Summary, resolved: &mut Resolved) {
        let [public, private] = pair;
        for (name, text) in [
            (&self.certificate.certificate, public),
            (&self.certificate.key, private),
        ] {
            // As a value from a file, which has no line end at its end.
            let value = Value::from(text.trim_end());
            resolved.values.insert(name.clone(), (value, Given::Kept));
        }
        resolved.certificates.push(InUse {
            name: self.name.clone(),
            summary,
            is_made: true,
            files: Vec::new(),
        });
    }
}

/// Makes and keeps what is to be made; from here on it has its value.
pub fn generate(contract: &Contract, state: &State<'_>, resolved: &mut Resolved) -> Result<()> {
    for wanted in std::mem::take(&mut resolved.to_make) {
        let cannot = |reason: String| {
            Failure::new(
                Code::Internal,
                format!("cannot make a certificate for {}: {reason}", wanted.name),
            )
        };
        let made = make(&wanted.wanted, random).map_err(cannot)?;
        let path = file(state.directory(), &wanted.name);
        // One file, so that there is never one of the two without the other.
        let text = format!("{}{}", made.key, made.certificate);
        state
            .root()
            .replace(&path, text.as_bytes(), own(0o600))
            .map_err(|error| cannot_create("the file", &path, &error))?;
        let (pair, summary) = read(&text).map_err(cannot)?;
        let one = One {
            name: &wanted.name,
            certificate: &contract.certificates[&wanted.name],
        };
        say(&format!(
            "a self-signed certificate is made for {} and kept in {path}",
            wanted.wanted.names.join(", ")
        ));
        one.use_made(pair, summary, resolved);
    }
    Ok(())
}

fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    // Up to 256 bytes come at once (getrandom(2)).
    let count = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())?;
    match count == bytes.len() {
        true => Ok(()),
        false => Err(std::io::Error::other("getrandom gave too little")),
    }
}

fn file(directory: &str, name: &str) -> String {
    format!("{directory}/certificate-{name}.pem")
}

/// Certificate and key of a kept file.
fn read(text: &str) -> Result<([String; 2], Summary), String> {
    let at = text
        .find("-----BEGIN CERTIFICATE-----")
        .ok_or("it has no certificate")?;
    let (private, public) = text.split_at(at);
    let begun = summary(public)?.not_before;
    let summary = check(public, private, begun).map_err(|problems| {
        problems
            .into_iter()
            .map(|p| p.reason)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    Ok(([public.to_owned(), private.to_owned()], summary))
}

fn is_old(summary: &Summary, now: i64) -> bool {
    now < summary.not_before || now > summary.not_after - RENEWED * DAY
}

/// What of a server's names can stand in a certificate: patterns cannot.
fn server_names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in text
        .split([' ', ',', '\t', '\n'])
        .filter(|name| is_name(name))
    {
        let name = name.to_ascii_lowercase();
        if !names.contains(&name) && names.len() < NAMES {
            names.push(name);
        }
    }
    names
}

/// The variables that certificates and keys are in.
pub fn variables(contract: &Contract) -> Vec<&str> {
    let settings = contract.certificates.values();
    settings
        .flat_map(|one| [&one.certificate, &one.key])
        .filter_map(|name| Some(contract.settings.get(name)?.variable.as_str()))
        .collect()
}

/// When each ends, for figures.
pub fn ends(certificates: &[InUse]) -> BTreeMap<&str, i64> {
    let all = certificates.iter();
    all.map(|one| (one.name.as_str(), one.summary.not_after))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_patterns_of_a_web_server_are_left_out() {
        let text = "_ Portal.Example www.portal.example ~^x\\d+$ .example *.a.example www.* portal.example, 10.0.0.1";
        let wanted = [
            "portal.example",
            "www.portal.example",
            "*.a.example",
            "10.0.0.1",
        ];
        assert_eq!(server_names(text), wanted);
    }

    #[test]
    fn what_is_left_is_told_in_days_and_at_last_in_hours() {
        let shown = [90 * DAY + 5, 2 * DAY, 2 * DAY - 1, 3600, 0, -5].map(left);
        let wanted = [
            "90 days",
            "2 days",
            "47 hours",
            "1 hour",
            "it has ended",
            "it has ended",
        ];
        assert_eq!(shown, wanted);
    }
}
