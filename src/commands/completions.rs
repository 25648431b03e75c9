//! `plumb completions`: the script that makes a shell ask plumb at TAB.

use std::io::Write;

use clap_complete::env::Shells;

use crate::{
    cli::{Completions, Shell},
    error::{Error, Result},
};

pub fn run(options: Completions) -> Result<()> {
    // Not a fault of the command if the reader has gone.
    let _ = std::io::stdout().write_all(&script(options.shell)?);
    Ok(())
}

/// The shell's script. It asks `plumb` itself at each TAB, so that what exists is offered.
pub fn script(shell: Shell) -> Result<Vec<u8>> {
    let failed = || Error::failed(format!("there is no completion for {}", shell.name()));
    let mut script = Vec::new();
    let completer = Shells::builtins();
    let completer = completer.completer(shell.name()).ok_or_else(failed)?;
    completer.write_registration("COMPLETE", "plumb", "plumb", "plumb", &mut script).map_err(|_| failed())?;
    Ok(script)
}
