//! What one proxy keeps on disk: its bootstrap file while it runs, its last good configuration, its name and its ports
//! for the next time.
//!
//! The ports are kept because the last good configuration names them: a workload that starts again while the control
//! plane is away serves on the same addresses, and its peers still know them. The name is kept so that it takes up the
//! registration it had instead of fighting with it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// File of a [`Kept`].
const KEPT: &str = "sidecar.json";

/// The folder of one proxy; one process uses it at a time.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Name and ports of a proxy, as they were last time.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Name of the instance.
    pub instance: Option<String>,
    /// Where other proxies reach it.
    pub inbound: Option<SocketAddr>,
    /// The HTTP proxy for its own calls.
    pub outbound: Option<SocketAddr>,
    /// Admin listener.
    pub admin: Option<SocketAddr>,
    /// Per variable of a dependency.
    pub to: BTreeMap<String, SocketAddr>,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("another ringway already runs this workload from {}; --data-dir names another place", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The file system says no.
    #[error("cannot use {} (--data-dir)", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Folder {
    /// Opens the folder `name` below `data_dir`; made if there is none, for its user only.
    pub fn open(data_dir: &Path, name: &Path) -> Result<Folder, FolderError> {
        let path = data_dir.join(name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed(&path))?;
        let file = path.join("lock");
        let lock = File::create(&file).map_err(failed(&file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::Taken { path }),
            Err(TryLockError::Error(source)) => Err(FolderError::Io { path: file, source }),
        }
    }

    /// For the proxy's `--data-dir`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the bootstrap file. It goes with this value.
    pub fn write_bootstrap(&self, text: &str) -> Result<PathBuf, FolderError> {
        let file = self.bootstrap();
        fs::write(&file, text).map_err(|source| FolderError::Io { path: file.clone(), source })?;
        Ok(file)
    }

    /// What was kept last time; nothing if it cannot be read.
    pub fn kept(&self) -> Kept {
        let text = fs::read(self.path.join(KEPT)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Keeps name and ports for next time.
    pub fn keep(&self, kept: &Kept) -> Result<(), FolderError> {
        let file = self.path.join(KEPT);
        let text = serde_json::to_vec_pretty(kept).map_err(io::Error::from);
        text.and_then(|text| fs::write(&file, text)).map_err(|source| FolderError::Io { path: file, source })
    }

    fn bootstrap(&self) -> PathBuf {
        self.path.join("bootstrap.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If it stays, the next start writes it anew.
        let _ = fs::remove_file(self.bootstrap());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time_and_remembers_its_ports() {
        let dir = tempfile::tempdir().unwrap();
        let name = Path::new("run/shop/web-8080");
        let folder = Folder::open(dir.path(), name).unwrap();
        assert_eq!(folder.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let error = Folder::open(dir.path(), name).unwrap_err();
        assert!(matches!(error, FolderError::Taken { .. }), "{error}");

        assert_eq!(folder.kept(), Kept::default());
        let to = BTreeMap::from([("RINGWAY_PAY_80_ADDR".to_owned(), "127.0.0.1:5".parse().unwrap())]);
        let kept = Kept { inbound: Some("127.0.0.1:4".parse().unwrap()), to, ..Kept::default() };
        folder.keep(&kept).unwrap();
        let bootstrap = folder.write_bootstrap("{}").unwrap();
        assert!(bootstrap.exists());
        drop(folder);
        assert!(!bootstrap.exists(), "the bootstrap file goes with its process");

        let again = Folder::open(dir.path(), name).unwrap();
        assert_eq!(again.kept(), kept);
        fs::write(again.path().join(KEPT), "{\"inbound\": 7").unwrap();
        assert_eq!(again.kept(), Kept::default(), "a broken file is as good as none");
    }
}
