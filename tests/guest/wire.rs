//! Two hosts: two guests whose cards are on one wire, and how the halves of a test wait for one another.

use std::{
    env, fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    boot::{Said, folder, guest, name_of, one_at_a_time},
    lab::{output, sh},
};

/// In one of two guests: which half of the test it runs.
const SIDE: &str = "PLUMB_GUEST_SIDE";
const SIDES: [&str; 2] = ["left", "right"];
/// A guest boots in three seconds, on a busy machine in twenty.
const PATIENCE: Duration = Duration::from_secs(90);

/// One of the two hosts that a test runs on. The other is on the same wire, by this one's `eth0`.
pub struct Half {
    side: String,
    folder: PathBuf,
}

/// Runs the two halves of a test at once, each on a host of its own.
#[track_caller]
pub fn on_two_hosts<L: FnOnce(&Half), R: FnOnce(&Half)>(left: L, right: R) {
    let name = name_of(&left);
    let Some(folder) = folder() else { return ask_two_guests(&name) };
    // The single guest of the other tests has no wire, and nobody asks it about this one.
    let Ok(side) = env::var(SIDE) else { return };
    let half = Half { side, folder };
    match half.side.as_str() {
        "left" => left(&half),
        _ => right(&half),
    }
    half.say(PASSED, "");
}

const PASSED: &str = "passed";

#[track_caller]
fn ask_two_guests(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let socket = |side: &str| folder.path().join(format!("{side}.socket")).display().to_string();
    let start = |side: &str| {
        let mut guest = guest(folder.path(), &["--link", &format!("{},{}", socket(side), socket(other(side)))]);
        guest.args(["--exact", name, "--nocapture"]).env(SIDE, side);
        guest.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let said: Vec<Said> = one_at_a_time(|| {
        let guests = SIDES.map(|side| (side, start(side)));
        std::thread::scope(|scope| {
            let waiting = guests.map(|(_, guest)| scope.spawn(|| guest.wait_with_output().unwrap()));
            waiting.into_iter().map(|thread| thread.join().unwrap().into()).collect()
        })
    });
    let failed = |side: &&str| !folder.path().join(message(side, PASSED)).exists();
    let failed: Vec<&str> = SIDES.into_iter().filter(failed).collect();
    let heard: String = SIDES.iter().zip(&said).map(|(side, Said(text))| format!("==== {side}\n{text}\n")).collect();
    assert!(failed.is_empty(), "failed on the {}:\n{heard}", failed.join(" and the "));
}

impl Half {
    /// Tells the other half.
    pub fn say(&self, what: &str, text: &str) {
        // Renamed, so that it is never seen half written.
        let draft = self.folder.join(format!("{} drafts", self.side));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.folder.join(message(&self.side, what))).unwrap();
    }

    /// Waits until the other half says `what`, and returns the text.
    #[track_caller]
    pub fn hear(&self, what: &str) -> String {
        let (other, end) = (other(&self.side), Instant::now() + PATIENCE);
        loop {
            // Looked at before the message: what is said last counts.
            let has_ended = self.folder.join(message(other, ENDED)).exists();
            if let Ok(text) = fs::read_to_string(self.folder.join(message(other, what))) {
                return text;
            }
            assert!(!has_ended, "the {other} half ended without saying {what:?}");
            assert!(Instant::now() < end, "waited {} s for {what:?} of the {other} half", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until both halves have come to this point.
    #[track_caller]
    pub fn meet(&self, point: &str) {
        self.say(point, "");
        self.hear(point);
    }
}

const ENDED: &str = "ended";

/// Nobody waits for a half that has failed.
impl Drop for Half {
    fn drop(&mut self) {
        self.say(ENDED, "");
    }
}

fn other(side: &str) -> &'static str {
    if side == SIDES[0] { SIDES[1] } else { SIDES[0] }
}

fn message(side: &str, what: &str) -> String {
    format!("{side} says {what}")
}

/// Whether a ping is answered, sent from the host itself.
fn pings(to: &str) -> bool {
    output(&format!("busybox ping -c1 -W5 {to}; true")).contains(" 0% packet loss")
}

#[test]
fn two_hosts_reach_one_another_plain_and_by_a_vlan() {
    let addresses = |plain: &str, tagged: &str| {
        sh(&format!(
            "ip addr add {plain}/24 dev eth0
             ip link add link eth0 name eth0.10 type vlan id 10 && ip link set eth0.10 up
             ip addr add {tagged}/24 dev eth0.10"
        ));
    };
    on_two_hosts(
        |left| {
            addresses("10.0.0.1", "10.0.10.1");
            left.meet("addresses");
            assert!(pings("10.0.0.2"));
            assert!(pings("10.0.10.2"));
            left.say("pings", "done");
            // The other's VLAN is another one now: what is sent to 10 must not come out of 20.
            assert_eq!(left.hear("vlan"), "20");
            assert!(pings("10.0.0.2"), "the wire still works");
            assert!(!pings("10.0.10.2"), "a frame has changed its VLAN");
            left.meet("end");
        },
        |right| {
            addresses("10.0.0.2", "10.0.10.2");
            right.meet("addresses");
            assert_eq!(right.hear("pings"), "done");
            sh("ip link del eth0.10
                ip link add link eth0 name eth0.20 type vlan id 20 && ip link set eth0.20 up
                ip addr add 10.0.10.2/24 dev eth0.20");
            right.say("vlan", "20");
            right.meet("end");
        },
    );
}
