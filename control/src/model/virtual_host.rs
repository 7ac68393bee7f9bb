//! Which rules answer for which host on one port of a Gateway.

use std::collections::BTreeSet;

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
    let own: Vec<_> =
        listeners.iter().map(|listener| listener.host.as_ref().unwrap_or(&HostPattern::Any)).collect();
    let each = listeners.iter().enumerate();
    let mut hosts: Vec<_> = each.flat_map(|(i, listener)| virtual_hosts_of(listener, i, &own)).collect();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    hosts
}

/// Those of one listener alone, which is at `position` among the patterns of all listeners of its port.
pub(super) fn virtual_hosts_of(
    listener: &Attached,
    position: usize,
    listeners: &[&HostPattern],
) -> Vec<VirtualHost> {
    let patterns = hosts_of(listener.routes.iter().flat_map(|(patterns, _)| patterns), position, listeners);
    let host = |host: &HostPattern| VirtualHost { host: host.clone(), rules: rules_for(host, listener) };
    patterns.into_iter().map(host).collect()
}

/// The patterns that are told apart of a listener with these attached: each once, without those that another listener means
/// more narrowly.
pub(super) fn hosts_of<'a>(
    attached: impl Iterator<Item = &'a HostPattern>,
    position: usize,
    listeners: &[&'a HostPattern],
) -> BTreeSet<&'a HostPattern> {
    let own = listeners[position];
    let mut patterns: BTreeSet<_> = attached.collect();
    if listeners.len() > 1 {
        // Even without routes the listener keeps its hosts from the others.
        patterns.insert(own);
    }
    patterns.retain(|pattern| {
        !listeners.iter().enumerate().any(|(other_position, other)| {
            other_position != position && other.specificity() > own.specificity() && other.covers(pattern)
        })
    });
    patterns
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
