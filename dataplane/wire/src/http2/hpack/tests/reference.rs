//! A decoder that follows RFC 7541 line by line, slowly: what ours is compared with.

use std::collections::BTreeMap;
use std::{vec, vec::Vec};

use super::super::huffman::encode;
use super::super::static_table;
use super::Owned;

#[derive(Clone)]
pub(super) struct Reference {
    /// Youngest first.
    pub(super) entries: Vec<(Vec<u8>, Vec<u8>)>,
    size_max: usize,
    limit: usize,
    /// The byte by the bits of its code.
    codes: BTreeMap<Vec<bool>, u8>,
}

fn bits(bytes: &[u8]) -> Vec<bool> {
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1 == 1)).collect()
}

impl Reference {
    pub(super) fn new(limit: usize) -> Reference {
        let code = |byte: u8| {
            // Eight of one code are whole bytes.
            let eight = bits(&encode(&[byte; 8]));
            (eight[..eight.len() / 8].to_vec(), byte)
        };
        Reference { entries: vec![], size_max: 4096, limit, codes: (0..=255).map(code).collect() }
    }

    /// The fields of a block; `None` when it is malformed.
    pub(super) fn decode(&mut self, block: &[u8]) -> Option<Vec<Owned>> {
        let mut input = block.to_vec();
        input.reverse();
        let mut fields = Vec::new();
        let mut updates = 0;
        while let Some(first) = input.last().copied() {
            if first >= 0x80 {
                let (name, value) = self.entry(integer(&mut input, 7)?)?;
                fields.push((name, value, false));
            } else if first >= 0x40 {
                let (name, value) = self.literal(&mut input, 6)?;
                fields.push((name.clone(), value.clone(), false));
                self.entries.insert(0, (name, value));
                self.evict();
            } else if first >= 0x20 {
                updates += 1;
                self.size_max = integer(&mut input, 5)?;
                if self.size_max > self.limit || updates > 2 || !fields.is_empty() {
                    return None;
                }
                self.evict();
            } else {
                let (name, value) = self.literal(&mut input, 4)?;
                fields.push((name, value, first >= 0x10));
            }
        }
        Some(fields)
    }

    fn evict(&mut self) {
        let size = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + 32;
        while self.entries.iter().map(size).sum::<usize>() > self.size_max {
            self.entries.pop();
        }
    }

    fn entry(&self, index: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        match index {
            0 => None,
            1..=61 => static_table::get(index).map(|line| (line.name().to_vec(), line.value().to_vec())),
            _ => self.entries.get(index - 62).cloned(),
        }
    }

    fn literal(&self, input: &mut Vec<u8>, prefix_bits: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        let name = match integer(input, prefix_bits)? {
            0 => self.text(input)?,
            index => self.entry(index)?.0,
        };
        Some((name, self.text(input)?))
    }

    fn text(&self, input: &mut Vec<u8>) -> Option<Vec<u8>> {
        let is_huffman = input.last()? & 0x80 != 0;
        let length = integer(input, 7)?;
        let mut text = input.split_off(input.len().checked_sub(length)?);
        text.reverse();
        if is_huffman { self.huffman(&text) } else { Some(text) }
    }

    fn huffman(&self, coded: &[u8]) -> Option<Vec<u8>> {
        let (mut text, mut code) = (vec![], vec![]);
        for bit in bits(coded) {
            code.push(bit);
            if let Some(byte) = self.codes.get(&code) {
                text.push(*byte);
                code.clear();
            }
        }
        (code.len() < 8 && code.iter().all(|bit| *bit)).then_some(text)
    }
}

fn integer(input: &mut Vec<u8>, prefix_bits: u32) -> Option<usize> {
    let prefix_max = 2usize.pow(prefix_bits) - 1;
    let mut value = usize::from(input.pop()?) % (prefix_max + 1);
    if value < prefix_max {
        return Some(value);
    }
    for place in 0..5 {
        let byte = input.pop()?;
        value += usize::from(byte % 128) * 128usize.pow(place);
        if byte < 128 {
            return (value < 1 << 32).then_some(value);
        }
    }
    None
}
