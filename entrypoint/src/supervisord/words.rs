//! supervisord's states and the sentences its clients print.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ProcessState {
    Stopped = 0,
    Starting = 10,
    Running = 20,
    Backoff = 30,
    Stopping = 40,
    Exited = 100,
    Fatal = 200,
}

impl ProcessState {
    pub fn name(self) -> &'static str {
        match self {
            ProcessState::Stopped => "STOPPED",
            ProcessState::Starting => "STARTING",
            ProcessState::Running => "RUNNING",
            ProcessState::Backoff => "BACKOFF",
            ProcessState::Stopping => "STOPPING",
            ProcessState::Exited => "EXITED",
            ProcessState::Fatal => "FATAL",
        }
    }

    /// Running, or meant to be at once.
    pub fn is_running(self) -> bool {
        matches!(
            self,
            ProcessState::Running | ProcessState::Backoff | ProcessState::Starting
        )
    }

    pub fn is_stopped(self) -> bool {
        matches!(
            self,
            ProcessState::Stopped | ProcessState::Exited | ProcessState::Fatal
        )
    }

    pub fn is_signallable(self) -> bool {
        matches!(
            self,
            ProcessState::Running | ProcessState::Starting | ProcessState::Stopping
        )
    }
}

/// Seconds since 1970; 0 before that.
pub fn unix_time() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// Python's `str(timedelta)`: `0:00:05`, `1 day, 2:03:04`.
pub fn uptime(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let days = match seconds / 86_400 {
        0 => String::new(),
        1 => "1 day, ".to_owned(),
        days => format!("{days} days, "),
    };
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{days}{hours}:{minutes:02}:{:02}", seconds % 60)
}

/// A moment of UTC, which is what a container's clock shows.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub year: i64,
    pub month: usize,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,

    pub second: i64,
}

impl Moment {
    pub fn of(time: i64) -> Self {
        let (days, rest) = (time.div_euclid(86_400), time.rem_euclid(86_400));
        // Days from 1 March of the year 0 on: then the leap day is the last of its year.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Moment {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: usize::try_from(month).unwrap_or(1),
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// `2026-11-21 07:30:00`, as supervisord's log begins its lines.
    pub fn long(&self) -> String {
        format!(
            "{}-{:02}-{:02} {:02}:{:02}:{:02}",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        )
    }

    /// `2026-11-21T07:30:00.000Z`
    pub fn rfc3339(&self, milliseconds: u32) -> String {
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{milliseconds:03}Z",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        )
    }

    /// `Nov 21 07:30 AM`, as status shows when a process ended.
    pub fn short(&self) -> String {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let month = MONTHS.get(self.month.wrapping_sub(1)).unwrap_or(&"Jan");
        let half = if self.hour < 12 { "AM" } else { "PM" };
        let hour = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        format!(
            "{month} {:02} {hour:02}:{:02} {half}",
            self.day, self.minute
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_python_prints_them() {
        assert_eq!(uptime(5), "0:00:05");
        assert_eq!(uptime(86_400 + 7384), "1 day, 2:03:04");
        assert_eq!(uptime(2 * 86_400), "2 days, 0:00:00");
        assert_eq!(uptime(-3), "0:00:00");
        // date -u -d @N '+%b %d %I:%M %p'
        for (time, text) in [
            (0, "Jan 01 12:00 AM"),
            (951_782_400, "Feb 29 12:00 AM"),
            (1_709_210_096, "Feb 29 12:34 PM"),
            (1_795_246_167, "Nov 21 07:29 AM"),
        ] {
            assert_eq!(Moment::of(time).short(), text);
        }
        assert_eq!(Moment::of(951_782_400).year, 2000);
    }
}
