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
    for piece in &pieces {
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
                (BLOCK, statement::rewrite(&tokens, piece.line)?)
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
    }
    Ok(Rewritten::Template(out))
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
