//! What a command says: one line of what is now true, or one JSON document; warnings and progress on stderr.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use colored::Colorize;
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
    pub verbose: bool,
}

impl Output {
    /// What is now true, on stdout. With `--json` the document says it instead.
    pub fn line(self, text: impl std::fmt::Display) {
        if !self.json && !self.quiet {
            print(&mut std::io::stdout(), &format!("{text}\n"));
        }
    }

    /// The one document of a command, with `--json`.
    pub fn document(self, document: &impl Serialize) {
        if self.json {
            let text =
                serde_json::to_string_pretty(document).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
            print(&mut std::io::stdout(), &format!("{text}\n"));
        }
    }

    /// What a command that changes something says: that it is done, or in a dry run the `commands` that would do
    /// it; and what may surprise. The document has all of that.
    pub fn report(
        self,
        document: &impl Serialize,
        commands: Option<&[String]>,
        done: impl IntoIterator<Item = impl std::fmt::Display>,
        warnings: &[String],
    ) {
        self.document(document);
        match commands {
            Some(commands) => commands.iter().for_each(|command| self.line(command)),
            None => done.into_iter().for_each(|line| self.line(line)),
        }
        warnings.iter().for_each(|warning| self.warn(warning));
    }

    /// The end of a command that goes on past failures: with `--json` one document tells of both.
    pub fn conclude(self, mut document: serde_json::Value, failures: impl IntoIterator<Item = Error>) -> Result<()> {
        let failure = failures.into_iter().reduce(Error::join);
        if let Some(error) = &failure {
            document["error"] = serde_json::json!(error);
        }
        self.document(&document);
        failure.map_or(Ok(()), |error| Err(Error { said: self.json, ..error }))
    }

    /// What works but may surprise. With `--json` it is in the document.
    pub fn warn(self, text: &str) {
        if !self.json && !self.quiet {
            print(&mut std::io::stderr(), &format!("{} {text}\n", "warning:".yellow().bold()));
        }
    }

    /// What a listing verb says: a table of the rows, or what there is where there are none; and apart from
    /// them the records that could not be read. A document has the rows under `name`.
    pub fn list<R: Serialize>(self, name: &str, kept: Vec<Result<R>>, nothing: &str, table: impl Fn(&[R]) -> String) {
        let (mut rows, mut damaged) = (Vec::new(), Vec::new());
        for row in kept {
            match row {
                Ok(row) => rows.push(row),
                Err(error) => damaged.push(error),
            }
        }
        self.document(&serde_json::json!({ name: rows, "damaged": damaged }));
        if rows.is_empty() && damaged.is_empty() {
            self.line(nothing);
        }
        if !rows.is_empty() {
            self.line(table(&rows));
        }
        for error in &damaged {
            self.warn(&error.with_its_hint());
        }
    }

    /// A step that was carried out, with `-v`.
    pub fn step(self, text: &str, took: Duration) {
        if self.verbose {
            let took = format!("{:8.2} ms", took.as_secs_f64() * 1e3);
            print(&mut std::io::stderr(), &format!("{} {text}\n", took.dimmed()));
        }
    }

    /// How something was found that nobody gave, with `-v`.
    pub fn explain(self, text: &str) {
        if self.verbose {
            print(&mut std::io::stderr(), &format!("{}\n", text.dimmed()));
        }
    }

    pub fn error(self, error: &Error) {
        if error.said {
            return;
        }
        if self.json {
            self.document(&serde_json::json!({ "error": error }));
            return;
        }
        let mut text = String::new();
        for error in std::iter::once(error).chain(&error.also) {
            text += &format!("{} {}\n", "plumb:".red().bold(), error.message);
            for leftover in &error.leftovers {
                text += &format!("  left behind; to take it back by hand: {leftover}\n");
            }
            if let Some(hint) = &error.hint {
                text += &format!("  {} {hint}\n", "hint:".cyan());
            }
        }
        print(&mut std::io::stderr(), &text);
    }

    /// A moving line for what may take over a second, on a terminal.
    pub fn waiting(self, for_what: String) -> Waiting {
        if self.json || self.quiet || !std::io::stderr().is_terminal() {
            return Waiting(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(for_what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Waiting(bar)
    }

    /// A line that says what is waited for, on a terminal. It stands still: whoever waits may wait for long.
    pub fn standing(self) -> Waiting {
        if self.json || self.quiet || self.verbose || !std::io::stderr().is_terminal() {
            return Waiting(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        Waiting(ProgressBar::new_spinner().with_style(style))
    }

    /// A bar that fills in `steps`, on a terminal.
    pub fn progress(self, steps: u64) -> Progress {
        if self.json || self.quiet || !std::io::stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {wide_bar} {percent}% {eta} left\n  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(steps).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress(bar)
    }
}

/// Disappears with the last step, or when it is dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// What was being done is done, and `this` is next.
    pub fn next(&self, this: String) {
        // The first has nothing before it.
        if !self.0.message().is_empty() {
            self.0.inc(1);
        }
        self.0.set_message(this);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Disappears when what was waited for is over.
pub struct Waiting(ProgressBar);

impl Waiting {
    pub fn says(&self, text: String) {
        self.0.set_message(text);
        self.0.tick();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A table without frame, flush with the left margin as `ps` prints its own, and without blanks at
/// the ends of lines.
pub fn flush_left(mut table: Table) -> String {
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.trim_fmt()
}

/// A length of time, as people say it: `45 s`, `20 min`, `11 h 58 min`, `2 d 12 h`.
pub fn length(time: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = time.as_secs();
    let mut parts = Vec::new();
    for (seconds, unit) in UNITS {
        if rest >= seconds {
            parts.push(format!("{} {unit}", rest / seconds));
            rest %= seconds;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 s".into() } else { parts.join(" ") }
}

/// Colour only on a terminal, and never with `NO_COLOR`.
pub fn settle_colours() {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    colored::control::set_override(wanted && std::io::stderr().is_terminal() && std::io::stdout().is_terminal());
}

/// A reader that closed its end (`plumb ls | head -1`) is no reason to fail.
fn print(stream: &mut impl Write, text: &str) {
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
}
