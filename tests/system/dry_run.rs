//! `--dry-run` is honest: the commands it prints do exactly what plumb does.

use crate::lab::{FREE, FREE6, Lab, ROUTER, ROUTER6, Ran, State};

/// The state, without what a record has and a shell's work has not.
fn kernel_state(lab: &Lab) -> State {
    let state = lab.state().0;
    let store = lab.store().display().to_string();
    // Tags are random; all else must be the same to the letter.
    let lines = state.lines().filter(|line| !line.contains(&store) && !line.contains("altname plumb:"));
    State(lines.map(|line| line.to_owned() + "\n").collect())
}

fn honest(arguments: &str) {
    let lab = Lab::new();
    let before = lab.state();
    let dry = lab.flat(&format!("{arguments} --dry-run")).ok();
    lab.state().is(&before);
    let json = lab.flat(&format!("{arguments} --dry-run --json")).ok().json();
    let commands: Vec<&str> = json["commands"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    assert_eq!(commands.len(), dry.out.lines().count());

    lab.flat(arguments).ok();
    let by_plumb = kernel_state(&lab);
    lab.plumb("detach --all").ok();
    lab.state().is(&before);

    let mut shell = lab.on_host("sh");
    Ran::of(shell.args(["-ec", &dry.out])).ok();
    println!("{}", dry.out);
    kernel_state(&lab).is(&by_plumb);
    assert!(lab.ip("box", "link").contains("altname plumb:"));
}

#[test]
fn for_a_plain_address() {
    honest(&format!("--ip {FREE} --gateway {ROUTER}"));
}

#[test]
fn for_everything_together() {
    honest(&format!(
        "--ip {FREE} --ip {FREE6} --ip 192.168.9.3/32 --gateway {ROUTER} --gateway {ROUTER6} --mode private --mtu 1400 --name lan0 \
         --mac 02:00:00:00:09:09 --route '10.0.0.0/8,via {ROUTER},metric 7' --route fd99::/48"
    ));
}

#[test]
fn for_metrics_modes_and_off_link_gateways() {
    honest(&format!("--ip {FREE} --gateway {ROUTER} --metric 200 --mode vepa"));
    honest("--ip 10.7.7.7/32 --gateway 192.168.9.1 --off-link-gateway --mode source --source-mac 02:00:00:00:09:01");
    honest("--ip none --mode passthru");
}
