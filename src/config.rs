//! `/etc/plumb/plumb.toml`: defaults for flags. What is typed wins over the environment, the
//! environment over the file, the file over what is built in.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    types::{IfName, Span},
};

pub const PATH: &str = "/etc/plumb/plumb.toml";

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub store: Option<String>,
    pub docker: Option<String>,
    pub podman: Option<String>,
    pub host_interface: Option<IfName>,
    pub probe: Option<Span>,
    pub check: Option<bool>,
}

/// The value of an environment variable; an empty one counts as not set.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The file that was asked for, by flag or by variable.
pub fn path(flag: Option<PathBuf>) -> Option<PathBuf> {
    flag.or_else(|| variable("PLUMB_CONFIG").map(PathBuf::from))
}

impl Config {
    /// Reads the file. That there is none is fine, unless it was asked for by name.
    pub fn read(asked_for: Option<&Path>) -> Result<Config> {
        let path = asked_for.unwrap_or(Path::new(PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(&text, path),
            Err(error) if error.kind() == ErrorKind::NotFound && asked_for.is_none() => Ok(Config::default()),
            Err(error) => Err(Error::io(format!("cannot read the configuration {}", path.display()), &error)),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Config> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Error::usage(format!("{} line {line}: {}", path.display(), error.message()))
                .hint("README.md lists what the file may say")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new(PATH))
    }

    #[test]
    fn each_line_is_understood() {
        let config =
            parse("store = \"/srv/plumb\"\nhost-interface = \"eth0\"\nprobe = \"0\"\ncheck = false\n").unwrap();
        assert_eq!(config.host_interface.unwrap().as_str(), "eth0");
        assert!(config.probe.unwrap().is_zero());
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let error = parse("check = false\nprobe = \"5\"\n").unwrap_err();
        assert_eq!(error.message, "/etc/plumb/plumb.toml line 2: \"5\" has no unit; write 5ms or 5s");
        let error = parse("\nstroe = \"/srv\"\n").unwrap_err();
        assert!(error.message.starts_with("/etc/plumb/plumb.toml line 2: unknown field `stroe`"), "{error}");
    }
}
