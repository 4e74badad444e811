//! A layer of a base, unpacked: nothing outside of its directory changes.
#![no_main]

use std::fs;
use std::io::Write;

use image::{Format, Image, Platform, Silent};
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An archive as `docker save` wrote it before 25, whose one layer nothing names by digest.
fn archive(layer: &[u8]) -> Vec<u8> {
    let diff_id = format!("sha256:{}", hex(layer));
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "Layers": ["layer.tar"]}]);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("manifest.json", manifest.to_string().as_bytes()),
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", layer),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).expect("memory takes it");
    }
    tar.into_inner().expect("memory takes it")
}

libfuzzer_sys::fuzz_target!(|layer: &[u8]| {
    // Compressed ones are another target's: their diff_id is that of what comes out.
    if layer.len() < 2 || layer[..2] == [0x1f, 0x8b] {
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
    file.write_all(&archive(layer)).expect("there is memory");
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
