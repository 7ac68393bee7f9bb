//! The rules of a PeerAuthentication that its types do not say.

use super::{Verdict, authorization};
use crate::document::PeerAuthenticationSpec;

pub(super) fn peers(spec: &PeerAuthenticationSpec) -> Verdict {
    authorization::targets(&spec.target_refs)
}

#[cfg(test)]
mod tests {
    use crate::document::parse;

    /// What is wrong with a PeerAuthentication of this `spec`.
    fn wrong(spec: &str) -> Option<String> {
        let text = format!(
            "apiVersion: ringway.io/v1alpha1\nkind: PeerAuthentication\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        parse(&"mesh.yaml".into(), &text).pop().unwrap().err().map(|error| error.to_string())
    }

    #[test]
    fn who_it_is_about_and_what_it_demands_must_be_said_in_full() {
        for spec in [
            "{targetRefs: [{kind: Service, name: orders}], mtls: {mode: Permissive}}",
            "{targetRefs: [{kind: Pod, selector: {}}, {kind: Service, name: orders}], mtls: {mode: Strict}}",
        ] {
            assert_eq!(wrong(spec), None, "{spec}");
        }
        for (spec, wanted) in [
            ("{targetRefs: [], mtls: {mode: Strict}}", "spec.targetRefs: a policy needs a target"),
            (
                "{targetRefs: [{kind: Service}], mtls: {mode: Strict}}",
                "spec.targetRefs[0]: kind Service needs `name`",
            ),
            (
                "{targetRefs: [{kind: Pod, selector: {matchLabels: {a: b}}}], mtls: {mode: Strict}}",
                "spec.targetRefs[0].selector: workloads cannot",
            ),
            ("{targetRefs: [{kind: Pod, selector: {}}]}", "missing field `mtls`"),
            ("{targetRefs: [{kind: Pod, selector: {}}], mtls: {}}", "missing field `mode`"),
            (
                "{targetRefs: [{kind: Pod, selector: {}}], mtls: {mode: Disable}}",
                "unknown variant `Disable`, expected one of Permissive, Strict",
            ),
            ("{mtls: {mode: Strict}}", "missing field `targetRefs`"),
            (
                "{targetRefs: [{kind: Pod, selector: {}}], mtls: {mode: Strict}, portLevelMtls: {}}",
                "unknown field `portLevelMtls`",
            ),
        ] {
            let error = wrong(spec).expect(spec);
            assert!(error.starts_with("mesh.yaml:4:") && error.contains(wanted), "{spec}: {error}");
        }
    }
}
