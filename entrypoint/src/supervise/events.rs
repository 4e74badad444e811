//! supervisord's events, and the listeners that are told of them.
//!
//! A listener says READY on its stdout, is sent one event on its stdin and answers with a
//! RESULT. Events wait for it in a bounded buffer; the oldest gives way.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::Supervisor;
use super::rpc::Groups;
use crate::log::{debug, say};
use crate::supervisord::words::{ProcessState, unix_time};

/// Longer than any answer; a listener that sends more is not understood.
const ANSWER: usize = 64 << 10;
const TICKS: [(i64, &str); 3] = [(5, "TICK_5"), (60, "TICK_60"), (3600, "TICK_3600")];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Acknowledged,
    Ready,
    Busy,
    /// It broke the protocol, and hears nothing more until it starts again.
    Unknown,
}

impl Mood {
    fn name(self) -> &'static str {
        match self {
            Mood::Acknowledged => "ACKNOWLEDGED",
            Mood::Ready => "READY",
            Mood::Busy => "BUSY",
            Mood::Unknown => "UNKNOWN",
        }
    }
}

/// One process that listens.
pub struct Listening {
    mood: Mood,
    read: Vec<u8>,
    /// The length of the result whose line was read.
    result: Option<usize>,
    event: Option<Event>,
}

impl Default for Listening {
    fn default() -> Self {
        Listening {
            mood: Mood::Acknowledged,
            read: Vec::new(),
            result: None,
            event: None,
        }
    }
}

#[derive(Debug, Clone)]
struct Event {
    serial: u64,
    pool_serial: u64,
    name: String,
    payload: Vec<u8>,
}

#[derive(Default)]
struct Pool {
    serial: u64,
    waiting: VecDeque<Event>,
}

#[derive(Default)]
pub struct Events {
    serial: u64,
    pools: BTreeMap<String, Pool>,
    tick: Option<(Instant, i64)>,
}

impl Events {
    pub fn deadline(&self) -> Option<Instant> {
        self.tick.map(|(at, _)| at)
    }
}

/// What a listener's bytes so far mean.
enum Heard {
    More,
    Ready,
    Result(Vec<u8>),
    Nonsense,
}

impl Listening {
    fn hear(&mut self) -> Heard {
        match self.mood {
            _ if self.read.is_empty() => Heard::More,
            Mood::Unknown => {
                self.read.clear();
                Heard::More
            }
            Mood::Acknowledged if self.read.starts_with(b"READY\n") => {
                self.read.drain(..6);
                Heard::Ready
            }
            Mood::Acknowledged if b"READY\n".starts_with(&self.read) => Heard::More,
            Mood::Acknowledged | Mood::Ready => Heard::Nonsense,
            Mood::Busy => {
                if self.result.is_none() {
                    let Some(end) = self.read.iter().position(|b| *b == b'\n') else {
                        return Heard::More;
                    };
                    let line: Vec<u8> = self.read.drain(..=end).collect();
                    let length = String::from_utf8_lossy(&line)
                        .strip_prefix("RESULT ")
                        .and_then(|rest| rest.trim().parse().ok())
                        .filter(|length| *length <= ANSWER);
                    if length.is_none() {
                        return Heard::Nonsense;
                    }
                    self.result = length;
                }
                match self.result {
                    Some(length) if self.read.len() >= length => {
                        self.result = None;
                        Heard::Result(self.read.drain(..length).collect())
                    }
                    _ => Heard::More,
                }
            }
        }
    }
}

impl Supervisor<'_> {
    fn listener_groups(&self, name: &str) -> Vec<(String, usize)> {
        let mut groups: Vec<(String, usize)> = Vec::new();
        for program in self.slots.iter().filter_map(|slot| slot.program()) {
            let Some(listener) = &program.listener else {
                continue;
            };
            let wanted = listener.events.iter().any(|event| {
                event == "EVENT"
                    || event == name
                    || name
                        .strip_prefix(event.as_str())
                        .is_some_and(|rest| rest.starts_with('_'))
            });
            if wanted && !groups.iter().any(|(group, _)| *group == program.group) {
                groups.push((program.group.clone(), listener.buffer_size));
            }
        }
        groups
    }

    /// Tells all that listen for `name`.
    pub(super) fn notify(&mut self, name: &str, payload: &[u8]) {
        let groups = self.listener_groups(name);
        if groups.is_empty() {
            return;
        }
        self.events.serial += 1;
        for (group, size) in groups {
            let pool = self.events.pools.entry(group).or_default();
            pool.serial += 1;
            pool.waiting.push_back(Event {
                serial: self.events.serial,
                pool_serial: pool.serial,
                name: name.to_owned(),
                payload: payload.to_vec(),
            });
            while pool.waiting.len() > size {
                pool.waiting.pop_front();
                debug(&format!(
                    "an event of {name} was dropped: its listeners are slow"
                ));
            }
        }
    }

    /// A process is in another state: its listeners are told, and supervisord's log.
    pub(super) fn state_changed(&mut self, at: usize, from: ProcessState, to: ProcessState) {
        let slot = &self.slots[at];
        let Some(program) = slot.program() else {
            return;
        };
        let (name, group) = (program.process.clone(), program.group.clone());
        if self.alone {
            match to {
                ProcessState::Running => say(&format!(
                    "success: {name} entered RUNNING state, process has stayed up for > than {} seconds (startsecs)",
                    program.startsecs
                )),
                ProcessState::Fatal => say(&format!(
                    "gave up: {name} entered FATAL state, too many start retries too quickly"
                )),
                _ => {}
            }
        }
        let pid = slot.main.map_or(0, |pid| pid.as_raw_nonzero().get());
        let more = match to {
            ProcessState::Starting | ProcessState::Backoff => {
                format!(" tries:{}", slot.machine.restarts)
            }
            ProcessState::Fatal => String::new(),
            ProcessState::Exited => format!(
                " expected:{} pid:{}",
                u8::from(slot.process.expected),
                slot.process.last_pid
            ),
            ProcessState::Stopped => format!(" pid:{}", slot.process.last_pid),
            _ => format!(" pid:{pid}"),
        };
        let payload = format!(
            "processname:{name} groupname:{group} from_state:{}{more}",
            from.name()
        );
        self.notify(&format!("PROCESS_STATE_{}", to.name()), payload.as_bytes());
    }

    /// Groups that came and went since.
    pub(super) fn groups_changed(&mut self, before: &Groups) {
        let now = self.groups();
        for (these, those, what) in [
            (before, &now, "PROCESS_GROUP_REMOVED"),
            (&now, before, "PROCESS_GROUP_ADDED"),
        ] {
            for name in these.keys().filter(|name| !those.contains_key(*name)) {
                self.notify(what, format!("groupname:{name}\n").as_bytes());
            }
        }
    }

    pub(super) fn supervisor_runs(&mut self) {
        self.notify("SUPERVISOR_STATE_CHANGE_RUNNING", b"");
    }

    /// Sent at once: its listeners are about to be stopped.
    pub(super) fn supervisor_stops(&mut self) {
        self.notify("SUPERVISOR_STATE_CHANGE_STOPPING", b"");
        self.send_events();
    }

    pub(super) fn remote_event(&mut self, kind: &str, data: &str) {
        self.notify(
            "REMOTE_COMMUNICATION",
            format!("type:{kind}\n{data}").as_bytes(),
        );
    }

    /// Lines of a process, for those that listen to them.
    pub(super) fn log_event(&mut self, at: usize, channel: &str, bytes: &[u8]) {
        let slot = &self.slots[at];
        let Some(program) = slot.program() else {
            return;
        };
        let log = if channel == "stdout" {
            &program.stdout
        } else {
            &program.stderr
        };
        if !log.events {
            return;
        }
        let mut payload = format!(
            "processname:{} groupname:{} pid:{} channel:{channel}\n",
            program.process,
            program.group,
            slot.main.map_or(0, |pid| pid.as_raw_nonzero().get())
        )
        .into_bytes();
        payload.extend_from_slice(bytes);
        self.notify(&format!("PROCESS_LOG_{}", channel.to_uppercase()), &payload);
    }

    /// What a listener wrote on its stdout.
    pub(super) fn listener_wrote(&mut self, at: usize, bytes: &[u8]) {
        let slot = &mut self.slots[at];
        let group = slot.program().map_or_else(String::new, |p| p.group.clone());
        let name = slot
            .program()
            .map_or_else(String::new, |p| p.process.clone());
        let listening = &mut slot.process.listening;
        if listening.read.len() + bytes.len() > 2 * ANSWER {
            listening.read.clear();
            listening.mood = Mood::Unknown;
        }
        listening.read.extend_from_slice(bytes);
        loop {
            let before = listening.mood;
            let rejected = match listening.hear() {
                Heard::More => break,
                Heard::Ready => {
                    listening.mood = Mood::Ready;
                    None
                }
                Heard::Result(result) => {
                    listening.mood = Mood::Acknowledged;
                    let event = listening.event.take();
                    if result == b"OK" {
                        debug(&format!("{name}: event was processed"));
                        None
                    } else {
                        say(&format!("{name}: event was rejected"));
                        event
                    }
                }
                Heard::Nonsense => {
                    listening.mood = Mood::Unknown;
                    listening.read.clear();
                    listening.event.take()
                }
            };
            if before != listening.mood {
                let text = format!("{name}: {} -> {}", before.name(), listening.mood.name());
                if listening.mood == Mood::Unknown {
                    say(&format!(
                        "{text}: it does not speak the protocol of listeners"
                    ));
                } else {
                    debug(&text);
                }
            }
            if let Some(event) = rejected {
                let pool = self.events.pools.entry(group.clone()).or_default();
                pool.waiting.push_front(event);
            }
        }
    }

    /// A listener's process ended: what it was told is told again.
    pub(super) fn listener_ended(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let old = std::mem::take(&mut slot.process.listening);
        let group = slot.program().map(|p| p.group.clone());
        if let (Some(event), Some(group)) = (old.event, group) {
            let pool = self.events.pools.entry(group).or_default();
            pool.waiting.push_front(event);
        }
    }

    /// Sends what waits to listeners that are ready.
    pub(super) fn send_events(&mut self) {
        self.tick();
        if self
            .events
            .pools
            .values()
            .all(|pool| pool.waiting.is_empty())
        {
            return;
        }
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            let Some(program) = slot.program() else {
                continue;
            };
            if program.listener.is_none()
                || slot.process.listening.mood != Mood::Ready
                || slot.main.is_none()
            {
                continue;
            }
            let (name, group) = (program.process.clone(), program.group.clone());
            let Some(event) = self
                .events
                .pools
                .get_mut(&group)
                .and_then(|pool| pool.waiting.pop_front())
            else {
                continue;
            };
            let mut bytes = format!(
                "ver:3.0 server:{} serial:{} pool:{group} poolserial:{} eventname:{} len:{}\n",
                self.rpc.identifier,
                event.serial,
                event.pool_serial,
                event.name,
                event.payload.len()
            )
            .into_bytes();
            bytes.extend_from_slice(&event.payload);
            debug(&format!("{name}: READY -> BUSY"));
            let process = &mut self.slots[at].process;
            process.listening.mood = Mood::Busy;
            process.listening.event = Some(event);
            process.unread.extend_from_slice(&bytes);
            self.feed_input(at);
        }
    }

    /// TICK events; without a listener for them nobody wakes up.
    fn tick(&mut self) {
        let wanted = TICKS
            .iter()
            .any(|(_, name)| !self.listener_groups(name).is_empty());
        if !wanted {
            self.events.tick = None;
            return;
        }
        let now = Instant::now();
        match self.events.tick {
            Some((due, _)) if due > now => return,
            Some((_, last)) => {
                let time = unix_time();
                for (period, name) in TICKS {
                    if last / period != time / period {
                        let when = time - time % period;
                        self.notify(name, format!("when:{when}").as_bytes());
                    }
                }
            }
            None => {}
        }
        let time = unix_time();
        let wait = u64::try_from(5 - time % 5).unwrap_or(5);
        self.events.tick = Some((now + Duration::from_secs(wait), time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fed(mood: Mood, bytes: &[u8]) -> (Listening, Heard) {
        let mut listening = Listening {
            mood,
            read: bytes.to_vec(),
            ..Listening::default()
        };
        let heard = listening.hear();
        (listening, heard)
    }

    #[test]
    fn the_protocol_in_pieces() {
        assert!(matches!(fed(Mood::Acknowledged, b"REA").1, Heard::More));
        assert!(matches!(
            fed(Mood::Acknowledged, b"READY\n").1,
            Heard::Ready
        ));
        assert!(matches!(
            fed(Mood::Acknowledged, b"ready\n").1,
            Heard::Nonsense
        ));
        assert!(matches!(fed(Mood::Ready, b"x").1, Heard::Nonsense));
        assert!(matches!(fed(Mood::Busy, b"RESULT 2\nO").1, Heard::More));
        let (left, heard) = fed(Mood::Busy, b"RESULT 2\nOKREADY\n");
        assert!(matches!(heard, Heard::Result(result) if result == b"OK"));
        assert_eq!(left.read, b"READY\n");
        assert!(matches!(
            fed(Mood::Busy, b"RESULT two\n").1,
            Heard::Nonsense
        ));
        assert!(matches!(
            fed(Mood::Busy, b"RESULT 99999999\n").1,
            Heard::Nonsense
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200), busy: bool) {
            let mood = if busy { Mood::Busy } else { Mood::Acknowledged };
            let (mut listening, mut heard) = fed(mood, &bytes);
            for _ in 0..=bytes.len() {
                match heard {
                    Heard::More | Heard::Nonsense => return Ok(()),
                    Heard::Ready => listening.mood = Mood::Ready,
                    Heard::Result(_) => listening.mood = Mood::Acknowledged,
                }
                heard = listening.hear();
            }
            prop_assert!(matches!(heard, Heard::More | Heard::Nonsense));
        }
    }
}
