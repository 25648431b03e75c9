//! The two sides of each test: on the machine the guest is asked, in the guest the test runs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// In a guest: a folder that it shares with the machine. A test that has passed leaves a file of
/// its name there, so that one which never ran is not taken for one that passed.
const FOLDER: &str = "PLUMB_GUEST_FOLDER";
/// A guest has one processor, and all but waiting is slow there: two share the tests out.
const GUESTS: usize = 2;

/// The folder that guest and machine share, or `None` on the machine.
pub fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// Runs a test in a guest. On the machine one boot of each guest serves all tests.
#[track_caller]
pub fn in_guest<T: FnOnce()>(test: T) {
    let name = name_of(&test);
    if let Some(folder) = folder() {
        if is_mine(&folder, &name) {
            test();
            fs::write(folder.join(name), "").unwrap();
        }
        return;
    }
    static RAN: OnceLock<(tempfile::TempDir, Vec<Said>)> = OnceLock::new();
    let (folder, said) = RAN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let said = one_at_a_time(|| all_tests(folder.path()));
        if env::args().any(|argument| argument == "--nocapture") {
            said.iter().for_each(|Said(text)| println!("{text}"));
        }
        (folder, said)
    });
    let heard = || said.iter().find_map(|said| said.of(&name)).map_or_else(|| everything(said), str::to_owned);
    assert!(folder.path().join(&name).exists(), "in the guest:\n{}", heard());
}

/// Whoever comes to a test first does it: so all guests are done at about the same time.
fn is_mine(folder: &Path, name: &str) -> bool {
    fs::File::create_new(folder.join(format!("{name} is taken"))).is_ok()
}

fn all_tests(folder: &Path) -> Vec<Said> {
    let start = || {
        // The same tests are asked for there, by the same arguments.
        let mut guest = guest(folder, &[]);
        // On one processor, but much of what they do is waiting.
        guest.env("RUST_TEST_THREADS", "2").args(env::args().skip(1));
        Said::from(guest.output().unwrap())
    };
    std::thread::scope(|scope| {
        let guests = [(); GUESTS].map(|()| scope.spawn(start));
        guests.into_iter().map(|guest| guest.join().unwrap()).collect()
    })
}

/// This program in a guest that is not yet started. Arguments that are added are the program's.
pub fn guest(folder: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/vm"));
    command
        .args(["--timeout", &env::var("PLUMB_GUEST_SECONDS").unwrap_or_else(|_| "1200".into())])
        .args(options)
        .arg("--share")
        .arg(folder)
        .arg("--")
        .arg(env::current_exe().unwrap());
    command.env(FOLDER, folder).stdin(Stdio::null());
    command
}

/// Guests of several tests at once would only be slow together.
pub fn one_at_a_time<T>(boot: impl FnOnce() -> T) -> T {
    static BOOTED: Mutex<()> = Mutex::new(());
    let _booted = BOOTED.lock().unwrap_or_else(PoisonError::into_inner);
    boot()
}

/// A test's name as the test runner has it, taken from that of a closure in it.
pub fn name_of<T>(test: &T) -> String {
    let path = std::any::type_name_of_val(test).trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_program, name)| name).to_owned()
}

/// All that a guest printed, and how it ended.
pub struct Said(pub String);

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said(format!("{}{}{}", text(&output.stdout), text(&output.stderr), output.status))
    }
}

impl Said {
    /// What it says of one test that failed there.
    fn of(&self, name: &str) -> Option<&str> {
        let (_, after) = self.0.split_once(&format!("\n---- {name} stdout ----\n"))?;
        let end = ["\n---- ", "\n\nfailures:\n"].iter().filter_map(|mark| after.find(mark)).min();
        Some(&after[..end.unwrap_or(after.len())])
    }
}

fn everything(said: &[Said]) -> String {
    said.iter().map(|Said(text)| text.as_str()).collect::<Vec<_>>().join("\n")
}
