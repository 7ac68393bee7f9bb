//! The address on which other machines of the mesh reach this one, where that is known: what `ringway run` says to others without
//! an option.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::files::{self, Readers};

/// The file in the data directory.
const FILE: &str = "advertise";

/// Keeps it for those that are started with this data directory.
pub(crate) fn advertise(data_dir: &Path, address: IpAddr) -> io::Result<()> {
    match advertised(data_dir) == Some(address) {
        true => Ok(()),
        false => files::replace(&data_dir.join(FILE), address.to_string().as_bytes(), Readers::Any),
    }
}

/// What was kept.
pub(crate) fn advertised(data_dir: &Path) -> Option<IpAddr> {
    std::fs::read_to_string(data_dir.join(FILE)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_until_there_is_another() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(advertised(folder.path()), None);
        for address in ["10.0.0.7", "fd00::7"] {
            let address: IpAddr = address.parse().unwrap();
            advertise(folder.path(), address).unwrap();
            assert_eq!(advertised(folder.path()), Some(address));
        }
    }
}
