//! Core metadata of Python distributions (`*.dist-info/METADATA`: PEP 566, PEP 639). No I/O.

use crate::{Ecosystem, Package, word};

/// In the system's own directories and in every virtual environment, those too that a
/// distribution bundles.
pub(crate) fn is_metadata(path: &[u8]) -> bool {
    let mut parts = path.rsplit(|byte| *byte == b'/');
    parts.next() == Some(b"METADATA")
        && parts.next().is_some_and(|dir| dir.ends_with(b".dist-info"))
        && parts.any(|part| matches!(part, b"site-packages" | b"dist-packages"))
}

/// `None` without a name or version.
pub(crate) fn distribution(metadata: &str) -> Option<Package> {
    let value = |name: &str| {
        // The fields end with the first empty line; prose follows.
        let fields = metadata.lines().take_while(|line| !line.trim().is_empty());
        fields
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
    };
    Some(Package {
        ecosystem: Ecosystem::Python,
        name: word(value("Name")?)?,
        version: word(value("Version")?)?,
        architecture: String::new(),
        // `License` and the classifiers are free text.
        license: value("License-Expression").and_then(expression),
    })
}

/// The characters of an SPDX expression, and no others.
fn expression(text: &str) -> Option<String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b" .-+():".contains(&b);
    (!text.is_empty() && text.len() <= 512 && text.bytes().all(fits)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_found_in_every_environment_and_nowhere_else() {
        for path in [
            "usr/lib/python3/dist-packages/a-1.dist-info/METADATA",
            "opt/app/venv/lib/python3.11/site-packages/a-1.dist-info/METADATA",
            "v/site-packages/setuptools/_vendor/a-1.dist-info/METADATA",
        ] {
            assert!(is_metadata(path.as_bytes()), "{path}");
        }
        for path in [
            "srv/a-1.dist-info/METADATA",
            "site-packages/a-1.dist-info/RECORD",
            "site-packages/a/METADATA",
            "METADATA",
        ] {
            assert!(!is_metadata(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn fields_end_where_prose_begins() {
        let text = "Metadata-Version: 2.4\r\nName: Flask_Login\r\nVersion: 0.6.3\r\nLicense-Expression: MIT OR (Apache-2.0)\r\n\r\nVersion: 9\r\n";
        let found = distribution(text).unwrap();
        assert_eq!((&*found.name, &*found.version), ("Flask_Login", "0.6.3"));
        assert_eq!(found.license.as_deref(), Some("MIT OR (Apache-2.0)"));
        assert_eq!(distribution("Name: a\n\nVersion: 1\n"), None);
        assert_eq!(distribution("Name: a b\nVersion: 1\n"), None);
        let text = "Name: a\nVersion: 1\nLicense-Expression: <script>\n";
        assert_eq!(distribution(text).unwrap().license, None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "(Name|Version|License-Expression|:|\n| |\\PC){0,80}") {
            if let Some(found) = distribution(&text) {
                assert!(!found.name.is_empty() && !found.version.is_empty());
            }
        }
    }
}
