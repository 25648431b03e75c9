//! What needs a kernel with VLANs and ipvlan, in a guest that has one, and what needs two hosts, in
//! two guests on one wire. Needs root, and what `scripts/vm` needs.
//!
//! `cargo test` runs this target on the machine, whose kernel may have none of that. There it boots
//! two guests once with the same arguments, which share the tests out between them, and each test passes if
//! it has passed in one of them.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;
mod boot;
mod capture;
mod dhcp;
mod doctor;

#[path = "../system/etcd_cluster.rs"]
#[allow(dead_code, reason = "the tests that need no guest use the rest")]
mod etcd_cluster;
#[path = "../system/etcd_fault.rs"]
#[allow(dead_code, reason = "the tests that need no guest use the rest")]
mod etcd_fault;
mod hosts;
mod ipvlan;
mod kernel;

#[path = "../system/lab.rs"]
#[allow(dead_code, reason = "the tests that need no guest use the rest")]
mod lab;
mod netem;
mod old_kernel;
#[path = "../system/parity.rs"]
mod parity;
mod phys;
mod pipework;
mod shim;
#[path = "../system/soak.rs"]
mod soak;
mod vlan;
mod wire;
