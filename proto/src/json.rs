//! Resources as proto3 JSON, for people and tests. Knows only what Ringway supports (`build/supported.txt`): what a
//! resource holds beyond that is refused, not left out.

use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage};

use crate::bootstrap::DESCRIPTORS;

/// Why a message has no JSON form here.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum JsonError {
    /// Its type is not one that Ringway supports.
    #[error("{type_url} is not a type that Ringway supports")]
    Type {
        /// The type, as in `Any`.
        type_url: String,
    },
    /// Its bytes are not of its type, or the descriptors cannot be loaded.
    #[error("{type_url} cannot be read: {reason}")]
    Bytes {
        /// The type, as in `Any`.
        type_url: String,
        /// What the decoder says.
        reason: String,
    },
    /// It holds a field that Ringway does not support.
    #[error("{type_url} has a field that Ringway does not support")]
    Unsupported {
        /// The type, as in `Any`.
        type_url: String,
    },
}

/// The message of type `type_url` (as in `google.protobuf.Any`) with these bytes. Slow: loads the descriptors.
pub fn of(type_url: &str, bytes: &[u8]) -> Result<serde_json::Value, JsonError> {
    let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
    let unreadable = |reason: String| JsonError::Bytes { type_url: type_url.to_owned(), reason };
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| unreadable(error.to_string()))?;
    let descriptor =
        pool.get_message_by_name(name).ok_or_else(|| JsonError::Type { type_url: type_url.to_owned() })?;
    let message = DynamicMessage::decode(descriptor, bytes).map_err(|error| unreadable(error.to_string()))?;
    if has_unknown_fields(&message) {
        return Err(JsonError::Unsupported { type_url: type_url.to_owned() });
    }
    serde_json::to_value(&message).map_err(|error| unreadable(error.to_string()))
}

fn has_unknown_fields(message: &DynamicMessage) -> bool {
    use prost_reflect::Value;
    fn within(value: &Value) -> bool {
        match value {
            Value::Message(message) => has_unknown_fields(message),
            Value::List(values) => values.iter().any(within),
            Value::Map(values) => values.values().any(within),
            _ => false,
        }
    }
    if message.unknown_fields().next().is_some() {
        return true;
    }
    match packed(message) {
        // What cannot be decoded fails when it is written.
        Some(inner) => inner.is_ok_and(|inner| has_unknown_fields(&inner)),
        None => message.fields().any(|(_, value)| within(value)),
    }
}

/// The message inside, if `message` is an `Any`.
fn packed(message: &DynamicMessage) -> Option<Result<DynamicMessage, prost::DecodeError>> {
    let descriptor = message.descriptor();
    if descriptor.full_name() != "google.protobuf.Any" {
        return None;
    }
    let type_url = message.get_field_by_name("type_url")?;
    let (_, name) = type_url.as_str()?.rsplit_once('/')?;
    let inner = descriptor.parent_pool().get_message_by_name(name)?;
    let value = message.get_field_by_name("value")?;
    Some(DynamicMessage::decode(inner, value.as_bytes()?.clone()))
}

#[cfg(test)]
mod tests {
    use prost::{Message, Name};

    use super::*;
    use crate::pb::envoy::config::listener::v3::Filter;
    use crate::pb::envoy::config::listener::v3::filter::ConfigType;
    use crate::pb::envoy::config::route::v3::{Route, VirtualHost};
    use crate::pb::google::protobuf::Any;

    #[test]
    fn what_is_supported_is_shown_and_what_is_not_is_refused() {
        let host =
            VirtualHost { name: "a".to_owned(), domains: vec!["*".to_owned()], ..VirtualHost::default() };
        let json = of(&VirtualHost::type_url(), &host.encode_to_vec()).unwrap();
        assert_eq!(json, serde_json::json!({ "name": "a", "domains": ["*"] }));

        let any = crate::ads::Any::pack(&Route::default());
        let filter = Filter {
            config_type: Some(ConfigType::TypedConfig(Any {
                type_url: any.type_url,
                value: vec![0xfa, 0x7f, 0],
            })),
            ..Filter::default()
        };
        assert!(of(&Filter::type_url(), &filter.encode_to_vec()).is_err(), "unknown within an Any");

        let route = Route { stat_prefix: "not for us".to_owned(), ..Route::default() };
        let host = VirtualHost { routes: vec![route], ..host };
        let refused = of(&VirtualHost::type_url(), &host.encode_to_vec()).unwrap_err();
        assert_eq!(refused, JsonError::Unsupported { type_url: VirtualHost::type_url() });
    }
}
