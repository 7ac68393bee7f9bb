//! Gateways: the real proxy, for clients that are of no mesh.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{CertifiedKey, Issuer};
use rustix::process::{Signal, kill_process};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::harness::{Mesh, Run};
use super::process::{Port, until};
use super::real::{pay, proxy};

#[test]
fn a_gateway_serves_its_routes_survives_its_proxy_and_ends_when_told() {
    let reserved = Port::any();
    let port = reserved.number();
    let documents = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: front, namespace: default}}\n\
         spec: {{gatewayClassName: ringway, listeners: [{{name: http, port: {port}, protocol: HTTP}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: pay, namespace: default}}\n\
         spec: {{ports: [{{name: http, port: 80, targetPort: http}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: pay, namespace: default}}\n\
         spec: {{parentRefs: [{{name: front}}], rules: [{{backendRefs: [{{name: pay, port: 80}}]}}]}}\n"
    );
    let mesh = Mesh::with_documents(proxy(), &documents);
    let _pay = pay(&mesh);
    let mut gateway = Run::start(mesh.gateway("default/front"), port);
    gateway.until(&format!("open on 127.0.0.1:{port}"));
    until(|| get(port).ends_with("\r\n\r\npay"));
    kill_process(gateway.proxy(), Signal::KILL).unwrap();
    gateway.until("proxy ready again");
    until(|| get(port).ends_with("\r\n\r\npay"));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(), 0, "{}", gateway.rest());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens any more");
    until(|| mesh.proxies() == ["default/pay"]);

    let mut twice = Run::start(mesh.gateway("default"), 0);
    assert_eq!(twice.wait(), 2);
    assert!(twice.rest().contains("expected NAMESPACE/NAME"));
}

fn get(port: u16) -> String {
    ask(&mut TcpStream::connect(("127.0.0.1", port)).unwrap(), "shop", "close")
}

/// The answer to a request; all of it, if the connection ends with it, and its head otherwise.
fn ask(stream: &mut (impl Read + Write), host: &str, connection: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while connection == "close" || !answer.ends_with(b"\r\n\r\npay") {
        match stream.read(&mut byte) {
            Ok(1) => answer.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_gateway_that_is_not_among_the_documents_says_that_nothing_is_open() {
    let mesh = Mesh::with_documents(proxy(), "");
    let mut gateway = Run::start(mesh.gateway("default/fornt"), 0);
    gateway.until("nothing is open");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(), 0, "{}", gateway.rest());
}

type Made = CertifiedKey<rcgen::KeyPair>;

fn certificate(name: &str) -> Made {
    rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
}

fn secret(name: &str, of: &Made) -> String {
    let indented = |text: String| text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData:\n  \
         tls.crt: |\n    {}\n  tls.key: |\n    {}\n---\n",
        indented(of.cert.pem()),
        indented(of.signing_key.serialize_pem())
    )
}

/// A client that believes these certificates.
struct Browser(Arc<ClientConfig>);

impl Browser {
    fn new(believed: &[&Made], protocol: &str) -> Browser {
        Browser::showing(None, believed, protocol)
    }

    /// One that shows a certificate of its own.
    fn showing(own: Option<&Made>, believed: &[&Made], protocol: &str) -> Browser {
        let mut roots = RootCertStore::empty();
        for one in believed {
            roots.add(one.cert.der().clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let mut config = match own {
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![own.cert.der().clone()], key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.into()];
        Browser(config.into())
    }

    fn open(&self, port: u16, name: &'static str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from(name).unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port))?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    fn get(&self, port: u16, name: &'static str, host: &str) -> String {
        match self.open(port, name) {
            Ok(mut stream) => ask(&mut stream, host, "close"),
            Err(error) => error.to_string(),
        }
    }
}

#[test]
fn a_gateway_ends_tls_with_the_certificate_of_the_host_that_is_asked_for() {
    let reserved = [Port::any(), Port::any(), Port::any()];
    let [http, https, through] = reserved.each_ref().map(Port::number);
    let documents = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: front}}\n\
         spec:\n  gatewayClassName: ringway\n  listeners:\n  \
         - {{name: http, port: {http}, protocol: HTTP}}\n  \
         - {{name: shop, port: {https}, protocol: HTTPS, hostname: shop.example, tls: {{certificateRefs: [{{name: shop}}]}}}}\n  \
         - {{name: all, port: {https}, protocol: HTTPS, hostname: '*.all.example', tls: {{certificateRefs: [{{name: all}}]}}}}\n  \
         - {{name: through, port: {through}, protocol: TLS, tls: {{mode: Passthrough}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: pay}}\n\
         spec: {{ports: [{{name: http, port: 80, targetPort: http}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: pay}}\n\
         spec: {{parentRefs: [{{name: front, port: {https}}}], rules: [{{backendRefs: [{{name: pay, port: 80}}]}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: up}}\n\
         spec: {{parentRefs: [{{name: front, sectionName: http}}], rules: [{{filters: [{{type: RequestRedirect, \
         requestRedirect: {{scheme: https, port: {https}}}}}]}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: inner}}\nspec: {{selector: {{app: inner}}, ports: [{{port: 443, targetPort: {https}, appProtocol: tls}}]}}\n---\n\
         apiVersion: ringway.io/v1alpha1\nkind: Workload\nmetadata: {{name: inner, labels: {{app: inner}}}}\n\
         spec: {{address: 127.0.0.1, ports: [{{port: {https}}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {{name: inner}}\n\
         spec: {{parentRefs: [{{name: front, sectionName: through}}], hostnames: ['*.all.example'], rules: [{{backendRefs: [{{name: inner, port: 443}}]}}]}}\n"
    );
    let [shop, all, renewed] = ["shop.example", "*.all.example", "shop.example"].map(certificate);
    let mesh = Mesh::with_documents(proxy(), &documents);
    let write = |shop: &Made| {
        fs::write(mesh.folder.path().join("mesh/secrets.yaml"), secret("shop", shop) + &secret("all", &all))
            .unwrap();
    };
    write(&shop);
    let _pay = pay(&mesh);
    let mut gateway = Run::start(mesh.gateway("default/front"), https);
    let browser = Browser::new(&[&shop, &all], "http/1.1");
    let is_paid = |answer: String| answer.ends_with("\r\n\r\npay");
    until(|| {
        TcpStream::connect(("127.0.0.1", https)).is_ok()
            && is_paid(browser.get(https, "shop.example", "shop.example"))
    });

    assert!(
        is_paid(browser.get(https, "www.all.example", "www.all.example")),
        "each host has its own certificate"
    );
    let http2 = Browser::new(&[&shop], "h2").open(https, "shop.example").unwrap();
    assert_eq!(http2.conn.alpn_protocol(), Some(&b"h2"[..]));
    let refused = browser.get(https, "other.example", "other.example");
    assert!(!refused.starts_with("HTTP"), "no listener is for it: {refused}");
    let misdirected = browser.get(https, "shop.example", "www.all.example");
    assert!(misdirected.starts_with("HTTP/1.1 421 "), "{misdirected}");
    let redirected = get(http);
    assert!(redirected.starts_with("HTTP/1.1 302 "), "{redirected}");
    assert!(redirected.contains(&format!("https://shop:{https}/")), "{redirected}");
    until(|| is_paid(browser.get(through, "www.all.example", "www.all.example")));
    let refused = browser.get(through, "shop.example", "shop.example");
    assert!(!refused.starts_with("HTTP"), "nobody is behind it: {refused}");

    let mut old = browser.open(https, "shop.example").unwrap();
    let mut still = || is_paid(ask(&mut old, "shop.example", "keep-alive"));
    assert!(still());
    write(&renewed);
    let after = Browser::new(&[&renewed], "http/1.1");
    until(|| is_paid(after.get(https, "shop.example", "shop.example")));
    assert!(still(), "a new certificate ends no connection");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(), 0, "{}", gateway.rest());
}

/// Somebody who vouches for others.
fn authority() -> (rcgen::Certificate, Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate, Issuer::new(params, key))
}

#[test]
fn a_gateway_serves_those_whom_somebody_it_believes_vouches_for() {
    let reserved = [Port::any(), Port::any()];
    let [strict, lax] = reserved.each_ref().map(Port::number);
    let (ca, issuer) = authority();
    let shop = certificate("shop.example");
    let known = {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["client.example".to_owned()]).unwrap();
        CertifiedKey { cert: params.signed_by(&key, &issuer).unwrap(), signing_key: key }
    };
    let unknown = certificate("client.example");
    let documents = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: front}}\n\
         spec:\n  gatewayClassName: ringway\n  tls:\n    frontend:\n      \
         default: {{validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: clients}}]}}}}\n      \
         perPort: [{{port: {lax}, tls: {{validation: {{mode: AllowInsecureFallback, caCertificateRefs: [{{group: '', kind: ConfigMap, name: clients}}]}}}}}}]\n  \
         listeners:\n  \
         - {{name: strict, port: {strict}, protocol: HTTPS, tls: {{certificateRefs: [{{name: shop}}]}}}}\n  \
         - {{name: lax, port: {lax}, protocol: HTTPS, tls: {{certificateRefs: [{{name: shop}}]}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: pay}}\n\
         spec: {{ports: [{{name: http, port: 80, targetPort: http}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: pay}}\n\
         spec: {{parentRefs: [{{name: front}}], rules: [{{backendRefs: [{{name: pay, port: 80}}]}}]}}\n---\n\
         {}apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: clients}}\ndata:\n  ca.crt: |\n    {}\n",
        secret("shop", &shop),
        ca.pem().replace('\n', "\n    ")
    );
    let mesh = Mesh::with_documents(proxy(), &documents);
    let _pay = pay(&mesh);
    let mut gateway = Run::start(mesh.gateway("default/front"), strict);
    let ask =
        |own, port| Browser::showing(own, &[&shop], "http/1.1").get(port, "shop.example", "shop.example");
    let is_paid = |answer: String| answer.ends_with("\r\n\r\npay");
    until(|| TcpStream::connect(("127.0.0.1", strict)).is_ok() && is_paid(ask(Some(&known), strict)));
    for stranger in [None, Some(&unknown)] {
        let refused = ask(stranger, strict);
        assert!(!refused.contains("HTTP/1.1"), "{refused}");
        assert!(is_paid(ask(stranger, lax)), "the document says so");
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(), 0, "{}", gateway.rest());
}

#[test]
fn a_gateway_speaks_tls_to_a_service_that_shows_the_right_certificate() {
    let reserved = [Port::any(), Port::any()];
    let [front, inner] = reserved.each_ref().map(Port::number);
    let [own, other] = ["inner.example", "inner.example"].map(certificate);
    let believes = |name: &str, of: &Made| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  ca.crt: |\n    {}\n---\n",
            of.cert.pem().replace('\n', "\n    ")
        )
    };
    // The service is the gateway's own other listener; what is known of it differs by name.
    let service = |name: &str, host: &str, authority: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{selector: {{app: inner}}, ports: [{{port: 443, targetPort: {inner}}}]}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{targetRefs: [{{group: '', kind: Service, name: {name}}}], validation: {{hostname: {host}, \
             caCertificateRefs: [{{group: '', kind: ConfigMap, name: {authority}}}]}}}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\n\
             spec: {{parentRefs: [{{name: front, sectionName: front}}], hostnames: [{name}.front.example], rules: [{{\
             filters: [{{type: URLRewrite, urlRewrite: {{hostname: inner.example}}}}], \
             backendRefs: [{{name: {name}, port: 443}}]}}]}}\n---\n"
        )
    };
    let documents = [
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: front}}\n\
             spec: {{gatewayClassName: ringway, listeners: [{{name: front, port: {front}, protocol: HTTP}}, \
             {{name: inner, port: {inner}, protocol: HTTPS, tls: {{certificateRefs: [{{name: own}}]}}}}]}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: pay}}\n\
             spec: {{ports: [{{name: http, port: 80, targetPort: http}}]}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: pay}}\n\
             spec: {{parentRefs: [{{name: front, sectionName: inner}}], rules: [{{backendRefs: [{{name: pay, port: 80}}]}}]}}\n---\n\
             apiVersion: ringway.io/v1alpha1\nkind: Workload\nmetadata: {{name: inner, labels: {{app: inner}}}}\n\
             spec: {{address: 127.0.0.1, ports: [{{port: {inner}}}]}}\n---\n"
        ),
        secret("own", &own),
        believes("own", &own),
        believes("other", &other),
        service("right", "inner.example", "own"),
        service("another-host", "other.example", "own"),
        service("another-authority", "inner.example", "other"),
        service("no-authority", "inner.example", "missing"),
    ];
    let mesh = Mesh::with_documents(proxy(), &documents.concat());
    let _pay = pay(&mesh);
    let mut gateway = Run::start(mesh.gateway("default/front"), front);
    gateway.until("open on ");
    let get = |host: &str| ask(&mut TcpStream::connect(("127.0.0.1", front)).unwrap(), host, "close");
    until(|| get("right.front.example").ends_with("\r\n\r\npay"));
    for wrong in ["another-host", "another-authority", "no-authority"] {
        let answer = get(&format!("{wrong}.front.example"));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{wrong}: {answer}");
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(), 0, "{}", gateway.rest());
}
