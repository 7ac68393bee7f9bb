//! Why a resource is refused: its name, the field, the reason.
//!
//! `At` is where translation is in the message tree. It lives on the stack and becomes text only when something is
//! wrong, so a good resource pays nothing for it.

use std::fmt;

use policy::{
    filter_chain::FilterChainError,
    rbac::RulesError,
    regex::RegexError,
    route::{HeaderOpError, RouteTableError},
};

/// A resource that cannot be used. The one that served before goes on serving; its neighbours are not touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {fault}")]
pub struct Rejected {
    /// Name of the resource.
    pub resource: String,
    /// What is wrong in it.
    pub fault: Fault,
}

/// What is wrong in one resource. Displays as `FIELD PATH: REASON`, or the reason alone for the resource as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}{}{reason}", if .path.is_empty() { "" } else { ": " })]
pub struct Fault {
    /// Fields from the resource's root: `virtual_hosts[0].routes[2].match`.
    pub path: String,
    /// What is wrong with that field.
    pub reason: Reason,
}

impl Fault {
    /// The rejection of the resource `name`.
    pub fn of(self, name: &str) -> Rejected {
        Rejected { resource: name.to_owned(), fault: self }
    }
}

/// What is wrong with a field. `validate.rules` of the protobufs are enforced here and nowhere before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A required field, or every member of a required oneof, is absent or empty.
    #[error("required")]
    Missing,
    /// The field is set and Ringway has nothing like it; leaving it out would change what happens to traffic.
    #[error("not supported by Ringway")]
    Unsupported,
    /// The field is known, this value of it is not.
    #[error("{value} is not supported by Ringway; supported: {supported}")]
    UnsupportedValue {
        /// The value, as Envoy's documentation writes it.
        value: String,
        /// Those that are.
        supported: &'static str,
    },
    /// An extension that Ringway does not have.
    #[error("{type_url} is not supported by Ringway; supported: {}", names(.supported))]
    Extension {
        /// The type of the configuration that was given.
        type_url: String,
        /// The types that are supported at this place.
        supported: &'static [&'static str],
    },
    /// The bytes are not the message that the type URL promises.
    #[error("not a valid {type_url}")]
    Undecodable {
        /// The promised type.
        type_url: String,
    },
    /// Something is set that this version does not know, where leaving it out could allow too much.
    #[error("a field of {type_url} is not known to Ringway, or is there twice")]
    UnknownFields {
        /// The type of the message.
        type_url: String,
    },
    /// A value that is not what the field needs.
    #[error("`{value}` is not {expected}")]
    Invalid {
        /// The value.
        value: String,
        /// What it should be, with its article.
        expected: &'static str,
    },
    /// A number outside its bounds.
    #[error("{value} is not between {least} and {most}")]
    OutOfRange {
        /// The number.
        value: u64,
        /// The smallest that is accepted.
        least: u64,
        /// The largest that is accepted.
        most: u64,
    },
    /// A name that was already used where each may stand once.
    #[error("`{value}` is there twice")]
    Duplicate {
        /// The name.
        value: String,
    },
    /// What is not in PEM, or has another thing in it.
    #[error("not {0} in PEM")]
    NotPem(&'static str),
    /// A certificate or a key that cannot be used.
    #[error("cannot be used: {error}")]
    Tls {
        /// Why.
        error: String,
    },
    /// A field that contradicts another one.
    #[error("{0}")]
    Conflict(&'static str),
    /// A regular expression or its substitution cannot be used.
    #[error(transparent)]
    Regex(RegexError),
    /// A header cannot be edited so.
    #[error(transparent)]
    Header(HeaderOpError),
    /// The routes do not make a table.
    #[error(transparent)]
    RouteTable(RouteTableError),
    /// The filter chains do not make a listener.
    #[error(transparent)]
    FilterChains(FilterChainError),
    /// The policies do not make rules.
    #[error(transparent)]
    Rules(RulesError),
    /// A cluster that does not exist and cannot come.
    #[error("there is no cluster `{name}`")]
    UnknownCluster {
        /// Its name.
        name: String,
    },
    /// The resource is not of the type that was asked for.
    #[error("a resource of type {type_url} was not asked for")]
    Type {
        /// Its type.
        type_url: String,
    },
    /// The resource is not named as it was asked for.
    #[error("the resource is named `{name}` inside")]
    Name {
        /// The name in the message.
        name: String,
    },
}

fn names(supported: &[&str]) -> String {
    if supported.is_empty() { "none".to_owned() } else { supported.join(", ") }
}

/// A place in a message tree: a step and where it was taken from.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'static str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// The resource itself.
    pub(crate) const ROOT: At<'static> = At { parent: None, step: Step::Root };

    /// A field of the message here.
    pub(crate) fn field(&'a self, name: &'static str) -> At<'a> {
        At { parent: Some(self), step: Step::Field(name) }
    }

    /// An element of the list here.
    pub(crate) fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    /// An entry of the map here.
    pub(crate) fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    /// What is wrong here.
    pub(crate) fn fault(&self, reason: Reason) -> Fault {
        Fault { path: self.to_string(), reason }
    }

    /// The field here has a value that Ringway cannot honour.
    pub(crate) fn unsupported(&self) -> Fault {
        self.fault(Reason::Unsupported)
    }

    /// The value of a required field.
    pub(crate) fn require<T>(&self, value: Option<T>) -> Result<T, Fault> {
        value.ok_or_else(|| self.fault(Reason::Missing))
    }

    /// Fails if the field `name` of the message here is set.
    pub(crate) fn refuse(&self, name: &'static str, is_set: bool) -> Result<(), Fault> {
        if is_set { Err(self.field(name).unsupported()) } else { Ok(()) }
    }

    /// Fails at the first field of `fields` that is set.
    pub(crate) fn refuse_all(&self, fields: &[(&'static str, bool)]) -> Result<(), Fault> {
        fields.iter().try_for_each(|(name, is_set)| self.refuse(name, *is_set))
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else { return Ok(()) };
        parent.fmt(f)?;
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if parent.parent.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[\"{key}\"]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_reads_as_resource_path_and_reason() {
        let root = At::ROOT;
        let hosts = root.field("virtual_hosts");
        let host = hosts.index(3);
        let filters = host.field("typed_per_filter_config");
        let fault = filters.key("a.b").unsupported();
        assert_eq!(
            fault.of("web").to_string(),
            "web: virtual_hosts[3].typed_per_filter_config[\"a.b\"]: not supported by Ringway"
        );
        assert_eq!(At::ROOT.fault(Reason::Missing).of("web").to_string(), "web: required");
    }
}
