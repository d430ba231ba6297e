//! Whether the simulated API server, which all other suites use, answers as the real one: the same requests are
//! sent to both by curl, and the answers must look the same. What is compared is what a client can act on: codes,
//! reasons, the fields of an answer and the order of events.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};
use sim::kube::{Options, SimKube, TOKEN};

use crate::cluster::Cluster;
use crate::node::{self, BY_HAND};
use crate::world::World;

/// One of the two, and what it answered so far: a line for each request.
struct Server<'a> {
    url: String,
    credential: Vec<String>,
    namespace: &'a str,
    answers: Vec<String>,
}

impl Server<'_> {
    fn real<'a>(cluster: &Cluster, namespace: &'a str) -> Server<'a> {
        let config = std::fs::read_to_string(cluster.file("admin.kubeconfig")).unwrap();
        let url = config.split("server: \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let file = |name: &str| cluster.file(name).display().to_string();
        let credential = ["--cert".to_owned(), file("admin.crt"), "--key".to_owned(), file("admin.key")];
        Server { url, credential: credential.into(), namespace, answers: Vec::new() }
    }

    fn simulated<'a>(kube: &SimKube, namespace: &'a str) -> Server<'a> {
        Server { url: kube.url(), credential: bearer(TOKEN), namespace, answers: Vec::new() }
    }

    /// Sends a request and notes how the answer looks. `{}` in the path is the namespace.
    fn ask(&mut self, what: &str, method: &str, path: &str, body: &Value) -> Value {
        self.ask_as(what, &self.credential.clone(), method, path, body)
    }

    fn ask_as(&mut self, what: &str, who: &[String], method: &str, path: &str, body: &Value) -> Value {
        let kind = if method == "PATCH" { "merge-patch+json" } else { "json" };
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--insecure", "--http1.1", "--max-time", "30", "--request", method])
            .args(who);
        command.args(["--write-out", "\n%{http_code} %{content_type}"]);
        if !body.is_null() {
            let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
            command.args(["--header", &format!("Content-Type: application/{kind}"), "--data-binary", &text]);
        }
        let output = command.arg(format!("{}{}", self.url, path.replace("{}", self.namespace))).output().unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let (text, status) = text.rsplit_once('\n').unwrap();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let whole = serde_json::from_str(text).unwrap_or_default();
        let mut shown: Vec<String> = match &whole {
            Value::Null if lines.is_empty() => vec![text.trim().to_owned()],
            Value::Null => lines.iter().map(looks).collect(),
            value => vec![looks(value)],
        };
        // What is there when a watch begins without a version comes in any order.
        if path.contains("watch=true") && !path.contains("resourceVersion=") || path.ends_with("resourceVersion=0") {
            shown.sort();
        }
        self.answers.push(format!("{what}: {status} {}", shown.join("; ")));
        whole
    }
}

fn bearer(token: &str) -> Vec<String> {
    vec!["--header".to_owned(), format!("Authorization: Bearer {token}")]
}

/// What there is to see of an object, a list, an event or a refusal.
fn looks(value: &Value) -> String {
    let keys = |of: &Value| {
        let mut keys: Vec<&str> = of.as_object().into_iter().flatten().map(|it| it.0.as_str()).collect();
        keys.sort_unstable();
        keys.join(",")
    };
    let word = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let metadata = &value["metadata"];
    let mut look = word(&value["kind"]);
    if value["type"].is_string() && value["object"].is_object() {
        return format!("{} {}", word(&value["type"]), looks(&value["object"]));
    }
    if value["kind"] == "Status" {
        let _ = write!(look, " {} {} {}", word(&value["status"]), value["reason"], value["code"]);
        let _ = write!(look, " metadata({}) details({})", keys(metadata), keys(&value["details"]));
        for cause in value["details"]["causes"].as_array().into_iter().flatten() {
            let _ = write!(look, " {} {}", cause["reason"], cause["field"]);
        }
    } else if let Some(items) = value["items"].as_array() {
        let kinds = items.iter().filter(|it| it["kind"].is_string()).count();
        let _ = write!(look, " metadata({}) {} items, {kinds} with a kind", keys(metadata), items.len());
        let _ = write!(look, ", left: {}", metadata["remainingItemCount"]);
    } else {
        let _ = write!(look, " {} {}", word(&value["apiVersion"]), word(&metadata["name"]));
        for field in ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"] {
            if metadata[field].is_string() {
                let _ = write!(look, " {field}");
            }
        }
        if !metadata["deletionGracePeriodSeconds"].is_null() {
            let _ = write!(look, " grace {}", metadata["deletionGracePeriodSeconds"]);
        }
        if !metadata["finalizers"].is_null() {
            let _ = write!(look, " {}", metadata["finalizers"]);
        }
        let status = &value["status"];
        for field in ["phase", "podIP", "podIPs", "loadBalancer"] {
            if !status[field].is_null() {
                let _ = write!(look, " {field}={}", status[field]);
            }
        }
    }
    look
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}})
}

/// Lists, pages and watches of Services, and writes of them.
fn services(server: &mut Server<'_>, forget: impl Fn()) {
    let all = "/api/v1/namespaces/{}/services";
    let one = |name: &str| format!("{all}/{name}");
    let nothing = Value::Null;
    let empty = server.ask("an empty list", "GET", &format!("{all}?limit=500"), &nothing);
    for name in ["a", "b", "c"] {
        server.ask("a new one", "POST", all, &service(name));
    }
    server.ask("one that is there", "POST", all, &service("a"));
    server.ask(
        "one without a name",
        "POST",
        all,
        &json!({"apiVersion": "v1", "kind": "Service", "spec": service("")["spec"]}),
    );
    server.ask("no object", "POST", all, &json!("{"));
    let elsewhere = "/api/v1/namespaces/default/services";
    server.ask("one elsewhere", "POST", elsewhere, &service("elsewhere"));
    server.ask("it goes again", "DELETE", &format!("{elsewhere}/elsewhere"), &nothing);
    let old = server.ask("one", "GET", &one("a"), &nothing);
    server.ask("none", "GET", &one("none"), &nothing);
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.250.9.1"}]}}});
    server.ask("an address", "PATCH", &format!("{}/status", one("a")), &address);
    server.ask("a patch of none", "PATCH", &one("none"), &json!({"metadata": {"labels": {"a": "b"}}}));
    server.ask("an outdated one", "PUT", &one("a"), &old);
    server.ask("the same again", "PATCH", &format!("{}/status", one("a")), &address);
    server.ask("a list", "GET", all, &nothing);
    let page = server.ask("the first page", "GET", &format!("{all}?limit=2"), &nothing);
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    server.ask("the last page", "GET", &format!("{all}?limit=2&continue={token}"), &nothing);
    server.ask("a wrong token", "GET", &format!("{all}?limit=2&continue=nonsense"), &nothing);
    server.ask("no version", "GET", &format!("{all}?resourceVersion=x"), &nothing);
    server.ask(
        "a watch from no version",
        "GET",
        &format!("{all}?watch=true&timeoutSeconds=1&resourceVersion=x"),
        &nothing,
    );
    let version = empty["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let watch = format!("{all}?watch=true&timeoutSeconds=1&resourceVersion=");
    server.ask("a deletion", "DELETE", &one("c"), &nothing);
    server.ask("a deletion of none", "DELETE", &one("c"), &nothing);
    server.ask("a watch", "GET", &format!("{watch}{version}"), &nothing);
    server.ask("a watch of what is there", "GET", &format!("{all}?watch=true&timeoutSeconds=1"), &nothing);
    server.ask("a watch of anything", "GET", &format!("{watch}0"), &nothing);
    server.ask("another type", "PATCH", &one("a"), &json!({"spec": {"type": "ClusterIP"}}));
    forget();
    server.ask("a watch from too old a version", "GET", &format!("{watch}1"), &nothing);
    server.ask("a page of an old list", "GET", &format!("{all}?limit=2&continue={token}"), &nothing);
    server.ask("a wrong method", "POST", &one("a"), &service("a"));
    server.ask("another wrong method", "PUT", all, &service("a"));
    server.ask("no resource", "GET", "/api/v1/things", &nothing);
    server.ask("no group", "GET", "/apis/nowhere/v1/things", &nothing);
}

/// A Pod's life and the events of its watch.
fn pods(server: &mut Server<'_>) {
    let all = "/api/v1/namespaces/{}/pods";
    let nothing = Value::Null;
    let pod = |name: &str, node: Option<&str>| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {BY_HAND: "yes"}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}})
    };
    let list = server.ask("no Pods", "GET", all, &nothing);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.ask("a Pod", "POST", all, &pod("a", Some("node")));
    let status = node::running(&["10.250.9.1".to_owned()]);
    server.ask("it runs", "PATCH", &format!("{all}/a/status"), &status);
    server.ask("it is asked to end", "DELETE", &format!("{all}/a?gracePeriodSeconds=30"), &nothing);
    server.ask("it is asked again", "DELETE", &format!("{all}/a"), &nothing);
    server.ask("it has ended", "DELETE", &format!("{all}/a?gracePeriodSeconds=0"), &nothing);
    server.ask("a Pod without a node", "POST", all, &pod("b", None));
    server.ask("it goes at once", "DELETE", &format!("{all}/b"), &nothing);
    server.ask("a Pod on a node", "POST", all, &pod("c", Some("node")));
    server.ask("it gets its time", "DELETE", &format!("{all}/c"), &nothing);
    server.ask("it has ended", "DELETE", &format!("{all}/c?gracePeriodSeconds=0"), &nothing);
    server.ask(
        "the events of a watch",
        "GET",
        &format!("{all}?watch=true&timeoutSeconds=1&resourceVersion={version}"),
        &nothing,
    );
}

/// A Deployment that is deleted in the foreground, and in the background.
fn deployments(server: &mut Server<'_>, world: &World) {
    let all = "/apis/apps/v1/namespaces/{}/deployments";
    let nothing = Value::Null;
    let mut manifest = world.deployment("web", Some("E"), 0);
    server.ask("a Deployment", "POST", all, &manifest);
    manifest["metadata"]["name"] = json!("api");
    server.ask("another", "POST", all, &manifest);
    let delete = |name: &str, how: &str| format!("{all}/{name}?propagationPolicy={how}");
    server.ask("it goes", "DELETE", &delete("web", "Background"), &nothing);
    server.ask("it goes last", "DELETE", &delete("api", "Foreground"), &nothing);
}

/// A Lease that is acquired, renewed and lost.
fn leases(server: &mut Server<'_>) {
    let all = "/apis/coordination.k8s.io/v1/namespaces/{}/leases";
    let one = format!("{all}/a");
    let lease = |version: &Value, time: &str, seconds: i64| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a", "resourceVersion": version},
            "spec": {"holderIdentity": "me", "leaseDurationSeconds": seconds, "acquireTime": time, "renewTime": time}})
    };
    let time = "2026-01-01T00:00:00.000001Z";
    server.ask("no Lease", "GET", &one, &Value::Null);
    let first = server.ask("a Lease", "POST", all, &lease(&Value::Null, time, 15));
    server.ask("it is there", "POST", all, &lease(&Value::Null, time, 15));
    let version = &first["metadata"]["resourceVersion"];
    server.ask("it is renewed", "PUT", &one, &lease(version, "2026-01-01T00:00:02.000001Z", 15));
    server.ask("another writer was faster", "PUT", &one, &lease(version, "2026-01-01T00:00:03.000001Z", 15));
    let version = server.ask("the Lease", "GET", &one, &Value::Null)["metadata"]["resourceVersion"].clone();
    server.ask("without a version", "PUT", &one, &lease(&Value::Null, time, 15));
    server.ask("without microseconds", "PUT", &one, &lease(&version, "2026-01-01T00:00:00Z", 15));
    server.ask("without an end", "PUT", &one, &lease(&version, time, 0));
}

/// An Event, what is wrong with others, and how it comes again.
fn events(server: &mut Server<'_>) {
    let all = "/apis/events.k8s.io/v1/namespaces/{}/events";
    let event = |name: &str, note: &str, action: &str| {
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": name, "namespace": server.namespace}, "eventTime": "2026-01-01T00:00:00.000001Z",
            "reportingController": "aci-sync", "reportingInstance": "me", "action": action, "reason": "Synced",
            "type": "Normal", "note": note,
            "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": server.namespace, "name": "a", "uid": "u"}})
    };
    let (good, long, idle) = (event("a", "n", "Sync"), event("b", &"n".repeat(1025), "Sync"), event("c", "n", ""));
    server.ask("an Event", "POST", all, &good);
    server.ask("it is there", "POST", all, &good);
    server.ask("one with too much to say", "POST", all, &long);
    server.ask("one without an action", "POST", all, &idle);
    let again = |count: i64| json!({"series": {"count": count, "lastObservedTime": "2026-01-01T00:00:01.000001Z"}});
    server.ask("it comes again", "PATCH", &format!("{all}/a"), &again(2));
    server.ask("it comes again once", "PATCH", &format!("{all}/a"), &again(1));
    server.ask("it says something else", "PATCH", &format!("{all}/a"), &json!({"note": "m"}));
    server.ask("one that is gone", "PATCH", &format!("{all}/none"), &again(2));
}

/// The differences of Debian's Kubernetes 1.20 from the 1.36 that the simulated one was recorded from: a version that
/// is no number is an error of the server's own, a Service that is no load balancer any more keeps its addresses, and
/// of an Event everything may change.
const OLDER: [&str; 4] = ["no version", "another type", "it comes again once", "it says something else"];

/// K1, K2, K4, K5: what the simulated server answers, the real one answers.
#[test]
fn the_simulated_server_answers_like_the_real_one() {
    let world = World::new();
    let kube = SimKube::start(Options::default());
    kube.apply("namespaces", json!({"metadata": {"name": world.namespace}}));
    kube.deny("get", "pods");
    let token = std::fs::read_to_string(world.cluster.file("service-account.token")).unwrap();
    // etcd's history is behind the pages; behind the watches it is the API server's own.
    let forget = || {
        world.cluster.stop("kube-apiserver");
        world.cluster.compact();
        world.cluster.start("kube-apiserver");
    };
    let mut both = [Server::real(&world.cluster, &world.namespace), Server::simulated(&kube, &world.namespace)];
    for (server, is_real) in both.iter_mut().zip([true, false]) {
        services(server, || if is_real { forget() } else { kube.compact() });
        pods(server);
        deployments(server, &world);
        leases(server);
        events(server);
        let pod = "/api/v1/namespaces/{}/pods/none";
        server.ask_as("a wrong token", &bearer("wrong"), "GET", pod, &Value::Null);
        server.ask_as("one without a credential", &[], "GET", pod, &Value::Null);
        let poor = bearer(if is_real { token.trim() } else { TOKEN });
        let refused = server.ask_as("one without the right", &poor, "GET", pod, &Value::Null);
        let message = refused["message"].as_str().unwrap_or_default().split_once(" cannot ");
        server.answers.push(message.map_or_else(|| refused.to_string(), |it| it.1.to_owned()));
    }
    let [real, simulated] = both.map(|it| it.answers);
    assert_eq!(real.len(), simulated.len());
    let differing: Vec<_> = real.iter().zip(&simulated).filter(|(real, ours)| real != ours).collect();
    let steps: Vec<&str> = differing.iter().map(|(real, _)| real.split(": ").next().unwrap()).collect();
    assert_eq!(steps, OLDER, "the real one, and ours: {differing:#?}");
}
