//! Leader election between several daemons with one Lease in the real cluster.

use crate::world::World;

/// K4: one of three leads, which kubectl shows; the next one takes over after its clean stop and after its crash, and
/// the fabric follows the cluster all the time.
#[test]
fn leadership_moves_between_three_daemons() {
    let world = World::new();
    let flags = ["--leader-elect", "--lease-name", "aci-sync", "--epg-grace", "0"];
    let holder = || {
        let path = "{.spec.holderIdentity}";
        world.cluster.kubectl(&[
            "--namespace=kube-system",
            "get",
            "lease",
            "aci-sync",
            &format!("--output=jsonpath={path}"),
        ])
    };
    let mut first = world.run(&flags);
    first.until_logged("acquired leadership");
    let (leader, mut second) = (holder(), world.run(&flags));
    second.until_logged("standby: another process leads");
    let mut third = world.run(&flags);
    third.until_logged("standby: another process leads");
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);

    assert_eq!(first.stop().0, Some(0));
    let leads = |it: &crate::e2e_world::Daemon| it.count("acquired leadership") > 0;
    world.until("another leads", || leads(&second) || leads(&third));
    assert_ne!(holder(), leader);
    world.kubectl(&["scale", "deployment", "web", "--replicas=4"]);
    world.until_follows("E", "web", 4, &[]);

    let (crashed, last) = if leads(&second) { (&mut second, &mut third) } else { (&mut third, &mut second) };
    crashed.kill();
    world.kubectl(&["delete", "deployment", "web"]);
    world.until("the last one takes over", || leads(last));
    world.until_gone("E");
    assert_eq!(last.stop().0, Some(0));
}
