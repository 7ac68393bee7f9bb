//! What commands print: tables, ages, colour on a terminal, an error with its causes on one line.

use std::error::Error;
use std::io::{self, IsTerminal, Write};

/// How a command prints its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs; field names are stable.
    Json,
}

/// A value as JSON for people to read.
pub(super) fn pretty(value: &impl serde::Serialize) -> String {
    // What commands print has string keys only, so it always can be written.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// The colours that carry a meaning. Never the only carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Wait,
    Bad,
    Head,
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, tone: Tone::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        text.to_owned().into()
    }
}

/// Writes `rows` below `head` in columns as wide as their content; empty cells are shown as `-`.
pub(super) fn table<const N: usize>(
    out: &mut impl Write,
    colour: bool,
    head: [&str; N],
    rows: &[[Cell; N]],
) -> io::Result<()> {
    let head = head.map(|text| Cell::toned(text, Tone::Head));
    let mut widths = [0; N];
    for row in std::iter::once(&head).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count()).max(1);
        }
    }
    for row in std::iter::once(&head).chain(rows) {
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let text = if cell.text.is_empty() { "-" } else { &cell.text };
            // The last column needs no padding, so that no line ends in spaces.
            let padding = if at + 1 == N { 0 } else { width - text.chars().count() + 2 };
            write!(out, "{}{:padding$}", painted(text, cell.tone, colour), "")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The text with its colour, if colour is wanted.
pub(super) fn painted(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => 32,
        Tone::Wait => 33,
        Tone::Bad => 31,
        Tone::Head => 1,
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether standard output takes colour: a terminal, and the user did not say no (<https://no-color.org>).
pub(super) fn stdout_has_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The same for standard error.
pub(super) fn stderr_has_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `4.2 s`, `3 min`, `2 h`, `5 d`: one number, as exact as anyone needs.
pub(super) fn age(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..10_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        10_000..120_000 => format!("{} s", millis / 1000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

/// Prints an error and its causes on one line of standard error: the one place where a command's error is printed.
pub(super) fn print_error(error: &dyn Error) {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line += &format!(": {cause}");
        source = cause.source();
    }
    let line = format!("{} {line}\n", painted("error:", Tone::Bad, stderr_has_colour()));
    // In one write, since others may write, too; if it fails there is nowhere to say so.
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_no_trailing_spaces() {
        let rows = [
            ["shop/pay".into(), Cell::toned("synced", Tone::Good), "".into()],
            ["web".into(), Cell::toned("nack", Tone::Bad), "über".into()],
        ];
        let mut out = Vec::new();
        table(&mut out, false, ["APP", "STATE", "WHY"], &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "APP       STATE   WHY\nshop/pay  synced  -\nweb       nack    über\n");
    }

    #[test]
    fn an_age_is_one_number() {
        let table = [
            (0, "0 ms"),
            (999, "999 ms"),
            (4_250, "4.2 s"),
            (60_000, "60 s"),
            (600_000, "10 min"),
            (10_000_000, "2 h"),
            (900_000_000, "10 d"),
        ];
        for (millis, text) in table {
            assert_eq!(age(millis), text);
        }
    }

    #[test]
    fn colour_is_added_around_the_text_only() {
        assert_eq!(painted("synced", Tone::Good, true), "\x1b[32msynced\x1b[0m");
        assert_eq!(painted("synced", Tone::Good, false), "synced");
        assert_eq!(painted("synced", Tone::Plain, true), "synced");
    }
}
