//! Groups that come and go: `reread`, `add`, `remove`, `update`, `reload`.

use std::time::{Duration, Instant};

use services::LogFile;

use super::super::Supervisor;
use super::super::machine::Event;
use super::super::slot::Slot;
use super::members;
use crate::log::say;
use crate::plan::{Plan, Planned};
use crate::supervisord::faults::{Code, Fault};
use crate::supervisord::xmlrpc::Value;

/// Longer than any stopwaitsecs: the process's own limit holds.
pub const NO_LIMIT: Duration = Duration::from_secs(7 * 86_400);

/// A process that the configuration describes.
#[derive(Clone)]
pub struct Available {
    planned: Planned,
    /// Names of the services that must be ready first.
    needs: Vec<String>,
}

impl Available {
    fn group(&self) -> &str {
        self.planned
            .service
            .program
            .as_ref()
            .map_or("", |program| &program.group)
    }

    fn is_like(&self, other: &Planned) -> bool {
        self.planned.service == other.service && self.planned.ready == other.ready
    }
}

fn available(plan: &Plan) -> Vec<Available> {
    plan.services
        .iter()
        .filter(|planned| planned.service.program.is_some())
        .map(|planned| Available {
            planned: planned.clone(),
            needs: planned
                .needs
                .iter()
                .filter_map(|at| Some(plan.services.get(*at)?.service.name.clone()))
                .collect(),
        })
        .collect()
}

impl Supervisor<'_> {
    /// What the configuration offers: as read last, or what runs.
    fn offered(&mut self) -> &mut Vec<Available> {
        let slots = &self.slots;
        self.rpc.available.get_or_insert_with(|| {
            slots
                .iter()
                .filter(|slot| slot.program().is_some())
                .map(|slot| Available {
                    planned: slot.planned.clone(),
                    needs: slot
                        .planned
                        .needs
                        .iter()
                        .filter_map(|at| Some(slots.get(*at)?.name().to_owned()))
                        .collect(),
                })
                .collect()
        })
    }

    /// [[added, changed, removed]].
    pub(super) fn reread(&mut self) -> Result<Value, Fault> {
        let plan = self
            .replan()
            .map_err(|failure| Code::CantReread.about(&failure.to_string()))?;
        for warning in &plan.warnings {
            say(&format!("note: {warning}"));
        }
        let offered = available(&plan);
        let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        let groups = self.groups();
        for item in &offered {
            let name = item.group().to_owned();
            match groups.get(&name) {
                _ if added.contains(&name) || changed.contains(&name) => {}
                None => added.push(name),
                Some(running) => {
                    let wanted: Vec<&Available> =
                        offered.iter().filter(|o| o.group() == name).collect();
                    let same = running.len() == wanted.len()
                        && wanted.iter().all(|one| {
                            running
                                .iter()
                                .any(|at| one.is_like(&self.slots[*at].planned))
                        });
                    if !same {
                        changed.push(name);
                    }
                }
            }
        }
        for name in groups.keys() {
            if !offered.iter().any(|item| item.group() == name) {
                removed.push(name.clone());
            }
        }
        self.rpc.available = Some(offered);
        Ok(Value::Array(vec![
            [added, changed, removed]
                .into_iter()
                .map(|names| names.into_iter().collect::<Value>())
                .collect(),
        ]))
    }

    pub(super) fn add_group(&mut self, name: &str) -> Result<Value, Fault> {
        let wanted: Vec<Available> = self
            .offered()
            .iter()
            .filter(|item| item.group() == name)
            .cloned()
            .collect();
        if wanted.is_empty() {
            return Err(Code::BadName.about(name));
        }
        let before = self.groups();
        if before.contains_key(name) {
            return Err(Code::AlreadyAdded.about(name));
        }
        for item in wanted {
            self.add_process(item)
                .map_err(|reason| Code::Failed.about(&reason))?;
        }
        self.groups_changed(&before);
        self.say_remote(&format!("{name} is added"));
        Ok(true.into())
    }

    fn add_process(&mut self, item: Available) -> Result<(), String> {
        let mut planned = item.planned;
        planned.needs = (0..self.slots.len())
            .filter(|at| !self.slots[*at].process.removed)
            .filter(|at| item.needs.iter().any(|need| need == self.slots[*at].name()))
            .collect();
        let mut slot = Slot::new(planned, &self.accounts, self.root, Instant::now())
            .map_err(|failure| failure.to_string())?;
        slot.process.id = self.rpc.next_process;
        self.rpc.next_process += 1;
        // The place of one that is gone is taken again, so that the list does not grow.
        let at = match self.slots.iter().position(|slot| slot.process.removed) {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.watch_output(at);
        Ok(())
    }

    pub(super) fn remove_group(&mut self, name: &str) -> Result<Value, Fault> {
        let members = self.members_of(name)?;
        if members
            .iter()
            .any(|at| !self.process_state(*at).is_stopped() || self.slots[*at].main.is_some())
        {
            return Err(Code::StillRunning.about(name));
        }
        // What the configuration offers is known before one of it is gone.
        self.offered();
        let before = self.groups();
        for at in members {
            self.slots[at].process.removed = true;
            for slot in &mut self.slots {
                slot.planned.needs.retain(|need| *need != at);
            }
        }
        self.groups_changed(&before);
        self.say_remote(&format!("{name} is removed"));
        Ok(true.into())
    }

    /// `supervisorctl reload`.
    pub(in super::super) fn restart_all(&mut self) {
        self.say_remote("everything restarts");
        self.rpc.restarting = true;
        self.supervisor_stops();
        for at in self.by_priority() {
            self.handle(at, Event::Stop(NO_LIMIT));
        }
    }

    pub(super) fn restart_when_stopped(&mut self) {
        if !self.rpc.restarting || self.ending.is_some() {
            return;
        }
        let all = self.by_priority();
        if all
            .iter()
            .any(|at| !self.slots[*at].machine.state().is_over())
        {
            return;
        }
        self.rpc.restarting = false;
        if let Err(fault) = self.reread() {
            say(&format!("{}; the programs start as they were", fault.text));
        }
        let groups: Vec<String> = self.groups().into_keys().collect();
        for group in groups {
            let _ = self.remove_group(&group);
        }
        let mut wanted: Vec<String> = self
            .offered()
            .iter()
            .map(|item| item.group().to_owned())
            .collect();
        wanted.dedup();
        for group in wanted {
            if let Err(fault) = self.add_group(&group)
                && fault.code != Code::AlreadyAdded
            {
                say(&fault.text);
            }
        }
        self.supervisor_runs();
        self.advance();
    }

    pub(super) fn is_restarting(&self) -> bool {
        self.rpc.restarting
    }

    pub(super) fn configurations(&mut self) -> Value {
        let groups = self.groups();
        let accounts = self.accounts.clone();
        let mut infos: Vec<(String, Value)> = self
            .offered()
            .iter()
            .filter_map(|item| {
                let service = &item.planned.service;
                let program = service.program.as_ref()?;
                let uid = service
                    .identity
                    .user
                    .as_deref()
                    .and_then(|user| accounts.user(user))
                    .map_or_else(|| "none".into(), |user| Value::int(user.uid));
                let log = |log: &services::Log| match &log.file {
                    LogFile::Auto => Value::from("auto"),
                    LogFile::None => "none".into(),
                    LogFile::Path(path) => path.as_str().into(),
                };
                let directory = service
                    .working_directory
                    .as_ref()
                    .map_or("none", |directory| &directory.path);
                let exit_codes = service.restart.success_codes.iter();
                let stop_wait = service.stopping.timeout.map_or(0, |t| t.as_secs());
                let (out, err) = (&program.stdout, &program.stderr);
                let info = members([
                    ("name", program.process.as_str().into()),
                    ("group", program.group.as_str().into()),
                    ("inuse", groups.contains_key(&program.group).into()),
                    ("autostart", service.autostart.into()),
                    ("command", program.command.as_str().into()),
                    ("directory", directory.into()),
                    ("uid", uid),
                    ("process_prio", Value::int(program.priority)),
                    ("group_prio", Value::int(program.group_priority)),
                    ("exitcodes", exit_codes.map(|c| Value::int(*c)).collect()),
                    ("killasgroup", program.killasgroup.into()),
                    ("redirect_stderr", program.redirect_stderr.into()),
                    ("startretries", Value::int(program.startretries)),
                    ("startsecs", Value::int(program.startsecs)),
                    ("stopsignal", Value::int(service.stopping.signal)),
                    ("stopwaitsecs", Value::int(stop_wait)),
                    ("stdout_capture_maxbytes", Value::int(out.capture_maxbytes)),
                    ("stdout_events_enabled", out.events.into()),
                    ("stdout_logfile", log(out)),
                    ("stdout_logfile_backups", Value::int(out.backups)),
                    ("stdout_logfile_maxbytes", Value::int(out.maxbytes)),
                    ("stdout_syslog", out.syslog.into()),
                    ("stderr_capture_maxbytes", Value::int(err.capture_maxbytes)),
                    ("stderr_events_enabled", err.events.into()),
                    ("stderr_logfile", log(err)),
                    ("stderr_logfile_backups", Value::int(err.backups)),
                    ("stderr_logfile_maxbytes", Value::int(err.maxbytes)),
                    ("stderr_syslog", err.syslog.into()),
                    (
                        "serverurl",
                        program.server_url.as_deref().unwrap_or("none").into(),
                    ),
                ]);
                Some((program.process.clone(), info))
            })
            .collect();
        infos.sort_by(|a, b| a.0.cmp(&b.0));
        Value::Array(infos.into_iter().map(|(_, info)| info).collect())
    }
}
