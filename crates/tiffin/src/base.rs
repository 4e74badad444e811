//! A recipe's base that is an image: read here, so that `bake` knows no image format.

use std::error::Error;
use std::path::Path;

use anyhow::Result;
use image::{Format, Image, Platform};
use recipe::{Base, Recipe};

use crate::printer::Printer;

/// The image that a recipe is put on.
pub struct BaseImage<'a> {
    pub image: Image,
    printer: &'a Printer,
}

/// The image of the recipe's base, verified as far as its documents go; `None` for a base
/// that is none. `scratch` is a directory for what must be decompressed to be read.
pub fn open<'a>(
    recipe: &Recipe,
    scratch: &Path,
    printer: &'a Printer,
) -> Result<Option<BaseImage<'a>>> {
    let open = |path: &Path, format| Image::open(path, format, &Platform::here(), scratch);
    let image = match &recipe.base {
        Base::DockerArchive(path) => open(path, Format::Docker)?,
        Base::OciArchive(path) => open(path, Format::Oci)?,
        _ => return Ok(None),
    };
    Ok(Some(BaseImage { image, printer }))
}

impl bake::Image for BaseImage<'_> {
    /// The configuration names the content of each layer.
    fn identity(&self) -> String {
        self.image.config_digest.clone()
    }

    fn unpack(&self, into: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.image.unpack(into, self.printer)?)
    }
}
