//! The DHCP client against four servers, for all of a lease's life.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use netplumb::{
    dhcp::{Action, Client, ClientId, Lease, Loss, Machine, OptionSpec, Packet, Phase, Start},
    error::{Error, Kind},
    kernel::{
        Netns,
        dhcp::{BUFFER, LeasedSocket, Quest, RawSocket, boot_time},
    },
    types::{Mac, Mtu},
};

use crate::lab::{Lab, sh, wait_for};

/// Servers hand out these, and keep to themselves what was declined or is another's.
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 50);
const LAST: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 60);
const WANTED: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 57);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);

/// A server program.
pub struct Server {
    /// Writes its files to the folder, and tells how it is called.
    pub prepare: fn(&Path) -> String,
    /// What it says once it listens.
    pub listens: &'static str,
}

pub const DNSMASQ: Server = Server { prepare: dnsmasq, listens: "sockets bound exclusively" };
pub const DHCPD: Server = Server { prepare: dhcpd, listens: "Server starting service" };
pub const KEA: Server = Server { prepare: kea, listens: "DHCP4_STARTED" };
pub const UDHCPD: Server = Server { prepare: udhcpd, listens: "started" };

fn dnsmasq(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "dnsmasq --keep-in-foreground --log-facility=- --conf-file=/dev/null --pid-file= --user=root --port=0 --interface=lan0 \
         --bind-interfaces --no-ping --dhcp-authoritative --dhcp-range={FIRST},{LAST},255.255.255.0,20m \
         --domain=lab --dhcp-option=26,1400 --dhcp-option=42,{ROUTER} --dhcp-option=119,a.lab,b.lab --dhcp-option=6,{ROUTER} \
         --dhcp-option=121,10.0.0.0/8,192.168.9.2,0.0.0.0/0,{ROUTER} --dhcp-leasefile={folder}/leases"
    )
}

fn dhcpd(folder: &Path) -> String {
    fs::write(folder.join("leases"), "").unwrap();
    fs::write(
        folder.join("conf"),
        format!(
            "authoritative; ping-check false; default-lease-time 1200; max-lease-time 1200;
             option domain-name \"lab\"; option interface-mtu 1400; option ntp-servers {ROUTER};
             option domain-search \"a.lab\", \"b.lab\"; option domain-name-servers {ROUTER};
             option rfc3442 code 121 = array of unsigned integer 8;
             option rfc3442 8,10,192,168,9,2, 0,192,168,9,1;
             subnet 192.168.9.0 netmask 255.255.255.0 {{ range {FIRST} {LAST}; option routers 192.168.9.9; }}"
        ),
    )
    .unwrap();
    let folder = folder.display();
    format!("dhcpd -4 -f -d --no-pid -cf {folder}/conf -lf {folder}/leases lan0")
}

fn kea(folder: &Path) -> String {
    let option = |name: &str, data: &str| format!(r#"{{ "name": "{name}", "data": "{data}" }}"#);
    let options = [
        option("routers", "192.168.9.9"),
        option("domain-name-servers", "192.168.9.1"),
        option("domain-name", "lab"),
        option("interface-mtu", "1400"),
        option("ntp-servers", "192.168.9.1"),
        option("domain-search", "a.lab, b.lab"),
        r#"{ "code": 121, "space": "dhcp4", "csv-format": false, "data": "080ac0a8090200c0a80901" }"#.to_owned(),
    ]
    .join(",");
    let folder = folder.display();
    fs::write(
        format!("{folder}/conf"),
        format!(
            r#"{{ "Dhcp4": {{
                "interfaces-config": {{ "interfaces": ["lan0"] }}, "authoritative": true,
                "lease-database": {{ "type": "memfile", "name": "{folder}/leases.csv", "lfc-interval": 0 }},
                "valid-lifetime": 1200, "calculate-tee-times": true,
                "option-def": [ {{ "name": "rfc3442", "code": 121, "type": "binary" }} ],
                "option-data": [{options}],
                "subnet4": [{{ "subnet": "192.168.9.0/24", "pools": [{{ "pool": "{FIRST} - {LAST}" }}] }}]
            }} }}"#
        ),
    )
    .unwrap();
    format!("kea-dhcp4 -c {folder}/conf")
}

fn udhcpd(folder: &Path) -> String {
    let path = folder.display();
    fs::write(
        folder.join("conf"),
        format!(
            "start {FIRST}\nend {LAST}\ninterface lan0\npidfile {path}/pid\nlease_file {path}/leases\n\
             opt lease 1200\nopt subnet 255.255.255.0\nopt router 192.168.9.9\nopt dns {ROUTER}\nopt domain lab\n\
             opt mtu 1400\nopt ntpsrv {ROUTER}\nopt search a.lab b.lab\n\
             opt staticroutes 10.0.0.0/8 192.168.9.2, 0.0.0.0/0 {ROUTER}\n"
        ),
    )
    .unwrap();
    // It asks by ARP before it offers, by default for two seconds.
    format!("busybox udhcpd -f -a 20 {path}/conf")
}

#[test]
fn a_lease_lives_with_dnsmasq() {
    a_lease_lives(DNSMASQ);
}

#[test]
fn a_lease_lives_with_isc_dhcpd() {
    a_lease_lives(DHCPD);
}

#[test]
fn a_lease_lives_with_kea() {
    a_lease_lives(KEA);
}

#[test]
fn a_lease_lives_with_udhcpd() {
    a_lease_lives(UDHCPD);
}

fn a_lease_lives(server: Server) {
    let mut lan = Lan::new(server);

    // A lease, with all that the server was told to tell.
    let mut web = lan.client("box", 7);
    web.start(Start::Init { prefer: Some(WANTED) });
    let lease = web.becomes_bound(None);
    assert_eq!((lease.ip(), lease.server), (WANTED, ROUTER));
    is_what_was_configured(&lease);
    lan.give("box", &lease);

    // Renewed by unicast, from the address itself.
    web.sleeps_until(Phase::Renewing);
    web.becomes_bound(Some(WANTED));

    // The server is gone at T1, and another process of it is there after T2.
    lan.server_ends();
    web.sleeps_until(Phase::Renewing);
    web.sleeps_until(Phase::Rebinding);
    lan.server_starts();
    web.wakes();
    web.becomes_bound(Some(WANTED));

    // The client's host starts again, and asks for what it had.
    web.start(Start::Reboot { lease: lease.clone(), age: Duration::from_secs(100) });
    web.becomes_bound(Some(WANTED));

    // Another client cannot have it; one that comes from another network is told so.
    lan.target("other", 8);
    let mut other = lan.client("other", 8);
    other.start(Start::Init { prefer: Some(WANTED) });
    assert_ne!(other.becomes_bound(None).ip(), WANTED);
    let stranger = Lease { address: "10.9.9.9/24".parse().unwrap(), ..(*lease).clone() };
    other.start(Start::Reboot { lease: Arc::new(stranger), age: Duration::ZERO });
    assert_eq!(other.is_lost(), Loss::Refused);
    let second = other.becomes_bound(None).ip();

    // What is declined is not offered again.
    let mut third = lan.client("other", 9);
    third.checks_find_it_in_use = true;
    third.start(Start::Init { prefer: None });
    let declined = third.declines();
    third.checks_find_it_in_use = false;
    third.wakes();
    let got = third.becomes_bound(None).ip();
    assert!(got != declined && got != WANTED && got != second, "{got}");

    // What is given back is free.
    web.releases();
    sh(&format!("ip -n {} addr del {} dev eth1", lan.lab.full("box"), lease.address));
    // udhcpd compares whole seconds, and gives it away in the next one.
    std::thread::sleep(Duration::from_millis(1100));
    let mut heir = lan.client("other", 10);
    heir.start(Start::Init { prefer: Some(WANTED) });
    assert_eq!(heir.becomes_bound(None).ip(), WANTED);
}

fn is_what_was_configured(lease: &Lease) {
    let text = |these: Vec<String>| these.join(" ");
    assert_eq!(lease.address.prefix(), 24);
    assert_eq!(text(lease.routers.iter().map(ToString::to_string).collect()), "192.168.9.1", "option 121 over 3");
    assert_eq!(text(lease.routes.iter().map(ToString::to_string).collect()), "10.0.0.0/8,via 192.168.9.2");
    assert_eq!((lease.dns.as_slice(), lease.ntp.as_slice()), ([ROUTER].as_slice(), [ROUTER].as_slice()));
    assert_eq!((lease.domain.as_deref(), lease.mtu), (Some("lab"), Some(Mtu::try_from(1400).unwrap())));
    assert_eq!(lease.search, ["a.lab", "b.lab"]);
    assert_eq!(lease.term.expire(), Some(Duration::from_secs(1200)));
}

#[test]
fn an_address_comes_within_the_call() {
    let lan = Lan::new(DNSMASQ);
    let begun = Instant::now();
    let lease = lan.acquire("box", Start::Init { prefer: Some(WANTED) }, Duration::ZERO, 5.0).unwrap();
    assert_eq!(lease.ip(), WANTED);
    // Without an exchange that got lost it takes milliseconds; with one, four seconds.
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn an_address_that_a_neighbour_uses_is_declined() {
    let mut lan = Lan::new(DNSMASQ);
    lan.target("squatter", 8);
    sh(&format!("ip -n {} addr add {WANTED}/24 dev eth1", lan.lab.full("squatter")));
    let probe = Duration::from_millis(60);
    let error = lan.acquire("box", Start::Init { prefer: Some(WANTED) }, probe, 0.5).unwrap_err();
    let expected = "no lease on nic0 within 0.5 s: 192.168.9.1 offered 192.168.9.57, which is in use";
    assert_eq!((error.kind, error.message.as_str()), (Kind::TimedOut, expected));
    let lease = lan.acquire("box", Start::Init { prefer: None }, probe, 5.0).unwrap();
    assert_ne!(lease.ip(), WANTED, "the server has heard of it");
}

#[test]
fn without_a_server_there_is_an_end_to_waiting() {
    let mut lan = Lan::new(DNSMASQ);
    lan.server_ends();
    let start = || Start::Init { prefer: None };
    let error = lan.acquire("box", start(), Duration::ZERO, 0.2).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::TimedOut, "no DHCP server answered on nic0 within 0.2 s"));
    sh(&format!("ip -n {} link set eth1 down", lan.lab.full("box")));
    let error = lan.acquire("box", start(), Duration::ZERO, 0.2).unwrap_err();
    assert_eq!(error.message, "cannot ask for an address on nic0: it is down");
    sh(&format!("ip -n {} link del eth1", lan.lab.full("box")));
    let error = lan.acquire("box", start(), Duration::ZERO, 0.2).unwrap_err();
    assert_eq!(error.message, "cannot ask for an address on nic0: the link has gone");
}

/// A lab with a DHCP server on the LAN, and clients on macvlans of the host's NIC.
pub struct Lan {
    pub lab: Lab,
    pub command: String,
    pub listens: &'static str,
    server: Option<u32>,
}

impl Lan {
    fn new(server: Server) -> Lan {
        let lan = Lan::bare(server);
        put_on_the_lan(&lan.lab, "box", 7);
        lan
    }

    /// Without a client.
    pub fn bare(server: Server) -> Lan {
        Lan::of(Lab::new(), server)
    }

    /// Of its two addresses the first is somebody's, who has not told the server.
    pub fn with_a_squatter() -> Lan {
        let mut lan = Lan::bare(Server {
            prepare: |folder| (DNSMASQ.prepare)(folder).replace("192.168.9.60", "192.168.9.51"),
            ..DNSMASQ
        });
        lan.lab.namespace("squatter");
        let (host, squatter) = (lan.lab.full("host"), lan.lab.full("squatter"));
        sh(&format!(
            "ip -n {host} link add link nic0 name eth1 netns {squatter} type macvlan mode bridge
             ip -n {squatter} link set eth1 up
             ip -n {squatter} addr add {FIRST}/24 dev eth1"
        ));
        lan
    }

    pub fn of(lab: Lab, server: Server) -> Lan {
        let folder = lab.folder().join("dhcp");
        fs::create_dir(&folder).unwrap();
        let command = (server.prepare)(&folder);
        let mut lan = Lan { lab, command, listens: server.listens, server: None };
        lan.server_starts();
        lan
    }

    pub fn server_starts(&mut self) {
        let pid = self.lab.server("lan", &self.command);
        self.server = Some(pid);
        // Port 67 in hexadecimal.
        let table = format!("/proc/{pid}/net/udp");
        wait_for("the server to listen", || {
            fs::read_to_string(&table).is_ok_and(|table| table.contains(":0043 "))
                && self.lab.log("lan").contains(self.listens)
        });
    }

    pub fn server_ends(&mut self) {
        self.lab.end(self.server.take().unwrap());
    }

    fn target(&mut self, name: &str, number: u8) {
        self.lab.target(name);
        put_on_the_lan(&self.lab, name, number);
    }

    fn namespace(&self, name: &str) -> Netns {
        Netns::open(&self.lab.path(name)).unwrap()
    }

    fn give(&self, name: &str, lease: &Lease) {
        sh(&format!("ip -n {} addr add {} dev eth1", self.lab.full(name), lease.address));
    }

    fn acquire(&self, name: &str, start: Start, probe: Duration, timeout_s: f64) -> Result<Arc<Lease>, Error> {
        let mut machine = Machine::new(who(7), !probe.is_zero(), boot_time().as_nanos() as u64);
        let timeout = Duration::from_secs_f64(timeout_s);
        let quest = Quest { index: ETH1, on: "nic0", probe, timeout, check_from: None };
        self.namespace(name).enter(|kernel| kernel.acquire(&mut machine, start, &quest))
    }

    /// A client by the target's interface, known to the server by this number.
    fn client(&self, name: &str, number: u8) -> Life {
        let open = |_: &mut _| {
            let failed = |error| Error::io("socket", &error);
            let leased = LeasedSocket::open(&"eth1".parse().unwrap()).map_err(failed)?;
            Ok((RawSocket::open(ETH1).map_err(failed)?, leased))
        };
        let (raw, leased) = self.namespace(name).enter(open).unwrap();
        let seed = boot_time().as_nanos() as u64;
        Life {
            machine: Machine::new(who(number), true, seed),
            raw,
            leased,
            ahead: Duration::ZERO,
            checks_find_it_in_use: false,
            happened: Vec::new(),
        }
    }
}

const ETH1: u32 = 1001;

fn put_on_the_lan(lab: &Lab, name: &str, number: u8) {
    let (host, inside) = (lab.full("host"), lab.full(name));
    sh(&format!(
        "ip -n {host} link add link nic0 name eth1 index {ETH1} netns {inside} address {} type macvlan mode bridge
         ip -n {inside} link set eth1 up",
        mac(number)
    ));
}

fn mac(number: u8) -> Mac {
    Mac::try_from([2, 0, 0, 0, 9, number]).unwrap()
}

/// Several clients on one interface: the address that counts is the one that they tell.
fn who(number: u8) -> Client {
    Client {
        id: Some(ClientId::derived(&["lab", &number.to_string()])),
        broadcast: true,
        options: vec![OptionSpec::hostname(&format!("box{number}")).unwrap()],
        ..Client::new(mac(number))
    }
}

/// A client whose clock can be set ahead, so that a lease's life does not take its time.
struct Life {
    machine: Machine,
    raw: RawSocket,
    leased: LeasedSocket,
    ahead: Duration,
    checks_find_it_in_use: bool,
    happened: Vec<Action>,
}

impl Life {
    fn now(&self) -> Duration {
        boot_time() + self.ahead
    }

    fn start(&mut self, start: Start) {
        let actions = self.machine.start(self.now(), start);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match &action {
                Action::Send(packet) if packet.from.is_some() => self.leased.send(packet).unwrap(),
                Action::Send(packet) => self.raw.send(packet).unwrap(),
                Action::Check(_) if self.checks_find_it_in_use => {
                    let declined = self.machine.in_use(self.now());
                    self.act(declined);
                }
                Action::Check(_) => {
                    let bound = self.machine.free(self.now());
                    self.act(bound);
                }
                Action::Bound { .. } | Action::Lost { .. } => {}
            }
            self.happened.push(action);
        }
    }

    /// Answers are taken until the one that is awaited.
    #[track_caller]
    fn until<T>(&mut self, what: &str, mut is_it: impl FnMut(&Action) -> Option<T>) -> T {
        let mut found = None;
        wait_for(what, || {
            let mut buffer = [0; BUFFER];
            while let Some(message) = self.raw.receive(&mut buffer).unwrap() {
                let actions = self.machine.receive(self.now(), message);
                self.act(actions);
            }
            while let Some(message) = self.leased.receive(&mut buffer).unwrap() {
                let actions = self.machine.receive(self.now(), message);
                self.act(actions);
            }
            let now = self.now();
            let actions = self.machine.tick(now);
            self.act(actions);
            while found.is_none() && !self.happened.is_empty() {
                found = is_it(&self.happened.remove(0));
            }
            found.is_some()
        });
        found.unwrap()
    }

    #[track_caller]
    fn becomes_bound(&mut self, from: Option<Ipv4Addr>) -> Arc<Lease> {
        let (lease, before) = self.until("a lease", |action| match action {
            Action::Bound { lease, before } => Some((lease.clone(), before.clone())),
            _ => None,
        });
        assert_eq!(before.map(|before| before.ip()), from);
        let left = self.machine.expires().unwrap() - self.now();
        assert!(left > Duration::from_secs(1190), "kept, but not renewed: {left:?}");
        lease
    }

    #[track_caller]
    fn is_lost(&mut self) -> Loss {
        self.until("the loss", |action| if let Action::Lost { why, .. } = action { Some(*why) } else { None })
    }

    #[track_caller]
    fn declines(&mut self) -> Ipv4Addr {
        self.until("an address", |action| if let Action::Check(ip) = action { Some(*ip) } else { None })
    }

    /// Sleeps until it wants to do something.
    fn wakes(&mut self) {
        self.ahead += self.machine.wake().unwrap().saturating_sub(self.now());
        let actions = self.machine.tick(self.now());
        self.act(actions);
    }

    fn sleeps_until(&mut self, phase: Phase) {
        while self.machine.phase() != phase {
            self.wakes();
        }
    }

    fn releases(&mut self) {
        let actions = self.machine.release();
        assert!(matches!(actions[..], [Action::Send(Packet { from: Some(WANTED), to: ROUTER, .. })]), "{actions:?}");
        self.act(actions);
    }
}
