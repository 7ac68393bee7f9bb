//! `ringway.control.v1.Registry`: one stream per workload, for as long as it lives.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use proto::control::registry_server;
use proto::control::{RegisterRequest, RegisterResponse, register_request::Message};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Refusal, Registry};
use crate::caller::SpeaksFor;
use crate::report::Proxies;
use crate::world::World;

/// The gRPC side of a [`Registry`].
#[derive(Debug)]
pub struct RegistryService {
    registry: Arc<Registry>,
    worlds: watch::Receiver<Arc<World>>,
    proxies: Arc<Proxies>,
    next_stream: AtomicU64,
}

impl RegistryService {
    /// A service on `registry`; `worlds` says what the documents have against a registration, and ends the streams
    /// when it is closed. A proxy whose workload leaves is forgotten by `proxies`.
    pub fn new(registry: Arc<Registry>, worlds: watch::Receiver<Arc<World>>, proxies: Arc<Proxies>) -> Self {
        RegistryService { registry, worlds, proxies, next_stream: AtomicU64::new(1) }
    }
}

#[tonic::async_trait]
impl registry_server::Registry for RegistryService {
    type RegisterStream = Pin<Box<dyn Stream<Item = Result<RegisterResponse, Status>> + Send>>;

    async fn register(
        &self,
        requests: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let speaks_for = SpeaksFor::of(requests.extensions())?;
        let (responses, receiver) = mpsc::channel(4);
        let workload = Workload {
            speaks_for,
            registry: self.registry.clone(),
            proxies: self.proxies.clone(),
            stream: self.next_stream.fetch_add(1, Ordering::Relaxed),
            instance: None,
            told: None,
            responses,
        };
        tokio::spawn(workload.run(requests.into_inner(), self.worlds.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// What becomes of a registration.
#[derive(PartialEq)]
struct Told {
    /// Why it is not used, empty if it is.
    refused: String,
    /// Proxies are told that its endpoint drains.
    draining: bool,
}

/// One workload's stream.
struct Workload {
    speaks_for: SpeaksFor,
    registry: Arc<Registry>,
    proxies: Arc<Proxies>,
    stream: u64,
    instance: Option<String>,
    /// What it heard last.
    told: Option<Told>,
    responses: mpsc::Sender<Result<RegisterResponse, Status>>,
}

impl Workload {
    async fn run(
        mut self,
        mut requests: Streaming<RegisterRequest>,
        mut worlds: watch::Receiver<Arc<World>>,
    ) {
        loop {
            let more = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(RegisterRequest { message: Some(message) })) => self.receive(message, &worlds).await,
                    Ok(Some(RegisterRequest { message: None })) => true,
                    Ok(None) | Err(_) => false,
                },
                changed = worlds.changed() => {
                    changed.is_ok() && {
                        worlds.mark_unchanged();
                        self.tell(false, &worlds).await
                    }
                }
            };
            if !more {
                break;
            }
        }
        if let Some(instance) = &self.instance {
            let ends = Instant::now() + self.registry.lease;
            self.registry.with(|leases| leases.disconnect(instance, self.stream, ends));
        }
    }

    /// False when the stream is over.
    async fn receive(&mut self, message: Message, worlds: &watch::Receiver<Arc<World>>) -> bool {
        let ends = Instant::now() + self.registry.lease;
        match message {
            Message::Registration(registration) => {
                let instance = registration.instance.clone();
                if self.instance.as_ref().is_some_and(|known| *known != instance) {
                    let status = Status::invalid_argument("one stream speaks for one instance");
                    let _ = self.responses.send(Err(status)).await;
                    return false;
                }
                let stream = Some(self.stream);
                let mut registration = registration;
                let registered = self.registry.change(|leases| {
                    leases.admit(&mut registration, &self.speaks_for)?;
                    leases.register(registration, stream, ends)
                });
                match registered {
                    Ok(()) => {
                        if self.instance.is_none() {
                            tracing::info!(instance, "registered");
                        }
                        self.instance = Some(instance);
                        self.tell(true, worlds).await
                    }
                    Err(refusal) => self.refuse(&instance, &refusal).await,
                }
            }
            Message::KeepAlive(_) => {
                if let Some(instance) = &self.instance {
                    self.registry.with(|leases| leases.renew(instance, self.stream, ends));
                }
                true
            }
            Message::Unregister(_) => {
                if let Some(instance) = self.instance.take()
                    && self.registry.change(|leases| leases.unregister(&instance, self.stream))
                {
                    tracing::info!(instance, "unregistered");
                    self.proxies.forget_workload(&instance);
                }
                false
            }
        }
    }

    /// Something that cannot be kept at all; what was registered before stays.
    async fn refuse(&mut self, instance: &str, refusal: &Refusal) -> bool {
        tracing::warn!(instance, %refusal, "registration refused");
        self.told = None;
        self.answer(refusal.to_string(), false).await
    }

    /// Says what becomes of the registration: always when it was just made, later when that changes.
    async fn tell(&mut self, just_registered: bool, worlds: &watch::Receiver<Arc<World>>) -> bool {
        let Some(instance) = &self.instance else { return true };
        let taken = self.registry.with(|leases| leases.refusal(instance)).map(|refusal| refusal.to_string());
        let documents = || worlds.borrow().conditions.refused_registrations.get(instance).cloned();
        let refused = taken.or_else(documents).unwrap_or_default();
        let draining = worlds.borrow().registrations.get(instance).is_some_and(|known| known.draining);
        if !refused.is_empty() && self.told.as_ref().is_none_or(|told| told.refused != refused) {
            tracing::warn!(instance, refusal = refused, "registration refused");
        }
        let now = Told { refused: refused.clone(), draining };
        if self.told.as_ref() == Some(&now) && !just_registered {
            return true;
        }
        self.told = Some(now);
        self.answer(refused, draining).await
    }

    async fn answer(&self, refused: String, draining: bool) -> bool {
        let lease_ms = self.registry.lease.as_millis().try_into().unwrap_or(u32::MAX);
        self.responses.send(Ok(RegisterResponse { lease_ms, refused, draining })).await.is_ok()
    }
}
