//! The builder's command line: parses, calls, prints; decides nothing.

mod account;
mod base;
mod build;
mod cache;
mod cli;
mod diff;
mod inspect;
mod interrupts;
mod lint;
mod merged;
mod note;
mod pack;
mod printer;
mod push;
mod sign;
mod summary;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};

use cli::{Cli, ProgressMode, Verb};

fn main() -> ExitCode {
    match Cli::parse().verb {
        // Before anything else starts a thread: it makes namespaces.
        Verb::SandboxInit => bake::sandbox::init::main(),
        Verb::Build(words) => {
            if words.shell_on_failure && words.progress == ProgressMode::Json {
                // A shell needs the terminal, a program the lines.
                let reason = "--shell-on-failure cannot be used with --progress json";
                Cli::command()
                    .error(ErrorKind::ArgumentConflict, reason)
                    .exit();
            }
            // Before anything else starts a thread, too.
            if let Err(problem) = bake::sandbox::user::enter() {
                return finish(Err(problem.into()));
            }
            interrupts::watch();
            finish(build::run(&words))
        }
        Verb::Inspect(words) => finish(inspect::run(&words)),
        Verb::Cache(words) => {
            // What a build without root keeps has owners that only this one may remove.
            let _ = bake::sandbox::user::enter();
            found(cache::run(&words))
        }
        Verb::Diff(words) => found(diff::run(&words)),
        Verb::Lint(words) => found(lint::run(&words)),
        Verb::Verify(words) => found(sign::verify(&words)),
        Verb::Push(words) => finish(push::run(&words)),
    }
}

/// For verbs that look for something.
fn found(done: anyhow::Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::from(3),
        Ok(false) => ExitCode::SUCCESS,
        Err(problem) => finish(Err(problem)),
    }
}

/// The one place where exit codes are decided; `tiffin --help` documents them.
fn finish(done: anyhow::Result<()>) -> ExitCode {
    let Err(problem) = done else {
        return ExitCode::SUCCESS;
    };
    let (code, hint) = if let Some(e) = problem.downcast_ref::<recipe::Error>() {
        (78, e.hint())
    } else if let Some(e) = problem.downcast_ref::<bake::Error>() {
        (
            if matches!(e, bake::Error::Interrupted) {
                130
            } else {
                1
            },
            match e {
                bake::Error::Image(e) => e.downcast_ref::<image::Error>().and_then(|e| e.hint()),
                e => e.hint(),
            },
        )
    } else if let Some(e) = problem.downcast_ref::<image::Error>() {
        (1, e.hint())
    } else if let Some(e) = problem.downcast_ref::<note::Damaged>() {
        (1, Some(e.hint()))
    } else {
        (1, None)
    };
    let mut hints: Vec<String> = hint.into_iter().collect();
    if let Some(problem) = problem.downcast_ref::<bake::Error>()
        && matches!(problem.cause(), bake::Error::Playbook { .. })
    {
        let typed: Vec<String> = std::env::args().collect();
        hints.push(format!(
            "to look around in the failed root file system: {} --shell-on-failure",
            typed.join(" ")
        ));
    }
    printer::error(&told(&problem), &hints, code);
    ExitCode::from(code)
}

/// What went wrong and why; most errors of ours say their cause themselves.
fn told(problem: &anyhow::Error) -> String {
    let mut text = problem.to_string();
    for cause in problem.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
