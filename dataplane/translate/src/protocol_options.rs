//! HTTP protocol options that a connection manager and a cluster have alike.

use std::{num::NonZeroU32, time::Duration};

use policy::limits;
use proto::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, HttpProtocolOptions, http1_protocol_options::header_key_format::HeaderFormat,
};

use crate::{
    Origin, fields,
    reject::{At, Fault},
};

/// Options of both sides.
pub(crate) struct CommonOptions {
    /// If it is given; then `None` is for ever.
    pub(crate) idle_timeout: Option<Option<Duration>>,
    pub(crate) max_connection_duration: Option<Duration>,
    pub(crate) max_requests_per_connection: Option<NonZeroU32>,
    pub(crate) headers_count_max: usize,
}

/// What is allowed on one side only is the caller's.
pub(crate) fn common(
    options: &HttpProtocolOptions,
    origin: Origin,
    at: &At<'_>,
) -> Result<CommonOptions, Fault> {
    let idle_at = at.field("idle_timeout");
    let idle_timeout = options.idle_timeout.as_ref();
    let idle_timeout = idle_timeout.map(|wait| fields::timeout(Some(wait), None, &idle_at)).transpose()?;
    let duration_at = at.field("max_connection_duration");
    let headers_at = at.field("max_headers_count");
    Ok(CommonOptions {
        idle_timeout,
        max_connection_duration: fields::timeout(
            options.max_connection_duration.as_ref(),
            None,
            &duration_at,
        )?,
        max_requests_per_connection: options
            .max_requests_per_connection
            .and_then(|max| NonZeroU32::new(max.value)),
        headers_count_max: match options.max_headers_count {
            None => limits::HEADERS_COUNT_DEFAULT,
            Some(max) => bound(max.value, limits::HEADERS_COUNT_MAX, origin, &headers_at)?,
        },
    })
}

/// A bound that is at most ours. A control plane's larger one is capped; in the operator's file it would be a promise.
pub(crate) fn bound(value: u32, most: usize, origin: Origin, at: &At<'_>) -> Result<usize, Fault> {
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let value = match origin {
        Origin::Static => fields::between(value, 1, most, at)?,
        Origin::Dynamic => value.clamp(1, most),
    };
    Ok(value as usize)
}

/// Accepted without effect: what Ringway always does (`accept_http_10`, `enable_trailers`, `allow_custom_methods`, a
/// formatter that keeps the case of names), and choices of Envoy's parser.
pub(crate) fn http1(options: &Http1ProtocolOptions, at: &At<'_>) -> Result<(), Fault> {
    let proper_case = options.header_key_format.as_ref().and_then(|format| format.header_format.as_ref());
    at.refuse_all(&[
        ("allow_absolute_url", options.allow_absolute_url.is_some_and(|on| !on.value)),
        ("default_host_for_http_10", !options.default_host_for_http_10.is_empty()),
        ("header_key_format", matches!(proper_case, Some(HeaderFormat::ProperCaseWords(_)))),
        ("allow_chunked_length", options.allow_chunked_length),
        ("send_fully_qualified_url", options.send_fully_qualified_url),
        ("ignore_http_11_upgrade", !options.ignore_http_11_upgrade.is_empty()),
    ])
}
