//! Who is given what, and that nobody else is given anything.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use crate::ca::{AuthoritySource, SVID_LIFE_DEFAULT};

use super::*;

const WEB: &str = "spiffe://mesh.local/ns/shop/sa/web";
const VM1: &str = "spiffe://mesh.local/host/vm1";

fn service(folder: &std::path::Path, ours: u32) -> IdentityService {
    let authority = CurrentAuthority::open(AuthoritySource {
        given: None,
        data_dir: folder.to_owned(),
        trust_domain: "mesh.local".to_owned(),
        svid_life: SVID_LIFE_DEFAULT,
    })
    .unwrap();
    let (store, metrics) = (Store::open(folder).unwrap(), Metrics::default());
    let users = Users::of(ours);
    IdentityService {
        authority: Arc::new(authority),
        store: Arc::new(store),
        metrics: Arc::new(metrics),
        users,
    }
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
}

fn token(service: &IdentityService, created: SystemTime) -> Token {
    let token = Token::new().unwrap();
    let grant = Grant { host: "vm1".into(), allowed: vec![SpiffeId::parse(WEB).unwrap()] };
    service.store.add_token(&token, &grant, created, created + Duration::from_secs(60)).unwrap();
    token
}

fn told(service: &IdentityService, caller: Result<Caller, Unproved>, csr: &[u8], id: &str) -> (Code, String) {
    match service.answer(caller, csr, id) {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

#[test]
fn only_who_may_be_somebody_is_given_that_and_a_refusal_says_why_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), 1000);
    let now = SystemTime::now();
    let user = |uid| Ok(Caller::User(uid));
    let with = |token: Token| Ok(Caller::Token(token));
    let host = |name: &str| Ok(Caller::Host(name.into()));
    let good = token(&service, now);
    let late = token(&service, now - Duration::from_secs(60));
    let unknown = Token::new().unwrap();
    let spent = "the token is unknown, spent or expired; `ringway token` makes another";
    let csr = request();
    let table = [
        (user(0), WEB, Code::Ok, ""),
        (user(1000), WEB, Code::Ok, ""),
        (user(1000), VM1, Code::Ok, ""),
        (user(1001), WEB, Code::PermissionDenied, "user 1001 is not served; "),
        (Err(Unproved::Nobody), WEB, Code::Unauthenticated, "who asks is not proved: "),
        (user(0), "web", Code::InvalidArgument, "a SPIFFE ID begins with `spiffe://`"),
        (user(0), "spiffe://other/a", Code::PermissionDenied, "spiffe://other/a is not of the trust domain"),
        (
            Err(Unproved::Token),
            WEB,
            Code::Unauthenticated,
            "who asks is not proved: what it brought is no token",
        ),
        (with(unknown), VM1, Code::Unauthenticated, spent),
        (with(late), VM1, Code::Unauthenticated, spent),
        (
            with(good.clone()),
            WEB,
            Code::PermissionDenied,
            "this token is for the identity of host vm1, not for ",
        ),
        (with(good.clone()), "spiffe://mesh.local/host/vm2", Code::PermissionDenied, "this token is for "),
        (with(good.clone()), "spiffe://other/host/vm1", Code::PermissionDenied, "this token is for "),
        // Before it has spent a token it may run nothing.
        (
            host("vm1"),
            WEB,
            Code::PermissionDenied,
            "spiffe://mesh.local/ns/shop/sa/web may not run on host vm1",
        ),
        // What it is for need not be said.
        (with(good.clone()), "", Code::Ok, ""),
        (with(good.clone()), VM1, Code::Unauthenticated, spent),
        (host("vm1"), WEB, Code::Ok, ""),
        (host("vm1"), VM1, Code::Ok, ""),
        (
            host("vm1"),
            "spiffe://mesh.local/ns/shop/sa/pay",
            Code::PermissionDenied,
            "spiffe://mesh.local/ns/shop/sa/pay may",
        ),
        (
            host("vm1"),
            "spiffe://mesh.local/host/vm2",
            Code::PermissionDenied,
            "spiffe://mesh.local/host/vm2 may not",
        ),
        (
            host("vm1"),
            "spiffe://mesh.local/control-plane",
            Code::PermissionDenied,
            "spiffe://mesh.local/control-plane may",
        ),
        (
            host("vm2"),
            WEB,
            Code::PermissionDenied,
            "spiffe://mesh.local/ns/shop/sa/web may not run on host vm2",
        ),
    ];
    for (row, (caller, id, code, said)) in table.into_iter().enumerate() {
        let (is, message) = told(&service, caller, &csr, id);
        assert_eq!(is, code, "row {row}: {message}");
        assert!(message.starts_with(said), "row {row}: {message}");
    }
    let refused = service.metrics.identities_refused.each_ref().map(|count| count.load(Relaxed));
    assert_eq!((service.metrics.identities_issued.load(Relaxed), refused), (6, [1, 1, 2, 3, 9, 0]));
    let issues = service.store.valid_issues(SystemTime::now()).unwrap();
    let to: Vec<_> = issues.iter().map(|of| (&of.identity[..], &of.issued_to[..])).collect();
    assert_eq!(to.len(), 6);
    for row in [
        (VM1, "user 1000"),
        (VM1, "token of host vm1"),
        (WEB, "user 0"),
        (WEB, "user 1000"),
        (WEB, "host vm1"),
    ] {
        assert!(to.contains(&row), "{row:?} in {to:?}");
    }
}

#[test]
fn a_request_that_cannot_be_used_spends_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), 1000);
    let token = token(&service, SystemTime::now());
    let connection = || Ok(Caller::Token(token.clone()));
    let (code, said) = told(&service, connection(), b"x", VM1);
    assert!(
        code == Code::InvalidArgument && said.starts_with("the certificate request cannot be used"),
        "{said}"
    );
    assert_eq!(told(&service, connection(), &request(), VM1).0, Code::Ok);
}

#[test]
fn a_stranger_is_not_told_what_is_wrong_with_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), 1000);
    for (csr, id) in [(&b"x"[..], WEB), (&request(), "web"), (&request(), "spiffe://other/a")] {
        let (code, said) = told(&service, Err(Unproved::Token), csr, id);
        let expected = "who asks is not proved: what it brought is no token";
        assert_eq!((code, &said[..]), (Code::Unauthenticated, expected));
    }
}
