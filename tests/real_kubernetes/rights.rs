//! The rights of `scripts/kubernetes-rbac.yaml`: exactly those in use by default, and the message if one is missing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::e2e_world::Daemon;
use crate::world::World;

const CLUSTER: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/aci-sync";
const NAMESPACE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/aci-sync";

fn pair((verb, resource): (&str, &str)) -> (String, String) {
    (verb.to_owned(), resource.to_owned())
}

/// The pairs of verb and resource that the roles grant.
fn granted(world: &World) -> BTreeSet<(String, String)> {
    let mut pairs = BTreeSet::new();
    for role in [CLUSTER, NAMESPACE].map(|path| world.cluster.read(path)) {
        for rule in role["rules"].as_array().unwrap() {
            let list = |name: &str| rule[name].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned());
            pairs.extend(list("verbs").flat_map(|verb| list("resources").map(move |of| (verb.clone(), of))));
        }
    }
    pairs
}

/// K3: every request that the suite made the daemon send so far is granted, and none was refused.
#[test]
fn only_granted_requests_are_sent() {
    let world = World::new();
    let mut daemon = world.run(&["--leader-elect"]);
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(daemon.count("permission denied"), 0, "{}", daemon.log());
    let mut used: BTreeSet<(String, String)> = world.cluster.requests().into_iter().collect();
    // `check` also sends what every user may send: system:basic-user and system:public-info-viewer.
    for of_every_user in [("create", "selfsubjectaccessreviews"), ("get", "")] {
        used.remove(&pair(of_every_user));
    }
    // A story about these kinds of workloads has a role of its own.
    used.retain(|(_, resource)| !["statefulsets", "daemonsets"].contains(&resource.as_str()));
    let always = [("get", "namespaces"), ("get", "leases"), ("update", "leases"), ("create", "events")];
    let lists = ["deployments", "pods", "services"].into_iter().flat_map(|of| [("list", of), ("watch", of)]);
    let always: BTreeSet<(String, String)> = lists.chain(always).map(pair).collect();
    assert!(used.is_superset(&always), "used {used:?}");
    let granted = granted(&world);
    assert!(used.is_subset(&granted), "used {used:?}");
    // A Lease is created once in a cluster's life.
    let seldom = [("create", "leases")].map(pair).into();
    assert_eq!(granted, always.union(&seldom).cloned().collect());
}

/// A role without one right, until it is dropped.
struct Without<'a> {
    world: &'a World,
    role: &'static str,
    rules: Value,
}

impl Without<'_> {
    fn new<'a>(world: &'a World, role: &'static str, verb: &str, resource: &str) -> Without<'a> {
        let rules = world.cluster.read(role)["rules"].clone();
        let mut fewer = Vec::new();
        for rule in rules.as_array().unwrap() {
            for of in rule["resources"].as_array().unwrap() {
                let mut rule = rule.clone();
                rule["resources"] = json!([of]);
                if of == resource {
                    rule["verbs"].as_array_mut().unwrap().retain(|it| it != verb);
                }
                fewer.push(rule);
            }
        }
        fewer.retain(|it| it["verbs"] != json!([]));
        let without = Without { world, role, rules };
        without.set(&Value::Array(fewer));
        without
    }

    fn set(&self, rules: &Value) {
        let patch = json!({"rules": rules});
        assert_eq!(self.world.cluster.send("PATCH", self.role, &patch), 200);
    }
}

impl Drop for Without<'_> {
    fn drop(&mut self) {
        self.set(&self.rules);
    }
}

/// K3, W1: without one right the message names the verb and the resource; nothing is deleted until all can be listed,
/// and it goes on by itself when the right is there.
#[test]
fn one_missing_permission() {
    let world = World::new();
    for (kind, resource) in [("deployment", "deployments"), ("pod", "pods"), ("service", "services")] {
        for verb in ["list", "watch"] {
            let mut daemon = world.run(&["--epg-grace", "0"]);
            world.deploy("web", Some("E"), 2);
            world.until_follows("E", "web", 2, &[]);
            assert_eq!(daemon.stop().0, Some(0));
            world.kubectl(&["delete", "deployment", "web"]);
            world.until("its Pods are gone", || world.pods("web").is_empty());

            let without = Without::new(&world, CLUSTER, verb, resource);
            let mut daemon = world.run(&["--epg-grace", "0"]);
            daemon.until_logged(&format!("cannot {verb} resource \\\"{resource}\\\""));
            if verb == "list" {
                assert!(world.exists("E"), "{kind}s were not listed");
                assert_eq!(world.subnets("E").len(), 2);
            }
            drop(without);
            world.until_gone("E");
            assert_eq!(daemon.stop().0, Some(0));
        }
    }
}

/// K3, K4, K5: the same for the rights on the Lease and on Events; one line reports each.
#[test]
fn one_missing_permission_of_the_others() {
    let world = World::new();
    for (role, verb, resource) in
        [(NAMESPACE, "get", "leases"), (NAMESPACE, "update", "leases"), (CLUSTER, "create", "events")]
    {
        let without = Without::new(&world, role, verb, resource);
        let mut daemon = world.run(&["--leader-elect", "--epg-grace", "0"]);
        world.deploy("web", Some("E"), 1);
        daemon.until_logged(&format!("cannot {verb} resource \\\"{resource}\\\""));
        assert_eq!(world.exists("E"), resource == "events", "{}", daemon.log());
        drop(without);
        world.until_follows("E", "web", 1, &[]);
        world.kubectl(&["delete", "deployment", "web"]);
        world.until_gone("E");
        assert_eq!(daemon.count(&format!("cannot {verb} resource")), 1, "{}", daemon.log());
        assert_eq!(daemon.stop().0, Some(0));
    }
}

/// T6: `check` passes with exactly the rights of the manifest, and finds each one that is missing: by the server's own
/// review, and, because that is no proof, by what is refused.
#[test]
fn check_finds_a_missing_right() {
    let world = World::new();
    world.deploy("web", Some("E"), 1);
    let check = || {
        let kubeconfig = world.cluster.file("service-account.kubeconfig");
        let mut program = Daemon::start(world.command(kubeconfig, &["check", "--leader-elect"]));
        (program.wait().code(), program.text("out"))
    };
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    for line in ["ok    kube.rights     11 of 11 rights; no right on everything", "ok    kube.lists      all 3 kinds"] {
        assert!(text.contains(line), "{text}");
    }
    for (role, verb, resource, code, lines) in [
        (CLUSTER, "watch", "pods", 1, ["FAIL  kube.rights     denied: watch pods", "FAIL  kube.lists "]),
        (CLUSTER, "list", "services", 1, ["FAIL  kube.rights     denied: list services", "FAIL  kube.lists "]),
        (CLUSTER, "get", "namespaces", 1, ["FAIL  kube.auth ", "skip  kube.rights "]),
        (NAMESPACE, "update", "leases", 1, ["FAIL  kube.rights     denied: update leases", "ok    kube.lists "]),
        (CLUSTER, "create", "events", 0, ["warn  kube.rights     denied: create events", "ok    kube.lists "]),
    ] {
        let without = Without::new(&world, role, verb, resource);
        // The server takes a moment to see the change.
        world.until(&format!("{lines:?}"), || {
            let (found, text) = check();
            found == Some(code) && lines.iter().all(|line| text.contains(line))
        });
        drop(without);
        world.until("all is well again", || check().1.contains("11 of 11 rights"));
    }
    assert!(world.apic.writes().is_empty());
}

/// O1: who may not read the namespace kube-system has to give a cluster id.
#[test]
fn without_a_cluster_id() {
    let world = World::new();
    let _without = Without::new(&world, CLUSTER, "get", "namespaces");
    let mut daemon = world.run(&[]);
    assert_eq!(daemon.wait().code(), Some(78));
    daemon.until_logged("cannot get resource \\\"namespaces\\\"");
    world.deploy("web", Some("E"), 1);
    let _daemon = world.run(&["--cluster-id", "me"]);
    world.until_follows("E", "web", 1, &[]);
}
