//! `ringway.control.v1.Proxy`: each of our proxies says who it is and what is active in it.

use std::pin::Pin;
use std::sync::Arc;

use proto::control::proxy_server;
use proto::control::{ReportRequest, ReportResponse, report_request::Report};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Proxies;
use crate::world::World;

/// The gRPC side of [`Proxies`].
#[derive(Debug)]
pub struct ReportService {
    proxies: Arc<Proxies>,
    worlds: watch::Receiver<Arc<World>>,
}

impl ReportService {
    /// A service that tells `proxies`; its streams end when `worlds` is closed.
    pub fn new(proxies: Arc<Proxies>, worlds: watch::Receiver<Arc<World>>) -> ReportService {
        ReportService { proxies, worlds }
    }
}

#[tonic::async_trait]
impl proxy_server::Proxy for ReportService {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<ReportResponse, Status>> + Send>>;

    async fn report(
        &self,
        requests: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (responses, receiver) = mpsc::channel(1);
        let mut worlds = self.worlds.clone();
        let proxies = self.proxies.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = listen(&proxies, requests.into_inner()) => ended,
                () = closed(&mut worlds) => Ok(()),
            };
            if let Err(status) = ended {
                let _ = responses.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn closed(worlds: &mut watch::Receiver<Arc<World>>) {
    while worlds.changed().await.is_ok() {}
}

async fn listen(proxies: &Arc<Proxies>, mut requests: Streaming<ReportRequest>) -> Result<(), Status> {
    let mut reporting = None;
    while let Some(request) = requests.message().await? {
        match (request.report, &reporting) {
            (Some(Report::Hello(hello)), None) => reporting = Some(proxies.hello(hello)),
            (Some(Report::Active(active)), Some(reporting)) => {
                reporting.active(active.types, active.snapshot_version);
            }
            (Some(Report::Plaintext(told)), Some(reporting)) => reporting.plaintext(told),
            (Some(Report::Goodbye(_)), Some(reporting)) => reporting.leave(),
            (Some(Report::Hello(_)), Some(_)) => return Err(Status::invalid_argument("a second hello")),
            (Some(Report::Active(_) | Report::Plaintext(_) | Report::Goodbye(_)), None) => {
                return Err(Status::invalid_argument("the first message has to be a hello"));
            }
            // A newer proxy may know more to say.
            (None, _) => {}
        }
    }
    Ok(())
}
