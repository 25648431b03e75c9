//! A static route as `--route` takes it: `10.0.0.0/8,via 192.168.0.1,metric 50`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnetwork::IpNetwork;

use super::{Gateway, address::network_of};

/// A destination, the router to it (none: it is on the link itself), and a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSpec {
    pub destination: IpNetwork,
    pub via: Option<Gateway>,
    pub metric: Option<u32>,
}

impl RouteSpec {
    /// `0.0.0.0/0`, or `::/0`.
    pub fn default_route(ipv6: bool) -> RouteSpec {
        let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        // A prefix length of 0 is always valid.
        let destination = IpNetwork::new(any, 0).unwrap_or(any.into());
        RouteSpec { destination, via: None, metric: None }
    }

    /// Everything, without a router: where the host routes for the container.
    pub fn is_default(&self) -> bool {
        self.destination.prefix() == 0
    }
}

const BY_GATEWAY: &str = "the default route is set with --gateway";
const FORM: &str = "write a route like 10.0.0.0/8,via 192.168.0.1,metric 50";

impl FromStr for RouteSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let destination = destination(parts.next().unwrap_or_default())?;
        let mut spec = RouteSpec { destination, via: None, metric: None };
        for part in parts {
            match part.split_once([' ', '=']) {
                Some(("via", gateway)) if spec.via.is_none() => spec.via = Some(gateway.trim().parse()?),
                Some(("metric", metric)) if spec.metric.is_none() => {
                    spec.metric = Some(
                        metric
                            .trim()
                            .parse()
                            .map_err(|_| format!("{metric:?} is no metric; give a number from 0 to {}", u32::MAX))?,
                    );
                }
                _ => return Err(format!("{part:?} in {text:?} is not understood; {FORM}")),
            }
        }
        match spec.via {
            Some(_) if spec.is_default() => Err(BY_GATEWAY.into()),
            Some(via) if via.ip().is_ipv4() != destination.is_ipv4() => {
                Err(format!("route {destination} and its gateway {via} are of different IP versions"))
            }
            _ => Ok(spec),
        }
    }
}

fn destination(text: &str) -> Result<IpNetwork, String> {
    if text == "default" {
        return Err(BY_GATEWAY.into());
    }
    // ipnetwork reads an address without a prefix length as a host route, as ip route does.
    let network: IpNetwork = text.parse().map_err(|_| format!("{text:?} is no network; {FORM}"))?;
    let clean = network_of(network);
    if clean.ip() != network.ip() {
        return Err(format!("route {text} has host bits set; maybe {clean}?"));
    }
    Ok(network)
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)?;
        if let Some(via) = self.via {
            write!(f, ",via {via}")?;
        }
        if let Some(metric) = self.metric {
            write!(f, ",metric {metric}")?;
        }
        Ok(())
    }
}

super::as_text!(RouteSpec);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_part_is_understood() {
        let spec: RouteSpec = "10.0.0.0/8, via 192.168.0.1, metric 50".parse().unwrap();
        assert_eq!(spec.to_string(), "10.0.0.0/8,via 192.168.0.1,metric 50");
        assert!("0.0.0.0/0".parse::<RouteSpec>().unwrap().is_default());
        assert!("::/0,metric 7".parse::<RouteSpec>().unwrap().is_default());
        assert_eq!("10.1.2.3".parse::<RouteSpec>().unwrap().destination.prefix(), 32);
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |text: &str| text.parse::<RouteSpec>().unwrap_err();
        assert_eq!(refused("10.0.0.1/8"), "route 10.0.0.1/8 has host bits set; maybe 10.0.0.0/8?");
        assert_eq!(refused("default"), "the default route is set with --gateway");
        assert_eq!(refused("0.0.0.0/0,via 1.2.3.4"), "the default route is set with --gateway");
        assert!(refused("10.0.0.0/8,via fd00::1").contains("different IP versions"));
        assert!(refused("10.0.0.0/8,dev eth0").contains("not understood"));
        assert!(refused("10.0.0.0/8,via 1.2.3.4,via 1.2.3.4").contains("not understood"));
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(bits: u32, prefix in 1u8..=32, metric: Option<u32>) {
            let network = network_of(IpNetwork::new(std::net::Ipv4Addr::from(bits).into(), prefix).unwrap());
            let spec = RouteSpec { destination: network, via: Some("192.168.0.1".parse().unwrap()), metric };
            prop_assert_eq!(spec.to_string().parse::<RouteSpec>().unwrap(), spec);
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<RouteSpec>();
        }
    }
}
