//! Where `ringway-proxy` is, and whether it is the one that belongs to this `ringway`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// File name of the proxy.
pub const PROXY: &str = "ringway-proxy";

/// Our version; the proxy must print the same. Bootstrap and metadata are a contract within one version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why there is no proxy to start.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// It is in none of the places we look.
    #[error("no {PROXY} beside {beside} and none on PATH; install it there or name it with --proxy-bin")]
    NotFound {
        /// The folder of this executable.
        beside: PathBuf,
    },
    /// It could not be asked for its version.
    #[error("cannot run {} --version", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is another program.
    #[error("{} is no {PROXY}: --version prints {printed:?}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// Its first line.
        printed: String,
    },
    /// It is of another version.
    #[error("{} is version {found}, this ringway is {VERSION}: install both from one release", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it printed.
        found: String,
    },
}

/// The proxy to start: `explicit` if given, else beside this executable, else on PATH; asked for its version.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, BinaryError> {
    let own = env::current_exe().unwrap_or_default();
    let beside = own.parent().unwrap_or(Path::new("."));
    let path = match explicit {
        Some(path) => path.to_owned(),
        None => look(beside, env::var_os("PATH").as_deref())
            .ok_or_else(|| BinaryError::NotFound { beside: beside.to_owned() })?,
    };
    check_version(path)
}

fn look(beside: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    let folders = path.map(|path| env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    let candidates = std::iter::once(beside.to_owned()).chain(folders).map(|folder| folder.join(PROXY));
    let runnable = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    candidates.into_iter().find(runnable)
}

fn check_version(path: PathBuf) -> Result<PathBuf, BinaryError> {
    let output = match Command::new(&path).arg("--version").output() {
        Ok(output) => output,
        Err(source) => return Err(BinaryError::Run { path, source }),
    };
    judge(path, &String::from_utf8_lossy(&output.stdout))
}

/// The proxy, if what its `--version` prints is ours.
fn judge(path: PathBuf, printed: &str) -> Result<PathBuf, BinaryError> {
    let printed = printed.lines().next().unwrap_or_default();
    match printed.split_once(' ') {
        Some((PROXY, VERSION)) => Ok(path),
        Some((PROXY, found)) => Err(BinaryError::Version { path, found: found.to_owned() }),
        _ => Err(BinaryError::Other { path, printed: printed.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn executable(folder: &Path) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join(PROXY);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn the_proxy_beside_us_comes_before_those_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let [own, first, second] = ["own", "first", "second"].map(|name| dir.path().join(name));
        let path = env::join_paths([&first, &second]).unwrap();
        assert_eq!(look(&own, Some(&path)), None);
        let last = executable(&second);
        fs::create_dir_all(&first).unwrap();
        fs::write(first.join(PROXY), "not executable").unwrap();
        assert_eq!(look(&own, Some(&path)), Some(last));
        let beside = executable(&own);
        assert_eq!(look(&own, Some(&path)), Some(beside));
    }

    // Nothing is run here: a process that is being started holds for a moment the locks and ports of every other test.
    #[test]
    fn a_proxy_of_another_version_is_refused_with_both_versions() {
        assert!(judge("good".into(), &format!("{PROXY} {VERSION}\n")).is_ok());
        let table = [
            ("ringway-proxy 9.9.9\n", format!("is version 9.9.9, this ringway is {VERSION}")),
            ("true (GNU coreutils) 9.1\n", "is no ringway-proxy: --version prints \"true (GNU".to_owned()),
            ("", "is no ringway-proxy: --version prints \"\"".to_owned()),
        ];
        for (printed, said) in table {
            let error = judge("bad".into(), printed).unwrap_err().to_string();
            assert!(error.contains(&said), "{error}");
        }
    }
}
