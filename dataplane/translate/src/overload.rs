//! The overload manager of a bootstrap file: how many connections, and how much memory.
//!
//! Of Envoy's resources these two are watched, of its actions requests are refused (`stop_accepting_requests`). Memory that
//! is not used is given back at once, so `shrink_heap` is accepted and has no effect.

use proto::pb::envoy::{
    config::overload::v3::{self as overload, resource_monitor, trigger::TriggerOneof},
    extensions::resource_monitors::{
        downstream_connections::v3::DownstreamConnectionsConfig, fixed_heap::v3::FixedHeapConfig,
    },
};

use crate::{
    fields,
    reject::{At, Fault, Reason},
};

const MONITORS: &[&str] = &[
    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
    "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
];
const STOP_REQUESTS: &str = "envoy.overload_actions.stop_accepting_requests";
const SHRINK: &str = "envoy.overload_actions.shrink_heap";

/// When the process has too much to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overload {
    /// Downstream connections at a time; more are closed at once.
    pub connections_max: Option<u64>,
    /// Memory in bytes above which requests are refused.
    pub memory_bytes_max: Option<u64>,
}

/// Translates the overload manager. `refresh_interval` has no effect: the memory is looked at often enough.
pub fn translate(value: &overload::OverloadManager) -> Result<Overload, Fault> {
    let at = At::ROOT;
    self::overload(value, &at.field("overload_manager"))
}

pub(crate) fn overload(value: &overload::OverloadManager, at: &At<'_>) -> Result<Overload, Fault> {
    at.refuse_all(&[
        ("loadshed_points", !value.loadshed_points.is_empty()),
        ("buffer_factory_config", value.buffer_factory_config.is_some()),
    ])?;
    let mut overload = Overload::default();
    let mut heap = None;
    let monitors_at = at.field("resource_monitors");
    for (index, monitor) in value.resource_monitors.iter().enumerate() {
        let at = monitors_at.index(index);
        let name = fields::name(&monitor.name, &at.field("name"))?;
        let at = at.field("typed_config");
        let Some(resource_monitor::ConfigType::TypedConfig(any)) = &monitor.config_type else {
            return Err(at.fault(Reason::Missing));
        };
        match MONITORS.iter().position(|known| *known == fields::type_name(any)) {
            Some(0) => {
                let config: DownstreamConnectionsConfig = fields::unpack(any, &at)?;
                let max = u64::try_from(config.max_active_downstream_connections).ok().filter(|max| *max > 0);
                overload.connections_max = Some(max.ok_or_else(|| {
                    let value = config.max_active_downstream_connections.to_string();
                    let reason = Reason::Invalid { value, expected: "a number above zero" };
                    at.field("max_active_downstream_connections").fault(reason)
                })?);
            }
            Some(_) => {
                let config: FixedHeapConfig = fields::unpack(any, &at)?;
                at.refuse("max_heap_size_bytes_runtime", config.max_heap_size_bytes_runtime.is_some())?;
                let bytes = Some(config.max_heap_size_bytes).filter(|bytes| *bytes > 0);
                heap = Some((name, at.field("max_heap_size_bytes").require(bytes)?));
            }
            None => return Err(fields::unknown_extension(&any.type_url, MONITORS, &at)),
        }
    }
    let actions_at = at.field("actions");
    for (index, action) in value.actions.iter().enumerate() {
        let at = actions_at.index(index);
        at.refuse("typed_config", action.typed_config.is_some())?;
        match &*action.name {
            STOP_REQUESTS => {
                overload.memory_bytes_max = Some(memory_threshold(action, heap, &at)?);
            }
            SHRINK => {}
            other => {
                let supported =
                    "envoy.overload_actions.stop_accepting_requests, envoy.overload_actions.shrink_heap";
                let reason = Reason::UnsupportedValue { value: other.to_owned(), supported };
                return Err(at.field("name").fault(reason));
            }
        }
    }
    Ok(overload)
}

/// The share of the heap at which an action sets in, in bytes.
fn memory_threshold(
    action: &overload::OverloadAction,
    heap: Option<(&str, u64)>,
    at: &At<'_>,
) -> Result<u64, Fault> {
    let triggers_at = at.field("triggers");
    let [trigger] = &action.triggers[..] else {
        return Err(triggers_at.fault(Reason::Conflict("exactly one is needed")));
    };
    let at = triggers_at.index(0);
    let Some((_, bytes)) = heap.filter(|(name, _)| *name == trigger.name) else {
        return Err(at.field("name").fault(Reason::Conflict("only a fixed_heap monitor can trigger this")));
    };
    match &trigger.trigger_oneof {
        Some(TriggerOneof::Threshold(threshold)) if (0.0..=1.0).contains(&threshold.value) => {
            Ok((bytes as f64 * threshold.value) as u64)
        }
        Some(TriggerOneof::Threshold(threshold)) => {
            let value = threshold.value.to_string();
            let reason = Reason::Invalid { value, expected: "a share from 0 to 1" };
            Err(at.field("threshold").field("value").fault(reason))
        }
        Some(TriggerOneof::Scaled(_)) => Err(at.field("scaled").unsupported()),
        None => Err(at.field("threshold").fault(Reason::Missing)),
    }
}
