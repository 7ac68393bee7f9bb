//! What becomes of paths that several spellings mean.

use super::{answer_alike, front, peers::Request};

const TARGETS: &[&str] = &[
    "/",
    "/a/b?c=/../d",
    "/.",
    "/..",
    "/../a",
    "/./a",
    "/a/.",
    "/a/..",
    "/a/../",
    "/a/b/../c",
    "/a/../../../c?d",
    "/a//../b",
    "//a//b//?c//d",
    "/a/...",
    "/a/.b/..c/d.",
    "/.well-known/x",
    "/a/%2e%2E/b",
    "/a/.%2e/b",
    "/a/%2E",
    "/%61%2D%7e%5F%30",
    "/%41%2A%21",
    "/%252e%252e/a",
    "/a%2fb%5cc%20d",
    "/a%2F..%2Fb?x=%2F",
    "/a/%2F/..%5Cb",
    "/a%",
    "/a%2",
    "/a%zz",
    "/%%32%65/x",
    "/%%326%2%66",
    "/%%2532",
    "/a%00b",
    "/a;b=c/../d",
    "/a/b:c@d,e",
];

const ROUTES: &str =
    "{match: {path_separated_prefix: /c}, direct_response: {status: 200, body: {inline_string: c}}}";

#[test]
fn paths_are_normalized_as_envoy_does() {
    let requests: Vec<Request<'_>> =
        TARGETS.iter().map(|target| ("GET", *target, "a.test", &[][..])).collect();
    for options in [
        "normalize_path: false",
        "normalize_path: true",
        "merge_slashes: true",
        "normalize_path: true, merge_slashes: true",
        "normalize_path: true, path_with_escaped_slashes_action: REJECT_REQUEST",
        "normalize_path: true, path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT",
        "merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
        "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
    ] {
        println!("{options}");
        answer_alike(&|ports| front(ports, options, ROUTES), &requests);
    }
}
