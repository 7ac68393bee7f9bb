//! Small files of the data directory, replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Who may read a file: everybody whom the system's defaults let, or its user alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// As the system says.
    Any,
    /// There is a secret in it.
    Owner,
}

/// Replaces the content of `file`: a reader, and a crash at any moment, sees the old or the new, never a part.
pub(crate) fn replace(file: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let new = file.with_added_extension("new");
    let mode = match readers {
        Readers::Any => 0o666,
        Readers::Owner => 0o600,
    };
    // One that a crash left would keep its mode, and whoever has it open.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new().create_new(true).write(true).mode(mode).open(&new)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    // The rename itself is on disk only when its folder is.
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_a_crash_left_beside_a_secret_does_not_open_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let left = dir.path().join("key.new");
        fs::write(&left, "").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&file, b"secret", Readers::Owner).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("revision");
        for content in ["one", "a longer second"] {
            replace(&file, content.as_bytes(), Readers::Any).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), content);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
