//! From a path to the routes whose path matches it, in first-match order, at a cost that does not grow with the number
//! of routes.
//!
//! All exact paths and prefixes are keys of one prefix tree; each key has the ascending positions of its routes. One
//! walk along the path meets every key that could match. At each, positions are tried until one passes or is behind
//! the best so far, so the result is the smallest position that passes: Envoy's first match. Routes that share one path
//! and differ in other conditions are still tried one after the other, and so are regular expressions, but only those
//! before the best so far.

use alloc::{collections::BTreeMap, vec::Vec};
use core::ops::Range;

use super::matcher::{PathMatch, RouteMatch};
use crate::prefix_tree::PrefixTree;

/// The index over the routes of one virtual host.
#[derive(Debug)]
pub(super) struct PathIndex {
    case_sensitive: Keys,
    /// Keys in lower case, compared with the path in lower case; rarely used.
    case_ignored: Keys,
    /// Positions of routes with a regular expression, ascending.
    regexes: Vec<u32>,
    /// Positions of routes for CONNECT, ascending.
    connects: Vec<u32>,
}

#[derive(Debug)]
struct Keys {
    tree: PrefixTree,
    /// By the tree's key number.
    lists: Vec<Lists>,
    positions: Vec<u32>,
}

/// Where the positions of one key's routes lie: those with this exact path, with this prefix, with this path-separated
/// prefix.
#[derive(Clone, Debug, Default)]
struct Lists {
    exact: Range<u32>,
    prefix: Range<u32>,
    separated: Range<u32>,
}

#[derive(Default)]
struct Collected {
    exact: Vec<u32>,
    prefix: Vec<u32>,
    separated: Vec<u32>,
}

impl PathIndex {
    /// Indexes `routes`, in order.
    pub(super) fn new<'a>(routes: impl Iterator<Item = &'a RouteMatch>) -> PathIndex {
        let mut case_sensitive: BTreeMap<Vec<u8>, Collected> = BTreeMap::new();
        let mut case_ignored: BTreeMap<Vec<u8>, Collected> = BTreeMap::new();
        let mut regexes = Vec::new();
        let mut connects = Vec::new();
        for (position, route) in (0u32..).zip(routes) {
            let (path, list): (_, fn(&mut Collected) -> &mut Vec<u32>) = match &route.path {
                PathMatch::Exact(path) => (path, |of_key| &mut of_key.exact),
                PathMatch::Prefix(path) => (path, |of_key| &mut of_key.prefix),
                PathMatch::PathSeparatedPrefix(path) => (path, |of_key| &mut of_key.separated),
                PathMatch::Regex(_) => {
                    regexes.push(position);
                    continue;
                }
                PathMatch::Connect => {
                    connects.push(position);
                    continue;
                }
            };
            let of_key = match route.case_sensitive {
                true => case_sensitive.entry(path.to_vec()).or_default(),
                false => case_ignored.entry(path.to_ascii_lowercase()).or_default(),
            };
            list(of_key).push(position);
        }
        PathIndex {
            case_sensitive: Keys::new(case_sensitive),
            case_ignored: Keys::new(case_ignored),
            regexes,
            connects,
        }
    }

    /// The smallest position whose path matches `path` and that `passes`; `None` is plain CONNECT. A route with a regular expression is given to
    /// `passes` without a look at its path. `folded` is memory to use.
    pub(super) fn first(
        &self,
        path: Option<&[u8]>,
        folded: &mut Vec<u8>,
        mut passes: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let Some(path) = path else {
            return self.connects.iter().copied().find(|position| passes(*position));
        };
        let mut best = self.case_sensitive.first(path, u32::MAX, &mut passes);
        if !self.case_ignored.lists.is_empty() {
            folded.clear();
            folded.extend(path.iter().map(u8::to_ascii_lowercase));
            best = self.case_ignored.first(folded, best, &mut passes);
        }
        best = first_in(&self.regexes, best, &mut passes);
        (best != u32::MAX).then_some(best)
    }
}

impl Keys {
    fn new(collected: BTreeMap<Vec<u8>, Collected>) -> Keys {
        let keys: Vec<&[u8]> = collected.keys().map(|key| &key[..]).collect();
        let tree = PrefixTree::new(&keys);
        let mut positions = Vec::new();
        let mut append = |list: &[u32]| {
            let start = positions.len() as u32;
            positions.extend_from_slice(list);
            start..positions.len() as u32
        };
        let lists = collected.values().map(|of_key| Lists {
            exact: append(&of_key.exact),
            prefix: append(&of_key.prefix),
            separated: append(&of_key.separated),
        });
        Keys { tree, lists: lists.collect(), positions }
    }

    fn first(&self, path: &[u8], mut best: u32, passes: &mut impl FnMut(u32) -> bool) -> u32 {
        self.tree.for_each_prefix(path, |key, len| {
            let Some(lists) = self.lists.get(key) else { return };
            best = first_in(self.list(&lists.prefix), best, passes);
            match path.get(len) {
                None => {
                    best = first_in(self.list(&lists.exact), best, passes);
                    best = first_in(self.list(&lists.separated), best, passes);
                }
                Some(b'/') => best = first_in(self.list(&lists.separated), best, passes),
                Some(_) => {}
            }
        });
        best
    }

    fn list(&self, range: &Range<u32>) -> &[u32] {
        self.positions.get(range.start as usize..range.end as usize).unwrap_or_default()
    }
}

/// The first of ascending `positions` below `best` that passes, else `best`.
fn first_in(positions: &[u32], best: u32, passes: &mut impl FnMut(u32) -> bool) -> u32 {
    let before = positions.iter().copied().take_while(|position| *position < best);
    before.into_iter().find(|position| passes(*position)).unwrap_or(best)
}
