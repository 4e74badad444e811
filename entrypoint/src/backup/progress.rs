//! How far it is, on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

pub struct Progress {
    verb: &'static str,
    shown: bool,
    terminal: bool,
    done: u64,
    expected: u64,
    last: Instant,
}

impl Progress {
    /// Shown on a terminal, elsewhere when somebody `asked` for it.
    pub fn new(verb: &'static str, asked: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Progress {
            verb,
            shown: asked || terminal,
            terminal,
            done: 0,
            expected: 0,
            last: Instant::now(),
        }
    }

    pub fn expect(&mut self, bytes: u64) {
        self.expected = bytes;
    }

    pub fn add(&mut self, count: u64) {
        self.done += count;
        let every = match self.terminal {
            true => Duration::from_millis(200),
            false => Duration::from_secs(5),
        };
        if !self.shown || self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let percent = (self.done * 100).checked_div(self.expected).unwrap_or(0);
        let text = format!(
            "{} {} of about {} ({} %)",
            bytes(self.done),
            self.verb,
            bytes(self.expected),
            percent.min(100)
        );
        let line = match self.terminal {
            true => format!("\r\x1b[K{text}"),
            false => format!("{text}\n"),
        };
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    /// Before anything else is said.
    pub fn clear(&self) {
        if self.shown && self.terminal {
            let _ = std::io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}

/// In decimal units, as disks and networks count.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let (mut size, mut unit) = (count as f64, 0);
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} bytes"),
        _ if size < 10.0 => format!("{size:.1} {}", UNITS[unit]),
        _ => format!("{size:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_short() {
        for (count, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1500, "1.5 kB"),
            (999_600, "1.0 MB"),
            (12_345_678, "12 MB"),
            (3_000_000_000_000_000, "3000 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
