//! The lab as people and scripts use it: files in a folder, and words that act on both sides.

use std::path::Path;

use serde_json::{Value, json};
use sim::lab::{Folder, Lab};

#[test]
fn both_sides_can_be_acted_on_by_the_files_in_the_folder() {
    let folder = Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab-acted-on"));
    let lab = Lab::start(2, 0, 0);
    lab.describe(&folder).unwrap();
    assert_eq!(folder.fabric("uni").unwrap(), "(no external EPG)\n");
    let subnet = json!({"l3extSubnet": {"attributes": {"ip": "10.0.0.1/32", "name": "default::web"}}});
    let epg = json!({"l3extInstP": {"attributes": {"name": "E"}, "children": [subnet]}});
    let l3out = json!({"l3extOut": {"attributes": {"name": "L"}, "children": [epg]}});
    let tenant = json!({"fvTenant": {"attributes": {"name": "T"}, "children": [l3out]}});
    assert_eq!(folder.apic("POST", "/api/mo/uni.json", &tenant.to_string()).unwrap().status, 200);
    let table = folder.fabric("uni/tn-T").unwrap();
    let lines: Vec<Vec<&str>> = table.lines().map(|it| it.split_whitespace().collect()).collect();
    let expected = [
        vec!["uni/tn-T/out-L/instP-E"],
        vec!["SUBNET", "SCOPE", "NAME"],
        vec!["10.0.0.1/32", "import-security", "default::web"],
    ];
    assert_eq!(lines, expected);
    // A session that has ended, and a controller that is away, are no obstacle.
    lab.apic.expire_tokens();
    assert_eq!(folder.apic("GET", "/api/mo/uni.json", "").unwrap().status, 200);
    lab.apic.stop(0);
    assert_eq!(folder.apic("DELETE", "/api/mo/uni/tn-T.json", "").unwrap().status, 200);
    assert_eq!(folder.fabric("uni").unwrap(), "(no external EPG)\n");
    assert_eq!(folder.apic("GET", "/lab/nothing", "").unwrap().status, 404);

    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": labels}, "template": template});
    let metadata = json!({"name": "web", "namespace": "default"});
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let answer = folder.kube("POST", path, &body.to_string()).unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    let pods: Value = serde_json::from_str(&folder.kube("GET", "/api/v1/pods", "").unwrap().body).unwrap();
    assert_eq!(pods["items"].as_array().unwrap().len(), 2, "Deployments get their Pods");
}
