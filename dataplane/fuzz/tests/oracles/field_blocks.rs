//! Field blocks: what hpack takes we take, with the same fields, and what it refuses we refuse; what each writes the other reads.
//!
//! Ours alone refuses more than two changes of the table's size in one block (RFC 7541 §4.2 has a use for two) and numbers above
//! 32 bits or longer than five bytes (§5.1 leaves the bound to who reads). hpack alone writes the index of a field that no table may
//! keep where a table has it (§6.2.3 forbids that), so the mark of what it writes is not compared.

use fuzz::reference::hpack::Field;
use wire::http2::hpack::{Decoder, Encoder, Indexing};

use crate::python;

/// As `hpack`: blocks, each behind the byte that is its length. The first byte of all means nothing here.
pub(crate) fn run(input: &[u8]) {
    let Some((_, mut rest)) = input.split_first() else { return };
    let mut blocks = Vec::new();
    while let Some((length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        blocks.push(block.to_vec());
    }
    if blocks.is_empty() {
        return;
    }
    let said = python::ask("hpack", &blocks);
    let (mut decoder, mut of_theirs) = (Decoder::new(4096), Decoder::new(4096));
    let mut encoder = Encoder::new(4096);
    let mut again = Vec::new();
    for (block, said) in blocks.iter().zip(&said) {
        let shown = block.escape_ascii();
        let ours = decode(&mut decoder, block);
        let Some((fields, written)) = said.split_once('=') else {
            assert_eq!(ours, None, "hpack refuses {shown}");
            break;
        };
        let Some(ours) = ours else {
            assert!(is_stricter(block), "hpack takes {shown}: {fields}");
            break;
        };
        assert_eq!(ours, parse(fields), "of {shown}");
        let written = python::bytes(written);
        let read = decode(&mut of_theirs, &written).map(without_marks);
        assert_eq!(read, Some(without_marks(ours.clone())), "of {}", written.escape_ascii());
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value, is_sensitive) in &ours {
            let indexing = if *is_sensitive { Indexing::Never } else { Indexing::Allowed };
            encoder.field(name, value, 0, indexing, &mut out);
        }
        again.push((out, ours));
    }
    if again.is_empty() {
        return;
    }
    let blocks: Vec<Vec<u8>> = again.iter().map(|(block, _)| block.clone()).collect();
    let said = python::ask("hpack", &blocks);
    assert_eq!(said.len(), again.len());
    for ((block, sent), said) in again.iter().zip(said) {
        let fields = said.split_once('=').map(|(fields, _)| parse(fields));
        let sent: Vec<Field> = sent
            .iter()
            .map(|(name, value, never)| (name.to_ascii_lowercase(), value.clone(), *never))
            .collect();
        assert_eq!(fields, Some(sent), "of {}", block.escape_ascii());
    }
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let decoded = decoder.decode(block, usize::MAX, &mut |field| {
        fields.push((field.name().to_vec(), field.value().to_vec(), field.is_sensitive));
    });
    decoded.is_ok().then_some(fields)
}

/// Without whether a table may keep them.
fn without_marks(fields: Vec<Field>) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.into_iter().map(|(name, value, _)| (name, value)).collect()
}

fn parse(fields: &str) -> Vec<Field> {
    let one = |field: &str| {
        let mut parts = field.split(':');
        let mut next = || parts.next().expect("three parts");
        (python::bytes(next()), python::bytes(next()), next() == "1")
    };
    fields.split(',').filter(|field| !field.is_empty()).map(one).collect()
}

/// Whether there is one of the things that only ours minds.
fn is_stricter(block: &[u8]) -> bool {
    let is_update = |byte: &&u8| **byte & 0xe0 == 0x20;
    let updates = block.iter().filter(is_update).count();
    let has_long_number = block.windows(6).any(|run| run[..5].iter().all(|byte| byte & 0x80 != 0));
    updates > 2 || has_long_number
}
