//! One command line of a service, split into words but not yet expanded.
//!
//! systemd expands `$VAR` when it runs the command, because EnvironmentFile= may have
//! changed since; so the words are kept as written and [`Command::argv`] expands them.

/// See systemd.service(5), "Command lines".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments.
    pub words: Vec<String>,
    /// `$VAR` and `${VAR}` are variables; false for supervisord and after the prefix `:`.
    pub expand: bool,
    /// Prefix `-`: a failure counts as success.
    pub ignore_failure: bool,
    /// Prefixes `+` and `!`: not with the service's user, but as root.
    pub privileged: bool,
    /// Prefix `@`: the name the program is given as its `argv[0]`.
    pub argv0: Option<String>,
}

impl Command {
    /// The words to run, with `lookup` for the variables. A variable that is not set is
    /// the empty string, or no word at all where `$VAR` is a word of its own.
    pub fn argv(&self, lookup: impl Fn(&str) -> Option<String>) -> Vec<String> {
        if !self.expand {
            return self.words.clone();
        }
        let mut out = Vec::with_capacity(self.words.len());
        for word in &self.words {
            match word.strip_prefix('$') {
                // A `$VAR` that is a whole word is split at white space; `${VAR}` never is.
                Some(name) if is_name(name) => {
                    let value = lookup(name).unwrap_or_default();
                    out.extend(value.split_ascii_whitespace().map(str::to_owned));
                }
                _ => out.push(expand_word(word, &lookup)),
            }
        }
        out
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn expand_word(word: &str, lookup: &impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(braced) = tail.strip_prefix('{')
            && let Some((name, after)) = braced.split_once('}')
            && is_name(name)
        {
            out.push_str(&lookup(name).unwrap_or_default());
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        Command {
            words: words.iter().map(|w| (*w).to_owned()).collect(),
            expand: true,
            ..Command::default()
        }
        .argv(|name| match name {
            "OPTS" => Some("-a  -b".to_owned()),
            "ONE" => Some("1 2".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn a_variable_as_a_word_of_its_own_is_split_and_may_vanish() {
        assert_eq!(
            argv(&["/bin/x", "$OPTS", "$NONE", "y"]),
            ["/bin/x", "-a", "-b", "y"]
        );
    }

    #[test]
    fn a_braced_variable_is_never_split() {
        assert_eq!(
            argv(&["x", "${ONE}", "a${ONE}b", "${NONE}"]),
            ["x", "1 2", "a1 2b", ""]
        );
    }

    #[test]
    fn a_dollar_that_names_no_variable_stays() {
        assert_eq!(
            argv(&["x", "$$OPTS", "a$OPTS", "${", "$1"]),
            ["x", "$OPTS", "a$OPTS", "${", "$1"]
        );
    }
}
