//! What the launcher recorded while tasks ran, and what the contract makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use contract::{Handler, Kind, Parity, Template, TemplateOptions, Value, Variables};
use serde::{Deserialize, Serialize};

use crate::{edits, lookups, units};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
// One event is in hand at a time.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    Template(TemplateEvent),
    Edit(EditEvent),
    Service(ServiceEvent),
    /// Another task whose arguments come from variables: what it wrote stays.
    Use {
        task: String,
        module: String,
        names: Vec<String>,
    },
    /// A task that would have written a file, but not here.
    LeftOut {
        task: String,
        reason: String,
        /// What its `when` asks for.
        #[serde(default)]
        names: Vec<String>,
    },
    /// What a task wanted of the machine, and why it is not done here.
    Recorded {
        what: String,
        why: String,
    },
    /// A task wrote a job for cron.
    Cron {
        task: String,
    },
    /// A placeholder went into something that no search finds it in again.
    Hashed {
        task: String,
        placeholder: String,
        how: String,
        #[serde(default)]
        dest: Option<String>,
    },
    /// A variable that holds a secret, and the file that vaults or keeps it.
    Vaulted {
        variable: String,
        file: String,
        /// The lookup whose answer it stands for.
        #[serde(default)]
        lookup: Option<String>,
        /// What an operator gives; a secret when absent.
        #[serde(default)]
        kind: Option<Kind>,
        /// How long a secret would do as well.
        #[serde(default)]
        generate: Option<u16>,
    },
    /// At the end of each play.
    Play {
        handlers: Vec<HandlerEvent>,
        #[serde(default)]
        expressions: Variables,
    },
    /// Registered results, set facts and included variables at the end of a play.
    State {
        /// JSON of the launcher's own form, passed on as it is.
        text: String,
    },
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
    /// Facts that it asks for and that the build machine does not have.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Why the variables cannot be known before the template runs.
    #[serde(default)]
    pub dynamic: Vec<String>,
    /// Variables in the arguments of lookups.
    #[serde(default)]
    pub bound: Vec<String>,
    /// Variables that decide where the task writes and how often.
    #[serde(default)]
    pub place: Vec<String>,
    /// Variables that decide whether it does.
    #[serde(default)]
    pub when: Vec<String>,
    #[serde(default)]
    pub notify: Vec<String>,
    #[serde(default)]
    pub validate: Option<String>,
    #[serde(default)]
    pub no_log: bool,
}

/// A file that a task wrote from its arguments; most fields are there only when these come
/// from variables.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EditEvent {
    pub module: String,
    pub dest: String,
    pub task: String,
    /// The argument with the text, as the playbook wrote it and as it was rendered.
    pub raw: Option<Value>,
    pub value: Value,
    /// The other arguments, rendered.
    pub args: serde_json::Map<String, Value>,
    pub variables: Variables,
    pub missing: Vec<String>,
    pub dynamic: Vec<String>,
    pub bound: Vec<String>,
    pub place: Vec<String>,
    pub when: Vec<String>,
    pub notify: Vec<String>,
    pub validate: Option<String>,
    pub no_log: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandlerEvent {
    /// Its name alone, and with its role's before it.
    pub names: Vec<String>,
    pub listen: Vec<String>,
    pub module: String,
    pub effects: Vec<Handler>,
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
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    let mut events: Vec<Event> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    // Each holds all that those before it did.
    let is_state = |event: &Event| matches!(event, Event::State { .. });
    let last = events.iter().rposition(is_state);
    let mut at = 0;
    events.retain(|event| {
        at += 1;
        !is_state(event) || Some(at - 1) == last
    });
    Ok(events)
}

/// What the tasks of these layers, the lowest first, left in Ansible's memory.
pub fn state<'a>(layers: impl DoubleEndedIterator<Item = &'a [Event]>) -> Option<&'a str> {
    let mut events = layers.rev().flat_map(|events| events.iter().rev());
    events.find_map(|event| match event {
        Event::State { text } => Some(text.as_str()),
        _ => None,
    })
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
            let name = units::full(&name);
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

/// Compares each template on its own variables with what Ansible wrote, then moves what
/// identical templates share into one map. Only what those need is in the answer or stays
/// in a template: nobody renders the others again, and their variables may say too much.
///
/// A template of a `no_log` task is one of them only when all its variables are public:
/// settings (`known`), named by the recipe, or needed by another template as they are.
pub fn settle(
    templates: &mut [(&TemplateEvent, Template)],
    known: &BTreeSet<&str>,
    public: &[String],
) -> Variables {
    let nothing = Variables::new();
    for (event, template) in templates.iter_mut() {
        if template.parity == Parity::Identical {
            template.variables = event.variables.clone();
            template.parity = compare(template, event, &nothing, &nothing);
        }
    }
    hide_secrets(templates, known, public);
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

fn hide_secrets(
    templates: &mut [(&TemplateEvent, Template)],
    known: &BTreeSet<&str>,
    public: &[String],
) {
    let open: BTreeSet<(String, String)> = templates
        .iter()
        .filter(|(event, template)| !event.no_log && template.parity == Parity::Identical)
        .flat_map(|(event, _)| said(&event.variables))
        .collect();
    for (event, template) in templates.iter_mut().filter(|(event, _)| event.no_log) {
        let hidden: BTreeSet<String> = said(&event.variables)
            .filter(|said| {
                let name = said.0.as_str();
                let own = name != "item" && is_local(name) || name == "inventory_hostname";
                let listed = known.contains(name) || public.iter().any(|p| p == name);
                !(own || listed || open.contains(said))
            })
            .map(|(name, _)| name)
            .collect();
        let hidden: Vec<String> = hidden.into_iter().collect();
        if !hidden.is_empty() {
            template.parity = Parity::Failed {
                reason: format!(
                    "the task is marked no_log, and nothing says that {} may be in the box: make settings of them, or name them under `public`",
                    hidden.join(", ")
                ),
            };
        } else if let Parity::Differs { line, .. } = &template.parity {
            template.parity = Parity::Failed {
                reason: format!("line {line} differs (the task is marked no_log: it is not shown)"),
            };
        }
    }
}

/// All that variables would tell: each with its value, and each answer of a lookup.
fn said(variables: &Variables) -> impl Iterator<Item = (String, String)> {
    let answers = lookups::of(variables)
        .iter()
        .filter(|kept| lookups::is_told(kept));
    let answers = answers.map(|kept| {
        let name = kept["name"].as_str().unwrap_or_default();
        (format!("the lookup `{name}`"), kept.to_string())
    });
    variables
        .iter()
        .filter(|(name, _)| *name != jinja::FROZEN)
        .map(|(name, value)| (name.clone(), value.to_string()))
        .chain(answers)
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
            if name == jinja::FROZEN {
                lookups::share(value, &mut shared, &mut template.variables);
            } else if is_local(name) || shared.get(name).is_some_and(|same| same != value) {
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
        let expressions = match event {
            Event::Template(template) => &template.expressions,
            // Sees no variables of roles that were included on the way.
            Event::Play { expressions, .. } => expressions,
            _ => continue,
        };
        for (name, value) in expressions {
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
        || name.starts_with(edits::VALUE)
        || [
            "item",
            "ansible_managed",
            "ansible_loop",
            "role_name",
            "role_path",
        ]
        .contains(&name)
}

/// A template's path without the build machine's folders: below the playbook's directory,
/// else from the collection or role on.
fn told_source(source: &str, playbook_dir: &Path) -> String {
    if let Ok(below) = Path::new(source).strip_prefix(playbook_dir) {
        return below.display().to_string();
    }
    ["/ansible_collections/", "/roles/", "/"]
        .iter()
        .find_map(|part| Some(source[source.rfind(part)? + 1..].to_owned()))
        .unwrap_or_else(|| source.to_owned())
}

/// The contract's form of a captured template; owner and mode are filled in later, and
/// [`settle`] says what of its variables stays and whether it is identical.
pub fn template(event: &TemplateEvent, playbook_dir: &Path) -> Template {
    let source = told_source(&event.source, playbook_dir);
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
        let shared = settle(&mut pairs, &BTreeSet::from(["set"]), &["listed".to_owned()]);
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
    fn a_template_of_a_no_log_task_is_rendered_again_when_all_its_variables_are_public() {
        let variables = json!({"set": "a", "listed": "b", "shared": "c", "tiffin_value_1": "d"});
        let mut hidden = written("/a", "{{ set }}{{ listed }}{{ shared }}", "abc", variables);
        hidden.no_log = true;
        let open = written("/b", "{{ shared }}", "c", json!({"shared": "c"}));
        let (templates, _) = settled(&[hidden.clone(), open.clone()]);
        assert_eq!(templates[0].parity, Parity::Identical);

        // Another value under a public name, and a line that differs, tell nothing.
        hidden.variables["shared"] = "canary".into();
        hidden.result = "abcanary".into();
        let (templates, shared) = settled(&[hidden.clone(), open.clone()]);
        let Parity::Failed { reason } = &templates[0].parity else {
            panic!("{:?}", templates[0]);
        };
        assert!(
            reason.contains("shared") && !reason.contains("listed"),
            "{reason}"
        );
        hidden.variables["shared"] = "c".into();
        let (differs, _) = settled(&[hidden, open]);
        let all = format!("{templates:?} {shared:?} {differs:?}");
        assert!(!all.contains("canary"), "{all}");
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
    fn a_templates_source_does_not_tell_where_the_build_ran() {
        let told = |source| told_source(source, Path::new("/home/ci/acme/playbooks"));
        assert_eq!(
            told("/home/ci/acme/playbooks/roles/x/templates/a.j2"),
            "roles/x/templates/a.j2"
        );
        assert_eq!(
            told("/home/ci/.ansible/roles/geerlingguy.nginx/templates/vhost.j2"),
            "roles/geerlingguy.nginx/templates/vhost.j2"
        );
        assert_eq!(
            told("/usr/lib/x/ansible_collections/a/b/roles/c/templates/d.j2"),
            "ansible_collections/a/b/roles/c/templates/d.j2"
        );
        assert_eq!(told("/etc/elsewhere/e.j2"), "e.j2");
    }

    #[test]
    fn what_is_stopped_or_disabled_later_is_not_wanted() {
        let events = [
            service("redis", Some("started"), Some(true)),
            service("nginx", None, Some(true)),
            service("exim4", Some("started"), None),
            service("exim4", Some("stopped"), Some(false)),
            service("nginx.service", Some("reloaded"), None),
            // A dot is part of a name: this one was taken for a unit of the kind `2-fpm`.
            service("php8.2-fpm", Some("started"), None),
            service("sweep.timer", Some("started"), None),
        ];
        let wanted: Vec<String> = wanted_units(events.iter()).into_iter().collect();
        let named = [
            "nginx.service",
            "php8.2-fpm.service",
            "redis.service",
            "sweep.timer",
        ];
        assert_eq!(wanted, named);
    }
}
