//! How an endpoint is chosen: `lb_policy` with its configuration, or `load_balancing_policy`, which goes before it.

use policy::{
    cluster::{Balance, ClusterConfig, Discovery},
    limits,
};
use proto::pb::{
    envoy::{
        config::{
            cluster::v3::{self as cluster, cluster::LbConfig},
            core::v3::RuntimeDouble,
        },
        extensions::load_balancing_policies::{
            common::v3::{LocalityLbConfig, locality_lb_config::LocalityConfigSpecifier},
            least_request::v3::{LeastRequest, least_request::SelectionMethod},
            random::v3::Random,
            round_robin::v3::RoundRobin,
        },
    },
    google::protobuf::UInt32Value,
};

use crate::{
    fields,
    reject::{At, Fault, Reason},
};

/// Typed policies; the first of a cluster's list that is one of these is taken.
const SUPPORTED: &[&str] = &[
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "envoy.extensions.load_balancing_policies.random.v3.Random",
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
];

/// Sets everything of `config` that balancing needs.
pub(super) fn apply(value: &cluster::Cluster, config: &mut ClusterConfig, at: &At<'_>) -> Result<(), Fault> {
    common(value, config, at)?;
    match &value.load_balancing_policy {
        Some(policies) => typed(policies, config, &at.field("load_balancing_policy")),
        None => by_name(value, config, at),
    }
}

/// Accepted without effect: `update_merge_window` (updates are merged as they come), `ignore_new_hosts_until_first_hc`,
/// `override_host_status` and `consistent_hashing_lb_config` (for what is refused elsewhere).
fn common(value: &cluster::Cluster, config: &mut ClusterConfig, at: &At<'_>) -> Result<(), Fault> {
    use cluster::cluster::common_lb_config::LocalityConfigSpecifier;
    let Some(common) = &value.common_lb_config else { return Ok(()) };
    let at = at.field("common_lb_config");
    at.refuse("close_connections_on_host_set_change", common.close_connections_on_host_set_change)?;
    match &common.locality_config_specifier {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => config.locality_weighted = true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            return Err(at.field("zone_aware_lb_config").unsupported());
        }
    }
    if let Some(threshold) = &common.healthy_panic_threshold {
        if !(0.0..=100.0).contains(&threshold.value) {
            let value = threshold.value.to_string();
            let reason = Reason::Invalid { value, expected: "a percentage" };
            return Err(at.field("healthy_panic_threshold").fault(reason));
        }
        config.panic_threshold_percent = threshold.value as u8;
    }
    Ok(())
}

fn by_name(value: &cluster::Cluster, config: &mut ClusterConfig, at: &At<'_>) -> Result<(), Fault> {
    use cluster::cluster::LbPolicy;
    let policy_at = at.field("lb_policy");
    config.balance = match fields::enumeration(value.lb_policy, &policy_at)? {
        LbPolicy::RoundRobin => {
            if let Some(LbConfig::RoundRobinLbConfig(round_robin)) = &value.lb_config {
                let at = at.field("round_robin_lb_config");
                at.refuse("slow_start_config", round_robin.slow_start_config.is_some())?;
            }
            Balance::RoundRobin
        }
        LbPolicy::Random => Balance::Random,
        // Of a dynamic forward cluster: the addresses of one host are alike.
        LbPolicy::ClusterProvided if matches!(config.discovery, Discovery::DynamicForward(_)) => {
            Balance::Random
        }
        LbPolicy::LeastRequest => match &value.lb_config {
            Some(LbConfig::LeastRequestLbConfig(least)) => {
                let at = at.field("least_request_lb_config");
                at.refuse("slow_start_config", least.slow_start_config.is_some())?;
                bias(least.active_request_bias.as_ref(), &at)?;
                least_request(least.choice_count.as_ref(), &at)?
            }
            _ => least_request(None, at)?,
        },
        LbPolicy::LoadBalancingPolicyConfig => {
            return Err(at.field("load_balancing_policy").fault(Reason::Missing));
        }
        other => {
            let value = other.as_str_name().to_owned();
            let supported = "ROUND_ROBIN, RANDOM, LEAST_REQUEST";
            return Err(policy_at.fault(Reason::UnsupportedValue { value, supported }));
        }
    };
    Ok(())
}

fn typed(value: &cluster::LoadBalancingPolicy, config: &mut ClusterConfig, at: &At<'_>) -> Result<(), Fault> {
    let policies_at = at.field("policies");
    let mut refused = None;
    for (index, policy) in value.policies.iter().enumerate() {
        let at = policies_at.index(index);
        let at = at.field("typed_extension_config");
        let extension = at.require(policy.typed_extension_config.as_ref())?;
        let at = at.field("typed_config");
        let any = at.require(extension.typed_config.as_ref())?;
        match SUPPORTED.iter().position(|supported| *supported == fields::type_name(any)) {
            Some(0) => {
                let policy: RoundRobin = fields::unpack(any, &at)?;
                at.refuse("slow_start_config", policy.slow_start_config.is_some())?;
                locality(policy.locality_lb_config.as_ref(), config, &at)?;
                config.balance = Balance::RoundRobin;
            }
            Some(1) => {
                let policy: Random = fields::unpack(any, &at)?;
                locality(policy.locality_lb_config.as_ref(), config, &at)?;
                config.balance = Balance::Random;
            }
            Some(_) => {
                let policy: LeastRequest = fields::unpack(any, &at)?;
                #[allow(
                    deprecated,
                    reason = "a field that Envoy advises against is still one that may be set"
                )]
                at.refuse_all(&[
                    ("slow_start_config", policy.slow_start_config.is_some()),
                    ("enable_full_scan", policy.enable_full_scan.is_some_and(|on| on.value)),
                    ("selection_method", policy.selection_method != SelectionMethod::NChoices as i32),
                ])?;
                bias(policy.active_request_bias.as_ref(), &at)?;
                locality(policy.locality_lb_config.as_ref(), config, &at)?;
                config.balance = least_request(policy.choice_count.as_ref(), &at)?;
            }
            None => {
                refused.get_or_insert_with(|| fields::unknown_extension(&any.type_url, SUPPORTED, &at));
                continue;
            }
        }
        return Ok(());
    }
    Err(refused.unwrap_or_else(|| policies_at.fault(Reason::Missing)))
}

fn locality(value: Option<&LocalityLbConfig>, config: &mut ClusterConfig, at: &At<'_>) -> Result<(), Fault> {
    let Some(value) = value else { return Ok(()) };
    match &value.locality_config_specifier {
        None => Ok(()),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            config.locality_weighted = true;
            Ok(())
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            Err(at.field("locality_lb_config").field("zone_aware_lb_config").unsupported())
        }
    }
}

/// More choices than the bound find hardly a better endpoint, so the bound is what they become.
fn least_request(choices: Option<&UInt32Value>, at: &At<'_>) -> Result<Balance, Fault> {
    let most = limits::LEAST_REQUEST_CHOICES_MAX as u32;
    let choices = match choices {
        None => limits::LEAST_REQUEST_CHOICES_DEFAULT,
        Some(choices) => {
            fields::between(choices.value, 2, u32::MAX, &at.field("choice_count"))?.min(most) as usize
        }
    };
    Ok(Balance::LeastRequest { choices })
}

/// Only the bias that Envoy has by default: the load counts once.
fn bias(value: Option<&RuntimeDouble>, at: &At<'_>) -> Result<(), Fault> {
    at.refuse("active_request_bias", value.is_some_and(|bias| bias.default_value != 1.0))
}
