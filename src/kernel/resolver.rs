//! A container's `/etc/resolv.conf`, reached through the root directory of its process, so in its own
//! mount namespace, and never outside of that: links in it lead to where they lead inside.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

use crate::{
    apply::StepError,
    error::{Error, Result, plain},
};

const FILE: &str = "etc/resolv.conf";

/// What the file says. `root` is such as `/proc/42/root`.
pub fn read(root: &Path) -> Result<String> {
    let text = opened(root, OFlag::O_RDONLY).and_then(|mut file| {
        let mut text = String::new();
        file.read_to_string(&mut text).map(|_| text)
    });
    text.map_err(|error| {
        Error::failed(format!("cannot read the container's /etc/resolv.conf: {}", plain(&error)))
            .hint("leave --dns out")
    })
}

/// Whether that is this host's own file: a process may have a network of its own and nothing else.
pub fn is_hosts_own(root: &Path) -> bool {
    let hosts = fs::metadata(Path::new("/").join(FILE)).ok();
    let theirs = opened(root, OFlag::O_RDONLY).and_then(|file| file.metadata()).ok();
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    hosts.is_some() && hosts.map(identity) == theirs.map(identity)
}

/// Writes the file, if it says `from`: whatever else it says somebody has written since. In place, as
/// engines mount it by itself, and what is mounted cannot be replaced.
pub fn write(root: &Path, from: &str, to: &str) -> std::result::Result<(), StepError> {
    let written = || -> io::Result<bool> {
        let mut text = String::new();
        opened(root, OFlag::O_RDONLY)?.read_to_string(&mut text)?;
        if text != from {
            return Ok(false);
        }
        let mut file = opened(root, OFlag::O_WRONLY | OFlag::O_TRUNC)?;
        file.write_all(to.as_bytes()).map(|()| true)
    };
    let failed = |reason: &str| format!("cannot write the container's /etc/resolv.conf: {reason}");
    match written() {
        Ok(true) => Ok(()),
        Ok(false) => Err(StepError::Gone(failed("somebody has changed it"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StepError::Gone(failed(&plain(&error)))),
        Err(error) => Err(StepError::Refused(Error::failed(failed(&plain(&error))).hint("leave --dns out"))),
    }
}

fn opened(root: &Path, flags: OFlag) -> io::Result<File> {
    let root: OwnedFd = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(openat2(&root, FILE, how)?.into())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_lead_to_where_they_lead_inside() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir_all(root.path().join("run")).unwrap();
        symlink("/run/resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
        let file = root.path().join("run/resolv.conf");
        fs::write(&file, "nameserver 10.0.0.1\n").unwrap();
        let text = read(root.path()).unwrap();
        write(root.path(), &text, "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "nameserver 10.0.0.2\n");
        assert!(
            matches!(write(root.path(), &text, "else\n"), Err(StepError::Gone(_))),
            "it says something else by now"
        );
        write(root.path(), "nameserver 10.0.0.2\n", &text).unwrap();
        assert_eq!(read(root.path()).unwrap(), text);
    }
}
