//! What the decoder refuses, and what it does with blocks that stand for more than they are.

use std::{vec, vec::Vec};

use super::super::{DecodeError, Decoder, Encoder, Indexing};
use super::{Random, decode, owned};

/// An entry whose name takes up the whole table of 4096 bytes.
fn long_name() -> Vec<u8> {
    let mut block = vec![0x40, 0x7f, 0xe1, 0x1e];
    block.extend_from_slice(&[b'n'; 4064]);
    block.push(0);
    block
}

#[test]
fn malformed_blocks_are_refused_by_cause() {
    let cases: &[(&[u8], DecodeError)] = &[
        (&[0x80], DecodeError::Index),
        (&[0xbe], DecodeError::Index),
        (&[0xff, 0x80, 0x01], DecodeError::Index),
        (&[0x7e, 0], DecodeError::Index),
        (&[0x0f, 0x2f, 0], DecodeError::Index),
        (&[0x1f, 0x2f, 0], DecodeError::Index),
        // 2^32 - 1 is an integer, 2^32 is none; zeros at the end are, up to five bytes.
        (&[0xff, 0x80, 0xff, 0xff, 0xff, 0x0f], DecodeError::Index),
        (&[0xff, 0x81, 0xff, 0xff, 0xff, 0x0f], DecodeError::Integer),
        (&[0xff, 0x80, 0x80, 0x80, 0x80, 0x00], DecodeError::Index),
        (&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], DecodeError::Integer),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], DecodeError::Integer),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], DecodeError::Integer),
        (&[0x00, 0x7f, 0x81, 0xff, 0xff, 0xff, 0x0f], DecodeError::Integer),
        (&[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f], DecodeError::Integer),
        (&[0xff], DecodeError::Truncated),
        (&[0xff, 0x80], DecodeError::Truncated),
        (&[0x40], DecodeError::Truncated),
        (&[0x40, 1], DecodeError::Truncated),
        (&[0x40, 1, b'a'], DecodeError::Truncated),
        (&[0x40, 1, b'a', 1], DecodeError::Truncated),
        (&[0x40, 0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f, b'a'], DecodeError::Truncated),
        (&[0x44], DecodeError::Truncated),
        (&[0x04, 2, b'/'], DecodeError::Truncated),
        (&[0x3f], DecodeError::Truncated),
        (&[0x04, 0x81, 0xff], DecodeError::Huffman),
        (&[0x04, 0x82, 0x07, 0xff], DecodeError::Huffman),
        (&[0x04, 0x81, 0x06], DecodeError::Huffman),
        (&[0x00, 0x81, 0x06, 0], DecodeError::Huffman),
        (&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff], DecodeError::Huffman),
        (&[0x3f, 0xe2, 0x1f], DecodeError::SizeUpdateTooLarge),
        (&[0x20, 0x3f, 0xe2, 0x1f], DecodeError::SizeUpdateTooLarge),
        (&[0x20, 0x20, 0x20], DecodeError::SizeUpdates),
        (&[0x82, 0x20], DecodeError::SizeUpdateLate),
        (&[0x20, 0x82, 0x3f, 0xe1, 0x1f], DecodeError::SizeUpdateLate),
        (&[0x20; 1_000_000], DecodeError::SizeUpdates),
    ];
    for (block, error) in cases {
        let head = &block[..block.len().min(12)];
        assert_eq!(decode(&mut Decoder::new(4096), block, 4096).map(|_| ()), Err(*error), "{head:x?}");
        // The same behind fields, and with a bound that has been exceeded.
        if !block.starts_with(&[0x20]) && !block.starts_with(&[0x3f]) {
            let behind = [&[0x82, 0x84, 0x04, 1, b'x'], *block].concat();
            for bytes_max in [4096, 0] {
                let answer = decode(&mut Decoder::new(4096), &behind, bytes_max);
                assert_eq!(answer.map(|_| ()), Err(*error), "{head:x?} behind others, {bytes_max}");
            }
        }
    }
    for good in
        [&[][..], &[0x20], &[0x20, 0x3f, 0xe1, 0x1f], &[0x20, 0x20, 0x82], &[0x04, 0x80], &[0x04, 0x81, 0x07]]
    {
        assert!(decode(&mut Decoder::new(4096), good, 4096).is_ok(), "{good:x?}");
    }
}

#[test]
fn a_block_is_not_whole_until_its_last_byte() {
    let block = [
        &[0x82, 0x87, 0x41, 0x8c][..],
        &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
        &[0x40, 3, b'a', b'-', b'b', 2, b'c', b'd', 0x10, 1, b'e', 0],
    ]
    .concat();
    let whole = decode(&mut Decoder::new(4096), &block, 4096).unwrap().0;
    for cut in 0..block.len() {
        match decode(&mut Decoder::new(4096), &block[..cut], 4096) {
            Ok((fields, _)) => {
                assert!(whole.starts_with(&fields) && fields.len() < whole.len(), "cut at {cut}")
            }
            Err(error) => assert_eq!(error, DecodeError::Truncated, "cut at {cut}"),
        }
    }
}

#[test]
fn the_table_is_of_the_size_the_peer_may_rely_on() {
    for (announced, is) in [(0, 4096), (4096, 4096), (8192, 8192), (u32::MAX, 1024 * 1024)] {
        let decoder = Decoder::new(announced);
        assert_eq!(decoder.table_bytes_max(), is);
        // Before it has seen our settings, and said so by an update, its table has the starting size.
        assert_eq!(decoder.table().size_max(), 4096);
    }
    let update = [0x3f, 0xe1, 0x3f];
    assert!(decode(&mut Decoder::new(8192), &update, 0).is_ok());
    assert_eq!(decode(&mut Decoder::new(8191), &update, 0), Err(DecodeError::SizeUpdateTooLarge));
}

#[test]
fn fields_beyond_the_bound_are_not_handed_out_but_kept_in_the_table() {
    // 33 + 34 + 35 as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
    let block = [0x40, 1, b'a', 0, 0x40, 1, b'b', 1, b'1', 0x40, 1, b'c', 2, b'1', b'2'];
    let all = [owned(b"a", b"", false), owned(b"b", b"1", false), owned(b"c", b"12", false)];
    for (bytes_max, count) in
        [(0, 0), (32, 0), (33, 1), (66, 1), (67, 2), (101, 2), (102, 3), (usize::MAX, 3)]
    {
        let mut decoder = Decoder::new(4096);
        let (fields, decoded) = decode(&mut decoder, &block, bytes_max).unwrap();
        assert_eq!(fields, all[..count], "{bytes_max}");
        assert_eq!((decoded.size, decoded.is_too_large), (102, count < 3), "{bytes_max}");
        assert_eq!(decode(&mut decoder, &[0xc0, 0xbf, 0xbe], 4096).unwrap().0, all);
    }
    // Nothing is handed out behind the first that was not, even if it would fit.
    let mut decoder = Decoder::new(4096);
    let (fields, decoded) = decode(&mut decoder, &[0x82, 0x04, 3, b'a', b'b', b'c', 0x82], 80).unwrap();
    assert_eq!((fields.len(), decoded.size, decoded.is_too_large), (1, 42 + 40 + 42, true));
}

#[test]
fn a_bomb_of_indexes_is_counted_and_not_unpacked() {
    let mut decoder = Decoder::new(4096);
    decode(&mut decoder, &long_name(), 4096).unwrap();
    let mut bytes = 0;
    let decoded = decoder.decode(&[0xbe; 16_384], 65_536, &mut |field| bytes += field.line().len()).unwrap();
    assert_eq!((decoded.size, decoded.is_too_large), (16_384 * 4096, true));
    assert_eq!(bytes, 16 * 4068);
    assert!(decoder.table().capacities().0 < 20_000);
    // The connection goes on.
    assert_eq!(decode(&mut decoder, &[0xbe], 4096).unwrap().0.len(), 1);
}

#[test]
fn a_bomb_of_names_is_counted_or_refused() {
    // Without indexing: the names are not looked at again.
    for form in [0x0f, 0x1f] {
        let mut decoder = Decoder::new(4096);
        decode(&mut decoder, &long_name(), 4096).unwrap();
        let mut bytes = 0;
        let block = [form, 0x2f, 1, b'v'].repeat(16_384);
        let decoded = decoder.decode(&block, 65_536, &mut |field| bytes += field.line().len()).unwrap();
        assert_eq!((decoded.size, decoded.is_too_large), (16_384 * 4097, true));
        assert_eq!(bytes, 15 * 4069);
        assert_eq!(decode(&mut decoder, &[0xbe], 4096).unwrap().0.len(), 1);
    }
    // With indexing every one would have to be copied into the table.
    let mut decoder = Decoder::new(4096);
    decode(&mut decoder, &long_name(), 4096).unwrap();
    assert_eq!(decode(&mut decoder, &[0x7e, 0].repeat(16_384), 65_536), Err(DecodeError::Expansion));
}

#[test]
fn fields_as_they_are_sent_never_count_as_a_bomb() {
    // Beyond any bound, with the longest names that are known, each with a value of one byte.
    let mut encoder = Encoder::new(4096);
    let mut decoder = Decoder::new(4096);
    let mut block = Vec::new();
    encoder.begin(&mut block);
    for n in 0..40_000u32 {
        let value = [b'0' + (n / 2 % 10) as u8];
        encoder.field(b"access-control-allow-credentials-and-more", &value, 0, Indexing::Allowed, &mut block);
        encoder.field(b"strict-transport-security", &value, 0, Indexing::Allowed, &mut block);
    }
    assert!(decode(&mut decoder, &block, 0).unwrap().1.is_too_large);
    // The longest name of the static table, with no value, indexed each time.
    assert!(decode(&mut decoder, &[0x54, 0].repeat(40_000), 0).unwrap().1.is_too_large);
}

#[test]
fn a_warm_decoder_allocates_nothing() {
    let mut random = Random::new(3);
    let mut decoder = Decoder::new(4096);
    assert_eq!(decoder.table().capacities(), (0, 0));
    let mut capacities = (0, 0);
    for round in 0..4_000 {
        let mut block = Vec::new();
        for _ in 0..random.below(30) {
            block.push([0x40, 0x00, 0x10][random.below(3)]);
            for max in [20, 100] {
                let text =
                    super::super::huffman::encode(&vec![b'a' + random.below(26) as u8; random.below(max)]);
                block.push(0x80 | text.len() as u8);
                block.extend_from_slice(&text);
            }
        }
        decoder.decode(&block, 65_536, &mut |_| {}).unwrap();
        if round == 1_000 {
            capacities = decoder.table().capacities();
        }
    }
    assert_eq!(decoder.table().capacities(), capacities);
    assert!(capacities.0 <= 2 * 4096 + 200 && capacities.1 <= 128, "{capacities:?}");
}

#[test]
fn the_memory_of_a_long_field_is_given_back_when_its_block_ends() {
    let mut decoder = Decoder::new(4096);
    let mut encoder = Encoder::new(4096);
    let mut block = Vec::new();
    encoder.field(b"x", &[b'v'; 100_000], 0, Indexing::Allowed, &mut block);
    for _ in 0..3 {
        decoder.decode(&block, 200_000, &mut |field| assert_eq!(field.value().len(), 100_000)).unwrap();
        assert!(decoder.table().capacities().0 <= 8192);
    }
}
