//! Login, lifetimes, websockets, several controllers.

use std::time::Duration;

use serde_json::json;
use sim::apic::{ApiError, Options, SimApic, Variants};
use sim::net::{Fault, Trouble};
use sim::pki::{Pair, user_certificate};

use crate::client::{Client, EPG, LIMIT, apic, ends, epg, next, token_in};

fn start(options: Options) -> SimApic {
    let apic = SimApic::start(options);
    apic.setup_tenant("T", "V", &["L"]).unwrap();
    apic
}

#[test]
fn logins_are_answered_as_documented() {
    let apic = apic(|_| {});
    let mut client = Client::new(&apic, 0);
    let answer = client.login("admin", "wrong");
    let text = "Username or password is incorrect - FAILED local authentication";
    assert_eq!(answer.error(), (401, "401".to_owned(), text.to_owned()));
    for name in ["admin", "apic:LOCAL\\admin", "apic#LOCAL\\admin"] {
        let answer = client.login(name, apic.password());
        let json = answer.json();
        let attributes = &json["imdata"][0]["aaaLogin"]["attributes"];
        assert_eq!(json["totalCount"], "1");
        for (name, value) in
            [("refreshTimeoutSeconds", "600"), ("maximumLifetimeSeconds", "86400"), ("restTimeoutSeconds", "90")]
        {
            assert_eq!(attributes[name], value);
        }
        assert!(answer.head.contains(&format!("Set-Cookie: APIC-cookie={};", token_in(&answer))), "{}", answer.head);
    }
    assert_eq!(client.login("apic:NOWHERE\\admin", apic.password()).status, 401);
}

#[test]
fn requests_need_a_live_token() {
    let apic = apic(|_| {});
    let mut client = Client::new(&apic, 0);
    let (status, code, text) = client.get("/api/mo/uni.json").error();
    assert_eq!((status, code.as_str()), (403, "403"));
    assert!(text.starts_with("Need a valid webtoken cookie (named APIC-Cookie)"), "{text}");
    let timeout = (403, "403".to_owned(), "Token was invalid (Error: Token timeout)".to_owned());
    client.cookie = "APIC-cookie=unknown".to_owned();
    assert_eq!(client.get("/api/mo/uni.json").error(), timeout);
    client.login(apic.username(), apic.password());
    client.cookie = client.cookie.replace("APIC-cookie", "apic-COOKIE");
    assert_eq!(client.get("/api/mo/uni.json").status, 200, "the name's case does not matter");
    apic.advance(Duration::from_secs(601));
    assert_eq!(client.get("/api/mo/uni.json").error(), timeout);
}

#[test]
fn a_refresh_prolongs_until_the_maximum_and_the_websocket_survives_it() {
    let apic = start(Options { maximum_lifetime: Duration::from_secs(1000), ..Options::default() });
    let mut client = Client::logged_in(&apic);
    let mut socket = client.socket();
    client.subscribe("/api/mo/uni/tn-T.json?refresh-timeout=5000");
    let old = client.cookie.clone();
    apic.advance(Duration::from_secs(500));
    let refreshed = client.get("/api/aaaRefresh.json");
    client.use_token_of(&refreshed);
    assert_ne!(client.cookie, old, "the token changes");
    let mut before = Client::new(&apic, 0);
    before.cookie = old;
    assert_eq!(before.get("/api/mo/uni.json").status, 200, "the old one lives on");
    apic.advance(Duration::from_secs(200));
    assert_eq!(before.get("/api/mo/uni.json").status, 403, "until its own end");
    assert_eq!(client.get("/api/mo/uni.json").status, 200);
    apic.set("uni/tn-T", "fvTenant", &[("descr", "x")]).unwrap();
    assert_eq!(next(&mut socket).1, "uni/tn-T");
    // The maximum counts from the login.
    client.use_token_of(&client.get("/api/aaaRefresh.json"));
    apic.advance(Duration::from_secs(301));
    assert_eq!(client.get("/api/aaaRefresh.json").status, 403);
    assert!(ends(socket), "with the session");
}

#[test]
fn a_logout_ends_the_session_and_its_websocket() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let socket = client.socket();
    let answer = client.post("/api/aaaLogout.json", &json!({"aaaUser": {"attributes": {"name": "admin"}}}));
    assert_eq!((answer.status, answer.json()["imdata"].clone()), (200, json!([])));
    assert_eq!(client.get("/api/mo/uni.json").status, 403);
    assert!(ends(socket));
    assert!(client.try_socket().is_none(), "its token opens no other");
    assert_eq!((apic.sessions(), apic.websockets()), (0, 0));
}

#[test]
fn too_many_logins_are_throttled_in_html() {
    let apic = apic(|_| {});
    let mut client = Client::new(&apic, 0);
    let throttled =
        (0..50).map(|_| client.login(apic.username(), apic.password())).find(|it| it.status != 200).unwrap();
    assert_eq!(throttled.status, 503);
    assert!(throttled.body.starts_with("<html>"));
    apic.advance(Duration::from_secs(10));
    assert_eq!(client.login(apic.username(), apic.password()).status, 200);
}

#[test]
fn subscribing_needs_a_websocket_and_refreshing() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let refused = client.get("/api/mo/uni/tn-T.json?subscription=yes");
    let text = "Subscription request failed, unable to locate opened web socket. Please re-login to the application";
    assert_eq!(refused.error(), (405, "405".to_owned(), text.to_owned()));
    let mut socket = client.socket();
    let answer = client.get("/api/mo/uni/tn-T.json?subscription=yes");
    let json = answer.json();
    let short = json["subscriptionId"].as_str().unwrap().to_owned();
    assert_eq!((short.len(), answer.dns()), (17, vec!["uni/tn-T".to_owned()]), "the snapshot comes with it");
    let long = client.subscribe("/api/mo/uni/tn-T/out-L.json?refresh-timeout=300");
    let refresh = |id: &str| client.get(&format!("/api/subscriptionRefresh.json?id={id}")).status;
    apic.advance(Duration::from_secs(50));
    assert_eq!(refresh(&format!("{short}-junk")), 200, "the digits count");
    apic.advance(Duration::from_secs(50));
    assert_eq!((refresh(&short), refresh(&long)), (200, 200));
    apic.advance(Duration::from_secs(61));
    let lost = client.get(&format!("/api/subscriptionRefresh.json?id={short}"));
    assert_eq!(lost.error(), (400, "400".to_owned(), "Subscription refresh timeout".to_owned()));
    assert_eq!(apic.subscribed().len(), 1);
    // The lapsed one is silent; the other one gets events.
    apic.set("uni/tn-T", "fvTenant", &[("descr", "x")]).unwrap();
    apic.set("uni/tn-T/out-L", "l3extOut", &[("descr", "x")]).unwrap();
    assert_eq!(next(&mut socket).1, "uni/tn-T/out-L");
}

#[test]
fn a_cookie_sent_twice_makes_subscriptions_silent() {
    let apic = apic(|_| {});
    let mut client = Client::logged_in(&apic);
    let mut socket = client.socket();
    let single = client.cookie.clone();
    client.cookie = format!("{single}; {single}");
    let answer = client.get("/api/mo/uni/tn-T.json?subscription=yes");
    assert!(answer.json()["subscriptionId"].is_string() && answer.dns().is_empty());
    assert_eq!(client.get("/api/mo/uni/tn-T.json").dns(), ["uni/tn-T"], "reads work");
    client.cookie = single;
    client.subscribe("/api/mo/uni/tn-T/out-L.json");
    apic.set("uni/tn-T", "fvTenant", &[("descr", "x")]).unwrap();
    apic.set("uni/tn-T/out-L", "l3extOut", &[("descr", "x")]).unwrap();
    assert_eq!(next(&mut socket).1, "uni/tn-T/out-L");
}

/// As the GUI does it: the token that is no cookie must come with each request and with the websocket.
#[test]
fn a_session_with_a_url_token_needs_it_everywhere() {
    let apic = apic(|_| {});
    let mut client = Client::new(&apic, 0);
    let body = json!({"aaaUser": {"attributes": {"name": "admin", "pwd": apic.password()}}});
    let answer = client.post("/api/aaaLogin.json?gui-token-request=yes", &body);
    client.use_token_of(&answer);
    let json = answer.json();
    let challenge = json["imdata"][0]["aaaLogin"]["attributes"]["urlToken"].as_str().unwrap();
    assert_eq!(client.get("/api/mo/uni.json").error().1, "403");
    assert!(client.try_socket().is_none());
    client.headers = "APIC-challenge: wrong\r\n".to_owned();
    assert_eq!(client.get("/api/mo/uni.json").status, 403);
    client.headers = format!("APIC-challenge: {challenge}\r\n");
    assert_eq!(client.get("/api/mo/uni.json").status, 200);
    client.socket_query = format!("?{challenge}");
    let _socket = client.socket();
    client.subscribe("/api/mo/uni/tn-T.json");
    let again = client.login("admin", apic.password()).json();
    assert!(again["imdata"][0]["aaaLogin"]["attributes"].get("urlToken").is_none(), "only on request");
}

#[test]
fn controllers_share_the_tree_and_nothing_else() {
    let apic = start(Options { controllers: 3, ..Options::default() });
    let first = Client::logged_in(&apic);
    let mut second = Client::new(&apic, 1);
    second.cookie = first.cookie.clone();
    assert_eq!(second.get("/api/mo/uni.json").status, 403, "a token is good at one controller only");
    second.login(apic.username(), apic.password());
    let mut socket = second.socket();
    second.subscribe("/api/class/l3extInstP.json");
    assert_eq!(first.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &[])).status, 200);
    assert_eq!(next(&mut socket), ("l3extInstP".to_owned(), EPG.to_owned(), "created".to_owned()));
    assert_eq!(second.get(&format!("/api/mo/{EPG}.json")).dns(), [EPG]);
    // One stops: its sessions are gone, the others go on.
    apic.stop(1);
    assert!(ends(socket));
    assert_eq!(first.get("/api/mo/uni.json").status, 200);
    apic.start_again(1).unwrap();
    assert_eq!(second.get("/api/mo/uni.json").status, 403);
    assert_eq!(apic.writes().iter().map(|it| (it.controller, it.status)).collect::<Vec<_>>(), [(0, 200)]);
}

#[test]
fn trouble_comes_on_demand() {
    let apic = SimApic::start(Options {
        variants: Variants { late_changes: None, ..Variants::default() },
        ..Options::default()
    });
    apic.setup_tenant("T", "V", &["L"]).unwrap();
    let client = Client::logged_in(&apic);
    apic.fault(Fault::on("/api/mo/", Trouble::Answer(503, "text/html", "<html>".to_owned())).method("POST").times(1));
    assert_eq!(client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &[])).status, 503);
    assert!(apic.get(EPG).is_none());
    apic.reject("instP-E", ApiError::bad(801, "no"), Some(1));
    assert_eq!(client.post(&format!("/api/mo/{EPG}.json"), &epg("E", &[])).error().1, "801");
    apic.forbid(EPG, None);
    let (status, _, text) = client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &[])).error();
    assert_eq!((status, text.contains("domain access")), (403, true));
    apic.allow();
    apic.then("GET", "/api/mo/uni/tn-T", |admin| admin.admin_post("uni/tn-T/out-L", &epg("E", &[])).unwrap());
    assert_eq!(client.get(&format!("/api/mo/{EPG}.json")).dns(), Vec::<String>::new(), "as it was before");
    assert!(apic.get(EPG).is_some());
    let socket = client.socket();
    assert!(apic.wait_until(LIMIT, |admin| admin.websockets() == 1));
    apic.drop_websockets();
    assert!(ends(socket));
    apic.expire_tokens();
    assert_eq!(client.get("/api/mo/uni.json").status, 403);
}

/// The header `Cookie` of a signed request, as aci-containers and cisco.aci make it.
fn signed(dn: &str, user: &Pair, text: &str, websocket: &str) -> String {
    let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &user.key).unwrap();
    let signature = openssl::base64::encode_block(&signer.sign_oneshot_to_vec(text.as_bytes()).unwrap());
    let session = if websocket.is_empty() { String::new() } else { format!("; APIC-WebSocket-Session={websocket}") };
    format!(
        "APIC-Request-Signature={signature}; APIC-Certificate-Algorithm=v1.0; APIC-Certificate-DN={dn}; \
         APIC-Certificate-Fingerprint=fingerprint{session}"
    )
}

#[test]
fn signed_requests_need_the_right_key_and_form() {
    for as_sent in [false, true] {
        let apic = apic(|it| it.signs_as_sent = as_sent);
        let user = user_certificate("bot", 30);
        let dn = apic.add_certificate("bot", "one", &user);
        let mut client = Client::new(&apic, 0);
        let filter = "/api/class/fvTenant.json?query-target-filter=eq(fvTenant.name,%22T%22)";
        let decoded = filter.replace("%22", "\"");
        for (target, text, is_good) in [
            ("/api/mo/uni.json", "GET/api/mo/uni.json".to_owned(), true),
            ("/api/mo/uni.json", "GET /api/mo/uni.json".to_owned(), false),
            ("/api/mo/uni.json", "POST/api/mo/uni.json".to_owned(), false),
            (filter, format!("GET{filter}"), as_sent),
            (filter, format!("GET{decoded}"), !as_sent),
        ] {
            client.cookie = signed(&dn, &user, &text, "");
            let answer = client.get(target);
            let bad = (403, "403".to_owned(), "bad signature".to_owned());
            assert!(if is_good { answer.status == 200 } else { answer.error() == bad }, "{text}: {}", answer.body);
        }
        client.cookie = signed(&dn, &user_certificate("bot", 30), "GET/api/mo/uni.json", "");
        assert_eq!(client.get("/api/mo/uni.json").error().2, "bad signature");
        client.cookie = signed("uni/userext/user-bot/usercert-two", &user, "GET/api/mo/uni.json", "");
        assert!(client.get("/api/mo/uni.json").error().2.starts_with("Need a valid webtoken cookie"));
        let body = json!({"fvTenant": {"attributes": {"name": "N"}}});
        client.cookie = signed(&dn, &user, &format!("POST/api/mo/uni.json{body}"), "");
        assert_eq!(client.post("/api/mo/uni.json", &body).status, 200);
        client.cookie = signed(&dn, &user, "POST/api/mo/uni.json", "");
        assert_eq!(client.post("/api/mo/uni.json", &body).error().2, "bad signature", "the body is signed, too");
    }
}

/// A user gets a certificate by REST, as cisco.aci's `aci_aaa_user_certificate` sends it.
#[test]
fn certificates_are_posted() {
    let apic = apic(|_| {});
    let (user, dn) = (user_certificate("bot", 30), "uni/userext/user-bot/usercert-one");
    let mut client = Client::new(&apic, 0);
    client.login(apic.username(), apic.password());
    let body = json!({"aaaUserCert": {"attributes": {"name": "one", "data": user.certificate_pem()}}});
    assert_eq!(client.post(&format!("/api/mo/{dn}.json"), &body).status, 200);
    client.cookie = signed(dn, &user, "GET/api/mo/uni.json", "");
    assert_eq!(client.get("/api/mo/uni.json").status, 200);
    let nonsense = json!({"aaaUserCert": {"attributes": {"name": "two", "data": "x"}}});
    client.login(apic.username(), apic.password());
    assert_eq!(client.post("/api/mo/uni/userext/user-bot/usercert-two.json", &nonsense).status, 400);
}

#[test]
fn a_certificate_is_valid_by_the_clock_of_the_controllers() {
    for (days, ahead, flaw) in [
        (30, 0, None),
        (-1, 0, Some("certificate has expired")),
        (30, 40 * 86_400, Some("certificate has expired")),
        (30, -2 * 86_400, Some("certificate is not yet valid")),
    ] {
        let apic = apic(|it| it.certificate_flaws_named = true);
        apic.show_date(ahead);
        let user = user_certificate("bot", days);
        let dn = apic.add_certificate("bot", "one", &user);
        let mut client = Client::new(&apic, 0);
        client.cookie = signed(&dn, &user, "GET/api/mo/uni.json", "");
        let answer = client.get("/api/mo/uni.json");
        match flaw {
            None => assert_eq!(answer.status, 200, "{}", answer.body),
            Some(flaw) => assert_eq!(answer.error().2, flaw),
        }
    }
}

/// A `webtokenSession` ties subscriptions to its websocket, which a signed request opens.
#[test]
fn signed_subscriptions_belong_to_a_webtoken_session() {
    for names_socket in [true, false] {
        let apic = apic(|it| it.signed_subscriptions_name_socket = names_socket);
        let user = user_certificate("bot", 30);
        let dn = apic.add_certificate("bot", "one", &user);
        let mut client = Client::new(&apic, 0);
        let target = "/api/mo/uni/tn-T.json?subscription=yes";
        let subscribe = |client: &mut Client, websocket: &str| {
            client.cookie = signed(&dn, &user, &format!("GET{target}"), websocket);
            client.get(target).status
        };
        client.cookie = signed(&dn, &user, "GET/api/webtokenSession.json", "");
        let answer = client.get("/api/webtokenSession.json");
        let token = answer.json()["imdata"][0]["webtokenSession"]["attributes"]["token"].as_str().unwrap().to_owned();
        assert_eq!(subscribe(&mut client, &token), 405, "there is no websocket yet");
        client.cookie = signed(&dn, &user, "GET/socket", "");
        assert!(client.socket_at(&token).is_none(), "its path is signed, too");
        client.cookie = signed(&dn, &user, &format!("GET/socket{token}"), "");
        let socket = client.socket_at(&token).unwrap();
        assert!(apic.wait_until(LIMIT, |apic| apic.websockets() == 1));
        assert_eq!(subscribe(&mut client, &token), 200);
        assert_eq!(subscribe(&mut client, ""), if names_socket { 405 } else { 200 });
        drop(socket);
        assert!(apic.wait_until(LIMIT, |apic| apic.sessions() == 0), "it ends with its websocket");
    }
}
