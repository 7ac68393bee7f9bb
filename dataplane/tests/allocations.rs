//! A request on a connection that goes on allocates nothing once the worker is warm: exactly nothing, counted by the
//! allocator of a real worker's thread, on both drivers, over HTTP/1.1 and HTTP/2, and in TLS.

#[path = "support/mesh.rs"]
mod mesh;
#[expect(dead_code, reason = "its ends of a simulated connection are not used here")]
#[path = "support/secured.rs"]
mod secured;
#[path = "support/streams.rs"]
mod streams;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, LazyLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mesh::{APP, Mesh, Setup, forward_to, route};
use policy::{
    cidr::Cidr,
    cluster::UpstreamProtocol,
    http_filter::{FilterConfig, HttpFilter},
    rbac::{Action, Condition, Conditions, Policy, Rbac, Rules},
    regex::{Regex, RegexRewrite},
    route::{
        AppendAction, GrpcTimeout, HeaderMatch, HeaderOps, HeaderTest, PathMatch, PathRewrite, RouteMatch,
        RouteSpec,
    },
    string_match::{StringMatch, StringPattern},
    tls::Transports,
};
use runtime::{counting, kernel::Kernel};
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use secured::{Authority, Identity};
use sim::Behaviour;
use streams::{Answered, StreamClient, stream_origin};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const WARM_UP: usize = 300;
const COUNTED: usize = 1000;

/// Less than the time after which the relay looks whether the client of a slow exchange is still there. That costs an
/// allocation or two, and on a busy machine any exchange may be slow.
const SLOW: Duration = Duration::from_millis(200);
const ALLOCATIONS_OF_SLOW_MAX: u64 = 4;

const GET: &[u8] =
    b"GET /items/4711/price?full=1 HTTP/1.1\r\nhost: shop\r\nuser-agent: test\r\naccept: */*\r\n\r\n";
const POST: &[u8] = b"POST /items/4711 HTTP/1.1\r\nhost: shop\r\ncontent-length: 9\r\n\r\nsome body";
const POST_HEAD: &[u8] = b"POST /items/4711 HTTP/1.1\r\nhost: shop\r\ncontent-length: 9\r\n\r\n";
const CHUNKED: &[u8] =
    b"POST /items/4711 HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n5\r\n body\r\n0\r\n\r\n";
const CHUNKED_AND_TRAILERS: &[u8] =
    b"POST /items/4711 HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\nx-t: t\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
const ANSWER_AND_TRAILERS: &[u8] =
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-price: 4711\r\n\r\n";
const STREAM_ANSWER: Answered = Answered {
    head: b"HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n",
    body: b"hello",
    trailers: b"",
};

/// A unary call: a message behind its five bytes, and a status behind the answer.
const CALL_HEAD: &[u8] =
    b"POST /shop.Items/Price HTTP/1.1\r\nhost: shop\r\ncontent-type: application/grpc\r\n\
    te: trailers\r\ngrpc-timeout: 20S\r\nuser-agent: test\r\ntransfer-encoding: chunked\r\n\r\n";
const CALL: &[u8] = b"\0\0\0\0\x09some body";
const CALL_ANSWER: Answered = Answered {
    head: b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n",
    body: b"\0\0\0\0\x05hello",
    trailers: b"grpc-status: 0\r\ngrpc-message: \r\nx-price: 4711\r\n",
};

/// An origin on a thread of its own that answers whatever ends like a request of this test.
fn origin(answer: &'static [u8]) -> SocketAddr {
    origin_over(answer, |stream| stream)
}

/// One over what `over` makes of a connection.
fn origin_over<S: Read + Write + 'static>(answer: &'static [u8], over: fn(TcpStream) -> S) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = over(stream.unwrap());
                let (mut got, mut piece) = (Vec::new(), [0; 4096]);
                loop {
                    match stream.read(&mut piece) {
                        Ok(count) if count > 0 => got.extend_from_slice(&piece[..count]),
                        _ => return,
                    }
                    let is_get = got.starts_with(b"GET") && got.ends_with(b"\r\n\r\n");
                    if is_get || got.ends_with(b"some body") || got.ends_with(b"\r\n0\r\n\r\n") {
                        got.clear();
                        stream.write_all(answer).unwrap();
                    }
                }
            });
        }
    });
    address
}

/// Asks from a thread of its own; gives how much the worker allocated for the counted requests, and how many of them were
/// slow. The end of `ended`'s connection tells the worker's thread, which must not look for it.
fn ask(proxy: SocketAddr, ended: SocketAddr, asks: Asks) -> JoinHandle<(u64, u64)> {
    let ended = TcpStream::connect(ended).unwrap();
    std::thread::spawn(move || {
        let mut ask = asks(proxy);
        (0..WARM_UP).for_each(|_| ask());
        let before = counting::count();
        assert_ne!(before, 0, "a cold worker allocates, which the allocator counts");
        let mut slow = 0;
        for _ in 0..COUNTED {
            let asked = Instant::now();
            ask();
            slow += u64::from(asked.elapsed() >= SLOW);
        }
        let allocated = counting::count() - before;
        drop(ended);
        (allocated, slow)
    })
}

/// Connects to the proxy; gives what sends one request and takes its answer.
type Asks = fn(SocketAddr) -> Box<dyn FnMut()>;

fn connection(proxy: SocketAddr, request: &'static [u8]) -> Box<dyn FnMut()> {
    connection_over(proxy, request, |stream| stream)
}

/// Over what `over` makes of a connection.
fn connection_over<S: Read + Write + 'static>(
    proxy: SocketAddr,
    request: &'static [u8],
    over: impl FnOnce(TcpStream) -> S,
) -> Box<dyn FnMut()> {
    let stream = TcpStream::connect(proxy).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = over(stream);
    let mut answer = [0; 4096];
    Box::new(move || {
        stream.write_all(request).unwrap();
        let mut got = 0;
        while !answer[..got].ends_with(b"hello") {
            got += stream.read(&mut answer[got..]).unwrap();
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer[..got].escape_ascii());
    })
}

fn stream(proxy: SocketAddr, head: &'static [u8], body: &'static [u8]) -> Box<dyn FnMut()> {
    answered(proxy, (head, body), (b"hello".len(), 0))
}

fn call(proxy: SocketAddr) -> Box<dyn FnMut()> {
    answered(proxy, (CALL_HEAD, CALL), (CALL_ANSWER.body.len(), CALL_ANSWER.trailers.len()))
}

/// Asks on a stream; the answer has so many bytes of body and of trailers.
fn answered(
    proxy: SocketAddr,
    (head, body): (&'static [u8], &'static [u8]),
    (body_len, trailers_len): (usize, usize),
) -> Box<dyn FnMut()> {
    let mut client = StreamClient::connect(proxy);
    Box::new(move || assert_eq!(client.ask(head, body), (200, body_len, trailers_len)))
}

fn allocates_nothing(setup: Setup, origin: SocketAddr, asks: Asks) {
    setup.played(1).on_kernel(async move |mesh: &Mesh<Kernel>| {
        mesh.adopt(|config| config.clusters.get_mut(APP).unwrap().1 = vec![origin]).await;
        let ended = runtime::Listener::local_addr(&mesh.played.borrow()[0]);
        counting::count_this_thread();
        let asking = ask(mesh.proxy, ended, asks);
        mesh.accept().await.expect_close().await;
        let (allocated, slow) = asking.join().unwrap();
        let most = slow * ALLOCATIONS_OF_SLOW_MAX;
        assert!(allocated <= most, "{allocated} allocations in {COUNTED} requests, {slow} of them slow");
        assert_eq!(mesh.http("downstream_rq_total") as usize, WARM_UP + COUNTED);
    });
}

/// Who vouches for everybody, and who everybody is.
static WORLD: LazyLock<(Authority, Identity)> = LazyLock::new(|| {
    let authority = Authority::new();
    let identity = authority.workload("spiffe://m/ns/shop/sa/web");
    (authority, identity)
});

/// Mutual TLS on both sides of the proxy.
fn secured() -> Setup {
    let (authority, identity) = &*WORLD;
    let mut setup = Setup::new(Behaviour::default());
    setup.config.tls = Some(Arc::new(secured::downstream(identity, authority.bundle())));
    let upstream = secured::upstream(identity, authority.bundle(), "spiffe://m/ns/shop/sa/web");
    setup.cluster(|cluster| {
        cluster.transport = Transports { default: Some(Arc::new(upstream)), ..Transports::default() };
    })
}

fn secured_connection(proxy: SocketAddr, request: &'static [u8]) -> Box<dyn FnMut()> {
    let (authority, identity) = &*WORLD;
    let config = Identity::client(Some(identity), authority, &["http/1.1"]);
    let client = ClientConnection::new(Arc::new(config), "app.mesh".try_into().unwrap()).unwrap();
    connection_over(proxy, request, |stream| StreamOwned::new(client, stream))
}

fn secured_origin(answer: &'static [u8]) -> SocketAddr {
    origin_over(answer, |stream| {
        let (authority, identity) = &*WORLD;
        let config = Arc::new(identity.server(authority));
        StreamOwned::new(ServerConnection::new(config).unwrap(), stream)
    })
}

/// A route by regular expression with a rewrite and header edits both ways.
fn elaborate_route() -> RouteSpec {
    let mut forward = forward_to(APP);
    forward.path_rewrite =
        Some(PathRewrite::Regex(RegexRewrite::new("^/items/([0-9]+)", "/goods/\\1").unwrap()));
    let mut edits = HeaderOps::default();
    edits.add("x-added", b"value", AppendAction::Append).unwrap();
    edits.add("x-absent", b"value", AppendAction::AddIfAbsent).unwrap();
    edits.remove("user-agent").unwrap();
    RouteSpec {
        matches: RouteMatch::path(PathMatch::Regex(Regex::full("/items/[0-9]+(/price)?").unwrap())),
        request_headers: edits.clone(),
        response_headers: edits,
        ..route("/", forward)
    }
}

/// Rules of every kind that allow what is asked here, and have to look at all of it for that.
fn guarded() -> Setup {
    let some = |condition| Conditions::new(vec![condition]).unwrap();
    let policy = |permission, principal| Policy {
        name: "p".into(),
        permissions: some(permission),
        principals: some(principal),
    };
    let text = |pattern| StringMatch { pattern, ignore_case: false };
    let regex = |of: &str| text(StringPattern::Regex(Regex::full(of).unwrap()));
    let header = |name: &str, test| {
        let test = HeaderTest::Value(test);
        Condition::Header(HeaderMatch { name: name.into(), test, invert: false, missing_as_empty: false })
    };
    let id = StringPattern::Exact(b"spiffe://m/ns/shop/sa/web"[..].into());
    let denied = Condition::Any(
        Conditions::new(vec![
            Condition::Path(regex("/admin/.*")),
            header("accept", text(StringPattern::Exact(b"none"[..].into()))),
            header("host", regex("admin[.].*")),
        ])
        .unwrap(),
    );
    let host = header(":authority", text(StringPattern::Exact(b"shop"[..].into())));
    let not_ours = Condition::Not(Condition::SourceIp(Cidr::new([127, 0, 0, 0].into(), 8).unwrap()).into());
    let denies = Rules::new(
        Action::Deny,
        vec![policy(denied, Condition::Always), {
            Policy { name: "q".into(), ..policy(Condition::Always, not_ours) }
        }],
    );
    let allows = Rules::new(Action::Allow, vec![policy(host, Condition::Authenticated(Some(text(id))))]);
    let filter = |name: &str, rules: Rules| HttpFilter {
        name: name.into(),
        is_disabled: false,
        config: FilterConfig::Rbac(Arc::new(Rbac { rules: Some(rules.clone()), shadow_rules: Some(rules) })),
    };
    let filters = vec![filter("deny", denies.unwrap()), filter("allow", allows.unwrap())];
    secured().manager(|manager| manager.http_filters = filters)
}

/// A route on which a client's own timeout counts.
fn grpc_route() -> RouteSpec {
    let mut forward = forward_to(APP);
    forward.stream_duration.grpc_timeout = Some(GrpcTimeout { max: None, offset: Duration::ZERO });
    route("/shop.Items/", forward)
}

#[test]
fn a_request_allocates_nothing() {
    // One after the other, since what is counted is one worker's.
    let connections: [Asks; 3] =
        [|proxy| connection(proxy, GET), |proxy| connection(proxy, POST), |proxy| connection(proxy, CHUNKED)];
    let streams: [Asks; 2] =
        [|proxy| stream(proxy, GET, b""), |proxy| stream(proxy, POST_HEAD, b"some body")];
    let plain = || Setup::new(Behaviour::default());
    let http2 = || {
        let mut setup = plain();
        setup.config.clusters.get_mut(APP).unwrap().0.protocol = UpstreamProtocol::Http2;
        setup
    };
    for asks in connections {
        allocates_nothing(plain(), origin(ANSWER), asks);
        allocates_nothing(plain().routes(|| vec![elaborate_route()]), origin(ANSWER), asks);
        allocates_nothing(http2(), stream_origin(STREAM_ANSWER), asks);
    }
    let secured_connections: [Asks; 2] =
        [|proxy| secured_connection(proxy, GET), |proxy| secured_connection(proxy, CHUNKED)];
    for asks in secured_connections {
        allocates_nothing(secured(), secured_origin(ANSWER), asks);
        allocates_nothing(guarded(), secured_origin(ANSWER), asks);
    }
    for asks in streams {
        allocates_nothing(plain(), origin(ANSWER), asks);
        allocates_nothing(http2(), stream_origin(STREAM_ANSWER), asks);
        allocates_nothing(http2().routes(|| vec![elaborate_route()]), stream_origin(STREAM_ANSWER), asks);
    }
    allocates_nothing(http2().routes(|| vec![grpc_route()]), stream_origin(CALL_ANSWER), call);
    // Trailers to and from HTTP/1.1.
    allocates_nothing(http2(), stream_origin(STREAM_ANSWER), |proxy| connection(proxy, CHUNKED_AND_TRAILERS));
    allocates_nothing(plain(), origin(ANSWER_AND_TRAILERS), |proxy| {
        answered(proxy, (GET, b""), (b"hello".len(), b"x-price: 4711\r\n".len()))
    });
}
