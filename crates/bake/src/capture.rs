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

/// Compares each template on its own variables with what Ansible wrote, then moves what
/// identical templates share into one map. Only what those need is in the answer or stays
/// in a template: nobody renders the others again, and their variables may say too much.
pub fn settle(templates: &mut [(&TemplateEvent, Template)]) -> Variables {
    let nothing = Variables::new();
    for (event, template) in templates.iter_mut() {
        if matches!(template.parity, Parity::Identical) {
            template.variables = event.variables.clone();
            template.parity = compare(template, event, &nothing, &nothing);
        }
    }
    loop {
        let shared = share(templates);
        let mut stable = true;
        for (event, template) in templates.iter_mut() {
            if template.parity == Parity::Identical
                && compare(template, event, &nothing, &shared) != Parity::Identical
            {
                // Rare: it asks whether a name is defined that only other roles know.
                template.parity = Parity::Failed {
                    reason: "it renders differently when it sees the variables of other tasks"
                        .into(),
                };
                stable = false;
            }
        }
        if stable {
            return shared;
        }
    }
}

/// Variables that all identical templates agree on; a template for which a name means
/// something else carries its own. The first value seen of a name becomes the shared one.
fn share(templates: &mut [(&TemplateEvent, Template)]) -> Variables {
    let mut shared = Variables::new();
    for (event, template) in templates {
        template.variables.clear();
        if template.parity != Parity::Identical {
            template.includes.clear();
            continue;
        }
        for (name, value) in &event.variables {
            if is_local(name) || shared.get(name).is_some_and(|same| same != value) {
                template.variables.insert(name.clone(), value.clone());
            } else {
                shared.insert(name.clone(), value.clone());
            }
        }
    }
    shared
}

/// What the recipe's own expressions need, as the first task saw it.
pub fn expressions<'a>(events: impl Iterator<Item = &'a Event>) -> Variables {
    let mut found = Variables::new();
    for event in events {
        let Event::Template(template) = event else {
            continue;
        };
        for (name, value) in &template.expressions {
            if !found.contains_key(name) {
                found.insert(name.clone(), value.clone());
            }
        }
    }
    found
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

/// The contract's form of a captured template; owner and mode are filled in later, and
/// [`settle`] says what of its variables stays and whether it is identical.
pub fn template(event: &TemplateEvent, playbook_dir: &Path) -> Template {
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
        variables: Variables::new(),
        includes: event.includes.clone(),
        parity: Parity::Identical,
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

    fn written(dest: &str, body: &str, result: &str, variables: Value) -> TemplateEvent {
        serde_json::from_value(json!({
            "dest": dest, "source": dest, "task": "t", "body": body, "result": result, "variables": variables,
        }))
        .unwrap()
    }

    fn settled(events: &[TemplateEvent]) -> (Vec<Template>, Variables) {
        let mut pairs: Vec<_> = events
            .iter()
            .map(|e| (e, template(e, Path::new("/"))))
            .collect();
        let shared = settle(&mut pairs);
        (pairs.into_iter().map(|(_, t)| t).collect(), shared)
    }

    #[test]
    fn variables_of_templates_that_are_not_rendered_again_stay_out_of_the_contract() {
        let mut hidden = written("/c", "{{ c }}", "3", json!({"c": "3"}));
        hidden.no_log = true;
        let (templates, shared) = settled(&[
            written("/a", "{{ a }}", "1", json!({"a": "{{ one }}", "one": 1})),
            written(
                "/b",
                "{{ b }}",
                "other",
                json!({"b": "canary", "item": "canary"}),
            ),
            hidden,
        ]);
        assert_eq!(Value::Object(shared), json!({"a": "{{ one }}", "one": 1}));
        assert_eq!(templates[0].parity, Parity::Identical);
        for template in &templates[1..] {
            assert_ne!(template.parity, Parity::Identical);
            assert!(template.variables.is_empty(), "{template:?}");
        }
    }

    #[test]
    fn a_template_keeps_what_a_name_means_to_it_alone() {
        let (templates, shared) = settled(&[
            written(
                "/a",
                "{{ port }}{{ item }}",
                "1x",
                json!({"port": 1, "item": "x"}),
            ),
            written(
                "/b",
                "{{ port }}{{ item }}",
                "2y",
                json!({"port": 2, "item": "y"}),
            ),
        ]);
        assert_eq!(Value::Object(shared), json!({"port": 1}));
        assert_eq!(
            Value::Object(templates[0].variables.clone()),
            json!({"item": "x"})
        );
        assert_eq!(
            Value::Object(templates[1].variables.clone()),
            json!({"port": 2, "item": "y"})
        );
    }

    #[test]
    fn a_variable_of_another_template_defines_nothing_here() {
        let body = "{{ extra is defined }}";
        let (templates, shared) = settled(&[
            written("/a", "{{ extra }}", "x", json!({"extra": "x"})),
            written("/b", body, "False", json!({})),
        ]);
        assert_eq!(templates[0].parity, Parity::Identical);
        assert!(matches!(templates[1].parity, Parity::Failed { .. }));
        assert_eq!(Value::Object(shared), json!({"extra": "x"}));
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
