//! Splitting of values into words, with systemd's quotes and C escapes.

use std::iter::Peekable;
use std::str::Chars;

/// Words of a value; quotes are removed and escapes decoded. `Err` names an unclosed quote.
pub(super) fn split(value: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = value.chars().peekable();
    while let Some(word) = next(&mut chars).map_err(|reason| format!("{reason} in: {value}"))? {
        words.push(word);
    }
    Ok(words)
}

/// The next of them.
pub(super) fn next(chars: &mut Peekable<Chars<'_>>) -> Result<Option<String>, String> {
    while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
    if chars.peek().is_none() {
        return Ok(None);
    }
    let mut word = String::new();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(chars, &mut word),
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c if quote.is_none() && c.is_ascii_whitespace() => return Ok(Some(word)),
            c => word.push(c),
        }
    }
    match quote {
        Some(quote) => Err(format!("the quote {quote} is not closed")),
        None => Ok(Some(word)),
    }
}

/// What is left, as one text.
pub(super) fn rest(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::new();
    while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(chars, &mut text),
            c => text.push(c),
        }
    }
    text
}

/// What a specifier stands for that means the same in unit files and in tmpfiles.d, on every system.
pub(super) fn specifier(letter: char) -> Option<&'static str> {
    Some(match letter {
        '%' => "%",
        't' => "/run",
        'S' => "/var/lib",
        'C' => "/var/cache",
        'L' => "/var/log",
        'T' => "/tmp",
        'V' => "/var/tmp",
        'h' => "/root",
        _ => return None,
    })
}

/// Unknown escapes are kept as written, as systemd does where it is lenient.
fn escape(chars: &mut Peekable<Chars<'_>>, word: &mut String) {
    let Some(c) = chars.next() else {
        word.push('\\');
        return;
    };
    let mut number = |first: Option<char>, digits: usize, radix: u32| {
        let mut text: String = first.into_iter().collect();
        while text.len() < digits {
            match chars.next_if(|c| c.is_digit(radix)) {
                Some(digit) => text.push(digit),
                None => break,
            }
        }
        u32::from_str_radix(&text, radix)
            .ok()
            .filter(|code| *code != 0)
            .and_then(char::from_u32)
    };
    let decoded = match c {
        'a' => Some('\x07'),
        'b' => Some('\x08'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        's' => Some(' '),
        '\\' | '"' | '\'' => Some(c),
        'x' => number(None, 2, 16),
        'u' => number(None, 4, 16),
        '0'..='7' => number(Some(c), 3, 8),
        _ => None,
    };
    match decoded {
        Some(decoded) => word.push(decoded),
        None => word.extend(['\\', c]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(
            split(r#"/usr/sbin/nginx -g 'daemon on; master_process on;' "a b"c \x41\s\073"#)
                .unwrap(),
            [
                "/usr/sbin/nginx",
                "-g",
                "daemon on; master_process on;",
                "a bc",
                "A ;"
            ]
        );
        assert!(split("a 'b").is_err());
        assert_eq!(split(r"a\;b").unwrap(), [r"a\;b"]);
        assert_eq!(split(r#""""#).unwrap(), [""]);
    }
}
