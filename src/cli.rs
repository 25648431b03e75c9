//! Every flag, once. What was typed, not what it means: help, man pages and completions come from here.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCandidates;

use crate::{
    complete,
    types::{Gateway, IfName, IpChoice, Mac, MacChoice, Mtu, RouteSpec, Span, TargetName},
};

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
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
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
    /// Where records are kept [env: PLUMB_STORE] [default: /var/lib/plumb]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub store: Option<String>,
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

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process")]
pub enum Verb {
    Flat(Flat),
    Detach(Detach),
    Ls(Ls),
    Show(Show),
    Gc(Gc),
    Completions(Completions),
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
    plumb flat web -i wlan0 --ip 192.168.0.100/24 --gateway 192.168.0.1 --driver ipvlan\n  \
    plumb flat web -i eth0 --ip 192.168.0.100/24 --route '10.0.0.0/8,via 192.168.0.254' --dry-run")]
pub struct Flat {
    /// Container (name or id), podman:NAME, pid:N, netns:NAME or netns:/PATH
    #[arg(add = ArgValueCandidates::new(complete::targets))]
    pub target: TargetName,
    /// The host's interface on the LAN
    #[arg(short = 'i', long, value_name = "HOSTIF", add = ArgValueCandidates::new(complete::interfaces))]
    pub host_interface: Option<IfName>,
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
    /// Name of the interface inside [default: the first free ethN, from eth1]
    #[arg(long, value_name = "IFNAME")]
    pub name: Option<IfName>,
    /// MAC address, or auto:STRING to derive one [default: derived from host, target and interface]
    ///
    /// Not for ipvlan and mode passthru, where it is the parent's.
    #[arg(long, value_name = "MAC")]
    pub mac: Option<MacChoice>,
    /// Largest packet in bytes [default: the parent's]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<Mtu>,
    /// Use a wifi parent although access points usually drop foreign MAC addresses
    #[arg(long)]
    pub allow_wifi: bool,
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

/// Take back what a killed run left, and forget what no longer exists
#[derive(Debug, Args)]
pub struct Gc {
    /// Say what would be done, and change nothing
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

/// The command line as a whole.
pub fn command() -> clap::Command {
    Cli::command()
}
