//! A directory of documents as the source of configuration: `*.yaml`, `*.yml` and `*.json` at any depth, in order
//! of their names, nothing hidden (so neither editors' swap files nor the `..data` of a mounted ConfigMap).
//!
//! A change settles within 100 ms. One document that is wrong, or half written, changes nothing of the others, and
//! its last good version stays. File times never count: the same content means the same on every replica.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::document::{Document, DocumentError, Documents, Origin, parse};

/// A burst of changes is over when nothing happened for this long.
const QUIET: Duration = Duration::from_millis(20);
/// A burst is taken as it is after this long, so that constant writing cannot hold a change back.
const SETTLE_MAX: Duration = Duration::from_millis(80);
/// How often the directory is looked at without being told of a change: the kernel does not tell of a directory
/// that is reached by a symbolic link which now points elsewhere, nor of changes made by other machines on a
/// network file system.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Deepest directory below the root; a bound for links that lead in circles.
const DEPTH_MAX: usize = 16;
/// Largest file, in bytes. A thousand documents fit; what is larger is not configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A directory of documents, watched.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    state: Arc<State>,
    changes: Arc<Notify>,
    /// A change was seen and is not read yet; survives a cancelled [`Directory::changed`].
    dirty: bool,
    /// Kept because dropping it ends the watch. `None` where the kernel watches nothing more: then we look.
    watcher: Option<RecommendedWatcher>,
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
    /// Reads `path` and watches it from then on.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        // Watch first: what changes while we read is read again.
        let changes = Arc::new(Notify::new());
        let watcher = watch(path, &changes);
        let state = State::default()
            .next(path)
            .map_err(|source| DirectoryError::Read { path: path.to_owned(), source })?;
        report(&state.documents, &Documents::default());
        Ok(Self { path: path.to_owned(), state: Arc::new(state), changes, dirty: false, watcher })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest set of documents.
    pub fn documents(&self) -> Arc<Documents> {
        Arc::clone(&self.state.documents)
    }

    /// Waits until the set of documents is another one, and returns it. Cancel-safe.
    pub async fn changed(&mut self) -> Arc<Documents> {
        loop {
            if !self.dirty {
                let told = tokio::time::timeout(LOOK_EVERY, self.changes.notified()).await.is_ok();
                self.dirty = told || self.looks_different().await;
                if !self.dirty {
                    continue;
                }
            }
            self.settle().await;
            if self.read().await {
                return self.documents();
            }
        }
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
        if previous.documents == self.state.documents {
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

/// What tells that a file is another one without reading it. Only used to decide whether to read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device and inode: files of two releases may be written within one tick of the clock, with equal lengths.
    file: (u64, u64),
}

/// What was read last.
#[derive(Debug, Default)]
struct State {
    seen: BTreeMap<Arc<str>, Seen>,
    files: BTreeMap<Arc<str>, Arc<ReadFile>>,
    documents: Arc<Documents>,
    /// The directory could not be read.
    lost: bool,
}

/// The documents of one file, and its text, by which an unchanged file is known.
#[derive(Debug)]
struct ReadFile {
    text: String,
    documents: Vec<Result<Arc<Document>, Box<DocumentError>>>,
}

impl State {
    /// What the directory holds now. Files whose text is the same are not parsed again.
    fn next(&self, directory: &Path) -> io::Result<Self> {
        let seen = list(directory)?;
        let files: BTreeMap<_, _> =
            seen.iter().map(|(name, seen)| (Arc::clone(name), self.file(name, seen))).collect();
        let documents = Arc::new(merge(&self.documents, &files));
        Ok(Self { seen, files, documents, lost: false })
    }

    /// The directory cannot be read: what it held stays.
    fn lost(&self, directory: &Path, error: &io::Error) -> Self {
        let file = directory.display().to_string().into();
        let error = DocumentError {
            origin: Origin { file, line: 1, column: 1 },
            key: None,
            reason: format!("cannot be read: {error}"),
            last_good_serves: true,
        };
        let documents = Documents { objects: self.documents.objects.clone(), errors: vec![error] };
        Self {
            seen: self.seen.clone(),
            files: self.files.clone(),
            documents: Arc::new(documents),
            lost: true,
        }
    }

    fn file(&self, name: &Arc<str>, seen: &Seen) -> Arc<ReadFile> {
        let text = match read_text(seen) {
            Ok(text) => text,
            Err(error) => {
                let error = DocumentError {
                    origin: Origin { file: Arc::clone(name), line: 1, column: 1 },
                    key: None,
                    reason: format!("cannot be read: {error}"),
                    last_good_serves: false,
                };
                return Arc::new(ReadFile { text: String::new(), documents: vec![Err(Box::new(error))] });
            }
        };
        match self.files.get(name) {
            Some(file) if file.text == text => Arc::clone(file),
            _ => {
                let documents =
                    parse(name, &text).into_iter().map(|document| document.map(Arc::new)).collect();
                Arc::new(ReadFile { text, documents })
            }
        }
    }
}

fn read_text(seen: &Seen) -> io::Result<String> {
    if seen.bytes > FILE_BYTES_MAX {
        let reason = format!("{} bytes are more than {FILE_BYTES_MAX}", seen.bytes);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    fs::read_to_string(&seen.path)
}

/// Every file of documents below `directory`, by its name relative to it.
fn list(directory: &Path) -> io::Result<BTreeMap<Arc<str>, Seen>> {
    let mut found = BTreeMap::new();
    let mut open = vec![(directory.to_owned(), String::new(), 0)];
    while let Some((path, prefix, depth)) = open.pop() {
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(error),
            // Gone since its parent was listed, or not ours to read: it has no documents.
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            // Follows symbolic links.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            let relative = format!("{prefix}{name}");
            if metadata.is_dir() && depth < DEPTH_MAX {
                open.push((entry.path(), format!("{relative}/"), depth + 1));
            } else if metadata.is_file() && is_document(&name) {
                let seen = Seen {
                    path: entry.path(),
                    bytes: metadata.len(),
                    modified: metadata.modified().ok(),
                    file: (metadata.dev(), metadata.ino()),
                };
                found.insert(relative.into(), seen);
            }
        }
    }
    Ok(found)
}

fn is_document(name: &str) -> bool {
    matches!(name.rsplit_once('.'), Some((stem, "yaml" | "yml" | "json")) if !stem.is_empty())
}

/// The set of documents of these files. Where a document is wrong, its last good version in `previous` stays; where
/// not even its name can be read, so does everything that its file had before and has no more.
fn merge(previous: &Documents, files: &BTreeMap<Arc<str>, Arc<ReadFile>>) -> Documents {
    let mut next = Documents::default();
    let mut broken = Vec::new();
    for document in files.values().flat_map(|file| &file.documents) {
        match document {
            Ok(document) => match next.objects.get(&document.key) {
                None => {
                    next.objects.insert(document.key.clone(), Arc::clone(document));
                }
                Some(first) => next.errors.push(DocumentError {
                    origin: document.origin.clone(),
                    key: Some(document.key.clone()),
                    reason: format!("{} is already defined at {}", document.key, first.origin),
                    last_good_serves: false,
                }),
            },
            Err(error) => broken.push(error),
        }
    }
    let good: BTreeSet<_> = next.objects.keys().cloned().collect();
    for error in broken {
        let kept: Vec<_> = match &error.key {
            Some(key) => previous.objects.get(key).into_iter().collect(),
            None => {
                let of_file = |document: &&Arc<Document>| document.origin.file == error.origin.file;
                previous.objects.values().filter(of_file).collect()
            }
        };
        let mut last_good_serves = false;
        for document in kept {
            if !good.contains(&document.key) {
                next.objects.insert(document.key.clone(), Arc::clone(document));
                last_good_serves = true;
            }
        }
        next.errors.push(DocumentError { last_good_serves, ..(**error).clone() });
    }
    next.errors.sort_by(|a, b| a.origin.cmp(&b.origin));
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        )
    }

    fn shown(documents: &Arc<Documents>) -> String {
        let objects: Vec<_> = documents
            .objects
            .values()
            .map(|document| {
                let crate::document::Object::Service(service) = &document.object else {
                    panic!("no service")
                };
                format!("{}:{}", document.key.name, service.spec.ports[0].port)
            })
            .collect();
        format!("{} errors={}", objects.join(" "), documents.errors.len())
    }

    #[test]
    fn a_wrong_document_keeps_its_last_good_version_and_the_others_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
        write("one.yaml", service("a", "1") + &service("b", "1"));
        write("two.yml", service("c", "1"));
        write(".hidden.yaml", service("hidden", "1"));
        write("two.yml~", service("backup", "1"));
        fs::create_dir(directory.path().join("sub")).unwrap();
        write("sub/three.json", r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "d"}, "spec": {"ports": [{"port": 1}]}}"#.to_owned());
        let mut state = State::default().next(directory.path()).unwrap();
        assert_eq!(shown(&state.documents), "a:1 b:1 c:1 d:1 errors=0");

        // Each step changes one file and is read on top of what was read before.
        let steps = [
            ("b is wrong", "one.yaml", service("a", "2") + &service("b", "x"), "a:2 b:1 c:1 d:1 errors=1"),
            ("not yaml at all", "one.yaml", "]".to_owned(), "a:2 b:1 c:1 d:1 errors=1"),
            (
                "a came back, b cannot be told",
                "one.yaml",
                service("a", "3") + "---\n[",
                "a:3 b:1 c:1 d:1 errors=1",
            ),
            ("b is gone", "one.yaml", service("a", "3"), "a:3 c:1 d:1 errors=0"),
            ("c is defined twice", "two.yml", service("c", "2") + &service("a", "9"), "a:3 c:2 d:1 errors=1"),
            ("not text", "two.yml", String::from("\0"), "a:3 c:2 d:1 errors=1"),
            ("empty", "two.yml", String::new(), "a:3 d:1 errors=0"),
        ];
        for (what, name, text, expected) in steps {
            write(name, text);
            state = state.next(directory.path()).unwrap();
            assert_eq!(shown(&state.documents), expected, "{what}");
        }

        fs::remove_file(directory.path().join("one.yaml")).unwrap();
        state = state.next(directory.path()).unwrap();
        assert_eq!(shown(&state.documents), "d:1 errors=0");
        let lost = state.lost(directory.path(), &io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(shown(&lost.documents), "d:1 errors=1");
    }

    #[tokio::test]
    async fn a_change_is_seen_however_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        fs::write(path.join("a.yaml"), service("a", "1")).unwrap();
        let mut source = Directory::open(&path).unwrap();
        assert_eq!(shown(&source.documents()), "a:1 errors=0");

        fs::write(path.join("a.yaml"), service("a", "2")).unwrap();
        assert_eq!(shown(&source.changed().await), "a:2 errors=0");

        // As editors and deployment tools do: a new file takes the name.
        fs::write(path.join("new"), service("a", "3")).unwrap();
        fs::rename(path.join("new"), path.join("a.yaml")).unwrap();
        assert_eq!(shown(&source.changed().await), "a:3 errors=0");

        // A directory that came later is watched as well.
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/b.yaml"), service("b", "1")).unwrap();
        assert_eq!(shown(&source.changed().await), "a:3 b:1 errors=0");
        fs::remove_dir_all(path.join("sub")).unwrap();
        assert_eq!(shown(&source.changed().await), "a:3 errors=0");

        // A cancelled wait loses nothing.
        fs::write(path.join("a.yaml"), service("a", "4")).unwrap();
        let waited = tokio::time::timeout(QUIET / 2, source.changed()).await;
        assert!(waited.is_err(), "settled in less than the quiet time");
        assert_eq!(shown(&source.changed().await), "a:4 errors=0");
    }

    #[tokio::test]
    async fn a_directory_that_goes_away_keeps_its_documents_and_may_come_back() {
        let parent = tempfile::tempdir().unwrap();
        let (path, away) = (parent.path().join("mesh"), parent.path().join("away"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.yaml"), service("a", "1")).unwrap();
        let mut source = Directory::open(&path).unwrap();

        fs::rename(&path, &away).unwrap();
        assert_eq!(shown(&source.changed().await), "a:1 errors=1");
        fs::rename(&away, &path).unwrap();
        assert_eq!(shown(&source.changed().await), "a:1 errors=0");

        // What comes back is watched again.
        fs::write(path.join("a.yaml"), service("a", "2")).unwrap();
        assert_eq!(shown(&source.changed().await), "a:2 errors=0");
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
        let mut source = Directory::open(&path).unwrap();

        // No watch tells of this one; looking finds it.
        symlink("2", parent.path().join("next")).unwrap();
        fs::rename(parent.path().join("next"), &path).unwrap();
        assert_eq!(shown(&source.changed().await), "a:2 errors=0");
        fs::write(path.join("a.yaml"), service("a", "3")).unwrap();
        assert_eq!(shown(&source.changed().await), "a:3 errors=0");
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
        let mut source = Directory::open(&path).unwrap();
        assert_eq!(shown(&source.documents()), "a:1 errors=0");

        version("..2", "2");
        symlink("..2", path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        fs::remove_dir_all(path.join("..1")).unwrap();
        assert_eq!(shown(&source.changed().await), "a:2 errors=0");
    }
}
