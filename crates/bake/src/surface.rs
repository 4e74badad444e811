//! What the top layer lays over the playbooks' files, so that a box runs with a read-only
//! root and as any user of group 0.
//!
//! Links lead to `/run/tiffin`, itself a link to `/dev/shm/tiffin`: the one place that
//! engines make writable for everybody whatever the flags are, and memory, so that rendered
//! secrets reach no disk. Rejected: real files below `/run/tiffin`, which a read-only root
//! without `--tmpfs /run` leaves as they were built; an anonymous volume there, which stays
//! behind with its secrets when a container is removed.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use contract::{Directory, FILES, Parity, RUN, Setting, Template, Unit, Volume};
use recipe::Recipe;
use services::systemd;

use crate::{
    error::{Error, Result},
    finish::{directory, stat},
    sandbox::Sandbox,
};

/// Paths are absolute in the box.
#[derive(Debug, Default)]
pub struct Surface {
    /// Exist below already, but for the volumes that nothing made; with these owners and modes.
    pub directories: BTreeMap<String, Directory>,
    /// By the link's path, what it holds: relative, so that it means the same wherever the
    /// root file system lies.
    pub links: BTreeMap<String, String>,
    /// Directories that are no more.
    pub removed: Vec<String>,
}

/// Where programs insist on a regular file, on its owner, or rewrite it; where engines
/// mount files of their own; and what is no place for a file at all.
const REAL: &[&str] = &[
    "/dev/",
    "/proc/",
    "/sys/",
    "/run/",
    "/tmp/",
    "/var/run/",
    "/var/tmp/",
    "/etc/cron",
    "/var/spool/cron/",
    "/etc/anacrontab",
    "/etc/sudoers",
    "/etc/logrotate",
    "/etc/ssh/",
    "/root/.ssh/",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ld.so.",
    "/etc/pam.d/",
    "/etc/apt/",
    "/usr/lib/tiffin/",
];

/// Decides which templates become links, and marks them.
pub fn surface(
    recipe: &Recipe,
    view: &Sandbox,
    templates: &mut [Template],
    settings: &BTreeMap<String, Setting>,
    changes_anyway: impl Fn(&Template) -> bool,
    units: &[Unit],
    volumes: &[Volume],
) -> Result<(Surface, Vec<String>)> {
    let mut surface = Surface::default();
    let mut warnings = Vec::new();
    for path in recipe.links.keys() {
        if !templates.iter().any(|template| template.dest == *path) {
            return Err(Error::File {
                path: path.clone(),
                reason: "no template writes it".into(),
            });
        }
    }
    for template in templates.iter_mut() {
        let reached = settings.values().any(|s| s.files.contains(&template.dest));
        if !(reached || changes_anyway(template)) || template.parity != Parity::Identical {
            continue;
        }
        let wanted = recipe.links.get(&template.dest).copied();
        match no_link(view, template, volumes) {
            None if wanted.unwrap_or_else(|| !must_be_real(&template.dest)) => {}
            Some(reason) if wanted == Some(true) => {
                return Err(Error::File {
                    path: template.dest.clone(),
                    reason: reason.into(),
                });
            }
            _ => continue,
        }
        template.link = true;
        surface.link(view, &template.dest, &format!("{FILES}{}", template.dest));
    }
    // Directories that only their owners may pass would stop any other user at the link.
    let closed: Vec<String> = surface
        .directories
        .values()
        .filter(|d| u32::from_str_radix(&d.mode, 8).is_ok_and(|mode| mode & 0o001 == 0))
        .map(|d| d.path.clone())
        .collect();
    for path in closed {
        if hides_nothing(view, &path) {
            let directory = surface.directories.get_mut(&path).expect("listed above");
            let mode = u32::from_str_radix(&directory.mode, 8).unwrap_or(0o755);
            directory.mode = format!("{:04o}", mode | 0o001);
        } else {
            warnings.push(format!(
                "{path} is closed to other users and holds files that are not: as a user other than root the box cannot read its settings there"
            ));
        }
    }
    surface.run(view, units);
    for volume in volumes {
        surface.volume(view, volume);
    }
    Ok((surface, warnings))
}

fn must_be_real(dest: &str) -> bool {
    REAL.iter().any(|prefix| dest.starts_with(prefix)) || dest.contains("/.ssh/")
}

/// Why it cannot be one, whoever wants it.
fn no_link(view: &Sandbox, template: &Template, volumes: &[Volume]) -> Option<&'static str> {
    let dest = &template.dest;
    let on = |volume: &Volume| Path::new(dest).starts_with(&volume.path);
    if volumes.iter().any(on) {
        return Some("it lies on a volume, which is writable anyhow");
    }
    if u32::from_str_radix(&template.mode, 8).is_ok_and(|mode| mode & 0o111 != 0) {
        return Some("it is executable, and nothing can be executed in /run");
    }
    if !stat(view, dest).is_some_and(|file| file.is_file()) {
        return Some("it is a link already");
    }
    if !parents(dest).all(|parent| stat(view, parent).is_some_and(|d| d.is_dir())) {
        // An entry for such a path in a layer would replace the link by a directory.
        return Some("one of its directories is a link");
    }
    None
}

/// `/etc`, `/etc/redis` of `/etc/redis/redis.conf`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .map(|(at, _)| &path[..at])
        .filter(|parent| !parent.is_empty())
}

fn names(view: &Sandbox, directory: &str) -> std::io::Result<Vec<String>> {
    let dir = view.open_file(directory)?;
    fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Whether everything in a directory is closed to other users by its own mode.
fn hides_nothing(view: &Sandbox, path: &str) -> bool {
    names(view, path).is_ok_and(|names| {
        names.iter().all(|name| {
            stat(view, &format!("{path}/{name}")).is_some_and(|file| file.mode() & 0o007 == 0)
        })
    })
}

impl Surface {
    fn link(&mut self, view: &Sandbox, path: &str, target: &str) {
        for parent in parents(path) {
            if let Some(found) = stat(view, parent) {
                self.directories
                    .entry(parent.to_owned())
                    .or_insert_with(|| directory(parent, &found));
            }
        }
        self.links.insert(path.to_owned(), relative(path, target));
    }

    /// What services write to `/run`: a place of its own for each, found from their units.
    fn run(&mut self, view: &Sandbox, units: &[Unit]) {
        self.link(view, RUN, "/dev/shm/tiffin");
        // Group 0 may write there when it is a tmpfs, which takes over owner and mode.
        if let Some(run) = self.directories.get_mut("/run") {
            run.mode = "0775".into();
        }
        let mut made = tmpfiles(view);
        for unit in units {
            let Some(text) = view.read(&unit.path).ok() else {
                continue;
            };
            let text = String::from_utf8_lossy(&text);
            let Ok(parsed) = systemd::parse(&unit.name, &[&text]) else {
                continue; // the start says why
            };
            let service = parsed.value;
            let supervisor = services::supervisord::config(&service);
            let pid_file = match service.kind {
                services::Kind::Forking { pid_file } => pid_file,
                _ => None,
            };
            let sockets = sockets(view, supervisor);
            made.extend(service.directories.into_iter().map(|d| d.path));
            made.extend(pid_file.into_iter().chain(sockets));
        }
        for path in made {
            let path = path.strip_prefix("/var").unwrap_or(&path);
            let Some(name) = path.strip_prefix("/run/").and_then(|p| p.split('/').next()) else {
                continue;
            };
            if !name.is_empty() && name != "tiffin" {
                self.link(view, &format!("/run/{name}"), &format!("{RUN}/run/{name}"));
            }
        }
    }

    /// Any user of group 0 may use a new volume. What the playbooks made on it is made
    /// again at start, by whoever the box runs as: an engine would copy it with its owners.
    fn volume(&mut self, view: &Sandbox, volume: &Volume) {
        for parent in parents(&volume.path) {
            if let Some(found) = stat(view, parent) {
                let made = directory(parent, &found);
                self.directories.entry(parent.to_owned()).or_insert(made);
            }
        }
        let Some(found) = stat(view, &volume.path).filter(fs::Metadata::is_dir) else {
            return;
        };
        let mut made = directory(&volume.path, &found);
        made.gid = 0;
        made.mode = format!("{:04o}", found.mode() & 0o7777 | 0o070);
        self.directories.insert(volume.path.clone(), made);
        for path in volume.directories.iter().map(|d| &d.path) {
            let direct = Path::new(path).parent() == Some(Path::new(&volume.path));
            if direct && holds_directories_alone(view, path, 0) {
                self.removed.push(path.clone());
            }
        }
    }
}

/// The directories that packages want made at each start, as the start reads them.
fn tmpfiles(view: &Sandbox) -> Vec<String> {
    let paths = systemd::tmpfiles_paths(|directory| names(view, directory).unwrap_or_default());
    let texts = paths.iter().filter_map(|path| view.read(path).ok());
    let listed = texts.flat_map(|text| systemd::tmpfiles(&String::from_utf8_lossy(&text)).value);
    listed
        .filter(|listed| listed.what == systemd::Wanted::Directory)
        .map(|listed| listed.path)
        .collect()
}

/// Where supervisorctl is answered.
fn sockets(view: &Sandbox, config: Option<String>) -> Vec<String> {
    let read = |path: String| {
        let text = String::from_utf8(view.read(&path).ok()?).ok()?;
        let file = services::supervisord::File {
            path: &path,
            text: &text,
        };
        services::supervisord::daemon(&[file], &BTreeMap::new()).ok()
    };
    let servers = config.and_then(read).map(|daemon| daemon.servers);
    let unix = |server: services::supervisord::Server| match server.address {
        services::supervisord::Address::Unix { path, .. } => Some(path),
        services::supervisord::Address::Inet(_) => None,
    };
    servers.into_iter().flatten().filter_map(unix).collect()
}

fn holds_directories_alone(view: &Sandbox, path: &str, depth: usize) -> bool {
    let Ok(dir) = view.open_file(path) else {
        return false;
    };
    let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())) else {
        return false;
    };
    depth < 64
        && entries.flatten().all(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir())
                && entry.file_name().into_string().is_ok_and(|name| {
                    holds_directories_alone(view, &format!("{path}/{name}"), depth + 1)
                })
        })
}

/// What a link at `from` has to hold to lead to `to`.
fn relative(from: &str, to: &str) -> String {
    let from: Vec<&str> = from.split('/').collect();
    let to: Vec<&str> = to.split('/').collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from.len().saturating_sub(common + 1);
    let mut parts = vec![".."; up];
    parts.extend(&to[common..]);
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_holds_a_relative_path() {
        for (from, to, wanted) in [
            (
                "/etc/a",
                "/run/tiffin/files/etc/a",
                "../run/tiffin/files/etc/a",
            ),
            ("/etc/b/a", "/run/x", "../../run/x"),
            ("/run/tiffin", "/dev/shm/tiffin", "../dev/shm/tiffin"),
            ("/run/redis", "/run/tiffin/run/redis", "tiffin/run/redis"),
        ] {
            assert_eq!(relative(from, to), wanted, "{from} -> {to}");
        }
    }

    #[test]
    fn what_programs_insist_on_stays_a_file() {
        for dest in [
            "/etc/cron.d/x",
            "/etc/sudoers.d/x",
            "/home/x/.ssh/config",
            "/etc/hosts",
        ] {
            assert!(must_be_real(dest), "{dest}");
        }
        for dest in [
            "/etc/redis/redis.conf",
            "/etc/systemd/system/x.service",
            "/opt/x/y.cfg",
        ] {
            assert!(!must_be_real(dest), "{dest}");
        }
    }
}
