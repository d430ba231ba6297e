//! What the model plans, as stories: each file in `tests/model/stories` holds worlds in a few words and the plan they
//! lead to.
//!
//! A story is a rule's name and a sentence, the world, `=>`, and what comes out: the changes of each round, then the
//! findings. The expected text is written by hand.
//!
//! ```text
//! D4: two Deployments share an EPG
//! deployment ns/name T/L/E [created=N] [labels=a:b,c:d] [expose=pods,services] [paused]
//! deployment ns/name =TEXT (the annotation as it is), or - (none); [pause=VALUE] [other=KEY] but with =TEXT
//! pod ns/name [of=deployment] [ip=A,B] [created=N] [labels=..] [hostnetwork] [terminating] [phase=P]
//! service ns/name [selector=a:b] [ip=A,B] [hostname] [type=T]
//! l3out T/L [vrf=V]       epg T/L/E mark [contracts]       subnet T/L/E prefix mark [name=N] [scope=S]
//! tag T/L/E [ID] (our memory that the EPG is foreign, or another cluster id's) | untagged T/L/E (this process's own memory)
//! deferred T/L/E [prefix] | resting T/L/E [prefix] (rejected by the APIC, in conflict)
//! incomplete | grace-runs | keep-contracted | batch=N | adopt=ID | scope=S
//! allow=NS=T/L/E | addresses=CIDR | expose=pods | foreign-epg=refuse | max-epgs=N
//! max-deletes=N|N%|off (the first round is counted, W4, J3) | default-l3out=T/L (before the Deployments, J2)
//! ```
//! Marks: `ours`, `other`, `none`, `python`, `old` (the cluster id `old`, legacy with `adopt=old`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use aci_sync::kube::objects;
use aci_sync::model::cache::FabricCache;
use aci_sync::model::desired::desired_state;
use aci_sync::model::dn::{EpgDn, L3outDn, Name, ObjectDn};
use aci_sync::model::finding::Finding;
use aci_sync::model::guards::deletion::DeletionGuard;
use aci_sync::model::inventory::Inventory;
use aci_sync::model::kubernetes::Kind;
use aci_sync::model::mo::{Attributes, Mo};
use aci_sync::model::observed::Epg;
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::plan::describe;
use aci_sync::model::plan_input::{PlanInput, TagFailure};
use aci_sync::model::planner::plan;
use aci_sync::model::quota::Quota;
use aci_sync::model::rules::{Allow, Cidr, Exposed, MaxDeletes, Rules};
use aci_sync::model::scope::Scope;
use serde_json::{Value, json};

/// `BLESS=1` writes what comes out into the stories; `STORY=TEXT` runs those alone whose title contains it.
///
/// D1-D6, P1-P6, S1-S4, O1-O4, O6, R2, R3, R5, R6, W1-W4, W6, G1, G2: the stories in `tests/model/stories`, each with its rule.
#[test]
fn stories() {
    let mut count = 0;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/stories");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    let (mut wrong, blesses) = (Vec::new(), std::env::var_os("BLESS").is_some());
    let chosen = std::env::var("STORY").unwrap_or_default();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut blessed = text.clone();
        for story in text.split("\n---\n") {
            let story: Vec<&str> = story.lines().filter(|it| !it.starts_with('#')).collect();
            let story = story.join("\n");
            let (title, rest) = story.trim().split_once('\n').expect("a title and a world");
            let (world, expected) = rest.split_once("\n=>").expect("=> before the expected plan");
            if !title.contains(&chosen) {
                continue;
            }
            let outcome = World::read(world).outcome();
            if outcome.trim() != expected.trim() && blesses {
                let (before, after) = (format!("{world}\n=>"), expected.trim_end());
                // Another story may end in the same lines.
                let from = blessed.find(title).expect("the title");
                let at = blessed[from..].find(&before).expect("no comment between a world and what comes out");
                let at = from + at + before.len();
                blessed.replace_range(at..at + after.len(), &format!("\n{}", outcome.trim()));
            } else if outcome.trim() != expected.trim() {
                wrong.push(format!("{}: {title}\nexpected:\n{}\ngot:\n{}", file.display(), expected.trim(), outcome));
            }
            count += 1;
        }
        if blessed != text {
            std::fs::write(&file, blessed).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(count > 30 || !chosen.is_empty(), "only {count} stories were read");
}

/// R6: neither the order in which the cluster's objects came nor an intermediate state matters.
#[test]
fn order_does_not_matter() {
    let world = "
        deployment a/one T/L/E created=1 labels=app:x
        deployment a/two T/L/F created=2 labels=app:x
        pod a/p1 of=one ip=10.0.0.1 created=1
        pod a/p2 of=two ip=10.0.0.1 created=2
        pod b/p3 ip=10.0.0.2 created=3
        pod a/p4 of=one ip=10.0.0.2 created=2
        service a/s selector=app:x ip=10.9.0.1
        l3out T/L vrf=V";
    let lines: Vec<&str> = world.lines().collect();
    let straight = World::read(world).outcome();
    let backwards: Vec<&str> = lines.iter().rev().copied().collect();
    assert_eq!(World::read(&backwards.join("\n")).outcome(), straight);
    let twice: Vec<&str> = lines.iter().chain(&lines).copied().collect();
    assert_eq!(World::read(&twice.join("\n")).outcome(), straight);
    let (early, late) = ("pod a/p9 of=two ip=10.0.0.7", "pod a/p9 of=two ip=10.0.0.7 phase=Failed");
    assert_eq!(World::read(&format!("{early}\n{world}\n{late}")).outcome(), straight);
}

/// X3: shapes that one namespace can make. Each took minutes when every pair of a Service and a Deployment cost the
/// product of their labels, or the square of the Deployments that want one address.
#[test]
fn hostile_shapes_are_planned() {
    let many = |prefix: &str, count: usize| -> String { (0..count).map(|n| format!("{prefix}{n}:x,")).collect() };
    let labels = many("label-of-some-length-", 3000);
    let mut world = World::read("l3out T/L vrf=V");
    for n in 0..40 {
        world.line(&format!("deployment evil/d{n} T/L/E{n} created={} labels={labels}own:{n}", n % 60));
        world.line(&format!("service evil/s{n} selector={labels} ip=10.9.0.{n}"));
    }
    assert_eq!(world.outcome().matches(" + 10.9.0.").count(), 40);
    for n in 0..2000 {
        world.line(&format!("deployment mass/d{n} T/L/M{n} created={} labels=app:x", n % 60));
    }
    for n in 0..60 {
        world.line(&format!("service mass/s{n} selector=app:x ip=10.8.0.{n}"));
    }
    assert_eq!(world.outcome().matches(" + 10.8.0.").count(), 60);
}

struct World {
    inventory: Inventory,
    mos: Vec<Mo>,
    l3outs: BTreeMap<String, Option<String>>,
    rules: Rules,
    adopt: Vec<String>,
    tag_failures: BTreeMap<EpgDn, TagFailure>,
    deferred: BTreeSet<ObjectDn>,
    throttled: BTreeSet<ObjectDn>,
    deletes: bool,
    grace_over: bool,
}

impl World {
    fn read(text: &str) -> World {
        let mut world = World {
            inventory: Inventory::watching(&Kind::ALL),
            mos: Vec::new(),
            l3outs: BTreeMap::new(),
            rules: Rules { kinds: Kind::ALL.into(), max_deletes: MaxDeletes::Off, ..Rules::default() },
            adopt: Vec::new(),
            tag_failures: BTreeMap::new(),
            deferred: BTreeSet::new(),
            throttled: BTreeSet::new(),
            deletes: true,
            grace_over: true,
        };
        for kind in Kind::ALL {
            world.inventory.listed(kind, Vec::new(), Instant::now());
        }
        for line in text.lines().map(str::trim).filter(|it| !it.is_empty()) {
            world.line(line);
        }
        world
    }

    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (first, options) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "deployment" => self.object(Kind::Deployment, workload(first, options)),
            "statefulset" => self.object(Kind::StatefulSet, workload(first, options)),
            "daemonset" => self.object(Kind::DaemonSet, workload(first, options)),
            "pod" => self.object(Kind::Pod, pod(first, options)),
            "service" => self.object(Kind::Service, service(first, options)),
            "l3out" => {
                let vrf = option(options, "vrf").map(|it| format!("uni/tn-T/ctx-{it}"));
                self.l3outs.insert(first.to_owned(), vrf);
                self.mo("l3extOut", l3out(first).to_string(), Attributes::default());
            }
            "epg" => {
                let dn = epg(first).to_string();
                let attributes = Attributes { annotation: Some(annotation(options).into()), ..Attributes::default() };
                self.mo("l3extInstP", dn.clone(), attributes);
                if options.ends_with("contracts") {
                    self.mo("fvRsCons", format!("{dn}/rscons-web"), Attributes::default());
                }
            }
            "subnet" => {
                let (prefix, options) = options.split_once(' ').expect("a prefix and a mark");
                let name = option(options, "name").unwrap_or_default();
                let scope = option(options, "scope").unwrap_or("import-security");
                let dn = epg(first).subnet(prefix);
                let attributes = Attributes {
                    annotation: Some(annotation(options).into()),
                    name: Some(name.into()),
                    scope: Some(scope.into()),
                    ..Attributes::default()
                };
                self.mo("l3extSubnet", dn, attributes);
            }
            "tag" => {
                let dn = epg(first);
                let id = if options.is_empty() { "me" } else { options };
                let key = format!("aci-sync:{id}:{}", dn.name);
                self.mo("tagAnnotation", dn.l3out.tag(&key), Attributes::default());
            }
            "untagged" => {
                let untagged = TagFailure { why: "a privilege is missing".to_owned(), try_again: false };
                self.tag_failures.insert(epg(first), untagged);
            }
            "deferred" => drop(self.deferred.insert(object(first, options))),
            "throttled" => drop(self.throttled.insert(object(first, options))),
            "incomplete" => self.deletes = false,
            "grace-runs" => self.grace_over = false,
            "keep-contracted" => self.rules.keep_contracted = true,
            other => match other.split_once('=') {
                Some(("workloads", kinds)) => {
                    let is_watched = |it: &Kind| !it.is_workload() || kinds.contains(&it.to_string().to_lowercase());
                    self.rules.kinds = Kind::ALL.into_iter().filter(is_watched).collect();
                }
                Some(("batch", batch)) => self.rules.batch = batch.parse().unwrap(),
                Some(("scope", scope)) => self.rules.scope = Scope::parse(scope),
                Some(("adopt", id)) => self.adopt.push(id.to_owned()),
                Some(("allow", rule)) => self.rules.allow.push(Allow::parse(rule).unwrap()),
                Some(("addresses", block)) => self.rules.addresses.push(Cidr::parse(block).unwrap()),
                Some(("expose", words)) => self.rules.expose = Exposed::of(words.split(',')).unwrap(),
                Some(("foreign-epg", "refuse")) => self.rules.use_foreign = false,
                Some(("max-epgs", most)) => self.rules.max_epgs = Some(most.parse().unwrap()),
                Some(("default-l3out", name)) => {
                    let default_l3out = Some(l3out(name));
                    self.inventory =
                        Inventory::new(&Rules { kinds: Kind::ALL.into(), default_l3out, ..Rules::default() });
                }
                Some(("max-deletes", "off")) => self.rules.max_deletes = MaxDeletes::Off,
                Some(("max-deletes", most)) => {
                    let percent = most.strip_suffix('%').map(|it| MaxDeletes::Percent(it.parse().unwrap()));
                    self.rules.max_deletes = percent.unwrap_or_else(|| MaxDeletes::Number(most.parse().unwrap()));
                }
                _ => panic!("what is {line:?}?"),
            },
        }
    }

    fn object(&mut self, kind: Kind, json: Value) {
        if !self.rules.kinds.contains(&kind) {
            return;
        }
        let mut object = objects::decode(kind, json.to_string().as_bytes()).unwrap();
        object.forget_unwatched_owner(&self.rules.kinds);
        self.inventory.upsert(object);
    }

    fn mo(&mut self, class: &str, dn: String, attributes: Attributes) {
        self.mos.push(Mo { class: class.to_owned(), dn, attributes });
    }

    /// Plans and applies until nothing is left, as a reconcile does, and returns what it did and what it found.
    fn outcome(&self) -> String {
        let mut fabric = FabricCache::new(OwnerIdentity::new("me", &self.adopt));
        let named = self.inventory.managed.values().filter_map(|it| it.binding.as_ref());
        let mut l3outs: Vec<L3outDn> = named.map(|it| it.epg.l3out.clone()).collect();
        l3outs.extend(self.l3outs.keys().map(|it| l3out(it)));
        for dn in l3outs {
            let name = format!("{}/{}", dn.tenant, dn.l3out);
            let vrf = self.l3outs.get(&name).cloned().flatten();
            let below = format!("{dn}/");
            let own = |mo: &&Mo| mo.dn == dn.to_string() || mo.dn.starts_with(&below);
            let mut mos: Vec<Mo> = self.mos.iter().filter(own).cloned().collect();
            mos.extend(vrf.map(|vrf| Mo {
                class: "l3extRsEctx".to_owned(),
                dn: format!("{dn}/rsectx"),
                attributes: Attributes { target_dn: Some(vrf.into()), ..Attributes::default() },
            }));
            fabric.put_l3out(&dn, &mos, false);
            for epg in fabric.epgs().map(|(dn, _)| dn).collect::<Vec<_>>() {
                if epg.l3out == dn {
                    let below = format!("{epg}/");
                    let own = |mo: &&Mo| mo.dn == epg.to_string() || mo.dn.starts_with(&below);
                    let mos: Vec<Mo> = mos.iter().filter(own).cloned().collect();
                    fabric.put_epg(&epg, &mos, false);
                }
            }
        }
        let mut rounds = Vec::new();
        let mut deletion_guard = DeletionGuard::default();
        let findings: Vec<Finding> = loop {
            let mut beyond = Quota::default().beyond(&self.inventory, &self.rules, |_| false);
            beyond.retain(|dn| !fabric.epg(dn).is_some_and(Epg::belongs_to_us));
            let desired = desired_state(&self.inventory, &self.rules, &|dn| fabric.vrf(dn), &beyond);
            let input = PlanInput {
                desired: &desired,
                inventory: &self.inventory,
                fabric: &fabric,
                rules: &self.rules,
                may_delete: self.deletes,
                grace: Some(Duration::from_secs(60)),
                is_grace_over: &|_| self.grace_over,
                is_deferred: &|it| self.deferred.contains(it),
                is_throttled: &|it| self.throttled.contains(it),
                blocked: deletion_guard.blocked(),
                moves: deletion_guard.moves(),
                whole: false,
                tag_failures: &self.tag_failures,
            };
            let (plan, whole) = (plan(&input), plan(&PlanInput { whole: true, ..input }));
            assert!(plan.is_same(&whole), "R6: {plan:?}\nis not {whole:?}");
            assert!(plan.reads.is_empty(), "everything was read: {:?}", plan.reads);
            let owned = || fabric.count_owned();
            if self.deletes && deletion_guard.check(&plan, owned, self.rules.max_deletes, true) {
                continue;
            }
            fabric.settle(&plan.settled);
            if plan.transactions.is_empty() {
                deletion_guard.keep(&plan, |_| false, |_| false);
                break desired.findings.into_iter().chain(plan.findings).chain(deletion_guard.finding()).collect();
            }
            assert!(rounds.len() < 10, "no end: {rounds:?}");
            let most = plan.transactions.iter().map(|it| it.changes.len()).max().unwrap_or_default();
            assert!(most <= self.rules.batch, "{most} changes in one request");
            plan.transactions.iter().for_each(|it| fabric.apply(it));
            let mut text = describe(&plan.transactions);
            if plan.transactions.len() > 1 && self.rules.batch < 500 {
                text += &format!("in {} requests\n", plan.transactions.len());
            }
            rounds.push(text);
        };
        let mut text = rounds.join("then\n");
        for finding in findings {
            text += &format!("finding {finding}\n");
        }
        let text = if text.is_empty() { "nothing\n".to_owned() } else { text };
        text.lines().map(|it| format!("{}\n", it.trim_end())).collect()
    }
}

fn option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    options.split(' ').find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
}

fn has(options: &str, name: &str) -> bool {
    options.split(' ').any(|it| it == name)
}

fn labels(text: &str) -> Value {
    text.split(',').filter_map(|it| it.split_once(':')).map(|(key, value)| (key.to_owned(), json!(value))).collect()
}

fn created(options: &str) -> String {
    format!("2026-01-01T00:00:{:0>2}Z", option(options, "created").unwrap_or("0"))
}

fn metadata(key: &str, options: &str) -> Value {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    json!({"namespace": namespace, "name": name, "uid": format!("uid-{key}"), "creationTimestamp": created(options)})
}

fn workload(key: &str, options: &str) -> Value {
    let mut metadata = metadata(key, options);
    let annotation = match options.strip_prefix('=') {
        Some(text) => text.to_owned(),
        None if options.starts_with("- ") => String::new(),
        None => {
            let mut names = options.split(' ').next().unwrap().split('/');
            let mut name = || names.next().expect("tenant/l3out/epg");
            let mut annotation = json!({"tenant": name(), "l3out": name(), "epg": name()});
            if let Some(words) = option(options, "expose") {
                annotation["expose"] = words.split(',').filter(|it| !it.is_empty()).collect();
            }
            annotation.to_string()
        }
    };
    metadata["annotations"] = json!({"aci.haystacknetworks.com/l3o": annotation});
    if has(options, "paused") {
        metadata["annotations"]["aci.haystacknetworks.com/pause"] = json!("true");
    }
    if let Some(value) = option(options, "pause") {
        metadata["annotations"]["aci.haystacknetworks.com/pause"] = json!(value);
    }
    if let Some(key) = option(options, "other") {
        metadata["annotations"][format!("aci.haystacknetworks.com/{key}")] = json!("x");
    }
    if options.starts_with("- ") {
        metadata["annotations"].as_object_mut().unwrap().remove("aci.haystacknetworks.com/l3o");
    }
    json!({"metadata": metadata, "spec": {"template": {"metadata": {"labels": labels(option(options, "labels").unwrap_or(""))}}}})
}

fn pod(key: &str, options: &str) -> Value {
    let mut metadata = metadata(key, options);
    let mut labels = labels(option(options, "labels").unwrap_or(""));
    if let Some(deployment) = option(options, "of") {
        labels["pod-template-hash"] = json!("5d9c7");
        let name = format!("{deployment}-5d9c7");
        metadata["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": name, "controller": true}]);
    }
    if let Some(owners) = option(options, "owner") {
        metadata["ownerReferences"] = owners.split(',').map(owner_reference).collect();
    }
    metadata["labels"] = labels;
    if has(options, "terminating") {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    }
    let ips: Vec<Value> = option(options, "ip").unwrap_or("").split(',').map(|ip| json!({"ip": ip})).collect();
    let phase = option(options, "phase").unwrap_or("Running");
    json!({"metadata": metadata, "spec": {"hostNetwork": has(options, "hostnetwork")}, "status": {"phase": phase, "podIPs": ips}})
}

/// `APIVERSION:KIND:NAME`, with `:not` behind it one that is no controller.
fn owner_reference(text: &str) -> Value {
    let parts: Vec<&str> = text.split(':').collect();
    let controller = parts.get(3).is_none();
    json!({"apiVersion": parts[0], "kind": parts[1], "name": parts[2], "uid": "o", "controller": controller})
}

fn service(key: &str, options: &str) -> Value {
    let selector = labels(option(options, "selector").unwrap_or(""));
    let ips = option(options, "ip").unwrap_or("").split(',').filter(|it| !it.is_empty());
    let mut ingress: Vec<Value> = ips.map(|ip| json!({"ip": ip})).collect();
    if has(options, "hostname") {
        ingress.push(json!({"hostname": "lb.example.org"}));
    }
    let kind = option(options, "type").unwrap_or("LoadBalancer");
    let status = json!({"loadBalancer": {"ingress": ingress}});
    json!({"metadata": metadata(key, options), "spec": {"type": kind, "selector": selector}, "status": status})
}

fn object(dn: &str, prefix: &str) -> ObjectDn {
    match prefix {
        "" => ObjectDn::Epg(epg(dn)),
        prefix => ObjectDn::Subnet(epg(dn), prefix.parse().unwrap()),
    }
}

fn l3out(text: &str) -> L3outDn {
    let (tenant, l3out) = text.split_once('/').expect("tenant/l3out");
    L3outDn { tenant: Name::tenant(tenant).unwrap(), l3out: Name::object(l3out).unwrap() }
}

fn epg(text: &str) -> EpgDn {
    let (parent, epg) = text.rsplit_once('/').expect("tenant/l3out/epg");
    l3out(parent).epg(Name::object(epg).unwrap())
}

fn annotation(options: &str) -> &'static str {
    match options.split(' ').next().unwrap_or_default() {
        "ours" => "orchestrator:aci-sync:me",
        "other" => "orchestrator:terraform",
        "none" => "",
        "python" => "orchestrator:aci-k8-haystack",
        "old" => "orchestrator:aci-sync:old",
        other => panic!("what mark is {other:?}?"),
    }
}
