//! TLS towards the control plane: what the cluster says of it is done, or refuses the file.
//!
//! Whoever is taken for the control plane says whom we trust from then on. So every field is named here, by a pattern that
//! leaves none out: one that narrows who that may be, and would be passed over, is an error.

use prost::Name;
use proto::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{DataSource, TransportSocket, transport_socket::ConfigType},
        },
        extensions::transport_sockets::{
            raw_buffer::v3::RawBuffer,
            tls::v3::{
                CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, TlsCertificate,
                UpstreamTlsContext, common_tls_context::ValidationContextType,
                subject_alt_name_matcher::SanType,
            },
        },
        r#type::matcher::v3::string_matcher::MatchPattern,
    },
    google::protobuf,
};

use super::{Pem, Tls, pem, unpack};
use crate::bootstrap::Wrong;

/// What secures the connection; `None` is nothing, where that is said.
pub(super) fn read(cluster: &Cluster, path: &str) -> Result<Option<Tls>, Wrong> {
    refuse(path, &[("transport_socket_matches", !cluster.transport_socket_matches.is_empty())])?;
    let Some(socket) = &cluster.transport_socket else { return Ok(None) };
    let path = format!("{path}.transport_socket.typed_config");
    let Some(any) = typed_config(socket) else { return Err(Wrong::new(path, "required")) };
    if any.type_url == RawBuffer::type_url() {
        return Ok(None);
    }
    context(unpack(any, &path)?, &path).map(Some)
}

/// Without effect: `allow_renegotiation` (nobody is allowed to), `max_session_keys` (no session is gone on with) and
/// `enforce_rsa_key_usage`, which Envoy advises against.
#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn context(context: UpstreamTlsContext, path: &str) -> Result<Tls, Wrong> {
    let UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation: _,
        max_session_keys: _,
        enforce_rsa_key_usage: _,
    } = context;
    refuse(path, &[("auto_host_sni", auto_host_sni), ("auto_sni_san_validation", auto_sni_san_validation)])?;
    let path = format!("{path}.common_tls_context");
    let CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = common_tls_context.unwrap_or_default();
    refuse(
        &path,
        &[
            ("tls_params", tls_params.is_some()),
            ("tls_certificate_sds_secret_configs", !tls_certificate_sds_secret_configs.is_empty()),
            ("tls_certificate_provider_instance", tls_certificate_provider_instance.is_some()),
            ("custom_tls_certificate_selector", custom_tls_certificate_selector.is_some()),
            ("tls_certificate_certificate_provider", tls_certificate_certificate_provider.is_some()),
            (
                "tls_certificate_certificate_provider_instance",
                tls_certificate_certificate_provider_instance.is_some(),
            ),
            ("custom_handshaker", custom_handshaker.is_some()),
            ("key_log", key_log.is_some()),
        ],
    )?;
    // It is what gRPC speaks, and so what is offered whatever stands here.
    if !alpn_protocols.is_empty() && !alpn_protocols.iter().any(|protocol| protocol == "h2") {
        return Err(Wrong::new(format!("{path}.alpn_protocols"), "gRPC needs h2"));
    }
    let identity = match <[TlsCertificate; 1]>::try_from(tls_certificates) {
        Ok([own]) => Some(identity(own, &format!("{path}.tls_certificates[0]"))?),
        Err(none) if none.is_empty() => None,
        Err(_) => {
            return Err(Wrong::new(format!("{path}.tls_certificates"), "only one is supported by Ringway"));
        }
    };
    let refused = |field: &str| Err(unsupported(&path, field));
    let validation = match validation_context_type {
        None => CertificateValidationContext::default(),
        Some(ValidationContextType::ValidationContext(validation)) => validation,
        Some(ValidationContextType::ValidationContextSdsSecretConfig(_)) => {
            return refused("validation_context_sds_secret_config");
        }
        Some(ValidationContextType::CombinedValidationContext(_)) => {
            return refused("combined_validation_context");
        }
        Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
            return refused("validation_context_certificate_provider");
        }
        Some(ValidationContextType::ValidationContextCertificateProviderInstance(_)) => {
            return refused("validation_context_certificate_provider_instance");
        }
    };
    let trusted_ca = trusted_ca(validation, &sni, &format!("{path}.validation_context"))?;
    Ok(Tls { server_name: Some(sni).filter(|name| !name.is_empty()), trusted_ca, identity })
}

/// Without effect: `ocsp_staple` and `signed_certificate_timestamp`, which the other end may do without, and
/// `watched_directory`, since files are read anew for each connection.
fn identity(certificate: TlsCertificate, path: &str) -> Result<(Pem, Pem), Wrong> {
    let TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory: _,
        private_key_provider,
        password,
        ocsp_staple: _,
        signed_certificate_timestamp: _,
        tls_params,
    } = certificate;
    refuse(
        path,
        &[
            ("pkcs12", pkcs12.is_some()),
            ("private_key_provider", private_key_provider.is_some()),
            ("password", password.is_some()),
            ("tls_params", tls_params.is_some()),
        ],
    )?;
    let part = |of: Option<DataSource>, field: &str| {
        let path = format!("{path}.{field}");
        of.ok_or_else(|| Wrong::new(path.clone(), "required")).and_then(|of| pem(&of, &path))
    };
    Ok((part(certificate_chain, "certificate_chain")?, part(private_key, "private_key")?))
}

/// Without effect: `suppress_client_ca_list` and `only_verify_leaf_cert_crl`, which say nothing to a client without
/// revocation lists, and `watched_directory`, as above.
#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn trusted_ca(validation: CertificateValidationContext, sni: &str, path: &str) -> Result<Pem, Wrong> {
    let CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory: _,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names: names,
        match_subject_alt_names: untyped_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl: _,
        max_verify_depth,
        suppress_client_ca_list: _,
    } = validation;
    // One of the names must be in the certificate, and that which is asked for always must.
    let is_implied = !sni.is_empty() && names.iter().any(|name| is_dns_name(name, sni));
    refuse(
        path,
        &[
            ("ca_certificate_provider_instance", ca_certificate_provider_instance.is_some()),
            ("system_root_certs", system_root_certs.is_some()),
            ("verify_certificate_spki", !verify_certificate_spki.is_empty()),
            ("verify_certificate_hash", !verify_certificate_hash.is_empty()),
            ("match_typed_subject_alt_names", !names.is_empty() && !is_implied),
            ("match_subject_alt_names", !untyped_names.is_empty()),
            ("require_signed_certificate_timestamp", require_signed_certificate_timestamp.is_some()),
            ("crl", crl.is_some()),
            ("allow_expired_certificate", allow_expired_certificate),
            ("trust_chain_verification", trust_chain_verification != 0),
            ("custom_validator_config", custom_validator_config.is_some()),
            ("max_verify_depth", max_verify_depth.is_some()),
        ],
    )?;
    let path = format!("{path}.trusted_ca");
    match trusted_ca {
        None => Err(Wrong::new(path, "required: a control plane is never trusted without")),
        Some(source) => pem(&source, &path),
    }
}

/// Whether every certificate for the DNS name `wanted` has a name that this matches.
fn is_dns_name(name: &SubjectAltNameMatcher, wanted: &str) -> bool {
    let pattern = name.matcher.as_ref().and_then(|matcher| matcher.match_pattern.as_ref());
    name.san_type == SanType::Dns as i32
        && matches!(pattern, Some(MatchPattern::Exact(exact)) if exact == wanted)
}

/// Fails at the first field of `fields` that is set.
fn refuse(path: &str, fields: &[(&str, bool)]) -> Result<(), Wrong> {
    match fields.iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((field, _)) => Err(unsupported(path, field)),
    }
}

fn unsupported(path: &str, field: &str) -> Wrong {
    Wrong::new(format!("{path}.{field}"), "not supported by Ringway for the control plane")
}

fn typed_config(socket: &TransportSocket) -> Option<&protobuf::Any> {
    match &socket.config_type {
        Some(ConfigType::TypedConfig(any)) => Some(any),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::pb::envoy::{
        config::{
            cluster::v3::cluster::TransportSocketMatch,
            core::v3::{TypedExtensionConfig, data_source::Specifier},
        },
        extensions::transport_sockets::tls::v3::{self as tls, SdsSecretConfig, TlsParameters},
        r#type::matcher::v3::StringMatcher,
    };

    use super::*;

    fn inline(text: &str) -> Option<DataSource> {
        let specifier = Some(Specifier::InlineString(text.to_owned()));
        Some(DataSource { specifier, ..DataSource::default() })
    }

    fn good() -> UpstreamTlsContext {
        let validation = CertificateValidationContext {
            trusted_ca: inline("ca"),
            ..CertificateValidationContext::default()
        };
        let own = TlsCertificate {
            certificate_chain: inline("chain"),
            private_key: inline("key"),
            ..TlsCertificate::default()
        };
        let common = CommonTlsContext {
            alpn_protocols: vec!["h2".into()],
            tls_certificates: vec![own],
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            ..CommonTlsContext::default()
        };
        UpstreamTlsContext {
            common_tls_context: Some(common),
            sni: "control.mesh".into(),
            ..UpstreamTlsContext::default()
        }
    }

    fn with(context: &UpstreamTlsContext) -> Cluster {
        let any = protobuf::Any { type_url: UpstreamTlsContext::type_url(), value: context.encode_to_vec() };
        let config_type = Some(ConfigType::TypedConfig(any));
        let socket = TransportSocket { name: "tls".into(), config_type };
        Cluster { transport_socket: Some(socket), ..Cluster::default() }
    }

    fn common(of: &mut UpstreamTlsContext) -> &mut CommonTlsContext {
        of.common_tls_context.as_mut().unwrap()
    }

    fn validation(of: &mut UpstreamTlsContext) -> &mut CertificateValidationContext {
        let Some(ValidationContextType::ValidationContext(of)) = &mut common(of).validation_context_type
        else {
            panic!()
        };
        of
    }

    fn dns_name(name: &str) -> SubjectAltNameMatcher {
        let match_pattern = Some(MatchPattern::Exact(name.into()));
        let matcher = Some(StringMatcher { match_pattern, ..StringMatcher::default() });
        SubjectAltNameMatcher { san_type: SanType::Dns as i32, matcher, ..SubjectAltNameMatcher::default() }
    }

    type Spoil = fn(&mut UpstreamTlsContext);

    #[test]
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    fn what_narrows_who_is_the_control_plane_is_done_or_refused() {
        let expected = Tls {
            server_name: Some("control.mesh".into()),
            trusted_ca: Pem::Inline(b"ca".into()),
            identity: Some((Pem::Inline(b"chain".into()), Pem::Inline(b"key".into()))),
        };
        assert_eq!(read(&with(&good()), "c").unwrap(), Some(expected.clone()));
        let table: &[(&str, Spoil)] = &[
            ("auto_host_sni", |of| of.auto_host_sni = true),
            ("auto_sni_san_validation", |of| of.auto_sni_san_validation = true),
            ("common_tls_context.tls_params", |of| common(of).tls_params = Some(TlsParameters::default())),
            ("common_tls_context.tls_certificate_sds_secret_configs", |of| {
                common(of).tls_certificate_sds_secret_configs.push(SdsSecretConfig::default());
            }),
            ("common_tls_context.custom_handshaker", |of| {
                common(of).custom_handshaker = Some(TypedExtensionConfig::default());
            }),
            ("common_tls_context.validation_context_sds_secret_config", |of| {
                let config = SdsSecretConfig::default();
                common(of).validation_context_type =
                    Some(ValidationContextType::ValidationContextSdsSecretConfig(config));
            }),
            ("common_tls_context.combined_validation_context", |of| {
                let combined = tls::common_tls_context::CombinedCertificateValidationContext::default();
                common(of).validation_context_type =
                    Some(ValidationContextType::CombinedValidationContext(combined));
            }),
            ("common_tls_context.tls_certificates[0].password", |of| {
                common(of).tls_certificates[0].password = inline("x");
            }),
            ("common_tls_context.validation_context.match_typed_subject_alt_names", |of| {
                validation(of).match_typed_subject_alt_names = vec![dns_name("other.mesh")];
            }),
            ("common_tls_context.validation_context.match_subject_alt_names", |of| {
                validation(of).match_subject_alt_names.push(StringMatcher::default());
            }),
            ("common_tls_context.validation_context.verify_certificate_hash", |of| {
                validation(of).verify_certificate_hash.push("00".into());
            }),
            ("common_tls_context.validation_context.verify_certificate_spki", |of| {
                validation(of).verify_certificate_spki.push("x".into());
            }),
            ("common_tls_context.validation_context.crl", |of| validation(of).crl = inline("x")),
            ("common_tls_context.validation_context.trust_chain_verification", |of| {
                validation(of).trust_chain_verification = 1;
            }),
            ("common_tls_context.validation_context.max_verify_depth", |of| {
                validation(of).max_verify_depth = Some(protobuf::UInt32Value { value: 1 });
            }),
            ("common_tls_context.validation_context.custom_validator_config", |of| {
                validation(of).custom_validator_config = Some(TypedExtensionConfig::default());
            }),
        ];
        for (field, spoil) in table {
            let mut context = good();
            spoil(&mut context);
            let wrong = read(&with(&context), "c").expect_err(field);
            assert_eq!(wrong.path, format!("c.transport_socket.typed_config.{field}"));
            assert_eq!(wrong.reason, "not supported by Ringway for the control plane", "{field}");
        }
        let mut implied = good();
        validation(&mut implied).match_typed_subject_alt_names =
            vec![dns_name("x"), dns_name("control.mesh")];
        assert_eq!(read(&with(&implied), "c").unwrap(), Some(expected));
        let mut cannot = good();
        common(&mut cannot).alpn_protocols = vec!["http/1.1".into()];
        assert_eq!(read(&with(&cannot), "c").unwrap_err().reason, "gRPC needs h2");
    }

    #[test]
    fn nothing_but_its_own_word_makes_it_plain_text() {
        assert_eq!(read(&Cluster::default(), "c").unwrap(), None);
        let any = protobuf::Any { type_url: RawBuffer::type_url(), value: Vec::new() };
        let plain = TransportSocket { name: "raw".into(), config_type: Some(ConfigType::TypedConfig(any)) };
        let cluster = Cluster { transport_socket: Some(plain), ..Cluster::default() };
        assert_eq!(read(&cluster, "c").unwrap(), None);
        let untold = TransportSocket { name: "tls".into(), config_type: None };
        let cluster = Cluster { transport_socket: Some(untold), ..Cluster::default() };
        assert_eq!(read(&cluster, "c").unwrap_err().path, "c.transport_socket.typed_config");
        let mut cluster = with(&good());
        cluster.transport_socket_matches.push(TransportSocketMatch::default());
        assert_eq!(read(&cluster, "c").unwrap_err().path, "c.transport_socket_matches");
    }
}
