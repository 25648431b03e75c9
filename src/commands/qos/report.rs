//! What is said of limits that were set.

use serde::Serialize;

use super::Planned;
use crate::{
    cli::Qos,
    commands::Context,
    container::Target,
    kernel::Netns,
    plan::{Step, qdisc::Discipline, shaping::Shape},
    types::Rate,
};

/// What is now true, or with `--dry-run` would be.
#[derive(Debug, Serialize)]
pub struct Report {
    target: String,
    limits: Vec<Limit>,
    warnings: Vec<String>,
    dry_run: bool,
    /// The commands that do the same.
    commands: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Limit {
    interface: String,
    direction: &'static str,
    #[serde(flatten)]
    shape: Shape,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Shape>,
}

impl Report {
    pub fn new(target: &Target, planned: &[Planned], options: &Qos, namespace: &Netns) -> Report {
        let path = namespace.path().display().to_string();
        let mut limits = Vec::new();
        for one in planned {
            let before = one.before.as_ref().map(|before| &before.limits);
            let directions = [
                ("egress", &one.shaped.limits.egress, before.and_then(|before| before.egress.as_ref())),
                ("ingress", &one.shaped.limits.ingress, before.and_then(|before| before.ingress.as_ref())),
            ];
            for (direction, shape, before) in directions {
                let Some(shape) = shape.clone() else { continue };
                let before = before.filter(|before| **before != shape).cloned();
                limits.push(Limit { interface: one.shaped.interface.to_string(), direction, shape, before });
            }
        }
        Report {
            target: target.name.to_string(),
            limits,
            warnings: planned.iter().flat_map(|one| one.shaping.warnings.clone()).collect(),
            dry_run: options.dry_run,
            commands: planned.iter().flat_map(|one| &one.shaping.steps).map(|step| step.command(&path)).collect(),
        }
    }

    pub fn say(&self, context: &Context) {
        let done = self.limits.iter().map(|limit| format!("{}: {limit}", self.target));
        context.output.report(self, self.dry_run.then_some(&self.commands), done, &self.warnings);
    }
}

/// `eth1 sends at most 10mbit`
impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.direction == "egress" { "sends" } else { "receives" };
        write!(f, "{} {verb} {}", self.interface, words(&self.shape))?;
        match &self.before {
            Some(before) => write!(f, " (before: {})", words(before)),
            None => Ok(()),
        }
    }
}

/// `at most 10mbit, 50ms delay` or `with 50ms delay, 1% loss`
pub fn words(shape: &Shape) -> String {
    let mut words = Vec::new();
    if let Some(limit) = &shape.limit {
        let peak = limit.peak.map_or(String::new(), |peak: Rate| format!(" (bursts at {peak})"));
        words.push(format!("at most {}{peak}", limit.rate));
    }
    if let Some(bad) = &shape.impairment {
        let jitter = bad.jitter.map_or(String::new(), |jitter| format!(" ± {jitter}"));
        words.extend(bad.delay.map(|delay| format!("{delay}{jitter} delay")));
        let shares = [
            (bad.loss, "loss"),
            (bad.duplicate, "duplication"),
            (bad.corrupt, "corruption"),
            (bad.reorder, "reordering"),
        ];
        words.extend(shares.into_iter().filter_map(|(share, what)| Some(format!("{} {what}", share?))));
    }
    let with = if shape.limit.is_none() { "with " } else { "" };
    format!("{with}{}", words.join(", "))
}

/// Bytes of the bucket and of the queue behind it, as the kernel has them.
#[derive(Debug, Default, Serialize)]
pub struct InForce {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_bytes: Option<u32>,
    /// The longest that a packet waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

impl InForce {
    pub fn of<'a>(disciplines: impl Iterator<Item = &'a Discipline>) -> InForce {
        for discipline in disciplines {
            if let Discipline::AsRead(read) = discipline
                && let Some(tbf) = read.tbf()
            {
                let waits = tbf.rate.nanoseconds_for(tbf.limit.saturating_sub(tbf.burst).into());
                return InForce {
                    rate: Some(tbf.rate),
                    burst_bytes: Some(tbf.burst),
                    latency_ms: Some((waits / 1000) as f64 / 1000.0),
                };
            }
        }
        InForce::default()
    }
}

/// Commands for `namespace`.
pub fn commands(steps: &[Step], namespace: &str) -> Vec<String> {
    steps.iter().map(|step| step.command(namespace)).collect()
}
