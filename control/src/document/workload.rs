//! Workload, a kind of our own: one process on one machine, where nothing else knows of it.

use std::net::IpAddr;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::Port;

/// A process that takes requests. It belongs to the Service it names, and to those whose selector matches its labels.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// The Service it belongs to, in its own namespace; created from its ports if there is no such document.
    pub service: Option<String>,
    /// Where it is reached. Loopback is as good as any other.
    pub address: IpAddr,
    /// Its ports; a Service's `targetPort` names one by number or name.
    pub ports: Vec<WorkloadPort>,
    /// Zone it is in.
    pub zone: Option<String>,
    /// Share of the requests in proportion to the other endpoints; 1 if absent.
    pub weight: Option<NonZeroU16>,
}

/// One port of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadPort {
    /// Name; needed where there are several.
    pub name: Option<String>,
    /// The application's own port.
    pub port: Port,
    /// The port of the proxy in front of the application, if it has one.
    pub proxy_port: Option<Port>,
    /// What it carries, as in a Service; used where the Service is created from the Workload.
    pub app_protocol: Option<String>,
}
