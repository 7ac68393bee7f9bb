//! The last good configuration on disk: what the control plane sent and was accepted, to start from while it is away.
//!
//! One file per proxy, named after its node, in a folder that only its user may read. It is written whole to a file
//! beside it and renamed over the old one, so there is never half a file; a checksum tells the rest. A file that cannot
//! be used is a warning and no more: the control plane will send everything again.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message;
use proto::ads::Resource;
use xxhash_rust::xxh3::xxh3_64;

use crate::xds::Kind;

/// First bytes of the file; the digit counts formats.
const MAGIC: &[u8; 8] = b"RINGWAY1";
/// [`MAGIC`] and the checksum, xxh3-64 over the rest, little endian.
const HEAD_BYTES: usize = 16;

/// Accepted resources of the control plane, as they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastGood {
    resources: BTreeMap<Kind, BTreeMap<String, Resource>>,
    revisions: BTreeMap<Kind, String>,
}

/// Where one proxy's file is.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    node: String,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kernel refused.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is cut short, damaged, of another format, or of another node.
    #[error("{path} is not a whole state file of this proxy: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The content of a file.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    /// Whose it is: cluster, NUL, id.
    #[prost(string, tag = "1")]
    node: String,
    #[prost(message, repeated, tag = "2")]
    types: Vec<StoredType>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredType {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    revision: String,
    #[prost(message, repeated, tag = "3")]
    resources: Vec<Resource>,
}

impl LastGood {
    /// Takes in an accepted resource. Its body is copied, so that it does not hold the buffer of a whole response.
    pub fn insert(&mut self, kind: Kind, resource: &Resource) {
        let mut resource = resource.clone();
        if let Some(body) = &mut resource.resource {
            body.value = Bytes::copy_from_slice(&body.value);
        }
        self.resources.entry(kind).or_default().insert(resource.name.clone(), resource);
    }

    /// The resource is gone.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        if let Some(resources) = self.resources.get_mut(&kind) {
            resources.remove(name);
        }
    }

    /// Keeps only the named resources of a type.
    pub fn retain(&mut self, kind: Kind, keep: impl Fn(&str) -> bool) {
        if let Some(resources) = self.resources.get_mut(&kind) {
            resources.retain(|name, _| keep(name));
        }
    }

    /// The control plane answered for a type, with this word for its state. Only such types are written to disk.
    pub fn set_revision(&mut self, kind: Kind, revision: &str) {
        self.revisions.insert(kind, revision.to_owned());
    }

    /// Every resource, clusters first.
    pub fn resources(&self) -> impl Iterator<Item = (Kind, &Resource)> {
        self.resources
            .iter()
            .flat_map(|(kind, resources)| resources.values().map(|resource| (*kind, resource)))
    }

    /// The control plane's words for the states of the types that it ever answered for.
    pub fn revisions(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.revisions.iter().map(|(kind, revision)| (*kind, revision.as_str()))
    }

    /// Whether there is nothing to start from.
    pub fn is_empty(&self) -> bool {
        self.resources.values().all(BTreeMap::is_empty)
    }

    fn encode(&self, node: &str) -> Vec<u8> {
        let types = self.revisions.iter().map(|(kind, revision)| StoredType {
            type_url: kind.type_url().to_owned(),
            revision: revision.clone(),
            resources: self.resources.get(kind).into_iter().flat_map(BTreeMap::values).cloned().collect(),
        });
        let body = Stored { node: node.to_owned(), types: types.collect() }.encode_to_vec();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&xxh3_64(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    fn decode(bytes: &[u8], node: &str) -> Result<LastGood, &'static str> {
        let Some((magic, rest)) = bytes.split_first_chunk::<8>() else { return Err("it is cut short") };
        if magic != MAGIC {
            return Err("it has another format");
        }
        let Some((checksum, body)) = rest.split_first_chunk::<8>() else { return Err("it is cut short") };
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err("its checksum is wrong");
        }
        let stored = Stored::decode(body).map_err(|_| "its content cannot be decoded")?;
        if stored.node != node {
            return Err("it belongs to another node");
        }
        let mut last_good = LastGood::default();
        for of_type in stored.types {
            // A type that this version does not know was written by another one.
            let Some(kind) = Kind::of(&of_type.type_url) else { continue };
            last_good.revisions.insert(kind, of_type.revision);
            let resources = of_type.resources.into_iter().map(|resource| (resource.name.clone(), resource));
            last_good.resources.entry(kind).or_default().extend(resources);
        }
        Ok(last_good)
    }
}

impl StateFile {
    /// The file of a node under `data_dir`. Two proxies with different nodes never share one.
    pub fn of(data_dir: &Path, node_cluster: &str, node_id: &str) -> StateFile {
        let node = format!("{node_cluster}\0{node_id}");
        let path = data_dir.join(format!("last-good-{:016x}.bin", xxh3_64(node.as_bytes())));
        StateFile { path, node }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was written last; `None` if nothing ever was.
    pub fn read(&self) -> Result<Option<LastGood>, ReadError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ReadError::Io { path: self.path.clone(), source }),
        };
        match LastGood::decode(&bytes, &self.node) {
            Ok(last_good) => Ok(Some(last_good)),
            Err(reason) => Err(ReadError::Corrupt { path: self.path.clone(), reason }),
        }
    }

    /// Writes all of it. Blocks for as long as the disk takes.
    pub fn write(&self, last_good: &LastGood) -> Result<(), WriteError> {
        let bytes = last_good.encode(&self.node);
        replace(&self.path, &bytes).map_err(|source| WriteError { path: self.path.clone(), source })
    }
}

/// Puts a file that only its user may read, since there may be secrets in it, in the place of what is there, if anything is:
/// whole, or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The rename itself is on disk only when its folder is.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use proto::ads::Any;

    use super::*;

    fn resource(name: &str, version: &str) -> Resource {
        let body = Any { type_url: Kind::Cluster.type_url().into(), value: Bytes::from(name.repeat(9)) };
        Resource { version: version.into(), resource: Some(body), name: name.into() }
    }

    fn some() -> LastGood {
        let mut last_good = LastGood::default();
        for name in ["pay", "cart"] {
            last_good.insert(Kind::Cluster, &resource(name, "1"));
        }
        last_good.insert(Kind::Listener, &resource("in", "4"));
        Kind::ALL.into_iter().for_each(|kind| last_good.set_revision(kind, "r9"));
        last_good
    }

    fn read_types(last_good: &LastGood) -> Vec<(Kind, &str)> {
        last_good.resources().map(|(kind, resource)| (kind, resource.name.as_str())).collect()
    }

    #[test]
    fn what_was_written_is_read_again_by_the_same_node_only() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("not/there/yet");
        let file = StateFile::of(&data_dir, "web", "web-1");
        assert!(file.read().unwrap().is_none());
        let mut last_good = some();
        file.write(&last_good).unwrap();
        last_good.remove(Kind::Cluster, "pay");
        last_good.insert(Kind::Listener, &resource("in", "5"));
        file.write(&last_good).unwrap();
        let read = file.read().unwrap().unwrap();
        assert_eq!(read_types(&read), [(Kind::Cluster, "cart"), (Kind::Listener, "in")]);
        assert_eq!(read.resources().last().unwrap().1.version, "5");
        assert_eq!(read.revisions().next(), Some((Kind::Cluster, "r9")));
        for (cluster, id) in [("web", "web-2"), ("cart", "web-1"), ("webweb-1", "")] {
            assert!(StateFile::of(&data_dir, cluster, id).read().unwrap().is_none(), "{cluster} {id}");
        }
        let others = StateFile { path: file.path.clone(), node: "web\0web-2".into() };
        assert!(others.read().unwrap_err().to_string().ends_with("it belongs to another node"));
    }

    #[test]
    fn a_damaged_file_is_refused_wherever_the_damage_is() {
        let bytes = some().encode("n");
        let decoded = LastGood::decode(&bytes, "n").unwrap();
        assert_eq!(read_types(&decoded), read_types(&some()));
        for length in 0..bytes.len() {
            assert!(LastGood::decode(&bytes[..length], "n").is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(LastGood::decode(&damaged, "n").is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_file_is_for_its_user_only_and_nothing_else_is_left_beside_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::of(&folder.path().join("state"), "web", "web-1");
        file.write(&some()).unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let parent = file.path().parent().unwrap();
        assert_eq!(fs::metadata(parent).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(parent).unwrap().count(), 1);
    }

    #[test]
    fn a_stored_body_does_not_hold_the_buffer_it_came_in() {
        let buffer = Bytes::from(vec![b'x'; 4096]);
        let mut received = resource("a", "1");
        received.resource.as_mut().unwrap().value = buffer.slice(100..110);
        let mut last_good = LastGood::default();
        last_good.insert(Kind::Cluster, &received);
        let stored = last_good.resources().next().unwrap().1.resource.as_ref().unwrap();
        assert!(!buffer.as_ptr_range().contains(&stored.value.as_ptr()));
        assert_eq!(stored.value, buffer.slice(100..110));
    }
}
