//! Logs, as supervisord's clients read them: the recent lines stand for the file.

use super::super::Supervisor;
use super::super::slot::Slot;
use crate::log::{Lines, said};
use crate::supervisord::faults::{Code, Fault};
use crate::supervisord::xmlrpc::Value;

/// How much of the past a follower is shown first.
const HEAD: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Stdout,
    Stderr,
}

/// Somebody who follows a log, and how far they have read.
pub struct Tail {
    source: Source,
    offset: u64,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Main,
    Process {
        at: usize,
        id: u64,
        channel: Channel,
    },
}

impl Slot {
    /// `None` where supervisord would have no file.
    fn lines(&self, channel: Channel) -> Option<&Lines> {
        match (channel, &self.errors) {
            (Channel::Stdout, _) => Some(&self.out.lines),
            (Channel::Stderr, Some(errors)) => Some(&errors.lines),
            (Channel::Stderr, None) => None,
        }
    }
}

impl Supervisor<'_> {
    /// `/mainlogtail`, `/logtail/NAME`, `/logtail/NAME/stderr`.
    pub(super) fn tail(&self, path: &str) -> Option<Tail> {
        let from = |length: u64| length.saturating_sub(HEAD);
        if path == "/mainlogtail" {
            return Some(Tail {
                source: Source::Main,
                offset: from(said(|lines| lines.length())),
            });
        }
        let rest = path.strip_prefix("/logtail/")?;
        let (name, channel) = match rest.split_once('/') {
            None | Some((_, "stdout")) => (rest.split('/').next()?, Channel::Stdout),
            Some((name, "stderr")) => (name, Channel::Stderr),
            Some(_) => return None,
        };
        let at = self.process(name).ok()?;
        let slot = &self.slots[at];
        Some(Tail {
            source: Source::Process {
                at,
                id: slot.process.id,
                channel,
            },
            offset: from(slot.lines(channel)?.length()),
        })
    }

    /// What is new; `None` when nothing more will come.
    pub(super) fn follow(&self, tail: &mut Tail) -> Option<Vec<u8>> {
        let read = |lines: &Lines| {
            let length = lines.length();
            let bytes = if length < tail.offset {
                b"==> File truncated <==\n".to_vec()
            } else if length > tail.offset {
                lines.since(tail.offset)
            } else {
                Vec::new()
            };
            (bytes, length)
        };
        let (bytes, length) = match tail.source {
            Source::Main => said(|lines| read(lines)),
            Source::Process { at, id, channel } => {
                let slot = self
                    .slots
                    .get(at)
                    .filter(|slot| slot.process.id == id && !slot.process.removed)?;
                read(slot.lines(channel)?)
            }
        };
        tail.offset = length;
        Some(bytes)
    }

    pub(super) fn read_process(
        &self,
        name: &str,
        channel: Channel,
        offset: i64,
        length: i64,
    ) -> Result<Value, Fault> {
        let lines = self.slots[self.process(name)?]
            .lines(channel)
            .ok_or(Code::NoFile)?;
        read(lines, offset, length)
    }

    pub(super) fn tail_process(
        &self,
        name: &str,
        channel: Channel,
        offset: i64,
        length: i64,
    ) -> Result<Value, Fault> {
        let empty =
            |offset: i64| Value::Array(vec!["".into(), Value::int(offset), Value::Bool(false)]);
        let Some(lines) = self.slots[self.process(name)?].lines(channel) else {
            return Ok(empty(0));
        };
        let size = i64::try_from(lines.length()).unwrap_or(i64::MAX);
        let (mut offset, mut length) = (offset, length);
        let overflow = size > offset.saturating_add(length);
        if overflow {
            offset = size - 1;
        }
        if offset.saturating_add(length) > size {
            if offset > size - 1 {
                length = 0;
            }
            offset = size.saturating_sub(length);
        }
        let bytes = part(lines, offset.max(0), length.max(0));
        Ok(Value::Array(vec![
            text(&bytes),
            Value::int(size),
            Value::Bool(overflow),
        ]))
    }

    pub(super) fn clear_process(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        slot.out.lines.clear();
        if let Some(errors) = &mut slot.errors {
            errors.lines.clear();
        }
    }
}

/// A negative offset counts from the end and takes no length, a length of 0 is all.
pub fn read(lines: &Lines, offset: i64, length: i64) -> Result<Value, Fault> {
    let size = i64::try_from(lines.length()).unwrap_or(i64::MAX);
    let bytes = match (offset, length) {
        (..0, 0) => {
            let from = size.saturating_add(offset).max(0);
            part(lines, from, size - from)
        }
        (..0, _) | (_, ..0) => return Err(Code::BadArguments.into()),
        (_, 0) => part(lines, offset, i64::MAX),
        (_, _) => part(lines, offset, length),
    };
    Ok(text(&bytes))
}

fn part(lines: &Lines, offset: i64, length: i64) -> Vec<u8> {
    let mut bytes = lines.since(u64::try_from(offset).unwrap_or(0));
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    bytes
}

fn text(bytes: &[u8]) -> Value {
    Value::Text(String::from_utf8_lossy(bytes).into_owned())
}
