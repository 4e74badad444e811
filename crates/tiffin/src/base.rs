//! A recipe's base that is an image: read here, so that `bake` knows no image format.

use std::error::Error;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use image::registry::Remote;
use image::{Format, Image, Platform, Reference, Settings};
use recipe::{Base, Recipe};

use crate::{printer::Printer, push};

/// The image that a recipe is put on.
pub struct BaseImage<'a> {
    source: Source,
    cache: PathBuf,
    printer: &'a Printer,
}

enum Source {
    Archive(Box<Image>),
    /// Its layers are fetched only when they are needed.
    Registry(Box<Remote>),
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
        Base::Debootstrap { .. } | Base::Rootfs(_) => return Ok(None),
    };
    Ok(Some(BaseImage {
        source,
        cache: cache.to_owned(),
        printer,
    }))
}

impl BaseImage<'_> {
    pub fn settings(&self) -> &Settings {
        match &self.source {
            Source::Archive(image) => &image.settings,
            Source::Registry(remote) => &remote.settings,
        }
    }
}

impl bake::Image for BaseImage<'_> {
    /// The configuration names the content of each layer.
    fn identity(&self) -> String {
        match &self.source {
            Source::Archive(image) => image.config_digest.clone(),
            Source::Registry(remote) => remote.config_digest.clone(),
        }
    }

    fn unpack(&self, into: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        match &self.source {
            Source::Archive(image) => image.unpack(into, self.printer)?,
            Source::Registry(remote) => remote
                .fetch(&self.cache.join("pulled"), self.printer)?
                .unpack(into, self.printer)?,
        }
        Ok(())
    }
}
