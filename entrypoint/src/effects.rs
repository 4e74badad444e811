//! What a changed file means for services: by the playbook's handlers, by the recipe's
//! `uses`, and because a service is described in it.

use contract::{Contract, HandlerAction, Template};
use serde::Serialize;
use services::Service;

use crate::plan::is_called;
use crate::root::Root;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Effect {
    pub service: String,
    pub action: HandlerAction,
    pub because: String,
    /// The file describes the service: what is read from it decides, not that it changed.
    #[serde(skip)]
    pub defines: bool,
}

/// One effect a service, the strongest.
pub fn of(
    contract: &Contract,
    services: &[&Service],
    root: &Root,
    template: &Template,
) -> Vec<Effect> {
    let mut effects: Vec<Effect> = Vec::new();
    let mut add = |service: &Service, action: HandlerAction, because: String, defines: bool| {
        let name = &service.name;
        match effects.iter_mut().find(|effect| effect.service == *name) {
            Some(effect) if effect.action >= action => {}
            Some(effect) => {
                (effect.action, effect.because, effect.defines) = (action, because, defines);
            }
            None => effects.push(Effect {
                service: name.clone(),
                action,
                because,
                defines,
            }),
        }
    };
    let called = |name: &str| -> Vec<&Service> {
        let all = services.iter().copied();
        all.filter(|service| is_called(service, name)).collect()
    };
    for handler in &template.notify {
        for effect in contract.handlers.get(handler).into_iter().flatten() {
            for service in called(&effect.service) {
                add(
                    service,
                    effect.action,
                    format!("handler `{handler}`"),
                    false,
                );
            }
        }
    }
    let restart = HandlerAction::Restart;
    let dest = &template.dest;
    for (name, wanted) in &contract.services {
        if wanted.uses.contains(dest) {
            for service in called(name) {
                add(service, restart, "the recipe's `uses`".to_owned(), false);
            }
        }
    }
    for service in services {
        if service
            .environment_files
            .iter()
            .any(|file| file.path == *dest)
        {
            add(service, restart, "its EnvironmentFile=".to_owned(), false);
        }
    }
    for unit in contract
        .units
        .iter()
        .filter(|unit| is_unit_file(dest, &unit.path, &unit.name))
    {
        for service in called(&unit.name) {
            add(service, restart, "its unit".to_owned(), true);
        }
    }
    let text = root.read(dest).ok().flatten().unwrap_or_default();
    for name in programs(&text) {
        for service in called(name) {
            add(service, restart, "its program".to_owned(), true);
        }
    }
    effects.sort();
    effects
}

/// The unit's own file, the one that replaces it, or one of its drop-ins.
fn is_unit_file(dest: &str, path: &str, name: &str) -> bool {
    let Some((directory, file)) = dest.rsplit_once('/') else {
        return false;
    };
    dest == path
        || (file == name && directory == "/etc/systemd/system")
        || (file.ends_with(".conf") && directory.ends_with(&format!("/systemd/system/{name}.d")))
}

/// The programs that a file of supervisord's configuration describes.
fn programs(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let section = line.trim().strip_prefix('[')?.split(']').next()?;
        let (kind, name) = section.split_once(':')?;
        matches!(kind, "program" | "group" | "eventlistener" | "fcgi-program").then_some(name)
    })
}
