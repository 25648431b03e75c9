//! Kernel settings under `/proc/sys/net`, which shows the namespace of the thread that looks.

use std::{fs, io::ErrorKind};

use crate::{
    apply::StepError,
    error::{Error, plain},
    plan::facts::Ipv6Defaults,
};

/// What a new interface starts with, or `None` where there is no IPv6.
pub fn ipv6_defaults() -> Option<Ipv6Defaults> {
    let read = |key: &str| {
        fs::read_to_string(format!("/proc/sys/net/ipv6/conf/default/{key}")).ok().map(|text| text.trim().to_owned())
    };
    Some(Ipv6Defaults { disabled: read("disable_ipv6")? != "0", accept_ra: read("accept_ra")? })
}

/// Equivalent to `sysctl -w KEY=VALUE`.
pub fn write(key: &str, value: &str) -> Result<(), StepError> {
    fs::write(format!("/proc/sys/{key}"), value).map_err(|error| {
        let message = format!("cannot set {key} to {value}: {}", plain(&error));
        match error.kind() {
            ErrorKind::NotFound => StepError::Gone(message),
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                StepError::Refused(Error::not_permitted(message).hint("/proc/sys must be writable where plumb runs"))
            }
            _ => StepError::Refused(Error::failed(message)),
        }
    })
}
