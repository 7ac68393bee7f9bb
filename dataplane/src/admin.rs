//! The admin listener: what operators and supervisors ask, on a listener of its own, never on a worker.
//!
//! GET only and without side effects, on loopback or a unix socket unless the operator says otherwise (which is a
//! warning). The handlers only carry questions to the control thread and its answers back ([`Question`]); pages are
//! rendered by pure functions ([`pages`]).

pub mod pages;

use std::{fs, io, os::unix::fs::FileTypeExt, path::Path};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, oneshot},
};

use crate::bootstrap::AdminAddress;

/// Requests that wait for the control thread.
const QUESTIONS_MAX: usize = 16;

/// What can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    /// `/ready`.
    Ready,
    /// `/metrics` and `/stats/prometheus`.
    Metrics,
    /// `/cores`.
    Cores,
    /// `/clusters`.
    Clusters,
    /// `/listeners`.
    Listeners,
    /// `/config_dump`.
    ConfigDump,
    /// `/server_info`.
    ServerInfo,
}

/// A question for the control thread.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub page: Page,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// 200, or 503 for a proxy that is not ready.
    pub status: u16,
    /// Media type of the body.
    pub media_type: &'static str,
    /// The page.
    pub body: String,
}

/// Media type of Prometheus text.
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Media type of JSON.
pub const JSON: &str = "application/json";
/// Media type of text for people and scripts.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// A bound admin listener.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Where it is: `IP:PORT` or a path.
    pub address: String,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Why the admin listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for admin requests")]
pub struct BindError {
    /// Where.
    pub address: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Opens the listener.
pub async fn bind(address: &AdminAddress) -> Result<Listener, BindError> {
    match address {
        AdminAddress::Tcp(address) => {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "the admin listener can be reached from other machines and has no authentication");
            }
            let failed = |source| BindError { address: address.to_string(), source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?.to_string();
            Ok(Listener { socket: Socket::Tcp(listener), address })
        }
        AdminAddress::Unix(path) => {
            let failed = |source| BindError { address: path.display().to_string(), source };
            remove_dead_socket(path).map_err(failed)?;
            let listener = UnixListener::bind(path).map_err(failed)?;
            Ok(Listener { socket: Socket::Unix(listener), address: path.display().to_string() })
        }
    }
}

/// A process that was killed leaves its socket file, on which nobody can listen again. One that still answers is not
/// touched, nor is a file that is no socket.
fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Serves until the task is dropped.
pub async fn serve(listener: Listener, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let app = router(questions);
    match listener.socket {
        Socket::Tcp(listener) => axum::serve(listener, app).await,
        Socket::Unix(listener) => axum::serve(listener, app).await,
    }
}

/// Where questions come out.
pub fn questions() -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(QUESTIONS_MAX)
}

fn router(questions: mpsc::Sender<Question>) -> Router {
    let page = |page: Page| get(move |State(questions): State<mpsc::Sender<Question>>| ask(questions, page));
    Router::new()
        .route("/", get(|| async { index() }))
        .route("/ready", page(Page::Ready))
        .route("/metrics", page(Page::Metrics))
        .route("/stats/prometheus", page(Page::Metrics))
        .route("/cores", page(Page::Cores))
        .route("/clusters", page(Page::Clusters))
        .route("/listeners", page(Page::Listeners))
        .route("/config_dump", page(Page::ConfigDump))
        .route("/server_info", page(Page::ServerInfo))
        .with_state(questions)
}

fn index() -> Response {
    let text =
        "/clusters\n/config_dump\n/cores\n/listeners\n/metrics\n/ready\n/server_info\n/stats/prometheus\n";
    Answer { status: 200, media_type: TEXT, body: text.to_owned() }.into_response()
}

async fn ask(questions: mpsc::Sender<Question>, page: Page) -> Response {
    let (answer, answered) = oneshot::channel();
    let sent = questions.send(Question { page, answer }).await;
    match (sent, answered.await) {
        (Ok(()), Ok(answer)) => answer.into_response(),
        // The control thread is gone: the process ends.
        _ => Answer { status: 503, media_type: TEXT, body: "DRAINING\n".to_owned() }.into_response(),
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = [
            (header::CONTENT_TYPE, self.media_type),
            (header::CACHE_CONTROL, "no-cache, max-age=0"),
            // Names in these pages are the configuration's; a browser must not take them for markup.
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (status, headers, self.body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Method, Request},
    };
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn only_get_is_answered_and_only_on_known_paths() {
        let (sender, mut asked) = questions();
        let control = tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                let body = format!("{:?}", question.page);
                question.answer.send(Answer { status: 200, media_type: TEXT, body }).unwrap();
            }
        });
        let app = router(sender);
        for (method, path, status) in [
            (Method::GET, "/ready", 200),
            (Method::GET, "/stats/prometheus", 200),
            (Method::GET, "/", 200),
            (Method::POST, "/ready", 405),
            (Method::DELETE, "/config_dump", 405),
            (Method::GET, "/quitquitquit", 404),
        ] {
            let request = Request::builder().method(&method).uri(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
        }
        drop(app);
        control.await.unwrap();
    }

    #[tokio::test]
    async fn a_dead_processs_socket_is_replaced_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address = AdminAddress::Unix(folder.path().join("admin.sock"));
        let first = bind(&address).await.unwrap();
        assert!(bind(&address).await.is_err());
        drop(first);
        let second = bind(&address).await.unwrap();
        assert!(second.address.ends_with("admin.sock"));
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(bind(&AdminAddress::Unix(file.clone())).await.is_err());
        assert_eq!(fs::read(file).unwrap(), b"x");
    }
}
