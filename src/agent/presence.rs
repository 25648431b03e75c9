//! That there is one agent for each host and store, and how it is spoken to: a lock that ends with its
//! process, and beside it a socket.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    store::{Key, Store},
    types::digest,
};

/// Gone after a reboot, as processes are.
const FOLDER: &str = "/run/plumb";
/// How long an agent may take to leave its post to the next one.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST: usize = 4096;

/// Where the agent of a store is found.
#[derive(Debug, Clone)]
pub struct Place {
    lock: PathBuf,
    socket: PathBuf,
}

/// What an agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Something has changed at this key of the store, or anywhere.
    Changed(Option<Key>),
    /// One that stays wants to take over.
    HandOver,
}

const HEARD: &[u8] = b"heard";
/// How long an agent that lives may take to answer.
const ANSWER: Duration = Duration::from_millis(300);

/// For the time of one question.
fn name_of_its_own() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("plumb-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

const HAND_OVER: &str = "hand over";
/// No part of a key has it: targets and interfaces are names.
const BETWEEN_PARTS: &str = "\n";

impl Word {
    fn text(&self) -> String {
        match self {
            Word::Changed(None) => String::new(),
            Word::Changed(Some(key)) => key.parts().join(BETWEEN_PARTS),
            Word::HandOver => HAND_OVER.into(),
        }
    }

    fn read(text: &str) -> Word {
        let parts: Vec<&str> = text.split(BETWEEN_PARTS).collect();
        match parts.as_slice() {
            [HAND_OVER] => Word::HandOver,
            [kind, rest @ ..] if !rest.is_empty() => Word::Changed(Some(Key::of_host(kind, None, rest))),
            _ => Word::Changed(None),
        }
    }
}

impl Place {
    pub fn of(store: &dyn Store) -> Place {
        let name = digest(&["plumb agent", &store.mark().to_string(), store.host().unwrap_or_default()]);
        let name = name.get(..16).unwrap_or(&name);
        let at = |ending: &str| Path::new(FOLDER).join(format!("agent-{name}.{ending}"));
        Place { lock: at("lock"), socket: at("sock") }
    }

    /// Tells the agent, if there is one, and waits for nothing.
    pub fn mention(&self, word: &Word) {
        let _ = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to(word.text().as_bytes(), &self.socket)
        });
    }

    /// Tells the agent. Says whether there is one that has heard it: a process that is just being killed
    /// has its socket until the end.
    pub fn tell(&self, word: &Word) -> bool {
        let answered = || -> std::io::Result<bool> {
            let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name_of_its_own())?)?;
            socket.set_write_timeout(Some(ANSWER))?;
            socket.set_read_timeout(Some(ANSWER))?;
            socket.send_to(word.text().as_bytes(), &self.socket)?;
            Ok(socket.recv(&mut [0; 8])? > 0)
        };
        answered().unwrap_or(false)
    }

    /// The process that holds the post.
    pub fn holder(&self) -> Option<u32> {
        let text = fs::read_to_string(&self.lock).ok()?;
        self.tell(&Word::Changed(None)).then(|| text.trim().parse().ok()).flatten()
    }

    /// Takes the post; `None` if another agent has it. One that stays takes it from one that does not.
    pub fn take(&self, stays: bool) -> Result<Option<Post>> {
        let failed = |error: std::io::Error| Error::io(format!("cannot lock {}", self.lock.display()), &error);
        fs::create_dir_all(FOLDER).map_err(|error| Error::io(format!("cannot make {FOLDER}"), &error))?;
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&self.lock);
        let lock = options.map_err(failed)?;
        let end = Instant::now() + PATIENCE;
        while lock.try_lock().is_err() {
            // One that answers stays; one that does not is about to end.
            let word = if stays { Word::HandOver } else { Word::Changed(None) };
            let answers = self.tell(&word);
            if !stays && answers || Instant::now() > end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut post = Post { place: self.clone(), lock, socket: None };
        post.sign().map_err(failed)?;
        post.open()?;
        Ok(Some(post))
    }
}

/// The post of a store's agent, held until the process ends.
pub struct Post {
    place: Place,
    lock: File,
    socket: Option<UnixDatagram>,
}

impl Post {
    /// Writes down for people who holds it.
    fn sign(&mut self) -> std::io::Result<()> {
        let mut before = String::new();
        self.lock.read_to_string(&mut before)?;
        self.lock.rewind()?;
        self.lock.set_len(0)?;
        writeln!(self.lock, "{}", std::process::id())
    }

    pub fn open(&mut self) -> Result<()> {
        let path = &self.place.socket;
        let failed = |error: std::io::Error| Error::io(format!("cannot listen at {}", path.display()), &error);
        // Nobody listens at one that is there: its agent has lost the lock.
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// From now on nobody is there for who comes.
    pub fn close(&mut self) {
        let _ = fs::remove_file(&self.place.socket);
        self.socket = None;
    }

    pub fn socket(&self) -> Option<impl AsFd + '_> {
        self.socket.as_ref()
    }

    /// What was said since the last time. Of very much, that something was.
    pub fn words(&self) -> Vec<Word> {
        let mut words = Vec::new();
        let mut buffer = [0; MOST];
        let Some(socket) = &self.socket else { return words };
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // Who wants no answer has no name.
            let _ = socket.send_to_addr(HEARD, &from);
            let word = Word::read(&String::from_utf8_lossy(&buffer[..length]));
            if !words.contains(&word) {
                words.push(word);
            }
        }
        words
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        if self.socket.is_some() {
            self.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let key = Key::new(["lease", "netns:blue", "eth1"]);
        for word in [Word::HandOver, Word::Changed(None), Word::Changed(Some(key))] {
            assert_eq!(Word::read(&word.text()), word);
        }
    }
}
