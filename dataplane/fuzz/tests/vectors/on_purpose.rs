//! Where we differ on purpose: the cases by their reason, with the section of the RFC or the row of the catalogue of failures.

/// Cases under their reason.
type Listed = &'static [(&'static str, &'static [&'static str])];

/// Cases of one set in which we differ.
pub(crate) struct OnPurpose {
    /// What they take, and we refuse or read otherwise.
    pub(crate) refused: Listed,
    /// What they call an error and we take.
    pub(crate) taken: Listed,
}

/// Beside llhttp.
pub(crate) const LLHTTP: OnPurpose = OnPurpose {
    refused: &[
        (
            "H1-07, H1-21: nothing stands before a message, not even an empty line",
            &[
                "request/connection: CRLF between requests, implicit `keep-alive`",
                "request/pipelining: Should parse multiple events",
                "request/sample: Prefix newline",
                "request/sample: Request starting with CRLF",
                "request/uri: Host terminated by a query string",
                "response/connection: HTTP 100 first, then 400",
                "response/connection: HTTP 304 with Content-Length",
                "response/pipelining: Should parse multiple events",
                "response/sample: Response starting with CRLF",
            ],
        ),
        (
            "H1-02: a coding that we do not have is not forwarded, and is no body until close either",
            &[
                "request/transfer-encoding: POST with `chunked` as last transfer-encoding",
                "request/transfer-encoding: POST with `chunked` as last transfer-encoding (multiple headers)",
                "response/transfer-encoding: `chunked` before other transfer-encoding",
                "response/transfer-encoding: multiple transfer-encoding where chunked is not the last one",
                "response/transfer-encoding: `chunkedchunked` transfer-encoding does not enable chunked enconding",
            ],
        ),
        (
            "H1-04: a tab beside a length is legal, and some readers trim only spaces",
            &[
                "request/content-length: Tabs in `Content-Length` (surrounding)",
                "response/content-length: Tabs in `Content-Length` (surrounding)",
            ],
        ),
        (
            "H1-11: a fragment is never sent (RFC 9112 §3.2)",
            &[
                "request/uri: Fragment in URI",
                "url: Absolute URL",
                "url: Relative URL",
                "url: URL fragment",
                "url: Complex URL fragment",
                "url: Complex URL from node.js url parser doc",
            ],
        ),
        (
            "H1-11: a user in a target is an attack (RFC 9110 §4.2.4)",
            &[
                "request/uri: `host:port` and basic auth",
                "url: Complex URL with basic auth from node.js url parser doc",
                "url: Proxy basic auth with unreserved chars",
                "url: Proxy basic auth with url encoded space",
            ],
        ),
        (
            "H1-12: a zone means something to one machine only (RFC 6874 §1), `=` is no character of a host",
            &[
                "request/sample: Firefox GET",
                "request/sample: curl GET",
                "url: IPv6 address with Zone ID",
                "url: IPv6 address with Zone ID, but `%` is not percent-encoded",
            ],
        ),
        ("RFC 9112 §3.2.4: `*` is for OPTIONS alone", &["request/method: M-SEARCH request"]),
        (
            "H1-13: HTTP/1.0 and HTTP/1.1, and nothing else",
            &[
                "request/method: ANNOUNCE request with RTSP",
                "request/method: OPTIONS request with RTSP",
                "request/method: PRI request HTTP2",
                "request/method: SOURCE request with ICE",
                "request/sample: No HTTP version",
                "response/sample: HTTP version 0.9",
                "response/sample: ICE response",
                "response/sample: RTSP response",
            ],
        ),
        ("H1-17: CONNECT has no body", &["request/method: CONNECT with body"]),
        (
            "H1-19: the space behind the code is not left out (RFC 9112 §4)",
            &["response/sample: No reason phrase"],
        ),
    ],
    taken: &[(
        "RFC 9110 §9.1: a method is any token, known or not; what it may do is for policy to say",
        &["request/invalid: HTTP protocol and ANNOUNCE method"],
    )],
};

/// Beside the strictest mode of `http_desync_guardian`.
pub(crate) const DESYNC_GUARDIAN: OnPurpose = OnPurpose {
    refused: &[
        (
            "H1-02: a coding that we do not have is not forwarded",
            &[
                "more-compliant-tests: Correct TE OK",
                "more-compliant-tests: Multiple transfer encoding headers in a single request OK",
                "more-compliant-tests: TE with custom parameters OK",
                "more-compliant-tests: Transfer-Encoding: identity and chunked OK",
                "rfc-compliant: Different Transfer-Encoding headers",
                "rfc-compliant: Different Transfer-Encoding headers combined",
                "rfc-compliant: Transfer-Encoding with a param: chunked;custom_param",
            ],
        ),
        ("H1-10: a target is ASCII (RFC 3986 §2)", &["rfc-compliant: International in URI"]),
        ("H1-11: a fragment is never sent (RFC 9112 §3.2)", &["rfc-compliant: Compliant URL"]),
        ("H1-11: a target is not empty (RFC 9112 §3.2)", &["rfc-compliant: Empty URI"]),
    ],
    taken: &[(
        "H1-14: a body is framed in the same way whatever the method (RFC 9110 §9.3.1), and always read or its connection \
         closed",
        &[
            "acceptable: Get with a body and Content-Length:0",
            "acceptable: Get with a body and Content-Length:0 #2",
            "ambiguous: Get with a body and Content-Length",
            "ambiguous: Get with a body and Transfer-Encoding",
            "ambiguous: Head with a body and Content-Length",
            "ambiguous: Head with a body and Transfer-Encoding",
            "real-life-test-cases: Has a CL in GET",
            "real-life-test-cases: Has a TE in GET",
        ],
    )],
};
