//! A2: which servers TLS trusts, the message about others, and shutdown.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::world::LIMIT;
use aci_sync::net::{ClientIdentity, ConnectError, Peer, Roots, Tls, TlsSettings, Verify, bundle, describe_error};
use aci_sync::secret::Secret;
use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
use sim::net::{Connection, Request, Server, Service};
use sim::pki::{Authority, KeyForm, Pair};

/// Answers everything, and counts.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Service for Counting {
    fn handle(&self, request: Request, connection: &mut Connection) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let agent = request.header("user-agent").unwrap_or_default().to_owned();
        match request.path.as_str() {
            "/elsewhere" => connection.respond(302, &[("Location", "/")], b""),
            "/silence" => {
                connection.start_chunked(200, &[])?;
                // Until the client goes away.
                connection.upgrade().0.read_exact(&mut [0])
            }
            _ => connection.respond(200, &[], agent.as_bytes()),
        }
    }
}

fn server(identity: &Pair) -> (Server, Arc<Counting>) {
    let service = Arc::new(Counting::default());
    (Server::start(([127, 0, 0, 1], 0).into(), identity, service.clone()).unwrap(), service)
}

fn ask(server: &Server, tls: &Tls, path: &str) -> Result<(u16, String), String> {
    let url = format!("https://{}{path}", server.address());
    let mut response = tls.agent().get(url).call().map_err(|error| describe_error(&error))?;
    Ok((response.status().as_u16(), response.body_mut().read_to_string().unwrap()))
}

fn own_roots(ca: &Authority) -> TlsSettings {
    TlsSettings { roots: Roots::Pem(ca.pem().into_bytes()), ..TlsSettings::default() }
}

fn fingerprint(pair: &Pair) -> [u8; 32] {
    openssl::sha::sha256(&pair.certificate.to_der().unwrap())
}

/// A2: the chain counts, or the fingerprint in its place, and no request reaches a server that is not trusted. The
/// message says what was presented and how to trust it.
#[test]
fn an_untrusted_server_gets_no_request() {
    let ca = Authority::new("our-ca");
    let (good, expired) = (ca.server(&["127.0.0.1"]), ca.expired_server(&["127.0.0.1"]));
    let elsewhere = ca.server(&["elsewhere.example"]);
    let other = Authority::new("other-ca");
    let pinned = |pins: Vec<[u8; 32]>| TlsSettings { verify: Verify::Fingerprints(pins), ..TlsSettings::default() };
    for (what, identity, settings, complaint) in [
        ("our CA", &good, own_roots(&ca), None),
        (
            "two CAs in one bundle",
            &good,
            {
                let both = other.pem() + &ca.pem();
                TlsSettings { roots: Roots::Pem(both.into_bytes()), ..TlsSettings::default() }
            },
            None,
        ),
        (
            "another CA",
            &good,
            own_roots(&other),
            Some(("unable to get local issuer certificate", "; the CA of --apic-ca did not issue it")),
        ),
        (
            "the system's roots",
            &good,
            TlsSettings::default(),
            Some(("unable to get local issuer certificate", "; to trust it, give its CA with --apic-ca")),
        ),
        ("run out", &expired, own_roots(&ca), Some(("certificate has expired", "; renew it on the server"))),
        ("another name", &elsewhere, own_roots(&ca), Some(("IP address mismatch", "; use one of its names in --apic"))),
        (
            "another name, asked for",
            &elsewhere,
            TlsSettings { server_name: Some("else.example".to_owned()), ..own_roots(&ca) },
            Some(("hostname mismatch", "; tls-server-name \"else.example\" is none of its names")),
        ),
        (
            "the name that was asked for",
            &elsewhere,
            TlsSettings { server_name: Some("elsewhere.example".to_owned()), ..own_roots(&ca) },
            None,
        ),
        ("its fingerprint", &expired, pinned(vec![fingerprint(&expired)]), None),
        ("one of several fingerprints", &elsewhere, pinned(vec![[7; 32], fingerprint(&elsewhere)]), None),
        (
            "another fingerprint",
            &good,
            pinned(vec![fingerprint(&expired)]),
            Some(("none of the trusted fingerprints", "; compare it with the APIC's own")),
        ),
        (
            "no fingerprint",
            &good,
            pinned(Vec::new()),
            Some(("none of the trusted fingerprints", "; compare it with the APIC's own")),
        ),
        ("nothing is checked", &expired, TlsSettings { verify: Verify::Nothing, ..TlsSettings::default() }, None),
    ] {
        let (server, service) = server(identity);
        let tls = Tls::new(&TlsSettings { peer: Peer::Apic, ..settings }).unwrap();
        let answer = ask(&server, &tls, "/");
        match complaint {
            None => assert_eq!(answer, Ok((200, concat!("aci-sync/", env!("CARGO_PKG_VERSION")).to_owned())), "{what}"),
            Some((complaint, remedy)) => {
                let why = answer.unwrap_err();
                let is_chain = !complaint.contains("fingerprints");
                assert_eq!(why.contains("; requested name: \""), is_chain, "{what}: {why}");
                for part in [complaint, &identity.fingerprint(), "issuer \"our-ca\"", "valid from", ", names ", remedy]
                {
                    assert!(why.contains(part), "{what}: {why}");
                }
                assert_eq!(why.matches("the server presented").count(), 1, "{what}: {why}");
                assert_eq!(service.0.load(Ordering::SeqCst), 0, "{what}: no request got through");
            }
        }
    }
}

/// A2: what is given as a CA is a trust anchor, be it a root, an intermediate CA or the server's own certificate. Name
/// and dates count all the same.
#[test]
fn every_given_certificate_is_an_anchor() {
    let root = Authority::new("root");
    let between = root.intermediate("between");
    let (good, expired) = (between.server(&["127.0.0.1"]), between.expired_server(&["127.0.0.1"]));
    let elsewhere = between.server(&["elsewhere.example"]);
    let other = root.intermediate("other").server(&["127.0.0.1"]);
    let pem = |pem: String| TlsSettings { roots: Roots::Pem(pem.into_bytes()), ..TlsSettings::default() };
    for (what, identity, settings, complaint) in [
        ("its issuer", &good, pem(between.pem()), None),
        ("itself", &good, pem(good.certificate_pem()), None),
        ("root and issuer", &good, pem(root.pem() + &between.pem()), None),
        ("the root alone, where the server sends no chain", &good, pem(root.pem()), Some("unable to get")),
        ("another of the same root", &good, pem(other.certificate_pem()), Some("unable to")),
        ("its issuer, run out", &expired, pem(between.pem()), Some("has expired")),
        ("itself, run out", &expired, pem(expired.certificate_pem()), Some("has expired")),
        ("its issuer, another name", &elsewhere, pem(between.pem()), Some("mismatch")),
        ("itself, another name", &elsewhere, pem(elsewhere.certificate_pem()), Some("mismatch")),
    ] {
        let (server, service) = server(identity);
        match (ask(&server, &Tls::new(&settings).unwrap(), "/"), complaint) {
            (Ok(_), None) => {}
            (Err(why), Some(complaint)) => assert!(why.contains(complaint), "{what}: {why}"),
            (answer, _) => panic!("{what}: {answer:?}"),
        }
        assert_eq!(service.0.load(Ordering::SeqCst), usize::from(complaint.is_none()), "{what}");
    }
}

/// A2: one certificate of a bundle that cannot be read is named, and the others are used.
#[test]
fn a_bad_certificate_does_not_spoil_its_bundle() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let (server, _) = server(&ca.server(&["127.0.0.1"]));
    let broken = "-----BEGIN CERTIFICATE-----\nMIIBdummy\n-----END CERTIFICATE-----\n";
    let text =
        format!("# a comment\n{}{broken}-----BEGIN TRASH-----\n{}-----BEGIN CERTIFICATE-----\n", other.pem(), ca.pem());
    let found = bundle(text.as_bytes(), "CA bundle").unwrap();
    assert_eq!(found.certificates.len(), 2);
    assert_eq!(found.errors, ["certificate block 2 is unreadable", "certificate block 4 has no end"]);
    let tls = Tls::new(&TlsSettings { roots: Roots::Pem(text.into_bytes()), ..TlsSettings::default() }).unwrap();
    assert!(ask(&server, &tls, "/").is_ok());
    let der = ca.0.certificate.to_der().unwrap();
    for (bad, complaint) in
        [(broken.as_bytes(), "no readable certificate"), (b"", "must be PEM"), (&der, "DER instead of PEM")]
    {
        let why = bundle(bad, "CA bundle").map(|_| ()).unwrap_err().to_string();
        assert!(why.contains(complaint), "{why}");
    }
}

/// A2, K3: a name with a final dot is verified without it, and so is the name that is asked for in its place.
#[test]
fn a_final_dot_is_ignored_in_a_name() {
    let ca = Authority::new("ca");
    let (server, _) = server(&ca.server(&["kube.example.com"]));
    let tls = Tls::new(&own_roots(&ca)).unwrap();
    for (host, trusted) in [("kube.example.com.", true), ("kube.example.com", true), ("kube.example.com..", false)] {
        let stream = tls.connect(host, TcpStream::connect(server.address()).unwrap());
        assert_eq!(stream.is_ok(), trusted, "{host}");
    }
    let server_name = Some("kube.example.com.".to_owned());
    let named = Tls::new(&TlsSettings { server_name, ..own_roots(&ca) }).unwrap();
    assert!(ask(&server, &named, "/").is_ok());
}

/// A2: requests go over TLS to the server that was verified, and not to where its answer points.
#[test]
fn requests_follow_no_redirect_or_proxy() {
    let ca = Authority::new("ca");
    let (server, service) = server(&ca.server(&["127.0.0.1"]));
    let tls = Tls::new(&own_roots(&ca)).unwrap();
    assert_eq!(ask(&server, &tls, "/elsewhere"), Ok((302, String::new())));
    assert_eq!(service.0.load(Ordering::SeqCst), 1, "the redirect was not followed");
    assert!(tls.agent().get(format!("http://{}/", server.address())).call().is_err(), "not without TLS");
}

/// A1, K3: an IPv6 address is verified as the address that it is, with or without the brackets of a URL.
#[test]
fn addresses_in_brackets_are_verified() {
    let ca = Authority::new("ca");
    let (server, _) = server(&ca.server(&["::1"]));
    let tls = Tls::new(&own_roots(&ca)).unwrap();
    for (host, trusted) in [("[::1]", true), ("::1", true), ("[::2]", false)] {
        let stream = tls.connect(host, TcpStream::connect(server.address()).unwrap());
        match stream {
            Ok(_) => assert!(trusted, "{host}"),
            Err(ConnectError::Untrusted(_, why)) => assert!(!trusted && why.contains("mismatch"), "{host}: {why}"),
            Err(other) => panic!("{host}: {other}"),
        }
    }
}

/// K3: the intermediate certificates behind ours are sent with it, whatever the form of the key.
#[test]
fn the_whole_chain_is_sent() {
    let ca = Authority::new("ca");
    let identity = ca.server(&["127.0.0.1"]);
    for form in [KeyForm::Pkcs8, KeyForm::Pkcs1, KeyForm::Sec1] {
        let us = ca.client("us", &[], form);
        let between = Authority::new("between");
        let chain = us.certificate_pem() + &between.pem();
        let identity_of_ours = ClientIdentity { chain: chain.into_bytes(), key: Secret::new(us.key_pem(form)) };
        let tls = Tls::new(&TlsSettings { identity: Some(identity_of_ours), ..own_roots(&ca) }).unwrap();

        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        acceptor.set_private_key(&identity.key).unwrap();
        acceptor.set_certificate(&identity.certificate).unwrap();
        acceptor.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = std::thread::spawn(move || {
            let mut stream = acceptor.accept(listener.accept().unwrap().0).unwrap();
            stream.write_all(b"x").unwrap();
            let chain = stream.ssl().peer_cert_chain().unwrap();
            chain.iter().map(|it| it.to_pem().unwrap()).collect::<Vec<_>>()
        });
        let mut stream = tls.connect("127.0.0.1", TcpStream::connect(address).unwrap()).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        assert!(seen.join().unwrap().contains(&between.pem().into_bytes()), "{form:?}");
    }
}

/// X2: shutting an agent down ends a read of a body that does not come, and a handshake that is not answered.
#[test]
fn a_shutdown_ends_a_request_anywhere() {
    let ca = Authority::new("ca");
    let tls = Tls::new(&own_roots(&ca)).unwrap();
    let (send, ended) = crossbeam_channel::bounded(1);

    let (server, _) = server(&ca.server(&["127.0.0.1"]));
    let agent = tls.agent();
    let mut body = agent.get(format!("https://{}/silence", server.address())).call().unwrap().into_body();
    let sender = send.clone();
    std::thread::spawn(move || sender.send(body.read_to_string().is_err()));
    agent.shutdown();
    assert_eq!(ended.recv_timeout(LIMIT), Ok(true));

    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = tls.agent();
    let request = agent.get(format!("https://{}/", mute.local_addr().unwrap()));
    std::thread::spawn(move || send.send(request.call().is_err()));
    let (mut held, _) = mute.accept().unwrap();
    held.read_exact(&mut [0]).unwrap();
    agent.shutdown();
    assert_eq!(ended.recv_timeout(LIMIT), Ok(true));
}
