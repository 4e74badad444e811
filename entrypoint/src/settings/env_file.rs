//! `settings.env`: `NAME=VALUE` lines as `docker run --env-file` takes them (a value is all
//! that follows the `=`), and quotes besides: '…' holds its text as it is, "…" knows
//! `\n`, `\t`, `\"`, `\$` and `\\`.

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1.
    pub line: usize,
    pub name: String,
    pub value: String,
}

/// # Errors
///
/// Every wrong line with its reason, which never quotes a value.
pub fn parse(text: &str) -> Result<Vec<Entry>, Vec<(usize, String)>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut wrong = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (at, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let number = at + 1;
        match entry(line) {
            Ok(None) => {}
            Ok(Some((name, value))) => match entries.iter().find(|e| e.name == name) {
                Some(first) => wrong.push((
                    number,
                    format!("{name} is given in line {} already", first.line),
                )),
                None => entries.push(Entry {
                    line: number,
                    name,
                    value,
                }),
            },
            Err(reason) => wrong.push((number, reason)),
        }
    }
    if wrong.is_empty() {
        Ok(entries)
    } else {
        Err(wrong)
    }
}

fn entry(line: &str) -> Result<Option<(String, String)>, String> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or("it is not NAME=VALUE")?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.starts_with("export ") {
        return Err("no shell reads this file: leave out `export`".to_owned());
    }
    if name.is_empty() || !name.chars().all(word) {
        return Err("what stands before the = is no name of letters, digits and _".to_owned());
    }
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(&value[1..], quote)?,
        _ => value.to_owned(),
    };
    Ok(Some((name.to_owned(), value)))
}

fn quoted(text: &str, quote: char) -> Result<String, String> {
    let mut out = String::new();
    let mut letters = text.chars();
    loop {
        match letters.next() {
            None => return Err(format!("the {quote} has no end in this line")),
            Some(c) if c == quote => break,
            Some('\\') if quote == '"' => out.push(match letters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('"' | '\\' | '$')) => c,
                _ => return Err("after a \\ comes one of n t \" $ \\".to_owned()),
            }),
            Some(c) => out.push(c),
        }
    }
    let rest = letters.as_str().trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(out)
    } else {
        Err(format!("something follows the closing {quote}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<(String, String)> {
        let entries = parse(text).unwrap();
        entries.into_iter().map(|e| (e.name, e.value)).collect()
    }

    #[test]
    fn lines_are_read_as_docker_reads_them_and_quotes_besides() {
        let text = "\u{feff}# comment\r\n\nA=a b # c\r\n  B=\nC=\"x\\n\\\"y\\\" \\$\" # note\nD='a\\n'\nE=a=b'\n";
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            values(text),
            [
                pair("A", "a b # c"),
                pair("B", ""),
                pair("C", "x\n\"y\" $"),
                pair("D", "a\\n"),
                pair("E", "a=b'")
            ]
        );
    }

    #[test]
    fn every_wrong_line_is_named() {
        let wrong = parse("A=1\nB\nexport C=1\nA=2\nD='x\nE=\"x\\q\"\nF='x' y\na b=1").unwrap_err();
        let lines: Vec<usize> = wrong.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8], "{wrong:?}");
        assert!(wrong[2].1.contains("line 1"), "{wrong:?}");
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(value in "[^\u{0}]{0,60}") {
            let escaped: String = value.chars().map(|c| match c {
                '\n' => "\\n".to_owned(),
                '"' | '\\' | '$' => format!("\\{c}"),
                c => c.to_string(),
            }).collect();
            prop_assert_eq!(values(&format!("A=\"{escaped}\"")), [("A".to_owned(), value)]);
        }

        #[test]
        fn no_text_panics_and_no_error_quotes_a_value(text in "[A-C=\"'#\\\\n \n]{0,60}", value in "[a-z\"'\\\\]{0,20}") {
            let said = parse(&format!("{text}\nX=CANARY{value}\nY=\"CANARY{value}"));
            if let Err(wrong) = said {
                prop_assert!(wrong.iter().all(|(_, reason)| !reason.contains("CANARY")));
            }
        }
    }
}
