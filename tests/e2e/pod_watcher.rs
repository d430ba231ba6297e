//! A watcher of Pods at a simulated API server.

use std::time::Instant;

use crate::world::LIMIT;
use aci_sync::kube::Token;
use aci_sync::kube::{Client, ClusterConfig, Event, Watcher};
use aci_sync::model::kubernetes::{Kind, Object};
use aci_sync::net::{Roots, TlsSettings};
use aci_sync::secret::Secret;
use crossbeam_channel::{Receiver, Sender};
use serde_json::json;
use sim::kube::{Options, SimKube, TOKEN};
use sim::net::{Fault, Trouble};

/// The content type.
pub const JSON: &str = "application/json";

/// A client with a token that the server accepts.
pub fn client(kube: &SimKube) -> Client {
    let tls = TlsSettings { roots: Roots::Pem(kube.ca_pem().into_bytes()), ..TlsSettings::default() };
    let token = Some(Token::Fixed(Secret::new(TOKEN)));
    Client::new(&ClusterConfig { server: kube.url(), tls, token }).unwrap()
}

/// Trouble for the next request alone whose target contains a text.
pub fn once(target: &str, trouble: Trouble) -> Fault {
    Fault { times: Some(1), ..Fault::on(target, trouble) }
}

/// A Status body.
pub fn status(code: u16, reason: &str) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "said so",
        "reason": reason, "code": code})
    .to_string()
}

/// The names of objects, sorted.
pub fn names(objects: &[Object]) -> Vec<String> {
    let mut names: Vec<_> = objects.iter().map(|it| it.key().name.to_string()).collect();
    names.sort();
    names
}

/// The targets that were asked for and that contain a text.
pub fn asked(kube: &SimKube, part: &str) -> Vec<String> {
    kube.journal().into_iter().map(|it| it.target).filter(|it| it.contains(part)).collect()
}

/// A running watcher of Pods.
pub struct Watch {
    /// The server.
    pub kube: SimKube,
    /// The client that the watcher uses.
    pub client: Client,
    /// What the watcher says.
    pub events: Receiver<Event>,
    /// Closed when it shall end.
    pub stop: Sender<()>,
    /// Hears of its end.
    pub ended: Receiver<()>,
    /// When the test gives up.
    pub deadline: Instant,
}

impl Watch {
    /// Not even listed yet; the queue holds `queue` events.
    pub fn start(kube: SimKube, queue: usize) -> Watch {
        Watch::start_with(kube, queue, |watcher| watcher)
    }

    /// Not even listed yet, with something changed.
    pub fn start_with(kube: SimKube, queue: usize, change: fn(Watcher) -> Watcher) -> Watch {
        let client = client(&kube);
        let (sender, events) = crossbeam_channel::bounded(queue);
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (end, ended) = crossbeam_channel::bounded(1);
        let watcher = change(Watcher::new(client.clone(), Kind::Pod, sender, stopped));
        std::thread::spawn(move || {
            watcher.run();
            let _ = end.send(());
        });
        Watch { kube, client, events, stop, ended, deadline: Instant::now() + LIMIT }
    }

    /// Two Pods that were listed, and a watch that is open.
    pub fn open(options: Options) -> Watch {
        let kube = SimKube::start(options);
        kube.deploy("a", "web", None, &["10.0.0.1", "10.0.0.2"]);
        let watch = Watch::start(kube, 100);
        assert!(matches!(watch.next(), Event::Relisting { why, .. } if why == "start"));
        assert_eq!(watch.listed(), ["web-646c8dfd75-0", "web-646c8dfd75-1"]);
        watch.opens();
        watch
    }

    /// The next event.
    pub fn next(&self) -> Event {
        self.events.recv_deadline(self.deadline).expect("an event")
    }

    /// The names in the list that comes next.
    #[track_caller]
    pub fn listed(&self) -> Vec<String> {
        match self.next() {
            Event::Listed { kind: Kind::Pod, objects } => names(&objects),
            other => panic!("{other:?}"),
        }
    }

    /// A watch is opened next.
    #[track_caller]
    pub fn opens(&self) {
        let event = self.next();
        assert!(matches!(event, Event::Opened { kind: Kind::Pod }), "{event:?}");
    }

    /// It delivers something for the first time.
    #[track_caller]
    pub fn becomes_live(&self) {
        let event = self.next();
        assert!(matches!(event, Event::Live { kind: Kind::Pod }), "{event:?}");
    }

    /// The name of the Pod that is gone.
    #[track_caller]
    pub fn gone(&self) -> String {
        match self.next() {
            Event::Gone { key, .. } => key.name.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Why there is a list at last, whatever the watches did before.
    #[track_caller]
    pub fn relists_in_the_end(&self) -> String {
        loop {
            match self.next() {
                Event::Interrupted { .. } | Event::Opened { .. } | Event::Live { .. } => {}
                Event::Relisting { why, .. } => return why,
                other => panic!("{other:?}"),
            }
        }
    }

    /// It ends and is resumed.
    #[track_caller]
    pub fn is_interrupted(&self) {
        let event = self.next();
        assert!(matches!(event, Event::Interrupted { kind: Kind::Pod }), "{event:?}");
    }

    /// There is a list for this reason.
    #[track_caller]
    pub fn relists(&self, reason: &str) {
        match self.next() {
            Event::Relisting { kind: Kind::Pod, why } => assert!(why.contains(reason), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    /// The name of the Pod that changed; a Pod's first event may come before it has an address.
    #[track_caller]
    pub fn upsert(&self, address: &str) -> String {
        loop {
            match self.next() {
                Event::Upsert(Object::Pod(pod)) if *pod.addresses == [address.parse::<std::net::IpAddr>().unwrap()] => {
                    return pod.key.name.to_string();
                }
                Event::Upsert(Object::Pod(pod)) if pod.addresses.is_empty() => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Ends the watch that is open. The next one meets the trouble.
    pub fn cut_into(&self, trouble: Trouble) {
        self.kube.fault(once("watch=true", trouble));
        self.kube.server().cut_all();
    }

    /// The newest version of the Pods that are there.
    pub fn version(&self) -> u64 {
        let version =
            |pod: &serde_json::Value| -> u64 { pod["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap() };
        self.kube.all("pods").iter().map(version).max().unwrap()
    }

    /// Stops as the daemon does.
    #[track_caller]
    pub fn stop(self) {
        drop(self.stop);
        self.client.shutdown();
        self.ended.recv_timeout(LIMIT).expect("the watcher ended");
    }
}
