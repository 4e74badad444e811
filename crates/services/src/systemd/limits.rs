//! Limits of processes, as LimitNOFILE= and its kin say them.

use crate::{Limit, Resource};

/// Their names as the recipe writes them; a unit's keys have them in capitals after `Limit`.
pub const LIMITS: [(&str, Resource); 15] = [
    ("as", Resource::AddressSpace),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::FileSize),
    ("locks", Resource::Locks),
    ("memlock", Resource::MemoryLock),
    ("msgqueue", Resource::MessageQueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::OpenFiles),
    ("nproc", Resource::Processes),
    ("rss", Resource::ResidentSet),
    ("rtprio", Resource::RealtimePriority),
    ("sigpending", Resource::PendingSignals),
    ("stack", Resource::Stack),
];

/// `value` is `SOFT:HARD` or one for both: a number, with a binary suffix for sizes, or
/// `infinity`. `None` for a name or value that is none.
pub fn limit(name: &str, value: &str) -> Option<Limit> {
    let (_, resource) = LIMITS.iter().find(|(known, _)| *known == name)?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    Some(Limit {
        resource: *resource,
        soft: limit_value(soft)?,
        hard: limit_value(hard)?,
    })
}

/// A number with an optional binary suffix; `Some(None)` is infinity.
fn limit_value(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if text == "infinity" {
        return Some(None);
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match &text[digits..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor).map(Some)
}
