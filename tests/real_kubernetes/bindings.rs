//! Annotations that are added, changed and removed, and Deployments and namespaces that are deleted.

use crate::world::{KEY, World};

/// D1, D3, D5, D6: the annotation is added, changed, broken, fixed and removed, with kubectl.
#[test]
fn annotations() {
    let world = World::new();
    let daemon = world.run(&["--epg-grace", "0"]);
    world.deploy("web", None, 2);
    world.settle();
    assert!(!world.exists("E"));
    let annotate = |value: &str| {
        world.kubectl(&["annotate", "--overwrite", "deployment", "web", &format!("{KEY}={value}")]);
    };
    annotate(&world.annotation("E"));
    world.until_follows("E", "web", 2, &[]);
    annotate(&world.annotation("F"));
    world.until_follows("F", "web", 2, &[]);
    world.until_gone("E");
    annotate("{broken");
    daemon.until_logged("invalid annotation: not a JSON object");
    world.settle();
    world.until_follows("F", "web", 2, &[]);
    annotate(&world.annotation("E"));
    world.until_follows("E", "web", 2, &[]);
    world.kubectl(&["annotate", "deployment", "web", &format!("{KEY}-")]);
    world.until_gone("E");
    world.until_gone("F");
    assert_eq!(world.apic.faults_raised().len(), 0);
}

/// D6: a Deployment is deleted in the background, in the foreground, and so that its Pods stay.
#[test]
fn deletions() {
    let world = World::new();
    let _daemon = world.run(&["--epg-grace", "0"]);
    for cascade in ["background", "foreground", "orphan"] {
        world.deploy("web", Some("E"), 2);
        world.until("both Pods run", || world.addresses("web").len() == 2);
        world.until_follows("E", "web", 2, &[]);
        world.kubectl(&["delete", "deployment", "web", &format!("--cascade={cascade}")]);
        world.until_gone("E");
        if cascade == "orphan" {
            assert_eq!(world.addresses("web").len(), 2, "its Pods are there still");
            world.kubectl(&["delete", "replicaset", "--all"]);
        }
        world.until("its Pods are gone", || world.pods("web").is_empty());
    }
}

/// D6: a namespace goes with everything in it.
#[test]
fn a_deleted_namespace() {
    let world = World::new();
    let _daemon = world.run(&["--epg-grace", "0"]);
    world.deploy("web", Some("E"), 2);
    world.deploy("api", Some("F"), 2);
    world.until_follows("E", "web", 2, &[]);
    world.until_follows("F", "api", 2, &[]);
    world.cluster.kubectl(&["delete", "namespace", &world.namespace, "--wait=false"]);
    world.until_gone("E");
    world.until_gone("F");
}
