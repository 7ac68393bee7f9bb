//! What an exchange sends its request on: a connection or a stream to one endpoint, out of the pools or new.

use std::{net::SocketAddr, rc::Rc};

use policy::{
    alpn::{Carries, Http},
    cluster::Cluster,
    dynamic_host::DynamicHost,
    endpoint::Endpoint,
};
use runtime::{Deadline, Io, timer::Alarm};
use wire::proxy_protocol;

use super::{
    CheckoutError, Connection, Destination, Life, Owner, Pools, Upstream, lending,
    streams::{Opened, StreamDestination},
};
use crate::{
    origin::Origin,
    worker::{BoundCluster, Worker},
};

/// Where the request may go.
pub(crate) struct Destinations<'a> {
    /// The cluster.
    pub(crate) cluster: &'a Cluster,
    /// This worker's part of it.
    pub(crate) bound: &'a BoundCluster,
    /// The host that the request names, where the cluster leaves that to requests.
    pub(crate) host: Option<&'a DynamicHost>,
}

/// A connection of the pool, else one that another worker can spare, else a new one.
pub(crate) async fn checkout<I: Io>(
    worker: &Rc<Worker<I>>,
    (endpoint, address): (&Endpoint, SocketAddr),
    destinations: &Destinations<'_>,
    (origin, owner): (&Origin, Option<Owner>),
    (alarm, deadline): (&Alarm, Deadline),
) -> Result<Connection<I>, CheckoutError> {
    let (state, tls) = (&*endpoint.state, endpoint.tls.as_ref());
    if let Some(connection) = worker.pools.reuse(state.id(), owner, tls) {
        return Ok(connection);
    }
    if owner.is_none() && worker.colleagues.are_any() {
        // Boxed: seldom begun, and every exchange would carry its size.
        let lent =
            Box::pin(lending::borrow(worker, state, &destinations.bound.stats, (alarm, deadline))).await;
        // One may have been given back meanwhile.
        let lent = lent.filter(|connection| connection.is_carried_by(tls));
        if let Some(connection) = lent.or_else(|| worker.pools.reuse(state.id(), owner, tls)) {
            return Ok(connection);
        }
    }
    let how = (origin, owner, Carries::Only(Http::Http1));
    connect(worker, (endpoint, address), destinations, how, deadline).await
}

/// A new connection that is for one exchange at a time.
pub(crate) async fn connect<I: Io>(
    worker: &Rc<Worker<I>>,
    (endpoint, address): (&Endpoint, SocketAddr),
    destinations: &Destinations<'_>,
    (origin, owner, carries): (&Origin, Option<Owner>, Carries),
    deadline: Deadline,
) -> Result<Connection<I>, CheckoutError> {
    let (to, life) = destination((endpoint, address), destinations, owner);
    let mut header = Vec::new();
    if let (Some(version), Some(_)) = (destinations.cluster.config.proxy_protocol, &endpoint.tls) {
        proxy_protocol::write(version, &origin.addresses(), &mut header);
    }
    let connected = Pools::connect(worker, to, (life, &header), carries, deadline).await;
    if connected.is_err() {
        worker.stream_pools.ask_again(endpoint.state.id());
    }
    connected
}

fn destination(
    (endpoint, address): (&Endpoint, SocketAddr),
    Destinations { cluster, bound, .. }: &Destinations<'_>,
    owner: Option<Owner>,
) -> (Destination, Life) {
    let to = Destination {
        id: endpoint.state.id(),
        address,
        connect_timeout: cluster.config.connect_timeout,
        idle_timeout: cluster.config.idle_timeout,
        unsent_bytes_max: cluster.config.unsent_bytes_max,
        tls: endpoint.tls.clone(),
        stats: bound.stats.clone(),
    };
    let life = Life {
        owner,
        duration: cluster.config.max_connection_duration,
        requests_max: cluster.config.max_requests_per_connection,
    };
    (to, life)
}

/// A stream of a connection that this worker has to the endpoint, or of a new one. An endpoint that may choose what it
/// speaks, and chooses HTTP/1.1, gets a connection for that.
pub(crate) async fn open_stream<I: Io>(
    worker: &Rc<Worker<I>>,
    (endpoint, address): (&Endpoint, SocketAddr),
    destinations: &Destinations<'_>,
    (origin, may_be_http1): (&Origin, bool),
    wait: (&Alarm, Deadline),
) -> Result<Upstream<I>, CheckoutError> {
    let to = StreamDestination {
        endpoint: &endpoint.state,
        address,
        tls: endpoint.tls.as_ref(),
        may_be_http1,
        config: &destinations.cluster.config,
        stats: &destinations.bound.stats,
    };
    match worker.stream_pools.open(worker, &to, wait).await? {
        Opened::Stream { stream, is_new } => Ok(Upstream::Http2 { stream, is_new }),
        Opened::Http1(Some(halves)) => {
            let (to, life) = destination((endpoint, address), destinations, None);
            Ok(Upstream::Http1(Connection::new(halves, to, life, worker.io.now())))
        }
        Opened::Http1(None) => {
            let at = (endpoint, address);
            checkout(worker, at, destinations, (origin, None), wait).await.map(Upstream::Http1)
        }
    }
}
