//! What the page tells of the box besides its services: one function, so that whoever has
//! something to tell adds it in one place.

use crate::backup::schedule;
use crate::preflight::{self, Check};

use super::serve::About;

/// A line of "This box".
pub struct Fact {
    pub name: &'static str,
    pub value: String,
}

pub fn facts(about: &About) -> Vec<Fact> {
    let product = &about.contract.product;
    let kernel = rustix::system::uname();
    let fact = |name, value: String| Fact { name, value };
    let written = about.contract.volumes.first().and_then(|volume| {
        about
            .root
            .read(&format!("{}/.tiffin/version", volume.path))
            .ok()
            .flatten()
    });
    let mut facts = vec![
        fact("Product", format!("{} ({})", product.title, product.name)),
        fact("Version", product.version.clone()),
    ];
    if let Some(version) = written {
        facts.push(fact("Data written by", version.trim().to_owned()));
    }
    if about.environment.get(schedule::SCHEDULE).is_some() {
        let last = schedule::Last::of(&about.contract, &about.root);
        facts.push(fact("Scheduled backups", last.text()));
        let kept = schedule::kept(&about.contract, &about.root, &about.environment);
        facts.push(fact("Kept backups", kept.join("\n")));
    }
    facts.push(fact(
        "Kernel",
        kernel.release().to_string_lossy().into_owned(),
    ));
    facts
}

/// Machine, volumes and their room, as the start looks at them.
pub fn checks(about: &About) -> Vec<Check> {
    preflight::quick(&about.contract, &about.root, &about.environment)
}
