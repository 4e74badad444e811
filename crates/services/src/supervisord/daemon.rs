//! What concerns supervisord itself: its sockets, its name and its files.

use std::collections::BTreeMap;

use super::program::{File, base_names};
use super::{expand, ini};
use crate::Error;
use crate::text::{boolean, octal};

/// `[supervisord]`, `[unix_http_server]` and `[inet_http_server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// What getIdentification answers.
    pub identifier: String,
    pub logfile: Option<String>,
    pub loglevel: String,
    pub pidfile: Option<String>,
    pub nodaemon: bool,
    pub servers: Vec<Server>,
}

/// One place where XML-RPC is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub address: Address,
    /// `username` and `password`; the password may be `{SHA}` and 40 hexadecimal digits.
    pub login: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix {
        path: String,
        mode: u32,
        /// `user` or `user:group`.
        owner: Option<String>,
    },
    /// `address:port`; an empty address is any.
    Inet(String),
}

impl Default for Daemon {
    fn default() -> Self {
        Daemon {
            identifier: "supervisor".to_owned(),
            logfile: None,
            loglevel: "info".to_owned(),
            pidfile: None,
            nodaemon: false,
            servers: Vec::new(),
        }
    }
}

/// What `files` say about the daemon: the main file first, then the included ones.
///
/// # Errors
///
/// A file that is no ini file, or a key whose value cannot be read, named with its place.
pub fn daemon(files: &[File<'_>], environment: &BTreeMap<String, String>) -> Result<Daemon, Error> {
    let mut daemon = Daemon::default();
    for file in files {
        let names = base_names(*file, environment);
        for section in ini::read(file.path, file.text)? {
            let place = format!("{}: [{}]", file.path, section.name);
            let fail = |key: &str, reason: String| Error::new(format!("{place} {key}"), reason);
            let get = |key: &str| {
                section
                    .get(key)
                    .filter(|value| !value.is_empty())
                    .map(|value| expand::expand(value, &names).map_err(|r| fail(key, r)))
                    .transpose()
            };
            match section.name.as_str() {
                "supervisord" => {
                    if let Some(identifier) = get("identifier")? {
                        daemon.identifier = identifier;
                    }
                    if let Some(level) = get("loglevel")? {
                        daemon.loglevel = level.to_ascii_lowercase();
                    }
                    daemon.logfile = get("logfile")?;
                    daemon.pidfile = get("pidfile")?;
                    if let Some(value) = get("nodaemon")? {
                        daemon.nodaemon = boolean(&value).ok_or_else(|| {
                            fail("nodaemon", format!("`{value}` is neither true nor false"))
                        })?;
                    }
                }
                "unix_http_server" | "inet_http_server" => {
                    let login = match (get("username")?, get("password")?) {
                        (Some(user), Some(password)) => Some((user, password)),
                        (None, None) => None,
                        _ => {
                            return Err(fail(
                                "username",
                                "username and password must be given together".to_owned(),
                            ));
                        }
                    };
                    let address = if section.name == "inet_http_server" {
                        let port =
                            get("port")?.ok_or_else(|| fail("port", "it is missing".to_owned()))?;
                        Address::Inet(inet(&port).map_err(|r| fail("port", r))?)
                    } else {
                        let path =
                            get("file")?.ok_or_else(|| fail("file", "it is missing".to_owned()))?;
                        let mode = match get("chmod")? {
                            None => 0o700,
                            Some(mode) => octal(&mode).ok_or_else(|| {
                                fail("chmod", format!("`{mode}` is not an octal mode"))
                            })?,
                        };
                        Address::Unix {
                            path,
                            mode,
                            owner: get("chown")?,
                        }
                    };
                    daemon.servers.push(Server { address, login });
                }
                _ => {}
            }
        }
    }
    Ok(daemon)
}

/// `9001`, `:9001`, `*:9001`, `127.0.0.1:9001`, `localhost:9001`.
pub(super) fn inet(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let number: u16 = port
        .trim()
        .parse()
        .map_err(|_| format!("`{text}` is not host:port"))?;
    let host = match host {
        "" | "*" => "0.0.0.0",
        "localhost" => "127.0.0.1",
        host => host,
    };
    let address = format!("{host}:{number}");
    address
        .parse::<std::net::SocketAddr>()
        .map_err(|_| format!("`{host}` is not an IP address; names are not looked up"))?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Daemon, Error> {
        let path = "/etc/supervisor/supervisord.conf";
        daemon(&[File { path, text }], &BTreeMap::new())
    }

    #[test]
    fn sockets_with_their_rights() {
        let got = read(
            "[unix_http_server]\nfile=%(here)s/s.sock\nchmod=0770\nchown=root:web\nusername=a\npassword=b%%\n\
             [inet_http_server]\nport=*:9001\n[supervisord]\nidentifier=box\nnodaemon=true\n",
        )
        .unwrap();
        assert_eq!(got.identifier, "box");
        assert!(got.nodaemon);
        let [unix, inet] = &got.servers[..] else {
            panic!("{got:?}")
        };
        assert_eq!(unix.login, Some(("a".to_owned(), "b%".to_owned())));
        let want = Address::Unix {
            path: "/etc/supervisor/s.sock".to_owned(),
            mode: 0o770,
            owner: Some("root:web".to_owned()),
        };
        assert_eq!(unix.address, want);
        assert_eq!(inet.address, Address::Inet("0.0.0.0:9001".to_owned()));
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        for (text, place) in [
            ("[unix_http_server]\nfile=/s\nusername=a\n", "username"),
            ("[unix_http_server]\nfile=/s\nchmod=9\n", "chmod"),
            ("[unix_http_server]\n", "file"),
            ("[inet_http_server]\nport=example.org:1\n", "port"),
            ("[inet_http_server]\nport=x\n", "port"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.place.ends_with(place), "{error}");
        }
    }
}
