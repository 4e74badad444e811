//! An archive of an image, by both of its tables of contents: all that `inspect`, `diff` and
//! `lint` read of it.
#![no_main]

use std::io::Write;

use image::{Format, Image, Platform, Silent};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("there is memory");
    file.write_all(bytes).expect("there is memory");
    let platform = Platform {
        architecture: "amd64".into(),
        os: "linux".into(),
    };
    for format in [Format::Any, Format::Docker, Format::Oci] {
        let scratch = std::path::Path::new("/dev/shm");
        let Ok(image) = Image::open(file.path(), format, &platform, scratch) else {
            continue;
        };
        for layer in &image.layers {
            let _ = layer.entries(&image.name, &Silent, &mut |_, content| {
                std::io::copy(content, &mut std::io::sink()).map(drop)
            });
        }
    }
});
