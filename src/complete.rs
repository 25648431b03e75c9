//! What the shell offers at TAB: the containers and interfaces that are there at this moment.

use std::{collections::BTreeSet, fs};

use clap_complete::CompletionCandidate;

use crate::{
    config::{self, Config},
    docker::{Engine, EngineKind},
    store::{self, Access, Attachment},
    types::{LINK_WORDS, ROUTE_WORDS, RULE_WORDS},
};

/// Running containers by name, and named namespaces.
pub fn targets() -> Vec<CompletionCandidate> {
    let address = config::variable("DOCKER_HOST")
        .or_else(|| config().docker)
        .unwrap_or_else(|| EngineKind::Docker.default_address().into());
    let containers =
        Engine::connect(EngineKind::Docker, &address).and_then(|engine| engine.list(false)).unwrap_or_default();
    let containers = containers
        .into_iter()
        .map(|(name, id)| CompletionCandidate::new(name).help(Some(id.get(..12).unwrap_or(&id).to_owned().into())));
    let namespaces = file_names("/run/netns")
        .into_iter()
        .map(|name| CompletionCandidate::new(format!("netns:{name}")).help(Some("namespace".into())));
    containers.chain(namespaces).collect()
}

/// The targets that something is attached to.
pub fn attached() -> Vec<CompletionCandidate> {
    each_attachment(|attachment| attachment.target.to_string())
}

/// The interfaces that were attached, to whichever target.
pub fn attached_interfaces() -> Vec<CompletionCandidate> {
    each_attachment(|attachment| attachment.name_now().to_owned())
}

/// The targets that have limits.
pub fn limited() -> Vec<CompletionCandidate> {
    let Ok(store) = open_store() else { return Vec::new() };
    let kept = store::shaped::all(&*store, None).unwrap_or_default();
    let names: BTreeSet<String> = kept.into_iter().flatten().map(|shaped| shaped.target.to_string()).collect();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// What ip route, ip rule and ip link set understand, as far as plumb does.
pub fn route_words() -> Vec<CompletionCandidate> {
    ROUTE_WORDS.into_iter().map(CompletionCandidate::new).collect()
}

pub fn rule_words() -> Vec<CompletionCandidate> {
    RULE_WORDS.into_iter().map(CompletionCandidate::new).collect()
}

/// Behind the interface, which comes first.
pub fn link_words() -> Vec<CompletionCandidate> {
    attached_interfaces().into_iter().chain(LINK_WORDS.map(CompletionCandidate::new)).collect()
}

/// The networks that there are.
pub fn networks() -> Vec<CompletionCandidate> {
    let Ok(store) = open_store() else { return Vec::new() };
    let networks = store::network::all(&*store).unwrap_or_default().into_iter().flatten();
    let describe = |network: store::Network| {
        let subnets: Vec<String> = network.pools.iter().map(|pool| pool.subnet.to_string()).collect();
        CompletionCandidate::new(network.name.to_string()).help(Some(subnets.join(", ").into()))
    };
    networks.map(describe).collect()
}

fn open_store() -> crate::error::Result<Box<dyn store::Store>> {
    let place = config::variable("PLUMB_STORE").or_else(|| config().store).unwrap_or_else(|| store::DEFAULT.into());
    store::open(&place, || config().access(Access::default(), None))
}

fn each_attachment(name: impl Fn(&Attachment) -> String) -> Vec<CompletionCandidate> {
    let Ok(store) = open_store() else { return Vec::new() };
    let kept = store::attachment::all(&*store, None).unwrap_or_default();
    let names: BTreeSet<String> = kept.into_iter().flatten().map(|attachment| name(&attachment)).collect();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The host's interfaces, but the loopback.
pub fn interfaces() -> Vec<CompletionCandidate> {
    file_names("/sys/class/net").into_iter().filter(|name| name != "lo").map(CompletionCandidate::new).collect()
}

fn config() -> Config {
    Config::read(config::path(None).as_deref()).unwrap_or_default()
}

fn file_names(folder: &str) -> Vec<String> {
    let entries =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}
