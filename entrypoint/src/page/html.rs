//! Text within HTML.

/// Fit for content and for quoted attributes. What could reorder or hide text beside it, as
/// terminals' escapes and marks of direction do, is shown as U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(letter),
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            _ if letter.is_control() => out.push('\u{fffd}'),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_that_a_program_writes_is_markup() {
        let hostile = "<script>alert('1')</script>\" onload=x & \u{1b}[31m\u{202e}gnp\0";
        let shown = escape(hostile);
        assert_eq!(
            shown,
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot; onload=x &amp; \u{fffd}[31m\u{fffd}gnp\u{fffd}"
        );
    }
}
