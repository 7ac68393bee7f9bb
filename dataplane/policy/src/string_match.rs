//! One test of a byte string (Envoy: `StringMatcher`): of a header value or a query parameter.

use alloc::sync::Arc;

use crate::{regex::Regex, route::RouteScratch};

/// What a byte string is compared with.
#[derive(Clone, Debug)]
pub struct StringMatch {
    /// How.
    pub pattern: StringPattern,
    /// Whether ASCII case makes no difference. Envoy ignores it for regular expressions, and so do we.
    pub ignore_case: bool,
}

/// How a byte string is compared.
#[derive(Clone, Debug)]
pub enum StringPattern {
    /// It is this.
    Exact(Arc<[u8]>),
    /// It begins with this.
    Prefix(Arc<[u8]>),
    /// It ends with this.
    Suffix(Arc<[u8]>),
    /// It contains this.
    Contains(Arc<[u8]>),
    /// This regular expression matches the whole of it.
    Regex(Regex),
}

impl StringMatch {
    /// Whether `value` passes.
    pub fn matches(&self, value: &[u8], scratch: &mut RouteScratch) -> bool {
        let same = |a: &[u8], b: &[u8]| if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
        match &self.pattern {
            StringPattern::Exact(wanted) => same(value, wanted),
            StringPattern::Prefix(wanted) => {
                value.get(..wanted.len()).is_some_and(|start| same(start, wanted))
            }
            StringPattern::Suffix(wanted) => {
                let start = value.len().checked_sub(wanted.len());
                start.and_then(|start| value.get(start..)).is_some_and(|end| same(end, wanted))
            }
            StringPattern::Contains(wanted) => {
                wanted.is_empty() || value.windows(wanted.len()).any(|part| same(part, wanted))
            }
            StringPattern::Regex(regex) => regex.is_match(value, &mut scratch.regexes),
        }
    }
}
