//! What a contract must be beyond its types, so that a broken one is refused before
//! anything is touched instead of half-way.

use contract::{Contract, Kind, Setting};

/// # Errors
///
/// What is wrong first, and where.
pub fn check(contract: &Contract) -> Result<(), String> {
    for (name, setting) in &contract.settings {
        setting_is_sound(contract, name, setting)
            .map_err(|reason| format!("the setting `{name}` {reason}"))?;
    }
    for template in &contract.templates {
        path(&template.dest)?;
        mode(&template.dest, &template.mode)?;
    }
    for volume in &contract.volumes {
        path(&volume.path)?;
        for directory in &volume.directories {
            path(&directory.path)?;
            mode(&directory.path, &directory.mode)?;
        }
    }
    for unit in &contract.units {
        path(&unit.path)?;
        if unit.name.is_empty() || unit.name.contains(['/', '\0']) {
            return Err(format!(
                "`{}` is no name of a unit",
                unit.name.escape_debug()
            ));
        }
    }
    let volumes: Vec<&str> = contract.volumes.iter().map(|v| v.path.as_str()).collect();
    for (name, service) in &contract.services {
        // What an expression makes is known when the settings are.
        for path in service.data.iter().filter(|text| !text.contains("{{")) {
            values::data_directory(path, &volumes).map_err(|reason| {
                let path = path.escape_debug();
                format!("the service `{name}` has data in `{path}`: {reason}")
            })?;
        }
        if let Some(setting) = service
            .again
            .iter()
            .find(|s| !contract.settings.contains_key(*s))
        {
            return Err(format!(
                "the service `{name}` speaks of a setting `{setting}`, which does not exist"
            ));
        }
    }
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if let Some(name) = contract
        .support
        .keys()
        .find(|name| name.is_empty() || !name.bytes().all(word))
    {
        return Err(format!("`{}` is no name of a file", name.escape_debug()));
    }
    let all = contract.services.values().map(|service| &service.needs);
    let names = all.chain([&contract.needs]).flat_map(|needs| &needs.cpu);
    for name in names {
        // It is shown, and looked for in a list of words.
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!(
                "`{}` is no feature of a processor",
                name.escape_debug()
            ));
        }
    }
    if let Some(upgrade) = &contract.upgrade
        && let Some(wrong) = upgrade
            .from
            .iter()
            .chain(&upgrade.stops)
            .find(|text| values::version(text).is_none())
    {
        return Err(format!("`{}` is no version", wrong.escape_debug()));
    }
    for (name, service) in &contract.services {
        let moves = service.r#move.iter().map(|m| ("move", &m.command));
        for (what, words) in [("freeze", &service.freeze)].into_iter().chain(moves) {
            if words.first().is_some_and(|word| !word.starts_with('/')) {
                return Err(format!(
                    "the {what} command of the service `{name}` is no absolute path"
                ));
            }
        }
    }
    for path in &contract.backup.exclude {
        values::data_directory(path, &volumes).map_err(|reason| {
            format!("`{}` is left out of backups: {reason}", path.escape_debug())
        })?;
    }
    for (name, certificate) in &contract.certificates {
        let (public, private) = (&certificate.certificate, &certificate.key);
        if name.is_empty() || !name.bytes().all(word) {
            return Err(format!("`{}` is no name of a file", name.escape_debug()));
        }
        of_kind(contract, public, Kind::Certificate)?;
        of_kind(contract, private, Kind::Key)?;
    }
    if let Some(bundle) = &contract.ca_bundle {
        of_kind(contract, &bundle.setting, Kind::Certificate)?;
    }
    if contract.ports.contains(&0) {
        return Err("0 is no port".to_owned());
    }
    Ok(())
}

fn of_kind(contract: &Contract, name: &str, kind: Kind) -> Result<(), String> {
    match contract.settings.get(name) {
        Some(setting) if setting.kind == kind => Ok(()),
        Some(_) => Err(format!(
            "the setting `{name}` is of another type than its use"
        )),
        None => Err(format!(
            "there is no setting `{name}`, and something uses it"
        )),
    }
}

fn setting_is_sound(contract: &Contract, name: &str, setting: &Setting) -> Result<(), String> {
    let known = |other: &&String| contract.settings.contains_key(*other);
    if !is_name(name) || setting.deprecated.iter().any(|old| !is_name(old)) {
        return Err("has a name that no environment variable can have".to_owned());
    }
    let word = |c: char| c.is_alphanumeric() || c == '_';
    if setting.variable.is_empty() || !setting.variable.chars().all(word) {
        return Err("sets something that is no variable".to_owned());
    }
    if let Some(old) = setting.deprecated.iter().find(known) {
        return Err(format!(
            "was formerly called `{old}`, as another one is today"
        ));
    }
    if let Some(other) = setting.conflicts.iter().find(|other| !known(other)) {
        return Err(format!("conflicts with `{other}`, which does not exist"));
    }
    if setting.kind == Kind::Enum && setting.choices.is_empty() {
        return Err("has no choices".to_owned());
    }
    if let (Some(min), Some(max)) = (setting.min, setting.max)
        && min > max
    {
        return Err("has a minimum above its maximum".to_owned());
    }
    if setting
        .generate
        .is_some_and(|length| length == 0 || setting.kind != Kind::Secret)
    {
        return Err("cannot be generated".to_owned());
    }
    if let Some(pattern) = &setting.pattern {
        values::pattern(pattern)
            .map_err(|reason| format!("has a pattern that is none: {reason}"))?;
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn path(path: &str) -> Result<(), String> {
    let parts = || path.split('/').filter(|part| !part.is_empty());
    let good = path.starts_with('/')
        && !path.contains('\0')
        && parts().next().is_some()
        && parts().all(|part| part != "." && part != "..");
    match good {
        true => Ok(()),
        false => Err(format!("`{}` is no absolute path", path.escape_debug())),
    }
}

fn mode(path: &str, mode: &str) -> Result<(), String> {
    match crate::root::mode(mode) {
        Some(_) => Ok(()),
        None => Err(format!(
            "the mode `{}` of {path} is not octal",
            mode.escape_debug()
        )),
    }
}
