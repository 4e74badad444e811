//! The reference of settings, generated from the contract.

use std::fmt::Write as _;

use contract::{Contract, Setting};
use serde_json::json;

use super::sources::env_file_path;

use super::{is_secret, schema, text_of};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Markdown,
    Json,
    Schema,
    Env,
}

pub fn reference(contract: &Contract, format: Format) -> String {
    match format {
        Format::Text => text(contract),
        Format::Markdown => markdown(contract),
        Format::Json => json_(contract),
        Format::Schema => format!("{:#}\n", schema::schema(contract)),
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
        match values::literal_default(setting) {
            Some(text) if text.is_empty() => "-".to_owned(),
            Some(text) => text.replace(['\n', '\r'], " "),
            None if setting.default.is_some() => "(computed)".to_owned(),
            None => "-".to_owned(),
        }
    }
}

/// What else is to be known about a setting, in words.
fn notes(setting: &Setting) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(pattern) = &setting.pattern {
        notes.push(format!("matches {pattern}"));
    }
    if let Some(example) = setting
        .example
        .as_deref()
        .filter(|text| !text.contains('\n'))
    {
        notes.push(format!("for example {example}"));
    }
    if let Some(condition) = &setting.required_if {
        notes.push(format!("required if {condition}"));
    }
    if !setting.conflicts.is_empty() {
        notes.push(format!(
            "not together with {}",
            setting.conflicts.join(", ")
        ));
    }
    if !setting.deprecated.is_empty() {
        notes.push(format!("formerly {}", setting.deprecated.join(", ")));
    }
    notes
}

fn kind(setting: &Setting) -> String {
    serde_json::to_value(setting.kind)
        .ok()
        .as_ref()
        .map(text_of)
        .unwrap_or_default()
}

/// Where all lies that must last.
fn volumes(contract: &Contract) -> String {
    let paths: Vec<&str> = contract.volumes.iter().map(|v| v.path.as_str()).collect();
    match paths[..] {
        [] => String::new(),
        [path, ..] => format!(
            "\nAll that must last lies on {}: run the box with a volume there, -v data:{path}\n",
            paths.join(", ")
        ),
    }
}

fn text(contract: &Contract) -> String {
    let mut out = format!(
        "Settings of {} {}\n{}",
        contract.product.title,
        contract.product.version,
        volumes(contract)
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
            let mut notes = notes(setting);
            notes.insert(0, values::allowed(setting));
            if !setting.files.is_empty() {
                notes.push(format!("reaches {}", setting.files.join(", ")));
            }
            let _ = writeln!(out, "  {:width$}  {}", "", notes.join("; "));
        }
    }
    let _ = write!(
        out,
        "\nEach is taken from the first of: NAME, or NAME_FILE, the path of a file that holds the value;\n\
         /run/secrets/NAME; {}the playbook's default.\n\
         `settings --origin` tells where each value is from.\n",
        match env_file_path(contract) {
            Some(path) =>
                format!("a line NAME=value in {path}; what an earlier start generated;\n"),
            None => String::new(),
        }
    );
    out
}

fn markdown(contract: &Contract) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut out = format!(
        "# Settings of {} {}\n{}",
        contract.product.title,
        contract.product.version,
        volumes(contract)
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
                cell(&values::allowed(setting)),
                cell(&default(setting)),
                cell(&meaning(setting)),
                cell(&setting.files.join(", "))
            );
        }
    }
    out
}

/// Help and notes as sentences.
fn meaning(setting: &Setting) -> String {
    let notes = notes(setting);
    match (setting.help.as_str(), notes.is_empty()) {
        (help, true) => help.to_owned(),
        ("", false) => notes.join("; "),
        (help, false) => format!("{help} ({})", notes.join("; ")),
    }
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
                map.insert("allowed".to_owned(), json!(values::allowed(setting)));
                if is_secret(setting) {
                    map.remove("default");
                }
            }
            value
        })
        .collect();
    let volumes: Vec<&str> = contract.volumes.iter().map(|v| v.path.as_str()).collect();
    format!(
        "{:#}\n",
        json!({"product": contract.product, "settings": settings, "volumes": volumes})
    )
}

/// A file for `docker run --env-file`, or for the volume: what must be given is open, the
/// rest is a comment with its default.
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
            let _ = write!(out, "\n# {name}: {}\n", values::allowed(setting));
            for line in meaning(setting).lines() {
                let _ = writeln!(out, "# {line}");
            }
            if setting.required {
                let _ = writeln!(out, "{name}=");
            } else {
                let _ = writeln!(out, "#{name}={}", sample(setting).unwrap_or_default());
            }
        }
    }
    out
}

/// The default, where such a line can hold it and means it.
fn sample(setting: &Setting) -> Option<String> {
    let text = values::literal_default(setting)?;
    let plain = !text.starts_with(['"', '\'']) && !text.contains(|c: char| c.is_control());
    (plain && values::convert(setting, &text).is_ok()).then_some(text)
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
        for format in [
            Format::Text,
            Format::Markdown,
            Format::Json,
            Format::Schema,
            Format::Env,
        ] {
            let shown = reference(&contract, format);
            assert!(!shown.contains("CANARY"), "{shown}");
            assert!(shown.contains("PORT") && shown.contains("80"), "{shown}");
        }
        assert!(reference(&contract, Format::Markdown).contains("the \\| password"));
        assert!(reference(&contract, Format::Text).contains("reaches /etc/nginx/x.conf"));
    }

    fn rich() -> Contract {
        serde_json::from_value(json!({
            "format": 2,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "volumes": [{"path": "/data"}],
            "settings": {
                "PASSWORD": {"variable": "p", "type": "secret", "generate": 20},
                "TOKEN": {"variable": "t", "type": "secret", "required": true, "deprecated": ["OLD_TOKEN"]},
                "PORT_NUMBER": {"variable": "q", "type": "port", "default": 80, "help": "Two\nlines"},
                "FLAG": {"variable": "f", "type": "bool", "default": true},
                "NAMES": {"variable": "n", "type": "list", "default": ["a", "b c"]},
                "EXTRA": {"variable": "e", "type": "map", "default": {"a": [1]}},
                "MEMORY": {"variable": "m", "type": "size", "default": "1gb"},
                "SHARE": {"variable": "s", "type": "string", "default": 0.5},
                "QUOTED": {"variable": "quoted", "type": "string", "default": "\"x\""},
                "SPACED": {"variable": "spaced", "type": "string", "default": "a # b 'c'"},
                "COMPUTED": {"variable": "c", "type": "string", "default": "{{ q }}"},
                "MAIL": {"variable": "mail", "type": "host", "default": "", "conflicts": ["SPACED"]}
            }
        }))
        .unwrap()
    }

    #[test]
    fn the_sample_read_back_gives_the_defaults() {
        let contract = rich();
        let sample = reference(&contract, Format::Env);
        let entries = |text: &str| super::super::env_file::parse(text).unwrap();
        let open: Vec<String> = entries(&sample).into_iter().map(|e| e.name).collect();
        assert_eq!(
            open,
            ["TOKEN"],
            "only what must be given is open:\n{sample}"
        );
        let opened: String = sample
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.contains('=') && !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let mut checked = 0;
        for entry in entries(&opened)
            .into_iter()
            .filter(|e| !e.value.is_empty() || e.name == "MAIL")
        {
            let setting = &contract.settings[&entry.name];
            let default = setting.default.clone().unwrap();
            let value = values::convert(setting, &entry.value).unwrap();
            assert_eq!(text_of(&value), text_of(&default), "{}", entry.name);
            checked += 1;
        }
        assert_eq!(checked, 8, "{opened}");
    }

    #[test]
    fn every_format_tells_what_is_to_be_known() {
        let contract = rich();
        for format in [Format::Text, Format::Markdown, Format::Env] {
            let shown = reference(&contract, format);
            for words in ["formerly OLD_TOKEN", "not together with SPACED", "Two"] {
                assert!(shown.contains(words), "no `{words}` in {shown}");
            }
        }
        assert!(reference(&contract, Format::Text).contains("NAME=value in /data/settings.env"));
        for format in [Format::Text, Format::Markdown] {
            let shown = reference(&contract, format);
            let volume = "All that must last lies on /data: run the box with a volume there, -v data:/data\n";
            assert!(shown.contains(volume), "{shown}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&reference(&contract, Format::Json)).unwrap();
        assert_eq!(json["volumes"], json!(["/data"]));
        let schema: serde_json::Value =
            serde_json::from_str(&reference(&contract, Format::Schema)).unwrap();
        assert_eq!(schema["properties"]["PORT_NUMBER"]["maximum"], json!(65535));
        assert_eq!(schema["properties"]["OLD_TOKEN"]["deprecated"], json!(true));
        assert_eq!(schema["properties"]["PASSWORD"]["writeOnly"], json!(true));
    }
}
