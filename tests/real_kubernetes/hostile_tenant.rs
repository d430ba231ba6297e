//! A hostile tenant of the cluster: what the role `edit` in one namespace can do to the others.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::cluster::User;
use crate::e2e_world::output;
use crate::e2e_world::peak;
use crate::world::{KEY, World, prefix};

const PAUSE: &str = "aci.haystacknetworks.com/pause";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/evil/deployments";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/evil/replicasets";
const PODS: &str = "/api/v1/namespaces/evil/pods";
const SERVICES: &str = "/api/v1/namespaces/evil/services";

/// L3Outs that the tenant may name and that are not there.
const MISSING: usize = 24;

/// The tenant: a ServiceAccount with the built-in ClusterRole `edit` in the namespace `evil`, by a token of its own.
struct Tenant<'a> {
    world: &'a World,
    user: User,
}

impl Tenant<'_> {
    fn new(world: &World) -> Tenant<'_> {
        let cluster = &world.cluster;
        world.make_namespace("evil");
        let binding = ["create", "rolebinding", "tenant", "--clusterrole=edit", "--serviceaccount=evil:tenant"];
        cluster.kubectl(&["--namespace=evil", "create", "serviceaccount", "tenant"]);
        cluster.kubectl(&[&["--namespace=evil"], &binding[..]].concat());
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let url = "/api/v1/namespaces/evil/serviceaccounts/tenant/token";
        let answer = cluster.kubectl_with(&["create", "--filename", "-", "--raw", url], &request.to_string());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        fs::write(cluster.file("tenant.token"), answer["status"]["token"].as_str().unwrap()).unwrap();
        let kubeconfig = fs::read_to_string(cluster.file("token-file.kubeconfig")).unwrap();
        let own = kubeconfig.replace("service-account.token", "tenant.token");
        fs::write(cluster.file("tenant.kubeconfig"), own).unwrap();
        let tenant = Tenant { world, user: cluster.as_user("tenant.kubeconfig") };
        // The server puts the role together at its start, and notices a binding a moment later.
        world.until("the tenant may edit its namespace", || tenant.may_create(DEPLOYMENTS, &deployment("any", "")));
        tenant
    }

    /// It may do what it does here, so it is made by its token.
    #[track_caller]
    fn create(&self, path: &str, object: &Value) {
        let code = self.user.cluster.send("POST", path, object);
        assert_eq!(code, 201, "{} {}", object["kind"], object["metadata"]["name"]);
    }

    fn may_create(&self, path: &str, object: &Value) -> bool {
        self.user.cluster.send("POST", &format!("{path}?dryRun=All"), object) == 201
    }

    fn change(&self, path: &str, patch: &Value) -> u16 {
        self.user.cluster.send("PATCH", path, patch)
    }

    /// A Deployment of one Pod with an annotation and some others.
    fn deploy(&self, name: &str, annotation: &str, others: &Value) {
        let mut deployment = deployment(name, annotation);
        deployment["spec"]["replicas"] = json!(1);
        deployment["metadata"]["annotations"]
            .as_object_mut()
            .unwrap()
            .extend(others.as_object().cloned().unwrap_or_default());
        self.create(DEPLOYMENTS, &deployment);
    }

    /// The role `edit` in one namespace, and nothing more: what follows is what such a tenant can do.
    fn may_edit_its_namespace_only(&self) {
        let cluster = &self.user.cluster;
        for path in ["/apis/apps/v1/namespaces/shop/deployments", "/api/v1/namespaces/shop/pods", "/api/v1/pods"] {
            assert_eq!(cluster.read(path)["code"], 403, "{path}");
        }
        let shop = "/apis/apps/v1/namespaces/shop/deployments/web";
        assert_eq!(self.change(shop, &json!({"spec": {"replicas": 0}})), 403);
        assert_eq!(cluster.delete(shop), 403);
        let other = deployment("web", "");
        assert_eq!(cluster.send("POST", "/apis/apps/v1/namespaces/shop/deployments", &other), 403);
        // An address comes from a status alone.
        let status = json!({"status": {"podIP": "10.250.0.1", "podIPs": [{"ip": "10.250.0.1"}]}});
        assert_eq!(self.change(&format!("{PODS}/any/status"), &status), 403);
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.250.0.1"}]}}});
        assert_eq!(self.change(&format!("{SERVICES}/any/status"), &status), 403);
    }
}

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        self.world.delete_namespace("evil");
    }
}

fn deployment(name: &str, annotation: &str) -> Value {
    let labels = json!({"app": name});
    let pods = json!({"containers": [{"name": "c", "image": "none"}]});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "annotations": {KEY: annotation}},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pods}}})
}

fn many_labels() -> Value {
    (0..3_000).map(|n| (format!("label-of-some-length-{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into()
}

/// Large objects, odd annotations, and what is forbidden. All at once, and all of it stays.
fn attack(tenant: &Tenant<'_>) {
    let names = |it: &str, l3out: &str, epg: &str| json!({"tenant": it, "l3out": l3out, "epg": epg}).to_string();
    let own = |epg: &str| names(&tenant.world.tenant, "M", epg);

    // Each `<` is six bytes on the wire: no two of these fit into a line of a watch, and not all of them into a page.
    for n in 0..8 {
        let mut huge = deployment(&format!("huge-{n}"), &own("HUGE"));
        huge["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["<".repeat(1_400_000)]);
        tenant.create(DEPLOYMENTS, &huge);
    }

    tenant.deploy("names-shop", &tenant.world.annotation("E"), &Value::Null);
    tenant.deploy("pauses-shop", &tenant.world.annotation("E"), &json!({PAUSE: "true"}));
    tenant.deploy("infra", &names("infra", "L", "E"), &Value::Null);
    tenant.deploy("mgmt", &names("mgmt", "L", "E"), &Value::Null);
    tenant.deploy("paused", &own("PAUSED"), &json!({PAUSE: "perhaps", "aci.haystacknetworks.com/l3out": "L"}));
    let mut keys = own("KEYS");
    keys.pop();
    for n in 0.. {
        let next = format!(",\"{n:x}\":0");
        if keys.len() + next.len() >= 4096 {
            break;
        }
        keys += &next;
    }
    tenant.deploy("keys", &(keys + "}"), &Value::Null);
    let deep = "[".repeat(100_000);
    let twice = own("A").replacen('{', r#"{"epg":"E","#, 1);
    for (n, broken) in ["", "{broken", "[]", &deep, &twice, &own("../../tn-infra")].into_iter().enumerate() {
        tenant.deploy(&format!("broken-{n}"), broken, &Value::Null);
    }
    for n in 0..MISSING {
        let annotation = names(&tenant.world.tenant, &format!("GONE{n}"), "E");
        tenant.deploy(&format!("gone-{n}"), &annotation, &Value::Null);
    }

    let labels = many_labels();
    let service = |name: &str, selector: &Value, external: &[String]| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "LoadBalancer", "selector": selector, "externalIPs": external, "ports": [{"port": 80}]}})
    };
    for n in 0..10 {
        let mut labelled = deployment(&format!("labelled-{n}"), &own("LABELS"));
        let template = &mut labelled["spec"]["template"]["metadata"]["labels"];
        template.as_object_mut().unwrap().extend(labels.as_object().cloned().unwrap());
        tenant.create(DEPLOYMENTS, &labelled);
        tenant.create(SERVICES, &service(&format!("labelled-{n}"), &labels, &[]));
    }
    let shops: Vec<String> = tenant.world.addresses("web").iter().map(|it| it.replace("/32", "")).collect();
    tenant.create(SERVICES, &service("web", &json!({"app": "web"}), &shops));

    // A namesake of shop's Deployment, and objects that claim to belong to shop's own.
    let mut namesake = deployment("web", &own("W"));
    namesake["spec"]["replicas"] = json!(2);
    namesake["spec"]["template"]["spec"]["containers"][0]["image"] = json!("evil");
    tenant.create(DEPLOYMENTS, &namesake);
    forge(tenant);
}

/// Objects of the tenant's namespace with the labels and owners of shop's Pods.
fn forge(tenant: &Tenant<'_>) {
    let path = "/apis/apps/v1/namespaces/shop/deployments/web";
    let owner = |kind: &str, name: &str, uid: &Value| {
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true});
        json!([owner])
    };
    let victim = tenant.world.pods("web").remove(0);
    let pods = json!({"containers": [{"name": "c", "image": "none"}]});
    let labels = &victim["metadata"]["labels"];
    let owned = owner("Deployment", "web", &tenant.world.cluster.read(path)["metadata"]["uid"]);
    let replica_set = &victim["metadata"]["ownerReferences"][0];
    let name = replica_set["name"].as_str().unwrap();
    let forged = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "labels": labels, "ownerReferences": owned},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pods}}});
    tenant.create(REPLICA_SETS, &forged);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": pods, "metadata": {"name": victim["metadata"]["name"],
        "labels": labels, "ownerReferences": owner("ReplicaSet", name, &replica_set["uid"])}});
    tenant.create(PODS, &pod);
}

/// One Deployment whose annotation changes as fast as the server takes it, until `stop` is set; returns how often.
fn flap(tenant: &Tenant<'_>, stop: &AtomicBool) -> usize {
    let own = |epg: &str| json!({"tenant": tenant.world.tenant, "l3out": "M", "epg": epg}).to_string();
    let values = [own("FLAP1"), "{broken".to_owned(), own("FLAP2"), tenant.world.annotation("E")];
    let mut flapping = deployment("flapping", &values[0]);
    flapping["spec"]["replicas"] = json!(1);
    tenant.create(DEPLOYMENTS, &flapping);
    for count in 1.. {
        let change = json!({"metadata": {"annotations": {KEY: values[count % values.len()]}}});
        // Controllers write it too, and one of them may be faster.
        assert!(matches!(tenant.change(&format!("{DEPLOYMENTS}/flapping"), &change), 200 | 409));
        if stop.load(Ordering::SeqCst) {
            return count;
        }
    }
    unreachable!("there is always a next one")
}

/// Stops the flapping Deployment, even if a test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until shop/web's EPG holds what its Pods have, under their names, and nothing else.
#[track_caller]
fn until_shop_has_its_own(world: &World, pods: usize) {
    world.until_follows("E", "web", pods, &[]);
    let word = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let held = || {
        let subnets = world.apic.subnets(&world.dn("E")).into_iter();
        subnets.map(|(prefix, it)| (prefix, word(&it["name"]))).collect::<BTreeMap<_, _>>()
    };
    let named = || {
        let pods = world.pods("web").into_iter();
        pods.map(|it| (prefix(&it["status"]["podIP"]), format!("shop::{}", word(&it["metadata"]["name"])))).collect()
    };
    world.until("the subnets have the names of shop's Pods", || held() == named());
}

/// W6, X3, P1, P5, D2, K1, K5: whatever a tenant with the role `edit` in one namespace does there, another namespace's
/// EPG holds the addresses of its own Pods and follows its changes. The tenants infra and mgmt are not touched, the log
/// stays readable, and the findings name the hostile namespace.
#[test]
fn a_hostile_namespace_changes_nothing_for_another() {
    let world = World::named("shop", "TEN_SHOP", "L");
    for tenant in ["infra", "mgmt"] {
        world.apic.setup_tenant(tenant, "V", &["L"]).unwrap();
    }
    let fabrics_own = || ["uni/tn-infra", "uni/tn-mgmt"].map(|dn| world.apic.tree(dn));
    let before = fabrics_own();
    let missing = (0..MISSING).map(|n| format!("evil={}/GONE{n}", world.tenant));
    let allow: Vec<String> = [format!("shop={0}/L,evil={0}/M", world.tenant)].into_iter().chain(missing).collect();
    let allow = allow.join(",");
    let flags = ["--allow", &allow];
    let mut daemon = world.run(&flags);
    world.deploy("web", Some("E"), 3);
    until_shop_has_its_own(&world, 3);

    let tenant = Tenant::new(&world);
    tenant.may_edit_its_namespace_only();
    let stop = AtomicBool::new(false);
    let changes = std::thread::scope(|scope| {
        let flapping = scope.spawn(|| flap(&tenant, &stop));
        let end = End(&stop);
        attack(&tenant);
        until_shop_has_its_own(&world, 3);
        world.kubectl(&["scale", "deployment", "web", "--replicas=5"]);
        until_shop_has_its_own(&world, 5);
        // The address of a Pod that goes is given to the next one that comes, be it the tenant's.
        world.kubectl(&["scale", "deployment", "web", "--replicas=4"]);
        world.until("one of them goes", || world.pods("web").len() == 4);
        assert_eq!(tenant.change(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 4}})), 200);
        until_shop_has_its_own(&world, 4);
        world.kubectl(&["delete", "pod", &world.a_pod("web")]);
        until_shop_has_its_own(&world, 4);
        drop(end);
        flapping.join().unwrap()
    });
    world.settle();
    until_shop_has_its_own(&world, 4);
    assert_eq!(fabrics_own(), before);
    let is_served = || world.apic.subnets(&format!("uni/tn-{}/out-M/instP-W", world.tenant)).len() == 4;
    world.until("the tenant has what it may have", is_served);

    for name in ["names-shop", "pauses-shop", "infra", "mgmt", "paused", "keys", "broken-1", "broken-5", "gone-0"] {
        daemon.until_logged(&format!("evil/{name}"));
    }
    let reported = world.kubectl(&["get", "events", "--output", "json"]);
    assert!(reported.contains("Synced") && !reported.contains("evil"), "{reported}");
    // Some sixty objects stay as they are, each with a finding of at most 1 KiB. A change of the one that flaps leads
    // to one reconcile at most: a finding that goes, one that comes, and a few lines about two EPGs.
    let (log, most) = (daemon.log().len(), (64 + changes) << 10);
    assert!(log < most, "{log} bytes of log after {changes} changes");
    let peak = peak(daemon.id());
    assert!(peak < 120_000, "{peak} kB at most");

    // A process that starts now has to list all of that, and finds nothing to do for shop.
    let words = [&["plan"], &flags[..]].concat();
    let done = output(world.command(world.cluster.file("service-account.kubeconfig"), &words));
    let (plan, words) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(matches!(done.status.code(), Some(0 | 2)), "{words}");
    assert!(plan.lines().all(|it| it.split_whitespace().last() != Some("E")), "{plan}");
    println!("{changes} changes, {log} bytes of log, {peak} kB");
    assert_eq!(daemon.stop().0, Some(0));
}
