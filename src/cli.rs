//! Every flag, once. What was typed, not what it means: help, man pages and completions come from here.

mod iproute2;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use clap_complete::engine::ArgValueCandidates;
pub use iproute2::parse;

use crate::{
    bench::{Test, Tool, Way},
    complete,
    dhcp::{ClientId, OptionCode, OptionSpec, Program},
    types::{
        Gateway, IfName, IpChoice, IpRange, Mac, MacChoice, Mtu, NetworkName, Percent, Pkey, Rate, RouteSpec, Size,
        Span, Subnet, TargetName, VlanId, WantedIp,
    },
};

/// A command line that was understood.
#[derive(Debug)]
pub struct Cli {
    pub global: Global,
    pub verb: Verb,
}

impl Cli {
    /// What the words say, the first of which is the program's name.
    pub fn try_parse_from(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Cli, clap::Error> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let typed = words.get(1).and_then(|word| VERBS.iter().find(|(name, _)| word == name));
        // There are several hundred options. To make those of all verbs took three fifths of all that an
        // attachment makes plumb itself compute.
        let plumb = typed.map_or_else(command, |verb| with_verbs(std::slice::from_ref(verb)));
        let mut matches = plumb.try_get_matches_from(words)?;
        Ok(Cli { verb: Verb::from_matches(&mut matches)?, global: Global::from_arg_matches_mut(&mut matches)? })
    }
}

/// The command line as a whole.
pub fn command() -> Command {
    with_verbs(VERBS)
}

fn with_verbs(verbs: &[Named]) -> Command {
    let verb = |(name, with_options): &Named| with_options(Command::new(*name));
    Plumb::command().subcommands(verbs.iter().map(verb))
}

/// A verb's name, and what gives its options to its command.
type Named = (&'static str, fn(Command) -> Command);

/// Connects running containers to real networks
#[derive(Debug, Parser)]
#[command(
    name = "plumb",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    args_override_self = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Targets: a Docker container's name or id, podman:NAME, pid:N, netns:NAME, netns:/PATH\n\
    Exit codes: 0 done, 1 failed and nothing changed, 2 usage, 3 not found, 4 conflict, 5 not permitted,\n\
    6 something was left behind (listed), 7 timed out, 130 interrupted")]
struct Plumb {
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print one JSON document, errors included
    #[arg(long, global = true)]
    pub json: bool,
    /// Log each step with its duration
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Where records are kept: a directory, or etcd://[USER@]HOST[:PORT][,HOST…][/PREFIX], etcds:// with TLS [env: PLUMB_STORE] [default: /var/lib/plumb]
    #[arg(long, global = true, value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store: Option<String>,
    #[command(flatten)]
    pub access: AccessOptions,
    /// Docker's socket [env: DOCKER_HOST] [default: unix:///var/run/docker.sock]
    #[arg(long, global = true, value_name = "SOCKET")]
    pub docker: Option<String>,
    /// Podman's socket [env: PLUMB_PODMAN] [default: unix:///run/podman/podman.sock]
    #[arg(long, global = true, value_name = "SOCKET")]
    pub podman: Option<String>,
    /// Configuration file [env: PLUMB_CONFIG] [default: /etc/plumb/plumb.toml]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

impl Global {
    /// The settings as another plumb takes them: what is in the environment it has anyway.
    pub fn settings(&self) -> Vec<OsString> {
        let access = &self.access;
        let paths = [
            ("--store-ca", &access.store_ca),
            ("--store-cert", &access.store_cert),
            ("--store-key", &access.store_key),
            ("--store-password-file", &access.store_password_file),
            ("--config", &self.config),
        ];
        let texts = [("--store", &self.store), ("--docker", &self.docker), ("--podman", &self.podman)];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, OsString::from(text.as_ref()?))));
        let paths = paths.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?.into())));
        texts.chain(paths).flat_map(|(name, value)| [name.into(), value]).collect()
    }
}

/// How a store in etcd is reached.
#[derive(Debug, Clone, Args)]
pub struct AccessOptions {
    /// Certificate of the authority that etcd's certificates are signed by, for etcds:// [env: PLUMB_STORE_CA]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_ca: Option<PathBuf>,
    /// Certificate to show to etcd [env: PLUMB_STORE_CERT]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_cert: Option<PathBuf>,
    /// Private key of that certificate [env: PLUMB_STORE_KEY]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_key: Option<PathBuf>,
    /// File with the password of etcd's USER, or the password itself in PLUMB_STORE_PASSWORD
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_password_file: Option<PathBuf>,
}

macro_rules! verbs {
    ($($verb:ident($options:ident) = $name:literal,)*) => {
        #[derive(Debug)]
        pub enum Verb {
            $($verb($options),)*
        }

        const VERBS: &[Named] = &[$(($name, <$options as Args>::augment_args)),*];

        impl Verb {
            fn from_matches(matches: &mut ArgMatches) -> Result<Verb, clap::Error> {
                match matches.remove_subcommand() {
                    $(Some((name, mut matches)) if name == $name => {
                        $options::from_arg_matches_mut(&mut matches).map(Verb::$verb)
                    })*
                    _ => Err(clap::Error::new(ErrorKind::MissingSubcommand)),
                }
            }
        }
    };
}

verbs! {
    Flat(Flat) = "flat",
    CreateVlan(CreateVlan) = "create-vlan",
    DeleteVlan(DeleteVlan) = "delete-vlan",
    Networks(Networks) = "networks",
    Attach(Attach) = "attach",
    Dhcp(Dhcp) = "dhcp",
    Leases(Leases) = "leases",
    Agent(Agent) = "agent",
    Detach(Detach) = "detach",
    Qos(Qos) = "qos",
    Route(Route) = "route",
    Rule(Rule) = "rule",
    Link(Link) = "link",
    Shim(Shim) = "shim",
    Restore(Restore) = "restore",
    Bench(Bench) = "bench",
    Ls(Ls) = "ls",
    Show(Show) = "show",
    Wait(Wait) = "wait",
    Gc(Gc) = "gc",
    Doctor(Doctor) = "doctor",
    Store(StoreVerbs) = "store",
    Completions(Completions) = "completions",
    Pipework(Pipework) = "pipework",
}

/// Give a running container a static address on the host's LAN
///
/// Makes an interface on HOSTIF's layer 2 directly in the container's network namespace, gives it
/// the addresses, makes it the way out, and remembers what was there before. Everything or nothing:
/// after an error the container is as it was.
#[derive(Debug, Args)]
#[command(override_usage = "plumb flat TARGET -i HOSTIF --ip ADDR/LEN [--gateway ADDR] [OPTIONS]")]
#[command(after_help = "Examples:\n  \
    plumb flat web -i eth0 --ip 192.168.0.100/24 --gateway 192.168.0.1\n  \
    plumb flat web -i eth0 --ip 192.168.0.100/24 --ip fd00::100/64 --keep-default\n  \
    plumb flat pid:4242 -i eth0 --ip none --mode private\n  \
    plumb flat web -i eth0 --vlan 10 --ip 10.1.0.5/24 --gateway 10.1.0.1\n  \
    plumb flat web -i wlan0 --ip 192.168.0.100/24 --gateway 192.168.0.1 --driver ipvlan\n  \
    plumb flat web -i eth2 --ip 192.168.0.100/24 --gateway 192.168.0.1 --driver phys\n  \
    plumb flat web -i eth0 --ip 192.168.0.100/24 --route '10.0.0.0/8,via 192.168.0.254' --dry-run")]
pub struct Flat {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::targets))]
    pub target: TargetName,
    /// The host's interface on the LAN
    #[arg(short = 'i', long, value_name = "HOSTIF", add = ArgValueCandidates::new(complete::interfaces))]
    pub host_interface: Option<IfName>,
    /// In this VLAN of HOSTIF, 1 to 4094: on its device, made where it is missing and gone with its last user; a veth by its bridge's port
    #[arg(long, value_name = "ID")]
    pub vlan: Option<VlanId>,
    /// Address with its prefix length, IPv4 or IPv6, repeatable; none: layer 2 only
    #[arg(long, value_name = "ADDR/LEN", required = true)]
    pub ip: Vec<IpChoice>,
    /// Default router: replaces the default route of its IP version; once for each version
    #[arg(long, alias = "gw", value_name = "ADDR")]
    pub gateway: Vec<Gateway>,
    /// Wait so long for the container to run
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// Print the commands that do the same, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub link: LinkOptions,
    #[command(flatten)]
    pub routing: RoutingOptions,
    #[command(flatten)]
    pub checks: CheckOptions,
}

/// Define a network: a VLAN with a name and addresses, the same on every host that shares the store
///
/// Nothing is sent and no container is touched: the VLAN's device is made on a host when the first
/// container there joins, and goes with the last.
#[derive(Debug, Args)]
#[command(override_usage = "plumb create-vlan NAME --subnet CIDR -i HOSTIF [OPTIONS]")]
#[command(after_help = "Examples:\n  \
    plumb create-vlan blue --subnet 10.1.0.0/24 -i eth0\n  \
    plumb create-vlan blue --subnet 10.1.0.0/24 -i eth0 --id 10 --gateway-here --nat\n  \
    plumb create-vlan blue --subnet 10.1.0.0/24 --subnet fd01::/64 -i eth0 --range 10.1.0.100-10.1.0.199")]
pub struct CreateVlan {
    /// The network's name
    #[arg(required_unless_present = "name_option")]
    pub name: Option<NetworkName>,
    /// The network's name, as an option
    #[arg(long = "name", id = "name_option", value_name = "NAME", conflicts_with = "name")]
    pub name_option: Option<NetworkName>,
    /// The subnet of its addresses, once for each IP version
    #[arg(long, value_name = "CIDR", required = true)]
    pub subnet: Vec<Subnet>,
    /// The host's interface that carries the VLAN
    #[arg(short = 'i', long, value_name = "HOSTIF", add = ArgValueCandidates::new(complete::interfaces))]
    pub host_interface: Option<IfName>,
    /// The VLAN's id, 1 to 4094 [default: a free one, by chance]
    #[arg(long, value_name = "ID")]
    pub id: Option<VlanId>,
    /// How frames tell their VLAN
    #[arg(long, value_enum, default_value_t = ProtocolName::Dot1q)]
    pub protocol: ProtocolName,
    /// Largest packet in bytes [default: the host interface's]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<Mtu>,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub pool: PoolOptions,
    #[command(flatten)]
    pub router: RouterOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Addresses")]
pub struct PoolOptions {
    /// Choose addresses from here only, repeatable [default: the whole subnet]
    #[arg(long, value_name = "FIRST-LAST")]
    pub range: Vec<IpRange>,
    /// Never choose this address, repeatable
    #[arg(long, value_name = "ADDR")]
    pub reserve: Vec<std::net::IpAddr>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Gateway")]
pub struct RouterOptions {
    /// The subnet's router, once for each IP version [default: the first address]
    #[arg(long, alias = "gw", value_name = "ADDR")]
    pub gateway: Vec<Gateway>,
    /// Make this host the gateway: an interface of its own in the VLAN, and forwarding on
    #[arg(long)]
    pub gateway_here: bool,
    /// Give what leaves by another interface this host's address (masquerading)
    #[arg(long, requires = "gateway_here")]
    pub nat: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolName {
    /// Customer tags, which every switch knows
    #[value(name = "802.1q")]
    Dot1q,
    /// Service tags, around customer tags
    #[value(name = "802.1ad")]
    Dot1ad,
}

/// Delete a network, with its gateway, its device and its addresses
///
/// Refused while containers are in it; their names are listed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  plumb delete-vlan blue\n  plumb delete-vlan blue --force")]
pub struct DeleteVlan {
    /// The network's name
    #[arg(add = ArgValueCandidates::new(complete::networks))]
    pub name: NetworkName,
    /// Detach this host's containers first
    #[arg(long)]
    pub force: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// List the networks: id, subnet, host interface, addresses used and free, gateway
#[derive(Debug, Args)]
pub struct Networks {}

/// Let a running container join a network, with an address of its pool
///
/// Makes the VLAN's device on this host if it is missing, an interface on it directly in the
/// container, with the next free address, or the one that the container had before a restart, and
/// makes the network's gateway the way out. Everything or nothing.
#[derive(Debug, Args)]
#[command(override_usage = "plumb attach TARGET NETWORK [--ip ADDR] [OPTIONS]")]
#[command(after_help = "Examples:\n  \
    plumb attach web blue\n  \
    plumb attach web blue --ip 10.1.0.50 --keep-default\n  \
    plumb attach web blue --dry-run")]
pub struct Attach {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::targets))]
    pub target: TargetName,
    /// The network's name
    #[arg(add = ArgValueCandidates::new(complete::networks))]
    pub network: NetworkName,
    /// This address of the network, once for each IP version [default: the next free one]
    #[arg(long, value_name = "ADDR")]
    pub ip: Vec<WantedIp>,
    /// The interface of this host that carries the VLAN, or with --driver veth a bridge that does [default: the network's]
    #[arg(short = 'i', long, value_name = "HOSTIF", add = ArgValueCandidates::new(complete::interfaces))]
    pub host_interface: Option<IfName>,
    /// Wait so long for the container to run
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// Print the commands that do the same, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub link: LinkOptions,
    #[command(flatten)]
    pub routing: RoutingOptions,
    #[command(flatten)]
    pub checks: CheckOptions,
}

/// Give a running container an address from the LAN's own DHCP server
///
/// Makes an interface on HOSTIF's layer 2 directly in the container, which asks for a lease and gets
/// what the server says: address, router, routes and MTU. The lease is renewed for as long as the
/// container lives, by a process in the background (plumb agent). Everything or nothing.
#[derive(Debug, Args)]
#[command(override_usage = "plumb dhcp TARGET -i HOSTIF [OPTIONS]\n       plumb dhcp TARGET --network NAME [OPTIONS]")]
#[command(after_help = "Examples:\n  \
    plumb dhcp web -i eth0\n  \
    plumb dhcp web -i eth0 --hostname www --keep-default\n  \
    plumb dhcp web -i wlan0 --driver ipvlan\n  \
    plumb dhcp web --network blue --timeout 30s\n  \
    plumb dhcp web -i eth0 --client udhcpc --client-arg=-S")]
pub struct Dhcp {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::targets))]
    pub target: TargetName,
    /// The host's interface on the LAN
    #[arg(short = 'i', long, value_name = "HOSTIF", add = ArgValueCandidates::new(complete::interfaces))]
    pub host_interface: Option<IfName>,
    /// In this VLAN of HOSTIF, 1 to 4094: on its device, made where it is missing and gone with its last user; a veth by its bridge's port
    #[arg(long, value_name = "ID", conflicts_with = "network")]
    pub vlan: Option<VlanId>,
    /// Ask in this network's VLAN instead, whose addresses then come from a server there
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::networks))]
    pub network: Option<NetworkName>,
    /// Give up when no lease is granted within this time [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Span>,
    /// Wait so long for the container to run
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// Print the commands that make the interface, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub client: ClientOptions,
    #[command(flatten)]
    pub link: LinkOptions,
    #[command(flatten)]
    pub routing: LeaseRoutingOptions,
    #[command(flatten)]
    pub checks: CheckOptions,
}

/// List the leases: address, server, time left, state, and what went wrong last
#[derive(Debug, Args)]
pub struct Leases {}

/// Keep leases alive in the background
///
/// One agent for each host and store. plumb dhcp starts it when none runs, and it ends when nothing is
/// left to do. For a service manager, which starts and stops it, there is --foreground.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  plumb agent\n  plumb agent --foreground")]
pub struct Agent {
    /// Stay in the foreground, whether or not there is anything to do, and say what is done
    #[arg(long)]
    pub foreground: bool,
    /// Leave the terminal and end when nothing is left to do: how plumb itself starts it
    #[arg(long, conflicts_with = "foreground")]
    pub detached: bool,
}

/// What a server is told, and asked for.
#[derive(Debug, Args)]
#[command(next_help_heading = "DHCP")]
pub struct ClientOptions {
    /// Name for the server to enter into the DNS [default: the container's own]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// What the server knows the client by: a name, or bytes such as 01:02:42:ac:11:00:02 [default: derived from host, target and interface]
    #[arg(long, value_name = "ID")]
    pub client_id: Option<ClientId>,
    /// Kind of client, for servers that treat kinds differently (option 60)
    #[arg(long, value_name = "TEXT")]
    pub vendor_class: Option<String>,
    /// Ask for this option too, by number or name, and show it; repeatable
    #[arg(long, value_name = "OPT")]
    pub request: Vec<OptionCode>,
    /// Send this option: 77=lab, 43=hex:0104; repeatable
    #[arg(long, value_name = "CODE=VALUE")]
    pub option: Vec<OptionSpec>,
    /// Ask for answers by broadcast [default: for ipvlan only]
    #[arg(long)]
    pub broadcast: bool,
    /// Write the server's resolvers and search domains into the container's /etc/resolv.conf, until it is detached
    #[arg(long)]
    pub dns: bool,
    /// Where an IPv6 address comes from besides: a router's advertisements (slaac), a DHCPv6 server, or nowhere
    #[arg(long, value_enum, value_name = "FROM", default_value_t = Ipv6From::None)]
    pub ipv6: Ipv6From,
    /// Leave the lease to run out
    #[arg(long)]
    pub no_renew: bool,
    /// Let another client ask: this host's udhcpc, dhclient or dhcpcd, or busybox in a container [default: plumb's own]
    #[arg(long = "client", value_name = "CLIENT", value_parser = programs())]
    pub program: Option<Program>,
    /// An argument for that client as it stands, repeatable: --client-arg=-S
    #[arg(long, value_name = "ARG", requires = "program", allow_hyphen_values = true)]
    pub client_arg: Vec<String>,
    /// The image for --client busybox [default: busybox]
    #[arg(long, value_name = "IMAGE", requires = "program")]
    pub client_image: Option<String>,
}

/// Those that the shell completes.
fn programs() -> impl TypedValueParser<Value = Program> {
    PossibleValuesParser::new(Program::ALL.map(Program::name)).try_map(|name| name.parse::<Program>())
}

/// Where an IPv6 address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ipv6From {
    None,
    Slaac,
    Dhcp,
}

/// What to make of the routes that a server tells.
#[derive(Debug, Args)]
#[command(next_help_heading = "Routing")]
pub struct LeaseRoutingOptions {
    /// Leave the default route as it is
    #[arg(long)]
    pub keep_default: bool,
    /// Metric of the new routes; the old default route then stays beside the new one
    #[arg(long, value_name = "N")]
    pub metric: Option<u32>,
    /// Static route beside the server's, repeatable: 'DST[,via GATEWAY][,metric N]'
    #[arg(long, value_name = "ROUTE")]
    pub route: Vec<RouteSpec>,
}

/// How the link is made; shared by the verbs that make one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Link")]
pub struct LinkOptions {
    /// Kind of link
    #[arg(long, value_enum, default_value_t = DriverName::Macvlan)]
    pub driver: DriverName,
    /// Who may talk to whom on one parent [default: bridge, for ipvlan l2]
    ///
    /// For macvlan: bridge, private, vepa, passthru or source. For ipvlan: l2, l3 or l3s, the same for
    /// all on one parent.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Accept frames from this MAC address, repeatable; with --mode source
    #[arg(long, value_name = "MAC")]
    pub source_mac: Vec<Mac>,
    /// Name of the end on the host, of a veth [default: TARGET-IFNAME, or veth-DIGEST where that is too long]
    #[arg(long, value_name = "IFNAME")]
    pub host_name: Option<IfName>,
    /// Let pass what the bridge of a veth passes on, where iptables would drop it, as Docker has it set; until the last container that needs it is detached
    #[arg(long)]
    pub allow_forward: bool,
    /// Name of the interface inside [default: the first free ethN, from eth1]
    #[arg(long, value_name = "IFNAME")]
    pub name: Option<IfName>,
    /// MAC address, or auto:STRING to derive one [default: derived from host, target and interface]
    ///
    /// Not for ipvlan and mode passthru, where it is the parent's. phys keeps its own if none is given.
    #[arg(long, value_name = "MAC")]
    pub mac: Option<MacChoice>,
    /// Largest packet in bytes [default: the parent's]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<Mtu>,
    /// Let segments of up to SIZE bytes pass between containers unsegmented, instead of 64 KiB (needs Linux 6.3) [default SIZE: the most that the parent takes]
    ///
    /// Raised on the interface and on its parent, and given back with the parent's last user. It makes TCP between
    /// containers of one host faster; over a wire nothing changes. Captures show the large packets.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "524280", value_parser = clap::value_parser!(u32).range(65_537..=524_280))]
    pub big_tcp: Option<u32>,
    /// Packets that a qdisc on the interface may keep [default: 1000]
    #[arg(long, value_name = "PACKETS")]
    pub txqueuelen: Option<u32>,
    /// Queues of the interface, each way [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub queues: Option<u32>,
    /// macvlan: broadcasts that may wait for the parent's children [default: 1000]
    #[arg(long, value_name = "PACKETS")]
    pub bc_queue_len: Option<u32>,
    /// Use a wifi parent although access points usually drop foreign MAC addresses
    #[arg(long)]
    pub allow_wifi: bool,
    /// phys: move HOSTIF although it carries the host's default route, or the session that this is typed in
    #[arg(long)]
    pub force: bool,
    /// InfiniBand partition of the container, where HOSTIF is of that kind [default: HOSTIF's]
    #[arg(long, value_name = "P_KEY")]
    pub pkey: Option<Pkey>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Routing")]
pub struct RoutingOptions {
    /// Leave the default route as it is
    #[arg(long)]
    pub keep_default: bool,
    /// Metric of the new routes; the old default route then stays beside the new one
    #[arg(long, value_name = "N")]
    pub metric: Option<u32>,
    /// Accept a gateway outside of the addresses' subnets
    #[arg(long)]
    pub off_link_gateway: bool,
    /// Static route, repeatable: 'DST[,via GATEWAY][,metric N]'
    ///
    /// In modes l3 and l3s the host routes, so routes have no gateway there, and 0.0.0.0/0 (or ::/0)
    /// makes the interface the way out.
    #[arg(long, value_name = "ROUTE")]
    pub route: Vec<RouteSpec>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Checks")]
pub struct CheckOptions {
    /// Ask the LAN so long whether an address is taken, 0: don't [default: 200ms]
    ///
    /// By ARP (RFC 5227) for IPv4. For IPv6 any value but 0 waits for the kernel's own duplicate
    /// address detection, which takes one to two seconds.
    #[arg(long, value_name = "DURATION")]
    pub probe: Option<Span>,
    /// Ping the gateway from inside afterwards, even if the configuration says no [default: yes]
    #[arg(long, overrides_with = "no_check")]
    pub check: bool,
    /// Don't ping the gateway afterwards
    #[arg(long, overrides_with = "check")]
    pub no_check: bool,
    /// Ping this address from inside as well, repeatable
    #[arg(long, value_name = "ADDR")]
    pub check_host: Vec<std::net::IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DriverName {
    /// Each link has a MAC address of its own on the parent
    Macvlan,
    /// All links have the parent's MAC address: for wifi, and switches that accept one for each port
    Ipvlan,
    /// A port of a bridge, which HOSTIF names and which is made where it is missing
    Veth,
    /// HOSTIF itself moves into the container, and comes back with all it had when it is detached
    Phys,
    /// Leads nowhere, for an address alone; takes no HOSTIF
    Dummy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Containers on one parent reach one another
    Bridge,
    /// Containers on one parent never reach one another
    Private,
    /// All frames go to the wire; needs a switch that reflects them
    Vepa,
    /// One container only, with the parent's MAC address
    Passthru,
    /// Only frames from listed MAC addresses come in
    Source,
    /// ipvlan: each container is on the LAN by itself
    L2,
    /// ipvlan: the host routes, without ARP; other machines need a route to the addresses by this host
    L3,
    /// ipvlan: as l3, through the host's packet filter
    L3s,
}

/// Take back what plumb attached to a target
///
/// Removes the interface and gives the old default route back. What is already gone, container
/// included, is no error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  plumb detach web\n  plumb detach web eth2\n  plumb detach --all")]
pub struct Detach {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(required_unless_present = "all", conflicts_with = "all", add = ArgValueCandidates::new(complete::attached))]
    pub target: Option<TargetName>,
    /// One interface [default: all that plumb attached to the target]
    #[arg(value_name = "IFNAME", add = ArgValueCandidates::new(complete::attached_interfaces))]
    pub interface: Option<IfName>,
    /// Everything that plumb attached on this host
    #[arg(long)]
    pub all: bool,
    /// Print the commands that do the same, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Limit what a container sends or receives, or make its network a bad one
///
/// On the interfaces that plumb attached and on those of ordinary Docker networks. What is set
/// replaces what was set in the same direction, without a gap, and is put back with the attachment. A
/// root qdisc that plumb did not make is left alone.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(override_usage = "plumb qos TARGET [IFNAME] --rate RATE [OPTIONS]\n       \
    plumb qos TARGET [IFNAME] --delay DURATION [OPTIONS]\n       \
    plumb qos show [TARGET]\n       \
    plumb qos clear TARGET [IFNAME]")]
#[command(
    after_help = "Units are those of tc: kbit, mbit and gbit are bits a second, kbps, mbps and gbps bytes; a size in\n\
    b, kb or mb is bytes.\n\n\
    Examples:\n  \
    plumb qos web --rate 10mbit\n  \
    plumb qos web eth1 --rate 500kbit --burst 32kb --latency 50ms --direction both\n  \
    plumb qos web --delay 50ms --jitter 10ms --loss 1%\n  \
    plumb qos show\n  \
    plumb qos clear web"
)]
pub struct Qos {
    #[command(subcommand)]
    pub verb: Option<QosVerb>,
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(required = true, add = ArgValueCandidates::new(complete::targets))]
    pub target: Option<TargetName>,
    /// One interface [default: all that are up]
    #[arg(value_name = "IFNAME", add = ArgValueCandidates::new(complete::attached_interfaces))]
    pub interface: Option<IfName>,
    /// What the container sends, what it receives, or each of the two
    #[arg(long, value_enum, default_value_t = DirectionName::Egress)]
    pub direction: DirectionName,
    /// Replace a root qdisc that plumb did not make; clear gives it back
    #[arg(long)]
    pub force: bool,
    /// Wait so long for the container to run
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// Print the commands that do the same, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub limit: LimitOptions,
    #[command(flatten)]
    pub impairment: ImpairmentOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limit")]
pub struct LimitOptions {
    /// Let through at most so much, such as 500kbit, 10mbit or, in bytes, 64kbps
    #[arg(long, allow_hyphen_values = true, value_name = "RATE")]
    pub rate: Option<Rate>,
    /// How much may leave at once after a pause [default: what fits the rate and the MTU; -v tells]
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", requires = "rate")]
    pub burst: Option<Size>,
    /// The longest that a packet waits before packets are dropped [default: 50ms, more at slow rates; -v tells]
    #[arg(long, allow_hyphen_values = true, value_name = "DURATION", requires = "rate")]
    pub latency: Option<Span>,
    /// How fast a burst may leave [default: as fast as the interface]
    #[arg(long, allow_hyphen_values = true, value_name = "RATE", requires = "rate")]
    pub peak_rate: Option<Rate>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Bad network (netem), alone or with a limit")]
pub struct ImpairmentOptions {
    /// Packets take so much longer
    #[arg(long, allow_hyphen_values = true, value_name = "DURATION")]
    pub delay: Option<Span>,
    /// The delay varies by so much
    #[arg(long, allow_hyphen_values = true, value_name = "DURATION")]
    pub jitter: Option<Span>,
    /// So many packets are lost
    #[arg(long, allow_hyphen_values = true, value_name = "PERCENT")]
    pub loss: Option<Percent>,
    /// So many packets arrive twice
    #[arg(long, allow_hyphen_values = true, value_name = "PERCENT")]
    pub duplicate: Option<Percent>,
    /// So many packets have a bit turned over
    #[arg(long, allow_hyphen_values = true, value_name = "PERCENT")]
    pub corrupt: Option<Percent>,
    /// So many packets are not delayed, and overtake others
    #[arg(long, allow_hyphen_values = true, value_name = "PERCENT")]
    pub reorder: Option<Percent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DirectionName {
    /// What the container sends
    Egress,
    /// What the container receives
    Ingress,
    /// Each of the two by itself
    Both,
}

#[derive(Debug, Subcommand)]
pub enum QosVerb {
    Show(QosShow),
    Clear(QosClear),
}

/// List limits, with what passed, was dropped and waits
#[derive(Debug, Args)]
pub struct QosShow {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH [default: all]
    #[arg(add = ArgValueCandidates::new(complete::limited))]
    pub target: Option<TargetName>,
}

/// Take limits away
///
/// A qdisc that --force replaced is given back. What is already gone is no error.
#[derive(Debug, Args)]
pub struct QosClear {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::limited))]
    pub target: TargetName,
    /// One interface [default: all that have limits]
    #[arg(value_name = "IFNAME", add = ArgValueCandidates::new(complete::attached_interfaces))]
    pub interface: Option<IfName>,
    /// Print the commands that do the same, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Change the routes of a running container, until what they belong to is detached
///
/// The words behind TARGET are those of ip route. A route belongs to the attachment whose interface it
/// leaves by, or whose router is reached there; one that leads nowhere to the newest. It is on that one's
/// record, and detach takes it back: what was added goes, and what was replaced or deleted is given back as
/// it was. Everything or nothing.
#[derive(Debug, Args)]
#[command(override_usage = "plumb route TARGET add DST [via ADDR] [dev IFNAME] [WORDS]\n       \
    plumb route TARGET replace DST [via ADDR] [dev IFNAME] [WORDS]\n       \
    plumb route TARGET append DST [via ADDR] [dev IFNAME] [WORDS]\n       \
    plumb route TARGET del DST [WORDS]\n       \
    plumb route TARGET [show [table N|all]]")]
#[command(after_help = "DST: a network, or default; before it may stand blackhole, unreachable,\n\
    prohibit, throw or local.\n\
    WORDS: metric N, table N|main|local, src ADDR, onlink, scope NAME, proto NAME,\n\
    mtu [lock] BYTES, advmss BYTES, initcwnd N, initrwnd N.\n\n\
    Examples:\n  \
    plumb route web add 10.0.0.0/8 via 192.168.0.254\n  \
    plumb route web replace default via 192.168.0.1 dev eth1\n  \
    plumb route web add blackhole 10.9.0.0/16 --with eth1\n  \
    plumb route web del 10.0.0.0/8\n  \
    plumb route web")]
pub struct Route {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::targets))]
    pub target: TargetName,
    /// What to do
    #[arg(value_enum, value_name = "ACTION", default_value_t = RouteVerb::Show)]
    pub verb: RouteVerb,
    /// The route, as ip route has it
    #[arg(value_name = "WORDS", add = ArgValueCandidates::new(complete::route_words))]
    pub words: Vec<String>,
    #[command(flatten)]
    pub version: Version,
    #[command(flatten)]
    pub how: ChangeOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RouteVerb {
    /// Add a route; one that is there already is refused
    Add,
    /// Delete a route, the first that is so
    #[value(alias = "delete")]
    Del,
    /// Add a route, or put it where another is
    Replace,
    /// Add a route behind those that are there; IPv4 only
    Append,
    /// List the routes of a table, and what they belong to
    #[value(aliases = ["list", "ls"])]
    Show,
}

/// Change the rules of a running container about which table decides
///
/// The words behind TARGET are those of ip rule. A rule belongs to the attachment whose interface it names
/// (iif, oif), or by which all routes of its table leave; otherwise to the newest. It is on that one's
/// record, and detach takes it back. Everything or nothing.
#[derive(Debug, Args)]
#[command(override_usage = "plumb rule TARGET add WORDS\n       \
    plumb rule TARGET del WORDS\n       \
    plumb rule TARGET [show]")]
#[command(after_help = "WORDS: not, from CIDR, to CIDR, iif IFNAME, oif IFNAME, fwmark N[/MASK],\n\
    priority N; and what becomes of the packets: table N|main|local (or lookup)\n\
    [suppress_prefixlength N], blackhole, unreachable, prohibit.\n\n\
    Examples:\n  \
    plumb rule web add from 192.168.0.0/24 table 100 priority 100\n  \
    plumb rule web add fwmark 0x10/0xff lookup 100 --with eth1\n  \
    plumb rule web del priority 100\n  \
    plumb rule web")]
pub struct Rule {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::targets))]
    pub target: TargetName,
    /// What to do
    #[arg(value_enum, value_name = "ACTION", default_value_t = RuleVerb::Show)]
    pub verb: RuleVerb,
    /// The rule, as ip rule has it
    #[arg(value_name = "WORDS", add = ArgValueCandidates::new(complete::rule_words))]
    pub words: Vec<String>,
    #[command(flatten)]
    pub version: Version,
    #[command(flatten)]
    pub how: ChangeOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuleVerb {
    /// Add a rule; one that is there already is refused
    Add,
    /// Delete a rule, the first that is so
    #[value(alias = "delete")]
    Del,
    /// List the rules, and what they belong to
    #[value(aliases = ["list", "ls"])]
    Show,
}

/// Change a running container's interface: MTU, MAC address, up, down, promiscuous mode, name
///
/// The words behind set are those of ip link set. What is changed is on the record of the attachment. An
/// interface that goes down loses its routes, as by ip; up puts back those on record. plumb knows a renamed
/// interface by either name.
#[derive(Debug, Args)]
#[command(
    override_usage = "plumb link TARGET set [IFNAME] [mtu BYTES] [mac ADDR] [up|down] [promisc on|off] [name IFNAME]\n       \
    plumb link TARGET [show [IFNAME]]"
)]
#[command(after_help = "Examples:\n  \
    plumb link web set eth1 mtu 1400\n  \
    plumb link web set mac auto:web\n  \
    plumb link web set eth1 down\n  \
    plumb link web set eth1 up name lan0\n  \
    plumb link web")]
pub struct Link {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::targets))]
    pub target: TargetName,
    /// What to do
    #[arg(value_enum, value_name = "ACTION", default_value_t = LinkVerb::Show)]
    pub verb: LinkVerb,
    /// The interface [default: the only one that plumb attached] and its settings, as ip link set has them
    #[arg(value_name = "WORDS", add = ArgValueCandidates::new(complete::link_words))]
    pub words: Vec<String>,
    #[command(flatten)]
    pub how: ChangeOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LinkVerb {
    /// Change settings of an interface
    Set,
    /// List the interfaces, or one, and which are plumb's
    #[value(aliases = ["list", "ls"])]
    Show,
}

/// The IP version, where the words do not tell it.
#[derive(Debug, Args)]
pub struct Version {
    /// Mean IPv4, where the words do not tell
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Mean IPv6, where the words do not tell
    #[arg(short = '6')]
    pub ipv6: bool,
}

/// How a change to what is there is made.
#[derive(Debug, Args)]
pub struct ChangeOptions {
    /// Let it belong to this attachment, which takes it back when it is detached
    #[arg(long, value_name = "IFNAME", conflicts_with = "unrecorded", add = ArgValueCandidates::new(complete::attached_interfaces))]
    pub with: Option<IfName>,
    /// Change what belongs to no attachment as well, such as what is Docker's own, and keep no record
    #[arg(long)]
    pub unrecorded: bool,
    /// Print the commands that do the same, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Let this host and its own containers reach one another
///
/// By itself a macvlan or ipvlan never talks to its parent. The shim is one more of them, of the host's own,
/// with a route to each container: those that are attached now, and those that will be. The host's
/// addresses and its way out stay what they are.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(override_usage = "plumb shim HOSTIF --ip ADDR [--route CIDR]... [OPTIONS]\n       \
    plumb shim --network NAME [OPTIONS]\n       \
    plumb shim ls\n       \
    plumb shim rm HOSTIF")]
#[command(after_help = "Examples:\n  \
    plumb shim eth0 --ip 192.168.0.254\n  \
    plumb shim eth0 --ip 192.168.0.254 --route 192.168.0.96/27\n  \
    plumb shim --network blue\n  \
    plumb shim rm eth0")]
pub struct Shim {
    #[command(subcommand)]
    pub verb: Option<ShimVerb>,
    /// The host's interface that the containers are on
    #[arg(value_name = "HOSTIF", add = ArgValueCandidates::new(complete::interfaces))]
    pub host_interface: Option<IfName>,
    /// Address of the host's own beside the containers', once for each IP version
    #[arg(long, value_name = "ADDR")]
    pub ip: Vec<WantedIp>,
    /// Lead these addresses by the shim, repeatable [default: each container's that is attached there]
    #[arg(long, value_name = "CIDR", conflicts_with = "network")]
    pub route: Vec<RouteSpec>,
    /// Beside the containers of this network, with an address of its pool
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::networks))]
    pub network: Option<NetworkName>,
    /// Take the address from the network's pool, as is done without --ip
    #[arg(long, requires = "network", conflicts_with = "ip")]
    pub from_pool: bool,
    /// Ask the LAN so long whether the address is taken, 0: don't [default: 200ms]
    #[arg(long, value_name = "DURATION")]
    pub probe: Option<Span>,
    /// Print the commands that do the same, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub enum ShimVerb {
    Ls(ShimLs),
    Rm(ShimRm),
}

/// List the shims and what they lead to
#[derive(Debug, Args)]
pub struct ShimLs {}

/// Take a shim away
#[derive(Debug, Args)]
pub struct ShimRm {
    /// The host's interface that the containers are on
    #[arg(value_name = "HOSTIF", add = ArgValueCandidates::new(complete::interfaces))]
    pub host_interface: IfName,
}

/// Put back what a reboot or a restart took: shims, the gateways of networks, and limits
///
/// The host's own interfaces, and the limits of containers that run again, such as on the interfaces of
/// Docker's networks. For a service that runs at boot, and at any time; what is there already is left alone.
#[derive(Debug, Args)]
pub struct Restore {
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Measure which way of connecting containers is fastest here
///
/// By itself it makes throw-away namespaces, connects a pair of them by each way, and measures all ways in
/// turns. Between two containers, or two hosts, it measures what connects them. Nothing is needed inside
/// the containers, and nothing is left behind.
#[derive(Debug, Args)]
#[command(override_usage = "plumb bench [OPTIONS]\n       \
    plumb bench CLIENT SERVER [OPTIONS]\n       \
    plumb bench --server TARGET [--port PORT]\n       \
    plumb bench TARGET --to ADDR [--port PORT] [OPTIONS]")]
#[command(after_help = "Examples:\n  \
    plumb bench\n  \
    plumb bench --ways bridge,macvlan --tests TCP_RR,UDP_RR --rounds 10\n  \
    plumb bench --tune --tests TCP_STREAM --streams 1\n  \
    plumb bench --report bench.html\n  \
    plumb bench web db\n  \
    plumb bench --server db                  # on one host, and on another:\n  \
    plumb bench web --to 192.168.0.57")]
pub struct Bench {
    /// Container that sends, and container that receives: name or id, podman:NAME, pid:N, netns:NAME or netns:/PATH, host: for this host
    #[arg(value_name = "TARGET", num_args = 0..=2, add = ArgValueCandidates::new(complete::targets))]
    pub targets: Vec<TargetName>,
    /// Be the receiver of a measurement from another host, in this target, until ctrl-C
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["targets", "to"], add = ArgValueCandidates::new(complete::targets))]
    pub server: Option<TargetName>,
    /// Measure to this address, where plumb bench --server listens
    #[arg(long, value_name = "ADDR", requires = "targets", conflicts_with_all = ["ways", "parent", "mtu"])]
    pub to: Option<std::net::IpAddr>,
    /// The TCP port by which --server and --to find one another
    #[arg(long, value_name = "PORT", default_value_t = 12866, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    #[command(flatten)]
    pub what: BenchWhat,
    #[command(flatten)]
    pub how: BenchHow,
    #[command(flatten)]
    pub into: BenchInto,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What to measure")]
pub struct BenchWhat {
    /// These ways, separated by commas [default: all that this kernel has]
    #[arg(long, value_name = "WAYS", value_enum, value_delimiter = ',', conflicts_with_all = ["targets", "server"])]
    pub ways: Vec<Way>,
    /// These tests, in netperf's meaning [default: all]
    #[arg(
        long,
        value_name = "TESTS",
        value_enum,
        value_delimiter = ',',
        ignore_case = true,
        conflicts_with = "server"
    )]
    pub tests: Vec<Test>,
    /// So many connections at once, each number by itself [default: 1,2,4,8,16 for TCP_STREAM, otherwise 1]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=64), conflicts_with = "server")]
    pub streams: Vec<u16>,
    /// Hang macvlan and ipvlan on this interface of the host, for as long as it takes [default: a throw-away veth]
    #[arg(long, value_name = "HOSTIF", conflicts_with_all = ["targets", "server"], add = ArgValueCandidates::new(complete::interfaces))]
    pub parent: Option<IfName>,
    /// Each way once more with segments of up to SIZE bytes, as --big-tcp of plumb flat makes them [default SIZE: 524280]
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "524280", value_parser = clap::value_parser!(u32).range(65_537..=524_280), conflicts_with_all = ["targets", "server"])]
    pub tune: Option<u32>,
    /// Largest packet between hosts in bytes [default: the parent's, or 1500]
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["targets", "server"])]
    pub mtu: Option<Mtu>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "How to measure")]
pub struct BenchHow {
    /// Each turn measures so long [default: 200ms to 1s, so that all take two and a half minutes]
    #[arg(long, value_name = "DURATION", conflicts_with = "server")]
    pub duration: Option<Span>,
    /// So many turns for each way and test
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Measure with another program's senders and receivers, for a cross-check; they count whole seconds
    #[arg(long, value_enum, default_value_t = Tool::Plumb, conflicts_with_all = ["server", "to"])]
    pub tool: Tool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct BenchInto {
    /// Print comma-separated values, a line for each way and test
    #[arg(long, conflicts_with_all = ["json", "markdown", "server"])]
    pub csv: bool,
    /// Print tables for a Markdown document
    #[arg(long, conflicts_with_all = ["json", "server"])]
    pub markdown: bool,
    /// Draw bars, throughput over streams and latencies into this file
    #[arg(long, value_name = "FILE.svg", value_hint = ValueHint::FilePath, conflicts_with = "server")]
    pub plot: Option<PathBuf>,
    /// Write one page of HTML with pictures, tables, the machine and how to repeat it
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath, conflicts_with = "server")]
    pub report: Option<PathBuf>,
}

/// List what is attached
#[derive(Debug, Args)]
pub struct Ls {}

/// Compare what is on record for a target with what the kernel has now
#[derive(Debug, Args)]
pub struct Show {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::attached))]
    pub target: TargetName,
}

/// Wait until an interface can be used: it is up, has carrier, and an address
///
/// Without TARGET in the network that plumb itself is run in, such as by a container's start script: that
/// takes no permissions, no engine and no store. An IPv6 address counts once the LAN was asked for it, and
/// link-local ones do not count. The kernel tells when to look, so that waiting takes no processor time. A
/// TARGET has to run; with --timeout its start is waited for as well.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    plumb wait && exec my-server             # in the container, until eth1 is ready\n  \
    plumb wait -i eth0 --timeout 30s\n  \
    plumb wait web --timeout 5s              # on the host")]
pub struct Wait {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH [default: where plumb is run]
    #[arg(add = ArgValueCandidates::new(complete::targets))]
    pub target: Option<TargetName>,
    /// The interface inside [default: eth1, as plumb calls the first one that it makes]
    #[arg(short = 'i', long, value_name = "IFNAME", add = ArgValueCandidates::new(complete::attached_interfaces))]
    pub interface: Option<IfName>,
    /// Be content with carrier alone when no address comes within this time, as on layer 2 only
    #[arg(long, value_name = "DURATION")]
    pub address_within: Option<Span>,
    /// Give up after this time, with exit code 7; 0: only look [default: never]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Span>,
}

/// Take back what a killed run left, and forget what no longer exists
#[derive(Debug, Args)]
pub struct Gc {
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Look whether this machine has what plumb needs, and say what to do where it has not
///
/// Looks at the kernel, permissions, engines, the host's interfaces, forwarding, the store, and what killed
/// runs left. Nothing is changed, and no module is loaded. The exit code is 0 only if nothing is missing that
/// VERB needs in its ordinary form; with --quiet nothing but that is said. With VERB only what has to do with it
/// is listed; without, all is, and each verb that lacks something is named.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  plumb doctor\n  plumb doctor attach -q && plumb attach web blue\n  \
    plumb doctor --json | jq -r '.findings[] | select(.state != \"ok\") | .remedy'")]
pub struct Doctor {
    /// What it is to work for [default: flat]
    #[arg(value_enum)]
    pub verb: Option<DoctorVerb>,
}

/// The verbs that need more than plumb itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DoctorVerb {
    Flat,
    Dhcp,
    CreateVlan,
    Attach,
    Detach,
    Qos,
    Route,
    Rule,
    Link,
    Shim,
    Restore,
    Agent,
    Bench,
    Gc,
    Pipework,
}

impl DoctorVerb {
    /// The verb as it is typed, such as `create-vlan`.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Work on stores as a whole
#[derive(Debug, Args)]
pub struct StoreVerbs {
    #[command(subcommand)]
    pub verb: StoreVerb,
}

#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    Copy(StoreCopy),
}

/// Copy all that one store holds into another
///
/// Attachments, networks, and who has which address. The source stays as it is, and what the other
/// store holds already as well; if the two disagree nothing is copied. A directory is one host's
/// alone: its records go under this host's id into etcd, and of those in etcd it takes this host's.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  plumb store copy /var/lib/plumb etcd://10.0.0.1,10.0.0.2,10.0.0.3\n  \
    plumb store copy etcd://10.0.0.1 /var/lib/plumb --dry-run")]
pub struct StoreCopy {
    /// Where from: a directory, or etcd://HOST
    #[arg(value_hint = ValueHint::DirPath)]
    pub from: String,
    /// Where to: a directory, or etcd://HOST
    #[arg(value_hint = ValueHint::DirPath)]
    pub to: String,
    /// Say what would be copied, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  plumb completions bash > /etc/bash_completion.d/plumb\n  plumb completions zsh > /usr/local/share/zsh/site-functions/_plumb"
)]
pub struct Completions {
    /// The shell to complete in
    pub shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    pub fn name(self) -> &'static str {
        match self {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
        }
    }
}

/// Do what a pipework command line says
///
/// The words are pipework's own, in its order, and each attachment is recorded like any other: listed, detached and
/// shown by the same verbs. A link to plumb that is called pipework does the same, so that scripts run as they are.
/// docs/from-pipework.md has each line beside the new one.
#[derive(Debug, Args)]
#[command(
    override_usage = "plumb pipework [--dry-run] HOSTIF [-i IF] [-l HOSTEND] [-a 4|6] GUEST ADDR/LEN[@GATEWAY] [MAC][@VLAN]\n       \
    plumb pipework [--dry-run] route|rule|tc GUEST WORD...\n       \
    plumb pipework --wait [-i IF]"
)]
#[command(after_help = "Examples:\n  \
    plumb pipework eth0 web 192.168.0.100/24@192.168.0.1\n  \
    plumb pipework --dry-run br0 -i eth2 web dhcp U:web@10\n  \
    ln -s $(command -v plumb) /usr/local/bin/pipework")]
pub struct Pipework {
    /// Print the command that does the same, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// pipework's own words; none: print its syntax
    #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// What was typed. Called as pipework plumb takes all words for that verb's.
pub fn typed() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let is_pipework =
        words.first().is_some_and(|name| std::path::Path::new(name).file_name() == Some("pipework".as_ref()));
    if is_pipework {
        words.splice(..1, ["plumb", "pipework", "--"].map(OsString::from));
    }
    words
}
