//! Others on the same fabric: a second daemon, another cluster, an earlier life, the Python application, and people
//! who revert changes. Each leaves foreign objects alone, everything converges, and there are no mass deletions.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

use crate::world::{DN_E, DN_F, Daemon, E, F, LIMIT, MARK, World};
use serde_json::{Value, json};
use sim::kube::{self, Credential, SimKube};
use sim::pki::KeyForm;

const OTHER: &str = "orchestrator:aci-sync:other";

/// Another cluster on the same fabric, with a cluster id of its own.
struct Neighbour {
    kube: SimKube,
    kubeconfig: String,
}

impl Neighbour {
    fn new(world: &World) -> Neighbour {
        let kube = SimKube::start(kube::Options::default());
        let text = kube.kubeconfig(Credential::Certificate(KeyForm::Sec1));
        let kubeconfig = world.folder.file("other-kubeconfig", &text).display().to_string();
        Neighbour { kube, kubeconfig }
    }

    fn run(&self, world: &World, flags: &[&str]) -> Daemon {
        let mut command: Command = world.command(&[&["run"], flags].concat());
        command.env("ACI_SYNC_KUBECONFIG", &self.kubeconfig).env("ACI_SYNC_CLUSTER_ID", "other");
        Daemon::start(command)
    }

    /// Waits until its daemon has served everything that was asked before.
    fn settle(&self, world: &World) {
        let name = format!("other-{}", world.apic.writes().len());
        let annotation = json!({"tenant": "T", "l3out": "M", "epg": name}).to_string();
        self.kube.deploy("settle", &name, Some(&annotation), &[]);
        world.until("the other has served everything", |world| {
            world.apic.get(&format!("uni/tn-T/out-M/instP-{name}")).is_some()
        });
        self.kube.delete("deployments", "settle", &name);
    }
}

/// The marks of an EPG's subnets.
fn marks(world: &World, dn: &str) -> BTreeMap<String, String> {
    world.apic.subnets(dn).into_iter().map(|(ip, it)| (ip, it["annotation"].as_str().unwrap().to_owned())).collect()
}

/// The writes from one moment on that are not about settling.
fn writes_since(world: &World, before: usize) -> Vec<String> {
    let all = world.apic.writes().split_off(before).into_iter().filter(|it| it.path.contains("out-L"));
    all.map(|it| format!("{} {} {}", it.method, it.path, it.body)).collect()
}

/// F26 (I2, I3): two daemons of one cluster id and one cluster do no harm: the same fabric comes out, and then both
/// rest, whatever happens on either side.
#[test]
fn two_daemons_of_one_cluster_converge() {
    World::both(|world| {
        world.apic.set("uni/tn-T/out-L/instP-X", "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
        let theirs = world.apic.get("uni/tn-T/out-L/instP-X").unwrap()["annotation"].clone();
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        world.kube.deploy("c", "guest", Some(r#"{"tenant":"T","l3out":"L","epg":"X"}"#), &["10.0.2.1"]);
        let mut one = world.run(&["--epg-grace", "0"]);
        let two = world.run(&["--epg-grace", "0"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        world.until_holds("X", &["10.0.2.1"]);
        world.kube.delete("pods", "a", "web-646c8dfd75-0");
        world.kube.pod("a", "web", "new", &["10.0.0.4"]);
        world.kube.deploy("b", "other", Some(F), &["10.0.1.1"]);
        world.apic.admin_delete(&format!("{DN_E}/extsubnet-[10.0.0.2/32]")).unwrap();
        world.until_holds("E", &["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        world.until_holds("F", &["10.0.1.1"]);
        world.kube.annotate("b", "other", Some(E));
        world.until_holds("E", &["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.1.1"]);
        world.until("the old EPG has gone", |world| world.apic.get(DN_F).is_none());
        for daemon in [&one, &two] {
            daemon.until_logged("APIC session established");
            assert_eq!(daemon.count("bug: plan failed"), 0, "{}", daemon.log());
        }
        // What settles is the work of one of them; the other one may still have something to do, but comes to rest, too.
        let end = Instant::now() + LIMIT;
        loop {
            let before = world.apic.writes().len();
            world.settle();
            world.settle();
            let since = writes_since(world, before);
            if since.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "they do not rest: {since:?}");
        }
        assert_eq!(world.apic.get("uni/tn-T/out-L/instP-X").unwrap()["annotation"], theirs);
        // One of them dies, and the other one is not affected.
        one.kill();
        world.kube.delete("pods", "a", "web-646c8dfd75-1");
        world.until_holds("E", &["10.0.0.3", "10.0.0.4", "10.0.1.1"]);
        assert_eq!(world.apic.faults_standing().len(), 0);
    });
}

/// F27 (O2, O5, D6): two clusters share a tenant, an L3Out and an EPG. Neither touches the other's subnets, neither
/// repairs what the other did, and the EPG goes when the last of them leaves, by the hand of the one that made it.
#[test]
fn two_clusters_share_an_epg() {
    World::both(|world| {
        let other = Neighbour::new(world);
        let flags = ["--epg-grace", "0"];
        let mine = world.run(&flags);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let theirs = other.run(world, &flags);
        other.kube.deploy("a", "web", Some(E), &["10.8.0.1"]);
        world.until_holds("E", &["10.0.0.1", "10.8.0.1"]);
        let both = [("10.0.0.1/32".to_owned(), MARK.to_owned()), ("10.8.0.1/32".to_owned(), OTHER.to_owned())];
        assert_eq!(marks(world, DN_E), both.into());
        world.settle();
        other.settle(world);
        let before = world.apic.writes().len();
        world.settle();
        other.settle(world);
        assert_eq!(writes_since(world, before), Vec::<String>::new(), "no ping-pong");
        assert!(world.apic.class("tagAnnotation").is_empty(), "an EPG of another aci-sync is no foreign one (O4)");

        // I, who made it, leave first: it stays for the other, and goes with the other's last subnet.
        world.kube.delete("deployments", "a", "web");
        world.until_holds("E", &["10.8.0.1"]);
        mine.until_logged("no longer desired; keeping it while it holds");
        other.settle(world);
        assert_eq!(world.apic.get(DN_E).unwrap()["annotation"], MARK);
        other.kube.delete("deployments", "a", "web");
        world.until("the EPG has gone", |world| world.apic.get(DN_E).is_none());

        // The other way round: the guest leaves, and mine stays.
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        other.kube.deploy("a", "web", Some(E), &["10.8.0.1"]);
        world.until_holds("E", &["10.0.0.1", "10.8.0.1"]);
        other.kube.delete("deployments", "a", "web");
        world.until_holds("E", &["10.0.0.1"]);
        other.settle(world);
        assert_eq!(world.apic.get(DN_E).unwrap()["annotation"], MARK);
        assert_eq!((mine.count("bug: plan failed"), theirs.count("bug: plan failed")), (0, 0));
    });
}

/// F27 (S3): both clusters want the same address in EPGs of one VRF: the first one has it, the other one reports a
/// finding and waits.
#[test]
fn two_clusters_want_one_address() {
    World::both(|world| {
        let other = Neighbour::new(world);
        let _mine = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let theirs = other.run(world, &["--epg-grace", "0"]);
        other.kube.deploy("a", "web", Some(F), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("F", &["10.0.0.2"]);
        theirs.until_logged("has the same prefix in this VRF");
        world.settle();
        other.settle(world);
        assert!(world.holds("E", &["10.0.0.1"]) && world.holds("F", &["10.0.0.2"]));
        world.kube.delete("deployments", "a", "web");
        world.until_holds("F", &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(world.apic.faults_raised().len(), 0, "never in both");
    });
}

/// F28 (R5, R2): another program overwrites the mark of our EPG and the scope of our subnet each time again. Six
/// repairs each, then one a minute; everything else goes on, and what it added stays.
#[test]
fn a_conflict_over_marks_and_scopes_is_throttled() {
    let subnet = format!("{DN_E}/extsubnet-[10.0.0.1/32]");
    for (dn, class, name, value, good) in [
        (DN_E, "l3extInstP", "annotation", "orchestrator:terraform", MARK),
        (&*subnet, "l3extSubnet", "annotation", "orchestrator:terraform", MARK),
        (&*subnet, "l3extSubnet", "scope", "shared-rtctrl", "import-security,shared-rtctrl"),
    ] {
        let world = World::new();
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let value_now = |world: &World| world.apic.get(dn).unwrap()[name].clone();
        for n in 0..6 {
            world.apic.set(dn, class, &[(name, value)]).unwrap();
            world.until(&format!("{name} of {class} is repaired, {n}"), |world| value_now(world) == good);
        }
        world.apic.set(dn, class, &[(name, value)]).unwrap();
        daemon.until_logged("another writer keeps reverting it");
        world.kube.deploy("b", "other", Some(F), &["10.0.1.1"]);
        world.until_holds("F", &["10.0.1.1"]);
        world.settle();
        assert_eq!(value_now(&world), value, "{class} {name}: left alone for now");
    }
}

/// F38 (O3, O6): what an earlier cluster id made is foreign until `--adopt-id` names it; then what is desired is taken
/// over in place, with the contracts that people gave it, and the rest is left alone and reported. Nothing goes in
/// masses.
#[test]
fn a_former_cluster_id_is_adopted_only_on_request() {
    World::both(|world| {
        let old = |flags: &[&str]| {
            let mut command = world.command(&[&["run"], flags].concat());
            command.env("ACI_SYNC_CLUSTER_ID", "old");
            Daemon::start(command)
        };
        let mut daemon = old(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.kube.deploy("b", "gone", Some(F), &["10.0.1.1"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("F", &["10.0.1.1"]);
        daemon.kill();
        let contract = json!({"fvRsCons": {"attributes": {"tnVzBrCPName": "web"}}});
        world.apic.admin_post(DN_E, &contract).unwrap();
        world.kube.delete("deployments", "b", "gone");

        let of = |mo: &Value| json!([mo["dn"], mo["annotation"], mo["name"], mo["descr"]]);
        let snapshot = |world: &World, dn: &str| -> Vec<Value> {
            world.apic.get(dn).iter().chain(world.apic.subnets(dn).values()).map(of).collect()
        };
        let before = [DN_E, DN_F].map(|dn| snapshot(world, dn));
        let mut daemon = world.run(&["--epg-grace", "0"]);
        daemon.until_logged("old");
        world.settle();
        assert_eq!([DN_E, DN_F].map(|dn| snapshot(world, dn)), before, "without --adopt-id all of it is foreign");
        daemon.kill();

        let writes = world.apic.writes().len();
        let daemon = world.run(&["--epg-grace", "0", "--adopt-id", "old"]);
        world.until("what is desired is ours", |world| {
            world.apic.get(DN_E).unwrap()["annotation"] == MARK && marks(world, DN_E).values().all(|it| it == MARK)
        });
        daemon.until_logged("legacy subnets that are not desired; leaving them alone");
        world.settle();
        assert_eq!(snapshot(world, DN_F), before[1], "what no Deployment wants is left alone");
        assert!(world.apic.get(&format!("{DN_E}/rscons-web")).is_some());
        let since = writes_since(world, writes);
        assert!(since.len() <= 2 && since.iter().all(|it| !it.contains("deleted")), "{since:?}");
    });
}

/// O2, R1, R5: aci-sync as a guest in an EPG of aci-containers, which deletes at each of its full syncs what it did not
/// write there. The guest's subnet is out for a moment and comes back each time; the EPG and what is in it stay as they
/// are; there is no conflict, because aci-containers does not react to the subnet that comes back.
#[test]
fn as_a_guest_of_aci_containers() {
    World::both(|world| {
        const HOST: [(&str, &str); 2] = [("annotation", "orchestrator:aci-containers-controller"), ("descr", "host")];
        world.apic.set(DN_E, "l3extInstP", &HOST).unwrap();
        let (theirs, ours) = (format!("{DN_E}/extsubnet-[10.9.0.0/16]"), format!("{DN_E}/extsubnet-[10.0.0.1/32]"));
        world.apic.set(&theirs, "l3extSubnet", &HOST[..1]).unwrap();
        // The host's EPG has been there for long.
        world.apic.advance(std::time::Duration::from_secs(60));
        let before = world.apic.get(&theirs);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        let daemon = world.run(&[]);
        let is_there = |world: &World| world.apic.get(&ours).is_some_and(|it| it["annotation"] == MARK);
        world.until("the guest is in", is_there);
        for _full_sync in 0..4 {
            world.apic.admin_delete(&ours).unwrap();
            world.until("the guest is in again", is_there);
        }
        world.settle();
        let host = world.apic.get(DN_E).unwrap();
        assert_eq!((host["annotation"].as_str(), host["descr"].as_str()), (Some(HOST[0].1), Some("host")));
        assert_eq!(world.apic.get(&theirs), before);
        assert!(
            world.apic.writes().iter().all(|it| !it.body.contains(r#""name":"E""#)),
            "the EPG itself is not written"
        );
        assert_eq!(daemon.count("another writer keeps reverting it"), 0, "no conflict is reported");
    });
}
