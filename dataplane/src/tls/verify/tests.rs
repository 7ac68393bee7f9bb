//! FAILURES TLS-01 and TLS-02: certificates as they may come, as a client's and as a server's, and the counter that moves.

use policy::tls::{NameKind, NameMatch, NamePattern};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;

use super::*;
use crate::{telemetry::metrics::TlsCounters, tls::HandshakeError};

const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";

/// What comes of a certificate: it is taken, or this counter moves.
const TAKEN: &str = "taken";
const UNTRUSTED: &str = "fail_verify_error";
const NAME: &str = "fail_verify_san";
const FINGERPRINT: &str = "fail_verify_cert_hash";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// A workload's, as it should be.
fn workload() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(WEB)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A workload's but for something.
fn with(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = workload();
    change(&mut params);
    params
}

fn named(names: impl IntoIterator<Item = SanType>) -> CertificateParams {
    with(|params| params.subject_alt_names = names.into_iter().collect())
}

fn used_for(usages: &[KeyUsagePurpose]) -> CertificateParams {
    with(|params| params.key_usages = usages.to_vec())
}

fn extended(usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    with(|params| params.extended_key_usages = usages.to_vec())
}

fn issued(params: &CertificateParams, by: &Authority) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
}

fn now() -> UnixTime {
    UnixTime::now()
}

fn verifier(trust: TrustBundle) -> Verifier {
    Verifier::new(trust, true, Arc::new(aws_lc_rs::default_provider())).unwrap()
}

fn only_web() -> Vec<NameMatch> {
    vec![NameMatch { kind: NameKind::Uri, pattern: NamePattern::Exact(WEB.into()) }]
}

/// What comes of a chain as a client's, and as a server's.
fn judged(verifier: &Verifier, chain: &[CertificateDer<'_>], now: UnixTime) -> [&'static str; 2] {
    let (leaf, rest) = chain.split_first().unwrap();
    let name = ServerName::try_from("web.test").unwrap();
    let verdicts = [
        verifier.verify_client_cert(leaf, rest, now).map(|_| ()),
        verifier.verify_server_cert(leaf, rest, &name, &[], now).map(|_| ()),
    ];
    verdicts.map(|verdict| match verdict {
        Ok(()) => TAKEN,
        Err(error) => {
            let counters = TlsCounters::default();
            counters.refused(&HandshakeError::Tls(error));
            let moved: Vec<_> = counters.each().filter(|(_, _, value)| *value > 0).collect();
            assert_eq!(moved[..1], [("connection_error", moved[0].1, 1)]);
            moved.get(1).map_or("connection_error", |(name, ..)| *name)
        }
    })
}

#[test]
fn a_workloads_certificate_is_one_in_every_respect() {
    let ours = authority("ours");
    let trust = || TrustBundle { anchors: vec![ours.der().to_vec().into()], ..TrustBundle::default() };
    let any = verifier(trust());
    let web = verifier(TrustBundle { names: only_web(), ..trust() });
    let in_subject = || {
        let mut params = named([]);
        params.distinguished_name.push(DnType::CommonName, WEB);
        params
    };
    let is_ca = |mut params: CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let long =
        |bytes: usize| format!("spiffe://mesh.test/{}", "a".repeat(bytes - "spiffe://mesh.test/".len()));
    let other_name = SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], WEB.into()));
    let with_twice = || {
        let mut params = workload();
        // Another subjectAltName (2.5.29.17) that names spiffe://mesh.test/admin.
        let id = b"spiffe://mesh.test/admin";
        let content = [&[0x30, id.len() as u8 + 2, 0x86, id.len() as u8], &id[..]].concat();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
        params
    };
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};
    let untrusted = [UNTRUSTED, UNTRUSTED];
    // What it is, where any name will do, and where it must be `WEB`.
    let table: Vec<(&str, CertificateParams, [&str; 2], [&str; 2])> = vec![
        ("as it should be", workload(), [TAKEN; 2], [TAKEN; 2]),
        ("no name", named([]), [TAKEN; 2], [NAME; 2]),
        ("two ids", named([uri(WEB), uri("spiffe://mesh.test/b")]), untrusted, untrusted),
        ("the id twice", named([uri(WEB), uri(WEB)]), untrusted, untrusted),
        ("an id and a URI", named([uri(WEB), uri("https://a")]), untrusted, untrusted),
        ("a URI and an id", named([uri("https://a"), uri(WEB)]), untrusted, untrusted),
        ("an id and a name", named([uri(WEB), dns("web.test")]), [TAKEN; 2], [TAKEN; 2]),
        ("two lists of names", with_twice(), untrusted, untrusted),
        ("URIs", named([uri("https://a"), uri("https://b")]), [TAKEN; 2], [NAME; 2]),
        ("as a DNS name", named([dns(WEB)]), [TAKEN; 2], [NAME; 2]),
        ("as a mail address", named([SanType::Rfc822Name(WEB.try_into().unwrap())]), [TAKEN; 2], [NAME; 2]),
        ("as another name", named([other_name]), [TAKEN; 2], [NAME; 2]),
        ("as the subject", in_subject(), [TAKEN; 2], [NAME; 2]),
        ("NUL behind", named([uri(&format!("{WEB}\0"))]), untrusted, untrusted),
        ("NUL within", named([uri("spiffe://mesh.test/ns/shop/sa/web\0.evil")]), untrusted, untrusted),
        ("NUL in another URI", named([uri("https://a\0.evil")]), untrusted, untrusted),
        ("NUL in a DNS name", named([dns("web.test\0.evil")]), untrusted, untrusted),
        (
            "a dot behind the domain",
            named([uri("spiffe://mesh.test./ns/shop/sa/web")]),
            [TAKEN; 2],
            [NAME; 2],
        ),
        ("escaped", named([uri("spiffe://mesh%2etest/ns/shop/sa/web")]), untrusted, untrusted),
        ("escaped in the path", named([uri("spiffe://mesh.test/ns/shop/sa/we%62")]), untrusted, untrusted),
        ("upper case", named([uri("spiffe://Mesh.test/ns/shop/sa/web")]), untrusted, untrusted),
        ("upper case scheme", named([uri("SPIFFE://mesh.test/ns/shop/sa/web")]), untrusted, untrusted),
        ("no slashes", named([uri("spiffe:mesh.test/ns/shop/sa/web")]), untrusted, untrusted),
        ("one up", named([uri("spiffe://mesh.test/ns/x/../shop/sa/web")]), untrusted, untrusted),
        ("a slash behind", named([uri(&format!("{WEB}/"))]), untrusted, untrusted),
        ("a query", named([uri(&format!("{WEB}?a"))]), untrusted, untrusted),
        ("a port", named([uri("spiffe://mesh.test:80/ns/shop/sa/web")]), untrusted, untrusted),
        ("as long as may be", named([uri(&long(2048))]), [TAKEN; 2], [NAME; 2]),
        ("too long", named([uri(&long(2049))]), untrusted, untrusted),
        ("another workload", named([uri("spiffe://mesh.test/ns/shop/sa/web2")]), [TAKEN; 2], [NAME; 2]),
        ("another domain", named([uri("spiffe://mesh-test/ns/shop/sa/web")]), [TAKEN; 2], [NAME; 2]),
        ("vouches for others", is_ca(workload()), untrusted, untrusted),
        ("vouches for others, no workload", is_ca(named([dns("web.test")])), untrusted, untrusted),
        ("no usage", used_for(&[]), untrusted, untrusted),
        ("no signatures", used_for(&[KeyEncipherment]), untrusted, untrusted),
        ("signs certificates", used_for(&[DigitalSignature, KeyCertSign]), untrusted, untrusted),
        ("signs lists", used_for(&[DigitalSignature, CrlSign]), untrusted, untrusted),
        ("encrypts, too", used_for(&[DigitalSignature, KeyEncipherment]), [TAKEN; 2], [TAKEN; 2]),
        ("for anything", extended(&[]), [TAKEN; 2], [TAKEN; 2]),
        ("for code", extended(&[CodeSigning]), untrusted, untrusted),
        ("for clients", extended(&[ClientAuth]), [TAKEN, UNTRUSTED], [TAKEN, UNTRUSTED]),
        ("for servers", extended(&[ServerAuth]), [UNTRUSTED, TAKEN], [UNTRUSTED, TAKEN]),
    ];
    for (what, params, where_any, where_web) in table {
        let chain = [issued(&params, &ours)];
        assert_eq!(judged(&any, &chain, now()), where_any, "{what}");
        assert_eq!(judged(&web, &chain, now()), where_web, "{what}, where it must be {WEB}");
    }
}

#[test]
fn somebody_who_is_trusted_must_vouch_for_it() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let trust = TrustBundle { anchors: vec![ours.der().to_vec().into()], ..TrustBundle::default() };
    let ours_alone = verifier(trust.clone());
    let intermediate = |usage| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "between");
        params.is_ca = usage;
        let (key, issuer) = (KeyPair::generate().unwrap(), &ours);
        CertifiedIssuer::signed_by(params, key, issuer).unwrap()
    };
    let between = intermediate(IsCa::Ca(BasicConstraints::Unconstrained));
    let no_authority = intermediate(IsCa::ExplicitNoCa);
    let self_signed = workload().self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    let namesake = issued(&workload(), &authority("ours"));
    for (what, chain, expected) in [
        ("another authority's", vec![issued(&workload(), &theirs)], UNTRUSTED),
        ("another's with it", vec![issued(&workload(), &theirs), theirs.der().clone()], UNTRUSTED),
        ("one of the same name", vec![namesake], UNTRUSTED),
        ("its own", vec![self_signed], UNTRUSTED),
        ("between", vec![issued(&workload(), &between), between.der().clone()], TAKEN),
        ("between, not shown", vec![issued(&workload(), &between)], UNTRUSTED),
        ("no authority", vec![issued(&workload(), &no_authority), no_authority.der().clone()], UNTRUSTED),
        ("the authority itself", vec![ours.der().clone()], UNTRUSTED),
        ("nothing that can be read", vec![CertificateDer::from(b"0\x03\x02\x01\x01".to_vec())], UNTRUSTED),
    ] {
        let got = judged(&ours_alone, &chain, now());
        assert!(got.iter().all(|of| *of == expected), "{what}: {got:?}");
    }
    // Whom nobody is named to believe, nobody believes.
    let nobody = verifier(TrustBundle::default());
    assert_eq!(judged(&nobody, &[issued(&workload(), &ours)], now()), [UNTRUSTED; 2]);
    // A stranger is taken where that is configured, but what it says must be possible all the same.
    let strangers = verifier(TrustBundle { accepts_untrusted: true, ..trust });
    assert_eq!(judged(&strangers, &[issued(&workload(), &theirs)], now()), [TAKEN; 2]);
    let two = named([uri(WEB), uri("spiffe://mesh.test/b")]);
    assert_eq!(judged(&strangers, &[issued(&two, &theirs)], now()), [UNTRUSTED; 2]);
}

#[test]
fn a_fingerprint_comes_on_top_of_what_else_is_demanded() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let (known, unknown) = (issued(&workload(), &ours), issued(&workload(), &ours));
    let fingerprint = peer(&known, SystemTime::now()).unwrap().fingerprint;
    let stranger = issued(&workload(), &theirs);
    let strangers = peer(&stranger, SystemTime::now()).unwrap().fingerprint;
    let trust = TrustBundle {
        anchors: vec![ours.der().to_vec().into()],
        fingerprints: vec![fingerprint, strangers],
        ..TrustBundle::default()
    };
    let both = verifier(trust.clone());
    assert_eq!(judged(&both, std::slice::from_ref(&known), now()), [TAKEN; 2]);
    assert_eq!(judged(&both, &[unknown], now()), [FINGERPRINT; 2]);
    assert_eq!(judged(&both, std::slice::from_ref(&stranger), now()), [UNTRUSTED; 2]);
    let alone = verifier(TrustBundle { anchors: Vec::new(), ..trust });
    assert_eq!(judged(&alone, &[stranger], now()), [TAKEN; 2]);
}

#[test]
fn a_certificate_is_taken_from_its_first_second_to_its_last() {
    let ours = authority("ours");
    let trust = TrustBundle { anchors: vec![ours.der().to_vec().into()], ..TrustBundle::default() };
    let mut params = workload();
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2024, 1, 2);
    let chain = [issued(&params, &ours)];
    let (begins, ends, hour) = (1_704_067_200, 1_704_153_600, 3600);
    // Neither a bundle nor a stranger's word makes it valid.
    for trust in [trust.clone(), TrustBundle { accepts_untrusted: true, ..trust }] {
        let verifier = verifier(trust);
        for (at, expected) in [
            (begins - hour, UNTRUSTED),
            (begins - 1, UNTRUSTED),
            (begins, TAKEN),
            (ends, TAKEN),
            (ends + 1, UNTRUSTED),
            (ends + hour, UNTRUSTED),
        ] {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            assert_eq!(judged(&verifier, &chain, at), [expected; 2], "{at:?}");
        }
    }
}

#[test]
fn what_is_logged_of_a_name_is_not_what_a_stranger_writes() {
    let ours = authority("ours");
    let trust = TrustBundle {
        anchors: vec![ours.der().to_vec().into()],
        names: only_web(),
        ..TrustBundle::default()
    };
    let chain = issued(&named([dns("a\r\n200 OK")]), &ours);
    let refused = verifier(trust).verify_client_cert(&chain, &[], now()).map(|_| ()).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains(r"a\r\n200 OK") && !text.contains('\n'), "{text}");
}
