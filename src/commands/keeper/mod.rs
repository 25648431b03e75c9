//! What plumb is when nobody typed it: the keeper of a DHCP client that others wrote, and the program
//! that such a client runs at each event.
//!
//! A client of the host's runs in namespaces of its own. Of processes: with its first one, which is a
//! keeper, all others end, and whoever kills what cannot leave any. Of mounts: the folders where clients
//! keep what they know, by the interface's name, are its own and empty, as two containers may both have
//! an `eth1`; and nothing is left of them afterwards.

mod room;
mod sidecar;

pub use sidecar::{is_kept, remove_left};

use std::{env, ffi::OsString, os::unix::net::UnixDatagram, process::ExitCode, time::Duration};

use crate::{
    dhcp::external::{self, Call},
    error::{Error, Result},
    kernel::client::{CALL, Line},
};

/// Does what this process was started for, if that is not a command.
pub fn answer() -> Option<ExitCode> {
    if let Some(socket) = env::var_os(external::EVENT) {
        return Some(pass_on(&socket));
    }
    let call = env::var(CALL).ok()?;
    Some(match keep(&call) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Tells the keeper of an event. To a failure dhclient would answer that the address is in use, so there
/// is none; but the leases that it remembers it may use if it is told that they work, and nobody looked.
fn pass_on(socket: &OsString) -> ExitCode {
    let argument = env::args().nth(1).unwrap_or_default();
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let event = external::tell(&argument, env::vars_os().filter_map(text));
    let _ = UnixDatagram::unbound().and_then(|sender| {
        sender.set_write_timeout(Some(Duration::from_secs(2)))?;
        sender.send_to(&event, socket)
    });
    ExitCode::from(u8::from(env::var("reason").is_ok_and(|reason| reason == "TIMEOUT")))
}

fn keep(call: &str) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("cannot keep a DHCP client", &error);
    let line = Line::of_this_process().map_err(failed)?;
    let kept = serde_json::from_str::<Call>(call)
        .map_err(|error| Error::failed(format!("cannot read how to call a DHCP client: {error}")))
        .and_then(|parsed| match &parsed.helper {
            Some(helper) => sidecar::keep(&parsed, helper, &line),
            None => room::keep(&parsed, &line),
        });
    if let Err(error) = &kept {
        line.ended(&error.message);
    }
    kept
}
