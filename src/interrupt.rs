//! SIGINT, SIGTERM and SIGHUP end a command in order: what it has done is taken back first.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, ppoll},
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction},
        time::TimeSpec,
    },
};

use crate::error::{Error, Result};

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
static ARRIVED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: i32) {
    ARRIVED.store(true, Ordering::Relaxed);
}

/// From now on a signal is noted instead of ending the process. No `SA_RESTART`: a wait for a lock
/// shall end.
pub fn install() {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in SIGNALS {
        // SAFETY: the handler stores to an atomic and does nothing else, which is async-signal-safe.
        // It fails only for signals that cannot be caught, which these are not.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// From now on a signal ends the process at once again: for one that has everything on record at any
/// moment.
pub fn uninstall() {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in SIGNALS {
        // SAFETY: no handler of ours is set. It fails only for signals that cannot be caught.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// An error once a signal has arrived.
pub fn check() -> Result<()> {
    if ARRIVED.load(Ordering::Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
}

/// Waits until one of the files has something to say, or until `end`, or a signal, which is an error. Takes
/// no time of the processor's. For a thread that is alone, or another might take the signal.
pub fn poll(files: &mut [PollFd<'_>], end: Option<Instant>) -> Result<()> {
    let left = end.map(|end| TimeSpec::from_duration(end.saturating_duration_since(Instant::now())));
    let failed = |errno: Errno| Error::io("cannot wait", &errno.into());
    // Let through by the wait alone: one that came between the look and the wait would not end it.
    let usual = SIGNALS.into_iter().collect::<SigSet>().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed)?;
    let outcome = check().and_then(|()| match ppoll(files, left, Some(usual)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(failed(errno)),
    });
    usual.thread_set_mask().map_err(failed)?;
    outcome.and_then(|()| check())
}

/// How long a wait may go on without a look at the signals.
pub const SLICE: Duration = Duration::from_millis(50);

/// Sleeps, but not past a signal.
pub fn sleep(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
    }
}
