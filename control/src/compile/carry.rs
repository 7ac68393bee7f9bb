//! From one model to the next: what is encoded stays encoded, and what changed is known, if only endpoints did.
//! That is the fast lane: its work is that of the change, not that of the mesh.

use std::sync::Arc;

use super::{Resource, Shared, endpoint};
use crate::model::{Model, ServicePort, Target};

/// The endpoints in which `now` differs from `before`, if it differs in nothing else, and what then serves for `now` of
/// what was encoded for `before`. `None` if more changed, and `now` has to be compiled.
pub fn carry_over(before: &Model, shared: &Shared, now: &Model) -> Option<(Vec<Arc<Resource>>, Shared)> {
    let same_services = before.services.keys().eq(now.services.keys());
    let same_callers =
        before.authorization == now.authorization && before.peer_authentications == now.peer_authentications;
    if !same_services || before.gateways != now.gateways || !same_callers {
        return None;
    }
    let mut changed = Vec::new();
    for ((name, old), new) in before.services.iter().zip(now.services.values()) {
        if old.external != new.external || old.ports.len() != new.ports.len() {
            return None;
        }
        for (old, new) in old.ports.iter().zip(&new.ports) {
            if !is_same_but_for_endpoints(old, new) {
                return None;
            }
            if old.endpoints != new.endpoints {
                let target = Target { service: name.clone(), port: new.port };
                let encoded = endpoint::outbound(&target, &new.endpoints);
                changed.push((target, encoded));
            }
        }
    }
    let shared = shared.with_endpoints(&changed);
    Some((changed.into_iter().map(|(_, encoded)| encoded).collect(), shared))
}

fn is_same_but_for_endpoints(old: &ServicePort, new: &ServicePort) -> bool {
    let ServicePort { port, name, protocol, endpoints: _, producer_rules, consumer_rules, tls } = old;
    *port == new.port
        && *name == new.name
        && *protocol == new.protocol
        && *producer_rules == new.producer_rules
        && *consumer_rules == new.consumer_rules
        && *tls == new.tls
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use policy::peer::SpiffeId;

    use crate::compile::{Client, GatewayClient, Sidecar, compile, refusal};
    use crate::document::Documents;
    use crate::model::{self, Registration, Registrations};

    use super::*;

    fn registration(instance: &str, service: &str, port: u16) -> (String, Registration) {
        let registration = Registration {
            instance: instance.into(),
            namespace: "shop".into(),
            service: service.into(),
            address: ([127, 0, 0, 1], 7000 + port).into(),
            port,
            labels: BTreeMap::new(),
            ready: true,
            draining: false,
            host: String::new(),
            app_protocol: String::new(),
        };
        (instance.into(), registration)
    }

    fn model(registrations: &[(String, Registration)]) -> Model {
        let registrations: Registrations = registrations.iter().cloned().collect();
        model::build(&Documents::default(), &registrations, refusal).0
    }

    fn clients() -> Vec<Client> {
        let sidecar = Sidecar {
            namespace: "shop".into(),
            service: "pay".into(),
            instance: "a".into(),
            inbound: ([127, 0, 0, 1], 1).into(),
            app: ([127, 0, 0, 1], 2).into(),
            app_protocol: String::new(),
            identity: SpiffeId::parse("spiffe://mesh.local/ns/shop/sa/pay").ok(),
            outbound: Some(([127, 0, 0, 1], 3).into()),
            to: Vec::new(),
        };
        let gateway = GatewayClient {
            namespace: "shop".into(),
            name: "edge".into(),
            bind: [127, 0, 0, 1].into(),
            identity: None,
        };
        vec![Client::Sidecar(sidecar), Client::Gateway(gateway)]
    }

    #[test]
    fn what_is_carried_over_is_what_would_be_compiled_anew() {
        let pay = registration("a", "pay", 80);
        let cart = registration("b", "cart", 80);
        let mut moved = registration("b", "cart", 80);
        moved.1.address.set_port(9999);
        let mut draining = pay.clone();
        draining.1.draining = true;
        let second = {
            let mut second = registration("c", "cart", 80);
            second.1.address.set_port(9998);
            second
        };
        let before = [pay.clone(), cart.clone()];
        // (the registrations after, the endpoints that changed if only endpoints did)
        type Row<'a> = (&'a [(String, Registration)], Option<&'a [&'a str]>);
        let only_pay = [pay.clone()];
        let table: [Row<'_>; 7] = [
            (&[pay.clone(), cart.clone()], Some(&[])),
            (&[pay.clone(), moved.clone()], Some(&["outbound|80|cart.shop"])),
            (&[draining, moved], Some(&["outbound|80|cart.shop", "outbound|80|pay.shop"])),
            (&[pay.clone(), cart.clone(), second], Some(&["outbound|80|cart.shop"])),
            (&only_pay, None),
            (&[pay.clone(), cart.clone(), registration("c", "new", 80)], None),
            (&[pay, cart, registration("c", "cart", 81)], None),
        ];
        for is_compiled in [false, true] {
            for (after, changed) in table {
                let (before, shared) = (model(&before), Shared::default());
                if is_compiled {
                    clients().iter().for_each(|client| drop(compile(&before, &shared, client)));
                }
                let now = model(after);
                let carried = carry_over(&before, &shared, &now);
                let names = carried
                    .as_ref()
                    .map(|(endpoints, _)| endpoints.iter().map(|r| r.name.as_ref()).collect::<Vec<_>>());
                assert_eq!(names.as_deref(), changed, "{after:?}");
                let Some((_, carried)) = carried else { continue };
                for client in clients() {
                    assert_eq!(
                        compile(&now, &carried, &client),
                        compile(&now, &Shared::default(), &client),
                        "{after:?} {client:?}"
                    );
                }
            }
        }
    }
}
