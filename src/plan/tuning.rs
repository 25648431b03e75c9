//! What makes a link faster than it is made: larger segments, longer queues.

use serde::{Deserialize, Serialize};

use super::{
    Link, Parent, Step, Wish, phys,
    qdisc::{Device, Side},
};
use crate::error::{Error, Result};

/// How a link is tuned. What is not given is the kernel's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// The largest segment that passes unsegmented, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub big_tcp: Option<u32>,
    /// How many packets a qdisc on it may keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txqueuelen: Option<u32>,
    /// Queues for sending and for receiving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// How many broadcasts wait for all children of a macvlan's parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bc_queue_len: Option<u32>,
}

impl Tuning {
    pub fn is_none(&self) -> bool {
        *self == Tuning::default()
    }
}

/// The largest segments that an interface takes from TCP and makes of what comes, in bytes: by IPv6, and by
/// IPv4, which the kernel has apart since 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    pub gso: u32,
    pub gro: u32,
    pub gso_ipv4: u32,
    pub gro_ipv4: u32,
}

impl Segments {
    /// What every interface begins with.
    pub const ORDINARY: Segments = Segments { gso: ORDINARY, gro: ORDINARY, gso_ipv4: ORDINARY, gro_ipv4: ORDINARY };

    /// None is less than `size`.
    pub fn at_least(self, size: u32) -> Segments {
        let raise = |now: u32| now.max(size);
        Segments {
            gso: raise(self.gso),
            gro: raise(self.gro),
            gso_ipv4: raise(self.gso_ipv4),
            gro_ipv4: raise(self.gro_ipv4),
        }
    }

    /// `ip link set dev …`
    pub fn command(&self, name: &str) -> String {
        let Segments { gso, gro, gso_ipv4, gro_ipv4 } = self;
        format!(
            "ip link set dev {name} gso_max_size {gso} gro_max_size {gro} gso_ipv4_max_size {gso_ipv4} \
             gro_ipv4_max_size {gro_ipv4}"
        )
    }
}

/// As much as fits the 16 bits of IPv4's length, which a segment kept to before (`GSO_LEGACY_MAX_SIZE`).
pub const ORDINARY: u32 = 65_536;
/// The most that any kernel takes: 8 times 65535 (`GSO_MAX_SIZE`).
pub const MOST: u32 = 524_280;

/// What can be judged without looking at anything.
pub(super) fn check(wish: &Wish) -> Result<()> {
    if wish.driver.moves() {
        return phys::check_tuning(wish);
    }
    if wish.driver.leads_nowhere() && wish.tuning.big_tcp.is_some() {
        return Err(Error::usage("--big-tcp is for what passes between containers, and a dummy leads nowhere")
            .hint("leave it out"));
    }
    if wish.tuning.bc_queue_len.is_some() && wish.driver.kind() != "macvlan" {
        return Err(
            Error::usage("--bc-queue-len is macvlan's: no other kind of link has such a queue").hint("leave it out")
        );
    }
    Ok(())
}

/// The steps that raise the segments of the link and of its parent, the parent's first: the link's may not
/// be larger than the hardware below takes.
pub(super) fn steps(wish: &Wish, link: &Link, parent: &Parent, warnings: &mut Vec<String>) -> Result<Vec<Step>> {
    let Some(wanted) = wish.tuning.big_tcp else { return Ok(Vec::new()) };
    let Some(now) = parent.segments else {
        return Err(Error::failed("this kernel has no IPv4 segments above 64 KiB: they came with Linux 6.3")
            .hint("leave --big-tcp out, or use a newer kernel"));
    };
    let most = parent.segments_most.min(MOST);
    if most <= ORDINARY {
        warnings
            .push(format!("{} takes segments of up to {most} bytes, so --big-tcp has no effect on it", parent.name));
        return Ok(Vec::new());
    }
    let size = wanted.min(most);
    if size < wanted {
        warnings.push(format!("{} takes segments of up to {most} bytes, not {wanted}", parent.name));
    }
    let on = |side, index, name: &crate::types::IfName| Device { side, index, name: name.clone() };
    let raised = now.at_least(size);
    Ok(vec![
        Step::SetSegments { on: on(Side::Host, parent.index, &parent.name), from: now, to: raised },
        Step::SetSegments { on: on(Side::Inside, link.index, &link.name), from: now, to: now.at_least(size) },
    ])
}

/// What an attachment raised its parent's segments from, and to.
pub fn raised(steps: &[Step]) -> Option<(&Device, Segments, Segments)> {
    steps.iter().find_map(|step| match step {
        Step::SetSegments { on, from, to } if on.side == Side::Host => Some((on, *from, *to)),
        _ => None,
    })
}

/// `heir`, who came later on the same parent, gives back what `from` was before them both.
pub fn hand_down(heir: &mut [Step], before: Segments) {
    for step in heir {
        if let Step::SetSegments { on, from, .. } = step
            && on.side == Side::Host
        {
            *from = before;
        }
    }
}
