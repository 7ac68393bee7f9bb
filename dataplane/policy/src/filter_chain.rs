//! Which filter chain takes a connection, in Envoy's order of criteria.
//!
//! Envoy (`FilterChainMatch`) asks one criterion after the other: destination port, server name, transport protocol,
//! application protocol. At each it takes the most specific value that any chain of the remaining ones names, and
//! never comes back: a chain that names the port wins over one that does not, even if it then fails on the server
//! name. What no chain takes goes to the default filter chain. Destination and source addresses, which Envoy asks
//! between these, are refused by `translate`, so leaving them out changes no answer.

use alloc::{boxed::Box, collections::BTreeMap, string::String, sync::Arc, vec::Vec};

use crate::{
    network_filter::{ConnectionLimit, NetworkFilter, NetworkRbac},
    tls::DownstreamTls,
};

/// What is known of a connection when its filter chain is picked.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionFacts<'a> {
    /// The port the connection was made to, before any redirection; `None` for a unix socket.
    pub destination_port: Option<u16>,
    /// Server name of the ClientHello; ASCII case does not matter.
    pub server_name: Option<&'a str>,
    /// TLS if a ClientHello was seen, else raw.
    pub transport_protocol: TransportProtocol,
    /// Application protocols of the ClientHello (ALPN), most wanted first.
    pub application_protocols: &'a [&'a [u8]],
}

/// What carries the application's bytes, as far as the listener filters can tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum TransportProtocol {
    /// No TLS, or nobody looked (Envoy: `raw_buffer`).
    #[default]
    RawBuffer,
    /// TLS (Envoy: `tls`).
    Tls,
}

/// A filter that connections go to and the connections that go there.
#[derive(Clone, Debug)]
pub struct FilterChain {
    /// Its name; empty when the configuration gives none.
    pub name: Arc<str>,
    /// Which connections.
    pub matches: FilterChainMatch,
    /// How many of them at a time.
    pub connection_limit: Option<ConnectionLimit>,
    /// Who may connect, in order; all of them must allow it. They are asked when TLS, if any, has told who it is.
    pub rbac: Arc<[NetworkRbac]>,
    /// TLS that ends here; `None` takes the bytes as they come.
    pub tls: Option<Arc<DownstreamTls>>,
    /// What is done with them.
    pub filter: NetworkFilter,
}

/// Which connections a filter chain takes. An empty criterion takes all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FilterChainMatch {
    /// The port the connection was made to.
    pub destination_port: Option<u16>,
    /// Server names: `www.example.com`, or `*.example.com` for every name below it at any depth.
    pub server_names: Vec<Arc<str>>,
    /// What carries the bytes.
    pub transport_protocol: Option<TransportProtocol>,
    /// Application protocols (ALPN).
    pub application_protocols: Vec<Arc<[u8]>>,
}

/// Why a listener's filter chains cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterChainError {
    /// Two chains would take the same connections.
    #[error("filter chains {first} and {second} have the same matching rules")]
    SameMatch {
        /// Position of the earlier one.
        first: usize,
        /// Position of the later one.
        second: usize,
    },
    /// A `*` that is not a whole first label.
    #[error(
        "filter chain {chain}: server name {server_name:?}: only a leading `*.` is supported as a wildcard"
    )]
    Wildcard {
        /// Position of the chain.
        chain: usize,
        /// The server name as configured.
        server_name: Arc<str>,
    },
}

/// The filter chains of one listener, indexed.
#[derive(Clone, Debug)]
pub struct FilterChains {
    chains: Vec<FilterChain>,
    default: Option<FilterChain>,
    ports: BTreeMap<Option<u16>, ByServerName>,
    ends_tls: bool,
}

/// By exact name (`www.example.com`), suffix (`.example.com`), or the empty key for any name. Lower case.
type ByServerName = BTreeMap<Box<str>, ByTransport>;
/// By transport protocol, or `None` for any.
type ByTransport = BTreeMap<Option<TransportProtocol>, ByApplication>;
/// By application protocol, or the empty key for any (RFC 7301 §3.1 allows no empty protocol). To a position.
type ByApplication = BTreeMap<Box<[u8]>, usize>;

impl FilterChain {
    /// Whether it takes what neither ends TLS here nor was picked for being TLS that ends elsewhere.
    pub fn is_plain(&self) -> bool {
        self.tls.is_none() && self.matches.transport_protocol != Some(TransportProtocol::Tls)
    }
}

impl FilterChains {
    /// Indexes `chains`; `default` takes what none of them does.
    ///
    /// # Errors
    /// When two chains would take the same connections, or a server name has a wildcard that Envoy does not know.
    pub fn new(
        chains: Vec<FilterChain>,
        default: Option<FilterChain>,
    ) -> Result<FilterChains, FilterChainError> {
        let mut ports: BTreeMap<Option<u16>, ByServerName> = BTreeMap::new();
        for (position, chain) in chains.iter().enumerate() {
            let names = ports.entry(chain.matches.destination_port).or_default();
            for name in server_name_keys(position, &chain.matches)? {
                let protocols =
                    names.entry(name).or_default().entry(chain.matches.transport_protocol).or_default();
                for protocol in application_keys(&chain.matches) {
                    if let Some(first) = protocols.insert(protocol, position)
                        && first != position
                    {
                        return Err(FilterChainError::SameMatch { first, second: position });
                    }
                }
            }
        }
        let ends_tls = chains.iter().chain(&default).any(|chain| chain.tls.is_some());
        Ok(FilterChains { chains, default, ports, ends_tls })
    }

    /// Whether TLS ends in any of them. Then connections that go to one in which it does not might have come secured.
    pub fn ends_tls(&self) -> bool {
        self.ends_tls
    }

    /// The chain that takes a connection of which `facts` are known; `None` closes it.
    pub fn pick(&self, facts: &ConnectionFacts<'_>) -> Option<&FilterChain> {
        self.by_port(facts).and_then(|position| self.chains.get(position)).or(self.default.as_ref())
    }

    /// Names of the secrets that any of them needs.
    pub fn secret_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.iter().filter_map(|chain| chain.tls.as_deref()).flat_map(|tls| tls.common.secret_names())
    }

    /// The chains in the order of the configuration, the default one last.
    pub fn iter(&self) -> impl Iterator<Item = &FilterChain> {
        self.chains.iter().chain(self.default.as_ref())
    }

    fn by_port(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let names = match facts.destination_port.and_then(|port| self.ports.get(&Some(port))) {
            Some(names) => names,
            None => self.ports.get(&None)?,
        };
        let transports = by_server_name(names, facts.server_name.unwrap_or_default())?;
        let applications =
            transports.get(&Some(facts.transport_protocol)).or_else(|| transports.get(&None))?;
        let wanted = facts.application_protocols.iter().filter(|protocol| !protocol.is_empty());
        let mut known = wanted.filter_map(|protocol| applications.get(*protocol));
        known.next().or_else(|| applications.get(&[][..])).copied()
    }
}

/// The whole name, else its longest known suffix that begins with a dot, else any name.
fn by_server_name<'a>(names: &'a ByServerName, server_name: &str) -> Option<&'a ByTransport> {
    if server_name.is_empty() {
        return names.get("");
    }
    let lower = server_name.to_ascii_lowercase();
    let suffixes = lower.match_indices('.').map(|(at, _)| at);
    let mut candidates = core::iter::once(0).chain(suffixes).filter_map(|at| names.get(lower.get(at..)?));
    candidates.next().or_else(|| names.get(""))
}

fn server_name_keys(chain: usize, matches: &FilterChainMatch) -> Result<Vec<Box<str>>, FilterChainError> {
    if matches.server_names.is_empty() {
        return Ok(Vec::from([Box::default()]));
    }
    let key = |server_name: &Arc<str>| {
        let name: String = server_name.to_ascii_lowercase();
        let name = if name.starts_with("*.") { name.get(1..).unwrap_or_default().into() } else { name };
        if name.contains('*') || name.is_empty() || name == "." {
            return Err(FilterChainError::Wildcard { chain, server_name: server_name.clone() });
        }
        Ok(name.into_boxed_str())
    };
    matches.server_names.iter().map(key).collect()
}

fn application_keys(matches: &FilterChainMatch) -> Vec<Box<[u8]>> {
    if matches.application_protocols.is_empty() {
        return Vec::from([Box::default()]);
    }
    matches.application_protocols.iter().map(|protocol| Box::from(&**protocol)).collect()
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::{TransportProtocol::*, *};
    use crate::{network_filter::TcpProxy, weighted::Weighted};

    fn chain(name: &str, matches: FilterChainMatch) -> FilterChain {
        let tcp = TcpProxy {
            stat_prefix: name.into(),
            clusters: Weighted::one(name.into()),
            idle_timeout: None,
            access_log: false,
        };
        FilterChain {
            name: name.into(),
            matches,
            connection_limit: None,
            rbac: Arc::default(),
            tls: None,
            filter: NetworkFilter::TcpProxy(Arc::new(tcp)),
        }
    }

    fn any() -> FilterChainMatch {
        FilterChainMatch::default()
    }

    fn port(port: u16) -> FilterChainMatch {
        FilterChainMatch { destination_port: Some(port), ..any() }
    }

    fn names(server_names: &[&str]) -> FilterChainMatch {
        FilterChainMatch { server_names: server_names.iter().map(|name| Arc::from(*name)).collect(), ..any() }
    }

    fn transport(transport: TransportProtocol) -> FilterChainMatch {
        FilterChainMatch { transport_protocol: Some(transport), ..any() }
    }

    fn alpn(protocols: &[&str], matches: FilterChainMatch) -> FilterChainMatch {
        let application_protocols = protocols.iter().map(|protocol| Arc::from(protocol.as_bytes())).collect();
        FilterChainMatch { application_protocols, ..matches }
    }

    fn picked<'a>(chains: &'a FilterChains, facts: ConnectionFacts<'_>) -> &'a str {
        chains.pick(&facts).map_or("-", |chain| &chain.name)
    }

    #[test]
    fn each_criterion_takes_its_most_specific_value_and_never_comes_back() {
        let chains = vec![
            chain("any", any()),
            chain("80", port(80)),
            chain("443 a", FilterChainMatch { destination_port: Some(443), ..names(&["a.example"]) }),
            chain("a", names(&["a.example", "b.example"])),
            chain("*.example", names(&["*.example"])),
            chain(
                "*.a.example tls",
                FilterChainMatch { transport_protocol: Some(Tls), ..names(&["*.a.example"]) },
            ),
            chain("tls", transport(Tls)),
            chain("tls h2", alpn(&["h2", "h3"], transport(Tls))),
            chain("raw", transport(RawBuffer)),
        ];
        let chains = FilterChains::new(chains, Some(chain("default", any()))).unwrap();
        let h2: &[&[u8]] = &[b"x", b"h2"];
        // (port, server name, transport protocol, application protocols) -> chain
        for ((destination_port, server_name, transport_protocol, application_protocols), expected) in [
            ((None, None, RawBuffer, &[][..]), "raw"),
            ((Some(81), None, RawBuffer, &[]), "raw"),
            ((Some(80), None, RawBuffer, &[]), "80"),
            ((Some(80), Some("a.example"), Tls, h2), "80"),
            ((Some(443), Some("a.example"), Tls, h2), "443 a"),
            // The port is known, so nobody else is asked.
            ((Some(443), Some("b.example"), Tls, &[]), "default"),
            ((Some(443), None, RawBuffer, &[]), "default"),
            ((None, Some("a.example"), Tls, &[]), "a"),
            ((None, Some("A.Example"), RawBuffer, &[]), "a"),
            ((None, Some("b.example"), Tls, &[]), "a"),
            ((None, Some("c.example"), Tls, &[]), "*.example"),
            ((None, Some("x.y.example"), Tls, &[]), "*.example"),
            ((None, Some("x.a.example"), Tls, &[]), "*.a.example tls"),
            // The longer suffix is known, so the shorter one is not asked.
            ((None, Some("x.a.example"), RawBuffer, &[]), "default"),
            ((None, Some("example"), Tls, &[]), "tls"),
            ((None, Some(".example"), Tls, &[]), "*.example"),
            ((None, Some("other"), Tls, h2), "tls h2"),
            ((None, None, Tls, &[b"http/1.1"]), "tls"),
            ((None, None, Tls, &[b"", b"h2"]), "tls h2"),
            ((None, None, RawBuffer, h2), "raw"),
        ] {
            let facts =
                ConnectionFacts { destination_port, server_name, transport_protocol, application_protocols };
            assert_eq!(picked(&chains, facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn application_protocols_are_tried_in_the_order_the_other_side_wants_them() {
        let chains = vec![chain("h2", alpn(&["h2"], any())), chain("h1", alpn(&["http/1.1"], any()))];
        let chains = FilterChains::new(chains, None).unwrap();
        let facts =
            |application_protocols| ConnectionFacts { application_protocols, ..ConnectionFacts::default() };
        assert_eq!(picked(&chains, facts(&[b"http/1.1", b"h2"])), "h1");
        assert_eq!(picked(&chains, facts(&[b"h2", b"http/1.1"])), "h2");
        assert_eq!(picked(&chains, facts(&[])), "-");
    }

    #[test]
    fn what_no_chain_takes_goes_to_the_default_or_nowhere() {
        let only_default = FilterChains::new(vec![], Some(chain("default", any()))).unwrap();
        assert_eq!(picked(&only_default, ConnectionFacts::default()), "default");
        assert_eq!(only_default.iter().count(), 1);
        let none = FilterChains::new(vec![chain("80", port(80))], None).unwrap();
        assert_eq!(
            picked(&none, ConnectionFacts { destination_port: Some(81), ..ConnectionFacts::default() }),
            "-"
        );
    }

    #[test]
    fn chains_that_cannot_be_told_apart_are_refused() {
        let same = FilterChains::new(vec![chain("1", names(&["a", "b"])), chain("2", names(&["B"]))], None);
        assert_eq!(same.unwrap_err(), FilterChainError::SameMatch { first: 0, second: 1 });
        assert!(
            FilterChains::new(vec![chain("1", names(&["*.a"])), chain("2", names(&["a"]))], None).is_ok()
        );
        for name in ["*a", "a.*", "*.*.a", "*", "", "*."] {
            let error =
                FilterChains::new(vec![chain("1", any()), chain("2", names(&[name]))], None).unwrap_err();
            assert_eq!(error, FilterChainError::Wildcard { chain: 1, server_name: name.into() });
        }
    }
}
