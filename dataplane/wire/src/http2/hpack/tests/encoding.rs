//! Which form the encoder chooses, and what it keeps.

use std::collections::BTreeMap;
use std::format;
use std::vec::Vec;

use super::super::{Decoder, Encoder, Indexing};
use super::{Random, assert_same_tables, decode, owned};
use crate::http2::field::hash;

fn encode(encoder: &mut Encoder, name: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.field(name.as_bytes(), value.as_bytes(), 0, Indexing::Allowed, &mut out);
    out
}

#[test]
fn a_field_is_spelled_then_indexed_then_an_index() {
    let mut encoder = Encoder::new(4096);
    let cases: &[(&str, &str, &[u8])] = &[
        ("x-a", "b", b"\x00\x03x-a\x01b"),
        ("x-a", "b", b"\x40\x03x-a\x01b"),
        ("x-a", "b", b"\xbe"),
        ("X-A", "b", b"\xbe"),
        ("x-a", "B", b"\x0f\x2f\x01B"),
        ("x-a", "B", b"\x7e\x01B"),
        ("x-a", "B", b"\xbe"),
        ("x-a", "b", b"\xbf"),
        // Large letters go out small, and are the same name.
        ("X-B", "Value", b"\x00\x03x-b\x05Value"),
        ("x-b", "Value", b"\x40\x03x-b\x05Value"),
        ("X-b", "Value", b"\xbe"),
        // The static table.
        ("accept-encoding", "gzip, deflate", b"\x90"),
        ("Accept-Encoding", "gzip, deflate", b"\x90"),
        ("accept-encoding", "gzip", b"\x0f\x01\x04gzip"),
        ("accept-encoding", "gzip", b"\x50\x04gzip"),
        ("etag", "", b"\xa2"),
        ("ETag", "1", b"\x0f\x13\x011"),
        (":method", "GET", b"\x82"),
        (":method", "PUT", b"\x02\x03PUT"),
        (":method", "PUT", b"\x42\x03PUT"),
        (":method", "PUT", b"\xbe"),
        (":path", "/", b"\x84"),
        (":path", "/index.html", b"\x85"),
        (":scheme", "https", b"\x87"),
        (":status", "204", b"\x89"),
        (":protocol", "websocket", b"\x00\x09:protocol\x09websocket"),
    ];
    let mut decoder = Decoder::new(4096);
    for (name, value, expected) in cases {
        let block = encode(&mut encoder, name, value);
        assert_eq!(block, *expected, "{name}: {value}");
        let expected = owned(name.to_ascii_lowercase().as_bytes(), value.as_bytes(), false);
        assert_eq!(decode(&mut decoder, &block, 4096).unwrap().0, [expected]);
        assert_same_tables(&encoder, &decoder);
    }
}

#[test]
fn the_short_ways_say_the_same() {
    type Way = fn(&mut Encoder, &mut Vec<u8>);
    let cases: &[(Way, &str, &str)] = &[
        (|encoder, out| encoder.method(b"GET", out), ":method", "GET"),
        (|encoder, out| encoder.method(b"FOO", out), ":method", "FOO"),
        (|encoder, out| encoder.scheme(b"http", out), ":scheme", "http"),
        (|encoder, out| encoder.authority(b"a.example", out), ":authority", "a.example"),
        (|encoder, out| encoder.path(b"/a?b", out), ":path", "/a?b"),
        (|encoder, out| encoder.protocol(b"websocket", out), ":protocol", "websocket"),
        (|encoder, out| encoder.status(200, out), ":status", "200"),
        (|encoder, out| encoder.status(307, out), ":status", "307"),
        (|encoder, out| encoder.status(999, out), ":status", "999"),
    ];
    for (way, name, value) in cases {
        let mut encoder = Encoder::new(4096);
        let mut decoder = Decoder::new(4096);
        for _ in 0..3 {
            let mut block = Vec::new();
            way(&mut encoder, &mut block);
            let fields = decode(&mut decoder, &block, 4096).unwrap().0;
            assert_eq!(fields, [owned(name.as_bytes(), value.as_bytes(), false)]);
        }
    }
}

#[test]
fn what_never_comes_twice_is_never_indexed() {
    let mut encoder = Encoder::new(4096);
    let mut out = Vec::new();
    for n in 0..100_000 {
        encoder.field(b"x-request-id", format!("{n:032x}").as_bytes(), 0, Indexing::Allowed, &mut out);
        out.clear();
    }
    assert_eq!(encoder.table().capacities(), (0, 0));
}

#[test]
fn what_comes_with_every_request_is_an_index_soon_and_stays_one() {
    // As many as the table holds: some of them share their places in every index.
    for fields_count in [5, 25, 60] {
        let mut encoder = Encoder::new(4096);
        for request in 0..3_000 {
            let mut out = Vec::new();
            for n in 0..fields_count {
                let (name, value) = (format!("x-field-{n}"), format!("value {n}"));
                encoder.field(name.as_bytes(), value.as_bytes(), 0, Indexing::Allowed, &mut out);
            }
            // Few find room at once; of many, some push out others for a while.
            if request >= if fields_count < 30 { 2 } else { 50 } {
                assert_eq!(out.len(), fields_count, "request {request}: {out:x?}");
            }
            for n in 0..5 {
                let value = format!("{}", request * 5 + n);
                encoder.field(b"x-request-id", value.as_bytes(), 0, Indexing::Allowed, &mut out);
            }
        }
        assert_eq!(encoder.table().len(), fields_count);
    }
}

#[test]
fn a_name_is_an_index_as_long_as_its_last_entry_is_there() {
    let mut encoder = Encoder::new(4096);
    for name in ["x-a", "x-b", "x-c", "x-b"] {
        encode(&mut encoder, name, "1");
        encode(&mut encoder, name, "1");
    }
    assert_eq!(encode(&mut encoder, "x-a", "2"), b"\x0f\x31\x012");
    assert_eq!(encode(&mut encoder, "x-b", "2"), b"\x0f\x30\x012");
    assert_eq!(encode(&mut encoder, "x-c", "2"), b"\x0f\x2f\x012");
    encoder.set_peer_table_size(72);
    encoder.begin(&mut Vec::new());
    assert_eq!(encode(&mut encoder, "x-a", "3"), b"\x00\x03x-a\x013");
    assert_eq!(encode(&mut encoder, "x-b", "3"), b"\x0f\x30\x013");
}

#[test]
fn fields_that_share_a_hash_are_told_apart() {
    let value = |n: u32| format!("{n}");
    let mut known = BTreeMap::new();
    // By chance about two pairs among 131,072 collide in 32 bits.
    let pair =
        (0..1 << 20).find_map(|n| known.insert(hash(b"x", value(n).as_bytes()), n).map(|other| (other, n)));
    let (one, other) = pair.unwrap();
    let mut encoder = Encoder::new(4096);
    let mut decoder = Decoder::new(4096);
    for n in [one, one, other, one, other] {
        let block = encode(&mut encoder, "x", &value(n));
        assert_eq!(decode(&mut decoder, &block, 4096).unwrap().0, [owned(b"x", value(n).as_bytes(), false)]);
    }
    assert_eq!(encode(&mut encoder, "x", &value(one)), b"\xbf");
}

#[test]
fn texts_of_any_length_are_read_back() {
    for length in (0..300).chain(16_500..16_520).chain([70_000, 2_097_278, 2_097_279, 2_097_280]) {
        let value = "v".repeat(length);
        let block = encode(&mut Encoder::new(4096), "x", &value);
        let fields = decode(&mut Decoder::new(4096), &block, usize::MAX).unwrap().0;
        assert!(fields == [owned(b"x", value.as_bytes(), false)], "{length}");
    }
}

#[test]
fn what_is_sensitive_is_never_indexed_and_says_so() {
    let mut encoder = Encoder::new(4096);
    let mut decoder = Decoder::new(4096);
    for expected in [&b"\x10\x03x-a\x01b"[..]; 4] {
        let mut block = Vec::new();
        encoder.field(b"x-a", b"b", 0, Indexing::Never, &mut block);
        assert_eq!(block, expected);
        assert_eq!(decode(&mut decoder, &block, 4096).unwrap().0, [owned(b"x-a", b"b", true)]);
    }
    // It leaves no trace: the first that is not sensitive is the first. Nor does it use what others left.
    assert_eq!(encode(&mut encoder, "x-a", "b"), b"\x00\x03x-a\x01b");
    assert_eq!(encode(&mut encoder, "x-a", "b"), b"\x40\x03x-a\x01b");
    let mut block = Vec::new();
    encoder.field(b"x-a", b"b", hash(b"x-a", b"b"), Indexing::Never, &mut block);
    encoder.field(b"authorization", b"b", 0, Indexing::Never, &mut block);
    encoder.field(b":method", b"GET", 0, Indexing::Never, &mut block);
    assert_eq!(block, b"\x1f\x2f\x01b\x1f\x08\x01b\x12\x03GET");
}

#[test]
fn a_field_that_would_fill_the_table_stays_out() {
    let mut encoder = Encoder::new(4096);
    for (length, is_kept) in [(3072 - 32 - 3, true), (3072 - 32 - 2, false), (5000, false)] {
        let value = "v".repeat(length);
        let first = [0, 1, 2].map(|_| encode(&mut encoder, "x-a", &value).len());
        assert_eq!(first[2] == 1, is_kept, "{length}");
    }
}

#[test]
fn size_updates_go_out_at_the_start_of_the_next_block() {
    let begin = |encoder: &mut Encoder| {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        out
    };
    // Ours, what the peer's settings were, and what the next block begins with.
    let cases: &[(u32, &[u32], &[u8])] = &[
        (4096, &[], b""),
        (4096, &[4096], b""),
        (4096, &[65_536], b""),
        (4096, &[u32::MAX], b""),
        (4096, &[0], b"\x20"),
        (4096, &[30], b"\x3e"),
        (4096, &[31], b"\x3f\x00"),
        (4096, &[256], b"\x3f\xe1\x01"),
        (4096, &[0, 4096], b"\x20\x3f\xe1\x1f"),
        (4096, &[256, 0, 512, 256], b"\x20\x3f\xe1\x01"),
        (4096, &[512, 256], b"\x3f\xe1\x01"),
        // More than the starting size is used only after the peer allowed it.
        (8192, &[], b""),
        (8192, &[8192], b"\x3f\xe1\x3f"),
        (8192, &[65_536], b"\x3f\xe1\x3f"),
        (8192, &[8192, 4096], b""),
        // We are not willing to keep the starting size.
        (0, &[], b"\x20"),
        (0, &[4096], b"\x20"),
        (256, &[0], b"\x20"),
        (256, &[0, 4096], b"\x20\x3f\xe1\x01"),
        (u32::MAX, &[u32::MAX], b"\x3f\xe1\xff\x3f"),
    ];
    for (ours, theirs, expected) in cases {
        let mut encoder = Encoder::new(*ours);
        theirs.iter().for_each(|bytes| encoder.set_peer_table_size(*bytes));
        assert_eq!(begin(&mut encoder), *expected, "{ours} {theirs:?}");
        assert_eq!(begin(&mut encoder), b"", "{ours} {theirs:?}: once");
    }
    // Later ones count from where the block before left it.
    let mut encoder = Encoder::new(4096);
    encoder.set_peer_table_size(0);
    assert_eq!(begin(&mut encoder), b"\x20");
    encoder.set_peer_table_size(4096);
    assert_eq!(begin(&mut encoder), b"\x3f\xe1\x1f");
}

#[test]
fn a_table_of_no_size_indexes_nothing() {
    let mut encoder = Encoder::new(4096);
    encoder.set_peer_table_size(0);
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for _ in 0..4 {
        assert_eq!(encode(&mut encoder, "a", "b"), b"\x00\x01a\x01b");
    }
    assert_eq!(encoder.table().capacities(), (0, 0));
}

#[test]
fn a_warm_encoder_allocates_nothing() {
    let mut random = Random::new(5);
    let mut encoder = Encoder::new(4096);
    let mut out = Vec::with_capacity(64 * 1024);
    let mut capacities = (0, 0);
    for round in 0..4_000 {
        out.clear();
        for _ in 0..random.below(30) {
            let (name, value) = (random.below(20), random.below(20));
            encoder.field(
                format!("x-name-{name}").as_bytes(),
                format!("{value:0>40}").as_bytes(),
                0,
                Indexing::Allowed,
                &mut out,
            );
        }
        if round == 1_000 {
            capacities = encoder.table().capacities();
        }
    }
    assert!(encoder.table().len() > 20);
    assert_eq!(encoder.table().capacities(), capacities);
    assert_eq!(encoder.index_slots(), 128);
    assert!(capacities.0 <= 2 * 4096 + 100 && capacities.1 <= 128, "{capacities:?}");
}
