//! Queueing disciplines: found with their counters, put on interfaces, taken away; and what comes in
//! sent through an interface that has one.

use nix::errno::Errno;
use rtnetlink::{
    LinkMessageBuilder,
    packet_core::{DefaultNla, Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage as Message,
        link::InfoKind,
        tc::{
            TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
            TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption,
            TcStats2, TcU32Key, TcU32Selector, TcU32SelectorFlags,
        },
    },
};
use serde::Serialize;

use super::{
    Kernel, Netlink, Netns, Refusal, cannot_read,
    links::{link_of, question},
    refused,
};
use crate::{
    apply::StepError,
    error::{Error, Result},
    plan::{
        Ifb, Qdisc, Redirect,
        facts::InsideLink,
        link::{ABOVE_THE_HOSTS, GROUP},
        qdisc::{AsRead, Device, Discipline, INGRESS, NETEM, PREFERENCE, Side, Slot},
        shaping::{Ingress, Port, Queues, Tick, ifb_name},
    },
    types::IfName,
};

/// What a qdisc has done so far, and what waits in it now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    pub sent_bytes: u64,
    pub sent_packets: u32,
    pub dropped: u32,
    /// How often a packet had to wait for the limit.
    pub overlimits: u32,
    pub backlog_bytes: u32,
    pub backlog_packets: u32,
}

impl Kernel {
    /// All that is to be known for a limit on `link`, which is one of `links`, those inside. Nothing is
    /// looked for at the other end of a veth unless that is in `host`.
    pub fn queues(&mut self, target: &str, link: &InsideLink, links: &[InsideLink], host: &Netns) -> Result<Queues> {
        let port = self.port(Side::Inside, link)?;
        let ifb = links
            .iter()
            .find(|other| other.name == ifb_name(link.index) && other.group == GROUP)
            .map(|ifb| self.port(Side::Inside, ifb))
            .transpose()?;
        let highest = links.iter().map(|link| link.index).max().unwrap_or(0).max(ABOVE_THE_HOSTS);
        Ok(Queues {
            target: target.to_owned(),
            link: link.clone(),
            ingress: self.ingress(&port.device)?,
            port,
            host_end: self.host_end(link, host)?,
            ifb,
            free_index: highest + 1,
        })
    }

    /// The timer by which the kernel's queues wake up.
    pub fn tick(&self) -> Result<Tick> {
        let text = std::fs::read_to_string("/proc/net/psched")
            .map_err(|error| Error::io("cannot read /proc/net/psched, the kernel's timer", &error))?;
        Tick::parse(&text).ok_or_else(|| Error::failed(format!("/proc/net/psched makes no sense: {}", text.trim())))
    }

    /// The counters of the qdisc at the root of the interface, or `None` if nobody has put one there.
    pub fn counters(&mut self, qdisc: &Qdisc) -> Result<Option<Counters>> {
        Ok(self.get(&qdisc.on, qdisc.slot)?.map(|message| counters(&message)))
    }

    fn port(&mut self, side: Side, link: &InsideLink) -> Result<Port> {
        let name: IfName = link.name.parse().map_err(Error::failed)?;
        let device = Device { side, index: link.index, name };
        let mut qdiscs: Vec<Qdisc> = self.qdisc(&device, Slot::Root)?.into_iter().collect();
        if qdiscs.iter().any(|root| root.handle == NETEM) {
            qdiscs.extend(self.qdisc(&device, Slot::Below(NETEM))?);
        }
        Ok(Port { device, mtu: link.mtu, qdiscs })
    }

    /// What somebody has put at the root of the interface inside with this index.
    pub(super) fn root_qdisc(&mut self, index: u32, name: &IfName) -> Result<Option<Qdisc>> {
        self.qdisc(&Device { side: Side::Inside, index, name: name.clone() }, Slot::Root)
    }

    fn qdisc(&mut self, device: &Device, slot: Slot) -> Result<Option<Qdisc>> {
        let as_read = |message: TcMessage| {
            let options = message.attributes.iter().find_map(options);
            let kind = message
                .attributes
                .iter()
                .find_map(|a| if let TcAttribute::Kind(kind) = a { Some(kind) } else { None })?;
            let handle = message.header.handle.major;
            let discipline = match slot {
                Slot::Ingress if kind == "ingress" => Discipline::Ingress,
                _ => Discipline::AsRead(AsRead { kind: kind.clone(), options }),
            };
            // The kernel's own has no handle.
            (handle != 0).then(|| Qdisc { on: device.clone(), slot, handle, discipline })
        };
        Ok(self.get(device, slot)?.and_then(as_read))
    }

    fn get(&mut self, device: &Device, slot: Slot) -> Result<Option<TcMessage>> {
        let question = addressed(device, TcHandle::UNSPEC, parent(slot));
        let answer = self.at(device.side, Message::GetQueueDiscipline(question), None)?;
        match answer {
            Ok(Some(Message::NewQueueDiscipline(message))) => Ok(Some(message)),
            Ok(_) | Err(Refusal { errno: Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP, .. }) => Ok(None),
            Err(refusal) => Err(cannot_read("qdiscs")(refusal)),
        }
    }

    fn ingress(&mut self, device: &Device) -> Result<Ingress> {
        let Some(qdisc) = self.qdisc(device, Slot::Ingress)? else { return Ok(Ingress::default()) };
        let question = Message::GetTrafficFilter(addressed(device, TcHandle::UNSPEC, filtered()));
        let answer = self.inside(async |inside| inside.dump(question).await)?;
        let preference = |message: Message| match message {
            Message::NewTrafficFilter(filter) => Some(filter.header.info >> 16),
            _ => None,
        };
        let found: Vec<u32> = answer.map_err(cannot_read("filters"))?.into_iter().filter_map(preference).collect();
        let is_ours = |preference: &u32| *preference == u32::from(PREFERENCE);
        let (redirected, others) = (found.iter().any(is_ours), !found.iter().all(is_ours));
        Ok(Ingress { qdisc: Some(qdisc), redirected, others })
    }

    /// The other end of a veth whose one end is `link`, if it is on the host.
    fn host_end(&mut self, link: &InsideLink, host: &Netns) -> Result<Option<Port>> {
        let index = link.parent_index.filter(|_| link.kind.as_deref() == Some("veth") && self.host.is_some());
        let Some(index) = index.filter(|_| link.parent_namespace.is_some()) else { return Ok(None) };
        if self.number_of(host)? != link.parent_namespace {
            return Ok(None);
        }
        let Some(there) = self.host_link_of_index(index)? else { return Ok(None) };
        self.port(Side::Host, &there).map(Some)
    }

    fn host_link_of_index(&mut self, index: u32) -> Result<Option<InsideLink>> {
        let mut request = question();
        request.header.index = index;
        match self.on_host(async |host| host.get(Message::GetLink(request)).await)? {
            Ok(found) => Ok(found.as_ref().and_then(link_of)),
            Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(None),
            Err(refusal) => Err(cannot_read("interface")(refusal)),
        }
    }

    /// Equivalent to `tc qdisc add …`.
    pub(super) fn add_qdisc(&mut self, qdisc: &Qdisc) -> std::result::Result<(), StepError> {
        self.put(qdisc, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Equivalent to `tc qdisc replace …`.
    pub(super) fn replace_qdisc(&mut self, old: &Qdisc, new: &Qdisc) -> std::result::Result<(), StepError> {
        new.passing_from(old).iter().chain([new]).try_for_each(|qdisc| self.put(qdisc, NLM_F_CREATE | NLM_F_REPLACE))
    }

    fn put(&mut self, qdisc: &Qdisc, flags: u16) -> std::result::Result<(), StepError> {
        let kind = qdisc.discipline.kind();
        let mut message = addressed(&qdisc.on, TcHandle { major: qdisc.handle, minor: 0 }, parent(qdisc.slot));
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        message
            .attributes
            .extend(qdisc.options().map(|options| TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options))));
        let outcome =
            self.at(qdisc.on.side, Message::NewQueueDiscipline(message), Some(flags)).map_err(StepError::Refused)?;
        outcome.map(drop).map_err(|refusal| match refusal.errno {
            Errno::ENOENT => missing(&format!("sch_{kind}"), &refusal),
            _ => refused(format_args!("cannot put {kind} on {}", qdisc.on.name), &refusal, &[Errno::ENODEV]),
        })
    }

    /// Equivalent to `tc qdisc del …`.
    pub(super) fn delete_qdisc(&mut self, qdisc: &Qdisc) -> std::result::Result<(), StepError> {
        let message = addressed(&qdisc.on, TcHandle { major: qdisc.handle, minor: 0 }, parent(qdisc.slot));
        let outcome =
            self.at(qdisc.on.side, Message::DelQueueDiscipline(message), Some(0)).map_err(StepError::Refused)?;
        outcome.map(drop).map_err(|refusal| {
            let doing = format_args!("cannot take {} from {}", qdisc.discipline.kind(), qdisc.on.name);
            refused(doing, &refusal, &[Errno::ENODEV, Errno::ENOENT])
        })
    }

    /// Equivalent to `ip link add NAME type ifb`, up.
    pub(super) fn add_ifb(&mut self, ifb: &Ifb) -> std::result::Result<(), StepError> {
        let builder: LinkMessageBuilder<Intermediate> =
            LinkMessageBuilder::new_with_info_kind(InfoKind::Ifb).name(ifb.name.to_string()).index(ifb.index);
        let message = builder.address(ifb.mac().to_vec()).link_group(GROUP).up().build();
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let outcome = self
            .inside(async |inside| inside.change(Message::NewLink(message), create).await)
            .map_err(StepError::Refused)?;
        outcome.map_err(|refusal| match refusal.errno {
            Errno::EOPNOTSUPP => missing("ifb", &refusal),
            Errno::EEXIST => StepError::Refused(
                Error::conflict(format!("there is an interface {} already, which plumb did not make", ifb.name))
                    .hint(format!("give it another name: ip link set {} name …", ifb.name)),
            ),
            _ => refused(format_args!("cannot create {}", ifb.name), &refusal, &[]),
        })
    }

    pub(super) fn delete_ifb(&mut self, ifb: &Ifb) -> std::result::Result<(), StepError> {
        self.delete_index(ifb.index, ifb.name.as_str())
    }

    /// Equivalent to `tc filter add … u32 match u32 0 0 action mirred egress redirect dev …`.
    pub(super) fn add_redirect(&mut self, redirect: &Redirect) -> std::result::Result<(), StepError> {
        let mut message = filter(redirect);
        message.attributes.push(TcAttribute::Options(everything_to(redirect.to.index)));
        let flags = Some(NLM_F_CREATE | NLM_F_EXCL);
        let outcome = self.at(Side::Inside, Message::NewTrafficFilter(message), flags).map_err(StepError::Refused)?;
        outcome.map(drop).map_err(|refusal| match refusal.errno {
            Errno::ENOENT => missing("cls_u32 and act_mirred", &refusal),
            _ => refused(
                format_args!("cannot send what comes in on {} through a queue", redirect.from.name),
                &refusal,
                &[],
            ),
        })
    }

    pub(super) fn delete_redirect(&mut self, redirect: &Redirect) -> std::result::Result<(), StepError> {
        let outcome =
            self.at(Side::Inside, Message::DelTrafficFilter(filter(redirect)), Some(0)).map_err(StepError::Refused)?;
        outcome.map(drop).map_err(|refusal| {
            let doing = format_args!("cannot delete the filter of {}", redirect.from.name);
            // Without the qdisc there is no filter: the kernel calls that an invalid argument.
            refused(doing, &refusal, &[Errno::ENODEV, Errno::ENOENT, Errno::EINVAL])
        })
    }

    /// Sends `message` on this side: a change with these flags, or a question.
    fn at(
        &mut self,
        side: Side,
        message: Message,
        flags: Option<u16>,
    ) -> Result<std::result::Result<Option<Message>, Refusal>> {
        let ask = async |netlink: &mut Netlink| match flags {
            Some(flags) => netlink.change(message, flags).await.map(|()| None),
            None => netlink.get_by_echo(message).await,
        };
        match side {
            Side::Inside => self.inside(ask),
            Side::Host => self.on_host(ask),
        }
    }
}

/// The kind of link that rtnetlink has no name for.
#[derive(Default)]
struct Intermediate;

const TCA_OPTIONS: u16 = 2;

/// Every protocol, `ETH_P_ALL`, in the network's order.
const ALL_PROTOCOLS: u16 = 3;

fn addressed(device: &Device, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(device.index.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

fn parent(slot: Slot) -> TcHandle {
    match slot {
        Slot::Root => TcHandle::ROOT,
        // netem has one class, whatever it is called by.
        Slot::Below(handle) => TcHandle { major: handle, minor: 1 },
        Slot::Ingress => TcHandle::INGRESS,
    }
}

/// What filters of incoming packets hang on: the same for `ingress` and `clsact`.
fn filtered() -> TcHandle {
    TcHandle { major: INGRESS, minor: TcHandle::MIN_INGRESS }
}

fn filter(redirect: &Redirect) -> TcMessage {
    let mut message = addressed(&redirect.from, TcHandle::UNSPEC, filtered());
    message.header.info = u32::from(PREFERENCE) << 16 | u32::from(ALL_PROTOCOLS.to_be());
    message.attributes.push(TcAttribute::Kind(TcFilterU32::KIND.to_owned()));
    message
}

fn everything_to(index: u32) -> Vec<TcOption> {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = index;
    let mut action = TcAction::default();
    action.tab = 1;
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    vec![TcOption::U32(TcFilterU32Option::Selector(selector)), TcOption::U32(TcFilterU32Option::Action(vec![action]))]
}

/// The value of the options, whatever the crate made of them.
fn options(attribute: &TcAttribute) -> Option<Vec<u8>> {
    let TcAttribute::Options(options) = attribute else { return None };
    if let [TcOption::Other(whole)] = &options[..]
        && rtnetlink::packet_core::Nla::kind(whole) == TCA_OPTIONS
    {
        let mut value = vec![0; rtnetlink::packet_core::Nla::value_len(whole)];
        rtnetlink::packet_core::Nla::emit_value(whole, &mut value);
        return Some(value);
    }
    let mut value = vec![0; options.as_slice().buffer_len()];
    options.as_slice().emit(&mut value);
    Some(value)
}

fn counters(message: &TcMessage) -> Counters {
    let mut counters = Counters::default();
    let all = message.attributes.iter().filter_map(|a| if let TcAttribute::Stats2(all) = a { Some(all) } else { None });
    for statistics in all.flatten() {
        match statistics {
            TcStats2::Basic(basic) => {
                counters.sent_bytes = basic.bytes;
                counters.sent_packets = basic.packets;
            }
            TcStats2::Queue(queue) => {
                counters.dropped = queue.drops;
                counters.overlimits = queue.overlimits;
                counters.backlog_bytes = queue.backlog;
                counters.backlog_packets = queue.qlen;
            }
            _ => {}
        }
    }
    counters
}

/// The kernel does not know the kind: which module would.
fn missing(module: &str, refusal: &Refusal) -> StepError {
    let (load, them) = match module.split_once(" and ") {
        Some((first, second)) => (format!("-a {first} {second}"), "them"),
        None => (module.to_owned(), "it"),
    };
    StepError::Refused(
        Error::failed(format!("this kernel has no {module}: {refusal}"))
            .hint(format!("modprobe {load} loads {them}, if the kernel has {them} as a module")),
    )
}
