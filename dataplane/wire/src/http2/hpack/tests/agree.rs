//! Encoder, decoder and reference agree on anything; seeded, so that what fails fails again.

use std::collections::BTreeMap;
use std::{format, vec, vec::Vec};

use super::super::huffman::encode;
use super::super::{DecodeError, Decoder, Encoder, Indexing};
use super::reference::Reference;
use super::{Owned, Random, assert_same_tables, decode, owned};
use crate::http2::field::hash;

const NAMES: &[&str] = &[
    ":method",
    ":path",
    ":authority",
    ":status",
    ":protocol",
    "Accept",
    "accept-encoding",
    "cookie",
    "X-Request-Id",
    "x-request-id",
    "date",
    "x-forwarded-for",
    "x",
    "",
];

fn some_field(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let name = match random.below(10) {
        0 => format!("x-made-up-{}", random.below(100)).into_bytes(),
        1 => {
            let count = random.below(40);
            random.bytes(count)
        }
        _ => NAMES[random.below(NAMES.len())].as_bytes().to_vec(),
    };
    let value = match random.below(20) {
        0 => vec![],
        1 => b"GET".to_vec(),
        2 => b"200".to_vec(),
        3 => {
            let count = random.below(150);
            random.bytes(count)
        }
        4 if random.below(4) == 0 => vec![b'z'; random.below(9000)],
        5..10 => format!("{:032x}", random.below(usize::MAX)).into_bytes(),
        _ => format!("a value that comes again {}", random.below(4)).into_bytes(),
    };
    (name, value)
}

fn entries(decoder: &Decoder) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entry = |age| decoder.table().get(age).map(|line| (line.name().to_vec(), line.value().to_vec()));
    (0..).map_while(entry).collect()
}

#[test]
fn what_the_encoder_writes_the_decoder_reads() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let ours = [4096, 8192, 256, 0, 1 << 20][seed as usize % 5];
        let mut encoder = Encoder::new(ours);
        let mut decoder = Decoder::new(16_384);
        let mut reference = Reference::new(16_384);
        let (mut fields_count, mut indexes_count) = (0, 0);
        while fields_count < 15_000 {
            for _ in 0..random.below(4) {
                if random.below(8) == 0 {
                    encoder.set_peer_table_size([0, 40, 100, 1000, 4096, 9000, 16_384][random.below(7)]);
                }
            }
            let mut block = Vec::new();
            encoder.begin(&mut block);
            let mut expected: Vec<Owned> = Vec::new();
            for _ in 0..random.below(40) {
                let (name, value) = some_field(&mut random);
                let is_sensitive = random.below(20) == 0;
                let known = if random.below(2) == 0 { hash(&name, &value) } else { 0 };
                let indexing = if is_sensitive { Indexing::Never } else { Indexing::Allowed };
                let before = block.len();
                encoder.field(&name, &value, known, indexing, &mut block);
                indexes_count += usize::from(block.len() - before <= 2);
                expected.push(owned(&name.to_ascii_lowercase(), &value, is_sensitive));
            }
            let (fields, decoded) = decode(&mut decoder, &block, usize::MAX).unwrap();
            assert_eq!(fields, expected, "seed {seed}");
            assert!(!decoded.is_too_large);
            assert_eq!(reference.decode(&block).as_ref(), Some(&expected), "seed {seed}");
            assert_same_tables(&encoder, &decoder);
            assert_eq!(entries(&decoder), reference.entries, "seed {seed}");
            fields_count += expected.len();
        }
        assert!(ours < 4096 || indexes_count > fields_count / 10, "seed {seed}: {indexes_count} indexes");
    }
}

/// A block as no sane encoder writes it; mostly well-formed.
fn wild_block(random: &mut Random, entries_count: usize) -> Vec<u8> {
    fn integer(bits: u8, prefix_bits: u32, value: usize, random: &mut Random, block: &mut Vec<u8>) {
        let prefix_max = (1 << prefix_bits) - 1;
        if value < prefix_max {
            return block.push(bits | value as u8);
        }
        block.push(bits | prefix_max as u8);
        let mut rest = value - prefix_max;
        while rest >= 128 {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        // Needless zeros at the end; too many of them.
        if random.below(1000) == 0 {
            block.extend_from_slice(&[rest as u8 | 0x80, 0x80, 0x80, 0x80, 0x80, 0]);
        } else if random.below(10) == 0 {
            block.extend_from_slice(&[rest as u8 | 0x80, 0x80, 0]);
        } else {
            block.push(rest as u8);
        }
    }
    fn text(text: &[u8], random: &mut Random, block: &mut Vec<u8>) {
        let (bits, coded) = if random.below(2) == 0 { (0x80, encode(text)) } else { (0, text.to_vec()) };
        integer(bits, 7, coded.len(), random, block);
        block.extend_from_slice(&coded);
    }
    let mut block = Vec::new();
    for _ in 0..random.below(40).saturating_sub(36) {
        integer(0x20, 5, [0, 64, 200, 1000, 4096, 4096, 4096, 5000][random.below(8)], random, &mut block);
    }
    for _ in 0..random.below(20) {
        // Entries may go while the block is read: the youngest third is there mostly.
        let end = if random.below(400) == 0 { 200 } else { 61 + entries_count / 3 };
        let index = 1 + random.below(end);
        let (bits, prefix_bits) =
            [(0x80, 7), (0x80, 7), (0x40, 6), (0x40, 6), (0, 4), (0x10, 4)][random.below(6)];
        let (name, value) = some_field(random);
        if bits == 0x80 {
            integer(bits, prefix_bits, index, random, &mut block);
        } else {
            let is_spelled = random.below(2) == 0;
            integer(bits, prefix_bits, if is_spelled { 0 } else { index }, random, &mut block);
            if is_spelled {
                text(&name, random, &mut block);
            }
            text(&value, random, &mut block);
        }
    }
    if random.below(30) == 0 && !block.is_empty() {
        let at = random.below(block.len());
        block[at] ^= 1 << random.below(8);
    }
    block
}

#[test]
fn decoder_and_reference_agree_on_any_block() {
    let mut errors: BTreeMap<std::string::String, usize> = BTreeMap::new();
    let mut good = 0;
    let fresh = Reference::new(4096);
    for seed in 0..200 {
        let mut random = Random::new(1000 + seed);
        let mut decoder = Decoder::new(4096);
        let mut reference = fresh.clone();
        loop {
            let entries_count = decoder.table().len();
            let block = if random.below(50) == 0 {
                let count = random.below(30);
                random.bytes(count)
            } else {
                wild_block(&mut random, entries_count)
            };
            let expected = reference.decode(&block);
            let size = |fields: &Vec<Owned>| {
                fields.iter().map(|(name, value, _)| name.len() + value.len() + 32).sum()
            };
            // Bounds make no difference to what is kept, nor to what is refused.
            let bytes_max = if random.below(2) == 0 { usize::MAX } else { random.below(3000) };
            match decode(&mut decoder, &block, bytes_max) {
                Ok((fields, decoded)) => {
                    let expected = expected.unwrap();
                    assert_eq!(decoded.size, size(&expected));
                    assert_eq!(decoded.is_too_large, decoded.size > bytes_max);
                    let mut sum = 0;
                    let fits = |(name, value, _): &&Owned| {
                        sum += name.len() + value.len() + 32;
                        sum <= bytes_max
                    };
                    assert_eq!(fields, expected.iter().take_while(fits).cloned().collect::<Vec<_>>());
                    assert_eq!(entries(&decoder), reference.entries);
                    good += 1;
                }
                Err(error) => {
                    assert_ne!(error, DecodeError::Expansion);
                    assert_eq!(expected, None, "seed {seed}: {error}");
                    *errors.entry(format!("{error:?}")).or_default() += 1;
                    break;
                }
            }
        }
    }
    // The generator finds all of them, and does not end at the first block.
    assert!(good > 1_000, "{good}");
    assert_eq!(errors.len(), 7, "{errors:?}");
}
