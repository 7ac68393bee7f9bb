//! The lines of a head (RFC 9112 §2 to §5): where each of their parts begins and ends, and nothing of what they mean.
//!
//! One pass, front to back. Longer runs are looked at in words of eight bytes; a run ends at the first byte that may
//! not stand in it, and that byte decides what comes next or what is wrong. A head that is not whole ends in some error: who
//! has the whole head gets the one that is meant.

use super::fields::is_token;
use super::parse::ParseError;
use crate::head::{Span, Version};

/// The words of a request line.
pub(super) struct RequestLine {
    pub(super) method: Span,
    /// Not empty; holds neither white space nor control bytes.
    pub(super) target: Span,
    pub(super) version: Version,
}

/// The words of a status line.
pub(super) struct StatusLine {
    pub(super) version: Version,
    /// Three digits; 100 or above.
    pub(super) status: u16,
    /// May be empty.
    pub(super) reason: Span,
}

/// The parts of a header line.
pub(super) struct HeaderLine {
    /// Not empty.
    pub(super) name: Span,
    /// Without white space around.
    pub(super) value: Span,
    /// With its line end.
    pub(super) line: Span,
}

/// Reads the lines of a head from `bytes`, which begin with the first.
pub(super) struct Lines<'a> {
    /// What is not read yet.
    rest: &'a [u8],
    bytes_count: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Lines<'a> {
        Lines { rest: bytes, bytes_count: bytes.len() }
    }

    /// Where the next line begins.
    pub(super) fn at(&self) -> usize {
        self.bytes_count - self.rest.len()
    }

    /// `method SP request-target SP HTTP-version CRLF`.
    pub(super) fn request_line(&mut self) -> Result<RequestLine, ParseError> {
        let method = self.take(token);
        if method.is_empty() || !self.eat(b' ') {
            return Err(ParseError::RequestLine);
        }
        let target = self.take(run::<{ b' ' + 1 }>);
        if target.is_empty() || !self.eat(b' ') {
            return Err(ParseError::RequestLine);
        }
        let version = self.version()?;
        self.line_end(ParseError::Version)?;
        Ok(RequestLine { method, target, version })
    }

    /// `HTTP-version SP status-code SP [reason-phrase] CRLF`. The second space may not be left out with the reason.
    pub(super) fn status_line(&mut self) -> Result<StatusLine, ParseError> {
        let version = self.version()?;
        let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', rest @ ..] = self.rest else {
            return Err(ParseError::StatusLine);
        };
        self.rest = rest;
        let status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(**digit - b'0'));
        let reason = self.take(text);
        self.line_end(ParseError::StatusLine)?;
        Ok(StatusLine { version, status, reason })
    }

    /// The next header line; `None` behind the empty line that ends the head.
    pub(super) fn header(&mut self) -> Result<Option<HeaderLine>, ParseError> {
        let name = self.take(token);
        if name.is_empty() || !self.eat(b':') {
            return self.no_header(name);
        }
        self.skip_blanks();
        let value = self.take(|rest| text(rest).trim_ascii_end());
        self.skip_blanks();
        self.line_end(ParseError::HeaderValue)?;
        let line = Span { start: name.start, end: Span::new(0, self.at()).end };
        Ok(Some(HeaderLine { name, value, line }))
    }

    /// What stands where a header line must begin, and is none.
    fn no_header(&mut self, name: Span) -> Result<Option<HeaderLine>, ParseError> {
        match self.rest {
            [b'\r' | b'\n', ..] if name.is_empty() => self.line_end(ParseError::HeaderName).map(|()| None),
            [b' ' | b'\t', ..] if name.is_empty() => Err(ParseError::Fold),
            _ => Err(ParseError::HeaderName),
        }
    }

    fn version(&mut self) -> Result<Version, ParseError> {
        let (version, rest) = match self.rest {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', rest @ ..] => (Version::Http11, rest),
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', rest @ ..] => (Version::Http10, rest),
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b'\r' | b' ', ..] => {
                return Err(ParseError::UnsupportedVersion);
            }
            _ => return Err(ParseError::Version),
        };
        self.rest = rest;
        Ok(version)
    }

    /// CRLF; where there is neither CR nor LF it is `otherwise` that is wrong.
    fn line_end(&mut self, otherwise: ParseError) -> Result<(), ParseError> {
        match self.rest {
            [b'\r', b'\n', rest @ ..] => {
                self.rest = rest;
                Ok(())
            }
            [b'\r', ..] => Err(ParseError::BareCr),
            [b'\n', ..] => Err(ParseError::BareLf),
            _ => Err(otherwise),
        }
    }

    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// What `part` finds at the front of the rest.
    fn take(&mut self, part: impl Fn(&'a [u8]) -> &'a [u8]) -> Span {
        let start = self.at();
        let found = part(self.rest).len();
        self.rest = self.rest.get(found..).unwrap_or_default();
        Span::new(start, start + found)
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }
}

/// The token characters that `bytes` begin with, maybe none.
fn token(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| !is_token(*byte)).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default()
}

/// What `bytes` begin with of what a header value or a reason phrase may hold: no control byte but the tab.
pub(crate) fn text(bytes: &[u8]) -> &[u8] {
    let mut rest = rest_behind(bytes, run::<b' '>(bytes));
    while let [b'\t', behind @ ..] = rest {
        rest = rest_behind(behind, run::<b' '>(behind));
    }
    bytes.get(..bytes.len() - rest.len()).unwrap_or_default()
}

fn rest_behind<'a>(bytes: &'a [u8], front: &[u8]) -> &'a [u8] {
    bytes.get(front.len()..).unwrap_or_default()
}

/// What `bytes` begin with of bytes that are neither below `FROM` nor DEL.
fn run<const FROM: u8>(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    let within = loop {
        let Some((word, behind)) = rest.split_first_chunk::<8>() else {
            let is_outside = |byte: &u8| *byte < FROM || *byte == DEL;
            break rest.iter().position(is_outside).unwrap_or(rest.len());
        };
        match first_outside::<FROM>(u64::from_le_bytes(*word)) {
            8 => rest = behind,
            within => break within,
        }
    };
    bytes.get(..bytes.len() - rest.len() + within).unwrap_or_default()
}

const DEL: u8 = 0x7f;
const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// How many bytes of `word`, from its lowest on, are neither below `FROM` (at most 0x80) nor DEL; 8 when all are.
fn first_outside<const FROM: u8>(word: u64) -> usize {
    // A subtraction borrows into the high bit of the lowest byte that is too small; above that one bits may be wrong. Where
    // the high bit was set before, the byte is 0x80 or more: neither.
    let below = word.wrapping_sub(ONES * u64::from(FROM));
    let del = (word ^ (ONES * u64::from(DEL))).wrapping_sub(ONES);
    ((below | del) & !word & HIGH).trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_ends_at_the_first_byte_that_may_not_stand_in_it() {
        let may_stand = |byte: u8| byte >= b' ' && byte != DEL;
        for at in 0..8 {
            for (byte, other) in
                (0..=255u8).flat_map(|byte| [b' ', 0xff, 0, DEL, b'a'].map(|other| (byte, other)))
            {
                let mut word = [b'~'; 8];
                word[at..].fill(other);
                word[at] = byte;
                let expected = word.iter().position(|byte| !may_stand(*byte)).unwrap_or(8);
                assert_eq!(first_outside::<b' '>(u64::from_le_bytes(word)), expected, "{word:x?}");
            }
        }
    }

    #[test]
    fn a_token_ends_at_the_first_byte_that_is_none() {
        for at in 0..20 {
            for byte in 0..=255u8 {
                for behind in 0..10 {
                    let mut bytes = std::vec![b'x'; at];
                    bytes.push(byte);
                    bytes.resize(bytes.len() + behind, b'-');
                    let expected = if is_token(byte) { bytes.len() } else { at };
                    assert_eq!(token(&bytes).len(), expected, "{byte:x} at {at} of {}", bytes.len());
                }
            }
        }
    }

    #[test]
    fn a_run_ends_alike_wherever_its_end_lies() {
        for length in 0..40 {
            for (end, follows) in [(b'\r', 0), (b'\r', 20), (0, 0), (DEL, 9), (b'\t', 3)] {
                let mut bytes = std::vec![b'v'; length];
                bytes.push(end);
                bytes.resize(length + 1 + follows, b'w');
                assert_eq!(run::<b' '>(&bytes).len(), length, "{length} {end} {follows}");
                let is_tab = end == b'\t';
                let expected = if is_tab { bytes.len() } else { length };
                assert_eq!(text(&bytes).len(), expected, "{length} {end} {follows}");
            }
        }
    }
}
