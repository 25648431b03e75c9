//! Open vSwitch, which keeps its bridges and ports in a database of its own: by its own program, `ovs-vsctl`.

use std::{
    io::ErrorKind,
    process::{Command, Stdio},
};

use crate::{
    apply::StepError,
    error::{Error, Result},
    plan::{
        Port,
        bridge::{open_vswitch_addition, open_vswitch_deletion, ovs_vsctl},
    },
    types::{IfName, Tag, VlanId},
};

/// Seconds after which `ovs-vsctl` gives up: without its daemon it would wait for ever.
const PATIENCE: &str = "--timeout=10";

/// Whether Open vSwitch has a bridge of this name; `None` where there is no Open vSwitch to ask.
pub fn is_bridge(name: &IfName) -> Result<Option<bool>> {
    match run(&["br-exists", name.as_str()]) {
        // What it says when there is none.
        Err(Failed::Said { code: Some(2), .. }) => Ok(Some(false)),
        Err(Failed::Missing) => Ok(None),
        other => other.map(|_| Some(true)).map_err(Error::from),
    }
}

/// Makes a bridge that is plumb's.
pub fn add_bridge(name: &IfName, tag: &Tag) -> Result<()> {
    Ok(run(&open_vswitch_addition(name, tag)).map(drop)?)
}

/// Deletes a bridge with its ports. That it has gone is no error.
pub fn delete_bridge(name: &IfName) -> Result<()> {
    Ok(run(&open_vswitch_deletion(name.as_str())).map(drop)?)
}

/// The bridges that plumb has made, each with its ports but its own.
pub fn own_bridges() -> Result<Vec<(IfName, Vec<IfName>)>> {
    let mut own = Vec::new();
    for (name, _) in owned("Bridge")? {
        let ports = run(&["list-ports", name.as_str()])?;
        let ports = ports.lines().map(|port| port.trim().parse().map_err(Error::failed)).collect::<Result<_>>()?;
        own.push((name, ports));
    }
    Ok(own)
}

/// On which bridge a port is, and in which VLAN untagged.
pub fn port(name: &IfName) -> Result<Option<(String, Option<VlanId>)>> {
    let bridge = match run(&["port-to-br", name.as_str()]) {
        // What it says when there is none.
        Err(Failed::Said { code: Some(1), text, .. }) if text.contains("no port") => return Ok(None),
        other => other?,
    };
    let vlan = run(&["get", "port", name.as_str(), "tag"])?;
    let id = vlan.trim().parse().ok().and_then(|id: u16| VlanId::try_from(id).ok());
    Ok(Some((bridge.trim().to_owned(), id)))
}

/// The ports that plumb has made, by their interfaces' names.
pub fn ports() -> Result<Vec<(IfName, Tag)>> {
    owned("Interface")
}

/// Deletes a port, on whatever bridge it is.
pub fn delete_port(name: &IfName) -> Result<()> {
    Ok(run(&["--no-wait", "--if-exists", "del-port", name.as_str()]).map(drop)?)
}

pub(super) fn add(port: &Port) -> std::result::Result<(), StepError> {
    match run(&port.addition()) {
        Ok(_) => Ok(()),
        Err(Failed::Said { text, .. }) if text.contains("already exists") => {
            let (name, bridge) = (&port.name, &port.bridge);
            Err(StepError::Refused(
                Error::conflict(format!("Open vSwitch has a port {name} already")).hint(format!(
                    "ovs-vsctl del-port {name} deletes it; or choose another with --host-name on {bridge}"
                )),
            ))
        }
        Err(failed) => Err(StepError::Refused(failed.into())),
    }
}

/// Whether it is still the port that was made.
pub fn has(port: &Port) -> Result<bool> {
    let ours = port.external_ids.get(Port::TAG).and_then(|tag| tag.parse::<Tag>().ok());
    Ok(ports()?.iter().any(|(name, tag)| *name == port.name && Some(tag) == ours.as_ref()))
}

/// Deletes the port if it is still the one that was made.
pub(super) fn delete(port: &Port) -> std::result::Result<(), StepError> {
    if !has(port).map_err(StepError::Refused)? {
        return Err(StepError::Gone(format!("Open vSwitch has no port {} of plumb's", port.name)));
    }
    run(&port.deletion()).map(drop).map_err(|failed| StepError::Refused(failed.into()))
}

/// The rows of a table that have a tag of plumb's. None where there is no Open vSwitch.
fn owned(table: &str) -> Result<Vec<(IfName, Tag)>> {
    let text = match run(&["--format=json", "--columns=name,external_ids", "list", table]) {
        Err(Failed::Missing) => return Ok(Vec::new()),
        other => other?,
    };
    let strange = |error| Error::failed(format!("ovs-vsctl printed something that plumb does not understand: {error}"));
    let document: serde_json::Value = serde_json::from_str(&text).map_err(strange)?;
    let rows = document["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    // A row is its name and ["map", [[key, value], …]].
    let row = |row: &serde_json::Value| {
        let ids = row[1][1].as_array()?;
        let tag = ids.iter().find(|pair| pair[0] == Port::TAG)?[1].as_str()?.parse().ok()?;
        Some((row[0].as_str()?.parse().ok()?, tag))
    };
    Ok(rows.iter().filter_map(row).collect())
}

enum Failed {
    Missing,
    Said { code: Option<i32>, command: String, text: String },
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        match failed {
            Failed::Missing => missing(),
            Failed::Said { command, text, .. } => {
                let why = match text.trim().trim_start_matches("ovs-vsctl: ") {
                    "" => "no answer within 10 s",
                    why => why,
                };
                Error::failed(format!("{command} failed: {why}")).hint("does Open vSwitch run? ovs-vsctl show")
            }
        }
    }
}

/// The error for a host without Open vSwitch's program.
pub fn missing() -> Error {
    Error::not_found("Open vSwitch's program ovs-vsctl is not installed")
        .hint("apt-get install openvswitch-switch, or dnf install openvswitch; or name a bridge of the kernel's")
}

fn run(words: &[impl AsRef<std::ffi::OsStr> + ToString]) -> std::result::Result<String, Failed> {
    let said = |code, text| {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        Failed::Said { code, command: ovs_vsctl(&words), text }
    };
    let output = Command::new("ovs-vsctl").arg(PATIENCE).args(words).stdin(Stdio::null()).output();
    match output {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failed::Missing),
        Err(error) => Err(said(None, error.to_string())),
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(said(output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}
