//! One file a verb, each a short story: find → look → plan → apply → record → say.

mod agent;
mod attach;
mod attaching;
mod bench;
mod changing;
mod completions;
mod create_vlan;
mod delete_vlan;
mod detach;
mod dhcp;
mod doctor;
mod flat;
mod gc;
pub mod keeper;
mod leases;
mod link;
mod ls;
mod networks;
mod pipework;
mod qos;
mod records;
mod restore;
mod route;
mod rule;
mod shim;
mod show;
mod siblings;
mod store;
mod take_back;
mod wait;

use std::ffi::OsString;

use caps::{CapSet, Capability};

use crate::{
    cli::{AccessOptions, Cli, Global, StoreVerbs, Verb},
    config::{self, Config},
    container::Engines,
    docker::EngineKind,
    error::{Error, RUN_AS_ROOT, Result},
    namespace,
    output::Output,
    store::{Access, Store},
    types::TargetName,
};

/// What every verb needs.
pub struct Context {
    pub store: Box<dyn Store>,
    pub engines: Engines,
    pub config: Config,
    pub output: Output,
    /// The global options as they were typed, for the agent.
    settings: Vec<OsString>,
}

impl Context {
    /// Settles each setting: flag or variable first, then the file, then what is built in.
    fn new(global: Global, output: Output) -> Result<Context> {
        let settings = global.settings();
        let config = Config::read(config::path(global.config.clone()).as_deref())?;
        let engines = engines(&global, &config);
        let store = open_store(&store_place(&global, &config), global.access, &config)?;
        Ok(Context { store, engines, config, output, settings })
    }
}

/// What was typed, or is in the environment, or in the file, or built in.
fn settle(typed: &Option<String>, variable: &str, filed: &Option<String>, built_in: &str) -> String {
    let typed = typed.clone().or_else(|| config::variable(variable));
    typed.or_else(|| filed.clone()).unwrap_or_else(|| built_in.to_owned())
}

fn engines(global: &Global, config: &Config) -> Engines {
    Engines {
        docker: settle(&global.docker, "DOCKER_HOST", &config.docker, EngineKind::Docker.default_address()),
        podman: settle(&global.podman, "PLUMB_PODMAN", &config.podman, EngineKind::Podman.default_address()),
    }
}

fn store_place(global: &Global, config: &Config) -> String {
    settle(&global.store, "PLUMB_STORE", &config.store, crate::store::DEFAULT)
}

fn open_store(place: &str, typed: AccessOptions, config: &Config) -> Result<Box<dyn Store>> {
    let AccessOptions { store_ca: ca, store_cert: cert, store_key: key, store_password_file } = typed;
    crate::store::open(place, || config.access(Access { ca, cert, key, ..Access::default() }, store_password_file))
}

pub fn run(typed: Cli, output: Output) -> Result<()> {
    let context = |global| Context::new(global, output);
    match typed.verb {
        Verb::Flat(options) => flat::run(options, &context(typed.global)?),
        Verb::CreateVlan(options) => create_vlan::run(options, &context(typed.global)?),
        Verb::DeleteVlan(options) => delete_vlan::run(options, &context(typed.global)?),
        Verb::Networks(_) => networks::run(&context(typed.global)?),
        Verb::Attach(options) => attach::run(options, &context(typed.global)?),
        Verb::Dhcp(options) => dhcp::run(options, &context(typed.global)?),
        Verb::Agent(options) => agent::run(options, context(typed.global)?),
        Verb::Leases(_) => leases::run(&context(typed.global)?),
        Verb::Detach(options) => detach::run(options, &context(typed.global)?),
        Verb::Qos(options) => qos::run(options, &context(typed.global)?),
        Verb::Route(options) => route::run(options, &context(typed.global)?),
        Verb::Rule(options) => rule::run(options, &context(typed.global)?),
        Verb::Link(options) => link::run(options, &context(typed.global)?),
        Verb::Shim(options) => shim::run(options, &context(typed.global)?),
        Verb::Restore(options) => restore::run(&options, &context(typed.global)?),
        Verb::Bench(options) => bench::run(options, &context(typed.global)?),
        Verb::Ls(_) => ls::run(&context(typed.global)?),
        Verb::Show(options) => show::run(options, &context(typed.global)?),
        Verb::Wait(options) => wait::run(options, typed.global, output),
        Verb::Doctor(options) => doctor::run(options, typed.global, output),
        Verb::Gc(options) => gc::run(options, &context(typed.global)?),
        Verb::Store(StoreVerbs { verb }) => {
            let config = Config::read(config::path(typed.global.config).as_deref())?;
            store::run(verb, typed.global.access, &config, output)
        }
        Verb::Completions(options) => completions::run(options),
        Verb::Pipework(options) => pipework::run(options, typed.global, output),
    }
}

/// This host itself is for plumb's own interfaces only. `does` is what plumb does to others.
fn refuse_host(target: &TargetName, does: &str) -> Result<()> {
    match target {
        TargetName::Host => Err(Error::usage(format!("host: is this host itself; plumb {does} containers"))
            .hint("name a container, pid:N or netns:NAME; the host has its own ip")),
        _ => Ok(()),
    }
}

/// What is needed to change network namespaces, and what for.
const CAPABILITIES: [(Capability, &str); 3] = [
    (Capability::CAP_NET_ADMIN, "to make interfaces"),
    (Capability::CAP_SYS_ADMIN, "to enter namespaces"),
    (Capability::CAP_NET_RAW, "to speak ARP"),
];

/// Whether the process has no such capability.
fn lacks(capability: Capability) -> bool {
    !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// An error unless the process may change network namespaces.
fn require_capabilities() -> Result<()> {
    let missing = CAPABILITIES.into_iter().filter(|(capability, _)| lacks(*capability));
    let missing: Vec<String> = missing.map(|(capability, purpose)| format!("{capability} ({purpose})")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::not_permitted(format!("not permitted: this process lacks {}", missing.join(", "))).hint(RUN_AS_ROOT))
}
