//! `manifest PLATFORM`: what runs the box there, written from the contract.
//!
//! [`describe`] says once what there is to run; each platform's module puts it into that
//! platform's words. The same box and settings give the same bytes. Whatever the contract
//! or the environment holds is quoted for where it stands ([`quote`]), and no secret is
//! ever written: a manifest only says where the platform keeps it.

mod compose;
mod describe;
mod docker_run;
mod kubernetes;
mod nomad;
mod quadlet;
mod quote;
mod swarm;
mod systemd;
mod text;

use std::collections::BTreeMap;

use contract::Contract;

use crate::exit::{Code, Failure, Result};
use crate::root::Root;
use crate::settings::{Environment, nearest};
use describe::Description;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    DockerRun,
    Compose,
    Swarm,
    Kubernetes,
    Quadlet,
    Systemd,
    Nomad,
}

const PLATFORMS: [(&str, Platform); 7] = [
    ("docker-run", Platform::DockerRun),
    ("compose", Platform::Compose),
    ("swarm", Platform::Swarm),
    ("kubernetes", Platform::Kubernetes),
    ("quadlet", Platform::Quadlet),
    ("systemd", Platform::Systemd),
    ("nomad", Platform::Nomad),
];

/// What was typed after `manifest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub platform: Platform,
    /// Of the container, service or job; the product's when absent.
    pub name: Option<String>,
    /// A limit in MiB.
    pub memory: Option<u64>,
    /// A limit in processors, such as `1.5`.
    pub cpus: Option<String>,
    /// A box for each role, and how many of some.
    pub scale: Option<BTreeMap<String, u32>>,
}

/// # Errors
///
/// [`Code::Usage`] for words that are not understood.
pub fn parse(words: &[&str]) -> Result<Wanted> {
    let names = || PLATFORMS.iter().map(|(name, _)| *name);
    let known = format!("manifest {}", names().collect::<Vec<_>>().join("|"));
    let wrong =
        |reason: String| Failure::new(Code::Usage, format!("cannot write a manifest: {reason}"));
    let Some((platform, mut rest)) = words.split_first() else {
        return Err(wrong("for which platform?".to_owned()).hint(known));
    };
    let Some((_, found)) = PLATFORMS.iter().find(|(name, _)| name == platform) else {
        return Err(
            wrong(format!("the platform `{platform}` is not known")).hint(
                match nearest(platform, names()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => known,
                },
            ),
        );
    };
    let mut wanted = Wanted {
        platform: *found,
        name: None,
        memory: None,
        cpus: None,
        scale: None,
    };
    while let Some((option, after)) = rest.split_first() {
        let Some((value, after)) = after.split_first() else {
            return Err(
                wrong(format!("`{option}` is not understood, or lacks its value")).hint(OPTIONS),
            );
        };
        let refused =
            |takes: &str| wrong(format!("{option} cannot be `{value}`: it takes {takes}"));
        match *option {
            "--name" => {
                wanted.name = Some(
                    name(value)
                        .ok_or_else(|| refused("lower-case letters, digits and `-`, 40 at most"))?,
                )
            }
            "--memory" => {
                let bytes = values::bytes(value).and_then(|bytes| u64::try_from(bytes).ok());
                let mebibytes = bytes.map(|bytes| bytes >> 20).filter(|size| *size > 0);
                wanted.memory =
                    Some(mebibytes.ok_or_else(|| refused("a size such as 512m or 4g"))?);
            }
            "--cpus" => {
                let good = value.len() <= 6
                    && value.bytes().all(|b| b.is_ascii_digit() || b == b'.')
                    && value.parse::<f64>().is_ok_and(|cpus| cpus > 0.0);
                if !good {
                    return Err(refused("a number such as 2 or 1.5"));
                }
                wanted.cpus = Some((*value).to_owned());
            }
            "--scale" => {
                if !matches!(wanted.platform, Platform::Swarm | Platform::Kubernetes) {
                    return Err(wrong(format!(
                        "--scale is for platforms of several machines, and {platform} is none"
                    ))
                    .hint("write one for swarm or kubernetes"));
                }
                wanted.scale = Some(
                    scale(value)
                        .ok_or_else(|| refused("roles and numbers, such as web=3,worker=4"))?,
                );
            }
            _ => return Err(wrong(format!("`{option}` is not understood")).hint(OPTIONS)),
        }
        rest = after;
    }
    Ok(wanted)
}

const OPTIONS: &str =
    "options are --name NAME, --memory SIZE, --cpus NUMBER and --scale ROLE=NUMBER,…";

/// `web=3,worker=4`, each role once.
fn scale(text: &str) -> Option<BTreeMap<String, u32>> {
    let mut roles = BTreeMap::new();
    for item in text.split(',') {
        let (role, number) = item.split_once('=')?;
        let number = number.parse().ok().filter(|number| *number <= 1000)?;
        if role.is_empty() || roles.insert(role.to_owned(), number).is_some() {
            return None;
        }
    }
    Some(roles)
}

/// A DNS label, which every platform takes as a name.
fn name(text: &str) -> Option<String> {
    let good = (1..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    good.then(|| text.to_owned())
}

/// The manifest's text. Settings in the environment are checked as at a start and written
/// down; of secrets only that there is one.
///
/// # Errors
///
/// As a start's, but that nothing is required yet.
pub fn manifest(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    wanted: &Wanted,
) -> Result<String> {
    let description = describe::describe(contract, root, environment, wanted)?;
    let write: fn(&Description) -> Result<String> = match wanted.platform {
        Platform::DockerRun => docker_run::write,
        Platform::Compose => compose::write,
        Platform::Swarm => swarm::write,
        Platform::Kubernetes => kubernetes::write,
        Platform::Quadlet => quadlet::write,
        Platform::Systemd => systemd::write,
        Platform::Nomad => nomad::write,
    };
    write(&description)
}
