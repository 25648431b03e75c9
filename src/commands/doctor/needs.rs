//! What each verb cannot do without, in its ordinary form: what only an option needs is not needed.

use caps::Capability;

use crate::{cli::DoctorVerb, kernel::features::Feature};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    Feature(Feature),
    Capability(Capability),
    /// An interface that others can hang on.
    Parent,
    Store,
}

pub fn of(verb: DoctorVerb) -> Vec<Need> {
    const ATTACHING: [Need; 4] =
        [Need::Feature(Feature::Macvlan), Need::Feature(Feature::PacketSockets), Need::Parent, Need::Store];
    let own: &[Need] = match verb {
        DoctorVerb::Flat | DoctorVerb::Dhcp | DoctorVerb::Shim => &ATTACHING,
        DoctorVerb::Attach => return [of(DoctorVerb::Flat), vec![Need::Feature(Feature::Vlan)]].concat(),
        // It writes down what others make.
        DoctorVerb::CreateVlan => return vec![Need::Feature(Feature::Vlan), Need::Parent, Need::Store],
        DoctorVerb::Qos => &[Need::Feature(Feature::Tbf), Need::Store],
        DoctorVerb::Bench => &[Need::Feature(Feature::Veth)],
        DoctorVerb::Detach | DoctorVerb::Restore | DoctorVerb::Agent | DoctorVerb::Gc => &[Need::Store],
    };
    let capabilities = crate::commands::CAPABILITIES.map(|(capability, _)| Need::Capability(capability));
    [&capabilities, own].concat()
}
