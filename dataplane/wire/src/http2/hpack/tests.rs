//! Both directions together: the examples of the RFC, a slow reference, and what holds for any blocks.

mod agree;
mod decoding;
mod encoding;
mod reference;
mod rfc;

use std::vec::Vec;

use super::{DecodeError, Decoded, Decoder, Encoder};
use crate::http2::field::judge;

/// A sequence that looks random (xorshift64*), the same for the same seed.
pub(in crate::http2) struct Random(u64);

impl Random {
    pub(in crate::http2) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to below `end`.
    pub(in crate::http2) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * end as u128) >> 64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// Name, value, and whether it is sensitive.
type Owned = (Vec<u8>, Vec<u8>, bool);

fn owned(name: &[u8], value: &[u8], is_sensitive: bool) -> Owned {
    (name.to_vec(), value.to_vec(), is_sensitive)
}

/// All fields that are handed out; each is looked at for whether its parts and its judgement agree.
fn decode(
    decoder: &mut Decoder,
    block: &[u8],
    bytes_max: usize,
) -> Result<(Vec<Owned>, Decoded), DecodeError> {
    let mut fields = Vec::new();
    let decoded = decoder.decode(block, bytes_max, &mut |field| {
        assert_eq!(field.line(), [field.name(), b": ", field.value(), b"\r\n"].concat());
        assert_eq!(field.judged, judge(field.name(), field.value()));
        fields.push(owned(field.name(), field.value(), field.is_sensitive));
    })?;
    Ok((fields, decoded))
}

/// The entries of both tables are the same, in the same order.
fn assert_same_tables(encoder: &Encoder, decoder: &Decoder) {
    let (ours, theirs) = (encoder.table(), decoder.table());
    assert_eq!((ours.len(), ours.size()), (theirs.len(), theirs.size()));
    for age in 0..ours.len() {
        assert_eq!(ours.get(age).unwrap().line, theirs.get(age).unwrap().line);
    }
}
