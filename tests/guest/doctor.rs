//! What `plumb doctor` says of a kernel whose parts are modules.

use std::fs;

use crate::{boot::in_guest, lab::Lab};

#[test]
fn modules_on_the_disk_are_there_and_looking_loads_none() {
    in_guest(|| {
        let lab = Lab::new();
        let document = lab.plumb("doctor attach --json").ok().json();
        let findings = document["findings"].as_array().unwrap();
        let of = |what: &str| findings.iter().find(|finding| finding["what"] == what).unwrap();
        for what in ["macvlan", "ipvlan", "8021q", "dummy", "netem", "ifb", "bridge VLANs"] {
            assert_eq!(of(what)["state"], "ok", "{document:#}");
        }
        // Another test may need any of the others; this one nobody does.
        assert!(of("htb")["found"].as_str().unwrap().ends_with("(a module, loaded when it is needed)"), "{document:#}");
        assert!(!fs::exists("/sys/module/sch_htb").unwrap());
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let is_old = release.starts_with("6.1.");
        assert_eq!(of("BIG TCP")["state"], if is_old { "missing" } else { "ok" }, "{release}");
        assert_eq!(of("names in place")["state"], if is_old { "note" } else { "ok" }, "{release}");
    });
}
