//! YAML text becomes a tree whose keys and values know their lines.
//!
//! Unquoted scalars are resolved as PyYAML does for Ansible (YAML 1.1), apart from dates,
//! which stay text, and numbers with colons, which nobody means. Bounded in size, depth
//! and, since an alias is a whole copy to whoever walks the tree, in the number of nodes
//! with all aliases followed.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput, Tag};
use serde_json::{Number, Value};

use crate::error::{Problem, Result};

const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 200_000;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    /// With aliases followed; 1 for a scalar.
    nodes: usize,
    depth: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<(Key, Rc<Node>)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) line: usize,
}

impl Node {
    /// What it is, for "must be a list, not …". Long values are cut.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(value) => format!("{value}"),
            Kind::Number(number) => format!("the number {number}"),
            Kind::Text(text) => format!("the text {}", quote(text)),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }

    pub(crate) fn value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(|item| item.value()).collect(),
            Kind::Map(entries) => {
                let pairs = entries
                    .iter()
                    .map(|(key, value)| (key.name.clone(), value.value()));
                Value::Object(pairs.collect())
            }
        }
    }
}

/// In backticks, on one line, cut where it is long.
pub(crate) fn quote(text: &str) -> String {
    let escaped: String = text
        .chars()
        .take(60)
        .flat_map(|c| match c {
            '`' => vec!['`'],
            c if c.is_control() => c.escape_default().collect(),
            c => vec![c],
        })
        .collect();
    let dots = if text.chars().nth(60).is_some() {
        "…"
    } else {
        ""
    };
    format!("`{escaped}{dots}`")
}

/// The one document in `text`; `None` when there is nothing but comments.
pub(crate) fn parse(text: &str) -> Result<Option<Rc<Node>>> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
    };
    let mut document = None;
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => {
                return Ok(document.filter(|node: &Rc<Node>| !matches!(node.kind, Kind::Null)));
            }
            _ if document.is_some() => {
                return Err(Problem::new(format!(
                    "a second document begins at line {line}"
                )));
            }
            event => document = Some(reader.node(event, line)?),
        }
    }
}

/// A list or map whose end has not been read yet.
struct Open {
    line: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map {
        entries: Vec<(Key, Rc<Node>)>,
        names: HashSet<String>,
        key: Option<Key>,
    },
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(Problem::new(format!(
                "it is not YAML at line {}: {}",
                error.marker().line(),
                error.info()
            ))),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    /// The node that begins with `event`. Keeps its own stack: the text decides how deep
    /// it goes.
    fn node(&mut self, mut event: Event<'a>, mut line: usize) -> Result<Rc<Node>> {
        let mut stack: Vec<Open> = Vec::new();
        loop {
            let complete = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    let kind = scalar(&text, style, tag.as_deref(), line)?;
                    Some((
                        anchor,
                        Rc::new(Node {
                            line,
                            kind,
                            nodes: 1,
                            depth: 0,
                        }),
                    ))
                }
                Event::Alias(anchor) => match self.anchors.get(&anchor) {
                    Some(node) => Some((0, Rc::clone(node))),
                    None => {
                        return Err(Problem::new(format!(
                            "the alias at line {line} is part of what it stands for"
                        )));
                    }
                },
                Event::SequenceStart(anchor, _) => {
                    stack.push(Open {
                        line,
                        anchor,
                        content: Content::List(Vec::new()),
                    });
                    None
                }
                Event::MappingStart(anchor, _) => {
                    let content = Content::Map {
                        entries: Vec::new(),
                        names: HashSet::new(),
                        key: None,
                    };
                    stack.push(Open {
                        line,
                        anchor,
                        content,
                    });
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let open = stack.pop().expect("the parser pairs starts and ends");
                    Some((open.anchor, Rc::new(open.close()?)))
                }
                _ => {
                    return Err(Problem::new(format!(
                        "it is not YAML at line {line}: unexpected end"
                    )));
                }
            };
            if stack.len() > MAX_DEPTH {
                return Err(Problem::new(format!(
                    "values are nested more than {MAX_DEPTH} deep at line {line}"
                )));
            }
            if let Some((anchor, node)) = complete {
                if anchor != 0 {
                    self.anchors.insert(anchor, Rc::clone(&node));
                }
                match stack.last_mut() {
                    None => return Ok(node),
                    Some(open) => open.add(node, line)?,
                }
            }
            (event, line) = self.next()?;
        }
    }
}

impl Open {
    fn add(&mut self, node: Rc<Node>, line: usize) -> Result<()> {
        match &mut self.content {
            Content::List(items) => items.push(node),
            Content::Map {
                entries,
                names,
                key,
            } => match key.take() {
                Some(name) => entries.push((name, node)),
                None => {
                    let name = key_text(&node, line)?;
                    if !names.insert(name.clone()) {
                        return Err(Problem::new(format!(
                            "the key {} is given twice, again at line {line}",
                            quote(&name)
                        )));
                    }
                    *key = Some(Key { name, line });
                }
            },
        }
        Ok(())
    }

    fn close(self) -> Result<Node> {
        let line = self.line;
        let (kind, nodes, depth) = match self.content {
            Content::List(items) => {
                let (nodes, depth) = size(items.iter());
                (Kind::List(items), nodes, depth)
            }
            Content::Map { entries, .. } => {
                let (nodes, depth) = size(entries.iter().map(|(_, value)| value));
                (Kind::Map(entries), nodes, depth)
            }
        };
        if nodes > MAX_NODES {
            return Err(Problem::new(format!(
                "the aliases in the value at line {line} make it too large"
            )));
        }
        if depth > MAX_DEPTH {
            return Err(Problem::new(format!(
                "values are nested more than {MAX_DEPTH} deep at line {line}"
            )));
        }
        Ok(Node {
            line,
            kind,
            nodes,
            depth,
        })
    }
}

fn size<'a>(nodes: impl Iterator<Item = &'a Rc<Node>>) -> (usize, usize) {
    nodes.fold((1, 1), |(nodes, depth), node| {
        (nodes.saturating_add(node.nodes), depth.max(node.depth + 1))
    })
}

/// Keys become text, as they do in JSON: `80:` is `"80"`.
fn key_text(node: &Node, line: usize) -> Result<String> {
    match &node.kind {
        Kind::Text(text) if text == "<<" => Err(Problem::new(format!(
            "the merge key `<<` at line {line} is not supported"
        ))
        .hint("write the keys out, or use an alias for the whole value")),
        Kind::Text(text) => Ok(text.clone()),
        Kind::Number(number) => Ok(number.to_string()),
        Kind::Bool(_) | Kind::Null => Err(Problem::new(format!(
            "a key at line {line} is {}",
            node.describe()
        ))
        .hint("put the key in quotes to make it text")),
        Kind::List(_) | Kind::Map(_) => Err(Problem::new(format!(
            "a key at line {line} is {}",
            node.describe()
        ))
        .hint("put text that begins with `{` or `[` in quotes")),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Kind> {
    let tag = tag.map(|tag| {
        (
            tag.is_yaml_core_schema(),
            tag.suffix.as_str(),
            tag.handle.as_str(),
        )
    });
    match tag {
        None if style == ScalarStyle::Plain => Ok(plain(text)),
        None | Some((true, "str", _)) | Some((false, "", "!")) => Ok(Kind::Text(text.to_owned())),
        Some((false, "vault", _)) => Err(Problem::new(format!(
            "the value at line {line} is encrypted with `!vault`"
        ))
        .hint("keep it in the playbook's own variables; the recipe is read without a password")),
        Some((_, name, _)) => Err(Problem::new(format!(
            "the tag `!{name}` at line {line} is not supported"
        ))),
    }
}

/// YAML 1.1 as PyYAML resolves it.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Kind::Bool(true);
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Kind::Bool(false);
        }
        _ => {}
    }
    integer(text)
        .or_else(|| float(text))
        .map_or_else(|| Kind::Text(text.to_owned()), Kind::Number)
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let first = digits.chars().next()?;
    if !(first.is_digit(radix) || (radix != 10 && first == '_')) {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from_str_radix(&digits, radix).ok()?;
    let number = if negative { -magnitude } else { magnitude };
    i64::try_from(number)
        .map(Number::from)
        .or_else(|_| u64::try_from(number).map(Number::from))
        .ok()
}

/// `[-+]?([0-9][0-9_]*)\.[0-9_]*([eE][-+][0-9]+)?` or the like with nothing before the
/// dot. Infinity and NaN stay text: JSON has no form for them.
fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = unsigned.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    let exponent_ok = exponent.is_none_or(|text| {
        text.strip_prefix(['-', '+'])
            .is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let some_digit = |text: &str| {
        text.bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_digit())
    };
    if !digits(whole)
        || !digits(fraction)
        || !exponent_ok
        || !(some_digit(whole) || whole.is_empty() && some_digit(fraction))
    {
        return None;
    }
    let text: String = text.chars().filter(|c| *c != '_').collect();
    Number::from_f64(text.parse().ok()?)
}
