//! Frames on an interface, as tcpdump sees them.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Stdio},
};

use crate::lab::{Lab, wait_for};

pub struct Capture {
    tcpdump: Child,
    frames: PathBuf,
}

impl Capture {
    /// Listens on an interface in one of the lab's namespaces for the frames that `filter` picks.
    pub fn start(lab: &Lab, namespace: &str, interface: &str, filter: &str) -> Capture {
        let file = |what: &str| lab.folder().join(format!("{namespace} {interface} {what}"));
        let (frames, messages) = (file("frames"), file("messages"));
        let tcpdump = lab
            .program(namespace, "tcpdump")
            .args(["-n", "-e", "-l", "--immediate-mode", "-i", interface, filter])
            .stdin(Stdio::null())
            .stdout(File::create(&frames).unwrap())
            .stderr(File::create(&messages).unwrap())
            .spawn()
            .unwrap();
        let capture = Capture { tcpdump, frames };
        wait_for("tcpdump", || fs::read_to_string(&messages).unwrap().contains("listening on"));
        capture
    }

    /// The frames that were seen, a line each.
    pub fn frames(mut self) -> Vec<String> {
        let id = nix::unistd::Pid::from_raw(self.tcpdump.id() as i32);
        // It prints what it has and ends.
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
        assert!(self.tcpdump.wait().unwrap().success());
        let text = fs::read_to_string(&self.frames).unwrap();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

/// Where a test has failed before it could ask.
impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}
