//! The sandbox's side: becomes the first process of new namespaces, mounts the root file
//! system, then only reaps until its standard input ends.

use std::{
    env, fs,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, symlinkat},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, mount_remount, unmount,
    },
    process::{WaitOptions, pivot_root, wait},
    thread::{UnshareFlags, set_name},
};

use super::{Layout, user};

/// Hidden command of the builder that leads here.
pub const VERB: &str = "sandbox-init";
/// Environment variable that carries the [`Layout`] as JSON.
pub const LAYOUT: &str = "TIFFIN_SANDBOX_LAYOUT";
/// Set for the second stage, which is the first process of the new PID namespace.
const STAGE: &str = "TIFFIN_SANDBOX_STAGE";

/// What `tiffin sandbox-init` does.
pub fn main() -> ExitCode {
    let done = if env::var_os(STAGE).is_some() {
        first_process()
    } else {
        unshare()
    };
    match done {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// For a process with one thread, and namespaces alone.
pub(super) fn unshare_flags(flags: UnshareFlags) -> rustix::io::Result<()> {
    #[allow(unsafe_code)]
    // SAFETY: no file descriptors or memory are unshared, and this process has one thread.
    unsafe {
        rustix::thread::unshare_unsafe(flags)
    }
}

/// New namespaces take effect for children as far as PIDs go, so a second stage is started.
fn unshare() -> Result<ExitCode, String> {
    let mut flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    if layout()?.offline {
        flags |= UnshareFlags::NEWNET;
    }
    unshare_flags(flags).map_err(|e| format!("cannot make namespaces: {e}"))?;
    let helper = env::current_exe().map_err(|e| e.to_string())?;
    let mut child = Command::new(helper)
        .arg(VERB)
        .env(STAGE, "2")
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start the first process: {e}"))?;
    let mut word = String::new();
    let out = child.stdout.take().expect("piped above");
    let _ = io::BufRead::read_line(&mut io::BufReader::new(out), &mut word);
    if word.trim() == "ready" {
        println!("{}", child.id());
    }
    // Keep no copy of the lifeline: only the first process must watch it.
    let status = child.wait().map_err(|e| e.to_string())?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn first_process() -> Result<ExitCode, String> {
    let layout = layout()?;
    // Ctrl-C reaches the whole foreground group; the builder decides when this ends.
    let _ = rustix::process::setsid();
    mount_root(&layout)?;
    if layout.offline {
        loopback().map_err(|e| format!("cannot bring up the loopback interface: {e}"))?;
    }
    let _ = rustix::system::sethostname(layout.host_name.as_bytes());
    // Ansible's fact `ansible_service_mgr` is the name of process 1.
    let _ = set_name(c"systemd");
    println!("ready");
    let _ = io::stdout().flush();
    reap_until_closed();
    Ok(ExitCode::SUCCESS)
}

fn layout() -> Result<Layout, String> {
    let text = env::var(LAYOUT).map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

/// Services talk to each other over it. rtnetlink(7): `ip link set lo up`.
fn loopback() -> rustix::io::Result<()> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

    const NEW_LINK: u16 = 16;
    const REQUEST_AND_ANSWER: u16 = 1 | 4;
    const UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_AND_ANSWER.to_ne_bytes());
    // Sequence and sender, then family and type: none.
    message.extend([0; 12]);
    // A new namespace has this interface alone.
    message.extend(1_i32.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&netlink, &message, SendFlags::empty())?;
    let mut answer = [0; 64];
    recv(&netlink, &mut answer[..], RecvFlags::empty())?;
    // nlmsgerr: 0, or a negative number of an error.
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    match code {
        0 => Ok(()),
        code => Err(rustix::io::Errno::from_raw_os_error(-code)),
    }
}

fn reap_until_closed() {
    let stdin = io::stdin();
    loop {
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        let _ = poll(&mut watched, Some(&pause));
        if watched[0]
            .revents()
            .intersects(PollFlags::HUP | PollFlags::IN | PollFlags::ERR)
        {
            return;
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// Opens a directory of the new root one name after the other, never through a link. What is then
/// mounted or made there is in this directory, whatever takes its name in the meantime (buildkit
/// CVE-2024-23651): as long as the root is not changed, a link leads to the machine.
fn enter(root: BorrowedFd, path: &str, make: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = openat(root, ".", flags, Mode::empty())?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let found = match openat(&dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) if make => {
                match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                openat(&dir, name, flags, Mode::empty())
            }
            found => found,
        };
        dir = found?;
    }
    Ok(dir)
}

/// A name of an open directory or file that leads nowhere else.
fn named(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn mount_root(layout: &Layout) -> Result<(), String> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|e| format!("cannot make mounts private: {e}"))?;
    overlay(layout)?;
    let say = |what: &'static str| move |e: Errno| format!("cannot mount {what}: {e}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, &layout.mount_point, flags, Mode::empty())
        .map_err(|e| format!("cannot open the new root: {e}"))?;
    let enter = |path: &str, make: bool| enter(root.as_fd(), path, make);
    let place = |path: &str| {
        let make = layout.upper.is_some();
        enter(path, make).map_err(|e| match e {
            Errno::NOTDIR | Errno::LOOP => {
                format!("cannot mount {path}: in this root file system it is no directory")
            }
            e => format!("cannot mount {path}: {e}"),
        })
    };
    // All of them before anything is mounted.
    let [proc, sys, dev, run, tmp] = ["/proc", "/sys", "/dev", "/run", "/tmp"].map(&place);
    let (proc, sys, dev, run, tmp) = (proc?, sys?, dev?, run?, tmp?);
    let guarded = MountFlags::NOSUID | MountFlags::NODEV;
    mount(
        "proc",
        named(&proc),
        "proc",
        guarded | MountFlags::NOEXEC,
        None,
    )
    .map_err(|e| {
        // The kernel shows no more of /proc than its parent sees.
        let hidden = user::is_in_namespace() && e == Errno::PERM;
        match hidden {
            true => format!(
                "cannot mount /proc: {e}: parts of this container's own are hidden\nhint: {}",
                user::CONTAINER
            ),
            false => format!("cannot mount /proc: {e}"),
        }
    })?;
    // A task may read the build machine's kernel settings, never change them.
    match user::is_in_namespace() {
        // What is mounted below cannot be taken off there; it belongs to others.
        true => mount_bind_recursive("/sys", named(&sys)),
        false => mount_bind("/sys", named(&sys)),
    }
    .map_err(say("/sys"))?;
    let settings = place("/proc/sys")?;
    mount_bind(named(&settings), named(&settings)).map_err(say("/proc/sys"))?;
    for path in ["/sys", "/proc/sys"] {
        let flags = MountFlags::BIND | MountFlags::RDONLY | guarded | MountFlags::NOEXEC;
        // Opened again: what is mounted there now.
        mount_remount(named(&place(path)?), flags, "")
            .map_err(say("a read-only view of the kernel's settings"))?;
    }
    mount("tmpfs", named(&run), "tmpfs", guarded, Some(c"mode=0755")).map_err(say("/run"))?;
    mount("tmpfs", named(&tmp), "tmpfs", guarded, Some(c"mode=1777")).map_err(say("/tmp"))?;
    devices(root.as_fd(), &dev)?;
    for path in ["/run/systemd/system", "/run/lock", "/run/tiffin"] {
        enter(path, true).map_err(|e| format!("cannot make {path}: {e}"))?;
    }
    for (host, target) in &layout.binds {
        let shown = target.display();
        let Some((parent, name)) = target.to_str().and_then(|path| path.rsplit_once('/')) else {
            return Err(format!("cannot show anything as {shown}"));
        };
        if parent == "/run" || parent.starts_with("/run/") {
            enter(&shown.to_string(), true).map_err(|e| format!("cannot make {shown}: {e}"))?;
        }
        // Outside /run only what is there can be covered without leaving a trace in the
        // layer, and never through a link of the box.
        let there = enter(parent, false).and_then(|dir| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&dir, name, flags, Mode::empty())
        });
        let Ok(there) = there else { continue };
        let link = fstat(&there)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if link {
            continue;
        }
        mount_bind_recursive(host, named(&there))
            .map_err(|e| format!("cannot show {} as {shown}: {e}", host.display()))?;
    }
    rustix::process::fchdir(&root).map_err(|e| format!("cannot enter the new root: {e}"))?;
    pivot_root(".", ".").map_err(|e| format!("cannot change the root: {e}"))?;
    unmount(".", UnmountFlags::DETACH).map_err(|e| format!("cannot leave the old root: {e}"))?;
    env::set_current_dir("/").map_err(|e| e.to_string())
}

fn overlay(layout: &Layout) -> Result<(), String> {
    let at = &layout.mount_point;
    let shown = |path: &Path| {
        path.display()
            .to_string()
            .replace('\\', "\\\\")
            .replace(':', "\\:")
            .replace(',', "\\,")
    };
    let lower: Vec<String> = layout.lower.iter().rev().map(|p| shown(p)).collect();
    // Renamed directories and metadata-only copies would need overlayfs to read them back;
    // a layer must stand on its own.
    let mut options = "redirect_dir=off,metacopy=off,index=off,xino=off".to_owned();
    match &layout.upper {
        Some(upper) => {
            if lower.is_empty() {
                return mount_bind_recursive(&upper.upper, at)
                    .map_err(|e| format!("cannot mount the root: {e}"));
            }
            options += &format!(
                ",upperdir={},workdir={}",
                shown(&upper.upper),
                shown(&upper.work)
            );
        }
        None if lower.len() == 1 => {
            return mount_bind_recursive(&layout.lower[0], at)
                .map_err(|e| format!("cannot mount the root: {e}"));
        }
        None => options = "redirect_dir=off,metacopy=off".to_owned(),
    }
    if user::is_in_namespace() {
        // The kernel wants the redirects that `off` would follow ruled out.
        options = options.replace("redirect_dir=off", "redirect_dir=nofollow") + ",userxattr";
    }
    options += &format!(",lowerdir={}", lower.join(":"));
    let options = std::ffi::CString::new(options).map_err(|e| e.to_string())?;
    mount(
        "overlay",
        at,
        "overlay",
        MountFlags::NODEV,
        Some(options.as_c_str()),
    )
    .map_err(|e| no_overlay(at, e))
}

fn no_overlay(at: &Path, errno: rustix::io::Errno) -> String {
    let plain = format!("cannot mount the overlay in {}: {errno}", at.display());
    if !user::is_in_namespace() {
        return plain;
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = kernel
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let restricted = fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    let hint = if version < (5, 11) {
        "without root this needs Linux 5.11 or later: run `sudo tiffin build`".to_owned()
    } else if restricted.is_ok_and(|text| text.trim() == "1") {
        "AppArmor lets no program mount in a user namespace that has no profile of its own: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run `sudo tiffin build`".to_owned()
    } else if user::in_container() {
        format!(
            "the cache must not lie on a container's own layers: {}",
            user::CONTAINER
        )
    } else {
        "the cache must lie on a file system that takes extended attributes of users, not on an overlay or a network's: choose another with --cache".to_owned()
    };
    format!("{plain}\nhint: {hint}")
}

fn devices(root: BorrowedFd, place: &OwnedFd) -> Result<(), String> {
    let say = |e: Errno| format!("cannot make /dev: {e}");
    mount(
        "tmpfs",
        named(place),
        "tmpfs",
        MountFlags::NOSUID,
        Some(c"mode=0755"),
    )
    .map_err(|e| format!("cannot mount /dev: {e}"))?;
    let dev = enter(root, "/dev", false).map_err(say)?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let host = Path::new("/dev").join(name);
        if fs::metadata(&host).is_ok_and(|m| m.file_type().is_char_device()) {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let made = openat(&dev, name, flags, Mode::from_raw_mode(0o644)).map_err(say)?;
            mount_bind_recursive(&host, named(&made))
                .map_err(|e| format!("cannot show /dev/{name}: {e}"))?;
        }
    }
    let make = |name: &str| enter(dev.as_fd(), name, true).map_err(say);
    let _ = mount(
        "devpts",
        named(&make("pts")?),
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"),
    );
    mount(
        "tmpfs",
        named(&make("shm")?),
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=1777"),
    )
    .map_err(|e| format!("cannot mount /dev/shm: {e}"))?;
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlinkat(target, &dev, link).map_err(say)?;
    }
    Ok(())
}
