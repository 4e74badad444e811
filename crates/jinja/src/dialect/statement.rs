//! Jinja's statements, with their expressions rewritten.

use super::Malformed;
use super::expression::{Parser, lead, literal};
use super::token::{Spanned, Token};

pub fn keyword(tokens: &[Spanned]) -> Option<&str> {
    match tokens.first().map(|spanned| &spanned.token) {
        Some(Token::Name(name)) => Some(name),
        _ => None,
    }
}

/// `macro`, and what must stand after its `endmacro`: minijinja's macros refuse arguments that
/// they do not name, so those that collect them (`varargs`, `kwargs`) are wrapped.
pub fn macro_of(
    tokens: &[Spanned],
    line: usize,
    collects: bool,
) -> Result<(String, Option<String>), Malformed> {
    if !collects {
        return Ok((rewrite(tokens, line)?, None));
    }
    let mut parser = Parser::new(tokens, line);
    parser.name()?;
    let name = parser.name()?.to_owned();
    let (parameters, mut names) = parameters(&mut parser)?;
    parser.end()?;
    let all = [
        parameters,
        vec!["varargs=__tuple()".into(), "kwargs=__dict()".into()],
    ]
    .concat();
    names.insert(0, name.clone());
    let quoted: Vec<String> = names.iter().skip(1).map(|name| literal(name)).collect();
    Ok((
        format!("macro {name}({})", all.join(", ")),
        Some(format!(
            "set {name} = __macro({name}{})",
            lead(&quoted.join(", "))
        )),
    ))
}

pub fn rewrite(tokens: &[Spanned], line: usize) -> Result<String, Malformed> {
    let mut parser = Parser::new(tokens, line);
    let keyword = parser.name()?;
    let code = match keyword {
        "if" | "elif" => format!("{keyword} {}", parser.tuple(false)?),
        "for" => {
            let targets = targets(&mut parser)?;
            if !parser.skip_name("in") {
                return parser.unexpected();
            }
            let mut code = format!("for {targets} in __iter({})", parser.tuple(false)?);
            if parser.skip_name("if") {
                code.push_str(&format!(" if {}", parser.expression()?));
            }
            if parser.skip_name("recursive") {
                code.push_str(" recursive");
            }
            code
        }
        "set" => set(&mut parser)?,
        "do" => format!("do __do({})", parser.tuple(true)?),
        "macro" => {
            let name = parser.name()?;
            format!("macro {name}({})", signature(&mut parser)?)
        }
        "call" => {
            let mut code = "call".to_owned();
            if parser.is("(") {
                code.push_str(&format!("({})", signature(&mut parser)?));
            }
            format!("{code} {}", parser.expression()?)
        }
        "filter" => {
            let mut filters = Vec::new();
            loop {
                let (name, arguments) = parser.filter_call()?;
                filters.push(format!("__filter({}{})", literal(&name), lead(&arguments)));
                if !parser.skip("|") {
                    break;
                }
            }
            format!("filter {}", filters.join("|"))
        }
        "with" => {
            let mut assignments = Vec::new();
            while !parser.done() {
                let target = targets(&mut parser)?;
                parser.expect("=")?;
                assignments.push(format!("{target} = {}", parser.expression()?));
                if !parser.skip(",") {
                    break;
                }
            }
            format!("with {}", assignments.join(", "))
        }
        "include" => {
            let mut code = format!("include {}", template_name(&mut parser)?);
            if parser.skip_name("ignore") {
                if !parser.skip_name("missing") {
                    return parser.unexpected();
                }
                code.push_str(" ignore missing");
            }
            context(&mut parser)?;
            code
        }
        "import" => {
            let name = template_name(&mut parser)?;
            if !parser.skip_name("as") {
                return parser.unexpected();
            }
            let target = parser.name()?;
            context(&mut parser)?;
            format!("import {name} as {target}")
        }
        "from" => {
            let source = template_name(&mut parser)?;
            if !parser.skip_name("import") {
                return parser.unexpected();
            }
            let mut names = Vec::new();
            while !parser.done() && !parser.is_name("with") && !parser.is_name("without") {
                let name = parser.name()?;
                names.push(match parser.skip_name("as") {
                    true => format!("{name} as {}", parser.name()?),
                    false => name.to_owned(),
                });
                if !parser.skip(",") {
                    break;
                }
            }
            context(&mut parser)?;
            format!("from {source} import {}", names.join(", "))
        }
        "extends" => format!("extends {}", template_name(&mut parser)?),
        "block" => {
            let name = parser.name()?;
            while parser.skip_name("scoped") || parser.skip_name("required") {}
            format!("block {name}")
        }
        "autoescape" => {
            parser.expression()?;
            "autoescape false".to_owned()
        }
        "endblock" => {
            if let Some(Token::Name(_)) = parser.peek() {
                parser.next();
            }
            keyword.to_owned()
        }
        "else" | "endif" | "endfor" | "endset" | "endmacro" | "endcall" | "endfilter"
        | "endwith" | "endautoescape" | "break" | "continue" => keyword.to_owned(),
        _ => return parser.error("a statement that Ansible's Jinja does not know"),
    };
    // Jinja, too, lets a `:` or `;` end a statement.
    while parser.skip(":") || parser.skip(";") {}
    parser.end()?;
    Ok(code)
}

fn set(parser: &mut Parser) -> Result<String, Malformed> {
    let target = targets(parser)?;
    if parser.skip("=") {
        return Ok(format!("set {target} = {}", parser.tuple(true)?));
    }
    let mut code = format!("set {target}");
    while parser.skip("|") {
        let (name, arguments) = parser.filter_call()?;
        code.push_str(&format!(
            " | __filter({}{})",
            literal(&name),
            lead(&arguments)
        ));
    }
    Ok(code)
}

/// `a`, `a, b`, `(a, b), c` or `namespace.attribute`.
fn targets(parser: &mut Parser) -> Result<String, Malformed> {
    let mut names = Vec::new();
    let mut trailing;
    loop {
        if parser.skip("(") {
            names.push(format!("({})", targets(parser)?));
            parser.expect(")")?;
        } else {
            let mut name = parser.name()?.to_owned();
            if parser.skip(".") {
                name.push('.');
                name.push_str(parser.name()?);
            }
            names.push(name);
        }
        trailing = false;
        if !parser.skip(",") {
            break;
        }
        trailing = true;
        if parser.is_name("in") || parser.is("=") || parser.is(")") {
            break;
        }
    }
    Ok(format!(
        "{}{}",
        names.join(", "),
        if trailing { "," } else { "" }
    ))
}

fn signature(parser: &mut Parser) -> Result<String, Malformed> {
    Ok(parameters(parser)?.0.join(", "))
}

/// As they are written, and their names.
fn parameters(parser: &mut Parser) -> Result<(Vec<String>, Vec<String>), Malformed> {
    parser.expect("(")?;
    let (mut parameters, mut names) = (Vec::new(), Vec::new());
    while !parser.is(")") {
        let name = parser.name()?;
        names.push(name.to_owned());
        parameters.push(match parser.skip("=") {
            true => format!("{name}={}", parser.expression()?),
            false => name.to_owned(),
        });
        if !parser.skip(",") {
            break;
        }
    }
    parser.expect(")")?;
    Ok((parameters, names))
}

fn template_name(parser: &mut Parser) -> Result<String, Malformed> {
    Ok(format!("__template({})", parser.expression()?))
}

/// minijinja knows no `with context`; see [`crate::runtime`] for what imports see.
fn context(parser: &mut Parser) -> Result<(), Malformed> {
    if (parser.skip_name("with") || parser.skip_name("without")) && !parser.skip_name("context") {
        return parser.unexpected();
    }
    Ok(())
}
