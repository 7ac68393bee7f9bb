//! One test of a byte string (Envoy: `StringMatcher`): of a header value or a query parameter.

use alloc::sync::Arc;

use crate::regex::{Regex, RegexCaches};

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
    /// Whether `value` passes. `regexes` is the memory of regular expressions.
    pub fn matches(&self, value: &[u8], regexes: &mut RegexCaches) -> bool {
        match &self.pattern {
            StringPattern::Regex(regex) => regex.is_match(value, regexes),
            pattern => pattern.takes(value, self.ignore_case),
        }
    }

    /// Whether `value` passes where case never makes a difference. No regular expression does.
    pub(crate) fn matches_in_any_case(&self, value: &[u8]) -> bool {
        self.pattern.takes(value, true)
    }
}

impl StringPattern {
    fn takes(&self, value: &[u8], ignore_case: bool) -> bool {
        let same = |a: &[u8], b: &[u8]| if ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
        match self {
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
            StringPattern::Regex(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    #[test]
    fn one_string_is_compared_in_five_ways_with_and_without_case() {
        type Way = fn(Arc<[u8]>) -> StringPattern;
        let ways: [(Way, _, _); 4] = [
            (StringPattern::Exact, vec!["bc"], vec!["abc", "bcd", "b", "", "Bc"]),
            (StringPattern::Prefix, vec!["bc", "bcd"], vec!["abc", "b", "", "BC"]),
            (StringPattern::Suffix, vec!["bc", "abc"], vec!["bcd", "c", "", "BC"]),
            (StringPattern::Contains, vec!["bc", "abcd", "abc"], vec!["b c", "b", "", "BC"]),
        ];
        let mut regexes = RegexCaches::default();
        for (pattern, hits, misses) in ways {
            let pattern = pattern(b"bc"[..].into());
            let strict = StringMatch { pattern: pattern.clone(), ignore_case: false };
            let loose = StringMatch { pattern, ignore_case: true };
            for hit in hits {
                assert!(strict.matches(hit.as_bytes(), &mut regexes), "{strict:?} {hit}");
                assert!(loose.matches(hit.to_ascii_uppercase().as_bytes(), &mut regexes), "{loose:?} {hit}");
            }
            for miss in misses {
                assert!(!strict.matches(miss.as_bytes(), &mut regexes), "{strict:?} {miss}");
            }
        }
        let empty = StringMatch { pattern: StringPattern::Contains(Arc::default()), ignore_case: false };
        assert!(empty.matches(b"", &mut regexes) && empty.matches(b"a", &mut regexes));
        let regex = StringPattern::Regex(Regex::full("b+").unwrap());
        let regex = StringMatch { pattern: regex, ignore_case: true };
        assert!(regex.matches(b"bb", &mut regexes));
        assert!(!regex.matches(b"BB", &mut regexes) && !regex.matches(b"abb", &mut regexes));
    }
}
