//! The examples of RFC 7541, appendix C.

use std::{string::String, vec, vec::Vec};

use super::super::decode::integer;
use super::super::{Decoder, Encoder, Indexing};
use super::{assert_same_tables, decode, owned};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A block, what it holds as `name: value` lines, and the table behind it with its size.
type Example = (&'static str, &'static str, &'static str, usize);

fn check(start: &str, examples: &[Example]) {
    let mut decoder = Decoder::new(4096);
    decode(&mut decoder, &bytes(start), 0).unwrap();
    for (block, text, table, size) in examples {
        let (fields, decoded) = decode(&mut decoder, &bytes(block), 4096).unwrap();
        let lines: Vec<String> = fields
            .iter()
            .map(|(name, value, _)| [&name[..], b": ", value].concat())
            .map(|line| String::from_utf8(line).unwrap())
            .collect();
        assert_eq!(lines, text.lines().map(str::trim).collect::<Vec<_>>(), "{block}");
        let sum: usize = fields.iter().map(|(name, value, _)| name.len() + value.len() + 32).sum();
        assert_eq!((decoded.size, decoded.is_too_large), (sum, false));
        let entries: Vec<String> = (0..decoder.table().len())
            .map(|age| String::from_utf8(decoder.table().get(age).unwrap().line.to_vec()).unwrap())
            .collect();
        let expected: Vec<String> = table.lines().map(|line| String::from(line.trim()) + "\r\n").collect();
        assert_eq!(entries, expected, "{block}");
        assert_eq!(decoder.table().size(), *size, "{block}");
    }
}

#[test]
fn c1_integers() {
    for (hex, prefix_bits, value) in [("0a", 5, 10), ("ea", 5, 10), ("1f9a0a", 5, 1337), ("2a", 8, 42)] {
        let input = bytes(hex);
        let mut rest = &input[..];
        assert_eq!(integer(&mut rest, prefix_bits), Ok(value));
        assert!(rest.is_empty());
    }
}

#[test]
fn c2_forms_of_fields() {
    check(
        "",
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key: custom-header",
            "custom-key: custom-header",
            55,
        )],
    );
    check("", &[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", "", 0)]);
    let sensitive = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    let mut decoder = Decoder::new(4096);
    let (fields, _) = decode(&mut decoder, &sensitive, 4096).unwrap();
    assert_eq!((fields, decoder.table().len()), (vec![owned(b"password", b"secret", true)], 0));
    check("", &[("82", ":method: GET", "", 0)]);
}

const REQUESTS: [(&str, &str, usize); 3] = [
    (
        ":method: GET
         :scheme: http
         :path: /
         :authority: www.example.com",
        ":authority: www.example.com",
        57,
    ),
    (
        ":method: GET
         :scheme: http
         :path: /
         :authority: www.example.com
         cache-control: no-cache",
        "cache-control: no-cache
         :authority: www.example.com",
        110,
    ),
    (
        ":method: GET
         :scheme: https
         :path: /index.html
         :authority: www.example.com
         custom-key: custom-value",
        "custom-key: custom-value
         cache-control: no-cache
         :authority: www.example.com",
        164,
    ),
];

const RESPONSES: [(&str, &str, usize); 3] = [
    (
        ":status: 302
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:21 GMT
         location: https://www.example.com",
        "location: https://www.example.com
         date: Mon, 21 Oct 2013 20:13:21 GMT
         cache-control: private
         :status: 302",
        222,
    ),
    (
        ":status: 307
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:21 GMT
         location: https://www.example.com",
        ":status: 307
         location: https://www.example.com
         date: Mon, 21 Oct 2013 20:13:21 GMT
         cache-control: private",
        222,
    ),
    (
        ":status: 200
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:22 GMT
         location: https://www.example.com
         content-encoding: gzip
         set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1
         content-encoding: gzip
         date: Mon, 21 Oct 2013 20:13:22 GMT",
        215,
    ),
];

fn with(blocks: [&'static str; 3], texts: [(&'static str, &'static str, usize); 3]) -> Vec<Example> {
    blocks.into_iter().zip(texts).map(|(block, (text, table, size))| (block, text, table, size)).collect()
}

#[test]
fn c3_requests() {
    let blocks = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    check("", &with(blocks, REQUESTS));
}

#[test]
fn c4_requests_with_huffman() {
    let blocks = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    check("", &with(blocks, REQUESTS));
}

/// The examples have tables of 256 bytes: an update to that size.
const SIZE_256: &str = "3fe1 01";

#[test]
fn c5_responses() {
    let blocks = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
         6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
         3d31",
    ];
    check(SIZE_256, &with(blocks, RESPONSES));
}

#[test]
fn c6_responses_with_huffman() {
    let blocks = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    check(SIZE_256, &with(blocks, RESPONSES));
}

#[test]
fn what_the_examples_say_comes_back_from_our_encoder() {
    for (texts, size) in [(REQUESTS, 4096), (RESPONSES, 256)] {
        let mut encoder = Encoder::new(4096);
        encoder.set_peer_table_size(size);
        let mut decoder = Decoder::new(4096);
        // More than twice, so that they come by every form.
        for (text, _, _) in [texts, texts, texts, texts].concat() {
            let expected: Vec<_> = text
                .lines()
                .map(str::trim)
                .map(|line| line.split_at(line[1..].find(':').unwrap() + 1))
                .map(|(name, value)| owned(name.as_bytes(), &value.as_bytes()[2..], false))
                .collect();
            let mut block = Vec::new();
            encoder.begin(&mut block);
            for (name, value, _) in &expected {
                encoder.field(name, value, 0, Indexing::Allowed, &mut block);
            }
            assert_eq!(decode(&mut decoder, &block, 4096).unwrap().0, expected);
            assert_same_tables(&encoder, &decoder);
        }
    }
}
