//! YAML as Ansible's dumper writes it: PyYAML's representer over libyaml's emitter.

use minijinja::value::Value;
use serde_yaml::Value as Yaml;

use super::Filter;
use crate::fault::{self, Result};
use crate::filters::regex;
use crate::runtime::Call;
use crate::value::{self, View, view};
use crate::{budget, python};

pub const FILTERS: &[(&str, Filter)] = &[
    ("from_yaml", |call| match view(call.value()) {
        View::Text(text) => read(&text),
        _ => Ok(call.value().clone()),
    }),
    ("from_yaml_all", |call| match view(call.value()) {
        View::Text(text) => {
            let mut documents = Vec::new();
            for document in serde_yaml::Deserializer::from_str(&text) {
                let yaml = <Yaml as serde::Deserialize>::deserialize(document)
                    .map_err(|_| fault::error("no YAML"))?;
                documents.push(from_yaml(&yaml, 0)?);
            }
            Ok(value::list(documents))
        }
        _ => Ok(call.value().clone()),
    }),
    ("to_nice_yaml", |call| {
        let indent = call.integer(1, "indent")?.unwrap_or(4);
        dump(call, indent, Flow::Never)
    }),
    ("to_yaml", |call| {
        let indent = call
            .keyword("indent")
            .and_then(|value| python::integer(&value))
            .unwrap_or(2);
        let flow = match call.keyword("default_flow_style") {
            Some(value) if value.is_none() => Flow::Leaves,
            Some(value) if value.is_true() => Flow::Always,
            Some(_) => Flow::Never,
            None => Flow::Leaves,
        };
        dump(call, indent, flow)
    }),
];

fn read(text: &str) -> Result<Value> {
    let yaml: Yaml = serde_yaml::from_str(text).map_err(|_| fault::error("no YAML"))?;
    from_yaml(&yaml, 0)
}

fn from_yaml(yaml: &Yaml, depth: usize) -> Result<Value> {
    if depth > python::MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    Ok(match yaml {
        Yaml::Null => Value::from(()),
        Yaml::Bool(value) => Value::from(*value),
        Yaml::Number(number) => match number.as_i64() {
            Some(value) => Value::from(value),
            None => number.as_u64().map_or_else(
                || Value::from(number.as_f64().unwrap_or_default()),
                Value::from,
            ),
        },
        Yaml::String(text) => match text.as_str() {
            // YAML 1.1, which PyYAML reads.
            "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::from(true),
            "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::from(false),
            text => Value::from(text),
        },
        Yaml::Sequence(items) => value::list(
            items
                .iter()
                .map(|item| from_yaml(item, depth + 1))
                .collect::<Result<_>>()?,
        ),
        Yaml::Mapping(map) => {
            let mut items = value::Items::new();
            for (key, item) in map {
                items.insert(from_yaml(key, depth + 1)?, from_yaml(item, depth + 1)?);
            }
            value::dict(items)
        }
        Yaml::Tagged(tagged) => from_yaml(&tagged.value, depth + 1)?,
    })
}

/// PyYAML's `default_flow_style`: True, False, None.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Always,
    Never,
    Leaves,
}

/// Explicit flags of a document are rare; these are what templates use.
fn dump(call: &mut Call, indent: i128, flow: Flow) -> Result<Value> {
    let sort = call
        .keyword("sort_keys")
        .is_none_or(|value| value.is_true());
    let width = match call.keyword("width").as_ref().and_then(python::number) {
        Some(width) if width > indent as f64 * 2.0 => width.min(1e9) as usize,
        _ => 80,
    };
    let node = represent(call.value(), flow, sort, 0)?;
    let mut emitter = Emitter {
        out: String::new(),
        column: 0,
        indents: Vec::new(),
        indent: -1,
        step: if (2..=9).contains(&indent) {
            indent as i64
        } else {
            2
        },
        width,
        whitespace: true,
        indention: true,
        flow_level: 0,
    };
    if call
        .keyword("explicit_start")
        .is_some_and(|value| value.is_true())
    {
        emitter.indicator("---", true, false, false);
        if !matches!(node, Node::Scalar { .. }) {
            emitter.write_indent();
        }
    }
    emitter.node(&node, Context::Root);
    emitter.write_indent();
    Ok(Value::from(emitter.out))
}

enum Node {
    /// `plain`: whether it reads back as what it is without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List {
        items: Vec<Node>,
        flow: bool,
    },
    Map {
        items: Vec<(Node, Node)>,
        flow: bool,
    },
}

fn represent(value: &Value, flow: Flow, sort: bool, depth: usize) -> Result<Node> {
    if depth > python::MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    if depth == 0 {
        python::check_defined(value, 0)?;
    }
    let scalar = |text: String| Node::Scalar { text, plain: true };
    let style = |leaves: bool| match flow {
        Flow::Always => true,
        Flow::Never => false,
        Flow::Leaves => leaves,
    };
    let is_leaf = |node: &Node| matches!(node, Node::Scalar { .. });
    Ok(match view(value) {
        View::Undefined => return Err(fault::undefined()),
        View::None => scalar("null".into()),
        View::Bool(value) => scalar(value.to_string()),
        View::Int(value) => scalar(value.to_string()),
        View::Float(value) => scalar(match python::float(value).as_str() {
            "nan" => ".nan".into(),
            "inf" => ".inf".into(),
            "-inf" => "-.inf".into(),
            text if !text.contains('.') => text.replacen('e', ".0e", 1),
            text => text.to_owned(),
        }),
        View::Text(text) => Node::Scalar {
            // Kept, analysed and written.
            text: {
                budget::spend(text.len() * 4);
                budget::check()?;
                text.to_string()
            },
            plain: !resolves_elsewhere(&text)?,
        },
        View::DateTime(_) => scalar(python::text(value)),
        View::Dict(items) => {
            let items = items.get();
            let mut keys: Vec<Value> = items.keys().cloned().collect();
            if sort && crate::methods::sort(&mut keys).is_err() {
                keys = items.keys().cloned().collect();
            }
            let mut nodes = Vec::new();
            for key in keys {
                let item = items.get(&key).cloned().unwrap_or_default();
                nodes.push((
                    represent(&key, flow, sort, depth + 1)?,
                    represent(&item, flow, sort, depth + 1)?,
                ));
            }
            let flow = style(nodes.iter().all(|(k, v)| is_leaf(k) && is_leaf(v)));
            Node::Map { items: nodes, flow }
        }
        _ => {
            let items = python::iterate(value)?
                .iter()
                .map(|item| represent(item, flow, sort, depth + 1))
                .collect::<Result<Vec<_>>>()?;
            let flow = style(items.iter().all(is_leaf));
            Node::List { items, flow }
        }
    })
}

/// Whether plain text would be read as something other than a string (yaml/resolver.py).
fn resolves_elsewhere(text: &str) -> Result<bool> {
    if text.is_empty() {
        return Ok(true);
    }
    let words = [
        "yes", "Yes", "YES", "no", "No", "NO", "true", "True", "TRUE", "false", "False", "FALSE",
        "on", "On", "ON", "off", "Off", "OFF", "~", "null", "Null", "NULL", "<<", "=",
    ];
    if words.contains(&text) {
        return Ok(true);
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return Ok(false);
    }
    let patterns = [
        r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$",
        r"^(?:[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]|[0-9][0-9][0-9][0-9]-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9][0-9]:[0-9][0-9](?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9][0-9])?))?)$",
    ];
    for pattern in patterns {
        if regex::compile(pattern, false, false)?
            .is_match(text)
            .unwrap_or(false)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Root,
    Sequence,
    Mapping,
    SimpleKey,
}

/// libyaml's emitter (emitter.c), for trees instead of events.
struct Emitter {
    out: String,
    column: usize,
    indents: Vec<i64>,
    indent: i64,
    step: i64,
    width: usize,
    whitespace: bool,
    indention: bool,
    flow_level: usize,
}

#[derive(Default)]
struct Analysis {
    multiline: bool,
    flow_plain: bool,
    block_plain: bool,
    single_quoted: bool,
}

fn is_printable(c: char) -> bool {
    matches!(c as u32, 0x0a | 0x20..=0x7e | 0xa0..=0xd7ff | 0xe000..=0xfefe | 0xff00..=0xfffd)
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank_or_end(c: Option<&char>) -> bool {
    c.is_none_or(|c| matches!(c, ' ' | '\t' | '\0') || is_break(*c))
}

fn analyze(text: &str) -> Analysis {
    if text.is_empty() {
        return Analysis {
            block_plain: true,
            single_quoted: true,
            ..Analysis::default()
        };
    }
    let chars: Vec<char> = text.chars().collect();
    let (mut block_indicators, mut flow_indicators) = (false, false);
    let (mut line_breaks, mut special) = (false, false);
    let (mut leading_space, mut leading_break, mut trailing_space, mut trailing_break) =
        (false, false, false, false);
    let (mut break_space, mut space_break) = (false, false);
    let (mut previous_space, mut previous_break) = (false, false);
    if text.starts_with("---") || text.starts_with("...") {
        block_indicators = true;
        flow_indicators = true;
    }
    let mut preceded = true;
    for (at, &c) in chars.iter().enumerate() {
        let followed = is_blank_or_end(chars.get(at + 1));
        let (first, last) = (at == 0, at + 1 == chars.len());
        if first {
            match c {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"'
                | '%' | '@' | '`' => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                '?' | ':' => {
                    flow_indicators = true;
                    block_indicators |= followed;
                }
                '-' if followed => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                _ => {}
            }
        } else {
            match c {
                ',' | '?' | '[' | ']' | '{' | '}' => flow_indicators = true,
                ':' => {
                    flow_indicators = true;
                    block_indicators |= followed;
                }
                '#' if preceded => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                _ => {}
            }
        }
        special |= !is_printable(c);
        line_breaks |= is_break(c);
        if c == ' ' {
            leading_space |= first;
            trailing_space |= last;
            break_space |= previous_break;
            (previous_space, previous_break) = (true, false);
        } else if is_break(c) {
            leading_break |= first;
            trailing_break |= last;
            space_break |= previous_space;
            (previous_space, previous_break) = (false, true);
        } else {
            (previous_space, previous_break) = (false, false);
        }
        preceded = is_blank_or_end(Some(&c));
    }
    let plain = !(leading_space
        || leading_break
        || trailing_space
        || trailing_break
        || break_space
        || space_break
        || special
        || line_breaks);
    Analysis {
        multiline: line_breaks,
        flow_plain: plain && !flow_indicators,
        block_plain: plain && !block_indicators,
        single_quoted: !(break_space || space_break || special),
    }
}

impl Emitter {
    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column = if c == '\n' { 0 } else { self.column + 1 };
    }

    fn write_indent(&mut self) {
        let indent = usize::try_from(self.indent).unwrap_or(0);
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.put('\n');
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn indicator(&mut self, text: &str, need_space: bool, is_space: bool, is_indention: bool) {
        if need_space && !self.whitespace {
            self.put(' ');
        }
        text.chars().for_each(|c| self.put(c));
        self.whitespace = is_space;
        self.indention = self.indention && is_indention;
    }

    fn increase_indent(&mut self, flow: bool, indentless: bool) {
        self.indents.push(self.indent);
        if self.indent < 0 {
            self.indent = if flow { self.step } else { 0 };
        } else if !indentless {
            self.indent += self.step;
        }
    }

    fn pop_indent(&mut self) {
        self.indent = self.indents.pop().unwrap_or(-1);
    }

    fn node(&mut self, node: &Node, context: Context) {
        match node {
            Node::Scalar { text, plain } => self.scalar(text, *plain, context),
            Node::List { items, flow } if self.flow_level > 0 || *flow || items.is_empty() => {
                self.indicator("[", true, true, false);
                self.increase_indent(true, false);
                self.flow_level += 1;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.indicator(",", false, false, false);
                    }
                    if self.column > self.width {
                        self.write_indent();
                    }
                    self.node(item, Context::Sequence);
                }
                self.flow_level -= 1;
                self.pop_indent();
                self.indicator("]", false, false, false);
            }
            Node::Map { items, flow } if self.flow_level > 0 || *flow || items.is_empty() => {
                self.indicator("{", true, true, false);
                self.increase_indent(true, false);
                self.flow_level += 1;
                for (index, (key, item)) in items.iter().enumerate() {
                    if index > 0 {
                        self.indicator(",", false, false, false);
                    }
                    if self.column > self.width {
                        self.write_indent();
                    }
                    if is_simple_key(key) {
                        self.node(key, Context::SimpleKey);
                        self.indicator(":", false, false, false);
                    } else {
                        self.indicator("?", true, false, false);
                        self.node(key, Context::Mapping);
                        if self.column > self.width {
                            self.write_indent();
                        }
                        self.indicator(":", true, false, false);
                    }
                    self.node(item, Context::Mapping);
                }
                self.flow_level -= 1;
                self.pop_indent();
                self.indicator("}", false, false, false);
            }
            Node::List { items, .. } => {
                let indentless = context == Context::Mapping && !self.indention;
                self.increase_indent(false, indentless);
                for item in items {
                    self.write_indent();
                    self.indicator("-", true, false, true);
                    self.node(item, Context::Sequence);
                }
                self.pop_indent();
            }
            Node::Map { items, .. } => {
                self.increase_indent(false, false);
                for (key, item) in items {
                    self.write_indent();
                    if is_simple_key(key) {
                        self.node(key, Context::SimpleKey);
                        self.indicator(":", false, false, false);
                    } else {
                        self.indicator("?", true, false, true);
                        self.node(key, Context::Mapping);
                        self.write_indent();
                        self.indicator(":", true, false, true);
                    }
                    self.node(item, Context::Mapping);
                }
                self.pop_indent();
            }
        }
    }

    fn scalar(&mut self, text: &str, plain: bool, context: Context) {
        let analysis = analyze(text);
        let simple_key = context == Context::SimpleKey;
        let plain_allowed = if self.flow_level > 0 {
            analysis.flow_plain
        } else {
            analysis.block_plain
        };
        let plain =
            plain && plain_allowed && !(text.is_empty() && (self.flow_level > 0 || simple_key));
        self.increase_indent(true, false);
        let breaks = !simple_key;
        if simple_key && analysis.multiline {
            self.double_quoted(text, breaks);
        } else if plain {
            self.plain(text, breaks);
        } else if analysis.single_quoted {
            self.single_quoted(text, breaks);
        } else {
            self.double_quoted(text, breaks);
        }
        self.pop_indent();
    }

    fn plain(&mut self, text: &str, allow_breaks: bool) {
        if !self.whitespace && (!text.is_empty() || self.flow_level > 0) {
            self.put(' ');
        }
        let chars: Vec<char> = text.chars().collect();
        let mut spaces = false;
        for (at, &c) in chars.iter().enumerate() {
            if c == ' ' {
                if allow_breaks
                    && !spaces
                    && self.column > self.width
                    && chars.get(at + 1) != Some(&' ')
                {
                    self.write_indent();
                } else {
                    self.put(c);
                }
                spaces = true;
            } else {
                self.put(c);
                self.indention = false;
                spaces = false;
            }
        }
        self.whitespace = false;
        self.indention = false;
    }

    fn single_quoted(&mut self, text: &str, allow_breaks: bool) {
        self.indicator("'", true, false, false);
        let chars: Vec<char> = text.chars().collect();
        let (mut spaces, mut breaks) = (false, false);
        for (at, &c) in chars.iter().enumerate() {
            if c == ' ' {
                let inner = at > 0 && at + 1 < chars.len();
                if allow_breaks
                    && !spaces
                    && self.column > self.width
                    && inner
                    && chars.get(at + 1) != Some(&' ')
                {
                    self.write_indent();
                } else {
                    self.put(c);
                }
                spaces = true;
            } else if is_break(c) {
                if !breaks && c == '\n' {
                    self.put('\n');
                }
                self.put(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.write_indent();
                }
                if c == '\'' {
                    self.put('\'');
                }
                self.put(c);
                self.indention = false;
                (spaces, breaks) = (false, false);
            }
        }
        if breaks {
            self.write_indent();
        }
        self.indicator("'", false, false, false);
        self.whitespace = false;
        self.indention = false;
    }

    fn double_quoted(&mut self, text: &str, allow_breaks: bool) {
        self.indicator("\"", true, false, false);
        let chars: Vec<char> = text.chars().collect();
        let mut spaces = false;
        for (at, &c) in chars.iter().enumerate() {
            if !is_printable(c) || c == '\u{feff}' || is_break(c) || matches!(c, '"' | '\\') {
                let escape = match c {
                    '\0' => "0".to_owned(),
                    '\u{7}' => "a".into(),
                    '\u{8}' => "b".into(),
                    '\t' => "t".into(),
                    '\n' => "n".into(),
                    '\u{b}' => "v".into(),
                    '\u{c}' => "f".into(),
                    '\r' => "r".into(),
                    '\u{1b}' => "e".into(),
                    '"' => "\"".into(),
                    '\\' => "\\".into(),
                    '\u{85}' => "N".into(),
                    '\u{2028}' => "L".into(),
                    '\u{2029}' => "P".into(),
                    c => match c as u32 {
                        code @ 0..=0xff => format!("x{code:02X}"),
                        code @ 0x100..=0xffff => format!("u{code:04X}"),
                        code => format!("U{code:08X}"),
                    },
                };
                self.put('\\');
                escape.chars().for_each(|c| self.put(c));
                spaces = false;
            } else if c == ' ' {
                let inner = at > 0 && at + 1 < chars.len();
                if allow_breaks && !spaces && self.column > self.width && inner {
                    self.write_indent();
                    if chars.get(at + 1) == Some(&' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
        self.indicator("\"", false, false, false);
        self.whitespace = false;
        self.indention = false;
    }
}

fn is_simple_key(node: &Node) -> bool {
    match node {
        Node::Scalar { text, .. } => !analyze(text).multiline && text.len() <= 128,
        Node::List { items, .. } => items.is_empty(),
        Node::Map { items, .. } => items.is_empty(),
    }
}
