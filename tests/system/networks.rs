//! Networks as records, and what is refused: no VLAN is needed for that.

use std::process::{Command, Stdio};

use crate::lab::{Lab, Ran, at_each, files};

fn create(lab: &Lab, arguments: &str) -> Ran {
    lab.plumb(&format!("create-vlan {arguments}"))
}

#[test]
fn a_network_is_defined_listed_and_deleted() {
    let lab = Lab::new();
    let said = create(&lab, "blue --subnet 10.1.0.0/24 --subnet fd01::/64 -i nic0 --id 10 --reserve 10.1.0.9").ok().out;
    assert_eq!(said, "blue: VLAN 10 on nic0, 10.1.0.0/24 via 10.1.0.1, fd01::/64 via fd01::1\n");
    create(&lab, "--name red --subnet 10.2.0.0/24 -i nic0 --gateway 10.2.0.254 --range 10.2.0.10-10.2.0.19").ok();
    let json = lab.plumb("networks --json").ok().json();
    let (blue, red) = (&json["networks"][0], &json["networks"][1]);
    assert_eq!((&blue["name"], &blue["id"], &blue["usage"][0]["free"]), (&"blue".into(), &10.into(), &252.into()));
    assert_eq!((&red["name"], &red["usage"][0]["free"]), (&"red".into(), &10.into()));
    let chosen = red["id"].as_u64().unwrap();
    assert!((1..=4094).contains(&chosen) && chosen != 10);
    let said = lab.plumb("networks").ok().out;
    assert!(said.contains("blue     10    nic0    10.1.0.0/24  0     252   10.1.0.1    -"), "{said}");
    assert!(said.contains("2^64"), "{said}");
    assert_eq!(lab.plumb("delete-vlan red").ok().out, "red: deleted\n");
    lab.plumb("delete-vlan blue").ok();
    assert_eq!(lab.plumb("networks").ok().out, "there are no networks\n");
    assert_eq!(crate::lab::files(&lab.store()), Vec::<String>::new());
}

#[test]
fn what_cannot_be_a_network_is_refused() {
    let lab = Lab::new();
    create(&lab, "blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
    let state = lab.state();
    let conflicts = [
        ("blue --subnet 10.9.0.0/24 -i nic0", "there is a network blue already"),
        ("red --subnet 10.1.0.128/25 -i nic0", "10.1.0.128/25 overlaps with 10.1.0.0/24, which is network blue"),
        ("red --subnet 10.0.0.0/8 -i nic0", "10.0.0.0/8 overlaps with 10.1.0.0/24, which is network blue"),
        ("red --subnet 10.2.0.0/24 -i nic0 --id 10", "VLAN 10 on nic0 is network blue"),
    ];
    for (arguments, message) in conflicts {
        create(&lab, arguments).refused(4, message);
    }
    let usage = [
        ("red --subnet 10.2.0.5/24 -i nic0", "10.2.0.5/24 has host bits set; the subnet is 10.2.0.0/24"),
        (
            "red --subnet 10.2.0.0/31 -i nic0",
            "10.2.0.0/31 is too small for a gateway and a container; a /30 is the smallest",
        ),
        ("red --subnet 10.2.0.0/24 -i nic0 --id 0", "VLAN 0 means no VLAN at all; ids are 1 to 4094"),
        ("red --subnet 10.2.0.0/24 -i nic0 --id 4095", "VLAN 4095 is reserved (IEEE 802.1Q); ids are 1 to 4094"),
        ("re/d --subnet 10.2.0.0/24 -i nic0", "network name \"re/d\" has a '/' in it"),
    ];
    for (arguments, message) in usage {
        let ran = create(&lab, arguments);
        assert!(ran.code == 2 && ran.err.contains(message), "{message}: {ran:#?}");
    }
    let meaning = [
        (
            "red --subnet 10.2.0.0/24 --subnet 10.3.0.0/24 -i nic0",
            "subnets 10.2.0.0/24 and 10.3.0.0/24 are of one IP version; a network has one of each",
        ),
        ("red --subnet 10.2.0.0/24 -i nic0 --gateway 10.3.0.1", "gateway 10.3.0.1 is outside of 10.2.0.0/24"),
        (
            "red --subnet 10.2.0.0/24 -i nic0 --gateway 10.2.0.255",
            "gateway 10.2.0.255 is the broadcast address of 10.2.0.0/24",
        ),
        (
            "red --subnet 10.2.0.0/24 -i nic0 --range 10.2.0.9-10.2.1.9",
            "range 10.2.0.9-10.2.1.9 is outside of 10.2.0.0/24",
        ),
        ("red --subnet 10.2.0.0/30 -i nic0 --reserve 10.2.0.2", "no address of 10.2.0.0/30 is left for containers"),
    ];
    for (arguments, message) in meaning {
        create(&lab, arguments).refused(2, message);
    }
    create(&lab, "red --subnet 10.2.0.0/24 -i nix0")
        .refused(3, "the host has no interface nix0")
        .hints("did you mean nic0?");
    create(&lab, "red --subnet 10.2.0.0/24 -i lo").refused(1, "lo is the loopback interface: no VLAN leads out of it");
    create(&lab, "red --subnet 10.2.0.0/24 -i nic0 --mtu 9000")
        .refused(1, "MTU 9000 is above that of nic0, which is 1500");
    lab.plumb("delete-vlan blu").refused(3, "there is no network blu").hints("did you mean blue?");
    lab.state().is(&state);
}

#[test]
fn an_address_that_the_network_cannot_give_is_refused() {
    let lab = Lab::new();
    create(&lab, "blue --subnet 10.1.0.0/24 -i nic0 --id 10 --reserve 10.1.0.9").ok();
    let state = lab.state();
    let attach = |rest: &str| lab.plumb(&format!("attach {} {rest} --probe 0 --no-check", lab.netns("box")));
    attach("blue --ip 10.2.0.5").refused(2, "10.2.0.5 is outside of blue, which has 10.1.0.0/24");
    attach("blue --ip 10.1.0.5/16").refused(2, "the prefix length of blue is 24").hints("--ip 10.1.0.5");
    attach("blue --ip 10.1.0.1").refused(4, "10.1.0.1 is the gateway of blue");
    attach("blue --ip 10.1.0.9").refused(4, "10.1.0.9 is reserved in blue");
    attach("blue --ip 10.1.0.255").refused(2, "10.1.0.255 is the broadcast address of 10.1.0.0/24");
    attach("blue --ip 10.1.0.5 --ip 10.1.0.6").refused(2, "a container has one address of 10.1.0.0/24");
    attach("bleu").refused(3, "there is no network bleu").hints("did you mean blue?");
    attach("blue -i nix0").refused(3, "the host has no interface nix0");
    lab.plumb("attach host: blue").refused(2, "host: is this host itself; plumb attaches containers");
    lab.state().is(&state);
}

/// What a kernel without VLANs cannot do, the guest's tests do.
#[test]
fn a_kernel_without_vlans_is_told_from_a_mistake() {
    let lab = Lab::new();
    create(&lab, "blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
    let state = lab.state();
    let ran = lab.plumb(&format!("attach {} blue --probe 0 --no-check", lab.netns("box")));
    let add = ["-n", &lab.full("host"), "link", "add", "link", "nic0", "name", "nic0.11", "type", "vlan", "id", "11"];
    if Command::new("ip").args(add).output().unwrap().status.success() {
        ran.ok();
        return;
    }
    ran.refused(1, "this kernel cannot make VLAN devices: its module 8021q is missing").hints("modprobe 8021q");
    lab.state().is(&state);
}

#[test]
fn a_record_that_cannot_be_read_is_no_free_subnet() {
    let lab = Lab::new();
    create(&lab, "blue --subnet 10.1.0.0/24 -i nic0 --id 10").ok();
    let record = lab.store().join("vlan/blue.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, &text[..text.len() / 2]).unwrap();
    let place = record.display();
    let ran = create(&lab, "red --subnet 10.1.0.0/24 -i nic0");
    assert!(ran.code == 1 && ran.err.contains(&format!("the record {place} is damaged")), "{ran:#?}");
    std::fs::write(&record, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let ran = lab.plumb(&format!("attach {} blue", lab.netns("box")));
    ran.refused(1, &format!("the record {place} is of format 2, and this plumb knows 1"));
    let ran = lab.plumb("networks").ok();
    assert!(ran.err.contains("is of format 2"), "{ran:#?}");
}

#[test]
fn of_many_created_at_once_no_two_overlap() {
    let lab = Lab::new();
    let names: Vec<String> = (0..8).map(|n| format!("n{n}")).collect();
    let won: usize = std::thread::scope(|scope| {
        let lab = &lab;
        let run = |name: &String| create(lab, &format!("{name} --subnet 10.1.0.0/24 -i nic0"));
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || run(name).code == 0)).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert!(won <= 1, "{won} networks of one subnet");
    let there = lab.plumb("networks --json").ok().json()["networks"].as_array().unwrap().len();
    assert_eq!(there, won);
    // Whoever has lost left nothing behind.
    for name in names {
        let _ = lab.plumb(&format!("delete-vlan {name}"));
    }
    assert_eq!(crate::lab::files(&lab.store()), Vec::<String>::new());
}

/// Several at once under one name: one wins, and the others leave nothing.
#[test]
fn of_many_that_create_one_network_one_does() {
    let lab = Lab::new();
    let create =
        || lab.command("create-vlan blue --subnet 10.1.0.0/24 -i nic0").stderr(Stdio::piped()).spawn().unwrap();
    let all: Vec<Ran> =
        [(); 4].map(|()| create()).into_iter().map(|child| child.wait_with_output().unwrap().into()).collect();
    assert_eq!(all.iter().filter(|ran| ran.code == 0).count(), 1, "{all:#?}");
    for lost in all.iter().filter(|ran| ran.code != 0) {
        assert!(lost.code == 4 && lost.err.contains("there is a network blue already"), "{lost:#?}");
    }
    let ids = || files(&lab.store()).into_iter().filter(|file| file.contains("/vlan-id/")).count();
    assert_eq!(ids(), 1);
    lab.plumb("delete-vlan blue").ok();
    assert_eq!((ids(), lab.plumb("gc").ok().out.as_str()), (0, "nothing was left behind\n"));
}

/// Killed anywhere: afterwards the network is there or it is not, and no id is two networks' or lost.
#[test]
fn creating_and_deleting_killed_anywhere_leaves_a_network_or_none() {
    let lab = Lab::new();
    let blue = "create-vlan blue --subnet 10.1.0.0/24 -i nic0 --id 10";
    lab.plumb(blue).ok();
    lab.plumb("delete-vlan blue").ok();
    let empty = lab.state();
    let mut kills = 0;
    for (prepare, arguments) in [("networks", blue), (blue, "delete-vlan blue")] {
        let calls = ["symlink", "rename", "write", "openat", "unlink", "fsync", "flock"];
        kills += at_each(&calls, |call, number| {
            lab.plumb(prepare).ok();
            let was_killed = lab.killed(arguments, call, number);
            lab.plumb("gc").ok();
            let is_there = lab.plumb("networks").ok().out.contains("blue");
            let red = lab.plumb("create-vlan red --subnet 10.2.0.0/24 -i nic0 --id 10");
            assert_eq!(red.code, if is_there { 4 } else { 0 }, "{arguments} killed at {call} {number}: {red:#?}");
            lab.plumb(&format!("delete-vlan {}", if is_there { "blue" } else { "red" })).ok();
            lab.plumb("gc").ok();
            lab.state().is(&empty);
            was_killed
        });
    }
    assert!(kills >= 20, "only {kills} kills");
}
