//! The name `supervisord`: the programs of a configuration, without a box around them.
//!
//! Enough for supervisord's own end-to-end tests and for scripts that start it by hand.
//! What clients read of a log comes from memory; files that `*_logfile` names are written
//! for others to read, and `*_logfile_backups` of them are kept.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use contract::Variables;
use serde_json::json;

use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::{self, say};
use crate::root::Root;
use crate::settings::Environment;
use crate::supervise::Supervisor;
use crate::{plan, sys, volume};

const HELP: &str = "\
supervisord -- run a set of applications as daemons.

Usage: supervisord [options]

-c/--configuration FILENAME -- the configuration file
-n/--nodaemon -- run in the foreground
-h/--help or -? -- print this usage message and exit
-v/--version -- print the version and exit
-u/--user USER -- accepted; the programs have users of their own
-l/--logfile FILENAME -- use FILENAME as logfile path
-e/--loglevel LEVEL -- use LEVEL as log level
-j/--pidfile FILENAME -- write a pid file for the daemon process to FILENAME
-i/--identifier STR -- identifier used for this instance of supervisord

This is Tiffin's entrypoint under supervisord's name.
";

/// Where supervisord looks when it is not told.
const PLACES: &[&str] = &["/etc/supervisord.conf", "/etc/supervisor/supervisord.conf"];

#[derive(Default)]
struct Options {
    file: Option<String>,
    foreground: bool,
    identifier: Option<String>,
    logfile: Option<String>,
    loglevel: Option<String>,
    pidfile: Option<String>,
}

/// Runs as supervisord if that is the name we are called by.
pub fn called(name: &OsStr, arguments: &[OsString], environment: &Environment) -> Option<ExitCode> {
    if name.to_string_lossy().rsplit('/').next() != Some("supervisord") {
        return None;
    }
    let words: Vec<String> = arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let code = run(&words, environment).unwrap_or_else(|failure| {
        eprintln!("Error: {failure}\nFor help, use supervisord -h");
        // supervisord's own code for what is wrong with its configuration.
        ExitCode::from(2)
    });
    Some(code)
}

fn parse(words: &[String]) -> Result<Option<Options>> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=').filter(|_| word.starts_with("--")) {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || {
            value
                .clone()
                .or_else(|| words.next().cloned())
                .ok_or_else(|| {
                    Failure::new(Code::Usage, format!("option {name} requires argument"))
                })
        };
        match name {
            "-?" | "-h" | "--help" => {
                print!("{HELP}");
                return Ok(None);
            }
            "-v" | "--version" => {
                println!("4.3.0");
                return Ok(None);
            }
            "-n" | "--nodaemon" => options.foreground = true,
            "-s" | "--silent" | "-t" | "--strip_ansi" | "-k" | "--nocleanup" => {}
            "-c" | "--configuration" => options.file = Some(value()?),
            "-i" | "--identifier" => options.identifier = Some(value()?),
            "-l" | "--logfile" => options.logfile = Some(value()?),
            "-e" | "--loglevel" => options.loglevel = Some(value()?),
            "-j" | "--pidfile" => options.pidfile = Some(value()?),
            "-u" | "--user" | "-m" | "--umask" | "-d" | "--directory" | "-y"
            | "--logfile_maxbytes" | "-z" | "--logfile_backups" | "-q" | "--childlogdir" | "-a"
            | "--minfds" | "--minprocs" => drop(value()?),
            other => {
                return Err(Failure::new(
                    Code::Usage,
                    format!("option {other} not recognized"),
                ));
            }
        }
    }
    Ok(Some(options))
}

fn run(words: &[String], environment: &Environment) -> Result<ExitCode> {
    let Some(options) = parse(words)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let root = Root::new("/");
    let file = match &options.file {
        Some(file) => file.clone(),
        None => (*PLACES
            .iter()
            .find(|place| root.path(place).is_file())
            .ok_or_else(|| Failure::new(Code::Config, "No config file found at default paths"))?)
        .to_owned(),
    };
    // Relative to where we are now, whatever becomes of that.
    let file = std::path::absolute(&file)
        .map_err(|error| Failure::new(Code::Config, format!("cannot find {file}: {error}")))?
        .to_string_lossy()
        .into_owned();
    let contract = crate::start::bare(&json!({
        "format": contract::FORMAT,
        "product": {"name": "supervisord", "title": "supervisord", "version": "4.3.0"},
    }))?;
    let variables = Variables::default();
    let engine = Engine::new(&contract, &variables);
    let again = || plan::programs(&file, &contract, &engine, &root, &environment.variables);
    let mut plan = again()?;
    let daemon = plan.daemon.get_or_insert_default();
    let foreground = options.foreground || daemon.nodaemon;
    if let Some(identifier) = options.identifier {
        daemon.identifier = identifier;
    }
    let level = options.loglevel.unwrap_or_else(|| daemon.loglevel.clone());
    let logfile = options.logfile.or_else(|| daemon.logfile.clone());
    let pidfile = options.pidfile.or_else(|| daemon.pidfile.clone());
    if !foreground {
        // Errors of the configuration were said; the rest happens behind the caller's back.
        let error = sys::detach(words).err();
        return match error {
            None => Ok(ExitCode::SUCCESS),
            Some(error) => Err(Failure::new(
                Code::Internal,
                format!("cannot start in the background: {error}"),
            )),
        };
    }
    log::speak_as_supervisord(logfile.as_deref(), &level);
    for warning in &plan.warnings {
        say(warning);
    }
    let pid = std::process::id();
    if let Some(pidfile) = &pidfile
        && let Err(error) = std::fs::write(pidfile, format!("{pid}\n"))
    {
        say(&format!("could not write pidfile {pidfile}: {error}"));
    }
    let memory = volume::State::new(&contract, &root);
    let supervisor = Supervisor::new(plan, &root, environment, &memory, "4.3.0")?;
    say(&format!("supervisord started with pid {pid}"));
    supervisor.rereading(&again).run();
    if let Some(pidfile) = &pidfile {
        let _ = std::fs::remove_file(pidfile);
    }
    Ok(ExitCode::SUCCESS)
}
