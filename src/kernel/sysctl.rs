//! Kernel settings under `/proc/sys/net`, which shows the namespace of the thread that looks.

use std::{fs, io::ErrorKind};

use crate::{
    apply::StepError,
    error::{Error, Result, plain},
    plan::facts::{Ipv4Forwarding, Ipv6Defaults},
    types::IfName,
};

/// What a new interface starts with, or `None` where there is no IPv6.
pub fn ipv6_defaults() -> Option<Ipv6Defaults> {
    let read = |key: &str| {
        fs::read_to_string(format!("/proc/sys/net/ipv6/conf/default/{key}")).ok().map(|text| text.trim().to_owned())
    };
    Some(Ipv6Defaults { disabled: read("disable_ipv6")? != "0", accept_ra: read("accept_ra")? })
}

/// Whether IPv4 is forwarded, and if not what turning it on and off again would override; and
/// whether `parent` answers for addresses of others.
pub fn ipv4_forwarding(parent: &IfName) -> Result<Ipv4Forwarding> {
    let read = |key: &str| fs::read_to_string(format!("/proc/sys/{key}")).map(|text| text.trim().to_owned());
    let key = "net/ipv4/ip_forward";
    let on = read(key).map_err(|error| Error::io(format_args!("cannot read {key}"), &error))? != "0";
    let mut overridden = Vec::new();
    if !on {
        let interfaces = fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
        let names = interfaces.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let each = names.map(|name| (format!("net/ipv4/conf/{name}/forwarding"), "1"));
        let all = ("net/ipv4/conf/all/accept_redirects".to_owned(), "0");
        // An interface that has gone meanwhile has nothing to lose.
        let is_lost = |(key, value): &(String, &str)| read(key).is_ok_and(|now| now == *value);
        overridden = each.chain([all]).filter(is_lost).map(|(key, value)| (key, value.to_owned())).collect();
        overridden.sort();
    }
    let arp_ignore = |interface: &str| read(&format!("net/ipv4/conf/{interface}/arp_ignore"));
    let arp_ignore = arp_ignore(parent.as_str()).or_else(|_| arp_ignore("default"));
    let arp_ignore = arp_ignore.map_err(|error| Error::io("cannot read arp_ignore", &error))?;
    Ok(Ipv4Forwarding { on, overridden, arp_ignore, accept_in: None })
}

/// The settings of an interface that are not what a new one with that MTU begins with.
pub fn own(interface: &IfName, mtu: u32) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for version in ["ipv4", "ipv6"] {
        let folder = format!("net/{version}/conf");
        let entries = fs::read_dir(format!("/proc/sys/{folder}/{interface}")).into_iter().flatten().flatten();
        for name in entries.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            let read = |of: &str| fs::read_to_string(format!("/proc/sys/{folder}/{of}/{name}")).ok();
            let (Some(own), Some(new)) = (read(interface.as_str()), read("default")) else { continue };
            let own = own.trim();
            let follows = match name.as_str() {
                // What a routing daemon does, and read only.
                "mc_forwarding" => true,
                "mtu" => own == mtu.to_string(),
                _ => own == new.trim(),
            };
            if !follows {
                found.push((format!("{folder}/{interface}/{name}"), own.to_owned()));
            }
        }
    }
    found.sort();
    found
}

/// Equivalent to `sysctl -w KEY=VALUE`.
pub fn write(key: &str, value: &str) -> std::result::Result<(), StepError> {
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
