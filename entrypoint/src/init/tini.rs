//! `tini [-s] [-g] [-w] [-p SIGNAL] [-e CODE] [-v] PROGRAM…`.

use std::ffi::OsString;

use nix::sys::signal::Signal;

use super::{block_all, forward, next_signal, options, shell_code};
use crate::sys::{self, Isolation};

const VERSION: &str = "tini version 0.19.0 (tiffin)";
const USAGE: &str = "\
Usage: tini [OPTIONS] PROGRAM -- [ARGS] | --version

  --version     show the version
  -h            this text
  -s            become a subreaper: reap what is not our own child
  -p SIGNAL     get SIGNAL when the parent dies, such as SIGKILL
  -v            say more; up to 3 times
  -w            warn when a process is reaped
  -g            send signals to the process group of the child
  -e CODE       exit with 0 when the child exits with CODE; may be given again
  -l            show the license

TINI_SUBREAPER, TINI_KILL_PROCESS_GROUP and TINI_VERBOSITY stand for -s, -g and -v.
";

fn fatal(message: &str) {
    eprintln!("[FATAL tini ({})] {message}", std::process::id());
}

pub fn run(_name: &str, arguments: &[OsString]) -> u8 {
    if let [only] = arguments
        && only == "--version"
    {
        println!("{VERSION}");
        return 0;
    }
    let (found, command) = match options(arguments, &[], "pe", "hvwgls") {
        Ok(found) => found,
        Err(reason) => {
            eprint!("tini: {reason}\n{USAGE}");
            return 1;
        }
    };
    let set = |name: &str| std::env::var_os(name).is_some();
    let mut subreaper = set("TINI_SUBREAPER");
    let mut group = set("TINI_KILL_PROCESS_GROUP");
    let (mut warn, mut verbosity) = (false, 1);
    let mut death = None;
    let mut expected = [false; 256];
    for (letter, value) in &found {
        match letter {
            'h' => {
                print!("{USAGE}");
                return 0;
            }
            'l' => {
                println!(
                    "Part of Tiffin, under the Apache License 2.0; tini itself is not in here."
                );
                return 0;
            }
            's' => subreaper = true,
            'g' => group = true,
            'w' => warn = true,
            'v' => verbosity += 1,
            'p' => match services::signal_number(value).filter(|_| value.starts_with("SIG")) {
                Some(signal) => death = Some(signal),
                None => {
                    fatal(&format!("Not a valid option for -p: {value}"));
                    return 1;
                }
            },
            _ => match value.parse::<u8>() {
                Ok(code) => expected[usize::from(code)] = true,
                Err(_) => {
                    fatal(&format!("Not a valid option for -e: {value}"));
                    return 1;
                }
            },
        }
    }
    if let Some(given) = std::env::var_os("TINI_VERBOSITY") {
        verbosity = given.to_string_lossy().trim().parse().unwrap_or(0);
    }
    let Some(program) = command.first() else {
        eprint!("{USAGE}");
        return 1;
    };
    let mask = block_all();
    if let Some(signal) = death {
        sys::die_with_parent(signal);
    }
    if subreaper {
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
    let reaps =
        std::process::id() == 1 || rustix::process::child_subreaper().is_ok_and(|is| is.is_some());
    if !reaps && verbosity > 0 {
        eprintln!(
            "[WARN  tini ({})] Tini is not running as PID 1 and isn't registered as a child subreaper.\n\
             Zombie processes will not be re-parented to Tini, so zombie reaping won't work.\n\
             To fix the problem, use the -s option or set the environment variable TINI_SUBREAPER \
             to register Tini as a child subreaper, or run Tini as PID 1.",
            std::process::id()
        );
    }
    let child = match sys::spawn_foreground(command, Isolation::Group, mask, None) {
        Ok(child) => child,
        Err(error) => {
            fatal(&format!(
                "exec {} failed: {}",
                program.to_string_lossy(),
                sys::text_of(&error)
            ));
            return match error.kind() {
                std::io::ErrorKind::NotFound => 127,
                std::io::ErrorKind::PermissionDenied => 126,
                _ => 1,
            };
        }
    };
    if verbosity > 1 {
        println!(
            "[INFO  tini ({})] Spawned child process '{}' with pid '{}'",
            std::process::id(),
            program.to_string_lossy(),
            child.as_raw_nonzero()
        );
    }
    loop {
        let signal = next_signal();
        if signal != Signal::SIGCHLD {
            forward(child, group, signal as i32);
            continue;
        }
        let mut code = None;
        while let Some((pid, ended)) = sys::reap() {
            if pid == child {
                code = Some(shell_code(ended));
            } else if warn && verbosity > 0 {
                eprintln!(
                    "[WARN  tini ({})] Reaped zombie process with pid={}",
                    std::process::id(),
                    pid.as_raw_nonzero()
                );
            }
        }
        if let Some(code) = code {
            return if expected[usize::from(code)] { 0 } else { code };
        }
    }
}
