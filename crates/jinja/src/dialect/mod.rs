//! Jinja as Ansible reads it, rewritten into what minijinja runs.
//!
//! minijinja's grammar is Jinja's, but operators, attribute access, literals and filters do
//! not follow Python there, and undefined values cannot be chained while all else stays
//! strict. So a template is lexed and parsed here by Jinja's own rules, and written again
//! with every such place as a call of a function of [`crate::runtime`]. Statements (loops,
//! macros, includes, scopes) remain minijinja's. Lines keep their numbers.

mod expression;
pub mod lexer;
mod statement;
pub mod token;

use contract::TemplateOptions;

pub use token::unescape;

/// Delimiters of the rewritten source: a control character that is escaped in data.
pub const MARK: char = '\u{1}';
pub const BLOCK: (&str, &str) = ("\u{1}%", "%\u{1}");
pub const VARIABLE: (&str, &str) = ("\u{1}{", "}\u{1}");
pub const COMMENT: (&str, &str) = ("\u{1}#", "#\u{1}");

/// What is wrong with a template's text. The message never quotes the text: a variable's
/// value may be a template by mistake, and a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    pub line: usize,
    pub message: String,
}

/// A rewritten template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten {
    /// One `{{ … }}` and nothing else: an expression, whose value keeps its type where Ansible keeps it.
    Expression(String),
    Template(String),
}

/// How strings in `{{ }}` are read: Ansible doubles their backslashes in variables, not in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backslashes {
    Escapes,
    Literal,
}

pub fn rewrite(
    source: &str,
    options: &TemplateOptions,
    backslashes: Backslashes,
) -> Result<Rewritten, Malformed> {
    let pieces = lexer::split(source, options)?;
    // Ansible doubles backslashes only where it sees `{{`.
    let literal = backslashes == Backslashes::Literal && source.contains("{{");
    let mut visible = pieces
        .iter()
        .filter(|piece| !matches!(piece.kind, lexer::Kind::Data(ref text) if text.is_empty()));
    if let (Some(piece), None) = (visible.next(), visible.next())
        && let lexer::Kind::Variable(code) = &piece.kind
    {
        let tokens = token::tokenize(code, piece.line, literal, options)?;
        return Ok(Rewritten::Expression(expression::whole(
            &tokens, piece.line,
        )?));
    }

    let mut out = String::new();
    let mut written_lines = 1;
    let mut macros = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let mut after = None;
        let (delimiters, code) = match &piece.kind {
            lexer::Kind::Data(text) => {
                data(text, &mut out);
                written_lines += text.matches('\n').count();
                continue;
            }
            lexer::Kind::Variable(code) => {
                let tokens = token::tokenize(code, piece.line, literal, options)?;
                (VARIABLE, expression::whole(&tokens, piece.line)?)
            }
            lexer::Kind::Block(code) => {
                let tokens = token::tokenize(code, piece.line, false, options)?;
                match statement::keyword(&tokens) {
                    Some("macro") => {
                        let collects = collects(&pieces[at + 1..]);
                        let (code, wrap) = statement::macro_of(&tokens, piece.line, collects)?;
                        macros.push(wrap);
                        (BLOCK, code)
                    }
                    keyword => {
                        if keyword == Some("endmacro") {
                            after = macros.pop().flatten();
                        }
                        (BLOCK, statement::rewrite(&tokens, piece.line)?)
                    }
                }
            }
        };
        out.push_str(delimiters.0);
        // Newlines that trimming took away or that are still missing from inside the tag.
        while written_lines < piece.line {
            out.push('\n');
            written_lines += 1;
        }
        out.push(' ');
        out.push_str(&code);
        out.push(' ');
        out.push_str(delimiters.1);
        if let Some(code) = after {
            out.push_str(&format!("{} {code} {}", BLOCK.0, BLOCK.1));
        }
    }
    Ok(Rewritten::Template(out))
}

/// Whether the macro whose body begins here takes arguments that it does not name.
fn collects(rest: &[lexer::Piece]) -> bool {
    let mut depth = 0;
    for piece in rest {
        let code = match &piece.kind {
            lexer::Kind::Block(code) => code,
            lexer::Kind::Variable(code) => code,
            lexer::Kind::Data(_) => continue,
        };
        match code.trim_matches(|c: char| c.is_whitespace() || c == '-') {
            word if word.starts_with("macro ") => depth += 1,
            "endmacro" if depth == 0 => return false,
            "endmacro" => depth -= 1,
            _ if code.contains("varargs") || code.contains("kwargs") => return true,
            _ => {}
        }
    }
    false
}

/// An expression without braces.
pub fn rewrite_expression(source: &str) -> Result<String, Malformed> {
    let options = TemplateOptions::default();
    let tokens = token::tokenize(source, 1, false, &options)?;
    expression::whole(&tokens, 1)
}

fn data(text: &str, out: &mut String) {
    for (index, part) in text.split(MARK).enumerate() {
        if index > 0 {
            out.push_str(VARIABLE.0);
            out.push_str(" \"\\u0001\" ");
            out.push_str(VARIABLE.1);
        }
        out.push_str(part);
    }
}
