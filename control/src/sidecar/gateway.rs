//! The proxy of one Gateway: what `ringway gateway` and the demo run.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::backoff::random;
use super::bootstrap::{Bootstrap, GatewayRole, Role};
use super::control::ControlAddress;
use super::folder::{Folder, Kept};
use super::port::Reservation;
use super::process::{Ending, Life, Output, Process, ProcessOptions};
use super::start::{self, SetupError, StartError};

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
    /// Where the control plane is.
    pub control: ControlAddress,
    /// The proxy.
    pub proxy: PathBuf,
    /// More of its command line.
    pub arguments: Vec<String>,
    /// Where it keeps what it needs next time.
    pub data_dir: PathBuf,
    /// How long the proxy may finish what it has when it is stopped.
    pub drain: Duration,
    /// Where the proxy's words go.
    pub output: Output,
}

/// The proxy of one Gateway.
#[derive(Debug)]
pub struct Gateway {
    control: ControlAddress,
    admin: Reservation,
    process: Process,
    // Last: the bootstrap file is needed for as long as the process may start again.
    _folder: Folder,
}

impl Gateway {
    /// Reserves the admin port and starts the proxy.
    pub fn start(options: GatewayOptions) -> Result<Gateway, SetupError> {
        let GatewayOptions { namespace, name, bind, .. } = options;
        let folder: PathBuf = ["gateway", &namespace, &name].iter().collect();
        let folder = Folder::open(&options.data_dir, &folder)?;
        let before = folder.kept();
        let node_id = before.instance.unwrap_or_else(|| format!("{name}.{namespace}-{:08x}", random() >> 32));
        let admin = Reservation::new(options.admin)?;
        folder.keep(&Kept { instance: Some(node_id.clone()), ..Kept::default() })?;
        let bootstrap = Bootstrap {
            node_id,
            role: Role::Gateway(GatewayRole { namespace, name, bind }),
            admin: admin.address(),
            control: options.control.clone(),
        };
        let process = start::process(ProcessOptions {
            proxy: options.proxy,
            bootstrap: folder.write_bootstrap(&bootstrap.to_json())?,
            data_dir: folder.path().to_owned(),
            admin: admin.address(),
            arguments: options.arguments,
            drain: options.drain,
            output: options.output,
        })?;
        Ok(Gateway { control: options.control, admin, process, _folder: folder })
    }

    /// Until the proxy serves, for at most `timeout`.
    pub async fn ready(&self, timeout: Duration) -> Result<(), StartError> {
        start::until_ready(&self.process, &self.control, timeout).await
    }

    /// Lets the proxy finish what it has.
    pub async fn stop(self) -> Ending {
        self.process.stop().await
    }

    /// Ends the proxy at once: nothing has been served yet.
    pub async fn abort(self) {
        self.process.kill().await;
    }

    /// The proxy's admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// What becomes of the proxy.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.process.life()
    }
}
