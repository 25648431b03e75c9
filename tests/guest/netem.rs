//! A bad network, on a kernel that has netem.

use std::{net::UdpSocket, time::Duration};

use crate::{
    boot::in_guest,
    lab::{FREE, Lab, ROUTER, Ran},
};

fn qos(lab: &Lab, arguments: &str) -> Ran {
    lab.plumb(&format!("qos {} eth1 {arguments}", lab.netns("box"))).ok()
}

/// The shortest round trip of some, in milliseconds: the guest's own work comes on top of the others.
fn round_trip(lab: &Lab) -> f64 {
    let said = Ran::of(lab.program("box", "busybox").args(["ping", "-A", "-c", "30", ROUTER])).ok().out;
    let (_, times) = said.split_once("min/avg/max = ").unwrap_or_else(|| panic!("{said}"));
    times.split('/').next().unwrap().parse().unwrap()
}

/// How many packets have come in on the router's interface.
fn arrived(lab: &Lab) -> i64 {
    lab.json("lan", "-s link show dev lan0")[0]["stats64"]["rx"]["packets"].as_i64().unwrap()
}

/// Sends so many datagrams from the target, not faster than any queue takes them.
fn send(lab: &Lab, count: usize) {
    lab.inside("box", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for number in 0..count {
            // An answer that nobody listens there is no failure.
            let _ = socket.send_to(&[7; 64], (ROUTER, 9));
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

#[test]
fn delay_and_loss_are_what_was_asked_for() {
    in_guest(|| {
        let lab = Lab::new();
        lab.flat(&format!("--ip {FREE} --keep-default")).ok();
        let before = lab.state();
        let without = round_trip(&lab);
        for (options, asked, times) in [
            ("--delay 50ms", 50.0, 1.0),
            ("--delay 20ms --rate 10mbit", 20.0, 1.0),
            ("--delay 10ms --direction both", 10.0, 2.0),
        ] {
            qos(&lab, options);
            // The machine under the guest has other work as well: measured until it had none, at most ten times.
            let late = || (round_trip(&lab) - without) / times - asked;
            let mut measured: Vec<f64> = Vec::new();
            while measured.len() < 10 && !measured.last().is_some_and(|late| late.abs() <= 1.0) {
                measured.push(late());
            }
            println!("{options}: each way late by {measured:?} ms");
            assert!(measured.last().is_some_and(|late| late.abs() <= 1.0), "{options}: late by {measured:?} ms");
            lab.plumb(&format!("qos clear {}", lab.netns("box"))).ok();
            lab.state().is(&before);
        }
        let said = qos(&lab, "--loss 5%").out;
        assert_eq!(said, format!("{}: eth1 sends with 5% loss\n", lab.netns("box")));
        let (count, first) = (20_000, arrived(&lab));
        send(&lab, count);
        std::thread::sleep(Duration::from_millis(200));
        let lost = count as i64 - (arrived(&lab) - first);
        // Binomial: 1000 of 20000, and a standard deviation of 30.8.
        println!("{lost} of {count} lost");
        assert!((lost - 1000).abs() <= 93, "{lost} of {count} lost");
    });
}

#[test]
fn from_each_wish_to_each_other_the_kernel_follows() {
    in_guest(|| {
        let lab = Lab::new();
        lab.flat(&format!("--ip {FREE} --keep-default")).ok();
        let before = lab.state();
        let wishes =
            ["--rate 10mbit", "--delay 1ms --corrupt 1%", "--rate 20mbit --delay 2ms --jitter 1ms --reorder 5%"];
        let kernel = || {
            let all = crate::lab::output(&format!("tc -n {} qdisc show", lab.full("box")));
            all.lines().filter(|line| line.contains("706")).map(|line| line.to_owned() + "\n").collect::<String>()
        };
        let clear = || lab.plumb(&format!("qos clear {}", lab.netns("box"))).ok();
        let directly = wishes.map(|wish| {
            qos(&lab, &format!("{wish} --direction both"));
            let direct = kernel();
            clear();
            direct
        });
        for first in wishes {
            for (second, direct) in wishes.iter().zip(&directly) {
                qos(&lab, &format!("{first} --direction both"));
                qos(&lab, &format!("{second} --direction both"));
                assert_eq!(kernel(), *direct, "from {first} to {second}");
                assert!(lab.pings("box", ROUTER) || lab.pings("box", ROUTER), "{second}");
                let shown = lab.plumb("qos show --json").ok().json();
                assert!(shown["limits"].as_array().unwrap().iter().all(|limit| limit["state"] == "holds"), "{shown:#}");
                clear();
                lab.state().is(&before);
            }
        }
    });
}
