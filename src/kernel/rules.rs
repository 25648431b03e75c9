//! Rules inside, about which table decides: read, added, deleted, each as the kernel's own message.

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{AddressFamily, RouteNetlinkMessage as Message, rule::RuleMessage},
};

use super::{Kernel, cannot_read, refused};
use crate::{apply::StepError, error::Result, plan::Rule};

impl Kernel {
    /// The rules of IPv4 and IPv6, in the order in which they are asked. Equivalent to `ip rule` and
    /// `ip -6 rule`.
    pub fn rules(&mut self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RuleMessage::default();
            question.header.family = family;
            let messages = self.inside(async |inside| inside.dump(Message::GetRule(question)).await)?;
            let found = match messages {
                Err(refusal) if refusal.errno == Errno::EAFNOSUPPORT || refusal.errno == Errno::EOPNOTSUPP => continue,
                found => found.map_err(cannot_read("rules inside"))?,
            };
            let of_family = |message| match message {
                Message::NewRule(rule) if rule.header.family == family => Some(Rule::from_kernel(rule)),
                _ => None,
            };
            rules.extend(found.into_iter().filter_map(of_family));
        }
        Ok(rules)
    }

    /// Equivalent to `ip rule add …`.
    pub(super) fn add_rule(&mut self, rule: &Rule) -> std::result::Result<(), StepError> {
        let message = Message::NewRule(rule.message().clone());
        self.rule("add", rule, message, NLM_F_CREATE | NLM_F_EXCL, &[])
    }

    /// Equivalent to `ip rule del …`.
    pub(super) fn delete_rule(&mut self, rule: &Rule) -> std::result::Result<(), StepError> {
        self.rule("delete", rule, Message::DelRule(rule.message().clone()), 0, &[Errno::ENOENT])
    }

    fn rule(
        &mut self,
        verb: &str,
        rule: &Rule,
        message: Message,
        flags: u16,
        gone: &[Errno],
    ) -> std::result::Result<(), StepError> {
        let outcome = self.inside(async |inside| inside.change(message, flags).await).map_err(StepError::Refused)?;
        outcome.map_err(|refusal| refused(format_args!("cannot {verb} the rule {rule}"), &refusal, gone))
    }
}
