//! plumb
pub mod apply;
pub mod cli;
pub mod commands;
pub mod complete;
pub mod config;
pub mod container;
pub mod docker;
pub mod error;
pub mod interrupt;
pub mod kernel;
pub mod output;
pub mod plan;
pub mod store;
pub mod types;
