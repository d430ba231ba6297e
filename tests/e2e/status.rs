//! T1, T2, T3, T4, T5: the status server of a running daemon, and the command that asks it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use aci_sync::time::parse_rfc3339;
use serde_json::{Value, json};
use sim::kube::{Credential, TOKEN};
use sim::pki::KeyForm;
use sim::{apic, kube};

use crate::world::{DN_E, Daemon, E, World, output, peak};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// What the server answers to some bytes.
fn ask(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    // The server may have answered and closed before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(port: u16, target: &str) -> String {
    ask(port, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

fn status_of(port: u16) -> Value {
    let answer = get(port, "/status.json");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// T1, T2, T3, T5, T8: probes, the state as JSON and the `status` command over TCP and a socket file.
#[test]
fn a_daemon_reports_its_state() {
    let world = World::new();
    let port = free_port();
    let socket = world.folder.path().join("aci-sync.sock");
    let listen = format!("unix:{},127.0.0.1:{port}", socket.display());
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.kube.deploy("a", "waits", Some(r#"{"tenant":"NONE","l3out":"L","epg":"E"}"#), &["10.0.0.3"]);
    let mut daemon = world.run(&["--listen", &listen]);
    daemon.until_logged("status server listening address=127.0.0.1");
    world.until("all is written", |_| {
        let answer = get(port, "/status.json");
        answer.contains("\"needs_attention\"")
    });
    assert!(get(port, "/livez").ends_with("\r\n\r\nok"));
    assert!(
        get(port, "/readyz?verbose").ends_with("[+]kubernetes ok\n[+]apic ok\n[+]full-sync ok\nreadyz check passed\n")
    );
    let status = status_of(port);
    assert_eq!((&status["schema"], &status["leader"]["holding"]), (&"aci-sync.status.v1".into(), &true.into()));
    assert_eq!(status["cluster_id"], "me");
    let subnets = status["objects"].as_array().unwrap().iter().find(|it| it["class"] == "l3extSubnet").unwrap();
    let counts = ["desired", "owned", "missing", "surplus"].map(|name| subnets[name].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 1, 0]);
    assert_eq!(status["findings"][0]["code"], "L3OutNotFound");
    let epg = |dn: &str, owner: Value, deployment: &str, desired: u64, present: u64| {
        json!({"dn": dn, "owner": owner, "workloads_total": 1, "workloads": [format!("Deployment {deployment}")],
               "desired": desired, "present": present, "surplus": 0, "contracts": 0, "grace_until": null})
    };
    let missing = epg("uni/tn-NONE/out-L/instP-E", Value::Null, "a/waits", 1, 0);
    assert_eq!(status["epgs"], json!([missing, epg(DN_E, "owned".into(), "a/web", 2, 2)]));
    assert_eq!(
        (&status["epgs_total"], &status["deferred_total"], &status["conflicts"]),
        (&json!(2), &json!(0), &json!([]))
    );
    assert_eq!(status["last_reconciles"][0]["why"], "new_session");
    let text = status.to_string();
    assert!(!text.contains(world.apic.password()) && !text.contains(world.apic.username()), "{text}");

    let asked = |words: &[&str]| {
        let mut command = crate::world::bare_command(&[&["status"], words].concat());
        command.env("ACI_SYNC_LISTEN", &listen);
        let done = output(command);
        (done.status.code(), String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap())
    };
    let (code, text) = asked(&[]);
    assert!(code == Some(2) && text.contains("out of sync: 1 finding needs attention"), "{text}");
    assert!(text.contains("l3extSubnet: 3 desired, 2 owned, 1 missing, 0 surplus"), "{text}");
    let (code, text) = asked(&["-o", "json"]);
    assert!(code == Some(2) && text.starts_with("{\"schema\":\"aci-sync.status.v1\""), "{text}");
    world.kube.delete("deployments", "a", "waits");
    world.until("it is in sync", |_| status_of(port)["state"] == "in_sync");
    assert_eq!(asked(&[]).0, Some(0));
    world.kube.delete("deployments", "a", "web");
    world.until("the grace runs", |_| !status_of(port)["epgs"][0]["grace_until"].is_null());
    let status = status_of(port);
    let of = |name: &str| status["epgs"][0][name].clone();
    let is_surplus = (of("owner"), of("workloads"), of("desired"), of("surplus"));
    assert_eq!(is_surplus, ("owned".into(), json!([]), json!(0), json!(0)), "its subnets go at once");
    let whys: Vec<&Value> = status["last_reconciles"].as_array().unwrap().iter().map(|it| &it["why"]).collect();
    assert!(whys.contains(&&json!("cluster_changed")), "{whys:?}");

    assert_eq!(daemon.stop().0, Some(0));
    assert!(!socket.exists(), "the socket file is removed");
    let (code, text) = asked(&[]);
    assert!(code == Some(1) && text.contains("no daemon answers"), "{text}");
}

/// The ends that the daemon knows, in days from now; one that it does not know is absent.
fn ends(port: u16) -> BTreeMap<String, i64> {
    let now = aci_sync::time::unix_now() as i64;
    let days = |end: u64| (end as i64 - now + 43_200).div_euclid(86_400);
    let status = status_of(port);
    let all = status["credentials"].as_array().unwrap().iter();
    let end = |it: &Value| Some((it["name"].as_str()?.to_owned(), days(parse_rfc3339(it["ends"].as_str()?)?)));
    all.filter_map(end).collect()
}

/// T10: the ends of certificates and tokens are in the state, the text, the metrics and the log, and follow a renewal.
#[test]
fn ends_of_credentials_are_shown() {
    let authority = sim::pki::Authority::new("our-ca");
    let identity = Some(authority.server_for(&["127.0.0.1"], 20));
    let fabric = apic::Options { authority: Some(authority), identity, ..apic::Options::default() };
    let world = World::with(kube::Options::default(), fabric);
    let (port, token) = (free_port(), sim::pki::jwt(212));
    world.kube.accept_tokens(&[&token]);
    world.folder.file("kubeconfig", &world.kube.kubeconfig(Credential::Token).replace(TOKEN, &token));
    let listen = format!("127.0.0.1:{port}");
    let mut daemon = world.run(&["--listen", &listen]);
    daemon.until_logged("status server listening");
    let known = |token: &str, days: i64| {
        let [server, ca] = [("kubernetes_server_certificate", 365), ("kubernetes_ca", 3650)];
        BTreeMap::from(
            [(token, days), server, ca, ("apic_certificate", 20)].map(|(name, days)| (name.to_owned(), days)),
        )
    };
    world.until("all ends are known", |_| ends(port) == known("kubernetes_token", 212));
    daemon.until_logged("credential ends soon credential=apic_certificate ends=");
    let done = world.output(&["status", "--listen", &listen]);
    let text = String::from_utf8(done.stdout).unwrap();
    let line = text.lines().find(|it| it.starts_with("ends ")).unwrap();
    let expected =
        ["apic_certificate in 19 days, ", "kubernetes_token in 211 days, kubernetes_server_certificate in 36"];
    assert!(expected.iter().all(|it| line.contains(it)), "{text}");
    let metrics = get(port, "/metrics");
    let end =
        |name: &str| value(&metrics, &format!("aci_sync_credential_expiry_timestamp_seconds{{credential=\"{name}\"}}"));
    assert_eq!(end("kubernetes_client_certificate"), 0.0);
    assert!(end("apic_certificate") < end("kubernetes_token"), "{metrics}");

    let certificate = Credential::Certificate(KeyForm::Sec1);
    world.folder.file("kubeconfig", &world.kube.kubeconfig(certificate));
    daemon.signal("HUP");
    world.until("the renewed ones are known", |_| ends(port) == known("kubernetes_client_certificate", 365));
    assert_eq!(daemon.count("credential ends soon"), 1, "once a day");
    assert_eq!(daemon.stop().0, Some(0));
}

/// T10, A2: what an untrusted server presents is not believed.
#[test]
fn an_untrusted_certificate_has_no_end() {
    let world = World::new();
    world.folder.file("apic-ca.pem", &world.kube.ca_pem());
    let port = free_port();
    let daemon = world.run(&["--listen", &format!("127.0.0.1:{port}")]);
    daemon.until_logged("certificate not trusted");
    world.until("the API server's is known", |_| ends(port).contains_key("kubernetes_server_certificate"));
    assert!(!ends(port).contains_key("apic_certificate"));
}

/// T10: nothing depends on the end of a certificate that is not verified, and a plugin renews its token itself.
#[test]
fn an_end_that_does_not_matter_is_not_shown() {
    let world = World::new();
    let (port, token) = (free_port(), sim::pki::jwt(1));
    world.kube.accept_tokens(&[&token]);
    let answer =
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}});
    let file = world.folder.file("answer", &answer.to_string());
    let mut config: Value = serde_json::from_str(&world.kube.kubeconfig(Credential::Nothing)).unwrap();
    config["users"][0]["user"] = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1",
        "interactiveMode": "Never", "command": "/bin/cat", "args": [file]}});
    world.folder.file("kubeconfig", &config.to_string());
    let mut command = world.command(&["run", "--listen", &format!("127.0.0.1:{port}")]);
    command.env_remove("ACI_SYNC_APIC_CA").env("ACI_SYNC_APIC_INSECURE", "true");
    let daemon = Daemon::start(command);
    daemon.until_logged("status server listening");
    world.until("it is in sync", |_| status_of(port)["state"] == "in_sync");
    let known = ends(port);
    assert_eq!(known.keys().collect::<Vec<_>>(), ["kubernetes_ca", "kubernetes_server_certificate"]);
}

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is missing in {text}")).parse().unwrap()
}

/// T4, T5: the metrics follow a Deployment's life, and show neither a secret nor the name, address or DN of an object.
#[test]
fn metrics_follow_a_deployments_life() {
    let world = World::new();
    let port = free_port();
    let mut daemon = world.run(&["--listen", &format!("127.0.0.1:{port}"), "--epg-grace", "0s"]);
    let metrics = || get(port, "/metrics").split_once("\r\n\r\n").unwrap().1.to_owned();
    daemon.until_logged("status server listening");
    assert!(get(port, "/metrics").contains("Content-Type: text/plain; version=0.0.4"));
    world.until("it is in sync", |_| value(&metrics(), "aci_sync_state{state=\"in_sync\"}") == 1.0);
    let before = metrics();
    assert_eq!(value(&before, "aci_sync_changes_total{class=\"l3extSubnet\",action=\"create\"}"), 0.0);

    world.kube.deploy("shop-namespace", "web-deployment", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    world.until("both are counted", |_| {
        value(&metrics(), "aci_sync_fabric_objects{class=\"l3extSubnet\",owner=\"owned\"}") == 2.0
    });
    let drift = "aci_sync_drift_total{class=\"l3extSubnet\",what=\"deleted\"}";
    assert_eq!(value(&metrics(), drift), 0.0, "its own writes are no drift");
    world.apic.admin_delete("uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]").unwrap();
    world.until("the drift is counted", |_| value(&metrics(), drift) == 1.0);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    world.kube.delete("deployments", "shop-namespace", "web-deployment");
    world.until("it is gone", |_| {
        value(&metrics(), "aci_sync_fabric_objects{class=\"l3extInstP\",owner=\"owned\"}") == 0.0
    });
    let after = metrics();
    for (series, least) in [
        ("aci_sync_changes_total{class=\"l3extInstP\",action=\"create\"}", 1.0),
        ("aci_sync_changes_total{class=\"l3extSubnet\",action=\"create\"}", 2.0),
        ("aci_sync_changes_total{class=\"l3extInstP\",action=\"delete\"}", 1.0),
        ("aci_sync_changes_total{class=\"l3extSubnet\",action=\"delete\"}", 2.0),
        ("aci_sync_apic_requests_total{method=\"post\",code=\"2xx\"}", 3.0),
        ("aci_sync_apic_requests_total{method=\"get\",code=\"2xx\"}", 3.0),
        ("aci_sync_apic_request_duration_seconds_count{method=\"post\"}", 3.0),
        ("aci_sync_apic_logins_total", 1.0),
        ("aci_sync_apic_session_up{apic=\"1\"}", 1.0),
        ("aci_sync_full_syncs_total{cause=\"start\"}", 1.0),
        ("aci_sync_reconciles_total", 3.0),
        ("aci_sync_change_latency_seconds_count", 2.0),
        ("aci_sync_kubernetes_requests_total{verb=\"list\",code=\"2xx\"}", 3.0),
        ("aci_sync_kubernetes_requests_total{verb=\"watch\",code=\"2xx\"}", 3.0),
        ("aci_sync_lists_total{kind=\"pod\"}", 1.0),
        ("aci_sync_log_messages_total{level=\"info\"}", 3.0),
        ("aci_sync_http_requests_total{path=\"/metrics\",code=\"200\"}", 3.0),
        ("aci_sync_last_full_sync_timestamp_seconds", 1.7e9),
        ("aci_sync_last_heartbeat_timestamp_seconds", 1.7e9),
        ("aci_sync_watch_last_event_timestamp_seconds{kind=\"deployment\"}", 1.7e9),
        ("process_cpu_seconds_total", 0.0),
    ] {
        assert!(value(&after, series) >= least, "{series} is below {least}: {after}");
    }
    assert_eq!(value(&after, drift), 1.0);
    for queue in ["cluster", "fabric", "events", "log"] {
        assert!(value(&after, &format!("aci_sync_queue_length{{queue=\"{queue}\"}}")) < 100.0, "{after}");
    }
    let names = |text: &str| -> Vec<String> {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        series.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
    };
    assert_eq!(names(&before), names(&after), "every series exists from the start");
    let (password, username) = (world.apic.password(), world.apic.username());
    for forbidden in [password, "shop-namespace", "web-deployment", "10.0.0.", "uni/tn-", "127.0.0.1", "localhost"] {
        assert!(!after.contains(forbidden), "{forbidden} in {after}");
    }
    assert!(!after.contains(&format!("\"{username}\"")), "{after}");

    let mut command = crate::world::bare_command(&["status", "-o", "prometheus"]);
    command.env("ACI_SYNC_LISTEN", format!("127.0.0.1:{port}"));
    let done = output(command);
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(names(&String::from_utf8(done.stdout).unwrap()), names(&after));
    assert_eq!(daemon.stop().0, Some(0));
}

/// T2: clients that are slow, many, or hostile get an end; probes are answered meanwhile, and the daemon goes on.
#[test]
fn no_client_blocks_a_probe() {
    let world = World::new();
    let port = free_port();
    let mut daemon = world.run(&["--listen", &format!("127.0.0.1:{port}")]);
    daemon.until_logged("status server listening");
    let slow: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = connect(port);
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHo");
            stream
        })
        .collect();
    assert!(get(port, "/livez").ends_with("ok"));
    for mut stream in slow {
        let (begun, mut answer) = (Instant::now(), Vec::new());
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() && begun.elapsed() < Duration::from_secs(30), "it is closed without an answer");
    }
    let mut large = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
    large.resize(1 << 20, b'x');
    for (request, status) in [
        (large.as_slice(), "431"),
        (b"POST /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        (b"GET /status.json HTTP/1.1\r\nHost: attacker.example\r\n\r\n", "421"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        (b"GET /%2e%2e/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        (b"\0\0\0\0\r\n\r\n", "400"),
    ] {
        let answer = ask(port, request);
        // A client that is still sending may lose the answer to the end of the connection.
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert!(get(port, "/livez").ends_with("ok"));
    assert_eq!(daemon.stop().0, Some(0));
}

/// T2, T12: a port in use is tried again, and the daemon works meanwhile; a leftover socket file is replaced.
#[test]
fn an_address_in_use_is_retried() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let socket = world.folder.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let mut daemon = world.run(&["--listen", &format!("127.0.0.1:{port},unix:{}", socket.display())]);
    world.until_holds("E", &["10.0.0.1"]);
    daemon.until_logged("failed to listen");
    daemon.until_logged("status server listening address=unix:");
    let ask = || {
        let mut command = crate::world::bare_command(&["status"]);
        command.env("ACI_SYNC_LISTEN", format!("unix:{}", socket.display()));
        String::from_utf8(output(command).stdout).unwrap()
    };
    world.until("the finding is there", |_| {
        ask().contains("ListenFailed  status server: failed to listen on 127.0.0.1")
    });
    daemon.until_logged("status server listening address=unix:");
    drop(taken);
    daemon.until_logged(&format!("status server listening address=127.0.0.1:{port}"));
    assert!(get(port, "/livez").ends_with("ok"));
    assert_eq!(daemon.stop().0, Some(0));
}

/// T5, T8, X6: what another program answers in the place of the daemon is neither obeyed by the terminal nor without an end.
#[test]
fn a_hostile_answer_is_shown_as_text() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let dangerous = "\u{1b}[2J \u{9b}31m \u{202e} \u{200f} \u{61c} end\nTo do";
    let finding = json!({"code": "X", "subject": "Deployment a/web", "text": dangerous, "since": "x", "open": true});
    let body = json!({"schema": "aci-sync.status.v1", "instance": dangerous, "summary": dangerous, "cluster_id": "me",
        "findings": vec![finding; 50_000]});
    let socket = world.folder.path().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\n\r\n\r{body}\r\n");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let listen = format!("unix:{}", socket.display());
    for words in [
        &["status"][..],
        &["status", "-o", "json"],
        &["explain", "a/web"],
        &["explain", "a/web", "-o", "json"],
        &["check"],
        &["check", "-o", "json"],
    ] {
        let done = world.output(&[words, &["--listen", &listen]].concat());
        let text = String::from_utf8(done.stdout).unwrap();
        let obeyed = |it: &char| it.is_control() && *it != '\n' || ['\u{202e}', '\u{200f}', '\u{61c}'].contains(it);
        assert_eq!(text.chars().find(obeyed), None, "{words:?}");
        assert!(!text.is_empty() && !text.lines().any(|it| it == "To do"), "{words:?}");
        if words.contains(&"json") {
            serde_json::from_str::<Value>(&text).unwrap();
        } else {
            assert!(text.len() < 1 << 20, "{words:?}: {} bytes", text.len());
        }
    }
}

/// T2, X3: clients that do not read a large state cost the daemon a few times its size, however many they are.
#[test]
fn silent_clients_share_a_large_answer() {
    let world = World::new();
    let tail = "x".repeat(240);
    for n in 0..3000 {
        let annotation = format!(r#"{{"tenant":"T","l3out":"L","epg":"E{}"}}"#, n / 3);
        let metadata = json!({"namespace": "evil", "name": format!("d{n:04}-{tail}"),
            "annotations": {"aci.haystacknetworks.com/l3o": annotation}});
        world.kube.apply("deployments", json!({"metadata": metadata, "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
    }
    let socket = world.folder.path().join("s");
    let listen = format!("unix:{}", socket.display());
    let daemon = world.run(&["--policy", "observe", "--events=false", "--listen", &listen]);
    let ask = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.write_all(b"GET /status.json HTTP/1.0\r\n\r\n").unwrap();
        stream
    };
    daemon.until_logged("code=TooManyEpgs");
    daemon.until_logged("status server listening");
    let mut size = 0;
    while size < 900 << 10 {
        let mut answer = Vec::new();
        ask().read_to_end(&mut answer).unwrap();
        size = answer.len();
    }
    let before = peak(daemon.id());
    // A few less than the server admits: those above may not have been counted out yet.
    let mut clients: Vec<_> = (0..24).map(|_| ask()).collect();
    for client in &mut clients {
        // Its answer is made, and it reads no more than this.
        client.read_exact(&mut [0; 1]).unwrap();
    }
    let grown = peak(daemon.id()).saturating_sub(before) << 10;
    assert!(grown < 8 * size as u64, "{grown} bytes more for answers of {size} bytes");
}

/// D3, T7, T8: of the Deployments of an EPG those come first whose annotation is not valid now: `explain` asks for them.
#[test]
fn an_invalid_annotation_is_listed_first() {
    let world = World::new();
    let port = free_port();
    for name in ["a", "b", "c", "d", "z"] {
        world.kube.deploy("a", name, Some(E), &[]);
    }
    let _daemon = world.run(&["--listen", &format!("127.0.0.1:{port}")]);
    let listed = |expected: [&str; 3]| {
        world.until("they are listed", |_| {
            let answer = get(port, "/status.json");
            let status: Value =
                answer.split_once("\r\n\r\n").and_then(|it| serde_json::from_str(it.1).ok()).unwrap_or_default();
            let expected = expected.map(|name| format!("Deployment {name}"));
            status["epgs"][0]["workloads"] == json!(expected) && status["epgs"][0]["workloads_total"] == 5
        });
    };
    world.until("the daemon listens", |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
    listed(["a/a", "a/b", "a/c"]);
    world.kube.annotate("a", "z", Some("{}"));
    listed(["a/z", "a/a", "a/b"]);
}
