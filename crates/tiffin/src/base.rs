//! A recipe's base that is an image or a tar: read here, so that `bake` knows no such format.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use image::registry::Remote;
use image::{Format, Image, Platform, Reference};
use recipe::{Base, Recipe};

use crate::{printer::Printer, push};

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
        Base::Docker(name) if offline => bail!(
            "cannot ask for the base docker://{name} without a network: save it as an archive, and use base: docker-archive:FILE or oci-archive:FILE"
        ),
        Base::Docker(name) => {
            let name: Reference = name.parse().map_err(image::Error::from)?;
            let found = Remote::find(&name, &platform, &push::options())?;
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
