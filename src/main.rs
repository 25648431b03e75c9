//! Parse, run, print the error, choose the exit code.

use std::process::ExitCode;

use clap_complete::CompleteEnv;
use netplumb::{
    cli, commands,
    error::Error,
    interrupt,
    output::{self, Output},
};

fn main() -> ExitCode {
    settle_memory();
    // Two variables tell a plumb that nobody typed.
    if let Some(code) = commands::keeper::answer() {
        return code;
    }
    // Answers the shell at TAB and ends there; otherwise it looks at one variable and goes on.
    CompleteEnv::with_factory(cli::command).complete();
    output::settle_colours();
    let typed = match cli::parse(&cli::typed()) {
        Ok(typed) => typed,
        Err(error) => return not_understood(&error),
    };
    interrupt::install();
    settle_descriptors();
    let output = Output { json: typed.global.json, quiet: typed.global.quiet, verbose: typed.global.verbose };
    match commands::run(typed, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

/// Help and version are no errors. Of an error, JSON's readers get JSON.
fn not_understood(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if !error.use_stderr() || !json {
        let _ = error.print();
    } else {
        let text = error.render().to_string();
        // Up to the usage, which is for people.
        let lines: Vec<&str> = text
            .lines()
            .take_while(|line| !line.starts_with("Usage:"))
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let message = lines
            .join(" ")
            .trim_start_matches("error: ")
            .trim_end_matches(" For more information, try '--help'.")
            .to_owned();
        Output { json, quiet: false, verbose: false }.error(&Error::usage(message).hint("plumb --help"));
    }
    ExitCode::from(error.exit_code() as u8)
}

/// One heap for all threads, grown in steps that are large enough for a whole command. A heap for
/// each thread, glibc's habit, costs fresh pages, and a page costs more than a system call.
fn settle_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread runs yet, and these are settings of numbers.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
        nix::libc::mallopt(nix::libc::M_TOP_PAD, 512 * 1024);
    }
}

/// As many open files as the system allows: shells start programs with fewer, for the sake of some
/// that are older than poll(2).
fn settle_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
