//! The epoll driver: says when a descriptor is worth a try. Edge-triggered, each descriptor is registered once.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use slab::Slab;

use super::socket::{self, Watched};

/// Events taken by one system call.
const EVENTS_MAX: usize = 1024;

pub(super) struct Epoll {
    descriptor: OwnedFd,
    watched: Slab<Rc<Watched>>,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Epoll> {
        // SAFETY: no memory arguments.
        let descriptor = socket::owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Epoll { descriptor, watched: Slab::new(), events: Vec::with_capacity(EVENTS_MAX) })
    }

    pub(super) fn watch(&mut self, watched: &Rc<Watched>) -> io::Result<()> {
        let key = self.watched.insert(watched.clone());
        watched.key.set(key);
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: interest as u32, u64: key as u64 };
        let (epoll, raw) = (self.descriptor.as_raw_fd(), watched.raw());
        // SAFETY: the event lives through the call; the kernel keeps a copy.
        let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, raw, &mut event) };
        if result < 0 {
            self.watched.remove(key);
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Forgets a descriptor, and closes it unless somebody else shares it still.
    pub(super) fn forget(&mut self, watched: &Rc<Watched>) {
        drop(self.watched.try_remove(watched.key.get()));
    }

    /// Forgets a descriptor that stays open.
    pub(super) fn release(&mut self, watched: &Watched) {
        drop(self.watched.try_remove(watched.key.replace(usize::MAX)));
        let (epoll, raw) = (self.descriptor.as_raw_fd(), watched.raw());
        // SAFETY: a removal has no event. It fails only for what is not watched.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, raw, std::ptr::null_mut()) };
    }

    /// Waits for events, at most `wait`, and wakes whom they concern.
    pub(super) fn wait(&mut self, wait: Option<Duration>) -> io::Result<()> {
        // Rounded up: a wait that ends early would find nothing to do.
        let wait = wait.map_or(-1, |wait| wait.as_micros().div_ceil(1000).try_into().unwrap_or(i32::MAX));
        // SAFETY: the pointer is to room for `EVENTS_MAX` events, exclusively borrowed for the call.
        let count = unsafe {
            libc::epoll_wait(self.descriptor.as_raw_fd(), self.events.as_mut_ptr(), EVENTS_MAX as i32, wait)
        };
        let count = match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => 0,
                error => return Err(error),
            },
        };
        // SAFETY: the kernel has filled in so many.
        unsafe { self.events.set_len(count) };
        for event in &self.events {
            let Some(watched) = self.watched.get(event.u64 as usize) else { continue };
            let is = |flags: i32| event.events & flags as u32 != 0;
            if is(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) {
                watched.has_hung_up.set(true);
            }
            if is(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) {
                watched.read.set_ready();
            }
            if is(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) {
                watched.write.set_ready();
            }
        }
        Ok(())
    }
}
