//! The file that carries registrations over a restart: length-delimited messages, then a checksum.

use std::io;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use proto::control::Registration;
use xxhash_rust::xxh3::xxh3_64;

const CHECKSUM_BYTES: usize = 8;

/// What was written last. `None` if nothing was, or if it cannot be trusted: proxies then keep what they have for a
/// lease, which is what makes the difference harmless.
pub(super) fn read(file: &Path) -> Option<Vec<Registration>> {
    let bytes = Bytes::from(std::fs::read(file).ok()?);
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if xxh3_64(body).to_le_bytes() != *checksum {
        tracing::warn!(file = %file.display(), "the kept registrations are damaged and were ignored");
        return None;
    }
    let mut rest = bytes.slice(..body.len());
    let mut registrations = Vec::new();
    while !rest.is_empty() {
        registrations.push(Registration::decode_length_delimited(&mut rest).ok()?);
    }
    Some(registrations)
}

/// Replaces the file.
pub(super) fn write(file: &Path, registrations: &[Registration]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for registration in registrations {
        bytes.extend(registration.encode_length_delimited_to_vec());
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    crate::files::replace(file, &bytes, crate::files::Readers::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registrations");
        assert_eq!(read(&file), None);
        write(&file, &[]).unwrap();
        assert_eq!(read(&file), Some(Vec::new()));
        let one = Registration { instance: "a".into(), port: 80, ..Registration::default() };
        let two = Registration { instance: "b".into(), ..Registration::default() };
        let both = vec![one, two];
        write(&file, &both).unwrap();
        assert_eq!(read(&file), Some(both));
        let good = std::fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&file, &bad).unwrap();
            assert_eq!(read(&file), None, "bit of byte {at}");
            std::fs::write(&file, &good[..at]).unwrap();
            assert_eq!(read(&file), None, "{at} bytes");
        }
    }
}
