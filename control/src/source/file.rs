//! A directory of documents as the source of configuration: `*.yaml`, `*.yml` and `*.json` at any depth, in order
//! of their names, nothing hidden (so neither editors' swap files nor the `..data` of a mounted ConfigMap).
//!
//! A change settles within 100 ms. One document that is wrong, or half written, changes nothing of the others, and
//! its last good version stays, over a restart too. File times never count: the same content means the same on every replica.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::document::Documents;
use kept::Kept;
use state::{State, list};

mod kept;
mod state;

/// A burst of changes is over when nothing happened for this long.
const QUIET: Duration = Duration::from_millis(20);
/// A burst is taken as it is after this long, so that constant writing cannot hold a change back.
const SETTLE_MAX: Duration = Duration::from_millis(80);
/// How often the directory is looked at without being told of a change: the kernel does not tell of a directory
/// that is reached by a symbolic link which now points elsewhere, nor of changes made by other machines on a
/// network file system.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A directory of documents, watched.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    state: Arc<State>,
    /// Taken by [`Directory::run`].
    kept: Kept,
    changes: Arc<Notify>,
    /// A change was seen and is not read yet; survives a cancelled [`Directory::changed`].
    dirty: bool,
    /// Kept because dropping it ends the watch. `None` where the kernel watches nothing more: then we look.
    watcher: Option<RecommendedWatcher>,
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// The newest set of documents; the same `Arc` as before if nothing changed.
    pub documents: Arc<Documents>,
    /// Those who wait for just this; to be dropped when it is served.
    pub asked: Vec<oneshot::Sender<()>>,
}

/// Asks a [`Directory`] that runs to look now, instead of when it is told of a change.
#[derive(Debug, Clone)]
pub struct LookNow(mpsc::Sender<oneshot::Sender<()>>);

/// Questions that wait while an earlier one is answered; more wait in line.
const ASKED_COUNT_MAX: usize = 64;

impl LookNow {
    /// The handle, and what [`Directory::run`] takes.
    pub fn new() -> (LookNow, mpsc::Receiver<oneshot::Sender<()>>) {
        let (sender, receiver) = mpsc::channel(ASKED_COUNT_MAX);
        (LookNow(sender), receiver)
    }

    /// Until everything that was in the directory before the call is served, or nothing is served any more.
    pub async fn ask(&self) {
        let (asked, served) = oneshot::channel();
        if self.0.send(asked).await.is_ok() {
            // It is dropped, not answered.
            let _ = served.await;
        }
    }
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
        source: io::Error,
    },
}

impl Directory {
    /// Reads `path` and watches it from then on. What is broken in it is as it last was in `copies`, a folder of its own.
    pub fn open(path: &Path, copies: &Path) -> Result<Self, DirectoryError> {
        let unreadable = |source| DirectoryError::Read { path: path.to_owned(), source };
        // Before anything is said of watching it.
        std::fs::read_dir(path).map_err(unreadable)?;
        // Watch first: what changes while we read is read again.
        let changes = Arc::new(Notify::new());
        let watcher = watch(path, &changes);
        let (kept, before) = Kept::open(copies.to_owned());
        let state = before.next(path).map_err(unreadable)?;
        report(&state.documents, &Documents::default());
        Ok(Self { path: path.to_owned(), state: Arc::new(state), kept, changes, dirty: false, watcher })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest set of documents.
    pub fn documents(&self) -> Arc<Documents> {
        Arc::clone(&self.state.documents)
    }

    /// Sends every change, and an answer to everyone who asks, until nobody receives.
    pub async fn run(mut self, looks: mpsc::Receiver<oneshot::Sender<()>>, reads: mpsc::Sender<Read>) {
        let (sender, states) = watch::channel(Arc::clone(&self.state));
        let kept = std::mem::take(&mut self.kept);
        tokio::join!(self.send(looks, reads, sender), kept.keep(states));
    }

    async fn send(
        mut self,
        mut looks: mpsc::Receiver<oneshot::Sender<()>>,
        reads: mpsc::Sender<Read>,
        states: watch::Sender<Arc<State>>,
    ) {
        loop {
            let mut asked = Vec::new();
            tokio::select! {
                () = reads.closed() => return,
                () = self.changed() => {}
                1.. = looks.recv_many(&mut asked, ASKED_COUNT_MAX) => { self.look().await; }
            }
            if reads.send(Read { documents: self.documents(), asked }).await.is_err() {
                return;
            }
            states.send_replace(Arc::clone(&self.state));
        }
    }

    /// Waits until the set of documents is another one. Cancel-safe.
    async fn changed(&mut self) {
        loop {
            if !self.dirty {
                let told = tokio::time::timeout(LOOK_EVERY, self.changes.notified()).await.is_ok();
                self.dirty = told || self.looks_different().await;
                if !self.dirty {
                    continue;
                }
            }
            if self.look().await {
                return;
            }
        }
    }

    /// Reads what is there now, a burst of changes to its end; whether the documents are others. Cancel-safe.
    async fn look(&mut self) -> bool {
        self.dirty = true;
        self.settle().await;
        self.read().await
    }

    /// Waits for the end of a burst of changes.
    async fn settle(&self) {
        let latest = Instant::now() + SETTLE_MAX;
        while timeout_at(latest.min(Instant::now() + QUIET), self.changes.notified()).await.is_ok() {}
    }

    /// Whether files came, went or were written without the watch telling us; sets the watch up again if so.
    async fn looks_different(&mut self) -> bool {
        let path = self.path.clone();
        let seen = tokio::task::spawn_blocking(move || list(&path)).await;
        let different = match seen {
            Ok(Ok(seen)) => self.state.lost || seen != self.state.seen,
            // Nothing to list: the last good documents stay, and reading says why.
            Ok(Err(_)) => !self.state.lost,
            Err(_) => false,
        };
        if different || self.watcher.is_none() {
            self.watcher = watch(&self.path, &self.changes);
        }
        different
    }

    /// Reads what changed; whether the documents did.
    async fn read(&mut self) -> bool {
        let (path, state) = (self.path.clone(), Arc::clone(&self.state));
        let read = tokio::task::spawn_blocking(move || {
            state.next(&path).unwrap_or_else(|error| state.lost(&path, &error))
        });
        let Ok(next) = read.await else { return false };
        self.dirty = false;
        let previous = std::mem::replace(&mut self.state, Arc::new(next));
        if Arc::ptr_eq(&previous.documents, &self.state.documents) {
            return false;
        }
        report(&self.state.documents, &previous.documents);
        true
    }
}

/// Tells of the errors that are new, so each is logged once, and of those that are gone.
fn report(documents: &Documents, previous: &Documents) {
    for error in documents.errors.iter().filter(|error| !previous.errors.contains(error)) {
        let object = error.key.as_ref().map(ToString::to_string);
        warn!(at = %error.origin, object, reason = error.reason, last_good_serves = error.last_good_serves,
            "document refused");
    }
    if documents.errors.is_empty() && !previous.errors.is_empty() {
        info!("every document is good again");
    }
}

fn watch(path: &Path, changes: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let told = Arc::clone(changes);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is an event too. An error means events were lost, so it counts as a change.
        if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
            told.notify_one();
        }
    });
    let watching = watcher.and_then(|mut watcher| {
        watcher.watch(path, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(|error| {
            warn!(path = %path.display(), %error, "cannot watch the directory, looking every {LOOK_EVERY:?}");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::state::tests::{service, shown};
    use super::*;

    async fn changed(source: &mut Directory) -> String {
        source.changed().await;
        shown(&source.documents())
    }

    #[tokio::test]
    async fn a_change_is_seen_however_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        fs::write(path.join("a.yaml"), service("a", "1")).unwrap();
        let mut source = Directory::open(&path, Path::new("/nowhere")).unwrap();
        assert_eq!(shown(&source.documents()), "a:1 errors=0");

        fs::write(path.join("a.yaml"), service("a", "2")).unwrap();
        assert_eq!(changed(&mut source).await, "a:2 errors=0");

        // As editors and deployment tools do: a new file takes the name.
        fs::write(path.join("new"), service("a", "3")).unwrap();
        fs::rename(path.join("new"), path.join("a.yaml")).unwrap();
        assert_eq!(changed(&mut source).await, "a:3 errors=0");

        // A directory that came later is watched as well.
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/b.yaml"), service("b", "1")).unwrap();
        assert_eq!(changed(&mut source).await, "a:3 b:1 errors=0");
        fs::remove_dir_all(path.join("sub")).unwrap();
        assert_eq!(changed(&mut source).await, "a:3 errors=0");

        // A cancelled wait loses nothing.
        fs::write(path.join("a.yaml"), service("a", "4")).unwrap();
        let waited = tokio::time::timeout(QUIET / 2, source.changed()).await;
        assert!(waited.is_err(), "settled in less than the quiet time");
        assert_eq!(changed(&mut source).await, "a:4 errors=0");
    }

    #[tokio::test]
    async fn a_directory_that_goes_away_keeps_its_documents_and_may_come_back() {
        let parent = tempfile::tempdir().unwrap();
        let (path, away) = (parent.path().join("mesh"), parent.path().join("away"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.yaml"), service("a", "1")).unwrap();
        let mut source = Directory::open(&path, Path::new("/nowhere")).unwrap();

        fs::rename(&path, &away).unwrap();
        assert_eq!(changed(&mut source).await, "a:1 errors=1");
        fs::rename(&away, &path).unwrap();
        assert_eq!(changed(&mut source).await, "a:1 errors=0");

        // What comes back is watched again.
        fs::write(path.join("a.yaml"), service("a", "2")).unwrap();
        assert_eq!(changed(&mut source).await, "a:2 errors=0");
    }

    #[tokio::test]
    async fn a_link_to_a_release_may_point_to_another_one() {
        use std::os::unix::fs::symlink;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("current");
        for release in ["1", "2"] {
            fs::create_dir(parent.path().join(release)).unwrap();
            fs::write(parent.path().join(release).join("a.yaml"), service("a", release)).unwrap();
        }
        symlink("1", &path).unwrap();
        let mut source = Directory::open(&path, Path::new("/nowhere")).unwrap();

        // No watch tells of this one; looking finds it.
        symlink("2", parent.path().join("next")).unwrap();
        fs::rename(parent.path().join("next"), &path).unwrap();
        assert_eq!(changed(&mut source).await, "a:2 errors=0");
        fs::write(path.join("a.yaml"), service("a", "3")).unwrap();
        assert_eq!(changed(&mut source).await, "a:3 errors=0");
    }

    #[tokio::test]
    async fn a_mounted_config_map_is_swapped_as_a_whole() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let version = |name: &str, port: &str| {
            fs::create_dir(path.join(name)).unwrap();
            fs::write(path.join(name).join("a.yaml"), service("a", port)).unwrap();
        };
        version("..1", "1");
        symlink("..1", path.join("..data")).unwrap();
        symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
        let mut source = Directory::open(&path, Path::new("/nowhere")).unwrap();
        assert_eq!(shown(&source.documents()), "a:1 errors=0");

        version("..2", "2");
        symlink("..2", path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        fs::remove_dir_all(path.join("..1")).unwrap();
        assert_eq!(changed(&mut source).await, "a:2 errors=0");
    }
}
