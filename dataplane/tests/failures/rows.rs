//! The rows of the catalogue, in its order.

mod answers;
mod framing;

use crate::trial::Trials;

/// One row: a class of bad input or bad luck.
pub(crate) struct Row {
    /// As in the catalogue.
    pub(crate) id: &'static str,
    /// What is tried, and where what is not tried here is.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Trials<'_>),
}

/// All rows.
pub(crate) const ROWS: &[Row] = &[
    Row { id: "H1-01", about: "Content-Length beside Transfer-Encoding", run: framing::length_and_coding },
    Row { id: "H1-02", about: "other transfer codings than chunked", run: framing::codings },
    Row { id: "H1-04", about: "lengths that are not one number", run: framing::lengths },
    Row { id: "H1-18", about: "answers that have no body, whatever they say", run: answers::bodyless },
    Row {
        id: "H1-19",
        about: "answers that can be read in two ways; bytes behind answers",
        run: answers::ambiguous,
    },
];
