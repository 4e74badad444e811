//! What the launcher recorded while tasks ran, and what the contract makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use contract::{Parity, Template, TemplateOptions, Value, Variables};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
// One event is in hand at a time.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    Template(TemplateEvent),
    Service(ServiceEvent),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TemplateEvent {
    pub dest: String,
    pub source: String,
    pub task: String,
    pub body: String,
    #[serde(default)]
    pub options: serde_json::Map<String, Value>,
    /// What Ansible wrote.
    pub result: String,
    pub variables: Variables,
    #[serde(default)]
    pub expressions: Variables,
    #[serde(default)]
    pub includes: BTreeMap<String, String>,
    /// Why the variables cannot be known before the template runs.
    #[serde(default)]
    pub dynamic: Vec<String>,
    #[serde(default)]
    pub notify: Vec<String>,
    #[serde(default)]
    pub validate: Option<String>,
    #[serde(default)]
    pub no_log: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceEvent {
    pub module: String,
    #[serde(default)]
    pub name: Option<Value>,
    #[serde(default)]
    pub state: Option<String>,
    #[serde(default)]
    pub enabled: Option<Value>,
    pub task: String,
}

pub fn parse(text: &str) -> Result<Vec<Event>, serde_json::Error> {
    text.lines()
        .filter(|l| !l.trim().is_empty())
        .map(serde_json::from_str)
        .collect()
}

/// Units that the playbook wants running: enabled or started, and not stopped or disabled after.
pub fn wanted_units<'a>(events: impl Iterator<Item = &'a Event>) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    for event in events {
        let Event::Service(service) = event else {
            continue;
        };
        if service.module == "supervisorctl" {
            continue; // a program of a unit that is supervised as a whole
        }
        let names: Vec<String> = match &service.name {
            Some(Value::String(name)) => vec![name.clone()],
            _ => continue, // daemon_reload alone
        };
        let enabled = service.enabled.as_ref().and_then(truth);
        for name in names {
            let name = if name.contains('.') {
                name
            } else {
                format!("{name}.service")
            };
            let on = match (enabled, service.state.as_deref()) {
                (Some(enabled), _) => enabled,
                (None, Some("started" | "restarted" | "reloaded")) => true,
                (None, Some("stopped")) => false,
                _ => continue,
            };
            if on {
                wanted.insert(name)
            } else {
                wanted.remove(&name)
            };
        }
    }
    wanted
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::String(s) => match s.to_lowercase().as_str() {
            "yes" | "true" | "on" | "1" => Some(true),
            "no" | "false" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// The last writer of each file, in the order of writing.
pub fn last_templates<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<&'a TemplateEvent> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut out: Vec<Option<&TemplateEvent>> = Vec::new();
    for event in events {
        let Event::Template(template) = event else {
            continue;
        };
        if let Some(earlier) = seen.insert(&template.dest, out.len()) {
            out[earlier] = None;
        }
        out.push(Some(template));
    }
    out.into_iter().flatten().collect()
}

/// Variables that every template agrees on, and for each template what differs.
///
/// The first value seen of a name becomes the shared one; a template for which the name
/// means something else carries its own.
pub fn share(templates: &[&TemplateEvent]) -> (Variables, Vec<Variables>) {
    let mut shared = Variables::new();
    let mut own = Vec::new();
    for event in templates {
        let mut differs = Variables::new();
        for (name, value) in &event.variables {
            match shared.get(name) {
                _ if is_local(name) => {
                    differs.insert(name.clone(), value.clone());
                }
                None => {
                    shared.insert(name.clone(), value.clone());
                }
                Some(same) if same == value => {}
                Some(_) => {
                    differs.insert(name.clone(), value.clone());
                }
            }
        }
        own.push(differs);
    }
    for event in templates {
        for (name, value) in &event.expressions {
            if !shared.contains_key(name) {
                shared.insert(name.clone(), value.clone());
            }
        }
    }
    (shared, own)
}

/// Names that mean one task's own thing, whoever else uses them.
fn is_local(name: &str) -> bool {
    name.starts_with("template_")
        || [
            "item",
            "ansible_managed",
            "ansible_loop",
            "role_name",
            "role_path",
        ]
        .contains(&name)
}

/// The contract's form of a captured template; owner, mode and parity are filled in later.
pub fn template(event: &TemplateEvent, variables: Variables, playbook_dir: &Path) -> Template {
    let source = Path::new(&event.source);
    let source = source
        .strip_prefix(playbook_dir)
        .unwrap_or(source)
        .display()
        .to_string();
    Template {
        dest: event.dest.clone(),
        source,
        task: event.task.clone(),
        uid: 0,
        gid: 0,
        mode: "0644".into(),
        body: event.body.clone(),
        options: options(&event.options),
        variables,
        includes: event.includes.clone(),
        parity: Parity::Failed {
            reason: "not compared yet".into(),
        },
        link: false,
        notify: event.notify.clone(),
        validate: event.validate.clone(),
    }
}

fn options(given: &serde_json::Map<String, Value>) -> TemplateOptions {
    let mut options = TemplateOptions::default();
    for (key, value) in given {
        let flag = truth(value);
        let text = value.as_str().map(str::to_owned);
        match (key.as_str(), flag, text) {
            ("trim_blocks", Some(on), _) => options.trim_blocks = on,
            ("lstrip_blocks", Some(on), _) => options.lstrip_blocks = on,
            ("newline_sequence", _, Some(t)) => options.newline_sequence = t,
            ("block_start_string", _, Some(t)) => options.block_start_string = t,
            ("block_end_string", _, Some(t)) => options.block_end_string = t,
            ("variable_start_string", _, Some(t)) => options.variable_start_string = t,
            ("variable_end_string", _, Some(t)) => options.variable_end_string = t,
            ("comment_start_string", _, Some(t)) => options.comment_start_string = t,
            ("comment_end_string", _, Some(t)) => options.comment_end_string = t,
            _ => {}
        }
    }
    options
}

/// Renders a captured template with the box's own engine and compares it with what Ansible wrote.
pub fn compare(
    template: &Template,
    event: &TemplateEvent,
    settings: &Variables,
    variables: &Variables,
) -> Parity {
    if event.no_log {
        return Parity::Failed {
            reason: "the task is marked no_log: its variables are not put into the box".into(),
        };
    }
    let ours = match jinja::render(template, &jinja::Scope::new(settings, &[variables])) {
        Ok(text) => text,
        Err(problem) => {
            let mut reason = problem.to_string();
            if !event.dynamic.is_empty() {
                reason += &format!(
                    " (it looks variables up by computed names: {})",
                    event.dynamic.join(", ")
                );
            }
            return Parity::Failed { reason };
        }
    };
    if ours == event.result {
        return Parity::Identical;
    }
    let mut theirs = event.result.split('\n');
    let mut own = ours.split('\n');
    let mut line = 1;
    loop {
        match (theirs.next(), own.next()) {
            (Some(a), Some(b)) if a == b => line += 1,
            (a, b) => {
                let text = |s: Option<&str>| s.unwrap_or("(end of the file)").to_owned();
                return Parity::Differs {
                    line,
                    ansible: text(a),
                    tiffin: text(b),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, state: Option<&str>, enabled: Option<bool>) -> Event {
        Event::Service(ServiceEvent {
            module: "service".into(),
            name: Some(json!(name)),
            state: state.map(Into::into),
            enabled: enabled.map(|e| json!(e)),
            task: String::new(),
        })
    }

    #[test]
    fn what_is_stopped_or_disabled_later_is_not_wanted() {
        let events = [
            service("redis", Some("started"), Some(true)),
            service("nginx", None, Some(true)),
            service("exim4", Some("started"), None),
            service("exim4", Some("stopped"), Some(false)),
            service("nginx.service", Some("reloaded"), None),
        ];
        let wanted: Vec<String> = wanted_units(events.iter()).into_iter().collect();
        assert_eq!(wanted, ["nginx.service", "redis.service"]);
    }
}
