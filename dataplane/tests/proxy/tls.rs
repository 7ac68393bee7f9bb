//! The way to a control plane that is only reached by TLS.

use std::{fs, net::SocketAddr};

use proto::type_url;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::{control_plane::ControlPlane, support::Home};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn bootstrap(home: &Home, at: SocketAddr, sni: &str) -> String {
    let port = at.port();
    let file = |name: &str| home.path(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("own.pem"), file("own.key"));
    home.admin()
        + &format!(
            r#"
node: {{id: web-1, cluster: web}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: control
    type: STRICT_DNS
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {sni}
        common_tls_context:
          validation_context: {{trusted_ca: {{filename: {ca}}}}}
          tls_certificates: [{{certificate_chain: {{filename: {certificate}}}, private_key: {{filename: {key}}}}}]
    load_assignment:
      cluster_name: control
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: localhost, port_value: {port}}}}}}}}}]
"#
        )
}

/// Who the control plane is, whom the proxy expects, who signed the proxy's certificate: whether they meet.
async fn meets(server_name: &str, sni: &str, is_proxy_known: bool) -> Result<(), String> {
    let home = Home::new();
    let (authority, stranger) = (Authority::new(), Authority::new());
    fs::write(home.path("ca.pem"), authority.0.pem()).unwrap();
    let (certificate, key) = (if is_proxy_known { &authority } else { &stranger }).issue("web");
    fs::write(home.path("own.pem"), certificate).unwrap();
    fs::write(home.path("own.key"), key).unwrap();
    let (certificate, key) = authority.issue(server_name);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(authority.0.pem()));
    let (mut control_plane, at) = ControlPlane::start_tls(tls).await;
    let mut proxy = home.start(&bootstrap(&home, at, sni), &[]);
    tokio::select! {
        mut ads = control_plane.stream() => {
            assert_eq!(ads.request(type_url::CLUSTER).await.node.unwrap().id, "web-1");
            Ok(())
        }
        refused = proxy.says("no control plane") => Err(refused),
    }
}

#[tokio::test]
async fn a_control_plane_is_reached_by_mutual_tls_and_only_under_its_name() {
    meets("cp.example", "cp.example", true).await.unwrap();
    // Without a name of its own, the host's.
    meets("localhost", "\"\"", true).await.unwrap();
    let refused = meets("other.example", "cp.example", true).await.unwrap_err();
    assert!(refused.contains("invalid peer certificate: certificate not valid for name"), "{refused}");
    meets("cp.example", "cp.example", false).await.unwrap_err();
}
