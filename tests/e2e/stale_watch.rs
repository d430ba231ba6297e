//! K2, R4, W1: watches that say nothing true although they were taken, and how long a stale view may last.

use std::time::{Duration, Instant};

use crate::pod_watcher::{JSON, Watch, once, status};
use aci_sync::kube::Event;
use sim::kube::{Options, SimKube};
use sim::net::{Fault, Trouble};

/// K2, W1: an error in the stream that is no 410 and no 429 leads to a list as well: the same version would fail again.
/// A watch that only fails is never said to be live, and the pauses between the lists grow.
#[test]
fn an_error_in_the_stream_leads_to_a_list() {
    for (code, message) in [(500, "etcdserver: mvcc: required revision has been compacted"), (504, "Timeout: too slow")]
    {
        let watch = Watch::open(Options::default());
        watch.kube.server().pause();
        watch.kube.delete("pods", "a", "web-646c8dfd75-0");
        watch.kube.fail_old_watches(code, message);
        watch.kube.compact();
        watch.kube.server().resume();
        let why = watch.relists_in_the_end();
        assert!(why.contains("ended the watch: ") && why.contains(message), "{why}");
        assert_eq!(watch.listed(), ["web-646c8dfd75-1"]);
        watch.opens();
        watch.kube.pod("a", "web", "2", &["10.0.0.3"]);
        watch.becomes_live();
        watch.stop();
    }

    let kube = SimKube::start(Options::default());
    let error = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(500, "InternalError"));
    kube.fault(Fault::on("watch=true", Trouble::Answer(200, JSON, error)));
    let watch = Watch::start(kube, 100);
    watch.relists("start");
    for _ in 0..3 {
        watch.listed();
        watch.opens();
        watch.relists("said so");
    }
    let lists = watch.kube.journal().into_iter().filter(|it| it.target.contains("limit=")).map(|it| it.at);
    let lists: Vec<Instant> = lists.collect();
    // 0.8 and 1.6 s, each spread over its upper half.
    assert!(lists[2] - lists[0] >= Duration::from_millis(1200), "{lists:?}");
    watch.stop();
}

/// K2, W1: a server that takes each watch and ends it with an error has no live watch: there is a list once that has
/// lasted, even if each end would be a reason to go on.
#[test]
fn a_watch_that_delivers_nothing_is_not_live() {
    let kube = SimKube::start(Options::default());
    let busy = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(429, "TooManyRequests"));
    kube.fault(Fault::on("watch=true", Trouble::Answer(200, JSON, busy)));
    let watch = Watch::start_with(kube, 100, |it| it.with_longest_gap(Duration::from_secs(2)));
    watch.relists("start");
    watch.listed();
    let mut opened = 0;
    let why = loop {
        match watch.next() {
            Event::Opened { .. } => opened += 1,
            Event::Interrupted { .. } => {}
            Event::Relisting { why, .. } => break why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(why, "no live watch for too long");
    assert!(opened >= 2, "{opened}");
    watch.stop();
}

/// K2, R4: a storage that was put back to an older state makes versions lower. The watches of such a server take the
/// newer version and say nothing, so after a connection that was lost the version is asked for, and a list follows.
#[test]
fn decreasing_versions_lead_to_a_list() {
    let watch = Watch::open(Options::default());
    let backup = watch.kube.backup();
    watch.kube.pod("a", "web", "2", &["10.0.0.3"]);
    watch.becomes_live();
    watch.upsert("10.0.0.3");
    watch.kube.restore(&backup);
    watch.kube.server().cut_all();
    watch.is_interrupted();
    watch.relists("resource version went back from ");
    assert_eq!(watch.listed(), ["web-646c8dfd75-0", "web-646c8dfd75-1"]);
    watch.opens();
    watch.kube.delete("pods", "a", "web-646c8dfd75-1");
    watch.becomes_live();
    assert_eq!(watch.gone(), "web-646c8dfd75-1");
    watch.stop();
}

/// K2, R4: the same without a connection that was lost is found by the list that comes from time to time. It replaces
/// the view without calling it incomplete, and if it fails the watch goes on.
#[test]
fn each_kind_is_relisted_periodically() {
    let kube = SimKube::start(Options::default());
    kube.deploy("a", "web", None, &["10.0.0.1", "10.0.0.2"]);
    let backup = kube.backup();
    kube.pod("a", "web", "2", &["10.0.0.3"]);
    let watch = Watch::start_with(kube, 100, |it| it.with_relist_every(Duration::from_secs(4)));
    watch.relists("start");
    assert_eq!(watch.listed().len(), 3);
    watch.opens();
    watch.kube.restore(&backup);
    watch.kube.fault(once("limit=500", Trouble::Answer(403, JSON, status(403, "Forbidden"))));
    watch.is_interrupted();
    watch.opens();
    watch.is_interrupted();
    assert_eq!(watch.listed(), ["web-646c8dfd75-0", "web-646c8dfd75-1"]);
    watch.opens();
    watch.stop();
}
