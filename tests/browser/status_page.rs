//! T9: the status page of a running daemon, as a browser shows it.

use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};
use sim::apic::ApiError;

use crate::chromium::Browser;
use crate::world::{Daemon, E, MARK, World};

/// What an attacker would like to be run or shown.
const SCRIPT: &str = "<script>window.hacked=1</script>";
const QUOTES: &str = "\"'><img src=http://127.0.0.1:1/x onerror=window.hacked=2>";
const TURNED: &str = "\u{202e}gpj.exe\u{2066}";

/// A daemon with a page.
struct Site {
    world: World,
    url: String,
    _daemon: Daemon,
}

impl Site {
    fn start(world: World, flags: &[&str]) -> Site {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let daemon = world.run(&[&["--listen", &format!("127.0.0.1:{port}")], flags].concat());
        daemon.until_logged("status server listening");
        Site { world, url: format!("http://127.0.0.1:{port}/"), _daemon: daemon }
    }

    /// An ordinary day: most is well, an L3Out is missing, an address is refused, and deletions are blocked.
    fn ordinary() -> Site {
        let world = World::new();
        world.apic.setup_tenant("TEN_K8", "VRF_K8", &["L3O_K8"]).unwrap();
        let epg = |name: &str| json!({"tenant": "TEN_K8", "l3out": "L3O_K8", "epg": name}).to_string();
        let apps = ["cart", "catalog", "checkout", "search", "web"];
        for (net, app) in apps.iter().enumerate() {
            let addresses: Vec<String> = (0..=net * 3).map(|host| format!("10.244.{net}.{}", host + 10)).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            world.kube.deploy("shop", app, Some(&epg(&format!("EPG_{}", app.to_uppercase()))), &addresses);
        }
        world.kube.deploy("shop", "web-canary", Some(&epg("EPG_WEB")), &["10.244.9.10"]);
        let later = json!({"tenant": "TEN_LATER", "l3out": "L3O_LATER", "epg": "EPG_BATCH"}).to_string();
        world.kube.deploy("batch", "nightly", Some(&later), &["10.244.7.10", "10.244.7.11"]);
        let foreign = "uni/tn-TEN_K8/out-L3O_K8/instP-EPG_LEGACY_LB";
        world.apic.set(foreign, "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
        world.apic.set(&format!("{foreign}/extsubnet-[10.244.4.11/32]"), "l3extSubnet", &[]).unwrap();
        for old in ["EPG_OLD_API", "EPG_OLD_REPORTS"] {
            world
                .apic
                .set(&format!("uni/tn-TEN_K8/out-L3O_K8/instP-{old}"), "l3extInstP", &[("annotation", MARK)])
                .unwrap();
        }
        Site::start(world, &["--max-deletes", "1"])
    }

    /// A world whose names and answers are hostile, as far as the peers can choose them.
    fn hostile() -> Site {
        let world = World::new();
        let error = ApiError::bad(104, format!("{SCRIPT} {QUOTES} {TURNED} \u{5e9}\u{5dc}\u{5d5}\u{5dd}"));
        world.apic.reject("10.0.0.66", error, None);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.66"]);
        let with_a_key = json!({"tenant": "T", "l3out": "L", "epg": "F", SCRIPT: QUOTES}).to_string();
        world.kube.deploy("a", "key", Some(&with_a_key), &["10.0.0.2"]);
        world.kube.deploy("a", "invalid", Some(SCRIPT), &[]);
        Site::start(world, &[])
    }

    /// Opens the page once the daemon is in a state.
    #[track_caller]
    fn open(&self, browser: &Browser, state: &str) {
        self.world.until(state, |_| browser_sees(browser, &self.url, state));
    }
}

fn browser_sees(browser: &Browser, url: &str, state: &str) -> bool {
    browser.open(url);
    browser.text("document.querySelector('.state strong').textContent").contains(state)
}

/// What Chromium complains about: violations of the Content-Security-Policy, and everything else.
fn issues(browser: &Browser) -> Vec<Value> {
    let issues = browser.events("Audits.issueAdded").into_iter().map(|it| it["issue"].clone());
    issues.chain(browser.events("Log.entryAdded")).chain(browser.events("Runtime.exceptionThrown")).collect()
}

/// The requests that left the browser.
fn requests(browser: &Browser) -> Vec<String> {
    let events = browser.events("Network.requestWillBeSent");
    let urls = events.iter().map(|it| it["request"]["url"].as_str().unwrap().to_owned());
    urls.filter(|url| !url.starts_with("data:")).collect()
}

fn list(browser: &Browser, selector: &str) -> Vec<String> {
    let texts = browser.value(&format!("[...document.querySelectorAll('{selector}')].map(it => it.innerText)"));
    texts.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// T9: the page has the state, what to do, each EPG and the reconciles, in one request.
#[test]
fn the_page_shows_the_state() {
    let (site, browser) = (Site::ordinary(), Browser::start());
    site.open(&browser, "out of sync: 3 findings need attention");
    assert_eq!(requests(&browser), [site.url.as_str()], "one request in all");
    assert_eq!(issues(&browser), [Value::Null; 0]);
    assert!(browser.text("document.title").starts_with("3 need attention \u{b7} aci-sync "));

    let facts = list(&browser, ".facts dd").join("\n");
    for part in [
        "\u{2713} yes, without leader election; policy sync; cluster id me",
        "; 7 Deployments; 38 Pods; 0 Services",
        "; 2 L3Outs (1 not found)",
        "\u{2713} kubernetes client certificate ends in 36",
    ] {
        assert!(facts.contains(part), "{part} in {facts}");
    }
    let findings = list(&browser, "[aria-labelledby=findings] li");
    assert_eq!(findings.len(), 3, "{findings:#?}");
    let parts = ["! needs attention", "L3OutNotFound", "uni/tn-TEN_LATER/out-L3O_LATER", "To do: Create the tenant"];
    assert!(findings.iter().any(|it| parts.iter().all(|part| it.contains(part))), "{findings:#?}");
    let blocked = list(&browser, "[aria-labelledby=blocked] li");
    assert_eq!(blocked, ["EPG_OLD_API", "EPG_OLD_REPORTS"].map(|it| format!("uni/tn-TEN_K8/out-L3O_K8/instP-{it}")));
    assert!(
        browser
            .text("document.querySelector('pre').textContent")
            .starts_with("sudo systemctl kill --kill-who=main --signal=USR2 aci-sync")
    );
    let rows = list(&browser, "[aria-labelledby=epgs] tbody tr");
    assert!(
        rows.iter().any(|it| it.starts_with("\u{2713} in sync\t")
            && it.contains("EPG_CART\t1 of 1\t0\towned\tDeployment shop/cart")),
        "{rows:#?}"
    );
    assert!(rows.iter().any(|it| it.starts_with("! 1 missing\t") && it.contains("EPG_WEB\t13 of 14")), "{rows:#?}");
    assert!(rows.iter().any(|it| it.starts_with("! EPG missing\t") && it.contains("EPG_BATCH\t0 of 2")), "{rows:#?}");
    let reconciles = list(&browser, "[aria-labelledby=reconciles] tbody tr");
    assert!(reconciles.iter().any(|it| it.contains("new session")), "{reconciles:#?}");
    assert_eq!(list(&browser, "h1").len(), 1);
    let times = browser.value("[...document.querySelectorAll('time')].every(it => !isNaN(Date.parse(it.dateTime)))");
    assert_eq!(times, true);
    let metrics = "fetch('/metrics').then(it => it.text())";
    assert_eq!(browser.value(&format!("{metrics}.then(it => it.length, () => 'blocked')")), "blocked", "connect-src");
}

/// T9: whatever peers name, answer or inject, nothing is run, loaded or shown as if it were ours.
#[test]
fn a_hostile_world_is_only_text() {
    let (site, browser) = (Site::hostile(), Browser::start());
    site.open(&browser, "needs attention");
    assert_eq!(requests(&browser), [site.url.as_str()]);
    assert_eq!(issues(&browser), [Value::Null; 0]);
    let text = browser.text("document.body.innerText");
    for part in [SCRIPT, QUOTES, "\\u{202e}gpj.exe\\u{2066}", "\u{5e9}\u{5dc}\u{5d5}\u{5dd}"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains(['\u{202e}', '\u{2066}']), "{text}");
    let (password, username) = (site.world.apic.password(), site.world.apic.username());
    assert!(!text.contains(password) && !text.contains(username), "{text}");
    assert_eq!(browser.value("document.querySelectorAll('main img, main script, body script').length"), 0);

    // What an attacker would put there if the escaping failed is refused by the Content-Security-Policy.
    for (tag, code) in [
        ("script", "it.textContent = 'window.hacked = 3'"),
        ("img", "it.src = '/livez'"),
        ("style", "it.textContent = 'body { display: none }'"),
        ("iframe", "it.src = '/livez'"),
    ] {
        browser.forget();
        browser.value(&format!(
            "(() => {{ const it = document.createElement('{tag}'); {code}; document.body.append(it) }})()"
        ));
        browser.until_event("Audits.issueAdded");
        let blocked = browser.events("Audits.issueAdded");
        assert!(blocked.iter().all(|it| it["issue"]["code"] == "ContentSecurityPolicyIssue"), "{tag}: {blocked:?}");
        assert!(browser.events("Network.responseReceived").is_empty(), "{tag}");
    }
    assert_eq!(browser.value("typeof window.hacked"), "undefined");
    assert_eq!(browser.text("getComputedStyle(document.body).display"), "block");
}

/// T9: the filter and the refresh work by keyboard alone, and both are in the URL.
#[test]
fn the_filter_works_by_keyboard() {
    let (site, browser) = (Site::ordinary(), Browser::start());
    site.open(&browser, "out of sync: 3 findings need attention");
    browser.value("document.getElementById('q').focus()");
    browser.forget();
    browser.command("Input.insertText", json!({"text": "SHOP/web  \"missing"}));
    browser.press("Enter", 13, "\r");
    browser.until_loaded();
    assert_eq!(browser.text("location.search"), "?q=SHOP%2Fweb++%22missing");
    assert_eq!(browser.text("document.getElementById('q').value"), "SHOP/web  \"missing");
    assert_eq!(list(&browser, ".none").len(), 3, "no finding, blocked deletion or EPG: the quote is in none");
    assert_eq!(list(&browser, ".scroll").len(), 1, "the reconciles stay");

    browser.open(&format!("{}?q=SHOP/web+missing&refresh=3600", site.url));
    let rows = list(&browser, "[aria-labelledby=epgs] tbody tr");
    assert!(rows.len() == 1 && rows[0].contains("instP-EPG_WEB"), "{rows:?}");
    let pills = list(&browser, "h2 .pill");
    assert!(pills.contains(&"1 of 8 match".to_owned()), "{pills:?}");
    let refresh = |browser: &Browser| {
        let answers = browser.events("Network.responseReceived");
        answers.iter().find_map(|it| it["response"]["headers"]["Refresh"].as_str().map(str::to_owned))
    };
    assert_eq!(refresh(&browser).as_deref(), Some("3600"));
    browser.forget();
    let buttons = list(&browser, "button");
    assert_eq!(buttons, ["Apply", "Stop refreshing"]);
    browser.value("document.querySelectorAll('button')[1].focus()");
    browser.press("Enter", 13, "\r");
    browser.until_loaded();
    assert_eq!((browser.text("location.search").as_str(), refresh(&browser)), ("?q=SHOP%2Fweb+missing", None));
}

/// T9: axe-core finds no violation, and nothing is wider than the window or unreadably narrow, in each window and scheme.
#[test]
fn the_page_is_accessible() {
    let axe = std::env::var("AXE_CORE").expect("scripts/test-page sets AXE_CORE");
    let axe = std::fs::read_to_string(axe).unwrap();
    let folder = std::env::var("PAGE_PICTURES").expect("scripts/test-page sets PAGE_PICTURES");
    let (browser, sites) = (Browser::start(), [("ordinary", Site::ordinary()), ("hostile", Site::hostile())]);
    for (name, site) in &sites {
        site.open(&browser, "attention");
        for (width, scheme) in [(1000, "light"), (1000, "dark"), (360, "light"), (360, "dark")] {
            let what = format!("{name}-{width}-{scheme}");
            browser.look(width, scheme);
            browser.open(&site.url);
            std::fs::write(Path::new(&folder).join(format!("{what}.png")), browser.picture()).unwrap();
            let scroll_width = browser.value("document.documentElement.scrollWidth").as_u64().unwrap();
            assert!(scroll_width <= width.into(), "{what}: {scroll_width} px wide");
            // Text that is broken after each letter is as good as none.
            let narrow = "[...document.querySelectorAll('td, th, dd, p, strong')].filter(it => it.innerText.length > 6 && \
                          it.getBoundingClientRect().width < 40).map(it => it.innerText)";
            assert_eq!(browser.value(narrow), json!([]), "{what}");
            browser.value(&axe);
            let violations = browser.value(
                "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})\
                 .then(it => it.violations.map(it => [it.id, it.nodes.map(it => it.html)]))",
            );
            assert_eq!(violations, json!([]), "{what}");
            let passes = browser.value("axe.run(document).then(it => it.passes.map(it => it.id))");
            assert!(passes.as_array().unwrap().contains(&"color-contrast".into()), "{what}: axe-core has looked");
        }
    }
}
