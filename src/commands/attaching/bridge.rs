//! The bridge that a veth is to be a port of, made where it is missing.

use super::{Device, Work, parent, random};
use crate::{
    config,
    error::Result,
    plan::{Parent, bridge::Bridge},
    types::{IfName, Tag},
};

/// The bridge of this name. The host is locked.
pub(super) fn device(work: &mut Work, name: &IfName) -> Result<Device> {
    if work.kernel.parent(name)?.is_some() {
        return Ok(Device { parent: parent(work.kernel, name)?, made: false, commands: Vec::new() });
    }
    let bridge = Bridge::new(name.clone(), &config::host_identity().unwrap_or_default());
    let tag = Tag::new(work.context.store.mark(), random()?);
    let commands = bridge.commands(&tag);
    if work.intent.dry_run {
        return Ok(Device { parent: Parent::new_bridge(name.clone(), bridge.mac), made: false, commands });
    }
    work.kernel.add_bridge(&bridge, &tag)?;
    commands.iter().for_each(|command| work.context.output.step(command, std::time::Duration::ZERO));
    Ok(Device { parent: parent(work.kernel, name)?, made: true, commands: Vec::new() })
}
