//! A supervisord configuration, its included files, and what is made of it.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use services::supervisord::{File, daemon, includes, parse};

fuzz_target!(|text: &str| {
    let environment = BTreeMap::from([("WHO".to_owned(), "me %(ENV_WHO)s".to_owned())]);
    // The second file is what the first includes.
    let (main, other) = text.split_once("\n---\n").unwrap_or((text, ""));
    let file = |path, text| File { path, text };
    let main = file("/etc/supervisord.conf", main);
    let _ = includes(main, &environment);
    let files = [main, file("/etc/conf.d/other.conf", other)];
    let _ = daemon(&files, &environment);
    if let Ok(parsed) = parse(&files, &environment) {
        let programs = parsed.value;
        for program in &programs {
            assert!(program.program.is_some() && !program.name.is_empty());
            for command in &program.commands.start {
                assert!(!command.argv(|_| None).is_empty(), "{command:?}");
            }
        }
    }
});
