//! Two workers and few requests: idle upstream connections go where they are needed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    task::{JoinSet, yield_now},
};

use crate::{
    static_file::bootstrap,
    support::{Client, Home, Proxy, soon},
};

/// An origin that answers no more requests than it is told to.
#[derive(Clone)]
struct Origin {
    address: SocketAddr,
    /// Connections so far, and those that are open.
    made: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
    close: Arc<Notify>,
}

impl Origin {
    async fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin {
            address: listener.local_addr().unwrap(),
            made: Arc::default(),
            open: Arc::default(),
            running: Arc::default(),
            answers: Arc::new(Semaphore::new(0)),
            close: Arc::default(),
        };
        let accepting = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.made.fetch_add(1, Relaxed);
                accepting.open.fetch_add(1, Relaxed);
                let origin = accepting.clone();
                tokio::spawn(async move {
                    let close = origin.close.clone();
                    tokio::select! {
                        _ = origin.serve(BufReader::new(stream)) => {}
                        () = close.notified() => {}
                    }
                    origin.open.fetch_sub(1, Relaxed);
                });
            }
        });
        origin
    }

    async fn serve(&self, mut stream: BufReader<TcpStream>) -> Option<()> {
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                (stream.read_line(&mut head).await.ok()? > 0).then_some(())?;
            }
            self.running.fetch_add(1, Relaxed);
            self.answers.acquire().await.ok()?.forget();
            self.running.fetch_sub(1, Relaxed);
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
        }
    }

    /// Closes all connections, and waits until the proxy has closed them too.
    async fn close_all(&self, proxy: &Proxy) {
        self.close.notify_waiters();
        soon("the end of all connections", async {
            let active = "envoy_cluster_upstream_cx_active{envoy_cluster_name=\"app\"}";
            while proxy.metric(active).await > 0.0 || self.open.load(Relaxed) > 0 {}
        })
        .await;
    }

    /// All of these ask, and are answered when all requests run.
    async fn asked_at_once(&self, clients: &mut Vec<Client<TcpStream>>) {
        let mut asking = JoinSet::new();
        let count = clients.len();
        for mut client in clients.drain(..) {
            asking.spawn(async move { (client.get("/").await.expect("an answer").0, client) });
        }
        soon("all requests to run", async {
            while self.running.load(Relaxed) < count {
                yield_now().await;
            }
        })
        .await;
        self.answers.add_permits(count);
        for (status, client) in asking.join_all().await {
            assert_eq!(status, 200);
            clients.push(client);
        }
    }
}

/// A number of each worker.
async fn of_each(proxy: &Proxy, field: &str) -> [u64; 2] {
    let page = proxy.json("/cores").await;
    [0, 1].map(|worker| page["cores"][worker][field].as_u64().unwrap())
}

#[tokio::test]
async fn upstream_gets_fewer_connections_than_the_workers_have_use_for_one_after_the_other() {
    for io in ["auto", "epoll"] {
        let (home, origin) = (Home::new(), Origin::start().await);
        let text = bootstrap(&home, "127.0.0.1:0", origin.address);
        let mut proxy = home.start(&text, &["--workers", "2", "--io", io]);
        proxy.is_ready().await;
        let mut of_worker = [Vec::new(), Vec::new()];
        for _ in 0..8 {
            let before = of_each(&proxy, "requests").await;
            let mut client = vec![proxy.connect("in").await];
            origin.asked_at_once(&mut client).await;
            let is_second = of_each(&proxy, "requests").await[1] > before[1];
            of_worker[usize::from(is_second)].append(&mut client);
        }
        let [first, second] = &mut of_worker;
        // Of what one worker had in use all but one is lent to the other. But on a busy machine one may answer too late, and
        // then a connection is made.
        let fewest = first.len() + second.len() - second.len().min(first.len() - 1);
        soon("a loan in time", async {
            loop {
                origin.close_all(&proxy).await;
                let before = origin.made.load(Relaxed);
                origin.asked_at_once(first).await;
                origin.asked_at_once(second).await;
                let made = origin.made.load(Relaxed) - before;
                assert!(made >= fewest, "{made} connections, {fewest} are needed");
                if made < first.len() + second.len() {
                    return;
                }
            }
        })
        .await;
        soon("what was lent to arrive", async {
            let sum = async |field| of_each(&proxy, field).await.iter().sum::<u64>();
            assert!(sum("upstream_cx_lent").await > 0);
            while sum("upstream_cx_lent").await != sum("upstream_cx_borrowed").await {}
        })
        .await;
        for clients in &mut of_worker {
            origin.asked_at_once(clients).await;
        }
        proxy.stop().await;
    }
}
