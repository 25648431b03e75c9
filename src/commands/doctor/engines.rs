//! Whether a container engine answers.

use std::time::Instant;

use super::report::{Finding, State};
use crate::{
    docker::{Engine, EngineKind},
    error::Kind,
};

/// A host may have one engine, or none: processes and namespaces are targets as well. So none is missing.
pub fn look(kind: EngineKind, address: &str) -> Vec<Finding> {
    let begun = Instant::now();
    let answer = Engine::connect(kind, address).and_then(|engine| engine.version());
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let socket = address.trim_start_matches("unix://");
    vec![match answer {
        Ok((version, api)) => {
            Finding::ok(kind.name(), format!("{version}, API {api}, answers on {socket} in {took:.1} ms"))
        }
        Err(error) if error.kind == Kind::Failed && !std::path::Path::new(socket).exists() => {
            Finding::because(State::Note, kind.name(), &error)
        }
        Err(error) => Finding::because(State::Warning, kind.name(), &error),
    }]
}
