//! What tests of this module share: certificates, configurations, and handshakes in memory.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use runtime::Gather;
use rustls::{
    ClientConfig, Connection, RootCertStore, ServerConfig, SupportedCipherSuite,
    client::{ClientConnection, UnbufferedClientConnection},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::{ServerConnection, UnbufferedServerConnection},
    version::{TLS12, TLS13},
};

use super::{
    handshake::{Side, Step},
    record::Records,
};

/// Which end of a connection is ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Server,
    Client,
}

pub(super) const ROLES: [Role; 2] = [Role::Server, Role::Client];

/// Configurations of both ends for one cipher suite.
pub(super) struct Configs {
    pub(super) server: ServerConfig,
    pub(super) client: ClientConfig,
}

pub(super) fn suites() -> impl Iterator<Item = SupportedCipherSuite> {
    aws_lc_rs::ALL_CIPHER_SUITES.iter().copied()
}

/// A suite of TLS 1.3, and one of TLS 1.2.
pub(super) fn of_each_version() -> [SupportedCipherSuite; 2] {
    [
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ]
}

pub(super) fn tls13() -> SupportedCipherSuite {
    of_each_version()[0]
}

pub(super) fn configs(suite: SupportedCipherSuite) -> Configs {
    let is_rsa = format!("{:?}", suite.suite()).contains("_RSA_");
    let key = match is_rsa {
        true => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        false => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
    };
    let certificate = CertificateParams::new(["peer.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let provider = CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() };
    let provider = Arc::new(provider);
    let versions = match suite {
        SupportedCipherSuite::Tls13(_) => [&TLS13],
        SupportedCipherSuite::Tls12(_) => [&TLS12],
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone());
    let server = server.with_protocol_versions(&versions).unwrap().with_no_client_auth();
    let mut server = server.with_single_cert(chain, key).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    server.enable_secret_extraction = true;
    client.enable_secret_extraction = true;
    Configs { server, client }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("peer.test").unwrap()
}

impl Configs {
    pub(super) fn ours(&self, role: Role) -> Side {
        match role {
            Role::Server => {
                Side::Server(UnbufferedServerConnection::new(Arc::new(self.server.clone())).unwrap())
            }
            Role::Client => {
                let client = UnbufferedClientConnection::new(Arc::new(self.client.clone()), name());
                Side::Client(client.unwrap())
            }
        }
    }

    /// rustls's own connection at the other end of ours.
    pub(super) fn theirs(&self, ours: Role) -> Connection {
        match ours {
            Role::Client => ServerConnection::new(Arc::new(self.server.clone())).unwrap().into(),
            Role::Server => ClientConnection::new(Arc::new(self.client.clone()), name()).unwrap().into(),
        }
    }
}

/// One end in the middle of its handshake.
struct Shaking {
    side: Side,
    received: Vec<u8>,
    is_done: bool,
}

impl Shaking {
    fn new(side: Side) -> Shaking {
        Shaking { side, received: Vec::new(), is_done: false }
    }

    /// Goes on until it waits; gives what it has to say.
    fn go_on(&mut self) -> Vec<u8> {
        let (mut out, mut sent) = (Gather::new(), Vec::new());
        loop {
            let (discard, step) = self.side.step(&mut self.received, &mut out);
            self.received.drain(..discard);
            match step.unwrap() {
                Step::Again => {}
                Step::Send => {
                    out.unsent().for_each(|run| sent.extend_from_slice(run));
                    out.clear();
                }
                Step::Receive => return sent,
                Step::Done => {
                    self.is_done = true;
                    return sent;
                }
                Step::Over => panic!("the other end left"),
            }
        }
    }
}

/// A handshake with rustls's own connection; gives what came behind it, too.
pub(super) fn shake_hands(side: Side, theirs: &mut Connection) -> (Records, Vec<u8>) {
    let mut ours = Shaking::new(side);
    for _ in 0..10 {
        let mut said = &ours.go_on()[..];
        while !said.is_empty() {
            theirs.read_tls(&mut said).unwrap();
            theirs.process_new_packets().unwrap();
        }
        while theirs.wants_write() {
            theirs.write_tls(&mut ours.received).unwrap();
        }
        if ours.is_done {
            return (ours.side.into_records().unwrap(), ours.received);
        }
    }
    panic!("no end to the handshake")
}

/// Both ends of a connection, ours: the server's, and the client's behind what the server said after its handshake.
pub(super) fn both_ours(suite: SupportedCipherSuite) -> (Records, Records) {
    let mut configs = configs(suite);
    configs.server.send_tls13_tickets = 0;
    let mut server = Shaking::new(configs.ours(Role::Server));
    let mut client = Shaking::new(configs.ours(Role::Client));
    while !(server.is_done && client.is_done) {
        server.received.extend(client.go_on());
        client.received.extend(server.go_on());
    }
    (server.side.into_records().unwrap(), client.side.into_records().unwrap())
}
