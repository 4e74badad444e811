//! Which variables a text may look up, and through which others: what a setting reaches.
//!
//! Nothing is rendered. Both branches of a condition count, so that the answer holds for
//! any values; a name that a statement binds (`for`, `set`, a macro's parameter) is no
//! variable from there to the end of its block. minijinja's `undeclared_variables` is of no
//! use here: it takes `x` in `{% set x = x + 1 %}` for bound, and does not see `vars['x']`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use contract::{Template, TemplateOptions, Value, Variables};

use crate::dialect::lexer::{self, Kind};
use crate::dialect::token::{self, Spanned, Token};
use crate::frozen::FROZEN;
use crate::{runtime, value};

/// Words of the grammar.
const WORDS: [&str; 12] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "true",
    "false",
    "none",
    "recursive",
    "loop",
];

/// The variables that a text may look up by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub direct: BTreeSet<String>,
    /// Through `vars`, `hostvars` or a lookup: these, if they are variables, and when none
    /// of them is one, any.
    indirect: Option<BTreeSet<String>>,
}

impl Names {
    fn merge(&mut self, other: Names) {
        self.direct.extend(other.direct);
        if let Some(names) = other.indirect {
            self.indirect.get_or_insert_default().extend(names);
        }
    }
}

/// Of a template's text. A text that cannot be read has none: it cannot be rendered either.
pub fn text(text: &str, options: &TemplateOptions) -> Names {
    let mut scan = Scan::default();
    let Ok(pieces) = lexer::split(text, options) else {
        return Names::default();
    };
    for piece in &pieces {
        let (code, block) = match &piece.kind {
            Kind::Data(_) => continue,
            Kind::Variable(code) => (code, false),
            Kind::Block(code) => (code, true),
        };
        if let Ok(tokens) = token::tokenize(code, piece.line, false, options) {
            if block {
                scan.statement(&tokens);
            } else {
                scan.expression(&tokens);
            }
        }
    }
    scan.names
}

/// Of an expression without braces.
pub fn expression(code: &str) -> Names {
    let mut scan = Scan::default();
    if let Ok(tokens) = token::tokenize(code, 1, false, &TemplateOptions::default()) {
        scan.expression(&tokens);
    }
    scan.names
}

/// Of all strings in a raw value.
pub fn raw(raw: &Value) -> Names {
    let mut names = Names::default();
    match raw {
        Value::String(string) if string.contains('{') => {
            names = text(string, &TemplateOptions::default());
        }
        Value::Array(items) => items.iter().for_each(|item| names.merge(self::raw(item))),
        Value::Object(map) if value::unsafe_text(map).is_none() => {
            map.values().for_each(|item| names.merge(self::raw(item)));
        }
        _ => {}
    }
    names
}

/// Variables by name, each with the one that refers to it; `None` when the text itself does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach(BTreeMap<String, Option<String>>);

impl Reach {
    pub fn has(&self, variable: &str) -> bool {
        self.0.contains_key(variable)
    }

    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// From `variable` to the one that the text names, the shortest way.
    pub fn chain(&self, variable: &str) -> Vec<String> {
        let mut chain = Vec::new();
        let mut at = self.0.get_key_value(variable);
        while let Some((name, parent)) = at {
            chain.push(name.clone());
            at = parent.as_ref().and_then(|name| self.0.get_key_value(name));
        }
        chain
    }
}

/// Everything that `names` may look up; the first map that has a variable wins.
pub fn closure(names: Names, maps: &[&Variables]) -> Reach {
    let get = |name: &str| maps.iter().find_map(|map| map.get(name));
    let mut reach = Reach::default();
    let mut queue = VecDeque::from([(names, None::<String>)]);
    while let Some((names, parent)) = queue.pop_front() {
        let mut found = names.direct;
        if let Some(indirect) = names.indirect {
            let known: BTreeSet<String> =
                indirect.into_iter().filter(|n| get(n).is_some()).collect();
            if known.is_empty() {
                let all = maps.iter().flat_map(|map| map.keys());
                found.extend(all.filter(|name| *name != FROZEN).cloned());
            } else {
                found.extend(known);
            }
        }
        for name in found {
            if reach.has(&name) {
                continue;
            }
            reach.0.insert(name.clone(), parent.clone());
            if let Some(value) = get(&name) {
                queue.push_back((raw(value), Some(name)));
            }
        }
    }
    reach
}

/// Everything that a template and what it includes may look up.
pub fn template(template: &Template, shared: &Variables) -> Reach {
    let mut names = text(&template.body, &template.options);
    for included in template.includes.values() {
        names.merge(text(included, &template.options));
    }
    // What stands for a lookup's answer.
    if let Some(Value::Array(kept)) = template.variables.get(FROZEN) {
        let variables = kept
            .iter()
            .filter_map(|entry| entry.get("variables")?.as_array());
        let variables = variables.flatten().filter_map(Value::as_str);
        names.direct.extend(variables.map(str::to_owned));
    }
    closure(names, &[&template.variables, shared])
}

#[derive(Default)]
struct Scan {
    names: Names,
    /// Names bound in the blocks that are open, and for the text as a whole.
    bound: BTreeSet<String>,
    blocks: Vec<BTreeSet<String>>,
}

impl Scan {
    fn statement(&mut self, tokens: &[Spanned]) {
        let Some((first, rest)) = tokens.split_first() else {
            return;
        };
        let Token::Name(keyword) = &first.token else {
            return;
        };
        match keyword.as_str() {
            "for" => {
                let at = position(rest, |t| is_word(t, "in")).unwrap_or(rest.len());
                let (targets, iterable) = rest.split_at(at);
                // `for x in y if x`: what is iterated over is read outside of the loop.
                let at = position(iterable, |t| is_word(t, "if")).unwrap_or(iterable.len());
                self.expression(&iterable[..at]);
                self.open();
                self.bind(targets);
                self.expression(&iterable[at..]);
            }
            "if" => {
                self.expression(rest);
                self.open();
            }
            "elif" | "else" => {
                self.close();
                self.expression(rest);
                self.open();
            }
            "set" => match position(rest, |t| *t == Token::Operator("=")) {
                Some(at) => {
                    self.expression(&rest[at..]);
                    // `ns.attribute` binds nothing.
                    if !rest[..at].iter().any(|t| t.token == Token::Operator(".")) {
                        self.bind(&rest[..at]);
                    }
                }
                None => {
                    self.bind(&rest[..rest.len().min(1)]);
                    self.expression(rest.get(1..).unwrap_or_default());
                    self.open();
                }
            },
            "with" => {
                self.open();
                self.parameters(rest);
            }
            "macro" => {
                self.bind(&rest[..rest.len().min(1)]);
                self.open();
                // Without the parentheses.
                let end = rest.len().saturating_sub(1);
                self.parameters(rest.get(2..end).unwrap_or_default());
            }
            "call" => {
                // `call(user) list()`: parameters, then the call.
                let at = match rest.first() {
                    Some(t) if t.token == Token::Operator("(") => {
                        position(rest, |t| *t == Token::Operator(")")).map_or(0, |at| at + 1)
                    }
                    _ => 0,
                };
                self.expression(&rest[at..]);
                self.open();
                self.bind(&rest[..at]);
            }
            "filter" => {
                self.filters(rest);
                self.open();
            }
            "block" | "autoescape" => self.open(),
            "import" | "from" => {
                let word = if keyword == "from" { "import" } else { "as" };
                let at = position(rest, |t| is_word(t, word)).unwrap_or(rest.len());
                self.expression(&rest[..at]);
                self.bind(&rest[at..]);
            }
            word if word.starts_with("end") => self.close(),
            "break" | "continue" => {}
            // `do`, `include`, `extends`.
            _ => self.expression(rest),
        }
    }

    fn open(&mut self) {
        self.blocks.push(self.bound.clone());
    }

    /// What a block bound may be unbound again after it: then the variable is read.
    fn close(&mut self) {
        if let Some(bound) = self.blocks.pop() {
            self.bound = bound;
        }
    }

    fn bind(&mut self, tokens: &[Spanned]) {
        for spanned in tokens {
            if let Token::Name(name) = &spanned.token {
                self.bound.insert(name.clone());
            }
        }
    }

    /// `a, b=c`: the values are read, a default of the parameter's own name too; then the
    /// names are bound.
    fn parameters(&mut self, tokens: &[Spanned]) {
        let mut names = Vec::new();
        let mut rest = tokens;
        while !rest.is_empty() {
            let end = position(rest, |t| *t == Token::Operator(",")).unwrap_or(rest.len());
            let (parameter, after) = rest.split_at(end);
            let at = position(parameter, |t| *t == Token::Operator("=")).unwrap_or(end);
            names.push(&parameter[..at]);
            self.expression(&parameter[at..]);
            rest = after.get(1..).unwrap_or_default();
        }
        names.into_iter().for_each(|name| self.bind(name));
    }

    fn filters(&mut self, tokens: &[Spanned]) {
        let mut tokens = tokens.to_vec();
        if let Some(first) = tokens.first() {
            let pipe = Spanned {
                token: Token::Operator("|"),
                line: first.line,
            };
            tokens.insert(0, pipe);
        }
        self.expression(&tokens);
    }

    fn expression(&mut self, tokens: &[Spanned]) {
        let mut indirect = false;
        for (at, spanned) in tokens.iter().enumerate() {
            let Token::Name(name) = &spanned.token else {
                continue;
            };
            let before = at.checked_sub(1).map(|at| &tokens[at].token);
            let after = tokens.get(at + 1).map(|t| &t.token);
            let is_member = matches!(before, Some(Token::Operator("." | "|")))
                || before.is_some_and(|t| is_word(t, "is"))
                || (before.is_some_and(|t| is_word(t, "not"))
                    && at >= 2
                    && is_word(&tokens[at - 2].token, "is"));
            // `f(name=value)`; a comparison is another operator.
            let is_keyword = after == Some(&Token::Operator("="));
            if is_member
                || is_keyword
                || WORDS.contains(&name.to_ascii_lowercase().as_str())
                || self.bound.contains(name)
            {
                continue;
            }
            match name.as_str() {
                "vars" | "hostvars" => indirect = true,
                "lookup" | "query" | "q" if after == Some(&Token::Operator("(")) => {
                    let plugin = tokens.get(at + 2).map(|t| &t.token);
                    indirect |= match plugin {
                        Some(Token::Text(plugin)) => plugin.rsplit('.').next() == Some("vars"),
                        _ => true,
                    };
                    continue;
                }
                name if runtime::is_global(name) => continue,
                _ => {}
            }
            self.names.direct.insert(name.clone());
        }
        if indirect {
            let named = self.names.indirect.get_or_insert_default();
            for (at, spanned) in tokens.iter().enumerate() {
                let member = at > 0 && tokens[at - 1].token == Token::Operator(".");
                match &spanned.token {
                    Token::Text(text) => drop(named.insert(text.clone())),
                    Token::Name(name) if member => drop(named.insert(name.clone())),
                    _ => {}
                }
            }
        }
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Name(name) if name == word)
}

/// The first token, outside of brackets, that is wanted.
fn position(tokens: &[Spanned], wanted: impl Fn(&Token) -> bool) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, spanned) in tokens.iter().enumerate() {
        let closes = matches!(spanned.token, Token::Operator(")" | "]" | "}"));
        depth -= i32::from(closes);
        if depth == 0 && wanted(&spanned.token) {
            return Some(at);
        }
        depth += i32::from(matches!(spanned.token, Token::Operator("(" | "[" | "{")));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn direct(source: &str) -> Vec<String> {
        let names = text(source, &TemplateOptions::default());
        names.direct.into_iter().collect()
    }

    #[test]
    fn names_of_expressions() {
        for (source, wanted) in [
            ("{{ a.b['c'] | default(d, boolean=e) }} {# x #}", "a d e"),
            (
                "{{ 'x' if a is defined and b is not none else c }}",
                "a b c",
            ),
            ("{{ f }}{% raw %}{{ g }}{% endraw %}", "f"),
            ("{{ items | map(attribute='x') | join(sep) }}", "items sep"),
            ("{{ range(n) | list }}{{ lookup('env', home) }}", "home n"),
            ("{{ {'k': v, w: 1} }}{{ [x, (y)] }}", "v w x y"),
            ("{{ a == b }}", "a b"),
        ] {
            assert_eq!(direct(source).join(" "), wanted, "{source}");
        }
    }

    #[test]
    fn what_statements_bind_is_no_variable_and_what_they_read_is() {
        for (source, wanted) in [
            (
                "{% for i in xs if i != skip %}{{ i }}{{ loop.index }}{% endfor %}{{ i }}",
                "i skip xs",
            ),
            (
                "{% for k, v in map.items() %}{{ k }}{{ v }}{% endfor %}",
                "map",
            ),
            ("{% set x = x | default(1) %}{{ x }}", "x"),
            ("{% set x = y %}{{ x }}", "y"),
            ("{% if c %}{% set x = 1 %}{% endif %}{{ x }}", "c x"),
            (
                "{% if c %}{% set x = 1 %}{{ x }}{% else %}{{ x }}{% endif %}",
                "c x",
            ),
            (
                "{% macro m(a, b=c) %}{{ a }}{{ b }}{{ d }}{% endmacro %}{{ m(e) }}",
                "c d e",
            ),
            ("{% with a = b, c = d %}{{ a }}{{ c }}{% endwith %}", "b d"),
            (
                "{% set ns = namespace(n=o) %}{% set ns.n = p %}{{ ns.n }}",
                "o p",
            ),
            (
                "{% filter replace(old, new) %}{{ t }}{% endfilter %}",
                "new old t",
            ),
            (
                "{% import 'x' as lib %}{% from 'y' import z as w %}{{ lib.a(v) }}{{ w }}",
                "v",
            ),
            ("{% call(u) lists(v) %}{{ u }}{% endcall %}", "lists v"),
            ("{% include file %}{% do x.append(y) %}", "file x y"),
        ] {
            assert_eq!(direct(source).join(" "), wanted, "{source}");
        }
    }

    fn shared() -> Variables {
        json!({
            "host": "127.0.0.1",
            "port": 1,
            "url": "redis://{{ host }}:{{ port }}",
            "celery": {"broker": ["{{ url }}/0"]},
            "round": "{{ about }}",
            "about": "{{ round }}",
            "literal": {"__ansible_unsafe": "{{ port }}"},
        })
        .as_object()
        .unwrap()
        .clone()
    }

    #[test]
    fn chains_are_named_and_circles_end() {
        let names = text(
            "{{ celery }}{{ round }}{{ literal }}",
            &TemplateOptions::default(),
        );
        let reach = closure(names, &[&shared()]);
        assert_eq!(reach.chain("host"), ["host", "url", "celery"]);
        assert_eq!(reach.chain("about"), ["about", "round"]);
        assert!(reach.chain("nobody").is_empty());
        assert_eq!(
            reach.variables().collect::<Vec<_>>().join(" "),
            "about celery host literal port round url"
        );
    }

    #[test]
    fn indirect_names_are_followed_and_computed_ones_reach_everything() {
        for (source, wanted) in [
            ("{{ vars['port'] }}", "port vars"),
            (
                "{{ hostvars[inventory_hostname].port }}",
                "hostvars inventory_hostname port",
            ),
            ("{{ lookup('vars', 'port') }}", "port"),
            ("{{ lookup('file', 'port') }}", ""),
            (
                "{{ lookup('vars', x ~ '_a') }}",
                "about celery host literal port round url x",
            ),
        ] {
            let reach = closure(text(source, &TemplateOptions::default()), &[&shared()]);
            let found: Vec<&str> = reach.variables().collect();
            assert_eq!(found.join(" "), wanted, "{source}");
        }
    }

    proptest::proptest! {
        /// Whatever the text is.
        #[test]
        fn any_text_is_read(source in "[{}%a-z |()'.,= ]{0,60}") {
            text(&source, &TemplateOptions::default());
            expression(&source);
        }
    }
}
