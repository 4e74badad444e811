//! The recipe's `jobs`: one-shot services of the box that timers start, with the rules of timer
//! units: never twice at once, not before what they need, and one that fails ends nothing.

use std::time::Duration;

use contract::{Contract, Job};
use services::systemd::{self, Calendar, Timer};
use services::{Command, Service, WorkingDirectory};

use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};

/// What [`service`] is made of: all of it valid, the rest is set afterwards.
const UNIT: &str = "[Service]\nType=oneshot\nExecStart=/bin/sh -c :\n";

/// The job as a service, its expressions as they are written.
pub fn service(name: &str, job: &Job) -> Result<Service> {
    let parsed = systemd::parse(&format!("{name}.service"), &[UNIT]);
    let mut service = parsed
        .map_err(|error| Failure::new(Code::Config, format!("cannot run the job {name}: {error}")))?
        .value;
    service.description = match (&job.every, &job.at) {
        (Some(every), _) => format!("Job, every {every}"),
        (None, at) => format!("Job, at {}", at.as_deref().unwrap_or_default()),
    };
    service.commands.start = vec![Command {
        words: ["/bin/sh", "-c", &job.command].map(str::to_owned).into(),
        ..Command::default()
    }];
    service.autostart = false;
    service.identity.user.clone_from(&job.user);
    service.environment = job.environment.clone().into_iter().collect();
    service.working_directory = job.directory.clone().map(|path| WorkingDirectory {
        path,
        optional: false,
    });
    service.start_timeout = job.timeout.map(|s| Duration::from_secs(s.into()));
    Ok(service)
}

/// All jobs as they are to run, and when.
///
/// # Errors
///
/// [`Code::Config`] for an expression that cannot be rendered, and for a time that is none.
pub fn planned(contract: &Contract, engine: &Engine<'_>) -> Result<Vec<(Service, Timer)>> {
    let jobs = contract.jobs.iter();
    jobs.map(|(name, job)| {
        let wrong = |what: &str, reason: String| {
            Failure::new(
                Code::Config,
                format!("cannot start the job {name}: its `{what}`: {reason}"),
            )
        };
        let text = |what: &str, text: &str| engine.text(text).map_err(|why| wrong(what, why));
        let mut rendered = job.clone();
        rendered.command = text("command", &job.command)?;
        for (what, field) in [
            ("every", &mut rendered.every),
            ("at", &mut rendered.at),
            ("user", &mut rendered.user),
            ("directory", &mut rendered.directory),
        ] {
            if let Some(raw) = field {
                *raw = text(what, raw)?;
            }
        }
        for value in rendered.environment.values_mut() {
            *value = text("environment", value)?;
        }
        let mut timer = Timer {
            unit: format!("{name}.service"),
            ..Timer::default()
        };
        if let Some(every) = &rendered.every {
            let seconds = values::seconds(every)
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0);
            let period = seconds.map(Duration::from_secs).ok_or_else(|| {
                wrong(
                    "every",
                    format!("`{every}` is no time such as 30s, 10m, 6h or 1d"),
                )
            })?;
            // The first time counts from the start of the box, the next from the last.
            timer.boot.push(period);
            timer.active.push(period);
        }
        if let Some(at) = &rendered.at {
            timer.calendar.push(Calendar::parse(at).ok_or_else(|| {
                wrong(
                    "at",
                    format!(
                        "`{at}` is no calendar event such as 03:30, Sun 04:00 or *-*-* 00/6:00"
                    ),
                )
            })?);
        }
        Ok((service(name, &rendered)?, timer))
    })
    .collect()
}
