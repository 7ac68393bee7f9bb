//! From a request's host to its virtual host, by Envoy's rules.
//!
//! In order: the exact domain; the longest `*` suffix domain (`*.example.com`, `*-eu.example.com`); the longest prefix
//! domain (`example.*`); `*`. A `*` stands for at least one character. ASCII case makes no difference. A port is part
//! of the host unless the table ignores it.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use super::RouteTableError;
use crate::{limits, prefix_tree::PrefixTree};

/// The index over the domains of one route table.
#[derive(Debug)]
pub(super) struct DomainIndex {
    exact: Keys,
    /// Keys reversed, so that a suffix is a prefix.
    suffixes: Keys,
    prefixes: Keys,
    any: Option<usize>,
}

/// Keys with their virtual hosts.
#[derive(Debug)]
struct Keys {
    tree: PrefixTree,
    virtual_hosts: Vec<usize>,
}

impl DomainIndex {
    /// Indexes the domains of virtual hosts, which are numbered in order.
    pub(super) fn new<'a>(
        virtual_hosts: impl Iterator<Item = &'a [Arc<str>]>,
    ) -> Result<DomainIndex, RouteTableError> {
        let (mut exact, mut suffixes, mut prefixes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut any = None;
        let mut count = 0;
        for (virtual_host, domains) in virtual_hosts.enumerate() {
            count += domains.len();
            for domain in domains {
                let lower = domain.to_ascii_lowercase();
                let before = if lower.is_empty() {
                    return Err(RouteTableError::EmptyDomain { virtual_host });
                } else if lower == "*" {
                    any.replace(virtual_host)
                } else if let Some(suffix) = lower.strip_prefix('*') {
                    suffixes.insert(suffix.bytes().rev().collect(), virtual_host)
                } else if let Some(prefix) = lower.strip_suffix('*') {
                    prefixes.insert(prefix.as_bytes().to_vec(), virtual_host)
                } else {
                    exact.insert(lower.into_bytes(), virtual_host)
                };
                if before.is_some() {
                    return Err(RouteTableError::DuplicateDomain { domain: domain.clone() });
                }
            }
        }
        if count > limits::DOMAINS_PER_TABLE_MAX {
            return Err(RouteTableError::TooManyDomains {
                domains: count,
                max: limits::DOMAINS_PER_TABLE_MAX,
            });
        }
        Ok(DomainIndex {
            exact: Keys::new(&exact),
            suffixes: Keys::new(&suffixes),
            prefixes: Keys::new(&prefixes),
            any,
        })
    }

    /// The virtual host of `host`. `folded` is memory to use.
    pub(super) fn find(&self, host: &[u8], folded: &mut Vec<u8>) -> Option<usize> {
        let only_any = self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty();
        if only_any || host.is_empty() {
            // Envoy gives a request without a host to the default only when there is nothing else to choose from.
            return self.any.filter(|_| only_any);
        }
        folded.clear();
        folded.extend(host.iter().map(u8::to_ascii_lowercase));
        if let Some(virtual_host) = self.exact.longest(folded, |len| len == host.len()) {
            return Some(virtual_host);
        }
        if !self.suffixes.is_empty() {
            folded.reverse();
            let found = self.suffixes.longest(folded, |len| len < host.len());
            folded.reverse();
            if found.is_some() {
                return found;
            }
        }
        self.prefixes.longest(folded, |len| len < host.len()).or(self.any)
    }
}

impl Keys {
    fn new(keys: &BTreeMap<Vec<u8>, usize>) -> Keys {
        let names: Vec<&[u8]> = keys.keys().map(|key| &key[..]).collect();
        Keys { tree: PrefixTree::new(&names), virtual_hosts: keys.values().copied().collect() }
    }

    fn is_empty(&self) -> bool {
        self.virtual_hosts.is_empty()
    }

    /// The virtual host of the longest key that `text` begins with and whose length passes.
    fn longest(&self, text: &[u8], passes: impl Fn(usize) -> bool) -> Option<usize> {
        let mut longest = None;
        self.tree.for_each_prefix(text, |key, len| {
            if passes(len) {
                longest = Some(key);
            }
        });
        self.virtual_hosts.get(longest?).copied()
    }
}

/// The host without its port. An IPv6 address keeps its brackets, and the colons in it are no port.
pub(super) fn without_port(authority: &[u8]) -> &[u8] {
    let last = |wanted: u8| authority.iter().rposition(|byte| *byte == wanted);
    match (last(b':'), last(b']')) {
        (Some(colon), Some(bracket)) if bracket > colon => authority,
        (Some(colon), _) => authority.get(..colon).unwrap_or(authority),
        (None, _) => authority,
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    fn index(domains: &[&[&str]]) -> Result<DomainIndex, RouteTableError> {
        let hosts: Vec<Vec<Arc<str>>> =
            domains.iter().map(|of_host| of_host.iter().map(|domain| Arc::from(*domain)).collect()).collect();
        DomainIndex::new(hosts.iter().map(|of_host| &of_host[..]))
    }

    #[test]
    fn exact_then_longest_suffix_then_longest_prefix_then_any() {
        let index = index(&[
            &["foo.example.com"],
            &["*.example.com", "*.COM"],
            &["*-eu.example.com"],
            &["foo.*"],
            &["foo.example.*"],
            &["*"],
        ])
        .unwrap();
        for (host, expected) in [
            ("foo.example.com", 0),
            ("FOO.example.COM", 0),
            ("bar.example.com", 1),
            ("a.b.example.com", 1),
            ("bar-eu.example.com", 2),
            ("foo.net", 3),
            ("foo.org.com", 1),
            ("foo.example.org", 4),
            (".example.com", 1),
            (".com", 5),
            ("foo.", 5),
            ("x", 5),
            ("\u{e9}.example.com", 1),
        ] {
            assert_eq!(index.find(host.as_bytes(), &mut Vec::new()), Some(expected), "{host}");
        }
        assert_eq!(index.find(b"", &mut Vec::new()), None);
    }

    #[test]
    fn a_request_without_host_goes_to_the_default_only_when_there_is_nothing_else() {
        assert_eq!(index(&[&["*"]]).unwrap().find(b"", &mut Vec::new()), Some(0));
        assert_eq!(index(&[&["a"], &["*"]]).unwrap().find(b"", &mut Vec::new()), None);
        assert_eq!(index(&[]).unwrap().find(b"a", &mut Vec::new()), None);
    }

    #[test]
    fn a_domain_given_twice_is_refused() {
        let twice = |domain: &str| RouteTableError::DuplicateDomain { domain: domain.into() };
        for (domains, error) in [
            (&[&["a"][..], &["A"]][..], twice("A")),
            (&[&["*.a", "*.a"]], twice("*.a")),
            (&[&["a.*"], &["a.*"]], twice("a.*")),
            (&[&["*"], &["*"]], twice("*")),
            (&[&["a"], &[""]], RouteTableError::EmptyDomain { virtual_host: 1 }),
        ] {
            assert_eq!(index(domains).unwrap_err(), error);
        }
        assert!(index(&[&["a.*", "*.a", "a", "*"]]).is_ok());
    }

    #[test]
    fn ports_are_cut_from_names_and_from_bracketed_addresses_only() {
        for (authority, host) in [
            ("a", "a"),
            ("a:80", "a"),
            ("a:", "a"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("", ""),
            (":", ""),
        ] {
            assert_eq!(without_port(authority.as_bytes()), host.as_bytes(), "{authority}");
        }
        let all = vec![b':'; 3];
        assert_eq!(without_port(&all), b"::");
    }
}
