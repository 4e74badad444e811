//! `check_data` of a service: its own program says whether it can open the data, before
//! anything is written. It sees the files of the image; rendered ones are not there yet.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use contract::Contract;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::accounts::{Accounts, Credentials};
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::plan;
use crate::root::Root;
use crate::settings::{Environment, Resolved};
use crate::start;
use crate::sys;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of its output that are shown.
const SHOWN: u64 = 4096;

/// # Errors
///
/// [`Code::Config`] with the program's words when it refuses.
pub fn data(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    resolved: &Resolved,
) -> Result<()> {
    if contract.services.values().all(|s| s.check_data.is_empty()) {
        return Ok(());
    }
    let (variables, plan) = start::foreseen(contract, root, environment, resolved)?;
    let engine = Engine::new(contract, &variables);
    let accounts = Accounts::read(root)?;
    for (name, said) in &contract.services {
        if said.check_data.is_empty() {
            continue;
        }
        let planned = plan.services.iter().filter(|p| p.skip.is_none());
        for planned in planned.filter(|p| plan::is_called(&p.service, name)) {
            let words = said.check_data.iter().map(|word| engine.text(word));
            let words = words
                .collect::<Result<Vec<String>, String>>()
                .map_err(|reason| {
                    Failure::new(
                        Code::Config,
                        format!("cannot start {name}: its `check_data`: {reason}"),
                    )
                })?;
            let who = accounts.credentials(name, &planned.service.identity)?;
            let refused = match run(&words, &who, &planned.service) {
                Ok((true, _)) => continue,
                Ok((false, output)) => output,
                Err(error) => format!("{} cannot be run: {error}", words[0]),
            };
            return Err(Failure::new(
                Code::Config,
                format!(
                    "cannot start {}: {name} cannot open the data; nothing was touched\n{}",
                    contract.product.version,
                    refused.trim_end()
                ),
            ));
        }
    }
    Ok(())
}

/// Whether it exited with 0, and the end of what it wrote.
fn run(
    words: &[String],
    who: &Credentials,
    service: &services::Service,
) -> std::io::Result<(bool, String)> {
    let output = rustix::fs::memfd_create(c"check", rustix::fs::MemfdFlags::CLOEXEC)?;
    let pid = sys::spawn(&mut sys::Setup {
        argv: words,
        argv0: None,
        environment: &who.user.environment(),
        directory: Some("/".into()),
        credentials: who,
        umask: 0o077,
        nice: None,
        oom_score_adj: None,
        limits: &[],
        number: None,
        privileges: Some(&service.privileges),
        output: &output,
        errors: &output,
        input: None,
    })?;
    let ended = wait(pid)?;
    let mut text = tail(output)?;
    if ended.is_none() {
        text.push_str(&format!("\nit did not end within {} s", TIMEOUT.as_secs()));
    }
    Ok((ended == Some(0), text))
}

/// The exit code; `None` when it took too long.
fn wait(pid: Pid) -> std::io::Result<Option<i32>> {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG)? {
            return Ok(Some(status.exit_status().unwrap_or(-1)));
        }
        if Instant::now() > end {
            sys::kill_group(pid, 9);
            let _ = waitpid(Some(pid), WaitOptions::empty());
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn tail(output: OwnedFd) -> std::io::Result<String> {
    let mut file = File::from(output);
    let length = file.metadata()?.len();
    file.seek(std::io::SeekFrom::Start(length.saturating_sub(SHOWN)))?;
    let mut bytes = Vec::new();
    file.take(SHOWN).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
