//! The example of the README from apply to delete, and everyday changes of a Deployment.

use crate::world::World;

/// D1, P2, P4, O1: the README's example is applied with kubectl and followed until it is deleted; nothing but what the
/// rights of `scripts/kubernetes-rbac.yaml` name was asked of the server.
#[test]
fn the_example_of_the_readme() {
    let world = World::named("multicast", "TEN_K8_C1", "L3O_K8_C1");
    let mut daemon = world.run(&["--epg-grace", "0"]);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    world.cluster.apply(readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap());
    world.until_follows("EPG_K8_APP_MCAST", "mcast", 2, &[]);

    let uid = world.cluster.kubectl(&["get", "namespace", "kube-system", "--output", "jsonpath={.metadata.uid}"]);
    let epg = world.apic.get("uni/tn-TEN_K8_C1/out-L3O_K8_C1/instP-EPG_K8_APP_MCAST").unwrap();
    assert_eq!(epg["annotation"], format!("orchestrator:aci-sync:{uid}").as_str());
    let names = world.apic.subnets(&world.dn("EPG_K8_APP_MCAST")).into_values().map(|it| it["name"].clone());
    let mut names: Vec<String> = names.map(|it| it.as_str().unwrap().to_owned()).collect();
    let mut pods: Vec<String> = world.pods("mcast").iter().map(|it| it["metadata"]["name"].to_string()).collect();
    pods.iter_mut().for_each(|it| *it = format!("multicast::{}", it.trim_matches('"')));
    names.sort();
    pods.sort();
    assert_eq!(names, pods);

    world.kubectl(&["delete", "deployment", "mcast"]);
    world.until_gone("EPG_K8_APP_MCAST");
    assert_eq!(daemon.stop().0, Some(0));
}

/// P1, P2, P3: more Pods, none, some again, and a rollout, in which the ReplicaSet changes.
#[test]
fn scales_and_rollouts() {
    let world = World::new();
    let _daemon = world.run(&[]);
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);
    for replicas in [7, 0, 3] {
        world.kubectl(&["scale", "deployment", "web", &format!("--replicas={replicas}")]);
        world.until_follows("E", "web", replicas, &[]);
    }
    let before = world.a_pod("web");
    world.kubectl(&["set", "image", "deployment/web", "c=another"]);
    world.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);
    world.until_follows("E", "web", 3, &[]);
    let hash = |name: &str| name.rsplit('-').nth(1).unwrap().to_owned();
    assert_ne!(hash(&before), hash(&world.a_pod("web")), "it is another ReplicaSet");
    assert_eq!(world.apic.faults_raised().len(), 0);
}
