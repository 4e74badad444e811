//! The reference of settings, generated from the contract.

use std::fmt::Write as _;

use contract::{Contract, Setting};
use serde_json::json;

use super::{convert, is_secret, text_of};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Markdown,
    Json,
    Env,
}

pub fn reference(contract: &Contract, format: Format) -> String {
    match format {
        Format::Text => text(contract),
        Format::Markdown => markdown(contract),
        Format::Json => json_(contract),
        Format::Env => env(contract),
    }
}

/// A section's name and its settings by name.
type Section<'a> = (Option<&'a str>, Vec<(&'a str, &'a Setting)>);

/// Settings by section, in the order of their names; those without a section first.
fn sections(contract: &Contract) -> Vec<Section<'_>> {
    let mut out: Vec<Section<'_>> = Vec::new();
    for (name, setting) in &contract.settings {
        let section = setting.section.as_deref();
        match out.iter_mut().find(|(other, _)| *other == section) {
            Some((_, list)) => list.push((name, setting)),
            None => out.push((section, vec![(name, setting)])),
        }
    }
    out.sort_by_key(|(section, _)| *section);
    out
}

/// What happens when nobody gives a value. A secret's default is never shown.
fn default(setting: &Setting) -> String {
    if setting.generate.is_some() {
        "(generated)".to_owned()
    } else if setting.required {
        "(required)".to_owned()
    } else if is_secret(setting) {
        "(secret)".to_owned()
    } else {
        setting
            .default
            .as_ref()
            .map(text_of)
            .filter(|t| !t.is_empty())
            .unwrap_or_else(|| "-".to_owned())
    }
}

fn kind(setting: &Setting) -> String {
    serde_json::to_value(setting.kind)
        .ok()
        .as_ref()
        .map(text_of)
        .unwrap_or_default()
}

fn text(contract: &Contract) -> String {
    let mut out = format!(
        "Settings of {} {}\n",
        contract.product.title, contract.product.version
    );
    if contract.settings.is_empty() {
        out.push_str("\nThis box has no settings.\n");
        return out;
    }
    let width = contract.settings.keys().map(String::len).max().unwrap_or(0);
    let defaults = contract
        .settings
        .values()
        .map(|s| default(s).chars().count())
        .max()
        .unwrap_or(0)
        .min(32);
    for (section, settings) in sections(contract) {
        let _ = match section {
            Some(section) => writeln!(out, "\n{section}"),
            None => writeln!(out),
        };
        for (name, setting) in settings {
            let _ = writeln!(
                out,
                "  {name:width$}  {:8}  {:defaults$}  {}",
                kind(setting),
                default(setting),
                setting.help
            );
            let mut notes = vec![convert::allowed(setting)];
            if let Some(pattern) = &setting.pattern {
                notes.push(format!("matches {pattern}"));
            }
            if !setting.files.is_empty() {
                notes.push(format!("reaches {}", setting.files.join(", ")));
            }
            let _ = writeln!(out, "  {:width$}  {}", "", notes.join("; "));
        }
    }
    out.push_str(
        "\nEvery NAME can also be given as NAME_FILE, the path of a file that holds the value.\n",
    );
    out
}

fn markdown(contract: &Contract) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut out = format!(
        "# Settings of {} {}\n",
        contract.product.title, contract.product.version
    );
    for (section, settings) in sections(contract) {
        if let Some(section) = section {
            let _ = write!(out, "\n## {section}\n");
        }
        out.push_str(
            "\n| Name | Type | Default | Meaning | Files |\n| --- | --- | --- | --- | --- |\n",
        );
        for (name, setting) in settings {
            let _ = writeln!(
                out,
                "| `{name}` | {} | {} | {} | {} |",
                cell(&convert::allowed(setting)),
                cell(&default(setting)),
                cell(&setting.help),
                cell(&setting.files.join(", "))
            );
        }
    }
    out
}

fn json_(contract: &Contract) -> String {
    let settings: Vec<_> = contract
        .settings
        .iter()
        .map(|(name, setting)| {
            let mut value = serde_json::to_value(setting).unwrap_or_default();
            if let Some(map) = value.as_object_mut() {
                map.insert("name".to_owned(), json!(name));
                map.insert("secret".to_owned(), json!(is_secret(setting)));
                map.insert("allowed".to_owned(), json!(convert::allowed(setting)));
                if is_secret(setting) {
                    map.remove("default");
                }
            }
            value
        })
        .collect();
    format!(
        "{:#}\n",
        json!({"product": contract.product, "settings": settings})
    )
}

/// A file for `docker run --env-file`: what must be given is open, the rest is a comment.
fn env(contract: &Contract) -> String {
    let mut out = format!(
        "# {} {}\n",
        contract.product.title, contract.product.version
    );
    for (section, settings) in sections(contract) {
        if let Some(section) = section {
            let _ = write!(out, "\n# --- {section}\n");
        }
        for (name, setting) in settings {
            let help = setting.help.replace('\n', " ");
            let _ = write!(
                out,
                "\n# {}{}{}\n",
                help,
                if help.is_empty() { "" } else { " — " },
                convert::allowed(setting)
            );
            if setting.required && setting.generate.is_none() {
                let _ = writeln!(out, "{name}=");
            } else {
                let shown = default(setting);
                let _ = writeln!(
                    out,
                    "#{name}={}",
                    if shown.starts_with('(') || shown == "-" {
                        ""
                    } else {
                        &shown
                    }
                );
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_format_shows_a_secret() {
        let contract: Contract = serde_json::from_value(json!({
            "format": 2,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "settings": {
                "PASSWORD": {"variable": "p", "type": "string", "secret": true, "default": "CANARY", "help": "the | password"},
                "PORT": {"variable": "q", "type": "port", "default": 80, "files": ["/etc/nginx/x.conf"], "section": "Web"}
            }
        }))
        .unwrap();
        for format in [Format::Text, Format::Markdown, Format::Json, Format::Env] {
            let shown = reference(&contract, format);
            assert!(!shown.contains("CANARY"), "{shown}");
            assert!(shown.contains("PORT") && shown.contains("80"), "{shown}");
        }
        assert!(reference(&contract, Format::Markdown).contains("the \\| password"));
        assert!(reference(&contract, Format::Text).contains("reaches /etc/nginx/x.conf"));
    }
}
