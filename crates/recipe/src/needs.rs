//! `needs`: what the machine must have, for the box or for one service.

use contract::{HugePages, Needs};

use crate::error::Result;
use crate::field::{Field, Table};
use crate::yaml::Kind;

const KEYS: &[&str] = &["memory", "disk", "cores", "files", "cpu", "huge_pages"];

pub(crate) fn needs(field: Field) -> Result<Needs> {
    let table = field.table(KEYS)?;
    Ok(Needs {
        memory: size(&table, "memory")?,
        disk: size(&table, "disk")?,
        cores: number(&table, "cores", 1024)?.map(|number| number as u32),
        files: number(&table, "files", 1 << 30)?,
        cpu: match table.get("cpu") {
            Some(field) => field.list()?.iter().map(feature).collect::<Result<_>>()?,
            None => Vec::new(),
        },
        huge_pages: table
            .get("huge_pages")
            .map(|field| match field.text()? {
                "always" => Ok(HugePages::Always),
                "never" => Ok(HugePages::Never),
                _ => Err(field.cannot("it is `always` or `never`")),
            })
            .transpose()?,
    })
}

/// Bytes, of `512m` or `10G`; a number alone is bytes.
pub(crate) fn size(table: &Table, key: &str) -> Result<Option<u64>> {
    let Some(field) = table.get(key) else {
        return Ok(None);
    };
    let bytes = match &field.node.kind {
        Kind::Number(number) => number.as_u64(),
        Kind::Text(text) => values::bytes(text).and_then(|bytes| u64::try_from(bytes).ok()),
        _ => None,
    };
    // Beneath it somebody forgot the unit.
    match bytes.filter(|bytes| *bytes >= 1 << 20) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(field
            .must("a size of at least 1 MiB")
            .hint("write it with its unit, such as 512M or 10G")),
    }
}

fn number(table: &Table, key: &str, most: i64) -> Result<Option<u64>> {
    let number = table.get(key).map(|field| field.number(1, most));
    Ok(number.transpose()?.map(i64::unsigned_abs))
}

fn feature(item: &Field) -> Result<String> {
    let text = item.text()?;
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    match text.bytes().all(word) {
        true => Ok(text.to_owned()),
        false => Err(item.cannot(
            "a processor's feature is a name as in /proc/cpuinfo, such as `avx` or `sse4_2`",
        )),
    }
}
