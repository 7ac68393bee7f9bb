//! Huffman strings to text (RFC 7541 §5.2, appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and shorter ones come before
//! longer ones. So the lengths are the whole of it, and the tables are made of them when this is compiled. Most text is found
//! by its next ten bits; what is rarer than that in heads, by comparing the code with the end of each length's range.

use alloc::vec::Vec;

/// Bits of the code of each byte, then of EOS.
const LENGTHS: [u8; SYMBOLS_COUNT] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];
const SYMBOLS_COUNT: usize = 257;
const EOS: u16 = 256;
const LENGTH_MAX: usize = 30;
/// Longest text that a string of some bytes may have is `BITS_MIN` bits a byte.
const BITS_MIN: usize = 5;

/// Bits that are looked up at once: all codes of up to ten bits are letters, digits and the usual marks, all others rare.
const FAST_BITS: u32 = 10;

/// By the next [`FAST_BITS`]: the symbol and, in the high byte, the length of its code; 0 when it is longer.
static FAST: [u16; 1 << FAST_BITS] = {
    let mut fast = [0; 1 << FAST_BITS];
    let mut at = 0;
    let mut place = 0;
    while place < SYMBOLS_COUNT {
        let symbol = RANKED[place];
        let length = LENGTHS[symbol as usize];
        if length as u32 > FAST_BITS {
            break;
        }
        let mut left = 1 << (FAST_BITS - length as u32);
        while left > 0 {
            fast[at] = (length as u16) << 8 | symbol;
            at += 1;
            left -= 1;
        }
        place += 1;
    }
    fast
};

/// The symbols in the order of their codes.
static RANKED: [u16; SYMBOLS_COUNT] = RANGES.0;
/// What the codes of each length have in common.
static LONG: [Range; LENGTH_MAX + 1] = RANGES.1;

#[derive(Clone, Copy)]
struct Range {
    /// One past the last code, moved to the high end of 32 bits. Codes of this length and of shorter ones are below.
    end: u64,
    /// The first code.
    first: u32,
    /// Where the symbol of the first code stands in [`RANKED`].
    place: u32,
}

const RANGES: ([u16; SYMBOLS_COUNT], [Range; LENGTH_MAX + 1]) = {
    let mut ranked = [0; SYMBOLS_COUNT];
    let mut ranges = [Range { end: 0, first: 0, place: 0 }; LENGTH_MAX + 1];
    let mut place = 0;
    let mut code = 0u32;
    let mut length = 1;
    while length <= LENGTH_MAX {
        code <<= 1;
        ranges[length] = Range { end: 0, first: code, place: place as u32 };
        let mut symbol = 0;
        while symbol < SYMBOLS_COUNT {
            if LENGTHS[symbol] as usize == length {
                ranked[place] = symbol as u16;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        ranges[length].end = (code as u64) << (32 - length);
        length += 1;
    }
    (ranked, ranges)
};

/// The code uses up all values of its longest length: whatever the next 32 bits are, they begin with some code.
const _: () = assert!(RANGES.1[LENGTH_MAX].end == 1 << 32);

/// The string is malformed: EOS stands in it, or its padding is longer than 7 bits or not all ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// Most bytes of text in a string of `coded_bytes`.
pub(super) const fn text_bytes_max(coded_bytes: usize) -> usize {
    coded_bytes.saturating_mul(8) / BITS_MIN
}

/// Appends the text of `coded` to `out`.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let start = out.len();
    out.resize(start + text_bytes_max(coded.len()), 0);
    let mut room = out.get_mut(start..).unwrap_or_default().iter_mut();
    // The next bits, from the highest on, and how many there are.
    let (mut bits, mut count) = (0u64, 0u32);
    let (words, rest) = coded.as_chunks::<4>();
    for word in words {
        bits |= u64::from(u32::from_be_bytes(*word)) << (32 - count);
        count += 32;
        while count >= 32 {
            let (symbol, length) = next(bits)?;
            if let Some(byte) = room.next() {
                *byte = symbol;
            }
            bits <<= length;
            count -= length;
        }
    }
    for byte in rest {
        bits |= u64::from(*byte) << (56 - count);
        count += 8;
    }
    // Ones behind the end: what is left when no whole code is, begins a code that is longer.
    bits |= u64::MAX >> count;
    while count > 0 {
        // Padding alone is never taken for EOS here: 7 ones and what follows may be.
        if count < 8 && bits == u64::MAX {
            break;
        }
        let (symbol, length) = next(bits)?;
        if length > count {
            return Err(Malformed);
        }
        if let Some(byte) = room.next() {
            *byte = symbol;
        }
        bits = bits << length | ((1 << length) - 1);
        count -= length;
    }
    let unused = room.len();
    out.truncate(out.len() - unused);
    Ok(())
}

/// The symbol that the highest of `bits` are the code of, and how many they are.
#[inline]
fn next(bits: u64) -> Result<(u8, u32), Malformed> {
    let found = FAST[(bits >> (64 - FAST_BITS)) as usize];
    if found != 0 { Ok((found as u8, u32::from(found >> 8))) } else { next_long(bits) }
}

#[cold]
fn next_long(bits: u64) -> Result<(u8, u32), Malformed> {
    let code = (bits >> 32) as u32;
    let length = LONG.iter().position(|range| u64::from(code) < range.end).ok_or(Malformed)?;
    let range = LONG.get(length).ok_or(Malformed)?;
    let place = (code >> (32 - length)) - range.first + range.place;
    match RANKED.get(place as usize) {
        Some(symbol) if *symbol != EOS => Ok((*symbol as u8, length as u32)),
        _ => Err(Malformed),
    }
}

/// The text as a Huffman string, bit by bit.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    text.iter().for_each(|byte| tests::push_code(u16::from(*byte), &mut bits));
    tests::pack(&bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// The code of a symbol: its place among those of its length, behind the first.
    fn code(symbol: u16) -> (u32, usize) {
        let length = usize::from(LENGTHS[usize::from(symbol)]);
        let place = RANKED.iter().position(|ranked| *ranked == symbol).unwrap() as u32;
        (LONG[length].first + place - LONG[length].place, length)
    }

    pub(super) fn push_code(symbol: u16, bits: &mut Vec<bool>) {
        let (code, length) = code(symbol);
        bits.extend((0..length).rev().map(|at| code >> at & 1 == 1));
    }

    /// Whole bytes, padded with ones.
    pub(super) fn pack(bits: &[bool]) -> Vec<u8> {
        let byte =
            |bits: &[bool]| (0..8).fold(0, |byte, at| byte << 1 | u8::from(*bits.get(at).unwrap_or(&true)));
        bits.chunks(8).map(byte).collect()
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = b"before".to_vec();
        decode(coded, &mut out)?;
        assert!(out.starts_with(b"before"));
        Ok(out.split_off(6))
    }

    #[test]
    fn the_codes_are_those_of_appendix_b() {
        // All lengths that there are, the first and the last code of most, and EOS.
        let cases: &[(u16, u32, usize)] = &[
            (48, 0x0, 5),
            (b't' as u16, 0x9, 5),
            (b' ' as u16, 0x14, 6),
            (b'u' as u16, 0x2d, 6),
            (b':' as u16, 0x5c, 7),
            (b'z' as u16, 0x7b, 7),
            (b'&' as u16, 0xf8, 8),
            (b'Z' as u16, 0xfd, 8),
            (b'!' as u16, 0x3f8, 10),
            (b'?' as u16, 0x3fc, 10),
            (b'\'' as u16, 0x7fa, 11),
            (b'|' as u16, 0x7fc, 11),
            (b'#' as u16, 0xffa, 12),
            (b'>' as u16, 0xffb, 12),
            (0, 0x1ff8, 13),
            (b'~' as u16, 0x1ffd, 13),
            (b'^' as u16, 0x3ffc, 14),
            (b'<' as u16, 0x7ffc, 15),
            (b'{' as u16, 0x7ffe, 15),
            (b'\\' as u16, 0x7fff0, 19),
            (208, 0x7fff2, 19),
            (128, 0xfffe6, 20),
            (153, 0x1fffdc, 21),
            (129, 0x3fffd2, 22),
            (1, 0x7fffd8, 23),
            (9, 0xffffea, 24),
            (199, 0x1ffffec, 25),
            (255, 0x3ffffee, 26),
            (203, 0x7ffffde, 27),
            (2, 0xfffffe2, 28),
            (127, 0xffffffc, 28),
            (254, 0x7fffff0, 27),
            (10, 0x3ffffffc, 30),
            (22, 0x3ffffffe, 30),
            (EOS, 0x3fffffff, 30),
        ];
        for (symbol, bits, length) in cases {
            assert_eq!(code(*symbol), (*bits, *length), "{symbol}");
        }
    }

    #[test]
    fn every_symbol_is_read_wherever_it_stands() {
        for byte in 0..=255u8 {
            for before in 0..12 {
                for behind in 0..6 {
                    let text = [&b"0a:0a:0a:0a:"[..before], &[byte], &b"~0\\0a"[..behind.min(5)]].concat();
                    assert_eq!(decoded(&encode(&text)), Ok(text));
                }
            }
        }
    }

    #[test]
    fn any_two_symbols_are_read() {
        for one in 0..=255 {
            for other in 0..=255 {
                assert_eq!(decoded(&encode(&[one, other])), Ok(vec![one, other]));
            }
        }
    }

    #[test]
    fn padding_is_up_to_seven_ones() {
        for text in ["", "0", "00", "0a", "00000000", "a:&!'#~^<", "\\", "\u{80}", "\n"] {
            let mut bits = Vec::new();
            text.bytes().for_each(|byte| push_code(u16::from(byte), &mut bits));
            let whole = pack(&bits);
            assert_eq!(decoded(&whole), Ok(text.as_bytes().to_vec()));
            // A whole byte of padding, and more.
            for ones in 1..6 {
                assert_eq!(decoded(&[&whole[..], &[0xff; 6][..ones]].concat()), Err(Malformed), "{text:?}");
            }
            // One of the padding's bits is zero.
            for at in bits.len()..whole.len() * 8 {
                let mut other = whole.clone();
                other[at / 8] ^= 0x80 >> (at % 8);
                let is_a_code_of_five = whole.len() * 8 - bits.len() >= 5;
                assert!(is_a_code_of_five || decoded(&other) == Err(Malformed), "{text:?} bit {at}");
            }
        }
        // A code that is cut.
        assert_eq!(decoded(&[0xff, 0xc0]), Err(Malformed));
        assert_eq!(decoded(&[0x5c << 1 | 1, 0xfe]), Err(Malformed));
    }

    #[test]
    fn eos_stands_in_no_text() {
        for before in 0..10 {
            for behind in 0..8 {
                let mut bits = Vec::new();
                (0..before).for_each(|_| push_code(u16::from(b'0'), &mut bits));
                push_code(EOS, &mut bits);
                (0..behind).for_each(|_| push_code(u16::from(b'a'), &mut bits));
                assert_eq!(decoded(&pack(&bits)), Err(Malformed), "{before} {behind}");
            }
        }
    }

    #[test]
    fn the_longest_text_has_room() {
        for length in 0..100 {
            let text = vec![b'0'; length];
            let coded = encode(&text);
            assert!(text_bytes_max(coded.len()) >= length);
            assert_eq!(decoded(&coded), Ok(text));
        }
    }
}
