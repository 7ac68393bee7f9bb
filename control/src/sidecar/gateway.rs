//! The proxy of one Gateway: what `ringway gateway` and the demo run.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::backoff::random;
use super::bootstrap::{GatewayRole, Role};
use super::folder::{Folder, Kept};
use super::port::Reservation;
use super::proxy::{Proxy, ProxyOptions, SetupError};
use crate::compile::identity;
use crate::model::Name;

/// Which Gateway, and what its proxy needs.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Namespace of the Gateway.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The local address on which its ports are opened.
    pub bind: IpAddr,
    /// Admin listener; port 0 chooses one.
    pub admin: SocketAddr,
    /// What every proxy needs.
    pub proxy: ProxyOptions,
}

/// Reserves the admin port and starts the proxy.
pub fn start_gateway(options: GatewayOptions) -> Result<Proxy, SetupError> {
    let GatewayOptions { namespace, name, bind, admin, proxy } = options;
    let folder: PathBuf = ["gateway", &namespace, &name].iter().collect();
    let folder = Folder::open(&proxy.data_dir, &folder)?;
    let before = folder.kept();
    let node_id = before.instance.unwrap_or_else(|| format!("{name}.{namespace}-{:08x}", random() >> 32));
    let admin = Reservation::new(admin)
        .map_err(|source| SetupError::Port { option: format!("--admin {admin}"), source })?;
    folder.keep(&Kept { instance: Some(node_id.clone()), ..Kept::default() })?;
    let identity = identity(&proxy.trust_domain, &Name::new(namespace.as_str(), name.as_str()));
    let role = Role::Gateway(GatewayRole { namespace, name, bind, identity });
    Proxy::start(proxy, folder, admin, node_id, role)
}
