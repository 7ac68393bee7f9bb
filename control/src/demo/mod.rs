//! `ringway demo`: a whole mesh on one machine, loaded and shown, from its start to its end.
//!
//! [`mesh`] is the mesh, [`replica`] and [`toy`] the applications in it, on one [`place`], [`client`],
//! [`grpc`] and [`chat`] how they talk, [`load`] the users; [`board`]
//! measures, [`picture`] and [`screen`] show; [`lesson`] breaks something, [`remote`] lets another terminal ask for that.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{Fuse, FusedFuture as _};
use tokio::sync::{mpsc, oneshot};

use self::board::{Board, EDGES};
use self::chat::Chatter;
use self::client::{Client, Form};
use self::lesson::LessonError;
use self::mesh::{Addresses, Mesh};
use self::picture::{Picture, ServiceNow};
use self::replica::ReplicaNow;
use self::screen::{Screen, Wish};
use self::toy::SERVICES;
use crate::sidecar::signals::Signals;

mod board;
mod chat;
mod client;
mod folder;
mod grpc;
mod lesson;
mod load;
mod mesh;
mod picture;
mod place;
mod remote;
mod replica;
mod screen;
mod toy;

pub use lesson::Lesson;
pub use place::MeshError;
pub use remote::{RemoteError, ask};

/// How the demo is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Lines instead of a live view.
    pub plain: bool,
    /// How long; `None` until it is ended.
    pub lasts: Option<Duration>,
    /// Requests per second.
    pub rate: u32,
    /// Where the API listens; `None` takes the usual port, or any if that is taken.
    pub api: Option<std::net::SocketAddr>,
    /// The same for the gateway.
    pub gateway: Option<std::net::SocketAddr>,
    /// The control plane's socket; `None` takes the usual one, or one of its own if that is taken.
    pub socket: Option<PathBuf>,
    /// Where `ringway run` looks for a control plane.
    pub usual_socket: Option<PathBuf>,
    /// The proxy.
    pub proxy: PathBuf,
}

/// Why there is no demo, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// One is enough.
    #[error("a demo of yours runs already; see it in its terminal, or end it there")]
    Runs,
    /// The operating system refuses something it should not.
    #[error("cannot {what}")]
    System {
        /// What we wanted.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The mesh did not start.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// It started, and nothing moves in it.
    #[error("no request came through the mesh within {} s", MOVING_TIMEOUT.as_secs())]
    NothingMoves,
    /// Nobody sees it any more.
    #[error("cannot write to the terminal")]
    Screen(#[source] io::Error),
}

/// Longest wait for a first request that succeeds; a busy machine is slow.
const MOVING_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause until another one is tried.
const AGAIN: Duration = Duration::from_millis(10);

/// After so long the first numbers are worth a summary.
const SUMMARY_AFTER: Duration = Duration::from_millis(2_100);
/// Pause until another look where not every edge has moved yet, and how long that goes on.
const SUMMARY_AGAIN: Duration = Duration::from_millis(500);
const SUMMARY_AT_LATEST: Duration = Duration::from_secs(15);

/// Runs the demo until it is ended; afterwards nothing of it is left.
pub async fn run(options: Options) -> Result<(), DemoError> {
    let started = Instant::now();
    let system = |what| move |source| DemoError::System { what, source };
    let mut signals = Signals::listen().map_err(system("wait for signals"))?;
    let listener = remote::listen().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => DemoError::Runs,
        _ => system("open the demo's socket")(error),
    })?;
    let board = Arc::new(Board::default());
    let addresses = Addresses {
        api: options.api,
        gateway: options.gateway,
        socket: options.socket.clone(),
        usual_socket: options.usual_socket.clone(),
    };
    let (events, said) = mpsc::unbounded_channel();
    let mesh = Mesh::start(&addresses, options.proxy.clone(), board.clone(), events).await?;
    let (sender, requests) = mpsc::channel(1);
    let remote = tokio::spawn(remote::serve(listener, sender));
    let show = Show { options, mesh: &mesh, board: &board, started };
    let shown = show.run(&mut signals, requests, said).await;
    remote.abort();
    mesh.stop().await;
    shown
}

/// The demo while it is shown.
struct Show<'a> {
    options: Options,
    mesh: &'a Mesh,
    board: &'a Arc<Board>,
    started: Instant,
}

impl Show<'_> {
    async fn run(
        &self,
        signals: &mut Signals,
        mut requests: mpsc::Receiver<remote::Request>,
        mut events: mpsc::UnboundedReceiver<String>,
    ) -> Result<(), DemoError> {
        let gateway = Arc::new(Client::new(self.mesh.gateway(), Form::Origin));
        let mut chatters = load::chatters(self.mesh.gateway());
        let moves = async {
            self.mesh.ready().await?;
            self.until_it_moves(&gateway, &mut chatters).await
        };
        tokio::select! {
            moves = moves => moves?,
            _ = signals.next() => return Ok(()),
        }
        let up = Instant::now();
        self.board.begin();
        let load =
            Aborting(tokio::spawn(load::run(gateway, chatters, self.board.clone(), self.options.rate)));
        let (mut screen, mut wishes) = Screen::open(self.options.plain);
        screen.say(&self.head(up - self.started).await).map_err(DemoError::Screen)?;

        let mut ticks = tokio::time::interval_at((up + screen.period()).into(), screen.period());
        let mut rates = Rates::default();
        let mut summary = pin!(tokio::time::sleep(SUMMARY_AFTER).fuse());
        let mut end = pin!(after(self.options.lasts));
        // One lesson at a time; what it says goes to whoever asked, and here.
        let mut lesson = pin!(Fuse::terminated());
        let (own_words, mut own_said) = mpsc::unbounded_channel();
        loop {
            let mut say = |line: &str| screen.say(line).map_err(DemoError::Screen);
            tokio::select! {
                () = &mut end => break,
                signal = signals.next() => if signal.ends() { break },
                Some(wish) = wishes.recv() => match wish {
                    Wish::End => break,
                    Wish::Lesson(wanted) if lesson.is_terminated() => {
                        lesson.set(self.teach(wanted, own_words.clone(), None).fuse());
                    }
                    Wish::Lesson(_) => say("another lesson is being given")?,
                },
                Some(request) = requests.recv(), if lesson.is_terminated() => {
                    say(&format!("ringway demo {}", request.lesson.name()))?;
                    let remote::Request { lesson: wanted, words, ended } = request;
                    lesson.set(self.teach(wanted, words, Some(ended)).fuse());
                }
                () = &mut lesson => {}
                Some(line) = own_said.recv() => say(&line)?,
                Some(event) = events.recv() => say(&event)?,
                () = &mut summary => {
                    let picture = self.picture(up, &mut rates).await;
                    if !picture.moves_everywhere() && picture.up < SUMMARY_AT_LATEST {
                        summary.set(tokio::time::sleep(SUMMARY_AGAIN).fuse());
                        continue;
                    }
                    for line in [picture.summary()].into_iter().chain(self.what_to_try()) {
                        say(&line)?;
                    }
                }
                _ = ticks.tick() => {
                    let picture = self.picture(up, &mut rates).await;
                    screen.show(&picture).map_err(DemoError::Screen)?;
                }
            }
        }
        drop(load);
        Ok(())
    }

    /// The first requests find endpoints only when every replica is registered and known everywhere.
    async fn until_it_moves(&self, gateway: &Client, chatters: &mut [Chatter]) -> Result<(), DemoError> {
        let moves = async {
            for uri in [&*load::CHECKOUT, &*load::CART] {
                while !gateway.get(uri).await.is_ok_and(|answer| answer.status.is_success()) {
                    tokio::time::sleep(AGAIN).await;
                }
            }
            for chatter in chatters {
                while chatter.say("hello").await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        tokio::time::timeout(MOVING_TIMEOUT, moves).await.map_err(|_| DemoError::NothingMoves)
    }

    /// Gives a lesson; a failure is said and the demo goes on.
    async fn teach(
        &self,
        lesson: Lesson,
        words: lesson::Words,
        ended: Option<oneshot::Sender<Result<(), LessonError>>>,
    ) {
        let result = lesson::give(lesson, self.mesh, self.board, &words).await;
        match (ended, result) {
            // Whoever asked may have gone.
            (Some(ended), result) => ended.send(result).unwrap_or_default(),
            (None, Err(error)) => words.send(error.with_causes()).unwrap_or_default(),
            (None, Ok(())) => {}
        }
    }

    /// The first line of the summary.
    async fn head(&self, took: Duration) -> String {
        let status = self.mesh.status().await;
        let driver =
            status.and_then(|status| status.proxies.into_iter().find(|row| !row.io_driver.is_empty()));
        let driver = driver.map_or(String::new(), |row| format!("{}, ", row.io_driver));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (api, gateway) = (self.mesh.api(), self.mesh.gateway());
        format!(
            "mesh up in {}   api http://{api}   gateway http://{gateway}   {driver}{cores} cores",
            lesson::seconds(took)
        )
    }

    /// The rest of the summary.
    fn what_to_try(&self) -> [String; 3] {
        let api = match self.mesh.api() {
            usual if usual.port() == mesh::API_PORT => String::new(),
            other => format!(" --api http://{other}"),
        };
        let control = self.mesh.control();
        let control = match self.options.usual_socket.as_deref() == Some(control.socket()) {
            true => String::new(),
            false => format!(" --control {control}"),
        };
        [
            format!("try:  ringway status{api}        ringway demo break dead-replica"),
            "      ringway demo kill control-plane (nothing happens)".to_owned(),
            format!("      ringway run{control} --name mine --port 9000 -- ./my-app (joins this mesh)"),
        ]
    }

    async fn picture(&self, up: Instant, rates: &mut Rates) -> Picture {
        let replicas = self.mesh.replicas_now();
        let rates = rates.of(&replicas);
        let services = SERVICES.iter().map(|service| ServiceNow {
            service: *service,
            replicas: replicas
                .iter()
                .zip(&rates)
                .filter(|(replica, _)| replica.service == *service)
                .map(|(replica, rate)| replica.up.then_some(*rate))
                .collect(),
        });
        Picture {
            up: up.elapsed(),
            edges: EDGES.iter().map(|edge| (*edge, self.board.now(*edge))).collect(),
            services: services.collect(),
            added: self.board.added(),
            proxies: self.mesh.in_sync().await,
        }
    }
}

/// Requests per second of each replica, from two counts about a second apart.
#[derive(Default)]
struct Rates {
    counted: Option<(Instant, Vec<ReplicaNow>)>,
    rates: Vec<f64>,
}

impl Rates {
    fn of(&mut self, now: &[ReplicaNow]) -> Vec<f64> {
        self.rates.resize(now.len(), 0.0);
        let age = self.counted.as_ref().map(|(then, _)| then.elapsed());
        if age.is_none_or(|age| age >= Duration::from_millis(950)) {
            if let (Some((_, before)), Some(age)) = (&self.counted, age) {
                let pairs = now.iter().zip(before);
                // A replica that was started again counts from 0.
                let count =
                    |(now, before): (&ReplicaNow, &ReplicaNow)| now.served.saturating_sub(before.served);
                self.rates = pairs.map(|pair| count(pair) as f64 / age.as_secs_f64()).collect();
            }
            self.counted = Some((Instant::now(), now.to_vec()));
        }
        self.rates.clone()
    }
}

/// A task that ends with this value.
struct Aborting(tokio::task::JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn after(lasts: Option<Duration>) {
    match lasts {
        Some(lasts) => tokio::time::sleep(lasts).await,
        None => std::future::pending().await,
    }
}
