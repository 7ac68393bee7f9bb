//! The rules of an AuthorizationPolicy that its types do not say. A policy that means less than it says would let in whom it
//! should keep out, so nothing of one is passed over.

use policy::{peer::SpiffeId, rbac::is_written_by_proxies, regex::Regex};

use super::{
    LIST_MAX, Verdict, bound, check, hostname, is_dns_label, only_the_field_of, path_match, value_matches,
};
use crate::document::{
    AuthorizationPolicySpec, AuthorizationRule, AuthorizationSource, AuthorizationSourceType,
    AuthorizationTarget, AuthorizationTargetKind, CidrText, HttpAttributes, IpBlock, LabelSelector,
    PathMatchType, ValueMatchType,
};

/// Most rules of one policy.
const RULES_MAX: usize = 64;
/// Most sources of one rule: the callers of a busy service.
const SOURCES_MAX: usize = 256;

pub(super) fn policy(spec: &AuthorizationPolicySpec) -> Verdict {
    targets(&spec.target_refs)?;
    bound(spec.rules.len(), RULES_MAX, "spec.rules")?;
    for (i, rule) in spec.rules.iter().enumerate() {
        self::rule(rule, &format!("spec.rules[{i}]"))?;
    }
    Ok(())
}

/// `spec.targetRefs` of a policy about callers of workloads.
pub(super) fn targets(targets: &[AuthorizationTarget]) -> Verdict {
    bound(targets.len(), LIST_MAX, "spec.targetRefs")?;
    check(!targets.is_empty(), "spec.targetRefs", || {
        "a policy needs a target; `{kind: Pod, selector: {}}` is every workload of the namespace".to_owned()
    })?;
    for (i, target) in targets.iter().enumerate() {
        self::target(target, &format!("spec.targetRefs[{i}]"))?;
    }
    Ok(())
}

fn target(target: &AuthorizationTarget, at: &str) -> Verdict {
    use AuthorizationTargetKind::{Pod, Service};
    check(target.group.is_empty(), &format!("{at}.group"), || {
        format!("`{}` is not the group of Services and Pods, which is empty", target.group)
    })?;
    let fields = [(Service, "name", target.name.is_some()), (Pod, "selector", target.selector.is_some())];
    for (kind, field, set) in fields {
        check(set == (kind == target.kind), at, || match set {
            true => format!("`{field}` does not go with kind {:?}", target.kind),
            false => format!("kind {:?} needs `{field}`", target.kind),
        })?;
    }
    if let Some(name) = &target.name {
        check(is_dns_label(name), &format!("{at}.name"), || {
            format!("`{name}` is not the name of a Service")
        })?;
    }
    let all = target.selector.as_ref().is_none_or(|selector| *selector == LabelSelector::default());
    check(all, &format!("{at}.selector"), || {
        "workloads cannot be chosen by labels yet: `{}` is all of the namespace, and kind Service is those of one Service"
            .to_owned()
    })
}

fn rule(rule: &AuthorizationRule, at: &str) -> Verdict {
    let sources = rule.sources.iter().flatten();
    bound(sources.clone().count(), SOURCES_MAX, &format!("{at}.sources"))?;
    for (i, source) in sources.enumerate() {
        self::source(source, &format!("{at}.sources[{i}]"))?;
    }
    if let Some(network) = &rule.network_attributes {
        bound(network.ports.len(), LIST_MAX, &format!("{at}.networkAttributes.ports"))?;
    }
    match &rule.http_attributes {
        Some(http) => self::http(http, &format!("{at}.httpAttributes")),
        None => Ok(()),
    }
}

fn source(source: &AuthorizationSource, at: &str) -> Verdict {
    use AuthorizationSourceType::{IpBlock, ServiceAccount, Spiffe, TrustDomain};
    let fields = [
        (ServiceAccount, "serviceAccount", source.service_account.is_some()),
        (Spiffe, "spiffe", source.spiffe.is_some()),
        (TrustDomain, "trustDomain", source.trust_domain.is_some()),
        (IpBlock, "ipBlock", source.ip_block.is_some()),
    ];
    let name = match source.kind {
        ServiceAccount => "ServiceAccount",
        Spiffe => "SPIFFE",
        TrustDomain => "TrustDomain",
        IpBlock => "IPBlock",
    };
    only_the_field_of(source.kind, name, &fields, at)?;
    if let Some(account) = &source.service_account {
        let at = format!("{at}.serviceAccount");
        let namespace = account.namespace.as_deref().unwrap_or("default");
        check(is_dns_label(namespace), &format!("{at}.namespace"), || {
            format!("`{namespace}` is not the name of a namespace")
        })?;
        let is_name = account.name == "*" || is_dns_label(&account.name);
        check(is_name, &format!("{at}.name"), || {
            format!("`{}` is neither the name of a service account nor `*`", account.name)
        })?;
    }
    if let Some(spiffe) = &source.spiffe {
        let id = SpiffeId::parse(spiffe);
        let reason = || {
            id.as_ref().map_or_else(ToString::to_string, |_| "names nobody of its trust domain".to_owned())
        };
        check(id.as_ref().is_ok_and(|id| !id.path().is_empty()), &format!("{at}.spiffe"), || {
            format!("`{spiffe}`: {}", reason())
        })?;
    }
    if let Some(domain) = &source.trust_domain {
        let id = SpiffeId::parse(&format!("spiffe://{domain}"));
        check(id.is_ok_and(|id| id.path().is_empty()), &format!("{at}.trustDomain"), || {
            format!("`{domain}` is not a trust domain like `mesh.local`")
        })?;
    }
    match &source.ip_block {
        Some(block) => ip_block(block, &format!("{at}.ipBlock")),
        None => Ok(()),
    }
}

fn ip_block(block: &IpBlock, at: &str) -> Verdict {
    bound(block.except.len(), LIST_MAX, &format!("{at}.except"))?;
    for (i, except) in block.except.iter().enumerate() {
        check(is_within(except, &block.cidr), &format!("{at}.except[{i}]"), || {
            format!("`{}/{}` is not within `cidr`", except.address, except.bits)
        })?;
    }
    Ok(())
}

fn is_within(inner: &CidrText, outer: &CidrText) -> bool {
    let block = policy::cidr::Cidr::new(outer.address, outer.bits.into());
    inner.bits >= outer.bits && block.is_ok_and(|block| block.contains(inner.address))
}

fn http(http: &HttpAttributes, at: &str) -> Verdict {
    bound(http.hosts.len(), LIST_MAX, &format!("{at}.hosts"))?;
    for (i, name) in http.hosts.iter().enumerate() {
        hostname(name, &format!("{at}.hosts[{i}]"))?;
    }
    bound(http.methods.len(), LIST_MAX, &format!("{at}.methods"))?;
    bound(http.paths.len(), LIST_MAX, &format!("{at}.paths"))?;
    for (i, path) in http.paths.iter().enumerate() {
        let at = format!("{at}.paths[{i}].value");
        path_match(path, &at)?;
        if path.kind == PathMatchType::RegularExpression {
            regex(&path.value, &at)?;
        }
    }
    value_matches(&http.headers, &format!("{at}.headers"))?;
    for (i, header) in http.headers.iter().enumerate() {
        let at = format!("{at}.headers[{i}]");
        check(!is_written_by_proxies(header.name.as_bytes()), &format!("{at}.name"), || {
            format!("proxies write `{}` themselves, so it tells nothing of who calls", header.name)
        })?;
        if header.kind == ValueMatchType::RegularExpression {
            regex(&header.value, &format!("{at}.value"))?;
        }
    }
    Ok(())
}

/// A rule whose expression proxies refuse would be no rule.
fn regex(pattern: &str, at: &str) -> Verdict {
    let error = Regex::full(pattern).err();
    check(error.is_none(), at, || error.map(|error| error.to_string()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use crate::document::parse;

    /// A policy of shop/orders with `rules`, and what is wrong with it from the line of the rules on.
    fn wrong(head: &str, rules: &str) -> Option<String> {
        let text = format!(
            "apiVersion: ringway.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\nspec:\n{head}{rules}"
        );
        parse(&"mesh.yaml".into(), &text).pop().unwrap().err().map(|error| error.to_string())
    }

    #[test]
    fn policies_that_say_what_they_mean_are_taken() {
        let targets = [
            "[{kind: Service, name: orders}]",
            "[{kind: Pod, selector: {}}]",
            "[{kind: Service, name: a}, {kind: Pod, selector: {}}]",
        ];
        for target in targets {
            let head = format!("  targetRefs: {target}\n  action: DENY\n");
            assert_eq!(wrong(&head, ""), None, "{target}");
        }
        let head = "  targetRefs: [{kind: Service, name: orders}]\n  action: ALLOW\n  enforcement: Audit\n";
        let rules = [
            "{}",
            "{sources: []}",
            "{sources: [{type: ServiceAccount, serviceAccount: {name: '*'}}]}",
            "{sources: [{type: ServiceAccount, serviceAccount: {name: web, namespace: shop}}]}",
            "{sources: [{type: SPIFFE, spiffe: 'spiffe://other.example/a'}]}",
            "{sources: [{type: TrustDomain, trustDomain: other.example}]}",
            "{sources: [{type: IPBlock, ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}",
            "{networkAttributes: {ports: [8080, 9090]}}",
            "{httpAttributes: {hosts: ['*.example'], methods: [GET], paths: [{type: Exact, value: /a}], headers: [{name: x-role, value: a}]}}",
        ];
        for rule in rules {
            assert_eq!(wrong(head, &format!("  rules: [{rule}]\n")), None, "{rule}");
        }
    }

    #[test]
    fn what_a_policy_cannot_mean_is_told_with_its_place() {
        let head = "  action: ALLOW\n  targetRefs: ";
        let targets = [
            ("[]", "6:15: spec.targetRefs: a policy needs a target"),
            ("[{kind: Service}]", "6:16: spec.targetRefs[0]: kind Service needs `name`"),
            ("[{kind: Pod}]", "6:16: spec.targetRefs[0]: kind Pod needs `selector`"),
            (
                "[{kind: Pod, selector: {}, name: a}]",
                "6:16: spec.targetRefs[0]: `name` does not go with kind Pod",
            ),
            ("[{kind: Service, name: A}]", "6:38: spec.targetRefs[0].name: `A` is not the name of a Service"),
            ("[{kind: Gateway, name: a}]", "6:23: unknown variant `Gateway`"),
            (
                "[{kind: Pod, selector: {matchLabels: {a: b}}}]",
                "6:38: spec.targetRefs[0].selector: workloads cannot",
            ),
            ("[{group: apps, kind: Service, name: a}]", "6:24: spec.targetRefs[0].group: `apps` is not"),
        ];
        for (target, wanted) in targets {
            let error = wrong(head, &format!("{target}\n")).expect(target);
            assert!(error.starts_with(&format!("mesh.yaml:{wanted}")), "{target}: {error}");
        }
        let head = "  targetRefs: [{kind: Pod, selector: {}}]\n  action: ALLOW\n  rules:\n";
        let rules = [
            ("sources: [{type: SPIFFE}]", "type SPIFFE needs `spiffe`"),
            (
                "sources: [{type: SPIFFE, spiffe: 'spiffe://a', trustDomain: b}]",
                "`trustDomain` does not go with type SPIFFE",
            ),
            (
                "sources: [{type: SPIFFE, spiffe: 'spiffe://a'}]",
                "`spiffe://a`: names nobody of its trust domain",
            ),
            ("sources: [{type: SPIFFE, spiffe: 'http://a/b'}]", "`http://a/b`: "),
            ("sources: [{type: TrustDomain, trustDomain: a/b}]", "`a/b` is not a trust domain"),
            ("sources: [{type: ServiceAccount, serviceAccount: {name: 'a*'}}]", "`a*` is neither"),
            (
                "sources: [{type: ServiceAccount, serviceAccount: {name: a, namespace: '*'}}]",
                "`*` is not the name of a namespace",
            ),
            (
                "sources: [{type: IPBlock, ipBlock: {cidr: 10.0.0.0}}]",
                "`10.0.0.0` is not a block of addresses",
            ),
            ("sources: [{type: IPBlock, ipBlock: {cidr: 10.0.0.0/33}}]", "`10.0.0.0/33` is not a block"),
            (
                "sources: [{type: IPBlock, ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]",
                "`11.0.0.0/16` is not within `cidr`",
            ),
            (
                "sources: [{type: IPBlock, ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/7]}}]",
                "`10.0.0.0/7` is not within `cidr`",
            ),
            ("httpAttributes: {hosts: ['a:80']}", "`a:80` is not a host name"),
            ("httpAttributes: {paths: [{type: Exact, value: 'a'}]}", "`a` does not start with `/`"),
            ("httpAttributes: {paths: [{type: Exact, value: '/a?b'}]}", "`/a?b` contains `?`"),
            ("httpAttributes: {paths: [{type: RegularExpression, value: '('}]}", "does not compile"),
            (
                "httpAttributes: {headers: [{name: x-forwarded-client-cert, value: a}]}",
                "proxies write `x-forwarded-client-cert` themselves",
            ),
            ("httpAttributes: {headers: [{name: 'a b', value: a}]}", "`a b` is not a name"),
            ("networkAttributes: {ports: [0]}", "0 is not a port"),
            ("from: web", "unknown field `from`"),
        ];
        for (rule, wanted) in rules {
            let error = wrong(head, &format!("  - {rule}\n")).expect(rule);
            assert!(error.starts_with("mesh.yaml:8:") && error.contains(wanted), "{rule}: {error}");
        }
    }
}
