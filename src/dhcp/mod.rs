//! DHCP for IPv4 (RFC 2131), without a socket, a clock or chance: what packets say, and what to do when.
//!
//! - [`options`]: the options of a packet, and how people name and write them.
//! - [`packet`]: what a client sends, and what it takes from a server.
//! - [`lease`]: an address and what came with it.
//! - [`external`]: clients that others wrote: how to call them, and what they tell.
//! - [`machine`]: the RFC's states; it is told what happens and when, and answers with what to do.
//!
//! `kernel/dhcp.rs` has the sockets and the clock. DHCPv6 shares little of this but the way it is cut, and
//! lies beside: [`v6`].

pub mod external;
pub mod lease;
pub mod machine;
pub mod options;
pub mod packet;
#[cfg(test)]
mod server;
pub mod v6;

pub use external::{External, Program};
pub use lease::{Lease, Term};
pub use machine::{Action, Loss, Machine, Packet, Phase, Start};
pub use options::{OptionCode, OptionSpec};
pub use packet::{Client, ClientId, Reply, Unfit};
