//! `ringway gateway`: a proxy that serves the listeners of one Gateway, supervised in the foreground.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use hyper::StatusCode;

use super::progress::{say, tell_life};
use super::proxy::{self, ProxyArgs, ProxyError, drained_or_signal, log_filter, ready_or_signal};
use crate::address;
use crate::sidecar::admin;
use crate::sidecar::environment::is_dns_label;
use crate::sidecar::signals::Signals;
use crate::sidecar::{GatewayOptions, Proxy, start_gateway};

/// Which Gateway, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The proxy opens the ports that the Gateway's listeners name, takes the CPUs it may use, and is started again on the \
same ports if it dies. SIGTERM and Ctrl-C let it finish what it has.

Exit codes: 0 after a signal, 1 if it cannot start.

Examples:
  ringway gateway shop/front
  ringway gateway shop/front --bind 10.0.0.7 --admin 127.0.0.1:15001")]
pub(super) struct Args {
    /// The Gateway
    #[arg(value_name = "NAMESPACE/NAME")]
    gateway: GatewayName,
    /// Local address on which its ports are opened
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    bind: IpAddr,
    /// Admin listener of the proxy; port 0 chooses one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15000", value_parser = address::parse)]
    admin: SocketAddr,
    /// Least important events that the proxy prints: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log_filter)]
    proxy_log: String,
    /// How long the proxy may finish what it has
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    #[command(flatten)]
    proxy: ProxyArgs,
}

/// `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GatewayName {
    namespace: String,
    name: String,
}

impl FromStr for GatewayName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if is_dns_label(namespace) && is_dns_label(name) => {
                Ok(GatewayName { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("expected NAMESPACE/NAME, each a DNS label"),
        }
    }
}

/// Runs the gateway until a signal.
pub(super) fn run(args: &Args) -> ExitCode {
    proxy::tell(story(args), 1)
}

async fn story(args: &Args) -> Result<u8, ProxyError> {
    let mut signals = Signals::listen().map_err(ProxyError::Signals)?;
    let GatewayName { namespace, name } = &args.gateway;
    let gateway = start_gateway(GatewayOptions {
        namespace: namespace.clone(),
        name: name.clone(),
        bind: args.bind,
        admin: args.admin,
        proxy: args.proxy.options(&args.proxy_log, args.drain_timeout)?,
    })?;
    match ready_or_signal(gateway.ready(args.proxy.control_timeout), &mut signals).await {
        Ok(None) => {}
        Ok(Some(_)) => {
            gateway.kill().await;
            return Ok(0);
        }
        Err(error) => {
            gateway.kill().await;
            return Err(error.into());
        }
    }
    announce(&args.gateway, &gateway).await;
    accompany(&gateway, &mut signals).await;
    drained_or_signal(gateway.stop(), args.drain_timeout, &mut signals).await;
    Ok(0)
}

/// What is served, and where; a Gateway that is not among the documents opens nothing, and a typing error looks so.
async fn announce(gateway: &GatewayName, proxy: &Proxy) {
    let GatewayName { namespace, name } = gateway;
    say(&format!("gateway {namespace}/{name}, admin http://{}", proxy.admin()));
    let Ok((StatusCode::OK, listeners)) = admin::ask(proxy.admin(), "/listeners").await else { return };
    let open = listeners.lines().filter_map(|line| line.rsplit_once("::")).map(|(_, address)| address);
    let open = open.collect::<Vec<_>>().join(", ");
    match open.is_empty() {
        true => say(
            "nothing is open: `ringway status --documents` shows its listeners and why, and `ringway status` \
            what the proxy refused",
        ),
        false => say(&format!("open on {open}")),
    }
}

/// Until a signal that asks to end.
async fn accompany(gateway: &Proxy, signals: &mut Signals) {
    let mut life = gateway.life();
    loop {
        tokio::select! {
            signal = signals.next() => if signal.ends() { return },
            Ok(()) = life.changed() => tell_life(&life.borrow_and_update()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_named_by_namespace_and_name() {
        let name = GatewayName { namespace: "shop".to_owned(), name: "front".to_owned() };
        assert_eq!("shop/front".parse(), Ok(name));
        for text in ["", "front", "/front", "shop/", "shop/front/80", "Shop/front"] {
            assert!(text.parse::<GatewayName>().is_err(), "{text}");
        }
    }
}
