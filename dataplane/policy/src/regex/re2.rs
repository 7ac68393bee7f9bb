//! From RE2's syntax, which configuration is written in, to that of the engine used here.
//!
//! The two are close. Translated is what both accept but read differently, and what only RE2 accepts: perl classes and
//! word boundaries are ASCII; braces that are no repetition are literal; classes have no operators and do not nest;
//! `\Q…\E`, `\C`, `\<` and `\>`. Refused is what only the engine accepts and what would turn its meaning: its flags.
//! Everything else goes through as it is, and the engine refuses what it does not know (both refuse look-around and
//! back-references).

use alloc::string::String;

/// Perl classes in RE2: outside and inside of a class the same text serves, because the engine's classes nest.
const PERL_CLASSES: [(char, &str); 6] = [
    ('d', "[0-9]"),
    ('D', "[^0-9]"),
    ('s', r"[\t\n\x0C\r ]"),
    ('S', r"[^\t\n\x0C\r ]"),
    ('w', "[0-9A-Za-z_]"),
    ('W', "[^0-9A-Za-z_]"),
];

/// `pattern` in the engine's syntax; an error says what RE2 would not accept either.
pub(super) fn translate(pattern: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some((first, after)) = split_first(rest) {
        rest = match first {
            '\\' => escape(after, &mut out, false)?,
            '[' => class(after, &mut out)?,
            '{' => {
                if !is_repetition(after) {
                    out.push('\\');
                }
                out.push('{');
                after
            }
            '(' => {
                flags_are_known(after)?;
                out.push('(');
                after
            }
            other => {
                out.push(other);
                after
            }
        };
    }
    Ok(out)
}

fn split_first(text: &str) -> Option<(char, &str)> {
    let mut chars = text.chars();
    chars.next().map(|first| (first, chars.as_str()))
}

/// What follows a backslash. Returns what follows the escape.
fn escape<'a>(after: &'a str, out: &mut String, in_class: bool) -> Result<&'a str, &'static str> {
    let (escaped, after) = split_first(after).ok_or("trailing backslash")?;
    if let Some((_, class)) = PERL_CLASSES.iter().find(|(name, _)| *name == escaped) {
        out.push_str(class);
        return Ok(after);
    }
    match escaped {
        '<' | '>' => out.push(escaped),
        'Q' if !in_class => {
            let (literal, after) = after.split_once("\\E").unwrap_or((after, ""));
            for character in literal.chars() {
                push_literal(character, out);
            }
            return Ok(after);
        }
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        'B' if !in_class => out.push_str(r"(?-u:\B)"),
        'C' if !in_class => out.push_str("(?s-u:.)"),
        other => {
            out.push('\\');
            out.push(other);
        }
    }
    Ok(after)
}

/// What follows the `[` of a class. Returns what follows its `]`.
fn class<'a>(after: &'a str, out: &mut String) -> Result<&'a str, &'static str> {
    out.push('[');
    let mut rest = after;
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    // A `]` that comes first is one of the characters.
    if let Some(after) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = after;
    }
    let mut after_dash = false;
    loop {
        let (first, after) = split_first(rest).ok_or("missing closing ]")?;
        let posix = if first == '[' && after.starts_with(':') { after.split_once(":]") } else { None };
        rest = match (first, posix) {
            (']', _) => {
                out.push(']');
                return Ok(after);
            }
            ('\\', _) => escape(after, out, true)?,
            ('[', Some((name, after))) => {
                out.push('[');
                out.push_str(name);
                out.push_str(":]");
                after
            }
            // Two dashes would be a difference; the first may open a range, so the second is the one to escape.
            ('-', _) if !after_dash => {
                out.push('-');
                after
            }
            ('[' | '&' | '~' | '-', _) => {
                push_literal(first, out);
                after
            }
            (other, _) => {
                out.push(other);
                after
            }
        };
        after_dash = first == '-' && !after_dash;
    }
}

/// Whether what follows a `{` makes it a repetition: `n}`, `n,}` or `n,m}`.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        Some((least, most)) => is_number(least) && (most.is_empty() || is_number(most)),
        None => is_number(inside),
    }
}

/// Flags of a group must be RE2's. `x` would make white space and `#` mean nothing, `R` and `u` change `$` and classes.
fn flags_are_known(after: &str) -> Result<(), &'static str> {
    let Some(flags) = after.strip_prefix('?').filter(|name| !name.starts_with(['P', '<'])) else {
        return Ok(());
    };
    let end = flags.find([':', ')']).ok_or("missing closing )")?;
    let known = flags.get(..end).unwrap_or_default().chars().all(|flag| "imsU-".contains(flag));
    if known { Ok(()) } else { Err("unknown flag or look-around in group") }
}

fn push_literal(character: char, out: &mut String) {
    if character.is_ascii_punctuation() && character != '<' && character != '>' {
        out.push('\\');
    }
    out.push(character);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_read_alike_goes_through_and_the_rest_is_translated() {
        for same in [
            "/a/.*",
            "a|b",
            "(a)(?:b)(?i)c(?s-m:d)",
            "[a-z]+?",
            "[^/]{1,3}",
            "a{2}",
            "[[:alpha:]x]",
            r"\.\/\-\pL\x41",
        ] {
            assert_eq!(translate(same).as_deref(), Ok(same));
        }
        for (re2, engine) in [
            (r"\d+", "[0-9]+"),
            (r"[\d.]", "[[0-9].]"),
            (r"\bx\B", r"(?-u:\b)x(?-u:\B)"),
            ("/{id}", r"/\{id}"),
            ("a{,3}", r"a\{,3}"),
            ("a{1,2,3}", r"a\{1,2,3}"),
            ("{", r"\{"),
            (r"\Qa.b\E.", r"a\.b."),
            (r"\Qa.<", r"a\.<"),
            (r"\<a\>", "<a>"),
            ("[a&&b]", r"[a\&\&b]"),
            ("[a~~b]", r"[a\~\~b]"),
            ("[[]", r"[\[]"),
            ("[+--]", r"[+-\-]"),
            ("[]a]", r"[\]a]"),
            ("[^]a]", r"[^\]a]"),
            ("[[:digit:]a[:^alpha:]]", "[[:digit:]a[:^alpha:]]"),
            (r"\C", "(?s-u:.)"),
        ] {
            assert_eq!(translate(re2).as_deref(), Ok(engine), "{re2}");
        }
    }

    #[test]
    fn what_re2_does_not_know_is_refused() {
        for pattern in ["(?x)a", "(?u:a)", "(?R)", "(?=a)", "(?!a)", "(?#c)", "a\\", "[a", "[]", "(?i"] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }
}
