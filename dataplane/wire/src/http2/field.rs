//! What is known of one header field of HTTP/2 once it was looked at (RFC 9113 §8.2, §8.3).
//!
//! Looked at once per literal: the answer is kept with the entries of the HPACK tables, so that a field that comes as an
//! index costs no second look. Nothing here refuses a field. Who takes a head in does, and says which stream is wrong.

use crate::head::Known;
use crate::http1::{classify, encode::is_token, text};

/// What was found out about a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    /// What the field is. Only to be relied on when `name_ok`.
    pub kind: Kind,
    /// The name is one that RFC 9113 §8.2.1 allows: a token without large letters, or a pseudo-header field that we know.
    pub name_ok: bool,
    /// The value is one that RFC 9113 §8.2.1 allows, and has no control byte but the tab, as our HTTP/1.1 has it: it can
    /// stand in a line of HTTP/1.1.
    pub value_ok: bool,
    /// [`hash`] of name and value.
    pub hash: u32,
}

/// Which field it is, as far as the proxy acts on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:status`
    Status,
    /// `:protocol` (RFC 8441)
    Protocol,
    /// Another name that begins with a colon; its `name_ok` is never set.
    UnknownPseudo,
    /// A name that begins with no colon.
    Regular(Known),
}

/// Looks at a field.
pub fn judge(name: &[u8], value: &[u8]) -> Judged {
    let (kind, name_ok) = judge_name(name);
    judge_value((kind, name_ok), name, value)
}

/// What `name` is, and whether it may be one.
pub(super) fn judge_name(name: &[u8]) -> (Kind, bool) {
    if name.first() == Some(&b':') {
        let kind = match name {
            b":method" => Kind::Method,
            b":scheme" => Kind::Scheme,
            b":authority" => Kind::Authority,
            b":path" => Kind::Path,
            b":status" => Kind::Status,
            b":protocol" => Kind::Protocol,
            _ => Kind::UnknownPseudo,
        };
        return (kind, kind != Kind::UnknownPseudo);
    }
    let may_stand = |byte: &u8| is_token(*byte) && !byte.is_ascii_uppercase();
    (Kind::Regular(classify(name)), !name.is_empty() && name.iter().all(may_stand))
}

/// Looks at a field whose name was looked at before.
pub(super) fn judge_value((kind, name_ok): (Kind, bool), name: &[u8], value: &[u8]) -> Judged {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let value_ok = text(value).len() == value.len() && !is_blank(value.first()) && !is_blank(value.last());
    Judged { kind, name_ok, value_ok, hash: hash(name, value) }
}

/// A hash of `name`, the case of its letters ignored, and `value`; never 0.
///
/// It only finds a place in a table: what stands there is compared in full, and a chain of entries is as long as the table
/// at most. So who makes hashes collide (the seed is a constant) gains nothing but that fields are indexed less or more
/// often than they should, which they can have by sending such fields.
pub const fn hash(name: &[u8], value: &[u8]) -> u32 {
    let mixed = mix(mix(SEED, name, FOLD), value, 0);
    let short = (mixed >> 32) as u32 ^ mixed as u32;
    if short == 0 { 1 } else { short }
}

/// Hash of a name alone, the case of its letters ignored.
pub(super) const fn hash_name(name: &[u8]) -> u32 {
    let mixed = mix(SEED, name, FOLD);
    (mixed >> 32) as u32 ^ mixed as u32
}

/// The first digits of the fraction of the golden ratio, and of pi.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0x243f_6a88_85a3_08d3;
/// Makes small letters of large ones. That it makes other bytes alike, too, is no matter to a hash.
const FOLD: u64 = u64::from_ne_bytes([0x20; 8]);

/// Takes `bytes` into `state`, in words of eight bytes; the last word may overlap the one before.
const fn mix(state: u64, bytes: &[u8], fold: u64) -> u64 {
    let mut state = state ^ bytes.len() as u64;
    let mut rest = bytes;
    while rest.len() > 8 {
        let Some((word, behind)) = rest.split_first_chunk::<8>() else { break };
        state = step(state, u64::from_le_bytes(*word) | fold);
        rest = behind;
    }
    let last = match (bytes.last_chunk::<8>(), rest) {
        (Some(word), _) => u64::from_le_bytes(*word),
        (None, []) => 0,
        (None, [a]) => u64::from_le_bytes([*a, 0, 0, 0, 0, 0, 0, 0]),
        (None, [a, b]) => u64::from_le_bytes([*a, *b, 0, 0, 0, 0, 0, 0]),
        (None, [a, b, c]) => u64::from_le_bytes([*a, *b, *c, 0, 0, 0, 0, 0]),
        (None, [a, b, c, d, ..]) => match rest.last_chunk::<4>() {
            Some([e, f, g, h]) => u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            None => 0,
        },
    };
    step(state, last | fold)
}

/// Both halves of the product, so that every bit of `word` changes low bits and high ones.
const fn step(state: u64, word: u64) -> u64 {
    let product = (state ^ word) as u128 * FACTOR as u128;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::{format, vec::Vec};

    #[test]
    fn fields_are_told_by_their_names() {
        let cases: &[(&str, Kind, bool)] = &[
            (":method", Kind::Method, true),
            (":scheme", Kind::Scheme, true),
            (":authority", Kind::Authority, true),
            (":path", Kind::Path, true),
            (":status", Kind::Status, true),
            (":protocol", Kind::Protocol, true),
            (":", Kind::UnknownPseudo, false),
            (":Method", Kind::UnknownPseudo, false),
            (":methods", Kind::UnknownPseudo, false),
            ("::method", Kind::UnknownPseudo, false),
            ("host", Kind::Regular(Known::Host), true),
            ("transfer-encoding", Kind::Regular(Known::TransferEncoding), true),
            ("x-a!#$%&'*+.^_`|~9", Kind::Regular(Known::Other), true),
            ("", Kind::Regular(Known::Other), false),
        ];
        for (name, kind, name_ok) in cases {
            let judged = judge(name.as_bytes(), b"v");
            assert_eq!((judged.kind, judged.name_ok, judged.value_ok), (*kind, *name_ok, true), "{name:?}");
        }
    }

    #[test]
    fn a_name_is_a_token_without_large_letters_wherever_the_wrong_byte_stands() {
        for byte in 0..=255u8 {
            for at in 0..20 {
                let mut name = [b'x'; 20];
                name[at] = byte;
                let expected = is_token(byte) && !byte.is_ascii_uppercase();
                assert_eq!(judge(&name, b"").name_ok, expected, "{byte:x} at {at}");
            }
        }
    }

    #[test]
    fn a_value_has_no_control_byte_but_the_tab_and_no_blank_around() {
        for byte in 0..=255u8 {
            for at in 0..20 {
                let mut value = [b'x'; 20];
                value[at] = byte;
                let is_blank = byte == b' ' || byte == b'\t';
                let expected = match at {
                    0 | 19 if is_blank => false,
                    _ => byte == b'\t' || (byte >= b' ' && byte != 0x7f),
                };
                assert_eq!(judge(b"a", &value).value_ok, expected, "{byte:x} at {at}");
            }
        }
        for (value, expected) in
            [("", true), (" ", false), ("\t", false), ("a b", true), ("a\r\nb: c", false), ("a\0", false)]
        {
            assert_eq!(judge(b"a", value.as_bytes()).value_ok, expected, "{value:?}");
        }
    }

    #[test]
    fn a_hash_tells_fields_apart_and_not_the_case_of_a_name() {
        let mut hashes = HashSet::new();
        let mut low_bits = [0; 128];
        for n in 0..40_000u32 {
            // The end of a long value differs, and where the value begins.
            let value = format!("{}{n}", "v".repeat((n % 30) as usize));
            let hash = hash(b"x-name", value.as_bytes());
            assert_ne!(hash, 0);
            hashes.insert(hash);
            low_bits[hash as usize % 128] += 1;
        }
        // By chance, 0.2 of 40,000 collide in 32 bits, and each place has 312 ± 18.
        assert!(hashes.len() > 39_995, "{}", hashes.len());
        assert!(low_bits.iter().all(|count| (212..412).contains(count)), "{low_bits:?}");
        assert_ne!(hash(b"ab", b"c"), hash(b"a", b"bc"));
        assert_ne!(hash(b"a", b""), hash(b"", b"a"));
        for length in 0..40 {
            let name: Vec<u8> = (0..length).map(|at| b'a' + at % 26).collect();
            assert_eq!(hash(&name, b"V"), hash(&name.to_ascii_uppercase(), b"V"), "{length}");
            assert_eq!(hash_name(&name), hash_name(&name.to_ascii_uppercase()), "{length}");
            assert_ne!(hash(&name, b"V"), hash(&name, b"v"), "{length}");
            for at in 0..name.len() {
                let mut other = name.clone();
                other[at] ^= 1;
                assert_ne!(hash_name(&name), hash_name(&other), "{at} of {length}");
                assert_ne!(hash(b"", &name), hash(b"", &other), "{at} of {length}");
            }
        }
    }
}
