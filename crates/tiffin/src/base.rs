//! A recipe's base that is an image or a tar: read here, so that `bake` knows no such format.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use image::registry::Remote;
use image::{Format, Image, Platform, Reference};
use recipe::{Base, Recipe};

use crate::{build::replace, note, printer::Printer, push};

/// The image, or the root file system, that a recipe is put on.
pub struct BaseImage<'a> {
    source: Source,
    cache: PathBuf,
    printer: &'a Printer,
}

enum Source {
    Archive(Box<Image>),
    /// Its layers are fetched only when they are needed.
    Registry(Box<Remote>),
    /// A tar, and the digest of that file.
    Root(PathBuf, String),
}

/// The image of the recipe's base, verified as far as its documents go; `None` for a base
/// that is none. `cache` holds what is pulled.
pub fn open<'a>(
    recipe: &Recipe,
    cache: &Path,
    offline: bool,
    printer: &'a Printer,
) -> Result<Option<BaseImage<'a>>> {
    let platform = Platform::here();
    let open = |path: &Path, format| Image::open(path, format, &platform, cache);
    let source = match &recipe.base {
        Base::DockerArchive(path) => Source::Archive(Box::new(open(path, Format::Docker)?)),
        Base::OciArchive(path) => Source::Archive(Box::new(open(path, Format::Oci)?)),
        Base::Docker(name) => {
            let reference: Reference = name.parse().map_err(image::Error::from)?;
            let answer = bake::cache::hash(&[name, &format!("{platform:?}")]) + ".json";
            let kept = Kept {
                pulled: &cache.join("pulled"),
                answer: &cache.join("known/bases").join(answer),
            };
            let found = if offline {
                let Some(digest) = note::read::<String>(kept.answer, printer) else {
                    bail!(
                        "cannot ask for the base docker://{name} without a network, and no build with this cache has asked for it: build once without --offline, or save it as an archive, and use base: docker-archive:FILE or oci-archive:FILE"
                    )
                };
                // What is of use is not forgotten.
                let _ = File::open(kept.answer).and_then(|f| f.set_modified(SystemTime::now()));
                Remote::kept(&reference, &digest, kept.pulled)?
            } else {
                let found = Remote::find(&reference, &platform, &push::options())?;
                if let Err(problem) = kept.keep(&found) {
                    printer.note(&format!(
                        "the base docker://{name} is not kept for --offline: {problem:#}"
                    ));
                }
                found
            };
            Source::Registry(Box::new(found))
        }
        Base::Rootfs(path) => {
            let read = || image::sha256(&mut File::open(path)?);
            let digest = read().with_context(|| format!("cannot read {}", path.display()))?;
            Source::Root(path.clone(), digest)
        }
        Base::Debootstrap { .. } => return Ok(None),
    };
    Ok(Some(BaseImage {
        source,
        cache: cache.to_owned(),
        printer,
    }))
}

/// What a registry said of a base, for builds without a network.
struct Kept<'a> {
    /// Documents and layers, by digest.
    pulled: &'a Path,
    /// The digest of the manifest that the name stood for last.
    answer: &'a Path,
}

impl Kept<'_> {
    fn keep(&self, found: &Remote) -> Result<()> {
        for dir in [Some(self.pulled), self.answer.parent()]
            .into_iter()
            .flatten()
        {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            image::remove_leftovers(dir);
        }
        for (digest, content) in found.documents() {
            let path = self.pulled.join(digest.trim_start_matches("sha256:"));
            if !fs::read(&path).is_ok_and(|old| old == content) {
                replace(&path, |fresh| fs::write(fresh, content))?;
            }
        }
        note::write(self.answer, &found.manifest_digest)
    }
}

impl BaseImage<'_> {
    /// Its environment, when it is an image.
    pub fn environment(&self) -> Option<&[String]> {
        match &self.source {
            Source::Archive(image) => Some(&image.settings.config.env),
            Source::Registry(remote) => Some(&remote.settings.config.env),
            Source::Root(..) => None,
        }
    }
}

impl bake::Image for BaseImage<'_> {
    /// The configuration names the content of each layer.
    fn identity(&self) -> String {
        match &self.source {
            Source::Archive(image) => image.config_digest.clone(),
            Source::Registry(remote) => remote.config_digest.clone(),
            Source::Root(_, digest) => format!("root file system sha256:{digest}"),
        }
    }

    fn unpack(&self, into: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        match &self.source {
            Source::Archive(image) => image.unpack(into, self.printer)?,
            Source::Registry(remote) => remote
                .fetch(&self.cache.join("pulled"), self.printer)?
                .unpack(into, self.printer)?,
            Source::Root(path, _) => image::unpack_root(path, into, self.printer)?,
        }
        Ok(())
    }
}
