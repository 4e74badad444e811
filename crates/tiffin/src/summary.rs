//! What stands at the end of a build: each layer with its size and time, where the bytes
//! lie, and how the box compares with the release before it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bake::Baked;
use image::{Format, Image, Layer, Platform, UnionFile};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::note;
use crate::printer::{Printer, size};

/// So many directories are named.
const NAMED: usize = 10;
/// A directory that holds more than this part of all is given as its parts, since nobody
/// learns from "/usr is large".
const PART: u64 = 8;

pub struct Summary {
    /// `NAME:VERSION`.
    pub reference: String,
    pub archive: PathBuf,
    /// Of the archive.
    pub bytes: u64,
    pub sha256: String,
    pub layers: Vec<LayerLine>,
    /// The largest first; none lies in another.
    pub directories: Vec<Directory>,
    pub previous: Option<Previous>,
    /// Of the whole build.
    pub took: Duration,
    /// Bytes of packages.
    pub fetched: u64,
    /// The most memory that this program had at once, in bytes; what it ran is not counted.
    pub memory: Option<u64>,
}

pub struct LayerLine {
    pub name: String,
    pub digest: String,
    /// As it is in the archive.
    pub bytes: u64,
    pub uncompressed: u64,
    /// `None` when it was in the cache.
    pub baked: Option<Duration>,
}

/// Bytes of the files below a directory; without those of its subdirectories where `own`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    pub path: String,
    pub bytes: u64,
    pub own: bool,
}

/// The release that was built into the same folder before this one.
pub struct Previous {
    /// The archive's file name.
    pub name: String,
    pub bytes: u64,
    /// Bytes of layers that it does not have.
    pub new: u64,
}

impl Summary {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let width = self.layers.iter().map(|l| l.name.len()).max().unwrap_or(0);
        let mut lines = vec!["layers:".to_owned()];
        lines.extend(self.layers.iter().map(|layer| {
            format!(
                "  {:<width$} {:>9} of {:>9}  {}",
                layer.name,
                size(layer.bytes),
                size(layer.uncompressed),
                match layer.baked {
                    Some(time) => format!("{:.1} s", time.as_secs_f64()),
                    None => "unchanged".to_owned(),
                }
            )
        }));
        lines.push("largest directories:".into());
        lines.extend(self.directories.iter().map(|directory| {
            let own = if directory.own {
                " (its own files)"
            } else {
                ""
            };
            format!("  {:>9}  {}{own}", size(directory.bytes), directory.path)
        }));
        let reused = self.layers.iter().filter(|l| l.baked.is_none()).count();
        lines.push(format!(
            "{}: {} in {} layers ({reused} unchanged), {:.1} s{}{}",
            self.reference,
            size(self.bytes),
            self.layers.len(),
            self.took.as_secs_f64(),
            match self.fetched {
                0 => String::new(),
                bytes => format!(", {} of packages fetched", size(bytes)),
            },
            match self.memory {
                Some(bytes) => format!(", at most {} of memory", size(bytes)),
                None => String::new(),
            },
        ));
        lines.extend(self.previous.as_ref().map(|previous| {
            format!(
                "{} {}: {} of layers that it does not have",
                compared(self.bytes, previous.bytes),
                previous.name,
                size(previous.new)
            )
        }));
        lines.push(format!("sha256 {}", self.sha256));
        lines
    }

    /// For programs; the README documents it.
    pub fn json(&self) -> Value {
        let layer = |layer: &LayerLine| {
            json!({
                "name": layer.name,
                "digest": layer.digest,
                "bytes": layer.bytes,
                "uncompressed": layer.uncompressed,
                "cached": layer.baked.is_none(),
                "took": layer.baked.unwrap_or_default().as_secs_f64(),
            })
        };
        json!({
            "reference": self.reference,
            "archive": self.archive,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
            "directories": self.directories,
            "fetched": self.fetched,
            "memory": self.memory,
            "previous": self.previous.as_ref().map(|previous| json!({
                "archive": previous.name, "bytes": previous.bytes, "new": previous.new,
            })),
        })
    }
}

/// The most memory that this process had at once: proc_pid_status(5), in bytes.
pub fn memory() -> Option<u64> {
    peak(&fs::read_to_string("/proc/self/status").ok()?)
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// "1.2 MB (0.4 %) larger than"
fn compared(now: u64, before: u64) -> String {
    let word = match now.cmp(&before) {
        std::cmp::Ordering::Less => "smaller than",
        std::cmp::Ordering::Equal => return "as large as".into(),
        std::cmp::Ordering::Greater => "larger than",
    };
    let by = now.abs_diff(before);
    format!(
        "{} ({:.1} %) {word}",
        size(by),
        by as f64 * 100.0 / before.max(1) as f64
    )
}

/// The newest other release of `name` in the folder, to be looked for before this one is
/// written. What cannot be read as one is passed over: it is for people's information.
pub fn previous(folder: &Path, name: &str, archive: &Path) -> Option<(String, Image)> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let (prefix, latest) = (format!("{file}-"), format!("{file}-latest.tar"));
    let mut found: Vec<_> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|entry| entry.path() != archive)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let of_this = name.starts_with(&prefix) && name.ends_with(".tar") && name != latest;
            let when = entry.metadata().ok()?.modified().ok()?;
            of_this.then(|| (when, name, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().rev().find_map(|(_, file, path)| {
        let image = Image::open(&path, Format::Docker, &Platform::here(), folder).ok()?;
        // `backend-admin-v1.tar` is no release of `backend`.
        let ours = image
            .tags
            .iter()
            .any(|tag| tag.rsplit_once(':').is_some_and(|(of, _)| of == name));
        ours.then_some((file, image))
    })
}

/// How a box of these layers compares with it.
pub fn compare((name, image): (String, Image), folder: &Path, layers: &[Layer]) -> Previous {
    let known: Vec<_> = image.layers.iter().map(|layer| &layer.diff_id).collect();
    Previous {
        bytes: fs::metadata(folder.join(&name)).map_or(0, |found| found.len()),
        new: layers
            .iter()
            .filter(|layer| !known.contains(&&layer.diff_id))
            .map(|layer| layer.size)
            .sum(),
        name,
    }
}

/// Where the bytes of the baked layers lie, looked for once for all builds that share the
/// uppermost: its key covers those below.
pub fn directories(baked: &Baked, printer: &Printer) -> Result<Vec<Directory>> {
    let Some(top) = baked.layers.last() else {
        return Ok(Vec::new());
    };
    // A change of what is looked for needs another number.
    let note = top.tree.with_file_name("directories-1.json");
    if let Some(known) = note::read(&note, printer) {
        return Ok(known);
    }
    let trees: Vec<_> = baked
        .layers
        .iter()
        .map(|layer| (&*layer.tree, crate::build::source(layer)))
        .collect();
    let mut root = Node::default();
    image::union_files(&trees, &|_| Some(0), &mut |file: UnionFile| {
        root.add(file.path, file.size);
    })?;
    let found = root.largest();
    note::write(&note, &found)?;
    Ok(found)
}

#[derive(Default)]
struct Node {
    /// Of all files below.
    bytes: u64,
    below: BTreeMap<String, Node>,
}

impl Node {
    fn add(&mut self, path: &[u8], bytes: u64) {
        let mut node = self;
        node.bytes += bytes;
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        while let (Some(part), Some(_)) = (parts.next(), parts.peek()) {
            let name = crate::inspect::shown(part);
            node = node.below.entry(name).or_default();
            node.bytes += bytes;
        }
    }

    /// Large directories are split until none holds more than its part of all.
    fn largest(&self) -> Vec<Directory> {
        let mut whole = vec![(String::new(), self)];
        let mut found = Vec::new();
        while let Some((path, node)) = whole.pop() {
            let mut put = |bytes, own| {
                let path = if path.is_empty() { "/" } else { &path }.to_owned();
                found.push(Directory { path, bytes, own });
            };
            if node.below.is_empty() || node.bytes <= self.bytes / PART {
                put(node.bytes, false);
                continue;
            }
            let below: u64 = node.below.values().map(|node| node.bytes).sum();
            put(node.bytes - below, true);
            let parts = node.below.iter();
            whole.extend(parts.map(|(name, node)| (format!("{path}/{name}"), node)));
        }
        found.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        found.retain(|directory| directory.bytes > 0);
        found.truncate(NAMED);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_directories_are_given_as_their_parts_and_nothing_counts_twice() {
        let mut root = Node::default();
        for (path, bytes) in [
            ("usr/lib/python3/a", 400),
            ("usr/lib/python3/b", 300),
            ("usr/lib/x/y/z", 90),
            ("usr/lib/libc.so", 60),
            ("usr/bin/sh", 100),
            ("etc/passwd", 40),
            ("vmlinuz", 10),
        ] {
            root.add(path.as_bytes(), bytes);
        }
        let found = root.largest();
        let shown: Vec<_> = found
            .iter()
            .map(|d| (d.path.as_str(), d.bytes, d.own))
            .collect();
        assert_eq!(
            shown,
            [
                ("/usr/lib/python3", 700, false),
                ("/usr/bin", 100, false),
                ("/usr/lib/x", 90, false),
                ("/usr/lib", 60, true),
                ("/etc", 40, false),
                ("/", 10, true),
            ]
        );
        assert_eq!(found.iter().map(|d| d.bytes).sum::<u64>(), root.bytes);
        for n in 0..100 {
            root.add(format!("opt/{n}/file").as_bytes(), 1000);
        }
        assert_eq!(root.largest().len(), NAMED);
    }

    #[test]
    fn the_most_memory_is_the_kernels_figure() {
        let status = "Name:\ttiffin\nVmPeak:\t  900 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(peak(status), Some(2 << 20));
        assert_eq!(peak("VmRSS:\t 7 kB\n"), None);
        assert!(memory().unwrap() > 100_000);
    }

    #[test]
    fn sizes_are_compared_in_words() {
        assert_eq!(compared(5, 5), "as large as");
        assert_eq!(
            compared(1_500_000, 1_000_000),
            "500.0 kB (50.0 %) larger than"
        );
        assert_eq!(compared(0, 2_000), "2.0 kB (100.0 %) smaller than");
        assert_eq!(compared(7, 0), "0.0 kB (700.0 %) larger than");
    }
}
