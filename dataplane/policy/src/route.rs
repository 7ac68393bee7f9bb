//! Which route takes a request: virtual host by domain, then the first route that matches, as in Envoy.
//!
//! The order of routes is kept exactly, and still the cost of a look-up does not grow with their number: the paths of
//! all routes of a virtual host are in an index (`path_index`) that finds, for a request's path, the few routes whose
//! path matches, and the first of those whose other conditions hold wins.

mod action;
mod domain_index;
mod header_edit;
mod matcher;
mod path_index;
mod rewrite;
mod stream_duration;
#[cfg(test)]
pub(crate) mod test_request;
#[cfg(test)]
mod tests;

use alloc::{sync::Arc, vec::Vec};

use wire::head::RequestView;

pub(crate) use self::matcher::{authority, decimal, path_and_query, path_of};
pub use self::{
    action::{
        DirectResponse, Forward, ForwardTarget, HostRewrite, IdleTimeout, PathRewrite, Redirect,
        RedirectPath, RouteAction,
    },
    header_edit::{AppendAction, Edit, HeaderEdits, HeaderOpError, HeaderOps},
    matcher::{Fraction, HeaderMatch, HeaderTest, PathMatch, QueryMatch, QueryTest, RouteMatch},
    stream_duration::{DurationMax, GrpcTimeout, StreamDuration},
};
use self::{domain_index::DomainIndex, path_index::PathIndex};
use crate::{http_filter::FilterOverrides, limits, regex::RegexCaches};

/// Virtual hosts with their routes, indexed (Envoy: `RouteConfiguration`).
#[derive(Debug)]
pub struct RouteTable {
    /// Its name; empty when it is inline and has none.
    pub name: Arc<str>,
    virtual_hosts: Vec<VirtualHost>,
    domains: DomainIndex,
    ignore_port: bool,
}

/// Routes for some domains.
#[derive(Debug)]
pub struct VirtualHost {
    /// Its name, for metrics and logs.
    pub name: Arc<str>,
    /// The domains as configured.
    pub domains: Vec<Arc<str>>,
    routes: Vec<Route>,
    paths: PathIndex,
}

/// One route: which requests and what becomes of them.
#[derive(Debug)]
pub struct Route {
    /// Its name; empty when the configuration gives none.
    pub name: Arc<str>,
    /// Which requests.
    pub matches: RouteMatch,
    /// What becomes of them.
    pub action: RouteAction,
    /// Edits to the head of a response of our own. A forwarded response has those of its [`ForwardTarget`].
    pub response_headers: HeaderEdits,
    /// What it and the levels above say of filters; see [`Route::filters`] for those that count.
    pub filters: FilterOverrides,
}

/// The memory that routing needs, of one worker. Starts small and keeps what it grew to; make a new one with each
/// adopted snapshot.
#[derive(Debug, Default)]
pub struct RouteScratch {
    /// What regular expressions need.
    pub regexes: RegexCaches,
    /// A path or host in lower case.
    pub(crate) folded: Vec<u8>,
    /// A decoded query parameter.
    text: Vec<u8>,
}

impl Route {
    /// What is said of filters for a request that `random` sends to one of its targets.
    pub fn filters(&self, random: u64) -> &FilterOverrides {
        match &self.action {
            RouteAction::Forward(forward) => &forward.target(random).filters,
            RouteAction::Redirect(_) | RouteAction::DirectResponse(_) => &self.filters,
        }
    }
}

impl RouteTable {
    /// Indexes the table and merges the header edits of its levels.
    ///
    /// # Errors
    /// When a domain is given twice or a bound is passed.
    pub fn new(spec: RouteTableSpec) -> Result<RouteTable, RouteTableError> {
        let routes = spec.virtual_hosts.iter().map(|host| host.routes.len()).sum();
        if routes > limits::ROUTES_PER_TABLE_MAX {
            return Err(RouteTableError::TooManyRoutes { routes, max: limits::ROUTES_PER_TABLE_MAX });
        }
        let domains = DomainIndex::new(spec.virtual_hosts.iter().map(|host| &host.domains[..]))?;
        let table = Table {
            request_headers: spec.request_headers,
            response_headers: spec.response_headers,
            most_specific_wins: spec.most_specific_header_mutations_wins,
            filters: spec.filters,
        };
        let assemble = |host| assemble_virtual_host(host, &table);
        Ok(RouteTable {
            name: spec.name,
            virtual_hosts: spec.virtual_hosts.into_iter().map(assemble).collect(),
            domains,
            ignore_port: spec.ignore_port_in_host_matching,
        })
    }

    /// The route that takes `request`. `random` decides fractions; give the same number to
    /// [`Forward::target`], as Envoy does.
    pub fn pick(&self, request: &RequestView<'_>, scratch: &mut RouteScratch, random: u64) -> Option<&Route> {
        self.virtual_host(request.authority(), scratch)?.pick(request, scratch, random)
    }

    /// The virtual host of an authority (host with or without port).
    pub fn virtual_host(&self, authority: &[u8], scratch: &mut RouteScratch) -> Option<&VirtualHost> {
        let host = if self.ignore_port { domain_index::without_port(authority) } else { authority };
        self.virtual_hosts.get(self.domains.find(host, &mut scratch.folded)?)
    }

    /// The virtual hosts in the order of the configuration.
    pub fn virtual_hosts(&self) -> &[VirtualHost] {
        &self.virtual_hosts
    }

    /// Names of all clusters that its routes forward to, repeated as often as they occur.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let routes = self.virtual_hosts.iter().flat_map(|host| &host.routes);
        let forwards = routes.filter_map(|route| match &route.action {
            RouteAction::Forward(forward) => Some(forward),
            RouteAction::Redirect(_) | RouteAction::DirectResponse(_) => None,
        });
        forwards.flat_map(|forward| forward.targets.values()).map(|target| &target.cluster)
    }
}

impl VirtualHost {
    /// The first route that takes `request`.
    pub fn pick(&self, request: &RequestView<'_>, scratch: &mut RouteScratch, random: u64) -> Option<&Route> {
        let path = matcher::path_of(request);
        let mut folded = core::mem::take(&mut scratch.folded);
        let position = self.paths.first(path, &mut folded, |position| {
            let route = self.routes.get(position as usize);
            let path = path.unwrap_or_default();
            route.is_some_and(|route| route.matches.rest_matches(request, path, scratch, random))
        });
        scratch.folded = folded;
        self.routes.get(position? as usize)
    }

    /// The routes in the order of the configuration.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// A route table before it is indexed and its levels of header edits are merged.
#[derive(Debug, Default)]
pub struct RouteTableSpec {
    /// Its name.
    pub name: Arc<str>,
    /// The virtual hosts.
    pub virtual_hosts: Vec<VirtualHostSpec>,
    /// Match domains against the host without its port (Envoy: `ignore_port_in_host_matching`).
    pub ignore_port_in_host_matching: bool,
    /// Header edits of the table are made before those of the virtual host and the route, so that the latter win
    /// (Envoy: `most_specific_header_mutations_wins`). By default the table comes last.
    pub most_specific_header_mutations_wins: bool,
    /// Edits to every forwarded request.
    pub request_headers: HeaderOps,
    /// Edits to every response.
    pub response_headers: HeaderOps,
    /// What is said of filters.
    pub filters: FilterOverrides,
}

/// A virtual host before it is indexed.
#[derive(Debug, Default)]
pub struct VirtualHostSpec {
    /// Its name.
    pub name: Arc<str>,
    /// `example.com`, `*.example.com`, `example.*` or `*`; a port is part of the name.
    pub domains: Vec<Arc<str>>,
    /// The routes; the first that matches wins.
    pub routes: Vec<RouteSpec>,
    /// Edits to requests forwarded by its routes.
    pub request_headers: HeaderOps,
    /// Edits to responses of its routes.
    pub response_headers: HeaderOps,
    /// What is said of filters.
    pub filters: FilterOverrides,
}

/// A route before the header edits of all levels are merged.
#[derive(Debug)]
pub struct RouteSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Which requests.
    pub matches: RouteMatch,
    /// What becomes of them; a forward's targets still with the edits of their own level only.
    pub action: RouteActionSpec,
    /// Edits to requests forwarded by it.
    pub request_headers: HeaderOps,
    /// Edits to its responses.
    pub response_headers: HeaderOps,
    /// What is said of filters.
    pub filters: FilterOverrides,
}

/// An action before the header edits of all levels are merged.
#[derive(Debug)]
pub enum RouteActionSpec {
    /// Forward to one of these clusters.
    Forward(Forward<TargetSpec>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with this.
    DirectResponse(DirectResponse),
}

/// A cluster to forward to, with the header edits of its own level (Envoy: `WeightedCluster.ClusterWeight`).
#[derive(Clone, Debug, Default)]
pub struct TargetSpec {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// Replaces the host, before the route's own rewrite is considered.
    pub host_rewrite: Option<HostRewrite>,
    /// Edits to requests forwarded to it.
    pub request_headers: HeaderOps,
    /// Edits to its responses.
    pub response_headers: HeaderOps,
    /// What is said of filters.
    pub filters: FilterOverrides,
}

/// Why a route table cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RouteTableError {
    /// A domain may belong to one virtual host only, and be given there once; case makes no difference.
    #[error("domain {domain:?} is given twice")]
    DuplicateDomain {
        /// The domain.
        domain: Arc<str>,
    },
    /// An empty domain would match no request.
    #[error("virtual host {virtual_host} has an empty domain")]
    EmptyDomain {
        /// Position of the virtual host.
        virtual_host: usize,
    },
    /// More domains than [`limits::DOMAINS_PER_TABLE_MAX`].
    #[error("{domains} domains are more than {max}")]
    TooManyDomains {
        /// How many.
        domains: usize,
        /// The limit.
        max: usize,
    },
    /// More routes than [`limits::ROUTES_PER_TABLE_MAX`].
    #[error("{routes} routes are more than {max}")]
    TooManyRoutes {
        /// How many.
        routes: usize,
        /// The limit.
        max: usize,
    },
}

/// The header edits of the levels above a route, for requests or for responses.
struct Levels<'a> {
    host: &'a HeaderOps,
    table: &'a HeaderOps,
    most_specific_wins: bool,
    /// What they do when route and target edit nothing, which is the rule: thousands of routes share this one list.
    alone: HeaderEdits,
}

impl<'a> Levels<'a> {
    fn new(host: &'a HeaderOps, table: &'a HeaderOps, most_specific_wins: bool) -> Levels<'a> {
        let alone = if most_specific_wins { [table, host] } else { [host, table] };
        Levels { host, table, most_specific_wins, alone: HeaderEdits::merge(&alone) }
    }

    /// All levels together. Most specific first is Envoy's default order: what is done last wins.
    fn with(&self, target: &HeaderOps, route: &HeaderOps) -> HeaderEdits {
        match self.most_specific_wins {
            _ if target.is_empty() && route.is_empty() => self.alone.clone(),
            false => HeaderEdits::merge(&[target, route, self.host, self.table]),
            true => HeaderEdits::merge(&[self.table, self.host, route, target]),
        }
    }
}

/// What the table as a whole says of its routes.
struct Table {
    request_headers: HeaderOps,
    response_headers: HeaderOps,
    most_specific_wins: bool,
    filters: FilterOverrides,
}

fn assemble_virtual_host(spec: VirtualHostSpec, table: &Table) -> VirtualHost {
    let request = Levels::new(&spec.request_headers, &table.request_headers, table.most_specific_wins);
    let response = Levels::new(&spec.response_headers, &table.response_headers, table.most_specific_wins);
    let host_filters = spec.filters.below(&table.filters);
    let assemble = |route: RouteSpec| {
        let filters = route.filters.below(&host_filters);
        let target = |target: TargetSpec| ForwardTarget {
            request_headers: request.with(&target.request_headers, &route.request_headers),
            response_headers: response.with(&target.response_headers, &route.response_headers),
            filters: target.filters.below(&filters),
            cluster: target.cluster,
            host_rewrite: target.host_rewrite,
        };
        let action = match route.action {
            RouteActionSpec::Forward(forward) => RouteAction::Forward(forward.map_targets(target)),
            RouteActionSpec::Redirect(redirect) => RouteAction::Redirect(redirect),
            RouteActionSpec::DirectResponse(response) => RouteAction::DirectResponse(response),
        };
        let response_headers = response.with(&HeaderOps::default(), &route.response_headers);
        Route { name: route.name, matches: route.matches, action, response_headers, filters }
    };
    // Not by `collect`, which keeps the memory of the specifications, a third of it unused.
    let mut routes = Vec::with_capacity(spec.routes.len());
    routes.extend(spec.routes.into_iter().map(assemble));
    let paths = PathIndex::new(routes.iter().map(|route| &route.matches));
    VirtualHost { name: spec.name, domains: spec.domains, routes, paths }
}
