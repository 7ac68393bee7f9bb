//! Which rules answer for which host on one port of a Gateway.

use std::collections::{BTreeMap, BTreeSet};

use super::host::HostPattern;
use super::rule::Rule;

/// The rules for one pattern of hosts, in the order they are tried.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// Which hosts. No two virtual hosts of a port have the same pattern, and the most specific one that means a
    /// request's host takes it.
    pub host: HostPattern,
    /// The rules; a request that matches none is answered with 404.
    pub rules: Vec<Rule>,
}

/// A listener of the port with the routes attached to it.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// The listener's own pattern.
    pub(super) host: Option<HostPattern>,
    /// For each route the patterns it has in common with the listener, and its rules.
    pub(super) routes: Vec<(Vec<HostPattern>, Vec<Rule>)>,
}

/// The virtual hosts of a port from its listeners, which differ in their patterns.
///
/// A request belongs to the listener with the most specific pattern alone, even if none of that listener's routes
/// wants it. Within the listener, rules of routes with more specific hostnames come first, and rules of routes with
/// less specific ones are still there for what those leave.
pub(super) fn virtual_hosts(listeners: &[Attached]) -> Vec<VirtualHost> {
    let mut hosts = BTreeMap::new();
    for (i, listener) in listeners.iter().enumerate() {
        let own = listener.host.clone().unwrap_or(HostPattern::Any);
        let mut patterns: BTreeSet<&HostPattern> =
            listener.routes.iter().flat_map(|(patterns, _)| patterns).collect();
        if listeners.len() > 1 {
            // Even without routes the listener keeps its hosts from the others.
            patterns.insert(&own);
        }
        for pattern in patterns {
            let belongs_elsewhere = listeners.iter().enumerate().any(|(j, other)| {
                let other = other.host.as_ref().unwrap_or(&HostPattern::Any);
                i != j && other.specificity() > own.specificity() && other.covers(pattern)
            });
            if !belongs_elsewhere {
                hosts.insert(pattern.clone(), rules_for(pattern, listener));
            }
        }
    }
    hosts.into_iter().map(|(host, rules)| VirtualHost { host, rules }).collect()
}

fn rules_for(pattern: &HostPattern, listener: &Attached) -> Vec<Rule> {
    let mut candidates: Vec<_> = listener
        .routes
        .iter()
        .filter_map(|(patterns, rules)| {
            let covering = patterns.iter().filter(|known| known.covers(pattern));
            covering.map(HostPattern::specificity).max().map(|specificity| (specificity, rules))
        })
        .flat_map(|(specificity, rules)| rules.iter().map(move |rule| (specificity, rule)))
        .collect();
    candidates.sort_by(|(a_host, a), (b_host, b)| b_host.cmp(a_host).then_with(|| a.precedence(b)));
    let mut rules = Vec::new();
    for (_, rule) in candidates {
        rules.push(rule.clone());
        if rule.matching.is_all() {
            // Nothing is left for the others.
            break;
        }
    }
    rules
}
