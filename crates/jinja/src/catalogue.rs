//! What is supported, and what is known but not, as one table (`SUPPORTED.md`).

use crate::{filters, lookups, methods, runtime, tests};

const SECRET: &str = "makes or reads secrets, which no contract may hold; use a setting";
const MACHINE: &str = "reads the machine that runs Ansible; the file stays as it was built";
const KEPT: &str = "answers as while building, to the same arguments";
const VAULTED: &str = "answers as while building; of a vaulted file, a setting";

/// Names that Ansible or Jinja have and the crate has not, with the reason.
const MISSING: &[(&str, &str, &str)] = &[
    ("filter", "fileglob", MACHINE),
    (
        "filter",
        "json_query",
        "needs JMESPath, a language of its own",
    ),
    ("filter", "unvault", SECRET),
    ("filter", "urlize", "makes HTML links"),
    ("filter", "vault", SECRET),
    ("function", "lipsum", "random text"),
    ("test", "vaulted_file", SECRET),
];

/// Lookups of Ansible's own that read the machine that runs it: those of collections are
/// kept alike.
const RECORDED: &[(&str, &str)] = &[
    ("config", KEPT),
    ("csvfile", KEPT),
    (
        "env",
        "answers as while building; a name that tells of a secret is not kept",
    ),
    ("file", VAULTED),
    ("fileglob", KEPT),
    ("first_found", KEPT),
    ("ini", KEPT),
    ("inventory_hostnames", KEPT),
    ("lines", KEPT),
    ("pipe", KEPT),
    ("random_choice", KEPT),
    ("unvault", VAULTED),
    ("url", KEPT),
];

/// Limits of what is supported.
const NOTES: &[(&str, &str, &str)] = &[
    (
        "filter",
        "b64decode",
        "text only: bytes that are no UTF-8 are an error",
    ),
    (
        "filter",
        "expanduser",
        "`~` is the home of who starts the box",
    ),
    ("filter", "expandvars", "only of what names no variable"),
    ("filter", "hwaddr", "the usual spellings"),
    ("filter", "ipaddr", "all queries but `6to4`"),
    (
        "filter",
        "password_hash",
        "sha256 and sha512, with a salt; rounds as crypt(3), without passlib",
    ),
    ("filter", "pprint", "of what fits a line"),
    ("filter", "random", "with `seed`"),
    ("filter", "random_mac", "with `seed`"),
    ("filter", "realpath", "looks at the box"),
    ("filter", "shuffle", "with `seed`"),
    (
        "filter",
        "strftime",
        "UTC; without seconds, the time of the start",
    ),
    ("filter", "type_debug", "every string is AnsibleUnicode"),
    (
        "filter",
        "union",
        "Ansible 2.19 leaves the order of this and the other sets to chance",
    ),
    ("function", "lookup", "see the lookups"),
    ("function", "now", "UTC; the time of the start"),
    ("function", "query", "see the lookups"),
    (
        "lookup",
        "password",
        "a generated setting; of `/dev/null`, with `seed` only",
    ),
    ("lookup", "subelements", "one key"),
    ("lookup", "template", "of captured templates"),
    ("test", "directory", "looks at the box"),
    ("test", "exists", "looks at the box"),
    ("test", "file", "looks at the box"),
    ("test", "link", "looks at the box"),
    ("test", "mount", "looks at the box"),
    ("test", "same_file", "looks at the box"),
    (
        "test",
        "vault_encrypted",
        "never: nothing in a box is vaulted",
    ),
];

fn note(list: &[(&str, &str, &'static str)], kind: &str, name: &str) -> Option<&'static str> {
    list.iter()
        .find(|(k, n, _)| *k == kind && *n == name)
        .map(|(_, _, note)| *note)
}

/// Why something is not there, where that is known.
pub fn reason(kind: &str, name: &str) -> Option<&'static str> {
    note(MISSING, kind, filters::plain(name))
}

/// Every supported filter, test, function, lookup and method, as (kind, name).
pub fn supported() -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let mut add = |kind, names: &mut dyn Iterator<Item = String>| {
        all.extend(names.map(|name| (kind, name)));
    };
    add("filter", &mut filters::names().map(str::to_owned));
    add("test", &mut tests::names().map(str::to_owned));
    add("function", &mut runtime::global_names().map(str::to_owned));
    add("lookup", &mut lookups::names().map(str::to_owned));
    add("method", &mut methods::names());
    all
}

/// [`supported`] and what is not, in Markdown.
pub fn table() -> String {
    let mut out = String::from(
        "# What templates can use\n\n\
         Made from the code; `UPDATE=1 cargo test -p jinja --test table` writes it anew.\n\
         Names of collections (`ansible.builtin.`, `ansible.utils.`, `community.general.`) may stand before them.\n",
    );
    for (kind, title) in [
        ("filter", "Filters"),
        ("test", "Tests"),
        ("lookup", "Lookups"),
        ("function", "Functions"),
        ("method", "Methods"),
    ] {
        let mut rows: Vec<(String, bool)> = supported()
            .into_iter()
            .filter(|(other, _)| *other == kind)
            .map(|(_, name)| (name, true))
            .collect();
        let missing = MISSING.iter().filter(|(other, _, _)| *other == kind);
        rows.extend(missing.map(|(_, name, _)| ((*name).to_owned(), false)));
        let mut recorded: &[(&str, &str)] = &[];
        if kind == "lookup" {
            recorded = RECORDED;
        }
        rows.extend(recorded.iter().map(|(name, _)| ((*name).to_owned(), true)));
        rows.sort();
        rows.dedup();
        out.push_str(&format!(
            "\n## {title}\n\n| name | supported | |\n| --- | --- | --- |\n"
        ));
        for (name, supported) in rows {
            let notes = if supported { NOTES } else { MISSING };
            let kept = recorded.iter().find(|(other, _)| *other == name);
            let note = kept.map(|(_, note)| *note);
            let note = note
                .or_else(|| self::note(notes, kind, &name))
                .unwrap_or_default();
            let answer = if supported { "yes" } else { "no" };
            out.push_str(&format!("| `{name}` | {answer} | {note} |\n"));
        }
    }
    out
}
