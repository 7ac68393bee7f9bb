//! What a route asks of a request: `RouteMatch`, `HeaderMatcher`, `QueryParameterMatcher`.

use policy::{
    route::{Fraction, HeaderMatch, HeaderTest, PathMatch, QueryMatch, QueryTest, RouteMatch},
    string_match::{StringMatch, StringPattern},
};
use proto::pb::envoy::{
    config::route::v3 as route,
    r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
};

use crate::{
    fields,
    reject::{At, Fault, Reason},
};

/// The conditions of one route.
pub(crate) fn translate(value: &route::RouteMatch, at: &At<'_>) -> Result<RouteMatch, Fault> {
    at.refuse_all(&[
        ("cookies", !value.cookies.is_empty()),
        ("tls_context", value.tls_context.is_some()),
        ("dynamic_metadata", !value.dynamic_metadata.is_empty()),
        ("filter_state", !value.filter_state.is_empty()),
    ])?;
    let mut matches = RouteMatch::path(path(value, at)?);
    matches.case_sensitive = value.case_sensitive.is_none_or(|sensitive| sensitive.value);
    matches.grpc = value.grpc.is_some();
    let headers_at = at.field("headers");
    for (index, header) in value.headers.iter().enumerate() {
        let header = self::header(header, &headers_at.index(index))?;
        match (method(&header), &matches.method) {
            (Some(method), None) => matches.method = Some(method),
            _ => matches.headers.push(header),
        }
    }
    let query_at = at.field("query_parameters");
    for (index, parameter) in value.query_parameters.iter().enumerate() {
        matches.query.push(query(parameter, &query_at.index(index))?);
    }
    if let Some(fraction) = &value.runtime_fraction {
        let at = at.field("runtime_fraction");
        // A runtime key could change the share later; there is no runtime, so the default is the value.
        let value = at.field("default_value").require(fraction.default_value.as_ref())?;
        matches.fraction = Some(self::fraction(value, &at.field("default_value"))?);
    }
    Ok(matches)
}

fn path(value: &route::RouteMatch, at: &At<'_>) -> Result<PathMatch, Fault> {
    use route::route_match::PathSpecifier;
    match at.field("path_specifier").require(value.path_specifier.as_ref())? {
        PathSpecifier::Path(path) => Ok(PathMatch::Exact(path.as_bytes().into())),
        PathSpecifier::Prefix(prefix) => Ok(PathMatch::Prefix(prefix.as_bytes().into())),
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            if prefix.len() < 2 || prefix.contains(['?', '#']) || prefix.ends_with('/') {
                let expected = "a path of two characters or more without `?`, `#` or a `/` at its end";
                let reason = Reason::Invalid { value: prefix.clone(), expected };
                return Err(at.field("path_separated_prefix").fault(reason));
            }
            Ok(PathMatch::PathSeparatedPrefix(prefix.as_bytes().into()))
        }
        PathSpecifier::SafeRegex(regex) => {
            Ok(PathMatch::Regex(fields::full_regex(regex, &at.field("safe_regex"))?))
        }
        PathSpecifier::ConnectMatcher(_) => Ok(PathMatch::Connect),
        PathSpecifier::PathMatchPolicy(_) => Err(at.field("path_match_policy").unsupported()),
    }
}

/// One header condition.
#[allow(deprecated, reason = "control planes still send the old matchers")]
pub(crate) fn header(value: &route::HeaderMatcher, at: &At<'_>) -> Result<HeaderMatch, Fault> {
    use route::header_matcher::HeaderMatchSpecifier;
    let name = header_name(&value.name, &at.field("name"))?;
    let wanted = |text: &str, field: &'static str| -> Result<_, Fault> {
        Ok(fields::name(text, &at.field(field))?.as_bytes().into())
    };
    let plain = |pattern| HeaderTest::Value(StringMatch { pattern, ignore_case: false });
    let test = match &value.header_match_specifier {
        None => HeaderTest::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => HeaderTest::Present(*present),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            HeaderTest::Value(fields::string_match(matcher, &at.field("string_match"))?)
        }
        Some(HeaderMatchSpecifier::RangeMatch(range)) => HeaderTest::Range(range.start..range.end),
        // The rest is the old way to say what `string_match` says.
        Some(HeaderMatchSpecifier::ExactMatch(text)) => plain(StringPattern::Exact(text.as_bytes().into())),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
            plain(StringPattern::Prefix(wanted(text, "prefix_match")?))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
            plain(StringPattern::Suffix(wanted(text, "suffix_match")?))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            plain(StringPattern::Contains(wanted(text, "contains_match")?))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            plain(StringPattern::Regex(fields::full_regex(regex, &at.field("safe_regex_match"))?))
        }
    };
    Ok(HeaderMatch {
        name: name.into(),
        test,
        invert: value.invert_match,
        missing_as_empty: value.treat_missing_header_as_empty,
    })
}

/// A name that requests can have. Envoy has more parts of a request under names with a colon; here they would never be
/// present, and a matcher that is inverted would take every request.
fn header_name<'a>(name: &'a str, at: &At<'_>) -> Result<&'a str, Fault> {
    if name.starts_with(':') && ![":method", ":path", ":authority"].contains(&name) {
        let supported = ":method, :path, :authority";
        return Err(at.fault(Reason::UnsupportedValue { value: name.to_owned(), supported }));
    }
    // Envoy takes this one off before it looks for a route, unless `forward_client_cert_details` says otherwise; a matcher
    // would believe what anybody writes.
    if name.eq_ignore_ascii_case("x-forwarded-client-cert") {
        return Err(at.unsupported());
    }
    fields::name(name, at)
}

/// The method, if `header` asks for exactly one: what a request is asked first, since it costs least.
fn method(header: &HeaderMatch) -> Option<std::sync::Arc<[u8]>> {
    match &header.test {
        HeaderTest::Value(StringMatch { pattern: StringPattern::Exact(method), ignore_case: false })
            if &*header.name == ":method" && !header.invert =>
        {
            Some(method.clone())
        }
        _ => None,
    }
}

fn query(value: &route::QueryParameterMatcher, at: &At<'_>) -> Result<QueryMatch, Fault> {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier;
    let name = fields::name(&value.name, &at.field("name"))?;
    let test = match &value.query_parameter_match_specifier {
        None => QueryTest::Present(true),
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryTest::Present(*present),
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            QueryTest::Value(fields::string_match(matcher, &at.field("string_match"))?)
        }
    };
    Ok(QueryMatch { name: name.as_bytes().into(), test })
}

fn fraction(value: &FractionalPercent, at: &At<'_>) -> Result<Fraction, Fault> {
    let denominator = match fields::enumeration(value.denominator, &at.field("denominator"))? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Ok(Fraction { numerator: value.numerator, denominator })
}
