//! What is said of an attachment.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::Serialize;

use super::{PING_LIMIT, leasing::Ipv6};
use crate::{
    commands::Context,
    container::Target,
    dhcp::{ClientId, Lease, OptionCode},
    kernel::Reach,
    output::length,
    plan::{Wiring, Wish, bridged::Acceptance},
    store::{Attachment, Dhcp, Key, lease},
    types::{IfName, NetworkName, VlanId},
};

/// What is now true, or with `--dry-run` would be.
#[derive(Debug, Serialize)]
pub struct Report {
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    interface: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    mtu: u32,
    pub addresses: Vec<String>,
    pub gateways: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<IfName>,
    /// That of a bridge's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<VlanId>,
    #[serde(skip)]
    on: Option<String>,
    driver: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Granted>,
    /// Default routes that were replaced; detach gives them back.
    replaced_routes: Vec<String>,
    checks: Vec<Check>,
    pub warnings: Vec<String>,
    pub dry_run: bool,
    /// The commands that do the same.
    pub commands: Vec<String>,
    #[serde(skip)]
    routed_by_host: bool,
    /// By iptables, which is among the warnings.
    #[serde(skip)]
    dropped: bool,
    #[serde(skip)]
    remarks: Vec<String>,
}

/// `leased from 192.168.0.1 for 12 h, and renewed in time`
fn leased(server: IpAddr, whole: Option<Duration>, by: &str, dhcp: &Dhcp) -> String {
    let how_long = whole.map_or("for ever".to_owned(), |whole| format!("for {}", length(whole)));
    let then = match (whole, dhcp.renew) {
        (None, _) => "",
        (_, true) => ", and renewed in time",
        (_, false) => "; nobody renews it",
    };
    format!("leased from {server} {how_long}{by}{then}")
}

/// What a server said.
#[derive(Debug, Serialize)]
struct Granted {
    server: Ipv4Addr,
    /// None: for ever.
    seconds: Option<u64>,
    renewed: bool,
    client_id: Option<ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<GrantedIpv6>,
    #[serde(flatten)]
    terms: Terms,
}

/// What a server of DHCPv6 said.
#[derive(Debug, Serialize)]
struct GrantedIpv6 {
    address: String,
    server: IpAddr,
    /// None: for ever.
    seconds: Option<u64>,
    dns: Vec<Ipv6Addr>,
    search: Vec<String>,
}

/// What plumb leaves to others to use.
#[derive(Debug, Serialize)]
struct Terms {
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    search: Vec<String>,
    hostname: Option<String>,
    ntp: Vec<Ipv4Addr>,
    tftp_server: Option<String>,
    bootfile: Option<String>,
    /// Other options, in hexadecimal.
    options: BTreeMap<OptionCode, String>,
}

#[derive(Debug, Serialize)]
struct Check {
    host: IpAddr,
    reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<f64>,
}

impl Report {
    pub fn new(target: &Target, attachment: &Attachment, wiring: &Wiring, namespace: &str) -> Report {
        let wish = &attachment.wish;
        let gateways = wish.gateways.iter().filter(|_| !wish.keep_default).map(|gateway| gateway.ip()).collect();
        let replaced = wiring
            .replaced_defaults()
            .map(|route| format!("the default route was by {}; detach gives it back", route.way()));
        let better = wiring.better_defaults.iter().map(|route| {
            format!(
                "the default route by {} has the better metric, {}, and stays the way out",
                route.way(),
                route.metric()
            )
        });
        let subnets: Vec<String> = wish.addresses.iter().map(|address| address.subnet().to_string()).collect();
        let routed = (wiring.link.driver.is_routed_by_the_host() && !subnets.is_empty()).then(|| {
            let (mode, to) = (wiring.link.driver.mode().unwrap_or_default(), subnets.join(" and "));
            format!("mode {mode} answers no ARP: other machines need a route to {to} by this host")
        });
        let remarks = replaced.chain(better).chain(routed).collect();
        Report {
            target: wish.target.clone(),
            container: target.id.clone(),
            interface: wiring.link.name.to_string(),
            network: attachment.network.clone(),
            mac: wiring.link.mac.map(|mac| mac.to_string()),
            mtu: wiring.link.mtu.bytes(),
            addresses: wish.addresses.iter().map(|address| address.to_string()).collect(),
            gateways,
            parent: wiring.link.parent.interface().cloned(),
            vlan: wiring.link.driver.vlan(),
            on: wiring.link.on(),
            driver: wiring.link.driver.kind(),
            mode: wiring.link.driver.mode(),
            lease: None,
            replaced_routes: wiring.replaced_defaults().map(|route| route.to_string()).collect(),
            checks: Vec::new(),
            warnings: wiring.warnings.clone(),
            dry_run: false,
            commands: wiring.steps().map(|step| step.command(namespace)).collect(),
            routed_by_host: wiring.link.driver.is_routed_by_the_host(),
            dropped: wiring.dropped.is_some(),
            remarks,
        }
    }

    /// Where the rules are that `--allow-forward` has added.
    pub fn add_acceptances(&mut self, rules: &[Acceptance]) {
        let rule = |rule: &Acceptance| {
            let family = if rule.ipv6 { "ip6tables" } else { "iptables" };
            format!("a rule in {} of {family} accepts what {} passes on", rule.chain, rule.bridge)
        };
        self.remarks.extend(rules.iter().map(rule));
    }

    /// Adds what the server said.
    pub fn add_lease(&mut self, lease: &Lease, dhcp: &Dhcp) {
        let whole = lease.term.expire();
        let by = dhcp.external.as_ref().map_or(String::new(), |external| format!(" by {}", external.program));
        let mut remarks = vec![leased(lease.server.into(), whole, &by, dhcp)];
        let texts = [("tftp-server", &lease.tftp_server), ("bootfile-name", &lease.bootfile)];
        remarks.extend(texts.into_iter().filter_map(|(name, text)| Some(format!("{name} {}", text.as_ref()?))));
        let asked_for = |code: &&OptionCode| lease.others.contains_key(code);
        remarks.extend(
            dhcp.client.request.iter().filter(asked_for).map(|code| format!("option {code}: {}", lease.others[code])),
        );
        self.remarks.splice(0..0, remarks);
        let Lease { dns, domain, search, hostname, ntp, tftp_server, bootfile, others, .. } = lease.clone();
        let terms = Terms { dns, domain, search, hostname, ntp, tftp_server, bootfile, options: others };
        let (seconds, client_id) = (whole.map(|whole| whole.as_secs()), dhcp.client.id.clone());
        self.lease = Some(Granted { server: lease.server, seconds, renewed: dhcp.renew, client_id, ipv6: None, terms });
    }

    /// Adds the IPv6 addresses that the LAN gave.
    pub fn add_ipv6(&mut self, ipv6: &Ipv6, dhcp: &Dhcp) {
        match ipv6 {
            Ipv6::Leased(lease) => {
                self.addresses.push(lease.address.to_string());
                let whole = lease.term.expire();
                let how = leased(lease.from.into(), whole, "", dhcp);
                self.remarks.insert(1, format!("{} {how}", lease.address));
                if let Some(granted) = &mut self.lease {
                    granted.ipv6 = Some(GrantedIpv6 {
                        address: lease.address.to_string(),
                        server: lease.from.into(),
                        seconds: whole.map(|whole| whole.as_secs()),
                        dns: lease.dns.clone(),
                        search: lease.search.clone(),
                    });
                }
            }
            Ipv6::Advertised(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(|address| address.to_string()).collect();
                self.remarks.insert(1, format!("{} by a router's advertisements", addresses.join(" and ")));
                self.addresses.extend(addresses);
            }
        }
    }

    /// Where the lease is on record.
    pub fn lease_key(&self, context: &Context) -> Key {
        Key::of_host(lease::LEASE, context.store.host(), &[&self.target, &self.interface])
    }

    /// Docker hands what arrives at a published port to its bridge's address inside, and the client
    /// waits for an answer from the host. One that leaves by the new interface is not that.
    pub fn warn_about_published_ports(&mut self, target: &Target, wish: &Wish, wiring: &Wiring) {
        let Some(address) =
            wish.addresses.iter().find(|address| !address.is_ipv6()).filter(|_| !target.published.is_empty())
        else {
            return;
        };
        let who = match wiring.replaced_defaults().next() {
            Some(_) => "other machines no longer reach them".to_owned(),
            None => format!("machines in {} no longer reach them", address.subnet()),
        };
        let ports = target.published.join(", ");
        self.warnings.push(format!(
            "{} publishes {ports} on this host: {who} there, as the answers leave by {}; they can use {} itself",
            self.target,
            self.interface,
            address.ip()
        ));
    }

    pub fn add_check(&mut self, host: IpAddr, is_gateway: bool, reach: Reach, parent: &IfName) {
        let what = if is_gateway { "gateway " } else { "" };
        let (reached, round_trip_ms) = match reach {
            Reach::Answered(after) => {
                let ms = after.as_secs_f64() * 1e3;
                self.remarks.push(format!("{what}{host} answers in {ms:.2} ms"));
                (true, Some(ms))
            }
            Reach::OnLinkOnly if self.dropped => {
                self.warnings.push(format!(
                    "{what}{host} is there, but no ping comes through: iptables drops what {parent} passes on"
                ));
                (false, None)
            }
            Reach::OnLinkOnly => {
                self.remarks.push(format!("{what}{host} is there but answers no pings"));
                (true, None)
            }
            Reach::Silent => {
                let why = self.causes_of_silence(is_gateway, parent);
                self.warnings.push(format!("{what}{host} does not answer within {} s{why}", PING_LIMIT.as_secs()));
                (false, None)
            }
        };
        self.checks.push(Check { host, reached, round_trip_ms });
    }

    fn causes_of_silence(&self, is_gateway: bool, parent: &IfName) -> String {
        if self.routed_by_host {
            let own = self.addresses.join(", ");
            return format!(
                ". Look at: the host's own route to it, which must be by {parent}; a route back to {own} by this host; a firewall"
            );
        }
        if self.dropped {
            return format!(": iptables drops what {parent} passes on");
        }
        if !is_gateway {
            let router = self.gateways.first().map_or("the router".to_owned(), |ip| format!("the router, {ip},"));
            return format!(". Look at: whether {router} forwards there; a route back; a firewall");
        }
        if self.vlan.is_some() {
            return format!(
                ". Look at: whether the port of {parent} that leads to the LAN is in the VLAN (bridge vlan show); \
                 whether the switch port is a tagged member of it; the cable"
            );
        }
        if self.network.is_some() {
            return format!(
                ". Look at: whether the router is there (--gateway-here of create-vlan makes a host the router); \
                 whether the switch port is a tagged member of the VLAN; the cable of {parent}"
            );
        }
        let cable = format!("the cable and switch port of {parent}; the VLAN that the port is in");
        match self.driver {
            "veth" => format!(
                ". Look at: whether a port of {parent} leads to the LAN (ip link show master {parent}); the cable and \
                 switch port of that; a firewall"
            ),
            "phys" => format!(". Look at: {cable}"),
            _ => format!(
                ". Look at: {cable}; whether {parent} may use several MAC addresses (virtual machines: promiscuous \
                 mode, wifi: no)"
            ),
        }
    }

    pub fn say(&self, context: &Context) {
        let done = [self.to_string()].into_iter().chain(self.remarks.iter().map(|remark| format!("  {remark}")));
        context.output.report(self, self.dry_run.then_some(&self.commands), done, &self.warnings);
    }
}

/// `web: eth1 192.168.0.100/24 via 192.168.0.1 on eth0 (macvlan bridge)`
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses =
            if self.addresses.is_empty() { "without an address".to_owned() } else { self.addresses.join(", ") };
        write!(f, "{}: {} {addresses}", self.target, self.interface)?;
        if !self.gateways.is_empty() {
            let gateways: Vec<String> = self.gateways.iter().map(|ip| ip.to_string()).collect();
            write!(f, " via {}", gateways.join(", "))?;
        }
        if let Some(network) = &self.network {
            write!(f, " in {network}")?;
        }
        let mode = self.mode.map_or(String::new(), |mode| format!(" {mode}"));
        if let Some(on) = &self.on {
            write!(f, " on {on}")?;
        }
        write!(f, " ({}{mode})", self.driver)
    }
}
