//! The APIC session: certificates, the lifetime of tokens, several controllers, and secrets that stay secret.

use std::time::Duration;

use crate::world::{DN_E, Daemon, E, World};
use serde_json::json;
use sim::apic::{self, Variants};
use sim::kube;
use sim::net::{Fault, Trouble};
use sim::pki::Authority;

fn with(options: apic::Options) -> World {
    World::with(kube::Options::default(), options)
}

/// A2: the certificate must come from a trusted CA and have the right name, or have a trusted fingerprint; otherwise
/// nothing is sent, and the log says what was presented.
#[test]
fn certificates_are_verified() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let other = Authority::new("other");
    let other_ca = world.folder.file("other.pem", &other.pem());
    let run = |flags: &[&str]| {
        let mut command = world.command(&[&["run"], flags].concat());
        command.env_remove("ACI_SYNC_APIC_CA");
        Daemon::start(command)
    };
    let wrong_fingerprint = other.0.fingerprint();
    for flags in [vec![], vec!["--apic-ca", other_ca.to_str().unwrap()], vec!["--apic-fingerprint", &wrong_fingerprint]]
    {
        let daemon = run(&flags);
        daemon.until_logged("certificate not trusted");
        let log = daemon.log();
        assert!(log.contains(&world.apic.fingerprint()) && log.contains("SimApic CA"), "what was presented: {log}");
        assert_eq!(world.apic.journal().len(), 0, "nothing was sent: {flags:?}");
    }
    let mut daemon = run(&["--apic-fingerprint", &format!("{wrong_fingerprint},{}", world.apic.fingerprint())]);
    world.until_holds("E", &["10.0.0.1"]);
    daemon.kill();
    world.apic.admin_delete(DN_E).unwrap();
    let daemon = run(&["--apic-insecure"]);
    world.until_holds("E", &["10.0.0.1"]);
    daemon.until_logged("certificate is not verified");
}

/// A2: a certificate with another name, and one that has expired.
#[test]
fn names_and_dates_are_verified() {
    let ca = Authority::new("SimApic CA");
    for (identity, complaint) in
        [(ca.server(&["apic.example"]), "mismatch"), (ca.expired_server(&["127.0.0.1"]), "certificate has expired")]
    {
        let authority = Some(ca.clone());
        let world = with(apic::Options { identity: Some(identity), authority, ..apic::Options::default() });
        let daemon = world.run(&[]);
        daemon.until_logged(complaint);
        assert_eq!(world.apic.journal().len(), 0);
    }
}

/// A3: the token is refreshed at half of its life and the websocket survives; the old token may die at once.
#[test]
fn tokens_are_refreshed() {
    for variants in [Variants::default(), Variants::opposite()] {
        let token_lifetime = Duration::from_secs(8);
        let world = with(apic::Options { variants, token_lifetime, ..apic::Options::default() });
        let daemon = world.run(&[]);
        world.until("it was refreshed twice", |world| {
            world.apic.journal().iter().filter(|it| it.path.contains("aaaRefresh") && it.status == 200).count() >= 2
        });
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1"]);
        assert_eq!(daemon.count("APIC session established"), 1);
    }
}

/// A3: a new session is made before the maximum lifetime of the old one.
#[test]
fn a_session_is_replaced_before_its_maximum_lifetime() {
    let world = with(apic::Options { maximum_lifetime: Duration::from_secs(4), ..apic::Options::default() });
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    daemon.until_logged_times("APIC session established", 2);
    world.apic.admin_delete(DN_E).unwrap();
    world.until_holds("E", &["10.0.0.1"]);
    daemon.until_logged("nearly reached its maximum lifetime");
}

/// W8, F12: a token that is refused leads to one new login, with 401 as with 403, and to a full sync.
#[test]
fn an_expired_token_leads_to_a_new_login() {
    World::both(|world| {
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.apic.expire_tokens();
        world.kube.pod("a", "web", "2", &["10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        let logins = world.apic.journal().iter().filter(|it| it.path.contains("aaaLogin")).count();
        assert_eq!(logins, 2);
        daemon.until_logged("APIC session lost");
    });
}

/// A1, W8: a refused password is logged once and tried again after a minute, not before: accounts get locked.
#[test]
fn a_wrong_password_is_retried_rarely() {
    let world = World::new();
    world.apic.set_password("admin", "another");
    let mut daemon = world.run(&[]);
    daemon.until_logged("check the credentials");
    // Long enough for many more logins: every watch is cut, and opened again after a pause.
    let watches = || world.kube.journal().iter().filter(|it| it.target.contains("watch=true")).count();
    let end = std::time::Instant::now() + crate::world::LIMIT;
    for times in [3, 6] {
        while watches() < times {
            assert!(std::time::Instant::now() < end, "the watches are not opened again");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        world.kube.server().cut_all();
    }
    while watches() < 9 {
        assert!(std::time::Instant::now() < end, "the watches are not opened again");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(world.apic.journal().len(), 1, "one login, and nothing else");
    assert!(!daemon.log().contains(world.apic.password()));
}

/// W8, X7: a refused login is logged with the controller, the user and the time until the next attempt; after an answer
/// that speaks of a lock the pause is the longest. A new password that SIGHUP reads is tried at once.
#[test]
fn a_new_password_ends_the_wait() {
    let world = World::new();
    world.apic.set_password("admin", "Another-word-2");
    let daemon = world.run(&[]);
    let controller = world.apic.apic();
    daemon.until_logged(&format!("check the credentials controller={controller} user=admin error=\"not authorized"));
    daemon.until_logged("retry_in=60.0s");
    world.folder.file("password", "Another-word-2");
    let begun = std::time::Instant::now();
    daemon.signal("HUP");
    daemon.until_logged("APIC session established");
    assert!(begun.elapsed() < Duration::from_secs(30), "it did not wait for the minute to end");

    let text = "User account is locked: too many failed logins";
    let locked = format!(r#"{{"imdata":[{{"error":{{"attributes":{{"code":"401","text":"{text}"}}}}}}]}}"#);
    world.apic.fault(Fault::on("aaaLogin", Trouble::Answer(401, "application/json", locked)));
    world.apic.drop_websockets();
    daemon.until_logged("the account seems to be locked");
    daemon.until_logged(text);
    daemon.until_logged("retry_in=600.0s");
    assert!(!daemon.log().contains("Another-word"));
}

/// A1: with several controllers the next one serves when one dies, in turn; nothing is deleted meanwhile.
#[test]
fn controllers_fail_over_in_turn() {
    for variants in [Variants::default(), Variants::opposite()] {
        let world = with(apic::Options { controllers: 3, variants, ..apic::Options::default() });
        world.apic.stop(0);
        let _daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        for (dies, comes) in [(1, 0), (2, 1), (0, 2)] {
            world.apic.start_again(comes).unwrap();
            world.apic.stop(dies);
            let address = format!("10.0.0.{}", 10 + dies);
            world.kube.pod("a", "web", &format!("after{dies}"), &[&address]);
            world.until("the next controller serves", |world| world.subnets("E").contains(&format!("{address}/32")));
        }
        world.until_holds("E", &["10.0.0.1", "10.0.0.10", "10.0.0.11", "10.0.0.12"]);
        assert!(world.apic.writes().iter().all(|it| !it.body.contains("deleted")));
    }
}

/// A1: login domains.
#[test]
fn login_domains() {
    let world = World::new();
    let mut command = world.command(&["run"]);
    command.env("ACI_USERNAME", r"apic:LOCAL\admin");
    let _daemon = Daemon::start(command);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
}

/// A4, I12: no password, token or key is printed, whatever goes wrong and however much is logged.
#[test]
fn secrets_stay_secret() {
    for variants in [Variants::default(), Variants::opposite()] {
        let world =
            with(apic::Options { variants, token_lifetime: Duration::from_secs(4), ..apic::Options::default() });
        let mut command = world.command(&["run", "--epg-grace", "0"]);
        command.env("RUST_LOG", "trace,ureq=trace,ureq_proto=trace,tungstenite=trace").env("RUST_BACKTRACE", "1");
        let mut daemon = Daemon::start(command);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.until("the token was refreshed", |world| {
            world.apic.journal().iter().any(|it| it.path.contains("aaaRefresh"))
        });
        world.apic.expire_tokens();
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1"]);
        world.apic.drop_websockets();
        daemon.until_logged_times("APIC session established", 3);
        world.apic.stop(0);
        daemon.until_logged("failed to open an APIC session");
        world.apic.set_password("admin", "another");
        world.apic.start_again(0).unwrap();
        daemon.until_logged("check the credentials");
        daemon.signal("USR1");
        daemon.until_logged("leader=true controller=none");
        daemon.stop();

        let mut secrets = vec![world.apic.password().to_owned()];
        for entry in world.apic.journal() {
            let cookie = entry.headers.iter().find(|(name, _)| name == "cookie").map(|(_, value)| value.clone());
            secrets.extend(cookie.and_then(|it| Some(it.split_once('=')?.1.to_owned())));
        }
        secrets.sort();
        secrets.dedup();
        assert!(secrets.len() >= 4, "the tokens of several sessions");
        let log = daemon.log();
        assert!(log.lines().count() > 20, "a log worth searching: {log}");
        for secret in secrets.iter().filter(|it| !it.is_empty()) {
            let at =
                log.find(secret.as_str()).map(|at| log[at.saturating_sub(80)..(at + 20).min(log.len())].to_owned());
            assert_eq!(at, None, "a secret stands in the log");
        }
        assert!(!log.contains("PRIVATE KEY"));
    }
}

/// A4: if an APIC repeats the token and the password in its answers, they do not appear in the log, a finding or an
/// Event.
#[test]
fn secrets_repeated_by_the_apic_are_not_printed() {
    let world = World::new();
    let mut daemon = world.run(&[]);
    daemon.until_logged("APIC session established");
    world.until("a request with the token", |world| token(world).is_some());
    let (token, password) = (token(&world).unwrap(), world.apic.password().to_owned());
    let text = format!("no such token: {token} of admin with {password}");
    let body = json!({"imdata": [{"error": {"attributes": {"code": "120", "text": text}}}]}).to_string();
    world
        .apic
        .fault(Fault::on("/api/mo/uni/tn-T/out-L.json", Trouble::Answer(400, "application/json", body)).method("POST"));
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    daemon.until_logged("no such token: [secret] of admin with [secret]");
    world.until("an Event about it", |world| !world.kube.all("events").is_empty());
    world.until("the status has the finding", |_| {
        daemon.signal("USR1");
        daemon.count("status: finding ") > 0
    });
    daemon.stop();
    let events = json!(world.kube.all("events")).to_string();
    assert!(events.contains("[secret]"), "{events}");
    for text in [daemon.log(), events] {
        assert!(!text.contains(&token) && !text.contains(&password), "{text}");
    }
}

/// The token of the last request.
fn token(world: &World) -> Option<String> {
    let cookies = world.apic.journal().into_iter().rev().flat_map(|it| it.headers);
    let mut cookies = cookies.filter(|(name, _)| name == "cookie");
    cookies.find_map(|(_, value)| Some(value.split_once('=')?.1.to_owned()))
}
