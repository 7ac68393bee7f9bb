//! TLS contexts and secrets: what is taken, and what is refused, where and why.

use std::sync::Arc;

use policy::tls::{KeyExchange, NameKind, NamePattern, Secret, Source, TrustBundle};
use proto::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{self as core, DataSource, data_source::Specifier, transport_socket::ConfigType},
            listener::v3::{FilterChain, Listener},
        },
        extensions::transport_sockets::tls::v3::{
            self as tls, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
            SdsSecretConfig, SubjectAltNameMatcher, TlsCertificate, TlsParameters, UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            secret::Type,
        },
        r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{BoolValue, UInt32Value},
};
use translate::Origin;

struct Certificate {
    pem: String,
    key: String,
}

fn certificate() -> Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
    Certificate { pem: certificate.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn inline(text: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineString(text.to_owned())), ..DataSource::default() })
}

fn own(of: &Certificate) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: inline(&of.pem),
        private_key: inline(&of.key),
        ..TlsCertificate::default()
    }
}

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

fn uri(pattern: MatchPattern) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher { san_type: 3, matcher: Some(matcher(pattern)), ..SubjectAltNameMatcher::default() }
}

fn trust(of: &Certificate) -> CertificateValidationContext {
    CertificateValidationContext {
        trusted_ca: inline(&of.pem),
        match_typed_subject_alt_names: vec![uri(MatchPattern::Exact("spiffe://m/a".into()))],
        ..CertificateValidationContext::default()
    }
}

fn context() -> DownstreamTlsContext {
    let certificate = certificate();
    DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: vec![own(&certificate)],
            alpn_protocols: vec!["h2".into()],
            validation_context_type: Some(ValidationContextType::ValidationContext(trust(&certificate))),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: Some(BoolValue { value: true }),
        ..DownstreamTlsContext::default()
    }
}

fn socket<M: prost::Message + prost::Name>(of: &M) -> Option<core::TransportSocket> {
    let any = proto::pb::google::protobuf::Any { type_url: M::type_url(), value: of.encode_to_vec() };
    Some(core::TransportSocket { name: "tls".into(), config_type: Some(ConfigType::TypedConfig(any)) })
}

fn listener(of: &DownstreamTlsContext) -> Result<policy::tls::DownstreamTls, String> {
    use proto::pb::envoy::{
        config::{core::v3::socket_address::PortSpecifier, listener::v3 as listener},
        extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
    };
    let proxy = TcpProxy {
        stat_prefix: "p".into(),
        cluster_specifier: Some(ClusterSpecifier::Cluster("c".into())),
        ..TcpProxy::default()
    };
    let any = proto::pb::google::protobuf::Any {
        type_url: <TcpProxy as prost::Name>::type_url(),
        value: prost::Message::encode_to_vec(&proxy),
    };
    let filter = listener::Filter {
        name: "tcp".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any)),
    };
    let address = core::SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(PortSpecifier::PortValue(1)),
        ..core::SocketAddress::default()
    };
    let value = Listener {
        name: "l".into(),
        address: Some(core::Address { address: Some(core::address::Address::SocketAddress(address)) }),
        filter_chains: vec![FilterChain {
            filters: vec![filter],
            transport_socket: socket(of),
            ..FilterChain::default()
        }],
        ..Listener::default()
    };
    let translated = translate::listener::translate(&value, Origin::Dynamic);
    let translated = translated.map_err(|rejected| rejected.fault.to_string())?;
    let chain = translated.value.filter_chains.iter().next().and_then(|chain| chain.tls.clone());
    Ok(Arc::unwrap_or_clone(chain.unwrap()))
}

/// What is wrong, without where every context is.
fn refusal(spoil: impl FnOnce(&mut DownstreamTlsContext)) -> String {
    let mut context = context();
    spoil(&mut context);
    let error = listener(&context).expect_err("it is taken");
    error.trim_start_matches("filter_chains[0].transport_socket.typed_config.").to_owned()
}

fn common(of: &mut DownstreamTlsContext) -> &mut CommonTlsContext {
    of.common_tls_context.as_mut().unwrap()
}

fn validation(of: &mut DownstreamTlsContext) -> &mut CertificateValidationContext {
    match &mut common(of).validation_context_type {
        Some(ValidationContextType::ValidationContext(context)) => context,
        _ => panic!("it has another one"),
    }
}

#[test]
fn a_context_is_what_it_says() {
    let tls = listener(&context()).unwrap();
    assert!(tls.require_client_certificate && tls.resumption);
    assert_eq!(tls.common.alpn, [Box::from(&b"h2"[..])]);
    let own = tls.common.validation.unwrap().own;
    assert_eq!((own.anchors.len(), own.names[0].kind), (1, NameKind::Uri));
    assert_eq!(own.names[0].pattern, NamePattern::Exact("spiffe://m/a".into()));
    let Source::Inline(chain) = &tls.common.certificates[0] else { panic!("it is in the configuration") };
    assert_eq!(chain.chain.len(), 1);
    let shown = format!("{tls:?}", tls = listener(&context()).unwrap());
    assert!(!shown.contains("BEGIN") && shown.contains("CertificateChain(1 certificates)"), "{shown}");

    let mut limited = context();
    common(&mut limited).tls_params = Some(TlsParameters {
        tls_minimum_protocol_version: 4,
        ecdh_curves: vec!["P-256".into(), "P-521".into()],
        ..TlsParameters::default()
    });
    let limited = listener(&limited).unwrap();
    assert!(!limited.common.versions.tls12 && limited.common.versions.tls13);
    assert_eq!(limited.common.key_exchanges, [KeyExchange::P256]);
}

#[test]
fn what_narrows_trust_and_is_not_understood_is_refused() {
    type Spoil = fn(&mut DownstreamTlsContext);
    fn suites(of: &mut DownstreamTlsContext, names: &[&str]) {
        let cipher_suites = names.iter().map(ToString::to_string).collect();
        common(of).tls_params = Some(TlsParameters { cipher_suites, ..TlsParameters::default() });
    }
    let not = |field: &str| format!("{field}: not supported by Ringway");
    let validation_at = |field: &str| not(&format!("common_tls_context.validation_context.{field}"));
    let cases: Vec<(String, Spoil)> = vec![
        (not("require_sni"), |of| of.require_sni = Some(BoolValue { value: true })),
        (not("ocsp_staple_policy"), |of| of.ocsp_staple_policy = 2),
        (not("common_tls_context.tls_params.signature_algorithms"), |of| {
            let signature_algorithms = vec!["ed25519".into()];
            common(of).tls_params = Some(TlsParameters { signature_algorithms, ..TlsParameters::default() });
        }),
        ("common_tls_context.tls_params.cipher_suites: none of these is one that is still safe".into(), |of| {
            suites(of, &["AES128-SHA"]);
        }),
        (
            "common_tls_context.tls_params.cipher_suites[1]: !ECDHE-RSA-AES128-GCM-SHA256 is not supported by \
             Ringway; supported: names alone"
                .into(),
            |of| suites(of, &["ECDHE-RSA-AES256-GCM-SHA384", "!ECDHE-RSA-AES128-GCM-SHA256"]),
        ),
        (
            "common_tls_context.tls_params.cipher_suites[0]: [ECDHE-RSA-AES256-GCM-SHA384|-AES128-SHA] is not \
             supported by Ringway; supported: names alone"
                .into(),
            |of| suites(of, &["[ECDHE-RSA-AES256-GCM-SHA384|-AES128-SHA]"]),
        ),
        (
            "common_tls_context.tls_params.cipher_suites[0]: -ECDHE-RSA-AES256-GCM-SHA384 is not supported by \
             Ringway; supported: names alone"
                .into(),
            |of| suites(of, &["-ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]),
        ),
        (
            "common_tls_context.tls_params.tls_maximum_protocol_version: TLSv1_1 is not supported by Ringway; \
             supported: TLS_AUTO, TLSv1_2, TLSv1_3"
                .into(),
            |of| {
                let params = TlsParameters { tls_maximum_protocol_version: 2, ..TlsParameters::default() };
                common(of).tls_params = Some(params);
            },
        ),
        (validation_at("crl"), |of| validation(of).crl = inline("x")),
        (validation_at("verify_certificate_spki"), |of| validation(of).verify_certificate_spki = vec!["x".into()]),
        (validation_at("allow_expired_certificate"), |of| validation(of).allow_expired_certificate = true),
        (validation_at("max_verify_depth"), |of| {
            validation(of).max_verify_depth = Some(UInt32Value { value: 1 });
        }),
        (validation_at("match_typed_subject_alt_names[0].matcher.safe_regex"), |of| {
            let regex = RegexMatcher { regex: "spiffe://m.*".into(), ..RegexMatcher::default() };
            validation(of).match_typed_subject_alt_names = vec![uri(MatchPattern::SafeRegex(regex))];
        }),
        (validation_at("match_typed_subject_alt_names[0].matcher.ignore_case"), |of| {
            let names = &mut validation(of).match_typed_subject_alt_names;
            names[0].matcher.as_mut().unwrap().ignore_case = true;
        }),
        (
            "common_tls_context.validation_context.match_typed_subject_alt_names[0].san_type: IP_ADDRESS is not \
             supported by Ringway; supported: URI, DNS"
                .into(),
            |of| validation(of).match_typed_subject_alt_names[0].san_type = 4,
        ),
        (
            "common_tls_context.validation_context.verify_certificate_hash[0]: `zz` is not a SHA-256 in hexadecimal"
                .into(),
            |of| validation(of).verify_certificate_hash = vec!["zz".into()],
        ),
        (
            "common_tls_context.validation_context: names in a certificate that nobody vouches for say nothing; set \
             trusted_ca"
                .into(),
            |of| validation(of).trusted_ca = None,
        ),
        ("common_tls_context.validation_context.trusted_ca: not certificates in PEM".into(), |of| {
            validation(of).trusted_ca = inline("nothing");
        }),
        (
            "require_client_certificate: a certificate that nothing validates says nothing; set validation_context"
                .into(),
            |of| common(of).validation_context_type = None,
        ),
        ("common_tls_context.tls_certificates: required".into(), |of| common(of).tls_certificates.clear()),
        (
            "common_tls_context.tls_certificates[0].private_key: not a private key that is not encrypted in PEM".into(),
            |of| common(of).tls_certificates[0].private_key = inline("nothing"),
        ),
        ("common_tls_context.alpn_protocols[0]: 0 is not between 1 and 255".into(), |of| {
            common(of).alpn_protocols = vec![String::new()];
        }),
    ];
    for (expected, spoil) in cases {
        assert_eq!(refusal(spoil), expected);
    }
    let other = certificate();
    let said = refusal(|of| common(of).tls_certificates[0].private_key = inline(&other.key));
    assert!(said.starts_with("common_tls_context.tls_certificates[0]: cannot be used: "), "{said}");
    assert!(!said.contains("BEGIN"), "{said}");
}

#[test]
fn a_cluster_chooses_by_what_its_endpoints_say() {
    use proto::well_known::{string, structure};
    let of = |labels: &[(&str, &str)], socket| {
        let labels = labels.iter().map(|(key, value)| (key.to_string(), string(*value)));
        proto::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch {
            name: "m".into(),
            r#match: Some(structure(labels)),
            transport_socket: socket,
        }
    };
    let tls = UpstreamTlsContext { sni: "a.example".into(), ..UpstreamTlsContext::default() };
    let cluster = Cluster {
        name: "c".into(),
        transport_socket_matches: vec![of(&[("tls", "mesh")], socket(&tls))],
        load_assignment: Some(Default::default()),
        ..Cluster::default()
    };
    let mut cluster = cluster;
    cluster.load_assignment.as_mut().unwrap().cluster_name = "c".into();
    let translated = translate::cluster::translate(&cluster, Origin::Dynamic).unwrap();
    let label = |key: &str, value: &str| (Box::from(key), Box::from(value));
    let (mesh, none) = ([label("tls", "mesh"), label("x", "y")], [label("tls", "other")]);
    let chosen = |labels| translated.transport.of(labels).map(|tls| tls.sni.clone().unwrap().to_string());
    assert_eq!(chosen(&mesh).as_deref(), Some("a.example"));
    assert_eq!((chosen(&none), chosen(&[])), (None, None));

    let wrong = UpstreamTlsContext { sni: "a b".into(), ..UpstreamTlsContext::default() };
    cluster.transport_socket_matches[0].transport_socket = socket(&wrong);
    let error = translate::cluster::translate(&cluster, Origin::Dynamic).unwrap_err().to_string();
    let at = "c: transport_socket_matches[0].transport_socket.typed_config.sni";
    assert_eq!(error, format!("{at}: `a b` is not a DNS name"));
}

#[test]
fn a_secret_is_a_certificate_or_whom_to_trust() {
    let certificate = certificate();
    let secret = |of| translate::tls::secret(&tls::Secret { name: "s".into(), r#type: of });
    let translated = secret(Some(Type::TlsCertificate(own(&certificate)))).unwrap();
    assert!(matches!(translated, Secret::Certificate(chain) if chain.chain.len() == 1));
    let translated = secret(Some(Type::ValidationContext(trust(&certificate)))).unwrap();
    assert!(matches!(translated, Secret::Trust(trust) if trust.anchors.len() == 1));
    let said = |of| secret(of).unwrap_err().to_string();
    assert_eq!(said(None), "s: type: required");
    assert_eq!(
        said(Some(Type::GenericSecret(Default::default()))),
        "s: generic_secret: not supported by Ringway"
    );
}

#[test]
fn what_comes_by_sds_is_added_to_what_is_in_the_configuration() {
    let mut context = context();
    let by_sds = |name: &str| SdsSecretConfig {
        name: name.into(),
        sds_config: Some(core::ConfigSource {
            config_source_specifier: Some(
                core::config_source::ConfigSourceSpecifier::Ads(Default::default()),
            ),
            ..core::ConfigSource::default()
        }),
    };
    #[allow(deprecated, reason = "Istio still sends it")]
    let default = CertificateValidationContext {
        match_subject_alt_names: vec![matcher(MatchPattern::Prefix("spiffe://m/".into()))],
        ..CertificateValidationContext::default()
    };
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(default),
        validation_context_sds_secret_config: Some(by_sds("ROOTCA")),
        ..CombinedCertificateValidationContext::default()
    };
    common(&mut context).validation_context_type =
        Some(ValidationContextType::CombinedValidationContext(combined));
    common(&mut context).tls_certificate_sds_secret_configs = vec![by_sds("default")];
    let tls = listener(&context).unwrap();
    let names: Vec<_> = tls.common.secret_names().map(ToString::to_string).collect();
    assert_eq!(names, ["default", "ROOTCA"]);
    let validation = tls.common.validation.unwrap();
    let both = validation.own.under(&TrustBundle { anchors: vec![Box::from([1])], ..TrustBundle::default() });
    assert_eq!((both.anchors.len(), both.names.len()), (1, 2));
}
