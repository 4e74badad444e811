//! `validate:` of a template task, as `nginx -t -c %s`: the new text is shown to the
//! program before it takes the old one's place.
//!
//! As with Ansible the text lies in a file elsewhere, and the program sees the other files
//! as they are at that moment. The files are written in the playbook's order, so those
//! that came earlier there are new already and later ones old; when one is refused, all
//! are put back.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::exit::{Code, Failure, Result};
use crate::root::{Owned, Root, cannot_create};
use crate::secrets::Secrets;
use crate::sys::PATH;

const DIRECTORY: &str = "/run/tiffin/validate";
const TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of the program's output that are shown.
const SHOWN: usize = 20;

/// # Errors
///
/// [`Code::Config`] with the program's output when it refuses. A box that does not have
/// the program does not ask it.
pub fn validate(
    root: &Root,
    dest: &str,
    command: &str,
    text: &str,
    owned: Owned,
    secrets: &Secrets,
) -> Result<()> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let Some(program) = words.first().and_then(|word| find(root, word)) else {
        return Ok(());
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
    let ended = run(&program, &words);
    let _ = std::fs::remove_file(root.path(&path));
    let (what, output) = match ended {
        Ok((true, _)) => return Ok(()),
        Ok((false, output)) => ("refuses it", output),
        Err(error) => ("cannot be run", error.to_string()),
    };
    let mut message = format!("cannot write {dest}: its check `{command}` {what}");
    let output = output.replace(&file, dest);
    let lines: Vec<&str> = output.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        message.push_str(&format!("\n  {}", secrets.line(line)));
    }
    Err(Failure::new(Code::Config, message)
        .hint("the check is the playbook's; the file stays as it was"))
}

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

/// Whether it exited with 0, and what it wrote. The output goes to a file: a pipe that is
/// full would stop it.
fn run(program: &std::path::Path, words: &[String]) -> std::io::Result<(bool, String)> {
    use std::io::{Read as _, Seek as _};
    let output = rustix::fs::memfd_create(c"validate", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut output = std::fs::File::from(output);
    let mut child = Command::new(program)
        .args(words)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    let end = Instant::now() + TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    output.rewind()?;
    let mut bytes = Vec::new();
    output.take(1 << 20).read_to_end(&mut bytes)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_none() {
        text.push_str(&format!("\nit did not end within {} s", TIMEOUT.as_secs()));
    }
    Ok((status.is_some_and(|status| status.success()), text))
}
