//! The words of an expression or statement.

use contract::TemplateOptions;

use super::Malformed;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Name(String),
    Text(String),
    Integer(String),
    Float(String),
    Operator(&'static str),
}

#[derive(Debug, Clone)]
pub struct Spanned {
    pub token: Token,
    pub line: usize,
}

const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

pub fn tokenize(
    code: &str,
    first_line: usize,
    literal_backslashes: bool,
    options: &TemplateOptions,
) -> Result<Vec<Spanned>, Malformed> {
    let mut tokens = Vec::new();
    let mut line = first_line;
    let mut at = 0;
    let mut after_dot = false;
    while let Some(c) = code[at..].chars().next() {
        if c.is_whitespace() {
            line += usize::from(c == '\n');
            at += c.len_utf8();
            after_dot = false;
            continue;
        }
        let rest = &code[at..];
        let (token, length) = if c.is_ascii_digit() {
            number(rest, after_dot)
        } else if c == '_' || c.is_alphabetic() {
            let length = rest
                .find(|c: char| !(c == '_' || c.is_alphanumeric()))
                .unwrap_or(rest.len());
            (Token::Name(rest[..length].to_owned()), length)
        } else if c == '"' || c == '\'' {
            let length = text_length(rest, c).ok_or_else(|| Malformed {
                line,
                message: "a string that is not closed".into(),
            })?;
            let inner = &rest[1..length - 1];
            let mut text = if literal_backslashes {
                inner.to_owned()
            } else {
                unescape(inner).ok_or_else(|| Malformed {
                    line,
                    message: "a wrong escape sequence in a string".into(),
                })?
            };
            if options.newline_sequence != "\n" && inner.contains('\n') {
                text = text.replace('\n', &options.newline_sequence);
            }
            (Token::Text(text), length)
        } else if let Some(operator) = OPERATORS.iter().find(|o| rest.starts_with(**o)) {
            (Token::Operator(operator), operator.len())
        } else {
            return Err(Malformed {
                line,
                message: "a character that no expression knows".into(),
            });
        };
        after_dot = token == Token::Operator(".");
        tokens.push(Spanned { token, line });
        line += rest[..length].matches('\n').count();
        at += length;
    }
    Ok(tokens)
}

fn digits(text: &str, from: usize, is_digit: impl Fn(char) -> bool) -> usize {
    let mut end = from;
    for c in text[from..].chars() {
        if is_digit(c) || (c == '_' && end > from) {
            end += c.len_utf8();
        } else {
            break;
        }
    }
    end
}

fn number(rest: &str, after_dot: bool) -> (Token, usize) {
    let clean = |text: &str| text.replace('_', "");
    for (prefix, radix) in [
        ("0x", 16),
        ("0o", 8),
        ("0b", 2),
        ("0X", 16),
        ("0O", 8),
        ("0B", 2),
    ] {
        if rest.starts_with(prefix) && !after_dot {
            let end = digits(rest, 2, |c| c.is_digit(radix));
            if end > 2
                && let Ok(value) = i128::from_str_radix(&clean(&rest[2..end]), radix)
            {
                return (Token::Integer(value.to_string()), end);
            }
        }
    }
    let whole = digits(rest, 0, |c| c.is_ascii_digit());
    if after_dot {
        return (Token::Integer(clean(&rest[..whole])), whole);
    }
    let mut end = whole;
    let bytes = rest.as_bytes();
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(rest, end + 1, |c| c.is_ascii_digit());
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(rest, end + 1 + sign, |c| c.is_ascii_digit());
        }
    }
    if end == whole {
        let text = clean(&rest[..whole]);
        let text = text.trim_start_matches('0');
        (
            Token::Integer(if text.is_empty() { "0" } else { text }.to_owned()),
            whole,
        )
    } else {
        (Token::Float(clean(&rest[..end])), end)
    }
}

fn text_length(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

/// Python's `unicode-escape`, as Jinja applies it: unknown escapes keep their backslash.
pub fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            None => return None,
            Some('\n') => {}
            Some(c @ ('\\' | '\'' | '"')) => out.push(c),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some('x') => out.push(hex(&mut chars, 2)?),
            Some('u') => out.push(hex(&mut chars, 4)?),
            Some('U') => out.push(hex(&mut chars, 8)?),
            Some(first @ '0'..='7') => {
                let mut value = first.to_digit(8)?;
                for _ in 0..2 {
                    match chars.peek().and_then(|c| c.to_digit(8)) {
                        Some(digit) => {
                            value = value * 8 + digit;
                            chars.next();
                        }
                        None => break,
                    }
                }
                out.push(char::from_u32(value)?);
            }
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
        }
    }
    Some(out)
}

fn hex(chars: &mut std::iter::Peekable<std::str::Chars>, count: usize) -> Option<char> {
    let digits: String = chars.take(count).collect();
    if digits.chars().count() != count {
        return None;
    }
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}
