//! `pack TREE BLOBS [THREADS [ZSTD-LEVEL]]`: one layer of a tree, to measure against `tar | pigz`.

use std::path::Path;
use std::time::Instant;

use image::{LayerOptions, Packing, Silent, Source, write_layer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tree, blobs, threads @ ..] = &arguments[..] else {
        return Err("usage: pack TREE BLOBS [THREADS [ZSTD-LEVEL]]".into());
    };
    let options = LayerOptions {
        epoch: u64::MAX,
        skip: &|_| false,
        devices: &|_| false,
        kind: Source::Tree,
        progress: &Silent,
        packing: match threads.get(1) {
            Some(level) => Packing::Zstd {
                level: level.parse()?,
            },
            None => Packing::Gzip,
        },
        threads: threads.first().map_or(Ok(0), |text| text.parse())?,
    };
    let start = Instant::now();
    let layer = write_layer(Path::new(tree), Path::new(blobs), &options)?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = layer.uncompressed as f64 / 1e6;
    println!(
        "{} {seconds:.2} s, {megabytes:.0} MB, {:.0} MB/s, {} bytes",
        layer.digest,
        megabytes / seconds,
        layer.size
    );
    Ok(())
}
