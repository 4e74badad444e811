//! `tiffin push`: sends an archive's image to a registry.

use anyhow::Result;
use image::registry::Options;
use image::{Format, Image, Platform, Reference};

use crate::cli;
use crate::printer::{Printer, size};

pub fn run(words: &cli::Push) -> Result<()> {
    let printer = Printer::new(words.progress, false);
    let done = push(words, &printer);
    printer.finish();
    let (reference, digest) = done?;
    println!("{reference}@{digest}");
    Ok(())
}

fn push(words: &cli::Push, printer: &Printer) -> Result<(Reference, String)> {
    let scratch = std::env::temp_dir();
    let image = Image::open(&words.archive, Format::Any, &Platform::here(), &scratch)?;
    let reference: Reference = words.image.parse().map_err(image::Error::from)?;
    printer.phase(&format!("push {reference}"));
    let from = words.mount_from.as_deref();
    let pushed = image.push(&reference, from, &options(), printer)?;
    let bytes: u64 = image.layers.iter().map(image::ImageLayer::size).sum();
    printer.line(&format!(
        "{reference}: {} in {} layers, {} blobs sent, the others were there",
        size(bytes),
        image.layers.len(),
        pushed.sent
    ));
    Ok((reference, pushed.manifest_digest))
}

/// What this machine says of registries: Docker's own files, and the variables that
/// `tiffin push --help` documents.
pub fn options() -> Options {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let words = |name: &str| -> Vec<String> {
        let text = std::env::var(name).unwrap_or_default();
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let home = || set("HOME").map(|home| std::path::PathBuf::from(home).join(".docker"));
    Options {
        docker_config: set("DOCKER_CONFIG").map(Into::into).or_else(home),
        authority: set("TIFFIN_REGISTRY_CA").map(Into::into),
        mirrors: words("TIFFIN_MIRRORS")
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(host, mirror)| (host.to_owned(), mirror.trim_end_matches('/').to_owned()))
            .collect(),
        plain: words("TIFFIN_PLAIN_HTTP"),
        ..Options::default()
    }
}
