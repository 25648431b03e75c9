//! plumb
pub mod error;
pub mod interrupt;
pub mod types;
pub mod plan;
pub mod apply;
pub mod kernel;
pub mod docker;
pub mod container;
pub mod store;
