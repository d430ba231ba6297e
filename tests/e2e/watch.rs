//! K1, K2: lists and watches over real sockets, and what is done when they go wrong.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::pod_watcher::{JSON, Watch, asked, client, names, once, status};
use aci_sync::kube::{Client, ClusterConfig, Error, Event, Pool};
use aci_sync::model::kubernetes::{Kind, Object};
use aci_sync::net::{Roots, TlsSettings};
use serde_json::json;
use sim::kube::{Options, SimKube};
use sim::net::{Connection, Fault, Request, Server, Service, Trouble};
use sim::pki::Authority;

/// K1, F9: a list comes in pages of 500, each object once, and says where to watch from.
#[test]
fn lists_come_in_pages() {
    let kube = SimKube::start(Options::default());
    for number in 0..1001 {
        let name = format!("web-{number}");
        kube.apply(
            "services",
            json!({"metadata": {"namespace": "a", "name": name},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"}}}),
        );
    }
    let (services, version) = client(&kube).list(Kind::Service, &mut Pool::default()).unwrap();
    let mut names = names(&services);
    names.dedup();
    assert_eq!(names.len(), 1001);
    let last = kube.all("services").iter().map(|it| it["metadata"]["resourceVersion"].as_str().unwrap().len()).max();
    assert_eq!(version.len(), last.unwrap());
    let requests = asked(&kube, "/services?");
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(requests.iter().all(|it| it.contains("limit=500") && !it.contains("resourceVersion")), "{requests:?}");
    assert_eq!(requests.iter().filter(|it| it.contains("continue=")).count(), 2);
}

/// K1: if the token for the next page has expired, or the next page is of another state, what was read is thrown
/// away and the list starts over; pages are never mixed. It does not start over for ever.
#[test]
fn an_expired_list_starts_over() {
    let kube = SimKube::start(Options::default());
    let addresses: Vec<String> = (0..501).map(|it| format!("10.0.{}.{}", it / 250, it % 250)).collect();
    kube.deploy("a", "web", None, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let client = client(&kube);
    let other_state = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "other", "namespace": "a"}, "status": {"podIP": "10.9.9.9"}}]});
    let mut lists = 0;
    for (trouble, again) in [
        (Trouble::Answer(410, JSON, status(410, "Expired")), 1),
        (Trouble::Answer(200, JSON, other_state.to_string()), 1),
    ] {
        kube.fault(once("continue=", trouble));
        let (pods, _) = client.list(Kind::Pod, &mut Pool::default()).unwrap();
        assert_eq!(pods.len(), 501);
        assert!(!names(&pods).contains(&"other".to_owned()));
        lists += 1 + again;
        assert_eq!(asked(&kube, "/pods?").iter().filter(|it| !it.contains("continue=")).count(), lists);
    }
    kube.fault(Fault::on("continue=", Trouble::Answer(410, JSON, status(410, "Expired"))));
    assert_eq!(client.list(Kind::Pod, &mut Pool::default()).unwrap_err(), Error::Expired);
    let requests = asked(&kube, "/pods?").iter().filter(|it| !it.contains("continue=")).count();
    assert_eq!(requests, lists + 3, "three tries and no more");
}

/// W1, X3: what is no list is never taken for an empty cluster, and a list that leads nowhere ends.
#[test]
fn an_invalid_list_is_not_an_empty_one() {
    let kube = SimKube::start(Options::default());
    kube.deploy("a", "web", None, &["10.0.0.1"]);
    let client = client(&kube);
    for body in [
        "",
        "{}",
        "[]",
        "<html>Welcome</html>",
        r#"{"metadata":{}}"#,
        r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#,
        r#"{"kind":"Status","metadata":{"resourceVersion":"7"},"status":"Success"}"#,
        r#"{"kind":"ServiceList","metadata":{"resourceVersion":"7"},"items":[]}"#,
        r#"{"kind":"PodList","metadata":{"resourceVersion":""},"items":[]}"#,
        r#"{"kind":"PodList","metadata":{},"items":null}"#,
        r#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"x"},"items":[]}"#,
        r#"{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"x"#,
    ] {
        kube.fault(once("/pods?", Trouble::Answer(200, JSON, body.to_owned())));
        let error = client.list(Kind::Pod, &mut Pool::default()).unwrap_err();
        assert!(matches!(error, Error::Malformed(_)), "{body}: {error}");
        assert!(!error.to_string().contains("Welcome"), "nothing of the body is quoted: {error}");
    }
    let null = r#"{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":null}"#;
    kube.fault(once("/pods?", Trouble::Answer(200, JSON, null.to_owned())));
    assert_eq!(
        client.list(Kind::Pod, &mut Pool::default()).unwrap(),
        (Vec::new(), "7".to_owned()),
        "an old server's empty list"
    );
    kube.fault(once("/pods?", Trouble::CutAfter(900)));
    assert!(matches!(client.list(Kind::Pod, &mut Pool::default()), Err(Error::Unreachable(_))), "half a list is none");
    assert_eq!(client.list(Kind::Pod, &mut Pool::default()).unwrap().0.len(), 1);
}

/// A server whose lists have no last page.
struct Endless(AtomicUsize);

impl Service for Endless {
    fn handle(&self, _: Request, connection: &mut Connection) -> io::Result<()> {
        let page = self.0.fetch_add(1, Ordering::SeqCst);
        let metadata = json!({"resourceVersion": "7", "continue": page.to_string()});
        let page = json!({"kind": "PodList", "metadata": metadata, "items": [{"metadata": {"name": "x"}}]});
        connection.respond(200, &[("Content-Type", JSON)], page.to_string().as_bytes())
    }
}

/// X3: a list without an end is given up.
#[test]
fn an_endless_list_ends() {
    let ca = Authority::new("ca");
    let service = Arc::new(Endless(AtomicUsize::new(0)));
    let server = Server::start(([127, 0, 0, 1], 0).into(), &ca.server(&["127.0.0.1"]), service.clone()).unwrap();
    let tls = TlsSettings { roots: Roots::Pem(ca.pem().into_bytes()), ..TlsSettings::default() };
    let config = ClusterConfig { server: format!("https://{}", server.address()), tls, token: None };
    let error = Client::new(&config).unwrap().list(Kind::Pod, &mut Pool::default()).unwrap_err();
    assert_eq!(error, Error::Malformed("list: more than 2000000 objects".to_owned()));
    assert_eq!(service.0.load(Ordering::SeqCst), 4000);
}

/// K2: what a refusal leads to, as a status or as text, and which right is missing.
#[test]
fn errors_are_classified() {
    let kube = SimKube::start(Options::default());
    let client = client(&kube);
    let text = "text/plain; charset=utf-8";
    for (code, kind, body, word) in [
        (400, JSON, status(400, "BadRequest"), "Malformed"),
        (401, JSON, status(401, "Unauthorized"), "Unauthorized"),
        (403, text, "no".to_owned(), "Forbidden"),
        (404, text, "404 page not found\n".to_owned(), "NotFound"),
        (429, text, "Too many requests, please try again later.".to_owned(), "Busy"),
        (500, JSON, status(500, ""), "Busy"),
        (502, "text/html", "<html>Bad Gateway</html>".to_owned(), "Busy"),
        (503, JSON, status(503, "ServiceUnavailable"), "Busy"),
        (302, "text/html", "elsewhere".to_owned(), "Malformed"),
    ] {
        kube.fault(once("/pods?", Trouble::Answer(code, kind, body)));
        let error = client.list(Kind::Pod, &mut Pool::default()).unwrap_err();
        assert!(format!("{error:?}").starts_with(word), "{code}: {error:?}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    kube.deny("list", "deployments");
    let Error::Forbidden { message } = client.list(Kind::Deployment, &mut Pool::default()).unwrap_err() else {
        panic!()
    };
    assert!(message.contains("cannot list resource \"deployments\" in API group \"apps\""), "{message}");
    kube.fault(once("/pods?", Trouble::Cut));
    assert!(matches!(client.list(Kind::Pod, &mut Pool::default()), Err(Error::Unreachable(_))));
    kube.server().pause();
    assert!(matches!(client.list(Kind::Pod, &mut Pool::default()), Err(Error::Unreachable(_))));
}

/// K2: changes come as they happen; what is no longer worth keeping is gone, as what was deleted is.
#[test]
fn changes_come_as_they_happen() {
    let watch = Watch::open(Options::default());
    let request = asked(&watch.kube, "watch=true").pop().unwrap();
    let lifetime: u64 = request.split("timeoutSeconds=").nth(1).unwrap().parse().unwrap();
    assert!((240..290).contains(&lifetime), "{request}");
    assert!(request.contains("allowWatchBookmarks=true"), "{request}");

    let pod = watch.kube.pod("a", "web", "2", &["10.0.0.3"]);
    watch.becomes_live();
    assert_eq!(watch.upsert("10.0.0.3"), pod);
    watch.kube.patch("pods", "a", &pod, json!({"status": {"phase": "Failed"}}));
    assert_eq!(watch.gone(), pod);
    watch.kube.delete("pods", "a", "web-646c8dfd75-0");
    assert_eq!(watch.gone(), "web-646c8dfd75-0");
    watch.stop();
}

/// K2: after a cut, a refusal for the moment or a 429 in the stream, the watch goes on from the last version: no
/// new list, and nothing that changed meanwhile is lost.
#[test]
fn a_watch_resumes_where_it_ended() {
    let error = |code, reason| format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(code, reason));
    for trouble in [
        None,
        Some(Trouble::Cut),
        Some(Trouble::LoseAnswer),
        Some(Trouble::Answer(401, JSON, status(401, "Unauthorized"))),
        Some(Trouble::Answer(403, JSON, status(403, "Forbidden"))),
        Some(Trouble::Answer(429, "text/plain", "Too many requests, please try again later.".to_owned())),
        Some(Trouble::Answer(503, JSON, status(503, "ServiceUnavailable"))),
        Some(Trouble::Answer(200, JSON, error(429, "TooManyRequests"))),
    ] {
        let watch = Watch::open(Options::default());
        watch.kube.delete("pods", "a", "web-646c8dfd75-0");
        watch.becomes_live();
        watch.gone();
        let version = watch.version();
        match &trouble {
            Some(trouble) => watch.cut_into(trouble.clone()),
            None => watch.kube.server().cut_all(),
        }
        let pod = watch.kube.pod("a", "web", "2", &["10.0.0.3"]);
        let mut interruptions = 0;
        let found = loop {
            match watch.next() {
                Event::Interrupted { .. } => interruptions += 1,
                Event::Opened { .. } | Event::Live { .. } => {}
                Event::Upsert(Object::Pod(found)) if found.addresses.is_empty() => {}
                Event::Upsert(found) => break found.key().name.to_string(),
                other => panic!("{trouble:?}: {other:?}"),
            }
        };
        assert_eq!(found, pod);
        assert!(interruptions > 0, "{trouble:?}");
        assert_eq!(asked(&watch.kube, "limit=500").len(), 1, "{trouble:?}: one list");
        let resumed = asked(&watch.kube, "watch=true").pop().unwrap();
        let from: u64 = resumed.split("resourceVersion=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
        assert!(from > version, "{trouble:?}: the version of the deletion counts, too: {resumed}");
        watch.stop();
    }
}

/// K2: a bookmark moves the version on, though nothing changed; an event of unknown type is ignored.
#[test]
fn bookmarks_move_the_version() {
    let watch = Watch::open(Options::default());
    let service = watch.kube.apply("services", json!({"metadata": {"namespace": "z", "name": "anything"}}));
    let version = service["metadata"]["resourceVersion"].as_str().unwrap();
    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": version},
        "spec": {"containers": null}}});
    let body = format!("{{\"type\":\"NEWS\",\"object\":{{}}}}\n{bookmark}\n");
    watch.cut_into(Trouble::Answer(200, JSON, body));
    watch.is_interrupted();
    watch.opens();
    watch.becomes_live();
    watch.is_interrupted();
    watch.opens();
    let resumed = asked(&watch.kube, "watch=true").pop().unwrap();
    assert!(resumed.contains(&format!("resourceVersion={version}&")), "{resumed}");
    watch.stop();
}

/// K2: an event that was cut in two is not believed; it comes whole after the watch was opened again.
#[test]
fn a_truncated_event_is_not_used() {
    let watch = Watch::open(Options::default());
    watch.kube.server().pause();
    let pod = watch.kube.pod("a", "web", "2", &["10.0.0.3"]);
    watch.kube.fault(once("watch=true", Trouble::CutAfter(700)));
    watch.kube.server().resume();
    let mut opened = 0;
    let found = loop {
        match watch.next() {
            Event::Interrupted { .. } | Event::Live { .. } => {}
            Event::Opened { .. } => opened += 1,
            Event::Upsert(Object::Pod(found)) if found.addresses.is_empty() => {}
            Event::Upsert(found) => break found.key().name.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((found, opened), (pod, 2));
    watch.stop();
}

/// K2, F5: an event that is cut each time leads to a list, which shows its change too.
#[test]
fn an_event_that_is_always_truncated_leads_to_a_list() {
    let watch = Watch::open(Options::default());
    watch.kube.server().pause();
    watch.kube.pod("a", "web", "2", &["10.0.0.3"]);
    watch.kube.fault(Fault::on("watch=true", Trouble::CutAfter(700)));
    watch.kube.server().resume();
    assert_eq!(watch.relists_in_the_end(), "the same event was cut twice");
    assert_eq!(watch.listed(), ["web-646c8dfd75-0", "web-646c8dfd75-1", "web-646c8dfd75-2"]);
    watch.stop();
}

/// K2, W1: a watch that is too old, in either form, leads to a new list, and so does a stream that makes no sense.
/// The list replaces the whole old view.
#[test]
fn an_expired_watch_leads_to_a_list() {
    for (gone_as_status, trouble, reason) in [
        (false, None, "410"),
        (true, None, "410"),
        (false, Some(Trouble::Answer(400, JSON, status(400, "BadRequest"))), "HTTP 400"),
        (false, Some(Trouble::Answer(200, JSON, String::new())), "closed at once"),
        (false, Some(Trouble::Answer(200, JSON, "nonsense\n".to_owned())), "not JSON"),
        (false, Some(Trouble::Answer(200, JSON, "{\"type\":\"ADDED\"}\n".to_owned())), "missing field"),
        (
            false,
            Some(Trouble::Answer(
                200,
                JSON,
                "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Pod\",\"metadata\":{}}}\n".to_owned(),
            )),
            "no resourceVersion",
        ),
        (false, Some(Trouble::Answer(200, JSON, "x".repeat((16 << 20) + 2))), "too large"),
    ] {
        let watch = Watch::open(Options { gone_as_status, ..Options::default() });
        watch.kube.server().pause();
        watch.kube.delete("pods", "a", "web-646c8dfd75-0");
        watch.kube.pod("a", "web", "2", &["10.0.0.3"]);
        match trouble {
            None => watch.kube.compact(),
            Some(trouble) => watch.kube.fault(once("watch=true", trouble)),
        }
        watch.kube.server().resume();
        let why = watch.relists_in_the_end();
        assert!(why.contains(reason), "{why}");
        assert_eq!(watch.listed(), ["web-646c8dfd75-1", "web-646c8dfd75-2"]);
        watch.opens();
        watch.stop();
    }
}

/// K1, W1: a list that fails is tried again, and meanwhile nothing is said to be complete.
#[test]
fn a_list_is_retried_until_it_succeeds() {
    let kube = SimKube::start(Options::default());
    kube.deploy("a", "web", None, &["10.0.0.1"]);
    kube.fault(once("limit=", Trouble::Answer(503, JSON, status(503, "ServiceUnavailable"))));
    kube.fault(once("limit=", Trouble::Cut));
    let watch = Watch::start(kube, 100);
    watch.relists("start");
    assert_eq!(watch.listed(), ["web-646c8dfd75-0"]);
    watch.opens();
    watch.stop();
}

/// X2: a stop ends a watcher wherever it is: in a silent watch, in a list without an answer, before a full queue, in
/// the pause after a failure.
#[test]
fn a_shutdown_ends_a_watcher_in_any_state() {
    Watch::open(Options::default()).stop();

    let kube = SimKube::start(Options::default());
    kube.fault(Fault::on("limit=", Trouble::Hang));
    let hanging = Watch::start(kube, 100);
    hanging.relists("start");
    hanging.stop();

    Watch::start(SimKube::start(Options::default()), 0).stop();

    let kube = SimKube::start(Options::default());
    kube.server().pause();
    let waiting = Watch::start(kube, 100);
    waiting.relists("start");
    waiting.stop();
}

/// W1, K2: after an outage in which the view got too old there is a list and no attempt to go on; that the view is not
/// complete is reported before the list succeeds.
#[test]
fn a_long_outage_leads_to_a_list() {
    let watch = Watch::start_with(SimKube::start(Options::default()), 100, |it| it.with_longest_gap(Duration::ZERO));
    watch.relists("start");
    watch.listed();
    watch.opens();
    watch.kube.server().pause();
    watch.kube.server().cut_all();
    // Once if the watch had just begun, else once more.
    let event = std::iter::repeat_with(|| watch.next()).find(|it| !matches!(it, Event::Interrupted { .. })).unwrap();
    assert!(matches!(&event, Event::Relisting { why, .. } if why.contains("no live watch for too long")), "{event:?}");
    watch.kube.deploy("a", "web", None, &["10.0.0.1"]);
    watch.kube.server().resume();
    assert_eq!(watch.listed(), ["web-646c8dfd75-0"]);
    watch.opens();
}
