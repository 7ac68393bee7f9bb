//! Where Envoy is, for tests that compare with it. The control plane's tests have this file, too.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The program of Envoy 1.40, fetched if it is not there yet.
pub(crate) fn envoy_program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cache = std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let program = cache.join("peers/bin/envoy");
    if !program.exists() {
        let setup = Command::new(root.join("deploy/setup.sh")).arg("test").status().unwrap();
        assert!(setup.success(), "Envoy could not be fetched");
    }
    program
}
