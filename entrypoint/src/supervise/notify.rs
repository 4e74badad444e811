//! sd_notify(3): what a datagram of a service says. Anybody who is the service's user may send
//! one, and anything may be in it.

/// What is shown of a `STATUS=`.
const SHOWN: usize = 200;

/// Longer ones are cut, which systemd does too.
pub const LONGEST: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Ready,
    Reloading,
    Status(String),
    Stopping,
    Alive,
    /// `WATCHDOG=trigger`
    Hangs,
    Main(i32),
}

/// In its order; what is unknown or makes no sense is passed over.
pub fn read(message: &[u8]) -> Vec<Said> {
    let text = String::from_utf8_lossy(message);
    let said = |line: &str| {
        Some(match line.split_once('=')? {
            ("READY", "1") => Said::Ready,
            ("RELOADING", "1") => Said::Reloading,
            // It is shown on terminals.
            ("STATUS", status) => {
                let visible = status.chars().filter(|c| !c.is_control());
                Said::Status(visible.take(SHOWN).collect())
            }
            ("STOPPING", "1") => Said::Stopping,
            ("WATCHDOG", "1") => Said::Alive,
            ("WATCHDOG", "trigger") => Said::Hangs,
            ("MAINPID", pid) => Said::Main(pid.parse().ok().filter(|pid| *pid > 1)?),
            _ => return None,
        })
    };
    text.lines().filter_map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_line_by_line() {
        let message = b"RELOADING=1\nREADY=1\nSTATUS=up \x1b[31mred\nMAINPID=42\nX=1\nWATCHDOG=1\nWATCHDOG=trigger\nSTOPPING=1";
        let wanted = [
            Said::Reloading,
            Said::Ready,
            Said::Status("up [31mred".to_owned()),
            Said::Main(42),
            Said::Alive,
            Said::Hangs,
            Said::Stopping,
        ];
        assert_eq!(read(message), wanted);
        for nonsense in [
            &b"READY=2\nRELOADING=0\nREADY\n=1\nWATCHDOG=\nSTOPPING=0"[..],
            b"MAINPID=1\nMAINPID=0\nMAINPID=-5\nMAINPID=99999999999\nMAINPID=x",
            b"\xff\x00",
            b"",
        ] {
            assert_eq!(read(nonsense), []);
        }
    }
}
