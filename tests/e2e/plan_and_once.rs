//! `plan` and `run --once`: what they print and do, and their exit codes.

use std::time::{Duration, Instant};

use crate::world::{DN_E, E, F, World};
use sim::net::{Fault, Trouble};

/// X4, W5: `plan` prints each change with its reason, by L3Out and EPG, sends reads only, and exits with 0 or 2.
#[test]
fn plan_prints_and_only_reads() {
    World::both(|world| {
        let plan = |code: i32| {
            let done = world.output(&["plan"]);
            let words = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(code), "{words}");
            assert!(!words.contains(DN_E), "plan must not log changes as if they were made: {words}");
            String::from_utf8(done.stdout).unwrap()
        };
        assert_eq!(plan(0), "No changes: the fabric is in sync with the cluster.\n");
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.kube.load_balancer("a", "lb", "web", &["10.9.0.1"]);
        world.kube.deploy("b", "typo", Some("{}"), &[]);
        let text = plan(2);
        let expected = "\
L3Out uni/tn-T/out-L
  EPG E
    + EPG  (Deployment a/web)
    + 10.0.0.1/32  import-security  (Pod a/web-646c8dfd75-0)
    + 10.9.0.1/32  import-security  (Service a/lb)
finding: InvalidAnnotation Deployment b/typo: invalid annotation: tenant is missing; nothing is created for the Deployment until it is corrected
Plan: 3 to create, 0 to change, 0 to delete.
";
        assert_eq!(text, expected);
        assert!(world.apic.get(DN_E).is_none());

        assert_eq!(world.output(&["run", "--once"]).status.code(), Some(0));
        assert!(world.holds("E", &["10.0.0.1", "10.9.0.1"]));
        let subnet = format!("{DN_E}/extsubnet-[10.9.0.1/32]");
        world.apic.set(&subnet, "l3extSubnet", &[("scope", "export-rtctrl"), ("name", "mine")]).unwrap();
        world.kube.annotate("a", "web", Some(F));
        let text = plan(2);
        for line in [
            "    - 10.0.0.1/32  was \"a::web-646c8dfd75-0\"  (moves to uni/tn-T/out-L/instP-F)",
            "    + 10.0.0.1/32  import-security  (Pod a/web-646c8dfd75-0)",
            "    - EPG  (no valid annotation names the EPG any more)",
            "Plan: 3 to create, 0 to change, 3 to delete.",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        world.kube.annotate("a", "web", Some(E));
        let drift = "    ~ 10.9.0.1/32  name \"mine\" -> \"a::lb\"  scope export-rtctrl -> export-rtctrl,import-security  (address belongs to Service a/lb; required by --subnet-scope)";
        let text = plan(2);
        assert!(text.lines().any(|it| it == drift), "{text}");

        let plans: Vec<_> = world.apic.journal();
        let sent = plans
            .iter()
            .filter(|it| it.method != "GET" && !it.path.contains("aaaLog") && !it.path.contains("out-L.json"));
        assert_eq!(sent.count(), 0, "only run --once has written, and only there");
        assert_eq!(world.apic.sessions(), 0, "every session was logged out");
        assert_eq!(world.apic.subscribed().len(), 0);
    });
}

/// X5: `run --once` does one full sync, waits for the end of a grace, checks, and its exit code says if something is
/// left.
#[test]
fn once_syncs_and_checks() {
    World::both(|world| {
        let once = |flags: &[&str]| {
            let done = world.output(&[&["run", "--once"], flags].concat());
            (done.status.code(), String::from_utf8(done.stdout).unwrap())
        };
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(once(&[]).0, Some(0));
        assert!(world.holds("E", &["10.0.0.1", "10.0.0.2"]));
        let writes = world.apic.writes().len();
        assert_eq!(once(&[]).0, Some(0));
        let new = world.apic.writes();
        assert!(new[writes..].iter().all(|it| it.path.contains("aaaLog")), "a converged fabric is left alone");
        assert_eq!(world.apic.subscribed().len() + world.apic.websockets(), 0, "no websocket");

        world.kube.delete("deployments", "a", "web");
        let (code, log) = once(&["--epg-grace", "1s"]);
        assert_eq!(code, Some(0));
        assert!(log.contains("waiting for the grace of EPGs that are no longer desired count=1"), "{log}");
        assert!(world.apic.get(DN_E).is_none());

        world.kube.deploy("a", "waits", Some(r#"{"tenant":"NONE","l3out":"L","epg":"E"}"#), &["10.0.0.1"]);
        assert_eq!(once(&[]).0, Some(1), "something waits");

        // Under upsert-only there is no wait for a grace, and what is kept is counted.
        world.kube.deploy("a", "web", Some(E), &["10.0.0.8", "10.0.0.9"]);
        assert_eq!(once(&[]).0, Some(1));
        world.kube.delete("deployments", "a", "web");
        let (code, log) = once(&["--policy", "upsert-only", "--epg-grace", "1h"]);
        assert_eq!(code, Some(1), "something waits still: {log}");
        assert!(log.contains("kept=3"), "{log}");
        assert!(world.holds("E", &["10.0.0.8", "10.0.0.9"]));
    });
}

/// W8, X5: if the APIC throttles logins, `plan` and `run --once` retry, log it, and give up after 30 s.
#[test]
fn a_throttled_login_is_retried() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let busy = || Trouble::Answer(503, "text/html", "<html>Service Temporarily Unavailable</html>".to_owned());
    for (words, code) in [(&["plan"][..], 2), (&["run", "--once"], 0)] {
        world.apic.fault(Fault::on("aaaLogin", busy()).times(6));
        let done = world.output(words);
        let err = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{err}");
        assert!(err.contains("the APIC is busy; retrying the login for up to 30 s"), "{err}");
    }
    assert!(world.holds("E", &["10.0.0.1"]));
    world.apic.fault(Fault::on("aaaLogin", busy()));
    let begun = Instant::now();
    let done = world.output(&["plan"]);
    assert_eq!(done.status.code(), Some(1));
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(60), "{took:?}");
}

/// X4, X5: a peer that does not answer is exit code 1, one that refuses us 78.
#[test]
fn failed_reads_are_explained() {
    let world = World::new();
    world.kube.deny("list", "pods");
    let done = world.output(&["plan"]);
    let err = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(78), "{err}");
    assert!(err.contains("cannot list resource \"pods\""), "{err}");
    world.kube.allow("list", "pods");

    world.apic.set_password("admin", "another");
    let done = world.output(&["plan"]);
    let err = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(78), "{err}");
    assert!(err.contains("Username or password is incorrect"), "{err}");

    world.apic.stop(0);
    let done = world.output(&["plan"]);
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(1), &b""[..]));
    assert!(String::from_utf8(done.stderr).unwrap().contains("failed to reach the APIC"));
}
