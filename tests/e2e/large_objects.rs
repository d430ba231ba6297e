//! K1, X3: objects that are large on the wire cost what they are about and nothing else.

use crate::pod_watcher::{JSON, Watch, asked, client, names};
use crate::world::peak;
use crate::world::{E, World};
use aci_sync::kube::{Error, Event, Pool, decode};
use aci_sync::model::kubernetes::{Key, Kind, Object};
use serde_json::{Value, json};
use sim::kube::{Options, SimKube};
use sim::net::{Fault, Trouble};

/// A Deployment without an annotation whose only argument is so long. Each of its letters becomes six on the wire.
fn large_deployment(name: &str, length: usize) -> Value {
    let containers = json!([{"name": "c", "image": "i", "args": ["<".repeat(length)]}]);
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}});
    json!({"metadata": {"namespace": "b", "name": name}, "spec": {"replicas": 0, "template": template}})
}

/// K1, X3: a list page that is too large is asked for in smaller ones, and a watch line of 8 MB is an event like any
/// other. Objects of one namespace that make both keep nothing from the other namespaces, and cost little memory.
#[test]
fn large_objects_do_not_block_other_namespaces() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    for n in 0..8 {
        world.kube.apply("deployments", large_deployment(&format!("large-{n}"), 1_400_000));
    }
    let daemon = world.run(&[]);
    world.until_holds("E", &["10.0.0.1"]);
    // Because of its size, or on a slow machine because of its time.
    daemon.until_logged("list page too large; requesting smaller pages kind=Deployment");
    let lists = asked(&world.kube, "/deployments?limit=").len();
    for n in 0..6 {
        let changed = json!({"metadata": {"labels": {"n": n.to_string()}}});
        world.kube.patch("deployments", "b", "large-0", changed);
    }
    world.kube.delete("pods", "a", "web-646c8dfd75-0");
    world.kube.pod("a", "web", "1", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.2"]);
    assert_eq!(asked(&world.kube, "/deployments?limit=").len(), lists, "the watch went on");
    let peak = peak(daemon.id());
    assert!(peak < 120_000, "{peak} kB at most");
}

/// X3: an object whose events are longer than 16 MiB is read on its own. It is known as it is, it keeps no view
/// incomplete however often it is written, and all others are heard of.
#[test]
fn an_oversized_event_costs_one_read() {
    let watch = Watch::open(Options::default());
    let huge = json!({"metadata": {"annotations": {"example.com/huge": "<".repeat(3 << 20)}}});
    watch.kube.patch("pods", "a", "web-646c8dfd75-0", huge);
    watch.becomes_live();
    assert_eq!(watch.upsert("10.0.0.1"), "web-646c8dfd75-0");
    for address in ["10.0.0.3", "10.0.0.4"] {
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
        watch.kube.patch("pods", "a", "web-646c8dfd75-0", status);
        assert_eq!(watch.upsert(address), "web-646c8dfd75-0");
    }
    watch.kube.delete("pods", "a", "web-646c8dfd75-0");
    assert_eq!(watch.gone(), "web-646c8dfd75-0");
    watch.kube.delete("pods", "a", "web-646c8dfd75-1");
    assert_eq!(watch.gone(), "web-646c8dfd75-1");
    assert_eq!(asked(&watch.kube, "watch=true").len(), 1, "one watch heard all of it");
    let alone = asked(&watch.kube, "fieldSelector");
    let path = "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dweb-646c8dfd75-0";
    assert!(alone.len() == 3 && alone.iter().all(|it| it == path), "{alone:?}");
    watch.stop();
}

/// X3: if the object cannot be read on its own either, the kind is listed.
#[test]
fn an_unreadable_object_leads_to_a_list() {
    let watch = Watch::open(Options::default());
    watch.kube.fault(Fault::on("fieldSelector", Trouble::Answer(500, JSON, "no".to_owned())).times(1));
    let huge = json!({"metadata": {"annotations": {"example.com/huge": "<".repeat(3 << 20)}}});
    watch.kube.patch("pods", "a", "web-646c8dfd75-0", huge);
    watch.relists("failed to read Pod a/web-646c8dfd75-0 alone");
    assert_eq!(watch.listed().len(), 2);
    watch.stop();
}

/// K1, X3: the pages of a list shrink down to one object and grow again after the large ones; one object that is
/// larger than any page is an error that says where it is.
#[test]
fn pages_shrink_and_grow() {
    let kube = SimKube::start(Options::default());
    for n in 0..20 {
        let name = format!("web-{n:02}");
        let large = if n == 10 { 80_000 } else { 100 };
        let mut deployment = large_deployment(&name, large);
        deployment["metadata"]["annotations"] = json!({"aci.haystacknetworks.com/l3o": "{}"});
        if (9..12).contains(&n) {
            deployment["metadata"]["annotations"]["example.com/more"] = "<".repeat(80_000).into();
        }
        kube.apply("deployments", deployment);
    }
    let client = client(&kube).with_largest_page(1 << 20);
    let (deployments, _) = client.list(Kind::Deployment, &mut Pool::default()).unwrap();
    assert_eq!(names(&deployments), (0..20).map(|n| format!("web-{n:02}")).collect::<Vec<_>>());
    let limits: Vec<String> =
        asked(&kube, "/deployments?").iter().map(|it| it.split(['=', '&']).nth(1).unwrap().to_owned()).collect();
    assert_eq!(limits, ["500", "10", "20", "1", "2", "4", "8"], "{limits:?}");

    let mut deployment = large_deployment("web-10", 200_000);
    deployment["metadata"]["annotations"] = json!({"aci.haystacknetworks.com/l3o": "{}"});
    kube.apply("deployments", deployment);
    let error = client.list(Kind::Deployment, &mut Pool::default()).unwrap_err();
    assert_eq!(error, Error::TooLarge("one Deployment after b/web-09: larger than 1 MiB".to_owned()));
}

/// K1, J1: the list of Pods that names the nodes asks for smaller pages, too.
#[test]
fn a_large_pod_hides_no_node() {
    let kube = SimKube::start(Options::default());
    for n in 0..100 {
        let metadata = json!({"namespace": "a", "name": format!("web-{n:02}"),
            "annotations": {"example.com/large": "<".repeat(12_000)}});
        kube.apply("pods", json!({"metadata": metadata, "status": {"hostIP": format!("10.1.1.{n}")}}));
    }
    let addresses = client(&kube).with_largest_page(1 << 20).node_addresses(|| true).unwrap();
    assert_eq!(addresses.len(), 100);
}

/// X3: what the beginning of a watch line says, however it goes on.
#[test]
fn an_object_is_identified_by_the_beginning_of_its_line() {
    let known = |deleted| decode::LineStart {
        deleted,
        key: Some(Key::new("a", "web")),
        resource_version: Some("7".to_owned()),
    };
    let metadata = r#""metadata":{"name":"web","namespace":"a","uid":"u","resourceVersion":"7","labels":{"x":""#;
    for (line, expected) in [
        (format!(r#"{{"type":"MODIFIED","object":{{"kind":"Pod","apiVersion":"v1",{metadata}xxx"#), known(false)),
        (format!(r#"{{"type":"ADDED","object":{{"kind":"Pod",{metadata}"}}}},"spec":{{"x":[1,"#), known(false)),
        (format!(r#"{{"type":"DELETED","object":{{{metadata}"#), known(true)),
        (format!(r#"{{"type":"BOOKMARK","object":{{{metadata}"#), decode::LineStart::default()),
        (r#"{"type":"ADDED","object":{"metadata":{"name":"we"#.to_owned(), decode::LineStart::default()),
        (
            r#"{"type":"ADDED","object":{"metadata":{"labels":{"name":"web","namespace":"a"}"#.to_owned(),
            decode::LineStart::default(),
        ),
        ("x".repeat(100), decode::LineStart::default()),
    ] {
        assert_eq!(decode::line_start(line.as_bytes()), expected, "{line}");
    }
}

/// K1: a page that cannot be read whole is not used, and an object is decoded apart from its neighbours while it comes
/// in.
#[test]
fn a_page_is_read_one_object_at_a_time() {
    let item =
        |n: usize| format!(r#"{{"metadata":{{"name":"w{n}","namespace":"a"}},"status":{{"podIP":"10.0.0.{n}"}}}}"#);
    let page =
        format!(r#"{{"kind":"PodList","metadata":{{"resourceVersion":"7"}},"items":[{},{}]}}"#, item(1), item(2));
    let mut progress = decode::Progress::default();
    let whole = decode::read_page::<Object>(Kind::Pod, page.as_bytes(), &mut progress).unwrap();
    assert_eq!((whole.objects.len(), progress.items, progress.last), (2, 2, Some(Key::new("a", "w2"))));
    assert_eq!(whole.objects.iter().map(Object::key).collect::<Vec<_>>(), [&Key::new("a", "w1"), &Key::new("a", "w2")]);
    for length in 0..page.len() {
        let mut progress = decode::Progress::default();
        let error = decode::read_page::<Object>(Kind::Pod, &page.as_bytes()[..length], &mut progress).unwrap_err();
        assert!(matches!(error, Error::Malformed(_)), "{length}: {error}");
        assert!(progress.items <= 2);
    }
}

/// W1: the view stays whole while one large object is written all the time.
#[test]
fn a_busy_large_object_keeps_the_view_complete() {
    let watch = Watch::open(Options::default());
    for n in 0..6 {
        let ballast = json!({"metadata": {"annotations": {"example.com/ballast": "<".repeat(900_000), "example.com/n": n.to_string()}}});
        watch.kube.patch("pods", "a", "web-646c8dfd75-0", ballast);
    }
    watch.becomes_live();
    for _ in 0..6 {
        assert!(matches!(watch.next(), Event::Upsert(_)));
    }
    assert_eq!(asked(&watch.kube, "watch=true").len(), 1, "one watch heard all of it");
    watch.stop();
}
