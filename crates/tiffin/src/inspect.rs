//! `tiffin inspect`: what an archive holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use contract::Contract;
use image::{Compression, Flag, Format, Image, LayerEntry, Platform, Silent};
use serde_json::{Value, json};

use crate::{cli, merged::Merged, printer::size};

/// A contract that is larger than this was not written by Tiffin.
const MAX_CONTRACT: u64 = 16 << 20;

/// And such a file not for supervisord.
const MAX_CONFIGURATION: u64 = 1 << 20;

/// How many of the largest files are named.
const LARGEST: usize = 10;

/// The image in an archive of any kind; what is compressed as a whole goes through /tmp.
pub fn open(archive: &Path) -> Result<Image> {
    let scratch = std::env::temp_dir();
    Ok(Image::open(
        archive,
        Format::Any,
        &Platform::here(),
        &scratch,
    )?)
}

/// What made each layer, lowest first; empty where the image does not say.
pub fn makers(image: &Image) -> Vec<String> {
    let mut makers: Vec<String> = image
        .settings
        .history
        .iter()
        .filter(|line| !line.empty_layer)
        .map(|line| line.created_by.clone().unwrap_or_default())
        .collect();
    makers.resize(image.layers.len(), String::new());
    makers
}

/// A name of somebody else, fit for a terminal.
pub fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .flat_map(|c| {
            let escaped: Vec<char> = match c.is_control() {
                true => c.escape_default().collect(),
                false => vec![c],
            };
            escaped
        })
        .collect()
}

pub fn run(words: &cli::Inspect) -> Result<()> {
    let image = open(&words.archive)?;
    let report = report(&image, words.files)?;
    if words.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn report(image: &Image, all: bool) -> Result<Value> {
    let mut layers = Vec::new();
    let mut largest: Vec<(u64, String)> = Vec::new();
    let mut contract: Option<Contract> = None;
    let mut programs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen: Merged<LayerEntry> = Merged::default();
    for (index, (layer, made_by)) in image.layers.iter().zip(makers(image)).enumerate() {
        let mut files = 0;
        let (compression, uncompressed) =
            layer.entries(&image.name, &Silent, &mut |entry, content| {
                let path = shown(&entry.path);
                let path = path.trim_start_matches("./").trim_end_matches('/');
                let name = path.rsplit('/').next().unwrap_or(path);
                let gone = name.starts_with(".wh.");
                if all && !path.is_empty() {
                    seen.layer(index, path, entry.flag == Flag::Directory);
                    if !gone {
                        seen.insert(index, path, entry.clone());
                    }
                }
                if entry.flag != Flag::File || gone {
                    return Ok(());
                }
                files += 1;
                let path = path.to_owned();
                if path.starts_with("etc/supervisor") {
                    let mut text = String::new();
                    // What is no text is no configuration.
                    let _ = content.take(MAX_CONFIGURATION).read_to_string(&mut text);
                    programs.insert(path.clone(), sections(&text));
                }
                if path == contract::PATH.trim_start_matches('/') {
                    let mut text = Vec::new();
                    content.take(MAX_CONTRACT).read_to_end(&mut text)?;
                    contract = serde_json::from_slice(&text).ok();
                }
                largest.push((entry.size, path));
                if largest.len() > 1000 {
                    keep_largest(&mut largest);
                }
                Ok(())
            })?;
        layers.push(json!({
            "diff_id": layer.diff_id,
            "digest": layer.digest,
            "size": layer.size(),
            "uncompressed": uncompressed,
            "compression": match compression {
                Compression::None => "none",
                Compression::Gzip => "gzip",
                Compression::Zstd => "zstd",
            },
            "files": files,
            "made_by": made_by,
        }));
    }
    keep_largest(&mut largest);
    let config = &image.settings.config;
    let box_of = contract.map(|contract| {
        let details: serde_json::Map<String, Value> = contract
            .settings
            .iter()
            .map(|(name, setting)| (name.clone(), detail(setting)))
            .collect();
        json!({
            "product": contract.product,
            "settings": contract.settings.keys().collect::<Vec<_>>(),
            "details": details,
            "services": services(&contract, &programs),
            "templates": contract.templates.iter().map(|t| &t.dest).collect::<Vec<_>>(),
        })
    });
    let files = all.then(|| seen.into_files().map(listed).collect::<Vec<_>>());
    Ok(json!({
        "name": image.name,
        "tags": image.tags,
        "manifest": image.manifest_digest,
        "config": image.config_digest,
        "platform": format!("{}/{}", image.settings.os, image.settings.architecture),
        "created": image.settings.created,
        "size": image.layers.iter().map(image::ImageLayer::size).sum::<u64>(),
        "layers": layers,
        "largest": largest.iter().map(|(size, path)| json!({"path": path, "size": size})).collect::<Vec<_>>(),
        "entrypoint": config.entrypoint,
        "command": config.cmd,
        "user": config.user,
        "environment": config.env,
        "ports": config.exposed_ports,
        "volumes": config.volumes,
        "labels": config.labels,
        "box": box_of,
        "files": files,
    }))
}

fn listed((path, layer, entry): (String, usize, LayerEntry)) -> Value {
    let mut file = json!({
        "path": path,
        "type": match entry.flag {
            Flag::File => "file",
            Flag::HardLink => "hard link",
            Flag::Symlink => "link",
            Flag::Character => "character device",
            Flag::Block => "block device",
            Flag::Directory => "directory",
            Flag::Fifo => "fifo",
        },
        "mode": format!("{:04o}", entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "layer": layer + 1,
    });
    if !entry.link.is_empty() {
        file["to"] = shown(&entry.link).into();
    }
    file
}

/// What somebody who sets it wants to know; a secret has no default.
fn detail(setting: &contract::Setting) -> Value {
    let mut detail = json!({
        "type": setting.kind,
        "required": setting.required,
        "secret": setting.secret,
    });
    if let Some(default) = &setting.default {
        detail["default"] = default.clone();
    }
    if !setting.help.is_empty() {
        detail["help"] = setting.help.clone().into();
    }
    detail
}

/// Units that the playbook enabled, programs of supervisord, jobs and what the recipe adds.
fn services(contract: &Contract, programs: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let units = contract.units.iter().map(|unit| {
        let name = unit.name.strip_suffix(".service");
        name.unwrap_or(&unit.name).to_owned()
    });
    units
        .chain(programs.values().flatten().cloned())
        .chain(contract.services.keys().cloned())
        .chain(contract.jobs.keys().cloned())
        .collect()
}

/// The names in `[program:NAME]`.
fn sections(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("[program:")?.strip_suffix(']'))
        .map(|name| shown(name.trim().as_bytes()))
        .collect()
}

fn keep_largest(files: &mut Vec<(u64, String)>) {
    files.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    files.truncate(LARGEST);
}

fn print(report: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let line = |name: &str, value: String| {
        if !value.is_empty() {
            println!("{name:<12}{}", shown(value.as_bytes()));
        }
    };
    line("image", list(&report["tags"]).join(" "));
    line("manifest", text(&report["manifest"]));
    line("config", text(&report["config"]));
    line("platform", text(&report["platform"]));
    line("created", text(&report["created"]));
    line("size", size(number(&report["size"])));
    line("entrypoint", list(&report["entrypoint"]).join(" "));
    line("command", list(&report["command"]).join(" "));
    line("user", text(&report["user"]));
    line("ports", list(&report["ports"]).join(" "));
    line("volumes", list(&report["volumes"]).join(" "));
    println!("layers");
    for layer in report["layers"].as_array().into_iter().flatten() {
        println!(
            "  {:>10} of {:>10}, {:>6} files  {}",
            size(number(&layer["size"])),
            size(number(&layer["uncompressed"])),
            number(&layer["files"]),
            shown(text(&layer["made_by"]).as_bytes()),
        );
    }
    println!("largest files");
    for file in report["largest"].as_array().into_iter().flatten() {
        println!(
            "  {:>10}  /{}",
            size(number(&file["size"])),
            text(&file["path"])
        );
    }
    if !report["box"].is_null() {
        line("services", list(&report["box"]["services"]).join(" "));
        println!("settings");
        for (name, detail) in report["box"]["details"].as_object().into_iter().flatten() {
            let mut told = format!("  {name}  {}", text(&detail["type"]));
            for word in ["required", "secret"] {
                if detail[word] == true {
                    told += &format!(", {word}");
                }
            }
            match &detail["default"] {
                Value::Null => {}
                Value::String(default) => told += &format!(", default {default}"),
                default => told += &format!(", default {default}"),
            }
            println!("{}", shown(told.as_bytes()));
        }
    }
    if let Some(files) = report["files"].as_array() {
        println!("files");
        for file in files {
            let to = match &file["to"] {
                Value::String(to) => format!(" -> {to}"),
                _ => String::new(),
            };
            println!(
                "  {:>2}  {:<9}  {}  {:>11}  {:>12}  /{}{to}",
                number(&file["layer"]),
                text(&file["type"]),
                text(&file["mode"]),
                format!("{}:{}", number(&file["uid"]), number(&file["gid"])),
                number(&file["size"]),
                text(&file["path"]),
            );
        }
    }
}
