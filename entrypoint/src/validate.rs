//! `validate:` of a template task, as `nginx -t -c %s`: the new text is shown to the
//! program before it takes the old one's place.
//!
//! As with Ansible the text lies in a file elsewhere, and the program sees the other files
//! as they are at that moment. The files are written in the playbook's order, so those
//! that came earlier there are new already and later ones old; when one is refused, all
//! are put back.

use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::exit::{Code, Failure, Result};
use crate::root::{Owned, Root, cannot_create};
use crate::secrets::Secrets;
use crate::sys::{self, PATH};

const DIRECTORY: &str = "/run/tiffin/validate";
const TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of the program's output that are shown.
const SHOWN: usize = 20;

/// The program, as it reads the new text.
pub struct Check<'a> {
    dest: &'a str,
    command: &'a str,
    /// Where the text lies meanwhile.
    path: String,
    child: Child,
    /// A file: a pipe that is full would stop the program.
    output: std::fs::File,
    until: Instant,
    late: bool,
}

impl<'a> Check<'a> {
    /// A box that does not have the program does not ask it.
    ///
    /// # Errors
    ///
    /// When the text cannot be written, or the program cannot be started.
    pub fn ask(
        root: &Root,
        dest: &'a str,
        command: &'a str,
        text: &str,
        owned: Owned,
    ) -> Result<Option<Self>> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let Some(program) = words.first().and_then(|word| find(root, word)) else {
            return Ok(None);
        };
        let own = Owned {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode: 0o755,
        };
        root.directory(DIRECTORY, own)?;
        let name = dest.rsplit('/').next().unwrap_or("file");
        let path = format!("{DIRECTORY}/{name}");
        root.render(&path, text.as_bytes(), owned)
            .map_err(|error| cannot_create("the file", &path, &error))?;
        let file = root.path(&path).to_string_lossy().into_owned();
        let words: Vec<String> = words[1..]
            .iter()
            .map(|word| unquoted(word).replace("%s", &file))
            .collect();
        let start = || -> std::io::Result<(Child, std::fs::File)> {
            let output = rustix::fs::memfd_create(c"validate", rustix::fs::MemfdFlags::CLOEXEC)?;
            let output = std::fs::File::from(output);
            let child = Command::new(&program)
                .args(&words)
                .env_clear()
                .env("PATH", PATH)
                .env("LANG", "C.UTF-8")
                .current_dir("/")
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output.try_clone()?)
                .spawn()?;
            Ok((child, output))
        };
        match start() {
            Ok((child, output)) => Ok(Some(Check {
                dest,
                command,
                path,
                child,
                output,
                until: Instant::now() + TIMEOUT,
                late: false,
            })),
            Err(error) => {
                let _ = std::fs::remove_file(root.path(&path));
                let message =
                    format!("cannot write {dest}: its check `{command}` cannot be run: {error}");
                Err(Failure::new(Code::Config, message).hint(HINT))
            }
        }
    }

    pub fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Until when it may run; `None` when it was killed.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.late).then_some(self.until)
    }

    /// Kills it; that it has ended is still to come.
    pub fn kill(&mut self) {
        self.late = true;
        if let Some(pid) = self.pid() {
            sys::kill_group(pid, 9);
        }
    }

    /// Waits for its end, where nobody else waits for processes: whether it exited with 0.
    pub fn wait(&mut self) -> bool {
        let end = self.pid().map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        loop {
            match self.child.try_wait() {
                Ok(None) => {}
                ended => return ended.is_ok_and(|s| s.is_some_and(|s| s.success())),
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.kill();
                return self.child.wait().is_ok_and(|status| status.success());
            }
            match &end {
                Some(Ok(end)) => {
                    let left = Timespec::try_from(left).ok();
                    let _ = poll(&mut [PollFd::new(end, PollFlags::IN)], left.as_ref());
                }
                // A kernel before 5.3.
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Nobody wants to know any more.
    pub fn abandon(mut self, root: &Root) {
        self.kill();
        let _ = std::fs::remove_file(root.path(&self.path));
    }

    /// # Errors
    ///
    /// [`Code::Config`] with the program's output when it refuses.
    pub fn verdict(mut self, root: &Root, success: bool, secrets: &Secrets) -> Result<()> {
        let file = root.path(&self.path);
        let _ = std::fs::remove_file(&file);
        if success {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let read = self.output.rewind();
        let _ = read.and_then(|()| self.output.take(1 << 20).read_to_end(&mut bytes));
        let mut output =
            String::from_utf8_lossy(&bytes).replace(&*file.to_string_lossy(), self.dest);
        if self.late {
            output.push_str(&format!("\nit did not end within {} s", TIMEOUT.as_secs()));
        }
        let (dest, command) = (self.dest, self.command);
        let mut message = format!("cannot write {dest}: its check `{command}` refuses it");
        let lines: Vec<&str> = output.lines().collect();
        for line in &lines[lines.len().saturating_sub(SHOWN)..] {
            message.push_str(&format!("\n  {}", secrets.line(line)));
        }
        Err(Failure::new(Code::Config, message).hint(HINT))
    }
}

const HINT: &str = "the check is the playbook's; the file stays as it was";

/// A shell is not involved, but people quote what they would quote for one.
fn unquoted(word: &str) -> String {
    word.trim_matches(['\'', '"']).to_owned()
}

fn find(root: &Root, word: &str) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let word = unquoted(word);
    let candidates: Vec<String> = match word.contains('/') {
        true => vec![word],
        false => PATH.split(':').map(|dir| format!("{dir}/{word}")).collect(),
    };
    candidates.iter().map(|path| root.path(path)).find(|path| {
        std::fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}
