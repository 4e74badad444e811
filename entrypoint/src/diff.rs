//! What would change in a file, as diff(1) shows it, secrets masked on both sides.

use std::fmt::Write as _;

use similar::{Algorithm, DiffOp, capture_diff_slices, group_diff_ops};

use crate::secrets::Secrets;
use crate::settings::MASK;

const CONTEXT: usize = 3;

/// A unified difference; empty when there is none. No `old` is a file that does not exist.
pub fn unified(path: &str, old: Option<&str>, new: &str, secrets: &Secrets) -> String {
    let (from, to): (Vec<&str>, Vec<&str>) = (
        old.unwrap_or_default().split_inclusive('\n').collect(),
        new.split_inclusive('\n').collect(),
    );
    let ops = capture_diff_slices(Algorithm::Myers, &from, &to);
    let mut out = String::new();
    for group in group_diff_ops(ops, CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        if group.iter().all(|op| matches!(op, DiffOp::Equal { .. })) {
            continue;
        }
        if out.is_empty() {
            let from = if old.is_some() { path } else { "/dev/null" };
            let _ = writeln!(out, "--- {from}\n+++ {path}");
        }
        let _ = writeln!(
            out,
            "@@ -{} +{} @@",
            range(first.old_range().start, last.old_range().end),
            range(first.new_range().start, last.new_range().end)
        );
        for op in group {
            let (old, new) = (&from[op.old_range()], &to[op.new_range()]);
            if matches!(op, DiffOp::Equal { .. }) {
                old.iter()
                    .for_each(|l| line(&mut out, ' ', l, &secrets.line(content(l))));
                continue;
            }
            // A line that makes way for a secret is one itself, known or not.
            let for_a_secret = new.iter().any(|l| secrets.is_secret_line(content(l)));
            for l in old {
                let shown = match content(l) {
                    text if for_a_secret && !secrets.is_secret_line(text) => MASK.to_owned(),
                    text => secrets.line(text),
                };
                line(&mut out, '-', l, &shown);
            }
            new.iter()
                .for_each(|l| line(&mut out, '+', l, &secrets.line(content(l))));
        }
    }
    out
}

fn content(line: &str) -> &str {
    line.strip_suffix('\n').unwrap_or(line)
}

fn line(out: &mut String, sign: char, line: &str, shown: &str) {
    let _ = writeln!(out, "{sign}{shown}");
    if !line.ends_with('\n') {
        out.push_str("\\ No newline at end of file\n");
    }
}

/// Lines from 1 on; an empty range names the line before it.
fn range(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        count => format!("{},{count}", start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_diff_writes_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\n5\nsix\n7\n8\n9\n10";
        assert_eq!(
            unified("/x", Some(old), new, &Secrets::default()),
            "--- /x\n+++ /x\n@@ -3,7 +3,8 @@\n 3\n 4\n 5\n-6\n+six\n 7\n 8\n 9\n+10\n\\ No newline at end of file\n"
        );
        assert_eq!(
            unified("/x", None, "a\n", &Secrets::default()),
            "--- /dev/null\n+++ /x\n@@ -0,0 +1 @@\n+a\n"
        );
        assert_eq!(unified("/x", Some(old), old, &Secrets::default()), "");
    }

    #[test]
    fn a_secret_is_on_neither_side() {
        let mut secrets = Secrets::default();
        let new = "pass NEWSECRET\nNEWBARE\nport 2\n";
        secrets.learn(new, "pass ********\n********\nport 2\n");
        let text = unified(
            "/x",
            Some("pass OLDSECRET\nOLDBARE\nport 1\n"),
            new,
            &secrets,
        );
        assert!(!text.contains("SECRET") && !text.contains("BARE"), "{text}");
        assert!(
            text.contains("-pass ********\n") && text.contains("+pass ********\n"),
            "{text}"
        );
    }

    proptest::proptest! {
        /// patch(1) could use it: the lines of the result are the new file's.
        #[test]
        fn the_new_side_is_the_new_file(
            old in proptest::collection::vec("[ab]", 0..12),
            new in proptest::collection::vec("[ab]", 0..12),
        ) {
            let join = |lines: &[String]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
            let (old, new) = (join(&old), join(&new));
            let text = unified("/x", Some(&old), &new, &Secrets::default());
            let count = |sign: char| text.lines().skip(2).filter(|l| l.starts_with(sign)).count();
            let lines = |text: &str| text.lines().count();
            proptest::prop_assert_eq!(lines(&old) + count('+'), lines(&new) + count('-'));
            proptest::prop_assert_eq!(text.is_empty(), old == new);
        }
    }
}
