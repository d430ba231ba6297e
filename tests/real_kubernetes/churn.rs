//! Random changes for some minutes; in the end the fabric must hold what kubectl and jq say.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::node::{self, DUAL};
use crate::world::{KEY, World};

/// How long the cluster changes.
const BUSY: Duration = Duration::from_secs(120);

/// Enough for this: Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// P1-P4, S1, D1-D6, R6: whatever changes, in the end the fabric holds what kubectl and jq say, and no write follows.
#[test]
fn a_busy_cluster() {
    let world = World::new();
    let mut daemon = world.run(&["--epg-grace", "1s"]);
    let mut random = Random(std::process::id().into());
    println!("the seed is {}", random.0);
    let end = Instant::now() + BUSY;
    while Instant::now() < end {
        something_happens(&world, &mut random);
    }
    world.until("every Pod that should be runs", || {
        let path = format!("/api/v1/namespaces/{}", world.namespace);
        let pods = world.cluster.read(&format!("{path}/pods"))["items"].as_array().cloned().unwrap_or_default();
        let settled =
            pods.iter().all(|it| it["status"]["podIP"].is_string() && it["metadata"]["deletionTimestamp"].is_null());
        let deployments = world.cluster.read(&format!("/apis/apps/v1/namespaces/{}/deployments", world.namespace));
        settled
            && deployments["items"].as_array().is_some_and(|all| {
                all.iter().all(|it| {
                    let (spec, status) = (&it["spec"]["replicas"], &it["status"]["replicas"]);
                    status.as_u64().unwrap_or_default() == spec.as_u64().unwrap_or_default()
                })
            })
    });
    let expected = expected(&world);
    world.until("the fabric holds what kubectl and jq say", || held(&world) == expected);
    // An EPG outlives its last Deployment by its grace.
    let named = named(&world);
    world.until("what no Deployment names any more is gone", || epgs(&world) == named);
    world.settle();
    let writes = world.apic.writes().len();
    world.settle();
    let own = |it: &&sim::apic::Entry| !it.body.contains("settle-") && !it.path.contains("settle-");
    let more: Vec<_> = world.apic.writes()[writes..].iter().filter(own).map(|it| it.body.clone()).collect();
    assert_eq!(more, Vec::<String>::new(), "nothing is left to write");
    assert_eq!(held(&world), expected);
    assert_eq!(world.apic.faults_raised().len(), 0);
    assert_eq!(daemon.stop().0, Some(0));
}

fn something_happens(world: &World, random: &mut Random) {
    let name = format!("web-{}", random.below(6));
    let epg = format!("E{}", random.below(4));
    let exists =
        world.cluster.read(&format!("/apis/apps/v1/namespaces/{}/deployments/{name}", world.namespace))["spec"]
            .is_object();
    match random.below(9) {
        _ if !exists => {
            let mut manifest = world.deployment(&name, (random.below(4) > 0).then_some(&epg), random.below(4));
            if random.below(3) == 0 {
                manifest["spec"]["template"]["metadata"]["annotations"] = json!({DUAL: "yes"});
            }
            world.cluster.apply(&manifest.to_string());
        }
        0 => drop(world.kubectl(&["delete", "deployment", &name, "--wait=false"])),
        1 | 2 => {
            let replicas = format!("--replicas={}", random.below(6));
            world.kubectl(&["scale", "deployment", &name, &replicas]);
        }
        3 => {
            let value = format!("{KEY}={}", world.annotation(&epg));
            world.kubectl(&["annotate", "--overwrite", "deployment", &name, &value]);
        }
        4 => drop(world.kubectl(&["annotate", "deployment", &name, &format!("{KEY}-")])),
        5 => {
            let image = format!("c=image-{}", random.below(1000));
            world.kubectl(&["set", "image", &format!("deployment/{name}"), &image]);
        }
        6 => {
            if let Some(pod) = world.pods(&name).first() {
                world.cluster.delete(&node::path(pod));
            }
        }
        7 => {
            if let Some(pod) = world.pods(&name).first() {
                let status = json!({"status": {"phase": "Failed", "reason": "Evicted"}});
                world.cluster.send("PATCH", &format!("{}/status", node::path(pod)), &status);
            }
        }
        _ => {
            let service = json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": world.namespace},
                "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}]}});
            world.cluster.apply(&service.to_string());
            let own = name.trim_start_matches("web-");
            let ips = [json!([]), json!([{"ip": format!("10.251.{own}.{}", 1 + random.below(200))}])];
            let status = json!({"status": {"loadBalancer": {"ingress": ips[usize::from(random.below(3) > 0)]}}});
            let path = format!("/api/v1/namespaces/{}/services/{name}/status", world.namespace);
            world.cluster.send("PATCH", &path, &status);
        }
    }
}

fn expected(world: &World) -> BTreeSet<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real_kubernetes/expected.sh");
    let path = format!("{}:{}", world.cluster.file("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(script);
    let done =
        command.arg(&world.namespace).env("PATH", path).env("KUBECONFIG", world.cluster.file("admin.kubeconfig"));
    let output = done.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The EPGs that Deployments name.
fn named(world: &World) -> BTreeSet<String> {
    let path = format!("/apis/apps/v1/namespaces/{}/deployments", world.namespace);
    let deployments = world.cluster.read(&path)["items"].as_array().cloned().unwrap();
    let annotations = deployments.iter().filter_map(|it| it["metadata"]["annotations"][KEY].as_str());
    let epg = |it: &str| serde_json::from_str::<Value>(it).unwrap()["epg"].as_str().unwrap().to_owned();
    annotations.map(epg).collect()
}

fn epgs(world: &World) -> BTreeSet<String> {
    let epgs = world.apic.epgs(&format!("uni/tn-{}/out-{}", world.tenant, world.l3out)).into_iter();
    epgs.filter(|it| !it.starts_with("settle-")).collect()
}

fn held(world: &World) -> BTreeSet<String> {
    let epgs = world.apic.epgs(&format!("uni/tn-{}/out-{}", world.tenant, world.l3out));
    let subnets = epgs.iter().flat_map(|epg| world.subnets(epg).into_iter().map(move |it| format!("{epg} {it}")));
    subnets.collect()
}
