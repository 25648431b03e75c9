//! Masquerading by nftables: a table of its own for each gateway, made and deleted as a whole.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily as Family,
    nftables::{
        Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook, Immediate,
        InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute,
        RuleMessage, TableAttribute, TableMessage,
    },
    none::ControlMessage,
};
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{
        DecodeError, DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
        NetlinkMessage, NetlinkPayload,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER},
};

use super::{Refusal, netlink::refusal, refused};
use crate::{
    apply::StepError,
    error::Error,
    plan::Masquerade,
    types::{IfName, Subnet},
};

/// Equivalent to `nft 'create table …; add chain …; add rule …'`: all of it or nothing.
pub fn add(wanted: &Masquerade) -> Result<(), StepError> {
    let (table, chain) = (wanted.table(), Masquerade::CHAIN.to_owned());
    let new_table = TableMessage { attributes: vec![TableAttribute::Name(table.clone())] };
    let new_chain = ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.clone()),
            ChainAttribute::Name(chain.clone()),
            ChainAttribute::Hook(vec![
                Hook::Number(InetHookNumber::PostRouting.into()),
                Hook::Priority(NF_IP_PRI_NAT_SRC),
            ]),
            ChainAttribute::Type("nat".into()),
        ],
    };
    let new_rule = RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table),
            RuleAttribute::Chain(chain),
            RuleAttribute::Expressions(rule(wanted.subnet, &wanted.interface)),
        ],
    };
    let changes = [
        (NfTablesMessage::NewTable(new_table), NLM_F_CREATE | NLM_F_EXCL),
        (NfTablesMessage::NewChain(new_chain), NLM_F_CREATE | NLM_F_EXCL),
        (NfTablesMessage::NewRule(new_rule), NLM_F_CREATE | NLM_F_APPEND),
    ];
    transaction(family(wanted), changes).map_err(|refusal| why_not_added(wanted, &refusal))
}

/// Equivalent to `nft delete table FAMILY NAME`.
pub fn delete(unwanted: &Masquerade) -> Result<(), StepError> {
    let table = TableMessage { attributes: vec![TableAttribute::Name(unwanted.table())] };
    transaction(family(unwanted), [(NfTablesMessage::DeleteTable(table), 0)]).map_err(|refusal| {
        let doing = format_args!("cannot delete table {} {}", unwanted.family(), unwanted.table());
        // A kernel without nf_tables has no tables.
        refused(doing, &refusal, &[Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT])
    })
}

/// What comes for `address` goes to `to`. Equivalent to `nft 'table ip plumb-publish { chain prerouting
/// { type nat hook prerouting priority dstnat; ip daddr ADDRESS dnat to TO; } }'`.
pub(super) fn publish(address: Ipv4Addr, to: Ipv4Addr) -> Result<(), Refusal> {
    // NF_IP_PRI_NAT_DST of the kernel's `include/uapi/linux/netfilter_ipv4.h`, which nft calls `dstnat`.
    const NF_IP_PRI_NAT_DST: i32 = -100;
    // From `include/uapi/linux/netfilter/nf_tables.h`: the attributes of `nat`, each a number in network order.
    const NFTA_NAT_TYPE: u16 = 1;
    const NFTA_NAT_FAMILY: u16 = 2;
    const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
    const NFT_NAT_DNAT: u32 = 1;
    const NFPROTO_IPV4: u32 = 2;
    let number = |kind, number: u32| DefaultNla::new(kind, number.to_be_bytes().to_vec());
    let (table, chain) = ("plumb-publish".to_owned(), "prerouting".to_owned());
    let new_chain = ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.clone()),
            ChainAttribute::Name(chain.clone()),
            ChainAttribute::Hook(vec![
                Hook::Number(InetHookNumber::PreRouting.into()),
                Hook::Priority(NF_IP_PRI_NAT_DST.cast_unsigned()),
            ]),
            ChainAttribute::Type("nat".into()),
        ],
    };
    let expressions = [
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(NFT_PAYLOAD_NETWORK_HEADER),
            Payload::Offset(16),
            Payload::Len(4),
        ]),
        compare(Operator::Equal, address.octets().to_vec()),
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Reg1),
            Immediate::Data(DataAttribute::Value(to.octets().to_vec())),
        ]),
        Expressions::Other {
            expression_type: "nat".into(),
            attributes: vec![
                number(NFTA_NAT_TYPE, NFT_NAT_DNAT),
                number(NFTA_NAT_FAMILY, NFPROTO_IPV4),
                number(NFTA_NAT_REG_ADDR_MIN, Register::Reg1.into()),
            ],
        },
    ];
    let new_rule = RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.clone()),
            RuleAttribute::Chain(chain),
            RuleAttribute::Expressions(expressions.into_iter().map(ListAttribute::from).collect()),
        ],
    };
    let new_table = TableMessage { attributes: vec![TableAttribute::Name(table)] };
    let changes = [
        (NfTablesMessage::NewTable(new_table), NLM_F_CREATE | NLM_F_EXCL),
        (NfTablesMessage::NewChain(new_chain), NLM_F_CREATE | NLM_F_EXCL),
        (NfTablesMessage::NewRule(new_rule), NLM_F_CREATE | NLM_F_APPEND),
    ];
    transaction(Family::IPv4, changes)
}

/// NF_IP_PRI_NAT_SRC of the kernel's `include/uapi/linux/netfilter_ipv4.h`, which nft calls `srcnat`.
const NF_IP_PRI_NAT_SRC: u32 = 100;

const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;

/// `ip saddr SUBNET oifname != "INTERFACE" masquerade`, as nft itself puts it.
fn rule(subnet: Subnet, interface: &IfName) -> Vec<ListAttribute<ExpressionAttribute>> {
    let network = subnet.network();
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (mut address, mask) = (octets(network.ip()), octets(network.mask()));
    // Of a prefix that ends between two bytes nft compares the bytes before, without a mask.
    let is_whole = network.prefix().is_multiple_of(8);
    if is_whole {
        address.truncate(usize::from(network.prefix() / 8));
    }
    let length = address.len() as u32;
    let mut expressions = vec![Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(NFT_PAYLOAD_NETWORK_HEADER),
        // Where the source address stands in the header: RFC 791 and RFC 8200.
        Payload::Offset(if subnet.is_ipv6() { 8 } else { 12 }),
        Payload::Len(length),
    ])];
    if !is_whole {
        expressions.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(length),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
            Bitwise::Mask(DataAttribute::Value(mask)),
        ]));
    }
    // The whole of the kernel's field for a name, or names that begin with this one would match too.
    let mut name = interface.as_str().as_bytes().to_vec();
    name.resize(IfName::MAX_BYTES + 1, 0);
    expressions.extend([
        compare(Operator::Equal, address),
        Expressions::Meta(vec![Meta::Key(MetaKey::Oifname), Meta::DestinationRegister(Register::Reg1)]),
        compare(Operator::NotEqual, name),
        Expressions::Other { expression_type: "masq".into(), attributes: Vec::new() },
    ]);
    expressions.into_iter().map(ListAttribute::from).collect()
}

pub(super) fn compare(operator: Operator, with: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(with)),
    ])
}

fn why_not_added(wanted: &Masquerade, refusal: &Refusal) -> StepError {
    let (family, table) = (wanted.family(), wanted.table());
    StepError::Refused(match refusal.errno {
        Errno::EEXIST => Error::conflict(format!("there is a table {family} {table} already"))
            .hint(format!("nft list table {family} {table} shows it; nft delete table {family} {table} deletes it")),
        Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => Error::failed(format!(
            "this kernel cannot masquerade {}: one of its modules nf_tables, nft_chain_nat and nft_masq is missing \
             ({refusal})",
            wanted.subnet
        ))
        .hint("modprobe -a nf_tables nft_chain_nat nft_masq; a kernel built without them needs another one"),
        _ => return refused(format_args!("cannot masquerade {}", wanted.subnet), refusal, &[]),
    })
}

fn family(masquerade: &Masquerade) -> Family {
    if masquerade.subnet.is_ipv6() { Family::IPv6 } else { Family::IPv4 }
}

/// Carries out all changes or none.
pub(super) fn transaction<const N: usize>(family: Family, changes: [(NfTablesMessage, u16); N]) -> Result<(), Refusal> {
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    let border = |control: ControlMessage| message(Family::Unspec, NFNL_SUBSYS_NFTABLES, control, NLM_F_REQUEST);
    let changes =
        changes.into_iter().map(|(change, flags)| message(family, 0, change, NLM_F_REQUEST | NLM_F_ACK | flags));
    let all: Vec<_> = [border(ControlMessage::BatchBegin)]
        .into_iter()
        .chain(changes)
        .chain([border(ControlMessage::BatchEnd)])
        .collect();
    exchange(&all).map(drop)
}

pub(super) fn message(
    family: Family,
    resource: u16,
    inner: impl Into<NetfilterMessageInner>,
    flags: u16,
) -> NetlinkMessage<NetfilterMessage> {
    const NFNETLINK_V0: u8 = 0;
    let header = NetfilterHeader::new(family, NFNETLINK_V0, resource);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, inner));
    message.header.flags = flags;
    message.finalize();
    message
}

/// Sends the messages as one, from the calling thread's namespace. The kernel has answered when
/// sending returns (`nfnetlink_rcv` works in the sender's context), so nothing is waited for: what is
/// there is read, and the first refusal in it tells.
pub(super) fn exchange(messages: &[NetlinkMessage<NetfilterMessage>]) -> Result<Vec<NetfilterMessage>, Refusal> {
    let failed =
        |error: std::io::Error| Refusal { errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw), text: None };
    let strange = |error: DecodeError| Refusal { errno: Errno::EBADMSG, text: Some(error.to_string()) };
    let socket = open().map_err(failed)?;
    let mut request = Vec::new();
    for message in messages {
        let start = request.len();
        request.resize(start + message.buffer_len(), 0);
        message.serialize(&mut request[start..]);
    }
    socket.send(&request, 0).map_err(failed)?;
    let (mut found, mut answered) = (Vec::new(), false);
    let is_a_list = messages.iter().any(|message| message.header.flags & NLM_F_DUMP == NLM_F_DUMP);
    loop {
        let mut bytes = Vec::with_capacity(LONGEST_ANSWER);
        match socket.recv(&mut bytes, 0) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            received => received.map_err(failed)?,
        };
        answered = true;
        // The answers to a dump share a datagram.
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest);
            // Of a list, what somebody else has made and only he understands is passed over.
            let Some(length) = rest.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize) else { break };
            rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
            let message = match message {
                Err(_) if is_a_list => continue,
                message => message.map_err(strange)?,
            };
            match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(refusal(&error)),
                NetlinkPayload::InnerMessage(message) => found.push(message),
                _ => {}
            }
        }
    }
    if answered {
        Ok(found)
    } else {
        Err(Refusal { errno: Errno::EIO, text: Some("the kernel did not answer".into()) })
    }
}

/// As much as the kernel makes room for in any answer (`NLMSG_GOODSIZE` is a page, or 8 KiB).
const LONGEST_ANSWER: usize = 8 * 1024;

fn open() -> std::io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::samples::masquerade;

    #[test]
    fn a_kernel_that_cannot_is_told_with_the_modules_that_it_lacks() {
        for errno in [Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT] {
            let StepError::Refused(error) =
                why_not_added(&masquerade("10.1.0.0/24"), &Refusal { errno, text: Some("No such thing.".into()) })
            else {
                panic!("{errno} is a refusal");
            };
            assert!(error.message.starts_with("this kernel cannot masquerade 10.1.0.0/24: one of its modules "));
            assert!(error.message.ends_with(": No such thing)"), "{}", error.message);
            assert!(error.hint.unwrap().starts_with("modprobe -a nf_tables nft_chain_nat nft_masq;"));
        }
    }
}
