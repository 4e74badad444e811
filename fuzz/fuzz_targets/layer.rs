//! Layers of a base, unpacked one on the other: nothing outside of their directory changes. Several
//! tars in a row are several layers, so that an upper one goes through links of a lower one.
#![no_main]

use std::fs;
use std::io::Write;

use image::{Format, Image, Platform, Silent};
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Engines refuse more than this by far; here it is enough.
const LAYERS: usize = 4;

/// The tars in it, each up to its two empty blocks, with the checksums of their headers made good:
/// nothing that a fuzzer does to a header would be looked at otherwise.
fn tars(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut tars = vec![Vec::new()];
    let mut rest = bytes;
    while rest.len() >= 512 {
        let (block, after) = rest.split_at(512);
        let tar = tars.last_mut().expect("there is one");
        if block.iter().all(|byte| *byte == 0) {
            tar.extend([0; 1024]);
            rest = after.strip_prefix(&[0; 512]).unwrap_or(after);
            if !rest.is_empty() && tars.len() < LAYERS {
                tars.push(Vec::new());
                continue;
            }
            break;
        }
        let mut header = block.to_vec();
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend(&header);
        let size = header[124..136]
            .iter()
            .take_while(|byte| matches!(byte, b'0'..=b'7'))
            .fold(0usize, |size, byte| size << 3 | usize::from(byte - b'0'));
        // Of what has no content a size means nothing.
        let size = match header[156] {
            b'1'..=b'6' => 0,
            _ => size.div_ceil(512).saturating_mul(512).min(after.len()),
        };
        tar.extend(&after[..size]);
        rest = &after[size..];
    }
    tars.last_mut().expect("there is one").extend(rest);
    tars.retain(|tar| !tar.is_empty());
    tars
}

/// An archive as `docker save` wrote it before 25, whose layers nothing names by digest.
fn archive(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("sha256:{}", hex(layer)))
        .collect();
    let names: Vec<String> = (0..layers.len()).map(|at| format!("{at}.tar")).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "Layers": names}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    let mut files = vec![
        ("manifest.json", manifest.as_bytes()),
        ("config.json", config.as_bytes()),
    ];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().map(|layer| &layer[..])));
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).expect("memory takes it");
    }
    tar.into_inner().expect("memory takes it")
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Compressed ones are another target's: their diff_id is that of what comes out.
    let layers = tars(bytes);
    if layers.is_empty() || layers.iter().any(|layer| layer.starts_with(&[0x1f, 0x8b])) {
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").expect("there is memory");
    let path = place.path().join("image.tar");
    let outside = place.path().join("etc");
    let root = place.path().join("root");
    fs::create_dir(&outside).expect("there is memory");
    fs::create_dir(&root).expect("there is memory");
    fs::write(outside.join("precious"), "precious").expect("there is memory");
    let mut file = fs::File::create(&path).expect("there is memory");
    file.write_all(&archive(&layers)).expect("there is memory");
    let platform = Platform {
        architecture: "amd64".into(),
        os: "linux".into(),
    };
    let image = Image::open(&path, Format::Docker, &platform, place.path()).expect("it is an archive");
    let _ = image.unpack(&root, &Silent);
    let precious = fs::read(outside.join("precious")).expect("the outside is as it was");
    assert_eq!(precious, b"precious");
    assert_eq!(fs::read_dir(&outside).expect("it is there").count(), 1);
    assert_eq!(fs::read_dir(place.path()).expect("it is there").count(), 3);
});
