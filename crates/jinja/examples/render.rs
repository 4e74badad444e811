//! Renders cases from stdin: one JSON object a line, `{"template", "variables"}`, one JSON answer a line.
//!
//! For comparing with Ansible on many templates at once (`tests/expected.py`).

use std::io::BufRead;

use contract::{Parity, Template, TemplateOptions};
use serde_json::{Value, json};

fn main() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(mut case) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let mut take = |key: &str| case.get_mut(key).map(Value::take).unwrap_or_default();
        let variables = take("variables").as_object().cloned().unwrap_or_default();
        let options: TemplateOptions = serde_json::from_value(take("options")).unwrap_or_default();
        let includes = serde_json::from_value(take("includes")).unwrap_or_default();
        let template = Template {
            dest: "/out".into(),
            source: "case".into(),
            task: String::new(),
            uid: 0,
            gid: 0,
            mode: "0644".into(),
            body: take("template").as_str().unwrap_or_default().to_owned(),
            options,
            variables: Default::default(),
            includes,
            parity: Parity::Identical,
            link: false,
            notify: Vec::new(),
            validate: None,
        };
        let settings = Default::default();
        let scope = jinja::Scope::new(&settings, &[&variables]);
        let answer = match jinja::render(&template, &scope) {
            Ok(text) => json!({ "text": text }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        println!("{answer}");
    }
}
