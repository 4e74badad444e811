//! `dumb-init [-c] [-r S:R] [-v] PROGRAM…`: what it says is compared with by scripts, so
//! the words are those of dumb-init 1.2.

use std::ffi::OsString;

use nix::sys::signal::Signal;
use rustix::process::Pid;

use super::{block_all, forward, next_signal, options, shell_code};
use crate::sys::{self, Ended, Isolation};

const VERSION: &str = "1.2.5";
const MOST: usize = 31;
const LONG: &[(&str, char)] = &[
    ("help", 'h'),
    ("single-child", 'c'),
    ("rewrite", 'r'),
    ("verbose", 'v'),
    ("version", 'V'),
];
const REWRITE: &str = "\
Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and 31.
This option can be specified multiple times.
Use --help for full usage.
";
const HELP: &str = " [option] command [[arg] ...]

dumb-init is a simple process supervisor that forwards signals to children.
It is designed to run as PID1 in minimal container environments.

Optional arguments:
   -c, --single-child   Run in single-child mode.
                        In this mode, signals are only proxied to the
                        direct child and not any of its descendants.
   -r, --rewrite s:r    Rewrite received signal s to new signal r before proxying.
                        To ignore (not proxy) a signal, rewrite it to 0.
                        This option can be specified multiple times.
   -v, --verbose        Print debugging information to stderr.
   -h, --help           Print this help message and exit.
   -V, --version        Print the current version and exit.

Full help is available online at https://github.com/Yelp/dumb-init
";

struct Init {
    debug: bool,
    session: bool,
    rewrite: [Option<i32>; MOST + 1],
    /// Signals that the kernel sends us once because we let go of the terminal.
    skip: [bool; MOST + 1],
}

impl Init {
    fn debug(&self, message: std::fmt::Arguments<'_>) {
        if self.debug {
            eprintln!("[dumb-init] {message}");
        }
    }

    fn forward(&self, child: Pid, signal: i32) {
        let index = usize::try_from(signal).unwrap_or(0);
        let translated = match self.rewrite.get(index).copied().flatten() {
            Some(other) => {
                self.debug(format_args!("Translating signal {signal} to {other}."));
                other
            }
            None => signal,
        };
        if translated == 0 {
            self.debug(format_args!(
                "Not forwarding signal {translated} to children (ignored)."
            ));
            return;
        }
        forward(child, self.session, translated);
        self.debug(format_args!("Forwarded signal {translated} to children."));
    }
}

fn pair(text: &str) -> Option<(usize, i32)> {
    let (from, to) = text.split_once(':')?;
    let from = from.trim_start().parse().ok()?;
    let to = to.trim_start().parse().ok()?;
    ((1..=MOST).contains(&from) && (0..=31).contains(&to)).then_some((from, to))
}

pub fn run(name: &str, arguments: &[OsString]) -> u8 {
    let (found, command) = match options(arguments, LONG, "r", "hvVc") {
        Ok(found) => found,
        Err(reason) if reason.contains("requires an argument") => {
            eprint!("{REWRITE}");
            return 1;
        }
        Err(reason) => {
            eprintln!("{name}: {reason}");
            return 1;
        }
    };
    let is = |variable: &str, value: &str| std::env::var_os(variable).is_some_and(|v| v == value);
    let mut init = Init {
        debug: false,
        session: true,
        rewrite: [None; MOST + 1],
        skip: [false; MOST + 1],
    };
    for (letter, value) in &found {
        match letter {
            'h' => {
                eprint!("dumb-init v{VERSION}\nUsage: {name}{HELP}");
                return 0;
            }
            'V' => {
                eprintln!("dumb-init v{VERSION}");
                return 0;
            }
            'v' => init.debug = true,
            'c' => init.session = false,
            _ => match pair(value) {
                Some((from, to)) => init.rewrite[from] = Some(to),
                None => {
                    eprint!("{REWRITE}");
                    return 1;
                }
            },
        }
    }
    if command.is_empty() {
        eprintln!("Usage: {name} [option] program [args]\nTry {name} --help for full usage.");
        return 1;
    }
    if is("DUMB_INIT_DEBUG", "1") {
        init.debug = true;
        init.debug(format_args!("Running in debug mode."));
    }
    if is("DUMB_INIT_SETSID", "0") {
        init.session = false;
        init.debug(format_args!("Not running in setsid mode."));
    }
    if init.session {
        // In a session of their own nobody would continue what these suspend.
        for signal in [Signal::SIGTSTP, Signal::SIGTTOU, Signal::SIGTTIN] {
            init.rewrite[signal as usize].get_or_insert(Signal::SIGSTOP as i32);
        }
    }
    let mask = block_all();
    if init.session && sys::leave_terminal() {
        let leads = rustix::process::getsid(None) == Ok(rustix::process::getpid());
        if leads {
            init.skip[Signal::SIGHUP as usize] = true;
            init.skip[Signal::SIGCONT as usize] = true;
        }
        init.debug(format_args!("Detached from controlling tty."));
    }
    let isolation = match (init.session, init.debug) {
        (true, debug) => Isolation::Session { debug },
        (false, _) => Isolation::None,
    };
    // We keep no hold on the directory: before the command runs, so that it can rely on it.
    let here = sys::current_directory();
    let _ = std::env::set_current_dir("/");
    let child = match sys::spawn_foreground(command, isolation, mask, here.as_ref()) {
        Ok(child) => child,
        Err(error) => {
            let program = command[0].to_string_lossy();
            eprintln!("[dumb-init] {program}: {}", sys::text_of(&error));
            return 2;
        }
    };
    init.debug(format_args!(
        "Child spawned with PID {}.",
        child.as_raw_nonzero()
    ));
    drop(here);
    loop {
        let signal = next_signal();
        init.debug(format_args!("Received signal {}.", signal as i32));
        if std::mem::take(&mut init.skip[signal as usize]) {
            init.debug(format_args!(
                "Ignoring tty hand-off signal {}.",
                signal as i32
            ));
            continue;
        }
        if signal == Signal::SIGCHLD {
            while let Some((pid, ended)) = sys::reap() {
                let number = pid.as_raw_nonzero();
                match ended {
                    Ended::Exit(code) => init.debug(format_args!(
                        "A child with PID {number} exited with exit status {code}."
                    )),
                    Ended::Signal(signal) => init.debug(format_args!(
                        "A child with PID {number} was terminated by signal {signal}."
                    )),
                }
                if pid == child {
                    // What is left of its session goes too.
                    init.forward(child, Signal::SIGTERM as i32);
                    let code = shell_code(ended);
                    init.debug(format_args!("Child exited with status {code}. Goodbye."));
                    return code;
                }
            }
            continue;
        }
        init.forward(child, signal as i32);
        if matches!(signal, Signal::SIGTSTP | Signal::SIGTTOU | Signal::SIGTTIN) {
            init.debug(format_args!("Suspending self due to TTY signal."));
            sys::kill(rustix::process::getpid(), Signal::SIGSTOP as i32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_signals() {
        assert_eq!(pair("15:12"), Some((15, 12)));
        assert_eq!(pair("1:0"), Some((1, 0)));
        for text in [
            "",
            "15",
            "herp:derp",
            "15::12",
            "1:32",
            "0:1",
            "32:1",
            "1:-1",
        ] {
            assert_eq!(pair(text), None, "{text}");
        }
    }
}
