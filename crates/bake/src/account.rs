//! What a build has to say besides the contract: what stays as it was made, and what each
//! setting reaches.

use std::collections::{BTreeMap, BTreeSet};

use contract::{Contract, Value};

use crate::{
    capture::{Event, TemplateEvent},
    edits::Fixed,
    running::Ran,
};

/// Units that run jobs of crontabs.
const CRONS: [&str; 5] = ["cron", "crond", "cronie", "bcron", "fcron"];

#[derive(Debug, Default)]
pub struct Account {
    /// What tasks wrote from variables and no start writes again.
    pub fixed: Vec<Fixed>,
    /// Tasks that wrote nothing here, with the reason.
    pub left_out: Vec<String>,
    /// By setting: what else follows it, and what does not.
    pub reach: BTreeMap<String, Reach>,
    /// What tasks wanted of the machine, and who gives a box that instead.
    pub recorded: Vec<(String, String)>,
    /// Units that really ran.
    pub ran: Ran,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Services whose `when` or `ready` asks for it.
    pub services: Vec<String>,
    /// Tasks that used its value once and for all.
    pub fixed: Vec<String>,
}

pub fn account<'a>(
    contract: &Contract,
    templates: &[TemplateEvent],
    fixed: Vec<Fixed>,
    events: impl Iterator<Item = &'a Event>,
) -> Account {
    let mut account = Account {
        fixed,
        ..Account::default()
    };
    let mut variables: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, setting) in &contract.settings {
        variables.insert(&setting.variable, name);
        account.reach.insert(name.clone(), Reach::default());
    }
    let mut note = |names: &[String], line: &str| {
        for name in names {
            let reach = variables
                .get(name.as_str())
                .and_then(|setting| account.reach.get_mut(*setting));
            if let Some(reach) = reach.filter(|r| !r.fixed.iter().any(|known| known == line)) {
                reach.fixed.push(line.to_owned());
            }
        }
    };
    let mut left_out = BTreeSet::new();
    let cron = contract.units.iter().any(|unit| {
        let name = unit.name.trim_end_matches(".service");
        CRONS.contains(&name)
    });
    let mut recorded: Vec<(String, String)> = Vec::new();
    for event in events {
        match event {
            Event::Use {
                task,
                module,
                names,
            } => note(names, &format!("task `{task}` ({module})")),
            Event::LeftOut {
                task,
                reason,
                names,
            } if names.is_empty() => {
                left_out.insert(format!("task `{task}` was {reason}"));
            }
            Event::LeftOut { task, names, .. } => {
                note(names, &format!("task `{task}` was skipped by its `when`"));
            }
            Event::Recorded { what, why } => recorded.push((what.clone(), why.clone())),
            Event::Cron { task } if !cron => recorded.push((
                format!("the job of task `{task}` (cron)"),
                "no task starts or enables a cron in the box".to_owned(),
            )),
            _ => {}
        }
    }
    for template in templates {
        let task = &template.task;
        let dest = &template.dest;
        note(
            &template.bound,
            &format!("what lookups answered for {dest}: a start refuses other values"),
        );
        note(
            &template.place,
            &format!("where task `{task}` writes {dest}"),
        );
        note(
            &template.when,
            &format!("whether task `{task}` writes {dest}"),
        );
    }
    for fixed in &account.fixed {
        note(
            &fixed.names,
            &format!("task `{}` in {}", fixed.task, fixed.dest),
        );
    }
    account.left_out = left_out.into_iter().collect();
    for line in recorded {
        if !account.recorded.contains(&line) {
            account.recorded.push(line);
        }
    }
    for (service, said) in &contract.services {
        let mut texts: Vec<&str> = said.when.iter().map(String::as_str).collect();
        let commands = said.data.iter().chain(&said.check_data).chain(&said.done);
        texts.extend(commands.map(String::as_str));
        if let Some(ready) = &said.ready {
            texts.extend(ready.texts());
        }
        if let Some(job) = contract.jobs.get(service) {
            texts.extend(job.texts());
        }
        let mut seen = BTreeSet::new();
        for text in texts {
            needs(text, contract, &mut seen);
        }
        for name in seen {
            if let Some(setting) = variables.get(name.as_str())
                && let Some(reach) = account.reach.get_mut(*setting)
            {
                reach.services.push(service.clone());
            }
        }
    }
    account
}

/// All names that a text may mean, through the variables that it names.
fn needs(text: &str, contract: &Contract, seen: &mut BTreeSet<String>) {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    for name in text.split(|c| !word(c)).filter(|name| !name.is_empty()) {
        if !seen.insert(name.to_owned()) {
            continue;
        }
        let mut stack: Vec<&Value> = contract.variables.get(name).into_iter().collect();
        while let Some(value) = stack.pop() {
            match value {
                Value::String(text) if text.contains('{') => needs(text, contract, seen),
                Value::Array(items) => stack.extend(items),
                Value::Object(map) => stack.extend(map.values()),
                _ => {}
            }
        }
    }
}
