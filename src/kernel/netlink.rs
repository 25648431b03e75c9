//! A netlink socket in one namespace: requests and answers, with the kernel's own words for a refusal.

use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_ECHO, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
    parse_string,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::runtime::Runtime;

use crate::error::{Error, Result};

/// A socket that stays in the namespace it was opened in.
pub struct Netlink {
    handle: Handle,
}

/// The kernel's answer to a request that it did not carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub errno: Errno,
    /// The kernel's explanation, where it gives one (its "extended acknowledgement").
    pub text: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = self.errno.desc().to_lowercase();
        match &self.text {
            Some(text) => write!(f, "{reason}: {}", text.trim_end_matches('.')),
            None => f.write_str(&reason),
        }
    }
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread, served by `runtime`.
    pub fn open(runtime: &Runtime) -> Result<Netlink> {
        let _inside = runtime.enter();
        let failed = |error: std::io::Error| Error::io("cannot open a netlink socket", &error);
        let (mut connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        let socket = rtnetlink::sys::AsyncSocket::socket_mut(connection.socket_mut());
        socket.set_ext_ack(true).map_err(failed)?;
        // With the refusal come the explanations, not the whole request again.
        socket.set_cap_ack(true).map_err(failed)?;
        runtime.spawn(connection);
        Ok(Netlink { handle })
    }

    /// Sends a request that the kernel acknowledges.
    pub async fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> std::result::Result<(), Refusal> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags).await.map(|_| ())
    }

    /// Asks for one object.
    pub async fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> std::result::Result<Option<RouteNetlinkMessage>, Refusal> {
        Ok(self.exchange(message, NLM_F_REQUEST | NLM_F_ACK).await?.pop())
    }

    /// Asks for one object of the kinds that the kernel tells its listeners of, and whoever asked only if
    /// they want an echo: qdiscs and filters (`qdisc_notify` in `net/sched/sch_api.c`).
    pub async fn get_by_echo(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> std::result::Result<Option<RouteNetlinkMessage>, Refusal> {
        Ok(self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO).await?.pop())
    }

    /// Asks for all objects of a kind.
    pub async fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> std::result::Result<Vec<RouteNetlinkMessage>, Refusal> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP).await
    }

    async fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> std::result::Result<Vec<RouteNetlinkMessage>, Refusal> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let lost = |_| Refusal { errno: Errno::EIO, text: Some("the netlink connection is lost".into()) };
        let mut answers = self.handle.request(request).map_err(lost)?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(refusal(&error)),
                _ => {}
            }
        }
        Ok(found)
    }
}

pub(super) fn refusal(error: &ErrorMessage) -> Refusal {
    Refusal { errno: Errno::from_raw(error.raw_code().abs()), text: explanation(&error.header) }
}

/// The text in an error's attributes: NLMSGERR_ATTR_MSG, number 1, after the request's 16-byte header.
fn explanation(answer: &[u8]) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let attributes = NlasIterator::new(answer.get(16..)?);
    let message = attributes.filter_map(|a| a.ok()).find(|a| a.kind() == NLMSGERR_ATTR_MSG)?;
    parse_string(message.value()).ok().filter(|text| !text.is_empty())
}
