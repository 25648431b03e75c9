//! Measuring the ways to connect containers: what is compared, in which order, by which senders and
//! receivers, and what the figures say. The namespaces and their devices are the kernel's part.

pub mod chart;
pub mod generator;
pub mod layout;
pub mod page;
pub mod report;
pub mod rounds;
pub mod statistics;
pub mod table;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A way to connect two containers of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Way {
    /// Both ends in one namespace: what the machine can do at best
    Loopback,
    /// A veth each, on one bridge, as Docker connects containers
    Bridge,
    /// Two bridges, with masquerading and a published port between them
    Nat,
    /// A macvlan each, in mode bridge
    Macvlan,
    /// The same on the device of a VLAN
    MacvlanVlan,
    /// An ipvlan each, in mode l2
    IpvlanL2,
    /// An ipvlan each, in mode l3
    IpvlanL3,
    /// An ipvlan each, in mode l3s
    IpvlanL3s,
    /// Two hosts, each with a bridge, and a VXLAN between them, as an overlay network
    Vxlan,
}

impl Way {
    /// What people and the field call it.
    pub fn title(self) -> &'static str {
        match self {
            Way::Loopback => "loopback",
            Way::Bridge => "bridge+veth",
            Way::Nat => "bridge+veth+NAT",
            Way::Macvlan => "macvlan bridge",
            Way::MacvlanVlan => "macvlan over VLAN",
            Way::IpvlanL2 => "ipvlan l2",
            Way::IpvlanL3 => "ipvlan l3",
            Way::IpvlanL3s => "ipvlan l3s",
            Way::Vxlan => "VXLAN",
        }
    }

    /// What `--ways` takes for it.
    pub fn typed(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// A test in netperf's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
pub enum Test {
    /// Data one way by TCP, as fast as it goes
    #[value(name = "TCP_STREAM", alias = "tcp-stream")]
    #[serde(rename = "TCP_STREAM")]
    TcpStream,
    /// Datagrams that fill a packet, one way, as fast as they go
    #[value(name = "UDP_STREAM", alias = "udp-stream")]
    #[serde(rename = "UDP_STREAM")]
    UdpStream,
    /// One byte there and one back, over and over
    #[value(name = "TCP_RR", alias = "tcp-rr")]
    #[serde(rename = "TCP_RR")]
    TcpRr,
    /// The same with a connection of its own each time
    #[value(name = "TCP_CRR", alias = "tcp-crr")]
    #[serde(rename = "TCP_CRR")]
    TcpCrr,
    /// One byte there and one back by UDP
    #[value(name = "UDP_RR", alias = "udp-rr")]
    #[serde(rename = "UDP_RR")]
    UdpRr,
}

/// Whose senders and receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// Its own
    Plumb,
    /// iperf3's, which has the streams only
    Iperf3,
    /// netperf's
    Netperf,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Tool::Plumb => "plumb",
            Tool::Iperf3 => "iperf3",
            Tool::Netperf => "netperf",
        }
    }
}

impl Test {
    pub fn name(self) -> &'static str {
        match self {
            Test::TcpStream => "TCP_STREAM",
            Test::UdpStream => "UDP_STREAM",
            Test::TcpRr => "TCP_RR",
            Test::TcpCrr => "TCP_CRR",
            Test::UdpRr => "UDP_RR",
        }
    }

    /// Whether it counts requests with their answers, and not bytes.
    pub fn asks(self) -> bool {
        match self {
            Test::TcpStream | Test::UdpStream => false,
            Test::TcpRr | Test::TcpCrr | Test::UdpRr => true,
        }
    }

    /// What its figures are in.
    pub fn unit(self) -> &'static str {
        if self.asks() { "transactions/s" } else { "Gbit/s" }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
