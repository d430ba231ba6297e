//! The decoders, and what must hold of whatever they make of an input. What JSON says is asked of `serde_json::Value`,
//! which knows nothing of the decoders; if it refuses an input there is nothing to compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::BufReader;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aci_sync::apic;
use aci_sync::config;
use aci_sync::kube::Status;
use aci_sync::kube::decode::{self, MAX_LINE, WatchLine};
use aci_sync::kube::election::{ElectionState, Write};
use aci_sync::kube::watch_lines::{ReadError, read_line};
use aci_sync::model::binding;
use aci_sync::model::cache::FabricCache;
use aci_sync::model::desired::{Vrf, desired_state};
use aci_sync::model::discovery::{Discovery, Outcome};
use aci_sync::model::dn::{EpgDn, L3outDn, Name, ParsedDn, Prefix};
use aci_sync::model::inventory::Inventory;
use aci_sync::model::kubernetes::{Kind, Object};
use aci_sync::model::mo::{Mo, MoChange};
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::Rules;
use aci_sync::model::scope::Scope;
use aci_sync::model::staleness::{Staleness, apply_event};
use aci_sync::net::{self, ClientIdentity};
use aci_sync::secret::Secret;
use aci_sync::{cli, kube, logging};
use serde_json::Value;

/// A message about an input is bounded, and stays on one line.
pub fn check_text(text: &str, longest: usize) {
    assert!(!text.contains(char::is_control), "a control character in {text:?}");
    assert!(text.len() <= longest, "the message has {} bytes", text.len());
}

// --- Kubernetes ------------------------------------------------------------------------------------------------------

pub fn takes_watch_line(input: &[u8]) -> bool {
    Kind::ALL.iter().any(|kind| decode::line(*kind, input).is_ok())
}

/// JSON to compare with. serde reads a struct also from a list of its fields in order; no server sends that, it does
/// no harm, and such JSON says nothing by the names of its fields.
fn json(input: &[u8]) -> Option<Value> {
    let is_named = |it: &Value| it.is_object() && !it["metadata"].is_array();
    let value: Value = serde_json::from_slice(input).ok()?;
    let items = value["items"].as_array().into_iter().flatten();
    let object = &value["object"];
    (is_named(&value) && (object.is_null() || is_named(object)) && items.into_iter().all(is_named)).then_some(value)
}

/// An event has the type, the object and the version that the line says, and is never made of a `Status`. What the
/// beginning of a line says is what the whole line says.
pub fn watch_line(input: &[u8]) {
    let value = json(input);
    let start = decode::line_start(input);
    if let (Some(value), Some(key)) = (&value, &start.key) {
        let metadata = &value["object"]["metadata"];
        assert_eq!(
            (&metadata["name"], &metadata["namespace"]),
            (&Value::from(&*key.name), &Value::from(&*key.namespace))
        );
        assert_eq!(start.deleted, value["type"] == "DELETED");
    }
    for kind in Kind::ALL {
        let line = match decode::line(kind, input) {
            Ok(WatchLine::Failed(error) | WatchLine::Busy(error)) | Err(error) => {
                check_text(&error.to_string(), 1400);
                continue;
            }
            Ok(line) => line,
        };
        let Some(value) = &value else { continue };
        let (word, object) = (value["type"].as_str().unwrap_or_default(), &value["object"]);
        match line {
            WatchLine::Changed { object: decoded, deleted, resource_version } => {
                assert_eq!(object["kind"], kind.to_string(), "something else was taken for a {kind}");
                assert_eq!(deleted, word == "DELETED");
                assert_eq!(object["metadata"]["resourceVersion"], resource_version);
                assert!(!resource_version.is_empty());
                assert_eq!(decoded.kind(), kind);
                assert!(is_key_of(object, &decoded));
                model(vec![decoded]);
            }
            WatchLine::Bookmark(version) => {
                assert_eq!((word, &object["metadata"]["resourceVersion"]), ("BOOKMARK", &Value::from(version)));
            }
            WatchLine::Failed(_) | WatchLine::Busy(_) => {}
            WatchLine::Unknown(unknown) => assert!(word.starts_with(&unknown) && unknown.len() <= 160),
        }
    }
}

fn is_key_of(json: &Value, object: &Object) -> bool {
    let (metadata, key) = (&json["metadata"], object.key());
    metadata["name"] == *key.name && metadata["namespace"].as_str().unwrap_or_default() == &*key.namespace
}

/// Lines are the same whatever the pieces that they came in, and what is not a whole line is none.
pub fn watch_stream(input: &[u8]) {
    let lines = |capacity: usize| {
        let mut stream = BufReader::with_capacity(capacity, input);
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        let end = loop {
            match read_line(&mut stream, &mut line) {
                Ok(true) => lines.push(line.clone()),
                Ok(false) => break "end",
                Err(ReadError::Cut(_)) => break "cut",
                Err(ReadError::TooLong) => break "too long",
            }
        };
        (lines, end)
    };
    let (whole, end) = lines(1 << 20);
    assert!(whole.iter().all(|it| it.ends_with(b"\n") && it.len() <= MAX_LINE + 1));
    let read: Vec<u8> = whole.concat();
    assert!(input.starts_with(&read));
    let rest = &input[read.len()..];
    match end {
        "end" => assert!(rest.is_empty()),
        "cut" => assert!(!rest.is_empty() && !rest.contains(&b'\n')),
        _ => assert!(rest.len() > MAX_LINE),
    }
    if input.len() < 1 << 13 {
        assert_eq!(lines(1), (whole.clone(), end));
        assert_eq!(lines(7), (whole, end));
    }
}

pub fn takes_list_page(input: &[u8]) -> bool {
    Kind::ALL.iter().any(|kind| decode::page::<Object>(*kind, input).is_ok())
}

/// A page holds what its list holds, and nothing but a list of that kind is one (W1).
pub fn list_page(input: &[u8]) {
    let value = json(input);
    for kind in Kind::ALL {
        let page = decode::page(kind, input);
        let mut progress = decode::Progress::default();
        let streamed = decode::read_page(kind, BufReader::with_capacity(7, input), &mut progress);
        let content = |page: &decode::Page<Object>| (page.objects.clone(), page.next.clone());
        assert_eq!(page.as_ref().ok().map(content), streamed.as_ref().ok().map(content), "another page by the piece");
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                check_text(&error.to_string(), 200);
                continue;
            }
        };
        assert!(!page.resource_version.is_empty());
        if let Some(value) = &value {
            assert_eq!(value["kind"], format!("{kind}List"));
            assert_eq!(value["metadata"]["resourceVersion"], page.resource_version);
            assert_eq!(value["metadata"]["continue"].as_str().unwrap_or_default(), page.next);
            let none = Vec::new();
            let items = value.get("items").expect("a list has items").as_array().unwrap_or(&none);
            assert_eq!(items.len(), page.objects.len());
            let mut items = items.iter();
            for object in &page.objects {
                assert!(items.any(|it| is_key_of(it, object)), "{:?} is not in the list", object.key());
            }
        }
        model(page.objects);
    }
}

/// Whatever objects there are, only checked names and host prefixes come out of the model (D1, P2).
fn model(objects: Vec<Object>) {
    let mut inventory = Inventory::watching(&Kind::ALL);
    for kind in Kind::ALL {
        let objects = objects.iter().filter(|it| it.kind() == kind).cloned().collect();
        inventory.listed(kind, objects, Instant::now());
    }
    let vrf_of = |l3out: &L3outDn| Vrf::Own(l3out.clone());
    for (epg, it) in desired_state(&inventory, &Rules::default(), &vrf_of, &BTreeSet::new()).epgs {
        checked(&epg);
        for (prefix, subnet) in it.subnets {
            assert_eq!(prefix, Prefix::host(prefix.address));
            assert!(subnet.source.subnet_name().chars().count() <= 63);
        }
    }
}

pub fn takes_node_addresses(input: &[u8]) -> bool {
    kube::node_addresses::page(input).is_ok()
}

/// The addresses of nodes are addresses that stand in a list of Pods (J1).
pub fn node_addresses(input: &[u8]) {
    match kube::node_addresses::page(input) {
        Ok(addresses) => assert!(addresses.len() <= input.len() / 3),
        Err(error) => check_text(&error.to_string(), 200),
    }
}

pub fn takes_status(input: &[u8]) -> bool {
    let status = Status::parse(input);
    status.code != 0 || !status.reason.is_empty() || !status.message.is_empty()
}

/// A refusal is classified and described, whatever its body; 410 is the only way to `Expired` that a code has.
pub fn status(input: &[u8]) {
    let mut status = Status::parse(input);
    for code in [status.code, 0, 200, 401, 403, 404, 410, 429, 500, 504, 600, u16::MAX] {
        status.code = code;
        let error = kube::Error::of_status(&status, Some(Duration::MAX));
        check_text(&error.to_string(), 1400);
        let by_reason = matches!(status.reason.as_str(), "Expired" | "Gone");
        assert_eq!(error == kube::Error::Expired, code == 410 || (by_reason && !matches!(code, 401 | 403 | 404)));
    }
}

/// The same for a Lease.
pub fn takes_lease(input: &[u8]) -> bool {
    decode::lease(input).is_ok()
}

/// Whatever a Lease says: it is taken only if it has no holder or its time is over, and what is written then
/// has our name and the version that was read. No time in it can be too long to count to.
pub fn lease(input: &[u8]) {
    let lease = match decode::lease(input) {
        Ok(lease) => lease,
        Err(error) => return check_text(&error.to_string(), 400),
    };
    let (start, day) = (Instant::now(), Duration::from_secs(86_400));
    let mut election = ElectionState::new("me".to_owned());
    let at_once = election.observe(Some(lease.clone()), start, "now").is_some();
    let holder = lease.spec.holder_identity.as_deref().unwrap_or_default();
    let lasts = lease.spec.lease_duration_seconds.is_some_and(|it| it > 0);
    assert_eq!(at_once, matches!(holder, "" | "me") || !lasts);
    assert!(election.pause(start, 0.99) < Duration::from_secs(5));
    let Some(Write::Update(taken)) = election.observe(Some(lease.clone()), start + day, "now") else {
        panic!("its time is over")
    };
    assert_eq!((taken.spec.holder_identity.as_deref(), &taken.metadata), (Some("me"), &lease.metadata));
    assert!(election.accept_answer(taken, start + day) && election.leads_until().is_some());
}

/// A configuration that can be had goes over TLS to a host and has credentials that fit into a header (K3).
pub fn kubeconfig(input: &[u8]) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("aci-sync-fuzz-{}-{number}", std::process::id()));
    std::fs::write(&file, input).unwrap();
    let read = kube::load(Some(&file), None, &|_| None);
    std::fs::remove_file(&file).unwrap();
    let Ok(read) = read else { return };
    let server: ureq::http::Uri = format!("{}/api", read.server).parse().expect("an address");
    assert_eq!((server.scheme_str(), server.query()), (Some("https"), None));
    assert!(server.host().is_some_and(|it| !it.is_empty()) && server.path().ends_with("/api"));
    if let Some(kube::Token::Fixed(token)) = read.token {
        assert!(!token.expose().is_empty() && token.expose().bytes().all(|it| it.is_ascii_graphic()));
    }
}

const PLUGIN_VERSION: &str = "client.authentication.k8s.io/v1";

pub fn takes_plugin_answer(input: &[u8]) -> bool {
    kube::plugin::decode(input, PLUGIN_VERSION).is_ok()
}

/// A credential of a plugin has a token that fits into a header, or a certificate with its key (K3).
pub fn plugin_answer(input: &[u8]) {
    match kube::plugin::decode(input, PLUGIN_VERSION) {
        Ok(read) => {
            assert!(read.token.is_some() || read.identity.is_some());
            assert!(read.token.is_none_or(|it| it.expose().bytes().all(|it| it.is_ascii_graphic())));
            assert!(read.identity.is_none_or(|it| net::identity(&it).is_ok()));
        }
        Err(why) => check_text(&why, 200),
    }
}

// --- APIC ------------------------------------------------------------------------------------------------------------

pub fn takes_apic_answer(input: &[u8]) -> bool {
    !matches!(apic::decode::answer(input), Err(apic::Error::Malformed(_)))
}

/// An answer holds no more objects than the envelope, and the cache takes of them what belongs to its L3Out.
pub fn apic_answer(input: &[u8]) {
    let answer = match apic::decode::answer(input) {
        Ok(answer) => answer,
        Err(error) => return check_text(&error.to_string(), 2000),
    };
    if let Ok(value) = serde_json::from_slice::<Value>(input) {
        let imdata = field(&value, "imdata");
        assert!(answer.mos.len() <= objects(imdata), "more objects than the envelope holds");
        assert!(imdata.as_array().into_iter().flatten().all(|it| it.get("error").is_none()), "an error is an object");
        assert_eq!(Some(answer.top_level), imdata.as_array().map(Vec::len));
    }
    if let Ok((token, lifetimes)) = apic::token_in(&answer) {
        let odd = |it: u8| !it.is_ascii_graphic() || b"\";,?#".contains(&it);
        assert!(!token.expose().is_empty() && !token.expose().bytes().any(odd));
        assert!(lifetimes.token >= Duration::from_secs(2) && lifetimes.session >= Duration::from_secs(2));
    }
    answer.mos.iter().for_each(|mo| place(&mo.dn));
    discovery(&answer.mos);
    let fabric = fabric(&answer.mos);
    for (dn, epg) in fabric.epgs() {
        assert_eq!(dn.l3out, l3out());
        checked(&dn);
        for (prefix, subnet) in &epg.subnets {
            let ip = subnet.ip(prefix);
            assert_eq!(ip.parse(), Ok(*prefix));
            assert_eq!(ParsedDn::parse(&dn.subnet(&ip)), Some(ParsedDn::Subnet(dn.clone(), ip.clone())));
            is_prefix(&ip);
            assert_eq!(Scope::parse(&subnet.scope.to_string()), subnet.scope);
        }
    }
}

/// Evidence is an object below its L3Out with an address that fits the node, whatever objects there are (J1).
fn discovery(mos: &[Mo]) {
    let mut discovery = Discovery::new(["10.1.1.11", "fd00:1::11"].map(|it| it.parse().unwrap()));
    mos.iter().for_each(|mo| discovery.add(mo));
    let answer = discovery.answer();
    for candidate in &answer.candidates {
        checked(&candidate.l3out.epg(Name::object("E").unwrap()));
        for (node, evidence) in &candidate.nodes {
            assert!(evidence.dn.starts_with(&format!("{}/", candidate.l3out)), "{evidence:?}");
            assert_eq!(node.is_ipv4(), evidence.prefix.address.is_ipv4());
        }
    }
    assert_eq!(answer.candidates.is_empty(), answer.outcome == Outcome::None);
}

/// The second field of an envelope or an object, which serde also reads from a list of the fields in order.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    if value.is_array() { &value[1] } else { &value[name] }
}

/// How many objects stand in a list and below it.
fn objects(list: &Value) -> usize {
    let entries = list.as_array().into_iter().flatten().filter_map(Value::as_object).flat_map(|it| it.values());
    entries.map(|it| 1 + objects(field(it, "children"))).sum()
}

fn l3out() -> L3outDn {
    L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() }
}

fn fabric(mos: &[Mo]) -> FabricCache {
    let mut fabric = FabricCache::new(OwnerIdentity::new("prod-1", &[]));
    fabric.put_l3out(&l3out(), mos, false);
    fabric
}

pub fn takes_apic_event(input: &[u8]) -> bool {
    apic::decode::message(input).is_ok()
}

/// An event reports no more objects than it holds, and leads to no other read than of the L3Out that is looked at.
pub fn apic_event(input: &[u8]) {
    let message = match apic::decode::message(input) {
        Ok(message) => message,
        Err(error) => return check_text(&error.to_string(), 200),
    };
    if let Ok(value) = serde_json::from_slice::<Value>(input) {
        assert!(message.changes.len() <= objects(field(&value, "imdata")));
    }
    let mos: Vec<Mo> = message.changes.iter().map(|it| it.mo.clone()).collect();
    for mut fabric in [fabric(&[]), fabric(&mos)] {
        for MoChange { status, mo } in &message.changes {
            place(&mo.dn);
            match apply_event(&mut fabric, &MoChange { status: *status, mo: mo.clone() }) {
                Staleness::Fresh => {}
                Staleness::Object(object) => {
                    assert_eq!(object.epg().l3out, l3out());
                    assert!(mo.dn.starts_with(&object.epg().to_string()));
                }
                Staleness::L3out(dn) => assert_eq!(dn, l3out()),
            }
        }
    }
}

/// A refusal is a refusal, whatever its body, and a write with an unknown outcome is reported as such (W7).
pub fn apic_refusal(input: &[u8]) {
    for http in [0, 300, 400, 401, 403, 404, 405, 413, 429, 500, 502, 503, 504, 999] {
        for is_write in [false, true] {
            let error = apic::decode::refusal(http, input, is_write);
            check_text(&error.to_string(), 2000);
            let lost = matches!(error, apic::Error::AnswerLost(_));
            // The web server's own 503 says that nothing was done, the APIC's does not.
            let may_be_lost = is_write && matches!(http, 500 | 502 | 503 | 504);
            assert!(lost == may_be_lost || (http == 503 && matches!(error, apic::Error::Busy(_))), "{http}");
            assert!(http != 401 || matches!(error, apic::Error::Unauthorized(_)));
            assert!(http != 400 || matches!(error, apic::Error::Rejected { .. }));
        }
    }
}

// --- names -----------------------------------------------------------------------------------------------------------

fn checked(dn: &EpgDn) {
    let is_name = |name: &Name, longest: usize, punctuation: &str| {
        let name = name.as_str();
        let fits = |it: char| it.is_ascii_alphanumeric() || punctuation.contains(it);
        (1..=longest).contains(&name.len()) && name.chars().all(fits) && name != "." && name != ".."
    };
    assert!(is_name(&dn.l3out.tenant, 63, "_.-"), "{dn}");
    assert!(is_name(&dn.l3out.l3out, 64, "_.:-") && is_name(&dn.name, 64, "_.:-"), "{dn}");
    assert_eq!(ParsedDn::parse(&dn.to_string()), Some(ParsedDn::Epg(dn.clone())));
}

/// A DN that is understood is understood whole: printed again it is the same.
fn place(dn: &str) {
    match ParsedDn::parse(dn) {
        None => {}
        Some(ParsedDn::L3out(it)) => assert_eq!(it.to_string(), dn),
        Some(ParsedDn::Epg(it)) => assert_eq!(it.to_string(), dn),
        Some(ParsedDn::Subnet(it, ip)) => assert_eq!(it.subnet(&ip), dn),
        Some(ParsedDn::BelowEpg(it)) => assert!(dn.starts_with(&format!("{it}/"))),
        Some(ParsedDn::Tag(it, key)) => assert!(dn == it.tag(&key) || dn == it.tag(&key).replace(['[', ']'], "")),
        Some(ParsedDn::BelowL3out(it)) => assert!(dn.starts_with(&format!("{it}/"))),
    }
    match ParsedDn::parse(dn) {
        Some(ParsedDn::Epg(it) | ParsedDn::Subnet(it, _) | ParsedDn::BelowEpg(it)) => checked(&it),
        Some(ParsedDn::L3out(it) | ParsedDn::Tag(it, _) | ParsedDn::BelowL3out(it)) => {
            checked(&it.epg(Name::object("E").unwrap()))
        }
        None => {}
    }
}

pub fn dn(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    place(&text);
    for part in text.split('/') {
        let epg = |tenant: &str, object: &str| {
            let (tenant, object) = (Name::tenant(tenant).ok()?, Name::object(object).ok()?);
            Some(L3outDn { tenant, l3out: object.clone() }.epg(object))
        };
        [epg(part, "x"), epg("x", part)].iter().flatten().for_each(checked);
    }
}

fn is_prefix(text: &str) {
    assert!(text.bytes().all(|it| it.is_ascii_hexdigit() || b".:/".contains(&it)), "{text:?} is no prefix");
}

/// A prefix is read back as it was printed, and nothing but a prefix gets into a DN in its place (D1).
pub fn prefix(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(prefix) = text.parse::<Prefix>() {
        is_prefix(&text);
        assert_eq!(prefix.to_string().parse(), Ok(prefix));
    }
}

pub fn takes_enrolment(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|it| binding::parse(it, None).is_ok())
}

/// An binding names what the annotation names, in the characters of D1, and an error quotes nothing that could be
/// a line of its own.
pub fn binding(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let binding = match binding::parse(&text, None) {
        Ok(binding) => binding,
        Err(why) => return check_text(&why, 8 * binding::MAX_LENGTH),
    };
    assert!(text.len() <= binding::MAX_LENGTH);
    checked(&binding.epg);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["tenant"], binding.epg.l3out.tenant.as_str());
    assert_eq!(value["l3out"], binding.epg.l3out.l3out.as_str());
    assert_eq!(value["epg"], binding.epg.name.as_str());
}

// --- what the operator gives -----------------------------------------------------------------------------------------

/// What is no certificate or key is refused in one sentence, and leaves nothing behind that spoils the next one.
pub fn certificates(input: &[u8]) {
    let good = &*crate::seeds::certificates().remove(0);
    let identity = |chain: &[u8], key: &[u8]| {
        let key = Secret::new(String::from_utf8_lossy(key));
        net::identity(&ClientIdentity { chain: chain.to_vec(), key }).map(drop)
    };
    for result in [
        net::bundle(input, "CA bundle").map(|it| assert!(!it.certificates.is_empty())),
        identity(good, input),
        identity(input, good),
        identity(input, input),
    ] {
        if let Err(error) = result {
            check_text(&error.to_string(), 500);
        }
    }
    identity(good, good).expect("a good certificate and its key");
}

/// A command line leads to values in their ranges or to one sentence that shows no password.
pub fn command_line(input: &[u8]) {
    let password = "correct-horse";
    let mut environment: BTreeMap<String, String> =
        [("ACI_USERNAME", "admin"), ("ACI_PASSWORD", password)].map(|(name, value)| (name.into(), value.into())).into();
    let mut words = Vec::new();
    for line in input.split(|it| *it == b'\n') {
        match std::str::from_utf8(line).ok().filter(|it| it.starts_with("ACI_")).and_then(|it| it.split_once('=')) {
            Some((name, value)) => drop(environment.insert(name.to_owned(), value.to_owned())),
            None => words.push(OsString::from_vec(line.to_vec())),
        }
    }
    let config = match cli::parse(words, &environment).and_then(|it| config::load(&it, &environment)) {
        Ok(config) => config,
        Err(error) => {
            assert!(matches!(error.code, 64 | 78) && !error.message.is_empty() && !error.message.contains(password));
            return;
        }
    };
    for controller in &config.controllers {
        let uri: ureq::http::Uri = format!("https://{}/", controller.authority()).parse().expect("an address");
        assert_eq!(uri.port_u16(), Some(controller.port));
        assert_eq!(uri.host().unwrap_or_default().trim_matches(['[', ']']), controller.host);
    }
    assert!(!config.controllers.is_empty() && (1..=1000).contains(&config.rules.batch));
    let week = Duration::from_secs(7 * 86_400);
    assert!(config.epg_grace <= week && config.resync <= week && config.resync >= Duration::from_secs(10));
    let is_id = |it: &String| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it));
    assert!(config.cluster_id.iter().chain(&config.adopt_ids).all(is_id));
    assert!(matches!(config.policy, Policy::Sync | Policy::UpsertOnly | Policy::Observe));
    assert!(!format!("{config:?}").contains(password), "a password is shown");
}

/// Whatever is logged stays in one line, and what is fit for a line stays as it is.
pub fn log_line(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let line = logging::one_line(&text);
    check_text(&line, 10 * text.len());
    assert_eq!(logging::one_line(&line), line);
}
