//! Routes inside: read, added, replaced, deleted, each as the kernel's own message.

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage as Message,
        route::{RouteFlags, RouteMessage, RouteProtocol, RouteType},
    },
};

use super::{Kernel, Refusal, cannot_read, refused};
use crate::{
    apply::StepError,
    error::Result,
    plan::{Route, facts::InsideLink},
};

impl Kernel {
    /// The unicast routes of all tables, IPv4 and IPv6, but for the kernel's own of the local one. Equivalent
    /// to `ip route show table all`.
    pub fn routes(&mut self, links: &[InsideLink]) -> Result<Vec<Route>> {
        const LOCAL_TABLE: u8 = 255;
        let messages = self.inside(async |inside| inside.dump(Message::GetRoute(RouteMessage::default())).await)?;
        let name_of = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let wanted = |message: Message| match message {
            Message::NewRoute(route)
                if (route.header.table != LOCAL_TABLE || route.header.protocol != RouteProtocol::Kernel)
                    && route.header.kind != RouteType::Multicast
                    && !route.header.flags.contains(RouteFlags::Cloned) =>
            {
                Some(Route::from_kernel(route, name_of))
            }
            _ => None,
        };
        Ok(messages.map_err(cannot_read("routes inside"))?.into_iter().filter_map(wanted).collect())
    }

    /// Equivalent to `ip route add …`.
    pub(super) fn add_route(&mut self, route: &Route) -> std::result::Result<(), StepError> {
        self.route("add", route, Message::NewRoute(route.message().clone()), NLM_F_CREATE | NLM_F_EXCL, &[])
    }

    /// Equivalent to `ip route append …`.
    pub(super) fn append_route(&mut self, route: &Route) -> std::result::Result<(), StepError> {
        self.route("append", route, Message::NewRoute(route.message().clone()), NLM_F_CREATE | NLM_F_APPEND, &[])
    }

    /// Equivalent to `ip route replace …`: there is no moment without a route.
    pub(super) fn replace_route(&mut self, new: &Route) -> std::result::Result<(), StepError> {
        self.route("set", new, Message::NewRoute(new.message().clone()), NLM_F_CREATE | NLM_F_REPLACE, &[])
    }

    /// Equivalent to `ip route del …`.
    pub(super) fn delete_route(&mut self, route: &Route) -> std::result::Result<(), StepError> {
        self.route("delete", route, Message::DelRoute(route.message().clone()), 0, &[Errno::ESRCH, Errno::ENODEV])
    }

    fn route(
        &mut self,
        verb: &str,
        route: &Route,
        message: Message,
        flags: u16,
        gone: &[Errno],
    ) -> std::result::Result<(), StepError> {
        let outcome: std::result::Result<(), Refusal> =
            self.inside(async |inside| inside.change(message, flags).await).map_err(StepError::Refused)?;
        outcome.map_err(|refusal| refused(format_args!("cannot {verb} the route {route}"), &refusal, gone))
    }
}
