//! Connects running containers to real networks: links, addresses and routes, set directly inside a
//! container's network namespace, all or nothing, and taken back without a trace.
//!
//! Where things are, in a good order to read:
//!
//! - [`types`]: what a person types, as values that are valid once they exist.
//! - [`plan`]: the heart. A [`plan::Wish`] and the [`plan::Facts`] give a [`plan::Wiring`]: steps that
//!   know their inverse and the command they equal. Pure, so all refusals are tested without root.
//! - [`apply`]: runs steps, all or nothing; the seam to the kernel is one method.
//! - [`dhcp`]: addresses from the LAN's own server: packets and states, pure as well.
//! - [`kernel`]: the only folder that speaks to the kernel: netlink, ARP, ICMP, DHCP's
//!   sockets, sysctls, namespaces.
//! - [`docker`] and [`container`]: from `web` or `pid:42` to a running target and its namespace.
//! - [`bench`]: what is measured, in which order, by which senders and receivers, and what it says.
//! - [`pipework`]: the old tool's command line, said anew as plumb's own. Pure.
//! - [`ipam`]: which address a network gives next. Pure.
//! - [`store`]: what is remembered, and who has claimed which address.
//! - [`namespace`]: the namespace of a target or of a record, opened and made sure of.
//! - [`shim`]: the routes by which the host reaches its own containers.
//! - [`agent`]: the one process in the background: it renews leases.
//! - [`commands`]: a file for each verb: find, look, plan, apply, record, say.
//! - [`cli`]: every flag, once; [`complete`] what the shell offers; [`config`] where defaults come
//!   from; [`output`] how things are said; [`error`] what failures are; [`interrupt`] ctrl-C.
//!
//! A request travels one way, down: each module uses only those below it, and `tests/house` holds
//! the table.

pub mod agent;
pub mod apply;
pub mod bench;
pub mod cli;
pub mod commands;
pub mod complete;
pub mod config;
pub mod container;
pub mod dhcp;
pub mod docker;
pub mod error;
pub mod interrupt;
pub mod ipam;
pub mod kernel;
pub mod namespace;
pub mod output;
pub mod pipework;
pub mod plan;
pub mod shim;
pub mod store;
pub mod types;
