//! Good messages with random damage: whatever is accepted has one meaning, before and after it was sent on, and no
//! answer depends on where the network cut the bytes. Runs are the same every time; the seed is in the message.

use wire::head::{
    Framing, Known, Method, RequestHead, RequestView, ResponseHead, ResponseView, Span, Version,
};
use wire::http1::body::{Decoder, Step, TrailerLimits};
use wire::http1::encode::{self, BodyOut, HeadEdits, ResponseEdits, Sink};
use wire::http1::parse::{self, Limits, ParseError, Parsed};
use wire::tls_sniff::{Sniff, client_hello};

const LIMITS: Limits = Limits { head_bytes_max: 400, headers_count_max: 12, target_bytes_max: 80 };
const ROUNDS: u64 = 20_000;

/// Bytes that parsers trip over, put in more often than others.
const ODD: &[u8] = b"\r\n \t:,;\0\x7f\x0b\x85\xa0#?/@[]%+-0159aAxX\xff";

/// xorshift64*: small, seeded, and good enough to break things.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn damage(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len());
            let odd = ODD[self.below(ODD.len())];
            match self.below(6) {
                0 | 1 => bytes[at] = odd,
                2 | 3 => bytes.insert(at, odd),
                4 => drop(bytes.remove(at)),
                _ => {
                    let other = seeds[self.below(seeds.len())];
                    let start = self.below(other.len());
                    let run = &other[start..other.len().min(start + 1 + self.below(30))];
                    bytes.splice(at..at, run.iter().copied());
                }
            }
            if bytes.is_empty() {
                bytes.push(odd);
            }
        }
        bytes
    }
}

const REQUESTS: &[&[u8]] = &[
    b"GET /a/b?c=d HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n0123456789",
    b"PUT / HTTP/1.1\r\nhost:a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET http://a/x HTTP/1.0\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: [::1]:80\r\nConnection: Upgrade, X-Y\r\nX-Y: 1\r\nUpgrade: websocket\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTE: trailers\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
];

const RESPONSES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: s\r\n\r\nhello",
    b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.0 304 Not Modified\r\nConnection: keep-alive\r\nETag: x\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nConnection: X-A\r\nX-A: 1\r\n\r\n",
];

struct Written<'a>(&'a [u8], Vec<u8>);

impl Sink for Written<'_> {
    fn keep(&mut self, span: Span) {
        assert!(span.end as usize <= self.0.len());
        self.1.extend_from_slice(span.of(self.0));
    }

    fn insert(&mut self, bytes: &[u8]) {
        self.1.extend_from_slice(bytes);
    }
}

type Answer = Result<Parsed, ParseError>;

/// The answer after the bytes came one by one, and after they came in two parts.
fn in_parts(bytes: &[u8], cut: usize, mut ask: impl FnMut(&[u8], bool) -> Answer) -> [Answer; 2] {
    let mut first = true;
    let mut trickled = Ok(Parsed::Partial);
    for end in 1..=bytes.len() {
        trickled = ask(&bytes[..end], std::mem::take(&mut first));
        if trickled != Ok(Parsed::Partial) {
            break;
        }
    }
    let mut halved = ask(&bytes[..cut], true);
    if halved == Ok(Parsed::Partial) {
        halved = ask(bytes, false);
    }
    [trickled, halved]
}

#[test]
fn an_accepted_request_means_the_same_upstream() {
    let mut rng = Rng(0x5eed_0001);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let bytes = rng.damage(REQUESTS);
        let shown = format!("round {round}: {:?}", String::from_utf8_lossy(&bytes));
        let mut head = RequestHead::default();
        let answer = parse::request(&bytes, &LIMITS, &mut head);
        let mut other = RequestHead::default();
        let parts = in_parts(&bytes, rng.below(bytes.len()), |part, fresh| {
            if fresh {
                other.clear();
            }
            parse::request(part, &LIMITS, &mut other)
        });
        assert_eq!(parts, [answer, answer], "{shown}");
        match answer {
            Ok(Parsed::Complete) => accepted += 1,
            Ok(Parsed::Partial) => continue,
            Err(error) => {
                assert!((400..=505).contains(&error.status()), "{shown}");
                refused += 1;
                continue;
            }
        }
        assert_eq!(format!("{other:?}"), format!("{head:?}"), "{shown}");

        // An HTTP/1.0 request may name no host: it is given one.
        let authority = head.authority.is_empty().then_some(&b"a"[..]);
        let edits = HeadEdits { authority, ..HeadEdits::default() };
        let view = RequestView { head: &head, bytes: &bytes };
        let mut written = Written(&bytes, Vec::new());
        encode::request(view, &edits, &mut written).unwrap();
        let sent = written.1;
        let shown = format!("{shown} sent as {:?}", String::from_utf8_lossy(&sent));
        let mut again = RequestHead::default();
        let wide = Limits { head_bytes_max: 1000, ..LIMITS };
        assert_eq!(parse::request(&sent, &wide, &mut again), Ok(Parsed::Complete), "{shown}");
        let second = RequestView { head: &again, bytes: &sent };
        assert_eq!(again.end as usize, sent.len(), "{shown}");
        assert_eq!((again.version, again.framing), (Version::Http11, head.framing), "{shown}");
        assert_eq!((second.method(), second.query()), (view.method(), view.query()), "{shown}");
        if head.method != Method::Options {
            assert_eq!(second.path(), view.path(), "{shown}");
        }
        assert!(!again.upgrade && !again.options.close, "{shown}");
        let te: Vec<_> = again.headers.iter().filter(|header| header.known == Known::Te).collect();
        assert!(te.len() <= 1 && te.iter().all(|te| te.value.of(&sent) == b"trailers"), "{shown}");
        assert_eq!(again.options.names, !te.is_empty(), "{shown}");
        for header in &again.headers {
            let line = header.line.of(&sent);
            let kept = bytes.windows(line.len()).any(|run| run == line);
            let is_ours = matches!(header.known, Known::Host | Known::Te) || line == b"Connection: te\r\n";
            assert!(kept || is_ours, "{shown}");
        }
    }
    assert!(accepted > ROUNDS / 20 && refused > ROUNDS / 20, "{accepted} accepted, {refused} refused");
}

#[test]
fn an_accepted_response_means_the_same_downstream() {
    let mut rng = Rng(0x5eed_0002);
    let methods = [Method::Get, Method::Head, Method::Connect];
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let bytes = rng.damage(RESPONSES);
        let method = methods[rng.below(methods.len())];
        let shown = format!("round {round}: {method:?} {:?}", String::from_utf8_lossy(&bytes));
        let mut head = ResponseHead::default();
        let answer = parse::response(&bytes, &LIMITS, method, &mut head);
        let mut other = ResponseHead::default();
        let parts = in_parts(&bytes, rng.below(bytes.len()), |part, fresh| {
            if fresh {
                other.clear();
            }
            parse::response(part, &LIMITS, method, &mut other)
        });
        assert_eq!(parts, [answer, answer], "{shown}");
        if answer != Ok(Parsed::Complete) {
            continue;
        }
        accepted += 1;
        let body = BodyOut::choose(head.framing, Version::Http11);
        let edits = ResponseEdits { headers: &[], body, close: false, version: Version::Http11, method };
        let mut written = Written(&bytes, Vec::new());
        encode::response(ResponseView { head: &head, bytes: &bytes }, &edits, &mut written);
        let sent = written.1;
        let shown = format!("{shown} sent as {:?}", String::from_utf8_lossy(&sent));
        let mut again = ResponseHead::default();
        let wide = Limits { head_bytes_max: 1000, ..LIMITS };
        assert_eq!(parse::response(&sent, &wide, method, &mut again), Ok(Parsed::Complete), "{shown}");
        assert_eq!((again.end as usize, again.status), (sent.len(), head.status), "{shown}");
        let expected = if head.framing == Framing::UntilClose { Framing::Chunked } else { head.framing };
        assert_eq!(again.framing, expected, "{shown}");
    }
    assert!(accepted > ROUNDS / 20, "{accepted} accepted");
}

#[test]
fn a_chunked_body_is_the_same_however_it_is_cut() {
    const BODIES: &[&[u8]] = &[
        b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nGET /",
        b"1\r\na\r\n1\r\nb\r\n0\r\nt: v\r\nu: w\r\n\r\n",
        b"000f\r\n0123456789abcde\r\n0\r\nAuthorization: x\r\n\r\n",
    ];
    let limits = TrailerLimits { bytes_max: 40, count_max: 3 };
    let mut rng = Rng(0x5eed_0003);
    let mut ended = 0;
    for round in 0..ROUNDS {
        let bytes = rng.damage(BODIES);
        let cut = rng.below(bytes.len());
        let read = |cuts: &[usize]| {
            let mut decoder = Decoder::new(Framing::Chunked, limits);
            let (mut out, mut taken) = (Vec::new(), 0);
            for end in cuts.iter().copied().chain([bytes.len()]) {
                loop {
                    let (step, forward) = match decoder.receive(&bytes[taken..end]) {
                        Ok(Step::Data(count) | Step::Trailer(count)) => (count, true),
                        Ok(Step::Skip(count)) => (count, false),
                        Ok(Step::NeedMore) => break,
                        Ok(Step::End) => return (out, Ok(Some(taken))),
                        // What was taken before an error depends on the cut; the error does not.
                        Err(error) => return (Vec::new(), Err(error)),
                    };
                    assert!(step > 0 && taken + step <= end);
                    if forward {
                        out.extend_from_slice(&bytes[taken..taken + step]);
                    }
                    taken += step;
                }
            }
            (out, Ok(None))
        };
        let whole = read(&[]);
        let each: Vec<usize> = (0..bytes.len()).collect();
        let shown = format!("round {round}: {:?}", String::from_utf8_lossy(&bytes));
        assert_eq!(read(&[cut]), whole, "{shown}");
        assert_eq!(read(&each), whole, "{shown}");
        ended += u64::from(matches!(whole.1, Ok(Some(_))));
    }
    assert!(ended > ROUNDS / 20, "{ended} ended");
}

#[test]
fn a_damaged_hello_is_told_the_same_at_every_length() {
    // Extensions: server name `a.b`, ALPN `h2`.
    let hello = [
        &b"\x16\x03\x01\x00\x48\x01\x00\x00\x44\x03\x03"[..],
        &[7; 32],
        b"\x00\x00\x02\x13\x01\x01\x00\x00\x19\x00\x00\x00\x08\x00\x06\x00\x00\x03a.b",
        b"\x00\x10\x00\x05\x00\x03\x02h2\x00\x17\x00\x00",
    ]
    .concat();
    let Sniff::Hello(good) = client_hello(&hello) else { panic!("the seed is no hello: {}", hello.len()) };
    assert_eq!(good.server_name.as_deref(), Some("a.b"));
    let mut rng = Rng(0x5eed_0004);
    for round in 0..ROUNDS {
        let bytes = rng.damage(&[&hello]);
        let whole = client_hello(&bytes);
        let part = client_hello(&bytes[..rng.below(bytes.len())]);
        assert!(part == Sniff::Partial || part == whole, "round {round}: {bytes:?}");
    }
}
