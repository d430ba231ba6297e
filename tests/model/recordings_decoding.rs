//! What a real API server sent, byte for byte, through the decoders: nothing panics, everything that matters is
//! decoded, and the recorded life of a Deployment leads to the expected subnets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aci_sync::kube::decode::{self, WatchLine};
use aci_sync::kube::election::{ElectionState, Write};
use aci_sync::kube::{Error, Status};
use aci_sync::model::desired::{Vrf, desired_state};
use aci_sync::model::dn::L3outDn;
use aci_sync::model::inventory::{Changed, Inventory};
use aci_sync::model::kubernetes::{Kind, Object};
use aci_sync::model::rules::Rules;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/kubernetes")
}

fn recordings() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(root()).unwrap().map(|it| it.unwrap().path()).filter(|it| it.is_dir()) {
        files.extend(std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()));
    }
    files.retain(|it| it.extension().is_some_and(|it| it == "http"));
    files.sort();
    assert!(files.len() > 90, "only {} recordings", files.len());
    files
}

/// The sizes in which the bytes arrived, or, if that was not recorded, a few that cut everywhere.
fn cuts(file: &Path) -> Vec<Vec<usize>> {
    match std::fs::read_to_string(file.with_extension("reads.jsonl")) {
        Ok(text) => {
            let sizes = text.lines().map(|it| serde_json::from_str::<(f64, usize)>(it).unwrap().1);
            vec![sizes.collect()]
        }
        Err(_) => {
            [1, 7, 2048].map(|size| vec![size; 1 + std::fs::metadata(file).unwrap().len() as usize / size]).into()
        }
    }
}

/// An HTTP answer as it arrives: the head, then the body with its framing taken off.
#[derive(Default)]
struct Http {
    raw: Vec<u8>,
    head: Option<(u16, String)>,
    body: Vec<u8>,
    /// Where the body's undecoded bytes begin.
    at: usize,
}

impl Http {
    fn feed(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        if self.head.is_none() {
            let Some(end) = self.raw.windows(4).position(|it| it == b"\r\n\r\n") else { return };
            let head = String::from_utf8_lossy(&self.raw[..end]).to_ascii_lowercase();
            let code = head.split(' ').nth(1).unwrap().parse().unwrap();
            self.head = Some((code, head));
            self.at = end + 4;
        }
        let chunked = self.head.as_ref().is_some_and(|(_, head)| head.contains("transfer-encoding: chunked"));
        if !chunked {
            self.body.extend_from_slice(&self.raw[self.at..]);
            self.at = self.raw.len();
            return;
        }
        while let Some(line) = self.raw[self.at..].windows(2).position(|it| it == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[self.at..self.at + line]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let begin = self.at + line + 2;
            if size == 0 || self.raw.len() < begin + size + 2 {
                return;
            }
            self.body.extend_from_slice(&self.raw[begin..begin + size]);
            self.at = begin + size + 2;
        }
    }
}

/// Feeds a recording in pieces; the last state, and the lines of the body as they became whole.
fn replay(file: &Path, sizes: &[usize]) -> (Http, Vec<Vec<u8>>) {
    let bytes = std::fs::read(file).unwrap();
    let (mut http, mut lines, mut seen, mut at) = (Http::default(), Vec::new(), 0, 0);
    for size in sizes {
        let end = (at + size).min(bytes.len());
        http.feed(&bytes[at..end]);
        at = end;
        while let Some(length) = http.body[seen..].iter().position(|it| *it == b'\n') {
            lines.push(http.body[seen..seen + length].to_vec());
            seen += length + 1;
        }
    }
    assert_eq!(at, bytes.len(), "{} was not fed whole", file.display());
    (http, lines)
}

fn kind_of(file: &Path) -> Option<Kind> {
    let request = std::fs::read_to_string(file.with_extension("req")).unwrap();
    let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned();
    match path.rsplit('/').next().unwrap() {
        "deployments" => Some(Kind::Deployment),
        "pods" => Some(Kind::Pod),
        "services" => Some(Kind::Service),
        _ => None,
    }
}

fn is_watch(file: &Path) -> bool {
    std::fs::read_to_string(file.with_extension("req")).unwrap().contains("watch=")
}

/// K1, K2, X3: every recording goes through every decoder without a panic, whole, cut short at any line, and with
/// bytes turned over; a decoder of the wrong kind may refuse it, but no more.
#[test]
fn nothing_panics() {
    for file in recordings() {
        for sizes in cuts(&file) {
            let (http, lines) = replay(&file, &sizes);
            let (code, _) = http.head.as_ref().expect("a head");
            let mut status = Status::parse(&http.body);
            status.code = *code;
            let _ = Error::of_status(&status, None).to_string();
            for kind in Kind::ALL {
                let _ = decode::page::<Object>(kind, &http.body);
                for line in &lines {
                    let _ = decode::line(kind, line);
                    let _ = decode::line(kind, &line[..line.len() / 2]);
                }
            }
        }
        let bytes = std::fs::read(&file).unwrap();
        for at in (0..bytes.len()).step_by(97) {
            let mut broken = bytes.clone();
            broken[at] ^= 0x20;
            let body = &broken[broken.windows(4).position(|it| it == b"\r\n\r\n").map_or(0, |it| it + 4)..];
            let _ = decode::page::<Object>(Kind::Pod, body);
            let _ = decode::line(Kind::Pod, body);
            let _ = Status::parse(body);
        }
    }
}

/// K1: every list page is decoded fully, whatever the pieces it came in.
#[test]
fn lists_are_decoded_fully() {
    let mut count = 0;
    for file in recordings() {
        let Some(kind) = kind_of(&file) else { continue };
        for sizes in cuts(&file) {
            let (http, _) = replay(&file, &sizes);
            let Ok(value) = serde_json::from_slice::<Value>(&http.body) else { continue };
            if http.head.as_ref().unwrap().0 != 200 || !value["kind"].as_str().is_some_and(|it| it.ends_with("List")) {
                continue;
            }
            if value["kind"] != format!("{kind}List") {
                assert!(decode::page::<Object>(kind, &http.body).is_err(), "{} has no addresses in it", file.display());
                continue;
            }
            let page = decode::page::<Object>(kind, &http.body).unwrap();
            assert_eq!(page.objects.len(), value["items"].as_array().unwrap().len(), "{}", file.display());
            assert_eq!(json!(page.resource_version), value["metadata"]["resourceVersion"]);
            assert_eq!(page.next, value["metadata"]["continue"].as_str().unwrap_or_default());
            count += 1;
        }
    }
    assert!(count > 30, "only {count} lists");
}

/// K2: every watch event is decoded fully: type, object, version.
#[test]
fn watches_are_decoded_fully() {
    let mut counts = [0; 3];
    for file in recordings() {
        let Some(kind) = kind_of(&file).filter(|_| is_watch(&file)) else { continue };
        for sizes in cuts(&file) {
            let (http, lines) = replay(&file, &sizes);
            if http.head.as_ref().unwrap().0 != 200 {
                continue;
            }
            for line in lines {
                let value: Value = serde_json::from_slice(&line).unwrap();
                let word = value["type"].as_str().unwrap();
                if value["object"]["kind"] == "PartialObjectMetadata" {
                    assert!(decode::line(kind, &line).is_err(), "{} has no addresses in it", file.display());
                    continue;
                }
                let version = value["object"]["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                match (word, decode::line(kind, &line).unwrap()) {
                    ("ADDED" | "MODIFIED" | "DELETED", WatchLine::Changed { object, deleted, resource_version }) => {
                        assert_eq!(deleted, word == "DELETED");
                        assert_eq!(resource_version, version);
                        let metadata = &value["object"]["metadata"];
                        assert_eq!(&*object.key().name, metadata["name"].as_str().unwrap());
                        assert_eq!(&*object.key().namespace, metadata["namespace"].as_str().unwrap());
                        counts[0] += 1;
                    }
                    ("BOOKMARK", WatchLine::Bookmark(resource_version)) => {
                        assert_eq!(resource_version, version);
                        counts[1] += 1;
                    }
                    ("ERROR", WatchLine::Failed(_) | WatchLine::Busy(_)) => counts[2] += 1,
                    (word, line) => panic!("{word} became {line:?}"),
                }
            }
        }
    }
    assert!(counts[0] > 200 && counts[1] >= 10 && counts[2] > 5, "{counts:?}");
}

/// W1: what is no list, or no event of that kind, is refused; taken for one, it would be an empty cluster or a
/// deletion.
#[test]
fn invalid_input_is_refused() {
    let list = |items: &str| format!(r#"{{"kind":"PodList","metadata":{{"resourceVersion":"7"}}{items}}}"#);
    for empty in [r#","items":[]"#, r#","items":null"#] {
        assert_eq!(decode::page::<Object>(Kind::Pod, list(empty).as_bytes()).unwrap().objects.len(), 0);
    }
    for body in
        [&list(""), &list(r#","items":{}"#), r#"{"kind":"Status","metadata":{"resourceVersion":"7"},"items":[]}"#]
    {
        assert!(decode::page::<Object>(Kind::Pod, body.as_bytes()).is_err(), "{body}");
    }
    for word in ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"] {
        let event = |kind: &str| {
            format!(
                r#"{{"type":"{word}","object":{{"kind":"{kind}",
                "metadata":{{"namespace":"a","name":"web","resourceVersion":"7"}}}}}}"#
            )
        };
        assert!(decode::line(Kind::Pod, event("Pod").as_bytes()).is_ok());
        for kind in ["", "Status", "Service", "PartialObjectMetadata", "Table"] {
            assert!(decode::line(Kind::Pod, event(kind).as_bytes()).is_err(), "{word} {kind}");
        }
    }
}

/// K1, K2: what each recorded refusal leads to.
#[test]
fn errors_are_classified() {
    let decision = |name: &str| {
        let file = root().join(name);
        let (http, lines) = replay(&file, &cuts(&file)[0]);
        match http.head.unwrap().0 {
            200 => match decode::line(Kind::Pod, &lines[0]).unwrap() {
                WatchLine::Failed(error) | WatchLine::Busy(error) => error,
                other => panic!("{name}: {other:?}"),
            },
            code => Error::of_status(&Status { code, ..Status::parse(&http.body) }, None),
        }
    };
    for (name, word) in [
        ("errors/401-bad-token.http", "Unauthorized"),
        ("errors/401-client-cert-unknown-ca.http", "Unauthorized"),
        ("errors/403-list-pods-all-namespaces.http", "Forbidden"),
        ("errors/403-watch-deployments.http", "Forbidden"),
        ("errors/404-object.http", "NotFound"),
        ("errors/404-no-such-api-path.http", "NotFound"),
        ("errors/429-priority-and-fairness.http", "Busy"),
        ("errors/504-list-too-large-rv.http", "Busy"),
        ("gone/expire-2-continue-410.http", "Expired"),
        ("gone/list-exact-compacted-410.http", "Expired"),
        ("gone/watch-rv1-in-stream-410.http", "Expired"),
        ("gone/watch-rv1-in-stream-410-bookmarks.http", "Expired"),
        ("errors/watchlist-future-rv.http", "Busy"),
        ("lease/01-get-404.http", "NotFound"),
        ("lease/03-create-race-409-AlreadyExists.http", "Conflict"),
        ("lease/06-stale-put-409-Conflict.http", "Conflict"),
        ("lease/09-old-leader-renew-409.http", "Conflict"),
        ("lease/11-put-without-resourceVersion.http", "Malformed(\"HTTP 422"),
        ("lease/13-put-renewTime-without-micros.http", "Malformed(\"HTTP 400"),
    ] {
        let error = decision(name);
        assert!(format!("{error:?}").starts_with(word), "{name}: {error:?}");
    }
    let Error::Forbidden { message } = decision("errors/403-watch-deployments.http") else { panic!() };
    assert!(message.contains("watch") && message.contains("deployments"), "{message}");
}

/// K4, X2: what was written over a real Lease, and what the election makes of it: a candidate waits, the others' time
/// runs out, and a release is what was recorded, byte for byte but for the order of fields.
#[test]
fn a_recorded_lease_is_acquired_and_released() {
    let answer = |name: &str| {
        let file = root().join("lease").join(name);
        decode::lease(&replay(&file, &cuts(&file)[0]).0.body).unwrap()
    };
    let asked = |name: &str| -> Value {
        let request = std::fs::read_to_string(root().join("lease").join(name)).unwrap();
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let (made, renewed) = (answer("02-create-201.http"), answer("05-renew-put-200.http"));
    let start = Instant::now();
    let mut candidate = ElectionState::new("hostB_2222".to_owned());
    assert_eq!(candidate.observe(Some(made), start, "now"), None);
    let taken = asked("08-takeover-put-200.req");
    let at = taken["spec"]["renewTime"].as_str().unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(candidate.observe(Some(renewed.clone()), start + 14 * second, at), None, "it was renewed");
    let Some(Write::Update(lease)) = candidate.observe(Some(renewed), start + 29 * second, at) else { panic!() };
    let mut expected = taken["spec"].clone();
    expected["acquireTime"] = at.into();
    assert_eq!(serde_json::to_value(&lease).unwrap(), json!({"metadata": taken["metadata"], "spec": expected}));

    let released = asked("10-release-put-200.req");
    let at = released["spec"]["renewTime"].as_str().unwrap();
    let lease = ElectionState::release("hostB_2222", answer("08-takeover-put-200.http"), at).unwrap();
    assert_eq!(
        serde_json::to_value(&lease).unwrap(),
        json!({"metadata": released["metadata"], "spec": released["spec"]})
    );
}

/// D1, P1-P5, S1, S2: the recorded life of a Deployment, up to the step before it is deleted, calls for what the
/// recording says.
#[test]
fn the_recorded_deployment_leads_to_the_expected_subnets() {
    let folder = root().join("scenario");
    let timeline = std::fs::read_to_string(folder.join("timeline.json")).unwrap();
    assert!(timeline.contains("delete deployment mcast"), "the step that ends this replay");
    // The timeline and the reads count from different moments; the versions that the server gave order everything.
    let lines = |name: &str| {
        let file = folder.join(format!("watch-{name}.http"));
        replay(&file, &cuts(&file)[0]).1
    };
    let version = |line: &[u8]| -> u64 {
        let value: Value = serde_json::from_slice(line).unwrap();
        value["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    };
    let deleted = lines("deployments").into_iter().find(|line| match decode::line(Kind::Deployment, line) {
        Ok(WatchLine::Changed { object, deleted, .. }) => deleted && &*object.key().name == "mcast",
        _ => false,
    });
    let until = version(&deleted.unwrap());

    let mut inventory = Inventory::default();
    let mut events = 0;
    for (kind, name) in [(Kind::Deployment, "deployments"), (Kind::Pod, "pods"), (Kind::Service, "services")] {
        inventory.listed(kind, Vec::new(), Instant::now());
        for line in lines(name).iter().filter(|line| version(line) < until) {
            match decode::line(kind, line).unwrap() {
                WatchLine::Changed { object, deleted: true, .. } => inventory.gone(kind, object.key()),
                WatchLine::Changed { object, .. } => inventory.upsert(object),
                _ => Changed::Nothing,
            };
            events += 1;
        }
    }
    assert!(events > 150, "only {events} events before the delete");

    let vrf_of = |l3out: &L3outDn| Vrf::Own(l3out.clone());
    let desired = desired_state(&inventory, &Rules::default(), &vrf_of, &BTreeSet::new());
    let mut subnets = Vec::new();
    for (epg, it) in &desired.epgs {
        for prefix in it.subnets.keys() {
            let (tenant, l3out) = (epg.l3out.tenant.as_str(), epg.l3out.l3out.as_str());
            subnets.push(json!([tenant, l3out, epg.name.as_str(), prefix.address.to_string()]));
        }
    }
    subnets.sort_by_key(Value::to_string);
    let expected = std::fs::read(folder.join("expect-before-delete.json")).unwrap();
    let mut expected: Vec<Value> = serde_json::from_slice(&expected).unwrap();
    expected.sort_by_key(Value::to_string);
    assert_eq!(subnets, expected);
}
