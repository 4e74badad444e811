//! One service's `move` command, step by step. It is told where to on its standard input, as
//! that holds a password, and what it says is masked before anybody sees it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use contract::Contract;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};

use super::cannot;
use crate::accounts::{Accounts, Credentials};
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::plan::{self, Plan};
use crate::support::Redactor;
use crate::sys;

/// A longer line is cut; what a pipe takes without a reader is more than this.
const LINE: usize = 16 << 10;

pub struct Step {
    pub name: String,
    words: Vec<String>,
    to: String,
    environment: Vec<(String, String)>,
    credentials: Credentials,
}

impl Step {
    /// `old` and `new` render with the settings as they are and as they will be; `trusted` says
    /// where the authorities are by which the new server is known.
    pub fn new(
        contract: &Contract,
        name: &str,
        here: &Plan,
        old: &Engine<'_>,
        new: &Engine<'_>,
        accounts: &Accounts,
        trusted: &[(String, String)],
    ) -> Result<Self> {
        let wrong = |reason: String| cannot(&format!("the `move` of {name}: {reason}"));
        let said = contract.services.get(name).and_then(|s| s.r#move.as_ref());
        let planned = here.services.iter().map(|planned| &planned.service);
        let service = planned.into_iter().find(|s| plan::is_called(s, name));
        let (Some(said), Some(service)) = (said, service) else {
            return Err(wrong("there is none".to_owned()));
        };
        let words = said.command.iter().map(|word| old.text(word));
        let to = new.text(&said.to).map_err(&wrong)?;
        if to.is_empty() || to.len() > LINE || to.contains('\n') {
            return Err(wrong("its `to` is not one line".to_owned()));
        }
        let credentials = accounts.credentials(name, &service.identity)?;
        Ok(Step {
            name: name.to_owned(),
            words: words.collect::<Result<_, _>>().map_err(wrong)?,
            to,
            environment: [&credentials.user.environment(), trusted].concat(),
            credentials,
        })
    }

    /// # Errors
    ///
    /// When it does not exit with 0, or is told to end; it has said why.
    pub fn run(&self, word: &str, overwrite: bool, redactor: &Redactor) -> Result<()> {
        let broken = |error: io::Error| {
            let program = self.words.first().map_or("", String::as_str);
            self.failed(word, &format!("{program} cannot be run: {error}"))
        };
        let signals = sys::ending_signals().map_err(|error| broken(error.into()))?;
        let (pid, output) = self.start(word, overwrite).map_err(broken)?;
        let mut lines = Lines::default();
        let mut stopped = 0;
        loop {
            let mut fds = [
                PollFd::new(&output, PollFlags::IN),
                PollFd::new(&signals, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(broken(error.into())),
            }
            while let Ok(Some(signal)) = signals.read_signal() {
                if signal.ssi_signo != Signal::SIGWINCH as u32 {
                    stopped += 1;
                    // It ends what it has started; who insists has it killed.
                    match stopped {
                        1 => sys::kill(pid, 15),
                        _ => sys::kill_group(pid, 9),
                    }
                }
            }
            if fds[0].revents().is_empty() {
                continue;
            }
            let mut buffer = [0; 4096];
            match rustix::io::read(&output, &mut buffer) {
                Ok(0) => break,
                Ok(count) => lines.add(&buffer[..count], |line| self.tell(line, redactor)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(broken(error.into())),
            }
        }
        lines.end(|line| self.tell(line, redactor));
        let status = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        // Nothing that it leaves behind may go on with the data.
        sys::kill_group(pid, 9);
        let ended = status.map_err(|error| broken(error.into()))?;
        match ended.map(|(_, status)| status) {
            _ if stopped > 0 => Err(self.failed(word, "it was stopped")),
            Some(status) if status.exit_status() == Some(0) => Ok(()),
            status => Err(self.failed(word, &status.map_or_else(String::new, sys::told))),
        }
    }

    fn tell(&self, line: &[u8], redactor: &Redactor) {
        let line = String::from_utf8_lossy(line);
        say(&format!(
            "{}: {}",
            self.name,
            redactor.redact(line.trim_end())
        ));
    }

    fn failed(&self, word: &str, reason: &str) -> Failure {
        let what = match word {
            "check" => "the server is not as it must be",
            "copy" => "the data was not copied",
            _ => "the copy is not the same as the data",
        };
        Failure::new(
            Code::Failed,
            format!(
                "cannot move {}: {what} (`{word}`: {reason}); nothing of the box was changed",
                self.name
            ),
        )
    }

    fn start(&self, word: &str, overwrite: bool) -> io::Result<(Pid, OwnedFd)> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let (input, told) = pipe()?;
        let line = format!("{}\n", self.to);
        // It fits into the pipe: see LINE.
        rustix::io::write(&told, line.as_bytes())?;
        drop(told);
        let (output, written) = pipe()?;
        let errors = written.as_fd().try_clone_to_owned()?;
        let mut words = self.words.clone();
        words.push(word.to_owned());
        words.extend(overwrite.then(|| "--overwrite".to_owned()));
        let pid = sys::spawn(&mut sys::Setup {
            argv: &words,
            argv0: None,
            environment: &self.environment,
            directory: Some("/".into()),
            credentials: &self.credentials,
            umask: 0o077,
            nice: None,
            oom_score_adj: None,
            limits: &[],
            number: None,
            privileges: None,
            output: &written,
            errors: &errors,
            input: Some(input),
        })?;
        Ok((pid, output))
    }
}

/// Bytes as lines, however they come.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for byte in bytes {
            match byte {
                b'\n' => each(&std::mem::take(&mut self.0)),
                _ if self.0.len() < LINE => self.0.push(*byte),
                _ => {}
            }
        }
    }

    fn end(self, mut each: impl FnMut(&[u8])) {
        if !self.0.is_empty() {
            each(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_bounded() {
        let mut said: Vec<Vec<u8>> = Vec::new();
        let mut lines = Lines::default();
        for part in [&b"one\ntw"[..], b"o\n\nlast"] {
            lines.add(part, |line| said.push(line.to_vec()));
        }
        lines.add(&vec![b'x'; 2 * LINE], |line| said.push(line.to_vec()));
        lines.end(|line| said.push(line.to_vec()));
        assert_eq!(said[..3], [b"one".to_vec(), b"two".to_vec(), Vec::new()]);
        assert_eq!(said[3].len(), LINE);
    }
}
