//! The time of a job, as of crontab(5).

const NAMES: [&str; 8] = [
    "@reboot",
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    /// The first one means `low`.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        low: 0,
        high: 59,
        names: &[],
    },
    Field {
        name: "hour",
        low: 0,
        high: 23,
        names: &[],
    },
    Field {
        name: "day of the month",
        low: 1,
        high: 31,
        names: &[],
    },
    Field {
        name: "month",
        low: 1,
        high: 12,
        names: &MONTHS,
    },
    // 7 is Sunday too.
    Field {
        name: "day of the week",
        low: 0,
        high: 7,
        names: &DAYS,
    },
];

/// # Errors
///
/// What is wrong, without the text.
pub fn check(text: &str) -> Result<(), String> {
    if text.starts_with('@') {
        return match NAMES.contains(&text) {
            true => Ok(()),
            false => Err(format!("names are {}", NAMES.join(", "))),
        };
    }
    // Tabs separate too; a line end would begin another job.
    let fields: Vec<&str> = text
        .split([' ', '\t'])
        .filter(|part| !part.is_empty())
        .collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("it has {} fields", fields.len()));
    }
    for (field, text) in FIELDS.iter().zip(fields) {
        if !text.split(',').all(|item| field.takes(item)) {
            return Err(format!(
                "the {} goes from {} to {}",
                field.name, field.low, field.high
            ));
        }
    }
    Ok(())
}

impl Field {
    /// `*`, `5`, `1-5`, and with a step `*/5`, `1-30/2`.
    fn takes(&self, item: &str) -> bool {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let step_good = step
            .is_none_or(|step| number(step).is_some_and(|step| (1..=self.high).contains(&step)));
        let range_good = match range.split_once('-') {
            _ if range == "*" => true,
            Some((from, to)) => match (self.value(from), self.value(to)) {
                (Some(from), Some(to)) => from <= to,
                _ => false,
            },
            // A step over one value says nothing.
            None => step.is_none() && self.value(range).is_some(),
        };
        step_good && range_good
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text))
            .map(|at| at as u32 + self.low);
        named
            .or_else(|| number(text))
            .filter(|value| (self.low..=self.high).contains(value))
    }
}

fn number(text: &str) -> Option<u32> {
    (text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}
