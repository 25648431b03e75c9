//! What is said of a change, and of what there is to change.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{Recorded, gone_in_words};
use crate::{
    cli::ChangeOptions,
    commands::{Context, namespace, refuse_host},
    container,
    error::Result,
    kernel::{Kernel, Netns},
    output::flush_left,
    plan::{
        Inside,
        changes::{Planned, Present, after_a_restart},
    },
    store::Attachment,
    types::TargetName,
};

/// What is now true, or with `--dry-run` would be.
#[derive(Debug, Serialize)]
pub struct Report {
    target: String,
    /// The attachment that takes it back.
    goes_with: Option<String>,
    /// What is true now, a line each.
    now: Vec<String>,
    changed: bool,
    /// What becomes of it in the end.
    #[serde(skip)]
    remark: Option<String>,
    warnings: Vec<String>,
    dry_run: bool,
    /// The commands that do the same.
    commands: Vec<String>,
}

impl Report {
    /// Of what was planned, with commands for `namespace`.
    pub fn new(
        present: &Present,
        planned: &Planned,
        remark: Option<String>,
        namespace: &Netns,
        options: &ChangeOptions,
    ) -> Report {
        let path = namespace.path().display().to_string();
        let goes_with = planned.owner.map(|at| present.attached[at].name.clone());
        Report {
            target: present.target.clone(),
            goes_with,
            now: planned.said.clone(),
            changed: !planned.steps.is_empty(),
            remark,
            warnings: planned.warnings.clone(),
            dry_run: options.dry_run,
            commands: planned.steps.iter().map(|step| step.command(&path)).collect(),
        }
    }

    /// On stdout and stderr, or as a document.
    pub fn say(&self, context: &Context) {
        let said = self.now.iter().map(|said| match said.starts_with("  ") {
            true => said.clone(),
            false => format!("{}: {said}", self.target),
        });
        let done = said.chain(self.remark.iter().map(|remark| format!("  {remark}")));
        context.output.report(self, self.dry_run.then_some(&self.commands), done, &self.warnings);
    }
}

/// One thing that the target has, and the attachment that takes it away again.
#[derive(Debug, Serialize)]
pub struct Row {
    #[serde(flatten)]
    pub details: serde_json::Map<String, serde_json::Value>,
    pub text: String,
    pub goes_with: Option<String>,
}

/// Lists what `rows` finds in the target, under `title`, in a document under `name`.
pub fn show(
    target: &TargetName,
    (title, name): (&str, &str),
    context: &Context,
    rows: impl FnOnce(&Inside, &[Attachment], &mut Kernel) -> Result<Vec<Row>> + Send,
) -> Result<()> {
    refuse_host(target, "changes")?;
    let target = container::find(target, &context.engines, None)?;
    let namespace = namespace::open(&target, &Netns::of_this_thread()?)?;
    let (rows, gone) = namespace.look_inside(|kernel| {
        let recorded = Recorded::of(&target, &namespace, kernel, context)?;
        let inside = kernel.look_at_all()?;
        rows(&inside, &recorded.here, kernel).map(|rows| (rows, recorded.gone))
    })?;
    if rows.is_empty() {
        context.output.line(format_args!("{}: there is none", target.name));
    } else {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([title, "GOES WITH"]);
        for row in &rows {
            table.add_row([row.text.as_str(), row.goes_with.as_deref().unwrap_or("-")]);
        }
        context.output.line(flush_left(table));
    }
    let restarted = after_a_restart(&target.name.to_string(), &gone.iter().map(gone_in_words).collect::<Vec<_>>());
    let warnings: Vec<String> = restarted.iter().map(|error| error.with_its_hint()).collect();
    warnings.iter().for_each(|warning| context.output.warn(warning));
    context.output.document(&serde_json::json!({ "target": target.name, name: rows, "warnings": warnings }));
    Ok(())
}
