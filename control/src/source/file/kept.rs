//! Copies of files in which every document was good, in the data directory. A control plane that starts while a file is broken
//! serves what the file last was; without them it would serve nothing of it, and a policy that nobody can read would forbid
//! nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use tokio::sync::watch;
use tracing::warn;

use super::state::{ReadFile, State};
use crate::files::{self, Readers};

/// A folder of copies.
#[derive(Debug, Default)]
pub(super) struct Kept {
    folder: PathBuf,
    /// What each copy is of.
    files: BTreeMap<Arc<str>, Arc<ReadFile>>,
}

impl Kept {
    /// The copies below `folder`, and what they say together.
    pub(super) fn open(folder: PathBuf) -> (Kept, State) {
        let state = match fs::exists(&folder) {
            Ok(true) => State::default().next(&folder),
            Ok(false) => Ok(State::default()),
            Err(error) => Err(error),
        };
        let state = state.unwrap_or_else(|error| {
            warn!(folder = %folder.display(), %error, "cannot read what documents were before");
            State::default()
        });
        (Kept { folder, files: state.files.clone() }, state)
    }

    /// Writes down every state, until there are no more.
    pub(super) async fn keep(mut self, mut states: watch::Receiver<Arc<State>>) {
        loop {
            let state = states.borrow_and_update().clone();
            let written = tokio::task::spawn_blocking(move || {
                self.write(&state);
                self
            });
            match written.await {
                Ok(kept) => self = kept,
                Err(_) => return,
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Copies what is new and good, and removes what is gone.
    fn write(&mut self, state: &State) {
        let gone: Vec<_> =
            self.files.keys().filter(|name| !state.files.contains_key(*name)).cloned().collect();
        for name in gone {
            self.tell(&name, fs::remove_file(self.folder.join(&*name)));
            self.files.remove(&name);
        }
        for (name, file) in state.files.iter().filter(|(_, file)| file.is_good()) {
            if self.files.get(name).is_some_and(|kept| kept.text == file.text) {
                continue;
            }
            self.tell(name, copy(&self.folder.join(&**name), &file.text));
            // One that cannot be written is tried again when it changes.
            self.files.insert(Arc::clone(name), Arc::clone(file));
        }
    }

    fn tell(&self, name: &str, done: io::Result<()>) {
        if let Err(error) = done {
            warn!(folder = %self.folder.display(), file = name, %error, "cannot keep a copy of what is good");
        }
    }
}

fn copy(to: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    files::replace(to, text.as_bytes(), Readers::Owner)
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::{service, shown};
    use super::*;

    #[test]
    fn what_was_good_before_a_restart_serves_while_it_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let (mesh, copies) = (folder.path().join("mesh"), folder.path().join("data/documents"));
        fs::create_dir_all(mesh.join("sub")).unwrap();
        let write = |name: &str, text: String| fs::write(mesh.join(name), text).unwrap();
        // As a control plane that starts, reads once, and ends.
        let restart = || {
            let (mut kept, before) = Kept::open(copies.clone());
            let state = before.next(&mesh).unwrap();
            kept.write(&state);
            shown(&state.documents)
        };
        write("one.yaml", service("a", "1") + &service("b", "1"));
        write("sub/two.yaml", service("c", "1"));
        assert_eq!(restart(), "a:1 b:1 c:1 errors=0");
        let steps = [
            (
                "one document is wrong",
                "one.yaml",
                service("a", "2") + &service("b", "x"),
                "a:2 b:1 c:1 errors=1",
            ),
            ("a whole file is", "sub/two.yaml", "]".to_owned(), "a:2 b:1 c:1 errors=2"),
            ("still", "sub/two.yaml", "[".to_owned(), "a:2 b:1 c:1 errors=2"),
            ("good again", "one.yaml", service("b", "3"), "b:3 c:1 errors=1"),
            ("and wrong", "one.yaml", service("b", "y"), "b:3 c:1 errors=2"),
            ("empty", "sub/two.yaml", String::new(), "b:3 errors=1"),
        ];
        for (what, name, text, expected) in steps {
            write(name, text);
            assert_eq!(restart(), expected, "{what}");
        }
        fs::remove_file(mesh.join("one.yaml")).unwrap();
        assert_eq!(restart(), " errors=0");
        assert!(!copies.join("one.yaml").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_read_or_written_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mesh = folder.path().join("mesh");
        fs::create_dir(&mesh).unwrap();
        fs::write(mesh.join("a.yaml"), service("a", "1")).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "no folder").unwrap();
        let (mut kept, before) = Kept::open(file);
        let state = before.next(&mesh).unwrap();
        kept.write(&state);
        assert_eq!(shown(&state.documents), "a:1 errors=0");
    }
}
