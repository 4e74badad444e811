//! `TIFFIN_STATUS_PAGE`: the box for people who would rather look.
//!
//! A process of its own serves it, supervised like any service: whatever a browser, a slow
//! disk or a hostile client does, PID 1 is only asked what `status` and `logs` ask. Nobody
//! sees anything without the token, which lies on the first volume.

mod facts;
mod html;
mod pages;
mod serve;

pub use self::serve::serve;

use contract::Contract;

use crate::exit::{Code, Failure, Result};
use crate::root::Root;
use crate::settings::Environment;
use crate::sys;
use crate::volume::State;

pub const VARIABLE: &str = "TIFFIN_STATUS_PAGE";
/// The file on the first volume. Its name says that its content is a secret.
/// Its name as a service.
pub const SERVICE: &str = "status-page";
const TOKEN: &str = "status-page-token";
/// 62^40 are enough for ever.
const LENGTH: usize = 40;

/// Before anything starts: a port that cannot be had is an error of the start, not of a
/// service that tries for ever, and the token is made while nobody else can make another.
pub fn prepare(contract: &Contract, root: &Root, environment: &Environment) -> Result<()> {
    let Some(wanted) = environment.get(VARIABLE) else {
        return Ok(());
    };
    sys::listen(wanted).map(drop).map_err(|error| {
        Failure::new(
            Code::CannotCreate,
            format!("cannot serve {VARIABLE} = {wanted}: {error}"),
        )
        .hint("it takes an address of the box, or 0.0.0.0, and a port that nothing else uses")
    })?;
    token(contract, root).map(drop)
}

/// The unit of the process that serves it.
pub fn unit(
    root: &Root,
    environment: &std::collections::BTreeMap<String, String>,
) -> Option<String> {
    let address = environment.get(VARIABLE)?;
    Some(format!(
        "[Unit]\nDescription=Status page at {address}\n\
         [Service]\nExecStart=/proc/self/exe --root {} status-page --serve\n\
         Restart=always\nRestartSec=1\nStartLimitIntervalSec=0\n",
        root.path("/").display()
    ))
}

/// `status-page`: where to look, with the token.
pub fn link(contract: &Contract, root: &Root, environment: &Environment) -> Result<Code> {
    let Some(address) = environment.get(VARIABLE) else {
        return Err(
            Failure::new(Code::Failed, "the status page is off").hint(format!(
                "run the box with -e {VARIABLE}=0.0.0.0:9001 -p 127.0.0.1:9001:9001"
            )),
        );
    };
    let token = token(contract, root)?;
    // From the outside the address is the one that the port is published at.
    let port = address.rsplit(':').next().unwrap_or_default();
    Ok(crate::print(&format!(
        "http://localhost:{port}/open/{token}\n"
    )))
}

/// Made at the first start that wants it.
fn token(contract: &Contract, root: &Root) -> Result<String> {
    State::new(contract, root).kept_token(TOKEN, LENGTH)
}
