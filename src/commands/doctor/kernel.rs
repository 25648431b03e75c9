//! What the kernel has, tried out.

use super::{needs::Need, not_looked_at, report::Finding};
use crate::kernel::features::{self, Feature, Presence};

/// The release and each feature. Without CAP_SYS_ADMIN the features are not looked at, which is said.
pub fn look() -> Vec<Finding> {
    let release = nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut findings = vec![Finding::ok("Linux", &release)];
    match features::probe() {
        Ok(found) => {
            // What only macvlans can show is not to be seen without them.
            let has_macvlan = found.contains(&(Feature::Macvlan, Presence::There));
            let shown = found.into_iter().filter(|(feature, _)| *feature != Feature::MacClash || has_macvlan);
            findings.extend(shown.map(|(feature, presence)| of(feature, presence)));
        }
        Err(error) => findings.push(not_looked_at("features", error)),
    }
    findings.push(in_place(version(&release)));
    findings
}

fn of(feature: Feature, presence: Presence) -> Finding {
    let (name, purpose) = words(feature);
    let finding = match presence {
        Presence::There => Finding::ok(name, purpose),
        Presence::Loadable => Finding::ok(name, format!("{purpose} (a module, loaded when it is needed)")),
        Presence::Lacking if feature == Feature::MacClash => {
            Finding::warning(name, "this kernel lets two containers have one MAC address")
                .remedy(newer("any stock one"))
        }
        Presence::Lacking => {
            Finding::missing(name, format!("not in this kernel; it is for {purpose}")).remedy(remedy(feature))
        }
    };
    finding.of(Need::Feature(feature))
}

/// What people call it, and what for.
fn words(feature: Feature) -> (&'static str, &'static str) {
    match feature {
        Feature::Macvlan => ("macvlan", "flat, dhcp, attach and shim, where --driver says nothing else"),
        Feature::MacClash => ("MAC clashes", "a MAC address that another container has is refused"),
        Feature::Ipvlan => ("ipvlan", "--driver ipvlan, as for wifi"),
        Feature::Vlan => ("8021q", "VLANs (create-vlan, attach, --vlan)"),
        Feature::Veth => ("veth", "--driver veth, bench"),
        Feature::Bridge => ("bridge", "--driver veth, bench"),
        Feature::BridgeVlans => ("bridge VLANs", "--vlan with --driver veth"),
        Feature::Vxlan => ("vxlan", "bench --ways vxlan"),
        Feature::Dummy => ("dummy", "--driver dummy"),
        Feature::Tbf => ("tbf", "qos --rate"),
        Feature::Htb => ("htb", "classes of limits, by tc in scripts of pipework's"),
        Feature::Netem => ("netem", "qos --delay, --loss and the like"),
        Feature::Ifb => ("ifb", "qos --direction ingress"),
        Feature::Redirect => ("u32, mirred", "qos --direction ingress"),
        Feature::Nftables => ("nftables", "create-vlan --nat, --allow-forward"),
        Feature::PacketSockets => ("packet sockets", "asking the LAN (ARP, DHCP)"),
        Feature::Ipv6 => ("IPv6", "IPv6 addresses"),
        Feature::BigTcp => ("BIG TCP", "--big-tcp"),
        Feature::Cookies => ("namespace cookies", "a namespace is never taken for its successor"),
    }
}

fn remedy(feature: Feature) -> String {
    match feature {
        Feature::BigTcp => newer("Linux 6.3"),
        Feature::Cookies => newer("Linux 5.14"),
        Feature::BridgeVlans => "a kernel built with CONFIG_BRIDGE_VLAN_FILTERING".into(),
        Feature::Ipv6 => "modprobe ipv6, unless the kernel was started with ipv6.disable=1".into(),
        _ => {
            let modules = feature.modules();
            let all = if modules.len() > 1 { "-a " } else { "" };
            let them = if modules.len() > 1 { "them" } else { "it" };
            format!("modprobe {all}{}; a kernel built without {them} needs another one", modules.join(" "))
        }
    }
}

fn newer(than: &str) -> String {
    format!("a newer kernel: {than}")
}

/// Whether a name of the host's is in the way of the same name inside: see `create` in `kernel/links.rs`.
fn in_place(version: (u32, u32)) -> Finding {
    const NAME: &str = "names in place";
    if version >= (6, 15) {
        Finding::ok(NAME, "an interface may be called inside as another one is on the host")
    } else {
        let found =
            "an interface called as one of the host's is made under another name, and renamed: before Linux 6.15";
        Finding::note(NAME, found)
    }
}

/// `6.18.44-generic` is 6.18.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::report::State;

    #[test]
    fn releases_are_read_whatever_distributions_add_to_them() {
        for (release, expected) in
            [("6.18.44-generic", (6, 18)), ("6.1.0-49-amd64", (6, 1)), ("5.14+", (5, 14)), ("", (0, 0))]
        {
            assert_eq!(version(release), expected, "{release}");
        }
        assert_eq!((in_place((6, 14)).state, in_place((6, 15)).state), (State::Note, State::Ok));
    }

    #[test]
    fn what_is_missing_is_named_with_the_modules_to_load() {
        let lacking = Presence::Lacking;
        let finding = of(Feature::Ipvlan, lacking);
        assert_eq!((finding.state, finding.what.as_str()), (State::Missing, "ipvlan"));
        assert_eq!(finding.remedy.unwrap(), "modprobe ipvlan; a kernel built without it needs another one");
        let several = of(Feature::Nftables, lacking).remedy.unwrap();
        assert!(several.starts_with("modprobe -a nf_tables nft_chain_nat nft_masq; "), "{several}");
        for feature in Feature::ALL {
            let finding = of(feature, lacking);
            assert!(finding.remedy.is_some() && finding.state != State::Ok, "{finding:?}");
            assert_eq!(of(feature, Presence::Loadable).state, State::Ok);
        }
    }
}
