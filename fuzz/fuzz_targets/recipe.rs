//! A recipe is read to an error that names a line, or to a recipe.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = recipe::parse(text, Path::new("/nowhere/tiffin.yaml")) {
        assert!(!error.to_string().is_empty());
    }
});
