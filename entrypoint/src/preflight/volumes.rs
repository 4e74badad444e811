//! The volumes: whether they are any, on what they lie, how much room there is, and whether
//! the clock went back since they were written.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use contract::{Contract, Needs};

use super::{Check, size};
use crate::log::rfc3339;
use crate::root::Root;

const GIB: u64 = 1 << 30;
/// Entries of a directory that are looked at for the time of the last write.
const ENTRIES: usize = 256;
const SLACK: Duration = Duration::from_secs(60);

pub fn checks(contract: &Contract, root: &Root, needs: &Needs) -> Vec<Check> {
    let mounts = root.read("/proc/self/mountinfo").ok().flatten();
    let mounts = mounts.map(|text| parse(&text));
    let mut checks = Vec::new();
    for (at, volume) in contract.volumes.iter().enumerate() {
        let path = volume.path.as_str();
        if let Some(mounts) = &mounts {
            checks.extend(mount(path, mounts));
        }
        // Only the first is known to be the databases'.
        let wanted = needs.disk.filter(|_| at == 0);
        checks.extend(space(root, path, wanted));
    }
    checks.extend(last_write(contract, root, SystemTime::now()));
    checks
}

/// A line of proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: String,
    /// What of the file system is mounted.
    part: String,
    kind: String,
    read_only: bool,
}

fn parse(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        let mut rest = after.split(' ');
        let kind = rest.next()?.to_owned();
        let of_all = rest.nth(1).unwrap_or_default();
        let read_only = |options: &str| options.split(',').any(|option| option == "ro");
        Some(Mount {
            part: unescaped(fields.get(3)?),
            point: unescaped(fields.get(4)?),
            read_only: read_only(fields.get(5)?) || read_only(of_all),
            kind,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Where anything is mounted.
pub fn points() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = parse(&text).into_iter();
    mounts.map(|mount| mount.point.into()).collect()
}

/// Space, tab, line end and backslash are `\040` and the like.
fn unescaped(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (code, c)| text.replace(code, c))
}

/// The mount that a path lies on: of those at the longest path the last one, which hides others.
fn holder<'m>(path: &str, mounts: &'m [Mount]) -> Option<&'m Mount> {
    let holds = |mount: &&Mount| {
        let point = mount.point.trim_end_matches('/');
        path == point
            || path
                .strip_prefix(point)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    mounts
        .iter()
        .filter(holds)
        .max_by_key(|mount| mount.point.len())
}

fn mount(path: &str, mounts: &[Mount]) -> Option<Check> {
    let mount = holder(path, mounts)?;
    let name = format!("volume {path}");
    let kind = mount.kind.as_str();
    let own = format!("run the box with -v data:{path}");
    if mount.point == "/" {
        let found = "it is no volume: all data is lost with the container";
        return Some(Check::warning(&name, found, own));
    }
    if mount.read_only {
        let found = format!("{kind}, mounted read-only: nothing can be kept");
        return Some(Check::error(
            &name,
            found,
            "mount it without `:ro` or `readonly`",
        ));
    }
    let network =
        "use a disk of the machine, or a block device of the network (iSCSI, RBD) with XFS";
    Some(match kind {
        "tmpfs" | "ramfs" => Check::warning(
            &name,
            format!("{kind}: all data is lost when the box stops"),
            own,
        ),
        "overlay" | "aufs" => Check::warning(
            &name,
            format!("{kind}: databases are slow on it, and it may go with a container"),
            own,
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "afs" | "ceph" | "glusterfs" => Check::warning(
            &name,
            format!(
                "{kind}: a file system of the network, on which databases are slow and may be damaged when it fails"
            ),
            network,
        ),
        // Docker Desktop's and the like: file systems that a program serves.
        _ if kind.starts_with("fuse") || kind == "virtiofs" => Check::warning(
            &name,
            format!("{kind}: locks and flushes are not always those that databases rely on"),
            "use a named volume instead of a directory of a workstation",
        ),
        "vfat" | "exfat" | "ntfs" | "ntfs3" | "fuseblk" => Check::error(
            &name,
            format!("{kind} knows no owners and permissions, which databases insist on"),
            "use a disk with XFS or ext4",
        ),
        _ if is_anonymous(&mount.part) => Check::warning(
            &name,
            format!(
                "{kind}, a volume without a name: `docker run --rm` and `docker rm -v` remove it"
            ),
            own,
        ),
        // What MongoDB advises for WiredTiger; ext4 is the other one that it tests.
        "xfs" => Check::ok(&name, "xfs, as databases like it best"),
        _ => Check::ok(&name, kind),
    })
}

/// Docker names them by 64 hexadecimal digits.
fn is_anonymous(part: &str) -> bool {
    let name = part
        .strip_suffix("/_data")
        .and_then(|path| path.rsplit('/').next());
    name.is_some_and(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Room for bytes and for files.
fn space(root: &Root, path: &str, wanted: Option<u64>) -> Vec<Check> {
    let Ok(found) = rustix::fs::statvfs(root.path(path)) else {
        return Vec::new();
    };
    let (free, total) = (
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
    );
    if total == 0 {
        return Vec::new();
    }
    // What the databases have taken already, they need no more.
    let is_new = !root.is_file(&format!("{path}/.tiffin/version"));
    let name = format!("disk {path}");
    let text = format!("{} of {} free", size(free), size(total));
    let advice = "make room on the disk that holds the volume, or give it a larger one";
    let mut checks = vec![match wanted {
        Some(wanted) if total < wanted || (is_new && free < wanted) => Check::error(
            &name,
            format!("{text}, the box wants {}", size(wanted)),
            advice,
        ),
        _ if free < 100 << 20 => Check::error(&name, text, advice),
        _ if free < GIB || free < total / 20 => Check::warning(&name, text, advice),
        Some(wanted) => Check::ok(&name, format!("{text}, the box wants {}", size(wanted))),
        None => Check::ok(&name, text),
    }];
    checks.extend(inodes(path, found.f_favail, found.f_files));
    checks
}

fn inodes(path: &str, free: u64, total: u64) -> Option<Check> {
    // btrfs and others have no fixed number of inodes, and say 0.
    if total == 0 {
        return None;
    }
    let name = format!("inodes {path}");
    let text = format!("{free} of {total} inodes free");
    let advice = "remove small files on that disk, or make its file system with more inodes";
    Some(match free {
        0..1000 => Check::error(&name, text, advice),
        _ if free < total / 20 => Check::warning(&name, text, advice),
        _ => Check::ok(&name, text),
    })
}

/// Something on the volumes is from the future: the clock went back, or was wrong then.
fn last_write(contract: &Contract, root: &Root, now: SystemTime) -> Option<Check> {
    let directories = contract.volumes.iter().flat_map(|volume| {
        let own = [volume.path.clone(), format!("{}/.tiffin", volume.path)];
        own.into_iter().chain(
            volume
                .directories
                .iter()
                .map(|directory| directory.path.clone()),
        )
    });
    let newest = directories
        .flat_map(|directory| {
            std::fs::read_dir(root.path(&directory))
                .into_iter()
                .flatten()
                .take(ENTRIES)
        })
        .filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok())
        .max()?;
    (newest > now + SLACK).then(|| {
        Check::warning(
            "clock and data",
            format!("it is {}, and files of the volume are from {}", rfc3339(now), rfc3339(newest)),
            "check the host's clock before you start the box: databases may refuse data from the future",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Level;

    const ROOT: &str = "1 0 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/x\n";

    fn level(line: &str) -> (Level, String) {
        let check = mount("/data", &parse(&format!("{ROOT}{line}"))).unwrap();
        (check.level, check.found)
    }

    #[test]
    fn what_a_volume_lies_on() {
        let (found, text) = level("");
        assert_eq!(found, Level::Warning);
        assert!(text.contains("no volume"), "{text}");
        for (kind, wanted) in [
            ("ext4", Level::Ok),
            ("xfs", Level::Ok),
            ("btrfs", Level::Ok),
            ("nfs4", Level::Warning),
            ("tmpfs", Level::Warning),
            ("fuse.sshfs", Level::Warning),
            ("vfat", Level::Error),
        ] {
            let line = format!("2 1 8:1 /volumes/data/_data /data rw - {kind} /dev/sda1 rw\n");
            let (found, text) = level(&line);
            assert_eq!(found, wanted, "{kind}");
            assert!(text.starts_with(kind), "{text}");
        }
    }

    #[test]
    fn read_only_nameless_and_hidden_volumes() {
        assert_eq!(
            level("2 1 8:1 / /data ro,noatime - ext4 /dev/sda1 rw\n").0,
            Level::Error
        );
        assert_eq!(
            level("2 1 8:1 / /data rw - ext4 /dev/sda1 ro\n").0,
            Level::Error
        );
        let nameless = "0a".repeat(32);
        let line =
            format!("2 1 8:1 /docker/volumes/{nameless}/_data /data rw - ext4 /dev/sda1 rw\n");
        assert_eq!(level(&line).0, Level::Warning);
        // The second one lies over the first, and /database is another path.
        let two = "2 1 8:1 / /data rw - ext4 /dev/sda1 rw\n3 2 0:9 / /data rw - tmpfs tmpfs rw\n4 1 0:9 / /database rw - xfs x rw\n";
        assert!(level(two).1.starts_with("tmpfs"));
        assert_eq!(unescaped("/my\\040data"), "/my data");
    }

    #[test]
    fn room_is_compared_with_what_the_box_wants() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let level = |wanted| space(&root, "/", wanted)[0].level;
        assert_eq!(level(Some(u64::MAX)), Level::Error);
        assert!(level(Some(1)) < Level::Error);
    }

    #[test]
    fn inodes_that_run_out_are_told() {
        let level = |free, total| inodes("/data", free, total).map(|check| check.level);
        assert_eq!(level(0, 0), None, "made as they are wanted");
        assert_eq!(level(500_000, 1_000_000), Some(Level::Ok));
        assert_eq!(level(49_999, 1_000_000), Some(Level::Warning));
        assert_eq!(level(50_000, 1_000_000), Some(Level::Ok));
        assert_eq!(level(999, 1_000), Some(Level::Error));
        let none = inodes("/data", 0, 65_536).unwrap();
        assert_eq!(none.level, Level::Error);
        assert_eq!(none.name, "inodes /data");
        assert_eq!(none.found, "0 of 65536 inodes free");
    }

    #[test]
    fn data_from_the_future_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(dir.path().join("data/.tiffin")).unwrap();
        std::fs::write(dir.path().join("data/.tiffin/lock"), "").unwrap();
        let contract: Contract = serde_json::from_value(serde_json::json!({
            "format": contract::FORMAT,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "volumes": [{"path": "/data"}],
        }))
        .unwrap();
        let now = SystemTime::now();
        assert_eq!(last_write(&contract, &root, now), None);
        let past = now - Duration::from_secs(3600);
        assert_eq!(
            last_write(&contract, &root, past).unwrap().level,
            Level::Warning
        );
    }
}
