//! A server that says anything, to a client in any state: no panic, and no lease that cannot be used.
//!
//! The input is a script. Each step is a byte that says what happens, and for packets a length and
//! the bytes behind the part of the header that a stranger cannot know.

#![no_main]

use std::{net::Ipv4Addr, time::Duration};

use libfuzzer_sys::fuzz_target;
use netplumb::{
    dhcp::{Action, Client, Machine, Start, Term},
    types::{HostAddress, Mac},
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

fuzz_target!(|script: &[u8]| {
    let mac = Mac::try_from(MAC).unwrap();
    let mut machine = Machine::new(Client::new(mac), script.len() % 2 == 0, 7);
    let mut now = Duration::from_secs(1_000_000);
    let mut actions = machine.start(now, Start::Init { prefer: None });
    let mut rest = script;
    let mut xid = [0; 4];
    while let Some((&what, behind)) = rest.split_first() {
        for action in &actions {
            match action {
                Action::Send(packet) => xid.copy_from_slice(&packet.message[4..8]),
                Action::Bound { lease, .. } => {
                    assert!(lease.address.to_string().parse::<HostAddress>().is_ok(), "{lease:?}");
                    assert_ne!(lease.server, Ipv4Addr::UNSPECIFIED);
                    if let Term::Finite { renew, rebind, expire } = lease.term {
                        assert!(Duration::ZERO < renew && renew < rebind && rebind < expire, "{lease:?}");
                    }
                }
                Action::Check(_) | Action::Lost { .. } => {}
            }
        }
        rest = behind;
        actions = match what % 16 {
            0 => machine.free(now),
            1 => machine.in_use(now),
            2 => machine.release(),
            3 => machine.start(now, Start::Init { prefer: None }),
            4..7 => {
                now = machine.wake().unwrap_or(now).max(now);
                machine.tick(now)
            }
            // Bytes as they come, without a header of ours.
            7 => machine.receive(now, take(&mut rest)),
            _ => machine.receive(now, &reply(xid, take(&mut rest))),
        };
        assert!(machine.wake().is_none_or(|wake| wake > now), "{} would spin", machine.phase());
        assert!(machine.expires().is_none_or(|end| end > now), "held past its end");
    }
});

/// As many of the next bytes as the two before them say, 1023 at most.
fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, behind)) = rest.split_first_chunk::<2>() else { return &[] };
    let (taken, left) = behind.split_at(usize::from(u16::from_be_bytes(*length) % 1024).min(behind.len()));
    *rest = left;
    taken
}

/// A reply to the client: the first four bytes are the address, all else options.
fn reply(xid: [u8; 4], said: &[u8]) -> Vec<u8> {
    let mut reply = vec![0; 240];
    reply[..3].copy_from_slice(&[2, 1, 6]);
    reply[4..8].copy_from_slice(&xid);
    reply[28..34].copy_from_slice(&MAC);
    reply[236..].copy_from_slice(&[99, 130, 83, 99]);
    let (address, options) = said.split_at(said.len().min(4));
    reply[16..16 + address.len()].copy_from_slice(address);
    reply.extend_from_slice(options);
    reply
}
