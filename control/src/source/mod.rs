//! Where the configuration comes from. Each source hands on values; none decides anything about their meaning.

pub mod file;
