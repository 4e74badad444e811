//! `tiffin diff`: where two archives differ, by layer, file and cause.

use std::collections::BTreeMap;

use anyhow::Result;
use image::{Compression, Flag, Image, ImageLayer, LayerEntry, Silent};
use serde_json::Value;

use crate::{
    cli,
    inspect::{makers, open, shown},
};

/// So many files of a layer are named; more would hide the next layer.
const MOST: usize = 50;

/// Whether there is a difference. Standard output names them all.
pub fn run(words: &cli::Diff) -> Result<bool> {
    let (one, other) = (open(&words.one)?, open(&words.other)?);
    let lines = compare(&one, &other)?;
    for line in &lines {
        println!("{line}");
    }
    Ok(!lines.is_empty())
}

fn compare(one: &Image, other: &Image) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    if one.tags != other.tags {
        let tags = |image: &Image| shown(image.tags.join(" ").as_bytes());
        lines.push(format!("names: {} | {}", tags(one), tags(other)));
    }
    if one.config_digest != other.config_digest {
        let parse = |image: &Image| serde_json::from_slice::<Value>(&image.config);
        let mut found = Vec::new();
        values("", &parse(one)?, &parse(other)?, &mut found);
        let diff_ids = |image: &Image| -> Vec<String> {
            image
                .layers
                .iter()
                .map(|layer| layer.diff_id.clone())
                .collect()
        };
        if found.is_empty() && diff_ids(one) == diff_ids(other) {
            found.push("configuration: the same values, written otherwise".to_owned());
        }
        lines.extend(found);
    }
    let made = makers(other);
    for index in 0..one.layers.len().max(other.layers.len()) {
        let name = match made.get(index).filter(|name| !name.is_empty()) {
            Some(name) => format!("layer {} ({})", index + 1, shown(name.as_bytes())),
            None => format!("layer {}", index + 1),
        };
        match (one.layers.get(index), other.layers.get(index)) {
            (Some(a), Some(b)) if a.diff_id != b.diff_id => {
                let found = layers(&files(one, a)?, &files(other, b)?);
                lines.push(format!("{name}: {} differences", found.len()));
                let more = found.len().saturating_sub(MOST);
                lines.extend(found.into_iter().take(MOST).map(|line| format!("  {line}")));
                if more > 0 {
                    lines.push(format!("  and {more} more"));
                }
            }
            (Some(a), Some(b)) if a.digest != b.digest => {
                a.check(&one.name)?;
                b.check(&other.name)?;
                let how = |image: &Image, layer: &ImageLayer| -> Result<String> {
                    let how = match layer.compression(&image.name)? {
                        Compression::None => "not at all",
                        Compression::Gzip => "gzip",
                        Compression::Zstd => "zstd",
                    };
                    Ok(format!("{how}, {} bytes", layer.size()))
                };
                lines.push(format!(
                    "{name}: the same content, compressed otherwise: {} | {}",
                    how(one, a)?,
                    how(other, b)?
                ));
            }
            // Equal as long as both are what they are called.
            (Some(a), Some(b)) => {
                a.check(&one.name)?;
                b.check(&other.name)?;
            }
            (Some(a), None) => {
                a.check(&one.name)?;
                lines.push(format!("layer {}: only in the first", index + 1));
            }
            (None, Some(b)) => {
                b.check(&other.name)?;
                lines.push(format!("{name}: only in the second"));
            }
            (None, None) => unreachable!("one of them has so many"),
        }
    }
    if lines.is_empty() && one.manifest_digest != other.manifest_digest {
        lines.push("manifest: the same image, described otherwise".to_owned());
    }
    Ok(lines)
}

/// JSON values that differ, by their place.
fn values(at: &str, one: &Value, other: &Value, out: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (a, b) = (a.get(key), b.get(key));
                let null = &Value::Null;
                let at = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                values(&at, a.unwrap_or(null), b.unwrap_or(null), out);
            }
        }
        // Layers are compared as layers.
        _ if one == other || at == "rootfs.diff_ids" => {}
        _ => out.push(format!(
            "configuration: {at}: {} | {}",
            shown(one.to_string().as_bytes()),
            shown(other.to_string().as_bytes())
        )),
    }
}

/// An entry and, of a file, the digest of its content.
type Files = BTreeMap<Vec<u8>, (LayerEntry, String)>;

fn files(image: &Image, layer: &ImageLayer) -> Result<Files> {
    let mut files = Files::new();
    layer.entries(&image.name, &Silent, &mut |entry, content| {
        let digest = match entry.flag {
            Flag::File => image::sha256(content)?,
            _ => String::new(),
        };
        // A directory that became something else is still the same place.
        let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        files.insert(path.to_owned(), (entry.clone(), digest));
        Ok(())
    })?;
    Ok(files)
}

fn layers(one: &Files, other: &Files) -> Vec<String> {
    let mut lines = Vec::new();
    let paths: std::collections::BTreeSet<&Vec<u8>> = one.keys().chain(other.keys()).collect();
    for path in paths {
        let causes = match (one.get(path), other.get(path)) {
            (Some(a), Some(b)) => causes(a, b),
            (Some(_), None) => vec!["only in the first".to_owned()],
            (None, _) => vec!["only in the second".to_owned()],
        };
        if !causes.is_empty() {
            lines.push(format!("/{}: {}", shown(path), causes.join(", ")));
        }
    }
    if lines.is_empty() {
        lines.push("the same files, in another order or another form of tar".to_owned());
    }
    lines
}

fn causes((a, one): &(LayerEntry, String), (b, other): &(LayerEntry, String)) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = |differs: bool, text: String| {
        if differs {
            causes.push(text);
        }
    };
    cause(
        a.flag != b.flag,
        format!("type {:?} | {:?}", a.flag, b.flag),
    );
    cause(
        one != other && a.size == b.size && a.flag == b.flag,
        format!("content, {} bytes", a.size),
    );
    cause(
        a.size != b.size,
        format!("content, {} | {} bytes", a.size, b.size),
    );
    cause(
        a.link != b.link,
        format!("target {} | {}", shown(&a.link), shown(&b.link)),
    );
    cause(
        a.device != b.device,
        format!(
            "device {}:{} | {}:{}",
            a.device.0, a.device.1, b.device.0, b.device.1
        ),
    );
    cause(
        a.mode != b.mode,
        format!("mode {:04o} | {:04o}", a.mode, b.mode),
    );
    cause(
        (a.uid, a.gid) != (b.uid, b.gid),
        format!("owner {}:{} | {}:{}", a.uid, a.gid, b.uid, b.gid),
    );
    cause(
        a.mtime != b.mtime,
        format!("time {} | {}", time(a.mtime), time(b.mtime)),
    );
    let names: std::collections::BTreeSet<&Vec<u8>> =
        a.xattrs.keys().chain(b.xattrs.keys()).collect();
    for name in names {
        let what = match (a.xattrs.get(name), b.xattrs.get(name)) {
            (Some(_), None) => "only in the first",
            (None, Some(_)) => "only in the second",
            (one, other) if one != other => "another value",
            _ => continue,
        };
        cause(true, format!("attribute {} {what}", shown(name)));
    }
    causes
}

/// Seconds since 1970, with a fraction where there is one.
fn time((seconds, nanoseconds): (i64, u32)) -> String {
    match nanoseconds {
        0 => seconds.to_string(),
        fraction => format!("{seconds}.{fraction:09}"),
    }
}
