//! Queueing disciplines as data: what stands on an interface, what plumb puts there, and the words of
//! `tc` for it.

mod options;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::render::quote;
use crate::types::{IfName, Percent, Rate};

/// The handles of plumb's own, by which they are known again. One for each discipline and place: the
/// kernel changes a qdisc in place only where handle and kind are the same, and takes the same handle with
/// another kind for a mistake (`tc_modify_qdisc` in `net/sched/sch_api.c`).
pub const TBF: u16 = 0x706c;
pub const NETEM: u16 = 0x706d;
pub const TBF_BELOW_NETEM: u16 = 0x706e;
/// For a moment, between a token bucket and a smaller one.
pub const PASSING: u16 = 0x706f;
/// The kernel has one ingress qdisc on an interface, always under this handle.
pub const INGRESS: u16 = 0xffff;
/// The preference of plumb's filter: the letters "pl". Those of others with a lower one come first.
pub const PREFERENCE: u16 = 0x706c;

/// An interface that qdiscs stand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub side: Side,
    pub index: u32,
    pub name: IfName,
}

/// Which namespace an interface is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The target's.
    Inside,
    /// The host's: the other end of a Docker container's veth.
    Host,
}

/// Where on its interface a qdisc stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    Root,
    /// Below the only class of the qdisc with this handle.
    Below(u16),
    /// Where packets come in. Nothing queues there; filters do their work.
    Ingress,
}

/// A queueing discipline on one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qdisc {
    pub on: Device,
    pub slot: Slot,
    pub handle: u16,
    pub discipline: Discipline,
}

/// What a qdisc does with packets, of the kinds that plumb sets; and of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discipline {
    Tbf(Tbf),
    Netem(Netem),
    Ingress,
    /// Whatever was there, as the kernel described it, so that it is given back to the letter.
    AsRead(AsRead),
}

/// A token bucket, in the kernel's own terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tbf {
    pub rate: Rate,
    /// The bucket's size in bytes: what may leave at once.
    pub burst: u32,
    /// Bytes that may wait, those that the bucket has tokens for included.
    pub limit: u32,
    pub peak: Option<Peak>,
}

/// How fast a full bucket may be emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peak {
    pub rate: Rate,
    /// The second bucket's size in bytes.
    pub burst: u32,
}

/// A bad network, in the kernel's own terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netem {
    /// Packets that may be on their way.
    pub limit: u32,
    /// Nanoseconds, and so is the jitter.
    pub delay: u64,
    pub jitter: u64,
    pub loss: Option<Percent>,
    pub duplicate: Option<Percent>,
    pub corrupt: Option<Percent>,
    /// Those that are not delayed and so overtake others.
    pub reorder: Option<Percent>,
}

/// A qdisc of any kind, as the kernel described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsRead {
    pub kind: String,
    /// The value of TCA_OPTIONS, where there is one.
    #[serde(with = "hexadecimal", skip_serializing_if = "Option::is_none", default)]
    pub options: Option<Vec<u8>>,
}

/// An intermediate functional block: what comes in on an interface passes its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ifb {
    pub index: u32,
    pub name: IfName,
}

impl Ifb {
    /// Nobody ever sees it. Chosen by nobody it would be another each time: the letters "pl", and the index.
    pub fn mac(&self) -> [u8; 6] {
        let [_, a, b, c] = self.index.to_be_bytes();
        [0x02, 0x70, 0x6c, a, b, c]
    }
}

/// A filter that sends all that comes in on one interface through another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    pub from: Device,
    pub to: Ifb,
}

impl Discipline {
    /// The kernel's name of the kind.
    pub fn kind(&self) -> &str {
        match self {
            Discipline::Tbf(_) => "tbf",
            Discipline::Netem(_) => "netem",
            Discipline::Ingress => "ingress",
            Discipline::AsRead(read) => &read.kind,
        }
    }
}

impl Qdisc {
    /// Whether plumb made it, on this interface or on another.
    pub fn is_ours(&self) -> bool {
        [TBF, NETEM, TBF_BELOW_NETEM, PASSING].contains(&self.handle)
    }

    /// Whether a qdisc with classes, which are not read and would not be given back, may be below it.
    pub fn may_have_classes(&self) -> bool {
        const CLASSFUL: [&str; 12] =
            ["htb", "hfsc", "prio", "drr", "qfq", "cbq", "ets", "multiq", "mqprio", "taprio", "dsmark", "atm"];
        CLASSFUL.contains(&self.discipline.kind())
    }

    /// What must stand here for a moment where a token bucket is replaced by a smaller one. The kernel
    /// would change it in place, and a packet that waits and is larger than the new bucket would wait for
    /// ever, and all others behind it (`tbf_dequeue` in `net/sched/sch_tbf.c`). By way of another handle
    /// the kernel makes a new one, under a limit all the time; what waited is lost, as where a queue is full.
    pub fn passing_from(&self, old: &Qdisc) -> Option<Qdisc> {
        let largest = |qdisc: &Qdisc| match &qdisc.discipline {
            Discipline::Tbf(tbf) => Some(tbf.largest_packet()),
            Discipline::AsRead(read) => read.tbf().map(|tbf| tbf.largest_packet()),
            Discipline::Netem(_) | Discipline::Ingress => None,
        };
        let shrinks = self.handle == old.handle && largest(self)? < largest(old)?;
        shrinks.then(|| Qdisc { handle: PASSING, ..self.clone() })
    }

    /// The value of the message's options.
    pub fn options(&self) -> Option<Vec<u8>> {
        match &self.discipline {
            Discipline::Tbf(tbf) => Some(options::of_tbf(tbf)),
            Discipline::Netem(netem) => Some(options::of_netem(netem)),
            Discipline::Ingress => None,
            Discipline::AsRead(read) => read.options.clone(),
        }
    }

    /// `tc qdisc VERB …`
    pub fn command(&self, verb: &str) -> String {
        format!("tc qdisc {verb} dev {} {}", quote(self.on.name.as_str()), self)
    }

    /// `tc qdisc del …`, which needs no more than the place.
    pub fn deletion(&self) -> String {
        format!("tc qdisc del dev {} {}", quote(self.on.name.as_str()), self.slot)
    }
}

impl Tbf {
    /// What the buckets have tokens for at once; the kernel cuts larger ones into their segments.
    fn largest_packet(&self) -> u32 {
        self.peak.as_ref().map_or(self.burst, |peak| peak.burst.min(self.burst))
    }
}

/// `root handle 706c: tbf …`
impl fmt::Display for Qdisc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slot {
            Slot::Ingress => write!(f, "{}", self.discipline.kind()),
            Slot::Root | Slot::Below(_) => write!(f, "{} handle {:x}: {}", self.slot, self.handle, self.discipline),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Root => f.write_str("root"),
            Slot::Below(handle) => write!(f, "parent {handle:x}:1"),
            Slot::Ingress => f.write_str("ingress"),
        }
    }
}

impl fmt::Display for Discipline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Discipline::Tbf(tbf) => write!(f, "tbf {tbf}"),
            Discipline::Netem(netem) => write!(f, "netem {netem}"),
            Discipline::Ingress => f.write_str("ingress"),
            Discipline::AsRead(read) => match (read.tbf(), read.netem()) {
                (Some(tbf), _) => write!(f, "tbf {tbf}"),
                (_, Some(netem)) => write!(f, "netem {netem}"),
                // What it was set to only its own part of tc knows to say.
                (None, None) => f.write_str(&read.kind),
            },
        }
    }
}

impl fmt::Display for Tbf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rate {} burst {}b limit {}b", self.rate, self.burst, self.limit)?;
        match &self.peak {
            Some(peak) => write!(f, " peakrate {} mtu {}b", peak.rate, peak.burst),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Netem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {}", self.limit)?;
        if self.delay > 0 {
            write!(f, " delay {}", Nanoseconds(self.delay))?;
        }
        if self.jitter > 0 {
            write!(f, " {}", Nanoseconds(self.jitter))?;
        }
        let shares =
            [("loss", self.loss), ("duplicate", self.duplicate), ("corrupt", self.corrupt), ("reorder", self.reorder)];
        for (name, share) in shares {
            if let Some(share) = share {
                write!(f, " {name} {share}")?;
            }
        }
        Ok(())
    }
}

/// A time as tc reads it.
struct Nanoseconds(u64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}us", self.0 / 1000) } else { write!(f, "{}ns", self.0) }
    }
}

impl Redirect {
    /// What the filter hangs on and how it is told from others.
    fn selector(&self) -> String {
        format!("dev {} ingress pref {PREFERENCE} protocol all u32", quote(self.from.name.as_str()))
    }

    pub fn command(&self) -> String {
        let to = quote(self.to.name.as_str());
        format!("tc filter add {} match u32 0 0 action mirred egress redirect dev {to}", self.selector())
    }

    pub fn deletion(&self) -> String {
        format!("tc filter del {}", self.selector())
    }
}

mod hexadecimal {
    //! Bytes as text.

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::types::{hex, unhex};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(&hex(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| unhex(&text).ok_or_else(|| D::Error::custom("no hexadecimal text"))).transpose()
    }
}
