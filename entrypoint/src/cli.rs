//! What was typed, as a verb.

use std::path::PathBuf;

use crate::backup;
use crate::control::Question;
use crate::exit::{Code, Failure, Result};
use crate::moving;
use crate::settings::reference::Format;
use crate::start::Shown;
use crate::upgrade::rollback::Wanted;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    Start,
    Help,
    Settings(Format),
    /// `settings --origin`
    Origin {
        json: bool,
    },
    Check,
    Render(Shown),
    Explain {
        name: String,
        json: bool,
    },
    Status {
        json: bool,
    },
    Certificates {
        json: bool,
    },
    Logs {
        name: Option<String>,
        follow: bool,
    },
    StartService(String),
    StopService(String),
    RestartService(String),
    Reload {
        dry_run: bool,
    },
    ReloadService(String),
    /// One of the three questions, or whether all services are ready now.
    Health(Question),
    Version,
    /// What the machine has, and what the box needs.
    Preflight {
        json: bool,
    },
    /// The link to the status page; or, not for people, the process that serves it.
    StatusPage {
        serve: bool,
    },
    /// To a file, or to standard output.
    SupportBundle {
        output: Option<String>,
    },
    Manifest(crate::manifest::Wanted),
    Rollback(Wanted),
    /// Not for people: what an upgrade does before services start.
    BeforeUpgrade,
    Top {
        once: bool,
    },
    Backup(backup::Options),
    /// Not for people: what the timer of scheduled backups starts.
    ScheduledBackup,
    /// `backup verify FILE`
    VerifyBackup(String),
    Restore(backup::RestoreOptions),
    Move(moving::Options),
    /// Not for people: one readiness check, see `supervise::probe`.
    Probe(Vec<String>),
    /// Nor this: one log file, see `supervise::rotate`.
    Rotate(Vec<String>),
    /// Anything else is a command to run with the configuration rendered.
    Command(Vec<String>),
}

pub const HELP: &str = "\
docker run IMAGE                     start everything
docker run --rm IMAGE help           this text
docker run --rm IMAGE settings       what can be set; --format text|markdown|json|schema|env
docker run --rm IMAGE settings --origin  the values and where each is from; --format text|json
docker run --rm IMAGE check          whether the settings given are right
docker run --rm IMAGE preflight      whether the machine has what the box needs; --json
docker run --rm IMAGE render [PATH…] the configuration files as they would be;
                                     --diff only what changes, --show-secrets
docker run --rm IMAGE explain NAME   what a setting, variable or file reaches; --json
docker run --rm IMAGE manifest PLATFORM  what runs the box there: docker-run, compose, swarm,
                                     kubernetes, quadlet, systemd, nomad; --name, --memory, --cpus,
                                     --scale web=3,worker=4 for a box of each role
docker run --rm IMAGE version        name and version
docker run --rm -v data:/data IMAGE rollback [VERSION]  put back the data that an upgrade kept;
                                     --list shows what is kept, --yes does it
docker run -it IMAGE COMMAND…        any other command, with the configuration rendered

docker exec BOX tiffin status        the services and how they are; --json
docker exec -it BOX tiffin top       what they use at this moment; --once
docker exec BOX tiffin certificates  those that its servers use, and when they end; --json
docker exec BOX tiffin logs [NAME]   their last lines; -f follows
docker exec BOX tiffin start NAME    likewise stop NAME, restart NAME
docker exec BOX tiffin reload        read the settings again, restart what changes;
                                     --dry-run only shows it, reload NAME one service
docker exec BOX tiffin status-page   the link to the status page, see TIFFIN_STATUS_PAGE
docker exec BOX tiffin support-bundle > support.tar.gz
                                     what support needs to know, without secrets; -o FILE
docker exec BOX tiffin backup > FILE all that the volumes hold, taken while the box runs;
                                     -o FILE into the container, --progress
docker run --rm -i IMAGE backup verify - < FILE  whether an archive is whole, and what it holds
docker run --rm -i -v VOLUME:/data IMAGE restore - < FILE  into a new volume; --overwrite
docker run --rm -i -v VOLUME:/data IMAGE move - < FILE  databases to the servers that FILE's
                                     settings name; --check, --overwrite, --copy-only
docker exec BOX tiffin health        0 when all services are ready; --live, --ready, --started
";

fn backup_options(mut words: &[&str]) -> Option<Verb> {
    let mut options = backup::Options::default();
    while let Some((word, rest)) = words.split_first() {
        words = rest;
        match *word {
            "--progress" => options.progress = true,
            "-o" | "--output" => {
                let (file, rest) = words.split_first()?;
                words = rest;
                options.output = (*file != "-").then(|| (*file).to_owned());
            }
            _ => return None,
        }
    }
    Some(Verb::Backup(options))
}

fn restore_options(words: &[&str]) -> Option<Verb> {
    let (mut file, mut overwrite, mut progress) = (None, false, false);
    for word in words {
        match *word {
            "--overwrite" => overwrite = true,
            "--progress" => progress = true,
            name if file.is_none() && (name == "-" || !name.starts_with('-')) => {
                file = Some(name.to_owned());
            }
            _ => return None,
        }
    }
    Some(Verb::Restore(backup::RestoreOptions {
        file: file?,
        overwrite,
        progress,
    }))
}

fn move_options(words: &[&str]) -> Option<Verb> {
    let mut options = moving::Options::default();
    for word in words {
        match *word {
            "--check" => options.check = true,
            "--overwrite" => options.overwrite = true,
            "--copy-only" => options.copy_only = true,
            name if options.file.is_empty() && (name == "-" || !name.starts_with('-')) => {
                options.file = name.to_owned();
            }
            _ => return None,
        }
    }
    (!options.file.is_empty()).then_some(Verb::Move(options))
}

/// `--root DIR` before the verb is for tests: the box's files are looked for below DIR.
pub fn parse(arguments: &[String]) -> Result<(PathBuf, Verb)> {
    let (root, words) = match arguments {
        [option, root, rest @ ..] if option == "--root" => (PathBuf::from(root), rest),
        _ => (PathBuf::from("/"), arguments),
    };
    let Some((verb, rest)) = words.split_first() else {
        return Ok((root, Verb::Start));
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let usage = || {
        Failure::new(
            Code::Usage,
            format!("cannot understand `{}`", words.join(" ")),
        )
        .hint("`help` lists what can be asked for")
    };
    let verb = match (verb.as_str(), &rest[..]) {
        ("start", []) => Verb::Start,
        ("start", [name]) => Verb::StartService((*name).to_owned()),
        ("stop", [name]) => Verb::StopService((*name).to_owned()),
        ("restart", [name]) => Verb::RestartService((*name).to_owned()),
        ("help" | "--help" | "-h", []) => Verb::Help,
        ("settings", []) => Verb::Settings(Format::Text),
        ("settings", ["--format", format]) => Verb::Settings(match *format {
            "text" => Format::Text,
            "markdown" => Format::Markdown,
            "json" => Format::Json,
            "schema" => Format::Schema,
            "env" => Format::Env,
            _ => return Err(usage()),
        }),
        (
            "settings",
            ["--origin"] | ["--origin", "--format", "text"] | ["--format", "text", "--origin"],
        ) => Verb::Origin { json: false },
        ("settings", ["--origin", "--format", "json"] | ["--format", "json", "--origin"]) => {
            Verb::Origin { json: true }
        }
        ("backup", ["verify", file]) if !file.starts_with("--") => {
            Verb::VerifyBackup((*file).to_owned())
        }
        ("backup", ["--scheduled"]) => Verb::ScheduledBackup,
        ("backup", rest) => backup_options(rest).ok_or_else(usage)?,
        ("restore", rest) => restore_options(rest).ok_or_else(usage)?,
        ("move", rest) => move_options(rest).ok_or_else(usage)?,
        ("check", []) => Verb::Check,
        ("render", rest) => {
            let mut shown = Shown::default();
            for word in rest {
                match *word {
                    "--show-secrets" => shown.secrets = true,
                    "--diff" => shown.diff = true,
                    option if option.starts_with('-') => return Err(usage()),
                    path => shown.paths.push(path.to_owned()),
                }
            }
            Verb::Render(shown)
        }
        ("explain", [name] | ["--json", name] | [name, "--json"]) if !name.starts_with('-') => {
            Verb::Explain {
                name: (*name).to_owned(),
                json: rest.len() > 1,
            }
        }
        ("rollback", ["--before"]) => Verb::BeforeUpgrade,
        ("rollback", rest) => {
            let mut wanted = Wanted::default();
            for word in rest {
                match *word {
                    "--list" => wanted.list = true,
                    "--yes" => wanted.yes = true,
                    option if option.starts_with('-') => return Err(usage()),
                    version if wanted.version.is_none() => {
                        wanted.version = Some(version.to_owned())
                    }
                    _ => return Err(usage()),
                }
            }
            Verb::Rollback(wanted)
        }
        ("reload", []) => Verb::Reload { dry_run: false },
        ("reload", ["--dry-run"]) => Verb::Reload { dry_run: true },
        ("reload", [name]) if !name.starts_with('-') => Verb::ReloadService((*name).to_owned()),
        ("status", []) => Verb::Status { json: false },
        ("status", ["--json"]) => Verb::Status { json: true },
        ("top", []) => Verb::Top { once: false },
        ("top", ["--once"]) => Verb::Top { once: true },
        ("certificates", []) => Verb::Certificates { json: false },
        ("certificates", ["--json"]) => Verb::Certificates { json: true },
        ("logs", []) => Verb::Logs {
            name: None,
            follow: false,
        },
        ("logs", ["-f" | "--follow"]) => Verb::Logs {
            name: None,
            follow: true,
        },
        ("logs", [name] | ["-f" | "--follow", name] | [name, "-f" | "--follow"])
            if !name.starts_with('-') =>
        {
            Verb::Logs {
                name: Some((*name).to_owned()),
                follow: rest.len() > 1,
            }
        }
        ("health", ["--live"]) => Verb::Health(Question::Live),
        ("health", [] | ["--ready"]) => Verb::Health(Question::Ready),
        ("health", ["--started"]) => Verb::Health(Question::Started),
        ("version" | "--version", []) => Verb::Version,
        ("status-page", []) => Verb::StatusPage { serve: false },
        ("status-page", ["--serve"]) => Verb::StatusPage { serve: true },
        ("support-bundle", []) => Verb::SupportBundle { output: None },
        ("support-bundle", ["-o" | "--output", path]) => Verb::SupportBundle {
            output: Some((*path).to_owned()),
        },
        ("preflight", []) => Verb::Preflight { json: false },
        ("preflight", ["--json"]) => Verb::Preflight { json: true },
        ("manifest", words) => Verb::Manifest(crate::manifest::parse(words)?),
        ("probe", rest) => Verb::Probe(rest.iter().map(|word| (*word).to_owned()).collect()),
        (crate::supervise::rotate::VERB, rest) => {
            Verb::Rotate(rest.iter().map(|word| (*word).to_owned()).collect())
        }
        (
            "start" | "stop" | "restart" | "reload" | "explain" | "help" | "settings" | "check"
            | "status" | "certificates" | "logs" | "health" | "version" | "preflight"
            | "support-bundle" | "status-page" | "top",
            _,
        ) => return Err(usage()),
        (option, _) if option.starts_with('-') => return Err(usage()),
        _ => Verb::Command(words.to_vec()),
    };
    Ok((root, verb))
}
