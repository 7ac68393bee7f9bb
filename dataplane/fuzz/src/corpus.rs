//! Kept inputs: one file for each target, one input on each line, its bytes escaped as in a byte string of Rust. So they
//! can be read, and a change of them reviewed.

/// The inputs of a file.
pub fn inputs(kept: &str) -> Vec<Vec<u8>> {
    kept.lines().map(unescape).collect()
}

/// A file of inputs, the shortest first, each once.
pub fn file(mut inputs: Vec<Vec<u8>>) -> String {
    inputs.sort_by_key(|input| (input.len(), input.clone()));
    inputs.dedup();
    inputs.iter().map(|input| format!("{}\n", input.escape_ascii())).collect()
}

/// What a line of a file stands for. A line that nothing wrote so stands for something near.
fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let [byte, after @ ..] = rest {
        let (decoded, taken) = match (byte, after) {
            (b'\\', [b'x', high, low, ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default() as u8;
                (digit(high) * 16 + digit(low), 4)
            }
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [other, ..]) => (*other, 2),
            _ => (*byte, 1),
        };
        bytes.push(decoded);
        rest = &rest[taken..];
    }
    bytes
}

/// Tells two sets of inputs apart, for the ledger (FNV-1a of the file).
pub fn hash(file: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", file.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_back_every_byte_sorted_and_once() {
        let all: Vec<u8> = (0..=255).collect();
        let written = file(vec![all.clone(), b"b".to_vec(), b"a\r\n".to_vec(), b"b".to_vec(), Vec::new()]);
        assert_eq!(inputs(&written), [Vec::new(), b"b".to_vec(), b"a\r\n".to_vec(), all]);
        assert!(written.is_ascii());
        assert_ne!(hash(&written), hash("b\n"));
    }
}
