//! Names of capabilities(7), as CapabilityBoundingSet= and its kin list them.

/// By number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The set of these, named with or without `CAP_`; bit n is capability n. An unknown name is the
/// error.
pub fn capabilities(names: &[String]) -> Result<u64, String> {
    let number = |name: &String| {
        let short = name.strip_prefix("CAP_").unwrap_or(name);
        let at = NAMES.iter().position(|known| *known == short);
        at.ok_or_else(|| name.clone())
    };
    names
        .iter()
        .try_fold(0, |mask, name| Ok(mask | 1 << number(name)?))
}

/// Adds what one assignment lists to `before`, or takes it away (`~`); bit n is capability n.
/// Nothing at all empties the set, a `~` alone fills it. An unknown name is the error.
pub(super) fn assign(before: Option<u64>, value: &str) -> Result<u64, String> {
    let all = u64::MAX;
    let (removes, names) = match value.strip_prefix('~') {
        Some(names) => (true, names),
        None => (false, value),
    };
    let mut mask = 0;
    for name in names.split_whitespace() {
        let short = name.strip_prefix("CAP_").unwrap_or(name);
        match NAMES.iter().position(|known| *known == short) {
            Some(at) => mask |= 1 << at,
            None => return Err(name.to_owned()),
        }
    }
    Ok(match (removes, mask) {
        (false, 0) => 0,
        (true, 0) => all,
        (false, mask) => before.unwrap_or(0) | mask,
        (true, mask) => before.unwrap_or(all) & !mask,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_merged_as_in_systemd_exec() {
        assert_eq!(assign(None, "CAP_CHOWN CAP_KILL"), Ok(0b10_0001));
        assert_eq!(assign(Some(0b10_0001), "CAP_DAC_OVERRIDE"), Ok(0b10_0011));
        assert_eq!(assign(Some(0b10_0011), "~CAP_KILL"), Ok(0b11));
        assert_eq!(assign(None, "~CAP_CHOWN"), Ok(u64::MAX - 1));
        assert_eq!(assign(Some(1), ""), Ok(0));
        assert_eq!(assign(Some(1), "~"), Ok(u64::MAX));
        assert_eq!(assign(None, "CAP_FLY"), Err("CAP_FLY".to_owned()));
    }
}
