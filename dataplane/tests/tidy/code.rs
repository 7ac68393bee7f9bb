//! Just enough of Rust's syntax for the house rules: what is code, what is a comment or a literal, what is a test.
//!
//! Not a parser. Every function takes text and gives text of the same lines, so that a finding's line number holds.

/// Rust text with every comment and every string and character literal blanked, line for line and column for column.
pub(crate) fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
            continue;
        }
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment_length(rest),
        ['"', ..] => quoted_length(rest, '"'),
        ['\'', '\\', ..] => quoted_length(rest, '\''),
        ['\'', _, '\'', ..] => 3,
        ['r', '"' | '#', ..] if at == 0 || !is_in_word(chars, at) => raw_string_length(rest),
        _ => 0,
    };
    at + length
}

/// Whether the `r` at `at` continues an identifier rather than beginning a raw string; `br` and `cr` are prefixes.
fn is_in_word(chars: &[char], at: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let prefixed = matches!(chars[at - 1], 'b' | 'c') && (at == 1 || !is_word(chars[at - 2]));
    is_word(chars[at - 1]) && !prefixed
}

fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut escaped = false;
    for (n, c) in rest.iter().enumerate().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if *c == quote => return n + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_length(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let closes =
        |n: &usize| rest[*n] == '"' && rest[n + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    (2 + hashes..rest.len()).find(closes).map_or(rest.len(), |n| n + 1 + hashes)
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut n) = (0, 0);
    while n + 1 < rest.len() {
        match (rest[n], rest[n + 1]) {
            ('/', '*') => (depth, n) = (depth + 1, n + 2),
            ('*', '/') => (depth, n) = (depth - 1, n + 2),
            _ => n += 1,
        }
        if depth == 0 {
            return n;
        }
    }
    rest.len()
}

/// Code (of [`code_of`]) with every item under `#[cfg(test)]` blanked.
pub(crate) fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = ["#[cfg(test", "#[cfg(all(test"].iter().filter_map(|mark| rest.find(mark)).min() {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = item_end(item);
        kept.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    kept + rest
}

/// Where an item ends: behind its first `;`, or behind the brace that closes its first `{`.
fn item_end(item: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in item.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    item.len()
}

pub(crate) fn words_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Whether the comment that belongs to the last of `lines` speaks of safety. It may stand on that line or above it; the
/// statement between them may be broken over a few lines, and attributes may stand between.
pub(crate) fn says_why_it_is_sound(lines: &[&str]) -> bool {
    let speaks = |line: &str| line.contains("// SAFETY:") || line.contains("/// # Safety");
    let mut above = lines.iter().rev();
    if above.next().is_some_and(|line| speaks(line)) {
        return true;
    }
    let mut in_comment = false;
    for line in above.map(|line| line.trim()) {
        let is_comment = line.starts_with("//");
        if speaks(line) {
            return true;
        }
        let ends_statement = line.is_empty() || line.ends_with([';', '{', '}', ',']);
        if (in_comment && !is_comment && !line.starts_with("#[")) || (!is_comment && ends_statement) {
            return false;
        }
        in_comment = is_comment;
    }
    false
}

#[test]
fn comments_and_literals_are_blanked_and_code_is_kept() {
    let table = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x\"y", z)"#, r#"f(      , z)"#),
        (r##"f(r#"a"b"#, z)"##, r##"f(        , z)"##),
        (r"fn f<'a>(c: &'a u8) { 'x'; '\''; b'{' }", r"fn f<'a>(c: &'a u8) {    ;     ; b    }"),
        ("r#type + var\"s\"", "r#type + var   "),
    ];
    for (text, code) in table {
        assert_eq!(code_of(text), code);
    }
}
