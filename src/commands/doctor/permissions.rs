//! What this process may do.

use caps::Capability;

use super::{needs::Need, report::Finding};
use crate::{
    commands::{CAPABILITIES, lacks},
    error::{Error, RUN_AS_ROOT},
};

/// An error if the process lacks it.
pub fn lacking(capability: Capability) -> Option<Error> {
    lacks(capability).then(|| Error::not_permitted(format!("{capability} is missing")).hint(RUN_AS_ROOT))
}

/// A finding for each capability.
pub fn look() -> Vec<Finding> {
    let needed = CAPABILITIES.map(|(capability, purpose)| {
        let name = capability.to_string();
        let finding = if lacks(capability) {
            Finding::missing(&name, format!("this process lacks it; it is needed {purpose}")).remedy(RUN_AS_ROOT)
        } else {
            Finding::ok(&name, purpose)
        };
        finding.of(Need::Capability(capability))
    });
    // Of one's own processes, and of those that may do no more than oneself, the kernel asks for none.
    let name = Capability::CAP_SYS_PTRACE.to_string();
    const PURPOSE: &str = "to open the namespaces of others' processes";
    let others = if lacks(Capability::CAP_SYS_PTRACE) {
        Finding::warning(&name, format!("this process lacks it; it is needed {PURPOSE}"))
            .remedy("run plumb as root; in a container with --cap-add SYS_PTRACE")
    } else {
        Finding::ok(&name, PURPOSE)
    };
    needed.into_iter().chain([others]).collect()
}
