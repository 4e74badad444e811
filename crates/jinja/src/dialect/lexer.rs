//! Splits a template into data and tags, with Jinja's rules for white space (jinja2/lexer.py).

use contract::TemplateOptions;

use super::Malformed;

pub struct Piece {
    pub kind: Kind,
    /// Of the tag's first character, counted from 1.
    pub line: usize,
}

pub enum Kind {
    Data(String),
    Variable(String),
    Block(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    Variable,
    Block,
    Comment,
}

pub fn split(source: &str, options: &TemplateOptions) -> Result<Vec<Piece>, Malformed> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    // Jinja prefers the longest delimiter where several match.
    let mut begins = [
        (options.variable_start_string.as_str(), Begin::Variable),
        (options.block_start_string.as_str(), Begin::Block),
        (options.comment_start_string.as_str(), Begin::Comment),
    ];
    if begins.iter().any(|(text, _)| text.is_empty())
        || options.variable_end_string.is_empty()
        || options.block_end_string.is_empty()
        || options.comment_end_string.is_empty()
    {
        return Err(Malformed {
            line: 1,
            message: "an empty delimiter".into(),
        });
    }
    begins.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));

    let mut pieces = Vec::new();
    let mut rest = source.as_str();
    let mut line = 1;
    let mut line_starting = true;
    // Where each delimiter comes next, in the whole source: one that is far away, or nowhere,
    // is looked for once.
    let mut next: [Option<usize>; 3] = [Some(0); 3];
    loop {
        let done = source.len() - rest.len();
        for (place, (text, _)) in next.iter_mut().zip(&begins) {
            if place.is_some_and(|at| at <= done) {
                *place = rest.find(text).map(|at| done + at);
            }
        }
        let found = next
            .iter()
            .zip(begins)
            .filter_map(|(place, (text, kind))| Some(((*place)? - done, text, kind)))
            .min_by_key(|&(at, text, _)| (at, std::cmp::Reverse(text.len())));
        let Some((at, text, kind)) = found else {
            push_data(&mut pieces, rest, line, options);
            return Ok(pieces);
        };
        let data = &rest[..at];
        let after = &rest[at + text.len()..];
        let sign = after.chars().next().filter(|c| matches!(c, '-' | '+'));
        let tag_line = line + count_lines(data);
        let strip_line = options.lstrip_blocks && kind != Begin::Variable;
        push_data(
            &mut pieces,
            strip(data, sign, strip_line, line_starting),
            line,
            options,
        );
        let code = &after[sign.map_or(0, char::len_utf8)..];

        let (piece, end) = match kind {
            Begin::Comment => {
                let Some((_, consumed)) =
                    find_end(code, &options.comment_end_string, true, options.trim_blocks)
                else {
                    return Err(Malformed {
                        line: tag_line,
                        message: "a comment that is not closed".into(),
                    });
                };
                (None, consumed)
            }
            Begin::Block => match raw_begin(code, options) {
                Some(begin) => {
                    let body = &code[begin..];
                    let Some(raw) = raw_end(body, options) else {
                        return Err(Malformed {
                            line: tag_line,
                            message: "`raw` without `endraw`".into(),
                        });
                    };
                    let text = strip(
                        &body[..raw.data_end],
                        raw.sign,
                        options.lstrip_blocks,
                        false,
                    );
                    let body_line = tag_line + count_lines(&code[..begin]);
                    push_data(&mut pieces, text, body_line, options);
                    (None, begin + raw.consumed)
                }
                None => {
                    let (inner, consumed) =
                        tag_end(code, &options.block_end_string, options.trim_blocks)
                            .ok_or_else(|| unclosed(tag_line))?;
                    (Some(Kind::Block(code[..inner].to_owned())), consumed)
                }
            },
            Begin::Variable => {
                let (inner, consumed) = tag_end(code, &options.variable_end_string, false)
                    .ok_or_else(|| unclosed(tag_line))?;
                (Some(Kind::Variable(code[..inner].to_owned())), consumed)
            }
        };
        if let Some(kind) = piece {
            pieces.push(Piece {
                kind,
                line: tag_line,
            });
        }
        let consumed = rest.len() - code.len() + end;
        line_starting = rest[..consumed].ends_with('\n');
        line += count_lines(&rest[..consumed]);
        rest = &rest[consumed..];
    }
}

fn unclosed(line: usize) -> Malformed {
    Malformed {
        line,
        message: "a tag that is not closed".into(),
    }
}

fn count_lines(text: &str) -> usize {
    text.matches('\n').count()
}

fn push_data(pieces: &mut Vec<Piece>, text: &str, line: usize, options: &TemplateOptions) {
    if !text.is_empty() {
        let text = match options.newline_sequence.as_str() {
            "\n" => text.to_owned(),
            sequence => text.replace('\n', sequence),
        };
        pieces.push(Piece {
            kind: Kind::Data(text),
            line,
        });
    }
}

/// Data before a tag: `-` takes all white space, `lstrip_blocks` what indents the tag, `+` keeps it.
fn strip(data: &str, sign: Option<char>, strip_line: bool, line_starting: bool) -> &str {
    match sign {
        Some('-') => data.trim_end(),
        Some(_) => data,
        None if strip_line => {
            let start = data.rfind('\n').map_or(0, |at| at + 1);
            let blank = data[start..].chars().all(char::is_whitespace);
            if (start > 0 || line_starting) && blank {
                &data[..start]
            } else {
                data
            }
        }
        None => data,
    }
}

/// The end of a comment: (inner length, consumed length).
fn find_end(code: &str, end: &str, signs: bool, trim: bool) -> Option<(usize, usize)> {
    let at = code.find(end)?;
    let (inner, consumed) = close(code, at, end, signs, trim);
    Some((inner, consumed))
}

fn close(code: &str, at: usize, end: &str, plus: bool, trim: bool) -> (usize, usize) {
    let after = &code[at + end.len()..];
    let consumed = at + end.len();
    if code[..at].ends_with('-') {
        return (at - 1, consumed + after.len() - after.trim_start().len());
    }
    if plus && code[..at].ends_with('+') {
        return (at - 1, consumed);
    }
    let newline = usize::from(trim && after.starts_with('\n'));
    (at, consumed + newline)
}

/// The end of a tag outside strings and brackets: (inner length, consumed length).
fn tag_end(code: &str, end: &str, trim: bool) -> Option<(usize, usize)> {
    let is_block = trim || end != "}}";
    let mut depth = 0usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in code.char_indices() {
        if let Some(q) = quote {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == q {
                quote = None;
            }
            continue;
        }
        if depth == 0 && code[at..].starts_with(end) {
            return Some(close(code, at, end, is_block, trim));
        }
        match c {
            '\'' | '"' => quote = Some(c),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// `raw` right after the start of a block: length up to and with the end of that tag.
fn raw_begin(code: &str, options: &TemplateOptions) -> Option<usize> {
    let rest = code.trim_start().strip_prefix("raw")?.trim_start();
    if let Some(after) = rest
        .strip_prefix('-')
        .and_then(|r| r.strip_prefix(options.block_end_string.as_str()))
    {
        return Some(code.len() - after.trim_start().len());
    }
    let after = rest.strip_prefix(options.block_end_string.as_str())?;
    Some(code.len() - after.len())
}

struct RawEnd {
    data_end: usize,
    sign: Option<char>,
    consumed: usize,
}

fn raw_end(body: &str, options: &TemplateOptions) -> Option<RawEnd> {
    let start = options.block_start_string.as_str();
    let end = options.block_end_string.as_str();
    let mut from = 0;
    while let Some(found) = body[from..].find(start) {
        let at = from + found;
        let after = &body[at + start.len()..];
        let sign = after.chars().next().filter(|c| matches!(c, '-' | '+'));
        let word = &after[usize::from(sign.is_some())..];
        if let Some(rest) = word.trim_start().strip_prefix("endraw") {
            let rest = rest.trim_start();
            let offset = body.len() - rest.len();
            let plain = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if plain.starts_with(end) {
                let at_end = rest.len() - plain.len();
                let (_, consumed) = close(rest, at_end, end, true, options.trim_blocks);
                return Some(RawEnd {
                    data_end: at,
                    sign,
                    consumed: offset + consumed,
                });
            }
        }
        from = at + start.len();
    }
    None
}
