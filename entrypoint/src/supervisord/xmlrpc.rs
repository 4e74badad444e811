//! XML-RPC values: calls are read, answers are written.
//!
//! The reader takes no document type, so no entity can grow; its nodes and its depth are
//! bounded. The writer replaces what XML cannot hold: a log may contain any byte.

use super::faults::Fault;

/// Deeper than any call of supervisord's clients.
const DEPTH: usize = 16;
const NODES: u32 = 50_000;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Int(i64),
    Bool(bool),
    Double(f64),
    Text(String),
    Array(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Value::Bool(is)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Value::Array(items.into_iter().map(Into::into).collect())
    }
}

impl Value {
    /// XML-RPC's integers have 32 bits: what is beyond is as large as it can be.
    pub fn int(number: impl TryInto<i64>) -> Self {
        Value::Int(number.try_into().unwrap_or(i64::MAX))
    }

    pub fn member(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Struct(members) => members.iter().rev().find(|(k, _)| k == name).map(|m| &m.1),
            _ => None,
        }
    }
}

/// The method's name and its parameters; `None` is no call.
pub fn call(body: &[u8]) -> Option<(String, Vec<Value>)> {
    let text = std::str::from_utf8(body).ok()?;
    let options = roxmltree::ParsingOptions {
        allow_dtd: false,
        nodes_limit: NODES,
        ..roxmltree::ParsingOptions::default()
    };
    let document = roxmltree::Document::parse_with_options(text, options).ok()?;
    let root = document.root_element();
    if root.tag_name().name() != "methodCall" {
        return None;
    }
    let name = text_of(child(root, "methodName")?);
    let mut parameters = Vec::new();
    if let Some(list) = child(root, "params") {
        for item in elements(list) {
            parameters.push(value(child(item, "value")?, DEPTH)?);
        }
    }
    Some((name.trim().to_owned(), parameters)).filter(|(name, _)| !name.is_empty())
}

type Node<'a> = roxmltree::Node<'a, 'a>;

fn elements<'a>(node: Node<'a>) -> impl Iterator<Item = Node<'a>> {
    node.children().filter(|child| child.is_element())
}

fn child<'a>(node: Node<'a>, name: &str) -> Option<Node<'a>> {
    elements(node).find(|child| child.tag_name().name() == name)
}

fn text_of(node: Node<'_>) -> String {
    node.children().filter_map(|child| child.text()).collect()
}

fn value(node: Node<'_>, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let Some(typed) = elements(node).next() else {
        return Some(Value::Text(text_of(node)));
    };
    let text = text_of(typed);
    Some(match typed.tag_name().name() {
        "string" | "dateTime.iso8601" => Value::Text(text),
        "int" | "i4" | "i8" => Value::Int(text.trim().parse().ok()?),
        "boolean" => Value::Bool(text.trim() == "1"),
        "double" => Value::Double(text.trim().parse().ok()?),
        "base64" => Value::Text(String::from_utf8_lossy(&base64(&text)?).into_owned()),
        "array" => {
            let mut items = Vec::new();
            for item in elements(child(typed, "data")?) {
                items.push(value(item, depth)?);
            }
            Value::Array(items)
        }
        "struct" => {
            let mut members = Vec::new();
            for member in elements(typed) {
                let name = text_of(child(member, "name")?);
                members.push((name, value(child(member, "value")?, depth)?));
            }
            Value::Struct(members)
        }
        _ => return None,
    })
}

/// White space is passed over, and padding may be missing.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    (padding <= 2)
        .then(|| values::base64_digits(digits.iter().copied()))
        .flatten()
}

pub fn response(answer: &Result<Value, Fault>) -> Vec<u8> {
    let mut out = "<?xml version='1.0'?>\n<methodResponse>\n".to_owned();
    match answer {
        Ok(value) => {
            out.push_str("<params>\n<param>\n");
            write(&mut out, value);
            out.push_str("</param>\n</params>\n");
        }
        Err(fault) => {
            out.push_str("<fault>\n");
            write(&mut out, &fault_value(fault));
            out.push_str("</fault>\n");
        }
    }
    out.push_str("</methodResponse>\n");
    out.into_bytes()
}

pub fn fault_value(fault: &Fault) -> Value {
    Value::Struct(vec![
        ("faultCode".to_owned(), Value::int(fault.code as i32)),
        ("faultString".to_owned(), fault.text.as_str().into()),
    ])
}

fn write(out: &mut String, value: &Value) {
    out.push_str("<value>");
    match value {
        Value::Int(number) => {
            let number = (*number).clamp(i32::MIN.into(), i32::MAX.into());
            out.push_str(&format!("<int>{number}</int>"));
        }
        Value::Bool(is) => out.push_str(&format!("<boolean>{}</boolean>", u8::from(*is))),
        Value::Double(number) => out.push_str(&format!("<double>{number}</double>")),
        Value::Text(text) => {
            out.push_str("<string>");
            escape(out, text);
            out.push_str("</string>");
        }
        Value::Array(items) => {
            out.push_str("<array><data>\n");
            for item in items {
                write(out, item);
            }
            out.push_str("</data></array>");
        }
        Value::Struct(members) => {
            out.push_str("<struct>\n");
            for (name, value) in members {
                out.push_str("<member>\n<name>");
                escape(out, name);
                out.push_str("</name>\n");
                write(out, value);
                out.push_str("</member>\n");
            }
            out.push_str("</struct>");
        }
    }
    out.push_str("</value>\n");
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // A bare one would be read as a line end.
            '\r' => out.push_str("&#13;"),
            '\n' | '\t' => out.push(c),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(value: &Value) -> String {
        let mut out = "<?xml version='1.0'?>\n<methodCall>\n<methodName>a.b</methodName>\n<params>\n<param>\n".to_owned();
        write(&mut out, value);
        out.push_str("</param>\n</params>\n</methodCall>\n");
        out
    }

    #[test]
    fn a_call_as_python_writes_it() {
        let text = "<?xml version='1.0'?>\n<methodCall>\n<methodName>system.multicall</methodName>\n<params>\n<param>\n<value><array><data>\n<value><struct>\n<member>\n<name>methodName</name>\n<value><string>supervisor.startProcess</string></value>\n</member>\n<member>\n<name>params</name>\n<value><array><data>\n<value>caf\u{e9} &amp; co</value>\n<value><boolean>0</boolean></value><value><i4> -5 </i4></value><value><base64>\naGk=\n</base64></value>\n</data></array></value>\n</member>\n</struct></value>\n</data></array></value>\n</param>\n</params>\n</methodCall>\n";
        let (name, parameters) = call(text.as_bytes()).unwrap();
        assert_eq!(name, "system.multicall");
        let Value::Array(calls) = &parameters[0] else {
            panic!()
        };
        let wanted = Value::Array(vec![
            "caf\u{e9} & co".into(),
            false.into(),
            Value::Int(-5),
            "hi".into(),
        ]);
        assert_eq!(calls[0].member("params"), Some(&wanted));
    }

    #[test]
    fn no_parameters_are_none_and_no_name_is_no_call() {
        let name = "<methodCall><methodName>x</methodName></methodCall>";
        assert_eq!(call(name.as_bytes()), Some(("x".to_owned(), Vec::new())));
        for text in [
            "",
            "<methodCall/>",
            "<methodCall><methodName/></methodCall>",
            "<x><methodName>x</methodName></x>",
            "<methodCall><methodName>x</methodName><params><param><value><int>x</int></value></param></params></methodCall>",
            "<methodCall><methodName>x</methodName><params><param><value><nil/></value></param></params></methodCall>",
            "<!DOCTYPE x [<!ENTITY a 'b'>]><methodCall><methodName>&a;</methodName></methodCall>",
        ] {
            assert_eq!(call(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            let value = (0..depth).fold(Value::Int(1), |inner, _| Value::Array(vec![inner]));
            call(request(&value).as_bytes())
        };
        assert!(nested(10).is_some());
        assert_eq!(nested(1000), None);
        let deep = "<a>".repeat(200_000);
        assert_eq!(call(deep.as_bytes()), None);
    }

    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        let text = String::from_utf8(response(&Ok("\u{1b}[1m<&>\r\0".into()))).unwrap();
        assert!(
            text.contains("<string>\u{fffd}[1m&lt;&amp;&gt;&#13;\u{fffd}</string>"),
            "{text}"
        );
        let document = roxmltree::Document::parse(&text);
        assert!(document.is_ok(), "{document:?}");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(|n| Value::Int(n.into())),
            any::<bool>().prop_map(Value::Bool),
            "[ -~\u{e4}\n\t\r]{0,20}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::vec(("[ -~]{0,8}", inner), 0..5).prop_map(Value::Struct),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_were_sent(value in values()) {
            let (name, got) = call(request(&value).as_bytes()).unwrap();
            prop_assert_eq!(name, "a.b");
            prop_assert_eq!(got, vec![value]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = call(&bytes);
        }

        #[test]
        fn mangled_calls_too(value in values(), at: prop::sample::Index, byte: u8) {
            let mut bytes = request(&value).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = call(&bytes);
        }

        #[test]
        fn base64_never_panics(text in ".{0,60}") {
            let _ = base64(&text);
        }
    }
}
