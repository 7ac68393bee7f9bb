//! The authority as it is now: its files are looked at again while the control plane runs, so that what signs is renewed, or
//! replaced by whoever gave it, without a restart.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::{Authority, AuthorityError, GivenFiles};

/// Pause between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// With less than this left of the certificate that signs, every look says so.
const LEFT_WARN: Duration = Duration::from_secs(14 * 24 * 3600);

/// What an authority is made of.
#[derive(Debug, Clone)]
pub struct AuthoritySource {
    /// Files that somebody else keeps.
    pub given: Option<GivenFiles>,
    /// Where those of the built-in one are, if there are no others.
    pub data_dir: PathBuf,
    /// What the identities begin with.
    pub trust_domain: String,
    /// How long the certificate of a workload is good for.
    pub svid_life: Duration,
}

/// The authority, which may be another one the next time it is asked for.
#[derive(Debug)]
pub struct CurrentAuthority {
    source: AuthoritySource,
    now: RwLock<Arc<Authority>>,
}

impl CurrentAuthority {
    /// Reads the files, or makes those of the built-in authority.
    ///
    /// # Errors
    /// As [`Authority::open`] and [`Authority::given`].
    pub fn open(source: AuthoritySource) -> Result<CurrentAuthority, AuthorityError> {
        let now = RwLock::new(Arc::new(source.read()?));
        Ok(CurrentAuthority { source, now })
    }

    /// What signs now.
    pub fn get(&self) -> Arc<Authority> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files again and again, for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let current = self.clone();
            // Only fails if the runtime shuts down.
            let _ = tokio::task::spawn_blocking(move || current.look(SystemTime::now())).await;
        }
    }

    /// Looks at the files once. What cannot be used leaves the authority as it is.
    fn look(&self, now: SystemTime) {
        let before = self.get();
        match self.source.read() {
            Err(error) => tracing::warn!(
                error = &error as &(dyn std::error::Error + 'static),
                "the authority's files cannot be used; it signs as before"
            ),
            // Proxies that have only the old ones would refuse those that are signed from now on.
            Ok(read) if !before.roots.iter().all(|root| read.roots.contains(root)) => tracing::warn!(
                "a root is missing from the authority's files; it signs as before until the control plane is restarted"
            ),
            Ok(read) => {
                if (&read.above, &read.roots) != (&before.above, &before.roots) {
                    tracing::info!("the certificate authority signs with another certificate now");
                }
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
            }
        }
        let left = self.get().not_after.duration_since(now).unwrap_or_default();
        if left < LEFT_WARN {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs())).to_string();
            tracing::warn!(
                left,
                "the certificate that signs ends soon, and with it every identity of the mesh"
            );
        }
    }
}

impl AuthoritySource {
    fn read(&self) -> Result<Authority, AuthorityError> {
        match &self.given {
            Some(files) => Authority::given(files, &self.trust_domain, self.svid_life),
            None => Authority::open(&self.data_dir, &self.trust_domain, self.svid_life),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DAY, given_files, request, web};
    use super::super::{files, make};
    use super::*;

    fn source(folder: &std::path::Path, given: Option<GivenFiles>) -> AuthoritySource {
        let trust_domain = "mesh.local".to_owned();
        AuthoritySource { given, data_dir: folder.to_owned(), trust_domain, svid_life: DAY }
    }

    #[test]
    fn the_built_in_intermediate_is_renewed_while_the_control_plane_runs() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let made = make("mesh.local", now).unwrap();
        files::write(&folder.path().join("ca"), &made).unwrap();
        let current = CurrentAuthority::open(source(folder.path(), None)).unwrap();
        let before = current.get().not_after;
        // Months later, the same process.
        let mut old = make("mesh.local", now - DAY * 200).unwrap();
        let root_key = rcgen::KeyPair::from_pem(&made.root_key).unwrap();
        let root = rcgen::Issuer::from_ca_cert_der(&made.root[..].into(), root_key).unwrap();
        old.intermediate =
            super::super::intermediate("mesh.local", &old.intermediate_key, &root, now - DAY * 200).unwrap();
        (old.root, old.root_key) = (made.root, made.root_key);
        files::write(&folder.path().join("ca"), &old).unwrap();
        current.look(now);
        let after = current.get();
        assert!(after.not_after >= before, "it has its full life before it again");
        assert_ne!(after.above, [old.intermediate]);
        assert!(after.sign(&request(), &web(), now).is_ok());
    }

    #[test]
    fn what_is_given_is_read_again_and_what_cannot_be_used_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = given_files(folder.path());
        let current = CurrentAuthority::open(source(folder.path(), Some(files.clone()))).unwrap();
        let first = current.get();
        let key = std::fs::read_to_string(&files.key).unwrap();
        std::fs::write(&files.key, "x").unwrap();
        current.look(SystemTime::now());
        assert!(Arc::ptr_eq(&current.get(), &first));
        std::fs::write(&files.key, key).unwrap();
        current.look(SystemTime::now());
        assert!(!Arc::ptr_eq(&current.get(), &first));
        // Another root, which no proxy knows yet; and then both of them.
        let root = files.root.clone().unwrap();
        let old = std::fs::read_to_string(&root).unwrap();
        let second = current.get();
        given_files(folder.path());
        current.look(SystemTime::now());
        assert!(Arc::ptr_eq(&current.get(), &second));
        let new = std::fs::read_to_string(&root).unwrap();
        std::fs::write(&root, old + &new).unwrap();
        current.look(SystemTime::now());
        assert_eq!(current.get().roots.len(), 2);
    }
}
