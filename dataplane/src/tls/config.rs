//! From what is configured, and the secrets that are current, to what rustls works with.
//!
//! Made on the control thread, once for all workers, and carried over from snapshot to snapshot for as long as neither the
//! configuration nor a secret of it changes. With another one comes another ticket key and another store of sessions: a
//! session never outlives the certificates and the trust that it was made under.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use hashbrown::HashMap;
use policy::{
    filter_chain::FilterChain,
    snapshot::Snapshot,
    tls::{
        CipherSuite, CommonTls, DownstreamTls, KeyExchange, Secret, Source, Terms, TrustBundle, UpstreamTls,
        is_dns_name,
    },
};
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    client::{ResolvesClientCert, Resumption},
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, cipher_suite, kx_group},
    },
    pki_types::ServerName,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::verify::{self, Verifier};

/// TLS as a server does it.
pub struct ServerTls {
    rustls: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    pub(super) policy: Arc<DownstreamTls>,
    /// What is asked of clients.
    pub(crate) terms: Arc<Terms>,
    /// Judges clients; `None` where they are asked for nothing.
    pub(super) verifier: Option<Arc<Verifier>>,
}

/// TLS as a client does it.
pub struct ClientTls {
    pub(super) rustls: Arc<ClientConfig>,
    /// The server name that is asked for.
    pub sni: Option<ServerName<'static>>,
}

/// Which certificate a connection shows.
pub(super) enum Shown {
    /// One with this URI name, whichever it is.
    Any(Option<Arc<str>>),
    /// One that is picked for this connection.
    Picked(Arc<Picking>),
}

/// Picks a certificate for one connection, and knows which.
#[derive(Debug)]
pub(super) struct Picking {
    certificates: Arc<Certificates>,
    uri: OnceLock<Option<Arc<str>>>,
}

impl ServerTls {
    /// What a connection begins with.
    pub(super) fn begin(&self) -> (Arc<ServerConfig>, Shown) {
        let mut uris = self.certificates.0.iter().map(|of| &of.uri);
        let first = uris.next().cloned().flatten();
        if uris.all(|uri| *uri == first) {
            return (self.rustls.clone(), Shown::Any(first));
        }
        // rustls does not tell which one was shown. A few allocations beside those of a handshake.
        let picking = Arc::new(Picking { certificates: self.certificates.clone(), uri: OnceLock::new() });
        let mut rustls = (*self.rustls).clone();
        rustls.cert_resolver = picking.clone();
        (Arc::new(rustls), Shown::Picked(picking))
    }
}

impl ServerTls {
    /// Whether who was taken on these terms may stay.
    pub(crate) fn is_met_by(&self, terms: &Arc<Terms>) -> bool {
        Arc::ptr_eq(&self.terms, terms) || self.terms.are_met_by(terms)
    }
}

impl Shown {
    /// Its URI name, when the handshake is over.
    pub(super) fn uri(&self) -> Option<Arc<str>> {
        match self {
            Shown::Any(uri) => uri.clone(),
            Shown::Picked(picking) => picking.uri.get().cloned().flatten(),
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls({:?})", self.policy)
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({:?})", self.sni)
    }
}

/// What the connections of a snapshot are secured with: by the configuration that asks for it.
#[derive(Debug, Default)]
pub struct BoundTls {
    servers: HashMap<usize, Arc<ServerTls>>,
    clients: HashMap<usize, Arc<ClientTls>>,
}

impl BoundTls {
    /// For the connections of a filter chain. `None` refuses them: a secret is missing, or of no use.
    pub fn server(&self, of: &Arc<DownstreamTls>) -> Option<&Arc<ServerTls>> {
        self.servers.get(&Arc::as_ptr(of).addr())
    }

    /// For the connections of a cluster. `None` refuses to make any.
    pub fn client(&self, of: &Arc<UpstreamTls>) -> Option<&Arc<ClientTls>> {
        self.clients.get(&Arc::as_ptr(of).addr())
    }
}

/// What was made so far, on the control thread.
#[derive(Debug)]
pub struct TlsConfigs {
    provider: Arc<CryptoProvider>,
    servers: BTreeMap<usize, Made<DownstreamTls, ServerTls>>,
    clients: BTreeMap<usize, Made<UpstreamTls, ClientTls>>,
}

/// What was made of a configuration, and with which secrets.
#[derive(Debug)]
struct Made<P, T> {
    /// Held, so that its address is nobody else's.
    _policy: Arc<P>,
    secrets: Vec<Option<Arc<Secret>>>,
    made: Option<Arc<T>>,
}

/// Why nothing can be made of a configuration with the secrets that there are.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("the secret {0} is not there yet")]
    Missing(Arc<str>),
    #[error("the secret {0} is of another kind")]
    Kind(Arc<str>),
    #[error("there is no certificate")]
    NoCertificate,
    #[error("the server name {0} is none")]
    ServerName(Arc<str>),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Default for TlsConfigs {
    fn default() -> TlsConfigs {
        let provider = Arc::new(aws_lc_rs::default_provider());
        TlsConfigs { provider, servers: BTreeMap::new(), clients: BTreeMap::new() }
    }
}

impl TlsConfigs {
    /// What the connections of a snapshot are secured with. What is not in it any more is forgotten.
    pub fn bind(&mut self, snapshot: &Snapshot) -> Arc<BoundTls> {
        let chains = snapshot.listeners.iter().flat_map(|(name, listener)| {
            let with_tls = |chain: &FilterChain| Some((name.clone(), chain.tls.clone()?));
            listener.filter_chains.iter().filter_map(with_tls).collect::<Vec<_>>()
        });
        let clusters = snapshot.clusters.iter().flat_map(|(name, cluster)| {
            cluster.config.transport.all().map(|tls| (name.clone(), tls.clone())).collect::<Vec<_>>()
        });
        let provider = &self.provider;
        self.servers = carried(
            &mut self.servers,
            chains,
            snapshot,
            |tls| &tls.common,
            |tls, secrets| server(tls, secrets, provider),
        );
        self.clients = carried(
            &mut self.clients,
            clusters,
            snapshot,
            |tls| &tls.common,
            |tls, secrets| client(tls, secrets, provider),
        );
        let servers = self.servers.iter().filter_map(|(at, made)| Some((*at, made.made.clone()?)));
        let clients = self.clients.iter().filter_map(|(at, made)| Some((*at, made.made.clone()?)));
        Arc::new(BoundTls { servers: servers.collect(), clients: clients.collect() })
    }
}

/// What was made before, where it is made of the same, and the rest anew.
fn carried<P, T>(
    before: &mut BTreeMap<usize, Made<P, T>>,
    wanted: impl Iterator<Item = (Arc<str>, Arc<P>)>,
    snapshot: &Snapshot,
    common: impl Fn(&P) -> &CommonTls,
    make: impl Fn(&Arc<P>, &Secrets<'_>) -> Result<T, Unusable>,
) -> BTreeMap<usize, Made<P, T>> {
    let mut after = BTreeMap::new();
    for (owner, policy) in wanted {
        let at = Arc::as_ptr(&policy).addr();
        let names: Vec<_> = common(&policy).secret_names().cloned().collect();
        let secrets: Vec<_> = names.iter().map(|name| snapshot.secrets.get(name).cloned()).collect();
        let is_same = |made: &Made<P, T>| {
            let pairs = made.secrets.iter().zip(&secrets);
            made.secrets.len() == secrets.len()
                && pairs.into_iter().all(|pair| match pair {
                    (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                    (None, None) => true,
                    _ => false,
                })
        };
        let made = match before.remove(&at) {
            Some(made) if is_same(&made) => made,
            _ => {
                let made = make(&policy, &Secrets { names: &names, secrets: &secrets });
                if let Err(error) = &made {
                    tracing::error!(of = %owner, %error, "connections are refused: no TLS configuration");
                }
                Made { _policy: policy, secrets, made: made.ok().map(Arc::new) }
            }
        };
        after.insert(at, made);
    }
    after
}

/// The secrets that a configuration names.
struct Secrets<'a> {
    names: &'a [Arc<str>],
    secrets: &'a [Option<Arc<Secret>>],
}

impl Secrets<'_> {
    fn get(&self, name: &Arc<str>) -> Result<&Secret, Unusable> {
        let at = self.names.iter().position(|known| known == name);
        let secret = at.and_then(|at| self.secrets.get(at)).and_then(Option::as_deref);
        secret.ok_or_else(|| Unusable::Missing(name.clone()))
    }

    fn certificates(&self, common: &CommonTls) -> Result<Vec<Certificate>, Unusable> {
        let certificate = |source: &Source<_>| {
            let chain = match source {
                Source::Inline(chain) => chain,
                Source::Named(name) => match self.get(name)? {
                    Secret::Certificate(chain) => chain,
                    Secret::Trust(_) => return Err(Unusable::Kind(name.clone())),
                },
            };
            // A certificate of ours that cannot be read is shown all the same: it is for others to judge.
            let own = chain.chain.first().and_then(|leaf| verify::of_own(leaf).ok()).unwrap_or_default();
            let key = Arc::new(translate::tls::certified_key(chain)?);
            let uri = own.uri_sans.first().map(|uri| Arc::from(&**uri));
            Ok(Certificate { key, uri, names: own.dns_sans })
        };
        common.certificates.iter().map(certificate).collect()
    }

    /// Whom to trust: what is in the configuration, and what comes on its own over that.
    fn trust(&self, common: &CommonTls) -> Result<Option<TrustBundle>, Unusable> {
        let Some(validation) = &common.validation else { return Ok(None) };
        let Some(name) = &validation.named else { return Ok(Some(validation.own.clone())) };
        match self.get(name)? {
            Secret::Trust(bundle) => Ok(Some(validation.own.under(bundle))),
            Secret::Certificate(_) => Err(Unusable::Kind(name.clone())),
        }
    }
}

/// A certificate that we show, with the names that it is for.
#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    uri: Option<Arc<str>>,
    names: Vec<Box<str>>,
}

/// What we show whom.
#[derive(Debug)]
struct Certificates(Vec<Certificate>);

impl Certificates {
    /// The first of `certificates` that the other end can check, else the first.
    fn pick<'a>(
        mut certificates: impl Iterator<Item = &'a Certificate> + Clone,
        schemes: &[SignatureScheme],
    ) -> Option<&'a Certificate> {
        let usable = certificates.clone().find(|of| of.key.key.choose_scheme(schemes).is_some());
        usable.or_else(|| certificates.next())
    }

    /// One that has the name that is asked for; where none has, the first, as Envoy does.
    fn pick_for(&self, hello: &ClientHello<'_>) -> Option<&Certificate> {
        let named = hello.server_name().and_then(|wanted| {
            let has_name = |of: &&Certificate| of.names.iter().any(|name| is_dns_name(name, wanted));
            Certificates::pick(self.0.iter().filter(has_name), hello.signature_schemes())
        });
        named.or_else(|| Certificates::pick(self.0.iter(), hello.signature_schemes()))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pick_for(&hello).map(|of| of.key.clone())
    }
}

impl ResolvesServerCert for Picking {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let picked = self.certificates.pick_for(&hello)?;
        // Asked for once more, it is the same.
        let _ = self.uri.set(picked.uri.clone());
        Some(picked.key.clone())
    }
}

impl ResolvesClientCert for Certificates {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Certificates::pick(self.0.iter(), schemes).map(|of| of.key.clone())
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// What `provider` has, as far as it may be used.
fn narrowed(provider: &Arc<CryptoProvider>, common: &CommonTls) -> Arc<CryptoProvider> {
    if common.tls12_suites.is_empty() && common.key_exchanges.is_empty() {
        return provider.clone();
    }
    let mut narrowed = (**provider).clone();
    if !common.tls12_suites.is_empty() {
        narrowed.cipher_suites.retain(|suite| matches!(suite, SupportedCipherSuite::Tls13(_)));
        narrowed.cipher_suites.extend(common.tls12_suites.iter().map(|suite| suite_of(*suite)));
    }
    if !common.key_exchanges.is_empty() {
        narrowed.kx_groups = common.key_exchanges.iter().map(|group| group_of(*group)).collect();
    }
    Arc::new(narrowed)
}

fn suite_of(suite: CipherSuite) -> SupportedCipherSuite {
    match suite {
        CipherSuite::EcdsaAes128 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdsaAes256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdsaChacha20 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::RsaAes128 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::RsaAes256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::RsaChacha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group_of(group: KeyExchange) -> &'static dyn SupportedKxGroup {
    match group {
        KeyExchange::X25519MlKem768 => kx_group::X25519MLKEM768,
        KeyExchange::X25519 => kx_group::X25519,
        KeyExchange::P256 => kx_group::SECP256R1,
        KeyExchange::P384 => kx_group::SECP384R1,
    }
}

fn versions(common: &CommonTls) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(common.versions.tls13, &TLS13), (common.versions.tls12, &TLS12)];
    known.into_iter().filter_map(|(is_spoken, version)| is_spoken.then_some(version)).collect()
}

fn alpn(common: &CommonTls) -> Vec<Vec<u8>> {
    common.alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

fn server(
    policy: &Arc<DownstreamTls>,
    secrets: &Secrets<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerTls, Unusable> {
    let common = &policy.common;
    let provider = &narrowed(provider, common);
    let certificates = Arc::new(Certificates(secrets.certificates(common)?));
    if certificates.0.is_empty() {
        return Err(Unusable::NoCertificate);
    }
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions(common))?;
    let trust = secrets.trust(common)?;
    let terms = Arc::new(Terms::new(policy, trust.clone()));
    let judge = |trust| Verifier::new(trust, policy.require_client_certificate, provider.clone());
    let verifier = trust.map(judge).transpose()?.map(Arc::new);
    let builder = match verifier.clone() {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut rustls = builder.with_cert_resolver(certificates.clone());
    rustls.alpn_protocols = alpn(common);
    rustls.session_storage = Arc::new(NoServerSessionStorage {});
    match policy.resumption {
        // One ticket: a client of a mesh keeps its connections, and comes again with one.
        true => (rustls.ticketer, rustls.send_tls13_tickets) = (aws_lc_rs::Ticketer::new()?, 1),
        false => rustls.send_tls13_tickets = 0,
    }
    // Nothing is done for what could be another's, sent once more (RFC 8446 §8).
    rustls.max_early_data_size = 0;
    rustls.enable_secret_extraction = true;
    Ok(ServerTls { certificates, rustls: Arc::new(rustls), policy: policy.clone(), terms, verifier })
}

/// Sessions that are kept for a cluster.
const SESSIONS_MAX: usize = 256;

fn client(
    policy: &Arc<UpstreamTls>,
    secrets: &Secrets<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientTls, Unusable> {
    let common = &policy.common;
    let provider = &narrowed(provider, common);
    let trust = secrets.trust(common)?;
    // Without anything that says whom to believe, everybody is, as Envoy does.
    let trust = trust.unwrap_or_else(|| TrustBundle { accepts_untrusted: true, ..TrustBundle::default() });
    let verifier = Verifier::new(trust, true, provider.clone())?;
    let mut rustls = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(common))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(Certificates(secrets.certificates(common)?)));
    rustls.alpn_protocols = alpn(common);
    rustls.enable_sni = policy.sni.is_some();
    rustls.enable_early_data = false;
    rustls.enable_secret_extraction = true;
    rustls.resumption = match policy.resumption {
        true => Resumption::in_memory_sessions(SESSIONS_MAX),
        false => Resumption::disabled(),
    };
    let name =
        |sni: &Arc<str>| ServerName::try_from(sni.to_string()).map_err(|_| Unusable::ServerName(sni.clone()));
    let sni = policy.sni.as_ref().map(name).transpose()?;
    Ok(ClientTls { rustls: Arc::new(rustls), sni })
}

#[cfg(test)]
mod tests;
