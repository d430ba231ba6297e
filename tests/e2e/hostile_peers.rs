//! What peers put on the wire, on both sides: floods, drips, silence, garbage, and words that are not theirs to say.
//! The daemon is a process of its own, but for what would take it minutes to notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aci_sync::apic;
use aci_sync::kube;
use aci_sync::kube::Token;
use aci_sync::kube::{Client, ClusterConfig, Error, Pool};
use aci_sync::model::kubernetes::{Kind, Object};
use aci_sync::net::{Roots, TlsSettings};
use aci_sync::secret::Secret;
use serde_json::{Value, json};
use sim::kube::{Credential, Options, SimKube, TOKEN};
use sim::net::{Fault, Trouble};

use crate::world::{DN_E, E, World};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/// Bytes without an end, as fast as they are taken, or slowly.
fn endless(begin: &str, over: Vec<u8>, pause: Duration) -> Trouble {
    Trouble::Endless { begin: begin.as_bytes().to_vec(), over, pause }
}

/// All the ways in which an answer can fail to end although its bytes keep coming.
fn floods() -> Vec<(&'static str, Trouble)> {
    let flood = |begin: &str, over: &[u8]| endless(begin, over.repeat((1 << 17) / over.len()), Duration::ZERO);
    vec![
        ("2 GB", flood(&format!("{OK}Content-Length: 2147483648\r\n\r\n"), b"        ")),
        ("until the end", flood(&format!("{OK}Connection: close\r\n\r\n{{\"imdata\":["), b"{\"a\":{}},")),
        (
            "chunks",
            flood(
                &format!("{OK}Transfer-Encoding: chunked\r\n\r\n"),
                format!("1000\r\n{}\r\n", "[".repeat(0x1000)).as_bytes(),
            ),
        ),
        ("a chunk's size", flood(&format!("{OK}Transfer-Encoding: chunked\r\n\r\n"), b"00000000")),
        ("a chunk's extension", flood(&format!("{OK}Transfer-Encoding: chunked\r\n\r\n1;"), b"a=bbbbbb")),
        ("headers", flood("HTTP/1.1 200 OK\r\n", b"X-More: of this\r\n")),
        ("a header", flood("HTTP/1.1 200 OK\r\nX-More: ", b"of this ")),
        ("spaces", flood("", b"        ")),
        ("nonsense", flood("", b"nonsense")),
        (
            "a gzip bomb",
            flood(&format!("{OK}Content-Encoding: gzip\r\nContent-Length: 2147483648\r\n\r\n"), &[0x1f, 0x8b]),
        ),
    ]
}

fn client(server: &str, ca: &str) -> Client {
    let tls = TlsSettings { roots: Roots::Pem(ca.as_bytes().to_vec()), ..TlsSettings::default() };
    let config = ClusterConfig { server: server.to_owned(), tls, token: Some(Token::Fixed(Secret::new(TOKEN))) };
    Client::new(&config).unwrap()
}

/// F32 (X3): an answer of the API server without an end is given up, whatever does not end in it; the next is asked.
#[test]
fn floods_of_the_api_server_are_cut_off() {
    let kube = SimKube::start(Options::default());
    kube.deploy("a", "web", None, &["10.0.0.1"]);
    let client = client(&kube.url(), &kube.ca_pem());
    for (what, flood) in floods() {
        kube.fault(Fault::on("/pods?", flood).times(1));
        let error = client.list(Kind::Pod, &mut Pool::default()).unwrap_err();
        let is_given_up = matches!(error, Error::Unreachable(_) | Error::Malformed(_) | Error::TooLarge(_));
        assert!(is_given_up, "{what}: {error}");
        assert!(error.to_string().len() < 200, "{what}: {error}");
        // The connection ends with it, and the next request may still have been sent on that; watchers try again, too.
        let again = (0..3).find_map(|_| client.list(Kind::Pod, &mut Pool::default()).ok());
        assert_eq!(again.unwrap().0.len(), 1, "{what}");
    }
}

/// F4, F32 (W8, X3): every request is over after 30 s in all, however its answer fails to come: not at all, a byte at a
/// time, or promised again and again. Then it is asked again, or, after a write, looked.
#[test]
fn every_request_ends_in_time() {
    let drip = Trouble::Drip(Duration::from_millis(700));
    let promises = endless("", b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(), Duration::from_millis(1));
    let slow_head = endless("HTTP/1.1 200 OK\r\nX-Slow: ", b"x".to_vec(), Duration::from_millis(100));
    let slow_body = endless(&format!("{OK}Content-Length: 100000\r\n\r\n"), b" ".to_vec(), Duration::from_millis(100));
    std::thread::scope(|scope| {
        // The opening of the websocket has 10 s.
        let begin = "HTTP/1.1 101 Switching Protocols\r\nX-Slow: ";
        for trouble in [Trouble::Hang, endless(begin, b"x".to_vec(), Duration::from_secs(1))] {
            scope.spawn(move || {
                let world = World::new();
                world.apic.fault(Fault::on("/socket", trouble).times(1));
                let daemon = world.run(&[]);
                daemon.until_logged("websocket: no answer in time");
                daemon.until_logged("APIC session established");
            });
        }
        for trouble in [Trouble::Hang, drip, promises, slow_head, slow_body] {
            // The login and the first list hang, in the same daemon.
            let ours = trouble.clone();
            scope.spawn(move || {
                let world = World::new();
                world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
                world.kube.fault(Fault::on("/pods?", ours.clone()).times(1));
                world.apic.fault(Fault::on("aaaLogin", ours).times(1));
                let daemon = world.run(&[]);
                daemon
                    .until_logged("failed to list kind=Pod error=\"failed to reach the API server: no answer in time");
                daemon.until_logged("failed to reach the APIC: no answer in time");
                world.until_holds("E", &["10.0.0.1"]);
            });
            // A read hangs, then a write, in another one; with the write done or not.
            scope.spawn(move || {
                let world = World::new();
                let _daemon = world.run(&[]);
                world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
                world.until_holds("E", &["10.0.0.1"]);
                world.apic.fault(Fault::on("", trouble.clone()).method("POST").times(1));
                world.kube.pod("a", "web", "2", &["10.0.0.2"]);
                world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
                world.settle();
                assert!(world.holds("E", &["10.0.0.1", "10.0.0.2"]));
            });
        }
    });
}

/// F32 (X3, I9): floods from the APIC, wherever they come: at the login, at the opening of the websocket, at a read, at
/// a write. Each is cut off, in little memory, and what was to be done is done.
#[test]
fn floods_of_the_apic_are_cut_off() {
    std::thread::scope(|scope| {
        for (what, flood) in floods() {
            scope.spawn(move || {
                let world = World::new();
                world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
                for target in ["aaaLogin", "/socket", "subscription=yes"] {
                    world.apic.fault(Fault::on(target, flood.clone()).times(1));
                }
                let daemon = world.run(&[]);
                world.until_holds("E", &["10.0.0.1"]);
                world.apic.fault(Fault::on("/api/mo/", flood).method("POST").times(1));
                world.kube.pod("a", "web", "2", &["10.0.0.2"]);
                world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
                let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
                let peak = status.lines().find_map(|it| it.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
                assert!(peak.parse::<u64>().unwrap() < 130_000, "{what}: {peak} kB at most");
                assert!(daemon.log().lines().all(|it| it.len() < 400), "{what}: no line is a flood");
            });
        }
    });
}

/// An answer as its bytes.
fn bytes(head: &str, body: &[u8]) -> Trouble {
    let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
    Trouble::Bytes([head.as_bytes(), body].concat())
}

/// What is not the answer to anything, nor half of one.
fn garbage() -> Vec<(&'static str, Trouble)> {
    let json = "200 OK\r\nContent-Type: application/json";
    let html = b"<html><body>Welcome</body></html>";
    vec![
        ("nothing", bytes(json, b"")),
        ("no object", bytes(json, b"null")),
        ("a list", bytes(json, b"[]")),
        ("an empty object", bytes(json, b"{}")),
        ("NUL", bytes(json, b"\0\0\0\0")),
        ("NUL behind it", bytes(json, b"{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"1\"},\"totalCount\":\"0\",\"imdata\":[],\"items\":[]}\0")),
        ("half a character", bytes(json, b"{\"totalCount\":\"0\",\"imdata\":[],\"items\":[\"\xc3\"]}")),
        ("no UTF-8", bytes(json, b"\xff\xfe{\0}\0")),
        ("a long way down", bytes(json, &b"{\"imdata\":[{\"a\":".repeat(100_000))),
        ("a web page", bytes("200 OK\r\nContent-Type: text/html", html)),
        ("no such page", bytes("404 Not Found\r\nContent-Type: text/html", html)),
        ("a bad gateway", bytes("502 Bad Gateway\r\nContent-Type: text/html", html)),
        ("gzip", bytes(&format!("{json}\r\nContent-Encoding: gzip"), b"\x1f\x8b\x08\0\0\0\0\0")),
        ("no content", Trouble::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())),
        ("less than was promised", Trouble::Bytes(format!("HTTP/1.1 {json}\r\nContent-Length: 99\r\n\r\n{{").into_bytes())),
        ("two lengths", Trouble::Bytes(format!("HTTP/1.1 {json}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes())),
    ]
}

/// F5 (W1, K1): whatever the API server answers in place of a list is no list, and is not quoted.
#[test]
fn garbage_is_not_taken_for_a_list() {
    let kube = SimKube::start(Options::default());
    kube.deploy("a", "web", None, &["10.0.0.1"]);
    let client = client(&kube.url(), &kube.ca_pem());
    for (what, trouble) in garbage() {
        kube.fault(Fault::on("/pods?", trouble).times(1));
        let error = client.list(Kind::Pod, &mut Pool::default()).unwrap_err().to_string();
        assert!(!error.contains("Welcome") && !error.chars().any(char::is_control), "{what}: {error}");
        // The connection ends with it, and the next request may still have been sent on that; watchers try again, too.
        let again = (0..3).find_map(|_| client.list(Kind::Pod, &mut Pool::default()).ok());
        assert_eq!(again.unwrap().0.len(), 1, "{what}");
    }
}

/// F5 (W1, K2, X3): no part of an answer is taken for the whole, at whatever byte it was cut, nor with a byte more.
#[test]
fn a_truncated_answer_is_not_taken_for_the_whole() {
    let kube = SimKube::start(Options::default());
    kube.deploy("a", "web", Some(r#"{"tenant":"T","l3out":"L","epg":"\u20ac\u00e9"}"#), &["10.0.0.1", "fd00::1"]);
    let list = |kind: &str, items: Vec<Value>| {
        json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items}).to_string()
    };
    let pods = list("PodList", kube.all("pods"));
    let event = json!({"type": "ADDED", "object": kube.all("deployments")[0]}).to_string();
    let attributes = json!({"dn": DN_E, "name": "E", "annotation": "orchestrator:aci-sync:me", "status": "created"});
    let imdata =
        json!({"totalCount": "1", "subscriptionId": ["1"], "imdata": [{"l3extInstP": {"attributes": attributes}}]});
    let imdata = imdata.to_string();
    type Decodes = fn(&[u8]) -> bool;
    let decoders: [(&str, Decodes); 4] = [
        (&pods, |it| kube::decode::page::<Object>(Kind::Pod, it).is_ok()),
        (&event, |it| kube::decode::line(Kind::Deployment, it).is_ok()),
        (&imdata, |it| apic::decode::answer(it).is_ok()),
        (&imdata, |it| apic::decode::message(it).is_ok()),
    ];
    for (text, decodes) in decoders {
        assert!(decodes(text.as_bytes()), "{text}");
        for length in 0..text.len() {
            assert!(!decodes(&text.as_bytes()[..length]), "{length} bytes of {text}");
        }
        for more in ["x", "\0", "}", "{}", "\u{feff}"] {
            assert!(!decodes(format!("{text}{more}").as_bytes()), "{more:?} behind {text}");
        }
    }
}

/// F5, F32 (W1, W7, X3): whatever the APIC answers in place of what was asked, to a read or to a write, nothing is
/// deleted and nothing goes wrong on its account: it is asked again.
#[test]
fn garbage_of_the_apic_changes_nothing() {
    let cuts = [1, 20, 90, 150, 200, 300, 500].map(|it| ("a cut", Trouble::CutAfter(it)));
    let all: Vec<_> = garbage().into_iter().chain(cuts).collect();
    std::thread::scope(|scope| {
        for some in all.chunks(4) {
            scope.spawn(|| {
                let world = World::new();
                world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
                let daemon = world.run(&["--epg-grace", "0"]);
                world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
                let subnet = format!("{DN_E}/extsubnet-[10.0.0.1/32]");
                for (n, (what, trouble)) in some.iter().enumerate() {
                    // The change of a name is reverted after a read.
                    world.apic.fault(Fault::on("/api/mo/", trouble.clone()).method("GET").times(1));
                    world.apic.set(&subnet, "l3extSubnet", &[("name", "changed")]).unwrap();
                    world.until(&format!("{what}: the name is back"), |world| {
                        world.apic.get(&subnet).unwrap()["name"] != "changed"
                    });
                    world.apic.fault(Fault::on("/api/mo/", trouble.clone()).method("POST").times(1));
                    let address = format!("10.0.1.{n}");
                    world.kube.pod("a", "web", &format!("more-{n}"), &[&address]);
                    world.until(what, |world| world.subnets("E").contains(&format!("{address}/32")));
                }
                assert!(world.apic.writes().iter().all(|it| it.method == "POST" && !it.body.contains("deleted")));
                assert!(!daemon.log().contains("Welcome"), "nothing of it is quoted");
            });
        }
    });
}

/// F32 (W7, I3): objects that the APIC reports and that were not asked for, with our mark and anywhere, are not
/// touched: what is deleted was shown by a read of its own place.
#[test]
fn objects_that_were_not_asked_for_are_not_touched() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let mut daemon = world.run(&["--epg-grace", "0"]);
    world.until_holds("E", &["10.0.0.1"]);
    daemon.kill();
    world.apic.clear_journal();
    let ours =
        |class: &str, dn: &str| json!({class: {"attributes": {"dn": dn, "annotation": "orchestrator:aci-sync:me"}}});
    let imdata = [
        ours("l3extInstP", "uni/tn-OTHER/out-X/instP-Y"),
        ours("l3extSubnet", "uni/tn-OTHER/out-X/instP-Y/extsubnet-[10.0.0.1/32]"),
        ours("l3extSubnet", "uni/tn-OTHER/out-L/instP-E/extsubnet-[10.0.0.9/32]"),
        ours("l3extInstP", "uni/tn-T/out-L/instP-E/../../../tn-OTHER"),
        ours("l3extInstP", "uni/tn-T/out-L/instP-OTHER?query-target=subtree"),
        ours("fvTenant", "uni/tn-OTHER"),
        ours("l3extOut", "uni/tn-OTHER/out-X"),
        ours("l3extInstP", "OTHER"),
        ours("l3extInstP", ""),
    ];
    let lie = json!({"totalCount": imdata.len().to_string(), "subscriptionId": "4711", "imdata": imdata}).to_string();
    for target in ["/api/class/l3extInstP", "/api/class/l3extSubnet", "/api/mo/uni/tn-T/out-L.json", "/api/mo/"] {
        let lie = Trouble::Answer(200, "application/json", lie.clone());
        world.apic.fault(Fault::on(target, lie).method("GET").times(1));
    }
    // The next full sync sees what is there after all. One request at a time, so that each lie answers the one it is for.
    let _daemon = world.run(&["--epg-grace", "0", "--resync", "10s", "--parallel", "1"]);
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    world.settle();
    for entry in world.apic.writes() {
        assert!(!entry.target.contains("OTHER") && !entry.body.contains("OTHER"), "{} {}", entry.target, entry.body);
        assert!(!entry.body.contains("deleted") && entry.method == "POST", "{} {}", entry.target, entry.body);
    }
}

/// A server without TLS, which answers every request alike and records what it receives.
fn plain(answer: &'static str) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let keep = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).unwrap_or_default();
            bytes.truncate(read);
            // A connection that was just opened when the daemon stopped says nothing.
            if read > 0 {
                keep.lock().unwrap().push(bytes);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, heard)
}

/// F31 (I13, A2): a server without TLS on the port hears nothing but the beginning of a handshake, on either side; it
/// is logged, and tried again.
#[test]
fn nothing_is_sent_without_tls() {
    let world = World::new();
    let (address, heard) = plain("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let kubeconfig = world.kube.kubeconfig(Credential::Token).replace(&world.kube.url(), &format!("https://{address}"));
    let mut command = world.command(&["run"]);
    command.env("ACI_APIC", address.to_string());
    command.env("ACI_SYNC_KUBECONFIG", world.folder.file("plain", &kubeconfig));
    let mut daemon = crate::world::Daemon::start(command);
    daemon.until_logged("failed to list kind=Pod error=\"failed to reach the API server: TLS handshake failed: ");
    daemon.until_logged("failed to reach the APIC: TLS handshake failed: ");
    assert_eq!(daemon.stop().0, Some(0));
    let heard = heard.lock().unwrap();
    assert!(heard.len() >= 4);
    assert!(heard.iter().all(|it| it.starts_with(&[0x16, 3])), "a handshake is all that was heard");
}

/// F31 (I13, A2): a redirect is not followed: neither the password nor a token gets there.
#[test]
fn redirects_are_not_followed() {
    let world = World::new();
    let (elsewhere, heard) = plain("");
    for (n, status) in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"].into_iter().enumerate() {
        let head = format!("{status}\r\nLocation: https://{elsewhere}/api/aaaLogin.json");
        world.apic.fault(Fault::on("aaaLogin", bytes(&head, b"")).times(1));
        world.kube.fault(Fault::on("/pods?", bytes(&head, b"")).times(1));
        world.kube.deploy("a", &format!("web{n}"), Some(E), &[&format!("10.0.0.{n}")]);
    }
    let daemon = world.run(&[]);
    world.until_holds("E", &["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert!(daemon.count("301") >= 2, "it is logged: {}", daemon.log());
    assert!(daemon.count("redirect to ") >= 2, "the target is logged: {}", daemon.log());
    assert!(heard.lock().unwrap().is_empty());
}
