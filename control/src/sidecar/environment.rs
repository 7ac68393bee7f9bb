//! What an application is told of the mesh: a proxy for its HTTP calls, an address for each declared dependency.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Hosts an application always reaches by itself.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// One declared dependency, as `--to SERVICE[.NAMESPACE]:PORT[=LOCALPORT]` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Name of the service.
    pub service: String,
    /// Its namespace; `None` means that of the application.
    pub namespace: Option<String>,
    /// Port of the service.
    pub port: u16,
    /// The port on 127.0.0.1 that stands for it; `None` lets the kernel choose.
    pub local_port: Option<u16>,
}

/// Why text is no dependency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// There is no port.
    #[error("expected SERVICE:PORT or SERVICE:PORT=LOCALPORT")]
    Form,
    /// The service is not a name that a Service can have.
    #[error("{0:?} is not SERVICE or SERVICE.NAMESPACE (each a-z, 0-9 and -, at most 63)")]
    Name(String),
    /// One of the ports is not one.
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
}

impl Dependency {
    /// Name of the variable that holds its address: `RINGWAY_<SERVICE>_<PORT>_ADDR`.
    pub fn variable(&self) -> String {
        let namespace = self.namespace.iter().flat_map(|namespace| ["_", namespace]);
        let name: String = [self.service.as_str()].into_iter().chain(namespace).collect();
        let name: String =
            name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }).collect();
        format!("RINGWAY_{name}_{}_ADDR", self.port)
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        if let Some(namespace) = &self.namespace {
            write!(f, ".{namespace}")?;
        }
        write!(f, ":{}", self.port)?;
        if let Some(local) = self.local_port {
            write!(f, "={local}")?;
        }
        Ok(())
    }
}

impl FromStr for Dependency {
    type Err = DependencyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (target, local) = match text.split_once('=') {
            Some((target, local)) => (target, Some(local)),
            None => (text, None),
        };
        let (name, port) = target.rsplit_once(':').ok_or(DependencyError::Form)?;
        let (service, namespace) = match name.split_once('.') {
            Some((service, namespace)) => (service, Some(namespace)),
            None => (name, None),
        };
        if ![Some(service), namespace].into_iter().flatten().all(is_dns_label) {
            return Err(DependencyError::Name(name.to_owned()));
        }
        Ok(Dependency {
            service: service.to_owned(),
            namespace: namespace.map(str::to_owned),
            port: parse_port(port)?,
            local_port: local.map(parse_port).transpose()?,
        })
    }
}

fn parse_port(text: &str) -> Result<u16, DependencyError> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| DependencyError::Port(text.to_owned()))
}

/// A name that a Service or namespace can have: an RFC 1123 label in lower case.
pub fn is_dns_label(text: &str) -> bool {
    let inner = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (1..=63).contains(&text.len()) && inner && !text.starts_with('-') && !text.ends_with('-')
}

/// The variables for an application whose HTTP calls go through `outbound` and whose dependencies are at these
/// addresses.
pub fn variables<'a>(
    outbound: SocketAddr,
    dependencies: impl IntoIterator<Item = (&'a Dependency, SocketAddr)>,
) -> BTreeMap<String, String> {
    let proxy = format!("http://{outbound}");
    let fixed = [
        ("HTTP_PROXY", proxy.as_str()),
        ("http_proxy", &proxy),
        ("NO_PROXY", NO_PROXY),
        ("no_proxy", NO_PROXY),
    ];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let addresses = dependencies.into_iter().map(|(to, address)| (to.variable(), address.to_string()));
    fixed.into_iter().chain(addresses).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_a_service_and_a_port_or_an_error_that_says_what_is_wrong() {
        let form = "expected SERVICE:PORT or SERVICE:PORT=LOCALPORT";
        let name = |name: &str| {
            format!("{name:?} is not SERVICE or SERVICE.NAMESPACE (each a-z, 0-9 and -, at most 63)")
        };
        let port = |port: &str| format!("{port:?} is not a port from 1 to 65535");
        let good = |service: &str, namespace: Option<&str>, port, local_port| {
            let namespace = namespace.map(str::to_owned);
            Ok(Dependency { service: service.to_owned(), namespace, port, local_port })
        };
        for (text, expected) in [
            ("pay:80", good("pay", None, 80, None)),
            ("pay:80=9000", good("pay", None, 80, Some(9000))),
            ("pay-v2.shop:7000=1", good("pay-v2", Some("shop"), 7000, Some(1))),
            ("", Err(form.to_owned())),
            ("pay", Err(form.to_owned())),
            ("pay=80", Err(form.to_owned())),
            (":80", Err(name(""))),
            ("Pay:80", Err(name("Pay"))),
            ("pay.:80", Err(name("pay."))),
            ("pay.a.b:80", Err(name("pay.a.b"))),
            ("http://pay:80", Err(name("http://pay"))),
            ("pay:", Err(port(""))),
            ("pay:0", Err(port("0"))),
            ("pay:65536", Err(port("65536"))),
            ("pay:80=", Err(port(""))),
            ("pay:80=0", Err(port("0"))),
            ("pay:80=127.0.0.1:9000", Err(port("127.0.0.1:9000"))),
        ] {
            assert_eq!(text.parse::<Dependency>().map_err(|error| error.to_string()), expected, "{text}");
        }
    }

    #[test]
    fn an_application_is_told_its_proxy_and_where_its_dependencies_are() {
        let [pay, ledger]: [Dependency; 2] =
            ["pay:80", "big-ledger.shop:7000"].map(|text| text.parse().unwrap());
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let variables = variables(address(4001), [(&pay, address(4002)), (&ledger, address(4003))]);
        let expected = [
            ("HTTP_PROXY", "http://127.0.0.1:4001"),
            ("NO_PROXY", "localhost,127.0.0.1,::1"),
            ("RINGWAY_BIG_LEDGER_SHOP_7000_ADDR", "127.0.0.1:4003"),
            ("RINGWAY_PAY_80_ADDR", "127.0.0.1:4002"),
            ("http_proxy", "http://127.0.0.1:4001"),
            ("no_proxy", "localhost,127.0.0.1,::1"),
        ];
        assert_eq!(variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    }
}
