//! What Kubernetes' API server would check of a Gateway.

use std::collections::BTreeSet;

use super::{Verdict, bound, check, distinct, hostname, is_dns_name};
use crate::document::{FrontendTls, GatewaySpec, Listener, TlsMode};

/// Most listeners of one Gateway, as Gateway API bounds it.
const LISTENERS_MAX: usize = 64;
/// Most certificates of one listener, as Gateway API bounds it.
const CERTIFICATES_MAX: usize = 64;
/// Most authorities of one port, as Gateway API bounds it.
const AUTHORITIES_MAX: usize = 8;

pub(super) fn gateway(spec: &GatewaySpec) -> Verdict {
    bound(spec.listeners.len(), LISTENERS_MAX, "spec.listeners")?;
    check(!spec.listeners.is_empty(), "spec.listeners", || "a Gateway needs a listener".to_owned())?;
    distinct(spec.listeners.iter().map(|listener| Some(&listener.name)), "spec.listeners", "name")?;
    for (i, listener) in spec.listeners.iter().enumerate() {
        let at = format!("spec.listeners[{i}]");
        check(is_dns_name(&listener.name), &format!("{at}.name"), || {
            format!("`{}` is not a name of lower-case letters, digits, `-` and `.`", listener.name)
        })?;
        if let Some(name) = &listener.hostname {
            let has_hosts = !matches!(listener.protocol.as_str(), "TCP" | "UDP");
            check(has_hosts, &format!("{at}.hostname"), || {
                format!("protocol {} has no hostnames", listener.protocol)
            })?;
            hostname(name, &format!("{at}.hostname"))?;
        }
        tls(listener, &at)?;
    }
    match spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) {
        Some(frontend) => clients(frontend, "spec.tls.frontend"),
        None => Ok(()),
    }
}

/// What clients have to show names who vouches for it.
fn clients(frontend: &FrontendTls, at: &str) -> Verdict {
    let ports = frontend.per_port.iter().enumerate();
    let ports = ports.map(|(i, of)| (&of.tls, format!("{at}.perPort[{i}].tls")));
    for (config, at) in [(&frontend.default, format!("{at}.default"))].into_iter().chain(ports) {
        let Some(validation) = &config.validation else { continue };
        let refs = &validation.ca_certificate_refs;
        let at = format!("{at}.validation.caCertificateRefs");
        bound(refs.len(), AUTHORITIES_MAX, &at)?;
        check(!refs.is_empty(), &at, || "somebody has to vouch for clients".to_owned())?;
    }
    let ports: BTreeSet<_> = frontend.per_port.iter().map(|of| of.port).collect();
    check(ports.len() == frontend.per_port.len(), &format!("{at}.perPort"), || {
        "a port comes twice".to_owned()
    })
}

/// `tls` is there where the protocol has it, and says what is shown where something is.
fn tls(listener: &Listener, at: &str) -> Verdict {
    let protocol = &listener.protocol;
    let at = &format!("{at}.tls");
    let Some(tls) = &listener.tls else {
        let needs = matches!(protocol.as_str(), "HTTPS" | "TLS");
        return check(!needs, at, || format!("protocol {protocol} needs `tls`"));
    };
    check(!matches!(protocol.as_str(), "HTTP" | "TCP" | "UDP"), at, || {
        format!("protocol {protocol} has no TLS")
    })?;
    bound(tls.certificate_refs.len(), CERTIFICATES_MAX, &format!("{at}.certificateRefs"))?;
    match tls.mode {
        TlsMode::Terminate => {
            let shows = !tls.certificate_refs.is_empty() || !tls.options.is_empty();
            check(shows, &format!("{at}.certificateRefs"), || "mode Terminate needs a certificate".to_owned())
        }
        TlsMode::Passthrough => check(protocol != "HTTPS", &format!("{at}.mode"), || {
            "mode Passthrough shows no requests; protocol TLS has it".to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_tls_where_its_protocol_does() {
        let cases = [
            ("HTTPS, tls: {certificateRefs: [{name: a}]}", Ok(())),
            ("TLS, tls: {mode: Passthrough}", Ok(())),
            ("HTTPS, tls: {options: {example.com/a: b}}", Ok(())),
            ("UDP", Ok(())),
            ("HTTPS", Err("spec.listeners[0].tls: protocol HTTPS needs `tls`")),
            ("TLS", Err("spec.listeners[0].tls: protocol TLS needs `tls`")),
            ("HTTP, tls: {mode: Terminate}", Err("spec.listeners[0].tls: protocol HTTP has no TLS")),
            (
                "TCP, tls: {certificateRefs: [{name: a}]}",
                Err("spec.listeners[0].tls: protocol TCP has no TLS"),
            ),
            (
                "TLS, tls: {}",
                Err("spec.listeners[0].tls.certificateRefs: mode Terminate needs a certificate"),
            ),
            (
                "HTTPS, tls: {mode: Passthrough}",
                Err("spec.listeners[0].tls.mode: mode Passthrough shows no requests; protocol TLS has it"),
            ),
        ];
        for (text, expected) in cases {
            let text =
                format!("{{gatewayClassName: a, listeners: [{{name: a, port: 1, protocol: {text}}}]}}");
            let said = gateway(&serde_saphyr::from_str(&text).unwrap());
            let said = said.map_err(|wrong| format!("{}: {}", wrong.path, wrong.reason));
            assert_eq!(said, expected.map_err(str::to_owned), "{text}");
        }
    }
}
