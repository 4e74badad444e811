//! A unit with a drop-in, a timer, an environment file, tmpfiles.d, and the command lines that come of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use services::systemd::{Calendar, environment_file, parse, timer, tmpfiles};

fuzz_target!(|text: &str| {
    let (unit, drop_in) = text.split_once("\n---\n").unwrap_or((text, ""));
    for name in ["app.service", "app@in\\x2dstance.service"] {
        if let Ok(parsed) = parse(name, &[unit, drop_in]) {
            let service = parsed.value;
            assert!(!service.name.is_empty());
            let commands = &service.commands;
            for command in commands.start.iter().chain(&commands.stop) {
                assert!(!command.words.is_empty());
                let _ = command.argv(|name| Some(format!("{name} two")));
            }
        }
    }
    let _ = timer("app.timer", &[unit, drop_in]);
    let _ = Calendar::parse(text);
    for tmpfile in tmpfiles(text).value {
        assert!(tmpfile.path.starts_with('/') && tmpfile.mode <= 0o7777);
    }
    for (name, _) in environment_file(text) {
        assert!(!name.is_empty() && !name.contains('='));
    }
});
