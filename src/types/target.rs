//! What a command acts on, as a person names it.

use std::{fmt, path::PathBuf, str::FromStr};

use super::Place;

/// `web`, `docker:web`, `podman:web`, `pid:42`, `netns:blue`, `netns:/run/netns/blue` or `host:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetName {
    /// A container's name or the beginning of its id, known to the Docker engine.
    Docker(String),
    /// The same, known to Podman.
    Podman(String),
    /// The network namespace of a process.
    Pid(u32),
    /// A namespace that `ip netns` made, by its name.
    NetnsName(String),
    /// A namespace by the file that it is mounted on.
    NetnsPath(PathBuf),
    /// This host itself. Only plumb attaches to it: the gateways of networks.
    Host,
}

impl TargetName {
    /// The namespace's file, for targets that name one.
    pub fn netns_path(&self) -> Option<PathBuf> {
        match self {
            TargetName::NetnsName(name) => Some(PathBuf::from("/run/netns").join(name)),
            TargetName::NetnsPath(path) => Some(path.clone()),
            TargetName::Host => Some(PathBuf::from(Place::HOST)),
            TargetName::Docker(_) | TargetName::Podman(_) | TargetName::Pid(_) => None,
        }
    }
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or(("docker", text));
        match scheme {
            "docker" => Ok(TargetName::Docker(container(rest)?)),
            "podman" => Ok(TargetName::Podman(container(rest)?)),
            "pid" => match rest.parse() {
                Ok(pid @ 1..=0x7fff_ffff) => Ok(TargetName::Pid(pid)),
                _ => Err(format!("{rest:?} is no process id; write pid:42")),
            },
            "host" if rest.is_empty() => Ok(TargetName::Host),
            "netns" if rest.starts_with('/') => Ok(TargetName::NetnsPath(rest.into())),
            "netns" if rest.is_empty() || rest == "." || rest == ".." || rest.contains(['/', '\0']) => {
                Err(format!("{rest:?} names no namespace; write netns:NAME, or netns:/PATH"))
            }
            "netns" => Ok(TargetName::NetnsName(rest.to_owned())),
            _ => Err(format!(
                "{text:?} names no target; write a container's name or id, podman:NAME, pid:N, netns:NAME or netns:/PATH"
            )),
        }
    }
}

/// A name or id that an engine accepts: letters, digits, `_`, `.` and `-`, not beginning with one
/// of the last three (Docker's `RestrictedNamePattern`). Docker prints names with a leading slash.
fn container(text: &str) -> Result<String, String> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(legal) {
        Ok(name.to_owned())
    } else {
        Err(format!("{text:?} cannot be a container's name: those have letters, digits, _, . and - only"))
    }
}

impl TargetName {
    /// What is said of it, before a colon: that of the host would be the second.
    pub fn in_words(&self) -> String {
        match self {
            TargetName::Host => "this host".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetName::Docker(name) => f.pad(name),
            TargetName::Podman(name) => write!(f, "podman:{name}"),
            TargetName::Pid(pid) => write!(f, "pid:{pid}"),
            TargetName::NetnsName(name) => write!(f, "netns:{name}"),
            TargetName::NetnsPath(path) => write!(f, "netns:{}", path.display()),
            TargetName::Host => f.write_str("host:"),
        }
    }
}

super::as_text!(TargetName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_understood() {
        for text in ["web", "podman:web", "pid:42", "netns:blue", "netns:/run/netns/blue", "0a1b2c"] {
            assert_eq!(text.parse::<TargetName>().unwrap().to_string(), text);
        }
        assert_eq!("docker:web".parse::<TargetName>().unwrap().to_string(), "web");
        assert_eq!("/web".parse::<TargetName>().unwrap().to_string(), "web");
    }

    #[test]
    fn what_cannot_be_a_target_is_refused() {
        for bad in [
            "",
            "pid:",
            "pid:0",
            "pid:-1",
            "pid:x",
            "netns:",
            "netns:..",
            "netns:a/b",
            "lxc:web",
            "we b",
            "-web",
            "web/../x",
        ] {
            assert!(bad.parse::<TargetName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(text in "(podman:|pid:|netns:|)[a-z0-9/._-]{1,12}") {
            if let Ok(target) = text.parse::<TargetName>() {
                prop_assert_eq!(target.to_string().parse::<TargetName>().unwrap(), target);
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = text.parse::<TargetName>();
        }
    }
}
