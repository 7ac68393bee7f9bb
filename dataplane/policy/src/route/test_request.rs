//! Request heads for tests, built without a parser.

use alloc::vec::Vec;

use wire::head::{Header, Known, Method, RequestHead, RequestView, Span};

/// A request head with its bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestRequest {
    head: RequestHead,
    bytes: Vec<u8>,
}

impl TestRequest {
    /// `GET target` of host `example.com`, the target in origin-form.
    pub(crate) fn get(target: impl AsRef<[u8]>) -> TestRequest {
        let target = target.as_ref();
        let mut request = TestRequest::default();
        request.head.target = request.push(target);
        request.head.path = match target.iter().position(|byte| *byte == b'?') {
            Some(at) => {
                let (start, end) = (request.head.target.start, request.head.target.end);
                request.head.query = Some(Span { start: start + at as u32 + 1, end });
                Span { start, end: start + at as u32 }
            }
            None => request.head.target,
        };
        request.method(Method::Get, "GET").host("example.com")
    }

    /// `GET` in absolute-form: scheme and authority, then the rest.
    pub(crate) fn absolute(start: &str, rest: &str) -> TestRequest {
        let mut request = TestRequest::get(std::format!("{start}{rest}"));
        request.head.path.start += start.len() as u32;
        request
    }

    /// A request whose target has no path: `*`, an authority, or an absolute-form without one.
    pub(crate) fn without_path(method: Method, name: &str, target: &str) -> TestRequest {
        let mut request = TestRequest::get(target).method(method, name);
        request.head.path = Span::default();
        request
    }

    /// With another method.
    pub(crate) fn method(mut self, method: Method, name: &str) -> TestRequest {
        self.head.method = method;
        self.head.method_span = self.push(name.as_bytes());
        self
    }

    /// With another host.
    pub(crate) fn host(mut self, host: &str) -> TestRequest {
        self.head.authority = self.push(host.as_bytes());
        self
    }

    /// With one more header line.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> TestRequest {
        let (name, value) = (self.push(name.as_bytes()), self.push(value.as_ref()));
        self.head.headers.push(Header { name, value, ..Header::default() });
        self
    }

    /// With one more header line as it came, whose value is `value`.
    pub(crate) fn header_line(mut self, line: &str, value: &str) -> TestRequest {
        let span = self.push(std::format!("{line}\r\n").as_bytes());
        let part = |from: usize, len: usize| {
            let start = span.start + from as u32;
            Span { start, end: start + len as u32 }
        };
        let name = part(0, line.split(':').next().map_or(0, str::len));
        let value = part(line.find(value).unwrap_or(line.len()), value.len());
        self.head.headers.push(Header { name, value, line: span, ..Header::default() });
        self
    }

    /// With `Connection`, which names a header.
    pub(crate) fn connection(mut self, option: &str) -> TestRequest {
        self = self.header("Connection", option);
        self.head.options.names = true;
        let last = self.head.headers.last_mut();
        last.into_iter().for_each(|header| header.known = Known::Connection);
        self
    }

    /// What routing reads.
    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView { head: &self.head, bytes: &self.bytes }
    }

    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        Span { start, end: self.bytes.len() as u32 }
    }
}
