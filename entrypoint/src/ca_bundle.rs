//! Authorities that services trust besides the public ones: those of the operator's network.

use contract::Contract;
use sha2::Digest as _;

use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::plan::{Planned, is_called};
use crate::root::{Root, cannot_create};
use crate::volume::own;

/// Where distributions have the public ones.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

const FOLDER: &str = "/run/tiffin/ca";

/// What libraries and programs read the path from: OpenSSL with all that stands on it, Go and
/// Rust; Python's requests; curl; Node.js.
const VARIABLES: [&str; 4] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
];

/// Path and content of the file, when the operator gave any.
fn bundle(
    contract: &Contract,
    engine: &Engine<'_>,
    root: &Root,
) -> Result<Option<(String, String)>> {
    let Some(bundle) = &contract.ca_bundle else {
        return Ok(None);
    };
    let variable = &contract.settings[&bundle.setting].variable;
    let own = engine.text(&format!("{{{{ {variable} | default('') }}}}"));
    let own = own.map_err(|reason| {
        Failure::new(
            Code::Config,
            format!("cannot use {}: {reason}", bundle.setting),
        )
    })?;
    if own.trim().is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    for path in SYSTEM {
        if let Some(system) = root.read(path)? {
            text = system;
            break;
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(own.trim_end());
    text.push('\n');
    // Programs read it once: another content is another path, so that they start again.
    let hash = sha2::Sha256::digest(&text);
    let name: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Some((format!("{FOLDER}/{name}.crt"), text)))
}

/// Writes the file that [`point`] points to.
pub fn write(contract: &Contract, engine: &Engine<'_>, root: &Root) -> Result<()> {
    let Some((path, text)) = bundle(contract, engine, root)? else {
        return Ok(());
    };
    root.directory(FOLDER, own(0o755))?;
    root.render(&path, text.as_bytes(), own(0o644))
        .map_err(|error| cannot_create("the file", &path, &error))
}

/// What tells a program where the file is; nothing, when the operator gave no authority.
pub fn variables(
    contract: &Contract,
    engine: &Engine<'_>,
    root: &Root,
) -> Result<Vec<(String, String)>> {
    let Some((path, _)) = bundle(contract, engine, root)? else {
        return Ok(Vec::new());
    };
    let path = root.path(&path).display().to_string();
    let each = VARIABLES.iter();
    Ok(each
        .map(|name| ((*name).to_owned(), path.clone()))
        .collect())
}

/// Tells the services where it is, but for those whose own file says something else.
pub fn point(
    contract: &Contract,
    engine: &Engine<'_>,
    root: &Root,
    services: &mut [Planned],
) -> Result<()> {
    let Some(said) = &contract.ca_bundle else {
        return Ok(());
    };
    let unknown = |name: &&String| !services.iter().any(|one| is_called(&one.service, name));
    if let Some(name) = said.services.iter().find(unknown) {
        return Err(Failure::new(
            Code::Config,
            format!(
                "cannot start: the recipe's `ca_bundle` is for `{name}`, and no unit or program has that name"
            ),
        ));
    }
    let variables = variables(contract, engine, root)?;
    for planned in services {
        let service = &mut planned.service;
        let is_meant =
            said.services.is_empty() || said.services.iter().any(|name| is_called(service, name));
        if !is_meant {
            continue;
        }
        for (variable, path) in &variables {
            if !service.environment.iter().any(|(name, _)| name == variable) {
                service.environment.push((variable.clone(), path.clone()));
            }
        }
    }
    Ok(())
}
