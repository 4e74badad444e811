//! `[fcgi-program]`: one listening socket, made by us and inherited by all processes of the
//! group as their standard input, so that a restart of one loses no connection.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::rc::Rc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use services::{FastCgiAddress, FastCgiSocket};

use super::Supervisor;

impl Supervisor<'_> {
    /// Gives the process its group's socket, if it is to have one.
    pub(super) fn prepare_socket(&mut self, at: usize) -> Result<(), String> {
        let slot = &self.slots[at];
        let Some((group, wanted)) = slot
            .program()
            .and_then(|p| Some((p.group.clone(), p.socket.clone()?)))
        else {
            return Ok(());
        };
        if slot.process.socket.is_some() {
            return Ok(());
        }
        let shared = self
            .slots
            .iter()
            .filter(|other| other.program().is_some_and(|p| p.group == group))
            .find_map(|other| other.process.socket.clone());
        let socket = match shared {
            Some(socket) => socket,
            None => {
                let user = slot.credentials.user.uid;
                let group = slot.credentials.gid;
                Rc::new(
                    self.open(&wanted, (user, group))
                        .map_err(|error| format!("cannot open its FastCGI socket: {error}"))?,
                )
            }
        };
        self.slots[at].process.socket = Some(socket);
        Ok(())
    }

    fn open(&self, wanted: &FastCgiSocket, own: (u32, u32)) -> std::io::Result<OwnedFd> {
        let backlog = wanted.backlog.unwrap_or(128).clamp(1, 4096);
        let socket = |family| {
            rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        };
        match &wanted.address {
            FastCgiAddress::Tcp(address) => {
                let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
                let family = if address.is_ipv4() {
                    AddressFamily::INET
                } else {
                    AddressFamily::INET6
                };
                let fd = socket(family)?;
                rustix::net::sockopt::set_socket_reuseaddr(&fd, true)?;
                rustix::net::bind(&fd, &address)?;
                rustix::net::listen(&fd, backlog)?;
                Ok(fd)
            }
            FastCgiAddress::Unix { path, mode, owner } => {
                let full = self.root.path(path);
                if let Some(parent) = full.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                if std::fs::symlink_metadata(&full).is_ok_and(|m| m.file_type().is_socket()) {
                    std::fs::remove_file(&full)?;
                }
                let fd = socket(AddressFamily::UNIX)?;
                let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
                let bound = rustix::net::bind(&fd, &SocketAddrUnix::new(&full)?);
                rustix::process::umask(old);
                bound?;
                let (uid, gid) = match owner {
                    Some(owner) => self.accounts.owner(owner).map_err(std::io::Error::other)?,
                    None => (own.0, Some(own.1)),
                };
                std::os::unix::fs::chown(&full, Some(uid), gid)?;
                std::fs::set_permissions(&full, std::fs::Permissions::from_mode(*mode))?;
                rustix::net::listen(&fd, backlog)?;
                Ok(fd)
            }
        }
    }
}
