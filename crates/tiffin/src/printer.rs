//! The one type that writes to the terminal while a build runs. Everything goes to
//! standard error; standard output is for data.

use std::{
    io::IsTerminal,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::ProgressMode;

pub struct Printer {
    /// On a terminal: one line that moves.
    bar: Option<ProgressBar>,
    mode: ProgressMode,
    verbose: bool,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    phase: String,
    task: Option<(String, Instant)>,
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
        let state = State {
            started: Instant::now(),
            phase: String::new(),
            task: None,
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
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None if self.mode == ProgressMode::Quiet => {}
            None => eprintln!("{text}"),
        }
    }

    pub fn warning(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("warning: {text}")),
            None => eprintln!("warning: {text}"),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.lock().started.elapsed()
    }

    pub fn phase(&self, name: &str) {
        self.lock().phase = name.to_owned();
        self.end_task();
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(name.to_owned());
                bar.set_message("");
            }
            None => self.line(&format!("==> {name}")),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Plain lines name a task when it ends, with its time; a bar names the one that runs.
    fn end_task(&self) {
        let ended = self.lock().task.take();
        if let (Some((name, since)), None) = (ended, &self.bar) {
            self.line(&format!(
                "    {:>6.1} s  {name}",
                since.elapsed().as_secs_f64()
            ));
        }
    }
}

impl bake::Progress for Printer {
    fn phase(&self, name: &str) {
        Printer::phase(self, name);
    }

    fn task(&self, name: &str) {
        self.end_task();
        self.lock().task = Some((name.to_owned(), Instant::now()));
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        }
    }

    fn note(&self, text: &str) {
        self.line(&format!("note: {text}"));
    }

    fn output(&self, line: &str) {
        if self.verbose {
            self.line(line);
        }
    }

    fn layer(&self, name: &str, baked: Option<Duration>) {
        self.end_task();
        match baked {
            Some(time) => self.line(&format!(
                "    layer {name}: baked in {:.1} s",
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
    }

    fn warning(&self, text: &str) {
        Printer::warning(self, text);
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
