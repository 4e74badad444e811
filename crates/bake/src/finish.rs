//! From records to the contract: looks at the finished root file system through a
//! read-only view of all layers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::fd::AsRawFd,
    os::unix::fs::MetadataExt,
    path::Path,
};

use contract::{Contract, Directory, Handler, Parity, Product, Setting, Variables, Volume};
use recipe::Recipe;

use crate::{
    BakedLayer, Options, Record,
    account::{self, Account},
    capture::{self, Event, TemplateEvent},
    edits::{self, Fixed, Written},
    error::{Error, Result},
    facts,
    sandbox::{Layout, Sandbox},
    secrets,
    surface::{self, Surface},
    units,
};

pub struct Finished {
    pub contract: Contract,
    pub surface: Surface,
    pub warnings: Vec<String>,
    pub account: Account,
}

/// `recipe` has a setting for each vaulted variable, besides the `declared` ones.
pub fn finish(
    recipe: &Recipe,
    declared: &BTreeMap<String, Setting>,
    options: &Options,
    layers: &[BakedLayer],
    records: &[Record],
    work: &Path,
) -> Result<Finished> {
    let mount_point = work.join("view");
    fs::create_dir_all(&mount_point).map_err(Error::io("make", &mount_point))?;
    let layout = Layout {
        lower: layers.iter().map(|l| l.tree.clone()).collect(),
        upper: None,
        mount_point,
        host_name: "view".into(),
        offline: options.offline,
        binds: Vec::new(),
    };
    let view = Sandbox::open(options.helper, &layout)?;
    let mut warnings = Vec::new();
    let events = || records.iter().flat_map(|r| &r.events);

    let known: BTreeSet<&str> = recipe
        .settings
        .values()
        .map(|s| s.variable.as_str())
        .collect();
    let (written, fixed) = edits::files(events(), &known, |path| view.read(path).ok());
    let captured: Vec<&TemplateEvent> = written.iter().map(|w| &w.event).collect();
    // Ansible names files by their real paths.
    let playbook = recipe.playbook.canonicalize();
    let playbook_dir = playbook
        .as_deref()
        .unwrap_or(&recipe.playbook)
        .parent()
        .unwrap_or(Path::new("/"));
    let mut pairs = Vec::new();
    for Written { event, problem } in &written {
        let mut template = capture::template(event, playbook_dir);
        let Some(file) = stat(&view, &event.dest) else {
            continue;
        }; // a later task removed it
        template.uid = file.uid();
        template.gid = file.gid();
        template.mode = mode(&file);
        if let Some(reason) = problem.clone() {
            template.parity = Parity::Failed { reason };
        }
        pairs.push((event, template));
    }
    let mut variables = capture::settle(&mut pairs, &known, &recipe.public);
    let mut templates: Vec<_> = pairs.into_iter().map(|(_, template)| template).collect();
    let in_recipe = capture::expressions(events());
    for (name, value) in &in_recipe {
        variables
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    {
        // Checked in those too that no start renders again: their files are in the image.
        let mut unused: Vec<_> = captured.iter().map(|e| e.variables.clone()).collect();
        let mut maps: Vec<&mut Variables> = vec![&mut variables];
        maps.extend(templates.iter_mut().map(|t| &mut t.variables));
        maps.extend(unused.iter_mut());
        secrets::remove(recipe, &mut maps)?;
    }
    for record in records {
        secrets::check_files(recipe, &record.placeholders, &templates, |path| {
            view.read(path).ok()
        })?;
    }

    secrets::check_hashed(recipe, &templates, events())?;
    let facts = facts::at_start(
        std::iter::once(&variables).chain(templates.iter().map(|t| &t.variables)),
        captured
            .iter()
            .filter(|e| identical(&templates, &e.dest))
            .flat_map(|e| &e.missing),
        &recipe.frozen_facts,
    );
    facts::forget(&facts, &mut variables);
    for template in &mut templates {
        facts::forget(&facts, &mut template.variables);
    }

    let mut settings = recipe.settings.clone();
    settings.retain(|name, setting| {
        // A vaulted variable that nothing in the box needs is no setting.
        declared.contains_key(name)
            || in_recipe.contains_key(&setting.variable)
            || captured
                .iter()
                .any(|e| e.variables.contains_key(&setting.variable))
    });
    for (name, setting) in &mut settings {
        reach(
            recipe, name, setting, &captured, &templates, &fixed, &in_recipe,
        )?;
        if !setting.secret {
            setting.default = variables.get(&setting.variable).cloned();
        }
        takes_its_default(name, setting)?;
    }
    conditions_hold(&settings, &variables)?;
    databases_last(recipe, &settings, &variables)?;
    let units = units::supervised(&view, capture::wanted_units(events()), &mut warnings)?;
    let taken = |name: &&String| units.iter().any(|u| u.name == format!("{name}.service"));
    if let Some(name) = recipe.jobs.keys().find(taken) {
        return Err(Error::Service {
            service: name.clone(),
            reason: "it is a job of the recipe, and a unit of the playbook has that name"
                .to_owned(),
        });
    }
    let handlers = handlers(&view, &templates, records);
    let mut volumes = Vec::new();
    for path in &recipe.volumes {
        let mut directories = Vec::new();
        walk_volume(&view, path, &mut directories, &mut warnings, 0);
        directories.sort_by(|a: &Directory, b| a.path.cmp(&b.path));
        volumes.push(Volume {
            path: path.clone(),
            directories,
        });
    }
    let uses_facts = |template: &contract::Template| {
        let mut events = captured.iter().filter(|e| e.dest == template.dest);
        events.any(|event| facts::uses(&facts, &event.variables, &event.missing))
    };
    let (surface, notes) = surface::surface(
        recipe,
        &view,
        &mut templates,
        &settings,
        uses_facts,
        &units,
        &volumes,
    )?;
    warnings.extend(notes);
    view.close();

    let name = match &recipe.registry {
        Some(registry) => format!("{registry}/{}", recipe.name),
        None => recipe.name.clone(),
    };
    let title = recipe.title.clone().unwrap_or_else(|| recipe.name.clone());
    let contract = Contract {
        format: contract::FORMAT,
        product: Product {
            name,
            title,
            version: options.version.to_owned(),
        },
        settings,
        facts,
        handlers,
        variables,
        templates,
        units,
        services: recipe.services.clone(),
        volumes,
        upgrade: recipe.upgrade.clone(),
        ports: recipe.ports.clone(),
        needs: recipe.needs.clone(),
        support: recipe.support.clone(),
        backup: recipe.backup.clone(),
        certificates: recipe.certificates.clone(),
        ca_bundle: recipe.ca_bundle.clone(),
        roles: recipe.roles.clone(),
        jobs: recipe.jobs.clone(),
    };
    let written: Vec<TemplateEvent> = written.into_iter().map(|w| w.event).collect();
    let mut account = account::account(&contract, &written, fixed, events());
    for record in records {
        account.ran.started.extend(record.ran.started.clone());
        // What a layer put aside is there again in those above.
        let aside = &mut account.ran.aside;
        aside.retain(|(place, ..)| record.ran.aside.iter().all(|(later, ..)| later != place));
        aside.extend(record.ran.aside.clone());
    }
    for name in recipe.start.iter() {
        if !account.ran.started.contains(name) {
            warnings.push(format!(
                "the recipe's `start` names {name}, and no task started it"
            ));
        }
    }
    Ok(Finished {
        contract,
        surface,
        warnings,
        account,
    })
}

fn identical(templates: &[contract::Template], dest: &str) -> bool {
    let mut templates = templates.iter();
    templates.any(|t| t.dest == dest && t.parity == Parity::Identical)
}

/// What the playbook's handlers do to services, under every name that a template notifies. Of
/// the uppermost layer that knows one: below, those of roles that come later may be as they
/// were once.
fn handlers(
    view: &Sandbox,
    templates: &[contract::Template],
    records: &[Record],
) -> BTreeMap<String, Vec<Handler>> {
    let mut handlers = BTreeMap::new();
    for topic in templates.iter().flat_map(|template| &template.notify) {
        let of_layer = |record: &Record| {
            let plays = record.events.iter().filter_map(|event| match event {
                Event::Play { handlers, .. } => Some(handlers),
                _ => None,
            });
            let named = plays
                .flatten()
                .filter(|handler| handler.names.contains(topic) || handler.listen.contains(topic));
            Vec::from_iter(named.cloned())
        };
        let layers = records.iter().rev().map(of_layer);
        let found = layers.into_iter().find(|found| !found.is_empty());
        let mut effects: Vec<Handler> = Vec::new();
        for effect in found.iter().flatten().flat_map(|handler| &handler.effects) {
            let unit = units::resolve(view, &format!("{}.service", effect.service));
            let effect = Handler {
                // An alias is no service's name in a box.
                service: match unit {
                    Ok(Some(unit)) => unit.name.trim_end_matches(".service").to_owned(),
                    _ => effect.service.clone(),
                },
                action: effect.action,
            };
            if !effects.contains(&effect) {
                effects.push(effect);
            }
        }
        if !effects.is_empty() {
            handlers.insert(topic.clone(), effects);
        }
    }
    handlers
}

/// Fills in the files that a setting reaches, and refuses one that would do nothing.
fn reach(
    recipe: &Recipe,
    name: &str,
    setting: &mut Setting,
    captured: &[&TemplateEvent],
    templates: &[contract::Template],
    fixed: &[Fixed],
    in_recipe: &Variables,
) -> Result<()> {
    let mut lost = Vec::new();
    for event in captured
        .iter()
        .filter(|e| e.variables.contains_key(&setting.variable))
    {
        match templates.iter().find(|t| t.dest == event.dest) {
            Some(t) if t.parity == Parity::Identical => setting.files.push(t.dest.clone()),
            Some(t) => lost.push(format!("{} ({})", t.dest, explain(&t.parity))),
            None => {}
        }
    }
    let stays = fixed.iter().filter(|f| f.names.contains(&setting.variable));
    lost.extend(stays.map(|f| format!("{} (task `{}`: {})", f.dest, f.task, f.reason)));
    setting.files.sort();
    let is_bundle = |bundle: &contract::CaBundle| bundle.setting == name;
    if !setting.files.is_empty()
        || in_recipe.contains_key(&setting.variable)
        || recipe.ca_bundle.as_ref().is_some_and(is_bundle)
    {
        return Ok(());
    }
    let reason = if lost.is_empty() {
        let near = nearest(
            &setting.variable,
            captured.iter().flat_map(|e| e.variables.keys()),
        );
        let near = near
            .map(|n| format!("; the nearest that one uses is `{n}`"))
            .unwrap_or_default();
        format!(
            "no template of {} uses the variable `{}`{near}",
            recipe.playbook.display(),
            setting.variable
        )
    } else {
        format!(
            "it feeds only files that a start cannot write again: {}",
            lost.join(", ")
        )
    };
    Err(Error::Setting {
        setting: name.to_owned(),
        reason,
    })
}

/// The reference shows the playbook's own value: an operator who writes it down again must
/// not be refused.
fn takes_its_default(name: &str, setting: &Setting) -> Result<()> {
    match values::literal_default(setting).filter(|text| !text.is_empty()) {
        Some(text) => values::convert(setting, &text)
            .map(|_| ())
            .map_err(|allowed| Error::Setting {
                setting: name.to_owned(),
                reason: format!(
                    "the playbook's own value of `{}` is `{text}`, and it takes {allowed}",
                    setting.variable
                ),
            }),
        None => Ok(()),
    }
}

/// Every `required_if` can be evaluated.
fn conditions_hold(settings: &BTreeMap<String, Setting>, variables: &Variables) -> Result<()> {
    let given = unknown(settings);
    let scope = jinja::Scope::new(&given, &[variables]);
    for (name, setting) in settings {
        if let Some(condition) = &setting.required_if {
            jinja::evaluate(condition, &scope).map_err(|error| Error::Setting {
                setting: name.clone(),
                reason: format!("its `required_if` cannot be evaluated: {error}"),
            })?;
        }
    }
    Ok(())
}

/// What expressions make of a service's `data` lies on a volume.
fn databases_last(
    recipe: &Recipe,
    settings: &BTreeMap<String, Setting>,
    variables: &Variables,
) -> Result<()> {
    let given = unknown(settings);
    let scope = jinja::Scope::new(&given, &[variables]);
    for (service, said) in &recipe.services {
        for text in &said.data {
            let wrong = |reason: String| Error::Service {
                service: service.clone(),
                reason: format!("its `data` cannot be `{text}`: {reason}"),
            };
            let path = jinja::render_text(text, &scope).map_err(|e| wrong(e.to_string()))?;
            values::data_directory(&path, &recipe.volumes).map_err(wrong)?;
        }
    }
    Ok(())
}

/// Something in the place of what nobody knows before the first start.
fn unknown(settings: &BTreeMap<String, Setting>) -> Variables {
    let unknown = settings.values().filter(|s| secrets::is_unknown(s));
    unknown
        .map(|setting| (setting.variable.clone(), values::MASK.into()))
        .collect()
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    known
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .min()
        .filter(|(d, _)| *d <= 3)
        .map(|(_, k)| k)
}

/// One line about a template that is not rendered again.
pub fn explain(parity: &Parity) -> String {
    match parity {
        Parity::Identical => "identical".into(),
        Parity::Differs {
            line,
            ansible,
            tiffin,
        } => format!("line {line} is `{tiffin}`, not Ansible's `{ansible}`"),
        Parity::Failed { reason } => reason.clone(),
    }
}

pub(crate) fn stat(view: &Sandbox, path: &str) -> Option<fs::Metadata> {
    let file = view.handle(path).ok()?;
    file.metadata().ok()
}

/// Permission bits as the contract writes them.
fn mode(file: &fs::Metadata) -> String {
    format!("{:04o}", file.mode() & 0o7777)
}

pub(crate) fn directory(path: &str, found: &fs::Metadata) -> Directory {
    Directory {
        path: path.to_owned(),
        uid: found.uid(),
        gid: found.gid(),
        mode: mode(found),
    }
}

pub(crate) fn link_target(file: &File) -> Option<String> {
    let target = rustix::fs::readlinkat(file, "", Vec::new()).ok()?;
    target.into_string().ok()
}

fn walk_volume(
    view: &Sandbox,
    path: &str,
    out: &mut Vec<Directory>,
    warnings: &mut Vec<String>,
    depth: usize,
) {
    let Some(found) = stat(view, path) else {
        return;
    };
    if !found.is_dir() || depth > 64 {
        return;
    }
    out.push(directory(path, &found));
    let Ok(dir) = view.open_file(path) else {
        return;
    };
    let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let below = format!("{}/{name}", path.trim_end_matches('/'));
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk_volume(view, &below, out, warnings, depth + 1);
        } else {
            warnings.push(format!(
                "{below} lies on a volume: an empty volume mounted there hides it"
            ));
        }
    }
}
