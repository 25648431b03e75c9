//! plumb with a real Podman, rootful, that keeps everything in a folder of the test's.

use std::{
    path::Path,
    process::{Child, Command},
};

use crate::{
    dhcp::{DNSMASQ, Lan},
    lab::{FREE, Lab, ROUTER, sh, wait_for},
};

/// Podman's API on a socket of its own.
struct Podman {
    options: String,
    socket: String,
    service: Child,
}

impl Podman {
    fn start(folder: &Path) -> Podman {
        let path = folder.display();
        let options = format!(
            "--root {path}/root --runroot {path}/run --storage-driver vfs --cgroup-manager cgroupfs --events-backend file --runtime runc"
        );
        let socket = format!("unix://{path}/podman.sock");
        let service = Command::new("podman")
            .args(options.split(' '))
            .args(["system", "service", "-t", "0", &socket])
            .spawn()
            .unwrap();
        wait_for("podman's socket", || folder.join("podman.sock").exists());
        Podman { options, socket, service }
    }

    fn sh(&self, command: &str) {
        sh(&command.replace("podman ", &format!("podman {} ", self.options)));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.sh("podman rm -f -t 0 -a >/dev/null");
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

#[test]
fn a_podman_container_is_a_target_like_any_other() {
    let lab = Lab::new();
    let podman = Podman::start(lab.folder());
    let path = lab.folder().display();
    podman.sh(&format!(
        "mkdir -p {path}/image/bin && cp $(command -v busybox) {path}/image/bin/sleep && tar -C {path}/image -cf {path}/image.tar .
         podman import -q {path}/image.tar plumb-test
         podman run -q -d --name web --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 plumb-test /bin/sleep 1d"
    ));
    let plumb = |arguments: &str| lab.plumb(&format!("{arguments} --podman {}", podman.socket));
    let ran = plumb(&format!("flat podman:web -i nic0 --ip {FREE} --gateway {ROUTER}")).ok();
    assert!(
        ran.out.starts_with(&format!("podman:web: eth1 {FREE} via {ROUTER} on nic0 (macvlan bridge)\n")),
        "{ran:#?}"
    );
    assert!(lab.pings("lan", "192.168.9.100"));
    plumb(&format!("flat podman:web -i nic0 --ip {FREE}")).refused(4, "podman:web already has 192.168.9.100 on eth1");
    plumb(&format!("flat podman:wbe -i nic0 --ip {FREE}"))
        .refused(3, "Podman has no container wbe")
        .hints("did you mean web?");
    assert_eq!(plumb("detach podman:web").ok().out, format!("podman:web: eth1 {FREE} detached\n"));
    podman.sh("podman stop -t 0 web >/dev/null");
    plumb(&format!("flat podman:web -i nic0 --ip {FREE}"))
        .refused(3, "container web is not running (exited)")
        .hints("podman start web; or --wait 10s");
}

#[test]
fn busybox_asks_in_a_container_beside_the_target() {
    let lan = Lan::bare(DNSMASQ);
    let folder = lan.lab.folder().join("podman");
    std::fs::create_dir(&folder).unwrap();
    let podman = Podman::start(&folder);
    let path = folder.display();
    podman.sh(&format!(
        "mkdir -p {path}/image/bin && for a in sleep udhcpc; do cp $(command -v busybox) {path}/image/bin/$a; done
         tar -C {path}/image -cf {path}/image.tar . && podman import -q {path}/image.tar plumb-test
         podman run -q -d --name web --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 plumb-test /bin/sleep 1d"
    ));
    let plumb = |arguments: &str| lan.lab.plumb(&format!("{arguments} --podman {}", podman.socket));
    let containers = || {
        let list = folder.join("list");
        podman.sh(&format!("podman ps -a --format '{{{{.Names}}}}' >{}", list.display()));
        std::fs::read_to_string(list).unwrap().lines().count()
    };
    plumb("dhcp podman:web -i nic0 --probe 0 --no-check --client busybox")
        .refused(3, "Podman has no image busybox")
        .hints("podman pull busybox, or name another with --client-image");
    let ran = plumb("dhcp podman:web -i nic0 --probe 0 --no-check --client busybox --client-image plumb-test").ok();
    assert!(ran.out.contains("leased from 192.168.9.1 for 20 min by busybox, and renewed in time"), "{ran:?}");
    wait_for("the client to go on", || lan.lab.log("lan").matches("DHCPACK").count() >= 2 && containers() == 2);
    plumb("detach podman:web").ok();
    wait_for("the client's container to go", || containers() == 1);
}
