//! A container engine that speaks Docker's API on a Unix socket: Docker itself, or Podman.

use std::{
    io::ErrorKind,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    Docker,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HostConfig, ResourcesUlimits},
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, ListContainersOptions, LogsOptions, RemoveContainerOptions,
        StartContainerOptions,
    },
};
use futures_util::StreamExt;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};
use tokio::runtime::Runtime;

use crate::error::{Error, RUN_AS_ROOT, Result};

/// A local engine answers in about a millisecond; one that is silent for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(2);
/// What to do about one that is silent.
const STUCK: &str = "is the engine hung? pid:N and netns:NAME work without it";
/// To make a container it takes longer, on a busy host much longer.
const TO_MAKE: Duration = Duration::from_secs(20);

/// By this label plumb knows the containers that it made, and who was to remove them.
const KEPT_BY: &str = "netplumb.kept-by";

/// A connection to an engine.
pub struct Engine {
    kind: EngineKind,
    socket: PathBuf,
    client: Docker,
    runtime: Runtime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    Docker,
    Podman,
}

impl EngineKind {
    /// The engine that is called so.
    pub fn named(name: &str) -> Option<EngineKind> {
        [EngineKind::Docker, EngineKind::Podman].into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Docker => "Docker",
            EngineKind::Podman => "Podman",
        }
    }

    /// The command that people drive it by.
    pub fn command(self) -> &'static str {
        match self {
            EngineKind::Docker => "docker",
            EngineKind::Podman => "podman",
        }
    }

    pub fn default_address(self) -> &'static str {
        match self {
            EngineKind::Docker => "unix:///var/run/docker.sock",
            EngineKind::Podman => "unix:///run/podman/podman.sock",
        }
    }

    fn how_to_start(self) -> &'static str {
        match self {
            EngineKind::Docker => {
                "is the engine running? systemctl start docker; another socket is named with --docker or DOCKER_HOST"
            }
            EngineKind::Podman => "systemctl start podman.socket, or: podman system service -t 0",
        }
    }
}

/// What an engine knows of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// Without the slash that Docker writes before it.
    pub name: String,
    pub state: State,
    pub network: NetworkMode,
    /// Ports published on the host, such as `8080->80/tcp`.
    pub published: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Running(Running),
    /// Its processes are frozen, but its namespace is there.
    Paused(Running),
    Restarting,
    Dead,
    /// Created, exited, being removed: in the engine's own word.
    Stopped(String),
}

/// One run of a container. A restart changes both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub pid: u32,
    /// The engine's own time stamp.
    pub started_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    Own,
    Host,
    /// Another container's namespace, by its name or id.
    Of(String),
}

/// A container that works beside another one, in its network.
pub struct Sidecar<'a> {
    pub name: &'a str,
    pub image: &'a str,
    /// The container whose network it shares.
    pub target: &'a str,
    pub command: Vec<String>,
    pub environment: Vec<String>,
    /// What it sees of the host, and where: `/from:/to:ro`.
    pub binds: Vec<String>,
    pub capabilities: &'a [&'a str],
    /// The process that removes it.
    pub kept_by: String,
}

impl Engine {
    /// Prepares a connection to the engine at `address`, `unix:///path` or a path. Nothing is sent yet.
    pub fn connect(kind: EngineKind, address: &str) -> Result<Engine> {
        Engine::connect_for(kind, address, PATIENCE)
    }

    /// The same to make containers.
    pub fn connect_to_make(kind: EngineKind, address: &str) -> Result<Engine> {
        Engine::connect_for(kind, address, TO_MAKE)
    }

    fn connect_for(kind: EngineKind, address: &str, patience: Duration) -> Result<Engine> {
        let path = match address.split_once("://") {
            Some(("unix", path)) => path,
            Some((scheme, _)) => {
                return Err(Error::usage(format!(
                    "{address}: plumb must run on the engine's own host and reach it by a Unix socket, not by {scheme}"
                ))
                .hint(format!("unset DOCKER_HOST, or give --docker {}", kind.default_address())));
            }
            None => address,
        };
        let socket = PathBuf::from(path);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::io("cannot start the event loop", &error))?;
        // The version goes into no path: unversioned ones serve every engine, old and new.
        let client = Docker::connect_with_unix(path, patience.as_secs(), bollard::API_DEFAULT_VERSION)
            .map_err(|_| no_answer(kind, &socket))?;
        Ok(Engine { kind, socket, client, runtime })
    }

    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// The container of that name, or whose id begins so.
    pub fn inspect(&self, name: &str) -> Result<Container> {
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.client.inspect_container(name, None::<InspectContainerOptions>)).await
        });
        match answer {
            Err(_) => Err(self.silent()),
            Ok(Ok(answer)) => self.container(answer, name),
            Ok(Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })) => {
                Err(self.unknown(name))
            }
            Ok(Err(bollard::errors::Error::DockerResponseServerError { message, .. })) => {
                Err(self.ambiguous(name).unwrap_or_else(|| {
                    Error::failed(format!("{} refuses to tell about {name}: {message}", self.kind.name()))
                }))
            }
            Ok(Err(error)) => Err(self.unreachable(&error)),
        }
    }

    /// Its version, and that of its API.
    pub fn version(&self) -> Result<(String, String)> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.client.version()).await });
        let answer = answer.map_err(|_| self.silent())?.map_err(|error| self.unreachable(&error))?;
        let unknown = || "unknown".to_owned();
        Ok((answer.version.unwrap_or_else(unknown), answer.api_version.unwrap_or_else(unknown)))
    }

    /// Names and ids of all containers; only of the running ones unless `all`.
    pub fn list(&self, all: bool) -> Result<Vec<(String, String)>> {
        let options = ListContainersOptions { all, ..Default::default() };
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.client.list_containers(Some(options))).await });
        let containers = answer.map_err(|_| self.silent())?.map_err(|error| self.unreachable(&error))?;
        let name_and_id = |container: bollard::models::ContainerSummary| {
            let name = container.names?.into_iter().next()?;
            Some((name.trim_start_matches('/').to_owned(), container.id?))
        };
        Ok(containers.into_iter().filter_map(name_and_id).collect())
    }

    /// Refuses an image that is not there: what plumb does must not hang on a registry.
    pub fn require_image(&self, image: &str) -> Result<()> {
        match self.runtime.block_on(self.client.inspect_image(image)) {
            Ok(_) => Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                Err(Error::not_found(format!("{} has no image {image}", self.kind.name()))
                    .hint(format!("{} pull {image}, or name another with --client-image", self.kind.command())))
            }
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    /// Makes and starts a container beside another one. One of the same name makes way.
    pub fn run_beside(&self, sidecar: Sidecar<'_>) -> Result<()> {
        let name = sidecar.name;
        self.remove(name)?;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let few = |what: &str| ResourcesUlimits { name: Some(what.to_owned()), soft: Some(1024), hard: Some(1024) };
        let host_config = HostConfig {
            network_mode: Some(format!("container:{}", sidecar.target)),
            binds: Some(sidecar.binds),
            cap_drop: Some(words(&["ALL"])),
            cap_add: Some(words(sidecar.capabilities)),
            readonly_rootfs: Some(true),
            // Engines set limits of their own, and may not be allowed to raise them.
            ulimits: Some(["nofile", "nproc"].map(few).into()),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(sidecar.image.to_owned()),
            entrypoint: Some(sidecar.command),
            cmd: Some(Vec::new()),
            env: Some(sidecar.environment),
            labels: Some([(KEPT_BY.to_owned(), sidecar.kept_by)].into()),
            host_config: Some(host_config),
            ..Default::default()
        };
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        let made = self.runtime.block_on(async {
            self.client.create_container(Some(options), body).await?;
            self.client.start_container(name, None::<StartContainerOptions>).await
        });
        made.map_err(|error| match error {
            bollard::errors::Error::DockerResponseServerError { message, .. } => {
                Error::failed(format!("{} cannot run {}: {message}", self.kind.name(), sidecar.image))
            }
            error => self.unreachable(&error),
        })
    }

    /// Ends and removes a container that plumb made. One that is not there is fine.
    pub fn remove(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        match self.runtime.block_on(self.client.remove_container(name, Some(options))) {
            // 409: somebody removes it already.
            Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    /// The last line that a container has printed.
    pub fn last_words(&self, name: &str) -> Option<String> {
        let options = LogsOptions { stdout: true, stderr: true, tail: "1".into(), ..Default::default() };
        let line = self.runtime.block_on(async { self.client.logs(name, Some(options)).next().await });
        line?.ok().map(|line| line.to_string().trim().to_owned()).filter(|line| !line.is_empty())
    }

    /// The containers that plumb made, each with the process that was to remove it.
    pub fn sidecars(&self) -> Result<Vec<(String, String)>> {
        let filters = [("label".to_owned(), vec![KEPT_BY.to_owned()])].into();
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let found = self.runtime.block_on(self.client.list_containers(Some(options)));
        let name_and_keeper = |container: bollard::models::ContainerSummary| {
            let name = container.names?.into_iter().next()?;
            Some((name.trim_start_matches('/').to_owned(), container.labels?.remove(KEPT_BY)?))
        };
        Ok(found.map_err(|error| self.unreachable(&error))?.into_iter().filter_map(name_and_keeper).collect())
    }

    fn container(&self, answer: ContainerInspectResponse, asked: &str) -> Result<Container> {
        let incomplete = || Error::failed(format!("{} told too little about {asked}", self.kind.name()));
        let id = answer.id.ok_or_else(incomplete)?;
        let name = answer.name.unwrap_or_else(|| id.clone()).trim_start_matches('/').to_owned();
        let state = answer.state.ok_or_else(incomplete)?;
        let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let running = pid.map(|pid| Running { pid, started_at: state.started_at.unwrap_or_default() });
        let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY);
        let state = match (status, running) {
            (ContainerStateStatusEnum::RESTARTING, _) => State::Restarting,
            (ContainerStateStatusEnum::DEAD, _) => State::Dead,
            (ContainerStateStatusEnum::PAUSED, Some(running)) => State::Paused(running),
            (ContainerStateStatusEnum::RUNNING, Some(running)) => State::Running(running),
            (status, _) => State::Stopped(status.to_string()),
        };
        let mode = answer.host_config.and_then(|host| host.network_mode).unwrap_or_default();
        let network = match mode.split_once(':') {
            _ if mode == "host" => NetworkMode::Host,
            Some(("container", of)) => NetworkMode::Of(of.to_owned()),
            _ => NetworkMode::Own,
        };
        let ports = answer.network_settings.and_then(|settings| settings.ports).unwrap_or_default();
        let published = ports
            .into_iter()
            .filter_map(|(inside, outside)| Some((inside, outside?.into_iter().next()?.host_port?)))
            .map(|(inside, outside)| format!("{outside}->{inside}"))
            .collect();
        Ok(Container { id, name, state, network, published })
    }

    fn unknown(&self, name: &str) -> Error {
        if let Some(error) = self.ambiguous(name) {
            return error;
        }
        let error = Error::not_found(format!("{} has no container {name}", self.kind.name()));
        let names: Vec<String> = self.list(true).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
        error.hint(match crate::types::nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => format!(
                "{} ps -a lists them; other targets are written podman:NAME, pid:N, netns:NAME",
                self.kind.command()
            ),
        })
    }

    /// An error if `name` begins the ids of several containers.
    fn ambiguous(&self, name: &str) -> Option<Error> {
        let containers = self.list(true).ok()?;
        let matching: Vec<String> = containers
            .iter()
            .filter(|(_, id)| id.starts_with(name))
            .map(|(name, id)| format!("{name} ({})", id.get(..12).unwrap_or(id)))
            .collect();
        (matching.len() > 1).then(|| {
            Error::not_found(format!("{name} is ambiguous: the ids of {} begin so", matching.join(" and ")))
                .hint("give more of the id, or the name")
        })
    }

    fn silent(&self) -> Error {
        Error::timed_out(format!(
            "{} did not answer on {} within {} s",
            self.kind.name(),
            self.socket.display(),
            PATIENCE.as_secs()
        ))
        .hint(STUCK)
    }

    fn unreachable(&self, error: &bollard::errors::Error) -> Error {
        match error {
            bollard::errors::Error::RequestTimeoutError => self.silent(),
            _ => match knock(&self.socket) {
                Err(_) => no_answer(self.kind, &self.socket),
                Ok(()) => Error::failed(format!(
                    "{} answers on {} with something else than its API: {error}",
                    self.kind.name(),
                    self.socket.display()
                )),
            },
        }
    }
}

/// Connects, and waits for nothing: where the queue of a stuck engine is full a connection would wait for ever.
fn knock(socket: &Path) -> std::io::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let ours = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    Ok(nix::sys::socket::connect(ours.as_raw_fd(), &UnixAddr::new(socket)?)?)
}

/// Why nobody answers on the socket.
fn no_answer(kind: EngineKind, socket: &Path) -> Error {
    let (name, path) = (kind.name(), socket.display());
    match knock(socket).map_err(|error| error.kind()) {
        Err(ErrorKind::PermissionDenied) => {
            Error::not_permitted(format!("not permitted to use {name}'s socket {path}")).hint(RUN_AS_ROOT)
        }
        Err(ErrorKind::ConnectionRefused) => {
            Error::failed(format!("nobody listens on {name}'s socket {path}")).hint(kind.how_to_start())
        }
        Err(ErrorKind::NotFound) => {
            Error::failed(format!("{name}'s socket {path} does not exist")).hint(kind.how_to_start())
        }
        Err(ErrorKind::WouldBlock) => {
            Error::timed_out(format!("{name} does not answer on {path}, where many wait already")).hint(STUCK)
        }
        _ => Error::failed(format!("{name} cannot be reached on {path}")).hint(kind.how_to_start()),
    }
}
