//! What plumb answers before it touches the kernel: help, mistakes, missing permissions, its store,
//! and what it offers at TAB.

use std::{collections::BTreeSet, io::Write};

use serde_json::json;

use crate::{PLUMB, Plumb, project};

// Help.

/// Each verb, and plumb itself as "", with all its options.
fn verbs() -> Vec<clap::Command> {
    let mut plumb = netplumb::cli::command();
    plumb.build();
    let below = |verb: &clap::Command| {
        let name = |sub: &clap::Command| -> &'static str { format!("{} {}", verb.get_name(), sub.get_name()).leak() };
        verb.get_subcommands().map(|sub| sub.clone().name(name(sub))).collect::<Vec<_>>()
    };
    let all = plumb.get_subcommands().flat_map(|verb| [vec![verb.clone()], below(verb)].concat());
    all.chain([plumb.clone().name("")]).collect()
}

#[test]
fn each_verbs_help_names_each_of_its_options() {
    for verb in verbs() {
        for help in ["--help", "-h"] {
            let text = Plumb::new().run(&format!("{} {help}", verb.get_name())).ok().out;
            let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
            for option in verb.get_arguments() {
                let long = option.get_long().map(|long| format!("--{long}"));
                let short = option.get_short().map(|short| format!("-{short}"));
                for written in long.into_iter().chain(short) {
                    assert!(
                        words.contains(written.as_str()),
                        "plumb {} {help} does not name {written}",
                        verb.get_name()
                    );
                }
            }
        }
    }
}

/// It is broken into lines by hand.
#[test]
fn what_stands_below_the_options_fits_a_narrow_terminal() {
    for verb in verbs().iter().filter(|verb| ["route", "rule", "link"].contains(&verb.get_name())) {
        let text = verb.get_after_help().unwrap().to_string();
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert_eq!(long, [""; 0], "{}", verb.get_name());
    }
}

#[test]
fn each_verb_and_each_option_says_what_it_is_for() {
    let mut silent = Vec::new();
    for verb in verbs() {
        let options = verb.get_arguments().filter(|option| option.get_help().is_none());
        silent.extend(options.map(|option| format!("{} {}", verb.get_name(), option.get_id())));
        if verb.get_about().is_none() {
            silent.push(verb.get_name().to_owned());
        }
    }
    // The shells speak for themselves.
    assert_eq!(silent, [""; 0]);
}

#[test]
fn plumb_alone_prints_its_help() {
    let alone = Plumb::new().run("");
    assert_eq!((alone.code, alone.out.as_str()), (2, ""));
    assert_eq!(alone.err, Plumb::new().run("-h").out);
}

#[test]
fn plumb_tells_its_version() {
    for version in ["--version", "-V"] {
        assert_eq!(Plumb::new().run(version).ok().out, format!("plumb {}\n", env!("CARGO_PKG_VERSION")));
    }
}

// Mistakes.

/// What cannot be, whatever the machine looks like.
const IMPOSSIBLE: [(&str, &str); 59] = [
    ("flta", "unrecognized subcommand 'flta'"),
    ("ls --jsno", "unexpected argument '--jsno' found"),
    ("ls web", "unexpected argument 'web' found"),
    ("ls -q -v", "the argument '--quiet' cannot be used with '--verbose'"),
    ("completions tcsh", "invalid value 'tcsh' for '<SHELL>'"),
    ("flat pid:x -i eth0 --ip none", "invalid value 'pid:x' for '<TARGET>': \"x\" is no process id; write pid:42"),
    (
        "show lxc:web",
        "invalid value 'lxc:web' for '<TARGET>': \"lxc:web\" names no target; write a container's name or id, podman:NAME, pid:N, netns:NAME or netns:/PATH",
    ),
    (
        "flat web -i eth0 --ip 192.168.0.100",
        "invalid value '192.168.0.100' for '--ip <ADDR/LEN>': address 192.168.0.100 has no prefix length; maybe 192.168.0.100/24?",
    ),
    (
        "flat web -i eth0 --ip 192.168.0.0/24",
        "invalid value '192.168.0.0/24' for '--ip <ADDR/LEN>': 192.168.0.0 is the address of the network 192.168.0.0/24 itself",
    ),
    (
        "flat web -i eth0 --ip 192.168.0.255/24",
        "invalid value '192.168.0.255/24' for '--ip <ADDR/LEN>': 192.168.0.255 is the broadcast address of 192.168.0.0/24",
    ),
    ("flat web -i eth0 --ip none --mode sourec", "invalid value 'sourec' for '--mode <MODE>'"),
    (
        "flat web -i eth0 --ip none --mtu 67",
        "invalid value '67' for '--mtu <BYTES>': MTU 67 is too small: every IP link carries at least 68 bytes (RFC 791)",
    ),
    (
        "flat web -i eth0 --ip none --name a234567890123456",
        "invalid value 'a234567890123456' for '--name <IFNAME>': interface name \"a234567890123456\" has 16 bytes, the kernel takes at most 15",
    ),
    (
        "flat web -i eth0 --ip none --mac 01:00:5e:00:00:01",
        "invalid value '01:00:5e:00:00:01' for '--mac <MAC>': MAC 01:00:5e:00:00:01 is a group address (multicast): an interface needs one whose first byte is even",
    ),
    (
        "flat web -i eth0 --ip none --mac 00:00:00:00:00:00",
        "invalid value '00:00:00:00:00:00' for '--mac <MAC>': MAC 00:00:00:00:00:00 is no address: the kernel refuses it",
    ),
    (
        "flat web -i eth0 --ip none --probe 200",
        "invalid value '200' for '--probe <DURATION>': \"200\" has no unit; write 200ms or 200s",
    ),
    (
        "flat web -i eth0 --ip none --route 10.0.0.1/8",
        "invalid value '10.0.0.1/8' for '--route <ROUTE>': route 10.0.0.1/8 has host bits set; maybe 10.0.0.0/8?",
    ),
    (
        "qos web --rate 500",
        "invalid value '500' for '--rate <RATE>': \"500\" has no unit; write 500kbit for kilobits, 500kbps for kilobytes a second, 500mbit for megabits",
    ),
    (
        "qos web --rate 0kbit",
        "invalid value '0kbit' for '--rate <RATE>': rate 0kbit would let nothing through; to cut a container off, detach it",
    ),
    (
        "qos web --rate 1mbit --burst 32",
        "invalid value '32' for '--burst <SIZE>': \"32\" has no unit; write 32b for bytes, 32kb for 1024 of them",
    ),
    ("qos web --loss 1", "invalid value '1' for '--loss <PERCENT>': \"1\" has no unit; write 1%"),
    (
        "qos web --rate -1mbit",
        "invalid value '-1mbit' for '--rate <RATE>': \"-1mbit\" is no rate; write one like 500kbit or 10mbit, or in bytes 64kbps",
    ),
    ("wait web --timeout 5", "invalid value '5' for '--timeout <DURATION>': \"5\" has no unit; write 5ms or 5s"),
    ("doctor everything", "invalid value 'everything' for '[VERB]'"),
    // From here on each value is good, but not beside the others.
    ("qos web", "which limit? neither a rate nor a bad network is given"),
    ("qos show web --rate 1mbit", "unexpected argument '--rate' found"),
    (
        "flat web -i eth0 --ip 192.168.0.100/24 --gateway 192.168.1.1",
        "gateway 192.168.1.1 is outside of 192.168.0.0/24",
    ),
    (
        "flat web -i eth0 --ip 192.168.0.100/24 --gateway 192.168.0.100",
        "gateway 192.168.0.100 is the container's own address",
    ),
    (
        "flat web -i eth0 --ip 192.168.0.100/24 --gateway 192.168.0.255",
        "gateway 192.168.0.255 is the broadcast address of 192.168.0.0/24",
    ),
    ("flat web -i eth0 --ip none --gateway 192.168.0.1", "gateway 192.168.0.1 needs an IPv4 address on the interface"),
    (
        "flat web -i eth0 --ip 192.168.0.100/24 --ip fd00::100/64 --gateway 192.168.0.1 --gateway fd00::1 --gateway 192.168.0.2",
        "gateways 192.168.0.1 and 192.168.0.2 are of one IP version; a default route has one gateway",
    ),
    ("flat web -i eth0 --ip 192.168.0.100/24 --ip 192.168.0.100/16", "address 192.168.0.100 is given twice"),
    ("flat web -i eth0 --ip none --ip 192.168.0.100/24", "--ip none cannot stand beside other addresses"),
    (
        "flat web -i eth0 --ip fd00::100/64 --mtu 1279",
        "MTU 1279 is too small for IPv6, which needs 1280 bytes (RFC 8200)",
    ),
    ("flat web -i eth0 --ip none --source-mac 02:00:00:00:00:01", "--source-mac has a meaning in mode source only"),
    (
        "flat web -i eth0 --ip none --mode source",
        "mode source accepts frames from listed addresses only, and none is listed",
    ),
    (
        "flat web -i eth0 --ip none --mode passthru --mac 02:00:00:00:00:01",
        "a passthru link takes its parent's MAC address, so --mac cannot be given",
    ),
    (
        "flat web -i eth0 --ip none --driver ipvlan --mac 02:00:00:00:00:01",
        "an ipvlan link has its parent's MAC address, so --mac cannot be given",
    ),
    (
        "flat web -i eth0 --ip none --driver ipvlan --mode bridge",
        "modes bridge, private, vepa, passthru and source are macvlan's; ipvlan has l2, l3 and l3s",
    ),
    (
        "flat web -i eth0 --ip none --mode l3",
        "modes l2, l3 and l3s are ipvlan's; macvlan has bridge, private, vepa, passthru and source",
    ),
    (
        "flat web -i eth0 --ip 10.1.0.2/24 --driver ipvlan --mode l3s --gateway 10.1.0.1",
        "in mode l3s the host's own routes decide, so gateway 10.1.0.1 would have no effect",
    ),
    ("flat web -i eth0 --ip 10.1.0.2/24 --route 0.0.0.0/0", "route 0.0.0.0/0 needs a router"),
    (
        "flat web -i eth0 --ip 10.1.0.2/24 --driver ipvlan --mode l3 --route 0.0.0.0/0 --keep-default",
        "--keep-default and --route 0.0.0.0/0 contradict one another",
    ),
    ("flat web --ip none", "which interface of the host leads to the LAN? -i is missing"),
    ("route web ad 10.0.0.0/8", "invalid value 'ad' for '[ACTION]'"),
    ("route web add 10.0.0.1/8 dev eth1", "route 10.0.0.1/8 has host bits set; maybe 10.0.0.0/8?"),
    ("route web add default nexthop via 10.0.0.1", "a route of plumb's has one way, and nexthop is for several"),
    ("route web del", "which route? its destination is missing"),
    (
        "route web add default dev eth1 --with eth1 --unrecorded",
        "the argument '--with <IFNAME>' cannot be used with '--unrecorded'",
    ),
    ("rule web add from 10.0.0.0/8 to fd00::/8", "the rule's addresses are of different IP versions"),
    // In iproute2's order.
    ("route add web default via 10.0.0.1 via 10.0.0.2", "via is given twice"),
    ("rule -6 del web priority 7 priority 8", "priority is given twice"),
    ("link set web eth1 up down", "up and down are given, and one of them is enough"),
    ("link web up down", "up and down are given, and one of them is enough"),
    ("link web set eth9", "set what of eth9? no setting is given"),
    ("link web show eth0 eth1", "show lists all links, or the one whose name is behind it"),
    ("link web eth1 mtu 1400", "invalid value 'eth1' for '[ACTION]'"),
    ("link web set eth1 mtu 67", "MTU 67 is too small: every IP link carries at least 68 bytes (RFC 791)"),
    ("link host: set eth0 down", "host: is this host itself; plumb changes containers"),
];

#[test]
fn each_mistake_is_named_and_ends_with_2() {
    for (typed, message) in IMPOSSIBLE {
        Plumb::new().run(typed).refused(2, message);
    }
}

#[test]
fn json_says_the_same_of_each_mistake_in_one_document() {
    for (typed, message) in IMPOSSIBLE {
        let ran = Plumb::new().run(&format!("{typed} --json"));
        let error = &ran.json()["error"];
        assert_eq!((ran.code, &error["kind"], ran.err.as_str()), (2, &json!("usage"), ""), "{ran:#?}");
        // Behind it may stand what the text has on lines of their own: the values that are possible.
        assert!(error["message"].as_str().unwrap().starts_with(message), "{ran:#?}");
    }
}

#[test]
fn a_way_out_is_hinted_at() {
    for (typed, hint) in [
        ("flat web --ip none", "-i eth0, or host-interface = \"eth0\" in the configuration; ip -br link lists them"),
        (
            "flat web -i eth0 --ip 192.168.0.100/24 --gateway 192.168.1.1",
            "check the address and its prefix length; if the gateway really is off-link, add --off-link-gateway",
        ),
        ("flat web -i eth0 --ip none --source-mac 02:00:00:00:00:01", "add --mode source"),
        ("flat web -i eth0 --ip none --mode source", "add --source-mac 02:42:ac:11:00:02, once for each"),
        ("flat web -i eth0 --ip none --mode l2", "add --driver ipvlan"),
        ("flat web -i eth0 --ip none --driver ipvlan --mode vepa", "leave --mode out for l2, or give --driver macvlan"),
        (
            "flat web -i eth0 --ip fd00::2/64 --driver ipvlan --mode l3 --gateway fd00::1",
            "--route ::/0 instead of --gateway makes the interface the way out",
        ),
        ("route web del", "such as plumb route web del 10.0.0.0/8; plumb route web lists them"),
        (
            "route web add default nexthop via 10.0.0.1",
            "via ADDR, dev IFNAME or both, without nexthop; append puts another route behind it",
        ),
        ("ls --store redis://here", "give a directory, such as /var/lib/plumb, or etcd://HOST"),
    ] {
        let plumb = Plumb::new();
        assert_eq!(plumb.run(typed).hints(hint).code, 2);
        assert_eq!(plumb.run(&format!("{typed} --json")).json()["error"]["hint"], hint);
    }
}

#[test]
fn a_slip_of_the_fingers_is_answered_with_what_was_meant() {
    for (typed, meant) in [
        ("flta", "a similar subcommand exists: 'flat'"),
        ("ls --jsno", "a similar argument exists: '--json'"),
        ("flat web --ip none --mode sourec", "a similar value exists: 'source'"),
        ("route web ad 10.0.0.0/8", "a similar value exists: 'add'"),
        ("link web eth1 mtu 1400", "the whole command: plumb link web set eth1 mtu 1400"),
        ("route web default dev eth1", "the whole command: plumb route web add default dev eth1"),
        ("route web -6 from::/8 dev eth1", "the whole command: plumb route web -6 add from::/8 dev eth1"),
        ("rule web from 10.0.0.0/8 table 7", "the whole command: plumb rule web add from 10.0.0.0/8 table 7"),
    ] {
        let ran = Plumb::new().run(typed);
        assert!(ran.err.contains(meant), "{ran:#?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    for (typed, missing) in
        [("flat web -i eth0", "--ip <ADDR/LEN>"), ("flat", "<TARGET>"), ("detach", "<TARGET>"), ("show", "<TARGET>")]
    {
        let ran = Plumb::new().run(typed).refused(2, "the following required arguments were not provided:");
        assert!(ran.err.lines().any(|line| line.trim() == missing), "{ran:#?}");
    }
}

// The configuration.

#[test]
fn a_mistake_in_the_configuration_is_named_with_file_and_line() {
    for (text, line, mistake) in [
        ("check = false\nprobe = \"5\"\n", 2, "\"5\" has no unit; write 5ms or 5s"),
        ("\n\nhost-interface = \"a/b\"\n", 3, "interface name \"a/b\" has a '/' in it, which the kernel refuses"),
        (
            "stroe = \"/srv\"\n",
            1,
            "unknown field `stroe`, expected one of `store`, `store-ca`, `store-cert`, `store-key`, `store-password-file`, `docker`, `podman`, `host-interface`, `probe`, `check`, `dhcp-timeout`",
        ),
    ] {
        let plumb = Plumb::new().with_config(text);
        plumb.run("ls").refused(2, &format!("{} line {line}: {mistake}", plumb.config().display()));
    }
}

#[test]
fn a_configuration_that_was_asked_for_must_be_there() {
    Plumb::new()
        .run("ls --config /nowhere/plumb.toml")
        .refused(1, "cannot read the configuration /nowhere/plumb.toml: no such file or directory");
}

#[test]
fn the_configuration_stands_in_for_flags_and_gives_way_to_them() {
    let plumb =
        Plumb::new().with_config("host-interface = \"eth0\"\nstore = \"redis://filed\"\n").without("PLUMB_STORE");
    let store = plumb.store().display().to_string();
    // It is past the missing -i, and so complains of something else.
    plumb
        .run(&format!("flat web --ip 192.168.0.100/24 --gateway 192.168.1.1 --store {store}"))
        .refused(2, "gateway 192.168.1.1 is outside of 192.168.0.0/24");
    plumb.run("ls").refused(2, "redis://filed: plumb knows no redis store");
    let plumb = plumb.with("PLUMB_STORE", "redis://variable");
    plumb.run("ls").refused(2, "redis://variable: plumb knows no redis store");
    plumb.run("ls --store redis://flag").refused(2, "redis://flag: plumb knows no redis store");
}

// Colours.

#[test]
fn colours_are_for_terminals_and_for_who_wants_them() {
    let on_a_terminal = |plumb: Plumb| {
        let command = format!("'{PLUMB}' flat web --ip none");
        plumb.with("TERM", "xterm").run_program("script", ["-qec", &command, "/dev/null"])
    };
    const ESCAPE: char = '\x1b';
    let ran = on_a_terminal(Plumb::new());
    assert!(ran.out.starts_with("\x1b[1;31mplumb:\x1b[0m which interface"), "{ran:#?}");
    let ran = on_a_terminal(Plumb::new().with("NO_COLOR", "1"));
    assert!(ran.out.starts_with("plumb: which interface") && !ran.out.contains(ESCAPE), "{ran:#?}");
    for typed in ["flat web --ip none", "flta", "--help", "ls"] {
        let ran = Plumb::new().with("TERM", "xterm").run(typed);
        assert!(!format!("{}{}", ran.out, ran.err).contains(ESCAPE), "{ran:#?}");
    }
}

// Permissions.

/// Without any capability, whoever runs the tests. The user stays: another might not be allowed to
/// reach the folder that plumb was built in.
fn without_capabilities() -> Plumb {
    if nix::unistd::geteuid().is_root() {
        Plumb::new().by(&["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"])
    } else {
        Plumb::new()
    }
}

const ALL_MISSING: &str = "not permitted: this process lacks CAP_NET_ADMIN (to make interfaces), CAP_SYS_ADMIN (to enter namespaces), CAP_NET_RAW (to speak ARP)";

#[test]
fn whoever_may_not_is_told_what_is_missing() {
    for typed in ["flat web -i eth0 --ip none", "flat web -i eth0 --ip none --dry-run", "gc"] {
        let plumb = without_capabilities();
        plumb.run(typed).refused(5, ALL_MISSING).hints("run plumb as root, such as with sudo");
        let ran = plumb.run(&format!("{typed} --json"));
        assert_eq!(
            (ran.code, ran.json()),
            (
                5,
                json!({ "error": { "kind": "not-permitted", "message": ALL_MISSING, "hint": "run plumb as root, such as with sudo" } })
            )
        );
    }
}

#[test]
fn only_the_capability_that_is_missing_is_named() {
    if !nix::unistd::geteuid().is_root() {
        skipped("capabilities can be taken away one by one by root only");
        return;
    }
    for (missing, name) in [
        ("-net_admin", "CAP_NET_ADMIN (to make interfaces)"),
        ("-sys_admin", "CAP_SYS_ADMIN (to enter namespaces)"),
        ("-net_raw", "CAP_NET_RAW (to speak ARP)"),
    ] {
        Plumb::new()
            .by(&["setpriv", "--bounding-set", missing])
            .run("gc")
            .refused(5, &format!("not permitted: this process lacks {name}"));
    }
}

#[test]
fn a_mistake_comes_before_a_missing_permission_and_looking_needs_none() {
    let plumb = without_capabilities();
    plumb.run("flat web --ip none").refused(2, "which interface of the host leads to the LAN? -i is missing");
    assert_eq!(plumb.run("ls").ok().out, "nothing is attached\n");
    let myself = std::process::id();
    assert_eq!(plumb.run(&format!("show pid:{myself}")).ok().out, format!("pid:{myself}: nothing is attached\n"));
}

// The store.

#[test]
fn of_an_empty_store_each_verb_says_that_there_is_nothing() {
    let plumb = Plumb::new();
    let myself = format!("pid:{}", std::process::id());
    for (typed, said, document) in [
        ("ls".to_owned(), "nothing is attached".to_owned(), json!({ "attachments": [], "damaged": [] })),
        ("detach --all".into(), "nothing is attached".into(), json!({ "detached": [] })),
        ("detach web".into(), "web: nothing is attached".into(), json!({ "detached": [] })),
        ("detach web eth1".into(), "web: eth1 is not attached".into(), json!({ "detached": [] })),
        (
            format!("show {myself}"),
            format!("{myself}: nothing is attached"),
            json!({ "target": myself, "attachments": [] }),
        ),
    ] {
        assert_eq!(plumb.run(&typed).ok().out, format!("{said}\n"));
        assert_eq!(plumb.run(&format!("{typed} --json")).ok().json(), document);
        assert_eq!(plumb.run(&format!("{typed} --quiet")).ok().out, "");
    }
    assert!(!plumb.store().exists(), "who only looks leaves no folder behind");
}

#[test]
fn a_target_that_does_not_exist_cannot_be_shown() {
    Plumb::new().run("show netns:nowhere").refused(3, "there is no namespace /run/netns/nowhere");
}

/// A record of format 1 as it lies on disks, of an attachment made before the last boot: nothing of
/// it is in the kernel.
fn record(target: &str) -> String {
    let tag = "plumb:98bfa19a:3d6ad443655b94fb";
    let link = json!({
        "index": 12, "name": "eth1", "mac": "b2:13:ae:32:7f:fd", "mtu": 1500,
        "parent": { "name": "nic0", "index": 10 }, "driver": { "macvlan": "bridge" }
    });
    let wish = json!({
        "target": target, "driver": { "macvlan": "bridge" }, "name": null, "mac": { "derived": { "host": "3d1219c7c4c5" } },
        "mtu": null, "addresses": ["192.168.0.100/24"], "gateways": ["192.168.0.1"], "routes": [], "metric": null,
        "keep_default": false, "off_link_gateway": false, "allow_wifi": false, "skip_dad": false
    });
    let steps = json!([
        { "add-link": link },
        { "add-tag": { "index": 12, "name": "eth1", "tag": tag } },
        { "add-address": { "index": 12, "name": "eth1", "address": "192.168.0.100/24", "skip_dad": false } }
    ]);
    json!({
        "format": 1, "target": target, "tag": tag, "begun": 1795261735569260077u64,
        "place": { "process": { "pid": 11146, "started": 416971 } },
        "namespace": { "inode": 4026532407u64, "cookie": 32, "boot": "an earlier one" },
        "wish": wish, "steps": steps
    })
    .to_string()
}

/// A store in which db's record is good and web's is not.
fn with_damaged(text: &str) -> Plumb {
    Plumb::new().with_record("db@eth1", &record("db")).with_record("web@eth1", text)
}

/// What can be wrong with web's record, and how that is told.
fn damages() -> [(String, &'static str, &'static str); 5] {
    const MEND: &str = "it was left as it is; mend it by hand, or remove the file and run plumb gc";
    let whole = record("web");
    [
        (whole[..300].to_owned(), "is damaged: EOF while parsing", MEND),
        (String::new(), "is damaged: EOF while parsing a value at line 1 column 0", MEND),
        ("{}".to_owned(), "is damaged: it has no format number", MEND),
        (whole.replace("\"web\"", "\"bew\""), "is damaged: it describes flat/bew/eth1", MEND),
        // Nothing else in it need look like what this plumb knows.
        (
            r#"{"format": 2, "wires": []}"#.to_owned(),
            "is of format 2, and this plumb knows 1",
            "a newer plumb wrote it: use that one",
        ),
    ]
}

#[test]
fn a_record_of_format_1_is_understood() {
    let plumb = Plumb::new().with_record("db@eth1", &record("db"));
    let row = json!({
        "target": "db", "interface": "eth1", "addresses": ["192.168.0.100/24"], "gateways": ["192.168.0.1"],
        "parent": "nic0", "driver": "macvlan", "mode": "bridge", "state": "stopped"
    });
    assert_eq!(plumb.run("ls --json").ok().json(), json!({ "attachments": [row], "damaged": [] }));
    let table = plumb.run("ls").ok().out;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["TARGET", "INTERFACE", "ADDRESS", "GATEWAY", "PARENT", "DRIVER", "STATE"]);
    assert_eq!(rows[1], ["db", "eth1", "192.168.0.100/24", "192.168.0.1", "nic0", "macvlan bridge", "stopped"]);
    assert_eq!(rows.len(), 2);
}

#[test]
fn beside_a_damaged_record_the_others_are_listed() {
    for (text, damage, hint) in damages() {
        let plumb = with_damaged(&text);
        let told = format!("the record {} {damage}", plumb.record("web@eth1").display());
        let ran = plumb.run("ls").ok();
        assert!(ran.out.lines().any(|line| line.starts_with("db ")) && !ran.out.contains("web"), "{ran:#?}");
        assert!(ran.err.starts_with(&format!("warning: {told}")), "{ran:#?}");
        let document = plumb.run("ls --json").ok().json();
        assert_eq!(document["attachments"][0]["target"], "db");
        let damaged = &document["damaged"][0];
        assert!(damaged["message"].as_str().unwrap().starts_with(&told), "{damaged}");
        assert!(damaged["kind"] == "failed" && damaged["hint"].as_str().unwrap().starts_with(hint), "{damaged}");
    }
}

#[test]
fn what_a_damaged_record_tells_of_is_not_detached_and_the_record_stays() {
    for (text, damage, hint) in damages() {
        let plumb = with_damaged(&text);
        let file = plumb.record("web@eth1");
        for typed in ["detach web", "detach web eth1", "show web"] {
            let ran = plumb.run(typed).hints(hint);
            assert_eq!(ran.code, 1);
            assert!(ran.message().starts_with(&format!("the record {} {damage}", file.display())), "{ran:#?}");
            let document = plumb.run(&format!("{typed} --json")).json();
            assert!(document["error"]["hint"].as_str().unwrap().starts_with(hint), "{document}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }
}

#[test]
fn a_dry_run_of_detach_tells_of_a_damaged_record_as_well() {
    let plumb = with_damaged("{}");
    let told = format!("the record {} is damaged: it has no format number", plumb.record("web@eth1").display());
    plumb.run("detach web --dry-run").refused(1, &told);
}

// At TAB.

/// What plumb answers to the question that the shell's script would ask.
fn offers(plumb: Plumb, shell: &'static str, words: &[&str]) -> Vec<String> {
    let index = (words.len() - 1).to_string();
    let plumb = plumb.with("COMPLETE", shell).with("_CLAP_IFS", "\n").with("_CLAP_COMPLETE_INDEX", index);
    let ran = plumb.run_program(PLUMB, ["--"].into_iter().chain(words.iter().copied())).ok();
    first_of_each_line(&ran.out, if shell == "zsh" { ':' } else { '\t' })
}

/// Whether the host's interfaces are what `complete` offers. Other tests' may come and go meanwhile:
/// only those that are there before and afterwards must be offered.
#[track_caller]
fn offers_interfaces(complete: impl Fn() -> Vec<String>) {
    let there = || -> BTreeSet<String> {
        let entries = std::fs::read_dir("/sys/class/net").unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let before = there();
    let offered: BTreeSet<String> = complete().into_iter().collect();
    let mut lasting: BTreeSet<String> = before.intersection(&there()).cloned().collect();
    // Nothing can be attached to it.
    lasting.remove("lo");
    assert!(offered.is_superset(&lasting) && !offered.contains("lo"), "{offered:?} are offered, {lasting:?} are there");
}

#[test]
fn each_shell_is_offered_verbs_options_containers_and_interfaces() {
    for shell in ["bash", "zsh", "fish"] {
        let offers = |words: &[&str]| offers(Plumb::new().with_containers(&["web", "db"]), shell, words);
        let verbs: Vec<String> =
            netplumb::cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        assert_eq!(offers(&["plumb", ""])[..verbs.len()], verbs);
        assert_eq!(offers(&["plumb", "flat", "web", "--m"]), ["--mode", "--mac", "--mtu", "--metric"]);
        assert_eq!(
            offers(&["plumb", "flat", "web", "--mode", ""]),
            ["bridge", "private", "vepa", "passthru", "source", "l2", "l3", "l3s"]
        );
        assert_eq!(offers(&["plumb", "flat", ""])[..2], ["web", "db"]);
        assert_eq!(offers(&["plumb", "flat", "w"]), ["web"]);
        assert_eq!(offers(&["plumb", "wait", "w"]), ["web"]);
        assert_eq!(offers(&["plumb", "doctor", "create"]), ["create-vlan"]);
        for option in ["-i", "--host-interface"] {
            offers_interfaces(|| offers(&["plumb", "flat", "web", option, ""]));
        }
    }
}

#[test]
fn what_is_attached_is_offered_for_detaching() {
    for verb in ["detach", "show"] {
        let offers = offers(with_damaged("{}"), "bash", &["plumb", verb, ""]);
        assert_eq!(offers[0], "db");
        assert!(!offers.contains(&"web".to_owned()), "a damaged record tells no name: {offers:?}");
    }
}

#[test]
fn without_an_engine_tab_is_silent() {
    assert!(offers(Plumb::new(), "bash", &["plumb", "flat", "w"]).is_empty());
}

/// For shells: `plumb` is found where it was built, and an engine runs web and db.
fn with_plumb_in_path() -> Plumb {
    let built = std::path::Path::new(PLUMB).parent().unwrap().to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::join_paths([built].into_iter().chain(std::env::split_paths(&others))).unwrap();
    Plumb::new().with_containers(&["web", "db"]).with("PATH", folders)
}

/// What bash has after TAB: it sets the line and its words, and calls what `complete` names.
fn at_tab_in_bash(line: &str, words: &[&str]) -> Vec<String> {
    const AT_TAB: &str = r#"
        source "$1"
        COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=9
        shift 2
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        [[ $(complete -p plumb) =~ -F\ ([^ ]+) ]]
        "${BASH_REMATCH[1]}" plumb "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let script = project("completions/plumb.bash").display().to_string();
    let arguments = ["--norc", "-c", AT_TAB, "bash", &script, line];
    let ran = with_plumb_in_path().run_program("bash", arguments.into_iter().chain(words.iter().copied())).ok();
    assert_eq!(ran.err, "");
    ran.out.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn bash_completes_with_the_committed_script() {
    let completed = |words: &[&str]| at_tab_in_bash(&words.join(" "), words);
    assert_eq!(completed(&["plumb", "fl"]), ["flat"]);
    assert_eq!(completed(&["plumb", "flat", "web", "--keep"]), ["--keep-default"]);
    assert_eq!(completed(&["plumb", "flat", "d"]), ["db"]);
    offers_interfaces(|| completed(&["plumb", "flat", "web", "-i", ""]));
}

#[test]
fn bash_completes_behind_a_colon_and_an_equals_sign() {
    offers_interfaces(|| {
        at_tab_in_bash("plumb flat web --host-interface=", &["plumb", "flat", "web", "--host-interface", "=", ""])
    });
}

#[test]
fn zsh_completes_at_the_first_tab() {
    if !is_installed("zsh") {
        skipped("zsh is not installed");
        return;
    }
    // zsh loads the file when it is wanted for the first time. What it would list is printed.
    const AT_TAB: &str = r#"
        compdef() {}
        _describe() { print -rl -- ${(P)@[-1]} }
        fpath=($1 $fpath)
        shift
        autoload -Uz _plumb
        words=("$@") CURRENT=$#
        _plumb"#;
    let folder = project("completions").display().to_string();
    let completed = |words: &[&str]| -> Vec<String> {
        let arguments = ["-f", "-c", AT_TAB, "zsh", &folder].into_iter().chain(words.iter().copied());
        first_of_each_line(&with_plumb_in_path().run_program("zsh", arguments).ok().out, ':')
    };
    assert_eq!(completed(&["plumb", "fl"]), ["flat"]);
    assert_eq!(completed(&["plumb", "flat", "d"]), ["db"]);
    offers_interfaces(|| completed(&["plumb", "flat", "web", "-i", ""]));
}

#[test]
fn fish_completes_with_the_committed_script() {
    if !is_installed("fish") {
        skipped("fish is not installed");
        return;
    }
    let script = project("completions/plumb.fish");
    let completed = |line: &str| -> Vec<String> {
        let ask = format!("source '{}'; complete -C '{line}'", script.display());
        first_of_each_line(&with_plumb_in_path().run_program("fish", ["--no-config", "-c", &ask]).ok().out, '\t')
    };
    assert_eq!(completed("plumb fl"), ["flat"]);
    assert_eq!(completed("plumb flat d"), ["db"]);
    offers_interfaces(|| completed("plumb flat web -i "));
}

/// zsh and fish show what an offer is about behind it.
fn first_of_each_line(text: &str, until: char) -> Vec<String> {
    text.lines().map(|line| line.split(until).next().unwrap_or_default().to_owned()).collect()
}

fn is_installed(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).exists())
}

/// Not by println, which the test harness keeps to itself.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
