//! `top`: the services and what they use, again and again on a terminal, else once.
//!
//! The terminal is the caller's: whatever ends this, but SIGKILL, gives it back as it was.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::control::{self, Reply, Request, Status, short_bytes, short_time};
use crate::exit::{Code, Failure, Result};
use crate::root::Root;
use crate::sys;

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(2);
/// Without a terminal: how long CPU time is watched before it is told.
const ONCE: Duration = Duration::from_secs(1);

const CTRL_C: u8 = 3;
const SIGWINCH: u32 = 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As `status`.
    Box,
    Cpu,
    Memory,
    Name,
}

/// What services used from one look to the next.
struct Look {
    at: Instant,
    services: Vec<Status>,
    /// Of one processor, by service; empty at the first look.
    percent: HashMap<String, f64>,
}

pub fn top(root: &Root, once: bool) -> Result<Code> {
    let first = look(root, None)?;
    if once || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        std::thread::sleep(ONCE);
        let second = look(root, Some(&first))?;
        let text = lines(&second, Order::Box).join("\n") + "\n";
        let mut stdout = std::io::stdout().lock();
        // It may be closed by a `| head`; that is no failure.
        let _ = stdout.write_all(text.as_bytes());
        return Ok(Code::Ok);
    }
    let signals = sys::ending_signals().map_err(|error| cannot(&error))?;
    let terminal = Terminal::take().map_err(|error| cannot(&error))?;
    let watched = watch(root, first, &terminal, &signals);
    drop(terminal);
    watched
}

fn cannot(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Failed, format!("cannot use the terminal: {error}"))
        .hint("`top --once` needs none")
}

/// Until somebody ends it, or the box ends.
fn watch(
    root: &Root,
    first: Look,
    terminal: &Terminal,
    signals: &nix::sys::signalfd::SignalFd,
) -> Result<Code> {
    let (mut shown, mut order) = (first, Order::Box);
    // The first figures are there soon.
    let mut due = Instant::now() + ONCE;
    loop {
        terminal.show(&shown, order);
        let stdin = std::io::stdin();
        let left = due.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        let _ = poll(&mut fds, Some(&timeout));
        let (keys, signalled) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if keys {
            match key(stdin.as_fd()) {
                None | Some(b'q' | b'Q' | CTRL_C) => return Ok(Code::Ok),
                Some(b'c') => order = Order::Cpu,
                Some(b'm') => order = Order::Memory,
                Some(b'n') => order = Order::Name,
                Some(b's') => order = Order::Box,
                Some(_) => {}
            }
        }
        if signalled {
            match signals.read_signal() {
                Ok(Some(signal)) if signal.ssi_signo != SIGWINCH => return Ok(Code::Ok),
                // The window has another size.
                _ => {}
            }
        }
        if due <= Instant::now() {
            shown = look(root, Some(&shown))?;
            due = Instant::now() + PERIOD;
        }
    }
}

/// The last key that was pressed; nothing at the end.
fn key(stdin: BorrowedFd<'_>) -> Option<u8> {
    let mut bytes = [0; 64];
    match rustix::io::read(stdin, &mut bytes) {
        Ok(0) => None,
        // Arrows and the like are several bytes that begin with ESC, and mean nothing here.
        Ok(_) if bytes[0] == 0x1b => Some(0x1b),
        Ok(count) => bytes[..count]
            .iter()
            .copied()
            .find(|byte| [b'q', b'Q', CTRL_C].contains(byte))
            .or(Some(bytes[count - 1])),
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Some(0),
        Err(_) => None,
    }
}

fn look(root: &Root, before: Option<&Look>) -> Result<Look> {
    let reply = control::ask(root, &Request::Status { measure: true })?;
    let at = Instant::now();
    let Reply::Services(services) = reply else {
        return Err(Failure::new(
            Code::Failed,
            "the box answered something else than how its services are",
        ));
    };
    let mut percent = HashMap::new();
    if let Some(before) = before {
        let elapsed = at.duration_since(before.at).as_secs_f64().max(0.001);
        for service in &services {
            let was = before.services.iter().find(|s| s.name == service.name);
            let used = was.and_then(|was| Some(service.cpu_seconds? - was.cpu_seconds?));
            if let Some(used) = used {
                percent.insert(service.name.clone(), (used / elapsed * 100.0).max(0.0));
            }
        }
    }
    Ok(Look {
        at,
        services,
        percent,
    })
}

/// A summary, the table's head, and a line a service.
fn lines(look: &Look, order: Order) -> Vec<String> {
    let percent = |service: &Status| look.percent.get(&service.name).copied();
    let mut services: Vec<&Status> = look.services.iter().collect();
    match order {
        Order::Box => {}
        Order::Cpu => services.sort_by(|a, b| {
            let of = |service| percent(service).unwrap_or(0.0);
            of(b).total_cmp(&of(a))
        }),
        Order::Memory => services.sort_by_key(|service| Reverse(service.memory)),
        Order::Name => services.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    let ready = services.iter().filter(|service| service.ready).count();
    let cpu = match look.percent.is_empty() {
        true => "-".to_owned(),
        false => format!("{:.1} %", look.percent.values().sum::<f64>()),
    };
    let memory = services.iter().filter_map(|service| service.memory).sum();
    let width = services.iter().map(|s| s.name.chars().count()).max();
    let width = width.unwrap_or(0).max(7);
    let mut out = vec![
        format!(
            "{} services, {ready} up; CPU {cpu}, memory {}",
            services.len(),
            short_bytes(memory)
        ),
        format!(
            "{:width$}  {:8}  {:>6}  {:>7}  {:>7}  {:>5}  {:>8}  {:>5}",
            "SERVICE", "STATE", "CPU%", "MEMORY", "PID", "PIDS", "RESTARTS", "SINCE"
        ),
    ];
    for service in services {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        // What does not run uses nothing.
        let runs = service.processes > 0;
        let cpu = percent(service).filter(|percent| runs || *percent >= 0.05);
        out.push(format!(
            "{:width$}  {:8}  {:>6}  {:>7}  {:>7}  {:>5}  {:>8}  {:>5}",
            service.name,
            service.state,
            or_dash(cpu.map(|percent| format!("{percent:.1}"))),
            or_dash(service.memory.map(short_bytes)),
            or_dash(service.pid.map(|pid| pid.to_string())),
            or_dash(runs.then(|| service.processes.to_string())),
            service.restarts,
            short_time(service.seconds),
        ));
    }
    out
}

/// The terminal without echo and lines, on its other screen.
struct Terminal {
    before: Termios,
}

impl Terminal {
    fn take() -> rustix::io::Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut wanted = before.clone();
        // Keys as they come; Ctrl-C is one of them.
        wanted.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        let terminal = Terminal { before };
        tcsetattr(&stdin, OptionalActions::Now, &wanted)?;
        terminal.write("\x1b[?1049h\x1b[?25l");
        Ok(terminal)
    }

    fn write(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes());
        let _ = stdout.flush();
    }

    fn show(&self, look: &Look, order: Order) {
        let size = tcgetwinsize(std::io::stdout());
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
        // A terminal that does not know its size says 0.
        let (rows, columns) = match (rows, columns) {
            (0, _) | (_, 0) => (24, 80),
            known => known,
        };
        let mut all = lines(look, order);
        all[0].push_str("   q ends; c, m, n sort by CPU, memory, name");
        let mut frame = String::from("\x1b[H");
        for (at, line) in all.iter().take(usize::from(rows)).enumerate() {
            if at > 0 {
                frame.push_str("\r\n");
            }
            // A name is whatever a file says: nothing of it may steer the terminal.
            let visible = line.chars().filter(|c| !c.is_control());
            frame.extend(visible.take(usize::from(columns)));
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[J");
        self.write(&frame);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.write("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
