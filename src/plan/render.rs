//! Steps as the commands a person would type: for `--dry-run`, `-v` and what is left behind.

use std::borrow::Cow;

use super::{
    Driver, Ifb, Link, MacvlanMode, Masquerade, Route, Rule, Step, Switch, Tuning,
    bridge::ovs_vsctl,
    link::GROUP,
    phys,
    qdisc::{Device, Side},
};
use crate::types::Place;

impl Step {
    /// The command that does the same, run on the host. `namespace` is the path of the target's
    /// network namespace, such as `/proc/42/ns/net`.
    pub fn command(&self, namespace: &str) -> String {
        let inside = |command: String| inside(namespace, command);
        let at = |device: &Device, command| match device.side {
            Side::Inside => inside(command),
            Side::Host => command,
        };
        match self {
            // Created from the host, as the parent is there; everything else happens inside.
            Step::AddLink(link) => add_link(link, namespace),
            Step::DeleteLink(link) if let Some(home) = link.home() => phys::move_out(link, home, namespace),
            Step::DeleteLink(link) => inside(format!("ip link del dev {}", quote(link.name.as_str()))),
            Step::AddTag(tagged) => {
                inside(format!("ip link property add dev {} altname {}", quote(tagged.name.as_str()), tagged.tag))
            }
            Step::DeleteTag(tagged) => {
                inside(format!("ip link property del dev {} altname {}", quote(tagged.name.as_str()), tagged.tag))
            }
            Step::SetSysctl { key, to, .. } => inside(format!(
                "sh -c {}",
                quote(&format!("echo {} > {}", quote(to), quote(&format!("/proc/sys/{key}"))))
            )),
            Step::SetMtu { name, to, .. } => inside(format!("ip link set dev {} mtu {to}", quote(name.as_str()))),
            Step::SetSegments { on, to, .. } => at(on, to.command(&quote(on.name.as_str()))),
            Step::AddAddress(a) => {
                let broadcast = if !a.address.is_ipv6() && a.address.prefix() < 31 { " brd +" } else { "" };
                let nodad = if a.address.is_ipv6() && a.skip_dad { " nodad" } else { "" };
                inside(format!("ip addr add {}{broadcast} dev {}{nodad}", a.address, quote(a.name.as_str())))
            }
            Step::DeleteAddress(a) => inside(format!("ip addr del {} dev {}", a.address, quote(a.name.as_str()))),
            Step::AddRoute(route) => inside(ip_route("add", route)),
            Step::DeleteRoute(route) => inside(ip_route("del", route)),
            Step::ReplaceRoute { new, .. } => inside(ip_route("replace", new)),
            Step::SetResolver { root, to, .. } => {
                let file = root.join("etc/resolv.conf");
                format!("printf %s {} > {}", quote(to), quote(&file.to_string_lossy()))
            }
            Step::AddMasquerade(masquerade) => inside(add_masquerade(masquerade)),
            Step::AddIfb(ifb) => inside(add_ifb(ifb)),
            Step::DeleteIfb(ifb) => inside(format!("ip link del dev {}", quote(ifb.name.as_str()))),
            Step::AddQdisc(qdisc) => at(&qdisc.on, qdisc.command("add")),
            Step::DeleteQdisc(qdisc) => at(&qdisc.on, qdisc.deletion()),
            Step::ReplaceQdisc { old, new } => {
                let passing = new.passing_from(old);
                let commands = passing.iter().chain([new]).map(|qdisc| at(&qdisc.on, qdisc.command("replace")));
                commands.collect::<Vec<_>>().join(" && ")
            }
            Step::AddRedirect(redirect) => inside(redirect.command()),
            Step::DeleteRedirect(redirect) => inside(redirect.deletion()),
            Step::AddPort(port) => ovs_vsctl(&port.addition()),
            Step::DeletePort(port) => ovs_vsctl(&port.deletion()),
            Step::AddRule(rule) => inside(ip_rule("add", rule)),
            Step::DeleteRule(rule) => inside(ip_rule("del", rule)),
            Step::SetLink(setting) => inside(setting.command()),
            Step::AppendRoute(route) => inside(ip_route("append", route)),
            Step::DeleteAppended(route) => inside(ip_route("del", route)),
            Step::DeleteMasquerade(m) => inside(format!("nft delete table {} {}", m.family(), quote(&m.table()))),
        }
    }
}

/// A command in the target's namespace.
pub(super) fn inside(namespace: &str, command: String) -> String {
    match namespace {
        Place::HOST => command,
        _ => format!("nsenter --net={} {command}", quote(namespace)),
    }
}

/// In one go: nft sends what one argument says as one transaction. `create` refuses a table that is
/// there, where `add` would put the chain into it.
fn add_masquerade(masquerade: &Masquerade) -> String {
    let (family, table, chain) = (masquerade.family(), masquerade.table(), Masquerade::CHAIN);
    let (subnet, interface) = (masquerade.subnet, &masquerade.interface);
    let transaction = format!(
        "create table {family} {table}; \
         add chain {family} {table} {chain} {{ type nat hook postrouting priority srcnat; }}; \
         add rule {family} {table} {chain} {family} saddr {subnet} oifname != \"{interface}\" masquerade"
    );
    format!("nft {}", quote(&transaction))
}

pub(super) fn ip_route(verb: &str, route: &Route) -> String {
    let family = if route.is_ipv6() { " -6" } else { "" };
    format!("ip{family} route {verb} {route}")
}

fn ip_rule(verb: &str, rule: &Rule) -> String {
    let family = if rule.is_ipv6() { " -6" } else { "" };
    format!("ip{family} rule {verb} {rule}")
}

fn add_link(link: &Link, namespace: &str) -> String {
    if let Some(home) = link.home() {
        return phys::move_in(link, home, namespace);
    }
    let mac = link.mac.map(|mac| format!(" address {mac}")).unwrap_or_default();
    let netns = if namespace == Place::HOST { String::new() } else { format!(" netns {}", quote(namespace)) };
    let Tuning { txqueuelen, queues, bc_queue_len, .. } = link.tuning;
    let length = txqueuelen.map(|length| format!(" txqueuelen {length}")).unwrap_or_default();
    let queues = queues.map(|count| format!(" numtxqueues {count} numrxqueues {count}")).unwrap_or_default();
    let broadcasts = bc_queue_len.map(|length| format!(" bcqueuelen {length}")).unwrap_or_default();
    if let Some((outside, its_mac)) = link.host_end() {
        let (name, outside) = (quote(link.name.as_str()), quote(outside.as_str()));
        return format!(
            "ip link add name {name} index {}{mac} mtu {}{length}{queues} group {GROUP}{netns} up type veth \
             peer name {outside} address {its_mac} mtu {} group {GROUP} && {}",
            link.index,
            link.mtu,
            link.mtu,
            join_bridge(link, &outside)
        );
    }
    let on = link.parent.interface().map_or_else(String::new, |name| format!("link {} ", quote(name.as_str())));
    format!(
        "ip link add {on}name {} index {}{mac} mtu {}{length}{queues} group {GROUP}{netns} up {}{broadcasts}",
        quote(link.name.as_str()),
        link.index,
        link.mtu,
        driver(&link.driver)
    )
}

/// What makes the end on the host a port: only up when it is in its VLAN alone.
fn join_bridge(link: &Link, outside: &str) -> String {
    let (bridge, up) = (quote(link.parent.name.as_str()), format!("ip link set dev {outside} up"));
    match &link.driver {
        // Open vSwitch takes it by a step of its own.
        Driver::Veth { switch: Some(Switch::OpenVswitch), .. } => up,
        Driver::Veth { vlan: Some(id), switch: Some(Switch::VlanBridge { default_vlan }), .. } => {
            let leave = default_vlan.map(|old| format!(" && bridge vlan del dev {outside} vid {old}"));
            format!(
                "ip link set dev {outside} master {bridge}{} && bridge vlan add dev {outside} vid {id} pvid untagged && {up}",
                leave.unwrap_or_default()
            )
        }
        _ => format!("ip link set dev {outside} master {bridge} up"),
    }
}

fn add_ifb(ifb: &Ifb) -> String {
    let mac = ifb.mac().map(|byte| format!("{byte:02x}")).join(":");
    let name = quote(ifb.name.as_str());
    format!("ip link add name {name} index {} address {mac} group {GROUP} up type ifb", ifb.index)
}

fn driver(driver: &Driver) -> String {
    match driver {
        Driver::Macvlan(MacvlanMode::Source(macs)) => {
            let macs: String = macs.iter().map(|mac| format!(" {mac}")).collect();
            format!("type macvlan mode source macaddr set{macs}")
        }
        Driver::Macvlan(mode) => format!("type macvlan mode {}", mode.name()),
        Driver::Ipvlan(mode) => format!("type ipvlan mode {}", mode.name()),
        Driver::Veth { .. } => "type veth".into(),
        // It is there already.
        Driver::Phys { .. } => String::new(),
        Driver::Dummy => "type dummy".into(),
        Driver::Ipoib { pkey: None } => "type ipoib".into(),
        Driver::Ipoib { pkey: Some(pkey) } => format!("type ipoib pkey {pkey}"),
    }
}

/// A word that `sh` reads as it stands.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | ':' | '@' | '+' | ',' | '=');
    let quoted: Cow<str> = match word {
        "" => "''".into(),
        _ if word.chars().all(plain) => word.into(),
        _ => format!("'{}'", word.replace('\'', r"'\''")).into(),
    };
    quoted.into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    /// Each, and what takes it back.
    fn commands(steps: &[Step]) -> Vec<String> {
        let command = |step: &Step| step.command("/proc/42/ns/net");
        steps.iter().flat_map(|step| [command(step), command(&step.inverse())]).collect()
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a line for each command")]
    fn each_step_reads_as_the_command_that_does_it() {
        let commands = commands(&samples::attaching());
        let group = GROUP;
        let inside = "nsenter --net=/proc/42/ns/net";
        let tag = samples::tag();
        assert_eq!(
            commands,
            [
                format!(
                    "ip link add link eth0 name eth1 index 7 address 02:00:00:00:00:07 mtu 1500 group {group} netns /proc/42/ns/net up type macvlan mode bridge"
                ),
                format!("{inside} ip link del dev eth1"),
                format!("{inside} ip link property add dev eth1 altname {tag}"),
                format!("{inside} ip link property del dev eth1 altname {tag}"),
                format!("{inside} sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth1/accept_ra'"),
                format!("{inside} sh -c 'echo 1 > /proc/sys/net/ipv6/conf/eth1/accept_ra'"),
                format!("{inside} ip link set dev eth1 mtu 1400"),
                format!("{inside} ip link set dev eth1 mtu 1500"),
                "ip link set dev eth0 gso_max_size 131072 gro_max_size 131072 gso_ipv4_max_size 131072 gro_ipv4_max_size 131072".into(),
                "ip link set dev eth0 gso_max_size 65536 gro_max_size 65536 gso_ipv4_max_size 65536 gro_ipv4_max_size 65536".into(),
                format!("{inside} ip addr add 192.168.0.100/24 brd + dev eth1"),
                format!("{inside} ip addr del 192.168.0.100/24 dev eth1"),
                format!("{inside} ip route add 10.0.0.0/8 dev eth1 proto 4 scope link"),
                format!("{inside} ip route del 10.0.0.0/8 dev eth1 proto 4 scope link"),
                format!("{inside} ip route replace default via 192.168.0.1 dev eth1 proto 4"),
                format!("{inside} ip route replace default via 172.17.0.1 dev eth0 proto 4"),
                format!("{inside} ip route del default via 172.17.0.1 dev eth0 proto 4"),
                format!("{inside} ip route add default via 172.17.0.1 dev eth0 proto 4"),
                "printf %s 'nameserver 10.0.0.2\n' > /proc/42/root/etc/resolv.conf".to_owned(),
                "printf %s 'nameserver 10.0.0.1\n' > /proc/42/root/etc/resolv.conf".to_owned(),
                format!(
                    "{inside} nft 'create table ip plumb-gw-blue; add chain ip plumb-gw-blue postrouting {{ type nat hook postrouting priority srcnat; }}; add rule ip plumb-gw-blue postrouting ip saddr 10.1.0.0/24 oifname != \"gw-blue\" masquerade'"
                ),
                format!("{inside} nft delete table ip plumb-gw-blue"),
                format!(
                    "{inside} nft 'create table ip6 plumb-gw-blue; add chain ip6 plumb-gw-blue postrouting {{ type nat hook postrouting priority srcnat; }}; add rule ip6 plumb-gw-blue postrouting ip6 saddr fd10::/64 oifname != \"gw-blue\" masquerade'"
                ),
                format!("{inside} nft delete table ip6 plumb-gw-blue"),
                "tc qdisc add dev veth9 root handle 706c: tbf rate 10mbit burst 12500b limit 75000b".into(),
                "tc qdisc del dev veth9 root".into(),
                format!(
                    "{inside} tc qdisc replace dev eth1 root handle 706c: tbf rate 20mbit burst 25000b limit 75000b"
                ),
                format!(
                    "{inside} tc qdisc replace dev eth1 root handle 706f: tbf rate 10mbit burst 12500b limit 75000b && \
                     {inside} tc qdisc replace dev eth1 root handle 706c: tbf rate 10mbit burst 12500b limit 75000b"
                ),
                format!("{inside} ip link add name qos7 index 8 address 02:70:6c:00:00:08 group {group} up type ifb"),
                format!("{inside} ip link del dev qos7"),
                format!("{inside} tc qdisc add dev eth1 ingress"),
                format!("{inside} tc qdisc del dev eth1 ingress"),
                format!(
                    "{inside} tc filter add dev eth1 ingress pref 28780 protocol all u32 match u32 0 0 action mirred egress redirect dev qos7"
                ),
                format!("{inside} tc filter del dev eth1 ingress pref 28780 protocol all u32"),
                "ovs-vsctl add-port ovs0 web-eth1 tag=10 -- set Interface web-eth1 'external-ids:pipework.vlan=\"10\"' 'external-ids:plumb=\"plumb:1:2\"'".into(),
                "ovs-vsctl --no-wait --if-exists del-port ovs0 web-eth1".into(),
            ]
        );
    }

    #[test]
    fn each_change_reads_as_the_command_that_does_it() {
        let inside = "nsenter --net=/proc/42/ns/net";
        assert_eq!(
            commands(&samples::changes()),
            [
                format!("{inside} ip rule add from 192.168.0.0/24 lookup 100 priority 32765 protocol 4"),
                format!("{inside} ip rule del from 192.168.0.0/24 lookup 100 priority 32765 protocol 4"),
                format!("{inside} ip -6 rule add from fd00::/8 prohibit priority 32765 protocol 4"),
                format!("{inside} ip -6 rule del from fd00::/8 prohibit priority 32765 protocol 4"),
                format!("{inside} ip link set dev eth1 address 02:00:00:00:00:08"),
                format!("{inside} ip link set dev eth1 address 02:00:00:00:00:07"),
                format!("{inside} ip link set dev eth1 promisc on"),
                format!("{inside} ip link set dev eth1 promisc off"),
                format!("{inside} ip link set dev eth1 down"),
                format!("{inside} ip link set dev eth1 up"),
                format!("{inside} ip link set dev eth1 name lan0"),
                format!("{inside} ip link set dev lan0 name eth1"),
                format!("{inside} ip route append default via 192.168.0.9 dev eth1 proto 4"),
                format!("{inside} ip route del default via 192.168.0.9 dev eth1 proto 4"),
            ]
        );
    }

    #[test]
    fn the_shell_reads_odd_names_as_they_stand() {
        assert_eq!(quote("eth0.10"), "eth0.10");
        assert_eq!(quote("a;rm -rf"), "'a;rm -rf'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
