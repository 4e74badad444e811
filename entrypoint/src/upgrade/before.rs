//! What comes before the services and may take long, in a process of its own: meanwhile the box
//! is live and not ready, and stops when it is asked to. What that process leaves when it is
//! killed is what a `kill -9` leaves; the next start removes it.

use contract::Contract;
use services::systemd;

use super::Upgrade;
use crate::control::{self, Status};
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::{say, warn};
use crate::plan::{Plan, Planned};
use crate::root::Root;
use crate::settings::Environment;
use crate::supervise::{MARK, Open, PROGRESS, Supervisor, describe};
use crate::sys::Ended;
use crate::volume::{State, Watched};
use crate::{databases, owners, start};

/// Its name as a service, and by what it is told from one of the box's own.
const SERVICE: &str = "upgrade";
const DESCRIPTION: &str = "Before the services start";

/// Whether this is all that runs of the box.
pub fn is_all(services: &[Status]) -> bool {
    let mut services = services.iter();
    services.any(|service| service.description == DESCRIPTION)
}

impl Upgrade<'_> {
    /// Does what is to be done before services start; `None` when the box was asked to stop
    /// meanwhile. Needs the lock, and the place of sockets.
    pub fn before(&self, environment: &Environment, what: &str) -> Result<Option<Open>> {
        let root = self.root;
        let text = format!(
            "[Unit]\nDescription={DESCRIPTION}\n[Service]\nType=oneshot\n\
             ExecStart=/proc/self/exe --root {} rollback --before\n",
            root.path("/").display()
        );
        let parsed = systemd::parse(&format!("{SERVICE}.service"), &[&text]);
        let mut service = parsed
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?
            .value;
        // It reads the settings, as the first process does.
        service.environment = environment.variables.clone().into_iter().collect();
        let plan = Plan {
            services: vec![Planned {
                service,
                needs: Vec::new(),
                ready: None,
                data: false,
                once: false,
                required: true,
                again: Watched::default(),
                skip: None,
                timer: None,
                log_files: Default::default(),
            }],
            daemon: None,
            socket: control::SOCKET.to_owned(),
            alone: false,
            quiet: false,
            warnings: Vec::new(),
        };
        say(what);
        let supervisor = Supervisor::new(plan, root, environment, self.state, self.own())?;
        let first = supervisor.run_first(what.to_owned());
        let said: Vec<&str> = first
            .lines
            .iter()
            .filter(|line| !line.starts_with(PROGRESS))
            .map(|line| line.strip_prefix("tiffin: ").unwrap_or(line))
            .collect();
        if first.done && !first.stopped {
            for line in said {
                warn(line);
            }
            return Ok(Some(first.open));
        }
        let _ = std::fs::remove_file(root.path(control::SOCKET));
        if first.stopped {
            say("stopped; the data is as it was, and the next start begins again");
            return Ok(None);
        }
        let codes = [Code::CannotCreate, Code::Locked, Code::Config];
        let is_it = |code: &Code| first.ended == Some(Ended::Exit(*code as i32));
        let code = codes.into_iter().find(is_it).unwrap_or(Code::Internal);
        let message = match (said.is_empty(), first.ended) {
            (false, _) => said.join("\n"),
            (true, Some(ended)) => format!("cannot go on: \"{what}\" {}", describe(ended)),
            (true, None) => format!("cannot go on: \"{what}\" was stopped"),
        };
        Err(Failure::new(code, message))
    }
}

/// The process itself; nobody else may begin an upgrade.
pub fn run(contract: &Contract, root: &Root, environment: &Environment) -> Result<Code> {
    if environment.get(MARK) != Some(SERVICE) {
        return Err(Failure::new(
            Code::Usage,
            "cannot begin an upgrade by hand: a start does it",
        ));
    }
    let state = State::new(contract, root);
    let resolved = start::resolve(contract, &state, environment)?;
    let literal = start::values(contract, root, &resolved);
    let databases = databases::all(contract, &Engine::new(contract, &literal))?;
    let upgrade = Upgrade::new(contract, root, &state, environment);
    upgrade.begin(&databases)?;
    owners::put_right(contract, root, &state, &|text| {
        crate::print(&format!("{PROGRESS}{text}\n"));
    })?;
    Ok(Code::Ok)
}
