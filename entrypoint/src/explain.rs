//! `explain`: from a setting, through variables and templates, to files and services.
//!
//! Read from the contract and the units; nothing is rendered, so that it works without the
//! settings that the box requires, and holds for any values.

use std::fmt::Write as _;

use contract::{Contract, HandlerAction, Parity, Template};
use jinja::reach::{self, Reach};
use serde::Serialize;
use services::Service;

use crate::effects::{self, Effect};
use crate::exit::{Code, Failure, Result};
use crate::plan;
use crate::root::Root;
use crate::settings::{nearest, setting_of};

#[derive(Debug, Serialize)]
pub struct Answer {
    pub name: String,
    pub kind: Kind,
    /// What the setting sets, or the variable that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// Who can change it: of a variable and of a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setter>,
    pub files: Vec<File>,
    /// Services that are started, left out or checked by its value.
    pub services: Vec<Use>,
    /// Other settings that its value makes required.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Setting,
    Variable,
    File,
}

#[derive(Debug, Serialize)]
pub struct Setter {
    pub setting: String,
    pub via: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct File {
    pub path: String,
    pub template: String,
    pub task: String,
    /// From the variable to the one that the template names.
    pub via: Vec<String>,
    /// False where the build found that this box cannot render it as Ansible does: it
    /// stays as it was built.
    pub rendered: bool,
    pub services: Vec<Effect>,
}

#[derive(Debug, Serialize)]
pub struct Use {
    pub service: String,
    /// `when`, `ready`, `job`, `again` or `ca_bundle`.
    pub what: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expression: String,
    pub via: Vec<String>,
}

/// `root` is read as it is when the box runs: before its first start the files that it
/// renders, units among them, need not be there.
pub fn explain(
    contract: &Contract,
    root: &Root,
    environment: &std::collections::BTreeMap<String, String>,
    name: &str,
) -> Result<Answer> {
    let services = plan::services(contract, root, environment);
    let services: Vec<&Service> = services.iter().collect();
    let reached: Vec<(&Template, Reach)> = contract
        .templates
        .iter()
        .map(|template| (template, reach::template(template, &contract.variables)))
        .collect();
    let file = |template: &Template, via: Vec<String>| File {
        path: template.dest.clone(),
        template: template.source.clone(),
        task: template.task.clone(),
        via,
        rendered: template.parity == Parity::Identical,
        services: effects::of(contract, &services, root, template),
    };
    if let Some((template, reach)) = reached.iter().find(|(t, _)| t.dest == name) {
        return Ok(Answer {
            name: name.to_owned(),
            kind: Kind::File,
            variable: None,
            settings: setters(contract, reach),
            files: vec![file(template, Vec::new())],
            services: Vec::new(),
            required: Vec::new(),
        });
    }
    let setting = setting_of(contract, name);
    let (kind, variable) = match setting {
        Some((_, setting)) => (Kind::Setting, setting.variable.clone()),
        None if is_variable(contract, &reached, name) => (Kind::Variable, name.to_owned()),
        None => return Err(unknown(contract, &reached, name)),
    };
    let mut settings = Vec::new();
    if kind == Kind::Variable {
        let names = jinja::reach::text(&format!("{{{{ {variable} }}}}"), &Default::default());
        settings = setters(contract, &reach::closure(names, &[&contract.variables]));
    }
    let files = reached
        .iter()
        .filter(|(_, reach)| reach.has(&variable))
        .map(|(template, reach)| file(template, reach.chain(&variable)))
        .collect();
    let expression = |code: &str| reach::closure(reach::expression(code), &[&contract.variables]);
    let required = contract
        .settings
        .iter()
        .filter(|(_, s)| {
            s.required_if
                .as_ref()
                .is_some_and(|code| expression(code).has(&variable))
        })
        .map(|(name, _)| name.clone())
        .collect();
    Ok(Answer {
        name: setting.map_or(name, |(name, _)| name).to_owned(),
        kind,
        settings,
        files,
        services: uses(
            contract,
            &services,
            &variable,
            setting.map(|(name, _)| name.as_str()),
        ),
        variable: Some(variable),
        required,
    })
}

pub fn setters(contract: &Contract, reach: &Reach) -> Vec<Setter> {
    contract
        .settings
        .iter()
        .filter(|(_, setting)| reach.has(&setting.variable))
        .map(|(name, setting)| Setter {
            setting: name.clone(),
            via: reach.chain(&setting.variable),
        })
        .collect()
}

fn uses(
    contract: &Contract,
    services: &[&Service],
    variable: &str,
    setting: Option<&str>,
) -> Vec<Use> {
    let mut out = Vec::new();
    let bundle = contract.ca_bundle.as_ref();
    if let Some(bundle) = bundle.filter(|bundle| setting == Some(bundle.setting.as_str())) {
        let is_meant = |service: &&&Service| {
            let named = |name: &String| plan::is_called(service, name);
            bundle.services.is_empty() || bundle.services.iter().any(named)
        };
        out.extend(services.iter().filter(is_meant).map(|service| Use {
            service: service.name.clone(),
            what: "ca_bundle",
            expression: String::new(),
            via: vec![variable.to_owned()],
        }));
    }
    for (name, wanted) in &contract.services {
        let own: Vec<&str> = services
            .iter()
            .filter(|service| plan::is_called(service, name))
            .map(|service| service.name.as_str())
            .collect();
        let mut add = |what, expression: &str, reach: Reach| {
            if reach.has(variable) {
                out.extend(own.iter().map(|service| Use {
                    service: (*service).to_owned(),
                    what,
                    expression: expression.to_owned(),
                    via: reach.chain(variable),
                }));
            }
        };
        let closure = |names| reach::closure(names, &[&contract.variables]);
        if let Some(when) = &wanted.when {
            add("when", when, closure(reach::expression(when)));
        }
        if let Some(ready) = &wanted.ready {
            for text in ready.texts() {
                add(
                    "ready",
                    text,
                    closure(reach::text(text, &Default::default())),
                );
            }
        }
        for text in contract.jobs.get(name).iter().flat_map(|job| job.texts()) {
            let names = reach::text(text, &Default::default());
            add("job", text, closure(names));
        }
        if setting.is_some_and(|setting| wanted.again.iter().any(|again| again == setting)) {
            out.extend(own.iter().map(|service| Use {
                service: (*service).to_owned(),
                what: "again",
                expression: String::new(),
                via: vec![variable.to_owned()],
            }));
        }
    }
    out
}

fn is_variable(contract: &Contract, reached: &[(&Template, Reach)], name: &str) -> bool {
    contract.variables.contains_key(name)
        || contract.settings.values().any(|s| s.variable == name)
        || reached
            .iter()
            .any(|(t, reach)| t.variables.contains_key(name) || reach.has(name))
}

fn unknown(contract: &Contract, reached: &[(&Template, Reach)], name: &str) -> Failure {
    let failure = Failure::new(
        Code::Usage,
        format!("cannot explain {name}: it is no setting, variable or rendered file of this box"),
    );
    let known = || {
        let settings = contract.settings.keys().map(String::as_str);
        let variables = contract.variables.keys().map(String::as_str);
        let files = reached.iter().map(|(template, _)| template.dest.as_str());
        settings.chain(variables).chain(files)
    };
    if let Some(near) = nearest(name, known()) {
        return failure.hint(format!("did you mean {near}?"));
    }
    let word = name.to_ascii_lowercase();
    let alike: Vec<&str> = known()
        .filter(|known| word.len() > 2 && known.to_ascii_lowercase().contains(&word))
        .take(8)
        .collect();
    if alike.is_empty() {
        failure.hint("`settings` lists what can be set, `render` the files")
    } else {
        failure.hint(format!("there are {}", alike.join(", ")))
    }
}

pub fn text(answer: &Answer) -> String {
    let mut out = String::new();
    match (answer.kind, &answer.variable) {
        (Kind::Setting, Some(variable)) => {
            let _ = writeln!(
                out,
                "{} sets the playbook's variable {variable}",
                answer.name
            );
        }
        (Kind::Variable, _) => {
            let _ = writeln!(out, "{} is a variable of the playbook", answer.name);
        }
        _ => {
            let _ = writeln!(out, "{} is written by the playbook", answer.name);
        }
    }
    for setter in &answer.settings {
        let _ = writeln!(
            out,
            "  changes with {}: {}",
            setter.setting,
            chain(&setter.via)
        );
    }
    for file in &answer.files {
        if answer.kind == Kind::File {
            let _ = writeln!(out, "  by {} (task `{}`)", file.template, file.task);
        } else {
            let via = chain(&file.via);
            let _ = writeln!(out, "\n{via} -> {} -> {}", file.template, file.path);
        }
        if !file.rendered {
            let _ = writeln!(
                out,
                "  stays as it was built: this box cannot render it as Ansible does"
            );
            continue;
        }
        for effect in &file.services {
            let verb = match effect.action {
                HandlerAction::Reload => "reloads",
                HandlerAction::Restart => "restarts",
            };
            let _ = writeln!(out, "  {verb} {} ({})", effect.service, effect.because);
        }
        if file.services.is_empty() {
            let _ = writeln!(out, "  no service is restarted: no handler says so");
        }
    }
    if !answer.services.is_empty() {
        out.push('\n');
    }
    for used in &answer.services {
        let via = chain(&used.via);
        let _ = match used.what {
            "when" => writeln!(
                out,
                "{via} decides whether {} starts (`when: {}`)",
                used.service, used.expression
            ),
            "ready" => writeln!(
                out,
                "{via} is where {} is asked whether it is ready (`{}`)",
                used.service, used.expression
            ),
            "job" => writeln!(
                out,
                "{via} is part of the job {} (`{}`)",
                used.service, used.expression
            ),
            _ => writeln!(out, "{via} makes {} run again", used.service),
        };
    }
    for name in &answer.required {
        let _ = writeln!(out, "{} may be required, depending on it", name);
    }
    if answer.files.is_empty() && answer.services.is_empty() && answer.kind != Kind::File {
        let _ = writeln!(out, "  it reaches no file and no service of this box");
    }
    out
}

fn chain(via: &[String]) -> String {
    via.join(" -> ")
}
