//! One command of the recipe's `support`, with a limit.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Made, PART};

pub const LIMIT: Duration = Duration::from_secs(5);

/// What it wrote, errors after the rest; it and its children end with the limit.
pub fn run(words: &[String], trusted: &[(String, String)]) -> Made {
    let mut text = Vec::new();
    let problem = tried(words, trusted, &mut text).err();
    Made { text, problem }
}

fn tried(words: &[String], trusted: &[(String, String)], text: &mut Vec<u8>) -> Result<(), String> {
    let [program, arguments @ ..] = words else {
        return Err("it has no words".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", crate::sys::PATH)
        .env("LANG", "C.UTF-8")
        .envs(trusted.iter().map(|(name, path)| (name, path)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot execute {program}: {}", crate::sys::text_of(&error)))?;
    let until = Instant::now() + LIMIT;
    let (out, errors) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(format!("{program}: {status}")),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            _ => break Err(format!("it did not end within {} s", LIMIT.as_secs())),
        }
    };
    // Whatever it left behind holds the pipes open.
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
    for stream in [out, errors] {
        text.extend(
            stream
                .recv_timeout(Duration::from_secs(1))
                .unwrap_or_default(),
        );
    }
    ended
}

/// Reads to the end and keeps the beginning.
fn reader(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stream) = stream {
            // One byte more than fits, so that the rest is seen to be missing.
            let _ = stream.by_ref().take(PART as u64 + 1).read_to_end(&mut text);
            let _ = sender.send(text);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    receiver
}
