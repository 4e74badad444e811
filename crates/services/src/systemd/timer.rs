//! Timer units, systemd.timer(5).

use std::time::Duration;

use super::calendar::Calendar;
use super::{lines, time};
use crate::{Error, Parsed};

/// When a service is started again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timer {
    /// The service, with its suffix.
    pub unit: String,
    /// After the start of the box (OnBootSec=, OnStartupSec=, OnActiveSec=).
    pub boot: Vec<Duration>,
    /// After its own last start.
    pub active: Vec<Duration>,
    /// After its own last end.
    pub inactive: Vec<Duration>,
    pub calendar: Vec<Calendar>,
}

/// Reads the timer `name`; see [`super::parse`] for `texts`.
///
/// # Errors
///
/// A time that cannot be read: a job that silently never runs helps nobody.
pub fn timer(name: &str, texts: &[&str]) -> Result<Parsed<Timer>, Error> {
    let base = name.strip_suffix(".timer").unwrap_or(name);
    let mut timer = Timer {
        unit: format!("{base}.service"),
        ..Timer::default()
    };
    let (mut warnings, mut not_applied) = (Vec::new(), Vec::new());
    for text in texts {
        for line in lines::read(text, &mut warnings) {
            if line.section != "Timer" {
                continue;
            }
            let (key, value) = (line.key.as_str(), line.value.as_str());
            let wrong = |what: &str| Error::new(name, format!("{key}={value}: it is no {what}"));
            let list = match key {
                "OnBootSec" | "OnStartupSec" | "OnActiveSec" => &mut timer.boot,
                "OnUnitActiveSec" => &mut timer.active,
                "OnUnitInactiveSec" => &mut timer.inactive,
                "OnCalendar" => {
                    if value.is_empty() {
                        timer.calendar.clear();
                    } else {
                        let event = Calendar::parse(value)
                            .ok_or_else(|| wrong("calendar event that is understood here"))?;
                        timer.calendar.push(event);
                    }
                    continue;
                }
                "Unit" => {
                    value.clone_into(&mut timer.unit);
                    continue;
                }
                "Persistent" | "AccuracySec" | "RandomizedDelaySec" | "FixedRandomDelay"
                | "WakeSystem" | "RemainAfterElapse" | "OnClockChange" | "OnTimezoneChange" => {
                    not_applied.push(key.to_owned());
                    continue;
                }
                _ => {
                    warnings.push(format!("unknown key {key}="));
                    continue;
                }
            };
            if value.is_empty() {
                list.clear();
                continue;
            }
            let span = time::span(value).ok_or_else(|| wrong("time span"))?;
            list.extend(span);
        }
    }
    if !timer.unit.ends_with(".service") || timer.unit.contains('/') {
        return Err(Error::new(
            name,
            format!("Unit={}: only services run", timer.unit),
        ));
    }
    Ok(Parsed {
        value: timer,
        warnings,
        not_applied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_and_its_drop_in() {
        let text = "[Unit]\nDescription=x\n[Timer]\nOnBootSec=5min\nOnUnitActiveSec=1h\nOnCalendar=daily\nPersistent=true\n";
        let parsed = timer("job.timer", &[text, "[Timer]\nOnBootSec=\nOnBootSec=1s\n"]).unwrap();
        let minutes = Duration::from_secs(3600);
        assert_eq!(parsed.value.unit, "job.service");
        assert_eq!(parsed.value.boot, [Duration::from_secs(1)]);
        assert_eq!(parsed.value.active, [minutes]);
        assert_eq!(parsed.value.calendar.len(), 1);
        assert_eq!(parsed.not_applied, ["Persistent"]);
        for wrong in [
            "OnBootSec=soon",
            "OnCalendar=never",
            "Unit=x.target",
            "Unit=../x.service",
        ] {
            let error = timer("job.timer", &[&format!("[Timer]\n{wrong}\n")]).unwrap_err();
            assert!(
                error.to_string().contains(wrong.split('=').next().unwrap()),
                "{error}"
            );
        }
    }
}
