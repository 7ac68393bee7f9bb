//! The identity on disk, to start from while the control plane is away. One file per identity, for its user only.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use policy::{
    peer::SpiffeId,
    tls::{CertificateChain, PrivateKey, TrustBundle},
};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use super::{Issued, Life};
use crate::state;

/// Where an identity is kept.
#[derive(Clone, Debug)]
pub struct IdentityFile(PathBuf);

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The kernel refused.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is cut short, damaged, or of another format.
    #[error("{0} is not a whole identity file")]
    Corrupt(PathBuf),
}

/// The content of a file, behind the checksum.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(bytes = "vec", repeated, tag = "1")]
    chain: Vec<Vec<u8>>,
    /// PKCS #8.
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    bundle: Vec<Vec<u8>>,
    /// Seconds since 1970.
    #[prost(uint64, tag = "4")]
    not_before: u64,
    #[prost(uint64, tag = "5")]
    not_after: u64,
}

impl IdentityFile {
    /// The file of an identity under `data_dir`.
    pub fn of(data_dir: &Path, id: &SpiffeId) -> IdentityFile {
        IdentityFile(data_dir.join(format!("identity-{:016x}.bin", xxh3_64(id.as_str().as_bytes()))))
    }

    /// What was written last; `None` if nothing ever was.
    pub(super) fn read(&self) -> Result<Option<Issued>, ReadError> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ReadError::Io { path: self.0.clone(), source }),
        };
        decode(&bytes).map(Some).ok_or_else(|| ReadError::Corrupt(self.0.clone()))
    }

    /// Keeps an identity. That it cannot is a warning: it is there all the same.
    pub(super) async fn write(&self, issued: &Issued) {
        let (path, bytes) = (self.0.clone(), encode(issued));
        let written = tokio::task::spawn_blocking(move || state::replace(&path, &bytes)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(file = %self.0.display(), %error, "the identity is not kept on disk");
        }
    }
}

fn encode(issued: &Issued) -> Vec<u8> {
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let all = |certificates: &[Box<[u8]>]| certificates.iter().map(|der| der.to_vec()).collect();
    let (PrivateKey::Pkcs8(key) | PrivateKey::Pkcs1(key) | PrivateKey::Sec1(key)) = &issued.chain.key;
    let stored = Stored {
        chain: all(&issued.chain.chain),
        key: key.to_vec(),
        bundle: all(&issued.bundle.anchors),
        not_before: seconds(issued.life.not_before),
        not_after: seconds(issued.life.not_after),
    };
    let body = stored.encode_to_vec();
    [&xxh3_64(&body).to_le_bytes()[..], &body].concat()
}

fn decode(bytes: &[u8]) -> Option<Issued> {
    let (checksum, body) = bytes.split_first_chunk::<8>()?;
    if xxh3_64(body) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let stored = Stored::decode(body).ok()?;
    let all = |certificates: Vec<Vec<u8>>| certificates.into_iter().map(Vec::into_boxed_slice).collect();
    let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let key = PrivateKey::Pkcs8(stored.key.into());
    Some(Issued {
        chain: Arc::new(CertificateChain { chain: all(stored.chain), key }),
        bundle: Arc::new(TrustBundle { anchors: all(stored.bundle), ..TrustBundle::default() }),
        life: Life { not_before: at(stored.not_before)?, not_after: at(stored.not_after)? },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn issued() -> Issued {
        let chain = vec![Box::from(*b"leaf"), Box::from(*b"intermediate")];
        let key = PrivateKey::Pkcs8(Box::from(*b"key"));
        let bundle = TrustBundle { anchors: vec![Box::from(*b"root")], ..TrustBundle::default() };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        Issued {
            chain: Arc::new(CertificateChain { chain, key }),
            bundle: Arc::new(bundle),
            life: Life { not_before: at(7), not_after: at(9) },
        }
    }

    #[tokio::test]
    async fn what_was_kept_is_there_again_and_for_its_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let id = SpiffeId::parse("spiffe://m/ns/a/sa/b").unwrap();
        let file = IdentityFile::of(&folder.path().join("new"), &id);
        assert_eq!(file.read().unwrap(), None);
        file.write(&issued()).await;
        assert_eq!(file.read().unwrap(), Some(issued()));
        assert_eq!(fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file.0, b"x").unwrap();
        assert!(file.read().unwrap_err().to_string().ends_with("is not a whole identity file"));
    }

    #[test]
    fn damage_is_seen_wherever_it_is() {
        let bytes = encode(&issued());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_none(), "byte {at}");
            assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
        }
        assert!(!format!("{:?}", issued()).contains("key\""), "a key is never shown");
    }
}
