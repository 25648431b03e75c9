//! A leased IPv6 address beside an attachment's lease: asked for on a thread inside the container, as it is
//! there that its client has to speak.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    dhcp::v6::{self, Machine, Start},
    error::{Error, Result},
    kernel::{
        dhcp::boot_time,
        dhcp6::{Outcome, Quest},
    },
    namespace,
    store::{Attachment, Dhcp, Holding, Ipv6Lease, Moment, NamespaceMark},
    types::{IfName, Place, Tag},
};

/// For how long an answer is waited for. Whoever takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(3);
/// When what failed inside a container is tried again.
const RETRY: Duration = Duration::from_secs(30);

pub struct Ipv6 {
    place: Place,
    mark: NamespaceMark,
    index: u32,
    name: IfName,
    parent: IfName,
    tag: Tag,
    skip_dad: bool,
    /// Away while a thread is at work with it.
    client: Option<Client>,
    retry: Option<Duration>,
}

/// A client's state, and how it begins.
pub struct Client {
    machine: Machine,
    start: Option<Start>,
}

/// What a thread did.
pub struct Exchanged {
    client: Client,
    outcome: Result<Option<Outcome>>,
}

impl Ipv6 {
    /// Of an attachment whose record has such a lease that is to be renewed.
    pub fn new(attachment: &Attachment, dhcp: &Dhcp, record: &Ipv6Lease, boot: &str, seed: u64) -> Option<Ipv6> {
        let link = attachment.link()?;
        let (lease, age) = (Arc::new(record.lease.clone()), record.asked.age(boot_time(), boot));
        let start = match record.state {
            Holding::Held => Start::Resume { lease, age },
            Holding::Lost => Start::Init { prefer: Some(lease.ip()) },
            Holding::Released => return None,
        };
        let mut machine = Machine::new(v6::Client::beside(&dhcp.client), seed);
        // A lease that needs nothing yet is only taken note of.
        let start = match machine.start(boot_time(), start.clone()).is_empty() {
            true => None,
            false => Some(start),
        };
        Some(Ipv6 {
            place: attachment.place.clone(),
            mark: attachment.namespace.clone(),
            index: link.index,
            name: link.name.clone(),
            parent: link.parent.name.clone(),
            tag: attachment.tag.clone(),
            skip_dad: attachment.wish.skip_dad,
            client: Some(Client { machine, start }),
            retry: None,
        })
    }

    /// When something is due.
    pub fn wake(&self) -> Option<Duration> {
        let client = self.client.as_ref()?;
        let next = if client.start.is_some() { Some(Duration::ZERO) } else { client.machine.wake() };
        next.max(self.retry)
    }

    /// The work that is due, for a thread.
    pub fn tick(&mut self, now: Duration) -> Option<impl FnOnce() -> Exchanged + Send + 'static> {
        if self.wake().is_none_or(|wake| now < wake) {
            return None;
        }
        let (place, mark, name, parent) =
            (self.place.clone(), self.mark.clone(), self.name.clone(), self.parent.clone());
        let (index, tag, skip_dad, mut client) = (self.index, self.tag.clone(), self.skip_dad, self.client.take()?);
        Some(move || {
            let quest = Quest { index, name: &name, tag: &tag, on: parent.as_str(), skip_dad, timeout: PATIENCE };
            let outcome = match namespace::find(&place, &mark) {
                None => Err(Error::not_found("the container has gone")),
                Some(there) => there.look_inside(|kernel| {
                    let actions = match client.start.take() {
                        Some(start) => client.machine.start(boot_time(), start),
                        None => client.machine.tick(boot_time()),
                    };
                    kernel.exchange_ipv6(&mut client.machine, actions, &quest, Instant::now() + PATIENCE)
                }),
            };
            Exchanged { client, outcome }
        })
    }

    /// What the record is to say after that; `None` for nothing new.
    pub fn finished(&mut self, exchanged: Exchanged, before: &Ipv6Lease, boot: &str) -> Option<Ipv6Lease> {
        let (now, client) = (boot_time(), exchanged.client);
        self.retry = exchanged.outcome.is_err().then(|| now + RETRY);
        let complaint = client.machine.complaint().map(str::to_owned);
        let after = match exchanged.outcome {
            Ok(Some(Outcome::Bound(lease))) => {
                let asked = Moment::at(client.machine.asked().unwrap_or(now), now, boot.to_owned());
                Ipv6Lease::new(Arc::unwrap_or_clone(lease), asked)
            }
            Ok(Some(Outcome::Lost)) => Ipv6Lease { state: Holding::Lost, problem: complaint, ..before.clone() },
            Ok(None) => Ipv6Lease { problem: complaint, ..before.clone() },
            Err(error) => Ipv6Lease { problem: Some(error.message), ..before.clone() },
        };
        self.client = Some(client);
        (after != *before).then_some(after)
    }
}
