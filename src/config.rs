//! `/etc/plumb/plumb.toml`: defaults for flags. What is typed wins over the environment, the
//! environment over the file, the file over what is built in.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    store::Access,
    types::{IfName, Span, digest},
};

pub const PATH: &str = "/etc/plumb/plumb.toml";

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub store: Option<String>,
    pub store_ca: Option<PathBuf>,
    pub store_cert: Option<PathBuf>,
    pub store_key: Option<PathBuf>,
    pub store_password_file: Option<PathBuf>,
    pub docker: Option<String>,
    pub podman: Option<String>,
    pub host_interface: Option<IfName>,
    pub probe: Option<Span>,
    pub check: Option<bool>,
    pub dhcp_timeout: Option<Span>,
}

/// The value of an environment variable; an empty one counts as not set.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The file that was asked for, by flag or by variable.
pub fn path(flag: Option<PathBuf>) -> Option<PathBuf> {
    flag.or_else(|| variable("PLUMB_CONFIG").map(PathBuf::from))
}

/// What tells this host from all others (machine-id(5)): 32 hexadecimal digits. Records are for all
/// to read, and the id itself is not to be shown around.
pub fn host_identity() -> Option<String> {
    let read = |path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|id| !id.is_empty());
    let id = read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"))?;
    Some(digest(&["plumb host", &id]))
}

/// What people call this host.
pub fn host_name() -> Option<String> {
    nix::sys::utsname::uname().ok()?.nodename().to_str().map(str::to_owned).filter(|name| !name.is_empty())
}

/// From where plumb is typed, if that is by ssh, which tells in `SSH_CONNECTION` (ssh(1)); sudo usually forgets it.
pub fn ssh_client() -> Option<std::net::IpAddr> {
    variable("SSH_CONNECTION")?.split_whitespace().next()?.parse().ok()
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

    /// What a store in etcd takes beside its address, from what was typed of it.
    pub fn access(&self, typed: Access, password_file: Option<PathBuf>) -> Result<Access> {
        let host = host_identity().ok_or_else(|| {
            Error::failed("hosts that share a store are told apart by /etc/machine-id, and this one has none")
                .hint("systemd-machine-id-setup, or dbus-uuidgen --ensure=/etc/machine-id, makes one")
        })?;
        let settle = |typed: Option<PathBuf>, name: &str, filed: &Option<PathBuf>| {
            typed.or_else(|| variable(name).map(PathBuf::from)).or_else(|| filed.clone())
        };
        let password = match (password_file, variable("PLUMB_STORE_PASSWORD")) {
            (None, Some(password)) => Some(password),
            (file, _) => file.or_else(|| self.store_password_file.clone()).as_deref().map(read_password).transpose()?,
        };
        Ok(Access {
            host: host.chars().take(12).collect(),
            password,
            ca: settle(typed.ca, "PLUMB_STORE_CA", &self.store_ca),
            cert: settle(typed.cert, "PLUMB_STORE_CERT", &self.store_cert),
            key: settle(typed.key, "PLUMB_STORE_KEY", &self.store_key),
        })
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

/// The first line, as editors end files with a line's end.
fn read_password(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::io(format!("cannot read the password in {}", path.display()), &error))?;
    let password = text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned);
    password.ok_or_else(|| Error::usage(format!("{} holds no password", path.display())))
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
