//! `certificates` and `ca_bundle`: which settings hold them.

use std::collections::{BTreeMap, BTreeSet};

use contract::{CaBundle, Kind, ServerCertificate, Setting};

use crate::error::{Problem, Result};
use crate::field::{Field, Table};
use crate::setting::known;
use crate::yaml::quote;

pub(crate) fn certificates(
    field: &Field,
    settings: &BTreeMap<String, Setting>,
) -> Result<BTreeMap<String, ServerCertificate>> {
    let mut certificates = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (key, value) in field.entries()? {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if key.name.is_empty() || !key.name.bytes().all(word) {
            return Err(Problem::new(format!(
                "the certificate {} at line {} has a name that is not made of lower-case letters, digits and `-`",
                quote(&key.name),
                key.line
            )));
        }
        let (place, line) = (value.place.clone(), value.line);
        let table = value.table(&["certificate", "key", "when", "names"])?;
        let need = |key: &str| {
            table.get(key).ok_or_else(|| {
                Problem::new(format!("{} at line {line} has no `{key}`", quote(&place)))
                    .hint(format!("name the setting that holds the {key}"))
            })
        };
        let (certificate, private) = (need("certificate")?, need("key")?);
        for (field, kind) in [(&certificate, Kind::Certificate), (&private, Kind::Key)] {
            of_kind(field, kind, settings)?;
            if !taken.insert(field.text()?.to_owned()) {
                return Err(field.cannot("another certificate has that setting"));
            }
        }
        certificates.insert(
            key.name.clone(),
            ServerCertificate {
                certificate: certificate.text()?.to_owned(),
                key: private.text()?.to_owned(),
                when: when(&table)?,
                names: table.text("names")?,
            },
        );
    }
    Ok(certificates)
}

pub(crate) fn ca_bundle(field: Field, settings: &BTreeMap<String, Setting>) -> Result<CaBundle> {
    let (place, line) = (field.place.clone(), field.line);
    let table = field.table(&["setting", "services"])?;
    let setting = table.get("setting").ok_or_else(|| {
        Problem::new(format!("{} at line {line} has no `setting`", quote(&place)))
    })?;
    of_kind(&setting, Kind::Certificate, settings)?;
    Ok(CaBundle {
        setting: setting.text()?.to_owned(),
        services: table.texts("services")?,
    })
}

/// That the field names a setting of that type.
fn of_kind(field: &Field, kind: Kind, settings: &BTreeMap<String, Setting>) -> Result<()> {
    let name = field.text()?;
    known(field, name, settings)?;
    let word = match kind {
        Kind::Key => "key",
        _ => "certificate",
    };
    match settings[name].kind == kind {
        true => Ok(()),
        false => Err(field
            .cannot(&format!("that setting is not of the type `{word}`"))
            .hint(format!("write `{name}: {{type: {word}}}` below `settings`"))),
    }
}

fn when(table: &Table) -> Result<Option<String>> {
    let Some(field) = table.get("when") else {
        return Ok(None);
    };
    let text = field.text()?;
    match text.contains("{{") || text.contains("{%") {
        true => Err(field
            .cannot("it is an expression already")
            .hint("write it as Ansible's `when:`, without braces")),
        false => Ok(Some(text.to_owned())),
    }
}
