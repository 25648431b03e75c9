//! plumb with a real Docker engine: the one at `DOCKER_HOST`, or at its usual socket.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    flow::Flow,
    lab::{ALSO_FREE, FREE, Lab, PLUMB, ROUTER, Ran, sh, wait_for},
    speed::{holds, within_tries},
};

static COUNT: AtomicU32 = AtomicU32::new(0);

pub fn engine() -> String {
    std::env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".into())
}

/// `docker ARGUMENTS`; what it prints.
#[track_caller]
pub fn docker(arguments: &str) -> String {
    let output = Command::new("docker").args(["-H", &engine()]).args(arguments.split_whitespace()).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "docker {arguments}: {} (scripts/test starts an engine)", text(&output.stderr));
    text(&output.stdout)
}

/// An image with nothing but busybox, made once; no registry is asked.
pub fn image() -> &'static str {
    static IMAGE: OnceLock<&str> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        sh(&format!(
            "mkdir {path}/bin && cp $(command -v busybox) {path}/bin/ && for a in sh sleep false ip udhcpc; do ln -s busybox {path}/bin/$a; done
             tar -C {path} -c . | docker -H {} import - plumb-test:latest",
            engine()
        ));
        "plumb-test:latest"
    })
}

/// A container that is removed in the end.
pub struct Container(pub String);

impl Container {
    /// `docker run -d OPTIONS IMAGE COMMAND` under a name of its own.
    pub fn run(options: &str, command: &str) -> Container {
        let name = format!("plumb-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        docker(&format!("run -d --name {name} {options} {} {command}", image()));
        Container(name)
    }

    pub fn sleeping(options: &str) -> Container {
        Container::run(options, "/bin/sleep 1d")
    }

    fn inspect(&self, what: &str) -> String {
        docker(&format!("inspect -f {{{{{what}}}}} {}", self.0))
    }

    fn ip(&self, arguments: &str) -> String {
        docker(&format!("exec {} /bin/ip {arguments}", self.0))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["-H", &engine(), "rm", "-f", &self.0]).output();
    }
}

/// Runs `plumb ARGUMENTS` on the lab's host with the engine.
pub fn plumb(lab: &Lab, arguments: &str) -> Ran {
    lab.plumb(&format!("{arguments} --docker {}", engine()))
}

fn attach(lab: &Lab, target: &str) -> Ran {
    plumb(lab, &format!("flat {target} -i nic0 --ip {FREE} --gateway {ROUTER}"))
}

#[test]
fn a_container_by_name_gets_its_address_and_gives_it_back() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    let before = web.ip("route");
    let ran = attach(&lab, &web.0).ok();
    assert!(
        ran.out.starts_with(&format!("{}: eth1 {FREE} via {ROUTER} on nic0 (macvlan bridge)\n", web.0)),
        "{ran:#?}"
    );
    assert!(lab.pings("lan", "192.168.9.100"));
    assert!(web.ip("route").contains("default via 192.168.9.1 dev eth1"));
    assert_eq!(plumb(&lab, "--json ls").ok().json()["attachments"][0]["container"], web.inspect(".Id"));
    plumb(&lab, &format!("detach {}", web.0)).ok();
    assert_eq!(web.ip("route"), before);
}

#[test]
fn a_default_route_that_was_replaced_by_hand_comes_back_with_the_detach() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    let before = web.ip("route");
    plumb(&lab, &format!("flat {} -i nic0 --ip {FREE} --keep-default --probe 0", web.0)).ok();
    let ran = plumb(&lab, &format!("route {} replace default via {ROUTER} dev eth1", web.0)).ok();
    let name = &web.0;
    let was = before.lines().find_map(|line| line.strip_prefix("default via ")).unwrap().split(' ').next().unwrap();
    assert_eq!(
        ran.out,
        format!(
            "{name}: route default via {ROUTER} dev eth1 set (before: by eth0 ({was}))\n  \
             the detach of eth1 gives the old one back\n"
        )
    );
    assert!(web.ip("route").contains("default via 192.168.9.1 dev eth1"));
    // By the beginning of its id it is the same container.
    let id = web.inspect(".Id");
    plumb(&lab, &format!("rule {} add from 192.168.9.0/24 table 100", &id[..12])).ok();
    plumb(&lab, &format!("detach {name}")).ok();
    assert_eq!(web.ip("route"), before);
    assert!(!web.ip("rule").contains("192.168.9.0"));
}

#[test]
fn by_the_beginning_of_its_id_it_is_the_same_container() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    let id = web.inspect(".Id");
    assert!(attach(&lab, &id[..12]).ok().out.starts_with(&format!("{}: eth1", web.0)));
    assert!(plumb(&lab, &format!("show {}", &id[..8])).ok().out.starts_with(&format!("{}: eth1 on nic0", web.0)));
    attach(&lab, &web.0).refused(4, &format!("{} already has 192.168.9.100 on eth1", web.0));
    assert_eq!(plumb(&lab, &format!("detach {}", &id[..12])).ok().out, format!("{}: eth1 {FREE} detached\n", web.0));
}

#[test]
fn a_restarted_container_gets_the_same_again() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    let mac = || web.ip("link show eth1").split("link/ether ").nth(1).unwrap()[..17].to_owned();
    attach(&lab, &web.0).ok();
    let first = mac();
    for _ in 0..5 {
        docker(&format!("restart -t 0 {}", web.0));
        assert_eq!(plumb(&lab, "--json ls").ok().json()["attachments"][0]["state"], "stopped");
        attach(&lab, &web.0).ok();
        assert_eq!(mac(), first);
    }
    assert!(lab.pings("lan", "192.168.9.100"));
}

#[test]
fn a_namespace_that_a_sidecar_kept_does_not_stand_in_the_way() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    let _side = Container::sleeping(&format!("--net container:{}", web.0));
    attach(&lab, &web.0).ok();
    docker(&format!("restart -t 0 {}", web.0));
    assert_eq!(plumb(&lab, "--json ls").ok().json()["attachments"][0]["state"], "up", "the sidecar still answers");
    attach(&lab, &web.0).ok();
    assert!(web.ip("addr").contains(FREE));
    docker(&format!("restart -t 0 {}", web.0));
    plumb(&lab, &format!("detach {}", web.0)).ok();
    assert!(!lab.pings("lan", "192.168.9.100"));
}

#[test]
fn who_waits_for_the_namespace_that_a_sidecar_kept_does_not_keep_others_from_the_host() {
    let (mut lab, web) = (Lab::new(), Container::sleeping(""));
    let side = Container::sleeping(&format!("--net container:{}", web.0));
    let on_a_bridge = |lab: &Lab, target: &str, ip: &str| {
        let options = "-i br7 --driver veth --keep-default --no-check --probe 0";
        lab.command(&format!("flat {target} {options} --ip {ip} --docker {}", engine()))
    };
    lab.target("peer");
    Ran::of(&mut on_a_bridge(&lab, &web.0, FREE)).ok();
    docker(&format!("restart -t 0 {}", web.0));
    // Another plumb is at work on the sidecar, and may need the host next.
    let kept = fs::File::open(format!("/proc/{}/ns/net", side.inspect(".State.Pid"))).unwrap();
    kept.lock().unwrap();
    let mut waits = on_a_bridge(&lab, &web.0, FREE).stdout(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(waits.try_wait().unwrap(), None);
    let begun = Instant::now();
    Ran::of(&mut on_a_bridge(&lab, &lab.netns("peer"), ALSO_FREE)).ok();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(kept);
    assert!(waits.wait().unwrap().success());
    assert!(web.ip("addr").contains(FREE) && !side.ip("addr").contains(FREE));
}

#[test]
fn a_renamed_container_keeps_what_it_has() {
    let (lab, blue) = (Lab::new(), Container::sleeping(""));
    attach(&lab, &blue.0).ok();
    let old = Container(format!("{}-old", blue.0));
    docker(&format!("rename {} {}", blue.0, old.0));
    docker(&format!("run -d --name {} {} /bin/sleep 1d", blue.0, image()));
    let ran = plumb(&lab, &format!("flat {} -i nic0 --ip 192.168.9.101/24 --probe 0", blue.0));
    let id = old.inspect(".Id");
    ran.refused(4, &format!("{}: eth1 is on record for {}, which still runs", blue.0, &id[..12]));
    assert!(lab.pings("lan", "192.168.9.100"));
    plumb(&lab, &format!("detach {} eth1", blue.0)).ok();
    plumb(&lab, &format!("flat {} -i nic0 --ip 192.168.9.101/24 --probe 0", blue.0)).ok();
}

#[test]
fn what_does_not_run_has_its_own_answer() {
    let lab = Lab::new();
    let stopped = Container::run("", "/bin/false");
    wait_for("it to end", || stopped.inspect(".State.Status") == "exited");
    attach(&lab, &stopped.0)
        .refused(3, &format!("container {} is not running (exited)", stopped.0))
        .hints(&format!("docker start {}; or --wait 10s", stopped.0));
    let restarting = Container::run("--restart always", "/bin/false");
    wait_for("it to restart", || restarting.inspect(".State.Restarting") == "true");
    // The engine waits longer each time; asked now and then it is in between. While it runs it could be
    // attached, and would have the address.
    wait_for("the answer", || {
        plumb(&lab, &format!("flat {} -i nic0 --ip {ALSO_FREE} --dry-run", restarting.0))
            .err
            .starts_with(&format!("plumb: container {} is restarting\n  hint: --wait 10s", restarting.0))
    });
    let paused = Container::sleeping("");
    docker(&format!("pause {}", paused.0));
    attach(&lab, &paused.0).ok();
    docker(&format!("unpause {}", paused.0));
    assert!(lab.pings("lan", "192.168.9.100"));
}

#[test]
fn what_has_no_namespace_of_its_own_is_refused() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    let host = Container::sleeping("--net host");
    attach(&lab, &host.0)
        .refused(1, &format!("{} uses the host's network (--net=host): it has no namespace of its own", host.0));
    let shared = Container::sleeping(&format!("--net container:{}", web.0));
    attach(&lab, &shared.0)
        .refused(
            1,
            &format!(
                "{} shares the network of {web} (--net=container:{web}): it has no namespace of its own",
                shared.0,
                web = web.0
            ),
        )
        .hints(&format!("what {web} gets, {} has too: use {web} as the target", shared.0, web = web.0));
}

#[test]
fn names_that_are_unknown_or_ambiguous_are_told_apart() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    let near = format!("{}x", web.0);
    attach(&lab, &near)
        .refused(3, &format!("Docker has no container {near}"))
        .hints(&format!("did you mean {}?", web.0));
    // Of seventeen ids two begin with the same digit.
    let many: Vec<Container> =
        (0..17).map(|_| Container(docker(&format!("create {} /bin/sleep 1d", image())))).collect();
    let digit = |container: &Container| container.0[..1].to_owned();
    let twice = many.iter().map(digit).find(|d| many.iter().filter(|c| digit(c) == *d).count() > 1).unwrap();
    let ran = attach(&lab, &twice);
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.err.starts_with(&format!("plumb: {twice} is ambiguous: the ids of ")), "{ran:#?}");
}

#[test]
fn a_container_is_waited_for() {
    let lab = Lab::new();
    let web = Container(format!("plumb-test-{}-late", std::process::id()));
    let mut command = lab.command(&format!("flat {} -i nic0 --ip {FREE} --wait 20s --docker {}", web.0, engine()));
    let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    docker(&format!("run -d --name {} {} /bin/sleep 1d", web.0, image()));
    Ran::from(waiting.wait_with_output().unwrap()).ok();
}

#[test]
fn a_container_that_is_gone_is_detached_with_success() {
    let lab = Lab::new();
    let web = Container::sleeping("");
    let name = web.0.clone();
    attach(&lab, &name).ok();
    drop(web);
    assert_eq!(plumb(&lab, &format!("detach {name}")).ok().out, format!("{name}: eth1 {FREE} detached\n"));
    assert_eq!(plumb(&lab, &format!("detach {name}")).ok().out, format!("{name}: nothing is attached\n"));
}

#[test]
fn gc_keeps_the_stopped_and_forgets_the_removed() {
    let lab = Lab::new();
    let (kept, removed) = (Container::sleeping(""), Container::sleeping(""));
    attach(&lab, &kept.0).ok();
    plumb(&lab, &format!("flat {} -i nic0 --ip 192.168.9.101/24", removed.0)).ok();
    docker(&format!("stop -t 0 {}", kept.0));
    let name = removed.0.clone();
    drop(removed);
    assert_eq!(plumb(&lab, "gc").ok().out, format!("{name}: eth1 forgotten, the target exists no more\n"));
    // Where the engine does not answer nothing is known, so nothing is forgotten.
    docker(&format!("rm -f {}", kept.0));
    assert_eq!(lab.plumb("gc --docker /nowhere.sock").ok().out, "nothing was left behind\n");
    assert_eq!(plumb(&lab, "gc").ok().out, format!("{}: eth1 forgotten, the target exists no more\n", kept.0));
}

#[test]
fn a_container_that_stops_or_restarts_meanwhile_is_an_error() {
    let lab = Lab::new();
    for (change, how) in [("kill", "ended"), ("restart -t 0", "ended")] {
        let web = Container::sleeping("");
        let pid = web.inspect(".State.Pid");
        let mut command = lab.command(&format!("flat {} -i nic0 --ip {FREE} --probe 2s --docker {}", web.0, engine()));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the link", || {
            fs::read_to_string(format!("/proc/{pid}/net/dev")).is_ok_and(|text| text.contains("eth1"))
        });
        docker(&format!("{change} {}", web.0));
        Ran::from(child.wait_with_output().unwrap())
            .refused(1, &format!("{} {how} while it was being attached; nothing was changed", web.0));
        assert_eq!(lab.plumb("ls").ok().out, "nothing is attached\n");
    }
}

/// A socket in front of the real engine's, on which `before_second` happens before the second
/// question about a container is passed on.
fn engine_with_a_surprise(lab: &Lab, before_second: impl Fn() + Send + 'static) -> String {
    let path = lab.folder().join("engine.sock");
    let (listener, asked) = (UnixListener::bind(&path).unwrap(), AtomicU32::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut engine) = (client.unwrap(), UnixStream::connect(&engine()[7..]).unwrap());
            let (mut answers, mut back) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = client.read(&mut buffer) {
                let is_question = buffer.starts_with(b"GET /containers/");
                if is_question && asked.fetch_add(1, Ordering::Relaxed) == 1 {
                    before_second();
                }
                engine.write_all(&buffer[..length]).unwrap();
            }
            let _ = engine.shutdown(Shutdown::Both);
        }
    });
    format!("unix://{}", path.display())
}

#[test]
fn the_engine_is_asked_again_and_what_it_says_then_counts() {
    for (change, how) in [("restart -t 0", "was restarted"), ("kill", "stopped"), ("rm -f", "was removed")] {
        let (lab, web) = (Lab::new(), Container::sleeping(""));
        let name = web.0.clone();
        let socket = engine_with_a_surprise(&lab, move || drop(docker(&format!("{change} {name}"))));
        lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --probe 0 --docker {socket}", web.0))
            .refused(1, &format!("{} {how} while it was being attached; nothing was changed", web.0));
        assert_eq!(lab.plumb("ls").ok().out, "nothing is attached\n");
    }
}

#[test]
fn published_ports_are_warned_about() {
    let (lab, web) = (Lab::new(), Container::sleeping("-p 127.0.0.1:0:80"));
    let ran = plumb(&lab, &format!("flat {} -i nic0 --ip {FREE} --gateway {ROUTER} --no-check", web.0)).ok();
    assert!(ran.err.contains("->80/tcp on this host: other machines no longer reach them there"), "{ran:#?}");
    plumb(&lab, "detach --all").ok();
    let ran = plumb(&lab, &format!("flat {} -i nic0 --ip {FREE}", web.0)).ok();
    assert!(ran.err.contains("machines in 192.168.9.0/24 no longer reach them there"), "{ran:#?}");
}

#[test]
fn an_engine_that_cannot_be_asked_is_described() {
    let lab = Lab::new();
    let flat = |socket: &str| lab.plumb(&format!("flat web -i nic0 --ip {FREE} --docker {socket}"));
    let path = |name: &str| lab.folder().join(name).display().to_string();
    flat(&path("absent"))
        .refused(1, &format!("Docker's socket {} does not exist", path("absent")))
        .hints("is the engine running?");
    flat("tcp://10.0.0.1:2375").refused(
        2,
        "tcp://10.0.0.1:2375: plumb must run on the engine's own host and reach it by a Unix socket, not by tcp",
    );
    drop(UnixListener::bind(path("left")).unwrap());
    flat(&path("left")).refused(1, &format!("nobody listens on Docker's socket {}", path("left")));

    let _hung = UnixListener::bind(path("hung")).unwrap();
    let start = std::time::Instant::now();
    flat(&path("hung")).refused(7, &format!("Docker did not answer on {} within 2 s", path("hung")));
    assert!(start.elapsed() < Duration::from_secs(3));

    let babble = UnixListener::bind(path("babble")).unwrap();
    std::thread::spawn(move || {
        babble.incoming().flatten().for_each(|mut stream| drop(stream.write_all(b"SSH-2.0-OpenSSH\r\n")))
    });
    let ran = flat(&path("babble"));
    assert!(ran.code == 1 && ran.err.contains("with something else than its API"), "{ran:#?}");

    let _denied = UnixListener::bind(path("denied")).unwrap();
    sh(&format!("chown nobody {0} && chmod 600 {0}", path("denied")));
    let mut command = lab.on_host("setpriv");
    command.args([
        "--bounding-set",
        "-dac_override,-dac_read_search",
        "--inh-caps",
        "-dac_override,-dac_read_search",
        crate::lab::PLUMB,
    ]);
    command.args(["flat", "web", "-i", "nic0", "--ip", FREE, "--docker", &path("denied")]);
    Ran::of(&mut command).refused(5, &format!("not permitted to use Docker's socket {}", path("denied")));
}

#[test]
fn containers_at_once_are_all_attached() {
    let lab = Lab::new();
    let containers: Vec<Container> = (0..8).map(|_| Container::sleeping("--net none")).collect();
    let start = |(n, container): (usize, &Container)| {
        let mut command =
            lab.command(&format!("flat {} -i nic0 --ip 192.168.9.{}/24 --docker {}", container.0, 100 + n, engine()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<_> = containers.iter().enumerate().map(start).collect();
    running.into_iter().for_each(|child| drop(Ran::from(child.wait_with_output().unwrap()).ok()));
    let listed: Value = lab.plumb("--json ls").ok().json();
    assert_eq!(listed["attachments"].as_array().unwrap().len(), 8);
    plumb(&lab, "detach --all").ok();
    assert!(containers.iter().all(|container| !container.ip("link").contains("eth1")));
}

/// `plumb ARGUMENTS` where the engine is: only there are the other ends of its containers' veths.
fn beside_the_engine(lab: &Lab, arguments: &str) -> Ran {
    let mut plumb = Command::new(PLUMB);
    plumb.args(arguments.split_whitespace()).args(["--docker", &engine()]).stdin(Stdio::null());
    Ran::of(plumb.env("PLUMB_STORE", lab.store()).env("PLUMB_CONFIG", "/dev/null"))
}

#[test]
fn on_an_ordinary_bridge_network_limits_hold_in_both_directions() {
    let (lab, web, peer) = (Lab::new(), Container::sleeping(""), Container::sleeping(""));
    let said = beside_the_engine(&lab, &format!("qos {} --rate 10mbit --direction both", web.0)).ok().out;
    assert_eq!(said, format!("{0}: eth0 sends at most 10mbit\n{0}: eth0 receives at most 10mbit\n", web.0));
    assert!(!web.ip("link").contains("ifb"), "the host's end of the veth needs none");
    let place = |container: &Container| format!("/proc/{}/ns/net", container.inspect(".State.Pid")).into();
    let address =
        |container: &Container| container.inspect(".NetworkSettings.Networks.bridge.IPAddress").parse().unwrap();
    for (direction, from, to) in [("egress", &web, &peer), ("ingress", &peer, &web)] {
        let flow = Flow { from: place(from), to: place(to), address: address(to), interface: Some("eth0") };
        within_tries(&format!("10mbit {direction} on Docker's bridge"), || {
            holds(&flow.run(Duration::from_secs(3)), 10e6, 12_500.0)
        });
    }
    let shown = beside_the_engine(&lab, "qos show --json").ok().json();
    for limit in shown["limits"].as_array().unwrap() {
        assert!(limit["counters"]["overlimits"].as_u64().unwrap() > 0, "{limit:#}");
    }
    // By the beginning of its id it is the same container.
    let id = web.inspect(".Id");
    let cleared = beside_the_engine(&lab, &format!("qos clear {}", &id[..12])).ok().out;
    assert_eq!(cleared, format!("{}: eth0 is not limited any more\n", web.0));
    beside_the_engine(&lab, "qos clear no-such-container").ok();
}

#[test]
fn a_restarted_containers_limits_are_put_back_with_its_attachment() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    attach(&lab, &web.0).ok();
    plumb(&lab, &format!("qos {} eth1 --rate 10mbit --direction both", web.0)).ok();
    let states = || {
        let shown = plumb(&lab, "qos show --json").ok().json();
        shown["limits"].as_array().unwrap().iter().map(|limit| limit["state"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(states(), ["holds", "holds"]);
    docker(&format!("restart -t 0 {}", web.0));
    assert_eq!(states(), ["stopped", "stopped"]);
    attach(&lab, &web.0).ok();
    assert_eq!(states(), ["holds", "holds"]);
    assert!(lab.pings("lan", "192.168.9.100"));
    plumb(&lab, &format!("detach {}", web.0)).ok();
    assert_eq!(states(), [""; 0]);
    assert!(!web.ip("link").contains("qos"));
}

#[test]
fn limits_on_an_engines_own_interface_are_put_back_by_restore() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    beside_the_engine(&lab, &format!("qos {} --rate 10mbit --direction both", web.0)).ok();
    let states = || {
        let shown = beside_the_engine(&lab, "qos show --json").ok().json();
        shown["limits"].as_array().unwrap().iter().map(|limit| limit["state"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(beside_the_engine(&lab, "restore").ok().out, "there is nothing to put back\n");
    docker(&format!("stop -t 0 {}", web.0));
    assert_eq!(beside_the_engine(&lab, "restore").ok().out, "there is nothing to put back\n");
    docker(&format!("start {}", web.0));
    assert_eq!(states(), ["stopped", "stopped"]);
    let said = beside_the_engine(&lab, "restore --dry-run").ok().out;
    assert_eq!(
        (said, states()[0].as_str()),
        (format!("{}: limits of eth0 would be put back\n", web.0), Some("stopped"))
    );
    assert_eq!(beside_the_engine(&lab, "restore").ok().out, format!("{}: limits of eth0 are back\n", web.0));
    assert_eq!(states(), ["holds", "holds"]);
    // One that somebody put there meanwhile is respected.
    docker(&format!("restart -t 0 {}", web.0));
    let pid = web.inspect(".State.Pid");
    sh(&format!("nsenter --net=/proc/{pid}/ns/net tc qdisc add dev eth0 root handle 7: pfifo limit 9"));
    beside_the_engine(&lab, "restore")
        .refused(4, &format!("{}: eth0 has a root qdisc already, pfifo 7:, which plumb did not make", web.0));
    assert_eq!(states(), ["stopped", "stopped"]);
}

#[test]
fn a_container_that_exists_no_more_has_its_limits_forgotten() {
    let (lab, web) = (Lab::new(), Container::sleeping(""));
    plumb(&lab, &format!("qos {} --rate 10mbit", web.0)).ok();
    docker(&format!("stop -t 0 {}", web.0));
    assert_eq!(plumb(&lab, "gc").ok().out, "nothing was left behind\n");
    let name = web.0.clone();
    drop(web);
    let said = plumb(&lab, "gc").ok().out;
    assert_eq!(said, format!("{name}: limits of eth0 forgotten, the target exists no more\n"));
    assert_eq!(plumb(&lab, "qos show").ok().out, "no limits are set\n");
}

#[test]
fn a_container_that_is_restarted_asks_for_its_old_address_by_its_name() {
    let (lan, web) = (crate::dhcp::Lan::bare(crate::dhcp::DNSMASQ), Container::sleeping("--hostname shop"));
    let ask = || plumb(&lan.lab, &format!("dhcp {} -i nic0 --probe 0 --no-check --dns", web.0)).ok();
    let address = || web.ip("-4 -o addr show dev eth1").split_whitespace().nth(3).map(str::to_owned);
    let before = docker(&format!("exec {} /bin/busybox cat /etc/resolv.conf", web.0));
    ask();
    let first = address();
    assert!(first.as_ref().is_some_and(|text| text.starts_with("192.168.9.")), "{first:?}");
    let leases = || fs::read_to_string(lan.lab.folder().join("dhcp/leases")).unwrap();
    assert!(leases().contains(" shop "), "{}", leases());
    let resolver = docker(&format!("exec {} /bin/busybox cat /etc/resolv.conf", web.0));
    assert!(resolver.contains("nameserver 192.168.9.1") && resolver.contains("search a.lab b.lab"), "{resolver}");

    docker(&format!("restart -t 0 {}", web.0));
    wait_for("the lease to be given back", || leases().is_empty());
    ask();
    assert_eq!(address(), first);
    plumb(&lan.lab, &format!("detach {}", web.0)).ok();
    assert_eq!(docker(&format!("exec {} /bin/busybox cat /etc/resolv.conf", web.0)), before);
    wait_for("the lease to be given back", || leases().is_empty());
}
