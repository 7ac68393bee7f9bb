//! What a directory of documents holds at one moment, on top of what was good in it before.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fs, io};

use crate::document::{Document, DocumentError, Documents, Origin, parse};

/// How often the directory is read at once when files come and go while it is read.
const READS_MAX: usize = 3;
/// Deepest directory below the root; a bound for links that lead in circles.
const DEPTH_MAX: usize = 16;
/// Largest file, in bytes. A thousand documents fit; what is larger is not configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What tells that a file is another one without reading it. Only used to decide whether to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device and inode: files of two releases may be written within one tick of the clock, with equal lengths.
    file: (u64, u64),
}

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) seen: BTreeMap<Arc<str>, Seen>,
    pub(super) files: ReadFiles,
    pub(super) documents: Arc<Documents>,
    /// The directory could not be read.
    pub(super) lost: bool,
}

/// By name relative to the directory.
pub(super) type ReadFiles = BTreeMap<Arc<str>, Arc<ReadFile>>;

/// The documents of one file, and its text, by which an unchanged file is known.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) text: String,
    documents: Vec<Result<Arc<Document>, Box<DocumentError>>>,
}

impl ReadFile {
    /// Whether every document of it is good.
    pub(super) fn is_good(&self) -> bool {
        self.documents.iter().all(Result::is_ok)
    }
}

impl State {
    /// What the directory holds now. Files whose text is the same are not parsed again.
    pub(super) fn next(&self, directory: &Path) -> io::Result<Self> {
        let (seen, files) = self.files_now(directory)?;
        let mut documents = Arc::new(merge(&self.documents, &files));
        if documents == self.documents {
            documents = Arc::clone(&self.documents);
        }
        Ok(Self { seen, files, documents, lost: false })
    }

    /// The files of one moment: a route that was written after its service must not be read without it.
    fn files_now(&self, directory: &Path) -> io::Result<(BTreeMap<Arc<str>, Seen>, ReadFiles)> {
        let mut seen = list(directory)?;
        for _ in 1..READS_MAX {
            let files = self.read(&seen);
            let after = list(directory)?;
            if after == seen {
                return Ok((seen, files));
            }
            seen = after;
        }
        // Somebody writes all the time; each change is told of, and read again.
        let files = self.read(&seen);
        Ok((seen, files))
    }

    fn read(&self, seen: &BTreeMap<Arc<str>, Seen>) -> ReadFiles {
        seen.iter().map(|(name, seen)| (Arc::clone(name), self.file(name, seen))).collect()
    }

    /// The directory cannot be read: what it held stays.
    pub(super) fn lost(&self, directory: &Path, error: &io::Error) -> Self {
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
pub(super) fn list(directory: &Path) -> io::Result<BTreeMap<Arc<str>, Seen>> {
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
fn merge(previous: &Documents, files: &ReadFiles) -> Documents {
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
pub(super) mod tests {
    use super::*;

    /// A document.
    pub(in crate::source::file) fn service(name: &str, port: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        )
    }

    /// Each service with its port, and how many errors.
    pub(in crate::source::file) fn shown(documents: &Arc<Documents>) -> String {
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
}
