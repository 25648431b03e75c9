//! What went wrong, why, and what to do next: the one error that reaches a user.

use std::fmt;

use serde::Serialize;

pub type Result<T> = std::result::Result<T, Error>;

/// The hint of whatever only root may do.
pub const RUN_AS_ROOT: &str = "run plumb as root, such as with sudo";

/// The kind of a failure. It decides the exit code, and scripts may rely on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The command failed and nothing was changed.
    Failed,
    /// The command line itself is wrong.
    Usage,
    /// There is no such target, interface or network.
    NotFound,
    /// A name, an address or an interface is in use.
    Conflict,
    /// A capability or a permission is missing.
    NotPermitted,
    /// The command failed and could not take everything back.
    LeftBehind,
    /// Somebody did not answer in time.
    TimedOut,
    /// SIGINT or SIGTERM arrived; what had been done was taken back.
    Interrupted,
}

impl Kind {
    /// The process's exit code. 130 is what shells give a program that ctrl-C ended.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Conflict => 4,
            Kind::NotPermitted => 5,
            Kind::LeftBehind => 6,
            Kind::TimedOut => 7,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure as the user reads it: `message` names the object and the reason, `hint` the next step,
/// `leftovers` the commands that take back by hand what plumb could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<String>,
    /// What else went wrong, of several things.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Error>,
    /// The user has been told already, within a document that tells of other things too.
    #[serde(skip)]
    pub said: bool,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, leftovers: Vec::new(), also: Vec::new(), said: false }
    }

    /// The command failed: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Error::new(Kind::Failed, message)
    }

    /// The command line is wrong: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Kind::Usage, message)
    }

    /// There is no such target, interface or network: exit code 3.
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(Kind::NotFound, message)
    }

    /// It is in use by another: exit code 4.
    pub fn conflict(message: impl Into<String>) -> Self {
        Error::new(Kind::Conflict, message)
    }

    /// A capability or permission is missing: exit code 5.
    pub fn not_permitted(message: impl Into<String>) -> Self {
        Error::new(Kind::NotPermitted, message)
    }

    /// Somebody did not answer in time: exit code 7.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Error::new(Kind::TimedOut, message)
    }

    /// SIGINT or SIGTERM came: exit code 130.
    pub fn interrupted() -> Self {
        Error::new(Kind::Interrupted, "interrupted")
    }

    /// An input or output error, with what was being done.
    pub fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Kind::NotPermitted,
            std::io::ErrorKind::Interrupted => return Error::interrupted(),
            _ => Kind::Failed,
        };
        Error::new(kind, format!("{doing}: {}", plain(error)))
    }

    /// Several failures as one, which counts as the gravest of them.
    pub fn join(mut self, other: Error) -> Error {
        if other.kind == Kind::LeftBehind {
            self.kind = Kind::LeftBehind;
        }
        self.also.push(other);
        self
    }

    /// Message and hint on one line, for a warning.
    pub fn with_its_hint(&self) -> String {
        let hint = self.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
        format!("{}{hint}", self.message)
    }

    /// With the next step, as an order or a command without a full stop.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The text of an input or output error without Rust's "(os error N)".
pub fn plain(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
