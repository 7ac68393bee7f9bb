//! Header additions and removals of the configuration, merged to one ready list.
//!
//! The levels of a route configuration each add, overwrite and remove (Envoy: `HeaderValueOption`); what a level does
//! depends on what the ones before it left. [`HeaderEdits::merge`] plays all levels through once, per header name, for
//! a head that has the header and for one that has not. What remains is per name: drop what came or keep it, and add
//! these values. So the request path makes one pass over a short list.

use alloc::{sync::Arc, vec::Vec};

use wire::http1::encode::{is_editable, is_token, is_value};

/// The edits of one level, in the order of the configuration; names and values are checked as they are added.
#[derive(Clone, Debug, Default)]
pub struct HeaderOps {
    remove: Vec<Arc<str>>,
    add: Vec<Add>,
}

#[derive(Clone, Debug)]
struct Add {
    name: Arc<str>,
    value: Arc<[u8]>,
    action: AppendAction,
}

/// What an added value does to values that are there (Envoy: `HeaderAppendAction`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AppendAction {
    /// It joins them (`APPEND_IF_EXISTS_OR_ADD`).
    #[default]
    Append,
    /// It is added only when there is none (`ADD_IF_ABSENT`).
    AddIfAbsent,
    /// It replaces them (`OVERWRITE_IF_EXISTS_OR_ADD`).
    Overwrite,
    /// It replaces them, and is not added when there is none (`OVERWRITE_IF_EXISTS`).
    OverwriteIfPresent,
}

/// Why a header cannot be edited.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderOpError {
    /// Not a field name (RFC 9110 §5.6.2).
    #[error("{name:?} is not a header name")]
    Name {
        /// As configured.
        name: Arc<str>,
    },
    /// The host has rewrites of its own, and the rest decides where messages end and connections go.
    #[error("header {name:?} may not be edited")]
    Reserved {
        /// As configured.
        name: Arc<str>,
    },
    /// A control character would end the line or worse.
    #[error("value of header {name:?} has a control character")]
    Value {
        /// The header's name.
        name: Arc<str>,
    },
}

impl HeaderOps {
    /// Whether there is nothing to edit.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Removes every value of `name`; before anything this level adds.
    ///
    /// # Errors
    /// When `name` is no header name, or one that may not be edited.
    pub fn remove(&mut self, name: &str) -> Result<(), HeaderOpError> {
        self.remove.push(checked_name(name)?);
        Ok(())
    }

    /// Adds `value`.
    ///
    /// # Errors
    /// When `name` is no header name or one that may not be edited, or `value` has a control character.
    pub fn add(&mut self, name: &str, value: &[u8], action: AppendAction) -> Result<(), HeaderOpError> {
        let name = checked_name(name)?;
        if !value.iter().all(|byte| is_value(*byte)) {
            return Err(HeaderOpError::Value { name });
        }
        self.add.push(Add { name, value: value.into(), action });
        Ok(())
    }
}

fn checked_name(name: &str) -> Result<Arc<str>, HeaderOpError> {
    if !is_editable(name.as_bytes()) || name.starts_with(':') {
        return Err(HeaderOpError::Reserved { name: name.into() });
    }
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(HeaderOpError::Name { name: name.into() });
    }
    Ok(name.into())
}

/// The edits of all levels, ready to be made. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    entries: Arc<[Entry]>,
}

/// What happens to one header.
#[derive(Clone, Debug)]
struct Entry {
    name: Arc<str>,
    /// When the head has it.
    if_present: Outcome,
    /// When the head does not have it.
    if_absent: Outcome,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Outcome {
    /// The values that came stay.
    keep: bool,
    /// These are added behind.
    add: Vec<Arc<[u8]>>,
}

/// One edit to a head. ASCII case of names makes no difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit<'a> {
    /// Remove every line of this name that came; there may be none.
    Remove(&'a str),
    /// Add a line.
    Add(&'a str, &'a [u8]),
}

impl HeaderEdits {
    /// What the levels do together, the first one first, so that the last one wins. Within a level removals come first,
    /// then overwrites, then additions, and conditions see what removals left, as in Envoy.
    pub fn merge(levels: &[&HeaderOps]) -> HeaderEdits {
        let mut entries: Vec<Entry> = Vec::new();
        for level in levels {
            for name in &level.remove {
                entry_of(&mut entries, name)
                    .each(|outcome| *outcome = Outcome { keep: false, add: Vec::new() });
            }
            // All conditions of a level are decided on what the level before left.
            let mut decided = Vec::new();
            for add in &level.add {
                let entry = entry_of(&mut entries, &add.name);
                decided.push((add, entry.if_present.is_there(), entry.if_absent.is_there()));
            }
            let overwrites =
                |add: &Add| matches!(add.action, AppendAction::Overwrite | AppendAction::OverwriteIfPresent);
            for (add, present, absent) in decided.iter().filter(|(add, ..)| overwrites(add)) {
                let any = add.action == AppendAction::Overwrite;
                let entry = entry_of(&mut entries, &add.name);
                for (outcome, is_there) in [(&mut entry.if_present, present), (&mut entry.if_absent, absent)]
                {
                    if any || *is_there {
                        *outcome = Outcome { keep: false, add: Vec::from([add.value.clone()]) };
                    }
                }
            }
            for (add, present, absent) in decided.iter().filter(|(add, ..)| !overwrites(add)) {
                let any = add.action == AppendAction::Append;
                let entry = entry_of(&mut entries, &add.name);
                for (outcome, is_there) in [(&mut entry.if_present, present), (&mut entry.if_absent, absent)]
                {
                    if any || !*is_there {
                        outcome.add.push(add.value.clone());
                    }
                }
            }
        }
        HeaderEdits { entries: entries.into() }
    }

    /// Whether there is nothing to edit.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives each edit for a head to `make`, removals of a name before its additions. `is_present` says whether the head
    /// has a header; it is asked only where an edit depends on it.
    pub fn for_each<'a>(&'a self, mut is_present: impl FnMut(&str) -> bool, mut make: impl FnMut(Edit<'a>)) {
        for entry in self.entries.iter() {
            let depends = entry.if_present.add != entry.if_absent.add;
            let outcome =
                if depends && !is_present(&entry.name) { &entry.if_absent } else { &entry.if_present };
            // A head without the header may be told to remove it all the same: that does nothing.
            if !outcome.keep {
                make(Edit::Remove(&entry.name));
            }
            for value in &outcome.add {
                make(Edit::Add(&entry.name, value));
            }
        }
    }
}

impl Entry {
    fn each(&mut self, edit: impl Fn(&mut Outcome)) {
        edit(&mut self.if_present);
        edit(&mut self.if_absent);
    }
}

impl Outcome {
    fn is_there(&self) -> bool {
        self.keep || !self.add.is_empty()
    }
}

fn entry_of<'a>(entries: &'a mut Vec<Entry>, name: &Arc<str>) -> &'a mut Entry {
    let at = entries.iter().position(|entry| entry.name.eq_ignore_ascii_case(name)).unwrap_or_else(|| {
        let untouched = |keep| Outcome { keep, add: Vec::new() };
        entries.push(Entry { name: name.clone(), if_present: untouched(true), if_absent: untouched(false) });
        entries.len() - 1
    });
    &mut entries[at]
}

#[cfg(test)]
mod tests {
    use std::{format, string::String, vec};

    use super::{AppendAction::*, *};

    /// One level: removals, then additions.
    type Level<'a> = (&'a [&'a str], &'a [(&'a str, &'a str, AppendAction)]);

    fn level((remove, add): &Level<'_>) -> HeaderOps {
        let mut ops = HeaderOps::default();
        for name in *remove {
            ops.remove(name).unwrap();
        }
        for (name, value, action) in *add {
            ops.add(name, value.as_bytes(), *action).unwrap();
        }
        ops
    }

    /// What becomes of a head, headers as `name=value`.
    fn edited(head: &[&str], edits: &HeaderEdits) -> Vec<String> {
        let mut after: Vec<String> = head.iter().map(|line| String::from(*line)).collect();
        let is =
            |line: &str, name: &str| line.split('=').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        edits.for_each(
            |name| head.iter().any(|line| is(line, name)),
            |edit| match edit {
                Edit::Remove(name) => after.retain(|line| !is(line, name)),
                Edit::Add(name, value) => after.push(format!("{name}={}", String::from_utf8_lossy(value))),
            },
        );
        after
    }

    #[test]
    fn levels_do_together_what_they_would_do_one_after_the_other() {
        let rows: [(&[Level<'_>], &[&str], &[&str]); 12] = [
            (&[(&[], &[("a", "1", Append)])], &["a=0"], &["a=0", "a=1"]),
            (&[(&[], &[("A", "1", Overwrite)])], &["a=0", "b=0", "a=00"], &["b=0", "A=1"]),
            (&[(&[], &[("a", "1", AddIfAbsent)])], &["a=0"], &["a=0"]),
            (&[(&[], &[("a", "1", AddIfAbsent)])], &[], &["a=1"]),
            (&[(&[], &[("a", "1", OverwriteIfPresent)])], &["a=0"], &["a=1"]),
            (&[(&[], &[("a", "1", OverwriteIfPresent)])], &[], &[]),
            // Within a level removal comes first, and the condition sees it.
            (&[(&["a"], &[("a", "1", AddIfAbsent)])], &["a=0"], &["a=1"]),
            (&[(&["a"], &[("a", "1", OverwriteIfPresent)])], &["a=0"], &[]),
            // A later level sees what an earlier one did.
            (&[(&[], &[("a", "1", Append)]), (&["A"], &[])], &["a=0"], &[]),
            (&[(&[], &[("a", "1", Append)]), (&[], &[("a", "2", AddIfAbsent)])], &[], &["a=1"]),
            (&[(&["a"], &[]), (&[], &[("a", "2", Overwrite)])], &["a=0"], &["a=2"]),
            // Within a level overwriting comes before appending, whatever the order given.
            (&[(&[], &[("a", "1", Append), ("a", "2", Overwrite)])], &["a=0"], &["a=2", "a=1"]),
        ];
        for (levels, head, expected) in rows {
            let ops: Vec<HeaderOps> = levels.iter().map(level).collect();
            let edits = HeaderEdits::merge(&ops.iter().collect::<Vec<_>>());
            assert_eq!(edited(head, &edits), expected, "{levels:?} on {head:?}");
        }
        assert!(HeaderEdits::merge(&[&HeaderOps::default()]).is_empty());
    }

    #[test]
    fn the_head_is_searched_only_where_an_edit_depends_on_it() {
        let plain = level(&(&["c"], &[("a", "1", Append), ("b", "1", Overwrite)]));
        HeaderEdits::merge(&[&plain]).for_each(|name| panic!("asked for {name}"), |_| {});
        let mut asked = vec![];
        let conditional = level(&(&[], &[("a", "1", Append), ("b", "1", AddIfAbsent)]));
        HeaderEdits::merge(&[&conditional]).for_each(
            |name| {
                asked.push(String::from(name));
                true
            },
            |_| {},
        );
        assert_eq!(asked, ["b"]);
    }

    #[test]
    fn names_and_values_that_would_break_a_message_are_refused() {
        let mut ops = HeaderOps::default();
        for name in ["", "a b", "a:", "a\r\n", "\u{e9}"] {
            assert_eq!(ops.remove(name), Err(HeaderOpError::Name { name: name.into() }));
        }
        // What `wire` would pass over in silence when a head goes out is refused here, where it can be told.
        for name in ["Host", ":path", "Content-Length", "transfer-encoding", "connection", "Expect", "te"] {
            let error = ops.add(name, b"1", Append).unwrap_err();
            assert_eq!(error, HeaderOpError::Reserved { name: name.into() });
        }
        for value in [&b"a\r\nb"[..], b"a\0", b"\x7f"] {
            assert_eq!(ops.add("x", value, Append), Err(HeaderOpError::Value { name: "x".into() }));
        }
        ops.add("x", "tab\tand \u{e9}".as_bytes(), Append).unwrap();
    }
}
