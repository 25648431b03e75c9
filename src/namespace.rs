//! The namespace of a target or of a record, opened and made sure of.

use std::{fs, path::Path};

use crate::{
    container::{self, Target},
    error::{Error, Kind, Result},
    kernel::{self, Kernel, Netns},
    store::{NamespaceMark, Placed},
    types::{Place, TargetName},
};

/// Opens a target's namespace and pins it. The host's own is refused: what plumb does to a
/// container would cut the host off.
pub fn open(target: &Target, host: &Netns) -> Result<Netns> {
    let path = target.place.path();
    let namespace = Netns::open(&path).map_err(|error| match (&target.place, error.kind) {
        (Place::Process { pid, .. }, Kind::NotPermitted) => Error::not_permitted(format!(
            "not permitted to open the namespace of process {pid}: CAP_SYS_PTRACE is missing"
        ))
        .hint("run plumb as root; in a container with --pid=host and --cap-add SYS_PTRACE"),
        (Place::Process { pid, .. }, _) if !container::is_there(&target.place) => {
            Error::not_found(format!("process {pid} of {} has ended", target.name))
        }
        _ => error,
    })?;
    if namespace.id() == host.id() && target.name != TargetName::Host {
        return Err(Error::failed(format!("{} is in the host's own network namespace", target.name))
            .hint("choose a container or a process that has a namespace of its own"));
    }
    Ok(namespace)
}

/// The mark by which a record knows its namespace again.
pub fn mark(namespace: &Netns, kernel: &Kernel) -> NamespaceMark {
    NamespaceMark { inode: namespace.id().0, cookie: kernel.cookie(), boot: boot() }
}

/// The namespace that the record is about, or `None` if it is gone. It may outlive its
/// process: a sidecar that shares it (`--net=container:web`) keeps it when `web` is restarted.
pub fn reopen(record: &impl Placed) -> Option<Netns> {
    if is_of_this_boot(record) { find(record.place(), record.namespace()) } else { None }
}

/// Whether the namespace that the record is about is there, and not another one by its inode's number.
pub fn is_there(record: &(impl Placed + Sync)) -> bool {
    let Some(there) = reopen(record) else { return false };
    there.look_inside(|kernel| Ok(is_same(record, &there, kernel))).unwrap_or(false)
}

/// The namespace with this mark, which is of this boot: where it was, or wherever it is by now.
pub fn find(place: &Place, mark: &NamespaceMark) -> Option<Netns> {
    let has_inode = |namespace: &Netns| namespace.id().0 == mark.inode;
    if container::is_there(place) {
        return Netns::open(&place.path()).ok().filter(has_inode);
    }
    // The number of an inode is used again at once: the restarted container's own may have it.
    let is_it = |namespace: &Netns| {
        let cookie = namespace.look_inside(|kernel| Ok(kernel.cookie()));
        cookie.is_ok_and(|cookie| cookie.is_some() && cookie == mark.cookie)
    };
    kernel::all_namespaces().into_iter().find(|namespace| has_inode(namespace) && is_it(namespace))
}

/// Whether the kernel works in the namespace that the record is about: an inode's number may
/// be another's by now, the cookie never is.
pub fn is_same(record: &impl Placed, namespace: &Netns, kernel: &Kernel) -> bool {
    *record.namespace() == mark(namespace, kernel)
}

/// Whether what is on record was made since the machine started: if not, its namespace has gone.
pub fn is_of_this_boot(record: &impl Placed) -> bool {
    record.namespace().boot == boot()
}

/// The kernel's id of this boot, or nothing where `/proc` does not tell.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Keeps others from changing what plumb has on the host itself: VLAN devices, and a shim's routes.
pub struct HostLock(#[expect(dead_code, reason = "the lock ends with the file")] Netns);

impl HostLock {
    /// `None` where `held`, which is locked, is the host's namespace itself.
    pub fn unless_held(held: &Netns, host: &Netns) -> Result<Option<HostLock>> {
        if held.id() == host.id() { Ok(None) } else { HostLock::new().map(Some) }
    }

    /// Waits for whoever has it. Errors: it took too long, or a signal came.
    pub fn new() -> Result<HostLock> {
        let host = Netns::open(Path::new(Place::HOST))?;
        host.lock()?;
        Ok(HostLock(host))
    }
}
