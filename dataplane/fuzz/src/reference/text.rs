//! Words of the grammars of heads and bodies, and cutting text into parts.

/// `1*DIGIT` in 64 bits.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    latin1(text).parse().ok()
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_one)
}

/// RFC 9110 §5.5: no control bytes but the tab.
pub(super) fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

/// Without spaces and tabs around.
pub(super) fn trim_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// What is before the first such byte, and what is behind it.
pub(super) fn split_at_byte(text: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|one| *one == byte) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// What is between the line ends, and behind the last one.
pub(super) fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

/// Where something first is.
pub(super) fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// How many of a byte there are.
pub(super) fn count(text: &[u8], byte: u8) -> usize {
    text.iter().filter(|one| **one == byte).count()
}

/// Each byte a character.
pub(super) fn latin1(text: &[u8]) -> String {
    text.iter().map(|byte| char::from(*byte)).collect()
}

/// Ours: a name that frames a message for who takes `_` for `-`, or several for one.
pub(super) fn is_disguised(name: &str) -> bool {
    let joined = name.split(['-', '_']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    let frames = ["content-length", "transfer-encoding"].contains(&joined.as_str());
    frames && joined != name && !name.starts_with(['-', '_']) && !name.ends_with(['-', '_'])
}

/// Ours: a name by which the proxies of a mesh say whom a request is from, for who takes `_` for `-`, or several for one.
pub fn is_disguised_identity(name: &str) -> bool {
    let words: Vec<_> = name.split(['-', '_']).filter(|word| !word.is_empty()).collect();
    let is_identity = matches!(
        words[..],
        ["x", "forwarded" | "envoy" | "ringway", _, ..] | ["x", "request", "id"] | ["x", "real", "ip"]
    );
    is_identity && name.starts_with('x') && (name.contains('_') || name.contains("--"))
}
