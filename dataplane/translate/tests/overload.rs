//! The overload manager of a bootstrap file: what is taken of it, and what is refused where.

use prost::Message;
use proto::pb::envoy::config::bootstrap::v3::Bootstrap;

const GOOD: &str = r#"overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 1000
  - name: envoy.resource_monitors.fixed_heap
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
      max_heap_size_bytes: 1000000
  actions:
  - name: envoy.overload_actions.shrink_heap
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.9}}]
  - name: envoy.overload_actions.stop_accepting_requests
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}]
"#;

fn understood(text: &str) -> Result<(Option<u64>, Option<u64>), String> {
    let bytes = proto::bootstrap::parse("f", text).map_err(|error| error.to_string())?;
    let message = Bootstrap::decode(&*bytes).unwrap();
    let understood = translate::bootstrap::translate(&message);
    let overload = understood.map_err(|fault| format!("{}: {}", fault.path, fault.reason))?.overload;
    Ok((overload.connections_max, overload.memory_bytes_max))
}

#[test]
fn limits_of_the_process_come_from_the_overload_manager_or_are_refused() {
    assert_eq!(understood(""), Ok((None, None)));
    assert_eq!(understood(GOOD), Ok((Some(1000), Some(950_000))));
    let heap = "overload_manager.actions[1].triggers[0]";
    for (from, to, expected) in [
        (
            ": 1000\n",
            ": 0\n",
            "overload_manager.resource_monitors[0].typed_config.max_active_downstream_connections: `0` is not a number above zero",
        ),
        (
            ": 1000\n",
            ": -5\n",
            "overload_manager.resource_monitors[0].typed_config.max_active_downstream_connections: `-5` is not a number above zero",
        ),
        ("1000000", "0", "overload_manager.resource_monitors[1].typed_config.max_heap_size_bytes: required"),
        ("0.95", "1.5", &format!("{heap}.threshold.value: `1.5` is not a share from 0 to 1")),
        (
            "threshold: {value: 0.95}",
            "scaled: {scaling_threshold: 0.5, saturation_threshold: 0.9}",
            &format!("{heap}.scaled: not supported by Ringway"),
        ),
        (", threshold: {value: 0.95}", "", &format!("{heap}.threshold: required")),
        (
            "{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}",
            "{name: x, threshold: {value: 0.5}}",
            &format!("{heap}.name: only a fixed_heap monitor can trigger this"),
        ),
        (
            "[{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}]",
            "[]",
            "overload_manager.actions[1].triggers: exactly one is needed",
        ),
        (
            "stop_accepting_requests",
            "reset_high_memory_stream",
            "overload_manager.actions[1].name: envoy.overload_actions.reset_high_memory_stream is not supported by Ringway; supported: envoy.overload_actions.stop_accepting_requests, envoy.overload_actions.shrink_heap",
        ),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        assert_eq!(understood(&text), Err(expected.to_owned()));
    }
    let unknown = GOOD.replace("max_heap_size_bytes", "max_heap_size_bytes_runtime");
    assert!(understood(&unknown).unwrap_err().ends_with("not supported by Ringway"));
}
