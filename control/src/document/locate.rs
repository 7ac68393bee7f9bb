//! Finds where in a text the value at a path was written. Only errors need it, so it reads the text again.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Line and column of the value at `path` (`spec.rules[0].filters`), both from 1; those of the nearest enclosing
/// value that exists where there is no such value; `None` if the text cannot be read.
pub(super) fn locate(text: &str, path: &str) -> Option<(u64, u64)> {
    let root: Spanned<Node> = serde_saphyr::from_str(text).ok()?;
    let (at, _) = walk(&root, path);
    Some((at.referenced.line(), at.referenced.column()))
}

/// Line and column of each element of the list at `path`; none where there is no such list.
pub(super) fn elements(text: &str, path: &str) -> Vec<(u64, u64)> {
    let Ok(root) = serde_saphyr::from_str::<Spanned<Node>>(text) else { return Vec::new() };
    match walk(&root, path) {
        (Spanned { value: Node::List(items), .. }, true) => {
            items.iter().map(|item| (item.referenced.line(), item.referenced.column())).collect()
        }
        _ => Vec::new(),
    }
}

/// The value at `path`, and true; or the nearest enclosing one that exists, and false.
fn walk<'a>(root: &'a Spanned<Node>, path: &str) -> (&'a Spanned<Node>, bool) {
    let mut at = root;
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        let next = match &at.value {
            Node::List(items) => step.trim_end_matches(']').parse().ok().and_then(|i: usize| items.get(i)),
            Node::Map(fields) => fields.iter().find(|(name, _)| name == step).map(|(_, value)| value),
            Node::Scalar => None,
        };
        match next {
            Some(next) => at = next,
            None => return (at, false),
        }
    }
    (at, true)
}

/// The shape of a document with the place of each value.
enum Node {
    Scalar,
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::locate;

    #[test]
    fn a_path_leads_to_the_place_of_its_value_or_of_what_encloses_it() {
        let text = "spec:\n  rules:\n  - name: a\n  - name: b\n    matches: [{path: {value: x}}]\n";
        let cases = [
            ("", (1, 1)),
            ("spec.rules[1].name", (4, 11)),
            ("spec.rules[1].matches[0].path.value", (5, 30)),
            ("spec.rules[0].filters", (3, 5)),
        ];
        for (path, expected) in cases {
            assert_eq!(locate(text, path), Some(expected), "{path}");
        }
    }
}
