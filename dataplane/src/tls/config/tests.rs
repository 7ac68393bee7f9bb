//! What is narrowed in the configuration is narrow on the wire.

use policy::{
    limits,
    tls::{CertificateChain, PrivateKey, Validation, Versions},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{client::ClientConnection, server::ServerConnection};

use super::*;

/// A certificate of our own making, with who is to be believed because of it.
fn certificate() -> (Arc<CertificateChain>, TrustBundle) {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(["web.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let der: Box<[u8]> = made.der().to_vec().into();
    let key = PrivateKey::Pkcs8(key.serialize_der().into());
    let chain = Arc::new(CertificateChain { chain: vec![der.clone()], key });
    (chain, TrustBundle { anchors: vec![der], ..TrustBundle::default() })
}

fn downstream(common: CommonTls) -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        common,
        require_client_certificate: false,
        resumption: true,
        handshake_timeout: limits::TLS_HANDSHAKE_TIMEOUT_DEFAULT,
    })
}

/// Suite and key exchange that the two agree on; `None` when there is nothing.
fn agreed(server: &ServerTls, client: &ClientTls) -> Option<String> {
    let name = ServerName::try_from("web.test").unwrap();
    let mut client = ClientConnection::new(client.rustls.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.begin().0).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets().ok()?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut said = &wire[..];
        while !said.is_empty() {
            client.read_tls(&mut said).unwrap();
            client.process_new_packets().ok()?;
        }
    }
    let suite = server.negotiated_cipher_suite()?.suite();
    let group = server.negotiated_key_exchange_group()?.name();
    Some(format!("{suite:?} {group:?}"))
}

#[test]
fn suites_and_key_exchanges_are_those_that_are_configured() {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (chain, trust) = certificate();
    let of = |tls13, suites: &[CipherSuite], groups: &[KeyExchange]| CommonTls {
        versions: Versions { tls12: true, tls13 },
        tls12_suites: suites.to_vec(),
        key_exchanges: groups.to_vec(),
        ..CommonTls::default()
    };
    let none = Secrets { names: &[], secrets: &[] };
    let as_server = |of: &CommonTls| {
        let certificates = vec![Source::Inline(chain.clone())];
        server(&downstream(CommonTls { certificates, ..of.clone() }), &none, &provider).unwrap()
    };
    let as_client = |of: &CommonTls| {
        let validation = Some(Validation { own: trust.clone(), named: None });
        let common = CommonTls { validation, ..of.clone() };
        client(&Arc::new(UpstreamTls { common, sni: None, resumption: true }), &none, &provider).unwrap()
    };
    use CipherSuite::{EcdsaAes128, EcdsaAes256, EcdsaChacha20, RsaAes128};
    use KeyExchange::{P256, P384, X25519, X25519MlKem768};
    let all = || of(true, &[], &[]);
    for (one, other, expected) in [
        (all(), all(), Some("TLS13_AES_256_GCM_SHA384 X25519MLKEM768")),
        (of(true, &[EcdsaAes128], &[P384]), all(), Some("TLS13_AES_256_GCM_SHA384 secp384r1")),
        (of(true, &[], &[P256]), all(), Some("TLS13_AES_256_GCM_SHA384 secp256r1")),
        (of(true, &[], &[X25519MlKem768]), of(true, &[], &[X25519]), None),
        (
            of(false, &[EcdsaChacha20], &[X25519]),
            all(),
            Some("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 X25519"),
        ),
        (
            of(false, &[EcdsaAes128], &[P256]),
            all(),
            Some("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 secp256r1"),
        ),
        (of(false, &[EcdsaAes128], &[]), of(false, &[EcdsaAes256], &[]), None),
        (of(false, &[RsaAes128], &[]), all(), None),
    ] {
        for (server, client) in [(as_server(&one), as_client(&other)), (as_server(&other), as_client(&one))] {
            assert_eq!(agreed(&server, &client).as_deref(), expected, "{one:?} with {other:?}");
        }
    }
}
