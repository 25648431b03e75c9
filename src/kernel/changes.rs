//! Links and addresses of a namespace, and the kernel's word that they have changed.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd},
};

use nix::errno::Errno;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Kernel, Netns, netns::on_a_thread};
use crate::{
    error::{Error, Result},
    plan::facts::{InsideAddress, InsideLink},
};

/// A namespace that is looked at again whenever the kernel says so.
pub struct Changes {
    socket: Socket,
    kernel: Kernel,
}

// From the kernel's `include/uapi/linux/rtnetlink.h`.
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;

impl Changes {
    /// Those of the calling thread's namespace, from now on. Needs no capability.
    pub fn here() -> Result<Changes> {
        let socket = open().map_err(|error| Error::io("cannot listen to the kernel", &error))?;
        Ok(Changes { socket, kernel: Kernel::inside_only(-1)? })
    }

    /// Those in `namespace`.
    pub fn inside(namespace: &Netns) -> Result<Changes> {
        on_a_thread(|| {
            namespace.enter_for_good()?;
            Changes::here()
        })
    }

    /// What there is now. What changes from here on makes `self` readable.
    pub fn look(&mut self) -> Result<(Vec<InsideLink>, Vec<InsideAddress>)> {
        self.forget();
        Ok((self.kernel.links()?, self.kernel.addresses()?))
    }

    /// What was said is not read: it may be incomplete (ENOBUFS), and all of it is looked at anyway.
    fn forget(&self) {
        loop {
            match self.socket.recv(&mut Vec::with_capacity(64), 0) {
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))?;
    Ok(socket)
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
