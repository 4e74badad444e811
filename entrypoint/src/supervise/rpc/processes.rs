//! Processes by their names, and what is told of them.

use services::{Log, LogFile, Program};

use super::super::Supervisor;
use super::super::slot::Slot;
use super::{Groups, members};
use crate::log::say;
use crate::supervisord::faults::{Code, Fault};
use crate::supervisord::words::{Moment, ProcessState, unix_time, uptime};
use crate::supervisord::xmlrpc::Value;
use crate::sys::Ended;

/// What a name means.
pub enum Named {
    Group(String),
    Process(usize),
}

impl Slot {
    pub fn program(&self) -> Option<&Program> {
        self.planned
            .service
            .program
            .as_deref()
            .filter(|_| !self.process.removed)
    }
}

impl Supervisor<'_> {
    /// The processes of each group, by name.
    pub(in super::super) fn groups(&self) -> Groups {
        let mut groups = Groups::new();
        for (at, slot) in self.slots.iter().enumerate() {
            if let Some(program) = slot.program() {
                groups.entry(program.group.clone()).or_default().push(at);
            }
        }
        groups
    }

    /// `name`, `group:name`, `group:*`, `group:`.
    pub(super) fn named(&self, name: &str) -> Result<Named, Fault> {
        let (group, process) = name.split_once(':').unwrap_or((name, name));
        let mut members = (0..self.slots.len())
            .filter(|at| self.slots[*at].program().is_some_and(|p| p.group == group))
            .peekable();
        if members.peek().is_none() {
            return Err(Code::BadName.about(name));
        }
        if name.contains(':') && matches!(process, "" | "*") {
            return Ok(Named::Group(group.to_owned()));
        }
        members
            .find(|at| {
                self.slots[*at]
                    .program()
                    .is_some_and(|p| p.process == process)
            })
            .map(Named::Process)
            .ok_or_else(|| Code::BadName.about(name))
    }

    /// One process; a whole group is a bad name here.
    pub(super) fn process(&self, name: &str) -> Result<usize, Fault> {
        match self.named(name)? {
            Named::Process(at) => Ok(at),
            Named::Group(_) => Err(Code::BadName.about(name)),
        }
    }

    pub(super) fn members_of(&self, group: &str) -> Result<Vec<usize>, Fault> {
        let mut members = self
            .groups()
            .remove(group)
            .ok_or_else(|| Code::BadName.about(group))?;
        members.sort_by_key(|at| self.slots[*at].program().map(|p| p.priority));
        Ok(members)
    }

    /// As they are started: by priority of the group, then of the process.
    pub(super) fn by_priority(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.groups().into_values().flatten().collect();
        all.sort_by_key(|at| {
            self.slots[*at]
                .program()
                .map(|p| (p.group_priority, p.group.clone(), p.priority))
        });
        all
    }

    pub(super) fn by_name(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.groups().into_values().flatten().collect();
        all.sort_by_key(|at| {
            self.slots[*at]
                .program()
                .map(|p| (p.group.clone(), p.process.clone()))
        });
        all
    }

    pub(in super::super) fn process_state(&self, at: usize) -> ProcessState {
        self.slots[at].machine.process_state()
    }

    pub(super) fn info(&self, at: usize) -> Value {
        let slot = &self.slots[at];
        let state = self.process_state(at);
        let process = &slot.process;
        let now = unix_time();
        let pid = slot.main.map_or(0, |pid| pid.as_raw_nonzero().get());
        let (name, group, stdout, stderr) = slot.program().map_or_else(Default::default, |p| {
            (
                p.process.clone(),
                p.group.clone(),
                shown(&p.stdout),
                if p.redirect_stderr {
                    String::new()
                } else {
                    shown(&p.stderr)
                },
            )
        });
        let description = match state {
            ProcessState::Running => {
                format!("pid {pid}, uptime {}", uptime(now - process.started))
            }
            ProcessState::Fatal | ProcessState::Backoff => {
                if process.spawn_error.is_empty() {
                    format!("unknown error (try \"tail {name}\")")
                } else {
                    process.spawn_error.clone()
                }
            }
            ProcessState::Stopped | ProcessState::Exited if process.started == 0 => {
                "Not started".to_owned()
            }
            ProcessState::Stopped | ProcessState::Exited => Moment::of(process.stopped).short(),
            ProcessState::Starting | ProcessState::Stopping => String::new(),
        };
        members([
            ("name", name.into()),
            ("group", group.into()),
            ("start", Value::int(process.started)),
            ("stop", Value::int(process.stopped)),
            ("now", Value::int(now)),
            ("state", Value::int(state as i32)),
            ("statename", state.name().into()),
            ("spawnerr", process.spawn_error.as_str().into()),
            ("exitstatus", Value::int(process.exit_status.unwrap_or(0))),
            ("logfile", stdout.as_str().into()),
            ("stdout_logfile", stdout.into()),
            ("stderr_logfile", stderr.into()),
            ("pid", Value::int(pid)),
            ("description", description.into()),
        ])
    }

    /// The main process of a program ended, and the machine does not know it yet.
    pub(in super::super) fn note_end(&mut self, at: usize, ended: Ended) {
        let state = self.process_state(at);
        let slot = &mut self.slots[at];
        let expected = slot.machine.is_success(ended);
        let code = match ended {
            Ended::Exit(code) => code,
            Ended::Signal(_) => -1,
        };
        slot.process.stopped = unix_time();
        slot.process.input = None;
        slot.process.unread = Vec::new();
        slot.process.expected = expected;
        match state {
            ProcessState::Starting => {
                slot.process.exit_status = None;
                slot.process.spawn_error =
                    "Exited too quickly (process log may have details)".to_owned();
            }
            ProcessState::Running => {
                slot.process.exit_status = Some(code);
                if !expected {
                    slot.process.spawn_error = format!("Bad exit code {code}");
                }
            }
            _ => slot.process.exit_status = Some(code),
        }
        if self.alone {
            let slot = &self.slots[at];
            let name = slot.program().map_or("", |p| &p.process);
            let how = match ended {
                Ended::Exit(code) => format!("exit status {code}"),
                Ended::Signal(signal) => {
                    format!("terminated by {}", services::signal_name(signal))
                }
            };
            say(&match state {
                ProcessState::Stopping => format!("stopped: {name} ({how})"),
                ProcessState::Running if expected => format!("exited: {name} ({how}; expected)"),
                _ => format!("exited: {name} ({how}; not expected)"),
            });
        }
        self.listener_ended(at);
    }

    /// Writes to the standard input of a process what it takes now, and keeps the rest.
    pub(super) fn send_input(&mut self, at: usize, name: &str, bytes: &[u8]) -> Result<(), Fault> {
        /// A process that does not read its input is no reason to grow.
        const LIMIT: usize = 1 << 20;
        let state = self.process_state(at);
        let slot = &mut self.slots[at];
        if slot.main.is_none() || state == ProcessState::Stopping {
            return Err(Code::NotRunning.about(name));
        }
        if slot.process.input.is_none() {
            return Err(Code::NoFile.about(name));
        }
        if slot.process.unread.len() + bytes.len() > LIMIT {
            return Err(Code::Failed.about("the process does not read its standard input"));
        }
        slot.process.unread.extend_from_slice(bytes);
        self.feed_input(at);
        if self.slots[at].process.input.is_none() {
            return Err(Code::NoFile.about(name));
        }
        Ok(())
    }

    pub(in super::super) fn feed_input(&mut self, at: usize) {
        use super::super::{INPUT, KIND};
        use rustix::event::epoll::{self, EventData, EventFlags};
        use rustix::io::Errno;
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let Some(input) = &slot.process.input else {
            return;
        };
        let unread = &mut slot.process.unread;
        while !unread.is_empty() {
            match rustix::io::write(input, unread) {
                Ok(count) => drop(unread.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let data = EventData::new_u64(INPUT << KIND | at as u64);
                    let _ = epoll::add(&self.epoll, input, data, EventFlags::OUT);
                    return;
                }
                Err(_) => {
                    // It has closed its end.
                    slot.process.input = None;
                    slot.process.unread = Vec::new();
                    return;
                }
            }
        }
        let _ = epoll::delete(&self.epoll, input);
    }

    pub(super) fn say_remote(&self, what: &str) {
        say(&format!("supervisorctl: {what}"));
    }
}

fn shown(log: &Log) -> String {
    match &log.file {
        LogFile::Path(path) => path.clone(),
        LogFile::Auto | LogFile::None => String::new(),
    }
}
