//! The root file system under all layers.

use std::{
    error::Error as StdError,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use recipe::Base;

use crate::{
    ansible,
    error::{Error, Result},
    host,
    sandbox::user,
};

/// What Ansible needs on any host that it manages, and `apt` on Debian's.
const ANSIBLE_NEEDS: [&str; 3] = ["python3", "python3-apt", "ca-certificates"];

/// Manuals and translations that no service reads; licences stay. dpkg keeps to it for
/// packages of later layers too.
const PATH_FILTERS: [&str; 6] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*/LC_MESSAGES/*",
    "path-exclude=/usr/share/lintian/*",
];

/// A base that is an image of somebody else, or a tar. Whoever calls reads it, since no such
/// format is known here.
pub trait Image: Sync {
    /// Changes whenever the content does: a digest that covers all of it.
    fn identity(&self) -> String;
    /// Makes its root file system in the empty directory `into`.
    fn unpack(&self, into: &Path) -> std::result::Result<(), Box<dyn StdError + Send + Sync>>;
}

/// Whose packages a base takes.
#[derive(Debug, PartialEq)]
pub struct System {
    /// Debian's release name, for choosing the host's package sources. Empty for a system that
    /// is not Debian, whose own sources serve it.
    pub suite: String,
    /// Under which its package lists are kept: those of one system are of no use to another.
    pub lists: String,
}

/// What the base in `tree` says of itself.
pub fn system(base: &Base, tree: &Path) -> System {
    if let Base::Debootstrap { suite } = base {
        return System::debian(suite);
    }
    // A link in it may lead anywhere, so both places are looked at by name.
    let texts = ["usr/lib/os-release", "etc/os-release"].map(|name| {
        let path = tree.join(name);
        let real = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        if real {
            fs::read_to_string(&path).unwrap_or_default()
        } else {
            String::new()
        }
    });
    release(&texts.concat())
}

impl System {
    pub fn debian(suite: &str) -> System {
        System {
            suite: suite.to_owned(),
            lists: suite.to_owned(),
        }
    }
}

/// os-release(5).
fn release(text: &str) -> System {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']))
    };
    match (value("ID"), value("VERSION_CODENAME")) {
        // It becomes part of paths, and a base may say anything.
        (Some("debian"), Some(name)) if name.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            System::debian(name)
        }
        // A tar of files that say nothing of themselves.
        (None, _) => System::debian("bookworm"),
        (Some(id), codename) => {
            let release = codename.or(value("VERSION_ID")).unwrap_or_default();
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
            let name = format!("{id}-{release}");
            System {
                suite: String::new(),
                lists: name.chars().map(plain).take(64).collect(),
            }
        }
    }
}

/// All that the base depends on, for its cache key.
pub fn describe(base: &Base, packages: &[String], image: Option<&dyn Image>) -> Result<String> {
    Ok(match base {
        Base::Debootstrap { suite } => {
            format!("debootstrap {suite} {ANSIBLE_NEEDS:?} {packages:?} {PATH_FILTERS:?}")
        }
        other => format!("image {}", given(other, image)?.identity()),
    })
}

fn given<'a>(base: &Base, image: Option<&'a dyn Image>) -> Result<&'a dyn Image> {
    image.ok_or_else(|| Error::Unsupported(format!("on base {base:?}: nobody read the image")))
}

/// Where the packages of a base of this suite are kept between builds.
fn kept(suite: &str, packages: &host::Packages) -> PathBuf {
    packages.cache.join("base").join(suite)
}

/// Bytes of packages that making the base in `into` has fetched, after those that there were.
pub fn fetched(base: &Base, into: &Path, packages: &host::Packages, had: u64) -> u64 {
    let Base::Debootstrap { suite } = base else {
        return 0;
    };
    let here = host::bytes_below(&into.join("var/cache/apt/archives"));
    here.max(host::bytes_below(&kept(suite, packages).join("archives")))
        .saturating_sub(had)
}

/// How a base is made, besides what it is.
pub struct How<'a> {
    pub epoch: u64,
    pub packages: &'a host::Packages<'a>,
}

/// As every machine has it: what runs in a bake asks for its own machine by name.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Makes the base in the empty directory `into`.
pub fn make(
    base: &Base,
    packages: &[String],
    image: Option<&dyn Image>,
    into: &Path,
    how: &How,
) -> Result<()> {
    match base {
        Base::Debootstrap { suite } => debootstrap(suite, packages, into, how)?,
        other => given(other, image)?.unpack(into).map_err(Error::Image)?,
    }
    // Engines make /dev themselves, and an image with device nodes loads only for root.
    let dev = into.join("dev");
    if fs::symlink_metadata(&dev).is_ok_and(|found| found.is_dir()) {
        fs::remove_dir_all(&dev).map_err(Error::io("remove", &dev))?;
        fs::create_dir(&dev).map_err(Error::io("make", &dev))?;
    }
    // Engines mount their own files on these; the sandbox its own on the first.
    // An image's `etc` could be a link to the one of this machine.
    let etc = into.join("etc");
    match fs::symlink_metadata(&etc) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            return Err(Error::Base {
                reason: "its /etc is no directory".into(),
                output: String::new(),
            });
        }
        Err(_) => fs::create_dir(&etc).map_err(Error::io("make", &etc))?,
    }
    for (name, text) in [("resolv.conf", ""), ("hosts", HOSTS), ("hostname", "")] {
        let path = etc.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

fn debootstrap(suite: &str, packages: &[String], into: &Path, how: &How) -> Result<()> {
    let epoch = how.epoch;
    // Of its own: the whole directory goes in and out.
    let kept = kept(suite, how.packages);
    let (archives, lists) = (kept.join("archives"), kept.join("lists"));
    for dir in [&archives, &lists] {
        fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    }
    let sources = host::apt_sources(suite);
    if sources.trim().is_empty() {
        return Err(Error::Base {
            reason: format!("this machine's apt names no source for `{suite}`"),
            output: "add one to /etc/apt/sources.list.d, or use base: rootfs:FILE".into(),
        });
    }
    let include = ANSIBLE_NEEDS
        .iter()
        .map(|s| (*s).to_owned())
        .chain(packages.iter().cloned())
        .collect::<Vec<_>>()
        .join(",");
    // As root it mounts where the machine does. In a user namespace nobody may do that there, nor
    // show processes that are not its own.
    let mut apart = match user::entered() {
        true => vec!["--mount", "--pid", "--fork", "--kill-child"],
        false => Vec::new(),
    };
    apart.extend(how.packages.offline.then_some("--net"));
    let mut command = match apart[..] {
        [] => Command::new("mmdebstrap"),
        _ => {
            let mut command = Command::new("unshare");
            command.args(&apart).arg("mmdebstrap");
            command
        }
    };
    command.args(how.packages.offline.then_some("--skip=update"));
    command.args([
        "--variant=minbase",
        "--mode=root",
        "--format=directory",
        "--quiet",
        // As mmdebstrap(1) keeps packages between runs.
        "--skip=download/empty",
        "--skip=essential/unlink",
        "--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives \"$1\"/var/lib/apt/lists",
    ]);
    let (archives, lists) = (
        ansible::quote(&archives.to_string_lossy()),
        ansible::quote(&lists.to_string_lossy()),
    );
    command
        .arg(format!(
            "--setup-hook=sync-in {archives} /var/cache/apt/archives"
        ))
        .arg(format!("--setup-hook=sync-in {lists} /var/lib/apt/lists"))
        .arg(format!(
            "--customize-hook=sync-out /var/lib/apt/lists {lists}"
        ))
        .arg(format!(
            "--customize-hook=sync-out /var/cache/apt/archives {archives}"
        ));
    command.arg(format!("--include={include}"));
    command
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Languages \"none\"");
    for filter in PATH_FILTERS {
        command.arg(format!("--dpkgopt={filter}"));
    }
    command.args([suite, &into.to_string_lossy(), "-"]);
    command
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("LC_ALL", "C.UTF-8");
    // Its own process group: Ctrl-C is ours to act on.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Spawn {
            program: "mmdebstrap".into(),
            source,
        })?;
    let _group = crate::interrupt::Group::of(&child);
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(sources.as_bytes());
    }
    let out = child.wait_with_output().map_err(|source| Error::Spawn {
        program: "mmdebstrap".into(),
        source,
    })?;
    crate::interrupt::check()?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        let tail: Vec<&str> = text.lines().rev().take(15).collect();
        return Err(Error::Base {
            reason: format!("mmdebstrap ended with {}", out.status),
            output: tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
        });
    }
    // The build machine's own mirrors are nobody else's business.
    for name in [
        "etc/apt/sources.list",
        "etc/apt/sources.list.d/0000sources.list",
    ] {
        let path = into.join(name);
        if path.exists() {
            fs::write(&path, "").map_err(Error::io("write", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_package_sources_are_for_debian_alone() {
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_CODENAME=trixie\nID=debian\n";
        assert_eq!(release(debian), System::debian("trixie"));
        assert_eq!(release(""), System::debian("bookworm"));
        for (text, lists) in [
            ("ID=ubuntu\nVERSION_CODENAME=jammy\n", "ubuntu-jammy"),
            ("ID=ubuntu\nVERSION_CODENAME=noble\n", "ubuntu-noble"),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel\"\nVERSION_ID=\"8.9\"\n",
                "rocky-8-9",
            ),
            ("ID=debian\nVERSION_CODENAME=../../x\n", "debian-------x"),
        ] {
            let system = System {
                suite: String::new(),
                lists: lists.to_owned(),
            };
            assert_eq!(release(text), system, "{text}");
        }
    }
}
