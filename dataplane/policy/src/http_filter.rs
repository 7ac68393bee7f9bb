//! The filters that a request passes before it is forwarded, and what routes say of them.
//!
//! The connection manager names its filters; a route table, which may come from elsewhere and at another time, speaks of them
//! by these names (Envoy: `typed_per_filter_config`). The most specific level that says anything of a filter is the one that
//! counts.

use alloc::{collections::BTreeMap, sync::Arc};

use crate::rbac::Rbac;

/// A filter of a connection manager (Envoy: `HttpFilter`).
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// What routes call it.
    pub name: Arc<str>,
    /// It is passed over, unless a route says otherwise (Envoy: `disabled`).
    pub is_disabled: bool,
    /// What it does.
    pub config: FilterConfig,
}

/// What a filter does.
#[derive(Clone, Debug)]
pub enum FilterConfig {
    /// Allow or deny (`envoy.filters.http.rbac`).
    Rbac(Arc<Rbac>),
}

/// What a level of a route table says of a filter.
#[derive(Clone, Debug)]
pub enum FilterOverride {
    /// It is passed over.
    Disabled,
    /// It does what the connection manager says, also where it is passed over by default.
    Enabled,
    /// It does this instead.
    Config(FilterConfig),
}

/// What a level of a route table says of filters, by name.
#[derive(Clone, Debug, Default)]
pub struct FilterOverrides(Option<Arc<BTreeMap<Arc<str>, FilterOverride>>>);

impl FilterOverrides {
    /// Of one level.
    pub fn new(overrides: BTreeMap<Arc<str>, FilterOverride>) -> FilterOverrides {
        FilterOverrides((!overrides.is_empty()).then(|| Arc::new(overrides)))
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Names of filters with what is said of each.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &FilterOverride)> {
        self.0.iter().flat_map(|overrides| overrides.iter())
    }

    /// With what the level above says of filters of which this one says nothing. Levels that say nothing share the one above.
    pub(crate) fn below(&self, above: &FilterOverrides) -> FilterOverrides {
        match (&self.0, &above.0) {
            (None, _) => above.clone(),
            (Some(_), None) => self.clone(),
            (Some(own), Some(above)) => {
                let mut merged = (**above).clone();
                merged.extend(own.iter().map(|(name, of)| (name.clone(), of.clone())));
                FilterOverrides::new(merged)
            }
        }
    }

    fn of(&self, name: &str) -> Option<&FilterOverride> {
        self.0.as_ref()?.get(name)
    }
}

impl HttpFilter {
    /// What it does to a request of a route that says this of filters, or of none; `None` is nothing.
    pub fn config_for<'a>(&'a self, route: Option<&'a FilterOverrides>) -> Option<&'a FilterConfig> {
        match route.and_then(|route| route.of(&self.name)) {
            None => (!self.is_disabled).then_some(&self.config),
            Some(FilterOverride::Disabled) => None,
            Some(FilterOverride::Enabled) => Some(&self.config),
            Some(FilterOverride::Config(config)) => Some(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FilterConfig {
        FilterConfig::Rbac(Arc::default())
    }

    fn is(one: &FilterConfig, other: &FilterConfig) -> bool {
        let (FilterConfig::Rbac(one), FilterConfig::Rbac(other)) = (one, other);
        Arc::ptr_eq(one, other)
    }

    fn saying(of: &[(&str, FilterOverride)]) -> FilterOverrides {
        FilterOverrides::new(of.iter().map(|(name, of)| ((*name).into(), of.clone())).collect())
    }

    #[test]
    fn a_route_turns_a_filter_on_or_off_or_gives_it_something_else_to_do() {
        let (base, other) = (config(), config());
        let silent = FilterOverrides::default();
        let foreign = saying(&[("b", FilterOverride::Disabled)]);
        let off = saying(&[("a", FilterOverride::Disabled)]);
        let on = saying(&[("a", FilterOverride::Enabled)]);
        let own = saying(&[("a", FilterOverride::Config(other.clone()))]);
        for (is_disabled, route, expected) in [
            (false, &silent, Some(&base)),
            (true, &silent, None),
            (false, &foreign, Some(&base)),
            (false, &off, None),
            (true, &off, None),
            (false, &on, Some(&base)),
            (true, &on, Some(&base)),
            (false, &own, Some(&other)),
            (true, &own, Some(&other)),
        ] {
            let filter = HttpFilter { name: "a".into(), is_disabled, config: base.clone() };
            let same = match (filter.config_for(Some(route)), expected) {
                (Some(config), Some(expected)) => is(config, expected),
                (config, expected) => config.is_none() && expected.is_none(),
            };
            assert!(same, "{is_disabled} {route:?}");
            assert_eq!(filter.config_for(None).is_some(), !is_disabled);
        }
    }

    #[test]
    fn the_most_specific_level_that_says_anything_of_a_filter_counts() {
        let above = saying(&[("a", FilterOverride::Disabled), ("b", FilterOverride::Disabled)]);
        let own = saying(&[("b", FilterOverride::Enabled), ("c", FilterOverride::Enabled)]);
        let both = own.below(&above);
        let is_on = |name: &str| both.of(name).map(|of| matches!(of, FilterOverride::Enabled));
        assert_eq!(["a", "b", "c", "d"].map(is_on), [Some(false), Some(true), Some(true), None]);
        let silent = FilterOverrides::default();
        assert!(silent.below(&silent).is_empty());
        let shared = silent.below(&above);
        assert!(Arc::ptr_eq(shared.0.as_ref().unwrap(), above.0.as_ref().unwrap()), "no copy per route");
        assert!(Arc::ptr_eq(own.below(&silent).0.as_ref().unwrap(), own.0.as_ref().unwrap()));
    }
}
