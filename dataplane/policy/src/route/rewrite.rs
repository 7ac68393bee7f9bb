//! Rewritten targets and redirects, written into a buffer of the caller.

use alloc::vec::Vec;

use wire::head::RequestView;

use super::{
    RouteScratch,
    action::{Forward, PathRewrite, Redirect, RedirectPath},
    matcher::{PathMatch, path_of},
};
use crate::{
    limits,
    regex::{RegexRewrite, TooLong},
};

impl<T> Forward<T> {
    /// Writes the request's new target (path and query) to `out`, which is emptied first. `matched` is the path matcher
    /// of the route. `false`, and nothing in `out`, when the path stays as it is.
    ///
    /// # Errors
    /// When the target grows past [`limits::REWRITTEN_TARGET_BYTES_MAX`].
    pub fn rewrite_target(
        &self,
        matched: &PathMatch,
        request: &RequestView<'_>,
        scratch: &mut RouteScratch,
        out: &mut Vec<u8>,
    ) -> Result<bool, TooLong> {
        out.clear();
        let (Some(rewrite), Some(path)) = (&self.path_rewrite, path_of(request)) else { return Ok(false) };
        let max = limits::REWRITTEN_TARGET_BYTES_MAX;
        match rewrite {
            PathRewrite::Matched(replacement) => replace_matched(matched, path, replacement, out, max)?,
            PathRewrite::Regex(regex) => replace_by_regex(regex, path, scratch, out, max)?,
        }
        push_query(request, out, max)?;
        Ok(true)
    }
}

impl Redirect {
    /// Writes the `location` of a redirect for `request` to `out`, which is emptied first. `matched` is the path matcher
    /// of the route, `scheme` what the request came by: `http` or `https`.
    ///
    /// # Errors
    /// When it grows past [`limits::LOCATION_BYTES_MAX`].
    pub fn location(
        &self,
        matched: &PathMatch,
        request: &RequestView<'_>,
        scheme: &str,
        scratch: &mut RouteScratch,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        let max = limits::LOCATION_BYTES_MAX;
        out.clear();
        let new_scheme = self.scheme.as_deref().unwrap_or(scheme);
        push(out, new_scheme.as_bytes(), max)?;
        push(out, b"://", max)?;
        match &self.host {
            Some(host) => push(out, host.as_bytes(), max)?,
            None => push(out, self.kept_authority(request.authority(), scheme, new_scheme), max)?,
        }
        if let Some(port) = self.port {
            push_port(out, port, max)?;
        }
        let path = path_of(request).unwrap_or_default();
        let path_start = out.len();
        match &self.path {
            RedirectPath::Keep => push_path(out, path, max)?,
            RedirectPath::Full(replacement) => push_path(out, replacement, max)?,
            RedirectPath::Matched(replacement) => replace_matched(matched, path, replacement, out, max)?,
            RedirectPath::Regex(regex) => replace_by_regex(regex, path, scratch, out, max)?,
        }
        let has_query = out.get(path_start..).is_some_and(|path| path.contains(&b'?'));
        if self.strip_query || has_query { Ok(()) } else { push_query(request, out, max) }
    }

    /// The request's authority, without its port when a new one is given, or when it is the default port of the scheme
    /// that is left: the port of the old scheme would be wrong for the new one.
    fn kept_authority<'a>(&self, authority: &'a [u8], scheme: &str, new_scheme: &str) -> &'a [u8] {
        let host = super::domain_index::without_port(authority);
        let port = authority.get(host.len()..).unwrap_or_default();
        let is_default_of_old = match scheme {
            "https" => port == b":443",
            "http" => port == b":80",
            _ => false,
        };
        if self.port.is_some() || (new_scheme != scheme && is_default_of_old) { host } else { authority }
    }
}

fn replace_matched(
    matched: &PathMatch,
    path: &[u8],
    replacement: &[u8],
    out: &mut Vec<u8>,
    max: usize,
) -> Result<(), TooLong> {
    let rest = path.get(matched.matched_len(path)..).unwrap_or_default();
    if replacement.is_empty() {
        return push_path(out, rest, max);
    }
    push_path(out, replacement, max)?;
    push(out, rest, max)
}

fn replace_by_regex(
    regex: &RegexRewrite,
    path: &[u8],
    scratch: &mut RouteScratch,
    out: &mut Vec<u8>,
    max: usize,
) -> Result<(), TooLong> {
    let start = out.len();
    regex.apply(path, &mut scratch.regexes, out, max)?;
    if out.get(start) != Some(&b'/') {
        out.insert(start, b'/');
    }
    Ok(())
}

/// A path begins with a slash whatever the rewrite made of it: without, it would run into the authority of a redirect,
/// or be no target (RFC 9112 §3.2.1).
fn push_path(out: &mut Vec<u8>, path: &[u8], max: usize) -> Result<(), TooLong> {
    if path.first() != Some(&b'/') {
        push(out, b"/", max)?;
    }
    push(out, path, max)
}

fn push_query(request: &RequestView<'_>, out: &mut Vec<u8>, max: usize) -> Result<(), TooLong> {
    let Some(query) = request.query() else { return Ok(()) };
    push(out, b"?", max)?;
    push(out, query, max)
}

fn push_port(out: &mut Vec<u8>, port: u16, max: usize) -> Result<(), TooLong> {
    push(out, b":", max)?;
    let mut divisor = if port == 0 { 1 } else { 10u16.pow(port.ilog10()) };
    while divisor > 0 {
        push(out, &[b'0' + (port / divisor % 10) as u8], max)?;
        divisor /= 10;
    }
    Ok(())
}

fn push(out: &mut Vec<u8>, bytes: &[u8], max: usize) -> Result<(), TooLong> {
    if out.len() + bytes.len() > max {
        return Err(TooLong { max });
    }
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::{super::test_request::TestRequest, *};
    use crate::{Weighted, regex::Regex};

    fn exact(path: &str) -> PathMatch {
        PathMatch::Exact(path.as_bytes().into())
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.as_bytes().into())
    }

    fn separated(path: &str) -> PathMatch {
        PathMatch::PathSeparatedPrefix(path.as_bytes().into())
    }

    fn matched(to: &str) -> PathRewrite {
        PathRewrite::Matched(to.as_bytes().into())
    }

    fn by_regex(pattern: &str, substitution: &str) -> RegexRewrite {
        RegexRewrite::new(pattern, substitution).unwrap()
    }

    #[test]
    fn the_matched_part_or_every_match_is_replaced_and_the_query_stays() {
        let regex = |pattern, substitution| PathRewrite::Regex(by_regex(pattern, substitution));
        let rows = [
            (prefix("/a"), matched("/b"), "/a/c?q=/a", "/b/c?q=/a"),
            (prefix("/a/"), matched("/"), "/a/c", "/c"),
            (prefix("/a/"), matched(""), "/a/c", "/c"),
            (prefix("/a"), matched("b"), "/a/c", "/b/c"),
            (separated("/a"), matched("/x/y"), "/a", "/x/y"),
            (separated("/a"), matched("/"), "/a/c", "//c"),
            (exact("/a"), matched("/b"), "/a?", "/b?"),
            (PathMatch::Regex(Regex::full("/a.*").unwrap()), matched("/b"), "/abc?d", "/b?d"),
            (prefix("/"), regex("^/.*$", "/full"), "/a/b?c", "/full?c"),
            (prefix("/"), regex("/v([0-9]+)/(.*)", "/\\2/\\1"), "/v2/items", "/items/2"),
            (prefix("/"), regex("a", "bb"), "/aXa", "/bbXbb"),
            (prefix("/"), regex("^/a", ""), "/ab", "/b"),
        ];
        let (mut scratch, mut out) = (RouteScratch::default(), Vec::new());
        for (path, rewrite, target, expected) in rows {
            let forward = Forward { path_rewrite: Some(rewrite), ..Forward::new(Weighted::one(())) };
            let request = TestRequest::get(target);
            assert_eq!(forward.rewrite_target(&path, &request.view(), &mut scratch, &mut out), Ok(true));
            assert_eq!(String::from_utf8_lossy(&out), expected, "{forward:?} on {target}");
        }
        let keep = Forward::new(Weighted::one(()));
        let request = TestRequest::get("/");
        assert_eq!(keep.rewrite_target(&exact("/"), &request.view(), &mut scratch, &mut out), Ok(false));
        assert!(out.is_empty());
    }

    #[test]
    fn a_rewrite_past_its_bound_is_an_error_and_nothing_is_sent() {
        let rewrite = PathRewrite::Regex(by_regex(".", "\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0"));
        let forward = Forward { path_rewrite: Some(rewrite), ..Forward::new(Weighted::one(())) };
        let long = "/".repeat(limits::REWRITTEN_TARGET_BYTES_MAX / 10 + 1);
        let request = TestRequest::get(long);
        let mut out = Vec::new();
        let result =
            forward.rewrite_target(&prefix("/"), &request.view(), &mut RouteScratch::default(), &mut out);
        assert_eq!(result, Err(TooLong { max: limits::REWRITTEN_TARGET_BYTES_MAX }));
        assert!(out.len() <= limits::REWRITTEN_TARGET_BYTES_MAX);
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_change() {
        let plain = || Redirect {
            status: 301,
            scheme: None,
            host: None,
            port: None,
            path: RedirectPath::Keep,
            strip_query: false,
        };
        let full = |path: &str| RedirectPath::Full(path.as_bytes().into());
        let rows = [
            (plain(), "a:81", "http://a:81/p/x?q"),
            (Redirect { scheme: Some("https".into()), ..plain() }, "a", "https://a/p/x?q"),
            // The default port of the old scheme goes with it; any other stays.
            (Redirect { scheme: Some("https".into()), ..plain() }, "a:80", "https://a/p/x?q"),
            (Redirect { scheme: Some("https".into()), ..plain() }, "a:81", "https://a:81/p/x?q"),
            (Redirect { scheme: Some("http".into()), ..plain() }, "a:80", "http://a:80/p/x?q"),
            (Redirect { port: Some(8443), ..plain() }, "a:81", "http://a:8443/p/x?q"),
            (Redirect { port: Some(65535), ..plain() }, "[::1]:81", "http://[::1]:65535/p/x?q"),
            (Redirect { host: Some("b".into()), ..plain() }, "a:81", "http://b/p/x?q"),
            (Redirect { host: Some("b".into()), port: Some(1), ..plain() }, "a", "http://b:1/p/x?q"),
            (Redirect { strip_query: true, ..plain() }, "a", "http://a/p/x"),
            (Redirect { path: full("/n"), ..plain() }, "a", "http://a/n?q"),
            (Redirect { path: full("n"), ..plain() }, "a", "http://a/n?q"),
            (Redirect { path: full("/n?r"), ..plain() }, "a", "http://a/n?r"),
            (Redirect { path: full("/n?r"), strip_query: true, ..plain() }, "a", "http://a/n?r"),
            (Redirect { path: full("/n"), strip_query: true, ..plain() }, "a", "http://a/n"),
            (Redirect { path: RedirectPath::Matched(b"/m"[..].into()), ..plain() }, "a", "http://a/m/x?q"),
            (Redirect { path: RedirectPath::Regex(by_regex("x$", "y")), ..plain() }, "a", "http://a/p/y?q"),
        ];
        let (mut scratch, mut out) = (RouteScratch::default(), Vec::new());
        for (redirect, host, expected) in rows {
            let request = TestRequest::get("/p/x?q").host(host);
            redirect.location(&prefix("/p"), &request.view(), "http", &mut scratch, &mut out).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), expected, "{redirect:?} of {host}");
        }
    }
}
