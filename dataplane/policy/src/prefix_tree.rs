//! A compressed prefix tree over a fixed set of byte strings: finds all of them that a text begins with in one walk
//! along the text.
//!
//! The walk reads each byte of the text at most once and searches at most 256 children per branch, so its cost is
//! bounded by the text's length, whatever the number of keys. There is no hash, so nobody can choose texts or keys that
//! collide.

use alloc::{collections::VecDeque, vec::Vec};
use core::ops::Range;

/// The tree. Keys are numbered in their sorted order.
#[derive(Debug)]
pub(crate) struct PrefixTree {
    nodes: Vec<Node>,
    /// First byte of each node's label, beside the nodes so that a search among children reads adjacent bytes.
    first_bytes: Vec<u8>,
    labels: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    label_start: u32,
    label_end: u32,
    children_start: u32,
    children_end: u32,
    /// The key that ends here, or [`NO_KEY`].
    key: u32,
}

const NO_KEY: u32 = u32::MAX;

impl PrefixTree {
    /// A tree over `keys`, which are sorted and all different.
    pub(crate) fn new(keys: &[&[u8]]) -> PrefixTree {
        debug_assert!(keys.is_sorted_by(|a, b| a < b), "keys are sorted and all different");
        let mut tree = PrefixTree { nodes: Vec::new(), first_bytes: Vec::new(), labels: Vec::new() };
        if keys.is_empty() {
            return tree;
        }
        // Breadth first, so the children of a node are neighbours.
        let mut queue = VecDeque::from([(0..keys.len(), 0)]);
        tree.reserve_node();
        let mut at = 0;
        while let Some((range, depth)) = queue.pop_front() {
            let end = tree.fill_node(at, keys, &range, depth);
            let children = children(keys, range, end);
            if let Some(node) = tree.nodes.get_mut(at) {
                node.children_end = node.children_start + children.len() as u32;
            }
            for child in children {
                tree.reserve_node();
                queue.push_back((child, end));
            }
            at += 1;
        }
        tree
    }

    fn reserve_node(&mut self) {
        self.nodes.push(Node {
            label_start: 0,
            label_end: 0,
            children_start: 0,
            children_end: 0,
            key: NO_KEY,
        });
        self.first_bytes.push(0);
    }

    /// Writes node `at`, which stands for the keys in `range`, all equal up to `depth`. Returns where its label ends.
    fn fill_node(&mut self, at: usize, keys: &[&[u8]], range: &Range<usize>, depth: usize) -> usize {
        let first = keys[range.start];
        let last = keys[range.end - 1];
        // The keys are sorted: what the first and the last have in common, all have.
        let end = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let label_start = self.labels.len() as u32;
        self.labels.extend_from_slice(&first[depth..end]);
        self.first_bytes[at] = first.get(depth).copied().unwrap_or_default();
        self.nodes[at] = Node {
            label_start,
            label_end: self.labels.len() as u32,
            children_start: self.nodes.len() as u32,
            children_end: 0,
            key: if first.len() == end { range.start as u32 } else { NO_KEY },
        };
        end
    }

    /// Calls `visit` with the number of each key that `text` begins with and the key's length, shortest first.
    pub(crate) fn for_each_prefix(&self, text: &[u8], mut visit: impl FnMut(usize, usize)) {
        self.walk(text, |key, depth| {
            if let Some(key) = key {
                visit(key, depth);
            }
        });
    }

    /// Calls `step` at every node on the way, with the key that ends there, if one does.
    fn walk(&self, text: &[u8], mut step: impl FnMut(Option<usize>, usize)) {
        let mut depth = 0;
        let mut next = self.nodes.first();
        while let Some(node) = next {
            let label =
                self.labels.get(node.label_start as usize..node.label_end as usize).unwrap_or_default();
            let Some(rest) = text.get(depth..).filter(|rest| rest.starts_with(label)) else { return };
            depth += label.len();
            step((node.key != NO_KEY).then_some(node.key as usize), depth);
            let Some(byte) = rest.get(label.len()) else { return };
            let children = node.children_start as usize..node.children_end as usize;
            let firsts = self.first_bytes.get(children.clone()).unwrap_or_default();
            let Ok(child) = firsts.binary_search(byte) else { return };
            next = self.nodes.get(children.start + child);
        }
    }
}

/// The keys in `range` that go on after `end`, grouped by their next byte.
fn children(keys: &[&[u8]], range: Range<usize>, end: usize) -> Vec<Range<usize>> {
    let longer = if keys[range.start].len() == end { range.start + 1 } else { range.start };
    let mut groups: Vec<Range<usize>> = Vec::new();
    for at in longer..range.end {
        match groups.last_mut() {
            Some(group) if keys[group.start][end] == keys[at][end] => group.end = at + 1,
            _ => groups.push(at..at + 1),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, format, string::String};

    use super::*;
    use crate::Rng;

    fn prefixes(tree: &PrefixTree, text: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        tree.for_each_prefix(text, |key, len| found.push((key, len)));
        found
    }

    #[test]
    fn all_keys_that_a_text_begins_with_are_found_shortest_first() {
        let keys: [&[u8]; 6] = [b"", b"/", b"/a", b"/ab/c", b"/ab/d", b"/b"];
        let tree = PrefixTree::new(&keys);
        let table: [(&str, &[(usize, usize)]); 7] = [
            ("", &[(0, 0)]),
            ("/", &[(0, 0), (1, 1)]),
            ("/ab/cd", &[(0, 0), (1, 1), (2, 2), (3, 5)]),
            ("/ab/", &[(0, 0), (1, 1), (2, 2)]),
            ("/ab/x", &[(0, 0), (1, 1), (2, 2)]),
            ("/b", &[(0, 0), (1, 1), (5, 2)]),
            ("x", &[(0, 0)]),
        ];
        for (text, expected) in table {
            assert_eq!(prefixes(&tree, text.as_bytes()), expected, "{text}");
        }
        assert_eq!(prefixes(&PrefixTree::new(&[]), b"/"), []);
        assert_eq!(prefixes(&PrefixTree::new(&[b"/a"]), b"/"), []);
    }

    #[test]
    fn a_tree_over_random_keys_answers_like_a_scan_of_the_keys() {
        let mut rng = Rng::new(11);
        let mut word = |max: u64| -> Vec<u8> {
            let len = rng.below(max);
            (0..len).map(|_| b"ab\xff"[rng.below(3) as usize]).collect()
        };
        for _ in 0..300 {
            let keys: BTreeSet<Vec<u8>> = (0..20).map(|_| word(7)).collect();
            let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
            let tree = PrefixTree::new(&keys);
            for _ in 0..20 {
                let text = word(10);
                let mut expected: Vec<_> = (0..keys.len())
                    .filter(|key| text.starts_with(keys[*key]))
                    .map(|key| (key, keys[key].len()))
                    .collect();
                expected.sort_by_key(|(_, len)| *len);
                assert_eq!(prefixes(&tree, &text), expected);
            }
        }
    }

    #[test]
    fn a_walk_among_a_hundred_thousand_keys_is_no_longer_than_its_text() {
        let keys: BTreeSet<String> = (0..100_000).map(|i| format!("/api/{i}/")).collect();
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        let tree = PrefixTree::new(&keys);
        let mut steps = 0;
        tree.walk(b"/api/99999/item", |_, _| steps += 1);
        // The common root and one node per digit; the last one holds the closing slash too.
        assert_eq!(steps, 6);
    }
}
