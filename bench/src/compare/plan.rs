//! What a subject is configured to do, whatever kind of proxy it is: [`config`](super::config) says it in each one's words.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::workload::Setup;

/// Routes and clusters, in the words of Envoy.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    /// HTTP/2 on both sides, without asking whether it is understood.
    pub(crate) is_http2: bool,
    /// Calls of gRPC are among what comes.
    pub(crate) has_grpc: bool,
    /// In their order; no prefix is one of another.
    pub(crate) routes: Vec<Route>,
    pub(crate) clusters: Vec<Cluster>,
    /// Downstream connections that must be able to be open at once.
    pub(crate) connections_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Http,
    /// Bytes to the first cluster; routes mean nothing.
    Tcp,
}

/// Paths that begin with `prefix` go to a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// From `/` to `/`.
    pub(crate) prefix: String,
    /// Its place in [`Plan::clusters`].
    pub(crate) cluster: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<SocketAddr>,
}

/// The addresses of the origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Where it is when one address is enough.
    pub(crate) plain: SocketAddr,
    /// A port on which every address of 127.0.0.0/8 is the origin: as many endpoints as one wants.
    pub(crate) many: u16,
}

/// Clusters and endpoints of [`Setup::Mesh`].
pub(crate) const MESH_CLUSTERS: usize = 1000;
/// Endpoints in each of them.
pub(crate) const MESH_ENDPOINTS: usize = 10;
/// Connections that everybody is configured for where no workload needs more. HAProxy reserves two descriptors for each.
const CONNECTIONS: usize = 4000;

impl Plan {
    /// The plan of a setup. `routes_count` is that of [`Setup::Prefixes`], `connections_max` that of [`Setup::Idle`].
    pub(crate) fn new(setup: Setup, origin: Origin, routes_count: usize, connections_max: usize) -> Self {
        let cluster = |name: &str, endpoint| Cluster { name: name.to_owned(), endpoints: vec![endpoint] };
        let single = Self {
            mode: Mode::Http,
            is_http2: matches!(setup, Setup::Http2 | Setup::Grpc),
            has_grpc: setup == Setup::Grpc,
            routes: vec![Route { prefix: String::from("/"), cluster: 0 }],
            clusters: vec![cluster("origin", origin.plain)],
            connections_max: CONNECTIONS,
        };
        match setup {
            Setup::One | Setup::Workers | Setup::Http2 | Setup::Grpc => single,
            Setup::Idle => Self { connections_max, ..single },
            Setup::Tcp => Self { mode: Mode::Tcp, ..single },
            // All but the last go elsewhere, so that it shows when the last one is not the one that is hit.
            Setup::Prefixes => Self {
                routes: (1..=routes_count)
                    .map(|n| Route {
                        prefix: format!("/route-{n:05}/"),
                        cluster: usize::from(n < routes_count),
                    })
                    .collect(),
                clusters: vec![
                    cluster("origin", origin.plain),
                    cluster("other", SocketAddr::new(Ipv4Addr::new(127, 9, 0, 1).into(), origin.many)),
                ],
                ..single
            },
            Setup::Mesh => Self {
                routes: (0..MESH_CLUSTERS)
                    .map(|n| Route { prefix: format!("/service-{n:05}/"), cluster: n })
                    .collect(),
                clusters: (0..MESH_CLUSTERS)
                    .map(|n| Cluster {
                        name: format!("service-{n:05}"),
                        endpoints: (0..MESH_ENDPOINTS)
                            .map(|endpoint| SocketAddr::new(mesh_address(n, endpoint), origin.many))
                            .collect(),
                    })
                    .collect(),
                ..single
            },
        }
    }

    /// A path that the last route takes, with what the origin is asked for at its end.
    pub(crate) fn path(&self, asked: &str) -> String {
        let last = self.routes.len() - 1;
        self.path_of(last, asked)
    }

    /// A path that one route takes.
    pub(crate) fn path_of(&self, route: usize, asked: &str) -> String {
        format!("{}{asked}", self.routes[route].prefix)
    }
}

/// An address of its own for each endpoint of each cluster, clear of 127.0.0.1.
fn mesh_address(cluster: usize, endpoint: usize) -> IpAddr {
    let [high, low] = [cluster / 250, cluster % 250 + 1].map(|part| part as u8);
    Ipv4Addr::new(127, 10 + endpoint as u8, high, low).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_endpoint_of_a_mesh_has_an_address_of_its_own_and_every_route_its_cluster() {
        let origin = Origin { plain: "127.0.0.1:1".parse().unwrap(), many: 2 };
        let plan = Plan::new(Setup::Mesh, origin, 0, 0);
        let endpoints: HashSet<_> = plan.clusters.iter().flat_map(|cluster| &cluster.endpoints).collect();
        assert_eq!(endpoints.len(), MESH_CLUSTERS * MESH_ENDPOINTS);
        assert!(endpoints.iter().all(|endpoint| endpoint.ip().is_loopback()));
        assert!(plan.routes.iter().enumerate().all(|(n, route)| route.cluster == n));
        let plan = Plan::new(Setup::Prefixes, origin, 3, 0);
        assert_eq!(plan.routes.iter().map(|route| route.cluster).collect::<Vec<_>>(), [1, 1, 0]);
        assert_eq!(plan.path("echo"), "/route-00003/echo");
    }
}
