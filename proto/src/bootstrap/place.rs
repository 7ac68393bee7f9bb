//! Where in the text a field stands. Read only when there is an error to explain, so it may be slow.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, Location, Options, Spanned};

use super::Step;

/// A line and a column of a file, both from 1. Displays as `LINE:COLUMN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
}

impl Place {
    pub(super) fn of(location: Option<Location>) -> Place {
        location.map_or(Place { line: 1, column: 1 }, |at| Place { line: at.line(), column: at.column() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// How bootstrap files are read. Without a budget for size: the file is the operator's, and a large one is meant.
pub(super) fn options() -> Options {
    serde_saphyr::options! { with_snippet: false, budget: None }
}

/// The file as values with their places.
pub(super) struct Tree(Spanned<Node>);

enum Node {
    Scalar(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Tree {
    /// Fails only if the text is not YAML; a name that is given twice is not for here.
    pub(super) fn read(text: &str) -> Result<Tree, serde_saphyr::Error> {
        let mut options = options();
        options.duplicate_keys = DuplicateKeyPolicy::FirstWins;
        serde_saphyr::from_str_with_options(text, options).map(Tree)
    }

    /// The place of the last field's name, or of the list element, that `steps` lead to; of the nearest one above
    /// it if they leave the file (within an `Any` whose `@type` is not its first field).
    pub(super) fn find(&self, steps: &[Step<'_>]) -> Place {
        let mut place = Place::of(Some(self.0.referenced));
        let mut node = &self.0;
        for step in steps {
            let Some((at, next)) = child(&node.value, step) else { break };
            place = Place::of(Some(at));
            node = next;
        }
        place
    }

    /// The text of the scalar that `steps` lead to.
    pub(super) fn scalar(&self, steps: &[Step<'_>]) -> Option<&str> {
        text(self.node(steps)?)
    }

    /// The text of the scalar `name` in the map that `steps` lead to.
    pub(super) fn scalar_in(&self, steps: &[Step<'_>], name: &str) -> Option<&str> {
        text(&child(self.node(steps)?, &Step::Field(name))?.1.value)
    }

    fn node(&self, steps: &[Step<'_>]) -> Option<&Node> {
        steps.iter().try_fold(&self.0.value, |node, step| Some(&child(node, step)?.1.value))
    }
}

fn text(node: &Node) -> Option<&str> {
    match node {
        Node::Scalar(text) => Some(text),
        Node::List(_) | Node::Map(_) => None,
    }
}

fn child<'n>(node: &'n Node, step: &Step<'_>) -> Option<(Location, &'n Spanned<Node>)> {
    match (node, step) {
        (Node::Map(fields), Step::Field(name)) => fields
            .iter()
            .find(|(field, _)| field.value == *name || super::snake_case(&field.value) == *name)
            .map(|(field, value)| (field.referenced, value)),
        (Node::List(values), Step::Index(index)) => values.get(*index).map(|value| (value.referenced, value)),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar("null".to_owned()))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar("null".to_owned()))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Node::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }
}
