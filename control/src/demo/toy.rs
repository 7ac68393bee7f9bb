//! The toy services: what a shop might be, as tasks of one process. Each knows nothing of a mesh but what
//! `ringway run` would tell it: an HTTP proxy, and a local address for the dependency it declared.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::board::{Board, Edge};
use super::chat;
use super::client::{Client, Form, SERVER_TIMING, timing};
use super::grpc::{self, PayClient};

/// Longest wait for the ledger.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(5);

/// What an order costs.
const CENTS: u32 = 250;

/// What the ledger says before anyone has said anything.
const GREETING: &str = "ledger ready";

/// Which toy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// What the gateway leads to; asks cart, or orders.
    Web,
    /// What the gateway leads to for questions. A WebSocket, and every message comes back.
    Chat,
    /// Knows what is in the cart.
    Cart,
    /// Takes orders; asks pay.
    Orders,
    /// Takes money, over gRPC; writes to the ledger.
    Pay,
    /// Writes lines down. Over TCP, and it speaks first.
    Ledger,
}

/// Every toy.
pub(super) const SERVICES: [Service; 6] =
    [Service::Web, Service::Chat, Service::Cart, Service::Orders, Service::Pay, Service::Ledger];

impl Service {
    /// As its Service document names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Service::Web => "web",
            Service::Chat => "chat",
            Service::Cart => "cart",
            Service::Orders => "orders",
            Service::Pay => "pay",
            Service::Ledger => "ledger",
        }
    }

    /// As `ringway run --protocol` names it.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Service::Chat => "ws",
            Service::Pay => "grpc",
            Service::Ledger => "tcp",
            _ => "http",
        }
    }

    /// What it declares to call, as `ringway run --to` does, and on which port.
    pub(super) fn dependency(self) -> Option<(Service, u16)> {
        match self {
            Service::Orders => Some((Service::Pay, 80)),
            Service::Pay => Some((Service::Ledger, 7000)),
            _ => None,
        }
    }
}

/// What the environment tells a toy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Environment {
    /// The address of HTTP_PROXY.
    pub(super) http_proxy: SocketAddr,
    /// That of RINGWAY_LEDGER_7000_ADDR or the like, for the toy that declared a dependency.
    pub(super) dependency: Option<SocketAddr>,
}

/// A running replica of a toy; dropped, it and every connection it has are gone.
#[derive(Debug)]
pub(super) struct Toy {
    served: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Toy {
    /// Serves on `listener`.
    pub(super) fn start(
        service: Service,
        listener: TcpListener,
        environment: Environment,
        board: Arc<Board>,
    ) -> Toy {
        let served = Arc::new(AtomicU64::new(0));
        let work = Work {
            service,
            board,
            served: served.clone(),
            mesh: Client::new(environment.http_proxy, Form::Absolute),
            pay: environment.dependency.filter(|_| service == Service::Orders).map(PayClient::new),
            ledger: environment.dependency.filter(|_| service == Service::Pay),
        };
        Toy { served, task: tokio::spawn(accept(listener, Arc::new(work))).abort_handle() }
    }

    /// Requests it has answered.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, work: Arc<Work>) {
    // Owned by this task, so that its end ends them.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, work.clone()));
                }
                // Out of descriptors at worst: whoever connects waits until there are some again.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, work: Arc<Work>) {
    // It only costs time if it fails.
    let _ = stream.set_nodelay(true);
    // A caller that goes away in the middle of anything has lost its answer, as it will notice.
    match work.service {
        Service::Ledger => {
            let _ = work.keep_ledger(stream).await;
        }
        Service::Chat => {
            let _ = chat::echo(stream, &work.served).await;
        }
        Service::Pay => {
            let answer = service_fn(|request| {
                let work = work.clone();
                async move { Ok::<_, Infallible>(grpc::answer(request, || work.charge()).await) }
            });
            let server = http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        }
        Service::Web | Service::Cart | Service::Orders => {
            let answer = service_fn(|request| {
                let work = work.clone();
                async move { Ok::<_, Infallible>(work.answer(&request).await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        }
    }
}

/// What one replica does.
#[derive(Debug)]
struct Work {
    service: Service,
    board: Arc<Board>,
    served: Arc<AtomicU64>,
    mesh: Client,
    pay: Option<PayClient>,
    ledger: Option<SocketAddr>,
}

impl Work {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let done = match (self.service, request.uri().path()) {
            (Service::Web, "/checkout") => {
                self.call(Edge::WebOrders, Uri::from_static("http://orders.mesh/new")).await
            }
            (Service::Web, _) => self.call(Edge::WebCart, Uri::from_static("http://cart.mesh/items")).await,
            (Service::Orders, _) => self.pay().await,
            (Service::Cart | Service::Chat | Service::Pay | Service::Ledger, _) => true,
        };
        self.served.fetch_add(1, Ordering::Relaxed);
        let body = format!("{} says {}\n", self.service.name(), if done { "ok" } else { "no" });
        let mut response = Response::new(Full::from(body));
        if !done {
            *response.status_mut() = StatusCode::BAD_GATEWAY;
        }
        if let Ok(timing) = timing(started.elapsed()).parse() {
            response.headers_mut().insert(SERVER_TIMING, timing);
        }
        response
    }

    /// False if it failed.
    async fn call(&self, edge: Edge, uri: Uri) -> bool {
        match self.mesh.get(&uri).await {
            Ok(answer) if answer.status.is_success() => {
                self.board.succeeded(edge, answer.took, answer.worked);
                true
            }
            Ok(_) | Err(_) => {
                self.board.failed(edge);
                false
            }
        }
    }

    /// What orders asks for, over gRPC. False if it failed.
    async fn pay(&self) -> bool {
        let charged = match &self.pay {
            Some(pay) => pay.charge(CENTS).await,
            None => Err(tonic::Status::unavailable("no pay was declared")),
        };
        match charged {
            Ok(charged) => self.board.succeeded(Edge::OrdersPay, charged.took, charged.worked),
            Err(_) => self.board.failed(Edge::OrdersPay),
        }
        charged.is_ok()
    }

    /// What pay does about it. False if it failed.
    async fn charge(&self) -> bool {
        let done = self.write_to_ledger().await;
        self.served.fetch_add(1, Ordering::Relaxed);
        done
    }

    async fn write_to_ledger(&self) -> bool {
        let started = Instant::now();
        let written = async {
            let address = self.ledger.ok_or(io::ErrorKind::AddrNotAvailable)?;
            write_line(address).await
        };
        match tokio::time::timeout(LEDGER_TIMEOUT, written).await {
            Ok(Ok(worked)) => {
                self.board.succeeded(Edge::PayLedger, started.elapsed(), Some(worked));
                true
            }
            Ok(Err(_)) | Err(_) => {
                self.board.failed(Edge::PayLedger);
                false
            }
        }
    }

    /// Speaks first, then answers each line with how long it took, in microseconds.
    async fn keep_ledger(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(format!("{GREETING}\n").as_bytes()).await?;
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            let started = Instant::now();
            line.clear();
            self.served.fetch_add(1, Ordering::Relaxed);
            let written = format!("written {}\n", started.elapsed().as_micros());
            stream.write_all(written.as_bytes()).await?;
        }
        Ok(())
    }
}

/// One connection, one line; how long the ledger worked on it.
async fn write_line(ledger: SocketAddr) -> io::Result<Duration> {
    let mut stream = BufReader::new(TcpStream::connect(ledger).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    if line.trim_end() != GREETING {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.write_all(b"1 coffee\n").await?;
    line.clear();
    stream.read_line(&mut line).await?;
    let micros = line.trim_end().strip_prefix("written ").and_then(|micros| micros.parse().ok());
    micros.map(Duration::from_micros).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::super::board::Totals;
    use super::super::chat::Chatter;
    use super::*;
    use crate::sidecar::port::Reservation;

    /// A toy that finds every other at one address, as if that were the mesh.
    async fn toy(service: Service, mesh: SocketAddr, board: &Arc<Board>) -> (SocketAddr, Toy) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let environment = Environment { http_proxy: mesh, dependency: Some(mesh) };
        (address, Toy::start(service, listener, environment, board.clone()))
    }

    fn board() -> Arc<Board> {
        let board = Arc::new(Board::default());
        board.begin();
        board
    }

    /// An address at which nobody ever listens.
    fn nowhere() -> SocketAddr {
        static RESERVED: LazyLock<Reservation> =
            LazyLock::new(|| Reservation::new(([127, 0, 0, 1], 0).into()).unwrap());
        RESERVED.address()
    }

    #[tokio::test]
    async fn a_checkout_goes_through_orders_and_pay_to_the_ledger_and_each_says_how_long_it_worked() {
        let board = board();
        let (ledger, kept) = toy(Service::Ledger, nowhere(), &board).await;
        let (pay, _pay) = toy(Service::Pay, ledger, &board).await;
        let (orders, _orders) = toy(Service::Orders, pay, &board).await;
        let (web, served) = toy(Service::Web, orders, &board).await;
        let client = Client::new(web, Form::Origin);
        for _ in 0..3 {
            let answer = client.get(&Uri::from_static("http://shop.demo/checkout")).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            assert!(answer.worked.unwrap() <= answer.took);
        }
        for edge in [Edge::WebOrders, Edge::OrdersPay, Edge::PayLedger] {
            assert_eq!(board.totals(edge), Totals { calls: 3, failed: 0 }, "{edge:?}");
        }
        assert_eq!((served.served(), kept.served()), (3, 3));
        assert_eq!(board.totals(Edge::WebCart), Totals::default());
    }

    #[tokio::test]
    async fn a_toy_that_cannot_reach_another_says_no_and_the_board_knows() {
        let board = board();
        let (web, _web) = toy(Service::Web, nowhere(), &board).await;
        let answer =
            Client::new(web, Form::Origin).get(&Uri::from_static("http://shop.demo/")).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(board.totals(Edge::WebCart), Totals { calls: 1, failed: 1 });
    }

    #[tokio::test]
    async fn pay_without_its_ledger_says_so_in_the_status_of_grpc() {
        let board = board();
        let (pay, _pay) = toy(Service::Pay, nowhere(), &board).await;
        let status = PayClient::new(pay).charge(CENTS).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::Unavailable, "the ledger does not answer")
        );
        assert_eq!(board.totals(Edge::PayLedger), Totals { calls: 1, failed: 1 });
    }

    #[tokio::test]
    async fn what_is_said_in_the_chat_comes_back_and_after_a_failure_on_a_new_connection() {
        let board = board();
        let (address, toy) = toy(Service::Chat, nowhere(), &board).await;
        let mut chatter = Chatter::new(address);
        for text in ["is there", "coffee?"] {
            chatter.say(text).await.unwrap();
        }
        assert_eq!(toy.served(), 2);
        drop(toy);
        chatter.say("still there?").await.unwrap_err();
        let listener = TcpListener::bind(address).await.unwrap();
        let environment = Environment { http_proxy: nowhere(), dependency: None };
        let toy = Toy::start(Service::Chat, listener, environment, board.clone());
        chatter.say("and now?").await.unwrap();
        assert_eq!(toy.served(), 1);
    }

    #[tokio::test]
    async fn a_dropped_toy_is_gone_with_its_connections() {
        let board = board();
        let (cart, toy) = toy(Service::Cart, nowhere(), &board).await;
        let client = Client::new(cart, Form::Origin);
        let uri = Uri::from_static("http://cart.mesh/");
        client.get(&uri).await.unwrap();
        let mut open = TcpStream::connect(cart).await.unwrap();
        drop(toy);
        let mut byte = [0];
        let ended = tokio::io::AsyncReadExt::read(&mut open, &mut byte).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert!(client.get(&uri).await.is_err());
    }
}
