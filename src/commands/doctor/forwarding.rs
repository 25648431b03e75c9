//! What the host does with packets that are not for itself.

use std::{fs, path::Path};

use caps::Capability;

use super::{not_looked_at, permissions::lacking, report::Finding};
use crate::kernel::{features, iptables};

/// The findings on forwarding, iptables and the reverse path filter.
pub fn look() -> Vec<Finding> {
    let all = [Some(ip_forward()), Some(forward_policy()), legacy(), Some(rp_filter())];
    all.into_iter().flatten().collect()
}

fn setting(key: &str) -> Option<String> {
    let path = Path::new("/proc/sys/net").join(key);
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn ip_forward() -> Finding {
    const NAME: &str = "ip_forward";
    match setting("ipv4/ip_forward").as_deref() {
        Some("0") => Finding::note(NAME, "off; create-vlan --gateway-here turns it on"),
        Some(_) => Finding::ok(NAME, "on: this host routes, as gateways of networks must"),
        None => Finding::note(NAME, "not looked at: /proc/sys/net is not there"),
    }
}

/// The policy of iptables, which Docker sets to DROP, and whether it holds for bridges, too.
fn forward_policy() -> Finding {
    const NAME: &str = "FORWARD policy";
    if let Some(error) = lacking(Capability::CAP_NET_ADMIN) {
        return not_looked_at(NAME, error);
    }
    let bridged = setting("bridge/bridge-nf-call-iptables").is_some_and(|text| text == "1");
    // To ask would load it.
    let drops = if features::is_idle("nf_tables") { None } else { iptables::accept_in() };
    match drops {
        None => Finding::ok(NAME, "iptables drops nothing that is not ruled out"),
        Some(chain) if bridged => Finding::warning(
            NAME,
            "DROP, and bridge-nf-call-iptables is on: what bridges and gateways of plumb's pass on is dropped",
        )
        .remedy(format!(
            "--allow-forward where --driver veth is used; iptables -I {chain} -i BRIDGE -o BRIDGE -j ACCEPT by hand"
        )),
        Some(chain) => Finding::note(NAME, "DROP: what gateways of networks pass on is dropped")
            .remedy(format!("iptables -I {chain} -i gw-NETWORK -j ACCEPT, and the same with -o")),
    }
}

/// The older tables, of which plumb sees the policy and not the rules.
fn legacy() -> Option<Finding> {
    const NAME: &str = "iptables-legacy";
    let tables = fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    let drops = tables.lines().any(|table| table == "filter").then(|| iptables::legacy_drops(false))?;
    Some(match drops {
        true => Finding::warning(NAME, "its FORWARD policy is DROP, which --allow-forward cannot change")
            .remedy("iptables-legacy -I FORWARD -i BRIDGE -o BRIDGE -j ACCEPT"),
        false => Finding::note(NAME, "has a filter table; its policy drops nothing, its rules are not looked through")
            .remedy("iptables-legacy -S FORWARD lists them"),
    })
}

fn rp_filter() -> Finding {
    const NAME: &str = "rp_filter";
    // The stricter of the two holds; new namespaces begin with these.
    let values = ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"].map(setting);
    match values.iter().flatten().any(|value| value == "1") {
        true => Finding::note(
            NAME,
            "strict: a container with two interfaces drops what comes by the one that it would not answer by",
        )
        .remedy("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.default.rp_filter=2"),
        false => Finding::ok(NAME, "not strict: what comes by either of two interfaces is taken"),
    }
}
