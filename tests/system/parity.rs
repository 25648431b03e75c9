//! Parity: what a pipework command line leaves behind, inside and outside, is what tests/pipework/cases says,
//! for each line there. How that file reads is told at its top.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::lab::{Lab, PLUMB, Ran, batch, inside, sh, words};

/// A line or several, what they become, and what is there then that was not before.
#[derive(Default)]
pub struct Case {
    /// What it is about.
    title: String,
    /// It needs what only a guest's kernel has.
    in_guest: bool,
    /// pipework's lines, without its name.
    pub old: Vec<String>,
    /// plumb's, each for one of them, without its name. None: refused before.
    new: Vec<String>,
    refused: Option<String>,
    /// `web + …`, `host - …`.
    difference: Vec<String>,
}

pub fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipework/cases");
    let text = fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once("\n\n").unwrap();
    text.split("\n\n").map(|paragraph| Case::read(paragraph.trim())).collect()
}

impl Case {
    fn read(paragraph: &str) -> Case {
        let mut case = Case::default();
        for line in paragraph.lines() {
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.trim().to_owned();
            match mark {
                "#" => case.title = rest,
                "guest" => case.in_guest = true,
                "$" => case.old.push(rest.strip_prefix("pipework ").unwrap().to_owned()),
                ">" => case.new.push(rest),
                "x" => case.refused = Some(rest),
                "!" => {}
                "web" | "host" => {
                    case.difference.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
                }
                _ => panic!("{line:?}: tests/pipework/cases says what may stand there"),
            }
        }
        assert!(!case.old.is_empty(), "{paragraph}");
        case
    }
}

/// A host with what the cases speak of, and where pipework's target is.
pub struct Place {
    pub lab: Lab,
    /// The target as it is typed.
    pub target: String,
    /// A file of its namespace.
    pub inside: PathBuf,
    pub pid: Option<u32>,
    /// Docker's socket, where the target is a container.
    pub engine: Option<String>,
}

impl Place {
    /// On the lab's host, which gets more interfaces.
    pub fn on(lab: Lab, target: String, inside: PathBuf) -> Place {
        let (host, lan) = (lab.full("host"), lab.full("lan"));
        sh(&format!(
            "ip -n {host} -batch - <<END
link add nic1 address 02:00:00:00:00:11 mtu 1400 type veth peer name lan1 netns {lan}
link set nic1 up
link add br0 address 02:00:00:00:00:12 type bridge
link set br0 mtu 1450 up
link add brick type veth peer name lan2 netns {lan}
link set brick up
END
             ip -n {lan} link set lan1 up
             ip -n {lan} link set lan2 up"
        ));
        symlink(PLUMB, lab.folder().join("pipework")).unwrap();
        Place { lab, target, inside, pid: None, engine: None }
    }

    /// The words of a line of the file, with the target's own name.
    fn words(&self, line: &str) -> Vec<String> {
        words(line).into_iter().map(|word| if word == "web" { self.target.clone() } else { word }).collect()
    }

    fn command(&self, program: &str, words: &[String]) -> Ran {
        let mut command = self.lab.on_host(program);
        Ran::of(command.envs(self.engine.iter().map(|engine| ("DOCKER_HOST", engine))).args(words))
    }

    /// Called by its old name.
    fn pipework(&self, line: &str) -> Ran {
        let program = self.lab.folder().join("pipework");
        self.command(program.to_str().unwrap(), &self.words(line))
    }

    fn plumb(&self, line: &str) -> Ran {
        self.command(PLUMB, &words(line))
    }

    /// Does what a case says, and takes it back; what is wrong with the outcome.
    fn try_case(&self, case: &Case, before: &Seen) -> Result<(), String> {
        let done = case.old.iter().enumerate().try_for_each(|(at, old)| self.try_line(case, at, old));
        let found = before.difference(&self.look());
        let found: Vec<String> = found.iter().map(|line| self.hidden(line, case)).collect();
        let detached = self.plumb("detach --all");
        done?;
        if found != case.difference {
            let (found, told) = (found.join("\n"), case.difference.join("\n"));
            return Err(format!("left behind\n{found}\nand not\n{told}"));
        }
        // What is left shows with the next case.
        if detached.code == 0 { Ok(()) } else { Err(format!("{detached:#?}")) }
    }

    fn try_line(&self, case: &Case, at: usize, old: &str) -> Result<(), String> {
        let dry = self.plumb(&format!("pipework --dry-run {}", self.words(old).join(" ")));
        let becomes = self.normal(dry.out.trim().trim_start_matches("plumb "));
        let expected = case.new.get(at).map_or("", String::as_str);
        if becomes != expected {
            return Err(format!("{old} becomes\n> {becomes}\n{}and not\n> {expected}", dry.err));
        }
        let ran = self.pipework(old);
        let is_last = at + 1 == case.old.len();
        match case.refused.as_ref().filter(|_| is_last) {
            None if ran.code == 0 => Ok(()),
            None => Err(format!("{old}\n{ran:#?}")),
            Some(message) => {
                let said = self.normal(ran.err.trim_end()).replace("\n  hint: ", " / ");
                if ran.code != 0 && said == *message {
                    Ok(())
                } else {
                    Err(format!("{old} ({}) says\nx {said}", ran.code))
                }
            }
        }
    }

    /// What is another each time by the name that the file has for it.
    fn normal(&self, text: &str) -> String {
        let text = text.replace(&self.target, "web").replace(&self.inside.display().to_string(), "NETNS");
        match self.pid {
            Some(pid) => text.replace(&format!("pl{pid}"), "plPID").replace(&format!("nspid={pid}"), "nspid=PID"),
            None => text,
        }
    }

    /// The same, without addresses that no line of the case tells.
    fn hidden(&self, line: &str, case: &Case) -> String {
        let is_told =
            |word: &str| case.new.iter().any(|line| line.contains(word)) || word.starts_with("02:00:00:00:00:");
        let hide = |word: &str| {
            let value = word.rsplit('=').next().unwrap_or_default();
            let bare = value.split('/').next().unwrap_or_default();
            let is_mac = bare.len() == 17 && bare.matches(':').count() == 5;
            let is_leased = bare.strip_prefix("192.168.9.").is_some_and(|last| matches!(last.parse(), Ok(50..=60)));
            match () {
                () if is_mac && !is_told(bare) => word.replace(bare, "MAC"),
                () if is_leased => word.replace(bare, "LEASED"),
                () if word.starts_with("veth-") => "veth-DIGEST".to_owned(),
                () if value.len() == 64 => word.replace(value, "ID"),
                () => word.to_owned(),
            }
        };
        self.normal(&line.split(' ').map(hide).collect::<Vec<_>>().join(" "))
    }

    fn look(&self) -> Seen {
        let host = self.lab.path("host");
        let [(host, names), (web, _)] = [&host, &self.inside].map(|file| seen(file));
        let host = host.into_iter().chain(self.ports()).map(|line| format!("host {line}"));
        // A link's parent is told by its number.
        let named = |line: String| {
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            for word in &mut words {
                if let Some(number) = word.strip_prefix("on=") {
                    *word = format!("on={}", names.get(number).map_or(number, String::as_str));
                }
            }
            format!("web {}", words.join(" "))
        };
        Seen(host.chain(web.into_iter().map(named)).collect())
    }
}

impl Place {
    /// What Open vSwitch has, where it is.
    fn ports(&self) -> Vec<String> {
        let list = |columns: &str, table: &str| {
            let format = ["--timeout=10", "--format=json", "--data=json", columns, "list", table];
            let output = self.lab.on_host("ovs-vsctl").args(format).output().ok();
            let document: Value = serde_json::from_slice(&output?.stdout).ok()?;
            Some(document["data"].as_array()?.clone())
        };
        let tags = list("--columns=name,tag", "Port").unwrap_or_default();
        let ids = list("--columns=name,external_ids", "Interface").unwrap_or_default();
        let tags =
            tags.iter().map(|row| format!("ovs-port {} tag={}", text(&row[0]), row[1]).replace("tag=[\"set\",[]]", ""));
        let id = |row: &Value, pair: &Value| {
            format!("ovs-interface {} {}={}", text(&row[0]), text(&pair[0]), text(&pair[1]))
        };
        let ids = ids.iter().flat_map(|row| row[1][1].as_array().into_iter().flatten().map(move |pair| id(row, pair)));
        // plumb's own tag is random.
        tags.map(|line| line.trim().to_owned()).chain(ids.filter(|line| !line.contains(" plumb="))).collect()
    }
}

/// All there is to see, a line for each thing.
pub struct Seen(Vec<String>);

impl Seen {
    /// What has gone and what has come.
    fn difference(&self, after: &Seen) -> Vec<String> {
        let gone = self.0.iter().filter(|line| !after.0.contains(line)).map(|line| (line, '-'));
        let come = after.0.iter().filter(|line| !self.0.contains(line)).map(|line| (line, '+'));
        let mut all: Vec<String> = gone
            .chain(come)
            .map(|(line, sign)| {
                let (place, rest) = line.split_once(' ').unwrap();
                format!("{place} {sign} {rest}")
            })
            .collect();
        all.sort();
        all
    }
}

/// What a namespace has, and its links' names by their numbers.
fn seen(file: &Path) -> (Vec<String>, BTreeMap<String, String>) {
    let [links, routes, rules, qdiscs, vlans] = inside(file, || {
        let looked = batch(&["-j", "-d", "-batch", "-"], "addr show\nroute show table all\nrule show\n");
        let says = |program: &str, arguments: &[&str]| Ran::of(Command::new(program).args(arguments)).ok().out;
        let all = looked + &says("tc", &["-j", "qdisc", "show"]) + &says("bridge", &["-j", "vlan", "show"]);
        let mut documents = serde_json::Deserializer::from_str(&all).into_iter::<Vec<Value>>().map(Result::unwrap);
        [(); 5].map(|()| documents.next().unwrap_or_default())
    });
    let names = links.iter().map(|link| (text(&link["ifindex"]), text(&link["ifname"]))).collect();
    let routes = routes.iter().filter_map(route);
    let rules = rules.iter().map(|rule| format!("rule {}", flat(rule, &[])));
    let qdiscs = qdiscs.iter().filter_map(qdisc);
    let vlans = vlans.iter().flat_map(port_vlans);
    (links.iter().flat_map(link).chain(routes).chain(rules).chain(qdiscs).chain(vlans).collect(), names)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `key=value` for each member but those that say nothing.
fn flat(value: &Value, but: &[&str]) -> String {
    let members = value.as_object().into_iter().flatten();
    let told = members.filter(|(key, value)| !but.contains(&key.as_str()) && !is_nothing(value));
    told.map(|(key, value)| match value {
        Value::Null => key.clone(),
        Value::Array(items) => format!("{key}={}", items.iter().map(text).collect::<Vec<_>>().join(",")),
        other => format!("{key}={}", text(other)),
    })
    .collect::<Vec<_>>()
    .join(" ")
}

fn is_nothing(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// A link and its addresses.
fn link(link: &Value) -> Vec<String> {
    let name = text(&link["ifname"]);
    let info = &link["linkinfo"];
    let kind = info["info_kind"].as_str().unwrap_or(if link["link_type"] == "ether" { "nic" } else { "other" });
    let mut line = format!("link {name} {kind}");
    // Of these much is a bridge's or a port's own, and moves.
    let data = match kind {
        "bridge" => format!("vlan_filtering={}", info["info_data"]["vlan_filtering"]),
        _ => flat(&info["info_data"], &["bcqueuelen", "usedbcqueuelen", "bclim"]),
    };
    let on = link["link"].as_str().map(str::to_owned).or_else(|| Some(text(link.get("link_index")?)));
    let on = on.filter(|_| kind != "veth").map(|on| format!("on={on}"));
    let master = link["master"].as_str().map(|master| format!("port-of={master}"));
    let flags = link["flags"].as_array().unwrap();
    let up = if flags.iter().any(|flag| flag == "UP") { "up" } else { "down" };
    let words = [Some(data), on, master, Some(format!("mtu={} {up} {}", link["mtu"], text(&link["address"])))];
    words.into_iter().flatten().filter(|word| !word.is_empty()).for_each(|word| write!(line, " {word}").unwrap());
    let addresses = link["addr_info"].as_array().into_iter().flatten().filter(|address| address["scope"] != "link");
    let addresses = addresses.map(|address| {
        let prefix = format!("{}/{}", text(&address["local"]), address["prefixlen"]);
        let rest = ["family", "local", "prefixlen", "label", "valid_life_time", "preferred_life_time"];
        format!("addr {name} {prefix} {}", flat(address, &rest))
    });
    std::iter::once(line).chain(addresses).collect()
}

/// The local table follows from the addresses, and link-local routes from the links.
fn route(route: &Value) -> Option<String> {
    let destination = text(&route["dst"]);
    if route["table"] == "local"
        || destination.starts_with("fe80")
        || destination.starts_with("multicast")
        || destination.starts_with("ff00")
    {
        return None;
    }
    Some(format!("route {destination} {}", flat(route, &["dst", "flags", "type", "pref"]) + &flags(route)))
}

fn flags(route: &Value) -> String {
    let flags =
        route["flags"].as_array().into_iter().flatten().map(text).filter(|flag| flag != "linkdown" && flag != "dead");
    flags.map(|flag| format!(" {flag}")).collect()
}

fn qdisc(qdisc: &Value) -> Option<String> {
    (qdisc["kind"] != "noqueue").then(|| {
        let options = flat(&qdisc["options"], &["multiqueue", "priomap", "bands"]);
        format!("qdisc {} {} {options}", text(&qdisc["dev"]), text(&qdisc["kind"])).trim_end().to_owned()
    })
}

/// The VLANs that a bridge's port is in.
fn port_vlans(port: &Value) -> Vec<String> {
    let vlans = port["vlans"].as_array().into_iter().flatten();
    vlans.map(|vlan| format!("port-vlan {} {}", text(&port["ifname"]), flat(vlan, &[]))).collect()
}

/// All cases of this kind of kernel, one after the other in one place; tells of all that fail.
pub fn all_hold(place: &Place, in_guest: bool) {
    let before = place.look();
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases().iter().filter(|case| case.in_guest == in_guest) {
        count += 1;
        if let Err(what) = place.try_case(case, &before) {
            wrong.push(format!("{}\n{what}\n", case.title));
        }
    }
    println!("{count} cases");
    let left = before.difference(&place.look());
    if !left.is_empty() {
        wrong.push(format!("left of the last\n{}\n", left.join("\n")));
    }
    assert!(wrong.is_empty(), "{} of {count} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
