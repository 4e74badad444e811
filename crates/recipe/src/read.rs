//! The recipe's own keys, from file to [`Recipe`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use reference::Reference;

use crate::certificates::{ca_bundle, certificates};
use crate::error::{Error, Problem, Result, nearest};
use crate::field::{Field, Table};
use crate::jobs::jobs;
use crate::needs::needs;
use crate::roles::roles;
use crate::services::services;
use crate::setting::settings;
use crate::yaml::{self, quote};
use crate::{Base, Compression, Copy, Frozen, Health, Layer, Recipe, Step};

/// Nobody writes that much by hand.
const MAX_BYTES: usize = 1 << 20;

const KEYS: &[&str] = &[
    "name",
    "registry",
    "title",
    "description",
    "vendor",
    "url",
    "licenses",
    "base",
    "base_packages",
    "playbook",
    "inventory",
    "groups",
    "variables",
    "public",
    "frozen_facts",
    "layers",
    "start",
    "compression",
    "settings",
    "devices",
    "volumes",
    "ports",
    "services",
    "jobs",
    "files",
    "needs",
    "support",
    "backup",
    "certificates",
    "ca_bundle",
    "roles",
    "stop_signal",
    "stop_timeout",
    "labels",
    "health",
    "upgrade",
];

pub(crate) fn text(path: &Path) -> std::result::Result<String, Error> {
    let fail = |reason: &str| Problem::new(reason).in_file(path);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            let problem = Problem::new(error.to_string());
            match error.kind() {
                std::io::ErrorKind::NotFound => problem.hint(
                    "name the recipe with `-f FILE`, or change to the directory that holds it",
                ),
                _ => problem,
            }
            .in_file(path)
        })?;
    if bytes.len() > MAX_BYTES {
        return Err(fail("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        fail(&format!("it is not UTF-8 text at line {line}"))
    })
}

pub(crate) fn recipe(text: &str, origin: &Path) -> std::result::Result<Recipe, Error> {
    checked(text, origin).map_err(|problem| problem.in_file(origin))
}

fn checked(text: &str, origin: &Path) -> Result<Recipe> {
    if text.len() > MAX_BYTES {
        return Err(Problem::new("it is larger than 1 MiB"));
    }
    let path = std::path::absolute(origin).map_err(|error| Problem::new(error.to_string()))?;
    let root = yaml::parse(text)?.ok_or_else(|| {
        Problem::new("it is empty")
            .hint("the least is `name: acme/backend` and `playbook: site.yml`")
    })?;
    let table = Table::new(&root, String::new(), KEYS)?;
    let files = Files {
        folder: path.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let name = required(&table, "name", "acme/backend")?;
    let playbook = required(&table, "playbook", "site.yml")?;
    let known_settings = match table.get("settings") {
        Some(field) => settings(&field)?,
        None => BTreeMap::new(),
    };
    let known_volumes = match table.get("volumes") {
        Some(field) => volumes(&field)?,
        None => vec!["/data".to_owned()],
    };
    let known_ports = table
        .get("ports")
        .map(|field| ports(&field))
        .transpose()?
        .unwrap_or_default();
    let mut known_services = table
        .get("services")
        .map(|field| services(&field, &known_settings, &known_volumes))
        .transpose()?
        .unwrap_or_default();
    let base = match table.get("base") {
        Some(field) => base(&field, &files)?,
        None => Base::Debootstrap {
            suite: "bookworm".to_owned(),
        },
    };
    Ok(Recipe {
        name: image_name(&name)?,
        registry: table
            .get("registry")
            .map(|field| registry(&field))
            .transpose()?,
        title: table.text("title")?,
        description: table.text("description")?,
        vendor: table.text("vendor")?,
        url: table.text("url")?,
        licenses: table.text("licenses")?,
        base_packages: base_packages(&table, &base)?,
        base,
        playbook: files.existing(&playbook, "playbook")?,
        inventory: table
            .get("inventory")
            .map(|field| files.existing(&field, "inventory"))
            .transpose()?,
        groups: groups(&table)?,
        variables: variables(&table)?,
        public: names(&table, "public")?,
        frozen_facts: match table.get("frozen_facts") {
            Some(field) if matches!(field.node.kind, yaml::Kind::Bool(_)) => match field.flag()? {
                true => Frozen::All,
                false => Frozen::None,
            },
            Some(_) => Frozen::Named(names(&table, "frozen_facts")?),
            None => Frozen::None,
        },
        compression: table
            .get("compression")
            .map(|field| compression(&field))
            .transpose()?
            .unwrap_or_default(),
        layers: match table.get("layers") {
            Some(field) => layers(&field, &files)?,
            None => vec![layer("stack".to_owned())],
        },
        start: units(&table)?,
        jobs: table
            .get("jobs")
            .map(|field| jobs(&field, &mut known_services))
            .transpose()?
            .unwrap_or_default(),
        services: known_services,
        backup: table
            .get("backup")
            .map(|field| backup(field, &known_volumes))
            .transpose()?
            .unwrap_or_default(),
        certificates: table
            .get("certificates")
            .map(|field| certificates(&field, &known_settings))
            .transpose()?
            .unwrap_or_default(),
        ca_bundle: table
            .get("ca_bundle")
            .map(|field| ca_bundle(field, &known_settings))
            .transpose()?,
        settings: known_settings,
        devices: table
            .get("devices")
            .map(|field| devices(&field))
            .transpose()?
            .unwrap_or_default(),
        volumes: known_volumes,
        roles: table
            .get("roles")
            .map(|field| roles(&field, &known_ports))
            .transpose()?
            .unwrap_or_default(),
        ports: known_ports,
        links: table
            .get("files")
            .map(|field| links(&field))
            .transpose()?
            .unwrap_or_default(),
        needs: table
            .get("needs")
            .map(needs)
            .transpose()?
            .unwrap_or_default(),
        support: table
            .get("support")
            .map(|field| support(&field))
            .transpose()?
            .unwrap_or_default(),
        stop_signal: table
            .get("stop_signal")
            .map(|field| signal(&field))
            .transpose()?,
        stop_timeout: table.seconds("stop_timeout")?,
        labels: table
            .get("labels")
            .map(|field| labels(&field))
            .transpose()?
            .unwrap_or_default(),
        health: table.get("health").map(health).transpose()?,
        upgrade: table.get("upgrade").map(upgrade).transpose()?,
        path,
    })
}

fn required<'a>(table: &Table<'a>, key: &str, example: &str) -> Result<Field<'a>> {
    table.get(key).ok_or_else(|| {
        Problem::new(format!("the key `{key}` is missing")).hint(format!("add `{key}: {example}`"))
    })
}

fn image_name(field: &Field) -> Result<String> {
    let text = field.text()?;
    Reference::check_path(text).map_err(|reason| {
        let problem = field.cannot(reason);
        let lower = text.to_lowercase();
        match Reference::check_path(&lower) {
            Ok(()) => problem.hint(format!("write `{lower}`")),
            Err(_) if text.contains(':') => {
                problem.hint("the tag is given by `--version`, the registry by `registry`")
            }
            Err(_) => problem,
        }
    })?;
    let first = text.split('/').next().unwrap_or_default();
    if text.contains('/') && (first.contains('.') || first == "localhost") {
        return Err(field
            .cannot("engines take its beginning for a registry")
            .hint(format!("write `registry: {first}`")));
    }
    Ok(text.to_owned())
}

fn registry(field: &Field) -> Result<String> {
    let text = field.text()?;
    Reference::check_registry(text).map_err(|reason| {
        let bare = text
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .trim_end_matches('/');
        let problem = field.cannot(reason);
        match Reference::check_registry(bare) {
            Ok(()) => problem.hint(format!("write `{bare}`")),
            Err(_) => problem,
        }
    })?;
    if text != "localhost" && !text.contains(['.', ':']) {
        return Err(field
            .cannot("engines take it for a part of the name")
            .hint("a registry has a dot or a port, such as `registry.acme.example`"));
    }
    Ok(text.to_owned())
}

const BASES: &str = "`debootstrap:SUITE`, `rootfs:FILE`, `docker-archive:FILE`, `oci-archive:FILE` or `docker://IMAGE`";

fn base(field: &Field, files: &Files) -> Result<Base> {
    let text = field.text()?;
    let known = || field.cannot(&format!("it must be {BASES}"));
    let (scheme, rest) = text.split_once(':').ok_or_else(known)?;
    if rest.is_empty() {
        return Err(known());
    }
    let file = || files.existing_path(rest, "base");
    Ok(match scheme {
        "debootstrap" => {
            let first = rest.as_bytes()[0].is_ascii_alphanumeric();
            if !first
                || !rest
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
            {
                return Err(field.cannot("the suite is a name such as `bookworm`"));
            }
            Base::Debootstrap {
                suite: rest.to_owned(),
            }
        }
        "rootfs" => Base::Rootfs(file()?),
        "docker-archive" => Base::DockerArchive(file()?),
        "oci-archive" => Base::OciArchive(file()?),
        "docker" => {
            let image = rest
                .strip_prefix("//")
                .ok_or_else(|| known().hint(format!("write `docker://{rest}`")))?;
            if let Err(error) = image.parse::<Reference>() {
                return Err(field.cannot(error.reason));
            }
            Base::Docker(image.to_owned())
        }
        _ => {
            let schemes = [
                "debootstrap",
                "rootfs",
                "docker-archive",
                "oci-archive",
                "docker",
            ];
            return Err(match nearest(scheme, schemes) {
                Some(name) => known().hint(format!("did you mean `{name}`?")),
                None => known(),
            });
        }
    })
}

/// Debian's rule for package names (policy, 5.6.1), with an architecture at most: they
/// end up on a command line.
fn base_packages(table: &Table, base: &Base) -> Result<Vec<String>> {
    let Some(field) = table.get("base_packages") else {
        return Ok(Vec::new());
    };
    if !matches!(base, Base::Debootstrap { .. }) {
        return Err(Problem::new(format!(
            "{} at line {} is for `base: debootstrap:SUITE` alone: this base is taken as it is",
            quote(&field.place),
            field.line
        ))
        .hint(
            "install them in a layer of its own, with a step such as `run: apt-get install -y jq`",
        ));
    }
    let mut packages = Vec::new();
    for item in field.list()? {
        let text = item.text()?;
        let rest = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.')
        };
        let name = text.split_once(':').map_or(text, |(name, _)| name);
        let first = text.as_bytes()[0];
        if !(first.is_ascii_lowercase() || first.is_ascii_digit())
            || !name.bytes().all(rest)
            || !text[name.len()..].bytes().skip(1).all(rest)
        {
            return Err(item.cannot("it is not the name of a Debian package"));
        }
        packages.push(text.to_owned());
    }
    Ok(packages)
}

fn groups(table: &Table) -> Result<Vec<String>> {
    let Some(field) = table.get("groups") else {
        return Ok(Vec::new());
    };
    let mut groups: Vec<String> = Vec::new();
    for item in field.list()? {
        let text = item.text()?;
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if !text.bytes().all(word) {
            return Err(item.cannot("a group's name is made of letters, digits, `_`, `-` and `.`"));
        }
        if groups.iter().any(|group| group == text) {
            return Err(item.cannot("it is given twice"));
        }
        groups.push(text.to_owned());
    }
    Ok(groups)
}

fn variables(table: &Table) -> Result<serde_json::Map<String, serde_json::Value>> {
    let Some(field) = table.get("variables") else {
        return Ok(serde_json::Map::new());
    };
    let entries = field.entries()?;
    for (key, _) in &entries {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if key.name.is_empty()
            || key.name.as_bytes()[0].is_ascii_digit()
            || !key.name.bytes().all(word)
        {
            return Err(Problem::new(format!(
                "the variable {} at line {} must be named by letters, digits and `_`",
                quote(&key.name),
                key.line
            )));
        }
    }
    Ok(entries
        .into_iter()
        .map(|(key, field)| (key.name.clone(), field.node.value()))
        .collect())
}

/// Names of variables, of facts with their dot.
fn names(table: &Table, key: &str) -> Result<Vec<String>> {
    let Some(field) = table.get(key) else {
        return Ok(Vec::new());
    };
    let name = |item: &Field| {
        let text = item.text()?;
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        match text.bytes().all(word) {
            true => Ok(text.to_owned()),
            false => Err(item.cannot("a variable's name is made of letters, digits and `_`")),
        }
    };
    field.list()?.iter().map(name).collect()
}

/// What `systemctl start` is given.
fn units(table: &Table) -> Result<Vec<String>> {
    let Some(field) = table.get("start") else {
        return Ok(Vec::new());
    };
    let mut units: Vec<String> = Vec::new();
    for item in field.list()? {
        let text = item.text()?;
        let name = text.strip_suffix(".service").unwrap_or(text);
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if name.is_empty() || !name.bytes().all(letter) {
            return Err(item.cannot("a unit's name is made of letters, digits and `:-_.@`"));
        }
        if [".timer", ".socket", ".target", ".mount", ".path"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
        {
            return Err(item.cannot("only services run while a box is baked"));
        }
        if units.iter().any(|known| known == name) {
            return Err(item.cannot("it is named twice"));
        }
        units.push(name.to_owned());
    }
    Ok(units)
}

fn layer(name: String) -> Layer {
    Layer {
        name,
        tags: Vec::new(),
        skip_tags: Vec::new(),
        steps: Vec::new(),
    }
}

fn layers(field: &Field, files: &Files) -> Result<Vec<Layer>> {
    let mut layers: Vec<Layer> = Vec::new();
    for item in field.list()? {
        let place = item.place.clone();
        let table = item.table(&["name", "tags", "skip_tags", "steps"])?;
        let Some(name) = table.get("name") else {
            return Err(Problem::new(format!(
                "{} at line {} has no `name`",
                quote(&place),
                table.line()
            )));
        };
        let text = name.text()?;
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        {
            return Err(name.cannot("a layer's name is made of lower-case letters, digits and `-`"));
        }
        if layers.iter().any(|layer| layer.name == text) {
            return Err(name.cannot("another layer has that name"));
        }
        let steps = match table.get("steps") {
            Some(field) => steps(&field, files)?,
            None => Vec::new(),
        };
        if let (false, Some(tags)) = (
            steps.is_empty(),
            table.get("tags").or_else(|| table.get("skip_tags")),
        ) {
            return Err(Problem::new(format!(
                "{} at line {} has no use beside `steps`: they run instead of the playbook",
                quote(&tags.place),
                tags.line
            ))
            .hint("make two layers of it"));
        }
        layers.push(Layer {
            steps,
            tags: tags(&table, "tags")?,
            skip_tags: tags(&table, "skip_tags")?,
            ..layer(text.to_owned())
        });
    }
    match layers.is_empty() {
        true => Err(Problem::new(format!(
            "`layers` at line {} must have at least one layer",
            field.line
        ))
        .hint("leave the key out for one layer with everything")),
        false => Ok(layers),
    }
}

fn steps(field: &Field, files: &Files) -> Result<Vec<Step>> {
    let items = field.list()?;
    if items.is_empty() {
        return Err(Problem::new(format!(
            "{} at line {} must have at least one step",
            quote(&field.place),
            field.line
        )));
    }
    let step = |item: Field| {
        let place = item.place.clone();
        let table = item.table(&["run", "copy"])?;
        match (table.get("run"), table.get("copy")) {
            (Some(run), None) => Ok(Step::Run(run.text()?.to_owned())),
            (None, Some(copy)) => Ok(Step::Copy(copied(copy, files)?)),
            _ => Err(Problem::new(format!(
                "{} at line {} must have one of `run` and `copy`",
                quote(&place),
                table.line()
            ))),
        }
    };
    items.into_iter().map(step).collect()
}

fn copied(field: Field, files: &Files) -> Result<Copy> {
    let (place, line) = (field.place.clone(), field.line);
    let table = field.table(&["from", "to", "mode", "owner"])?;
    let need = |key: &str| {
        table
            .get(key)
            .ok_or_else(|| Problem::new(format!("{} at line {line} has no `{key}`", quote(&place))))
    };
    let to = need("to")?;
    let mut path = to.absolute()?;
    if to.text()?.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    let octal = |field: &Field| {
        let be = "permission bits such as \"0644\"";
        let bits = match &field.node.kind {
            yaml::Kind::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
            yaml::Kind::Text(text) => u32::from_str_radix(text, 8).ok(),
            _ => None,
        };
        bits.filter(|bits| *bits <= 0o7777)
            .ok_or_else(|| field.must(be))
    };
    let owner = |field: &Field| {
        let text = field.text()?;
        let word = |part: &str| {
            let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
            !part.is_empty() && part.bytes().all(good)
        };
        let (user, group) = text.split_once(':').unwrap_or((text, "root"));
        match word(user) && word(group) {
            true => Ok(text.to_owned()),
            false => Err(field.cannot("it is no `user` or `user:group`")),
        }
    };
    Ok(Copy {
        from: files.existing(&need("from")?, "file to copy")?,
        to: path,
        mode: table.get("mode").map(|field| octal(&field)).transpose()?,
        owner: table.get("owner").map(|field| owner(&field)).transpose()?,
    })
}

fn tags(table: &Table, key: &str) -> Result<Vec<String>> {
    let Some(field) = table.get(key) else {
        return Ok(Vec::new());
    };
    let tag = |item: &Field| match item.text()? {
        text if text.contains(',') => {
            Err(item.cannot("one tag an entry").hint("write `[one, other]`"))
        }
        text => Ok(text.to_owned()),
    };
    field.list()?.iter().map(tag).collect()
}

fn volumes(field: &Field) -> Result<Vec<String>> {
    let mut volumes = Vec::new();
    for item in field.list()? {
        let path = item.absolute()?;
        if volumes.contains(&path) {
            return Err(item.cannot("it is given twice"));
        }
        volumes.push(path);
    }
    Ok(volumes)
}

fn devices(field: &Field) -> Result<Vec<String>> {
    let mut devices = Vec::new();
    for item in field.list()? {
        let path = item.absolute()?;
        if ["/dev/", "/proc/", "/sys/", "/run/"]
            .iter()
            .any(|mounted| format!("{path}/").starts_with(mounted))
        {
            return Err(item.cannot("engines mount a file system of their own there"));
        }
        if devices.contains(&path) {
            return Err(item.cannot("it is given twice"));
        }
        devices.push(path);
    }
    Ok(devices)
}

fn ports(field: &Field) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for item in field.list()? {
        let port = item.number(1, 65_535)? as u16;
        if ports.contains(&port) {
            return Err(item.cannot("it is given twice"));
        }
        ports.push(port);
    }
    Ok(ports)
}

/// Which versions' data is taken, oldest first.
fn upgrade(field: Field) -> Result<contract::Upgrade> {
    let (place, line) = (field.place.clone(), field.line);
    let table = field.table(&["from", "stops"])?;
    let comparable = |field: &Field| -> Result<String> {
        let text = field.text()?;
        match values::version(text) {
            Some(_) => Ok(text.to_owned()),
            None => Err(field.cannot("it is no version such as `v40.0.0`")),
        }
    };
    let later = |a: &str, b: &str| values::compare(a, b) == Some(std::cmp::Ordering::Less);
    let from = table.get("from").map(|f| comparable(&f)).transpose()?;
    let mut stops: Vec<String> = Vec::new();
    if let Some(list) = table.get("stops") {
        for item in list.list()? {
            let stop = comparable(&item)?;
            if let Some(before) = stops.last().or(from.as_ref())
                && !later(before, &stop)
            {
                return Err(item.cannot(&format!(
                    "it is not later than {}, which stands before it",
                    quote(before)
                )));
            }
            stops.push(stop);
        }
    }
    if from.is_none() && stops.is_empty() {
        return Err(Problem::new(format!(
            "{} at line {line} must have `from` or `stops`",
            quote(&place)
        )));
    }
    Ok(contract::Upgrade { from, stops })
}

fn backup(field: Field, volumes: &[String]) -> Result<contract::Backup> {
    let table = field.table(&["exclude"])?;
    let mut exclude = Vec::new();
    if let Some(field) = table.get("exclude") {
        for item in field.list()? {
            let path = values::data_directory(item.text()?, volumes);
            exclude.push(path.map_err(|why| item.cannot(&why))?);
        }
    }
    Ok(contract::Backup { exclude })
}

/// `gzip`, `zstd` or `zstd:LEVEL`.
fn compression(field: &Field) -> Result<Compression> {
    let (levels, text) = (Compression::ZSTD_LEVELS, field.text()?);
    let level = match (text, text.strip_prefix("zstd:")) {
        ("gzip", _) => return Ok(Compression::Gzip),
        ("zstd", _) => Some(Compression::ZSTD_LEVEL),
        (_, level) => level.and_then(|level| level.parse().ok()),
    };
    match level.filter(|level| levels.contains(level)) {
        Some(level) => Ok(Compression::Zstd { level }),
        None => Err(field.cannot(&format!(
            "it must be `gzip`, `zstd` or `zstd:LEVEL` with a level from {} to {}",
            levels.start(),
            levels.end()
        ))),
    }
}

/// By the path of a file, whether it may be a link.
fn links(field: &Field) -> Result<BTreeMap<String, bool>> {
    let mut links = BTreeMap::new();
    for (key, value) in field.entries()? {
        if !key.name.starts_with('/') || key.name.split('/').any(|part| part == "..") {
            return Err(Problem::new(format!(
                "the file {} at line {} must be an absolute path in the box",
                quote(&key.name),
                key.line
            )));
        }
        let table = value.table(&["link"])?;
        if let Some(link) = table.get("link") {
            links.insert(key.name.clone(), link.flag()?);
        }
    }
    Ok(links)
}

/// The names become files of an archive.
fn support(field: &Field) -> Result<BTreeMap<String, Vec<String>>> {
    let mut commands = BTreeMap::new();
    for (key, value) in field.entries()? {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if key.name.is_empty() || !key.name.bytes().all(word) {
            return Err(Problem::new(format!(
                "the command {} at line {} has a name that is not made of lower-case letters, digits and `-`",
                quote(&key.name),
                key.line
            )));
        }
        let words: Vec<String> = value
            .list()?
            .iter()
            .map(|item| item.text().map(str::to_owned))
            .collect::<Result<_>>()?;
        if words.is_empty() {
            return Err(value.must("a list of a program and its arguments"));
        }
        commands.insert(key.name.clone(), words);
    }
    Ok(commands)
}

/// Linux's names (signal(7)), without those that cannot be caught and the real-time ones.
const SIGNALS: &[&str] = &[
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTERM", "SIGCONT",
    "SIGWINCH", "SIGPWR",
];

/// The entrypoint stops for these; [`SIGNALS`] is what docker takes.
fn signal(field: &Field) -> Result<String> {
    let text = field.text()?;
    let name = if text.starts_with("SIG") {
        text.to_owned()
    } else {
        format!("SIG{text}")
    };
    if SIGNALS.contains(&name.as_str()) {
        return Ok(name);
    }
    let problem = field.cannot(&format!("it must be one of {}", SIGNALS.join(", ")));
    Err(match nearest(&name, SIGNALS.iter().copied()) {
        Some(name) => problem.hint(format!("did you mean `{name}`?")),
        None => problem,
    })
}

fn labels(field: &Field) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (key, value) in field.entries()? {
        if key.name.is_empty() {
            return Err(Problem::new(format!(
                "a label at line {} has no name",
                key.line
            )));
        }
        labels.insert(key.name.clone(), value.text()?.to_owned());
    }
    Ok(labels)
}

fn health(field: Field) -> Result<Health> {
    let table = field.table(&["interval", "timeout", "start_period", "retries"])?;
    let default = Health::default();
    let positive = |key: &str, default: u32| match table.get(key) {
        None => Ok(default),
        Some(field) => match field.seconds()? {
            0 => Err(field.cannot("it is at least 1")),
            seconds => Ok(seconds),
        },
    };
    Ok(Health {
        interval: positive("interval", default.interval)?,
        timeout: positive("timeout", default.timeout)?,
        start_period: table
            .seconds("start_period")?
            .unwrap_or(default.start_period),
        retries: match table.get("retries") {
            Some(field) => field.number(1, 1000)? as u32,
            None => default.retries,
        },
    })
}

/// Files on the host that the recipe names.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn existing(&self, field: &Field, what: &str) -> Result<PathBuf> {
        self.existing_path(field.text()?, what)
    }

    fn existing_path(&self, text: &str, what: &str) -> Result<PathBuf> {
        let path = self.folder.join(text);
        match path.try_exists() {
            Ok(true) => Ok(path),
            Ok(false) => Err(Problem::sentence(format!(
                "cannot use the {what}: {} does not exist",
                path.display()
            ))
            .hint(self.missing_hint(&path, what))),
            Err(error) => Err(Problem::sentence(format!(
                "cannot use the {what}: {}: {error}",
                path.display()
            ))),
        }
    }

    /// The file beside it that was probably meant.
    fn missing_hint(&self, path: &Path, what: &str) -> String {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let beside: Vec<String> = path
            .parent()
            .and_then(|dir| dir.read_dir().ok())
            .map(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .collect()
            })
            .unwrap_or_default();
        match nearest(&name, beside.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "`{what}` is resolved against the recipe's directory, {}",
                self.folder.display()
            ),
        }
    }
}
