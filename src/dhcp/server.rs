//! A server for tests that says what it is told to say, sensible or not.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use crate::types::Mac;

pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
pub const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 100);

pub const DISCOVER: u8 = 1;
pub const OFFER: u8 = 2;
pub const REQUEST: u8 = 3;
pub const DECLINE: u8 = 4;
pub const ACK: u8 = 5;
pub const NAK: u8 = 6;
pub const RELEASE: u8 = 7;

pub fn mac() -> Mac {
    "02:00:00:00:00:07".parse().unwrap()
}

/// A reply in the making.
#[derive(Debug, Clone)]
pub struct Said {
    pub header: Vec<u8>,
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Said {
    /// A sound reply of this kind: `ADDRESS`/24 for 1000 s.
    pub fn new(kind: u8, xid: u32) -> Said {
        let mut header = vec![0; 240];
        header[..3].copy_from_slice(&[2, 1, 6]);
        header[4..8].copy_from_slice(&xid.to_be_bytes());
        header[28..34].copy_from_slice(&mac().bytes());
        header[236..].copy_from_slice(&[99, 130, 83, 99]);
        let options = vec![(53, vec![kind]), (54, SERVER.octets().to_vec())];
        let said = Said { header, options };
        if kind == NAK { said } else { said.of(ADDRESS).with(51, 1000u32.to_be_bytes()).with(1, [255, 255, 255, 0]) }
    }

    pub fn of(mut self, address: Ipv4Addr) -> Said {
        self.header[16..20].copy_from_slice(&address.octets());
        self
    }

    /// With this option instead of what it had.
    pub fn with(self, code: u8, value: impl AsRef<[u8]>) -> Said {
        let mut said = self.without(code);
        said.options.push((code, value.as_ref().to_vec()));
        said
    }

    pub fn without(mut self, code: u8) -> Said {
        self.options.retain(|(there, _)| *there != code);
        self
    }

    pub fn by(self, server: Ipv4Addr) -> Said {
        self.with(54, server.octets())
    }

    pub fn lasting(self, lease_s: u32) -> Said {
        self.with(51, lease_s.to_be_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.clone();
        for (code, value) in &self.options {
            for part in value.chunks(255) {
                bytes.extend([*code, part.len() as u8]);
                bytes.extend(part);
            }
        }
        bytes.push(255);
        bytes
    }
}

/// What a client's message says, as far as tests ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub kind: u8,
    pub xid: u32,
    pub secs: u16,
    pub own: Ipv4Addr,
    pub requested: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
}

impl Heard {
    pub fn of(message: &[u8]) -> Heard {
        assert!(message.len() >= 300 && message[..4] == [1, 1, 6, 0] && message[28..34] == mac().bytes());
        let quad = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
        Heard {
            kind: option(message, 53).unwrap()[0],
            xid: u32::from_be_bytes(message[4..8].try_into().unwrap()),
            secs: u16::from_be_bytes(message[8..10].try_into().unwrap()),
            own: quad(&message[12..16]),
            requested: option(message, 50).map(|value| quad(&value)),
            server: option(message, 54).map(|value| quad(&value)),
        }
    }
}

/// The value of a message's option.
pub fn option(message: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut rest = &message[240..];
    loop {
        match rest {
            [255, ..] | [] => return None,
            [0, behind @ ..] => rest = behind,
            [code, length, behind @ ..] => {
                let (value, behind) = behind.split_at((*length).into());
                if *code == wanted {
                    return Some(value.to_vec());
                }
                rest = behind;
            }
            [_] => panic!("cut: {message:?}"),
        }
    }
}

/// A damage to a reply: most keep it one that gets past the header's checks.
#[derive(Debug, Clone)]
pub enum Damage {
    None,
    Option(u8, Vec<u8>),
    Without(u8),
    Again(u8, Vec<u8>),
    Flip(usize, u8),
    Cut(usize),
    Tail(Vec<u8>),
}

pub fn damage() -> impl Strategy<Value = Damage> {
    let code = prop_oneof![
        Just(1u8),
        Just(3),
        Just(12),
        Just(15),
        Just(51),
        Just(52),
        Just(53),
        Just(54),
        Just(58),
        Just(59),
        Just(119),
        Just(121),
        any::<u8>()
    ];
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        1 => Just(Damage::None),
        4 => (code.clone(), bytes()).prop_map(|(code, value)| Damage::Option(code, value)),
        1 => code.clone().prop_map(Damage::Without),
        1 => (code, bytes()).prop_map(|(code, value)| Damage::Again(code, value)),
        2 => (0usize..320, 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        1 => (0usize..320).prop_map(Damage::Cut),
        1 => bytes().prop_map(Damage::Tail),
    ]
}

impl Said {
    pub fn damaged(mut self, damages: &[Damage]) -> Vec<u8> {
        let mut after = Vec::new();
        for damage in damages {
            match damage.clone() {
                Damage::Option(code, value) => self = self.with(code, value),
                Damage::Without(code) => self = self.without(code),
                Damage::Again(code, value) => self.options.push((code, value)),
                late @ (Damage::Flip(..) | Damage::Cut(_) | Damage::Tail(_)) => after.push(late),
                Damage::None => {}
            }
        }
        let mut bytes = self.bytes();
        for damage in after {
            match damage {
                Damage::Flip(at, bits) => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= bits;
                    }
                }
                Damage::Cut(at) => bytes.truncate(at),
                Damage::Tail(tail) => {
                    bytes.pop();
                    bytes.extend(tail);
                }
                Damage::None | Damage::Option(..) | Damage::Without(_) | Damage::Again(..) => {}
            }
        }
        bytes
    }
}
