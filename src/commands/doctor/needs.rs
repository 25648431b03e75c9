//! What each verb cannot do without, in its ordinary form: what only an option needs is not needed.

use caps::Capability;

use super::report::Area;
use crate::{cli::DoctorVerb, kernel::features::Feature};

/// One thing that verbs cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    Feature(Feature),
    Capability(Capability),
    /// An interface that others can hang on.
    Parent,
    Store,
}

/// Whether the verb has to do with this part of the machine, be it only in some of its forms.
pub fn concerns(verb: DoctorVerb, area: Area) -> bool {
    use DoctorVerb::{Agent, Attach, Bench, CreateVlan, Dhcp, Flat, Pipework, Restore, Shim};
    match area {
        Area::Kernel | Area::Permissions => true,
        Area::Engines => !matches!(verb, CreateVlan | Bench),
        Area::Parents | Area::Forwarding => {
            matches!(verb, Flat | Dhcp | Attach | CreateVlan | Shim | Pipework | Restore | Agent)
        }
        Area::Store => verb != Bench,
    }
}

/// All that the verb cannot do without.
pub fn of(verb: DoctorVerb) -> Vec<Need> {
    const ATTACHING: [Need; 4] =
        [Need::Feature(Feature::Macvlan), Need::Feature(Feature::PacketSockets), Need::Parent, Need::Store];
    let own: &[Need] = match verb {
        DoctorVerb::Flat | DoctorVerb::Dhcp | DoctorVerb::Shim | DoctorVerb::Pipework => &ATTACHING,
        DoctorVerb::Attach => return [of(DoctorVerb::Flat), vec![Need::Feature(Feature::Vlan)]].concat(),
        // It writes down what others make.
        DoctorVerb::CreateVlan => return vec![Need::Feature(Feature::Vlan), Need::Parent, Need::Store],
        DoctorVerb::Qos => &[Need::Feature(Feature::Tbf), Need::Store],
        DoctorVerb::Bench => &[Need::Feature(Feature::Veth)],
        DoctorVerb::Route | DoctorVerb::Rule | DoctorVerb::Link => &[Need::Store],
        DoctorVerb::Detach | DoctorVerb::Restore | DoctorVerb::Agent | DoctorVerb::Gc => &[Need::Store],
    };
    let capabilities = crate::commands::CAPABILITIES.map(|(capability, _)| Need::Capability(capability));
    [&capabilities, own].concat()
}
