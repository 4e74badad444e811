//! What stacked layers show together, entry by entry, the lowest layer first (image-spec,
//! layer.md, Whiteouts).

use std::collections::BTreeMap;

/// What is in sight, by its path without a slash at either end.
pub struct Merged<T>(BTreeMap<String, (usize, T)>);

impl<T> Default for Merged<T> {
    fn default() -> Merged<T> {
        Merged(BTreeMap::new())
    }
}

impl<T> Merged<T> {
    /// The `layer`th layer has an entry at `path`: takes out, and gives, what it hides of lower
    /// layers. Whiteouts are known by their name.
    pub fn layer(&mut self, layer: usize, path: &str, directory: bool) -> Vec<(String, T)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == ".wh..wh..opq" {
            return self.below(layer, dir);
        }
        let Some(deleted) = name.strip_prefix(".wh.") else {
            let mut hidden = self.at(layer, path);
            if !directory {
                hidden.extend(self.below(layer, path));
            }
            return hidden;
        };
        let path = [dir, deleted].join("/");
        let path = path.trim_start_matches('/');
        let mut hidden = self.at(layer, path);
        hidden.extend(self.below(layer, path));
        hidden
    }

    pub fn insert(&mut self, layer: usize, path: &str, thing: T) {
        self.0.insert(path.to_owned(), (layer, thing));
    }

    /// By path, with the layer that has it.
    pub fn into_files(self) -> impl Iterator<Item = (String, usize, T)> {
        self.0
            .into_iter()
            .map(|(path, (layer, thing))| (path, layer, thing))
    }

    fn at(&mut self, layer: usize, path: &str) -> Vec<(String, T)> {
        match self.0.get(path) {
            Some((of, _)) if *of < layer => self.take(vec![path.to_owned()]),
            _ => Vec::new(),
        }
    }

    fn below(&mut self, layer: usize, dir: &str) -> Vec<(String, T)> {
        let start = match dir {
            "" => String::new(),
            dir => format!("{dir}/"),
        };
        let paths = self
            .0
            .range(start.clone()..)
            .take_while(|(path, _)| path.starts_with(&start))
            .filter(|(_, (of, _))| *of < layer)
            .map(|(path, _)| path.clone())
            .collect();
        self.take(paths)
    }

    fn take(&mut self, paths: Vec<String>) -> Vec<(String, T)> {
        paths
            .into_iter()
            .filter_map(|path| {
                let (_, thing) = self.0.remove(&path)?;
                Some((path, thing))
            })
            .collect()
    }
}
