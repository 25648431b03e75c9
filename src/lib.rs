//! plumb
pub mod error;
pub mod types;
pub mod plan;
