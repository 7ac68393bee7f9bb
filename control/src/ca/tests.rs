//! Stories of the certificate authority: what it signs, for whom, and what its files are worth.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair};

use super::*;

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn request() -> Vec<u8> {
    // What it asks for beside its key is nothing anybody may have.
    let mut params = CertificateParams::new(vec!["everybody.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(super) fn web() -> SpiffeId {
    id("spiffe://mesh.local/ns/shop/sa/web")
}

/// What openssl says of a certificate chain, with the root from the bundle.
fn openssl_verifies(folder: &Path, signed: &Signed, bundle: &[Vec<u8>], purpose: &str) -> String {
    let file = |name: &str, der: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, pem::encode(&pem::Pem::new("CERTIFICATE", der))).unwrap();
        path
    };
    let root = file("bundle.pem", &bundle[0]);
    let between = file("between.pem", &signed.chain[1]);
    let leaf = file("leaf.pem", &signed.chain[0]);
    let mut openssl = Command::new("openssl");
    openssl.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]).arg(root);
    let output = openssl.arg("-untrusted").arg(between).arg(leaf).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn a_signed_certificate_is_one_of_its_workload_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(folder.path(), "mesh.local", DAY).unwrap();
    let now = SystemTime::now();
    let signed = authority.sign(&request(), &web(), now).unwrap();
    assert_eq!(signed.not_after, now + DAY);
    for purpose in ["sslserver", "sslclient"] {
        let said = openssl_verifies(folder.path(), &signed, &authority.bundle(), purpose);
        assert!(said.ends_with("leaf.pem: OK\n"), "{purpose}: {said}");
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-text", "-in"]).arg(folder.path().join("leaf.pem"));
    let text = String::from_utf8(openssl.output().unwrap().stdout).unwrap();
    for part in [
        "URI:spiffe://mesh.local/ns/shop/sa/web\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("everybody.example"), "{text}");
    let another = authority.sign(&request(), &web(), now).unwrap();
    assert_ne!(another.chain[0], signed.chain[0]);
}

#[test]
fn an_authority_is_the_same_after_a_restart_and_its_keys_are_its_users_own() {
    let folder = tempfile::tempdir().unwrap();
    let first = Authority::open(folder.path(), "mesh.local", DAY).unwrap();
    let again = Authority::open(folder.path(), "mesh.local", DAY).unwrap();
    assert_eq!(first.bundle(), again.bundle());
    let signed = again.sign(&request(), &web(), SystemTime::now()).unwrap();
    let said = openssl_verifies(folder.path(), &signed, &first.bundle(), "sslserver");
    assert!(said.ends_with("OK\n"), "{said}");
    let ca = folder.path().join("ca");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&ca), 0o700);
    for name in ["root.pem", "root.key", "intermediate.pem", "intermediate.key"] {
        assert_eq!(mode(&ca.join(name)), 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(&ca).unwrap().count(), 4);
}

#[test]
fn an_intermediate_is_renewed_at_a_start_and_what_it_signed_stays_good() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca");
    for (days_ago, is_renewed) in [(0, false), (100, false), (200, true), (400, true)] {
        let made = make("mesh.local", SystemTime::now() - DAY * days_ago).unwrap();
        files::write(&ca, &made).unwrap();
        let file = || fs::read_to_string(ca.join("intermediate.pem")).unwrap();
        let before = file();
        let first = Authority::open(folder.path(), "mesh.local", DAY).unwrap();
        assert_eq!(file() != before, is_renewed, "{days_ago} days");
        assert_eq!(first.bundle(), [made.root]);
        let signed = first.sign(&request(), &web(), SystemTime::now()).unwrap();
        let renewed = file();
        drop(Authority::open(folder.path(), "mesh.local", DAY).unwrap());
        assert_eq!(file(), renewed, "once is enough");
        // A proxy may still have the old one in its chain.
        if days_ago == 200 {
            let old = Signed { chain: vec![signed.chain[0].clone(), made.intermediate], ..signed.clone() };
            for signed in [signed, old] {
                let said = openssl_verifies(folder.path(), &signed, &first.bundle(), "sslserver");
                assert!(said.ends_with("leaf.pem: OK\n"), "{said}");
            }
        }
    }
}

#[test]
fn a_file_that_is_wrong_is_named_and_nothing_is_made_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    drop(Authority::open(folder.path(), "mesh.local", DAY).unwrap());
    let ca = folder.path().join("ca");
    let said = || Authority::open(folder.path(), "mesh.local", DAY).unwrap_err().to_string();
    fs::write(ca.join("root.pem"), "x").unwrap();
    assert!(said().ends_with("ca/root.pem is not a certificate in PEM"), "{}", said());
    fs::remove_file(ca.join("root.pem")).unwrap();
    assert!(said().starts_with("cannot read ") && said().ends_with("ca/root.pem"), "{}", said());
    for name in ["root.key", "intermediate.key"] {
        let key = ca.join(name);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(
            said().starts_with("others may read or write ") && said().contains("(mode 640)"),
            "{}",
            said()
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let other = tempfile::tempdir().unwrap();
    drop(Authority::open(other.path(), "mesh.local", DAY).unwrap());
    for name in ["root.pem", "intermediate.key"] {
        fs::copy(other.path().join("ca").join(name), ca.join(name)).unwrap();
    }
    let ca = ca.display();
    assert_eq!(said(), format!("{ca}/intermediate.key is not the key of {ca}/intermediate.pem"));
    for trust_domain in ["Mesh", "mesh/a", ""] {
        let error = Authority::open(folder.path(), trust_domain, DAY).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the trust domain {trust_domain:?} must be")), "{error}");
    }
}

#[test]
fn what_is_not_ours_to_give_or_cannot_be_checked_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(folder.path(), "mesh.local", Duration::ZERO).unwrap();
    let now = SystemTime::now();
    let said = |request: &[u8], id: &SpiffeId| authority.sign(request, id, now).unwrap_err().to_string();
    assert_eq!(
        said(&request(), &id("spiffe://other/ns/shop/sa/web")),
        "spiffe://other/ns/shop/sa/web is not of the trust domain mesh.local"
    );
    assert!(said(b"nothing", &web()).starts_with("the certificate request cannot be used: "));
    let key = KeyPair::generate().unwrap();
    let good = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let is_for =
        |signed: &Signed| signed.chain[0].windows(32).any(|part| part == &key.public_key_raw()[1..33]);
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        // The signature is not over itself: what of that is said in two ways is the same key's all the same.
        let signed = authority.sign(&damaged, &web(), now);
        assert!(signed.as_ref().is_ok_and(is_for) || signed.is_err(), "byte {at}");
        assert!(signed.is_err() || at + 100 > good.len(), "byte {at} is signed");
    }
    let signed = authority.sign(&good, &web(), now).unwrap();
    assert_eq!(signed.not_after, now + SVID_LIFE_MIN, "no shorter than it may be");
    assert_eq!(format!("{authority:?}"), "Authority(mesh.local)");
}

/// Weak keys are refused: openssl makes them, since nothing of ours does.
#[test]
fn a_request_with_an_rsa_key_is_signed_from_2048_bits_on() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(folder.path(), "mesh.local", DAY).unwrap();
    for (bits, is_signed) in [("1024", false), ("2048", true)] {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-new", "-nodes", "-subj", "/", "-outform", "DER", "-newkey"]);
        openssl.arg(format!("rsa:{bits}")).args(["-keyout", "/dev/null"]);
        let request = openssl.output().unwrap().stdout;
        assert!(!request.is_empty(), "{bits}");
        let signed = authority.sign(&request, &web(), SystemTime::now());
        assert_eq!(signed.is_ok(), is_signed, "{bits}: {signed:?}");
    }
}

/// An authority of somebody's own below `folder`: root, the authority's certificate, its key.
struct Own {
    root: String,
    certificate: String,
    key: String,
}

fn own(change: impl FnOnce(&mut CertificateParams)) -> Own {
    let now = SystemTime::now();
    let root_key = KeyPair::generate().unwrap();
    let params = authority("root", now, DAY * 100, None);
    let root = params.self_signed(&root_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut between = authority("between", now, DAY / 2, Some(0));
    change(&mut between);
    let certificate = between.signed_by(&key, &Issuer::new(params, root_key)).unwrap().pem();
    Own { root, certificate, key: key.serialize_pem() }
}

fn given(
    folder: &Path,
    certificate: &str,
    key: &str,
    root: Option<&str>,
) -> Result<Authority, AuthorityError> {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let root = root.map(|root| file("root.pem", root));
    let files = GivenFiles { certificate: file("ca.pem", certificate), key: file("ca.key", key), root };
    Authority::given(&files, "mesh.local", DAY)
}

/// Files of an authority of somebody's own, another one with each call.
pub(super) fn given_files(folder: &Path) -> GivenFiles {
    let Own { root, certificate, key } = own(|_| {});
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let root = Some(file("root.pem", &root));
    GivenFiles { certificate: file("ca.pem", &certificate), key: file("ca.key", &key), root }
}

#[test]
fn nothing_is_signed_by_a_certificate_that_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::given(&given_files(folder.path()), "mesh.local", DAY).unwrap();
    let end = authority.not_after;
    let signed = authority.sign(&request(), &web(), end - SVID_LIFE_MIN).unwrap();
    assert_eq!(signed.not_after, end);
    for late in [end - SVID_LIFE_MIN / 2, end, end + DAY] {
        let refused = authority.sign(&request(), &web(), late).unwrap_err().to_string();
        assert_eq!(refused, "the certificate that signs has ended, or is about to");
    }
}

#[test]
fn an_authority_that_is_given_signs_as_ours_does_and_nothing_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let Own { root, certificate, key } = own(|_| {});
    let both = format!("{certificate}{root}");
    for authority in [
        given(folder.path(), &certificate, &key, Some(&root)).unwrap(),
        given(folder.path(), &both, &key, None).unwrap(),
    ] {
        let signed = authority.sign(&request(), &web(), SystemTime::now()).unwrap();
        assert_eq!((signed.chain.len(), authority.bundle().len()), (2, 1));
        assert!(signed.not_after < SystemTime::now() + DAY / 2 + CLOCK_SKEW);
        let said = openssl_verifies(folder.path(), &signed, &authority.bundle(), "sslserver");
        assert!(said.ends_with("leaf.pem: OK\n"), "{said}");
    }
}

#[test]
fn files_that_make_no_authority_are_refused_before_anything_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let good = own(|_| {});
    let other = own(|_| {});
    let leaf = own(|params| params.is_ca = IsCa::ExplicitNoCa);
    let unsigning = own(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let ended = own(|params| params.not_after = (SystemTime::now() - Duration::from_secs(1)).into());
    for (of, key, root, said) in [
        (&good, &good.key, "x", "root.pem is not certificates in PEM"),
        (&good, &"x".to_owned(), &good.root, "ca.key is not a private key in PEM, and not encrypted"),
        (&good, &other.key, &good.root, "ca.key is not the key of "),
        (
            &leaf,
            &leaf.key,
            &leaf.root,
            "ca.pem is not a certificate of an authority: its basic constraints are not CA",
        ),
        (&unsigning, &unsigning.key, &unsigning.root, "of an authority: its key may not sign certificates"),
        (&good, &good.key, &other.root, "root.pem: invalid peer certificate: BadSignature"),
        (&ended, &ended.key, &ended.root, "root.pem: the certificate that signs has ended, or is about to"),
    ] {
        let error = given(folder.path(), &of.certificate, key, Some(root)).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
    let error = given(folder.path(), &good.certificate, &good.key, None).unwrap_err().to_string();
    assert!(error.ends_with("ca.pem is no root, and no other file names one"), "{error}");
}
