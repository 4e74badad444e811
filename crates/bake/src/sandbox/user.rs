//! Building without root: the whole program goes into a user namespace in which it is root
//! over the user's subordinate ids, and goes on there as if nothing had happened.
//!
//! So layers have the owners that a build by root gives them, and its bytes. Rejected: a
//! fake root (fakeroot, proot), which neither mounts nor sees what programs of the box really
//! are allowed; and one id for all files, which no system with services of their own has.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};

use super::init;
use crate::error::{Error, Result};

/// The machine's own user namespace (PROC_USER_INIT_INO of the kernel's proc_ns.h).
const FIRST: &str = "user:[4026531837]";
/// Ids that a Debian system may use, and with them every image's.
const IDS: u64 = 65_536;
/// Leads to the same person as 0 does here; set for the second run of this program.
const ENTERED: &str = "TIFFIN_IN_USER_NAMESPACE";

/// Whether this process is in the namespace that [`enter`] makes.
pub fn entered() -> bool {
    std::env::var_os(ENTERED).is_some()
}

/// Gives this process what a build needs: nothing to do for a root that may mount. Else it
/// returns only when it could not. The process must have one thread.
pub fn enter() -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    let may_mount =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    if entered() || (root && may_mount) {
        return Ok(());
    }
    let maps = if root {
        Maps::of_container()?
    } else {
        Maps::of_user()?
    };
    // Waits outside until the namespace is there, and writes who is who in it.
    let mut writer = Command::new("/bin/sh")
        .args(["-ec", &maps.script(std::process::id())])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Spawn {
            program: "/bin/sh".into(),
            source,
        })?;
    let mut go = writer.stdin.take().expect("piped above");
    let unshared = init::unshare_flags(UnshareFlags::NEWUSER);
    if let Err(errno) = unshared {
        let _ = writer.kill();
        let _ = writer.wait();
        return Err(refused(root, errno));
    }
    let _ = go.write_all(b"\n");
    drop(go);
    let mut told = String::new();
    let _ = writer
        .stderr
        .take()
        .expect("piped above")
        .read_to_string(&mut told);
    if !writer.wait().is_ok_and(|status| status.success()) {
        return Err(Error::Rootless {
            reason: format!("the ids of the user namespace are not granted: {}", told.trim()),
            hint: "newuidmap and newgidmap must be able to gain privileges (setuid bit or file capabilities), and the ranges in /etc/subuid and /etc/subgid must be this user's".into(),
        });
    }
    // Groups of the user that mean nothing in there.
    let _ = rustix::thread::set_thread_groups(&[]);
    let program = std::env::current_exe().map_err(Error::io("find", "this program's own file"))?;
    let problem = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(ENTERED, "1")
        .exec();
    Err(Error::Spawn {
        program: program.display().to_string(),
        source: problem,
    })
}

/// Whether root here is not the machine's: overlayfs then keeps its notes elsewhere.
pub(super) fn is_in_namespace() -> bool {
    // A map that leaves all ids as they are makes a namespace, too.
    fs::read_link("/proc/self/ns/user").is_ok_and(|link| link != Path::new(FIRST))
}

enum Maps {
    /// `newuidmap` and `newgidmap` with (inside, outside, count).
    Granted {
        uids: Vec<[u64; 3]>,
        gids: Vec<[u64; 3]>,
    },
    /// Root of a container may write them itself.
    Own {
        uids: Vec<[u64; 3]>,
        gids: Vec<[u64; 3]>,
    },
}

impl Maps {
    fn of_container() -> Result<Maps> {
        let same = |path: &str| -> Vec<[u64; 3]> {
            let text = fs::read_to_string(path).unwrap_or_default();
            triples(&text)
                .into_iter()
                .map(|[inside, _, count]| [inside, inside, count])
                .collect()
        };
        Ok(Maps::Own {
            uids: same("/proc/self/uid_map"),
            gids: same("/proc/self/gid_map"),
        })
    }

    fn of_user() -> Result<Maps> {
        for program in ["newuidmap", "newgidmap"] {
            if crate::ansible::find_program(program).is_none() {
                return Err(Error::Rootless {
                    reason: format!("{program} is missing, which gives a user namespace its ids"),
                    hint: "sudo apt-get install uidmap, or run `sudo tiffin build`".into(),
                });
            }
        }
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let name = user_name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), uid);
        let granted = |file: &str, own: u32| -> Result<Vec<[u64; 3]>> {
            let text = fs::read_to_string(file).unwrap_or_default();
            let maps = map(own.into(), &ranges(&text, &name, uid));
            let count: u64 = maps.iter().map(|[_, _, count]| count).sum();
            if count < IDS {
                let add = match file {
                    "/etc/subuid" => "--add-subuids",
                    _ => "--add-subgids",
                };
                return Err(Error::Rootless {
                    reason: format!(
                        "{file} grants {name} {} ids, and a box has up to {IDS}",
                        count - 1
                    ),
                    hint: format!(
                        "sudo usermod {add} 100000-165535 {name} (a range that no other line of {file} has), or run `sudo tiffin build`"
                    ),
                });
            }
            Ok(maps)
        };
        Ok(Maps::Granted {
            uids: granted("/etc/subuid", uid)?,
            gids: granted("/etc/subgid", gid)?,
        })
    }

    fn script(&self, pid: u32) -> String {
        let words = |maps: &[[u64; 3]], between: &str| -> String {
            let lines: Vec<String> = maps
                .iter()
                .map(|[inside, outside, count]| format!("{inside} {outside} {count}"))
                .collect();
            lines.join(between)
        };
        match self {
            Maps::Granted { uids, gids } => format!(
                "read _; newuidmap {pid} {}; newgidmap {pid} {}",
                words(uids, " "),
                words(gids, " ")
            ),
            Maps::Own { uids, gids } => format!(
                "read _; printf '{}\\n' >/proc/{pid}/uid_map; printf '{}\\n' >/proc/{pid}/gid_map",
                words(uids, "\\n"),
                words(gids, "\\n")
            ),
        }
    }
}

/// The lines of a uid_map.
fn triples(text: &str) -> Vec<[u64; 3]> {
    let numbers = |line: &str| -> Option<[u64; 3]> {
        let words: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
        words.try_into().ok()
    };
    text.lines().filter_map(numbers).collect()
}

/// The user is root in there; the subordinate ids are all the others.
fn map(own: u64, ranges: &[(u64, u64)]) -> Vec<[u64; 3]> {
    let mut maps = vec![[0, own, 1]];
    let mut next = 1;
    for (start, count) in ranges {
        maps.push([next, *start, *count]);
        next += count;
    }
    maps
}

/// subuid(5): lines `user:start:count`, the user by name or number.
fn ranges(text: &str, name: &str, uid: u32) -> Vec<(u64, u64)> {
    let number = uid.to_string();
    let of_user = |line: &str| -> Option<(u64, u64)> {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ((user == name || user == number) && count > 0).then_some((start, count))
    };
    text.lines().filter_map(of_user).collect()
}

fn user_name(passwd: &str, uid: u32) -> String {
    let uid = uid.to_string();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.unwrap_or(uid)
}

/// Why there is no user namespace, as far as the machine tells.
fn refused(root: bool, errno: rustix::io::Errno) -> Error {
    let setting = |name: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(name))
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    let (reason, hint) = if setting("user/max_user_namespaces") == Some(0) {
        (
            "user namespaces are switched off (sysctl user.max_user_namespaces is 0)".to_owned(),
            "sudo sysctl -w user.max_user_namespaces=15000, or run `sudo tiffin build`",
        )
    } else if setting("kernel/unprivileged_userns_clone") == Some(0) {
        (
            "user namespaces are for root alone (sysctl kernel.unprivileged_userns_clone is 0)"
                .to_owned(),
            "sudo sysctl -w kernel.unprivileged_userns_clone=1, or run `sudo tiffin build`",
        )
    } else if root || in_container() {
        (
            format!("this container may not make user namespaces: {errno}"),
            CONTAINER,
        )
    } else {
        (
            format!("no user namespace can be made: {errno}"),
            "run `sudo tiffin build`, or ask who runs this machine which policy forbids it",
        )
    };
    Error::Rootless {
        reason,
        hint: hint.to_owned(),
    }
}

/// What an engine must allow.
pub(super) const CONTAINER: &str = "start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined and a volume for the cache (-e TIFFIN_CACHE=/cache -v tiffin:/cache), or with --privileged";

pub(super) fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"]
        .iter()
        .any(|path| Path::new(path).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_ranges_by_name_and_by_number() {
        let text =
            "alice:100000:65536\nbob:165536:65536\n1000:300000:10\n# no\nbad:x:1\nalice:9:0\n";
        assert_eq!(
            ranges(text, "alice", 1000),
            [(100_000, 65_536), (300_000, 10)]
        );
        assert_eq!(ranges(text, "bad", 7), []);
        assert_eq!(
            map(1000, &ranges(text, "alice", 1000)),
            [[0, 1000, 1], [1, 100_000, 65_536], [65_537, 300_000, 10]]
        );
        let passwd = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), "alice");
        assert_eq!(user_name(passwd, 1001), "1001");
        assert_eq!(
            triples("         0       1000          1\n"),
            [[0, 1000, 1]]
        );
    }
}
