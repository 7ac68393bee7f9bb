//! The generated reference and schemas under `control/reference/` are those of this code. `UPDATE=1` rewrites them.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use ringway::document::reference;

#[test]
fn the_reference_and_the_schemas_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference");
    let mut files = vec![(folder.join("documents.md"), reference::markdown())];
    for (name, text) in reference::schema_files() {
        files.push((folder.join("schema").join(name), text));
    }
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(folder.join("schema")).unwrap();
    }
    for (path, text) in &files {
        if env::var_os("UPDATE").is_some() {
            fs::write(path, text).unwrap();
        }
        let found = fs::read_to_string(path).unwrap_or_default();
        assert!(found == *text, "{} is not current; UPDATE=1 rewrites it", path.display());
    }
    let expected: BTreeSet<_> = files.iter().skip(1).map(|(path, _)| path.clone()).collect();
    let found: BTreeSet<_> =
        fs::read_dir(folder.join("schema")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_field_says_what_it_means() {
    for line in reference::markdown().lines().filter(|line| line.starts_with("| `")) {
        assert!(!line.ends_with("|  |"), "{line}");
    }
}
