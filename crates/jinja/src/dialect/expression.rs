//! Jinja's expression grammar (jinja2/parser.py), written out as calls of the runtime.

use super::Malformed;
use super::token::{Spanned, Token};

/// Deeper nesting is refused; the parser recurses.
const MAX_DEPTH: usize = 64;

/// All tokens as one expression, or a tuple without parentheses.
pub fn whole(tokens: &[Spanned], line: usize) -> Result<String, Malformed> {
    let mut parser = Parser::new(tokens, line);
    let code = parser.tuple(true)?;
    parser.end()?;
    Ok(code)
}

pub struct Parser<'t> {
    tokens: &'t [Spanned],
    at: usize,
    line: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    pub fn new(tokens: &'t [Spanned], line: usize) -> Self {
        Parser {
            tokens,
            at: 0,
            line,
            depth: 0,
        }
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T, Malformed> {
        let line = match self.tokens.get(self.at).or(self.tokens.last()) {
            Some(token) => token.line,
            None => self.line,
        };
        Err(Malformed {
            line,
            message: message.into(),
        })
    }

    pub fn unexpected<T>(&self) -> Result<T, Malformed> {
        let what = match self.peek() {
            None => "the end of a tag where more is expected".to_owned(),
            Some(Token::Operator(operator)) => format!("`{operator}` where it is not expected"),
            Some(Token::Name(_)) => "a name where it is not expected".to_owned(),
            Some(Token::Text(_)) => "a string where it is not expected".to_owned(),
            Some(Token::Integer(_) | Token::Float(_)) => {
                "a number where it is not expected".to_owned()
            }
        };
        self.error(what)
    }

    pub fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at).map(|spanned| &spanned.token)
    }

    fn peek_at(&self, offset: usize) -> Option<&'t Token> {
        self.tokens
            .get(self.at + offset)
            .map(|spanned| &spanned.token)
    }

    pub fn next(&mut self) -> Option<&'t Token> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    pub fn is(&self, operator: &str) -> bool {
        matches!(self.peek(), Some(Token::Operator(o)) if *o == operator)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(n)) if n == name)
    }

    pub fn skip(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        self.at += usize::from(found);
        found
    }

    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, operator: &str) -> Result<(), Malformed> {
        if self.skip(operator) {
            Ok(())
        } else {
            self.unexpected()
        }
    }

    pub fn name(&mut self) -> Result<&'t str, Malformed> {
        match self.peek() {
            Some(Token::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected(),
        }
    }

    pub fn done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub fn end(&self) -> Result<(), Malformed> {
        if self.done() {
            Ok(())
        } else {
            self.unexpected()
        }
    }

    /// An expression, or several with commas, which are a tuple.
    pub fn tuple(&mut self, conditional: bool) -> Result<String, Malformed> {
        let mut items = vec![self.item(conditional)?];
        let mut is_tuple = false;
        while self.skip(",") {
            is_tuple = true;
            if self.done() || self.is(")") || self.is("=") || self.is_name("in") {
                break;
            }
            items.push(self.item(conditional)?);
        }
        Ok(if is_tuple {
            format!("__tuple({})", items.join(", "))
        } else {
            items.remove(0)
        })
    }

    fn item(&mut self, conditional: bool) -> Result<String, Malformed> {
        if conditional {
            self.expression()
        } else {
            self.or()
        }
    }

    pub fn expression(&mut self) -> Result<String, Malformed> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("an expression nested too deeply");
        }
        let mut value = self.or()?;
        while self.skip_name("if") {
            let condition = self.or()?;
            let otherwise = if self.skip_name("else") {
                self.expression()?
            } else {
                "__undef()".into()
            };
            value = format!("({value} if {condition} else {otherwise})");
        }
        self.depth -= 1;
        Ok(value)
    }

    fn or(&mut self) -> Result<String, Malformed> {
        let mut left = self.and()?;
        while self.skip_name("or") {
            left = format!("({left} or {})", self.and()?);
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<String, Malformed> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            left = format!("({left} and {})", self.not()?);
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<String, Malformed> {
        let mut count = 0;
        while self.skip_name("not") {
            count += 1;
        }
        let value = self.compare()?;
        Ok(match count {
            0 => value,
            n if n % 2 == 1 => format!("(not {value})"),
            _ => format!("(not (not {value}))"),
        })
    }

    fn compare(&mut self) -> Result<String, Malformed> {
        let mut code = self.sum()?;
        let mut is_comparison = false;
        loop {
            let operator = match self.peek() {
                Some(Token::Operator(o @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => {
                    self.at += 1;
                    *o
                }
                Some(Token::Name(n)) if n == "in" => {
                    self.at += 1;
                    "in"
                }
                Some(Token::Name(n))
                    if n == "not"
                        && matches!(self.peek_at(1), Some(Token::Name(n)) if n == "in") =>
                {
                    self.at += 2;
                    "not in"
                }
                _ => break,
            };
            is_comparison = true;
            code = format!("{code}, \"{operator}\", {}", self.sum()?);
        }
        Ok(if is_comparison {
            format!("__cmp({code})")
        } else {
            code
        })
    }

    fn chain(
        &mut self,
        operators: &[&str],
        operand: fn(&mut Self) -> Result<String, Malformed>,
    ) -> Result<String, Malformed> {
        let mut code = operand(self)?;
        let mut any = false;
        while let Some(Token::Operator(operator)) = self.peek() {
            if !operators.contains(operator) {
                break;
            }
            self.at += 1;
            any = true;
            code = format!("{code}, \"{operator}\", {}", operand(self)?);
        }
        Ok(if any { format!("__op({code})") } else { code })
    }

    fn sum(&mut self) -> Result<String, Malformed> {
        self.chain(&["+", "-"], Self::concat)
    }

    fn concat(&mut self) -> Result<String, Malformed> {
        let mut parts = vec![self.product()?];
        while self.skip("~") {
            parts.push(self.product()?);
        }
        Ok(if parts.len() > 1 {
            format!("__cat({})", parts.join(", "))
        } else {
            parts.remove(0)
        })
    }

    fn product(&mut self) -> Result<String, Malformed> {
        self.chain(&["*", "/", "//", "%"], Self::power)
    }

    fn power(&mut self) -> Result<String, Malformed> {
        self.chain(&["**"], |parser| parser.unary(true))
    }

    fn unary(&mut self, filters: bool) -> Result<String, Malformed> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("an expression nested too deeply");
        }
        let value = if self.skip("-") {
            format!("__neg({})", self.unary(false)?)
        } else if self.skip("+") {
            format!("__pos({})", self.unary(false)?)
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        let value = if filters {
            self.filtered(value)?
        } else {
            value
        };
        self.depth -= 1;
        Ok(value)
    }

    fn primary(&mut self) -> Result<String, Malformed> {
        match self.peek() {
            Some(Token::Name(name)) => {
                if matches!(
                    name.as_str(),
                    "and" | "or" | "not" | "in" | "is" | "if" | "else"
                ) {
                    return self.unexpected();
                }
                self.at += 1;
                Ok(match name.as_str() {
                    "true" | "True" => "true".into(),
                    "false" | "False" => "false".into(),
                    "none" | "None" => "none".into(),
                    name => name.to_owned(),
                })
            }
            Some(Token::Text(_)) => {
                let mut text = String::new();
                while let Some(Token::Text(part)) = self.peek() {
                    text.push_str(part);
                    self.at += 1;
                }
                Ok(literal(&text))
            }
            Some(Token::Integer(digits)) => {
                self.at += 1;
                if digits.parse::<i128>().is_err() {
                    return self.error("a number that is too large");
                }
                Ok(digits.clone())
            }
            Some(Token::Float(digits)) => {
                self.at += 1;
                Ok(format!("__float({})", literal(digits)))
            }
            Some(Token::Operator("(")) => {
                self.at += 1;
                if self.skip(")") {
                    return Ok("__tuple()".into());
                }
                let value = self.tuple(true)?;
                self.expect(")")?;
                Ok(format!("({value})"))
            }
            Some(Token::Operator("[")) => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.is("]") {
                    items.push(self.expression()?);
                    if !self.skip(",") {
                        break;
                    }
                }
                self.expect("]")?;
                Ok(format!("__list({})", items.join(", ")))
            }
            Some(Token::Operator("{")) => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.is("}") {
                    items.push(self.expression()?);
                    self.expect(":")?;
                    items.push(self.expression()?);
                    if !self.skip(",") {
                        break;
                    }
                }
                self.expect("}")?;
                Ok(format!("__dict({})", items.join(", ")))
            }
            _ => self.unexpected(),
        }
    }

    /// Attributes, items and calls. A run of attributes and items becomes one `__get`.
    fn postfix(&mut self, mut value: String) -> Result<String, Malformed> {
        let mut path = String::new();
        loop {
            if self.skip(".") {
                match self.next() {
                    Some(Token::Name(name)) if self.is("(") => {
                        let base = get(&value, &mut path);
                        value = format!("{}.{name}({})", parenthesised(&base), self.arguments()?);
                    }
                    Some(Token::Name(name)) => {
                        path.push_str(&format!(", \".\", {}", literal(name)))
                    }
                    Some(Token::Integer(index)) => path.push_str(&format!(", \"[\", {index}")),
                    _ => {
                        self.at = self.at.saturating_sub(1);
                        return self.unexpected();
                    }
                }
            } else if self.skip("[") {
                match self.subscript()? {
                    Subscript::Item(key) => path.push_str(&format!(", \"[\", {key}")),
                    Subscript::Slice(bounds) => {
                        value = format!("__slice({}, {bounds})", get(&value, &mut path));
                    }
                }
            } else if self.is("(") {
                let base = get(&value, &mut path);
                value = format!("{base}({})", self.arguments()?);
            } else {
                return Ok(get(&value, &mut path));
            }
        }
    }

    fn subscript(&mut self) -> Result<Subscript, Malformed> {
        let mut parts = vec![None];
        let mut items = Vec::new();
        loop {
            if self.skip(":") {
                parts.push(None);
            } else if self.skip("]") {
                break;
            } else if self.is(",") && parts.len() == 1 {
                self.at += 1;
                items.extend(parts.pop().flatten());
                parts = vec![None];
            } else {
                match parts.last_mut() {
                    Some(slot @ None) => *slot = Some(self.expression()?),
                    _ => return self.unexpected(),
                }
            }
        }
        if parts.len() > 3 {
            return self.error("a slice with too many parts");
        }
        if parts.len() > 1 {
            let mut bounds: Vec<String> = parts
                .into_iter()
                .map(|part| part.unwrap_or_else(|| "none".into()))
                .collect();
            bounds.resize(3, "none".into());
            return Ok(Subscript::Slice(bounds.join(", ")));
        }
        let last = parts.pop().flatten();
        if items.is_empty() {
            return match last {
                Some(key) => Ok(Subscript::Item(key)),
                None => self.error("an empty subscript"),
            };
        }
        items.extend(last);
        Ok(Subscript::Item(format!("__tuple({})", items.join(", "))))
    }

    /// Arguments with their parentheses consumed, written for minijinja.
    pub fn arguments(&mut self) -> Result<String, Malformed> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.is(")") {
            if self.skip("**") {
                arguments.push(format!("**__kwargs({})", self.expression()?));
            } else if self.skip("*") {
                arguments.push(format!("*__iter({})", self.expression()?));
            } else if let (Some(Token::Name(name)), Some(Token::Operator("="))) =
                (self.peek(), self.peek_at(1))
            {
                self.at += 2;
                arguments.push(format!("{name}={}", self.expression()?));
            } else {
                arguments.push(self.expression()?);
            }
            if !self.skip(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(arguments.join(", "))
    }

    /// `|filter` and `is test`, in any number.
    fn filtered(&mut self, mut value: String) -> Result<String, Malformed> {
        loop {
            if self.skip("|") {
                let (name, arguments) = self.filter_call()?;
                value = format!("__filter({}, {value}{})", literal(&name), lead(&arguments));
            } else if self.skip_name("is") {
                value = self.test(value)?;
            } else if self.is("(") {
                value = format!("{value}({})", self.arguments()?);
            } else {
                return Ok(value);
            }
        }
    }

    /// A filter's name and its written arguments.
    pub fn filter_call(&mut self) -> Result<(String, String), Malformed> {
        let name = self.dotted()?;
        let arguments = if self.is("(") {
            self.arguments()?
        } else {
            String::new()
        };
        Ok((name, arguments))
    }

    fn dotted(&mut self) -> Result<String, Malformed> {
        let mut name = self.name()?.to_owned();
        while self.skip(".") {
            name.push('.');
            name.push_str(self.name()?);
        }
        Ok(name)
    }

    fn test(&mut self, value: String) -> Result<String, Malformed> {
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        let arguments = match self.peek() {
            Some(Token::Operator("(")) => self.arguments()?,
            Some(
                Token::Operator("[" | "{") | Token::Text(_) | Token::Integer(_) | Token::Float(_),
            ) => {
                let primary = self.primary()?;
                self.postfix(primary)?
            }
            Some(Token::Name(name))
                if !matches!(
                    name.as_str(),
                    "else" | "or" | "and" | "is" | "if" | "in" | "not" | "recursive"
                ) =>
            {
                let primary = self.primary()?;
                self.postfix(primary)?
            }
            _ => String::new(),
        };
        let call = format!("__test({}, {value}{})", literal(&name), lead(&arguments));
        Ok(if negated {
            format!("(not {call})")
        } else {
            call
        })
    }
}

enum Subscript {
    Item(String),
    Slice(String),
}

fn get(value: &str, path: &mut String) -> String {
    match std::mem::take(path) {
        path if path.is_empty() => value.to_owned(),
        path => format!("__get({value}{path})"),
    }
}

/// A number needs parentheses before `.name`.
fn parenthesised(value: &str) -> String {
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        format!("({value})")
    } else {
        value.to_owned()
    }
}

pub fn lead(arguments: &str) -> String {
    if arguments.is_empty() {
        String::new()
    } else {
        format!(", {arguments}")
    }
}

/// A string for minijinja's own unescaping.
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
