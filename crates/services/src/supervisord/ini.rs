//! Python's RawConfigParser with the settings that supervisord gives it.

use crate::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub name: String,
    /// In the order written; a key that comes twice keeps the last value.
    pub options: Vec<(String, String)>,
}

impl Section {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.options
            .iter()
            .rev()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }
}

/// Sections of `text`; `path` is for errors. A section that comes twice is merged.
pub(super) fn read(path: &str, text: &str) -> Result<Vec<Section>, Error> {
    let mut sections: Vec<Section> = Vec::new();
    let mut current: Option<usize> = None;
    let mut key_indent = 0;
    let mut open_option = false;
    for (index, raw) in text.lines().enumerate() {
        let line = without_comment(raw);
        let body = line.trim();
        let indent = line.len() - line.trim_start().len();
        if body.is_empty() {
            // An empty line stays part of a value; a comment line does not end it either.
            if open_option
                && raw.trim().is_empty()
                && let Some(option) = current.and_then(|at| sections[at].options.last_mut())
            {
                option.1.push('\n');
            }
            continue;
        }
        if open_option
            && indent > key_indent
            && let Some(option) = current.and_then(|at| sections[at].options.last_mut())
        {
            option.1.push('\n');
            option.1.push_str(body);
            continue;
        }
        if let Some(rest) = body.strip_prefix('[') {
            let name = rest.rsplit_once(']').map(|(name, _)| name).ok_or_else(|| {
                Error::new(
                    format!("{path}:{}", index + 1),
                    format!("the section is not closed by `]`: {body}"),
                )
            })?;
            current = Some(match sections.iter().position(|s| s.name == name) {
                Some(at) => at,
                None => {
                    sections.push(Section {
                        name: name.to_owned(),
                        options: Vec::new(),
                    });
                    sections.len() - 1
                }
            });
            open_option = false;
            continue;
        }
        let place = || format!("{path}:{}", index + 1);
        let Some(at) = current else {
            return Err(Error::new(
                place(),
                format!("it stands before the first [section]: {body}"),
            ));
        };
        let Some(split) = body.find(['=', ':']) else {
            return Err(Error::new(
                place(),
                format!("it is neither a section nor `key = value`: {body}"),
            ));
        };
        let key = body[..split].trim().to_ascii_lowercase();
        let value = body[split + 1..].trim().to_owned();
        sections[at].options.retain(|(k, _)| *k != key);
        sections[at].options.push((key, value));
        key_indent = indent;
        open_option = true;
    }
    for section in &mut sections {
        for option in &mut section.options {
            option.1.truncate(option.1.trim_end().len());
        }
    }
    Ok(sections)
}

/// Whole-line comments begin with `;` or `#`; within a line they need white space before.
fn without_comment(line: &str) -> &str {
    let trimmed = line.trim_start();
    if trimmed.starts_with([';', '#']) {
        return "";
    }
    let mut before_is_space = true;
    for (at, c) in line.char_indices() {
        if matches!(c, ';' | '#') && before_is_space {
            return &line[..at];
        }
        before_is_space = c.is_whitespace();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_continuations_and_delimiters() {
        let text = "; top\n[program:x]\nCommand = /bin/a ; inline\n  --flag=1;2\n# no\n  --more\nuser: bob\n[include]\nfiles = a b\n";
        let sections = read("f", text).unwrap();
        assert_eq!(sections[0].name, "program:x");
        assert_eq!(
            sections[0].get("command"),
            Some("/bin/a\n--flag=1;2\n--more")
        );
        assert_eq!(sections[0].get("user"), Some("bob"));
        assert_eq!(sections[1].get("files"), Some("a b"));
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(read("f", "x=1").unwrap_err().place, "f:1");
        assert_eq!(read("f", "[a]\nword").unwrap_err().place, "f:2");
        assert!(read("f", "[a").is_err());
    }
}
