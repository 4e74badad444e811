//! A baked layer as a blob, compressed once for all builds that share it.

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::{Context, Result};
use bake::BakedLayer;
use image::{Layer, LayerOptions, Packing};

use crate::{build::source, note, printer::Printer};

/// What a recipe says of its layers.
pub struct How<'a> {
    pub packing: Packing,
    /// Device nodes that may be in them, as absolute paths.
    pub devices: &'a [String],
}

/// The layer's blob in `blobs`, made unless it is there.
pub fn layer(layer: &BakedLayer, blobs: &Path, how: &How, printer: &Printer) -> Result<Layer> {
    // Beside the layer's files: a layer that is baked again loses it.
    let packer = match how.packing {
        Packing::Gzip => "gzip".to_owned(),
        Packing::Zstd { level } => format!("zstd-{level}"),
    };
    let note = layer
        .tree
        .with_file_name(format!("blob-{packer}-{}.json", layer.epoch));
    // Of a build that was killed.
    image::remove_leftovers(note.parent().context("a layer lies in the cache")?);
    let before: Option<note::Packed> = note::read(&note, printer);
    if let Some(before) = &before
        && before.devices.iter().all(|path| how.devices.contains(path))
        && let Some(known) = known(before, blobs, how.packing)
    {
        before.told.iter().for_each(|text| printer.warning(text));
        return Ok(known);
    }
    let listening = Listening {
        printer,
        told: Mutex::default(),
    };
    let devices = RefCell::new(Vec::new());
    let options = LayerOptions {
        epoch: layer.epoch,
        skip: &|_| false,
        devices: &|path| {
            let path = format!("/{}", path.display());
            let allowed = how.devices.contains(&path);
            devices.borrow_mut().push(path);
            allowed
        },
        kind: source(layer),
        progress: &listening,
        threads: 0,
        packing: how.packing,
    };
    let packed = image::write_layer(&layer.tree, blobs, &options)?;
    if before.is_some_and(|before| before.diff_id != packed.diff_id) {
        return Err(note::Damaged::new(&layer.tree).into());
    }
    let made = note::Packed {
        diff_id: packed.diff_id.clone(),
        digest: packed.digest.clone(),
        size: packed.size,
        uncompressed: packed.uncompressed,
        epoch: layer.epoch,
        overlay: layer.overlay,
        devices: devices.into_inner(),
        told: listening.told.into_inner().unwrap_or_default(),
    };
    note::write(&note, &made)?;
    printer.packed(&layer.name, packed.size, packed.uncompressed);
    Ok(packed)
}

fn known(note: &note::Packed, blobs: &Path, packing: Packing) -> Option<Layer> {
    let blob = blobs.join(note.digest.strip_prefix("sha256:")?);
    // Its content is verified against the digest when the archive is written.
    let file = File::open(&blob).ok()?;
    if file.metadata().ok()?.len() != note.size {
        return None;
    }
    // What was used last is pruned last.
    let _ = file.set_modified(SystemTime::now());
    Some(Layer {
        diff_id: note.diff_id.clone(),
        digest: note.digest.clone(),
        size: note.size,
        uncompressed: note.uncompressed,
        compression: packing.compression(),
        blob,
    })
}

/// Keeps warnings: builds that find the layer packed give them too.
struct Listening<'a> {
    printer: &'a Printer,
    told: Mutex<Vec<String>>,
}

impl image::Progress for Listening<'_> {
    fn bytes(&self, read: u64) {
        image::Progress::bytes(self.printer, read);
    }

    fn warning(&self, text: &str) {
        self.printer.warning(text);
        if let Ok(mut told) = self.told.lock() {
            told.push(text.to_owned());
        }
    }
}
