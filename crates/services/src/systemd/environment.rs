//! EnvironmentFile=: shell-like assignments, systemd.exec(5).

/// The variables in order. Lines that are no assignment are skipped, as systemd does.
pub fn environment_file(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_some_and(|c| matches!(c, '#' | ';')) {
            while chars.next().is_some_and(|c| c != '\n') {}
            continue;
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && *c != '\n') {
            key.push(c);
        }
        if chars.next() != Some('=') {
            continue;
        }
        let value = value(&mut chars);
        let key = key.trim();
        // `export A=b` is shell, not what systemd reads; Debian's files hold it nonetheless.
        let key = key.strip_prefix("export ").unwrap_or(key).trim_start();
        if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            out.push((key.to_owned(), value));
        }
    }
    out
}

fn value(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut value = String::new();
    while chars.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
    // White space at the end is dropped unless it was quoted.
    let mut keep = 0;
    while let Some(c) = chars.next() {
        match c {
            '\n' => break,
            '\r' if chars.peek() == Some(&'\n') => {}
            '\'' => {
                value.extend(chars.by_ref().take_while(|c| *c != '\''));
                keep = value.len();
            }
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => match chars.next() {
                            Some('\n') | None => {}
                            Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                            Some(c) => value.extend(['\\', c]),
                        },
                        c => value.push(c),
                    }
                }
                keep = value.len();
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => {
                    value.push(c);
                    keep = value.len();
                }
            },
            c => value.push(c),
        }
    }
    let end = keep.max(value.trim_end().len());
    value.truncate(end);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_defaults() {
        let text = "# comment\nA=1\n B = two words  \nC=\"x \\\"y\\\"\" \nexport D='$q'\n;no\nbad line\nE=a\\\nb\nF=\n";
        let got = environment_file(text);
        let want = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "x \"y\""),
            ("D", "$q"),
            ("E", "ab"),
            ("F", ""),
        ];
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
