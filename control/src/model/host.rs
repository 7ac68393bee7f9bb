//! Patterns of host names: which hosts they mean, which of two is more specific, what two have in common.

use std::fmt;

/// Which hosts a listener or a route is for. In order of their text; use [`HostPattern::specificity`] to compare how
/// much they narrow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// Every host that ends so and is longer: `.example.com`, written `*.example.com`.
    Below(String),
    /// This one.
    Exact(String),
}

impl HostPattern {
    /// As it is written in documents; `None` is every host.
    pub fn parse(written: Option<&str>) -> Self {
        match written {
            None | Some("" | "*") => Self::Any,
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => Self::Below(suffix.to_ascii_lowercase()),
                None => Self::Exact(name.to_ascii_lowercase()),
            },
        }
    }

    /// Whether every host of `other` is one of `self`.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Below(suffix), Self::Exact(name) | Self::Below(name)) => {
                name.ends_with(suffix.as_str()) && (name != suffix || matches!(other, Self::Below(_)))
            }
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Exact(_) | Self::Below(_), _) => false,
        }
    }

    /// The hosts of both, which is always the narrower of the two, or nothing.
    pub fn intersect<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        if self.covers(other) { Some(other) } else { other.covers(self).then_some(self) }
    }

    /// Greater is narrower, for patterns that have a host in common: the one that spells out more of a host without
    /// a wildcard, then the one that spells out more.
    pub fn specificity(&self) -> (usize, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Below(suffix) => (0, suffix.len()),
            Self::Exact(name) => (name.len(), name.len()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(suffix) => write!(f, "*{suffix}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_patterns_have_in_common_what_the_narrower_one_means() {
        let cases = [
            ("*", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "badexample.com", None),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("*.example.com", "*.example.net", None),
            ("a.example.com", "b.example.com", None),
            ("A.Example.com", "a.example.com", Some("a.example.com")),
        ];
        for (a, b, expected) in cases {
            let (a, b) = (HostPattern::parse(Some(a)), HostPattern::parse(Some(b)));
            for (a, b) in [(&a, &b), (&b, &a)] {
                assert_eq!(a.intersect(b).map(ToString::to_string).as_deref(), expected, "{a} and {b}");
            }
        }
    }

    #[test]
    fn the_pattern_that_spells_out_more_is_more_specific() {
        let order = ["*", "*.com", "*.example.com", "*.a.example.com", "a.example.com", "b.a.example.com"];
        for pair in order.windows(2) {
            let specificity = |i: usize| HostPattern::parse(Some(pair[i])).specificity();
            assert!(specificity(0) < specificity(1), "{pair:?}");
        }
    }
}
