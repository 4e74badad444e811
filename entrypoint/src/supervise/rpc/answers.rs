//! The calls of supervisord's interface, and those answers that have to wait.

use super::super::Supervisor;
use super::super::machine::Event;
use super::super::slot::NotExecutable;
use super::groups::NO_LIMIT;
use super::logs::{self, Channel};
use super::members;
use super::processes::Named;
use crate::exit;
use crate::log::{said, say};
use crate::supervisord::faults::{Code, Fault};
use crate::supervisord::methods::{self, METHODS};
use crate::supervisord::words::ProcessState;
use crate::supervisord::xmlrpc::{Value, fault_value};
use crate::sys;

/// Calls in one multicall: more is a mistake.
const CALLS: usize = 10_000;

pub enum Answer {
    Now(Result<Value, Fault>),
    Later(Box<Pending>),
}

/// What is waited for.
pub enum Pending {
    Start {
        at: usize,
        id: u64,
        name: String,
    },
    Stop {
        at: usize,
        id: u64,
    },
    /// One answer for several processes, in the order in which they are done.
    All {
        waiting: Vec<(usize, Pending)>,
        done: Vec<Value>,
    },
    Multi {
        /// The last one is next.
        remaining: Vec<Value>,
        current: Option<Box<Pending>>,
        results: Vec<Value>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
}

/// Typed access to the parameters; a wrong number of them is a fault too.
struct Parameters<'a>(&'a [Value]);

impl Parameters<'_> {
    fn count(&self, wanted: std::ops::RangeInclusive<usize>) -> Result<(), Fault> {
        if wanted.contains(&self.0.len()) {
            Ok(())
        } else {
            Err(Code::IncorrectParameters.into())
        }
    }

    fn text(&self, at: usize) -> Result<&str, Fault> {
        match self.0.get(at) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(Code::IncorrectParameters.into()),
        }
    }

    fn int(&self, at: usize) -> Result<i64, Fault> {
        match self.0.get(at) {
            Some(Value::Int(number)) => Ok(*number),
            Some(Value::Text(text)) => text
                .trim()
                .parse()
                .map_err(|_| Code::IncorrectParameters.into()),
            _ => Err(Code::IncorrectParameters.into()),
        }
    }

    /// As Python sees it; not given is true.
    fn flag(&self, at: usize) -> bool {
        match self.0.get(at) {
            Some(Value::Bool(is)) => *is,
            Some(Value::Int(number)) => *number != 0,
            Some(Value::Text(text)) => !text.is_empty(),
            _ => true,
        }
    }

    fn signal(&self, at: usize) -> Result<i32, Fault> {
        let (number, shown) = match self.0.get(at) {
            Some(Value::Int(number)) => (i32::try_from(*number).ok(), number.to_string()),
            Some(Value::Text(text)) => (services::signal_number(text), text.clone()),
            _ => return Err(Code::IncorrectParameters.into()),
        };
        number
            .filter(|n| (1..=64).contains(n))
            .ok_or_else(|| Code::BadSignal.about(&shown))
    }
}

fn status(code: Code, description: &str, program: Option<&services::Program>) -> Value {
    let (name, group) = program.map_or(("", ""), |p| (&p.process, &p.group));
    members([
        ("name", name.into()),
        ("group", group.into()),
        ("status", Value::int(code as i32)),
        ("description", description.into()),
    ])
}

impl Supervisor<'_> {
    pub(super) fn call(&mut self, name: &str, parameters: &[Value]) -> Answer {
        match self.dispatch(name, parameters) {
            Ok(answer) => answer,
            Err(fault) => Answer::Now(Err(fault)),
        }
    }

    fn dispatch(&mut self, name: &str, parameters: &[Value]) -> Result<Answer, Fault> {
        let method = methods::find(name).ok_or(Code::UnknownMethod)?;
        let p = Parameters(parameters);
        let most = method.signature.len() - 1;
        // Only the flag whether to wait may be left out.
        let least = most - usize::from(method.signature.last() == Some(&"boolean") && most > 0);
        p.count(least..=most)?;
        let (namespace, short) = name.split_once('.').unwrap_or(("", name));
        if namespace == "system" {
            return self.system(short, &p);
        }
        if self.ending.is_some() && short != "sendRemoteCommEvent" {
            return Err(Code::ShutdownState.into());
        }
        let now = |value: Value| Ok(Answer::Now(Ok(value)));
        match short {
            "getAPIVersion" | "getVersion" => now("3.0".into()),
            "getSupervisorVersion" => now("4.3.0".into()),
            "getIdentification" => now(self.rpc.identifier.as_str().into()),
            "getState" => {
                let (code, name) = if self.is_restarting() {
                    (0, "RESTARTING")
                } else {
                    (1, "RUNNING")
                };
                now(members([
                    ("statecode", Value::int(code)),
                    ("statename", name.into()),
                ]))
            }
            "getPID" => now(Value::int(rustix::process::getpid().as_raw_nonzero().get())),
            "readLog" | "readMainLog" => {
                let (offset, length) = (p.int(0)?, p.int(1)?);
                said(|lines| logs::read(lines, offset, length)).map(|v| Answer::Now(Ok(v)))
            }
            "clearLog" => {
                said(|lines| lines.clear());
                now(true.into())
            }
            "shutdown" => {
                say("supervisorctl: shutdown");
                self.end(exit::Code::Ok);
                now(true.into())
            }
            "restart" => {
                self.restart_all();
                now(true.into())
            }
            "reloadConfig" => now(self.reread()?),
            "addProcessGroup" => now(self.add_group(p.text(0)?)?),
            "removeProcessGroup" => now(self.remove_group(p.text(0)?)?),
            "startProcess" => match self.named(p.text(0)?)? {
                Named::Process(at) => self.start_process(at, p.text(0)?, p.flag(1)),
                Named::Group(group) => self.each(self.members_of(&group)?, Verb::Start, p.flag(1)),
            },
            "startProcessGroup" => self.each(self.members_of(p.text(0)?)?, Verb::Start, p.flag(1)),
            "startAllProcesses" => self.each(self.by_priority(), Verb::Start, p.flag(0)),
            "stopProcess" => match self.named(p.text(0)?)? {
                Named::Process(at) => self.stop_process(at, p.text(0)?, p.flag(1)),
                Named::Group(group) => self.each(self.members_of(&group)?, Verb::Stop, p.flag(1)),
            },
            "stopProcessGroup" => self.each(self.members_of(p.text(0)?)?, Verb::Stop, p.flag(1)),
            "stopAllProcesses" => self.each(self.by_priority(), Verb::Stop, p.flag(0)),
            "signalProcess" => match self.named(p.text(0)?)? {
                Named::Process(at) => {
                    let signal = p.signal(1)?;
                    self.signal_process(at, p.text(0)?, signal)?;
                    now(true.into())
                }
                Named::Group(group) => now(self.signal_each(self.members_of(&group)?, &p)),
            },
            "signalProcessGroup" => now(self.signal_each(self.members_of(p.text(0)?)?, &p)),
            "signalAllProcesses" => {
                let all = [Value::from(""), parameters[0].clone()];
                now(self.signal_each(self.by_priority(), &Parameters(&all)))
            }
            "getProcessInfo" => now(self.info(self.process(p.text(0)?)?)),
            "getAllProcessInfo" => now(Value::Array(
                self.by_name().into_iter().map(|at| self.info(at)).collect(),
            )),
            "getAllConfigInfo" => now(self.configurations()),
            "readProcessLog" | "readProcessStdoutLog" | "readProcessStderrLog" => {
                now(self.read_process(p.text(0)?, channel(short), p.int(1)?, p.int(2)?)?)
            }
            "tailProcessLog" | "tailProcessStdoutLog" | "tailProcessStderrLog" => {
                now(self.tail_process(p.text(0)?, channel(short), p.int(1)?, p.int(2)?)?)
            }
            "clearProcessLog" | "clearProcessLogs" => {
                self.clear_process(self.process(p.text(0)?)?);
                now(true.into())
            }
            "clearAllProcessLogs" => {
                let all = self.by_priority();
                for at in &all {
                    self.clear_process(*at);
                }
                let all = all.iter().map(|at| self.slots[*at].program());
                now(Value::Array(
                    all.map(|program| status(Code::Success, "OK", program))
                        .collect(),
                ))
            }
            "sendProcessStdin" => {
                let at = self.process(p.text(0)?)?;
                let bytes = match &parameters[1] {
                    Value::Text(text) => text.as_bytes(),
                    Value::Int(number) => {
                        return Err(Code::IncorrectParameters.about(&number.to_string()));
                    }
                    _ => return Err(Code::IncorrectParameters.into()),
                };
                self.send_input(at, p.text(0)?, bytes)?;
                now(true.into())
            }
            "sendRemoteCommEvent" => {
                self.remote_event(p.text(0)?, p.text(1)?);
                now(true.into())
            }
            _ => Err(Code::UnknownMethod.into()),
        }
    }

    fn system(&mut self, name: &str, p: &Parameters<'_>) -> Result<Answer, Fault> {
        let now = |value: Value| Ok(Answer::Now(Ok(value)));
        let described =
            || methods::find(p.text(0)?).ok_or_else(|| Code::SignatureUnsupported.into());
        match name {
            "listMethods" => now(METHODS.iter().map(|method| method.name).collect()),
            "methodHelp" => {
                let method: Result<_, Fault> = described();
                now(method?.help.into())
            }
            "methodSignature" => {
                let method: Result<_, Fault> = described();
                now(method?.signature.iter().copied().collect())
            }
            _ => {
                let Some(Value::Array(calls)) = p.0.first() else {
                    return Err(Code::IncorrectParameters.into());
                };
                if calls.len() > CALLS {
                    return Err(Code::IncorrectParameters.into());
                }
                let mut pending = Box::new(Pending::Multi {
                    remaining: calls.iter().rev().cloned().collect(),
                    current: None,
                    results: Vec::new(),
                });
                Ok(match self.poll(&mut pending) {
                    Some(answer) => Answer::Now(answer),
                    None => Answer::Later(pending),
                })
            }
        }
    }

    fn start_process(&mut self, at: usize, name: &str, wait: bool) -> Result<Answer, Fault> {
        self.slots[at].executable().map_err(|why| match why {
            NotExecutable::Missing(why) => Code::NoFile.about(&why),
            NotExecutable::Other(why) => Code::NotExecutable.about(&why),
        })?;
        if self.process_state(at).is_running() {
            return Err(Code::AlreadyStarted.about(name));
        }
        self.ask(at, Event::Start, "supervisorctl");
        let mut pending = Pending::Start {
            at,
            id: self.slots[at].process.id,
            name: name.to_owned(),
        };
        if !self.slots[at].process.spawn_error.is_empty() {
            return Err(Code::SpawnError.about(name));
        }
        if !wait {
            return Ok(Answer::Now(Ok(true.into())));
        }
        Ok(match self.poll(&mut pending) {
            Some(answer) => Answer::Now(answer),
            None => Answer::Later(Box::new(pending)),
        })
    }

    fn stop_process(&mut self, at: usize, name: &str, wait: bool) -> Result<Answer, Fault> {
        if !self.process_state(at).is_running() {
            return Err(Code::NotRunning.about(name));
        }
        self.ask(at, Event::Stop(NO_LIMIT), "supervisorctl");
        let mut pending = Pending::Stop {
            at,
            id: self.slots[at].process.id,
        };
        if !wait {
            return Ok(Answer::Now(Ok(true.into())));
        }
        Ok(match self.poll(&mut pending) {
            Some(answer) => Answer::Now(answer),
            None => Answer::Later(Box::new(pending)),
        })
    }

    /// All of `processes` that are not yet as the verb wants them.
    fn each(&mut self, processes: Vec<usize>, verb: Verb, wait: bool) -> Result<Answer, Fault> {
        let (mut waiting, mut done) = (Vec::new(), Vec::new());
        for at in processes {
            if self.process_state(at).is_running() == (verb == Verb::Start) {
                continue;
            }
            let name = self.slots[at].name().to_owned();
            let answer = match verb {
                Verb::Start => self.start_process(at, &name, wait),
                Verb::Stop => self.stop_process(at, &name, wait),
            };
            match answer {
                Ok(Answer::Now(answer)) => done.push(self.outcome(at, answer)),
                Err(fault) => done.push(self.outcome(at, Err(fault))),
                Ok(Answer::Later(pending)) => waiting.push((at, *pending)),
            }
        }
        Ok(if waiting.is_empty() {
            Answer::Now(Ok(Value::Array(done)))
        } else {
            Answer::Later(Box::new(Pending::All { waiting, done }))
        })
    }

    fn outcome(&self, at: usize, answer: Result<Value, Fault>) -> Value {
        let program = self.slots[at].program();
        match answer {
            Ok(_) => status(Code::Success, "OK", program),
            Err(fault) => status(fault.code, &fault.text, program),
        }
    }

    fn signal_process(&mut self, at: usize, name: &str, signal: i32) -> Result<(), Fault> {
        if !self.process_state(at).is_signallable() {
            return Err(Code::NotRunning.about(name));
        }
        match self.slots[at].main {
            Some(pid) => {
                sys::kill(pid, signal);
                Ok(())
            }
            None => Err(Code::Failed.about(&format!(
                "attempted to send {name} sig {} but it wasn't running",
                services::signal_name(signal)
            ))),
        }
    }

    fn signal_each(&mut self, processes: Vec<usize>, p: &Parameters<'_>) -> Value {
        let mut results = Vec::new();
        for at in processes {
            if !self.process_state(at).is_signallable() {
                continue;
            }
            let name = self.slots[at].name().to_owned();
            let answer = p
                .signal(1)
                .and_then(|signal| self.signal_process(at, &name, signal));
            results.push(self.outcome(at, answer.map(|()| true.into())));
        }
        Value::Array(results)
    }

    /// The answer, when it is there.
    pub(super) fn poll(&mut self, pending: &mut Pending) -> Option<Result<Value, Fault>> {
        match pending {
            Pending::Start { at, id, name } => {
                let slot = self.slots.get(*at).filter(|slot| slot.process.id == *id);
                let Some(slot) = slot else {
                    return Some(Err(Code::AbnormalTermination.about(name)));
                };
                if !slot.process.spawn_error.is_empty() {
                    return Some(Err(Code::SpawnError.about(name)));
                }
                match slot.machine.process_state() {
                    ProcessState::Running => Some(Ok(true.into())),
                    ProcessState::Starting => None,
                    _ => Some(Err(Code::AbnormalTermination.about(name))),
                }
            }
            Pending::Stop { at, id } => {
                let over = self
                    .slots
                    .get(*at)
                    .filter(|slot| slot.process.id == *id)
                    .is_none_or(|slot| {
                        slot.machine.process_state().is_stopped() && slot.machine.state().is_over()
                    });
                over.then(|| Ok(true.into()))
            }
            Pending::All { waiting, done } => {
                let mut still = Vec::new();
                for (at, mut one) in std::mem::take(waiting) {
                    match self.poll(&mut one) {
                        Some(answer) => done.push(self.outcome(at, answer)),
                        None => still.push((at, one)),
                    }
                }
                *waiting = still;
                waiting
                    .is_empty()
                    .then(|| Ok(Value::Array(std::mem::take(done))))
            }
            Pending::Multi {
                remaining,
                current,
                results,
            } => self.poll_multi(remaining, current, results),
        }
    }

    fn poll_multi(
        &mut self,
        remaining: &mut Vec<Value>,
        current: &mut Option<Box<Pending>>,
        results: &mut Vec<Value>,
    ) -> Option<Result<Value, Fault>> {
        let put = |results: &mut Vec<Value>, answer: Result<Value, Fault>| {
            results.push(answer.unwrap_or_else(|fault| fault_value(&fault)));
        };
        loop {
            if let Some(pending) = current {
                let answer = self.poll(pending)?;
                put(results, answer);
                *current = None;
            }
            let Some(call) = remaining.pop() else {
                return Some(Ok(Value::Array(std::mem::take(results))));
            };
            let answer = match (call.member("methodName"), call.member("params")) {
                (Some(Value::Text(name)), _) if name == "system.multicall" => Answer::Now(Err(
                    Code::IncorrectParameters.about("Recursive system.multicall forbidden"),
                )),
                (Some(Value::Text(name)), Some(Value::Array(parameters))) => {
                    self.call(name, parameters)
                }
                (Some(Value::Text(name)), None) => self.call(name, &[]),
                _ => Answer::Now(Err(Code::IncorrectParameters.about("No methodName"))),
            };
            match answer {
                Answer::Now(answer) => put(results, answer),
                Answer::Later(pending) => *current = Some(pending),
            }
        }
    }
}

fn channel(method: &str) -> Channel {
    if method.contains("Stderr") {
        Channel::Stderr
    } else {
        Channel::Stdout
    }
}
