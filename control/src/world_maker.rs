//! The one task that makes the next [`World`] of the newest one.
//!
//! Two lanes lead in: documents, which the source has already settled and which make a new revision; and
//! registrations, the fast lane for endpoints, which do not. Everything downstream reads the newest world from a
//! watch channel and skips those in between.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use xxhash_rust::xxh3::Xxh3;

use crate::compile::{self, Shared};
use crate::conditions::Conditions;
use crate::document::Documents;
use crate::model::{self, Registrations};
use crate::registry::Registered;
use crate::report::Proxies;
use crate::source::file::Read;
use crate::world::{Trail, World};

/// How long a registration that adds something waits for others to come with it. What takes an endpoint out of
/// service does not wait.
const GATHER: Duration = Duration::from_millis(10);

/// The task that makes worlds.
#[derive(Debug)]
pub struct WorldMaker {
    reads: mpsc::Receiver<Read>,
    registered: watch::Receiver<Registered>,
    revision: Revision,
    revision_since: SystemTime,
    revision_file: PathBuf,
    proxies: Arc<Proxies>,
}

impl WorldMaker {
    /// Makes the first world of `documents` and what is registered now. `data_dir` keeps the revision's number over
    /// restarts; `proxies` hears of every world before anyone else.
    pub fn start(
        documents: Arc<Documents>,
        reads: mpsc::Receiver<Read>,
        registered: watch::Receiver<Registered>,
        data_dir: &Path,
        proxies: Arc<Proxies>,
    ) -> (WorldMaker, World) {
        let revision_file = data_dir.join("revision");
        let revision = Revision::read(&revision_file).next(fingerprint(&documents));
        let revision_since = SystemTime::now();
        let mut maker = WorldMaker { reads, registered, revision, revision_since, revision_file, proxies };
        keep(revision, &maker.revision_file);
        let registrations = maker.registered.borrow_and_update().registrations.clone();
        let mut world = maker.build(1, documents, registrations, Instant::now());
        world.conditions.stamp(&Conditions::default(), this_second());
        maker.announce(&world);
        (maker, world)
    }

    /// Publishes every next world until nobody can need one: `worlds` is closed, or a source is.
    pub async fn run(mut self, worlds: watch::Sender<Arc<World>>) {
        loop {
            let before = worlds.borrow().clone();
            let (mut documents, mut registrations) = (before.documents.clone(), before.registrations.clone());
            let mut asked = Vec::new();
            tokio::select! {
                () = worlds.closed() => return,
                read = self.reads.recv() => {
                    let Some(read) = read else { return };
                    (documents, asked) = (read.documents, read.asked);
                    if Arc::ptr_eq(&documents, &before.documents) {
                        continue;
                    }
                }
                changed = self.registered.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !self.registered.borrow().urgent {
                        gather(&mut self.registered).await;
                    }
                    registrations = self.registered.borrow_and_update().registrations.clone();
                }
            }
            let (since, revision_before) = (Instant::now(), self.revision);
            let revised = !Arc::ptr_eq(&documents, &before.documents);
            if revised {
                self.revise(&documents);
            }
            let new_revision = self.revision != revision_before;
            let mut world = self.build(before.sequence + 1, documents, registrations, since);
            world.conditions.stamp(&before.conditions, this_second());
            world.follow(&before);
            if new_revision {
                tracing::info!(
                    revision = %world.revision,
                    documents = world.documents.objects.len(),
                    errors = world.documents.errors.len(),
                    "configuration changed"
                );
            }
            self.announce(&world);
            worlds.send_replace(Arc::new(world));
            drop(asked);
            if new_revision {
                let (revision, file) = (self.revision, self.revision_file.clone());
                // Only fails if the runtime shuts down, which is as good as a crash here.
                let _ = tokio::task::spawn_blocking(move || keep(revision, &file)).await;
            }
        }
    }

    fn revise(&mut self, documents: &Documents) {
        let next = self.revision.next(fingerprint(documents));
        if next != self.revision {
            (self.revision, self.revision_since) = (next, SystemTime::now());
        }
    }

    /// Before anyone sees the world: no proxy counts as synced until its stream has compared it.
    fn announce(&self, world: &World) {
        self.proxies.announce(world.sequence, &world.revision, world.revision_since);
    }

    fn build(
        &self,
        sequence: u64,
        documents: Arc<Documents>,
        registrations: Arc<Registrations>,
        since: Instant,
    ) -> World {
        let (model, conditions) = model::build(&documents, &registrations, compile::refusal);
        let revision = self.revision.to_string().into();
        let revision_since = self.revision_since;
        let trail = Trail::start(sequence);
        World {
            sequence,
            revision,
            documents,
            registrations,
            model,
            shared: Shared::default(),
            conditions,
            since,
            revision_since,
            trail,
        }
    }
}

/// Kubernetes shows times in seconds.
fn this_second() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn keep(revision: Revision, file: &Path) {
    if let Err(error) = revision.write(file) {
        let file = file.display();
        tracing::warn!(%file, %error, "cannot keep the number of the revision; it may be used twice after a restart");
    }
}

/// Waits a little for more registrations, not at all once one of them takes something out of service.
async fn gather(registered: &mut watch::Receiver<Registered>) {
    let until = tokio::time::sleep(GATHER);
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return,
            changed = registered.changed() => {
                if changed.is_err() || registered.borrow_and_update().urgent {
                    return;
                }
            }
        }
    }
}

/// Content of all documents, wherever they lie in their files. A typed document has one debug form, so equal
/// content hashes alike on every replica of one version.
fn fingerprint(documents: &Documents) -> u64 {
    struct Hash(Xxh3);
    impl fmt::Write for Hash {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut hash = Hash(Xxh3::new());
    for (key, document) in &documents.objects {
        // Writing to a hash cannot fail.
        let _ = writeln!(hash, "{key:?} {:?}", document.object);
    }
    hash.0.digest()
}

/// Identifier of one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Revision {
    number: u64,
    hash: u64,
}

impl Revision {
    /// The one that follows when the documents hash to `hash`: itself if they are the same.
    fn next(self, hash: u64) -> Revision {
        if self.number > 0 && self.hash == hash { self } else { Revision { number: self.number + 1, hash } }
    }

    /// The last one written, or the one before the first if there is none that can be read.
    fn read(file: &Path) -> Revision {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let parsed =
            text.trim().strip_prefix('r').and_then(|rest| rest.split_once('-')).and_then(|(number, hash)| {
                Some(Revision { number: number.parse().ok()?, hash: u64::from_str_radix(hash, 16).ok()? })
            });
        parsed.unwrap_or(Revision { number: 0, hash: 0 })
    }

    fn write(self, file: &Path) -> io::Result<()> {
        let text = format!("r{}-{:016x}\n", self.number, self.hash);
        crate::files::replace(file, text.as_bytes(), crate::files::Readers::Any)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}-{:08x}", self.number, self.hash >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_revision_survives_a_restart_and_counts_changes_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("revision");
        let first = Revision::read(&file).next(0xabcd_ef01_0000_0000);
        assert_eq!(first.to_string(), "r1-abcdef01");
        first.write(&file).unwrap();
        assert_eq!(Revision::read(&file).next(first.hash), first);
        assert_eq!(Revision::read(&file).next(7).number, 2);
        std::fs::write(&file, "garbage").unwrap();
        assert_eq!(Revision::read(&file).next(7).number, 1);
    }
}
