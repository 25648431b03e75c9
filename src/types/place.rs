//! Where a namespace is found again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A process, by its id and the time it was started at, in clock ticks since boot (field 22 of
    /// `/proc/PID/stat`). Ids are used again, the pair is not.
    Process {
        pid: u32,
        started: u64,
    },
    Path(PathBuf),
}

impl Place {
    /// The namespace that plumb was started in, which is that of its main thread.
    pub const HOST: &str = "/proc/self/ns/net";

    /// The directory that the files of the place are under, if it has any of its own.
    pub fn root(&self) -> Option<PathBuf> {
        match self {
            Place::Process { pid, .. } => Some(PathBuf::from(format!("/proc/{pid}/root"))),
            Place::Path(_) => None,
        }
    }

    /// The namespace's file.
    pub fn path(&self) -> PathBuf {
        match self {
            Place::Process { pid, .. } => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Place::Path(path) => path.clone(),
        }
    }
}
