//! The box's own time zones.

use std::path::Path;

use super::nearest;
use crate::root::Root;

const FOLDER: &str = "/usr/share/zoneinfo";

pub enum Zone {
    Known,
    /// With the name that was probably meant.
    Unknown(Option<String>),
    /// The box has no zone files.
    Unchecked,
}

/// `name` has the form of a zone's name: it does not lead out of the folder.
pub fn look_up(root: &Root, name: &str) -> Zone {
    let folder = root.path(FOLDER);
    if !folder.is_dir() {
        return Zone::Unchecked;
    }
    if is_zone(&folder.join(name)) {
        return Zone::Known;
    }
    let mut names = Vec::new();
    walk(&folder, "", 0, &mut names);
    let same_city = |known: &&String| {
        known
            .rsplit('/')
            .next()
            .is_some_and(|city| city.eq_ignore_ascii_case(name))
    };
    let meant = names
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name))
        .or_else(|| names.iter().find(same_city))
        .cloned()
        .or_else(|| nearest(name, names.iter().map(String::as_str)).map(str::to_owned));
    Zone::Unknown(meant)
}

/// tzfile(5) begins with its magic.
fn is_zone(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    path.is_file()
        && std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok())
        && magic == *b"TZif"
}

fn walk(folder: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    // posix/ and right/ hold everything a second time.
    if depth > 3 || matches!(prefix, "posix/" | "right/") {
        return;
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.take(2000) {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        if path.is_dir() {
            walk(&path, &format!("{prefix}{name}/"), depth + 1, names);
        } else if is_zone(&path) {
            names.push(format!("{prefix}{name}"));
        }
    }
    names.sort();
}
