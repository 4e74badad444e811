//! The settings as a JSON Schema (draft 2020-12) of a map from names to values, such as the
//! `environment:` of a Compose file or a chart's values: numbers and booleans may be written
//! as such there, so both are taken.

use contract::{Contract, Kind, Setting};
use serde_json::{Map, Value, json};

use super::is_secret;

pub fn schema(contract: &Contract) -> Value {
    let mut properties = Map::new();
    let mut all_of = Vec::new();
    for (name, setting) in &contract.settings {
        properties.insert(name.clone(), property(setting));
        let file_name = format!("{name}_FILE");
        if !contract.settings.contains_key(&file_name) {
            properties.insert(
                file_name.clone(),
                json!({"type": "string", "minLength": 1, "description": format!("Path of a file that holds the value of {name}.")}),
            );
            all_of.push(not_both(name, &file_name));
        }
        for old in &setting.deprecated {
            let mut property = property(setting);
            property["deprecated"] = json!(true);
            property["description"] = json!(format!("Former name of {name}."));
            properties.insert(old.clone(), property);
            all_of.push(not_both(name, old));
        }
        if setting.required {
            let names = std::iter::once(name).chain(&setting.deprecated);
            let one: Vec<Value> = names
                .flat_map(|name| {
                    [
                        json!({"required": [name]}),
                        json!({"required": [format!("{name}_FILE")]}),
                    ]
                })
                .collect();
            all_of.push(json!({"anyOf": one}));
        }
        all_of.extend(setting.conflicts.iter().map(|other| not_both(name, other)));
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Settings of {} {}", contract.product.title, contract.product.version),
        "type": "object",
        "properties": properties,
    });
    if !all_of.is_empty() {
        schema["allOf"] = json!(all_of);
    }
    schema
}

fn not_both(one: &str, other: &str) -> Value {
    json!({"not": {"required": [one, other]}})
}

fn property(setting: &Setting) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    let mut pattern = None;
    match setting.kind {
        Kind::Int | Kind::Port => {
            put("type", json!(["integer", "string"]));
            pattern = Some("^\\s*[-+]?[0-9]+\\s*$");
            let (low, high) = match setting.kind {
                Kind::Port => (Some(1), Some(65535)),
                _ => (None, None),
            };
            if let Some(min) = setting.min.or(low) {
                put("minimum", json!(min));
            }
            if let Some(max) = setting.max.or(high) {
                put("maximum", json!(max));
            }
        }
        Kind::Bool => {
            put("type", json!(["boolean", "integer", "string"]));
            put("minimum", json!(0));
            put("maximum", json!(1));
            pattern = Some(
                "^\\s*([Tt][Rr][Uu][Ee]|[Yy][Ee][Ss]|[Oo][Nn]|1|[Ff][Aa][Ll][Ss][Ee]|[Nn][Oo]|[Oo][Ff][Ff]|0)\\s*$",
            );
        }
        Kind::Enum => {
            let nothing = values::may_be_empty(setting).then(String::new);
            let choices: Vec<String> = setting.choices.iter().cloned().chain(nothing).collect();
            put("enum", json!(choices));
        }
        Kind::Percent => {
            put("type", json!(["number", "string"]));
            put("minimum", json!(setting.min.unwrap_or(0)));
            put("maximum", json!(setting.max.unwrap_or(100)));
            pattern = Some("^\\s*[0-9]+(\\.[0-9]+)?%?\\s*$");
        }
        Kind::Duration => {
            put("type", json!(["integer", "string"]));
            put("minimum", json!(setting.min.unwrap_or(0)));
            pattern = Some("^\\s*[0-9]+[smhd]?\\s*$");
        }
        Kind::Size => {
            put("type", json!(["integer", "string"]));
            put("minimum", json!(setting.min.unwrap_or(0)));
            pattern = Some("^\\s*[0-9]+([kKmMgGtT][bB]?)?\\s*$");
        }
        Kind::Email => {
            put("type", json!("string"));
            put("format", json!("email"));
        }
        Kind::Url => {
            put("type", json!("string"));
            put("format", json!("uri"));
        }
        Kind::Path => {
            put("type", json!("string"));
            pattern = Some("^/");
        }
        Kind::Certificate | Kind::Key => {
            put("type", json!("string"));
            pattern = Some("-----BEGIN ");
        }
        _ => put("type", json!("string")),
    }
    // Where nothing at all is a value, it must pass too.
    let optional = values::may_be_empty(setting);
    let whole = |pattern: &str| match optional {
        true => format!("^$|{pattern}"),
        false => pattern.to_owned(),
    };
    match (&setting.pattern, pattern) {
        // Its dialect is Python's, which agrees with ECMA-262 on what recipes use.
        (Some(own), _) => put("pattern", json!(whole(&format!("^(?:{own})$")))),
        (None, Some(of_type)) => put("pattern", json!(whole(of_type))),
        (None, None) => {}
    }
    if !optional && setting.kind != Kind::Enum {
        put("minLength", json!(1));
    }
    if let Some(text) = values::literal_default(setting) {
        put("default", json!(text));
    }
    if let Some(example) = &setting.example {
        put("examples", json!([example]));
    }
    if is_secret(setting) {
        put("writeOnly", json!(true));
    }
    let allowed = values::allowed(setting);
    let help = match setting.help.as_str() {
        "" => allowed,
        help => format!("{help} ({allowed})"),
    };
    put("description", json!(help));
    if let Some(section) = &setting.section {
        put("$comment", json!(format!("section: {section}")));
    }
    Value::Object(out)
}
