//! Whom TLS lets be whom, and what others are told of that.

use std::sync::Arc;

use policy::{
    client_cert::{ClientCertDetails, ForwardClientCert},
    tls::{Source, TrustBundle},
};
use rcgen::SanType;
use sim::Behaviour;

use crate::{
    mesh::Setup,
    secured::{Authority, Identity, TlsPeer, downstream, uri},
    tls::{PAY, World, asks},
};

#[test]
fn a_certificate_that_nobody_vouches_for_is_nobodys_identity_even_where_it_is_taken() {
    let world = World::new();
    let stranger = Authority::new().workload("spiffe://m/ns/shop/sa/admin");
    let trust = TrustBundle { accepts_untrusted: true, ..world.authority.bundle() };
    for forward in [ForwardClientCert::SanitizeSet, ForwardClientCert::AppendForward] {
        let mut setup = Setup::new(Behaviour::default()).manager(|manager| {
            manager.forward_client_cert = forward;
            manager.client_cert_details = ClientCertDetails { uri: true, ..ClientCertDetails::default() };
        });
        setup.config.tls = Some(Arc::new(downstream(&world.pay, trust.clone())));
        setup.on_sim(async |mesh| {
            for (identity, is_known) in [(&stranger, false), (&world.web, true)] {
                let config = Arc::new(Identity::client(Some(identity), &world.authority, &["http/1.1"]));
                // The second goes on with the session of the first.
                for _ in 0..2 {
                    let mut client = TlsPeer::client(mesh.peer().await, config.clone());
                    client.handshake().await.unwrap();
                    let lie = "x-forwarded-client-cert: URI=spiffe://m/ns/shop/sa/root\r\n";
                    let request = format!("GET / HTTP/1.1\r\nhost: shop\r\nx-id: 1\r\n{lie}\r\n");
                    assert!(asks(&mut client, request).await.starts_with("http/1.1 200"));
                    client.close().await;
                    let told =
                        mesh.origin().requests().last().unwrap().header("x-forwarded-client-cert").is_some();
                    assert_eq!(told, is_known, "{forward:?}");
                }
            }
        });
    }
}

#[test]
fn upstream_is_told_of_the_certificate_that_was_shown_and_of_no_other() {
    let world = World::new();
    // `PAY` has no name that is asked for, so it is shown where nothing else fits.
    let named = |id: &str, name: &str| {
        let names = vec![uri(id), SanType::DnsName(name.try_into().unwrap())];
        Source::Inline(world.authority.certificate(|params| params.subject_alt_names = names).chain)
    };
    const CART: &str = "spiffe://m/ns/shop/sa/cart";
    for (second, expected) in [("app.mesh", CART), ("other.mesh", PAY)] {
        let mut setup = Setup::new(Behaviour::default())
            .manager(|manager| manager.forward_client_cert = ForwardClientCert::SanitizeSet);
        let mut tls = downstream(&world.pay, world.authority.bundle());
        tls.common.certificates.push(named(CART, second));
        setup.config.tls = Some(Arc::new(tls));
        setup.on_sim(async |mesh| {
            let config = Arc::new(Identity::client(Some(&world.web), &world.authority, &["http/1.1"]));
            for _ in 0..2 {
                let mut client = TlsPeer::client(mesh.peer().await, config.clone());
                client.handshake().await.unwrap();
                let request = "GET / HTTP/1.1\r\nhost: shop\r\nx-id: 1\r\n\r\n";
                assert!(asks(&mut client, request).await.starts_with("http/1.1 200"));
                client.close().await;
                let requests = mesh.origin().requests();
                let told = requests.last().unwrap().header("x-forwarded-client-cert").unwrap();
                assert!(told.starts_with(&format!("By={expected};")), "{told}");
            }
        });
    }
}
