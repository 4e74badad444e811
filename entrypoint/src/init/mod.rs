//! The names `tini` and `dumb-init`: an init for one command, as scripts of images call it.
//!
//! Nothing of a box is read here. Both block every signal, start the command, and then
//! wait for signals alone: one to pass on, or a child to reap.

mod dumb_init;
mod tini;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::Pid;

use crate::sys::{self, Ended};

/// Runs as the init that `name` means, if it means one.
pub fn called(name: &OsStr, arguments: &[OsString]) -> Option<ExitCode> {
    let name = name.to_string_lossy();
    match name.rsplit('/').next() {
        Some("tini") => Some(ExitCode::from(tini::run(&name, arguments))),
        Some("dumb-init") => Some(ExitCode::from(dumb_init::run(&name, arguments))),
        _ => None,
    }
}

/// Options as letter and value, and the command that follows them.
type Options<'a> = (Vec<(char, String)>, &'a [OsString]);

/// Options as getopt reads them up to the first word that is none: (letter, value).
fn options<'a>(
    words: &'a [OsString],
    long: &[(&str, char)],
    with_value: &str,
    known: &str,
) -> Result<Options<'a>, String> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at).map(|word| word.to_string_lossy()) {
        if word == "--" {
            at += 1;
            break;
        }
        let value_after = |at: &mut usize| {
            *at += 1;
            words.get(*at).map(|w| w.to_string_lossy().into_owned())
        };
        if let Some(name) = word.strip_prefix("--") {
            let (name, value) = name
                .split_once('=')
                .map_or((name, None), |(n, v)| (n, Some(v)));
            let Some((_, letter)) = long.iter().find(|(known, _)| *known == name) else {
                return Err(format!("unrecognized option '--{name}'"));
            };
            let value = if with_value.contains(*letter) {
                match value {
                    Some(value) => value.to_owned(),
                    None => value_after(&mut at)
                        .ok_or_else(|| format!("option '--{name}' requires an argument"))?,
                }
            } else {
                String::new()
            };
            found.push((*letter, value));
        } else if let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            let mut rest = letters.chars();
            while let Some(letter) = rest.next() {
                if with_value.contains(letter) {
                    let value = match rest.as_str() {
                        "" => value_after(&mut at)
                            .ok_or_else(|| format!("option requires an argument -- '{letter}'"))?,
                        value => value.to_owned(),
                    };
                    found.push((letter, value));
                    break;
                }
                if !known.contains(letter) {
                    return Err(format!("invalid option -- '{letter}'"));
                }
                found.push((letter, String::new()));
            }
        } else {
            break;
        }
        at += 1;
    }
    Ok((found, &words[at.min(words.len())..]))
}

/// Blocks every signal, and returns the mask that was.
fn block_all() -> SigSet {
    let before = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
    let _ = SigSet::all().thread_block();
    // Ignored, a child would be reaped by nobody and its end not be known.
    sys::default_signal(Signal::SIGCHLD);
    before
}

/// The next signal.
fn next_signal() -> Signal {
    loop {
        // Real-time signals have no name and mean nothing here.
        if let Ok(signal) = SigSet::all().wait() {
            return signal;
        }
    }
}

fn shell_code(ended: Ended) -> u8 {
    let code = match ended {
        Ended::Exit(code) => code,
        Ended::Signal(signal) => 128 + signal,
    };
    (code & 0xff) as u8
}

fn forward(child: Pid, group: bool, signal: i32) {
    if group {
        sys::kill_group(child, signal);
    } else {
        sys::kill(child, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<(String, usize), String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let (found, rest) = options(&words, &[("rewrite", 'r'), ("help", 'h')], "re", "hvs")?;
        let found: Vec<String> = found.iter().map(|(l, v)| format!("{l}{v}")).collect();
        Ok((found.join(" "), rest.len()))
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let ok = |words: &[&str], found: &str, rest| {
            assert_eq!(read(words), Ok((found.to_owned(), rest)), "{words:?}");
        };
        ok(&["-vvs", "-e", "3", "-e4", "sh", "-c"], "v v s e3 e4", 2);
        ok(&["-s", "--", "-x"], "s", 1);
        ok(
            &["--rewrite", "1:2", "--rewrite=3:4", "--help"],
            "r1:2 r3:4 h",
            0,
        );
        ok(&["-"], "", 1);
        assert!(read(&["--yolo"]).is_err());
        assert!(read(&["-x"]).is_err());
        assert!(read(&["-e"]).is_err());
        assert!(read(&["--rewrite"]).is_err());
    }
}
