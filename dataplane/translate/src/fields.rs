//! Fields that many resources have: durations, addresses, matchers, header edits, extensions.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use policy::{
    cluster::DnsFamily,
    regex::Regex,
    snapshot::Address,
    string_match::{StringMatch, StringPattern},
};
use prost::Message;
use proto::{
    pb::{
        envoy::{
            config::{cluster::v3::cluster::DnsLookupFamily, core::v3 as core},
            r#type::matcher::v3 as matcher,
        },
        google::protobuf,
    },
    well_known,
};

use crate::reject::{At, Fault, Reason};

/// A duration that is not negative.
pub(crate) fn duration(value: &protobuf::Duration, at: &At<'_>) -> Result<Duration, Fault> {
    well_known::duration(value).ok_or_else(|| {
        let value = format!("{}.{:09}s", value.seconds, value.nanos);
        at.fault(Reason::Invalid { value, expected: "a duration of zero or more" })
    })
}

/// A timeout where zero means none and absent means `default`.
pub(crate) fn timeout(
    value: Option<&protobuf::Duration>,
    default: Option<Duration>,
    at: &At<'_>,
) -> Result<Option<Duration>, Fault> {
    match value {
        None => Ok(default),
        Some(value) => Ok(Some(duration(value, at)?).filter(|value| !value.is_zero())),
    }
}

/// A name that must not be empty.
pub(crate) fn name<'a>(value: &'a str, at: &At<'_>) -> Result<&'a str, Fault> {
    if value.is_empty() { Err(at.fault(Reason::Missing)) } else { Ok(value) }
}

/// Text that becomes part of a head, so nothing in it may end a line.
pub(crate) fn single_line<'a>(text: &'a str, at: &At<'_>) -> Result<&'a str, Fault> {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        let value = text.escape_debug().to_string();
        return Err(at.fault(Reason::Invalid { value, expected: "text without control characters" }));
    }
    Ok(text)
}

/// The value of an enum field, which may be one that this version of the API does not know.
pub(crate) fn enumeration<E: TryFrom<i32>>(value: i32, at: &At<'_>) -> Result<E, Fault> {
    E::try_from(value)
        .map_err(|_| at.fault(Reason::Invalid { value: value.to_string(), expected: "a value of this enum" }))
}

/// A number between bounds.
pub(crate) fn between(value: u32, least: u32, most: u32, at: &At<'_>) -> Result<u32, Fault> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(at.fault(Reason::OutOfRange { value: value.into(), least: least.into(), most: most.into() }))
}

/// An address as configuration gives it: literal, or a host name that somebody must look up.
pub(crate) enum Place {
    /// An IP address with port, or a unix socket.
    Address(Address),
    /// A host name with port.
    Name(String, u16),
}

/// An address or a host name.
pub(crate) fn place(value: Option<&core::Address>, at: &At<'_>) -> Result<Place, Fault> {
    let socket_at = at.field("socket_address");
    match at.require(value.and_then(|value| value.address.as_ref()))? {
        core::address::Address::SocketAddress(socket) => {
            let udp = socket.protocol != core::socket_address::Protocol::Tcp as i32;
            socket_at.refuse_all(&[
                ("protocol", udp),
                ("resolver_name", !socket.resolver_name.is_empty()),
                ("ipv4_compat", socket.ipv4_compat),
                ("network_namespace_filepath", !socket.network_namespace_filepath.is_empty()),
            ])?;
            let text = name(&socket.address, &socket_at.field("address"))?;
            let port = match socket_at.field("port_value").require(socket.port_specifier.as_ref())? {
                core::socket_address::PortSpecifier::PortValue(port) => {
                    between(*port, 0, u16::MAX.into(), &socket_at.field("port_value"))? as u16
                }
                core::socket_address::PortSpecifier::NamedPort(_) => {
                    return Err(socket_at.field("named_port").unsupported());
                }
            };
            Ok(match text.parse::<IpAddr>() {
                Ok(ip) => Place::Address(Address::Socket(SocketAddr::new(ip, port))),
                Err(_) => Place::Name(text.to_owned(), port),
            })
        }
        core::address::Address::Pipe(pipe) => {
            let pipe_at = at.field("pipe");
            pipe_at.refuse("mode", pipe.mode != 0)?;
            Ok(Place::Address(Address::Pipe(name(&pipe.path, &pipe_at.field("path"))?.into())))
        }
        core::address::Address::EnvoyInternalAddress(_) => {
            Err(at.field("envoy_internal_address").unsupported())
        }
    }
}

/// An address that needs no look-up.
pub(crate) fn address(value: Option<&core::Address>, at: &At<'_>) -> Result<Address, Fault> {
    match place(value, at)? {
        Place::Address(address) => Ok(address),
        Place::Name(value, _) => {
            let socket_at = at.field("socket_address");
            Err(socket_at.field("address").fault(Reason::Invalid { value, expected: "an IP address" }))
        }
    }
}

/// A comparison of a string.
pub(crate) fn string_match(value: &matcher::StringMatcher, at: &At<'_>) -> Result<StringMatch, Fault> {
    use matcher::string_matcher::MatchPattern;
    let wanted =
        |text: &str, field: &'static str| name(text, &at.field(field)).map(|text| text.as_bytes().into());
    let pattern = match at.require(value.match_pattern.as_ref())? {
        MatchPattern::Exact(text) => StringPattern::Exact(text.as_bytes().into()),
        MatchPattern::Prefix(text) => StringPattern::Prefix(wanted(text, "prefix")?),
        MatchPattern::Suffix(text) => StringPattern::Suffix(wanted(text, "suffix")?),
        MatchPattern::Contains(text) => StringPattern::Contains(wanted(text, "contains")?),
        MatchPattern::SafeRegex(regex) => StringPattern::Regex(full_regex(regex, &at.field("safe_regex"))?),
        MatchPattern::Custom(_) => return Err(at.field("custom").unsupported()),
    };
    Ok(StringMatch { pattern, ignore_case: value.ignore_case })
}

/// A regular expression that must match the whole subject.
pub(crate) fn full_regex(value: &matcher::RegexMatcher, at: &At<'_>) -> Result<Regex, Fault> {
    let pattern = name(&value.regex, &at.field("regex"))?;
    Regex::full(pattern).map_err(|error| at.field("regex").fault(Reason::Regex(error)))
}

/// The configuration of an extension, of which `T` is the only type that may stand here.
pub(crate) fn unpack<T: Message + Default>(any: &protobuf::Any, at: &At<'_>) -> Result<T, Fault> {
    T::decode(&*any.value).map_err(|_| undecodable(any, at))
}

/// The same for a message of which nothing may be left out. What this version of the API does not have is lost in decoding, as
/// is all but the last of what may be there once: what is left is shorter when it is encoded again.
pub(crate) fn unpack_known<T: Message + Default>(any: &protobuf::Any, at: &At<'_>) -> Result<T, Fault> {
    let value: T = unpack(any, at)?;
    if value.encoded_len() != any.value.len() {
        return Err(at.fault(Reason::UnknownFields { type_url: any.type_url.clone() }));
    }
    Ok(value)
}

/// Bytes that are not the message that their `Any` promises.
pub(crate) fn undecodable(any: &protobuf::Any, at: &At<'_>) -> Fault {
    at.fault(Reason::Undecodable { type_url: any.type_url.clone() })
}

/// An extension that is not among `supported`.
pub(crate) fn unknown_extension(type_url: &str, supported: &'static [&'static str], at: &At<'_>) -> Fault {
    at.fault(Reason::Extension { type_url: type_url.to_owned(), supported })
}

/// The full name of the message in an `Any`.
pub(crate) fn type_name(any: &protobuf::Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// A duration above zero.
pub(crate) fn positive(value: &protobuf::Duration, at: &At<'_>) -> Result<Duration, Fault> {
    let duration = duration(value, at)?;
    if duration.is_zero() {
        return Err(at.fault(Reason::Invalid { value: "0s".to_owned(), expected: "a duration above zero" }));
    }
    Ok(duration)
}

/// `dns_lookup_family`.
pub(crate) fn dns_family(value: i32, at: &At<'_>) -> Result<DnsFamily, Fault> {
    Ok(match enumeration(value, &at.field("dns_lookup_family"))? {
        DnsLookupFamily::Auto => DnsFamily::V6Preferred,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    })
}
