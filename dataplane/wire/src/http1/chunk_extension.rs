//! What may stand behind the size of a chunk, one byte after the other: `;name`, `;name=value` or `;name="quoted"`, as
//! often as one likes (RFC 9112 §7.1.1).
//!
//! Nothing of it is kept, for nobody uses it; it is read strictly all the same, since what one reader takes for the end of an
//! extension another takes for a part of it, and then they disagree about where the data begins. White space around `;` and
//! `=`, which that grammar takes for the sake of old senders, is refused.

use super::fields::{is_token, is_value};

/// Where in the extensions of one chunk the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Extension {
    /// Behind `;`: a name must begin.
    #[default]
    Begins,
    Name,
    /// Behind `=`.
    ValueBegins,
    Value,
    Quoted,
    /// Behind `\` in quotes.
    Escaped,
    /// Behind the closing quote.
    Unquoted,
}

impl Extension {
    /// Whether the line may end before the next byte.
    pub(super) fn may_end(self) -> bool {
        matches!(self, Extension::Name | Extension::Value | Extension::Unquoted)
    }

    /// Behind `byte`, which is no line end; `None` when it must not stand here.
    pub(super) fn after(self, byte: u8) -> Option<Extension> {
        match (self, byte) {
            (Extension::Begins | Extension::Name, byte) if is_token(byte) => Some(Extension::Name),
            (Extension::ValueBegins | Extension::Value, byte) if is_token(byte) => Some(Extension::Value),
            (Extension::Name, b'=') => Some(Extension::ValueBegins),
            (Extension::ValueBegins, b'"') => Some(Extension::Quoted),
            (Extension::Quoted, b'"') => Some(Extension::Unquoted),
            (Extension::Quoted, b'\\') => Some(Extension::Escaped),
            (Extension::Quoted | Extension::Escaped, byte) if is_value(byte) => Some(Extension::Quoted),
            (ended, b';') if ended.may_end() => Some(Extension::Begins),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_names_with_or_without_a_value() {
        let is_good = |text: &[u8]| {
            let end = text.iter().try_fold(Extension::Begins, |at, byte| at.after(*byte));
            end.is_some_and(Extension::may_end)
        };
        for good in [
            "a",
            "a=b",
            "a;b",
            "a=b;c=d",
            "!#$%&'*+-.^_`|~=x",
            "a=\"\"",
            "a=\"b;c=\\\"d\\\" \t\u{e9}\"",
            "a=\"b\";c",
        ] {
            assert!(is_good(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ";",
            "a;",
            ";a",
            "=b",
            "a=",
            "a=;b",
            "a==b",
            "a=b=c",
            " a",
            "a ",
            "a; b",
            "a =b",
            "a= b",
            "\ta",
            "\"a\"",
            "a=\"b",
            "a=\"b\\\"",
            "a=\"b\"c",
            "a=\"b\"=c",
            "a=b\"c\"",
            "a=\"\u{1}\"",
            "a=\"\\\u{7f}\"",
            "a\u{e9}",
            "(a)",
        ] {
            assert!(!is_good(bad.as_bytes()), "{bad:?}");
        }
    }
}
