//! plumb
pub mod error;
pub mod types;
