//! What taking attachments back would do, as commands: nothing is changed.

use super::{home, host, in_reach_of_home, look, steps, way_home};
use crate::{
    commands::{Context, namespace},
    error::{Error, Result},
    kernel::{Kernel, Netns},
    plan::{Step, undo},
    store::Attachment,
    types::Place,
};

/// The commands, and what would be refused.
#[derive(Default)]
pub struct Preview {
    pub commands: Vec<String>,
    pub refused: Vec<Error>,
    /// All but what would be refused, in the order in which they go.
    going: Vec<Attachment>,
}

/// Of attachments by their namespaces. What one attachment's leave is what the next one's begin with.
pub fn preview(context: &Context, groups: Vec<Vec<&Attachment>>) -> Result<Preview> {
    let mut preview = Preview::default();
    for group in groups {
        let group: Vec<Attachment> = group.into_iter().cloned().collect();
        let Some(there) = group.first().and_then(namespace::reopen) else {
            preview.home_comers(group)?;
            continue;
        };
        in_reach_of_home(&group, &there, |kernel| match namespace::is_same(&group[0], &there, kernel) {
            true => preview.inside(&there, group.clone(), kernel),
            false => preview.home_comers(group.clone()),
        })?;
    }
    preview.commands.extend(host::preview(context, &preview.going)?);
    Ok(preview)
}

impl Preview {
    fn inside(&mut self, there: &Netns, mut group: Vec<Attachment>, kernel: &mut Kernel) -> Result<()> {
        let path = there.path().display().to_string();
        let mut now = look(&group, kernel)?;
        while !group.is_empty() {
            let attachment = group.remove(0);
            if let Err(refused) = home::refuse_taken_name(&attachment, kernel) {
                self.refused.push(refused);
                continue;
            }
            let half_done = undo::back(&attachment.changing, &now);
            now = undo::after(&half_done, now);
            let steps = steps(&attachment, &now);
            now = undo::after(&steps, now);
            self.commands.extend(half_done.iter().chain(&steps).map(|step| step.command(&path)));
            for heir in &mut group {
                undo::hand_down(attachment.all_steps(), &mut heir.changes);
                undo::hand_down(attachment.all_steps(), &mut heir.steps);
            }
            match steps.iter().any(|step| matches!(step, Step::DeleteLink(_))) {
                true => self.going.push(attachment),
                false => self.home_comers(vec![attachment])?,
            }
        }
        Ok(())
    }

    /// Interfaces that may be back on the host, whatever has become of the namespace.
    fn home_comers(&mut self, group: Vec<Attachment>) -> Result<()> {
        for attachment in group {
            self.commands.extend(way_home(&attachment)?.map(|step| step.command(Place::HOST)));
            self.going.push(attachment);
        }
        Ok(())
    }
}
