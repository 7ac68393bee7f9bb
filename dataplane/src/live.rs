//! Plain TCP connections that live, so that rules which came after them can end them.
//!
//! A connection that speaks HTTP asks at each of its requests what is in force; of one that only carries bytes nobody would
//! ever ask again.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use runtime::timer::Alarm;

use crate::{filter, origin::Origin, worker::Bound};

/// Those of a worker.
#[derive(Debug, Default)]
pub struct LiveConnections(RefCell<Vec<Rc<Live>>>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Live {
    origin: Origin,
    /// It shall end: none of its directions begins another wait.
    pub(crate) is_over: Cell<bool>,
    /// What ends the waits that have begun.
    pub(crate) cancels: RefCell<Vec<Alarm>>,
    at: Cell<usize>,
}

/// Forgets a connection when it is over.
pub(crate) struct Entered<'a> {
    connections: &'a LiveConnections,
    /// The connection.
    pub(crate) live: Rc<Live>,
}

impl LiveConnections {
    /// Adds a connection.
    pub(crate) fn enter(&self, origin: &Origin) -> Entered<'_> {
        let mut connections = self.0.borrow_mut();
        let live = Rc::new(Live {
            origin: origin.clone(),
            is_over: Cell::new(false),
            cancels: RefCell::default(),
            at: Cell::new(connections.len()),
        });
        connections.push(live.clone());
        Entered { connections: self, live }
    }

    /// Ends those that may not be any more.
    pub(crate) fn judge_again(&self, bound: &Bound) {
        let connections = self.0.borrow();
        for live in connections.iter().filter(|live| !filter::has_a_place(bound, &live.origin)) {
            live.end();
        }
    }
}

impl Live {
    /// Ends it: both of its connections are reset.
    pub(crate) fn end(&self) {
        self.is_over.set(true);
        self.cancels.borrow().iter().for_each(Alarm::cancel);
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut connections = self.connections.0.borrow_mut();
        let at = self.live.at.get();
        connections.swap_remove(at);
        if let Some(moved) = connections.get(at) {
            moved.at.set(at);
        }
    }
}
