//! The manifests of `deploy/`, applied by kubectl: what runs, with which arguments, environment, files and rights, and who
//! is ready, is all from the objects as the API server and its controllers made them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sim::pki::{KeyForm, user_certificate};

use crate::site::{Site, name};

const OBSERVE: &str = "ACI_SYNC_POLICY=observe";
const SYNC: &str = "ACI_SYNC_POLICY=sync";

/// How often each address was sent to the fabric, and that nothing was deleted there. A subnet that is created twice was
/// lost in between, or two wrote.
fn sent(site: &Site) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in site.world.apic.writes() {
        assert_eq!((write.method.as_str(), write.body.contains("\"deleted\"")), ("POST", false), "{write:?}");
        for ip in write.body.split("\"ip\":\"").skip(1) {
            *counts.entry(ip.split('"').next().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

/// Everything that the EPG should hold was sent once, and nothing else.
#[track_caller]
fn written_once(site: &Site, epg: &str) {
    let expected: BTreeMap<String, usize> = site.world.subnets(epg).into_iter().map(|it| (it, 1)).collect();
    assert_eq!(sent(site), expected);
}

/// W5, T3: as shipped, both replicas get ready, look, and write nothing. They run as the Pod says: its user, without a
/// capability, on a root that cannot be written to, with the password in a file of its group alone.
#[test]
fn as_shipped_it_only_observes() {
    let site = Site::new();
    site.world.deploy("web", Some("E"), 2);
    // kubelet would add variables of this Service, such as ACI_SYNC_PORT, to the environment, and the daemon refuses them.
    let ports = json!([{"port": 9847}]);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "aci-sync", "namespace": "kube-system"}, "spec": {"ports": ports}});
    site.world.cluster.apply(&service.to_string());
    site.prepare();
    site.apply();
    site.until_ready(2);
    site.world.cluster.kubectl(&["--namespace=kube-system", "delete", "service", "aci-sync"]);
    for pod in site.ready() {
        site.world.until("it has said what it would do", || site.kubelet.log(&pod).contains("would change"));
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.kubelet.id(&pod))).unwrap();
        for line in [
            "Uid:\t65532\t65532\t65532\t65532",
            "Gid:\t65532\t65532\t65532\t65532",
            "Groups:\t65532 ",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.lines().any(|it| it == line), "{line:?} is not in {status}");
        }
        assert!(!site.kubelet.log(&pod).contains("readable by other users"), "{}", site.kubelet.log(&pod));
    }
    let in_pod =
        |words: &str| site.try_shell(&format!("kubectl --namespace kube-system exec deployment/aci-sync -- {words}"));
    let touched = String::from_utf8_lossy(&in_pod("/usr/bin/touch /file").stderr).into_owned();
    assert!(touched.contains("Read-only file system"), "{touched}");
    let file = in_pod("/usr/bin/stat --dereference --format=%a,%u,%g /etc/aci-sync/apic/password");
    assert_eq!(String::from_utf8_lossy(&file.stdout).trim(), "440,0,65532", "{file:?}");
    assert!(site.world.apic.writes().is_empty());
}

/// K3: what runs in a Pod is the ServiceAccount to the server, has its rights, and no other credential.
#[test]
fn a_pod_has_the_rights_of_its_service_account() {
    let site = Site::new();
    site.prepare();
    site.apply();
    site.until_ready(2);
    let pod = site.pods().into_iter().next().unwrap();
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let account = volumes.iter().map(name_of).find(|it| it.contains("token")).unwrap();
    let token = std::fs::read_to_string(site.kubelet.volume(&name(&pod), &account).join("token")).unwrap();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let user = site.world.cluster.kubectl_with(
        &["create", "--filename", "-", "--output", "jsonpath={.status.user.username}"],
        &review.to_string(),
    );
    assert_eq!(user, "system:serviceaccount:kube-system:aci-sync");
    for (right, answer) in [
        ("list pods --all-namespaces", "yes"),
        ("update lease/aci-sync -n kube-system", "yes"),
        ("get secrets -n kube-system", "no"),
        ("delete pods", "no"),
        ("update lease/other -n kube-system", "no"),
        ("* *", "no"),
    ] {
        let words: Vec<&str> = ["auth", "can-i", "--as", &user].into_iter().chain(right.split(' ')).collect();
        let output = site.world.cluster.command(&words).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), answer, "{right}");
    }
    // Nothing but this leads to the server: no file of this machine, and no variable.
    let files = site.shell("kubectl --namespace kube-system exec deployment/aci-sync -- /usr/bin/find / -path /proc -prune -o -path /usr -prune -o -path /lib -prune -o -path /lib64 -prune -o -path /dev -prune -o -type f -print");
    let mut files: Vec<&str> = files.lines().filter(|it| !it.contains("/..") && *it != "/etc/ld.so.cache").collect();
    files.sort_unstable();
    assert_eq!(files, ["/aci-sync", "/etc/hosts"]);
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", site.kubelet.id(&name(&pod)))).unwrap();
    let mut names: Vec<&str> = environment.split_terminator('\0').map(|it| it.split('=').next().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(
        names,
        [
            "ACI_APIC",
            "ACI_SYNC_APIC_CA",
            "ACI_SYNC_LEADER_ELECT",
            "ACI_SYNC_LISTEN",
            "ACI_SYNC_PASSWORD_FILE",
            "ACI_SYNC_POLICY",
            "ACI_USERNAME",
            "HOME",
            "HOSTNAME",
            "KUBERNETES_PORT",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
            "MALLOC_ARENA_MAX",
            "PATH",
        ]
    );
}

fn name_of(object: &Value) -> String {
    object["name"].as_str().unwrap().to_owned()
}

/// K4, F21, F26: one leads. Its Node is lost, and the other one takes over; the Node of the new leader is drained, and its
/// Pod replaced elsewhere; a process is killed, and started again. All the time the fabric follows the cluster, and each
/// subnet is created once.
#[test]
fn replicas_take_over() {
    let site = Site::new();
    let world = &site.world;
    site.prepare();
    site.edit(OBSERVE, SYNC);
    world.deploy("web", Some("E"), 2);
    site.apply();
    site.until_ready(2);
    let first = site.until_led();
    world.until_follows("E", "web", 2, &[]);
    let nodes: std::collections::BTreeSet<String> = site.ready().iter().map(|it| site.node(it)).collect();
    assert_eq!(nodes.len(), 2, "not on one Node: {nodes:?}");

    // A Node is lost, and the Deployment grows meanwhile.
    let lost = site.node(&first);
    site.kubelet.lose(&lost);
    world.kubectl(&["scale", "deployment", "web", "--replicas=4"]);
    world.until("another one leads", || site.leader().is_some_and(|it| it != first));
    world.until_follows("E", "web", 4, &[]);
    world.cluster.kubectl(&["--namespace=kube-system", "delete", "pod", &first, "--force", "--grace-period=0"]);
    site.until_ready(2);

    // The leader's Node is drained. The PodDisruptionBudget allows it, because both are ready.
    let second = site.until_led();
    let drained = site.node(&second);
    site.world.kubectl(&["scale", "deployment", "web", "--replicas=5"]);
    site.shell(&format!("kubectl drain {drained} --timeout=180s"));
    // Only one Node is left, and no Pod has to be alone on it.
    site.until_ready(2);
    assert!(site.ready().iter().all(|it| *it != second && site.node(it) != drained && site.node(it) != lost));
    let third = site.until_led();
    world.until_follows("E", "web", 5, &[]);
    site.shell(&format!("kubectl uncordon {drained}"));

    // The process of the leader crashes, and kubelet starts it again in the same Pod.
    let killed = site.kubelet.id(&third);
    site.shell(&format!("kill -KILL {killed}"));
    world.kubectl(&["scale", "deployment", "web", "--replicas=6"]);
    let restarted = || site.pods().iter().any(|it| it["status"]["containerStatuses"][0]["restartCount"] == 1);
    world.until("it was started again", || restarted() && site.ready().len() == 2);
    site.until_led();
    world.until_follows("E", "web", 6, &[]);
    written_once(&site, "E");
}

/// The PodDisruptionBudget: while one of two is not ready, the other one is not evicted.
#[test]
fn a_drain_leaves_one_of_two() {
    let site = Site::new();
    site.prepare();
    site.apply();
    site.until_ready(2);
    let [one, other]: [String; 2] = site.ready().try_into().unwrap();
    site.kubelet.freeze(&one, true);
    site.world.until("one is not ready", || site.ready() == [other.clone()]);
    let evict = |pod: &str| {
        let metadata = json!({"name": pod, "namespace": "kube-system"});
        let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": metadata});
        site.world.cluster.send("POST", &format!("/api/v1/namespaces/kube-system/pods/{pod}/eviction"), &eviction)
    };
    site.world.until("the budget knows it", || {
        let budget =
            site.world.cluster.read("/apis/policy/v1beta1/namespaces/kube-system/poddisruptionbudgets/aci-sync");
        budget["status"]["currentHealthy"] == 1 && budget["status"]["disruptionsAllowed"] == 0
    });
    assert_eq!(evict(&other), 429);
    site.kubelet.freeze(&one, false);
    site.until_ready(2);
    site.world.until("both may go, one at a time", || evict(&other) == 201);
}

/// K4, W5, R4: the policy, and then another setting, is changed in the overlay. Its ConfigMap gets another name, the Pods
/// are replaced one after the other, one is always ready, and what happens in between is written once.
#[test]
fn a_changed_setting_is_rolled_out() {
    let site = Site::new();
    let world = &site.world;
    site.prepare();
    world.deploy("web", Some("E"), 2);
    site.apply();
    site.until_ready(2);
    assert!(world.apic.writes().is_empty());
    for (from, to, replicas) in [(OBSERVE, SYNC, 3), (SYNC, "ACI_SYNC_POLICY=sync\n      - ACI_SYNC_RESYNC=5m", 5)] {
        let before = site.ready();
        site.edit(from, to);
        site.apply();
        world.kubectl(&["scale", "deployment", "web", &format!("--replicas={replicas}")]);
        world.until("all Pods are replaced", || {
            let ready = site.ready();
            assert!(!ready.is_empty(), "none is ready");
            ready.len() == 2 && site.pods().len() == 2 && ready.iter().all(|it| !before.contains(it))
        });
        site.shell("kubectl --namespace kube-system rollout status deployment/aci-sync --timeout=180s");
        site.until_led();
        world.until_follows("E", "web", replicas, &[]);
        written_once(&site, "E");
    }
}

/// A1: a new password in the Secret is used without a new Pod or process.
#[test]
fn the_password_is_rotated() {
    let site = Site::new();
    let world = &site.world;
    site.prepare();
    site.edit(OBSERVE, SYNC);
    world.deploy("web", Some("E"), 1);
    site.apply();
    site.until_ready(2);
    site.until_led();
    world.until_follows("E", "web", 1, &[]);
    let processes: Vec<u32> = site.ready().iter().map(|it| site.kubelet.id(it)).collect();

    world.apic.set_password(world.apic.username(), "another password");
    std::fs::write(site.file(crate::site::OVERLAY).join("password"), "another password\n").unwrap();
    site.apply();
    let has_it = |pod: &String| {
        let file = site.kubelet.volume(pod, "apic").join("password");
        std::fs::read_to_string(file).is_ok_and(|it| it == "another password\n")
    };
    world.until("both Pods have the new file", || site.ready().iter().all(has_it));
    let logins = world.apic.logins();
    world.apic.expire_tokens();
    world.kubectl(&["scale", "deployment", "web", "--replicas=3"]);
    world.until("a new login", || world.apic.logins() > logins);
    world.until_follows("E", "web", 3, &[]);
    assert_eq!(site.ready().iter().map(|it| site.kubelet.id(it)).collect::<Vec<_>>(), processes);
}

/// A5, A4: with the component `certificate` and the lines and commands of docs/credentials-and-permissions.md the Pods log in
/// with the private key of the Secret. There is no password, and the key is a file of their group alone.
#[test]
fn login_by_certificate() {
    let site = Site::new();
    let world = &site.world;
    site.prepare();
    let user = user_certificate("aci-sync", 365);
    world.apic.add_certificate("aci-sync", "aci-sync", &user);
    std::fs::write(site.file("apic-private-key.pem"), user.key_pem(KeyForm::Pkcs8)).unwrap();
    std::fs::write(site.file("aci-sync.crt"), user.certificate_pem()).unwrap();

    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/credentials-and-permissions.md");
    let text = std::fs::read_to_string(document).unwrap();
    let section = text.split("\n### In Pods\n").nth(1).and_then(|it| it.split("\n## ").next()).unwrap();
    site.shell(section.split("```sh\n").nth(1).and_then(|it| it.split("```").next()).unwrap());
    site.edit(&format!("- ACI_USERNAME={}", world.apic.username()), "- ACI_USERNAME=aci-sync");
    let mut count = 0;
    for row in section.lines().filter(|it| it.starts_with("| `")) {
        let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        site.edit(&format!("{}\n", quoted[1]), &format!("{}\n", quoted[2]));
        count += 1;
    }
    assert_eq!(count, 3);
    site.edit("#components:", "components:");
    site.edit(OBSERVE, SYNC);

    world.deploy("web", Some("E"), 2);
    site.apply();
    site.until_ready(2);
    site.until_led();
    world.until_follows("E", "web", 2, &[]);
    written_once(&site, "E");
    assert_eq!(world.apic.logins(), 0);
    let in_pod = |words: &str| {
        let output = site.try_shell(&format!("kubectl --namespace kube-system exec deployment/aci-sync -- {words}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let file = in_pod("/usr/bin/stat --dereference --format=%a,%u,%g /etc/aci-sync/apic/private-key.pem");
    assert_eq!(file.trim(), "440,0,65532");
    let status = in_pod("/aci-sync status");
    assert!(status.contains("apic_user_certificate in 364 days"), "{status}");
    let check = in_pod("/aci-sync check");
    assert!(check.contains("ok    secrets         private_key: can be used"), "{check}");
}

/// K4: a daemon on a master and the Pods have the same Lease. It leads, and the Pods are ready as standbys; it stops, and
/// a Pod takes over without writing anything.
#[test]
fn a_daemon_on_a_master_takes_turns_with_the_pods() {
    let site = Site::new();
    let world = &site.world;
    let mut master = world.run(&["--leader-elect"]);
    master.until_logged("acquired leadership");
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);
    site.prepare();
    site.edit(OBSERVE, SYNC);
    site.apply();
    site.until_ready(2);
    assert_eq!((site.leader(), world.apic.sessions()), (None, 1));

    assert_eq!(master.stop().0, Some(0));
    site.until_led();
    world.kubectl(&["scale", "deployment", "web", "--replicas=3"]);
    world.until_follows("E", "web", 3, &[]);
    written_once(&site, "E");
}

/// T2: with the component `host-network` the status server answers on 127.0.0.1 alone, and the probes ask there.
#[test]
fn on_the_network_of_the_node() {
    let site = Site::new();
    site.prepare();
    site.edit("#components:", "components:");
    site.edit("#  - ../../components/host-network", "  - ../../components/host-network");
    site.apply();
    site.until_ready(2);
    for pod in site.pods() {
        assert_eq!(pod["spec"]["hostNetwork"], true);
        assert!(site.kubelet.log(&name(&pod)).contains("status server listening address=127.0.0.1:9847"));
    }
}
