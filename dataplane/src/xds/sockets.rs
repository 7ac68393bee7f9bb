//! Listening sockets between the configuration that asks for them and the workers that accept on them.
//!
//! An address is bound when its listener is accepted, so that one that cannot be bound is refused while its control plane
//! still listens; the sockets go to the workers when the listener becomes active, and connections made before that wait in
//! the kernel's queue. A listener that keeps its addresses keeps its sockets, whatever else of it changes.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use policy::{
    limits,
    snapshot::{Address, Listener, Snapshot},
};
use runtime::listen::{self, AddressLock, BindError};

/// The sockets of all listeners of this process.
#[derive(Debug)]
pub struct Sockets {
    workers: usize,
    /// What the kernel may hold of a connection each way, in bytes.
    held_bytes_max: Option<u32>,
    slots: BTreeMap<Arc<str>, Slot>,
}

/// What the workers do with their sockets to follow a snapshot.
#[derive(Debug, Default)]
pub struct Handover {
    /// Listeners whose sockets close.
    pub closed: Vec<Arc<str>>,
    /// New sockets, for each worker: listener and socket.
    pub opened: Vec<Vec<(Arc<str>, TcpListener)>>,
}

/// Why a listener gets no sockets.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel or another process has something against it.
    #[error("address: {}", crate::xds::transport::chain(.0))]
    Bind(BindError),
    /// One of our own listeners is there.
    #[error("address: listener `{listener}` is on {address} already")]
    Ours {
        /// The address.
        address: SocketAddr,
        /// The listener that has it.
        listener: Arc<str>,
    },
    /// A path, not an IP address.
    #[error("address: {address} is a unix socket, which is not supported by Ringway for listeners")]
    Pipe {
        /// The path.
        address: Address,
    },
}

#[derive(Debug, Default)]
struct Slot {
    /// What the workers accept on.
    serving: Option<Vec<Held>>,
    /// What was bound for a version that is not active yet.
    reserved: Option<Vec<Held>>,
}

/// One address.
#[derive(Debug)]
struct Held {
    /// As configured: the port may be 0.
    configured: SocketAddr,
    /// As bound.
    bound: SocketAddr,
    /// Gone when another listener took the address over.
    lock: Option<AddressLock>,
    /// One per worker, until they are handed over.
    sockets: Vec<TcpListener>,
    /// The same once more, where there are several workers: whoever waits in the queue of one that is stuck can be accepted
    /// for it.
    spares: Vec<TcpListener>,
}

impl Sockets {
    /// For this many workers; nothing is bound yet. `held_bytes_max` is that of [`listen::bind_holding`].
    pub fn new(workers: usize, held_bytes_max: Option<u32>) -> Sockets {
        Sockets { workers, held_bytes_max, slots: BTreeMap::new() }
    }

    /// Binds what `listeners`, accepted together, need and do not have. `removed` are gone by the same update, so their
    /// addresses may be taken, as may those that a listener of the update leaves. Gives the ones that failed.
    pub fn reserve(&mut self, listeners: &[&Listener], removed: &[String]) -> Vec<(Arc<str>, SocketError)> {
        let leaves = |name: &str, address: SocketAddr| {
            removed.iter().any(|gone| gone == name)
                || listeners.iter().any(|new| {
                    *new.name == *name
                        && !(new.bind_to_port && new.addresses.contains(&Address::Socket(address)))
                })
        };
        // A listener that was removed before it became active takes nothing to the workers.
        for name in removed {
            if let Some(slot) = self.slots.get_mut(name.as_str()) {
                slot.reserved = None;
            }
        }
        let mut failed = Vec::new();
        for listener in listeners {
            if let Err(error) = self.reserve_one(listener, leaves) {
                failed.push((listener.name.clone(), error));
            }
        }
        failed
    }

    fn reserve_one(
        &mut self,
        listener: &Listener,
        leaves: impl Fn(&str, SocketAddr) -> bool,
    ) -> Result<(), SocketError> {
        let slot = self.slots.entry(listener.name.clone()).or_default();
        let wanted = addresses(listener)?;
        if holds(slot.serving.as_deref(), &wanted) {
            slot.reserved = None;
            return Ok(());
        }
        if holds(slot.reserved.as_deref(), &wanted) {
            return Ok(());
        }
        // Its own older reservation must not stand in its way, nor its own lock.
        slot.reserved = None;
        let mut held = Vec::with_capacity(wanted.len());
        for address in wanted {
            for (name, slot) in &mut self.slots {
                for other in slot.serving.iter_mut().chain(&mut slot.reserved).flatten() {
                    if other.bound != address || other.lock.is_none() {
                        continue;
                    }
                    if *name != listener.name && !leaves(name, other.configured) {
                        return Err(SocketError::Ours { address, listener: name.clone() });
                    }
                    // The sockets still serve until the workers hear of it; SO_REUSEPORT lets the new ones in beside them.
                    other.lock = None;
                }
            }
            let unsent_bytes_max = limits::UNSENT_BYTES_DEFAULT;
            let bound = listen::bind_holding(address, self.workers, unsent_bytes_max, self.held_bytes_max)
                .map_err(SocketError::Bind)?;
            let spares = bound.sockets.iter().filter(|_| self.workers > 1).map(TcpListener::try_clone);
            held.push(Held {
                // Without descriptors for them nobody is helped, and all else is as it was.
                spares: spares.collect::<Result<_, _>>().unwrap_or_default(),
                configured: address,
                bound: bound.address,
                lock: Some(bound.lock),
                sockets: bound.sockets,
            });
        }
        self.slots.entry(listener.name.clone()).or_default().reserved = Some(held);
        Ok(())
    }

    /// What changes for the workers when `snapshot` becomes active.
    pub fn hand_over(&mut self, snapshot: &Snapshot) -> Handover {
        let mut handover =
            Handover { closed: Vec::new(), opened: (0..self.workers).map(|_| Vec::new()).collect() };
        self.slots.retain(|name, slot| {
            let listener = snapshot.listeners.get(name);
            let wanted = listener.and_then(|listener| addresses(listener).ok()).unwrap_or_default();
            if holds(slot.serving.as_deref(), &wanted) {
                return true;
            }
            if slot.serving.take().is_some() {
                handover.closed.push(name.clone());
            }
            if !wanted.is_empty() && holds(slot.reserved.as_deref(), &wanted) {
                slot.serving = slot.reserved.take();
                for held in slot.serving.iter_mut().flatten() {
                    for (worker, socket) in handover.opened.iter_mut().zip(held.sockets.drain(..)) {
                        worker.push((name.clone(), socket));
                    }
                }
            }
            slot.serving.is_some() || slot.reserved.is_some()
        });
        handover
    }

    /// What a worker accepts on: listener, bound address and socket.
    pub fn of_worker(&self, worker: usize) -> impl Iterator<Item = (&Arc<str>, SocketAddr, &TcpListener)> {
        let serving = self
            .slots
            .iter()
            .flat_map(|(name, slot)| slot.serving.iter().flatten().map(move |held| (name, held)));
        serving.filter_map(move |(name, held)| Some((name, held.bound, held.spares.get(worker)?)))
    }

    /// Nobody accepts any more: what is left here shall not keep an address bound.
    pub fn close_spares(&mut self) {
        for held in self.slots.values_mut().flat_map(|slot| slot.serving.iter_mut().flatten()) {
            held.spares.clear();
        }
    }

    /// Listeners that the workers accept on, with their bound addresses.
    pub fn serving(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.slots
            .iter()
            .flat_map(|(name, slot)| slot.serving.iter().flatten().map(|held| (&**name, held.bound)))
    }
}

/// The addresses to bind; none when the listener only takes connections from others.
fn addresses(listener: &Listener) -> Result<Vec<SocketAddr>, SocketError> {
    if !listener.bind_to_port {
        return Ok(Vec::new());
    }
    let socket = |address: &Address| match address {
        Address::Socket(address) => Ok(*address),
        Address::Pipe(_) => Err(SocketError::Pipe { address: address.clone() }),
    };
    listener.addresses.iter().map(socket).collect()
}

fn holds(held: Option<&[Held]>, wanted: &[SocketAddr]) -> bool {
    held.is_some_and(|held| held.iter().map(|held| held.configured).eq(wanted.iter().copied()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use policy::{
        filter_chain::FilterChains,
        snapshot::{ListenerFilters, Named},
    };

    use super::*;

    fn listener(name: &str, address: SocketAddr) -> Arc<Listener> {
        Arc::new(Listener {
            name: name.into(),
            addresses: vec![Address::Socket(address)],
            bind_to_port: true,
            unsent_bytes_max: limits::UNSENT_BYTES_DEFAULT,
            stat_prefix: name.into(),
            listener_filters: ListenerFilters::default(),
            filter_chains: FilterChains::new(Vec::new(), None).unwrap(),
        })
    }

    fn snapshot(listeners: &[&Arc<Listener>]) -> Snapshot {
        let by_name =
            listeners.iter().map(|listener| (listener.name.clone(), Arc::clone(listener))).collect();
        Snapshot {
            version: 1,
            listeners: Named::new(by_name, 0),
            route_tables: Named::default(),
            clusters: Named::default(),
            secrets: Named::default(),
        }
    }

    /// On an address that no other test uses: a port that is given back is nobody's, then.
    fn any_port() -> SocketAddr {
        "127.0.0.3:0".parse().unwrap()
    }

    fn errors(failed: &[(Arc<str>, SocketError)]) -> Vec<String> {
        failed.iter().map(|(name, error)| format!("{name}: {error}")).collect()
    }

    /// Binds a listener on a free port, makes it active and gives the port's address.
    fn serve(sockets: &mut Sockets, name: &str) -> SocketAddr {
        let listener = listener(name, any_port());
        assert!(sockets.reserve(&[&listener], &[]).is_empty());
        sockets.hand_over(&snapshot(&[&listener]));
        sockets.serving().next().unwrap().1
    }

    #[test]
    fn sockets_are_bound_at_once_and_handed_over_when_the_listener_is_active() {
        let mut sockets = Sockets::new(2, None);
        let listener = listener("in", any_port());
        assert!(sockets.reserve(&[&listener], &[]).is_empty());
        let nothing = sockets.hand_over(&snapshot(&[]));
        assert!(nothing.closed.is_empty() && nothing.opened.iter().all(Vec::is_empty));
        let handover = sockets.hand_over(&snapshot(&[&listener]));
        assert_eq!(handover.opened.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        let (name, address) = sockets.serving().next().unwrap();
        assert_eq!(name, "in");
        TcpStream::connect(address).unwrap();
        // The next version keeps its address, so nothing happens to the sockets.
        assert!(sockets.reserve(&[&listener], &[]).is_empty());
        let again = sockets.hand_over(&snapshot(&[&listener]));
        assert!(again.closed.is_empty() && again.opened.iter().all(Vec::is_empty));
        let gone = sockets.hand_over(&snapshot(&[]));
        assert_eq!(gone.closed, ["in".into()]);
        assert_eq!(sockets.serving().count(), 0);
    }

    #[test]
    fn an_address_that_cannot_be_had_refuses_its_listener_and_no_other() {
        let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = foreign.local_addr().unwrap();
        let mut sockets = Sockets::new(1, None);
        let (bad, good) = (listener("bad", taken), listener("good", any_port()));
        let failed = errors(&sockets.reserve(&[&bad, &good], &[]));
        assert_eq!(failed.len(), 1);
        assert!(failed[0].starts_with(&format!("bad: address: cannot listen on {taken}: ")), "{failed:?}");
        assert_eq!(sockets.hand_over(&snapshot(&[&good])).opened[0].len(), 1);
    }

    #[test]
    fn two_listeners_on_one_address_are_an_error_unless_one_of_them_leaves_it() {
        let mut sockets = Sockets::new(1, None);
        let address = serve(&mut sockets, "a");
        let second = listener("b", address);
        let failed = sockets.reserve(&[&second], &[]);
        assert_eq!(errors(&failed), [format!("b: address: listener `a` is on {address} already")]);
        // Renamed by one update.
        assert!(sockets.reserve(&[&second], &["a".to_owned()]).is_empty());
        let handover = sockets.hand_over(&snapshot(&[&second]));
        assert_eq!(handover.closed, ["a".into()]);
        assert_eq!(&*handover.opened[0][0].0, "b");
        assert_eq!(sockets.serving().collect::<Vec<_>>(), [("b", address)]);
    }

    #[test]
    fn a_listener_that_is_removed_before_it_was_active_frees_its_address() {
        let mut sockets = Sockets::new(1, None);
        let listener = listener("in", any_port());
        assert!(sockets.reserve(&[&listener], &[]).is_empty());
        let bound = sockets.slots["in"].reserved.as_ref().unwrap()[0].bound;
        TcpStream::connect(bound).unwrap();
        assert!(sockets.reserve(&[], &["in".to_owned()]).is_empty());
        assert!(TcpStream::connect(bound).is_err());
    }

    #[test]
    fn a_listener_that_moves_closes_its_old_socket_when_the_new_one_is_active() {
        let mut sockets = Sockets::new(1, None);
        let address = serve(&mut sockets, "a");
        let moved = listener("a", "127.0.0.2:0".parse().unwrap());
        assert!(sockets.reserve(&[&moved], &[]).is_empty());
        assert_eq!(sockets.serving().next().unwrap().1, address, "not yet");
        let handover = sockets.hand_over(&snapshot(&[&moved]));
        assert_eq!((handover.closed, handover.opened[0].len()), (vec!["a".into()], 1));
        assert_eq!(sockets.serving().next().unwrap().1.ip().to_string(), "127.0.0.2");
    }
}
