//! `--data-dir`: the option, and where it is without one.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::server::CONTROL_SOCKET;

/// The option.
#[derive(Debug, clap::Args)]
pub(super) struct DataDir {
    /// What is kept for the next start [default: $XDG_STATE_HOME/ringway, for root /var/lib/ringway]
    #[arg(long, value_name = "DIR", env = "RINGWAY_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

/// Nobody said where, and there is no usual place.
#[derive(Debug, thiserror::Error)]
#[error("cannot find a data directory: neither XDG_STATE_HOME nor HOME is set; name one with --data-dir")]
pub(super) struct NoDataDir;

impl DataDir {
    /// As given, else `/var/lib/ringway` for root, else below the user's state directory.
    pub(super) fn path(&self) -> Result<PathBuf, NoDataDir> {
        self.data_dir.clone().or_else(usual).ok_or(NoDataDir)
    }
}

/// Where the user's own control plane is looked for by everybody who is not told another place.
pub(super) fn usual_socket() -> Option<PathBuf> {
    usual().map(|folder| folder.join(CONTROL_SOCKET))
}

fn usual() -> Option<PathBuf> {
    // The kernel's word for who runs this; the environment of a service may say nothing.
    if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return Some("/var/lib/ringway".into());
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("ringway"))
}
