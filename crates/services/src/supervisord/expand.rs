//! `%(NAME)s`: Python's `%` with a mapping, the conversions that make sense in a file.

use std::collections::BTreeMap;

/// `Err` says what is unknown and how it could be given.
pub(super) fn expand(text: &str, names: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (name, after) = tail
            .strip_prefix('(')
            .and_then(|t| t.split_once(')'))
            .ok_or_else(|| format!("a `%` must be written `%%` or begin `%(name)s`: {text}"))?;
        let end = after
            .find(|c: char| c.is_ascii_alphabetic())
            .ok_or_else(|| format!("`%({name})` lacks its conversion, as in `%({name})s`"))?;
        let value = names
            .get(name)
            .ok_or_else(|| match name.strip_prefix("ENV_") {
                Some(variable) => format!(
                    "`%({name})s` needs the environment variable {variable}, which is not set"
                ),
                None => format!("`%({name})s` is not known"),
            })?;
        let (flags, conversion) = after.split_at(end);
        out.push_str(&format_value(name, value, flags, &conversion[..1])?);
        rest = &conversion[1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn format_value(name: &str, value: &str, flags: &str, conversion: &str) -> Result<String, String> {
    let zero = flags.starts_with('0');
    let left = flags.starts_with('-');
    let width: usize = match flags.trim_start_matches(['0', '-']) {
        "" => 0,
        digits => digits.parse().ok().filter(|w| *w <= 256).ok_or_else(|| {
            format!("`%({name}){flags}{conversion}` has a width that cannot be read")
        })?,
    };
    match conversion {
        "s" => {}
        "d" | "i" => {
            value
                .parse::<i64>()
                .map_err(|_| format!("`%({name}){flags}d` needs a number and got `{value}`"))?;
        }
        other => {
            return Err(format!(
                "`%({name}){flags}{other}`: the conversion `{other}` is not supported, use s or d"
            ));
        }
    }
    Ok(match (left, zero && conversion != "s") {
        (true, _) => format!("{value:<width$}"),
        (_, true) => format!("{value:0>width$}"),
        _ => format!("{value:>width$}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions() {
        let names = BTreeMap::from([
            ("process_num".to_owned(), "7".to_owned()),
            ("ENV_A".to_owned(), "x y".to_owned()),
        ]);
        let ok = |text| expand(text, &names).unwrap();
        assert_eq!(ok("w_%(process_num)02d"), "w_07");
        assert_eq!(ok("100%% %(ENV_A)s"), "100% x y");
        assert_eq!(ok("[%(ENV_A)5s]"), "[  x y]");
        for bad in [
            "%x",
            "%(nope)s",
            "%(ENV_B)s",
            "%(ENV_A)d",
            "%(ENV_A)",
            "%(ENV_A",
            "%(process_num)999999999d",
            "%",
        ] {
            assert!(expand(bad, &names).is_err(), "{bad}");
        }
    }
}
