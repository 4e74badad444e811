//! What beside the recipe is no input of a layer: what `.tiffinignore` names, and what
//! builds write there themselves.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};

/// In the directory of the recipe, the playbook, the inventory or what is copied.
const FILE: &str = ".tiffinignore";

/// What a build reads and must not take for input.
pub struct Written<'a> {
    /// Where releases appear, and their names without version: `backend`.
    pub output: &'a Path,
    pub name: &'a str,
    pub cache: &'a Path,
}

/// All paths below `dirs` that do not count. Of a directory that does not count, the files
/// are not named.
pub fn ignored(dirs: &[PathBuf], written: &Written) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for dir in dirs {
        let file = dir.join(FILE);
        let rules = match fs::symlink_metadata(&file) {
            Ok(_) => Some(rules(dir, &file)?),
            Err(_) => None,
        };
        if rules.is_some() {
            found.insert(file);
        }
        let mut stack = vec![dir.clone()];
        while let Some(at) = stack.pop() {
            for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
                let path = entry.path();
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let ruled = |rules: &Gitignore| rules.matched(&path, is_dir).is_ignore();
                if written.is(&path, is_dir, dirs) || rules.as_ref().is_some_and(ruled) {
                    found.insert(path);
                } else if is_dir && entry.file_name() != ".git" {
                    stack.push(path);
                }
            }
        }
    }
    Ok(found)
}

fn rules(dir: &Path, file: &Path) -> Result<Gitignore> {
    let text = fs::read_to_string(file).map_err(Error::io("read", file))?;
    let mut builder = GitignoreBuilder::new(dir);
    for (number, line) in text.lines().enumerate() {
        builder
            .add_line(None, line)
            .map_err(|error| Error::Ignore {
                path: file.to_owned(),
                line: number + 1,
                reason: error.to_string(),
            })?;
    }
    builder.build().map_err(|error| Error::Ignore {
        path: file.to_owned(),
        line: 0,
        reason: error.to_string(),
    })
}

impl Written<'_> {
    fn is(&self, path: &Path, is_dir: bool, dirs: &[PathBuf]) -> bool {
        // An output directory that holds input is looked at file by file.
        let holds_input = |dir: &Path| dirs.iter().any(|input| input.starts_with(dir));
        if is_dir {
            return (path == self.output || path == self.cache) && !holds_input(path);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.parent() == Some(self.output)
            && (name.starts_with(".tiffin-partial-")
                || name.starts_with(&format!("{}-", self.name))
                    && [".tar", ".sha256", ".cdx.json", ".minisig", ".tmp"]
                        .iter()
                        .any(|end| name.ends_with(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_gits_and_what_builds_write_is_no_input() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().to_path_buf();
        for path in [
            "site.yml",
            "notes.md",
            "docs/a/b.md",
            "roles/web/docs/c",
            "docs/keep.md",
            "out/box-v1.tar",
            "out/roles.yml",
            "box-v1.tar",
            "box-v1.tar.sha256",
            "boxes.yml",
            ".git/x",
        ] {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(dir.join(FILE), "# notes\n*.md\n!keep.md\n/docs/a\n").unwrap();
        let of = |output: PathBuf| -> Vec<String> {
            let written = Written {
                output: &output,
                name: "box",
                cache: Path::new("/nowhere"),
            };
            ignored(std::slice::from_ref(&dir), &written)
                .unwrap()
                .iter()
                .map(|path| path.strip_prefix(&dir).unwrap().display().to_string())
                .collect()
        };
        assert_eq!(
            of(dir.join("out")),
            [".tiffinignore", "docs/a", "notes.md", "out"]
        );
        assert_eq!(
            of(dir.clone()),
            [
                ".tiffinignore",
                "box-v1.tar",
                "box-v1.tar.sha256",
                "docs/a",
                "notes.md"
            ]
        );
        fs::write(dir.join(FILE), "ok\n{a\n").unwrap();
        let written = Written {
            output: Path::new("/nowhere"),
            name: "box",
            cache: Path::new("/nowhere"),
        };
        let error = ignored(std::slice::from_ref(&dir), &written)
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
