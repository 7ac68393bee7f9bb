//! Regular expressions of the configuration (Envoy: `RegexMatcher`, `RegexMatchAndSubstitute`), matched in time that
//! is linear in the input, with the memory a match needs kept per worker.
//!
//! The syntax is RE2's (see `re2`). Subjects are bytes and need not be UTF-8: as in RE2, `.` and negated classes take
//! one code point, and so never match a byte that is not part of one.

mod re2;

use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use hashbrown::HashTable;
use regex_automata::{
    Anchored, Input,
    meta::{self, Cache},
    nfa::thompson::WhichCaptures,
    util::{primitives::NonMaxUsize, syntax},
};

use crate::limits;

/// A compiled regular expression. Cloning shares it.
#[derive(Clone)]
pub struct Regex {
    compiled: Arc<Compiled>,
}

struct Compiled {
    pattern: Arc<str>,
    program: meta::Regex,
}

/// Why a regular expression cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RegexError {
    /// Longer than [`limits::REGEX_PATTERN_BYTES_MAX`].
    #[error("regular expression of {bytes} bytes is longer than {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not a regular expression, or one with something that cannot be matched in linear time.
    #[error("regular expression {pattern:?} does not compile: {reason}")]
    Syntax {
        /// As configured.
        pattern: Arc<str>,
        /// What the parser says of it.
        reason: Arc<str>,
    },
    /// Its program would be larger than [`limits::REGEX_PROGRAM_BYTES_MAX`].
    #[error("regular expression {pattern:?} compiles to more than {max} bytes")]
    TooLarge {
        /// As configured.
        pattern: Arc<str>,
        /// The limit.
        max: usize,
    },
    /// A substitution names a group that the expression does not have, ends in `\`, or would break a request line.
    #[error("substitution {substitution:?}: {reason}")]
    Substitution {
        /// As configured.
        substitution: Arc<str>,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Regex {
    /// Compiles `pattern` to match the whole of its subject (RE2's `FullMatch`).
    ///
    /// # Errors
    /// When it is longer or larger than its limits, or no regular expression.
    pub fn full(pattern: &str) -> Result<Regex, RegexError> {
        let whole = alloc::format!("(?:{})\\z", parse(pattern)?);
        Regex::compile(pattern, &whole, WhichCaptures::Implicit)
    }

    /// Compiles `pattern` to be found anywhere in its subject.
    fn anywhere(pattern: &str) -> Result<Regex, RegexError> {
        Regex::compile(pattern, &parse(pattern)?, WhichCaptures::All)
    }

    fn compile(pattern: &str, whole: &str, captures: WhichCaptures) -> Result<Regex, RegexError> {
        let config = meta::Config::new()
            .utf8_empty(false)
            .which_captures(captures)
            .nfa_size_limit(Some(limits::REGEX_PROGRAM_BYTES_MAX))
            .onepass_size_limit(Some(limits::REGEX_PROGRAM_BYTES_MAX))
            .hybrid_cache_capacity(limits::REGEX_CACHE_BYTES_MAX);
        let built = meta::Builder::new().configure(config).syntax(syntax_config()).build(whole);
        let program = built.map_err(|error| {
            if error.size_limit().is_some() {
                return RegexError::TooLarge {
                    pattern: pattern.into(),
                    max: limits::REGEX_PROGRAM_BYTES_MAX,
                };
            }
            RegexError::Syntax { pattern: pattern.into(), reason: alloc::format!("{error}").into() }
        })?;
        Ok(Regex { compiled: Arc::new(Compiled { pattern: pattern.into(), program }) })
    }

    /// The pattern as configured.
    pub fn pattern(&self) -> &str {
        &self.compiled.pattern
    }

    /// Whether the expression matches the whole of `subject`.
    pub fn is_match(&self, subject: &[u8], caches: &mut RegexCaches) -> bool {
        let input = Input::new(subject).anchored(Anchored::Yes).earliest(true);
        let (cache, _) = caches.of(&self.compiled);
        self.compiled.program.search_half_with(cache, &input).is_some()
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Regex").field(&self.compiled.pattern).finish()
    }
}

fn syntax_config() -> syntax::Config {
    syntax::Config::new().utf8(false)
}

/// The pattern in the engine's syntax. It is parsed alone here: `a)(b` must not become valid by a group around it.
fn parse(pattern: &str) -> Result<String, RegexError> {
    if pattern.len() > limits::REGEX_PATTERN_BYTES_MAX {
        return Err(RegexError::TooLong { bytes: pattern.len(), max: limits::REGEX_PATTERN_BYTES_MAX });
    }
    let refused = |reason: &str| RegexError::Syntax { pattern: pattern.into(), reason: reason.into() };
    let translated = re2::translate(pattern).map_err(refused)?;
    syntax::parse_with(&translated, &syntax_config()).map_err(|error| {
        // The parser draws a picture of several lines; the reason is the last of them.
        let picture = alloc::format!("{error}");
        let reason = picture.lines().last().unwrap_or_default();
        refused(reason.strip_prefix("error: ").unwrap_or(reason))
    })?;
    Ok(translated)
}

/// A search for an expression in a path and what every match is replaced by (Envoy: `RegexMatchAndSubstitute`).
#[derive(Clone, Debug)]
pub struct RegexRewrite {
    regex: Regex,
    substitution: Arc<[Part]>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Arc<[u8]>),
    Group(usize),
}

/// A rewrite grew past its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("rewritten text is longer than {max} bytes")]
pub struct TooLong {
    /// The bound, in bytes.
    pub max: usize,
}

impl RegexRewrite {
    /// Compiles `pattern` and `substitution`, in which `\0` is the match, `\1` to `\9` its groups, and `\\` a backslash.
    ///
    /// # Errors
    /// As for [`Regex::full`], and when the substitution names a group that is not there or has a byte that no request
    /// target has: a space or line end would begin another part of the message.
    pub fn new(pattern: &str, substitution: &str) -> Result<RegexRewrite, RegexError> {
        let regex = Regex::anywhere(pattern)?;
        let groups = regex.compiled.program.group_info().group_len(regex_automata::PatternID::ZERO);
        let wrong = |reason| RegexError::Substitution { substitution: substitution.into(), reason };
        if !substitution.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("only visible ASCII may stand in a request target"));
        }
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = substitution.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                literal.push(byte);
                continue;
            }
            match bytes.next() {
                Some(b'\\') => literal.push(b'\\'),
                Some(digit @ b'0'..=b'9') => {
                    let group = usize::from(digit - b'0');
                    if group >= groups {
                        return Err(wrong("the expression has no such group"));
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(core::mem::take(&mut literal).into()));
                    }
                    parts.push(Part::Group(group));
                }
                _ => return Err(wrong("`\\` must be followed by a digit or `\\`")),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(RegexRewrite { regex, substitution: parts.into() })
    }

    /// Appends `subject` to `out` with every match replaced, from left to right and without overlap.
    ///
    /// # Errors
    /// When `out` would grow past `max` bytes; it then ends anywhere.
    pub fn apply(
        &self,
        subject: &[u8],
        caches: &mut RegexCaches,
        out: &mut Vec<u8>,
        max: usize,
    ) -> Result<(), TooLong> {
        let program = &self.regex.compiled.program;
        let (cache, slots) = caches.of(&self.regex.compiled);
        let mut push = |bytes: &[u8]| {
            if out.len() + bytes.len() > max {
                return Err(TooLong { max });
            }
            out.extend_from_slice(bytes);
            Ok(())
        };
        let (mut from, mut kept) = (0, 0);
        let mut previous_end = None;
        while from <= subject.len() {
            let input = Input::new(subject).range(from..);
            if program.search_slots_with(cache, &input, slots).is_none() {
                break;
            }
            let Some((start, end)) = group(slots, 0) else { break };
            if start == end && previous_end == Some(end) {
                // An empty match right behind a match is none (as in RE2): look on from the next byte.
                from = end + 1;
                continue;
            }
            push(subject.get(kept..start).unwrap_or_default())?;
            for part in self.substitution.iter() {
                match part {
                    Part::Literal(bytes) => push(bytes)?,
                    Part::Group(number) => {
                        let span = group(slots, *number).and_then(|(start, end)| subject.get(start..end));
                        push(span.unwrap_or_default())?;
                    }
                }
            }
            (from, kept) = (end, end);
            previous_end = Some(end);
        }
        push(subject.get(kept..).unwrap_or_default())
    }
}

/// The span of a group of the last match; `None` when it took no part.
fn group(slots: &[Option<NonMaxUsize>], number: usize) -> Option<(usize, usize)> {
    let at = |slot: usize| slots.get(slot).copied().flatten().map(NonMaxUsize::get);
    Some((at(2 * number)?, at(2 * number + 1)?))
}

/// The memory that matches need, of one worker. It fills with the expressions the worker really meets; make a new
/// one with each adopted snapshot, so that what is no longer configured goes.
#[derive(Default)]
pub struct RegexCaches {
    entries: HashTable<CacheEntry>,
}

struct CacheEntry {
    /// Keeps the program alive, so its address names it.
    compiled: Arc<Compiled>,
    cache: Cache,
    slots: Vec<Option<NonMaxUsize>>,
}

impl RegexCaches {
    fn of(&mut self, compiled: &Arc<Compiled>) -> (&mut Cache, &mut [Option<NonMaxUsize>]) {
        let entry = self.entries.entry(
            address_hash(compiled),
            |entry| Arc::ptr_eq(&entry.compiled, compiled),
            |entry| address_hash(&entry.compiled),
        );
        let entry = entry.or_insert_with(|| {
            let slots = compiled.program.group_info().slot_len().min(2 * limits::REGEX_GROUPS_MAX);
            CacheEntry {
                compiled: compiled.clone(),
                cache: compiled.program.create_cache(),
                slots: alloc::vec![None; slots],
            }
        });
        let entry = entry.into_mut();
        (&mut entry.cache, &mut entry.slots)
    }
}

impl fmt::Debug for RegexCaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegexCaches").field("expressions", &self.entries.len()).finish()
    }
}

/// Addresses are the allocator's choice, never a peer's: a multiplication that spreads them is enough.
fn address_hash(compiled: &Arc<Compiled>) -> u64 {
    (Arc::as_ptr(compiled) as usize as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32)
}

#[cfg(test)]
mod tests {
    use std::{format, vec};

    use super::*;

    fn matches(pattern: &str, subject: &[u8]) -> bool {
        Regex::full(pattern).unwrap().is_match(subject, &mut RegexCaches::default())
    }

    #[test]
    fn a_match_is_of_the_whole_subject_as_in_re2() {
        for (pattern, subject, expected) in [
            ("a|ab", &b"ab"[..], true),
            ("a", b"ab", false),
            ("b", b"ab", false),
            ("", b"", true),
            ("", b"a", false),
            (".*", b"", true),
            (".*", b"a\nb", false),
            ("(?s).*", b"a\nb", true),
            ("a$", b"a\n", false),
            ("^a$", b"a", true),
            (r"\d+", b"17", true),
            (r"\d+", "\u{661}".as_bytes(), false),
            (r"\w", "\u{e9}".as_bytes(), false),
            (".", "\u{e9}".as_bytes(), true),
            (".", b"\xff", false),
            ("[^/]", b"\xff", false),
            (r"\C", b"\xff", true),
            ("\u{e9}", "\u{e9}".as_bytes(), true),
            ("(?i)abc", b"aBC", true),
            ("/users/{id}", b"/users/{id}", true),
            ("/users/[^/]+/items", b"/users/7/items", true),
            ("/users/[^/]+/items", b"/users/7/8/items", false),
            (r"\bfoo\b.*", b"foo bar", true),
            ("(a+)+b", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
        ] {
            assert_eq!(matches(pattern, subject), expected, "{pattern} on {subject:?}");
        }
    }

    #[test]
    fn one_worker_keeps_a_cache_for_each_expression_and_answers_stay_the_same() {
        let (a, b) = (Regex::full("a+").unwrap(), Regex::full("b+").unwrap());
        let mut caches = RegexCaches::default();
        for _ in 0..3 {
            assert!(a.is_match(b"aa", &mut caches) && !a.is_match(b"b", &mut caches));
            assert!(b.clone().is_match(b"bb", &mut caches) && !b.is_match(b"a", &mut caches));
        }
        assert_eq!(caches.entries.len(), 2);
    }

    #[test]
    fn what_cannot_be_matched_in_bounds_is_refused() {
        let max = limits::REGEX_PATTERN_BYTES_MAX;
        assert_eq!(
            Regex::full(&"a".repeat(max + 1)).unwrap_err(),
            RegexError::TooLong { bytes: max + 1, max }
        );
        assert!(Regex::full(&"a".repeat(max)).is_ok());
        let too_large = Regex::full("([^/]{500}){100}").unwrap_err();
        assert!(matches!(too_large, RegexError::TooLarge { .. }), "{too_large}");
        for pattern in ["a)(b", "(", "*", "(?=a)", r"(a)\1", "[b-a]", "(?x)a"] {
            let error = Regex::full(pattern).unwrap_err();
            assert!(matches!(error, RegexError::Syntax { .. }), "{error}");
            assert!(!format!("{error}").contains('\n'), "one line: {error}");
        }
    }

    #[test]
    fn no_pattern_is_a_panic_and_every_match_is_the_same_twice() {
        let pieces = [
            "a",
            "b",
            "/",
            "(",
            ")",
            "(?i)",
            "(?:",
            "[",
            "]",
            "[^",
            "-",
            "^",
            "$",
            "*",
            "+?",
            "{2}",
            "{",
            "|",
            r"\d",
            r"\b",
            r"\Q",
            r"\E",
            r"\",
            "[:alpha:]",
            "&&",
            "\u{e9}",
            ".",
        ];
        let mut rng = crate::Rng::new(21);
        let mut caches = RegexCaches::default();
        let mut compiled = 0;
        for _ in 0..2_000 {
            let pattern: String =
                (0..rng.below(7)).map(|_| pieces[rng.below(pieces.len() as u64) as usize]).collect();
            let Ok(regex) = Regex::full(&pattern) else { continue };
            compiled += 1;
            for subject in [&b""[..], b"a", b"ab/\xff", b"aa"] {
                let fresh = regex.is_match(subject, &mut RegexCaches::default());
                assert_eq!(regex.is_match(subject, &mut caches), fresh, "{pattern} on {subject:?}");
            }
        }
        assert!(compiled > 300, "{compiled} patterns were good ones");
    }

    #[test]
    fn every_match_is_replaced_from_left_to_right() {
        for (pattern, substitution, subject, expected) in [
            ("a", "b", "aXa", "bXb"),
            ("aa", "b", "aaa", "ba"),
            ("a*", "-", "baac", "-b-c-"),
            ("", "-", "ab", "-a-b-"),
            (".*", "x", "abc", "x"),
            ("^/.*$", "/y", "/abc", "/y"),
            ("(a)(b)?", r"<\0|\1|\2>", "abXa", "<ab|a|b>X<a|a|>"),
            ("a", r"\\", "a", r"\"),
            ("z", "y", "abc", "abc"),
            ("a", "", "banana", "bnn"),
        ] {
            let rewrite = RegexRewrite::new(pattern, substitution).unwrap();
            let mut out = vec![];
            rewrite.apply(subject.as_bytes(), &mut RegexCaches::default(), &mut out, 100).unwrap();
            assert_eq!(core::str::from_utf8(&out), Ok(expected), "{pattern} -> {substitution} on {subject}");
        }
    }

    #[test]
    fn a_substitution_must_make_sense() {
        for (substitution, reason) in [
            (r"\2", "the expression has no such group"),
            (r"\", "`\\` must be followed by a digit or `\\`"),
            (r"\n", "`\\` must be followed by a digit or `\\`"),
            ("a b", "only visible ASCII may stand in a request target"),
            ("a\r\nx: y", "only visible ASCII may stand in a request target"),
        ] {
            let error = RegexRewrite::new("(a)", substitution).unwrap_err();
            assert_eq!(error, RegexError::Substitution { substitution: substitution.into(), reason });
        }
        assert!(RegexRewrite::new("a", r"\0").is_ok());
    }
}
