//! Lists and maps.

use contract::Value;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON array, or items separated by commas. An item left out (`a,,b`) is a mistake; one
/// comma at the end is not.
pub fn list(text: &str) -> Option<Value> {
    if text.starts_with('[') {
        return json(text).filter(Value::is_array);
    }
    let items = text.strip_suffix(',').unwrap_or(text);
    items
        .split(',')
        .map(str::trim)
        .map(|item| (!item.is_empty() && super::is_one_line(item)).then(|| Value::from(item)))
        .collect()
}

pub fn map(text: &str) -> Option<Value> {
    json(text).filter(Value::is_object)
}

fn json(text: &str) -> Option<Value> {
    let Strict(value) = serde_json::from_str(text).ok()?;
    Some(value)
}

/// JSON in which no key is given twice and no text holds a line end.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Strict)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        match super::is_one_line(value) {
            true => Ok(value.into()),
            false => Err(E::custom("a line end")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = contract::Variables::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if !super::is_one_line(&key) || map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key twice, or of two lines"));
            }
        }
        Ok(map.into())
    }
}
