//! One network on two hosts that share an etcd.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
};

use crate::{
    lab::{PLUMB, Ran, output, sh, wait_for},
    wire::on_two_hosts,
};

const ETCD: &str = "10.0.0.1:2379";

/// Makes this guest a host of its own: an identity, a name, an address on the wire, two containers.
fn host(name: &str, address: &str) {
    // Guests see the machine's files, but what they write is theirs alone.
    fs::write("/etc/machine-id", format!("{:0>32}\n", name.len())).unwrap();
    sh(&format!(
        "hostname {name}
         ip addr add {address}/24 dev eth0 && ip link set eth0 up
         for c in one two; do ip netns add $c && ip -n $c link set lo up; done"
    ));
}

struct Etcd(Child);

impl Etcd {
    fn start() -> Etcd {
        let url = format!("http://{ETCD}");
        let log = File::create("/tmp/etcd.log").unwrap();
        let etcd = Command::new("etcd")
            .args(["--data-dir", "/tmp/etcd", "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_for("etcd", || std::net::TcpStream::connect(ETCD).is_ok());
        Etcd(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn plumb(arguments: &str) -> Ran {
    let mut plumb = Command::new(PLUMB);
    plumb.args(arguments.split(' ')).env("PLUMB_STORE", format!("etcd://{ETCD}")).env("PLUMB_CONFIG", "/dev/null");
    Ran::of(&mut plumb)
}

fn pings(from: &str, to: &str) -> bool {
    output(&format!("ip netns exec {from} busybox ping -c2 -W5 {to}; true")).contains(" 0% packet loss")
}

fn join(container: &str, network: &str) -> String {
    let said = plumb(&format!("attach netns:{container} {network} --no-check")).ok().out;
    said.split(' ').find_map(|word| word.strip_suffix("/24")).unwrap().to_owned()
}

#[test]
fn containers_of_one_network_reach_one_another_and_no_others() {
    on_two_hosts(
        |left| {
            host("left", "10.0.0.1");
            let _etcd = Etcd::start();
            plumb("create-vlan blue --subnet 10.1.0.0/24 -i eth0 --id 10").ok();
            plumb("create-vlan red --subnet 10.2.0.0/24 -i eth0 --id 20").ok();
            assert_eq!((join("one", "blue").as_str(), join("two", "red").as_str()), ("10.1.0.2", "10.2.0.2"));
            left.say("joined", "");
            assert_eq!(left.hear("addresses"), "10.1.0.3 10.2.0.3");
            assert_eq!(left.hear("networks"), plumb("networks --json").ok().out);
            let wire = Command::new("tcpdump")
                .args(["-Z", "root", "-U", "-i", "eth0", "-w", "/tmp/wire.pcap", "icmp or arp or vlan"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            wait_for("tcpdump", || fs::metadata("/tmp/wire.pcap").is_ok_and(|file| file.len() >= 24));
            assert!(pings("one", "10.1.0.3") && pings("two", "10.2.0.3"));
            assert!(!pings("one", "10.2.0.3"));
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(wire.id() as i32), nix::sys::signal::SIGINT).unwrap();
            wire.wait_with_output().unwrap();
            for (subnet, id) in [("10.1.0", 10), ("10.2.0", 20)] {
                let frames = output(&format!("tcpdump -r /tmp/wire.pcap -en 2>/dev/null | grep '{subnet}'"));
                assert!(frames.contains("ICMP echo reply"), "{frames}");
                assert!(frames.lines().all(|frame| frame.contains(&format!("vlan {id},"))), "{frames}");
            }
            // The other host's container keeps the network, and is named.
            plumb("detach --all").ok();
            plumb("delete-vlan blue --force").refused(4, "blue is in use on other hosts: netns:one (eth1) on right");
            left.meet("refused");
            left.meet("detached");
            plumb("delete-vlan blue").ok();
            plumb("delete-vlan red").ok();
            assert!(!output("ip -br link").contains("eth0."));
            left.meet("end");
        },
        |right| {
            host("right", "10.0.0.2");
            right.hear("joined");
            let addresses = [join("one", "blue"), join("two", "red")].join(" ");
            right.say("networks", &plumb("networks --json").ok().out);
            right.say("addresses", &addresses);
            right.meet("refused");
            plumb("detach --all").ok();
            right.meet("detached");
            right.meet("end");
        },
    );
}
