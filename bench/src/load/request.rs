//! What is sent: whole requests made beforehand, and the order in which they take turns.

use crate::http2::grpc_message;

/// Requests to send, each one whole. Made once, so that sending costs no more than a write.
#[derive(Clone, Debug)]
pub struct Requests {
    /// Never empty.
    whole: Vec<Box<[u8]>>,
    /// Which one is sent when; it begins again at its end. Never empty, and every number is one of `whole`.
    order: Vec<u32>,
    are_grpc: bool,
}

/// Length of an order: long enough that the rare ones of a thousand requests come in their proportion.
const ORDER_LENGTH: usize = 1 << 16;

impl Requests {
    /// One request, again and again.
    pub fn one(request: Vec<u8>) -> Self {
        Self { whole: vec![request.into()], order: vec![0], are_grpc: false }
    }

    /// One call of gRPC, again and again: an answer is good that says so in its trailers.
    pub fn calls(request: Vec<u8>) -> Self {
        Self { are_grpc: true, ..Self::one(request) }
    }

    /// Requests for these paths by Zipf's law: path `n`, counting from 1, has the weight `1/n`, as what people ask for
    /// tends to have. The same paths give the same order, in every run and for every subject.
    ///
    /// # Panics
    /// Without any path.
    pub fn zipf(paths: &[String]) -> Self {
        assert!(!paths.is_empty(), "a load needs a request");
        let mut sum = 0.0;
        let upto: Vec<f64> = (1..=paths.len())
            .map(|n| {
                sum += 1.0 / n as f64;
                sum
            })
            .collect();
        let mut random = Random { state: 1 };
        let draw = |_| {
            let drawn = random.unit() * sum;
            upto.partition_point(|upto| *upto <= drawn).min(paths.len() - 1) as u32
        };
        let order = (0..ORDER_LENGTH).map(draw).collect();
        Self { whole: paths.iter().map(|path| get(path).into()).collect(), order, are_grpc: false }
    }

    /// Which of the requests is the `n`-th that is sent.
    pub(super) fn nth(&self, n: u64) -> u32 {
        self.order[(n % self.order.len() as u64) as usize]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.whole.iter().map(|request| &request[..])
    }

    pub(super) fn are_grpc(&self) -> bool {
        self.are_grpc
    }

    pub(super) fn bytes(&self, which: u32) -> &[u8] {
        &self.whole[which as usize]
    }
}

/// The bench's own `GET`.
pub fn get(path: &str) -> Vec<u8> {
    build("GET", "bench.test", path, &plain_headers(), None)
}

/// The bench's own `POST`.
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let mut headers = plain_headers();
    headers.push((String::from("content-type"), String::from("application/octet-stream")));
    build("POST", "bench.test", path, &headers, Some(body))
}

/// The bench's own call of gRPC, for HTTP/2 only: the message is behind the head as it is.
pub fn grpc(path: &str, message: &[u8]) -> Vec<u8> {
    let mut headers = plain_headers();
    for (name, value) in
        [("content-type", "application/grpc"), ("te", "trailers"), ("transfer-encoding", "chunked")]
    {
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = build("POST", "bench.test", path, &headers, None);
    request.extend_from_slice(&grpc_message(message));
    request
}

/// The same request, asking for the connection's end after it.
pub fn last_on_its_connection(path: &str) -> Vec<u8> {
    let mut headers = plain_headers();
    headers.push((String::from("connection"), String::from("close")));
    build("GET", "bench.test", path, &headers, None)
}

fn plain_headers() -> Vec<(String, String)> {
    [("user-agent", "bench"), ("accept", "*/*")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// A whole request. `content-length` is added when there is a body.
pub fn build(
    method: &str,
    host: &str,
    target: &str,
    headers: &[(String, String)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    if let Some(body) = body {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body.unwrap_or_default());
    request
}

/// A small generator of random numbers (splitmix64): the same seed gives the same numbers.
pub struct Random {
    /// Any number: a seed at first.
    pub state: u64,
}

impl Random {
    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_a_client_would_write_it() {
        assert_eq!(
            get("/a"),
            b"GET /a HTTP/1.1\r\nhost: bench.test\r\nuser-agent: bench\r\naccept: */*\r\n\r\n"
        );
        let header = [(String::from("x-a"), String::from("1"))];
        let put = build("PUT", "a:80", "/b", &header, Some(b"xyz"));
        assert_eq!(put, b"PUT /b HTTP/1.1\r\nhost: a:80\r\nx-a: 1\r\ncontent-length: 3\r\n\r\nxyz");
    }

    #[test]
    fn zipf_gives_each_path_its_share_and_every_path_a_turn() {
        let paths: Vec<String> = (0..1000).map(|n| format!("/{n}")).collect();
        let requests = Requests::zipf(&paths);
        let mut counts = vec![0.0; paths.len()];
        for n in 0..ORDER_LENGTH as u64 {
            counts[requests.nth(n) as usize] += 1.0;
        }
        let all: f64 = (1..=1000).map(|n| 1.0 / f64::from(n)).sum();
        for (n, tolerance) in [(1, 0.03), (2, 0.05), (10, 0.10), (100, 0.30)] {
            let expected = ORDER_LENGTH as f64 / f64::from(n) / all;
            let off = (counts[n as usize - 1] / expected - 1.0_f64).abs();
            assert!(off < tolerance, "path {n} is off by {off}");
        }
        assert!(counts.iter().all(|count| *count > 0.0));
        assert_eq!(requests.nth(5), requests.nth(5 + ORDER_LENGTH as u64));
    }
}
