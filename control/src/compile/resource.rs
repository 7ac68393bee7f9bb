//! One encoded xDS resource: bytes and version made once, shared by everyone who sends them.

use std::sync::Arc;

use bytes::Bytes;
use prost::{Message, Name};
use proto::pb::google::protobuf::Any;

/// One encoded xDS resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name clients subscribe to.
    pub name: Arc<str>,
    /// xxh3-64 of `bytes`, 16 lower-case hexadecimal digits: equal content has equal versions on every replica and
    /// after every restart.
    pub version: Arc<str>,
    /// The encoded `google.protobuf.Any` with the resource inside.
    pub bytes: Bytes,
}

impl Resource {
    /// Encodes `message`. The messages we build hold no map fields, so their encoding has one form only.
    pub fn encode<M: Message + Name>(name: impl Into<Arc<str>>, message: &M) -> Arc<Self> {
        let any = Any { type_url: M::type_url(), value: message.encode_to_vec() };
        let bytes = Bytes::from(any.encode_to_vec());
        let version = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes));
        Arc::new(Self { name: name.into(), version: version.into(), bytes })
    }
}
