//! DHCP options: in packets (RFC 2131 section 4.1, RFC 3396), and as people name and write them.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, str::FromStr};

use dhcproto::v4;
use serde::{Deserialize, Serialize};

use crate::types::{as_text, hex, nearest, unhex};

/// The number of an option, 1 to 254: 0 pads and 255 ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionCode(u8);

/// How the value of an option is to be read (RFC 2132).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Addresses,
    Text,
    Number16,
    Number32,
    Bytes,
}

macro_rules! known {
    ($($constant:ident = $code:literal $name:literal $shape:ident;)*) => {
        impl OptionCode {
            $(pub const $constant: OptionCode = OptionCode($code);)*
        }

        /// The options that plumb or its users have to do with, by the names that dnsmasq gives them.
        const KNOWN: &[(OptionCode, &str, Shape)] = &[$((OptionCode($code), $name, Shape::$shape),)*];
    };
}

known! {
    SUBNET_MASK = 1 "netmask" Addresses;
    ROUTERS = 3 "router" Addresses;
    DNS_SERVERS = 6 "dns-server" Addresses;
    HOSTNAME = 12 "hostname" Text;
    DOMAIN = 15 "domain-name" Text;
    MTU = 26 "mtu" Number16;
    BROADCAST = 28 "broadcast" Addresses;
    NTP_SERVERS = 42 "ntp-server" Addresses;
    VENDOR_SPECIFIC = 43 "vendor-encap" Bytes;
    REQUESTED_ADDRESS = 50 "requested-address" Addresses;
    LEASE_TIME = 51 "lease-time" Number32;
    OVERLOAD = 52 "option-overload" Bytes;
    MESSAGE_TYPE = 53 "message-type" Bytes;
    SERVER_ID = 54 "server-identifier" Addresses;
    REQUEST_LIST = 55 "parameter-request" Bytes;
    MESSAGE = 56 "message" Text;
    MAX_SIZE = 57 "max-message-size" Number16;
    T1 = 58 "T1" Number32;
    T2 = 59 "T2" Number32;
    VENDOR_CLASS = 60 "vendor-class" Text;
    CLIENT_ID = 61 "client-id" Bytes;
    TFTP_SERVER = 66 "tftp-server" Text;
    BOOTFILE = 67 "bootfile-name" Text;
    USER_CLASS = 77 "user-class" Bytes;
    FQDN = 81 "FQDN" Bytes;
    RELAY_AGENT = 82 "relay-agent" Bytes;
    SEARCH_LIST = 119 "domain-search" Bytes;
    CLASSLESS_ROUTES = 121 "classless-static-route" Bytes;
}

impl OptionCode {
    pub fn number(self) -> u8 {
        self.0
    }

    /// The numbers from 1 to 254 are options.
    pub fn new(number: u8) -> Option<OptionCode> {
        (1..=254).contains(&number).then_some(OptionCode(number))
    }

    fn shape(self) -> Option<Shape> {
        KNOWN.iter().find(|(code, ..)| *code == self).map(|(.., shape)| *shape)
    }

    /// What sets this option, if that is not `--option`.
    fn set_by(self) -> Option<&'static str> {
        match self {
            OptionCode::HOSTNAME => Some("--hostname"),
            OptionCode::VENDOR_CLASS => Some("--vendor-class"),
            OptionCode::CLIENT_ID => Some("--client-id"),
            OptionCode::REQUEST_LIST => Some("--request"),
            OptionCode::REQUESTED_ADDRESS
            | OptionCode::OVERLOAD
            | OptionCode::MESSAGE_TYPE
            | OptionCode::SERVER_ID
            | OptionCode::MAX_SIZE
            | OptionCode::RELAY_AGENT => Some("the protocol itself"),
            _ => None,
        }
    }
}

impl FromStr for OptionCode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<u32>() {
            let code = u8::try_from(number).ok().and_then(OptionCode::new);
            return code.ok_or_else(|| format!("{text} is no DHCP option: they go from 1 to 254"));
        }
        let names = || KNOWN.iter().map(|(_, name, _)| *name);
        match KNOWN.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(text)) {
            Some((code, ..)) => Ok(*code),
            None => Err(match nearest(text, names()) {
                Some(near) => format!("{text:?} is no DHCP option that plumb knows by name; did you mean {near}?"),
                None => format!("{text:?} is no DHCP option that plumb knows by name; give its number"),
            }),
        }
    }
}

impl fmt::Display for OptionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

as_text!(OptionCode);

/// An option to send, as `--option` takes it: `60=hex:0102`, `77=lab`, `51=3600`, `42=10.0.0.1,10.0.0.2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionSpec {
    pub code: OptionCode,
    pub value: Vec<u8>,
}

impl FromStr for OptionSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spec = OptionSpec::parse(text)?;
        match spec.code.set_by() {
            Some(by) => Err(format!("DHCP option {} is set by {by}, not by --option", spec.code)),
            None => Ok(spec),
        }
    }
}

impl OptionSpec {
    /// Any option, by whatever it is set.
    fn parse(text: &str) -> Result<Self, String> {
        let (code, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} sets no DHCP option; write CODE=VALUE, such as 77=lab or 43=hex:0104"))?;
        let code: OptionCode = code.trim().parse()?;
        let value = match value.strip_prefix("hex:") {
            Some(digits) => unhex(&digits.replace(':', "")).ok_or_else(|| format!("{value:?} is not hexadecimal"))?,
            None => bytes_of(code, value)?,
        };
        match value.len() {
            0 => Err(format!("DHCP option {code} needs a value")),
            1..=255 => Ok(OptionSpec { code, value }),
            long => Err(format!("the value of DHCP option {code} has {long} bytes; 255 fit")),
        }
    }
}

fn bytes_of(code: OptionCode, value: &str) -> Result<Vec<u8>, String> {
    let no_number = || format!("DHCP option {code} is a number, and {value:?} is none that fits");
    Ok(match code.shape() {
        Some(Shape::Number16) => value.parse::<u16>().map_err(|_| no_number())?.to_be_bytes().into(),
        Some(Shape::Number32) => value.parse::<u32>().map_err(|_| no_number())?.to_be_bytes().into(),
        Some(Shape::Addresses) => {
            let address = |part: &str| part.trim().parse::<Ipv4Addr>().map(|ip| ip.octets());
            let addresses: Result<Vec<[u8; 4]>, _> = value.split(',').map(address).collect();
            addresses.map_err(|_| format!("DHCP option {code} is a list of addresses, and {value:?} is none"))?.concat()
        }
        Some(Shape::Text | Shape::Bytes) | None => value.as_bytes().to_vec(),
    })
}

impl fmt::Display for OptionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=hex:{}", self.code, hex(&self.value))
    }
}

impl Serialize for OptionSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OptionSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        OptionSpec::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The options of one packet that was received.
pub(super) struct Options(BTreeMap<OptionCode, Vec<u8>>);

impl FromIterator<(OptionCode, Vec<u8>)> for Options {
    fn from_iter<T: IntoIterator<Item = (OptionCode, Vec<u8>)>>(options: T) -> Self {
        Options(options.into_iter().collect())
    }
}

/// Two bytes can point to a name of 253, so a packet could hold 700 of them.
const MOST_DOMAINS: usize = 32;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
/// Where the fixed header and the magic cookie end.
pub(super) const HEADER: usize = 240;

impl Options {
    /// Gathers the options of a whole message. One that comes in several parts is one, whether they
    /// are neighbours or not (RFC 3396 section 7); the fields `file` and `sname` hold options if
    /// option 52 says so, in this order (RFC 2131 section 4.1). An option that reaches past the end
    /// of its field makes the whole message worthless: what else got lost cannot be known. That
    /// nothing ends the options is forgiven, as all clients do.
    pub fn of(message: &[u8]) -> Result<Options, &'static str> {
        let mut options = Options(BTreeMap::new());
        options.gather(message.get(HEADER..).unwrap_or_default())?;
        let overload = match options.0.get(&OptionCode::OVERLOAD).map(Vec::as_slice) {
            None => 0,
            Some([what @ 1..=3]) => *what,
            Some(_) => return Err("option 52 (overload) is neither 1, 2 nor 3"),
        };
        for (bit, field) in [(1, FILE), (2, SNAME)] {
            if overload & bit != 0 {
                options.gather(message.get(field).unwrap_or_default())?;
            }
        }
        Ok(options)
    }

    fn gather(&mut self, field: &[u8]) -> Result<(), &'static str> {
        let mut rest = field;
        while let Some((&number, behind)) = rest.split_first() {
            rest = behind;
            match OptionCode::new(number) {
                None if number == 0 => continue,
                None => break,
                Some(code) => {
                    let (&length, behind) = rest.split_first().ok_or("an option has no length")?;
                    let value = behind.get(..length.into()).ok_or("an option reaches past the end")?;
                    self.0.entry(code).or_default().extend_from_slice(value);
                    rest = &behind[value.len()..];
                }
            }
        }
        Ok(())
    }

    pub fn bytes(&self, code: OptionCode) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    pub fn number32(&self, code: OptionCode) -> Option<u32> {
        self.bytes(code)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn number16(&self, code: OptionCode) -> Option<u16> {
        self.bytes(code)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// All addresses of the option that a host can have; 0.0.0.0 and the like are how some servers
    /// say "none". A list that is cut is no list.
    pub fn addresses(&self, code: OptionCode) -> Vec<Ipv4Addr> {
        let (quads, cut) = self.bytes(code).unwrap_or_default().as_chunks::<4>();
        let fit = |ip: &Ipv4Addr| !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast();
        if cut.is_empty() { quads.iter().map(|quad| Ipv4Addr::from(*quad)).filter(fit).collect() } else { Vec::new() }
    }

    pub fn address(&self, code: OptionCode) -> Option<Ipv4Addr> {
        self.bytes(code)?.try_into().ok().map(|quad: [u8; 4]| Ipv4Addr::from(quad))
    }

    /// A text that can be shown and written to files: printable ASCII. Everything else is dropped
    /// whole; servers have sent shell commands and line breaks in these (CVE-2011-0997).
    pub fn text(&self, code: OptionCode) -> Option<String> {
        printable(self.bytes(code)?)
    }

    /// The domains of a search list, whose names may point back into it (RFC 3397).
    pub fn domains(&self, code: OptionCode) -> Vec<String> {
        let Some(bytes) = self.bytes(code) else { return Vec::new() };
        let names = v4::Decoder::new(bytes).read_domains(bytes.len()).unwrap_or_default();
        names.iter().filter_map(|name| domain(&name.to_string())).take(MOST_DOMAINS).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (OptionCode, &[u8])> {
        self.0.iter().map(|(code, value)| (*code, value.as_slice()))
    }
}

/// The text in `bytes` up to a NUL, which some servers end texts with.
pub(super) fn printable(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    let fit = !text.is_empty() && text.iter().all(|byte| (b' '..=b'~').contains(byte));
    String::from_utf8(text.to_vec()).ok().filter(|_| fit)
}

/// A domain as resolvers take it, without the dot at the end: letters, digits, hyphens and
/// underscores (which DNS-SD uses), 63 bytes a label and 253 in all (RFC 1035 section 2.3.4).
pub(super) fn domain(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(options: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message.extend_from_slice(options);
        message
    }

    fn of(options: &[u8]) -> Options {
        Options::of(&message(options)).unwrap()
    }

    #[test]
    fn a_long_option_comes_in_parts_wherever_they_stand() {
        let options = of(&[12, 2, b'w', b'e', 0, 3, 4, 10, 0, 0, 1, 12, 1, b'b', 255, 12, 1, b'x']);
        assert_eq!(options.text(OptionCode::HOSTNAME).unwrap(), "web");
        assert_eq!(options.addresses(OptionCode::ROUTERS), [Ipv4Addr::new(10, 0, 0, 1)]);
    }

    #[test]
    fn overloaded_fields_are_read_in_order_file_before_sname() {
        let mut message = message(&[52, 1, 3, 12, 1, b'a', 255]);
        message[FILE][..4].copy_from_slice(&[12, 1, b'b', 255]);
        message[SNAME][..4].copy_from_slice(&[12, 1, b'c', 255]);
        assert_eq!(Options::of(&message).unwrap().text(OptionCode::HOSTNAME).unwrap(), "abc");
        message[HEADER + 2] = 2;
        assert_eq!(Options::of(&message).unwrap().text(OptionCode::HOSTNAME).unwrap(), "ac");
        message[HEADER + 2] = 4;
        assert!(Options::of(&message).is_err());
    }

    #[test]
    fn an_option_that_reaches_past_its_field_spoils_the_message() {
        assert!(Options::of(&message(&[12, 3, b'w'])).is_err());
        assert!(Options::of(&message(&[12])).is_err());
        assert!(Options::of(&message(&[12, 255])).is_err());
        assert_eq!(of(&[12, 1, b'w']).text(OptionCode::HOSTNAME).unwrap(), "w", "nothing ends it");
        // It does not reach from one field into the next.
        let mut message = message(&[52, 1, 1, 255]);
        message[FILE.end - 2..FILE.end].copy_from_slice(&[12, 1]);
        assert!(Options::of(&message).is_err());
    }

    #[test]
    fn texts_that_could_harm_are_dropped() {
        assert_eq!(of(&[12, 3, b'a', b'\n', b'b']).text(OptionCode::HOSTNAME), None);
        assert_eq!(of(&[12, 2, 0x1b, b'c']).text(OptionCode::HOSTNAME), None);
        assert_eq!(of(&[12, 2, b'a', 0]).text(OptionCode::HOSTNAME).unwrap(), "a");
        assert_eq!(domain("a.b;rm"), None);
        assert_eq!(domain("-a.b"), None);
        assert_eq!(domain("a..b"), None);
        assert_eq!(domain("lan.").unwrap(), "lan");
    }

    #[test]
    fn a_search_list_points_back_into_itself() {
        // RFC 3397 section 3: eng.apple.com and marketing.apple.com.
        let list = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        let mut options = vec![119, list.len() as u8];
        options.extend_from_slice(list);
        assert_eq!(of(&options).domains(OptionCode::SEARCH_LIST), ["eng.apple.com", "marketing.apple.com"]);
        // One long name, and pointers to it.
        let mut bomb = [[63; 64].as_slice(), &[0]].concat();
        bomb[1..64].fill(b'a');
        bomb.extend([0xc0, 0].repeat(300));
        let parts: Vec<u8> = bomb.chunks(255).flat_map(|part| [&[119, part.len() as u8], part].concat()).collect();
        assert_eq!(of(&parts).domains(OptionCode::SEARCH_LIST).len(), MOST_DOMAINS);
        // One that points to itself ends.
        assert!(of(&[119, 2, 0xc0, 0]).domains(OptionCode::SEARCH_LIST).is_empty());
    }

    #[test]
    fn options_are_written_as_people_think_of_them() {
        let value = |text: &str| text.parse::<OptionSpec>().unwrap().value;
        assert_eq!(value("77=lab"), b"lab");
        assert_eq!(value("lease-time=3600"), [0, 0, 0x0e, 0x10]);
        assert_eq!(value("42=10.0.0.1, 10.0.0.2"), [10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(value("43=hex:01:04"), [1, 4]);
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |text: &str| text.parse::<OptionSpec>().unwrap_err();
        assert_eq!(refused("12=web"), "DHCP option 12 is set by --hostname, not by --option");
        assert_eq!(refused("53=1"), "DHCP option 53 is set by the protocol itself, not by --option");
        assert_eq!(refused("77"), "\"77\" sets no DHCP option; write CODE=VALUE, such as 77=lab or 43=hex:0104");
        assert_eq!(refused("255=x"), "255 is no DHCP option: they go from 1 to 254");
        assert!(refused("mtu=big").contains("is a number"));
        assert!(refused("42=ntp").contains("list of addresses"));
        assert!(refused("43=hex:0").contains("not hexadecimal"));
        assert!(refused("77=").contains("needs a value"));
        assert_eq!(
            "ntp-servers".parse::<OptionCode>().unwrap_err(),
            "\"ntp-servers\" is no DHCP option that plumb knows by name; did you mean ntp-server?"
        );
    }

    proptest! {
        #[test]
        fn prints_what_it_parsed(text in "(4[0-9]|7[78]|mtu|T1)=\\PC{0,20}") {
            if let Ok(spec) = text.parse::<OptionSpec>() {
                prop_assert_eq!(spec.to_string().parse::<OptionSpec>().unwrap(), spec);
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<OptionSpec>();
            let _ = text.parse::<OptionCode>();
        }
    }
}
