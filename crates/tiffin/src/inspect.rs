//! `tiffin inspect`: what an archive holds.

use std::io::Read;
use std::path::Path;

use anyhow::Result;
use contract::Contract;
use image::{Compression, Flag, Format, Image, Platform, Silent};
use serde_json::{Value, json};

use crate::{cli, printer::size};

/// A contract that is larger than this was not written by Tiffin.
const MAX_CONTRACT: u64 = 16 << 20;

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
    let report = report(&image)?;
    if words.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn report(image: &Image) -> Result<Value> {
    let mut layers = Vec::new();
    let mut largest: Vec<(u64, String)> = Vec::new();
    let mut contract: Option<Contract> = None;
    for (layer, made_by) in image.layers.iter().zip(makers(image)) {
        let mut files = 0;
        let (compression, uncompressed) =
            layer.entries(&image.name, &Silent, &mut |entry, content| {
                if entry.flag != Flag::File {
                    return Ok(());
                }
                files += 1;
                let path = shown(&entry.path);
                if path.trim_start_matches("./") == contract::PATH.trim_start_matches('/') {
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
        json!({
            "settings": contract.settings.keys().collect::<Vec<_>>(),
            "services": serde_json::to_value(&contract.services).map(|services| names(&services)).unwrap_or_default(),
            "templates": contract.templates.iter().map(|t| &t.dest).collect::<Vec<_>>(),
        })
    });
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
    }))
}

/// Of a list of things with names, or of a map by name.
fn names(things: &Value) -> Vec<String> {
    match things {
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Array(list) => list
            .iter()
            .filter_map(|thing| Some(thing.get("name")?.as_str()?.to_owned()))
            .collect(),
        _ => Vec::new(),
    }
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
        line("settings", list(&report["box"]["settings"]).join(" "));
    }
}
