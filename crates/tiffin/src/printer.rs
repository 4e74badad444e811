//! The one type that writes to the terminal while a build runs. Everything goes to
//! standard error; standard output is for data.

use std::{
    io::IsTerminal,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{cli::ProgressMode, summary::Summary};

/// Whether standard error is for a program: what ends this one is then a JSON line too.
static JSON: AtomicBool = AtomicBool::new(false);

/// On a terminal, tasks that take so long stay in sight with their time.
const LONG: Duration = Duration::from_secs(1);

/// Bytes are told to a program no more often.
const BYTES_EVERY: Duration = Duration::from_secs(1);

pub struct Printer {
    /// On a terminal: one line that moves.
    bar: Option<ProgressBar>,
    mode: ProgressMode,
    verbose: bool,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    task: Option<(String, Instant)>,
    /// Since the phase began, and when that was told last.
    bytes: u64,
    told: Instant,
    /// Of packages, for the layer in the making, and for those before it.
    fetched: u64,
    fetched_before: u64,
}

impl Printer {
    pub fn new(mode: ProgressMode, verbose: bool) -> Printer {
        let bar = (mode == ProgressMode::Auto && std::io::stderr().is_terminal()).then(|| {
            let style =
                ProgressStyle::with_template("{spinner} [{elapsed_precise}] {prefix} {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        JSON.store(mode == ProgressMode::Json, Ordering::Relaxed);
        let state = State {
            started: Instant::now(),
            task: None,
            bytes: 0,
            told: Instant::now(),
            fetched: 0,
            fetched_before: 0,
        };
        Printer {
            bar,
            mode,
            verbose,
            state: Mutex::new(state),
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            _ if self.event("line", json!({"text": text})) => {}
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None if self.mode == ProgressMode::Quiet => {}
            None => eprintln!("{text}"),
        }
    }

    pub fn note(&self, text: &str) {
        if !self.event("note", json!({"text": text})) {
            self.line(&format!("note: {text}"));
        }
    }

    pub fn warning(&self, text: &str) {
        match &self.bar {
            _ if self.event("warning", json!({"text": text})) => {}
            Some(bar) => bar.suspend(|| eprintln!("warning: {text}")),
            None => eprintln!("warning: {text}"),
        }
    }

    /// A layer has been compressed.
    pub fn packed(&self, name: &str, bytes: u64, uncompressed: u64) {
        let fields = json!({"name": name, "bytes": bytes, "uncompressed": uncompressed});
        if !self.event("packed", fields) {
            self.line(&format!(
                "    layer {name}: {} of {}",
                size(bytes),
                size(uncompressed)
            ));
        }
    }

    pub fn summary(&self, summary: &Summary) {
        if !self.event("summary", summary.json()) {
            for line in summary.lines() {
                self.line(&line);
            }
        }
    }

    pub fn finish(&self) {
        self.end_task();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.lock().started.elapsed()
    }

    /// Bytes of packages that the whole build has fetched.
    pub fn fetched(&self) -> u64 {
        let state = self.lock();
        state.fetched_before + state.fetched
    }

    pub fn phase(&self, name: &str) {
        self.end_task();
        {
            let mut state = self.lock();
            state.bytes = 0;
            state.fetched_before += std::mem::take(&mut state.fetched);
        }
        match &self.bar {
            _ if self.event("phase", json!({"name": name})) => {}
            Some(bar) => {
                bar.set_prefix(name.to_owned());
                bar.set_message("");
                bar.set_position(0);
            }
            None => self.line(&format!("==> {name}")),
        }
    }

    /// Whether this printer speaks to a program, which has then been told.
    fn event(&self, event: &str, fields: Value) -> bool {
        let told = self.mode == ProgressMode::Json;
        if told {
            eprintln!("{}", json_line(event, self.elapsed(), fields));
        }
        told
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lines name a task when it ends, with its time; a bar names the one that runs.
    fn end_task(&self) {
        let Some((name, since)) = self.lock().task.take() else {
            return;
        };
        let took = since.elapsed();
        let seconds = took.as_secs_f64();
        if !self.event("task_end", json!({"name": name, "took": seconds}))
            && (self.bar.is_none() || took >= LONG)
        {
            self.line(&format!("    {seconds:>6.1} s  {name}"));
        }
    }

    /// What a bar says of the layer in the making.
    fn show_task(&self, bar: &ProgressBar) {
        let state = self.lock();
        let task = state.task.as_ref().map_or("", |(name, _)| name);
        let message = match state.fetched {
            0 => task.to_owned(),
            bytes => format!("({} fetched) {task}", size(bytes)),
        };
        drop(state);
        bar.set_message(message);
    }
}

impl bake::Progress for Printer {
    fn phase(&self, name: &str) {
        Printer::phase(self, name);
    }

    fn task(&self, name: &str) {
        self.end_task();
        self.lock().task = Some((name.to_owned(), Instant::now()));
        self.event("task", json!({"name": name}));
        if let Some(bar) = &self.bar {
            self.show_task(bar);
        }
    }

    fn fetched(&self, bytes: u64) {
        {
            let mut state = self.lock();
            // Partial files come and go.
            if bytes <= state.fetched {
                return;
            }
            state.fetched = bytes;
        }
        self.event("fetched", json!({"bytes": bytes}));
        if let Some(bar) = &self.bar {
            self.show_task(bar);
        }
    }

    fn note(&self, text: &str) {
        Printer::note(self, text);
    }

    fn output(&self, line: &str) {
        if self.verbose && !self.event("output", json!({"text": line})) {
            self.line(line);
        }
    }

    fn layer(&self, name: &str, baked: Option<Duration>) {
        self.end_task();
        let fetched = self.lock().fetched;
        let fields = json!({
            "name": name, "cached": baked.is_none(), "took": baked.unwrap_or_default().as_secs_f64(),
            "fetched": fetched,
        });
        let told = match fetched {
            0 => String::new(),
            bytes => format!(", {} fetched", size(bytes)),
        };
        match baked {
            _ if self.event("layer", fields) => {}
            Some(time) => self.line(&format!(
                "    layer {name}: baked in {:.1} s{told}",
                time.as_secs_f64()
            )),
            None => self.line(&format!("    layer {name}: unchanged")),
        }
    }
}

impl image::Progress for Printer {
    fn bytes(&self, read: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(read);
            bar.set_message(size(bar.position()));
        }
        if self.mode == ProgressMode::Json {
            let mut state = self.lock();
            state.bytes += read;
            if state.told.elapsed() >= BYTES_EVERY {
                state.told = Instant::now();
                let bytes = state.bytes;
                drop(state);
                self.event("bytes", json!({"read": bytes}));
            }
        }
    }

    fn warning(&self, text: &str) {
        Printer::warning(self, text);
    }
}

/// One event as a line; fields of its own come after the two that all have.
fn json_line(event: &str, since: Duration, fields: Value) -> String {
    // Milliseconds: a float of nanoseconds is noise to whoever reads it.
    let seconds = since.as_millis() as f64 / 1e3;
    let mut line = json!({"event": event, "seconds": seconds});
    if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
    line.to_string()
}

/// For those that know no printer.
pub fn aside(text: &str) {
    match JSON.load(Ordering::Relaxed) {
        true => eprintln!("{}", json!({"event": "note", "text": text})),
        false => eprintln!("{text}"),
    }
}

/// What ended the program, after every printer is done.
pub fn error(problem: &str, hints: &[String], code: u8) {
    if JSON.load(Ordering::Relaxed) {
        let line = json!({"event": "error", "text": problem, "hints": hints, "code": code});
        eprintln!("{line}");
        return;
    }
    eprintln!("error: {problem}");
    for hint in hints {
        eprintln!("hint: {hint}");
    }
}

/// Bytes for people, in decimal multiples as disks and downloads are.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
