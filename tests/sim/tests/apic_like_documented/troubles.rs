//! An APIC under load, behind a limit, or half broken: what is refused, by whom, and what is not done then.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sim::apic::{Options, SimApic, Throttle, Variants};
use tungstenite::Message;

use crate::client::{Client, EPG, LIMIT, apic, epg, next};

const OUT: &str = "/api/mo/uni/tn-T/out-L.json";

/// One in a hundred seconds: the clock does not get there by itself while a test runs.
const STRICT: Throttle = Throttle { per_second: 0.01, burst: 0, retry_after: true };

#[test]
fn a_throttle_refuses_everything_before_it_is_looked_at() {
    let apic = apic(|_| {});
    let mut client = Client::logged_in(&apic);
    let before = apic.requests();
    apic.variants(|it| it.request_throttle = Some(STRICT));
    assert_eq!(client.get(OUT).status, 200);
    let refused = client.post(OUT, &epg("E", &[]));
    assert_eq!((refused.status, refused.body.starts_with("<html>")), (503, true));
    assert!(refused.head.contains("Retry-After: 1") && refused.head.contains("text/html"), "{}", refused.head);
    assert!(apic.get(EPG).is_none(), "it was not done");
    assert_eq!(client.login(apic.username(), apic.password()).status, 503, "logins count");
    assert!(client.try_socket().is_none(), "websocket upgrades count");
    assert_eq!((apic.requests() - before, apic.refused(), apic.logins()), (4, 3, 1));
    let statuses: Vec<u16> = apic.journal().iter().map(|it| it.status).collect();
    assert_eq!(statuses[statuses.len() - 4..], [200, 503, 503, 503]);
    apic.advance(Duration::from_secs(100));
    apic.variants(|it| it.request_throttle = Some(Throttle { retry_after: false, ..STRICT }));
    assert_eq!(client.get(OUT).status, 200);
    assert!(!client.get(OUT).head.contains("Retry-After"));
}

#[test]
fn each_controller_has_a_limit_of_its_own() {
    let variants = Variants { request_throttle: Some(Throttle { burst: 1, ..STRICT }), ..Variants::default() };
    let apic = SimApic::start(Options { controllers: 2, variants, ..Options::default() });
    let statuses = [0, 0, 0, 1].map(|it| Client::new(&apic, it).get("/api/aaaListDomains.json").status);
    assert_eq!(statuses, [200, 200, 503, 200]);
}

#[test]
fn every_third_request_is_refused() {
    let apic = apic(|it| it.refuse_every = Some(3));
    let client = Client::new(&apic, 0);
    let statuses: Vec<u16> = (0..7).map(|_| client.get("/api/aaaListDomains.json").status).collect();
    assert_eq!(statuses, [200, 200, 503, 200, 200, 503, 200]);
}

#[test]
fn a_share_of_the_requests_fails_in_four_ways_and_is_not_done() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    apic.variants(|it| it.fail_share = 1.0);
    let answers: Vec<_> = (0..4).map(|_| client.post(OUT, &epg("E", &[]))).collect();
    let seen: Vec<(u16, bool)> = answers.iter().map(|it| (it.status, it.body.starts_with("<html>"))).collect();
    assert_eq!(seen, [(503, true), (502, true), (504, true), (500, false)]);
    assert_eq!(answers[3].error().1, "500");
    assert!(client.try_socket().is_none());
    assert!(apic.get(EPG).is_none() && apic.refused() == 5);
}

#[test]
fn a_slow_apic_answers_later_and_does_not_hold_up_others() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let latency = Duration::from_secs(3);
    apic.variants(|it| it.latency = latency);
    apic.clear_journal();
    std::thread::scope(|scope| {
        let begin = Instant::now();
        let slow = scope.spawn(|| client.post(OUT, &epg("E", &[])).status);
        assert!(apic.wait_until(LIMIT, |admin| !admin.journal().is_empty()));
        assert!(apic.get(EPG).is_some(), "it is done at once");
        apic.variants(|it| it.latency = Duration::ZERO);
        assert_eq!(client.get(OUT).status, 200);
        assert!(!slow.is_finished());
        assert_eq!(slow.join().unwrap(), 200);
        assert!(begin.elapsed() >= latency);
    });
}

#[test]
fn a_busy_apic_says_so_in_json() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    apic.busy_json(2);
    let text = "Unable to deliver the message, Resolve timeout".to_owned();
    assert_eq!(client.post(OUT, &epg("E", &[])).error(), (503, "503".to_owned(), text.clone()));
    assert_eq!(client.get(OUT).error(), (503, "503".to_owned(), text));
    assert_eq!((client.get(OUT).status, apic.get(EPG).is_none(), apic.refused()), (200, true, 0));
}

#[test]
fn subscriptions_are_refused_while_reads_work() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let _socket = client.socket();
    let subscribe = |target: &str| client.get(&format!("{target}?subscription=yes")).status;
    let other = "/api/mo/uni/tn-T/out-M.json";
    apic.refuse_subscriptions("out-L");
    assert_eq!((subscribe(OUT), subscribe(other), client.get(OUT).status), (400, 200, 200));
    apic.allow_subscriptions();
    assert_eq!(subscribe(OUT), 200);
    apic.variants(|it| it.subscriptions_refused = true);
    assert_eq!((subscribe(OUT), subscribe(other), client.get(OUT).status), (400, 400, 200));
    let (_, code, text) = client.get(&format!("{OUT}?subscription=yes")).error();
    assert!(code == "400" && !text.is_empty());
}

#[test]
fn a_forbidden_page_for_an_ended_token() {
    let apic = apic(|it| it.html_forbidden = true);
    let mut client = Client::logged_in(&apic);
    assert_eq!(client.get(OUT).status, 200);
    apic.expire_tokens();
    let answer = client.get(OUT);
    assert_eq!((answer.status, answer.body.starts_with("<html>")), (403, true));
    client.cookie.clear();
    assert_eq!(client.get(OUT).error().1, "403", "without any token it is the APIC that answers");
}

#[test]
fn a_websocket_that_answers_pings_and_delivers_nothing() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    client.subscribe("/api/class/l3extInstP.json");
    apic.variants(|it| it.events_lost = true);
    assert_eq!(client.post(OUT, &epg("E", &[])).status, 200);
    socket.send(Message::Ping("one".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("one".into()));
    apic.variants(|it| it.events_lost = false);
    assert_eq!(client.post(OUT, &epg("F", &[])).status, 200);
    assert_eq!(next(&mut socket).1, "uni/tn-T/out-L/instP-F", "what was lost stays lost");
}

/// The same write in each shape. `E` is there, with one subnet; the write changes what is below it.
#[test]
fn what_a_write_answers() {
    use sim::apic::WriteAnswer::{Empty, Flat, Nested, Partial};
    let subnet = |number: u32| format!("extsubnet-[10.0.0.{number}/32]");
    let below = |number: u32| format!("{EPG}/{}", subnet(number));
    let l3out = "uni/tn-T/out-L";
    // What is at the top level, and what below the EPG.
    let table = [
        (Nested, true, vec![l3out.to_owned()], vec![subnet(4), subnet(2), subnet(3)]),
        (Nested, false, vec![below(4), below(2), below(3)], vec![]),
        (Partial, true, vec![l3out.to_owned()], vec![subnet(3)]),
        (Flat, true, vec![below(2), below(3), below(4)], vec![]),
        (Empty, true, vec![], vec![]),
    ];
    for (write_answer, bare_root, top, children) in table {
        let apic = apic(|it| (it.write_answer, it.bare_root) = (write_answer, bare_root));
        apic.admin_post(l3out, &epg("E", &["10.0.0.1/32"])).unwrap();
        let client = Client::logged_in(&apic);
        let target = format!("{OUT}?rsp-subtree=modified");
        let body = json!({"l3extOut": {"attributes": {"name": "L"}, "children": [
            epg("E", &["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "10.0.0.4/32"]),
        ]}});
        let answer = client.post(&target, &body);
        assert_eq!(answer.dns(), top, "{write_answer:?} {bare_root}");
        let json = answer.json();
        let inner = &json["imdata"][0]["l3extOut"]["children"][0]["l3extInstP"];
        let rns: Vec<&Value> = inner["children"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| &it["l3extSubnet"]["attributes"])
            .inspect(|it| assert!(it["status"] == "created" && it.get("dn").is_none()))
            .map(|it| &it["rn"])
            .collect();
        assert_eq!(rns, children.iter().collect::<Vec<_>>(), "{write_answer:?}");
        if !children.is_empty() {
            assert_eq!((&inner["attributes"]["rn"], &inner["attributes"]["status"]), (&json!("instP-E"), &json!("")));
            assert_eq!(json["imdata"][0]["l3extOut"]["attributes"]["rn"], "");
        }
        // Nothing changes: nothing is answered, whatever the shape.
        assert_eq!(client.post(&target, &body).json(), json!({"totalCount": "0", "imdata": []}));
    }
}
