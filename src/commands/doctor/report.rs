//! What was found, and how it is said.

use std::{collections::HashSet, time::Duration};

use clap::ValueEnum;
use colored::{ColoredString, Colorize};
use serde::Serialize;

use super::needs::{self, Need};
use crate::{
    cli::DoctorVerb,
    error::{Error, Result},
    output::Output,
};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about, such as `macvlan`, `Docker` or `eth0`.
    pub what: String,
    pub state: State,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What of a verb's needs this is.
    #[serde(skip)]
    pub need: Option<Need>,
}

/// How something stands, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Ok,
    /// Good to know.
    Note,
    /// It may cost somebody an afternoon.
    Warning,
    /// Something does not work without it.
    Missing,
}

/// In the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    Kernel,
    Permissions,
    Engines,
    Parents,
    Forwarding,
    Store,
}

impl Finding {
    fn new(state: State, what: &str, found: impl Into<String>) -> Finding {
        Finding { what: what.to_owned(), state, found: found.into(), remedy: None, need: None }
    }

    /// It is as it should be.
    pub fn ok(what: &str, found: impl Into<String>) -> Finding {
        Finding::new(State::Ok, what, found)
    }

    /// Good to know; there need be nothing to do.
    pub fn note(what: &str, found: impl Into<String>) -> Finding {
        Finding::new(State::Note, what, found)
    }

    /// It works, but may surprise.
    pub fn warning(what: &str, found: impl Into<String>) -> Finding {
        Finding::new(State::Warning, what, found)
    }

    /// What needs it does not work.
    pub fn missing(what: &str, found: impl Into<String>) -> Finding {
        Finding::new(State::Missing, what, found)
    }

    /// With what to do about it.
    pub fn remedy(self, remedy: impl Into<String>) -> Finding {
        Finding { remedy: Some(remedy.into()), ..self }
    }

    /// With what it is to verbs.
    pub fn of(self, need: Need) -> Finding {
        Finding { need: Some(need), ..self }
    }

    /// A failure, with its hint as the remedy.
    pub fn because(state: State, what: &str, error: &Error) -> Finding {
        Finding { remedy: error.hint.clone(), ..Finding::new(state, what, &error.message) }
    }
}

/// All that was found, for a verb.
#[derive(Debug, Serialize)]
pub struct Report {
    verb: String,
    took_ms: f64,
    findings: Vec<Row>,
    /// Other verbs that lack something, each with what that is; none where one verb was asked for.
    #[serde(skip)]
    others: Vec<(String, Vec<String>)>,
}

#[derive(Debug, Serialize)]
struct Row {
    area: Area,
    #[serde(flatten)]
    finding: Finding,
    /// Whether the verb needs it.
    needed: bool,
    /// Whether people are told: all of it, unless they asked for one verb.
    #[serde(skip)]
    listed: bool,
}

impl Report {
    /// For `asked_for`, or for `flat` and with a word on the others.
    pub fn new(asked_for: Option<DoctorVerb>, mut areas: Vec<(Area, Vec<Finding>)>, took: Duration) -> Report {
        areas.sort_by_key(|(area, _)| *area);
        let verb = asked_for.unwrap_or(DoctorVerb::Flat);
        let needs: HashSet<Need> = needs::of(verb).into_iter().collect();
        let row = |area, finding: Finding| {
            let needed = finding.need.is_some_and(|need| needs.contains(&need));
            let may_matter = finding.need.is_none() || finding.state == State::Warning;
            let listed = asked_for.is_none() || needed || may_matter && needs::concerns(verb, area);
            Row { area, finding, needed, listed }
        };
        let findings = areas.into_iter().flat_map(|(area, found)| found.into_iter().map(move |f| (area, f)));
        let findings: Vec<Row> = findings.map(|(area, finding)| row(area, finding)).collect();
        let others = if asked_for.is_none() { others(verb, &findings) } else { Vec::new() };
        Report { verb: verb.name(), took_ms: (took.as_secs_f64() * 1e5).round() / 100.0, findings, others }
    }

    /// The lines and the verdict; then what the verb needs and is missing, as an error each, which alone is said
    /// with `-q`.
    pub fn say(self, output: Output) -> Result<()> {
        output.line(self.lines().trim_end());
        output.line(format_args!("\n{}", self.verdict()));
        let lacking: Vec<Error> = self.findings.iter().filter_map(|row| row.lacking(&self.verb)).collect();
        output.conclude(serde_json::json!(self), lacking)
    }

    fn lines(&self) -> String {
        let rows: Vec<&Row> = self.findings.iter().filter(|row| row.listed).collect();
        let width = rows.iter().map(|row| row.finding.what.chars().count()).max().unwrap_or(0);
        let (mut text, mut before) = (String::new(), None);
        for (at, row) in rows.iter().enumerate() {
            if before.replace(row.area) != Some(row.area) {
                text += &format!("{}\n", row.area.title().bold());
            }
            let Finding { what, found, remedy, .. } = &row.finding;
            // Coloured after it is made as long as the others.
            text += &format!("  {}  {what:width$}  {found}\n", row.state());
            // What helps several in a row is said once.
            let next = rows.get(at + 1).filter(|next| next.area == row.area);
            let is_said_again = next.is_some_and(|next| next.finding.remedy == *remedy);
            if let Some(remedy) = remedy.as_ref().filter(|_| !is_said_again) {
                text += &format!("  {:7}  {:width$}  {} {remedy}\n", "", "", "→".cyan());
            }
        }
        match self.findings.len() - rows.len() {
            0 => text,
            rest => text + &format!("{} does without the other {rest}: plumb doctor lists them\n", self.verb),
        }
    }

    fn verdict(&self) -> String {
        let lacking = lacking(&self.findings, |row| row.needed);
        let own = match lacking.is_empty() {
            true => format!("{} has all that it needs", self.verb).green(),
            false => format!("{} lacks {}", self.verb, lacking.join(", ")).red().bold(),
        };
        let others = self.others.iter().map(|(verb, lacking)| format!("{verb} lacks {}\n", lacking.join(", ")));
        others.collect::<String>() + &own.to_string()
    }
}

/// What is missing of the rows that are needed.
fn lacking(findings: &[Row], is_needed: impl Fn(&Row) -> bool) -> Vec<String> {
    let missing = findings.iter().filter(|row| row.finding.state == State::Missing && is_needed(row));
    missing.map(|row| row.finding.what.clone()).collect()
}

/// The verbs that lack something which `verb` does without.
fn others(verb: DoctorVerb, findings: &[Row]) -> Vec<(String, Vec<String>)> {
    let of = |other: &DoctorVerb| {
        let needs = needs::of(*other);
        let more = lacking(findings, |row| !row.needed && row.finding.need.is_some_and(|need| needs.contains(&need)));
        (other.name(), more)
    };
    let others = DoctorVerb::value_variants().iter().filter(|other| **other != verb).map(of);
    others.filter(|(_, lacking)| !lacking.is_empty()).collect()
}

impl Row {
    fn state(&self) -> ColoredString {
        let word = |word: &str| format!("{word:7}");
        match self.finding.state {
            State::Ok => word("ok").green(),
            State::Note => word("note").cyan(),
            State::Warning => word("warning").yellow(),
            State::Missing if self.needed => word("missing").red().bold(),
            State::Missing => word("absent").yellow(),
        }
    }

    fn lacking(&self, verb: &str) -> Option<Error> {
        let Finding { what, state, found, remedy, .. } = &self.finding;
        if *state != State::Missing || !self.needed {
            return None;
        }
        let error = Error::failed(format!("{verb} needs {what}: {found}"));
        Some(match remedy {
            Some(remedy) => error.hint(remedy),
            None => error,
        })
    }
}

impl Area {
    fn title(self) -> &'static str {
        match self {
            Area::Kernel => "kernel",
            Area::Permissions => "permissions",
            Area::Engines => "engines",
            Area::Parents => "parents",
            Area::Forwarding => "forwarding",
            Area::Store => "store",
        }
    }
}
