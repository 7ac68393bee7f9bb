//! Field blocks to fields, as RFC 7541 says it, line by line: every string is copied, every code compared bit by bit.

/// What is known of one direction of a connection.
pub struct Decoder {
    /// Youngest first.
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    size_max: usize,
    limit: usize,
    /// Length of each code, the code, and its symbol, in their order. The code is canonical.
    codes: Vec<(u32, u32, u16)>,
}

/// A field: name, value, and whether no table may ever have it.
pub type Field = (Vec<u8>, Vec<u8>, bool);

impl Decoder {
    /// One whose table may be told to have up to `limit`.
    pub fn new(limit: usize) -> Decoder {
        let mut order: Vec<u16> = (0..257).collect();
        order.sort_by_key(|symbol| (LENGTHS[usize::from(*symbol)], *symbol));
        let (mut code, mut length) = (0u32, 0);
        let mut codes = Vec::new();
        for symbol in order {
            let longer = u32::from(LENGTHS[usize::from(symbol)]);
            code <<= longer - length;
            length = longer;
            codes.push((length, code, symbol));
            code += 1;
        }
        Decoder { entries: Vec::new(), size_max: 4096, limit, codes }
    }

    /// The fields of a whole block; `None` when it is malformed.
    pub fn decode(&mut self, block: &[u8]) -> Option<Vec<Field>> {
        let mut rest = block;
        let mut fields: Vec<Field> = Vec::new();
        let mut updates = 0;
        while let Some(first) = rest.first() {
            match first {
                0x80.. => {
                    let (name, value) = self.entry(integer(&mut rest, 7)?)?;
                    fields.push((name, value, false));
                }
                0x40.. => {
                    let (name, value) = self.literal(&mut rest, 6)?;
                    fields.push((name.clone(), value.clone(), false));
                    self.entries.insert(0, (name, value));
                    self.evict();
                }
                0x20.. => {
                    // Two are the most that §4.2 has a use for.
                    updates += 1;
                    self.size_max = integer(&mut rest, 5)?;
                    if self.size_max > self.limit || updates > 2 || !fields.is_empty() {
                        return None;
                    }
                    self.evict();
                }
                _ => {
                    let is_sensitive = *first >= 0x10;
                    let (name, value) = self.literal(&mut rest, 4)?;
                    fields.push((name, value, is_sensitive));
                }
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
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.entries.get(index - STATIC.len()).cloned(),
        }
    }

    fn literal(&self, rest: &mut &[u8], prefix_bits: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        let name = match integer(rest, prefix_bits)? {
            0 => self.text(rest)?,
            index => self.entry(index)?.0,
        };
        Some((name, self.text(rest)?))
    }

    fn text(&self, rest: &mut &[u8]) -> Option<Vec<u8>> {
        let is_huffman = rest.first()? & 0x80 != 0;
        let length = integer(rest, 7)?;
        let (coded, behind) = rest.split_at_checked(length)?;
        *rest = behind;
        if is_huffman { self.huffman(coded) } else { Some(coded.to_vec()) }
    }

    fn huffman(&self, coded: &[u8]) -> Option<Vec<u8>> {
        let (mut text, mut code, mut length) = (Vec::new(), 0u32, 0);
        for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1))) {
            (code, length) = (code << 1 | bit, length + 1);
            if let Ok(at) = self.codes.binary_search_by_key(&(length, code), |known| (known.0, known.1)) {
                // EOS is no byte.
                text.push(u8::try_from(self.codes[at].2).ok()?);
                (code, length) = (0, 0);
            }
        }
        // Padding is less than a byte of ones.
        (length < 8 && code == (1 << length) - 1).then_some(text)
    }
}

/// An integer of up to 32 bits, in no more than five bytes behind its prefix.
fn integer(rest: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let prefix_max = 2usize.pow(prefix_bits) - 1;
    let mut next = || {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        Some(usize::from(*byte))
    };
    let mut value = next()? % (prefix_max + 1);
    if value < prefix_max {
        return Some(value);
    }
    for place in 0..5 {
        let byte = next()?;
        value += byte % 128 * 128usize.pow(place);
        if byte < 128 {
            return (value < 1 << 32).then_some(value);
        }
    }
    None
}

/// Bits of the code of each byte, then of EOS (appendix B).
const LENGTHS: [u8; 257] = [
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

/// The static table (appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
