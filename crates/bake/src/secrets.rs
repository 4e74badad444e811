//! Values that a build must not know: during the play a placeholder stands for each, and
//! nothing that holds one may stay in the box.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use contract::{Kind, Parity, Setting, Template, Value, Variables};
use recipe::Recipe;

use crate::{
    cache,
    capture::Event,
    error::{Error, Result},
    finish,
};

const PREFIX: &str = "tiffin-placeholder-";
/// Files larger than this are no configuration.
const LARGEST: u64 = 16 << 20;

/// What stands for a variable's value during the play: the same in every build, so that
/// layers are too.
fn placeholder(variable: &str) -> String {
    format!("{PREFIX}{}", &cache::hash(&["placeholder", variable])[..24])
}

/// Whether the value comes from the start alone.
pub fn is_unknown(setting: &Setting) -> bool {
    setting.generate.is_some() || setting.required
}

/// The variables that the recipe hands to Ansible, placeholders included.
pub fn variables(recipe: &Recipe) -> Result<Variables> {
    let mut variables = recipe.variables.clone();
    for (name, setting) in &recipe.settings {
        let given = variables.contains_key(&setting.variable);
        if setting.secret && given {
            return Err(Error::Setting {
                setting: name.clone(),
                reason: format!(
                    "it is a secret, and the recipe's `variables` give `{}` to everybody",
                    setting.variable
                ),
            });
        }
        if is_unknown(setting) && !given {
            if !matches!(
                setting.kind,
                Kind::Secret | Kind::String | Kind::Host | Kind::Url | Kind::Email | Kind::Path
            ) {
                return Err(Error::Setting {
                    setting: name.clone(),
                    reason: format!(
                        "the play needs some value of its type: give one as `{}` under `variables`",
                        setting.variable
                    ),
                });
            }
            variables.insert(
                setting.variable.clone(),
                placeholder(&setting.variable).into(),
            );
        }
    }
    Ok(variables)
}

/// The recipe with a setting for each vaulted variable: its value is in no file, so an
/// operator gives it, or a start generates it where the recipe says so.
pub fn with_vaulted<'a>(
    recipe: &Recipe,
    events: impl Iterator<Item = &'a Event>,
) -> Result<Recipe> {
    let mut recipe = recipe.clone();
    for event in events {
        let Event::Vaulted {
            variable,
            file,
            lookup,
            kind,
            generate,
        } = event
        else {
            continue;
        };
        let declared = recipe
            .settings
            .values_mut()
            .find(|setting| setting.variable == *variable);
        if let Some(setting) = declared {
            setting.secret = true;
            setting.required |= setting.generate.is_none();
            continue;
        }
        if recipe.variables.contains_key(variable) {
            continue; // the recipe's own value wins, and is none of the vault's
        }
        let name = variable.to_uppercase();
        let wrong = |reason: &str| Error::Setting {
            setting: name.clone(),
            reason: match lookup {
                None => format!("{file} vaults the variable `{variable}`, and {reason}"),
                Some(lookup) => {
                    format!("the lookup `{lookup}` of {file} answers a secret, and {reason}")
                }
            },
        };
        if recipe.settings.contains_key(&name) {
            return Err(wrong(
                "the setting of that name sets another: give the recipe a setting for it",
            ));
        }
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) || !name.is_ascii() {
            return Err(wrong(
                "that cannot be a setting's name: give the recipe a setting for it",
            ));
        }
        let help = match lookup {
            None => "A secret of the playbooks' vault.".to_owned(),
            Some(lookup) => format!("A secret of the playbooks' lookup `{lookup}` of {file}."),
        };
        let setting = Setting {
            help,
            kind: kind.unwrap_or(Kind::Secret),
            required: generate.is_none(),
            generate: *generate,
            ..secret(variable)
        };
        recipe.settings.insert(name, setting);
    }
    Ok(recipe)
}

fn secret(variable: &str) -> Setting {
    Setting {
        variable: variable.to_owned(),
        kind: Kind::Secret,
        required: false,
        required_if: None,
        conflicts: Vec::new(),
        deprecated: Vec::new(),
        secret: true,
        generate: None,
        choices: Vec::new(),
        min: None,
        max: None,
        pattern: None,
        default: None,
        help: String::new(),
        example: None,
        section: None,
        files: Vec::new(),
    }
}

/// Refuses what a placeholder went into without showing: a file with it could neither be
/// found nor written again.
pub fn check_hashed<'a>(
    recipe: &Recipe,
    templates: &[Template],
    events: impl Iterator<Item = &'a Event>,
) -> Result<()> {
    for event in events {
        let Event::Hashed {
            task,
            placeholder: held,
            how,
            dest,
        } = event
        else {
            continue;
        };
        let rendered = |dest: &String| {
            templates
                .iter()
                .any(|t| t.dest == *dest && t.parity == Parity::Identical)
        };
        if dest.as_ref().is_some_and(rendered) {
            continue;
        }
        let found = recipe
            .settings
            .iter()
            .find(|(_, s)| placeholder(&s.variable) == *held);
        if let Some((name, _)) = found {
            return Err(Error::Setting {
                setting: name.clone(),
                reason: format!(
                    "task `{task}` gives it to {how}, and no start could do that again: write the file with a `template` task, or do it in a service's ExecStartPre="
                ),
            });
        }
    }
    Ok(())
}

/// `{{ db_password | default('PLACEHOLDER') }}`, which stood for a vaulted value inside a
/// map during the play, becomes `{{ db_password }}`.
fn without_default(value: &mut Value, default: &str) {
    match value {
        Value::String(text) if text.contains(default) => *text = text.replace(default, ""),
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| without_default(item, default)),
        Value::Object(map) => map
            .values_mut()
            .for_each(|item| without_default(item, default)),
        _ => {}
    }
}

/// Takes the placeholders out of captured variables and checks that none is left in
/// another variable, which would freeze it.
pub fn remove(recipe: &Recipe, variables: &mut [&mut Variables]) -> Result<()> {
    for (name, setting) in &recipe.settings {
        let stands = Value::from(placeholder(&setting.variable));
        let default = format!(" | default('{}')", placeholder(&setting.variable));
        for variables in variables.iter_mut() {
            for value in variables.values_mut() {
                without_default(value, &default);
            }
            if variables.get(&setting.variable) == Some(&stands) {
                variables.shift_remove(&setting.variable);
            } else if setting.secret
                && variables
                    .get(&setting.variable)
                    .is_some_and(|v| !is_empty(v))
            {
                return Err(Error::Setting {
                    setting: name.clone(),
                    reason: format!(
                        "it is a secret, and the playbook's own value of `{}` would be in the image: let it be generated or required, or make the playbook's value empty",
                        setting.variable
                    ),
                });
            }
        }
        let text = placeholder(&setting.variable);
        for variables in variables.iter() {
            if let Some((variable, _)) = variables
                .iter()
                .find(|(_, value)| value.to_string().contains(&text))
            {
                return Err(Error::Setting {
                    setting: name.clone(),
                    reason: format!(
                        "the play computes `{variable}` from it once (set_fact, register): a start could not change it"
                    ),
                });
            }
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.is_null()
        || value == &Value::from("")
        || value.as_str().is_some_and(|text| text.contains("{{"))
}

/// A placeholder as it may stand in a file: in plain, and in base64 at each of the three
/// places where it can begin in a longer text.
fn forms() -> Vec<Vec<u8>> {
    let encoded = (0..3).map(|before| {
        let text = BASE64_STANDARD_NO_PAD.encode([&b"\0\0"[..before], PREFIX.as_bytes()].concat());
        // The first characters depend on what stands before, the last on what follows.
        let first = (before * 8).div_ceil(6);
        text.as_bytes()[first..(before + PREFIX.len()) * 8 / 6].to_vec()
    });
    std::iter::once(PREFIX.as_bytes().to_vec())
        .chain(encoded)
        .collect()
}

/// Files of a layer that hold a placeholder, as paths in the box.
pub fn find(tree: &Path) -> Result<Vec<String>> {
    let forms = forms();
    let finders: Vec<_> = forms.iter().map(memchr::memmem::Finder::new).collect();
    let mut found = Vec::new();
    let mut stack: Vec<PathBuf> = vec![tree.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir)
            .map_err(Error::io("read", &dir))?
            .flatten()
        {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            if meta.is_dir() {
                stack.push(path);
            } else if meta.is_file() && meta.size() <= LARGEST && meta.size() >= PREFIX.len() as u64
            {
                let content = fs::read(&path).map_err(Error::io("read", &path))?;
                if finders.iter().any(|f| f.find(&content).is_some()) {
                    let shown = path.strip_prefix(tree).unwrap_or(&path);
                    found.push(format!("/{}", shown.display()));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Refuses files with a placeholder that no start writes again. `templates` are all that
/// were captured, `read` answers a file's content in the finished box.
pub fn check_files(
    recipe: &Recipe,
    held: &[String],
    templates: &[Template],
    read: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<()> {
    for path in held {
        let template = templates.iter().find(|t| t.dest == *path);
        if template.is_some_and(|t| t.parity == Parity::Identical) {
            continue;
        }
        let Some(content) = read(path) else { continue };
        let why = match template {
            Some(template) => format!(
                "the box renders it differently: {}",
                finish::explain(&template.parity)
            ),
            None => "write it with a `template` task".to_owned(),
        };
        let plain = |setting: &Setting| {
            let text = placeholder(&setting.variable);
            memchr::memmem::find(&content, text.as_bytes()).is_some()
        };
        if let Some((name, _)) = recipe.settings.iter().find(|(_, s)| plain(s)) {
            return Err(Error::Setting {
                setting: name.clone(),
                reason: format!(
                    "its value ended in {path}, which no start could write again: {why}"
                ),
            });
        }
        if forms()
            .iter()
            .any(|form| memchr::memmem::find(&content, form).is_some())
        {
            return Err(Error::Setting {
                setting: "(one that is secret or required)".into(),
                reason: format!(
                    "its value ended in {path} in base64, which no start could write again: {why}"
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vaulted_value_inside_a_map_becomes_its_settings_variable() {
        let held = placeholder("db_password");
        let mut value = serde_json::json!({"user": "u", "password": format!("{{{{ db_password | default('{held}') }}}}")});
        without_default(&mut value, &format!(" | default('{held}')"));
        assert_eq!(value["password"], "{{ db_password }}");
    }

    #[test]
    fn the_launcher_and_the_builder_agree_on_placeholders() {
        // python3 -c 'import tiffin_records; print(tiffin_records.placeholder("top"))'
        assert_eq!(
            placeholder("top"),
            "tiffin-placeholder-1d6ef8041aa6a0cebbf48062"
        );
    }

    #[test]
    fn a_placeholder_is_found_in_base64_wherever_it_begins() {
        for before in ["", "a", "ab", "abc", "user:"] {
            let text =
                BASE64_STANDARD_NO_PAD.encode(format!("{before}{}:rest", placeholder("NAME")));
            let found = forms()
                .iter()
                .filter(|form| memchr::memmem::find(text.as_bytes(), form).is_some())
                .count();
            assert_eq!(found, 1, "after {before:?}");
        }
    }
}
