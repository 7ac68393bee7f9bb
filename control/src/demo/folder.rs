//! The one folder into which a demo writes: gone when the demo is, and if the demo was killed, when the next one starts.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// Its name, before a random part.
const PREFIX: &str = "ringway-demo-";

/// The file in it that is locked while it is used.
const LOCK: &str = "lock";

/// The folder; removed on drop.
#[derive(Debug)]
pub(super) struct Folder {
    _lock: File,
    folder: TempDir,
}

impl Folder {
    /// A new one, after those of demos that were killed have been removed.
    pub(super) fn new() -> io::Result<Folder> {
        let all = std::env::temp_dir();
        sweep(&all);
        Folder::new_in(&all)
    }

    fn new_in(all: &Path) -> io::Result<Folder> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(all)?;
        let lock = File::create(folder.path().join(LOCK))?;
        lock.try_lock()?;
        Ok(Folder { _lock: lock, folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn sweep(all: &Path) {
    // What cannot be read or removed is another user's, or gone.
    let Ok(entries) = fs::read_dir(all) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let unused = || File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if ours && unused() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_nobody_uses_is_swept_and_others_stay() {
        let all = tempfile::tempdir().unwrap();
        let used = Folder::new_in(all.path()).unwrap();
        // As a kill leaves it: the lock is gone, the folder is not.
        let Folder { _lock: lock, folder } = Folder::new_in(all.path()).unwrap();
        let abandoned = folder.keep();
        drop(lock);
        let other = all.path().join("ringway-else");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(LOCK), "").unwrap();
        sweep(all.path());
        assert!(!abandoned.exists());
        assert!(used.path().exists() && other.exists());
    }
}
