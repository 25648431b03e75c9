//! plumb with its records in a real etcd: one that is well, one that is gone, one that goes in the
//! middle of a command.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    concurrency::of_twenty_exactly_one_gets_it,
    etcd_cluster::{Cluster, base64},
    etcd_fault::{Cuts, Fault, with_etcd, within_limit},
    lab::{FREE, Lab, ROUTER, Ran, files, sh},
    open_vswitch,
};

#[test]
fn what_is_attached_is_on_record_under_readable_keys_and_gone_after_detach() {
    let (lab, cluster) = with_etcd();
    let before = lab.state();
    assert_eq!(lab.plumb("ls").ok().out, "nothing is attached\n");
    let dry = lab.flat(&format!("--ip {FREE} --gateway {ROUTER} --dry-run")).ok();
    assert!(dry.out.contains("altname plumb:"), "{dry:#?}");
    assert_eq!(cluster.everything(&lab), [], "who only looks writes nothing");
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    let everything = cluster.everything(&lab);
    let keys: Vec<&str> = everything.iter().map(|(key, _)| key.as_str()).collect();
    let host = keys[0].split('/').nth(3).unwrap().to_owned();
    assert!(host.len() == 12 && host.chars().all(|c| c.is_ascii_hexdigit()), "{host}");
    let (claim, record) =
        (format!("/plumb/claim/{host}/nic0/192.168.9.100"), format!("/plumb/flat/{host}/{}/eth1", lab.netns("box")));
    assert_eq!(keys, [claim.as_str(), record.as_str(), "/plumb/format"]);
    assert_eq!(everything[0].1, record);
    assert_eq!(everything[2].1, "1");
    assert_eq!(lab.plumb("--json ls").ok().json()["attachments"][0]["state"], "up");
    lab.plumb(&format!("detach {}", lab.netns("box"))).ok();
    lab.state().is(&before);
    assert_eq!(cluster.everything(&lab).len(), 1, "the format stays");
    assert_eq!(lab.plumb("gc").ok().out, "nothing was left behind\n");
}

#[test]
fn of_twenty_containers_that_want_one_address_exactly_one_gets_it() {
    let (mut lab, _cluster) = with_etcd();
    of_twenty_exactly_one_gets_it(&mut lab);
}

#[test]
fn two_stores_in_one_cluster_know_nothing_of_one_another() {
    let (lab, cluster) = with_etcd();
    lab.flat(&format!("--ip {FREE}")).ok();
    let other = format!("--store {}/other", cluster.address());
    assert_eq!(lab.plumb(&format!("ls {other}")).ok().out, "nothing is attached\n");
    assert_eq!(lab.plumb(&format!("gc {other}")).ok().out, "nothing was left behind\n");
    assert!(lab.ip("box", "link").contains("eth1@"), "it is not the other store's to delete");
    // Without its record it is lost, and its own store's to delete.
    let host = cluster.everything(&lab)[0].0.split('/').nth(3).unwrap().to_owned();
    let key = format!("/plumb/flat/{host}/{}/eth1", lab.netns("box"));
    cluster.ask(&lab, "/v3/kv/deleterange", &json!({ "key": base64(&key) }));
    let ran = lab.plumb("gc").ok();
    assert!(ran.out.contains("eth1 in /run/netns/") && ran.out.contains("192.168.9.100 released"), "{ran:#?}");
    assert!(!lab.ip("box", "link").contains("eth1@"));
}

#[test]
fn a_cluster_that_is_gone_is_named_and_not_waited_for_long() {
    let mut lab = Lab::new();
    let before = lab.state();
    let flat = format!("flat {} -i nic0 --ip {FREE}", lab.netns("box"));
    lab.store_address = Some("etcd://127.0.0.1,localhost:2389".into());
    for verb in ["ls", "gc", "detach --all", flat.as_str()] {
        within_limit(&lab, verb)
            .refused(1, "cannot reach etcd at 127.0.0.1:2379, localhost:2389: connection refused")
            .hints("does the cluster run, and is it reached from here? another store is named with --store");
    }
    // Of a machine that is not there nothing comes back, not even a refusal.
    lab.store_address = Some("etcd://192.168.9.66".into());
    sh(&format!("ip -n {} addr add 192.168.9.2/24 dev nic0", lab.full("host")));
    within_limit(&lab, "ls").refused(7, "no etcd answered at 192.168.9.66:2379 within 2 s");
    sh(&format!("ip -n {} addr del 192.168.9.2/24 dev nic0", lab.full("host")));
    lab.store_address = Some("etcd://etcd.example".into());
    within_limit(&lab, "ls").refused(
        1,
        "cannot reach etcd at etcd.example:2379: etcd.example is not in /etc/hosts, and DNS is not asked: give its IP address",
    );
    lab.state().is(&before);
}

#[test]
fn what_answers_but_is_no_etcd_is_said_to_be_none() {
    let (mut lab, _cluster) = with_etcd();
    // The port of its metrics, plain HTTP.
    lab.store_address = Some("etcd://127.0.0.1:2381".into());
    let ran = within_limit(&lab, "ls");
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.starts_with("plumb: what answers at 127.0.0.1:2381 is no etcd: "), "{ran:#?}");
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let (lab, cluster) = with_etcd();
    lab.flat(&format!("--ip {FREE}")).ok();
    cluster.put(&lab, "/plumb/format", "2");
    let before = cluster.everything(&lab);
    let flat = format!("flat {} -i nic0 --ip 192.168.9.101/24 --probe 0", lab.netns("box"));
    for verb in ["ls", "gc", "detach --all", flat.as_str()] {
        lab.plumb(verb)
            .refused(1, "the store in etcd under /plumb is of format 2, and this plumb knows 1")
            .hints("a newer plumb wrote it: use that one, or another prefix");
    }
    assert_eq!(cluster.everything(&lab), before);
    cluster.put(&lab, "/plumb/format", "something else");
    let ran = lab.plumb("ls");
    assert!(ran.code == 1 && ran.err.contains("/plumb/format is \"something else\", which is no format"), "{ran:#?}");
}

// A cluster of three.

#[test]
fn a_cluster_of_three_survives_the_loss_of_any_one() {
    let mut lab = Lab::new();
    let mut cluster = Cluster::of_three(&lab);
    lab.store_address = Some(cluster.address());
    lab.flat(&format!("--ip {FREE}")).ok();
    let leader = cluster.leader(&lab);
    let order: Vec<usize> = [leader].into_iter().chain((0..3).filter(|member| *member != leader)).collect();
    for lost in order {
        let before = lab.state();
        cluster.kill(lost);
        // While the others elect a leader, if they have lost theirs, a command may run out of time.
        let start = Instant::now();
        let flat = format!("flat {} -i nic0 --ip 192.168.9.101/24 --probe 0 --no-check", lab.netns("box"));
        let mut attempts = 1;
        let mut ran = within_limit(&lab, &flat);
        while ran.code == 7 && start.elapsed() < Duration::from_secs(8) {
            lab.state().is(&before);
            attempts += 1;
            ran = within_limit(&lab, &flat);
        }
        println!("without member {lost}: attempt {attempts} succeeded after {:?}", start.elapsed());
        ran.ok();
        assert_eq!(lab.plumb("--json ls").ok().json()["attachments"].as_array().unwrap().len(), 2);
        lab.plumb(&format!("detach {} eth2", lab.netns("box"))).ok();
        lab.state().is(&before);
        cluster.restart(&lab, lost);
    }
}

#[test]
fn a_member_that_hangs_is_not_waited_for() {
    let mut lab = Lab::new();
    let cluster = Cluster::of_three(&lab);
    let leader = cluster.leader(&lab);
    let follower = (leader + 1) % 3;
    // It is asked first.
    lab.store_address = Some(cluster.address_by(&[follower, leader, (leader + 2) % 3]));
    cluster.freeze(follower);
    let ran = within_limit(&lab, &format!("flat {} -i nic0 --ip {FREE} --probe 0 --no-check", lab.netns("box")));
    cluster.thaw(follower);
    ran.ok();
}

#[test]
fn one_member_of_three_alone_decides_nothing() {
    let mut lab = Lab::new();
    let mut cluster = Cluster::of_three(&lab);
    lab.store_address = Some(cluster.address());
    let before = lab.state();
    cluster.kill(0);
    cluster.kill(1);
    let ran = within_limit(&lab, &format!("flat {} -i nic0 --ip {FREE} --probe 0", lab.netns("box")));
    assert_eq!(ran.code, 7, "{ran:#?}");
    assert!(
        ran.err.starts_with("plumb: no etcd answered at 127.0.0.1:2379, 127.0.0.1:2389, 127.0.0.1:2399 within 2 s"),
        "{ran:#?}"
    );
    lab.state().is(&before);
}

// Certificates and users.

/// A little authority with certificates for etcd and for a client.
fn certificates(folder: &std::path::Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let sign = "openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 2";
    sh(&format!(
        "cd {} && exec 2>/dev/null
         openssl req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2
         openssl req -x509 {key} -keyout stranger.key -out stranger.pem -subj /CN=stranger -days 2
         for who in etcd plumb; do
           openssl req {key} -keyout $who.key -out $who.csr -subj /CN=$who
           echo 'subjectAltName=IP:127.0.0.1,DNS:localhost' > extensions
           {sign} -in $who.csr -out $who.pem -extfile extensions
         done",
        folder.display()
    ));
}

#[test]
fn tls_proves_who_the_cluster_is_and_who_we_are() {
    let mut lab = Lab::new();
    let folder = lab.folder().to_owned();
    certificates(&folder);
    let file = |name: &str| folder.join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("etcd.pem"), file("etcd.key"));
    let options = format!("--cert-file={cert} --key-file={key} --trusted-ca-file={ca} --client-cert-auth");
    let cluster = Cluster::encrypted(&lab, &options);
    let ours = format!("--store-ca {ca} --store-cert {} --store-key {}", file("plumb.pem"), file("plumb.key"));
    lab.store_address = Some(cluster.address());
    lab.flat(&format!("--ip {FREE} {ours}")).ok();
    assert_eq!(lab.plumb(&format!("--json ls {ours}")).ok().json()["attachments"][0]["state"], "up");
    lab.store_address = Some("etcds://localhost".into());
    lab.plumb(&format!("detach --all {ours}")).ok();
    lab.store_address = Some(cluster.address());
    let refused = |arguments: &str, code: i32, what: &str| {
        let ran = within_limit(&lab, &format!("ls {arguments}"));
        assert!(ran.code == code && ran.err.contains(what), "{arguments}: {what}: {ran:#?}");
    };
    refused(&format!("--store-ca {}", file("stranger.pem")), 1, "127.0.0.1:2379: invalid peer certificate");
    refused(&format!("--store-ca {ca}"), 5, "it wants a client's certificate that its authority has signed");
    refused("", 2, "--store-ca FILE");
    refused(&format!("--store-ca {ca} --store-cert {ca}"), 2, "--store-cert and --store-key belong together");
    refused(&format!("--store-ca {key}"), 2, "etcd.key holds no certificate");
    refused("--store etcd://127.0.0.1", 7, "one that wants TLS is written etcds://");
}

#[test]
fn a_user_may_do_what_the_role_permits() {
    let (mut lab, cluster) = with_etcd();
    let (from, to) = (base64("/plumb/"), base64("/plumb0"));
    for (path, body) in [
        ("user/add", json!({ "name": "root", "password": "toor" })),
        ("role/add", json!({ "name": "root" })),
        ("user/grant", json!({ "user": "root", "role": "root" })),
        ("user/add", json!({ "name": "tap", "password": "secret" })),
        ("role/add", json!({ "name": "fitter" })),
        ("role/grant", json!({ "name": "fitter", "perm": { "permType": "READWRITE", "key": from, "range_end": to } })),
        ("user/grant", json!({ "user": "tap", "role": "fitter" })),
        ("enable", json!({})),
    ] {
        cluster.ask(&lab, &format!("/v3/auth/{path}"), &body);
    }
    let password = lab.folder().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let with = format!("--store-password-file {}", password.display());
    let address = |user: &str, prefix: &str| Some(format!("etcd://{user}127.0.0.1{prefix}"));

    lab.store_address = address("tap@", "");
    lab.flat(&format!("--ip {FREE} {with}")).ok();
    lab.flat("--ip 192.168.9.101/24").refused(2, "the password of tap for etcd is missing");
    let mut by_variable = lab.command("detach --all");
    Ran::of(by_variable.env("PLUMB_STORE_PASSWORD", "secret")).ok();

    lab.store_address = address("", "");
    lab.plumb("ls")
        .refused(5, "etcd at 127.0.0.1:2379: user name is empty")
        .hints("write etcd://USER@HOST, and the password in PLUMB_STORE_PASSWORD or in a file, --store-password-file");
    lab.store_address = address("tap@", "/other");
    lab.plumb(&format!("ls {with}"))
        .refused(5, "etcd at 127.0.0.1:2379: permission denied")
        .hints("tap needs: etcdctl role grant-permission ROLE readwrite --prefix=true /other/");
    std::fs::write(&password, "wrong").unwrap();
    lab.store_address = address("tap@", "");
    lab.plumb(&format!("ls {with}"))
        .refused(5, "etcd at 127.0.0.1:2379: authentication failed, invalid user ID or password")
        .hints("look at the user in the store's address and at the password");
}

// Gone in the middle.

const FLAT: &str = "flat TARGET -i nic0 --ip 192.168.9.100/24 --gateway 192.168.9.1 --probe 0 --no-check";

#[test]
fn attaching_while_etcd_goes_before_a_call() {
    Cuts::of(FLAT).all(Fault::Unheard);
}

#[test]
fn attaching_while_etcd_goes_after_a_call() {
    Cuts::of(FLAT).all(Fault::Unanswered);
}

#[test]
fn attaching_while_etcd_hangs() {
    Cuts::of(FLAT).all(Fault::Hung);
}

#[test]
fn detaching_while_etcd_goes_before_a_call() {
    Cuts { once: FLAT, prepare: FLAT, ..Cuts::of("detach TARGET") }.all(Fault::Unheard);
}

#[test]
fn detaching_while_etcd_goes_after_a_call() {
    Cuts { once: FLAT, prepare: FLAT, ..Cuts::of("detach TARGET") }.all(Fault::Unanswered);
}

/// Who needs the bridge, etcd says.
const BRIDGED: &str = "flat TARGET -i br7 --driver veth --ip 192.168.9.100/24 --probe 0 --no-check";

#[test]
fn attaching_by_a_bridge_that_is_made_while_etcd_goes_before_a_call() {
    Cuts::of(BRIDGED).all(Fault::Unheard);
}

#[test]
fn attaching_by_a_bridge_that_is_made_while_etcd_goes_after_a_call() {
    Cuts::of(BRIDGED).all(Fault::Unanswered);
}

fn to_a_network() -> Cuts<'static> {
    let once = "create-vlan blue --subnet 10.1.0.0/24 -i ovs0 --id 10";
    let attach = "attach TARGET blue --driver veth --probe 0 --no-check";
    Cuts { once, furnish: open_vswitch::furnish, ..Cuts::of(attach) }
}

#[test]
fn attaching_to_a_network_while_etcd_goes_before_a_call() {
    to_a_network().all(Fault::Unheard);
}

#[test]
fn attaching_to_a_network_while_etcd_goes_after_a_call() {
    to_a_network().all(Fault::Unanswered);
}

// From one store into another.

#[test]
fn a_directory_is_copied_into_etcd_and_back() {
    let (mut lab, cluster) = with_etcd();
    let (folder, etcd) = (lab.store().display().to_string(), cluster.address());
    lab.store_address = Some(folder.clone());
    lab.flat(&format!("--ip {FREE} --gateway {ROUTER}")).ok();
    lab.flat("--ip 192.168.9.101/24").ok();
    let before = lab.state();
    let copy = |from: &str, to: &str| lab.plumb(&format!("store copy {from} {to}"));
    let says = |what: &str| format!("2 attachments, 0 networks, 2 addresses {what} from {folder} to {etcd}\n");
    assert_eq!(copy(&folder, &format!("{etcd} --dry-run")).ok().out, says("would be copied"));
    assert_eq!(cluster.everything(&lab), []);
    assert_eq!(copy(&folder, &etcd).ok().out, says("copied"));
    lab.state().is(&before);
    let copied = cluster.everything(&lab);
    assert!(copied.iter().any(|(_, value)| value.contains("\"host_name\"")), "{copied:#?}");
    let again = copy(&folder, &format!("{etcd} --json")).ok().json();
    assert_eq!((&again["copied"], &again["already_there"]), (&json!({}), &json!(4)), "{again}");

    // The copy stands for the attachments as well as the original does.
    let rows = |store: &str| lab.plumb(&format!("--json ls --store {store}")).ok().json();
    assert_eq!(rows(&etcd), rows(&folder));
    assert_eq!(rows(&etcd)["attachments"][1]["state"], "up");
    assert_eq!(lab.plumb(&format!("gc --store {etcd}")).ok().out, "nothing was left behind\n");
    let target = lab.netns("box");
    lab.plumb(&format!("flat {target} -i nic0 --ip {FREE} --probe 0 --store {etcd}"))
        .refused(4, &format!("{target} already has 192.168.9.100 on eth1"));

    // Back into another directory, which says the same as the first.
    let second = lab.folder().join("second").display().to_string();
    copy(&etcd, &second).ok();
    assert_eq!(rows(&second), rows(&folder));
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<String> =
            files(folder.as_ref()).into_iter().map(|name| name.replacen(folder, "", 1)).collect();
        names.sort();
        names
    };
    assert_eq!(names(&second), names(&folder));

    // What is taken back by one store's record is gone, and the other's records say so.
    lab.plumb(&format!("detach --all --store {etcd}")).ok();
    assert_eq!(rows(&folder)["attachments"][0]["state"], "missing");
    assert_eq!(cluster.everything(&lab).len(), 1);
    lab.plumb("detach --all").ok();
}

#[test]
fn of_two_stores_that_disagree_nothing_is_copied() {
    let (mut lab, cluster) = with_etcd();
    lab.target("other");
    let (folder, etcd) = (lab.store().display().to_string(), cluster.address());
    lab.flat(&format!("--ip {FREE}")).ok();
    lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --probe 0 --store {folder}", lab.netns("other"))).ok();
    lab.plumb(&format!("flat {} -i nic0 --ip 192.168.9.101/24 --probe 0 --store {folder}", lab.netns("other"))).ok();
    let before = cluster.everything(&lab);
    let ran = lab.plumb(&format!("store copy {folder} {etcd}"));
    ran.refused(4, &format!("{etcd} holds other things already; nothing was copied"));
    let ran = lab.plumb(&format!("store copy {folder} {etcd} --json"));
    let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("/nic0/192.168.9.100 is claimed by flat/") && message.lines().count() == 2, "{message}");
    assert_eq!(cluster.everything(&lab), before);
    // A record under the same name that says something else, without any claim.
    lab.plumb(&format!("detach --all --store {folder}")).ok();
    lab.plumb("detach --all").ok();
    lab.flat("--ip none").ok();
    lab.plumb(&format!("flat {} -i nic0 --ip none --name eth1 --probe 0 --store {folder}", lab.netns("other"))).ok();
    let host = cluster.everything(&lab)[0].0.split('/').nth(3).unwrap().to_owned();
    let mine = format!("/plumb/flat/{host}/{}/eth1", lab.netns("other"));
    cluster.put(&lab, &mine, "{\"format\": 1}");
    let ran = lab.plumb(&format!("store copy {folder} {etcd}"));
    assert!(ran.code == 4 && ran.err.contains("/eth1 says something else there"), "{ran:#?}");
}

#[test]
fn what_another_host_has_does_not_fit_into_a_directory() {
    let (mut lab, cluster) = with_etcd();
    let (second, etcd) = (lab.folder().join("second").display().to_string(), cluster.address());
    lab.flat(&format!("--ip {FREE}")).ok();
    for (key, value) in cluster.everything(&lab) {
        let host = key.split('/').nth(3).unwrap_or_default().to_owned();
        if host.len() == 12 {
            cluster.put(&lab, &key.replace(&host, "0123456789ab"), &value.replace(&host, "0123456789ab"));
        }
    }
    let ran = lab.plumb(&format!("store copy {etcd} {second}")).ok();
    assert_eq!(
        ran.out,
        format!(
            "1 attachment, 0 networks, 1 address copied from {etcd} to {second}\n  \
             2 things of other hosts left out: a directory is one host's alone\n"
        )
    );
    lab.store_address = Some(second);
    assert_eq!(lab.plumb("--json ls").ok().json()["attachments"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_being_made_is_not_copied() {
    let (lab, cluster) = with_etcd();
    let (folder, etcd) = (lab.store().display().to_string(), cluster.address());
    lab.plumb(&format!("flat {} -i nic0 --ip {FREE} --probe 0 --store {folder}", lab.netns("box"))).ok();
    let name = format!("{}@eth1.json", lab.netns("box"));
    std::fs::create_dir_all(lab.store().join("unfinished")).unwrap();
    std::fs::rename(lab.store().join("flat").join(&name), lab.store().join("unfinished").join(&name)).unwrap();
    let message = format!("{}: eth1 in {folder} is being made, or its run was killed", lab.netns("box"));
    lab.plumb(&format!("store copy {folder} {etcd}"))
        .refused(4, &message)
        .hints(&format!("wait for it, or on its host: plumb gc --store {folder}"));
    assert_eq!(cluster.everything(&lab), []);
}

#[test]
fn networks_that_overlap_are_not_brought_together() {
    let (lab, cluster) = with_etcd();
    let (folder, etcd) = (lab.store().display().to_string(), cluster.address());
    let network = |name: &str, id: u16, subnet: &str, gateway: &str| {
        let pool = json!({ "subnet": subnet, "gateway": gateway });
        json!({ "format": 1, "name": name, "id": id, "parent": "nic0", "pools": [pool] }).to_string()
    };
    cluster.put(&lab, "/plumb/format", "1");
    cluster.put(&lab, "/plumb/vlan/blue", &network("blue", 10, "10.0.0.0/16", "10.0.0.1"));
    std::fs::create_dir_all(lab.store().join("vlan")).unwrap();
    let file = lab.store().join("vlan/red.json");
    std::fs::write(&file, network("red", 20, "10.0.7.0/24", "10.0.7.1")).unwrap();
    let ran = lab.plumb(&format!("store copy {folder} {etcd}"));
    let reason = "network red overlaps: 10.0.7.0/24 with 10.0.0.0/16, which is network blue there";
    assert!(ran.code == 4 && ran.err.contains(reason), "{ran:#?}");
    std::fs::write(&file, network("red", 20, "10.1.7.0/24", "10.1.7.1")).unwrap();
    lab.plumb(&format!("store copy {folder} {etcd}")).ok();
    assert_eq!(cluster.everything(&lab).len(), 3);
}

#[test]
fn a_lease_is_kept_by_the_agent_of_the_host_whose_it_is() {
    let mut lan = crate::dhcp::Lan::bare(crate::agent::SHORT);
    let cluster = Cluster::single(&lan.lab);
    lan.lab.store_address = Some(cluster.address());
    let lab = &lan.lab;
    let target = lab.netns("box");
    lab.plumb(&format!("dhcp {target} -i nic0 --probe 0 --no-check")).ok();
    let address = lab.ip("box", "-4 -o addr show dev eth1");
    // Longer than the lease lasts.
    std::thread::sleep(Duration::from_secs(6));
    // It may just be renewing it.
    crate::lab::wait_for("the lease to be bound", || {
        let leases = lab.plumb("leases --json").ok().json()["leases"].clone();
        leases[0]["state"] == "bound" && leases[0]["problem"].is_null()
    });
    assert_eq!(lab.ip("box", "-4 -o addr show dev eth1"), address);
    lab.plumb(&format!("detach {target}")).ok();
    assert_eq!(cluster.everything(lab).len(), 1, "the format stays");
    crate::lab::wait_for("the agent to end", || crate::agent::agent(&lan).is_none());
}
