//! SimKube is held to what a real API server answered: the recorded requests are sent to it, and status, headers and
//! the shape of the bodies are compared.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use serde_json::{Value, json};
use sim::kube::{Credential, Options, SimKube, TOKEN};
use sim::pki::KeyForm;

/// A server's answer: status, header lines in lower case, body without its framing.
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let mut lines = head.lines().map(str::to_owned);
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<String> = lines.collect();
        let mut rest = &bytes[end + 4..];
        let mut body = Vec::new();
        if headers.iter().any(|it| it == "transfer-encoding: chunked") {
            while let Some(line) = rest.windows(2).position(|it| it == b"\r\n") {
                let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&rest[line + 2..line + 2 + size]);
                rest = &rest[line + 4 + size..];
            }
        } else {
            body.extend_from_slice(rest);
        }
        Answer { status, headers, body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(self.body.split(|it| *it == b'\n').next().unwrap()).unwrap_or(Value::Null)
    }
}

fn recorded(name: &str) -> Answer {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recordings/kubernetes").join(name);
    Answer::parse(&std::fs::read(file).unwrap())
}

fn ask(kube: &SimKube, method: &str, target: &str, token: Option<&str>, body: &str) -> Answer {
    let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    let stream = TcpStream::connect(kube.server().address()).unwrap();
    let mut stream = connector.build().connect("localhost", stream).unwrap();
    let token = token.map_or(String::new(), |it| format!("Authorization: Bearer {it}\r\n"));
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: x\r\n{token}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    Answer::parse(&bytes)
}

fn get(kube: &SimKube, target: &str) -> Answer {
    ask(kube, "GET", target, Some(TOKEN), "")
}

/// The keys of an object and the types of its values, one level deep.
fn shape(value: &Value) -> Vec<(String, &'static str)> {
    let kind = |it: &Value| match it {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let mut shape: Vec<_> = value.as_object().unwrap().iter().map(|(key, it)| (key.clone(), kind(it))).collect();
    shape.sort();
    shape
}

fn cluster() -> SimKube {
    let kube = SimKube::start(Options::default());
    for n in 0..5 {
        kube.deploy("paging", &format!("app{n}"), None, &[&format!("10.244.1.{}", 10 + n)]);
        kube.load_balancer("paging", &format!("app{n}"), "app0", &["10.4.0.10"]);
    }
    kube
}

/// Lists in pages: the same version on every page, a token, a count of what is left; no kind in the items.
#[test]
fn list_pages() {
    let kube = cluster();
    for resource in ["pods", "services", "deployments"] {
        let base = if resource == "deployments" { "/apis/apps/v1" } else { "/api/v1" };
        let mut token = String::new();
        let mut version = None;
        for (page, name) in ["page1", "page2", "page3-last"].into_iter().enumerate() {
            let real = recorded(&format!("list/{resource}-{name}.http"));
            let ours = get(&kube, &format!("{base}/namespaces/paging/{resource}?limit=2&continue={token}"));
            assert_eq!(ours.status, real.status);
            assert_eq!(ours.header("content-type"), real.header("content-type"));
            let (ours, real) = (ours.json(), real.json());
            assert_eq!(shape(&ours), shape(&real), "{resource} {name}");
            assert_eq!(shape(&ours["metadata"]), shape(&real["metadata"]), "{resource} {name}");
            assert_eq!(ours["metadata"]["remainingItemCount"], real["metadata"]["remainingItemCount"]);
            assert_eq!(ours["items"].as_array().unwrap().len(), real["items"].as_array().unwrap().len());
            assert!(ours["items"][0]["kind"].is_null());
            for part in ["metadata", "spec"] {
                assert!(ours["items"][0][part].is_object() && real["items"][0][part].is_object());
            }
            assert_eq!(
                *version.get_or_insert(ours["metadata"]["resourceVersion"].clone()),
                ours["metadata"]["resourceVersion"]
            );
            token = ours["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            assert_eq!(token.is_empty(), page == 2);
        }
    }
    let empty = get(&kube, "/api/v1/namespaces/nowhere/pods?limit=500").json();
    assert_eq!(empty["items"], recorded("list/pods-empty.http").json()["items"]);
}

/// A continue token that is too old: 410 with the token of an inconsistent rest.
#[test]
fn expired_continue() {
    let kube = cluster();
    let first = get(&kube, "/api/v1/pods?limit=2").json();
    kube.compact();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (ours, real) =
        (get(&kube, &format!("/api/v1/pods?limit=2&continue={token}")), recorded("gone/expire-2-continue-410.http"));
    assert_eq!(ours.status, real.status);
    let (ours, real) = (ours.json(), real.json());
    assert_eq!(shape(&ours), shape(&real));
    assert_eq!(shape(&ours["metadata"]), shape(&real["metadata"]));
    assert_eq!((&ours["reason"], &ours["code"]), (&real["reason"], &real["code"]));
}

/// A watch: 200 and chunked at once, one event a line, a bookmark before the end, a clean end; too old is an event.
#[test]
fn watches() {
    let kube = cluster();
    let version = get(&kube, "/api/v1/pods").json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let name = kube.pod("paging", "app0", "new", &["10.244.1.99"]);
    kube.delete("pods", "paging", &name);
    let target = format!("/api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={version}");
    let ours = get(&kube, &target);
    let real = recorded("watch/pods-idle-timeout5-bookmark.http");
    assert_eq!((ours.status, ours.header("transfer-encoding")), (real.status, real.header("transfer-encoding")));
    let text = String::from_utf8(ours.body).unwrap();
    let events: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
    assert_eq!(events[2]["object"]["kind"], "Pod");
    assert_eq!(events[2]["object"]["status"]["podIP"], "10.244.1.99", "the last state");

    // Something else moves the version, so the bookmark has something to say.
    kube.load_balancer("paging", "other", "x", &[]);
    let bookmark =
        get(&kube, &target.replace(&version, events[2]["object"]["metadata"]["resourceVersion"].as_str().unwrap()));
    assert_eq!(shape(&bookmark.json()["object"]), shape(&real.json()["object"]));
    assert_eq!(shape(&bookmark.json()["object"]["metadata"]), shape(&real.json()["object"]["metadata"]));

    kube.compact();
    let (ours, real) = (get(&kube, &target), recorded("gone/watch-rv1-in-stream-410.http"));
    assert_eq!(ours.status, real.status);
    let (ours, real) = (ours.json(), real.json());
    assert_eq!((shape(&ours), &ours["type"]), (shape(&real), &real["type"]));
    assert_eq!(shape(&ours["object"]), shape(&real["object"]));
    assert_eq!(
        (&ours["object"]["code"], &ours["object"]["reason"]),
        (&real["object"]["code"], &real["object"]["reason"])
    );
}

/// Refusals in the recorded shapes.
#[test]
fn refusals() {
    let kube = cluster();
    kube.deny("list", "pods");
    kube.deny("watch", "deployments");
    for (method, target, token, file) in [
        ("GET", "/api/v1/pods", Some("wrong"), "errors/401-bad-token.http"),
        ("GET", "/api/v1/pods", Some(TOKEN), "errors/403-list-pods-all-namespaces.http"),
        (
            "GET",
            "/apis/apps/v1/deployments?watch=true&resourceVersion=1",
            Some(TOKEN),
            "errors/403-watch-deployments.http",
        ),
        ("GET", "/api/v1/namespaces/default/services/none", Some(TOKEN), "errors/404-object.http"),
        ("GET", "/apis/nowhere/v1/things", Some(TOKEN), "errors/404-no-such-api-path.http"),
        ("GET", "/api/v1/services?limit=2&continue=nonsense", Some(TOKEN), "errors/400-bad-continue.http"),
    ] {
        let (ours, real) = (ask(&kube, method, target, token, ""), recorded(file));
        assert_eq!(ours.status, real.status, "{file}");
        assert_eq!(ours.header("content-type"), real.header("content-type"), "{file}");
        if real.json().is_object() {
            let (ours, real) = (ours.json(), real.json());
            assert_eq!(shape(&ours), shape(&real), "{file}");
            assert_eq!((&ours["code"], &ours["reason"]), (&real["code"], &real["reason"]), "{file}");
        }
    }
    let message = ask(&kube, "GET", "/api/v1/pods", Some(TOKEN), "").json()["message"].to_string();
    assert!(message.contains("cannot list resource \\\"pods\\\" in API group \\\"\\\""), "{message}");
    let exists = ask(
        &kube,
        "POST",
        "/api/v1/namespaces/paging/services",
        Some(TOKEN),
        &json!({"metadata": {"name": "app0"}}).to_string(),
    );
    assert_eq!((exists.status, exists.json()["reason"].as_str()), (409, Some("AlreadyExists")));
}

/// Events: what is taken and what is refused, word for word; nothing of one changes but its series.
#[test]
fn events() {
    let kube = cluster();
    kube.apply("namespaces", json!({"metadata": {"name": "dying"}, "status": {"phase": "Terminating"}}));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recordings/kubernetes/events");
    for name in [
        "01-create-201",
        "02-patch-series-merge",
        "03-patch-series-strategic",
        "04-patch-note-422-immutable",
        "05-create-missing-action-422",
        "06-create-note-too-long-422",
        "07-create-note-1024-ok",
        "08-patch-series-count1-422",
        "12-patch-gone-event-404",
        "13-create-namespace-mismatch",
        "14-create-long-reason-422",
        "15-create-in-terminating-namespace-403",
    ] {
        let request = std::fs::read_to_string(folder.join(format!("{name}.req"))).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").or_else(|| request.split_once("\n\n")).unwrap();
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (ours, real) =
            (ask(&kube, method, target, Some(TOKEN), body.trim_end()), recorded(&format!("events/{name}.http")));
        assert_eq!((ours.status, ours.header("content-type")), (real.status, real.header("content-type")), "{name}");
        let (mut ours, mut real) = (ours.json(), real.json());
        for answer in [&mut ours, &mut real].into_iter().filter(|it| it["kind"] == "Event") {
            for own in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
                assert!(answer["metadata"].as_object_mut().unwrap().remove(own).is_some(), "{name}: {own}");
            }
        }
        assert_eq!(ours, real, "{name}");
    }
    let again = std::fs::read_to_string(folder.join("01-create-201.req")).unwrap();
    let body = again.lines().last().unwrap();
    let exists = ask(&kube, "POST", "/apis/events.k8s.io/v1/namespaces/paging/events", Some(TOKEN), body);
    assert_eq!((exists.status, exists.json()["reason"].as_str()), (409, Some("AlreadyExists")));
}

/// The credentials of every kubeconfig that SimKube hands out are accepted, except where there are none.
#[test]
fn credentials() {
    let kube = cluster();
    assert_eq!(get(&kube, "/readyz").body, b"ok");
    assert_eq!(
        ask(&kube, "GET", "/api/v1/pods", None, "").status,
        403,
        "a request without a credential is system:anonymous"
    );
    for form in [KeyForm::Pkcs8, KeyForm::Pkcs1, KeyForm::Sec1] {
        let config: Value = serde_json::from_str(&kube.kubeconfig(Credential::Certificate(form))).unwrap();
        let key = config["users"][0]["user"]["client-key-data"].as_str().unwrap();
        let key = String::from_utf8(openssl::base64::decode_block(key).unwrap()).unwrap();
        let label = ["BEGIN PRIVATE KEY", "BEGIN RSA PRIVATE KEY", "BEGIN EC PRIVATE KEY"][form as usize];
        assert!(key.contains(label), "{form:?}");
    }
}

/// Leases: the recorded life of one, request by request, but for a merge patch, which aci-sync does not send.
#[test]
fn leases() {
    let kube = cluster();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recordings/kubernetes/lease");
    let mut requests: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    requests.retain(|it| it.extension().is_some_and(|it| it == "req"));
    requests.sort();
    let mut versions = std::collections::BTreeMap::new();
    let mut count = 0;
    for request in requests {
        let text = std::fs::read_to_string(&request).unwrap().replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n").unwrap();
        let [method, target] = [0, 1].map(|n| head.split(' ').nth(n).unwrap());
        if method == "PATCH" {
            continue;
        }
        let mut body: Value = serde_json::from_str(body).unwrap_or_default();
        if let Some(version) = body["metadata"]["resourceVersion"].as_str().map(str::to_owned) {
            body["metadata"]["resourceVersion"] = Value::clone(&versions[&version]);
        }
        let name = request.with_extension("http");
        let real = recorded(&format!("lease/{}", name.file_name().unwrap().to_str().unwrap()));
        let ours = ask(&kube, method, target, Some(TOKEN), &body.to_string());
        assert_eq!((ours.status, ours.header("content-type")), (real.status, real.header("content-type")), "{name:?}");
        let (mut ours, mut real) = (ours.json(), real.json());
        assert_eq!(shape(&ours), shape(&real), "{name:?}");
        assert_eq!(ours["spec"], real["spec"], "{name:?}");
        if let Some(version) = real["metadata"]["resourceVersion"].as_str() {
            versions.insert(version.to_owned(), ours["metadata"]["resourceVersion"].clone());
        }
        for it in [&mut ours, &mut real] {
            it["metadata"] = Value::Null;
        }
        assert_eq!(ours, real, "{name:?}");
        count += 1;
    }
    assert_eq!(count, 13);
}
