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
