//! What iptables does with what the host forwards and bridges: found where it has its rules, in nftables or in the
//! older tables, and accepted for a bridge in the former.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use netlink_packet_netfilter::{
    NetfilterMessageInner, NetfilterProtoFamily as Family,
    nftables::{
        ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
        Meta, MetaKey, NfTablesMessage, Operator, Register, RuleAttribute, RuleMessage, Verdict, VerdictAttribute,
    },
};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};

use super::{
    Refusal,
    nftables::{compare, exchange, message, transaction},
};
use crate::{
    error::{Error, Result},
    plan::bridged::{Acceptance, Accepted, Dropping, Iptables},
    types::{IfName, StoreMark},
};

const FAMILIES: [(bool, Family); 2] = [(false, Family::IPv4), (true, Family::IPv6)];
/// Docker keeps DOCKER-USER for rules of others, and leads to it from FORWARD before its own.
const CHAINS: [&str; 2] = ["DOCKER-USER", "FORWARD"];

/// The chain of iptables in which to accept what is forwarded, if its policy for that is to drop.
pub fn accept_in() -> Option<&'static str> {
    accept_in_family(Family::IPv4)
}

fn accept_in_family(family: Family) -> Option<&'static str> {
    const NF_DROP: u32 = 0;
    let drops = chain(family, "FORWARD")?.iter().any(|a| matches!(a, ChainAttribute::Policy(NF_DROP)));
    if !drops {
        return None;
    }
    CHAINS.into_iter().find(|name| chain(family, name).is_some())
}

/// Who drops what `bridge` passes on, in the namespace of the calling thread. What a rule accepts already,
/// whoever put it there, is not dropped.
pub fn bridged_drops(bridge: &IfName) -> Vec<Dropping> {
    let mut found = Vec::new();
    for (ipv6, family) in FAMILIES {
        let setting = if ipv6 { "bridge-nf-call-ip6tables" } else { "bridge-nf-call-iptables" };
        let sees = fs::read_to_string(format!("/proc/sys/net/bridge/{setting}"));
        if sees.is_err() || sees.is_ok_and(|text| text.trim() != "1") {
            continue;
        }
        if let Some(chain) = accept_in_family(family)
            && !CHAINS.iter().any(|chain| rules(family, chain).iter().flatten().any(|rule| rule.accepts(bridge)))
        {
            found.push(Dropping { ipv6, by: Iptables::Nftables { chain } });
        }
        if legacy_drops(ipv6) {
            found.push(Dropping { ipv6, by: Iptables::Legacy });
        }
    }
    found
}

/// Adds the rule before all others of its chain, in the namespace of the calling thread.
pub fn accept(acceptance: &Acceptance) -> Result<()> {
    let attributes = vec![
        RuleAttribute::Table("filter".into()),
        RuleAttribute::Chain(acceptance.chain.into()),
        RuleAttribute::Expressions(accepting(&acceptance.bridge)),
        RuleAttribute::UserData(user_data(&acceptance.comment())),
    ];
    let rule = NfTablesMessage::NewRule(RuleMessage { attributes });
    transaction(family_of(acceptance.ipv6), [(rule, NLM_F_CREATE)]).map_err(|refusal| {
        let (bridge, chain) = (&acceptance.bridge, acceptance.chain);
        Error::failed(format!("cannot accept in {chain} what {bridge} passes on: {refusal}"))
    })
}

/// This store's rules, in the namespace of the calling thread.
pub fn accepted(store: &StoreMark) -> Result<Vec<Accepted>> {
    let beginning = Acceptance::comments(store);
    let mut found = Vec::new();
    for ((ipv6, family), chain) in FAMILIES.into_iter().flat_map(|family| CHAINS.map(|chain| (family, chain))) {
        for rule in rules(family, chain)? {
            let bridge = rule.comment.as_ref().and_then(|comment| comment.strip_prefix(&beginning)?.parse().ok());
            found.extend(bridge.map(|bridge| Accepted { bridge, ipv6, chain, handle: rule.handle }));
        }
    }
    Ok(found)
}

/// Deletes one of them. That it has gone is no error.
pub fn delete(rule: &Accepted) -> Result<()> {
    let Accepted { bridge, chain, .. } = rule;
    let attributes = vec![
        RuleAttribute::Table("filter".into()),
        RuleAttribute::Chain((*chain).into()),
        RuleAttribute::Handle(rule.handle),
    ];
    let deletion = NfTablesMessage::DeleteRule(RuleMessage { attributes });
    match transaction(family_of(rule.ipv6), [(deletion, 0)]) {
        Ok(()) | Err(Refusal { errno: nix::errno::Errno::ENOENT, .. }) => Ok(()),
        Err(refusal) => Err(Error::failed(format!("cannot delete the rule for {bridge} from {chain}: {refusal}"))),
    }
}

fn family_of(ipv6: bool) -> Family {
    if ipv6 { Family::IPv6 } else { Family::IPv4 }
}

/// A rule of one of [`CHAINS`].
struct Rule {
    handle: u64,
    expressions: Vec<Vec<ExpressionAttribute>>,
    comment: Option<String>,
}

impl Rule {
    fn read(attributes: Vec<RuleAttribute>) -> Rule {
        let mut rule = Rule { handle: 0, expressions: Vec::new(), comment: None };
        for attribute in attributes {
            match attribute {
                RuleAttribute::Handle(handle) => rule.handle = handle,
                RuleAttribute::Expressions(list) => rule.expressions = elements(list),
                RuleAttribute::UserData(data) => rule.comment = comment(&data),
                _ => {}
            }
        }
        rule
    }

    /// Whether all that it does is to accept what the bridge passes on.
    fn accepts(&self, bridge: &IfName) -> bool {
        let essence = |expressions: &[Vec<ExpressionAttribute>]| -> Vec<Vec<ExpressionAttribute>> {
            let counts = |e: &&Vec<ExpressionAttribute>| e.contains(&ExpressionAttribute::Name("counter".into()));
            expressions.iter().filter(|e| !counts(e)).cloned().map(|e| e.into_iter().map(trimmed).collect()).collect()
        };
        essence(&self.expressions) == essence(&elements(accepting(bridge)))
    }
}

/// `-i BRIDGE -o BRIDGE -j ACCEPT`, as iptables puts it, which can so list and delete it.
fn accepting(bridge: &IfName) -> Vec<ListAttribute<ExpressionAttribute>> {
    const NF_ACCEPT: u32 = 1;
    let mut name = bridge.as_str().as_bytes().to_vec();
    name.push(0);
    let load = |key| Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)]);
    let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_ACCEPT))]);
    let expressions = [
        load(MetaKey::Iifname),
        compare(Operator::Equal, name.clone()),
        load(MetaKey::Oifname),
        compare(Operator::Equal, name),
        Expressions::Other { expression_type: "counter".into(), attributes: Vec::new() },
        Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(verdict)]),
    ];
    expressions.into_iter().map(ListAttribute::from).collect()
}

fn elements(list: Vec<ListAttribute<ExpressionAttribute>>) -> Vec<Vec<ExpressionAttribute>> {
    let element = |attribute| if let ListAttribute::Element(element) = attribute { Some(element) } else { None };
    list.into_iter().filter_map(element).collect()
}

/// Names end with one zero in what iptables writes, and with as many as fit in what nft does.
fn trimmed(attribute: ExpressionAttribute) -> ExpressionAttribute {
    let ExpressionAttribute::Data(Expressions::Cmp(parts)) = attribute else { return attribute };
    let part = |part| match part {
        Cmp::Data(DataAttribute::Value(mut bytes)) => {
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            bytes.truncate(end);
            Cmp::Data(DataAttribute::Value(bytes))
        }
        other => other,
    };
    ExpressionAttribute::Data(Expressions::Cmp(parts.into_iter().map(part).collect()))
}

/// A comment as nft keeps it: kind 0 (`NFTNL_UDATA_RULE_COMMENT`), its length, and its bytes with a zero.
fn user_data(comment: &str) -> Vec<u8> {
    let mut data = vec![0, comment.len() as u8 + 1];
    data.extend(comment.as_bytes());
    data.push(0);
    data
}

fn comment(data: &[u8]) -> Option<String> {
    let [0, length, rest @ ..] = data else { return None };
    let text = rest.get(..usize::from(*length))?.strip_suffix(&[0])?;
    String::from_utf8(text.to_vec()).ok()
}

/// What the chain of iptables' table for filters is like, if it is there.
fn chain(family: Family, name: &str) -> Option<Vec<ChainAttribute>> {
    let attributes = vec![ChainAttribute::Table("filter".into()), ChainAttribute::Name(name.into())];
    let question = NfTablesMessage::GetChain(ChainMessage { attributes });
    let answers = exchange(&[message(family, 0, question, NLM_F_REQUEST)]).ok()?;
    answers.into_iter().find_map(|answer| match answer.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) => Some(chain.attributes),
        _ => None,
    })
}

/// The rules of a chain; none where it is not there, nor where the kernel has no such tables.
fn rules(family: Family, chain: &'static str) -> Result<Vec<Rule>> {
    use nix::errno::Errno::{EAFNOSUPPORT, EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT};
    let attributes = vec![RuleAttribute::Table("filter".into()), RuleAttribute::Chain(chain.into())];
    let question = NfTablesMessage::GetRule(RuleMessage { attributes });
    let answers = match exchange(&[message(family, 0, question, NLM_F_REQUEST | NLM_F_DUMP)]) {
        Err(Refusal { errno: EAFNOSUPPORT | EINVAL | ENOENT | EOPNOTSUPP | EPROTONOSUPPORT, .. }) => Vec::new(),
        answers => {
            answers.map_err(|refusal| Error::failed(format!("the rules in {chain} cannot be listed: {refusal}")))?
        }
    };
    let rule = |inner| match inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) => Some(Rule::read(rule.attributes)),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(|answer| rule(answer.inner)).collect())
}

/// Whether the older tables have a policy to drop what is forwarded. Asked only where they are in use: the question
/// would load their modules.
pub fn legacy_drops(ipv6: bool) -> bool {
    let names = if ipv6 { "/proc/net/ip6_tables_names" } else { "/proc/net/ip_tables_names" };
    let in_use = fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "filter"));
    in_use && legacy_policy_drops(ipv6).unwrap_or(false)
}

/// The verdict of the entry that ends FORWARD. From `include/uapi/linux/netfilter_ipv4/ip_tables.h`, and that for
/// IPv6, which differs in the size of the addresses only.
fn legacy_policy_drops(ipv6: bool) -> io::Result<bool> {
    const GET_INFO: i32 = 64;
    const GET_ENTRIES: i32 = 65;
    // struct ipt_getinfo: name[32], valid_hooks, hook_entry[5], underflow[5], num_entries, size.
    const INFO: usize = 84;
    const UNDERFLOW_OF_FORWARD: usize = 32 + 4 + 20 + 2 * 4;
    const SIZE: usize = 80;
    // struct ipt_get_entries: name[32], size, and the entries at a multiple of 8.
    const ENTRIES: usize = 40;
    // The target of an entry is found by 16 bits behind its struct ipt_ip (ip6t_ip6) and nfcache; a verdict
    // comes after the target's header.
    let target_offset = if ipv6 { 136 + 4 } else { 84 + 4 };
    const HEADER: usize = 32;
    const DROP: i32 = -1;
    let (family, level) = if ipv6 { (libc::AF_INET6, libc::IPPROTO_IPV6) } else { (libc::AF_INET, libc::IPPROTO_IP) };
    // SAFETY: a plain system call; the descriptor is ours and is owned from here on.
    let socket = unsafe {
        let fd = libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let ask = |question: i32, answer: &mut [u8]| {
        answer[..6].copy_from_slice(b"filter");
        let mut length = answer.len() as libc::socklen_t;
        // SAFETY: the pointers are to a live buffer and its true length, which the kernel does not exceed.
        let outcome = unsafe {
            libc::getsockopt(socket.as_raw_fd(), level, question, answer.as_mut_ptr().cast(), &raw mut length)
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes).map(|number| number as usize)
    };
    let mut info = [0; INFO];
    ask(GET_INFO, &mut info)?;
    let (underflow, size) = number(&info, UNDERFLOW_OF_FORWARD).zip(number(&info, SIZE)).ok_or_else(strange)?;
    let mut entries = vec![0; ENTRIES + size];
    entries[32..36].copy_from_slice(&(size as u32).to_ne_bytes());
    ask(GET_ENTRIES, &mut entries)?;
    let entry = entries.get(ENTRIES + underflow..).ok_or_else(strange)?;
    let offset = entry.get(target_offset..target_offset + 2).ok_or_else(strange)?;
    let offset = usize::from(u16::from_ne_bytes([offset[0], offset[1]]));
    Ok(number(entry, offset + HEADER).ok_or_else(strange)? as u32 as i32 == DROP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_back() {
        assert_eq!(comment(&user_data("plumb:dba248d8:br0")).unwrap(), "plumb:dba248d8:br0");
        for strange in [&[][..], &[0], &[0, 9, b'a'], &[1, 2, b'a', 0], &[0, 1, b'a']] {
            assert_eq!(comment(strange), None, "{strange:?}");
        }
    }
}
