//! Python's shlex, for `command=` and `environment=`.

/// `shlex.split(text)`: POSIX quoting, no expansion, comments are no special case.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(format!("the quote ' is not closed in: {text}")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err(format!("the quote \" is not closed in: {text}")),
                        },
                        Some(c) => word.push(c),
                        None => return Err(format!("the quote \" is not closed in: {text}")),
                    }
                }
            }
            '\\' => {
                let c = chars
                    .next()
                    .ok_or_else(|| format!("a backslash ends: {text}"))?;
                word.get_or_insert_default().push(c);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// `KEY="value",KEY2=value2`; commas and line ends separate, quotes protect both.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start_matches(separator);
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| format!("`{}` is not KEY=VALUE", rest.trim()))?;
        let key = key.trim();
        if key.is_empty() || key.contains(|c: char| c == ',' || c.is_whitespace()) {
            return Err(format!("`{key}` is not the name of a variable"));
        }
        let after = after.trim_start_matches([' ', '\t']);
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        let mut quote = None;
        for (at, c) in chars.by_ref() {
            match quote {
                Some(q) if c == q => quote = None,
                Some(_) => value.push(c),
                None if c == '"' || c == '\'' => quote = Some(c),
                None if c == ',' || c == '\n' => {
                    end = at;
                    break;
                }
                None => value.push(c),
            }
        }
        if quote.is_some() {
            return Err(format!("the value of {key} has a quote that is not closed"));
        }
        out.push((key.to_owned(), value.trim_end().to_owned()));
        rest = after[end..].trim_start_matches(separator);
    }
    Ok(out)
}

fn separator(c: char) -> bool {
    c == ',' || c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(
            split(r#"/bin/sh -c "a \"b\" \n" 'c d' e\ f ''"#).unwrap(),
            ["/bin/sh", "-c", r#"a "b" \n"#, "c d", "e f", ""]
        );
        assert!(split("a 'b").is_err());
        assert!(split("a \\").is_err());
    }

    #[test]
    fn environment_pairs() {
        let got = pairs("A=\"1,2\",B='x=y'\n  C=plain, D=\"\"").unwrap();
        let want = [("A", "1,2"), ("B", "x=y"), ("C", "plain"), ("D", "")];
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(pairs("novalue").is_err());
        assert_eq!(pairs("").unwrap(), []);
    }
}
