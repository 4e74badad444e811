//! Calendar events, systemd.time(7): `Mon..Fri *-*-* 04:30`, `hourly`. In UTC.

/// When something is to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// 0 is Monday.
    weekdays: Field,
    years: Field,
    months: Field,
    days: Field,
    hours: Field,
    minutes: Field,
    seconds: Field,
}

/// Ranges with their step; none is every value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Field(Vec<(u32, u32, u32)>);

impl Field {
    fn parse(text: &str, least: u32, most: u32) -> Option<Self> {
        Self::parse_with(text, least, most, |word| word.parse().ok())
    }

    fn parse_with(
        text: &str,
        least: u32,
        most: u32,
        number: impl Fn(&str) -> Option<u32>,
    ) -> Option<Self> {
        if text == "*" {
            return Some(Field::default());
        }
        let range = |part: &str| {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step.parse().ok().filter(|s| *s > 0)?)),
                None => (part, None),
            };
            let (from, to) = match range.split_once("..") {
                Some((from, to)) => (number(from)?, number(to)?),
                None if range == "*" => (least, most),
                None => {
                    let from = number(range)?;
                    // `a/b` goes on to the end.
                    (from, if step.is_some() { most } else { from })
                }
            };
            (least <= from && from <= to && to <= most).then_some((from, to, step.unwrap_or(1)))
        };
        text.split(',').map(range).collect::<Option<_>>().map(Field)
    }

    fn has(&self, value: u32) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|(from, to, step)| {
                *from <= value && value <= *to && (value - from).is_multiple_of(*step)
            })
    }
}

fn weekday(word: &str) -> Option<u32> {
    const DAYS: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let word = word.to_ascii_lowercase();
    let is = |day: &str| day == word || day[..3] == word;
    let at = DAYS.iter().position(|day| is(day))?;
    u32::try_from(at).ok()
}

impl Calendar {
    /// `None` for what is no calendar event, or says more than is understood here (other
    /// time zones than UTC, `~` for the last days of a month).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = match text.to_ascii_lowercase().as_str() {
            "minutely" => "*-*-* *:*:00",
            "hourly" => "*-*-* *:00:00",
            "daily" => "*-*-* 00:00:00",
            "weekly" => "Mon *-*-* 00:00:00",
            "monthly" => "*-*-01 00:00:00",
            "quarterly" => "*-01,04,07,10-01 00:00:00",
            "semiannually" => "*-01,07-01 00:00:00",
            "yearly" | "annually" => "*-01-01 00:00:00",
            _ => text,
        };
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        words.pop_if(|word| *word == "UTC");
        let mut words = words.into_iter().peekable();
        words.peek()?;
        let mut calendar = Calendar {
            weekdays: Field::default(),
            years: Field::default(),
            months: Field::default(),
            days: Field::default(),
            hours: Field(vec![(0, 0, 1)]),
            minutes: Field(vec![(0, 0, 1)]),
            seconds: Field(vec![(0, 0, 1)]),
        };
        if let Some(days) =
            words.next_if(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()))
        {
            calendar.weekdays = Field::parse_with(days, 0, 6, weekday)?;
        }
        if let Some(date) = words.next_if(|word| word.contains('-')) {
            let parts: Vec<&str> = date.split('-').collect();
            let (year, month, day) = match parts[..] {
                [year, month, day] => (year, month, day),
                [month, day] => ("*", month, day),
                _ => return None,
            };
            calendar.years = Field::parse(year, 1970, 2999)?;
            calendar.months = Field::parse(month, 1, 12)?;
            calendar.days = Field::parse(day, 1, 31)?;
        }
        if let Some(time) = words.next() {
            let parts: Vec<&str> = time.split(':').collect();
            let (hour, minute, second) = match parts[..] {
                [hour, minute, second] => (hour, minute, second),
                [hour, minute] => (hour, minute, "0"),
                _ => return None,
            };
            calendar.hours = Field::parse(hour, 0, 23)?;
            calendar.minutes = Field::parse(minute, 0, 59)?;
            calendar.seconds = Field::parse(second, 0, 59)?;
        }
        words.next().is_none().then_some(calendar)
    }

    /// `weekday` 0 is Monday.
    pub fn has_day(&self, year: u32, month: u32, day: u32, weekday: u32) -> bool {
        self.years.has(year)
            && self.months.has(month)
            && self.days.has(day)
            && self.weekdays.has(weekday)
    }

    /// The first time of a day, in seconds, that is not before `from`.
    pub fn time_from(&self, from: u32) -> Option<u32> {
        for hour in (from / 3600..24).filter(|hour| self.hours.has(*hour)) {
            for minute in (0..60).filter(|minute| self.minutes.has(*minute)) {
                let start = hour * 3600 + minute * 60;
                let found =
                    (0..60).find(|second| start + second >= from && self.seconds.has(*second));
                if let Some(second) = found {
                    return Some(start + second);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_manual_names_is_read() {
        let is = |text: &str| Calendar::parse(text).is_some_and(|c| c.has_day(2026, 11, 20, 4));
        for text in [
            "daily",
            "Fri",
            "mon..fri 04:30",
            "Mon,friday *-*-* 10:00",
            "2026-11-20",
            "*-11-10..20 *:0/15",
            "11-20 1:2:3 UTC",
            "*:*:00/20",
            "*-*/2-20",
        ] {
            assert_eq!(is(text), text != "*-*/2-20" || 11 % 2 == 1, "{text}");
        }
        for text in ["Sat,Sun", "weekly", "monthly", "2027-*-*", "*-11-21"] {
            assert!(Calendar::parse(text).is_some() && !is(text), "{text}");
        }
        for text in [
            "",
            "soon",
            "UTC",
            "24:00",
            "*-13-01",
            "*-*~01",
            "5",
            "Fri..Mon",
            "1:2:3:4",
            "*:0/0",
            "daily daily",
            "04:30 Europe/Berlin",
            "*-*-* 1,:0",
        ] {
            assert_eq!(Calendar::parse(text), None, "{text}");
        }
    }

    #[test]
    fn times_of_a_day() {
        let at = |text: &str, from: u32| Calendar::parse(text).unwrap().time_from(from);
        assert_eq!(at("04:30", 0), Some(16_200));
        assert_eq!(at("04:30", 16_201), None);
        assert_eq!(at("*:0/15", 901), Some(1800));
        assert_eq!(at("*:*:10", 3609), Some(3610));
        assert_eq!(at("hourly", 86_399), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9*:,./ A-Za-z~-]{0,30}", from in 0_u32..90_000) {
            if let Some(at) = Calendar::parse(&text).and_then(|c| c.time_from(from)) {
                prop_assert!(at >= from && at < 86_400);
            }
        }
    }
}
