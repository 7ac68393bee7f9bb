//! Who is registered until when, and who has an address that two want. Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use proto::control;

use super::RegistrationRow;
use crate::caller::SpeaksFor;
use crate::compile::identity;
use crate::model::{Name, Registration, Registrations};

/// Registrations of one control plane; above it new ones are refused.
pub const REGISTRATIONS_COUNT_MAX: usize = 100_000;

/// Labels of one registration.
const LABELS_COUNT_MAX: usize = 64;

/// Longest instance, host name, label name or label value, in bytes (DNS's limit for a name).
const TEXT_BYTES_MAX: usize = 253;

/// Every lease. Pure.
#[derive(Debug)]
pub struct Leases {
    trust_domain: String,
    by_instance: BTreeMap<String, Lease>,
    /// Who claims each address, the oldest first: that one has it.
    by_address: BTreeMap<SocketAddr, BTreeMap<u64, String>>,
    /// Counts claims of an address.
    next_order: u64,
}

#[derive(Debug)]
struct Lease {
    message: control::Registration,
    registration: Registration,
    order: u64,
    /// The stream that speaks for it now.
    stream: Option<u64>,
    ends: Instant,
}

/// Why a registration is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is not what it must be.
    #[error("{field}: {reason}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Another instance has the address.
    #[error("address {address} is already registered by {holder} ({service})")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
        /// Instance that registered it first.
        holder: String,
        /// `namespace/service` of that one.
        service: String,
    },
    /// Another host has the instance.
    #[error("an instance of this name is registered from host {host}")]
    InstanceTaken {
        /// The host.
        host: String,
    },
    /// It may not run where it does.
    #[error("{0}")]
    NotAllowed(String),
    /// There are too many.
    #[error("{REGISTRATIONS_COUNT_MAX} workloads are registered, which is the limit")]
    TooMany,
}

impl Leases {
    /// None yet, of workloads of `trust_domain`.
    pub fn new(trust_domain: String) -> Leases {
        Leases { trust_domain, by_instance: BTreeMap::new(), by_address: BTreeMap::new(), next_order: 0 }
    }

    /// Refuses what the caller may not register. Where a workload is, the certificate of its host says, whatever it calls itself.
    pub(crate) fn admit(
        &self,
        message: &mut control::Registration,
        speaks_for: &SpeaksFor,
    ) -> Result<(), Refusal> {
        let SpeaksFor::Host { name: host, .. } = speaks_for else { return Ok(()) };
        let service = Name::new(message.namespace.as_str(), message.service.as_str());
        let allowed = speaks_for.check(&identity(&self.trust_domain, &service));
        allowed.map_err(|refused| Refusal::NotAllowed(refused.to_string()))?;
        let holder = self.by_instance.get(&message.instance).map(|lease| &*lease.registration.host);
        if let Some(other) = holder.filter(|holder| *holder != &**host) {
            return Err(Refusal::InstanceTaken { host: other.to_owned() });
        }
        message.host = host.to_string();
        Ok(())
    }

    /// Registers or renews. The registration counts until `ends`, whether refused for a conflict or not.
    pub fn register(
        &mut self,
        message: control::Registration,
        stream: Option<u64>,
        ends: Instant,
    ) -> Result<(), Refusal> {
        let registration = check(&message, &self.trust_domain)?;
        let (instance, address) = (registration.instance.clone(), registration.address);
        let before = self.by_instance.get(&instance).map(|lease| (lease.registration.address, lease.order));
        if before.is_none() && self.by_instance.len() >= REGISTRATIONS_COUNT_MAX {
            return Err(Refusal::TooMany);
        }
        // A renewal keeps its place; a new address has to be earned anew.
        let kept = before.filter(|(old, _)| *old == address).map(|(_, order)| order);
        if let (None, Some(_)) = (kept, before) {
            self.remove(&instance);
        }
        let order = kept.unwrap_or(self.next_order);
        self.next_order = self.next_order.max(order + 1);
        self.by_address.entry(address).or_default().insert(order, instance.clone());
        self.by_instance.insert(instance, Lease { message, registration, order, stream, ends });
        Ok(())
    }

    /// The stream is alive: what it registered holds until `ends`.
    pub fn renew(&mut self, instance: &str, stream: u64, ends: Instant) {
        if let Some(lease) = self.by_instance.get_mut(instance).filter(|lease| lease.stream == Some(stream)) {
            lease.ends = ends;
        }
    }

    /// The stream is gone: what it registered, and no other stream took over, holds until `ends`.
    pub fn disconnect(&mut self, instance: &str, stream: u64, ends: Instant) {
        self.renew(instance, stream, ends);
        if let Some(lease) = self.by_instance.get_mut(instance).filter(|lease| lease.stream == Some(stream)) {
            lease.stream = None;
        }
    }

    /// The workload leaves. False if another stream speaks for it by now.
    pub fn unregister(&mut self, instance: &str, stream: u64) -> bool {
        let owned = self.by_instance.get(instance).is_some_and(|lease| lease.stream == Some(stream));
        if owned {
            self.remove(instance);
        }
        owned
    }

    /// Drops the leases that ended and returns their instances.
    pub fn expire(&mut self, now: Instant) -> Vec<String> {
        let ended = self.by_instance.iter().filter(|(_, lease)| lease.ends <= now);
        let ended: Vec<_> = ended.map(|(instance, _)| instance.clone()).collect();
        for instance in &ended {
            self.remove(instance);
        }
        ended
    }

    fn remove(&mut self, instance: &str) {
        let Some(lease) = self.by_instance.remove(instance) else { return };
        let address = lease.registration.address;
        if let Some(claims) = self.by_address.get_mut(&address) {
            claims.remove(&lease.order);
            if claims.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    fn holder(&self, address: SocketAddr) -> Option<&Lease> {
        let (_, instance) = self.by_address.get(&address)?.first_key_value()?;
        self.by_instance.get(instance)
    }

    /// When the next lease ends.
    pub fn deadline(&self) -> Option<Instant> {
        self.by_instance.values().map(|lease| lease.ends).min()
    }

    /// Those that hold and have their address.
    pub fn registrations(&self) -> Registrations {
        let held = self.by_address.keys().filter_map(|address| self.holder(*address));
        held.map(|lease| (lease.registration.instance.clone(), lease.registration.clone())).collect()
    }

    /// Why an instance is refused, if another has its address.
    pub fn refusal(&self, instance: &str) -> Option<Refusal> {
        let lease = self.by_instance.get(instance)?;
        let address = lease.registration.address;
        let holder = self.holder(address).filter(|holder| holder.order != lease.order)?;
        let Registration { instance, namespace, service, .. } = &holder.registration;
        Some(Refusal::AddressTaken {
            address,
            holder: instance.clone(),
            service: format!("{namespace}/{service}"),
        })
    }

    /// Everything, as the API shows it.
    pub fn rows(&self, now: Instant) -> Vec<RegistrationRow> {
        self.by_instance.values().map(|lease| self.row(lease, now)).collect()
    }

    fn row(&self, lease: &Lease, now: Instant) -> RegistrationRow {
        let Registration { instance, namespace, service, address, port, labels, .. } = &lease.registration;
        let Registration { ready, draining, host, app_protocol, .. } = &lease.registration;
        let refused = self.refusal(instance).map(|refusal| refusal.to_string()).unwrap_or_default();
        let claims = self.by_address.get(address).into_iter().flat_map(BTreeMap::values);
        let others: Vec<_> = claims.filter(|other| *other != instance).map(String::as_str).collect();
        let conflict = match others.is_empty() {
            true => String::new(),
            false => format!("address {address} is also registered by {}", others.join(", ")),
        };
        RegistrationRow {
            instance: instance.clone(),
            namespace: namespace.clone(),
            service: service.clone(),
            address: address.to_string(),
            port: *port,
            labels: labels.clone(),
            host: host.clone(),
            app_protocol: app_protocol.clone(),
            ready: *ready,
            draining: *draining,
            connected: lease.stream.is_some(),
            lease_left_ms: lease
                .ends
                .saturating_duration_since(now)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
            refused,
            conflict,
        }
    }

    /// In the order in which they came, as they came.
    pub(super) fn messages(&self) -> Vec<&control::Registration> {
        let mut leases: Vec<_> = self.by_instance.values().collect();
        leases.sort_by_key(|lease| lease.order);
        leases.into_iter().map(|lease| &lease.message).collect()
    }
}

/// A registration that can be used, or what is wrong with it.
pub(super) fn check(message: &control::Registration, trust_domain: &str) -> Result<Registration, Refusal> {
    let field = |field, reason: &str| Refusal::Field { field, reason: reason.to_owned() };
    for (name, value) in [("instance", &message.instance), ("host", &message.host)] {
        if value.len() > TEXT_BYTES_MAX {
            return Err(field(name, "longer than 253 bytes"));
        }
    }
    if message.instance.is_empty() {
        return Err(field("instance", "is empty"));
    }
    for (name, value) in [("namespace", &message.namespace), ("service", &message.service)] {
        if !is_dns_label(value) {
            return Err(field(name, &format!("{value:?} is not a DNS label (a-z, 0-9 and -, at most 63)")));
        }
    }
    let address: SocketAddr = message
        .address
        .parse()
        .map_err(|_| field("address", &format!("{:?} is not IP:PORT", message.address)))?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(field("address", &format!("{address} cannot be reached by others")));
    }
    let port = u16::try_from(message.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| field("port", &format!("{} is not a port", message.port)))?;
    if message.labels.len() > LABELS_COUNT_MAX {
        return Err(field("labels", "more than 64"));
    }
    if message.labels.iter().any(|(name, value)| name.len().max(value.len()) > TEXT_BYTES_MAX) {
        return Err(field("labels", "a name or value is longer than 253 bytes"));
    }
    if !matches!(message.app_protocol.as_str(), "" | "http" | "http2" | "grpc" | "ws" | "tcp") {
        return Err(field(
            "app_protocol",
            &format!("{:?} is not http, http2, grpc, ws or tcp", message.app_protocol),
        ));
    }
    // Whoever calls it requires this one of it: with another, or with none, it would be called in vain or in plain text.
    let own = identity(trust_domain, &Name::new(message.namespace.as_str(), message.service.as_str()));
    if message.identity != own {
        return Err(field("identity", &format!("{:?} is not that of the service, {own}", message.identity)));
    }
    Ok(Registration {
        instance: message.instance.clone(),
        namespace: message.namespace.clone(),
        service: message.service.clone(),
        address,
        port,
        labels: message.labels.clone().into_iter().collect(),
        ready: message.ready,
        draining: message.draining,
        host: message.host.clone(),
        app_protocol: message.app_protocol.clone(),
    })
}

/// RFC 1123 label in lower case: what Kubernetes takes as a name of a Service or namespace.
fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    (1..=63).contains(&bytes.len()) && inner && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use policy::peer::SpiffeId;

    use super::*;

    pub(in crate::registry) fn message(instance: &str, address: &str) -> control::Registration {
        control::Registration {
            instance: instance.into(),
            namespace: "shop".into(),
            service: "pay".into(),
            address: address.into(),
            port: 80,
            ready: true,
            identity: "spiffe://mesh.local/ns/shop/sa/pay".into(),
            ..control::Registration::default()
        }
    }

    fn leases() -> Leases {
        Leases::new("mesh.local".to_owned())
    }

    fn instances(leases: &Leases) -> Vec<String> {
        leases.registrations().into_keys().collect()
    }

    pub(in crate::registry) const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn a_host_registers_what_may_run_there_and_takes_nothing_from_others() {
        let mut leases = leases();
        let ends = Instant::now() + LEASE;
        let own = SpiffeId::parse(&identity("mesh.local", &Name::new("shop", "pay"))).unwrap();
        let host = |name: &str| SpeaksFor::Host { name: name.into(), allowed: [own.clone()].into() };
        let mut admit = |instance: &str, service: &str, from: &SpeaksFor| {
            let mut message = message(instance, "10.0.0.1:80");
            message.service = service.to_owned();
            message.identity = identity("mesh.local", &Name::new("shop", service));
            leases.admit(&mut message, from)?;
            let said = message.host.clone();
            leases.register(message, Some(1), ends).map(|()| said)
        };
        assert_eq!(admit("a", "pay", &host("vm1")), Ok("vm1".to_owned()));
        assert_eq!(admit("a", "pay", &host("vm1")), Ok("vm1".to_owned()), "again");
        assert_eq!(admit("a", "pay", &host("vm2")), Err(Refusal::InstanceTaken { host: "vm1".to_owned() }));
        let refused = admit("b", "web", &host("vm1")).unwrap_err().to_string();
        assert!(
            refused.starts_with("spiffe://mesh.local/ns/shop/sa/web may not run on host vm1"),
            "{refused}"
        );
        assert!(admit("b", "web", &SpeaksFor::Everybody).is_ok());
    }

    #[test]
    fn a_lease_ends_unless_it_is_renewed() {
        let (start, mut leases) = (Instant::now(), leases());
        leases.register(message("a", "10.0.0.1:80"), Some(1), start + LEASE).unwrap();
        assert_eq!(leases.deadline(), Some(start + LEASE));
        leases.renew("a", 1, start + 2 * LEASE);
        leases.renew("a", 99, start + 9 * LEASE);
        assert!(leases.expire(start + LEASE).is_empty());
        assert_eq!(leases.expire(start + 2 * LEASE), ["a"]);
        assert!(instances(&leases).is_empty());
    }

    #[test]
    fn a_broken_stream_keeps_its_endpoint_for_one_lease_and_a_new_one_takes_over() {
        let (start, mut leases) = (Instant::now(), leases());
        leases.register(message("a", "10.0.0.1:80"), Some(1), start + LEASE).unwrap();
        leases.disconnect("a", 1, start + 2 * LEASE);
        assert_eq!(instances(&leases), ["a"]);
        leases.register(message("a", "10.0.0.1:80"), Some(2), start + 3 * LEASE).unwrap();
        leases.disconnect("a", 1, start);
        assert!(!leases.unregister("a", 1), "the old stream does not speak for it any more");
        assert!(leases.expire(start + 2 * LEASE).is_empty());
        assert!(leases.unregister("a", 2));
        assert!(instances(&leases).is_empty());
    }

    #[test]
    fn one_address_twice_is_refused_for_the_later_and_shown_on_both() {
        let (start, mut leases) = (Instant::now(), leases());
        // The names are in the other order than the registrations.
        leases.register(message("z-first", "10.0.0.1:80"), Some(1), start + LEASE).unwrap();
        leases.register(message("a-second", "10.0.0.1:80"), Some(2), start + LEASE).unwrap();
        leases.register(message("other", "10.0.0.2:80"), Some(3), start + LEASE).unwrap();
        assert_eq!(instances(&leases), ["other", "z-first"]);
        let rows: BTreeMap<_, _> =
            leases.rows(start).into_iter().map(|row| (row.instance.clone(), row)).collect();
        assert_eq!(rows["z-first"].refused, "");
        assert_eq!(rows["z-first"].conflict, "address 10.0.0.1:80 is also registered by a-second");
        assert_eq!(
            rows["a-second"].refused,
            "address 10.0.0.1:80 is already registered by z-first (shop/pay)"
        );
        assert_eq!(rows["a-second"].conflict, "address 10.0.0.1:80 is also registered by z-first");
        assert_eq!((rows["other"].refused.as_str(), rows["other"].conflict.as_str()), ("", ""));

        leases.unregister("z-first", 1);
        assert_eq!(instances(&leases), ["a-second", "other"], "the later one takes over");
        assert_eq!(leases.refusal("a-second"), None);
    }

    #[test]
    fn moving_to_a_taken_address_does_not_take_it() {
        let (start, mut leases) = (Instant::now(), leases());
        leases.register(message("a", "10.0.0.1:80"), Some(1), start + LEASE).unwrap();
        leases.register(message("b", "10.0.0.2:80"), Some(2), start + LEASE).unwrap();
        leases.register(message("a", "10.0.0.2:80"), Some(1), start + LEASE).unwrap();
        assert_eq!(instances(&leases), ["b"]);
    }

    #[test]
    fn what_cannot_be_an_endpoint_is_refused_with_the_field() {
        type Change = fn(&mut control::Registration);
        let table: [(Change, &str); 14] = [
            (|m| m.instance.clear(), "instance: is empty"),
            (|m| m.instance = "x".repeat(254), "instance: longer than 253 bytes"),
            (
                |m| m.namespace = "Shop".into(),
                "namespace: \"Shop\" is not a DNS label (a-z, 0-9 and -, at most 63)",
            ),
            (
                |m| m.service = "pay.shop".into(),
                "service: \"pay.shop\" is not a DNS label (a-z, 0-9 and -, at most 63)",
            ),
            (
                |m| m.service = "-pay".into(),
                "service: \"-pay\" is not a DNS label (a-z, 0-9 and -, at most 63)",
            ),
            (|m| m.address = "pay:80".into(), "address: \"pay:80\" is not IP:PORT"),
            (|m| m.address = "0.0.0.0:80".into(), "address: 0.0.0.0:80 cannot be reached by others"),
            (|m| m.address = "10.0.0.1:0".into(), "address: 10.0.0.1:0 cannot be reached by others"),
            (|m| m.port = 65536, "port: 65536 is not a port"),
            (
                |m| m.app_protocol = "http3".into(),
                "app_protocol: \"http3\" is not http, http2, grpc, ws or tcp",
            ),
            (
                |m| m.labels = [("app".into(), "x".repeat(254))].into(),
                "labels: a name or value is longer than 253 bytes",
            ),
            (
                |m| m.identity.clear(),
                "identity: \"\" is not that of the service, spiffe://mesh.local/ns/shop/sa/pay",
            ),
            (
                |m| m.identity = "spiffe://mesh.local/ns/shop/sa/web".into(),
                "identity: \"spiffe://mesh.local/ns/shop/sa/web\" is not that of the service, \
                 spiffe://mesh.local/ns/shop/sa/pay",
            ),
            (
                |m| m.identity = "spiffe://other/ns/shop/sa/pay".into(),
                "identity: \"spiffe://other/ns/shop/sa/pay\" is not that of the service, \
                 spiffe://mesh.local/ns/shop/sa/pay",
            ),
        ];
        for (change, reason) in table {
            let mut message = message("a", "10.0.0.1:80");
            change(&mut message);
            let refused = leases().register(message, None, Instant::now()).unwrap_err();
            assert_eq!(refused.to_string(), reason);
        }
    }
}
