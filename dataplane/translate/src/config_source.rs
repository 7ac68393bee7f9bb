//! Where resources that another one names come from.

use std::time::Duration;

use policy::limits;
use proto::pb::envoy::config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier};

use crate::{
    fields,
    reject::{At, Fault},
};

/// Resources come over the one ADS stream (`ads`, or `self` in what came over it).
#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
pub(crate) fn check(value: Option<&ConfigSource>, at: &At<'_>) -> Result<(), Fault> {
    let source = at.require(value)?;
    match at.field("config_source_specifier").require(source.config_source_specifier.as_ref())? {
        ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_) => Ok(()),
        ConfigSourceSpecifier::Path(_) => Err(at.field("path").unsupported()),
        ConfigSourceSpecifier::PathConfigSource(_) => Err(at.field("path_config_source").unsupported()),
        ConfigSourceSpecifier::ApiConfigSource(_) => Err(at.field("api_config_source").unsupported()),
    }
}

/// How long the first answer from a source is waited for; `None` is for ever.
pub(crate) fn fetch_timeout(value: Option<&ConfigSource>, at: &At<'_>) -> Result<Option<Duration>, Fault> {
    let timeout = value.and_then(|source| source.initial_fetch_timeout.as_ref());
    fields::timeout(timeout, Some(limits::INITIAL_FETCH_TIMEOUT_DEFAULT), &at.field("initial_fetch_timeout"))
}
