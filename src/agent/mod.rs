//! The one process that plumb leaves in the background: it does what has to be done later. One for
//! each host and store; what there is to do it reads from the store, so nothing is lost with it.
//!
//! - [`presence`]: the lock that makes it one, and the socket by which it is told of new work.
//! - [`watch`]: what wakes it: its clock, its socket, and whatever its duties wait for. It never polls.
//! - [`leases`]: the first duty: leases are renewed for as long as their containers live.
//!
//! Another duty is a type with [`Duty`], and a line in [`run`].

mod leases;
pub mod presence;
pub mod watch;

use std::{sync::Arc, time::Duration};

use crate::{
    error::Result,
    interrupt,
    kernel::dhcp::boot_time,
    store::{Key, Store},
};
use presence::{Post, Word};
pub use watch::Process;
use watch::{Event, Watch};

/// Something that is done for as long as the agent runs.
trait Duty {
    /// Something has changed in the store: at this key, or anywhere.
    fn look_again(&mut self, at: Option<&Key>, watch: &Watch) -> Result<()>;

    /// What it waits for under this number has happened.
    fn ready(&mut self, number: u64, watch: &Watch);

    /// Does what is due.
    fn tick(&mut self, now: Duration, watch: &Watch);

    /// When something is due next, by the clock that goes on during suspend.
    fn wake(&self) -> Option<Duration>;

    /// Whether there is nothing left to do.
    fn is_idle(&self) -> bool;
}

/// Works until nothing is left to do; with `stays` until a signal, which may come at any moment: what
/// matters is on record. The process holds the post.
pub fn run(store: Arc<dyn Store>, mut post: Post, stays: bool) -> Result<()> {
    interrupt::uninstall();
    let mut watch = Watch::new(stays)?;
    let mut duties: Vec<Box<dyn Duty>> = vec![Box::new(leases::Leases::new(store, &watch)?)];
    watch.hear(&post)?;
    look_again(&mut duties, None, &watch);
    loop {
        let now = boot_time();
        duties.iter_mut().enumerate().for_each(|(number, duty)| duty.tick(now, &watch.of(number)));
        if !stays && duties.iter().all(|duty| duty.is_idle()) {
            // Who comes from now on finds nobody, and starts another; who came before is looked for.
            post.close();
            look_again(&mut duties, None, &watch);
            if duties.iter().all(|duty| duty.is_idle()) {
                return Ok(());
            }
            post.open()?;
            watch.hear(&post)?;
            continue;
        }
        for event in watch.wait(duties.iter().filter_map(|duty| duty.wake()).min())? {
            match event {
                Event::Word => {
                    for word in post.words() {
                        match word {
                            Word::Changed(key) => look_again(&mut duties, key.as_ref(), &watch),
                            Word::HandOver if !stays => return Ok(()),
                            Word::HandOver => {}
                        }
                    }
                }
                Event::Of { duty, number } => {
                    if let Some(one) = duties.get_mut(duty) {
                        one.ready(number, &watch.of(duty));
                    }
                }
            }
        }
    }
}

fn look_again(duties: &mut [Box<dyn Duty>], at: Option<&Key>, watch: &Watch) {
    for (number, duty) in duties.iter_mut().enumerate() {
        if let Err(error) = duty.look_again(at, &watch.of(number)) {
            watch.say(format_args!("{error}"));
        }
    }
}
