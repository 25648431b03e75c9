//! A radio, which moves into a namespace with all its interfaces: these themselves the kernel keeps where their
//! radio is. By nl80211 (the kernel's `include/uapi/linux/nl80211.h`).

use std::{fs, io, os::fd::RawFd, path::Path};

use rtnetlink::{
    packet_core::{DefaultNla, Nla, NlaBuffer, NlasIterator},
    sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC},
};

use crate::types::IfName;

/// The number of the radio that the interface is one of. As seen in `/sys`, which shows the namespace that it
/// was mounted in.
pub fn radio_of(interface: &IfName) -> Option<u32> {
    radio_at(&Path::new("/sys/class/net").join(interface.as_str()))
}

/// The other interfaces of a radio.
pub fn others(radio: u32, interface: &IfName) -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let of_it = entries.filter(|entry| radio_at(&entry.path()) == Some(radio));
    let names = of_it.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != interface.as_str()).collect()
}

fn radio_at(interface: &Path) -> Option<u32> {
    fs::read_to_string(interface.join("phy80211/index")).ok()?.trim().parse().ok()
}

/// Moves the radio, which is in the calling thread's namespace. Equivalent to `iw phy phyN set netns name …`.
pub fn move_radio(radio: u32, namespace: RawFd) -> io::Result<()> {
    const SET_WIPHY_NETNS: u8 = 49;
    const WIPHY: u16 = 1;
    const NETNS_FD: u16 = 219;
    let socket = Socket::new(NETLINK_GENERIC)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let family = family(&socket, "nl80211")?;
    let attributes = [
        DefaultNla::new(WIPHY, radio.to_ne_bytes().to_vec()),
        DefaultNla::new(NETNS_FD, namespace.to_ne_bytes().to_vec()),
    ];
    ask(&socket, family, SET_WIPHY_NETNS, &attributes).map(drop)
}

/// The number by which the kernel calls a family of generic netlink's today.
fn family(socket: &Socket, name: &str) -> io::Result<u16> {
    const CONTROLLER: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    let asked = DefaultNla::new(FAMILY_NAME, [name.as_bytes(), &[0]].concat());
    let answer = ask(socket, CONTROLLER, GET_FAMILY, &[asked])?;
    let id = NlasIterator::new(&answer[..]).filter_map(|a| a.ok()).find(|a: &NlaBuffer<&[u8]>| a.kind() == FAMILY_ID);
    let id = id.and_then(|id| id.value().try_into().ok()).map(u16::from_ne_bytes);
    id.ok_or_else(|| io::Error::from_raw_os_error(nix::libc::ENOENT))
}

const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// One request, and the attributes of its answer, if it has one beside the acknowledgement.
fn ask(socket: &Socket, family: u16, command: u8, attributes: &[DefaultNla]) -> io::Result<Vec<u8>> {
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const ERROR: u16 = 2;
    let mut request = vec![0; HEADER];
    request[4..6].copy_from_slice(&family.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    request.extend([command, 1, 0, 0]);
    for attribute in attributes {
        let start = request.len();
        let length = (4 + attribute.value_len()) as u16;
        request.extend(length.to_ne_bytes());
        request.extend(attribute.kind().to_ne_bytes());
        request.resize(start + usize::from(length).next_multiple_of(4), 0);
        attribute.emit_value(&mut request[start + 4..start + usize::from(length)]);
    }
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    socket.send(&request, 0)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while let Some((length, kind)) = head(rest) {
            let (message, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            match message.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
                Some(0) if kind == ERROR => return Ok(found),
                Some(code) if kind == ERROR => return Err(io::Error::from_raw_os_error(code.abs())),
                _ => found = message.get(HEADER + GENERIC_HEADER..).unwrap_or_default().to_vec(),
            }
        }
    }
}

/// The length and the type of the message at the beginning.
fn head(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (length >= HEADER).then_some((length.next_multiple_of(4), kind))
}
