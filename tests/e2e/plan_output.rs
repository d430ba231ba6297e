//! T8: `plan -o json` and `plan -o apic`, for programs and for change tickets.

use crate::world::{DN_E, DN_F, E, F, MARK, World};
use serde_json::{Value, json};
use sim::client::Client;

/// An administrator with a shell and an HTTP client.
pub struct Hand {
    client: Client,
    cookie: String,
}

impl Hand {
    pub fn of(world: &World) -> Hand {
        let (user, password) = (world.apic.username(), world.apic.password());
        let client = Client::new(&world.apic.apic(), world.apic.ca_pem().as_bytes(), None).unwrap();
        let login = json!({"aaaUser": {"attributes": {"name": user, "pwd": password}}}).to_string();
        let answer = client.send("POST", "/api/aaaLogin.json", &[], &login).unwrap();
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        let token = answer["imdata"][0]["aaaLogin"]["attributes"]["token"].as_str().unwrap();
        Hand { client, cookie: format!("APIC-cookie={token}") }
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.client.send(method, path, &[("Cookie", &self.cookie)], body).unwrap();
        assert_eq!(answer.status, 200, "{method} {path} {body}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Sends what a document lists, in its order.
    #[track_caller]
    pub fn post(&self, requests: &Value) {
        for request in requests.as_array().unwrap() {
            let word = |name: &str| request[name].as_str().unwrap();
            let body = request.get("body").map(Value::to_string).unwrap_or_default();
            self.send(word("method"), word("path"), &body);
        }
    }

    /// All that can be configured in the tenant, as the APIC itself saves it.
    pub fn configuration(&self) -> Value {
        let mut all = self.send("GET", "/api/mo/uni/tn-T.json?rsp-subtree=full&rsp-prop-include=config-only", "");
        all["imdata"].take()
    }
}

/// The JSON that `plan` prints, whatever its exit code.
#[track_caller]
fn plan(world: &World, words: &[&str], code: i32) -> Value {
    let done = world.output(&[&["plan"], words].concat());
    let (out, err) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert_eq!(done.status.code(), Some(code), "{out}{err}");
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

fn binding(epg: &str) -> String {
    json!({"tenant": "T", "l3out": "L", "epg": epg}).to_string()
}

/// A fabric in sync, in which people have done more than aci-sync did; then a cluster that calls for each sort of change.
fn changed_world(world: &World) {
    for epg in ["OLD", "NEW"] {
        world.apic.set(&format!("uni/tn-T/out-L/instP-{epg}"), "l3extInstP", &[("descr", "by hand")]).unwrap();
    }
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.kube.deploy("a", "leaves", Some(&binding("OLD")), &["10.0.1.1"]);
    world.kube.deploy("a", "drifts", Some(&binding("G")), &["10.0.2.1", "10.0.2.2"]);
    assert_eq!(world.output(&["run", "--once"]).status.code(), Some(0));

    let contract = json!({"fvRsProv": {"attributes": {"tnVzBrCPName": "web", "prio": "level2"}}});
    world.apic.admin_post(DN_E, &contract).unwrap();
    world.apic.admin_post(DN_E, &json!({"tagAnnotation": {"attributes": {"key": "k", "value": "v"}}})).unwrap();
    world.apic.set(DN_E, "l3extInstP", &[("descr", "the shop"), ("prefGrMemb", "include")]).unwrap();
    let subnet = |epg: &str, ip: &str| format!("uni/tn-T/out-L/instP-{epg}/extsubnet-[{ip}/32]");
    for dn in [subnet("E", "10.0.0.1"), subnet("G", "10.0.2.2"), subnet("OLD", "10.0.1.1")] {
        world.apic.set(&dn, "l3extSubnet", &[("descr", "mine"), ("scope", "import-security,shared-security")]).unwrap();
    }
    let drift = [("name", "other"), ("scope", "export-rtctrl")];
    world.apic.set(&subnet("G", "10.0.2.1"), "l3extSubnet", &drift).unwrap();

    world.kube.annotate("a", "web", Some(F));
    world.kube.annotate("a", "leaves", Some(&binding("NEW")));
    let gone = world.kube.all("pods").into_iter().find(|it| it["status"]["podIP"] == "10.0.2.2").unwrap();
    world.kube.delete("pods", "a", gone["metadata"]["name"].as_str().unwrap());
}

/// T8, W2: "do" has the very requests of a run: sent by hand, they make what `run --once` makes. "undo" brings back what
/// was there, with what people had added to it, and nothing of both was sent by `plan`.
#[test]
fn the_requests_and_their_undo_are_complete() {
    World::both(|world| {
        changed_world(world);
        let hand = Hand::of(world);
        let before = hand.configuration();
        let file = plan(world, &["-o", "apic"], 2);
        assert_eq!(hand.configuration(), before, "plan has written");
        assert_eq!(file["schema"], "aci-sync.plan-apic.v1");
        assert_eq!(
            (&file["result"], &file["summary"]),
            (&json!("changes"), &plan(world, &["-o", "json"], 2)["summary"])
        );

        hand.post(&file["do"]);
        let by_hand = hand.configuration();
        assert_ne!(by_hand, before);
        assert!(world.apic.get(DN_E).is_none() && world.holds("F", &["10.0.0.1", "10.0.0.2"]));
        plan(world, &["-o", "apic"], 0);

        hand.post(&file["undo"]);
        assert_eq!(hand.configuration(), before);
        assert!(world.apic.get(&format!("{DN_E}/rsprov-web")).is_some(), "the contract is back");
        assert_eq!(plan(world, &["-o", "apic"], 2), file, "the same plan again");
        assert!(world.apic.faults_raised().is_empty(), "no address was in two EPGs at any time");

        assert_eq!(world.output(&["run", "--once", "--epg-grace", "0"]).status.code(), Some(0));
        assert_eq!(hand.configuration(), by_hand);
    });
}

/// T8: `-o json` has each change with its action, reason and attributes, moves as one; findings, and numbers that agree with
/// the sentence.
#[test]
fn json_has_each_change() {
    let world = World::new();
    changed_world(&world);
    world.kube.deploy("b", "typo", Some("{}"), &[]);
    let plan = plan(&world, &["-o", "json"], 2);
    assert_eq!((&plan["schema"], &plan["result"]), (&json!("aci-sync.plan.v1"), &json!("changes")));
    assert_eq!((&plan["cluster_id"], &plan["policy"]), (&json!("me"), &json!("sync")));
    let counts = json!({"create": 5, "change": 1, "delete": 6, "move": 3, "blocked": 0, "kept": 0, "findings": 1,
        "open_findings": 0});
    assert_eq!(plan["counts"], counts);
    assert_eq!(plan["summary"], "Plan: 5 to create, 1 to change, 6 to delete.");
    assert_eq!(plan["findings"][0]["code"], "InvalidAnnotation");
    assert_eq!(plan["findings"][0]["subject"], "Deployment b/typo");

    let changes = plan["changes"].as_array().unwrap();
    let change = |action: &str, dn: &str| {
        let found = changes.iter().find(|it| it["action"] == action && it["dn"] == dn);
        found.unwrap_or_else(|| panic!("{action} {dn}: {plan:#}")).clone()
    };
    let name = &world.apic.get(&format!("{DN_E}/extsubnet-[10.0.0.1/32]")).unwrap()["name"];
    let before =
        json!({"ip": "10.0.0.1/32", "name": name, "scope": "import-security,shared-security", "annotation": MARK});
    let after = json!({"ip": "10.0.0.1/32", "name": name, "scope": "import-security", "annotation": MARK});
    let expected = json!({"action": "move", "class": "l3extSubnet", "dn": format!("{DN_E}/extsubnet-[10.0.0.1/32]"),
        "to": format!("{DN_F}/extsubnet-[10.0.0.1/32]"), "why": format!("moves to {DN_F}"), "before": before, "after": after});
    assert_eq!(change("move", &format!("{DN_E}/extsubnet-[10.0.0.1/32]")), expected);
    let expected = json!({"action": "create", "class": "l3extInstP", "dn": DN_F, "why": "desired",
        "for": ["Deployment a/web"], "before": null, "after": {"name": "F", "annotation": MARK}});
    assert_eq!(change("create", DN_F), expected);
    let expected = json!({"action": "delete", "class": "l3extInstP", "dn": DN_E, "subnets": 0,
        "why": "no valid annotation names the EPG any more", "before": {"name": "E", "annotation": MARK}, "after": null});
    assert_eq!(change("delete", DN_E), expected);
    let repair = change("repair", "uni/tn-T/out-L/instP-G/extsubnet-[10.0.2.1/32]");
    assert_eq!((&repair["before"]["name"], &repair["before"]["scope"]), (&json!("other"), &json!("export-rtctrl")));
    assert_eq!(repair["after"]["scope"], "export-rtctrl,import-security");
    let surplus = change("delete", "uni/tn-T/out-L/instP-G/extsubnet-[10.0.2.2/32]");
    assert_eq!((surplus["before"]["ip"].as_str(), &surplus["after"]), (Some("10.0.2.2/32"), &Value::Null));
    let tags: Vec<_> = changes.iter().filter(|it| it["class"] == "tagAnnotation").map(|it| &it["action"]).collect();
    assert_eq!(tags, ["create", "delete"], "what makes addresses reachable goes first (W9)");
    assert_eq!(changes.len(), 9, "3 moves, 2 other creates, 1 repair, 3 other deletes");
}

/// X4, T8: 3 if nothing can be changed although something desired is missing, also in JSON; and what could not be looked at
/// is said in JSON, too.
#[test]
fn the_exit_code_goes_with_the_object() {
    let world = World::new();
    assert_eq!(plan(&world, &["-o", "json"], 0)["result"], "in_sync");
    world.kube.deploy("a", "web", Some(r#"{"tenant":"T","l3out":"NO","epg":"E"}"#), &["10.0.0.1"]);
    let held = plan(&world, &["-o", "json"], 3);
    assert_eq!((&held["result"], &held["findings"][0]["open"]), (&json!("held_back"), &json!(true)));
    assert_eq!(held["summary"], "No changes, but something desired is held back by 1 finding.");
    assert_eq!(plan(&world, &["-o", "apic"], 3)["do"], json!([]));
    assert_eq!(world.output(&["plan"]).status.code(), Some(3));

    world.kube.deny("list", "pods");
    for (form, schema) in [("json", "aci-sync.plan.v1"), ("apic", "aci-sync.plan-apic.v1")] {
        let failed = plan(&world, &["-o", form], 78);
        assert_eq!((&failed["schema"], &failed["result"]), (&json!(schema), &json!("failed")));
        assert!(failed["summary"].as_str().unwrap().contains("cannot list resource"), "{failed}");
    }
}

/// The blocks of code in `docs/plan.md` that begin with these words.
fn documented(begin: &str) -> String {
    let text = std::fs::read_to_string("docs/plan.md").unwrap();
    let mut blocks = text.split("\n```").skip(1).step_by(2).filter_map(|it| it.split_once('\n')).map(|it| it.1);
    blocks.find(|it| it.starts_with(begin)).unwrap().to_owned()
}

/// T8: docs/plan.md shows what `plan` prints.
#[test]
fn the_document_shows_a_real_plan() {
    let world = World::new();
    world.apic.setup_tenant("TEN_SHOP", "VRF", &["L3O_SHOP"]).unwrap();
    let epg = |name: &str| json!({"tenant": "TEN_SHOP", "l3out": "L3O_SHOP", "epg": name}).to_string();
    world.kube.deploy("shop", "web", Some(&epg("EPG_WEB")), &["10.244.1.14"]);
    let id = ["--cluster-id", "prod-1"];
    assert_eq!(world.output(&[&["run", "--once"], &id[..]].concat()).status.code(), Some(0));
    world.kube.annotate("shop", "web", Some(&epg("EPG_FRONT")));
    world.kube.deploy("shop", "later", Some(r#"{"tenant":"TEN_LATER","l3out":"L3O_SHOP","epg":"X"}"#), &[]);
    let done = world.output(&[&["plan"], &id[..]].concat());
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(text.trim_end(), documented("$ aci-sync plan\n").strip_prefix("$ aci-sync plan\n").unwrap());
    let changes = plan(&world, &[&["-o", "json"], &id[..]].concat(), 2)["changes"].take();
    let shown: Value = serde_json::from_str(&documented("{\n  \"action\": \"move\"")).unwrap();
    assert!(changes.as_array().unwrap().contains(&shown), "{changes:#}");
}
