//! POST and DELETE: upserts, transactions, statuses, refusals with their codes and texts.

use serde_json::{Value, json};

use crate::client::{Client, EPG, apic, epg};

fn subnet(attributes: &Value) -> Value {
    json!({"l3extSubnet": {"attributes": attributes}})
}

#[test]
fn a_post_creates_or_changes_and_answers_empty() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let empty = json!({"totalCount": "0", "imdata": []});
    // The URL is the object's own or its parent's, a trailing slash included.
    for target in [
        "/api/mo/uni/tn-T/out-L.json",
        "/api/node/mo/uni/tn-T/out-L/instP-E.json",
        "/api/mo/uni/tn-T/out-L/instP-E/.json",
    ] {
        let answer = client.post(target, &epg("E", &["10.0.0.1/32"]));
        assert_eq!((answer.status, answer.json()), (200, empty.clone()), "{target}");
    }
    let answer = client.post(&format!("/api/mo/{EPG}.json"), &subnet(&json!({"ip": "10.0.0.2/32", "name": "a"})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    // What is not given keeps its value; children that are not given stay.
    client.post(&format!("/api/mo/{EPG}.json"), &subnet(&json!({"ip": "10.0.0.2/32", "descr": "b"})));
    let subnets = apic.subnets(EPG);
    assert_eq!(subnets.keys().collect::<Vec<_>>(), ["10.0.0.1/32", "10.0.0.2/32"]);
    let second = &subnets["10.0.0.2/32"];
    assert_eq!((&second["name"], &second["descr"], &second["uid"]), (&json!("a"), &json!("b"), &json!("15374")));
    assert!(apic.get(&format!("{EPG}/rscustQosPol")).is_some(), "the fabric's own child");
    assert_eq!(apic.get("uni/tn-T/out-L/rsectx").unwrap()["tDn"], "uni/tn-T/ctx-V");
}

#[test]
fn scope_reads_back_in_alphabetical_order() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &[]));
    let scope = "shared-security,shared-rtctrl,import-security,import-rtctrl,export-rtctrl";
    client.post(&format!("/api/mo/{EPG}.json"), &subnet(&json!({"ip": "10.0.0.1/32", "scope": scope})));
    let sorted = "export-rtctrl,import-rtctrl,import-security,shared-rtctrl,shared-security";
    assert_eq!(apic.subnets(EPG)["10.0.0.1/32"]["scope"], sorted);
}

#[test]
fn statuses_mean_what_they_mean() {
    let there = json!({"l3extInstP": {"attributes": {"name": "E"}}});
    // Status, whether the EPG is there before, code of the refusal, whether it is there afterwards.
    let table = [
        ("created", false, "", true),
        ("created", true, "103", true),
        ("created, modified", true, "103", true),
        ("created,modified", true, "", true),
        ("created,modified", false, "", true),
        ("modified", false, "", true),
        ("modified", true, "", true),
        ("deleted", true, "", false),
        ("deleted", false, "", false),
        ("destroyed", false, "120", false),
    ];
    for (status, before, code, after) in table {
        let apic = apic(|_| {});
        let client = Client::logged_in(&apic);
        if before {
            apic.admin_post("uni/tn-T/out-L", &there).unwrap();
        }
        let body = json!({"l3extInstP": {"attributes": {"name": "E", "status": status}}});
        let answer = client.post("/api/mo/uni/tn-T/out-L.json", &body);
        let got = if answer.status == 200 { String::new() } else { answer.error().1 };
        assert_eq!((got.as_str(), apic.get(EPG).is_some()), (code, after), "{status}, {before}");
    }
}

#[test]
fn one_post_is_all_or_nothing() {
    let apic = apic(|_| {});
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32"])).unwrap();
    let before = apic.tree("uni");
    let client = Client::logged_in(&apic);
    let mut body = epg("E", &["10.0.0.2/32", "10.0.0.3/32"]);
    let children = body["l3extInstP"]["children"].as_array_mut().unwrap();
    children.push(subnet(&json!({"ip": "10.0.0.1/32", "status": "deleted"})));
    let last = children.len();
    children.push(subnet(&json!({"ip": "10.0.0.4/32", "name": "bad name"})));
    let (status, code, text) = client.post("/api/mo/uni/tn-T/out-L.json", &body).error();
    assert_eq!((status, code.as_str()), (400, "801"));
    assert_eq!(
        text,
        "property name of uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.4/32] failed validation for value 'bad name'"
    );
    assert_eq!(apic.tree("uni"), before);
    body["l3extInstP"]["children"].as_array_mut().unwrap().remove(last);
    assert_eq!(client.post("/api/mo/uni/tn-T/out-L.json", &body).status, 200);
    assert_eq!(apic.subnets(EPG).keys().collect::<Vec<_>>(), ["10.0.0.2/32", "10.0.0.3/32"]);
}

#[test]
fn bad_writes_are_refused_with_code_and_text() {
    let apic = apic(|_| {});
    apic.admin_post("uni/tn-T/out-L", &epg("E", &[])).unwrap();
    let client = Client::logged_in(&apic);
    let long = "a".repeat(129);
    let l3out = "uni/tn-T/out-L";
    let table = [
        ("uni/tn-X/out-L", epg("E", &[]), "102", "configured object ((Dn0)) not found Dn0=uni/tn-X/out-L/instP-E, "),
        ("uni/tn-T/out-X", epg("E", &[]), "102", "configured object ((Dn0)) not found Dn0=uni/tn-T/out-X/instP-E, "),
        (
            l3out,
            json!({"l3extInstP": {"attributes": {"name": "E", "status": "created"}}}),
            "103",
            "Cannot create External Network Instance Profile (l3extInstP); object uni/tn-T/out-L/instP-E already exists.",
        ),
        ("uni/x-T", epg("E", &[]), "104", "Invalid DN uni/x-T wrong rn prefix x-T at position 1"),
        (
            l3out,
            json!({"l3extInstP": {"attributes": {"name": "E", "prefGrMemb": "foo"}}}),
            "120",
            "unknown property value foo, name prefGrMemb, class l3extInstP [(Dn0)] Dn0=, ",
        ),
        (
            EPG,
            subnet(&json!({"ip": "10.0.0.1/32", "scope": "import"})),
            "120",
            "unknown property value import, name scope, class l3extSubnet [(Dn0)] Dn0=, ",
        ),
        (
            l3out,
            json!({"l3extInstP": {"attributes": {"name": "E", "pcTag": "1"}}}),
            "120",
            "property pcTag of instP-E is read-only, class l3extInstP",
        ),
        (
            l3out,
            json!({"l3extInstP": {"attributes": {"name": "E", "ownerKey": "1"}}}),
            "400",
            "unknown attribute 'ownerKey' in element 'l3extInstP'",
        ),
        (
            l3out,
            subnet(&json!({"ip": "10.0.0.1/32"})),
            "400",
            "Invalid request. Can not contain child 'extsubnet-[10.0.0.1/32]' under parent 'uni/tn-T/out-L'",
        ),
        (l3out, json!({"l3extInstP": {"attributes": {}}}), "822", "naming property ('l3extInstP.name') is not set."),
        (
            EPG,
            subnet(&json!({"ip": "10.0.0.1/32", "scope": "shared-security"})),
            "1",
            "External subnet's shared_security scope also needs import_security. Dn0=uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32], ",
        ),
        (l3out, json!({"foo": {"attributes": {}}}), "122", "unknown managed object class foo"),
        (l3out, json!({"l3extInstP": {"name": "E"}}), "400", "incomplete node at line 1"),
        (
            l3out,
            json!({"l3extInstP": {"attributes": {"name": 5}}}),
            "400",
            "JSON parsing failed - incomplete attribute value at line: 1",
        ),
        (
            EPG,
            subnet(&json!({"ip": "10.0.0.1/33"})),
            "801",
            "property ip of uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/33] failed validation for value '10.0.0.1/33'",
        ),
        (
            l3out,
            json!({"l3extInstP": {"attributes": {"name": "E", "annotation": "a,b"}}}),
            "801",
            "property annotation of uni/tn-T/out-L/instP-E failed validation for value 'a,b'",
        ),
        (l3out, json!({"l3extInstP": {"attributes": {"name": "E", "annotation": long}}}), "801", ""),
        (
            l3out,
            json!({"l3extInstP": {"attributes": {"name": "x/../y"}}}),
            "801",
            "property name of uni/tn-T/out-L/instP-x/../y failed validation for value 'x/../y'",
        ),
        (
            "uni",
            json!({"fvTenant": {"attributes": {"name": "a:b"}}}),
            "801",
            "property name of uni/tn-a:b failed validation for value 'a:b'",
        ),
    ];
    let before = apic.tree("uni");
    for (dn, body, code, text) in table {
        let (status, got, said) = client.post(&format!("/api/mo/{dn}.json"), &body).error();
        assert_eq!((status, got.as_str()), (400, code), "{body}: {said}");
        assert!(said == text || text.is_empty(), "{said}");
    }
    let (status, code, _) = client.delete(&format!("/api/mo/{EPG}/rscustQosPol.json")).error();
    assert_eq!((status, code.as_str()), (400, "107"));
    assert_eq!(client.delete("/api/mo/uni/x-T.json").error().1, "104");
    assert_eq!(apic.tree("uni"), before);
}

#[test]
fn deleting_what_is_absent_is_fine_and_deleting_cascades() {
    let apic = apic(|_| {});
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32"])).unwrap();
    let client = Client::logged_in(&apic);
    for _ in 0..2 {
        let answer = client.delete(&format!("/api/mo/{EPG}.json"));
        assert_eq!((answer.status, answer.json()), (200, json!({"totalCount": "0", "imdata": []})));
        assert_eq!(apic.tree(EPG), []);
    }
}

/// The root names an object that is missing: a POST rooted at the parent creates it, one rooted at the child does not.
#[test]
fn what_a_post_is_rooted_at_decides_what_it_creates() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let tag = json!({"tagAnnotation": {"attributes": {"key": "aci-sync:c:E", "value": "1"}}});
    assert_eq!(client.post("/api/mo/uni/tn-T/out-X.json", &tag).error().1, "102");
    assert_eq!(client.post("/api/mo/uni/tn-T/out-L.json", &tag).status, 200);
    assert!(apic.get("uni/tn-T/out-L/annotationKey-[aci-sync:c:E]").is_some());
    let unbracketed = client.get("/api/mo/uni/tn-T/out-L/annotationKey-aci-sync:c:E.json");
    assert_eq!(unbracketed.dns(), ["uni/tn-T/out-L/annotationKey-[aci-sync:c:E]"], "both spellings are understood");
    let own = json!({"l3extOut": {"attributes": {"name": "X"}}});
    assert_eq!(client.post("/api/mo/uni/tn-T/out-X.json", &own).status, 200);
    assert!(apic.get("uni/tn-T/out-X").is_some());
}

#[test]
fn the_answer_shows_the_posted_objects_on_request() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let target = "/api/mo/uni/tn-T/out-L.json?rsp-subtree=modified";
    let first = client.post(target, &epg("E", &["10.0.0.1/32"])).json();
    let root = &first["imdata"][0]["l3extInstP"];
    let names = ["dn", "rn", "status", "matchT"].map(|name| root["attributes"][name].as_str().unwrap());
    assert_eq!((first["totalCount"].as_str(), names), (Some("1"), [EPG, "", "created", "AtleastOne"]));
    let children: Vec<&Value> =
        root["children"].as_array().unwrap().iter().flat_map(|it| it.as_object().unwrap().values()).collect();
    let rns: Vec<&Value> = children.iter().map(|it| &it["attributes"]["rn"]).collect();
    assert_eq!(rns, ["extsubnet-[10.0.0.1/32]", "rscustQosPol"], "the fabric's own child, too; not in posted order");
    assert!(children.iter().all(|it| it["attributes"]["status"] == "created" && it["attributes"].get("dn").is_none()));
    let again = client.post(target, &epg("E", &["10.0.0.1/32"])).json();
    assert_eq!(again, json!({"totalCount": "0", "imdata": []}));
    let full =
        client.post(&format!("/api/mo/{EPG}.json?rsp-subtree=full"), &subnet(&json!({"ip": "10.0.0.1/32"}))).json();
    assert_eq!(full["imdata"][0]["l3extSubnet"]["attributes"]["ip"], "10.0.0.1/32");
    // A deleted object is shown with all that it had; one that was not there is not shown.
    let gone = client.delete(&format!("/api/mo/{EPG}.json?rsp-subtree=modified")).json();
    assert_eq!(gone["totalCount"], "1");
    let names = ["dn", "rn", "status", "name", "matchT"];
    let names = names.map(|name| gone["imdata"][0]["l3extInstP"]["attributes"][name].as_str().unwrap());
    assert_eq!(names, [EPG, "", "deleted", "E", "AtleastOne"]);
    assert_eq!(client.delete(&format!("/api/mo/{EPG}.json?rsp-subtree=modified")).json(), again);
}

#[test]
fn one_prefix_in_two_epgs_of_a_vrf_is_accepted_and_faulted() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &["10.0.0.1/32"]));
    assert_eq!(client.post("/api/mo/uni/tn-T/out-M.json", &epg("F", &["10.0.0.1/32"])).status, 200);
    let faults = client.get("/api/class/faultInst.json").json();
    let fault = &faults["imdata"][0]["faultInst"]["attributes"];
    let second = "uni/tn-T/out-M/instP-F";
    assert_eq!(
        fault["dn"],
        format!("topology/pod-1/node-101/local/svc-policyelem-id-0/uni/epp/rtd-[{second}]/nwissues/fault-F0467")
    );
    assert!(
        fault["descr"]
            .as_str()
            .unwrap()
            .starts_with(&format!("Configuration failed for {second} due to Prefix Entry Already Used in Another EPG"))
    );
    assert_eq!((&fault["severity"], &fault["code"]), (&json!("minor"), &json!("F0467")));
    let detail = "prefix-entry-already-in-use: Prefix entry sys/ctx-[vxlan-2621440]/pfx-[10.0.0.1/32] is in use;";
    assert!(fault["descr"].as_str().unwrap().ends_with(&format!(", debug message: {detail}")));
    let cause = "configQual:prefix-entry-already-in-use, configSt:failed-to-apply";
    assert_eq!(fault["changeSet"], format!("{cause}, debugMessage:{detail}, temporaryError:no"));
    // It goes with its cause; that it was there is remembered.
    client.delete(&format!("/api/mo/{EPG}.json"));
    assert_eq!(client.get("/api/class/faultInst.json").dns(), Vec::<String>::new());
    assert_eq!((apic.faults_standing().len(), apic.faults_raised().len()), (0, 1));
}

#[test]
fn a_fault_that_is_over_may_be_retained() {
    let apic = apic(|it| it.faults_retained = true);
    let client = Client::logged_in(&apic);
    for (l3out, name) in [("L", "E"), ("M", "F")] {
        client.post(&format!("/api/mo/uni/tn-T/out-{l3out}.json"), &epg(name, &["10.0.0.1/32"]));
    }
    let state = || {
        let fault = client.get("/api/class/faultInst.json").json()["imdata"][0]["faultInst"]["attributes"].take();
        (fault["severity"].clone(), fault["lc"].clone())
    };
    assert_eq!(state(), (json!("minor"), json!("raised")));
    client.delete(&format!("/api/mo/{EPG}.json"));
    assert_eq!(state(), (json!("cleared"), json!("retaining")));
    client.delete("/api/mo/uni/tn-T/out-M/instP-F.json");
    client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &["10.0.0.1/32"]));
    client.post("/api/mo/uni/tn-T/out-M.json", &epg("F", &["10.0.0.1/32"]));
    assert_eq!(state(), (json!("minor"), json!("raised")), "it comes back");
}

#[test]
fn no_fault_without_import_security_or_in_another_vrf_or_for_a_move_in_one_post() {
    let apic = apic(|_| {});
    apic.setup_tenant("U", "V", &["L"]).unwrap();
    let client = Client::logged_in(&apic);
    client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &["10.0.0.1/32"]));
    client.post("/api/mo/uni/tn-U/out-L.json", &epg("E", &["10.0.0.1/32"]));
    client.post("/api/mo/uni/tn-T/out-L.json", &epg("F", &[]));
    let body = subnet(&json!({"ip": "10.0.0.1/32", "scope": "export-rtctrl"}));
    assert_eq!(client.post("/api/mo/uni/tn-T/out-L/instP-F.json", &body).status, 200);
    let leave = json!({"l3extInstP": {"attributes": {"name": "E"}, "children": [subnet(&json!({"ip": "10.0.0.1/32", "status": "deleted"}))]}});
    let both = json!({"l3extOut": {"attributes": {"name": "L"}, "children": [leave, epg("G", &["10.0.0.1/32"])]}});
    assert_eq!(client.post("/api/mo/uni/tn-T/out-L.json", &both).status, 200);
    assert_eq!(apic.faults_raised(), []);
    // Added to the scope later, it is a conflict.
    apic.set("uni/tn-T/out-L/instP-F/extsubnet-[10.0.0.1/32]", "l3extSubnet", &[("scope", "import-security")]).unwrap();
    assert_eq!(apic.faults_standing().len(), 1);
}
