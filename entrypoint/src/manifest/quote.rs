//! Any text as one value in the languages that manifests are written in.

use std::fmt::Write as _;

/// A double-quoted scalar, which YAML 1.1 and 1.2 read alike.
pub fn yaml(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ if c.is_alphanumeric() => out.push(c),
            _ => numbered(&mut out, c),
        }
    }
    out.push('"');
    out
}

/// `\xNN`, `\uNNNN` or `\UNNNNNNNN`, as YAML and systemd have them. systemd's `\x` is a byte
/// and not a character, which is the same below 0x80.
fn numbered(out: &mut String, c: char) {
    let _ = match u32::from(c) {
        code @ ..0x80 => write!(out, "\\x{code:02x}"),
        code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
        code => write!(out, "\\U{code:08x}"),
    };
}

/// In a Compose file, where `$` begins a variable.
pub fn compose(text: &str) -> String {
    yaml(&text.replace('$', "$$"))
}

/// One word of a POSIX shell.
pub fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// One field of Docker's `--mount`, which is a line of CSV.
pub fn csv(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// One word of a unit file's `ExecStart=` (systemd.syntax(7)), which escapes as YAML does, with
/// `%` and `$` doubled, which begin a specifier and a variable.
pub fn unit(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    yaml(&unit_text(text))
}

/// The same without quotes.
pub fn unit_text(text: &str) -> String {
    text.replace('%', "%%").replace('$', "$$")
}

/// A string of HCL, in which `${` and `%{` begin templates.
pub fn hcl(text: &str) -> String {
    let mut out = String::from("\"");
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '$' | '%' => {
                out.push(c);
                if letters.peek() == Some(&'{') {
                    out.push(c);
                }
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ if c.is_alphanumeric() => out.push(c),
            _ => {
                let code = u32::from(c);
                let _ = match code {
                    ..0x1_0000 => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Text for a comment: one line that ends where it ends, whatever is in it.
pub fn comment(text: &str) -> String {
    let shown = |c: char| match c {
        ' '..='~' => c,
        _ if c.is_alphanumeric() || "–—‘’“”«»…€°§".contains(c) => c,
        _ => ' ',
    };
    let text: String = text.chars().map(shown).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").trim_end_matches([' ', '\\']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any text, and often what quoting is about.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            "[$%{}'\"\\\\ #:\n\r\t&*!|>@`,\\[\\]-]{1,4}",
            "(yes|no|null|~|0x1|1e3|---|\\.\\.\\.|\u{85}|\u{2028}|\u{feff}|\u{fffe})",
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn yaml_is_read_back(text in text()) {
            let written = format!("a:\n  - {}\nb: {}\n", yaml(&text), yaml(&text));
            let read: serde_json::Value = serde_yaml::from_str(&written).unwrap();
            prop_assert_eq!(&read["a"][0], &text);
            prop_assert_eq!(&read["b"], &text);
        }

        #[test]
        fn a_comment_is_one_line(text in text()) {
            let written = format!("a: 1  # {}\nb: 2\n", comment(&text));
            prop_assert_eq!(written.lines().count(), 2);
            let read: serde_json::Value = serde_yaml::from_str(&written).unwrap();
            prop_assert_eq!(&read["b"], &serde_json::json!(2));
        }
    }

    #[test]
    fn a_shell_reads_it_back() {
        let texts = [
            "",
            "a b",
            "it's",
            "$(rm -rf /)`x`",
            "-n",
            "a\nb",
            "\\",
            "é\"!",
        ];
        for text in texts {
            let script = format!("printf %s {}", shell(text));
            let out = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&out.stdout), text, "{script}");
        }
    }

    #[test]
    fn templates_of_hcl_are_text() {
        assert_eq!(hcl("${a} %{b} $ % $$"), "\"$${a} %%{b} $ % $$\"");
        assert_eq!(hcl("\u{1f}\u{10ffff}"), "\"\\u001f\\U0010ffff\"");
    }

    #[test]
    fn specifiers_and_variables_of_a_unit_are_text() {
        assert_eq!(unit("A=100%n $B"), "\"A=100%%n $$B\"");
        assert_eq!(unit(""), "\"\"");
        assert_eq!(csv("target=/a,b"), "\"target=/a,b\"");
    }
}
