//! `upgrade_configs`, of a connection manager and of a route, which are messages of different types.

use policy::upgrade::{CONNECT, Connect, Upgrades};
use proto::pb::{
    envoy::{
        config::route::v3::route_action::UpgradeConfig as OfRoute,
        extensions::filters::network::http_connection_manager::v3::http_connection_manager::UpgradeConfig as OfManager,
    },
    google::protobuf::BoolValue,
};

use crate::{
    fields,
    reject::{At, Fault, Reason},
};

/// Upgrades of a connection manager. Filters of their own, which would be run in place of the others, are refused.
pub(crate) fn of_manager(configs: &[OfManager], at: &At<'_>) -> Result<Upgrades, Fault> {
    for (index, config) in configs.iter().enumerate() {
        at.index(index).refuse("filters", !config.filters.is_empty())?;
    }
    let kinds = configs.iter().map(|config| (&*config.upgrade_type, config.enabled.as_ref()));
    upgrades(kinds, Connect::Forward, at)
}

/// Upgrades of a route. With `connect_config` a CONNECT ends here; what more it may say is refused.
pub(crate) fn of_route(configs: &[OfRoute], at: &At<'_>) -> Result<Upgrades, Fault> {
    let mut connect = Connect::Forward;
    for (index, config) in configs.iter().enumerate() {
        let Some(of_connect) = &config.connect_config else { continue };
        let at = at.index(index);
        let at = at.field("connect_config");
        if !config.upgrade_type.as_bytes().eq_ignore_ascii_case(CONNECT) {
            return Err(at.fault(Reason::Conflict("only the upgrade type CONNECT may have it")));
        }
        at.refuse_all(&[
            ("proxy_protocol_config", of_connect.proxy_protocol_config.is_some()),
            ("allow_post", of_connect.allow_post),
        ])?;
        connect = Connect::Terminate;
    }
    let kinds = configs.iter().map(|config| (&*config.upgrade_type, config.enabled.as_ref()));
    upgrades(kinds, connect, at)
}

fn upgrades<'a>(
    configs: impl Iterator<Item = (&'a str, Option<&'a BoolValue>)>,
    connect: Connect,
    at: &At<'_>,
) -> Result<Upgrades, Fault> {
    let mut kinds = Vec::new();
    for (index, (kind, enabled)) in configs.enumerate() {
        let at = at.index(index);
        let at = at.field("upgrade_type");
        let kind = fields::single_line(fields::name(kind, &at)?, &at)?;
        kinds.push((kind, enabled.is_none_or(|on| on.value)));
    }
    let bytes = kinds.iter().map(|(kind, is_allowed)| (kind.as_bytes(), *is_allowed));
    Upgrades::new(bytes, connect).map_err(|duplicate| {
        let value = kinds.get(duplicate.position).map(|(kind, _)| (*kind).to_owned()).unwrap_or_default();
        at.index(duplicate.position).field("upgrade_type").fault(Reason::Duplicate { value })
    })
}
