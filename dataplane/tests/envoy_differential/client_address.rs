//! Whose address a request is said to come from, to the origin and in the access log.
//!
//! Requests come from 127.0.0.2, which is told as it is; of 127.0.0.1 Envoy tells an address of the machine instead.

use super::{answer_alike, front, peers::Request};

const REQUESTS: &[Request<'static>] = &[
    ("GET", "/", "a.test", &[]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "1.1.1.1")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "1.1.1.1, 2.2.2.2")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "1.1.1.1,2.2.2.2 ,\t3.3.3.3")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "2001:DB8::0:1")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "[2001:db8::1]")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "1.1.1.1:80")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "1.1.1.1,")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "1.1.1.1,,2.2.2.2")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "1.1.1.1, unknown")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "10.0.0.1")]),
    ("GET", "/", "a.test", &[("x-forwarded-proto", "https")]),
    ("GET", "/", "a.test", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]),
    ("GET", "/", "a.test", &[("x-envoy-external-address", "3.3.3.3"), ("x-envoy-internal", "true")]),
    ("GET", "/to", "a.test", &[]),
    ("GET", "/to", "a.test", &[("x-forwarded-proto", "https")]),
    ("GET", "/to", "a.test", &[("x-forwarded-proto", "ftp")]),
    ("GET", "/to", "a.test", &[("x-forwarded-proto", "HTTPS")]),
    ("GET", "/to", "a.test:443", &[("x-forwarded-proto", "https")]),
];

/// Envoy always joins the lines; we do where we write the header.
const TWO_LINES: Request<'static> =
    ("GET", "/", "a.test", &[("X-Forwarded-For", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);

const ROUTES: &str = "{match: {prefix: /to}, redirect: {path_redirect: /there}}";

const LOGGED: &str = r#"access_log: [{name: out, typed_config: {
            "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLogLOG_FORMAT}}]"#;

#[test]
fn the_client_is_told_as_envoy_tells_it() {
    for options in [
        "use_remote_address: false",
        "xff_num_trusted_hops: 1",
        "use_remote_address: true",
        "use_remote_address: true, skip_xff_append: true",
        "use_remote_address: true, xff_num_trusted_hops: 1",
        "use_remote_address: true, xff_num_trusted_hops: 2",
        "use_remote_address: true, xff_num_trusted_hops: 2, skip_xff_append: true",
    ] {
        println!("{options}");
        let mut requests = REQUESTS.to_vec();
        if options.starts_with("use_remote_address: true") && !options.contains("skip_xff_append") {
            requests.push(TWO_LINES);
        }
        let options = format!("{options}, {LOGGED}");
        answer_alike(&|ports| front(ports, &options, ROUTES), &requests);
    }
}
