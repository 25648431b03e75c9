//! DHCPv6 (RFC 8415) for one address (IA_NA), without a socket, a clock or chance, cut as DHCP for IPv4 is.
//!
//! - [`lease`]: an address and what came with it.
//! - [`message`]: what a client says, and what it takes from a server.
//! - [`machine`]: the RFC's exchanges; it is told what happens and when, and answers with what to do.

pub mod lease;
pub mod machine;
pub mod message;

pub use lease::{Duid, Lease};
pub use machine::{Action, Machine, Start};
pub use message::Client;
