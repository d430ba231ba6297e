//! X3: what a peer sends has an end, and what is beyond it is refused in words, not kept.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::world::{E, LIMIT, World};
use aci_sync::apic::Controller;
use aci_sync::apic::adapters::WithoutEvents;
use aci_sync::apic::traits::{ApicRead, ApicWrite, ShouldSend, WriteAnswer};
use aci_sync::apic::writer::request::WriteRequest;
use aci_sync::apic::writer::{Refusal, Writer};
use aci_sync::apic::{self, Identity, Query, Settings, SubscriptionId};
use aci_sync::kube::{self, Client, Error, Pool, decode};
use aci_sync::leadership::Leadership;
use aci_sync::model::cache::FabricCache;
use aci_sync::model::dn::{L3outDn, Name};
use aci_sync::model::kubernetes::Kind;
use aci_sync::model::mo::Mo;
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::plan::{Change, RequestShape, Transaction};
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::Rules;
use aci_sync::net::{Roots, Tls, TlsSettings};
use aci_sync::reconcile::Reconciler;
use aci_sync::secret::{Renewable, Secret};
use crossbeam_channel::bounded;
use serde_json::json;
use sim::apic::{ApiError, SimApic};
use sim::folder::Folder;
use sim::kube::{Credential, SimKube};
use sim::net::{Connection, Fault, Request, Server, Service, Trouble};
use sim::pki::Authority;
use tungstenite::handshake::derive_accept_key;

const JSON: &str = "application/json";

/// An answer of a megabyte more than is read.
fn flood() -> Trouble {
    Trouble::Answer(200, JSON, " ".repeat(65 << 20))
}

/// An answer with a head of 70 kB.
fn long_head() -> Trouble {
    Trouble::Answer(200, "x".repeat(70_000).leak(), "{}".to_owned())
}

/// The complaint about an answer. A busy machine may not bring 64 MiB within the time of a request.
fn whatever_the_time(complaint_of: &dyn Fn() -> String) -> String {
    (0..20).map(|_| complaint_of()).find(|why| !why.contains("no answer in time")).unwrap()
}

fn cluster(kube: &SimKube, folder: &Folder) -> Client {
    let file = folder.file("config", &kube.kubeconfig(Credential::Token));
    Client::new(&kube::load(Some(&file), None, &|_| None).unwrap()).unwrap()
}

/// Answers of an API server: bodies, heads, and refusals whose body is not needed.
#[test]
fn endless_answers_of_the_api_server_are_cut_off() {
    let kube = SimKube::start(sim::kube::Options::default());
    let folder = Folder::new();
    let client = cluster(&kube, &folder);
    let answer = |trouble| {
        kube.server().clear_faults();
        kube.fault(Fault::on("pods", trouble));
        client.list(Kind::Pod, &mut Pool::default()).map(|_| ()).unwrap_err()
    };
    for (trouble, complaint) in
        [(flood as fn() -> Trouble, "one Pod: larger than 64 MiB"), (long_head, "head is larger than")]
    {
        let complaint_of = || match answer(trouble()) {
            Error::Unreachable(why) | Error::TooLarge(why) => why,
            other => panic!("{other:?}"),
        };
        let why = whatever_the_time(&complaint_of);
        assert!(why.contains(complaint), "{why}");
    }
    for (length, expected) in [(60_000, "x".repeat(300)), (70_000, "no message".to_owned())] {
        let refusal = json!({"kind": "Status", "code": 500, "message": "x".repeat(length)}).to_string();
        let Error::Busy { message, .. } = answer(Trouble::Answer(500, JSON, refusal)) else { panic!() };
        assert_eq!(message, expected, "a body of more than 64 KiB is not needed to know what 500 means");
    }
}

/// D1, O1: the UID that becomes a part of our mark is checked like a cluster id from the configuration.
#[test]
fn the_clusters_uid_is_checked() {
    let kube = SimKube::start(sim::kube::Options::default());
    let folder = Folder::new();
    let client = cluster(&kube, &folder);
    client.cluster_uid().unwrap();
    for bad in ["", "a b", "x\"),eq(a.b,\"", "a/b", &"x".repeat(41)] {
        kube.server().clear_faults();
        let namespace = json!({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": bad}});
        kube.fault(Fault::on("kube-system", Trouble::Answer(200, JSON, namespace.to_string())));
        assert!(matches!(client.cluster_uid(), Err(Error::Malformed(_))), "{bad}");
    }
}

/// Answers of an APIC: bodies, heads, pages without an end, and ids that are none.
#[test]
fn endless_answers_of_the_apic_are_cut_off() {
    let fabric = SimApic::start(sim::apic::Options::default());
    fabric.setup_tenant("T", "V", &["L"]).unwrap();
    let address = fabric.controllers()[0];
    let tls = TlsSettings { roots: Roots::Pem(fabric.ca_pem().into_bytes()), ..TlsSettings::default() };
    let client = apic::login(&Settings {
        controllers: vec![Controller { host: address.ip().to_string(), port: address.port() }],
        tls: Tls::new(&tls).unwrap(),
        credentials: Identity::User(fabric.username().to_owned()).with(Renewable::new(Secret::new(fabric.password()))),
        pacer: apic::RequestPacer::new(None, 1),
    });
    let client = client.unwrap();
    let dn = "uni/tn-T/out-L";
    assert_eq!(client.read(&Query::object(&dn), &|| true).unwrap().len(), 1);
    let cache = FabricCache::new(OwnerIdentity::new("me", &[]));
    let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
    let epg = l3out.epg(Name::object("E").unwrap());
    let write = Transaction { epg, shape: RequestShape::Tag, changes: vec![Change::CreateTag] };
    let with = |trouble| {
        fabric.clear_faults();
        fabric.fault(Fault::on("/api/", trouble));
    };

    for (trouble, complaint) in [(flood(), "larger than 67108864 bytes"), (long_head(), "head is larger than")] {
        with(trouble.clone());
        let read = || {
            let Err(apic::Error::Malformed(why) | apic::Error::Unreachable(why)) =
                client.read(&Query::object(&dn), &|| true)
            else {
                panic!()
            };
            why
        };
        let sent = || {
            let sent = Writer::new(Policy::Sync).send(&WithoutEvents(&client), &cache, &write, &|| true);
            let Err(Refusal::Apic(apic::Error::AnswerLost(why))) = sent else { panic!("{sent:?}") };
            why
        };
        for complaint_of in [&read as &dyn Fn() -> String, &sent] {
            let why = whatever_the_time(complaint_of);
            assert!(why.contains(complaint), "{why}");
        }
    }

    let page = json!({"totalCount": "1000000", "imdata": [{"l3extOut": {"attributes": {"dn": dn}}}]});
    with(Trouble::Answer(200, JSON, page.to_string()));
    let Err(apic::Error::Malformed(why)) = client.read(&Query::class("l3extOut"), &|| true) else { panic!() };
    assert!(why.contains("more than 100 pages"), "{why}");

    for bad in ["", "1&a=b", &"1".repeat(65)] {
        with(Trouble::Answer(200, JSON, json!({"imdata": [], "subscriptionId": bad}).to_string()));
        assert!(matches!(client.subscribe(&Query::object(&dn), &|| true), Err(apic::Error::Malformed(_))), "{bad}");
    }
    with(Trouble::Answer(200, JSON, json!({"imdata": [], "subscriptionId": "1".repeat(64)}).to_string()));
    client.subscribe(&Query::object(&dn), &|| true).unwrap();
}

/// W3: objects that are all refused cost hundreds of requests at most, and not two for each of them.
#[test]
fn many_rejections_cost_few_requests() {
    let world = World::new();
    world.apic.reject("l3extSubnet", ApiError::bad(120, "unknown property value"), None);
    let addresses: Vec<String> = (0..500).map(|n| format!("10.1.{}.{}", n / 250, n % 250)).collect();
    world.kube.deploy("a", "web", Some(E), &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let daemon = world.run(&[]);
    daemon.until_logged("extsubnet-[10.1.0.0/32] text=\"failed to write");
    let requests = world.apic.writes().len();
    assert!((200..250).contains(&requests), "{requests} requests");
    assert_eq!(world.subnets("E").len(), 0);
}

/// An APIC that answers every read the same, and never a write.
struct Mute(AtomicUsize);

impl ApicRead for Mute {
    fn read(&self, _: &Query) -> Result<Vec<Mo>, apic::Error> {
        let body = json!({"imdata": [{"l3extOut": {"attributes": {"dn": "uni/tn-T/out-L"}}}]}).to_string();
        Ok(apic::decode::answer(body.as_bytes())?.mos)
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), apic::Error> {
        Ok((None, self.read(query)?))
    }

    fn unsubscribe(&self, _: &SubscriptionId) {}
}

impl ApicWrite for Mute {
    fn write(&self, _: &WriteRequest, _: &ShouldSend<'_>) -> Result<WriteAnswer, apic::Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(apic::Error::AnswerLost("silence".to_owned()))
    }
}

/// W7, W8: if no answer says what became of a write and the fabric does not show it, it is tried twice, reported, and
/// tried again after a pause.
#[test]
fn a_reconcile_is_bounded() {
    let owner = OwnerIdentity::new("me", &[]);
    let mut reconciler = Reconciler::new(owner, Rules::default(), Policy::Sync, Duration::ZERO);
    let deployment = json!({"kind": "DeploymentList", "metadata": {"resourceVersion": "7"}, "items": [
        {"metadata": {"namespace": "a", "name": "web", "annotations": {"aci.haystacknetworks.com/l3o": E}}}]});
    let page = decode::page(Kind::Deployment, deployment.to_string().as_bytes()).unwrap();
    let now = Instant::now();
    reconciler.cluster_changed(kube::Event::Listed { kind: Kind::Deployment, objects: page.objects }, now);
    let apic = Mute(AtomicUsize::new(0));
    for (seconds, writes) in [(0, 2), (5, 2), (11, 4)] {
        let report = reconciler.reconcile(&apic, now + Duration::from_secs(seconds), &|| true).unwrap();
        assert!(report.done.is_empty());
        assert_eq!(apic.0.load(Ordering::SeqCst), writes, "after {seconds} s");
        assert_eq!(reconciler.findings().iter().filter(|it| it.to_string().contains("silence")).count(), 1);
    }
}

/// An APIC that grants every login, and says these bytes over every websocket.
struct Shouting(Vec<u8>);

impl Service for Shouting {
    fn handle(&self, request: Request, connection: &mut Connection) -> io::Result<()> {
        let Some(key) = request.header("sec-websocket-key") else {
            let login = json!({"imdata": [{"aaaLogin": {"attributes": {"token": "a-token"}}}]});
            return connection.respond(200, &[("Content-Type", JSON)], login.to_string().as_bytes());
        };
        let accept = derive_accept_key(key.as_bytes());
        let (stream, _) = connection.upgrade();
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        stream.write_all(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes())?;
        stream.write_all(&self.0)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// Websocket messages: by the length that is announced, and by the pieces that come without an end.
#[test]
fn websocket_messages_are_bounded() {
    let megabyte = |first: u8| [&[first, 127, 0, 0, 0, 0, 0, 16, 0, 0], vec![b' '; 1 << 20].as_slice()].concat();
    let announced = vec![0x81, 127, 0, 0, 0, 0, 1, 16, 0, 0];
    let pieces = [megabyte(0x01), megabyte(0x00).repeat(16)].concat();
    for bytes in [announced, pieces] {
        let ca = Authority::new("ca");
        let service = Arc::new(Shouting(bytes));
        let server = Server::start(([127, 0, 0, 1], 0).into(), &ca.server(&["127.0.0.1"]), service).unwrap();
        let tls = TlsSettings { roots: Roots::Pem(ca.pem().into_bytes()), ..TlsSettings::default() };
        let settings = Settings {
            controllers: vec![Controller { host: "127.0.0.1".to_owned(), port: server.address().port() }],
            tls: Tls::new(&tls).unwrap(),
            credentials: Identity::User("admin".to_owned()).with(Renewable::new(Secret::new("secret"))),
            pacer: apic::RequestPacer::new(None, 1),
        };
        let (events, said) = bounded(8);
        let (stop, stopped) = bounded(0);
        let (session, session_manager, refresher) =
            apic::session_threads(settings, Leadership::permanent(), events, stopped);
        let threads = [thread::spawn(move || session_manager.run()), thread::spawn(move || refresher.run())];
        assert!(matches!(said.recv_timeout(LIMIT), Ok(apic::Event::Connected(_))));
        let Ok(apic::Event::Disconnected { reason: why }) = said.recv_timeout(LIMIT) else { panic!() };
        assert!(why.contains("a message is too large"), "{why}");
        drop(stop);
        session.stop();
        threads.into_iter().for_each(|it| it.join().unwrap());
    }
}
