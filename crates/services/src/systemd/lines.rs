//! A unit's text as a list of `(section, key, value)`, systemd.syntax(7).

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub section: String,
    pub key: String,
    pub value: String,
}

/// Lines that are neither a section, an assignment nor a comment come back as warnings,
/// as systemd ignores them too.
pub(super) fn read(text: &str, warnings: &mut Vec<String>) -> Vec<Assignment> {
    let mut out = Vec::new();
    let mut section = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let trimmed = first.trim_start();
        if trimmed.is_empty() || is_comment(trimmed) {
            continue;
        }
        let mut logical = String::new();
        let mut line = trimmed;
        // A trailing backslash joins the next line with a space; comments between are skipped.
        while let Some(head) = line.trim_end_matches(['\r']).strip_suffix('\\') {
            logical.push_str(head);
            logical.push(' ');
            let next = lines
                .by_ref()
                .map(|(_, next)| next)
                .find(|next| !is_comment(next.trim_start()));
            line = next.unwrap_or("");
        }
        logical.push_str(line);
        let logical = logical.trim();
        if let Some(name) = logical.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = logical.split_once('=') {
            out.push(Assignment {
                section: section.clone(),
                key: key.trim_end().to_owned(),
                value: value.trim().to_owned(),
            });
        } else {
            warnings.push(format!("line {}: not an assignment: {logical}", index + 1));
        }
    }
    out
}

fn is_comment(line: &str) -> bool {
    line.starts_with(['#', ';'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuation_skips_comments_and_joins_with_a_space() {
        let mut warnings = Vec::new();
        let got = read(
            "[S]\nA = one\\\n# not me\n  two\n;c\nB=\nnonsense\n",
            &mut warnings,
        );
        let pairs: Vec<_> = got
            .iter()
            .map(|a| (a.key.as_str(), a.value.as_str()))
            .collect();
        assert_eq!(pairs, [("A", "one   two"), ("B", "")]);
        assert_eq!(warnings, ["line 7: not an assignment: nonsense"]);
    }
}
