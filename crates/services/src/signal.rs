//! Signal names and numbers of Linux on x86-64 and arm64.

pub type Signal = i32;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`.
pub fn signal_number(text: &str) -> Option<Signal> {
    let text = text.trim().to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        // glibc keeps 32 and 33 for itself.
        return offset
            .parse::<i32>()
            .ok()
            .map(|n| 34 + n)
            .filter(|n| (34..=64).contains(n));
    }
    if name == "POLL" {
        return Some(29);
    }
    NAMES.iter().position(|n| *n == name).map(|i| i as i32 + 1)
}

/// `SIGTERM`; `signal 40` for those without a name.
pub fn signal_name(number: Signal) -> String {
    usize::try_from(number.wrapping_sub(1))
        .ok()
        .and_then(|index| NAMES.get(index))
        .map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(signal_number("SIGTERM"), Some(15));
        assert_eq!(signal_number("quit"), Some(3));
        assert_eq!(signal_number("10"), Some(10));
        assert_eq!(signal_number("SIGRTMIN+3"), Some(37));
        assert_eq!(signal_number("SIGNOPE"), None);
        assert_eq!(signal_number("0"), None);
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(40), "signal 40");
        assert_eq!(signal_name(i32::MIN + 1), "signal -2147483647");
    }
}
