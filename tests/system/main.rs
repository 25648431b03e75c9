//! plumb on a real kernel, in namespaces of the tests' own, and with real engines. Needs root.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agent;
mod attach;
mod bench;
mod changes;
mod clients;
mod concurrency;
mod detach;
mod dhcp;
mod dhcp6;
mod dhcp_verb;
mod docker;
mod doctor;
mod dry_run;
mod etcd;
mod etcd_cluster;
mod etcd_fault;
mod flow;
mod gateway;
mod gc;
mod killed;
mod lab;
mod networks;
mod open_vswitch;
mod parity;
mod phys;
mod pipework;
mod podman;
mod qos;
mod refusals;
mod refused_steps;
mod shim;
mod soak;
mod speed;
mod store;
mod veth;
mod wait;
