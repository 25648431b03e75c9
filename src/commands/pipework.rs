//! `plumb pipework`, or plumb called as `pipework`: the old command line, by plumb's own verbs.

use clap::Args;

use super::{Context, attaching, refuse_host, require_capabilities};
use crate::{
    cli::{Cli, Global, Pipework, Verb},
    container::{self, Engines},
    docker::{Engine, EngineKind},
    error::{Error, Kind as Failure, Result},
    kernel::{Kernel, Netns, ovs},
    namespace,
    output::Output,
    pipework::{self, Attach, Found, HostInterface, Inside, Kind, Request, Said, Tool},
    plan::render::quote,
    types::{IfName, Mac, Place, TargetName},
};

pub fn run(options: Pipework, global: Global, output: Output) -> Result<()> {
    let Some(request) = pipework::read(&options.words)? else {
        output.line(pipework::SYNTAX);
        let error = Error::failed("these words make no pipework command")
            .hint("plumb pipework, without any, prints the syntax");
        return Err(Error { said: !output.json, ..error });
    };
    let host = match &request {
        Request::Attach(attach) => Some(look(attach, &global, output)?),
        Request::Wait { .. } | Request::Inside(_) => None,
    };
    let said = pipework::say(&request, host.as_ref())?;
    said.notes.iter().for_each(|note| output.warn(note));
    if let Request::Inside(inside) = &request
        && !inside.is_a_change_of_plumbs()
    {
        return by_iproute(inside, options.dry_run, global, output);
    }
    if options.dry_run {
        verb(&said)?;
        tell(&said, output);
        return Ok(());
    }
    output.explain(&said.to_string());
    let outcome = verb(&said).and_then(|verb| super::run(Cli { global: global.clone(), verb }, output));
    match (request, outcome) {
        (Request::Attach(attach), Err(error)) if error.kind == Failure::NotFound => {
            again_if_it_starts(&attach.guest, said, error, global, output)
        }
        // Such as where nothing of plumb's is attached. What the program refuses as well it says itself.
        (Request::Inside(inside), Err(error)) if matches!(error.kind, Failure::Usage | Failure::NotFound) => {
            by_iproute(&inside, false, global, output)
        }
        (_, outcome) => outcome.map_err(|error| of_plumbs_own(error, &said)),
    }
}

/// A hint names the options of the verb that was run.
fn of_plumbs_own(error: Error, said: &Said) -> Error {
    let hint = error.hint.map(|hint| match (hint.contains("--"), said.words.first()) {
        (true, Some(verb)) => format!("{hint} (options of plumb {verb}, whose line -v prints)"),
        _ => hint,
    });
    Error { hint, ..error }
}

/// The command that does the same.
fn tell(command: &impl std::fmt::Display, output: Output) {
    output.document(&serde_json::json!({ "dry_run": true, "commands": [command.to_string()] }));
    output.line(command);
}

/// The verb that a line of plumb's own means. Only that one's options are set up, as those of all verbs take a
/// third of a millisecond.
fn verb(said: &Said) -> Result<Verb> {
    let verb = match said.words.first().map_or("", String::as_str) {
        "flat" => options(said).map(Verb::Flat),
        "dhcp" => options(said).map(Verb::Dhcp),
        "route" => options(said).map(Verb::Route),
        "rule" => options(said).map(Verb::Rule),
        _ => options(said).map(Verb::Wait),
    };
    verb.map_err(|error| {
        let text = error.render().to_string();
        Error::usage(text.lines().next().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// What a verb is given, with its name in the place of the program's.
fn options<O: Args>(said: &Said) -> std::result::Result<O, clap::Error> {
    let typed = O::augment_args(clap::Command::new("plumb")).try_get_matches_from(&said.words)?;
    O::from_arg_matches(&typed)
}

/// What the host has under the name that was typed.
fn look(attach: &Attach, global: &Global, output: Output) -> Result<Found> {
    let mut kernel = Kernel::with_host()?;
    let name = match &attach.host {
        HostInterface::Named(text) => text.parse().map_err(Error::failed)?,
        HostInterface::WithMac(mac) => with_mac(*mac, &mut kernel)?,
    };
    let kind = match kernel.host_link(&name)? {
        None => None,
        Some(link) => Some(match link.kind.as_deref() {
            Some("bridge") => Kind::Bridge,
            // Its bridges may be programs' own, which have no kind but that.
            Some("openvswitch" | "tun") if ovs::is_bridge(&name)? == Some(true) => Kind::OpenVswitch,
            Some("ipoib") => Kind::Infiniband,
            None if kernel.parent(&name)?.is_some_and(|parent| parent.wireless) => Kind::Wifi,
            None | Some(_) => Kind::Other,
        }),
    };
    let found = Found { name, kind, pid: None };
    if kind.is_none() && !attach.is_made(&found) {
        let hint = attaching::parent(&mut kernel, &found.name).err().and_then(|error| error.hint);
        return Err(Error { hint, ..Error::failed(format!("I do not know how to setup interface {}.", found.name)) });
    }
    if !attach.needs_pid(&found) {
        return Ok(found);
    }
    // Whoever cannot be found is refused by the verb, which says why.
    let context = Context::new(global.clone(), output)?;
    let target = guest(&attach.guest).and_then(|name| container::find(&name, &context.engines, None));
    let pid = match target.map(|target| target.place) {
        Ok(Place::Process { pid, .. }) => Some(pid),
        Ok(Place::Path(_)) | Err(_) => None,
    };
    Ok(Found { pid, ..found })
}

/// The first interface by name that has this MAC address.
fn with_mac(mac: Mac, kernel: &mut Kernel) -> Result<IfName> {
    let mut links = kernel.host_links()?;
    links.sort_by(|one, other| one.name.cmp(&other.name));
    let Some(link) = links.iter().find(|link| link.mac == Some(mac.bytes())) else {
        return Err(Error::failed(format!("no interface of the host has the MAC address {mac}"))
            .hint("ip -br link lists what they have"));
    };
    link.name.parse().map_err(Error::failed)
}

fn guest(text: &str) -> Result<TargetName> {
    text.parse().map_err(Error::failed)
}

/// pipework gives a container that does not run yet three seconds.
fn again_if_it_starts(name: &str, said: Said, error: Error, global: Global, output: Output) -> Result<()> {
    let TargetName::Docker(container) = guest(name)? else { return Err(error) };
    let engines = Context::new(global.clone(), output)?.engines;
    if is_known(&container, &engines) {
        let words = said.words.into_iter().chain(["--wait".to_owned(), "3s".to_owned()]).collect();
        return super::run(Cli { global, verb: verb(&Said { words, ..said })? }, output);
    }
    let lxc = "an LXC container is named by a process of its own: pid:N";
    let hint = error.hint.as_ref().map_or(lxc.to_owned(), |hint| format!("{hint}; {lxc}"));
    Err(error.hint(hint))
}

fn is_known(container: &str, engines: &Engines) -> bool {
    Engine::connect(EngineKind::Docker, &engines.docker).and_then(|engine| engine.inspect(container)).is_ok()
}

/// By the program that pipework would start, in the guest's namespace: plumb has no verb for the words.
fn by_iproute(inside: &Inside, dry_run: bool, global: Global, output: Output) -> Result<()> {
    let (program, object) = match inside.tool {
        Tool::Route => ("ip", Some("route")),
        Tool::Rule => ("ip", Some("rule")),
        Tool::Tc => ("tc", None),
    };
    let version = inside.ipv6.then_some("-6");
    let words: Vec<&str> = version.into_iter().chain(object).chain(inside.words.iter().map(String::as_str)).collect();
    let context = Context::new(global, output)?;
    let name = guest(&inside.guest)?;
    refuse_host(&name, "changes")?;
    let target = container::find(&name, &context.engines, None)?;
    if dry_run {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        tell(&format!("nsenter --net={} {program} {}", target.place.path().display(), words.join(" ")), output);
        return Ok(());
    }
    require_capabilities()?;
    let namespace = namespace::open(&target, &Netns::of_this_thread()?)?;
    // Started from a thread that is inside, a program is inside as well.
    let status = namespace.look_inside(|_| {
        std::process::Command::new(program).args(&words).status().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::failed(format!("{program} is not installed on this host"))
                .hint("it comes with iproute2; plumb itself has no verb for these words"),
            _ => Error::io(format!("cannot start {program}"), &error),
        })
    })?;
    if !status.success() {
        // It has said why.
        return Err(Error { said: true, ..Error::failed(format!("{program} failed: {status}")) });
    }
    let only_looks = ["show", "list", "ls", "lst", "get", "save", "monitor"];
    if !words.iter().any(|word| only_looks.contains(word)) {
        output
            .warn(&format!("done by {program} itself, so it is not on record and plumb detach does not take it back"));
    }
    Ok(())
}
