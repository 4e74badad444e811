//! Processors, memory, limits and the kernel.

use std::time::{Duration, SystemTime};

use contract::{HugePages, Needs};
use rustix::process::{Resource, getrlimit};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{Check, size};
use crate::cgroup::{Cgroup, Memory, processors};
use crate::log::rfc3339;
use crate::root::Root;

/// What any database wants at least.
const FILES: u64 = 4096;
/// Memory that is left, where less means that something is killed before long.
const AVAILABLE: u64 = 64 << 20;

pub fn checks(root: &Root, needs: &Needs) -> Vec<Check> {
    let checks = [
        Some(cores(root, needs)),
        memory(root, needs),
        cpu(root, needs),
        Some(files(needs)),
        huge_pages(root, needs),
        clock(root, SystemTime::now()),
        Some(entropy(
            getrandom(&mut [0_u8; 1], GetRandomFlags::NONBLOCK).is_ok(),
        )),
    ];
    checks.into_iter().flatten().collect()
}

fn cores(root: &Root, needs: &Needs) -> Check {
    let quota = Cgroup::new(root).processors();
    let count = processors(quota);
    let limited = quota.is_some_and(|quota| quota <= count);
    let found = format!(
        "{count} {}{}",
        if count == 1 { "core" } else { "cores" },
        if limited {
            " (the container's limit)"
        } else {
            ""
        }
    );
    match needs.cores {
        Some(wanted) if count < wanted.into() => Check::warning(
            "cores",
            format!("{found}, the box wants {wanted}"),
            match limited {
                true => format!("raise the container's limit: --cpus {wanted}"),
                false => {
                    "everything works, but slower: give the machine more processors".to_owned()
                }
            },
        ),
        wanted => Check::ok(
            "cores",
            found + &wants(wanted.map(|wanted| wanted.to_string())),
        ),
    }
}

fn wants(wanted: Option<String>) -> String {
    wanted.map_or_else(String::new, |wanted| format!(", the box wants {wanted}"))
}

fn memory(root: &Root, needs: &Needs) -> Option<Check> {
    let cgroup = Cgroup::new(root);
    let memory = Memory::read(root, &cgroup)?;
    let limited = cgroup.memory().is_some_and(|limit| limit <= memory.total);
    let found = format!(
        "{}{}, {} available{}",
        size(memory.total),
        if limited {
            " (the container's limit)"
        } else {
            ""
        },
        size(memory.available),
        wants(needs.memory.map(size)),
    );
    // A machine of 4 GiB says a little less: its kernel and firmware keep some.
    let wanted = needs.memory.map_or(0, |wanted| wanted - wanted / 16);
    Some(if memory.total < wanted {
        let more = size(needs.memory.unwrap_or_default());
        let advice = match limited {
            true => format!(
                "raise the container's limit to {more}: --memory, or mem_limit in a Compose file"
            ),
            false => {
                format!("give the machine {more} at least: with less, the kernel kills services")
            }
        };
        Check::error("memory", found, advice)
    } else if memory.available < AVAILABLE {
        Check::warning(
            "memory",
            found,
            "other programs use the rest: stop some, or give the machine more",
        )
    } else {
        Check::ok("memory", found)
    })
}

/// A program that executes what the processor does not know ends with SIGILL.
fn cpu(root: &Root, needs: &Needs) -> Option<Check> {
    if needs.cpu.is_empty() {
        return None;
    }
    let text = root.read("/proc/cpuinfo").ok().flatten()?;
    let has: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| matches!(key.trim(), "flags" | "Features"))?
        .1
        .split_whitespace()
        .collect();
    let missing: Vec<&str> = needs
        .cpu
        .iter()
        .map(String::as_str)
        .filter(|name| !has.contains(name))
        .collect();
    Some(match missing[..] {
        [] => Check::ok("cpu", format!("has {}", needs.cpu.join(", "))),
        _ => Check::error(
            "cpu",
            format!(
                "has no {}, which the box's programs use",
                missing.join(", ")
            ),
            "a virtual machine: give it the host's processor (`host` or `host-passthrough` as CPU model); else use a newer machine",
        ),
    })
}

/// Services may raise their own limit up to the hard one.
fn files(needs: &Needs) -> Check {
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = needs.files.unwrap_or(FILES);
    let found = match hard {
        Some(hard) => format!("{hard} open files a process"),
        None => "any number of open files".to_owned(),
    } + &wants(needs.files.map(|wanted| wanted.to_string()));
    match hard {
        Some(hard) if hard < wanted => Check::warning(
            "files",
            found,
            format!(
                "raise the limit: --ulimit nofile={wanted}:{wanted}, or `ulimits` in a Compose file"
            ),
        ),
        _ => Check::ok("files", found),
    }
}

fn huge_pages(root: &Root, needs: &Needs) -> Option<Check> {
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let wanted = needs.huge_pages?;
    let text = root.read(FILE).ok().flatten()?;
    // `always [madvise] never`
    let is = text.split_once('[')?.1.split_once(']')?.0.to_owned();
    let (good, word, why) = match wanted {
        HugePages::Always => (is == "always", "always", "is slower without"),
        HugePages::Never => (
            is != "always",
            "never",
            "pauses and uses more memory with them",
        ),
    };
    let found = format!("transparent huge pages: {is}");
    Some(match good {
        true => Check::ok("huge pages", found),
        false => Check::warning(
            "huge pages",
            format!("{found}; the database {why}"),
            format!("on the host, as root, at each boot: echo {word} > {FILE}"),
        ),
    })
}

/// Not before the box was made, and not before its data was written.
fn clock(root: &Root, now: SystemTime) -> Option<Check> {
    /// What clocks of two machines may differ by.
    const SLACK: Duration = Duration::from_secs(60);
    let made = std::fs::metadata(root.path(contract::PATH))
        .and_then(|file| file.modified())
        .ok()?;
    let found = rfc3339(now);
    let advice =
        "set the host's clock (timedatectl, chrony): certificates, sessions and backups go by it";
    Some(if now + SLACK < made {
        let made = rfc3339(made);
        Check::error(
            "clock",
            format!("{found}, but the box was made at {made}"),
            advice,
        )
    } else {
        Check::ok("clock", found)
    })
}

/// Passwords are generated: before the kernel has randomness the start would wait.
fn entropy(ready: bool) -> Check {
    match ready {
        true => Check::ok("entropy", "the kernel's generator is ready"),
        false => Check::warning(
            "entropy",
            "the kernel's generator is not ready: a first start waits for it",
            "wait some minutes after boot, or give the virtual machine a virtio-rng device",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Level;

    #[test]
    fn memory_is_the_containers_and_too_little_is_an_error() {
        let (_dir, root) = Root::made(&[
            ("sys/fs/cgroup/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/memory.current", "536870912\n"),
            (
                "proc/meminfo",
                "MemTotal: 16384000 kB\nMemFree: 8192000 kB\n",
            ),
        ]);
        let needs = |memory| Needs {
            memory: Some(memory),
            ..Needs::default()
        };
        let check = memory(&root, &needs(2 << 30)).unwrap();
        assert_eq!(check.level, Level::Error);
        assert_eq!(
            check.found,
            "1 GiB (the container's limit), 512 MiB available, the box wants 2 GiB"
        );
        assert!(check.advice.unwrap().contains("--memory"));
        assert_eq!(memory(&root, &needs(1 << 30)).unwrap().level, Level::Ok);
    }

    #[test]
    fn a_processor_without_what_the_database_uses_is_an_error() {
        let (_dir, root) = Root::made(&[(
            "proc/cpuinfo",
            "processor\t: 0\nflags\t\t: fpu sse4_2 avx2\n",
        )]);
        let needs = |name: &str| Needs {
            cpu: vec![name.to_owned()],
            ..Needs::default()
        };
        assert_eq!(cpu(&root, &needs("sse4_2")).unwrap().level, Level::Ok);
        // A part of a word is another feature.
        assert_eq!(cpu(&root, &needs("avx")).unwrap().level, Level::Error);
        assert_eq!(cpu(&root, &Needs::default()), None);
    }

    #[test]
    fn huge_pages_as_the_database_wants_them() {
        let level = |is: &str, wanted| {
            let (_dir, root) = Root::made(&[("sys/kernel/mm/transparent_hugepage/enabled", is)]);
            let needs = Needs {
                huge_pages: Some(wanted),
                ..Needs::default()
            };
            huge_pages(&root, &needs).unwrap().level
        };
        assert_eq!(
            level("[always] madvise never\n", HugePages::Never),
            Level::Warning
        );
        assert_eq!(
            level("always [madvise] never\n", HugePages::Never),
            Level::Ok
        );
        assert_eq!(
            level("always [madvise] never\n", HugePages::Always),
            Level::Warning
        );
        assert_eq!(
            level("[always] madvise never\n", HugePages::Always),
            Level::Ok
        );
    }

    #[test]
    fn a_clock_before_the_box_was_made_is_an_error() {
        let (_dir, root) = Root::made(&[("usr/lib/tiffin/contract.json", "{}")]);
        let now = SystemTime::now();
        assert_eq!(clock(&root, now).unwrap().level, Level::Ok);
        let past = now - Duration::from_secs(86_400);
        assert_eq!(clock(&root, past).unwrap().level, Level::Error);
    }

    #[test]
    fn cores_are_the_containers_and_too_few_are_told() {
        let needs = |cores| Needs {
            cores: Some(cores),
            ..Needs::default()
        };
        let (_dir, root) = Root::made(&[
            ("sys/fs/cgroup/cgroup.controllers", "cpu"),
            ("sys/fs/cgroup/cpu.max", "100000 100000\n"),
        ]);
        assert_eq!(cores(&root, &needs(1)).level, Level::Ok);
        let few = cores(&root, &needs(2));
        assert_eq!(few.level, Level::Warning);
        assert_eq!(few.found, "1 core (the container's limit), the box wants 2");
        assert!(few.advice.unwrap().contains("--cpus 2"));
        let (_dir, root) = Root::made(&[]);
        let few = cores(&root, &needs(9999));
        assert_eq!(few.level, Level::Warning);
        assert!(few.found.ends_with("the box wants 9999"), "{few:?}");
        assert!(!few.advice.unwrap().contains("--cpus"));
    }

    #[test]
    fn a_kernel_without_randomness_is_told() {
        assert_eq!(entropy(true).level, Level::Ok);
        let told = entropy(false);
        assert_eq!(told.level, Level::Warning);
        assert!(told.advice.unwrap().contains("virtio-rng"));
    }

    #[test]
    fn files_are_compared_with_the_hard_limit() {
        let needs = |files| Needs {
            files: Some(files),
            ..Needs::default()
        };
        assert_eq!(files(&needs(1)).level, Level::Ok);
        if let Some(hard) = getrlimit(Resource::Nofile).maximum {
            let check = files(&needs(hard + 1));
            assert_eq!(check.level, Level::Warning);
            assert!(check.advice.unwrap().contains("--ulimit"));
        }
    }
}
