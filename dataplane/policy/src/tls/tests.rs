//! Names, bundles and terms.

use super::*;

#[test]
fn a_dns_name_may_stand_for_one_label_and_no_more() {
    for (name, wanted, expected) in [
        ("a.example.com", "a.example.com", true),
        ("A.Example.com", "a.example.COM", true),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", false),
        ("*.example.com", "example.com", false),
        ("*.example.com", ".example.com", false),
        ("*.com", "example.com", false),
        ("a*.example.com", "ab.example.com", false),
        ("*", "example.com", false),
        ("a.example.com", "*.example.com", false),
        ("", "", true),
    ] {
        assert_eq!(is_dns_name(name, wanted), expected, "{name} {wanted}");
    }
}

#[test]
fn a_bundle_that_comes_on_its_own_takes_the_place_of_the_authorities_that_were_there() {
    let bundle = |anchor: &[u8], name: &str, fingerprint: u8| TrustBundle {
        anchors: [Box::from(anchor)].into(),
        names: [NameMatch { kind: NameKind::Uri, pattern: NamePattern::Exact(name.into()) }].into(),
        accepts_untrusted: false,
        fingerprints: [[fingerprint; 32]].into(),
    };
    let (own, other) = (bundle(b"old", "a", 1), bundle(b"new", "b", 2));
    let merged = own.under(&other);
    assert_eq!(merged.anchors, other.anchors, "who is believed no longer may not stay");
    assert_eq!(merged.names, [&own.names[..], &other.names].concat());
    assert_eq!(merged.fingerprints, [[1; 32], [2; 32]]);
    let empty = TrustBundle::default();
    assert_eq!((own.under(&empty), empty.under(&own)), (own.clone(), own.clone()));
    let untrusted = TrustBundle { accepts_untrusted: true, ..empty.clone() };
    assert!(untrusted.under(&own).accepts_untrusted && own.under(&untrusted).accepts_untrusted);
}

#[test]
fn a_wider_bundle_takes_all_of_a_narrower_one() {
    let bundle = |anchors: &[&str], names: &[&str], fingerprints: &[u8]| TrustBundle {
        anchors: anchors.iter().map(|anchor| Box::from(anchor.as_bytes())).collect(),
        names: names
            .iter()
            .map(|name| NameMatch { kind: NameKind::Uri, pattern: NamePattern::Exact((*name).into()) })
            .collect(),
        accepts_untrusted: false,
        fingerprints: fingerprints.iter().map(|byte| [*byte; 32]).collect(),
    };
    let before = bundle(&["x", "y"], &["a"], &[1]);
    for (what, now, expected) in [
        ("the same", before.clone(), true),
        ("another order", bundle(&["y", "x"], &["a"], &[1]), true),
        ("more", bundle(&["x", "z", "y"], &["b", "a"], &[2, 1]), true),
        ("any name", bundle(&["x", "y"], &[], &[1]), true),
        ("any certificate", bundle(&["x", "y"], &["a"], &[]), true),
        ("nobody vouches", bundle(&[], &["a"], &[1]), false),
        ("one is gone", bundle(&["x"], &["a"], &[1]), false),
        ("another name", bundle(&["x", "y"], &["b"], &[1]), false),
        ("another certificate", bundle(&["x", "y"], &["a"], &[2]), false),
        ("strangers, too", TrustBundle { accepts_untrusted: true, ..before.clone() }, true),
    ] {
        assert_eq!(now.takes_all_of(&before), expected, "{what}");
    }
    let untrusted = TrustBundle { accepts_untrusted: true, ..before.clone() };
    assert!(!before.takes_all_of(&untrusted), "strangers no longer");
    assert!(!before.takes_all_of(&bundle(&["x", "y"], &[], &[1])), "not any name any more");
    assert!(!before.takes_all_of(&bundle(&["x", "y"], &["a"], &[])), "not any certificate any more");
    assert!(!bundle(&["x"], &[], &[1]).takes_all_of(&bundle(&[], &[], &[1])), "somebody must vouch now");
}

#[test]
fn terms_are_met_by_those_of_a_connection_that_was_asked_for_as_much() {
    let tls = |change: fn(&mut DownstreamTls)| {
        let mut tls = DownstreamTls {
            common: CommonTls::default(),
            require_client_certificate: false,
            resumption: true,
            handshake_timeout: Duration::from_secs(1),
        };
        change(&mut tls);
        tls
    };
    let plain = |_: &mut DownstreamTls| {};
    let nobody = || Some(TrustBundle::default());
    let before = Terms::new(&tls(plain), nobody());
    for (what, now, trust, expected) in [
        ("the same", tls(plain), nobody(), true),
        ("another time", tls(|tls| tls.handshake_timeout *= 2), nobody(), true),
        (
            "another certificate of ours",
            tls(|tls| tls.common.certificates = [Source::Named("b".into())].into()),
            nobody(),
            true,
        ),
        ("a certificate is a must", tls(|tls| tls.require_client_certificate = true), nobody(), false),
        ("nobody is asked", tls(plain), None, false),
        ("TLS 1.3 only", tls(|tls| tls.common.versions.tls12 = false), nobody(), false),
        (
            "other suites",
            tls(|tls| tls.common.tls12_suites = [CipherSuite::RsaAes128].into()),
            nobody(),
            false,
        ),
        ("other groups", tls(|tls| tls.common.key_exchanges = [KeyExchange::P256].into()), nobody(), false),
        ("another protocol", tls(|tls| tls.common.alpn = [Box::from(*b"h2")].into()), nobody(), false),
    ] {
        assert_eq!(Terms::new(&now, trust).are_met_by(&before), expected, "{what}");
    }
    let must = Terms::new(&tls(|tls| tls.require_client_certificate = true), nobody());
    assert!(before.are_met_by(&must), "who had to show one need not any more");
    assert!(!before.are_met_by(&Terms::new(&tls(plain), None)), "nobody was asked");
}

#[test]
fn a_peer_is_taken_by_one_of_its_names_of_the_right_kind() {
    let peer = Peer {
        uri_sans: [Box::from("spiffe://m/ns/shop/sa/web")].into(),
        dns_sans: [Box::from("web.shop"), Box::from("spiffe://m/ns/shop/sa/pay")].into(),
        ..Peer::default()
    };
    let takes = |names: &[(NameKind, NamePattern)]| {
        let names = names.iter().map(|(kind, pattern)| NameMatch { kind: *kind, pattern: pattern.clone() });
        TrustBundle { names: names.collect(), ..TrustBundle::default() }.takes(&peer)
    };
    let exact = |text: &str| NamePattern::Exact(text.into());
    let prefix = |text: &str| NamePattern::Prefix(text.into());
    use NameKind::{Dns, Uri};
    assert!(takes(&[]));
    assert!(takes(&[(Uri, exact("spiffe://m/ns/shop/sa/web"))]));
    assert!(takes(&[(Uri, exact("x")), (Uri, prefix("spiffe://m/ns/shop/"))]));
    assert!(takes(&[(Dns, exact("web.shop"))]));
    assert!(!takes(&[(Uri, exact("spiffe://m/ns/shop/sa/we"))]));
    assert!(!takes(&[(Uri, prefix("spiffe://m/ns/shop2/"))]));
    assert!(!takes(&[(Uri, exact("spiffe://m/ns/shop/sa/pay"))]), "a DNS name is no identity");
    assert!(!takes(&[(Dns, exact("spiffe://m/ns/shop/sa/web"))]));
}
