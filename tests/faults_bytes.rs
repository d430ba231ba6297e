//! What peers put on the wire, on both sides: floods, drips, silence, garbage, and words that are not theirs to say.
//! The daemon is a process of its own, but for what would take it minutes to notice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod support;

use std::time::Duration;

use aci_sync::kube::kubeconfig::Token;
use aci_sync::kube::{Client, ClusterConfig, Error};
use aci_sync::model::kube::Kind;
use aci_sync::net::{Roots, TlsSettings};
use aci_sync::secret::Secret;
use sim::kube::{Options, SimKube, TOKEN};
use sim::net::{Fault, Trouble};
use support::world::{E, World};

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
        let error = client.list(Kind::Pod).unwrap_err();
        assert!(matches!(error, Error::Unreachable(_) | Error::Malformed(_)), "{what}: {error}");
        assert!(error.to_string().len() < 200, "{what}: {error}");
        assert_eq!(client.list(Kind::Pod).unwrap().0.len(), 1, "{what}");
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
                daemon.until_logged("websocket open");
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
                daemon.until_logged("Pods cannot be listed: the API server cannot be reached: no answer in time");
                daemon.until_logged("the APIC cannot be reached: no answer in time");
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
