//! dpkg's database (deb822, dpkg(1) `status`) and os-release(5). No I/O.

use crate::{Ecosystem, Package, word};

/// Those whose files are there; `None` for a stanza that names no package.
pub(crate) fn packages(status: &str) -> Vec<Option<Package>> {
    // A blank line may hold spaces.
    let mut stanzas = vec![Vec::new()];
    for line in status.lines() {
        match line.trim().is_empty() {
            true => stanzas.push(Vec::new()),
            false => stanzas.last_mut().expect("never empty").push(line),
        }
    }
    stanzas
        .iter()
        .filter(|lines| !lines.is_empty())
        .filter(|lines| is_there(lines))
        .map(|lines| {
            Some(Package {
                ecosystem: Ecosystem::Debian,
                name: word(field(lines, "Package")?)?,
                version: word(field(lines, "Version")?)?,
                architecture: field(lines, "Architecture")
                    .and_then(word)
                    .unwrap_or_default(),
                license: None,
            })
        })
        .collect()
}

/// The third word of `Status` is the state: of these two only a name or settings are left.
fn is_there(lines: &[&str]) -> bool {
    let state = field(lines, "Status").and_then(|status| status.split_whitespace().nth(2));
    !matches!(state, Some("not-installed" | "config-files"))
}

/// Names of fields are compared without case; lines that begin with a space go on with the
/// field before.
fn field<'a>(lines: &[&'a str], name: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// `ID` and `VERSION_ID`.
pub(crate) fn distribution(os_release: &str) -> Option<(String, String)> {
    let value = |name: &str| {
        os_release.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key == name).then(|| value.trim().trim_matches(['"', '\'']))
        })
    };
    let fit = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        text.bytes().all(fits).then(|| word(text)).flatten()
    };
    Some((fit(value("ID")?)?, fit(value("VERSION_ID")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: &str) -> Vec<String> {
        packages(status)
            .into_iter()
            .map(|package| match package {
                Some(p) => format!("{} {} {}", p.name, p.version, p.architecture),
                None => "?".to_owned(),
            })
            .collect()
    }

    #[test]
    fn what_was_removed_is_not_listed_and_what_is_half_installed_is() {
        let status = "Package: curl\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 7.88.1-10+deb12u5\nDescription: a\n Version: not this\n\
                      \n  \nPackage: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\
                      \nPackage: half\nStatus: install reinstreq half-configured\nArchitecture: all\nversion: 2:1.0\n\
                      \nPackage: never\nStatus: unknown ok not-installed\n\
                      \nPackage: base\nVersion: 3\n\nPackage: broken\nStatus: install ok installed\n";
        assert_eq!(
            shown(status),
            [
                "curl 7.88.1-10+deb12u5 amd64",
                "half 2:1.0 all",
                "base 3 ",
                "?"
            ]
        );
        assert_eq!(shown("\n\n \n"), [""; 0]);
    }

    #[test]
    fn a_distribution_is_its_own_word_for_itself() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(distribution(text), Some(("debian".into(), "12".into())));
        for bad in [
            "ID=debian\n",
            "ID=\"a&b\"\nVERSION_ID=1\n",
            "ID=\nVERSION_ID=1\n",
        ] {
            assert_eq!(distribution(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "(Package|Version|Status|:|\n| |\\PC){0,80}") {
            for package in packages(&text).into_iter().flatten() {
                assert!(!package.name.is_empty() && !package.version.is_empty());
            }
        }
    }
}
