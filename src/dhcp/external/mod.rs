//! Clients that others wrote: how each is called to say what plumb's own would say, and what it tells
//! the program that it runs at each event. It only speaks the protocol; plumb configures the container.

#[cfg(test)]
mod tests;
mod told;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Client, Lease, OptionSpec, options::OptionCode};
use crate::types::{as_text, hex, nearest};

pub use told::{Told, tell};

/// A program that speaks DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Udhcpc,
    Dhclient,
    Dhcpcd,
    /// udhcpc in a container of its own, which shares the target's namespace.
    Busybox,
}

impl Program {
    pub const ALL: [Program; 4] = [Program::Udhcpc, Program::Dhclient, Program::Dhcpcd, Program::Busybox];

    pub fn name(self) -> &'static str {
        match self {
            Program::Udhcpc => "udhcpc",
            Program::Dhclient => "dhclient",
            Program::Dhcpcd => "dhcpcd",
            Program::Busybox => "busybox",
        }
    }

    /// The package of Debian that it comes in; `None` for what is no program of the host's.
    pub fn package(self) -> Option<&'static str> {
        match self {
            Program::Udhcpc => Some("udhcpc"),
            Program::Dhclient => Some("isc-dhcp-client"),
            Program::Dhcpcd => Some("dhcpcd-base"),
            Program::Busybox => None,
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(program) = Program::ALL.into_iter().find(|program| program.name() == text) {
            return Ok(program);
        }
        let names = Program::ALL.map(Program::name);
        let known = match nearest(text, names.into_iter()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", names.join(", ")),
        };
        Err(format!("{text:?} is no DHCP client that plumb can drive; {known}"))
    }
}

as_text!(Program);

/// Which client speaks instead of plumb's own, and what it is told on top.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    pub program: Program,
    /// Arguments for it as they were typed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// The container that it runs in, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper: Option<Helper>,
}

/// How a client is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub program: Program,
    pub arguments: Vec<String>,
    /// Folders where it keeps what it knows. It gets empty ones of its own.
    pub folders: Vec<String>,
    /// Files that it reads, by their paths.
    pub files: Vec<(String, String)>,
    /// Where it finds plumb, which it runs at each event.
    pub script: String,
    /// What makes the container that it runs in, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper: Option<Helper>,
}

/// The container that a client runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Helper {
    /// The engine's name, and where its socket is.
    pub kind: String,
    pub engine: String,
    /// Whose namespace it shares.
    pub target: String,
    pub image: String,
    /// Its own name.
    pub name: String,
}

/// What names a client's socket in its environment, and in that of what it runs.
pub const EVENT: &str = "PLUMB_DHCP_EVENT";
/// A folder of the client's own. Its socket is there.
pub const FOLDER: &str = "/run/plumb";
pub const SOCKET: &str = "/run/plumb/event";
const SCRIPT: &str = "/run/plumb/dhcp-event";
/// In a container, of which nothing else is plumb's.
const HELPERS_SCRIPT: &str = "/plumb-dhcp-event";
/// A client that an AppArmor profile confines reads, writes and runs these, and nothing of /run/plumb
/// but the socket, which only what it runs has to do with (Debian 12, `/etc/apparmor.d/sbin.dhclient`).
const DHCLIENT_FOLDERS: [&str; 2] = ["/etc/dhcp", "/var/lib/dhcp"];
const DHCLIENT_SCRIPT: &str = "/etc/dhcp/dhclient-script";
const DHCLIENT_CONF: &str = "/etc/dhcp/dhclient.conf";
const DHCLIENT_LEASES: &str = "/var/lib/dhcp/dhclient.leases";
const DHCPCD_FOLDERS: [&str; 2] = ["/run/dhcpcd", "/var/lib/dhcpcd"];
const DHCPCD_CONF: &str = "/run/plumb/dhcpcd.conf";

impl External {
    /// How the client is called to ask as `client` on this interface, best for the address that it had
    /// `before`; or what of that it cannot do.
    pub fn call(&self, client: &Client, interface: &str, before: Option<&Lease>) -> Result<Call, String> {
        let mut call = match self.program {
            Program::Udhcpc | Program::Busybox => udhcpc(self.program, client, interface, before),
            Program::Dhclient => dhclient(client, interface, before)?,
            Program::Dhcpcd => dhcpcd(client, before)?,
        };
        call.arguments.extend(self.arguments.iter().cloned());
        // Where it is the last word; udhcpc has an option for it.
        if matches!(self.program, Program::Dhclient | Program::Dhcpcd) {
            call.arguments.push(interface.to_owned());
        }
        call.helper = self.helper.clone();
        Ok(call)
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn call(program: Program, arguments: Vec<String>) -> Call {
    Call { program, arguments, folders: Vec::new(), files: Vec::new(), script: SCRIPT.into(), helper: None }
}

/// Of BusyBox 1.35. It asks every two seconds for ever; a hexadecimal code takes a hexadecimal value.
fn udhcpc(program: Program, client: &Client, interface: &str, before: Option<&Lease>) -> Call {
    let script = if program == Program::Busybox { HELPERS_SCRIPT } else { SCRIPT };
    let mut arguments = words(&["-f", "-i", interface, "-s", script, "-t", "5", "-T", "2", "-A", "2"]);
    // Without the identifier made of the MAC address that it would send by itself.
    arguments.push("-C".into());
    let mut send = |code: OptionCode, value: &[u8]| {
        arguments.extend(["-x".into(), format!("0x{:02x}:{}", code.number(), hex(value))]);
    };
    if let Some(id) = &client.id {
        send(OptionCode::CLIENT_ID, id.bytes());
    }
    client.options.iter().for_each(|option| send(option.code, &option.value));
    if client.options.iter().any(|option| option.code == OptionCode::VENDOR_CLASS) {
        // Or it would send its own as well.
        arguments.extend(words(&["-V", ""]));
    }
    client.wanted().iter().for_each(|code| arguments.extend(["-O".into(), code.to_string()]));
    if client.broadcast {
        arguments.push("-B".into());
    }
    if let Some(lease) = before {
        arguments.extend(["-r".into(), lease.ip().to_string()]);
    }
    Call { script: script.into(), ..call(program, arguments) }
}

/// Of ISC DHCP 4.4. Most of what it is told stands in a file.
fn dhclient(client: &Client, interface: &str, before: Option<&Lease>) -> Result<Call, String> {
    if client.broadcast {
        return Err(
            "dhclient cannot ask for answers by broadcast; an ipvlan, and --broadcast, need another client".into()
        );
    }
    let mut text = String::from("option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n");
    // It has no names for these yet, or types that take no bytes.
    let by_number = |code: OptionCode| dhclient_name(code).is_none();
    let sent = client.options.iter().map(|option| option.code).filter(|code| !is_text(*code));
    let mut unnamed: Vec<OptionCode> =
        sent.chain(client.wanted().into_iter().filter(|code| by_number(*code))).collect();
    unnamed.sort_unstable();
    unnamed.dedup();
    unnamed.iter().for_each(|code| text += &format!("option plumb-{code} code {code} = string;\n"));
    if let Some(id) = &client.id {
        text += &format!("send dhcp-client-identifier {id};\n");
    }
    for OptionSpec { code, value } in &client.options {
        text += &match dhclient_name(*code).filter(|_| is_text(*code)) {
            Some(name) => format!("send {name} {};\n", quoted(value)),
            None => format!("send plumb-{code} {};\n", colons(value)),
        };
    }
    let wanted: Vec<String> = client
        .wanted()
        .into_iter()
        .map(|code| dhclient_name(code).map_or_else(|| format!("plumb-{code}"), str::to_owned))
        .collect();
    text += &format!("request {};\n", wanted.join(", "));
    // It asks for ever, as the others do, without pauses of minutes.
    text += "timeout 60;\nretry 2;\ninitial-interval 2;\nbackoff-cutoff 10;\nreboot 3;\n";
    let arguments =
        words(&["-4", "-d", "-cf", DHCLIENT_CONF, "-lf", DHCLIENT_LEASES, "--no-pid", "-sf", DHCLIENT_SCRIPT]);
    let mut call = call(Program::Dhclient, arguments);
    call.arguments.extend(["-e".into(), format!("{EVENT}={SOCKET}")]);
    call.folders = words(&DHCLIENT_FOLDERS);
    call.script = DHCLIENT_SCRIPT.into();
    let remembered = before.map_or_else(String::new, |lease| remembered(lease, interface));
    call.files = vec![(DHCLIENT_CONF.into(), text), (DHCLIENT_LEASES.into(), remembered)];
    Ok(call)
}

/// A lease as dhclient writes it down: it then asks for the same one at once. Whether it is over, the
/// server knows, and plumb.
fn remembered(lease: &Lease, interface: &str) -> String {
    let seconds = lease.term.expire().map_or(u64::from(u32::MAX), |time| time.as_secs());
    format!(
        "lease {{\n  interface \"{interface}\";\n  fixed-address {};\n  option dhcp-lease-time {seconds};\n  \
         option dhcp-server-identifier {};\n  renew never;\n  rebind never;\n  expire never;\n}}\n",
        lease.ip(),
        lease.server
    )
}

/// What dhclient calls an option whose value it can tell in a way that is understood here.
fn dhclient_name(code: OptionCode) -> Option<&'static str> {
    Some(match code {
        OptionCode::SUBNET_MASK => "subnet-mask",
        OptionCode::ROUTERS => "routers",
        OptionCode::DNS_SERVERS => "domain-name-servers",
        OptionCode::HOSTNAME => "host-name",
        OptionCode::DOMAIN => "domain-name",
        OptionCode::MTU => "interface-mtu",
        OptionCode::NTP_SERVERS => "ntp-servers",
        OptionCode::LEASE_TIME => "dhcp-lease-time",
        OptionCode::SERVER_ID => "dhcp-server-identifier",
        OptionCode::T1 => "dhcp-renewal-time",
        OptionCode::T2 => "dhcp-rebinding-time",
        OptionCode::VENDOR_CLASS => "vendor-class-identifier",
        OptionCode::TFTP_SERVER => "tftp-server-name",
        OptionCode::BOOTFILE => "bootfile-name",
        OptionCode::SEARCH_LIST => "domain-search",
        OptionCode::CLASSLESS_ROUTES => "rfc3442-classless-static-routes",
        _ => return None,
    })
}

/// What dhclient takes as a text in quotes.
fn is_text(code: OptionCode) -> bool {
    matches!(code, OptionCode::HOSTNAME | OptionCode::VENDOR_CLASS)
}

fn colons(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// With all that is neither a letter nor a digit in octal.
fn quoted(value: &[u8]) -> String {
    let plain = |byte: &u8| match byte.is_ascii_alphanumeric() {
        true => char::from(*byte).to_string(),
        false => format!("\\{byte:03o}"),
    };
    format!("\"{}\"", value.iter().map(plain).collect::<String>())
}

/// Of dhcpcd 9.4. It configures nothing, asks no neighbour, and does not give up.
fn dhcpcd(client: &Client, before: Option<&Lease>) -> Result<Call, String> {
    let mut arguments = words(&["-4", "-B", "-f", DHCPCD_CONF, "--noconfigure", "--script", SCRIPT]);
    arguments.extend(["-e".into(), format!("{EVENT}={SOCKET}")]);
    arguments.extend(words(&["--noipv4ll", "--noarp", "--nodev", "-t", "0"]));
    if let Some(id) = &client.id {
        arguments.extend(["-I".into(), id.to_string()]);
    }
    for OptionSpec { code, value } in &client.options {
        let by = match *code {
            OptionCode::HOSTNAME => "-h",
            OptionCode::VENDOR_CLASS => "-i",
            code => {
                return Err(format!(
                    "dhcpcd cannot be told to send DHCP option {code}; --client-arg gives it options of its own"
                ));
            }
        };
        let text = String::from_utf8(value.clone()).map_err(|_| format!("dhcpcd takes no bytes for option {code}"))?;
        arguments.extend([by.into(), text]);
    }
    let wanted: Vec<String> = client.wanted().iter().map(ToString::to_string).collect();
    arguments.extend(["-o".into(), wanted.join(",")]);
    if client.broadcast {
        arguments.push("-J".into());
    }
    if let Some(lease) = before {
        arguments.extend(["-r".into(), lease.ip().to_string()]);
    }
    let mut call = call(Program::Dhcpcd, arguments);
    call.folders = words(&DHCPCD_FOLDERS);
    // Without one it would read the host's.
    call.files = vec![(DHCPCD_CONF.into(), "nodelay\n".into())];
    Ok(call)
}
