//! The rights that aci-sync needs, one for each line of `scripts/kubernetes-rbac.yaml` and
//! `scripts/kubernetes-rbac-workloads.yaml` (a test compares).

use crate::config::Config;
use crate::kube::Right;
use crate::kube::kinds::{self, KindInfo};
use crate::model::kubernetes::Kind;

/// The name of the namespace whose UID is the default cluster id.
const KUBE_SYSTEM: &str = "kube-system";

/// A right, and whether a run works without it.
pub(super) struct Needed<'a> {
    pub(super) right: Right<'a>,
    pub(super) is_optional: bool,
}

/// What these settings need.
pub(super) fn needed(config: &Config) -> Vec<Needed<'_>> {
    let lease = config.lease.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    list(&config.rules.kinds, config.cluster_id.is_none(), config.events, lease)
}

fn list<'a>(kinds: &[Kind], needs_id: bool, events: bool, lease: Option<(&'a str, &'a str)>) -> Vec<Needed<'a>> {
    let mut all = Vec::new();
    for KindInfo { api_version, plural: resource, .. } in kinds.iter().map(|it| kinds::info(*it)) {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        for verb in ["list", "watch"] {
            all.push(Right { verb, group, resource, namespace: "", name: "" });
        }
    }
    if needs_id {
        all.push(Right { verb: "get", group: "", resource: "namespaces", namespace: "", name: KUBE_SYSTEM });
    }
    if let Some((namespace, name)) = lease {
        let of_lease = |verb, name| Right { verb, group: "coordination.k8s.io", resource: "leases", namespace, name };
        all.extend([of_lease("get", name), of_lease("update", name), of_lease("create", "")]);
    }
    let mut all: Vec<Needed<'a>> = all.into_iter().map(|right| Needed { right, is_optional: false }).collect();
    if events {
        let right = Right { verb: "create", group: "events.k8s.io", resource: "events", namespace: "", name: "" };
        all.push(Needed { right, is_optional: true });
    }
    all
}

/// Every right on everything, which aci-sync does not need.
pub(super) const EVERYTHING: Right<'_> = Right { verb: "*", group: "*", resource: "*", namespace: "", name: "" };

/// A right for people.
pub(super) fn describe(right: &Right<'_>) -> String {
    let Right { verb, group, resource, namespace, name } = right;
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    let name = if name.is_empty() { String::new() } else { format!("/{name}") };
    let namespace = if namespace.is_empty() { String::new() } else { format!(" in {namespace}") };
    format!("{verb} {resource}{group}{name}{namespace}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::files;

    /// T6, G1: the rights that are asked for are those that the manifests grant: of workloads Deployments alone by default.
    #[test]
    fn rights_are_those_of_the_manifests() {
        let asked = |kinds: &[Kind]| -> BTreeSet<_> {
            let all = list(kinds, true, true, Some(("kube-system", "aci-sync"))).into_iter().map(|it| it.right);
            let all = all.map(|it| [it.verb, it.group, it.resource, it.name].map(str::to_owned));
            all.map(|[a, b, c, d]| (a, b, c, d)).collect()
        };
        let by_default = granted("kubernetes-rbac.yaml");
        assert_eq!(asked(&Kind::DEFAULT), by_default);
        let more = granted("kubernetes-rbac-workloads.yaml");
        assert_eq!(asked(&Kind::ALL), by_default.union(&more).cloned().collect());
        assert!(by_default.is_disjoint(&more));
    }

    /// The verb, group, resource and name of each right in a manifest.
    fn granted(name: &str) -> BTreeSet<(String, String, String, String)> {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
        let text = String::from_utf8(files::read(&file, 1 << 20).unwrap()).unwrap();
        let mut granted = BTreeSet::new();
        for rule in text.split("- apiGroups: ").skip(1) {
            let lists = |name: &str| -> Vec<String> {
                let after =
                    if name.is_empty() { Some(rule) } else { rule.split_once(&format!("{name}: ")).map(|it| it.1) };
                let list = after.and_then(|it| it.strip_prefix('[')?.split_once(']')).map_or("", |it| it.0);
                list.split(", ").map(|it| it.trim_matches('"').to_owned()).collect()
            };
            for group in lists("") {
                for resource in lists("resources") {
                    for verb in lists("verbs") {
                        for name in lists("resourceNames") {
                            granted.insert((verb.clone(), group.clone(), resource.clone(), name));
                        }
                    }
                }
            }
        }
        granted
    }
}
