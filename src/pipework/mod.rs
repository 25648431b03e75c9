//! pipework's command line: read as pipework reads it, and said anew as plumb's own. Pure; what the host has
//! under the name that was typed is given.

mod reading;
mod saying;

pub use reading::{Address, Attach, Client, HostInterface, Inside, Request, Tool, read};
pub use saying::{Found, Kind, Said, say};

/// What pipework prints where the words make no command.
pub const SYNTAX: &str = "Syntax:
pipework [--direct-phys] HOSTIF [-i IF] [-l HOSTEND] [-a 4|6] GUEST ADDR/LEN[@GATEWAY] [MAC][@VLAN]
pipework [--direct-phys] HOSTIF [-i IF] [-l HOSTEND] GUEST dhcp[:OPTIONS] [MAC][@VLAN]
pipework mac:HOSTMAC …          instead of HOSTIF: the interface that has this MAC address
pipework route GUEST ROUTE-COMMAND
pipework rule GUEST RULE-COMMAND
pipework tc GUEST TC-COMMAND
pipework --wait [-i IF]

HOSTIF is an interface, a bridge (br… and ovs… are made where they are missing), or dummy0. IF is eth1
unless -i says otherwise. ADDR/LEN 0/0 is none; udhcpc, dhclient and dhcpcd are as dhcp. MAC may be U:STRING.
docs/from-pipework.md tells what each line becomes.";
