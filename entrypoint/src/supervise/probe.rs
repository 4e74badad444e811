//! Readiness checks. Each runs as a process of its own, this binary called as `probe`, so
//! that a peer which does not answer can never hold up PID 1.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::exit::Code;
use crate::ready::Probe;
use crate::sys::address;

const FIRST: Duration = Duration::from_millis(10);
/// Asking a socket costs next to nothing, and what waits for it starts the sooner.
const SOCKET: Duration = Duration::from_millis(20);
const COMMAND: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(5);

/// The arguments with which [`run`] makes this check; `before` is [`identity`] as it was when
/// the service started.
pub fn arguments(probe: &Probe, before: &str) -> Vec<String> {
    let words: Vec<&str> = match probe {
        Probe::Tcp(address) => vec!["tcp", address],
        Probe::Unix(path) => vec!["unix", path],
        Probe::Http {
            address,
            host,
            path,
        } => vec!["http", address, host, path],
        Probe::Command(command) => vec!["command", command],
        Probe::File(path) => vec!["file", path, before],
        // Whoever reads the output makes it.
        Probe::Log(_) => Vec::new(),
    };
    ["/proc/self/exe", "probe"]
        .into_iter()
        .chain(words)
        .map(str::to_owned)
        .collect()
}

/// Tries until it succeeds; whoever started it sets the limit.
pub fn run(arguments: &[String]) -> Code {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mut pause, longest) = match words.first() {
        Some(&"command") => (FIRST, COMMAND),
        _ => (FIRST, SOCKET),
    };
    loop {
        let begun = Instant::now();
        let good = match words[..] {
            ["tcp", at] => {
                address(at).is_ok_and(|at| TcpStream::connect_timeout(&at, ANSWER).is_ok())
            }
            ["unix", path] => UnixStream::connect(path).is_ok(),
            ["http", at, host, path] => address(at).is_ok_and(|at| http(&at, host, path)),
            ["command", line] => Command::new("/bin/sh")
                .args(["-c", line])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
            ["file", path, before] => !["", before].contains(&identity(path).as_str()),
            _ => return Code::Usage,
        };
        if good {
            return Code::Ok;
        }
        std::thread::sleep(pause.saturating_sub(begun.elapsed()));
        pause = pause.mul_f64(1.5).min(longest);
    }
}

/// Tells a file from one that was there before it, and from itself after it was written anew;
/// empty without a file. A link is followed.
pub fn identity(path: &str) -> String {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map_or_else(
        |_| String::new(),
        |file| {
            let (inode, when) = (file.ino(), file.ctime());
            format!("{}:{inode}:{when}.{}", file.dev(), file.ctime_nsec())
        },
    )
}

fn http(address: &SocketAddr, host: &str, path: &str) -> bool {
    let get = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tiffin\r\nConnection: close\r\n\r\n"
        )?;
        // `HTTP/1.1 200`
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.starts_with(b"HTTP/1.") && matches!(status[9], b'2' | b'3'))
    };
    get().unwrap_or(false)
}
