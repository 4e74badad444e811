//! PID 1 of a box. The environment is read here, once; everything behind is given a map.

mod accounts;
mod backup;
mod ca_bundle;
mod certificates;
mod cgroup;
mod cli;
mod control;
mod copy;
mod daemon;
mod databases;
mod diff;
mod effects;
mod engine;
mod exit;
mod explain;
mod facts;
mod init;
mod jobs;
mod log;
mod manifest;
mod moving;
mod owners;
mod page;
mod plan;
mod preflight;
mod ready;
mod render;
mod roles;
mod root;
mod runtime;
mod secrets;
mod settings;
mod sound;
mod start;
mod supervise;
mod supervisord;
mod support;
mod sys;
mod systemctl;
mod tmpfiles;
mod top;
mod units;
mod upgrade;
mod validate;
mod volume;

use std::process::ExitCode;

use cli::Verb;
use control::{Reply, Request};
use exit::{Code, Result};
use root::Root;
use settings::Environment;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let words: Vec<_> = words.collect();
    if let Some(code) = init::called(&name, &words) {
        return code;
    }
    if let Some(code) = systemctl::called(&name, &words) {
        return code;
    }
    if let Some(code) = units::called(&name, &words) {
        return code;
    }
    if let Some(code) = daemon::called(&name, &words, &Environment::of_this_process()) {
        return code;
    }
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    keep_secrets();
    let environment = Environment::of_this_process();
    let code = run(&arguments, &environment).unwrap_or_else(|failure| {
        log::fail(&failure.to_string());
        failure.code as u8
    });
    ExitCode::from(code)
}

/// Neither a core dump nor the message of a defect may hold a setting. Without dumps, no
/// other process of the same user can read this one's environment either.
fn keep_secrets() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        log::fail(&format!(
            "a defect at {place}\nhint: report this line and the box's `version` to the vendor"
        ));
        std::process::exit(Code::Internal as i32);
    }));
}

fn run(arguments: &[String], environment: &Environment) -> Result<u8> {
    let (root, verb) = cli::parse(arguments)?;
    // What people ask for is answered to people; only the box's own log is for machines.
    if verb == Verb::Start && environment.get("TIFFIN_LOG") == Some("json") {
        log::speak_json();
    }
    let root = Root::new(root);
    let contract = || start::contract(&root);
    let code: Result<Code> = match verb {
        Verb::Start => return start::start(&contract()?, &root, environment),
        Verb::Command(words) => start::command(&contract()?, &root, environment, &words),
        Verb::Check => start::check(&contract()?, &root, environment),
        Verb::Render(shown) => start::render(&contract()?, &root, environment, &shown),
        Verb::Explain { name, json } => {
            start::explain(&contract()?, &root, environment, &name, json)
        }
        Verb::Settings(format) => Ok(print(&settings::reference::reference(&contract()?, format))),
        Verb::Origin { json } => start::origin(&contract()?, &root, environment, json),
        Verb::Rollback(wanted) => start::rollback(&contract()?, &root, environment, &wanted),
        Verb::BeforeUpgrade => upgrade::before::run(&contract()?, &root, environment),
        Verb::Help => Ok(print(&start::help(&contract()?))),
        Verb::Version => {
            let product = contract()?.product;
            Ok(print(&format!("{} {}\n", product.name, product.version)))
        }
        Verb::Preflight { json } => Ok(preflight::verb(&contract()?, &root, environment, json)),
        Verb::StatusPage { serve: true } => page::serve(contract()?, &root, environment),
        Verb::StatusPage { serve: false } => page::link(&contract()?, &root, environment),
        Verb::SupportBundle { output } => {
            support::verb(&contract()?, &root, environment, output.as_deref())
        }
        Verb::Manifest(wanted) => {
            let text = manifest::manifest(&contract()?, &root, environment, &wanted)?;
            Ok(print(&text))
        }
        Verb::Status { json } => {
            let code = ask(&root, &Request::Status { measure: true }, json)?;
            match json {
                true => Ok(code),
                false => ask(&root, &Request::Certificates, false),
            }
        }
        Verb::Top { once } => top::top(&root, once),
        Verb::Certificates { json } => ask(&root, &Request::Certificates, json),
        Verb::Logs { name, follow: true } => follow(&root, name),
        Verb::Logs { name, follow } => ask(&root, &Request::Logs { name, follow }, false),
        Verb::StartService(name) => ask(&root, &Request::Start { name }, false),
        Verb::StopService(name) => ask(&root, &Request::Stop { name }, false),
        Verb::RestartService(name) => ask(&root, &Request::Restart { name }, false),
        Verb::Reload { dry_run } => ask(&root, &Request::Reload { dry_run }, false),
        Verb::ReloadService(name) => ask(&root, &Request::ReloadService { name }, false),
        Verb::Health(question) => ask(&root, &Request::Health { question }, false),
        Verb::Backup(options) => backup::take(&contract()?, &root, environment, &options),
        Verb::ScheduledBackup => backup::schedule::run(&contract()?, &root, environment),
        Verb::VerifyBackup(file) => backup::verify(&file),
        Verb::Restore(options) => backup::restore(&contract()?, &root, environment, &options),
        Verb::Move(options) => moving::run(&contract()?, &root, environment, &options),
        Verb::Probe(words) => Ok(supervise::probe::run(&words)),
        Verb::Rotate(words) => Ok(supervise::rotate::run(&words)),
    };
    code.map(|code| code as u8)
}

fn ask(root: &Root, request: &Request, json: bool) -> Result<Code> {
    Ok(match control::ask(root, request)? {
        Reply::Done | Reply::Follows => Code::Ok,
        Reply::Lines(lines) => print(
            &lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        ),
        Reply::Services(services) if json => {
            print(&format!("{:#}\n", control::report(root, &services)?))
        }
        Reply::Certificates(all) if json => print(&format!("{:#}\n", serde_json::json!(all))),
        Reply::Certificates(all) => {
            let lines = all.iter().map(|one| {
                format!(
                    "certificate {}: {}\n  SHA-256 {}\n",
                    one.name,
                    one.line(),
                    one.fingerprint
                )
            });
            print(&lines.collect::<String>())
        }
        Reply::Services(services) => print(&control::table(&services)),
        Reply::Health { yes, reason } => {
            print(&format!("{reason}\n"));
            if yes { Code::Ok } else { Code::Failed }
        }
        Reply::Refused(reason) => {
            log::say(&reason);
            Code::Failed
        }
    })
}

fn follow(root: &Root, name: Option<String>) -> Result<Code> {
    let reply = control::follow(root, name, &mut std::io::stdout().lock())?;
    Ok(match reply {
        Reply::Refused(reason) => {
            log::say(&reason);
            Code::Failed
        }
        _ => Code::Ok,
    })
}

/// stdout may be closed by a `| head`; that is no failure.
fn print(text: &str) -> Code {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
    Code::Ok
}
