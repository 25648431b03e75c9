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
fn script(shell: Shell) -> Result<Vec<u8>> {
    match shell {
        // Written by hand: clap's own does not put together again what bash takes apart at ":" and "=".
        Shell::Bash => Ok(include_bytes!("../../completions/plumb.bash").to_vec()),
        Shell::Zsh => {
            let script = String::from_utf8_lossy(&of_clap(shell)?).into_owned();
            // clap's own only registers itself when zsh loads it at the first TAB, and completes from
            // the second on.
            let register = "compdef _clap_dynamic_completer_plumb plumb";
            let both = format!(
                "if [ \"$funcstack[1]\" = \"_plumb\" ]; then _clap_dynamic_completer_plumb \"$@\"; else {register}; fi"
            );
            Ok(script.replace(&format!("\n{register}"), &format!("\n{both}")).into_bytes())
        }
        Shell::Fish => of_clap(shell),
    }
}

fn of_clap(shell: Shell) -> Result<Vec<u8>> {
    let failed = || Error::failed(format!("there is no completion for {}", shell.name()));
    let shells = Shells::builtins();
    let completer = shells.completer(shell.name()).ok_or_else(failed)?;
    let mut script = Vec::new();
    completer.write_registration("COMPLETE", "plumb", "plumb", "plumb", &mut script).map_err(|_| failed())?;
    Ok(script)
}
