//! What `kubectl describe` shows.

use crate::world::{KEY, World};

/// K5: a Deployment's first sync and an invalid annotation are Events of the Deployment.
#[test]
fn kubectl_describe_shows_events() {
    let world = World::new();
    let _daemon = world.run(&[]);
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);
    let described = |what: &[&str]| {
        let text = world.kubectl(&["describe", "deployment", "web"]);
        text.lines().any(|line| what.iter().all(|it| line.contains(it)))
    };
    let dn = world.dn("E");
    world.until("the first sync is described", || described(&["Normal", "Synced", "aci-sync", &dn]));
    world.kubectl(&["annotate", "--overwrite", "deployment", "web", &format!("{KEY}=[]")]);
    world.until("the invalid annotation is described", || described(&["Warning", "InvalidAnnotation", "aci-sync"]));
}
