//! A5: login by certificate. Every request is signed, and no password is anywhere.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use sim::apic::{self, Variants};
use sim::kube;
use sim::net::{Fault, Trouble};
use sim::pki::{KeyForm, Pair, user_certificate};

use crate::world::{DN_E, Daemon, E, LIMIT, World, output, side_by_side};

/// A fabric whose user `aci-sync` has a certificate `one` that ends after so many days, and no password that the daemon
/// knows.
struct Signed {
    world: World,
    user: Pair,
    dn: String,
}

impl Signed {
    fn with(variants: Variants, days: i64) -> Signed {
        let options = apic::Options { variants, ..apic::Options::default() };
        let world = World::with(kube::Options::default(), options);
        let user = user_certificate("aci-sync", days);
        let dn = world.apic.add_certificate("aci-sync", "one", &user);
        world.folder.file("key.pem", &user.key_pem(KeyForm::Pkcs8));
        std::fs::remove_file(world.folder.path().join("password")).unwrap();
        Signed { world, user, dn }
    }

    fn new() -> Signed {
        Signed::with(Variants::default(), 30)
    }

    /// Gives the user another certificate of the same name, and the daemon its key if it is to have it.
    fn replace(&self, writes_key: bool) -> Pair {
        let user = user_certificate("aci-sync", 30);
        self.world.apic.add_certificate("aci-sync", "one", &user);
        if writes_key {
            self.world.folder.file("key.pem", &user.key_pem(KeyForm::Pkcs1));
        }
        user
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.world.command(words);
        command
            .env_remove("ACI_USERNAME")
            .env_remove("ACI_SYNC_PASSWORD_FILE")
            .env("ACI_SYNC_APIC_CERTIFICATE_DN", &self.dn)
            .env("ACI_SYNC_APIC_PRIVATE_KEY_FILE", self.world.folder.path().join("key.pem"));
        command
    }

    fn run(&self, flags: &[&str]) -> Daemon {
        Daemon::start(self.command(&[&["run"], flags].concat()))
    }

    /// How often a session was opened or tried to be.
    fn openings(&self) -> usize {
        self.world.apic.journal().iter().filter(|it| it.path == "/api/webtokenSession.json").count()
    }

    /// A while, in which the daemon has opened its watches again several times.
    fn wait_a_while(&self) {
        let watches = || self.world.kube.journal().iter().filter(|it| it.target.contains("watch=true")).count();
        let (begin, end) = (watches(), Instant::now() + LIMIT);
        for round in 1..=3 {
            self.world.kube.server().cut_all();
            while watches() < begin + 3 * round {
                assert!(Instant::now() < end, "the watches are not opened again");
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
    }

    /// No request of a login with a password, a signature on every request, and no target that two APICs may understand in
    /// two ways, but for the quotes of filters.
    fn all_requests_are_signed(&self) {
        for it in self.world.apic.journal() {
            assert!(!it.path.starts_with("/api/aaa"), "{} {}", it.method, it.path);
            let cookies: Vec<_> = it.headers.iter().filter(|(name, _)| name == "cookie").collect();
            assert_eq!(cookies.len(), 1, "{} {}", it.method, it.path);
            let cookie = &cookies[0].1;
            assert!(cookie.starts_with("APIC-Request-Signature=") && !cookie.contains("APIC-cookie"), "{cookie}");
            let is_first = it.path == "/api/webtokenSession.json";
            assert_eq!(cookie.contains("APIC-WebSocket-Session="), !is_first, "{} {cookie}", it.path);
            let is_plain =
                !it.target.replace("%22", "").contains(['%', '"', ' ', '+']) || it.path.starts_with("/socket");
            assert!(is_plain && (it.method == "GET" || !it.target.contains('%')), "{} {}", it.method, it.target);
        }
    }
}

/// A5, A3, R3, R1: the life of a daemon with a certificate, with both settings of every fact that is not established: first
/// sync, healing, a lost websocket, refreshed subscriptions, the stop.
#[test]
fn the_life_with_a_certificate() {
    let life = |variants: Variants| {
        // A subscription is refreshed after 20 s in place of 100.
        let signed = Signed::with(Variants { refresh_timeout_known: false, ..variants }, 30);
        let world = &signed.world;
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        let mut daemon = signed.run(&["--epg-grace", "0"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.until_read_again();
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1"]);
        let asked = |target: &str| {
            let journal = world.apic.journal();
            journal.iter().filter(|it| it.target.contains(target) && it.status == 200).count()
        };
        world.until("a subscription was refreshed", |_| asked("subscriptionRefresh") > 0);
        world.apic.drop_websockets();
        daemon.until_logged_times("APIC session established", 2);
        world.kube.pod("a", "web", "2", &["10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(daemon.stop().0, Some(0));
        signed.all_requests_are_signed();
        assert_eq!((signed.openings(), daemon.count("login refused")), (2, 0));
        assert!(asked("query-target-filter=") > 0, "the filters were answered");
        let refused = world.apic.journal().iter().filter(|it| it.status == 403).count();
        assert!(refused <= 4, "the form of the signed target is learned once: {refused}");
    };
    side_by_side(&[&|| life(Variants::default()), &|| life(Variants::opposite())]);
}

/// A5, F13: an APIC that ends the websocket's token after a while costs a new session and nothing else, whether it closes
/// the websocket then or not.
#[test]
fn a_token_that_ends_is_replaced() {
    let story = |socket_ends_with_token: bool| {
        let variants = Variants {
            webtoken_expires: true,
            socket_ends_with_token,
            refresh_timeout_known: false,
            ..Variants::default()
        };
        let signed = Signed::with(variants, 30);
        let world = &signed.world;
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        let daemon = signed.run(&[]);
        world.until_holds("E", &["10.0.0.1"]);
        world.apic.expire_tokens();
        daemon.until_logged_times("APIC session established", 2);
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1"]);
        signed.all_requests_are_signed();
    };
    side_by_side(&[&|| story(true), &|| story(false)]);
}

/// A5, W8: a key of another certificate, a DN that no user has, a certificate that has ended and one that is not valid yet:
/// each is logged with what the APIC says, what that means, and its clock against ours; it is tried again after a minute.
#[test]
fn refused_certificates_are_explained() {
    let named = || Variants { certificate_flaws_named: true, ..Variants::default() };
    let story = |variants: Variants, days: i64, ahead: i64, prepare: fn(&mut Signed), says: &[&str]| {
        let mut signed = Signed::with(variants, days);
        signed.world.apic.show_date(ahead);
        prepare(&mut signed);
        let mut daemon = signed.run(&[]);
        daemon.until_logged("APIC login refused; check the credentials");
        let log = daemon.log();
        let user = format!("user={}", signed.dn);
        for text in says.iter().chain([&user.as_str(), &"retry_in=60.0s"]) {
            assert!(log.contains(text), "{text}: {log}");
        }
        signed.wait_a_while();
        assert_eq!(daemon.stop().0, Some(0));
        assert_eq!(signed.world.apic.journal().len(), 1, "one login, and nothing else");
    };
    let unknown: fn(&mut Signed) = |it| it.dn = it.dn.replace("usercert-one", "usercert-two");
    let nothing: fn(&mut Signed) = |_| {};
    let no_certificate = "the user has no certificate at this DN, or it is not valid by the clock of the APIC, which";
    let agrees = format!("{no_certificate} agrees with ours");
    // The date of an answer has whole seconds, and another one may begin in between.
    let behind = format!("{no_certificate} is 17280");
    let day = 86_400;
    side_by_side(&[
        &|| {
            let other_key: fn(&mut Signed) = |it| drop(it.replace(false));
            story(Variants::default(), 30, 0, other_key, &["bad signature; the private key does not belong to"]);
        },
        &|| story(Variants::default(), 30, 0, unknown, &["Need a valid webtoken", &agrees]),
        &|| story(named(), 30, 0, unknown, &["User certificate not found", &agrees]),
        &|| story(Variants::default(), -1, 0, nothing, &["Need a valid webtoken", &agrees]),
        &|| {
            story(
                named(),
                -1,
                0,
                nothing,
                &["certificate has expired", "by the clock of the APIC, which agrees with ours"],
            )
        },
        &|| story(Variants::default(), 30, -2 * day, nothing, &["Need a valid webtoken", &behind, " s behind ours"]),
        &|| {
            story(named(), 30, -2 * day, nothing, &["certificate is not yet valid", "which is 17280", " s behind ours"])
        },
    ]);
}

/// A5, W8: a refusal of signed requests of an open session leads to a new session once, and then to one a minute.
#[test]
fn a_refused_session_does_not_loop() {
    let signed = Signed::new();
    let text = r#"{"imdata":[{"error":{"attributes":{"code":"403","text":"bad signature"}}}],"totalCount":"1"}"#;
    signed.world.apic.fault(Fault::on("/api/class/", Trouble::Answer(403, "application/json", text.to_owned())));
    let mut daemon = signed.run(&[]);
    daemon.until_logged_times("APIC session lost", 2);
    signed.wait_a_while();
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!((signed.openings(), daemon.count("APIC session lost")), (2, 2));
}

/// A5, W8, W3: a certificate that is taken from the user while a session is open, by an APIC whose words for that are not
/// known: what it refuses waits, with a finding that has these words, and goes on when the certificate is back.
#[test]
fn a_refusal_in_unknown_words_is_no_loop() {
    let signed = Signed::with(Variants { certificate_flaws_named: true, ..Variants::default() }, 30);
    let world = &signed.world;
    let daemon = signed.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    world.apic.remove_certificate(&signed.dn);
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    daemon.until_logged("missing APIC privilege: User certificate not found");
    let before = world.apic.journal().len();
    signed.wait_a_while();
    let requests = world.apic.journal().len() - before;
    assert!(requests < 20, "{requests} requests in a few seconds");
    world.apic.add_certificate("aci-sync", "one", &signed.user);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!((signed.openings(), daemon.count("APIC session lost")), (1, 0));
}

/// A5, F35: a key that is replaced on disk is used after SIGHUP and before the next login. One that cannot be used leaves
/// the old one in use. A key that came after a refused login is tried at once.
#[test]
fn a_replaced_key_is_used() {
    let signed = Signed::new();
    let world = &signed.world;
    let daemon = signed.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);

    world.folder.file("key.pem", "no key");
    daemon.signal("HUP");
    daemon.until_logged("failed to read the APIC credentials; the old ones stay in use");
    daemon.until_logged("has no private key");
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(daemon.count("APIC session established"), 1, "the old key is in use");

    signed.replace(true);
    daemon.signal("HUP");
    daemon.until_logged("credentials read again");
    world.kube.pod("a", "web", "3", &["10.0.0.3"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(daemon.count("APIC session lost"), 0, "a new key needs no new session");

    // Without a signal: the refused session reads the key again before the next login.
    signed.replace(true);
    world.kube.pod("a", "web", "4", &["10.0.0.4"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    assert_eq!((signed.openings(), daemon.count("login refused")), (2, 0));

    let last = signed.replace(false);
    world.apic.then("GET", "webtokenSession", {
        let (file, key) = (world.folder.path().join("key.pem"), last.key_pem(KeyForm::Pkcs8));
        move |_| std::fs::write(&file, &key).unwrap()
    });
    world.apic.drop_websockets();
    daemon.until_logged("APIC login refused; trying the new credentials");
    daemon.until_logged_times("APIC session established", 3);
}

/// A5, A4, X4: what is not allowed is a sentence at the start that names it: both ways to log in, half of one, and keys that
/// cannot sign. No key is shown.
#[test]
fn wrong_settings_are_refused() {
    let signed = Signed::new();
    let folder = &signed.world.folder;
    let ec = sim::pki::Authority::new("x").client("x", &[], KeyForm::Sec1);
    let encrypted = signed.user.key.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"x");
    folder.file("ec.pem", &ec.key_pem(KeyForm::Sec1));
    folder.file("encrypted.pem", &String::from_utf8(encrypted.unwrap()).unwrap());
    folder.file("password", "hunter2");
    folder.file("apic-password", "hunter2");
    let path = |name: &str| folder.path().join(name);
    type Change<'a> = &'a dyn Fn(&mut Command);
    let cases: [(Change<'_>, &[&str]); 8] = [
        (
            &|it| {
                it.env("ACI_PASSWORD", "hunter2");
            },
            &["ACI_SYNC_APIC_CERTIFICATE_DN", "not together with ACI_PASSWORD"],
        ),
        (
            &|it| {
                it.env("ACI_SYNC_PASSWORD_FILE", path("password"));
            },
            &["ACI_SYNC_APIC_CERTIFICATE_DN", "not together with ACI_SYNC_PASSWORD_FILE"],
        ),
        (
            &|it| {
                it.env("CREDENTIALS_DIRECTORY", folder.path());
            },
            &["ACI_SYNC_APIC_CERTIFICATE_DN", "not together with the credential apic-password"],
        ),
        (
            &|it| {
                it.env_remove("ACI_SYNC_APIC_PRIVATE_KEY_FILE");
            },
            &["ACI_SYNC_APIC_CERTIFICATE_DN", "set --apic-private-key-file, too"],
        ),
        (
            &|it| {
                it.env_remove("ACI_SYNC_APIC_CERTIFICATE_DN");
            },
            &["ACI_SYNC_APIC_PRIVATE_KEY_FILE", "set --apic-certificate-dn, too"],
        ),
        (
            &|it| {
                it.env("ACI_SYNC_APIC_CERTIFICATE_DN", "aci-sync");
            },
            &["is not the DN of a certificate"],
        ),
        (
            &|it| {
                it.env("ACI_SYNC_APIC_PRIVATE_KEY_FILE", path("ec.pem"));
            },
            &["ec.pem", "is not an RSA key"],
        ),
        (
            &|it| {
                it.env("ACI_SYNC_APIC_PRIVATE_KEY_FILE", path("encrypted.pem"));
            },
            &["encrypted.pem", "is encrypted"],
        ),
    ];
    for (change, says) in cases {
        let mut command = signed.command(&["run"]);
        change(&mut command);
        let done = output(command);
        let text = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(78), "{text}");
        assert!(says.iter().all(|it| text.contains(it)), "{says:?}: {text}");
        assert!(!text.contains("hunter2") && !text.contains("PRIVATE KEY-----"), "{text}");
    }
    assert_eq!(signed.world.apic.journal().len(), 0, "nothing was sent");
}

/// A5, T6, X5: the commands work with a certificate, and `check` says what it cannot know without a login.
#[test]
fn commands_with_a_certificate() {
    let story = |variants: Variants| {
        let signed = Signed::with(variants, 30);
        let world = &signed.world;
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.apic.deploy_l3out("uni/tn-T/out-L").unwrap();
        world.apic.show_date(0);
        let run = |words: &[&str]| {
            let done = output(signed.command(words));
            (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
        };
        let (code, text, _) = run(&["check"]);
        assert_eq!(code, Some(0), "{text}");
        for line in [
            "ok    secrets         private_key: can be used".to_owned(),
            format!("logged in as {:?}", signed.dn),
            "ok    apic.version    APIC 6.0(9c)".to_owned(),
            "skip  fabric.write    not known: ".to_owned(),
            "opened; subscribed to uni/tn-T/out-L".to_owned(),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert_eq!(run(&["plan"]).0, Some(2));
        let (code, _, err) = run(&["run", "--once"]);
        assert_eq!(code, Some(0), "{err}");
        assert!(world.holds("E", &["10.0.0.1"]));
        let journal = world.apic.journal();
        assert!(journal.iter().all(|it| !it.path.starts_with("/api/aaa") || it.path == "/api/aaaListDomains.json"));

        world.apic.add_certificate("aci-sync", "one", &user_certificate("aci-sync", 30));
        let (code, text, _) = run(&["check"]);
        assert_eq!(code, Some(1), "{text}");
        for line in ["FAIL  apic.login", "the private key does not belong to the certificate", "compare the key with"] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let (code, _, err) = run(&["plan"]);
        assert!(code == Some(78) && err.contains("the private key does not belong"), "{err}");
    };
    side_by_side(&[&|| story(Variants::default()), &|| story(Variants::opposite())]);
}

/// A5, T6: a key file that others can read, one that cannot be used, and a release that may not be read.
#[test]
fn check_looks_at_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let signed = Signed::new();
    let key = signed.world.folder.path().join("key.pem");
    let check = |code: i32, says: &str| {
        let done = output(signed.command(&["check"]));
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.code() == Some(code) && text.contains(says), "{says}\n{text}");
        String::from_utf8(done.stderr).unwrap()
    };
    let forbidden = json!({"imdata": [{"error": {"attributes": {"code": "403", "text": "no privilege"}}}]}).to_string();
    signed.world.apic.fault(Fault::on("firmwareCtrlrRunning", Trouble::Answer(403, "application/json", forbidden)));
    check(0, "warn  apic.version    release not known: missing APIC privilege: no privilege");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let err = check(0, "warn  secrets         private_key: ");
    assert!(err.contains("file with APIC credentials is readable by other users"), "{err}");
    signed.world.folder.file("key.pem", "");
    check(78, "FAIL  secrets         private_key: ");
    check(78, "skip  apic.login      secrets failed");
}

/// A5, T10, F35: a certificate beside the key ends, which the log, `status` and `check` say, and a new one is read with its
/// key; one of another key leaves both in use.
#[test]
fn the_end_of_a_certificate_beside_its_key() {
    let signed = Signed::with(Variants::default(), 20);
    let world = &signed.world;
    let listen = format!("unix:{}", world.folder.path().join("socket").display());
    let both = |key: &Pair, other: &Pair| {
        world.folder.file("key.pem", &(key.key_pem(KeyForm::Pkcs8) + &other.certificate_pem()));
    };
    both(&signed.user, &signed.user);
    let done = output(signed.command(&["check"]));
    let text = String::from_utf8(done.stdout).unwrap();
    let line = "warn  secrets         apic_user_certificate: ends ";
    assert!(done.status.code() == Some(0) && text.contains(line), "{text}");
    let mut daemon = signed.run(&["--listen", &listen]);
    daemon.until_logged("credential ends soon credential=apic_user_certificate ends=");
    daemon.until_logged("APIC session established");
    let ends_in = |days: &str| {
        let text = String::from_utf8(world.output(&["status", "--listen", &listen]).stdout).unwrap();
        text.contains(&format!("apic_user_certificate in {days} days"))
    };
    world.until("status shows its end", |_| ends_in("19"));

    let new = user_certificate("aci-sync", 365);
    both(&new, &signed.user);
    daemon.signal("HUP");
    daemon.until_logged("has a certificate that does not belong to its private key");
    assert!(ends_in("19"));
    world.apic.add_certificate("aci-sync", "one", &new);
    both(&new, &new);
    daemon.signal("HUP");
    world.until("status shows the new end", |_| ends_in("364"));
    assert_eq!(daemon.stop().0, Some(0));
}

/// A5, A4, I12: neither the key nor a token nor a signature is printed, whatever goes wrong and however much is logged; also
/// if the APIC repeats them.
#[test]
fn keys_and_tokens_stay_secret() {
    let signed = Signed::new();
    let world = &signed.world;
    let mut command = signed.command(&["run"]);
    command.env("RUST_LOG", "trace,ureq=trace,ureq_proto=trace,tungstenite=trace").env("RUST_BACKTRACE", "1");
    let mut daemon = Daemon::start(command);
    daemon.until_logged("APIC session established");
    let values = |name: &str| -> Vec<String> {
        let cookies = world.apic.journal().into_iter().flat_map(|it| it.headers).filter(|(it, _)| it == "cookie");
        let pairs: Vec<String> =
            cookies.flat_map(|(_, it)| it.split("; ").map(str::to_owned).collect::<Vec<_>>()).collect();
        pairs.iter().filter_map(|it| it.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)).collect()
    };
    world.until("a request with the token", |_| !values("APIC-WebSocket-Session").is_empty());
    let text = format!("no such token: {} of aci-sync", values("APIC-WebSocket-Session")[0]);
    let body = json!({"imdata": [{"error": {"attributes": {"code": "120", "text": text}}}]}).to_string();
    let answer = Trouble::Answer(400, "application/json", body);
    world.apic.fault(Fault::on("/api/mo/uni/tn-T/out-L.json", answer).method("POST"));
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    daemon.until_logged("no such token: [secret] of aci-sync");
    signed.replace(false);
    world.apic.drop_websockets();
    daemon.until_logged("check the credentials");
    daemon.signal("USR1");
    daemon.until_logged("controller=none");
    daemon.stop();
    let log = daemon.log();
    let secrets = [values("APIC-Request-Signature"), values("APIC-WebSocket-Session")].concat();
    assert!(secrets.len() > 5, "a log worth searching");
    let key = signed.user.key_pem(KeyForm::Pkcs8);
    let lines = key.lines().filter(|it| !it.starts_with('-'));
    for secret in secrets.iter().map(String::as_str).chain(lines) {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    assert!(!log.contains("PRIVATE KEY"));
}
