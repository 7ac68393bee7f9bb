//! What a user wrote: the document kinds we read, as they are in the file. What they mean together is [`crate::model`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Names one object: at most one document of a set has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// API group, empty for Kubernetes' core kinds.
    pub group: Arc<str>,
    /// Kind, as in `kind:`.
    pub kind: Arc<str>,
    /// Namespace; empty for kinds that have none.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => write!(f, "{} {}", self.kind, self.name),
            false => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file, relative to the directory that is read.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A set of documents: the newest good version of each object, and what is wrong with the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Documents {
    /// Every object, by its key.
    pub objects: BTreeMap<ObjectKey, Arc<Document>>,
    /// Documents that could not be used, in order of file and line.
    pub errors: Vec<DocumentError>,
}

/// One document that could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it starts.
    pub origin: Origin,
}

/// A document that could not be used. If an earlier version of it was good, that one still is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct DocumentError {
    /// Where it is wrong.
    pub origin: Origin,
    /// Which object, where that much could be read.
    pub key: Option<ObjectKey>,
    /// What is wrong.
    pub reason: String,
    /// The last good version of the object still serves.
    pub last_good_serves: bool,
}
