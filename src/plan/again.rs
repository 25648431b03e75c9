//! Changes as the commands of plumb's that make them again, for who attaches anew what has gone with a restart.

use super::{Link, Route, Rule, Setting, Step, render::quote};
use crate::types::{RouteWords, RuleWords};

/// A command for each of `changes`, which went with the attachment whose link was `link`. That may have been
/// renamed since; plumb knows it by the name that it was made with as well, so it is called so.
pub fn commands(changes: &[Step], link: &Link, target: &str) -> Vec<String> {
    let name = quote(link.name.as_str());
    let command = |step: &Step| {
        let (verb, words, goes_with_it) = in_words(step, link)?;
        let with = if goes_with_it { String::new() } else { format!(" --with {name}") };
        Some(format!("plumb {verb} {} {words}{with}", quote(target)))
    };
    changes.iter().filter_map(command).collect()
}

/// The verb, what stands behind the target, and whether that by itself says which attachment takes it back.
fn in_words(step: &Step, link: &Link) -> Option<(&'static str, String, bool)> {
    let of_route = |verb: &str, route: &Route, words: String| {
        Some(("route", format!("{verb} {words}"), route.leaves_by() == Some(link.index)))
    };
    let called = |route: &Route| route.clone().called(link.index, link.name.as_str()).brief();
    let of_rule = |verb: &str, rule: &Rule, words: String| {
        Some(("rule", format!("{verb} {words}"), rule.interfaces().contains(&link.name.as_str())))
    };
    let of_link = |index: u32, name: &str, words: String| {
        let name = if index == link.index { link.name.as_str() } else { name };
        Some(("link", format!("set {} {words}", quote(name)), index == link.index))
    };
    match step {
        Step::AddRoute(route) => of_route("add", route, called(route)),
        Step::AppendRoute(route) => of_route("append", route, called(route)),
        Step::ReplaceRoute { new, .. } => of_route("replace", new, called(new)),
        Step::DeleteRoute(route) | Step::DeleteAppended(route) => of_route("del", route, found(route, &called(route))),
        Step::AddRule(rule) => of_rule("add", rule, rule.brief()),
        Step::DeleteRule(rule) => of_rule("del", rule, found_rule(rule)),
        Step::SetMtu { index, name, to, .. } => of_link(*index, name.as_str(), format!("mtu {to}")),
        Step::SetLink(Setting { index, name, change }) => of_link(*index, name.as_str(), change.in_words("mac")),
        // Nothing that route, rule and link remember.
        Step::AddLink(_) | Step::DeleteLink(_) | Step::AddTag(_) | Step::DeleteTag(_) => None,
        Step::AddAddress(_) | Step::DeleteAddress(_) => None,
        Step::SetSysctl { .. } | Step::SetSegments { .. } | Step::SetResolver { .. } => None,
        Step::AddMasquerade(_) | Step::DeleteMasquerade(_) | Step::AddPort(_) | Step::DeletePort(_) => None,
        Step::AddIfb(_) | Step::DeleteIfb(_) | Step::AddRedirect(_) | Step::DeleteRedirect(_) => None,
        Step::AddQdisc(_) | Step::DeleteQdisc(_) | Step::ReplaceQdisc { .. } => None,
    }
}

/// Enough to find a route again. Whoever made it may have said more of it than plumb has words for.
fn found(route: &Route, brief: &str) -> String {
    let typed: Vec<String> = brief.split_whitespace().map(str::to_owned).collect();
    if RouteWords::parse(&typed, None).is_ok() {
        return brief.to_owned();
    }
    let to = route.destination().map_or_else(String::new, |network| network.to_string());
    let device = route.device().map_or_else(String::new, |name| format!(" dev {}", quote(name)));
    format!("{to}{device} metric {} table {}", route.metric(), route.table())
}

/// The same of a rule.
fn found_rule(rule: &Rule) -> String {
    let brief = rule.brief();
    let typed: Vec<String> = brief.split_whitespace().filter(|word| *word != "-6").map(str::to_owned).collect();
    match RuleWords::parse(&typed, Some(rule.is_ipv6())) {
        Ok(_) => brief,
        Err(_) => format!("{}priority {}", if rule.is_ipv6() { "-6 " } else { "" }, rule.priority()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{samples, setting::Change};
    use super::*;

    #[test]
    fn each_change_has_the_command_that_makes_it() {
        let link = samples::link();
        let name = |to: &str| samples::setting(Change::Name(to.parse().unwrap()));
        let eth0 = |gateway| samples::default_via(gateway, 2, "eth0");
        let steps = [
            Step::AddRoute(samples::default_via("192.168.0.1", 7, "lan0")),
            Step::AppendRoute(samples::default_via("192.168.0.2", 7, "eth1")),
            Step::ReplaceRoute { old: eth0("172.17.0.1"), new: samples::default_via("fe80::1", 7, "eth1") },
            Step::DeleteRoute(eth0("172.17.0.1")),
            Step::AddRule(samples::rule("iif eth1 table 100")),
            Step::AddRule(samples::rule("from fd00::/8 prohibit")),
            Step::DeleteRule(samples::rule("from 10.0.0.0/8 table main")),
            Step::SetMtu {
                index: 2,
                name: "eth0".parse().unwrap(),
                from: 1500.try_into().unwrap(),
                to: 1400.try_into().unwrap(),
            },
            samples::setting(Change::Up(false)),
            name("lan0"),
        ];
        assert_eq!(
            commands(&steps, &link, "web"),
            [
                "plumb route web add default via 192.168.0.1 dev eth1",
                "plumb route web append default via 192.168.0.2 dev eth1",
                "plumb route web replace ::/0 via fe80::1 dev eth1",
                "plumb route web del default via 172.17.0.1 dev eth0 --with eth1",
                "plumb rule web add from all iif eth1 lookup 100 priority 32765",
                "plumb rule web add -6 from fd00::/8 prohibit priority 32765 --with eth1",
                "plumb rule web del from 10.0.0.0/8 lookup main priority 32765 --with eth1",
                "plumb link web set eth0 mtu 1400 --with eth1",
                "plumb link web set eth1 down",
                "plumb link web set eth1 name lan0",
            ]
        );
    }
}
