//! `/`: the state for people, as one HTML document without scripts (T9). It holds what `/status.json` has, in an order to read:
//! is all well, what has to be done, and what is there.

mod html;
mod sections;

use std::time::Duration;

use self::html::{Html, duration};
use super::request::Request;
use super::server::Response;
use super::snapshot::{FabricView, Identity, Publisher, Snapshot, State};
use crate::model::finding::counted;
use crate::model::observed::{EPG, SUBNET};
use crate::time;

/// Data of this age are marked: the daemon publishes its state every 5 s.
const OLD: Duration = Duration::from_secs(15);

/// The pauses between two loads that a client may ask for, in seconds.
const REFRESH: std::ops::RangeInclusive<u32> = 5..=3600;

/// The whole style. The Content-Security-Policy names its hash, and nothing else is applied.
const STYLE: &str = include_str!("style.css");

/// Answers a request for the page.
pub fn answer(request: &Request, publisher: &Publisher) -> Response {
    let query = request.parameter("q").unwrap_or_default();
    let refresh = request.parameter("refresh").and_then(|it| it.parse().ok()).filter(|it| REFRESH.contains(it));
    let (snapshot, is_stalled) = (publisher.latest(), publisher.is_stalled());
    let filter = Filter::new(&query);
    let (identity, now) = (publisher.identity(), time::unix_now());
    let page = Page { identity, snapshot: &snapshot, is_stalled, filter, query: &query, refresh, now };
    let mut headers = vec![("Content-Security-Policy", content_security_policy())];
    headers.extend(refresh.map(|it| ("Refresh", it.to_string())));
    Response { headers, ..Response::new(200, "text/html; charset=utf-8", page.html().into_bytes()) }
}

/// Nothing is loaded, run or framed, and no style counts but ours.
fn content_security_policy() -> String {
    let hash = openssl::base64::encode_block(&openssl::sha::sha256(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    )
}

/// The words of `?q=`: what is listed contains each of them, in whatever case.
struct Filter(Vec<String>);

impl Filter {
    fn new(query: &str) -> Filter {
        Filter(query.split_whitespace().map(str::to_lowercase).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` is made only if there is a filter.
    fn matches(&self, text: impl FnOnce() -> String) -> bool {
        if self.is_empty() {
            return true;
        }
        let text = text().to_lowercase();
        self.0.iter().all(|word| text.contains(word.as_str()))
    }
}

/// How something is: a class of the style, and a sign, so that nothing is said by colour alone.
type Tone = (&'static str, &'static str);
const GOOD: Tone = ("good", "\u{2713}");
const BAD: Tone = ("bad", "!");
const BUSY: Tone = ("busy", "\u{2026}");
const NOTE: Tone = ("busy", "\u{2022}");
const IDLE: Tone = ("idle", "\u{2013}");

fn tone(state: State) -> Tone {
    match state {
        State::InSync(_) => GOOD,
        State::NeedsAttention(_) | State::Retrying => BAD,
        State::Standby | State::Observing => IDLE,
        State::WaitingForKubernetes
        | State::WaitingForApic
        | State::FirstSync
        | State::Syncing
        | State::WaitingForAnswer => BUSY,
    }
}

/// For a browser's tab.
fn title(state: State) -> String {
    match state {
        State::NeedsAttention(1) => "1 needs attention".to_owned(),
        State::NeedsAttention(count) => format!("{count} need attention"),
        State::InSync(_) => "in sync".to_owned(),
        State::Standby => "standby".to_owned(),
        State::Observing => "observing".to_owned(),
        other => other.to_string(),
    }
}

/// Signs in a browser's tab. A document without one would make the browser ask for `/favicon.ico`.
fn icon((class, _): Tone) -> &'static str {
    macro_rules! icon {
        ($colour:literal, $shape:literal) => {
            concat!(
                "<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' ",
                "fill='none' stroke='white' stroke-width='2.2' stroke-linecap='round'%3E%3Ccircle cx='8' cy='8' r='8' ",
                "stroke='none' fill='%23",
                $colour,
                "'/%3E%3Cpath d='",
                $shape,
                "'/%3E%3C/svg%3E\">"
            )
        };
    }
    match class {
        "good" => icon!("17693f", "M4.5 8.5 7 11l4.5-5.5"),
        "bad" => icon!("a8201a", "M8 3.8v5M8 12v.1"),
        "busy" => icon!("1d55b5", "M4.5 8h.1M8 8h.1M11.5 8h.1"),
        _ => icon!("4d565f", "M5 8h6"),
    }
}

struct Page<'a> {
    identity: &'a Identity,
    snapshot: &'a Snapshot,
    is_stalled: bool,
    filter: Filter,
    query: &'a str,
    refresh: Option<u32>,
    now: u64,
}

impl Page<'_> {
    fn html(&self) -> Html {
        let (mut page, tone) = (Html::default(), tone(self.snapshot.state));
        page.raw("<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<meta name='viewport' ");
        page.raw("content='width=device-width, initial-scale=1'>\n<title>").text(title(self.snapshot.state));
        page.within(" \u{b7} aci-sync ", &self.identity.instance, "</title>\n").raw(icon(tone));
        page.raw("\n<style>").raw(STYLE).raw("</style>\n</head>\n<body>\n<header>\n");
        self.header(&mut page, tone);
        page.raw("</header>\n<main>\n");
        page.raw("<section aria-label='Overview'>\n");
        self.tiles(&mut page);
        self.facts(&mut page);
        page.raw("</section>\n");
        self.findings(&mut page);
        self.blocked(&mut page);
        self.epgs(&mut page);
        self.reconciles(&mut page);
        page.raw("</main>\n<footer>\n<p>Nothing can be changed here. All times are UTC. The same for programs: ");
        page.raw("<a href='/status.json'>/status.json</a>, <a href='/metrics'>/metrics</a>.</p>\n");
        page.within("<p>aci-sync ", env!("CARGO_PKG_VERSION"), "</p>\n</footer>\n</body>\n</html>\n");
        page
    }

    fn fabric(&self) -> &FabricView {
        &self.snapshot.fabric
    }

    fn header(&self, page: &mut Html, (class, sign): Tone) {
        page.within("<h1>aci-sync on ", &self.identity.instance, "</h1>\n");
        page.within("<div class='state ", class, "'><span aria-hidden='true'>").text(sign).raw("</span><div>");
        page.within("<strong>", self.snapshot.state, "</strong>");
        self.age(page);
        page.raw("</div></div>\n<div class='bar'>\n<nav aria-label='Sections'><ul>");
        page.within("<li><a href='#findings'>Findings (", self.fabric().findings.len(), ")</a></li>");
        if !self.fabric().blocked.is_empty() {
            page.within("<li><a href='#blocked'>Blocked (", self.fabric().blocked.len(), ")</a></li>");
        }
        page.within("<li><a href='#epgs'>EPGs (", self.fabric().epgs.len(), ")</a></li>");
        page.raw("<li><a href='#reconciles'>Reconciles</a></li></ul></nav>\n");
        self.form(page);
        page.raw("</div>\n");
        if let Some(pause) = self.refresh {
            page.within("<p class='note'>This page loads again every ", counted(pause as usize, "second"), ".</p>\n");
        }
    }

    fn age(&self, page: &mut Html) {
        let age = self.snapshot.made.elapsed();
        let made = time::rfc3339(self.now.saturating_sub(age.as_secs()));
        page.raw("<p>");
        if age > OLD {
            page.raw("<span class='pill bad'>OLD</span> ");
        }
        page.within("as of <time datetime='", &made, "'>").text(made.replace('T', " ").replace('Z', ""));
        page.within("</time> <span class='ago'>(", duration(age.as_secs()), " ago)</span>");
        if self.is_stalled {
            page.raw("; the event loop makes no progress");
        } else if age > OLD {
            page.raw("; the daemon is busy, for example with a reconcile, or hangs");
        }
        page.raw("</p>");
    }

    /// Which button is pressed decides whether the page goes on to load itself.
    fn form(&self, page: &mut Html) {
        page.raw("<form method='get' action='/' role='search'><label for='q'>Filter</label>");
        page.within("<input id='q' name='q' type='search' maxlength='64' value='", self.query, "'>");
        match self.refresh {
            None => page.raw("<button>Apply</button><button name='refresh' value='10'>Refresh every 10 s</button>"),
            Some(pause) => {
                page.within("<button name='refresh' value='", pause, "'>Apply</button>");
                page.raw("<button>Stop refreshing</button>")
            }
        };
        page.raw("</form>\n");
    }

    fn tiles(&self, page: &mut Html) {
        page.raw("<dl class='tiles'>\n");
        for (name, class) in [("EPGs", EPG), ("Subnets", SUBNET)] {
            let totals = self.fabric().totals.iter().find(|it| it.class == class);
            page.within("<div><dt>", name, "</dt><dd>");
            match totals {
                Some(it) => page.text(it.desired - it.missing).within(" <small>of ", it.desired, " present</small>"),
                None => page.raw("\u{2013}"),
            };
            page.raw("</dd></div>\n");
        }
        let open = self.fabric().findings.keys().filter(|finding| finding.code.is_open()).count();
        page.within("<div><dt>Need attention</dt><dd>", open, " <small>of ");
        page.text(counted(self.fabric().findings.len(), "finding")).raw("</small></dd></div>\n");
        page.within(
            "<div><dt>Deletions</dt><dd>",
            self.fabric().blocked.len(),
            " <small>blocked</small></dd></div>\n</dl>\n",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::status::service_manager::ServiceManager;

    pub(super) fn publisher(state: State, fabric: FabricView) -> Publisher {
        let identity = Identity { instance: "master-1".to_owned(), ..Identity::default() };
        let publisher = Publisher::new(identity, ServiceManager::default());
        let fabric = Arc::new(fabric);
        publisher.publish(Snapshot { state, fabric, ..Snapshot::empty() });
        publisher
    }

    pub(super) fn get(publisher: &Publisher, query: &str) -> (Response, String) {
        let response = answer(&Request { path: "/".to_owned(), query: query.to_owned(), head_only: false }, publisher);
        let text = String::from_utf8(response.body.to_vec()).unwrap();
        (response, text)
    }

    /// T9: the policy allows exactly the style that is sent, and the page loads again only if that is asked for.
    #[test]
    fn headers() {
        let publisher = publisher(State::InSync(0), FabricView::default());
        let (response, text) = get(&publisher, "");
        let style = text.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).unwrap().0;
        let hash = openssl::base64::encode_block(&openssl::sha::sha256(style.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'self'; \
             frame-ancestors 'none'"
        );
        assert_eq!(response.headers, [("Content-Security-Policy", policy)]);
        for (query, refresh) in [
            ("refresh=10", Some("10")),
            ("refresh=3600", Some("3600")),
            ("refresh=4", None),
            ("refresh=3601", None),
            ("refresh=10%0d%0aX:y", None),
            ("refresh=", None),
        ] {
            let (response, text) = get(&publisher, query);
            let header = response.headers.iter().find(|(name, _)| *name == "Refresh").map(|(_, value)| value.as_str());
            assert_eq!((header, text.contains("Stop refreshing")), (refresh, refresh.is_some()), "{query}");
        }
    }

    /// T9: each state has a sign and words; old data and a stalled loop are marked.
    #[test]
    fn states_and_ages() {
        for (state, headline, title) in [
            (
                State::InSync(0),
                "<div class='state good'><span aria-hidden='true'>\u{2713}</span><div><strong>in sync</",
                "in sync",
            ),
            (State::InSync(1), "<strong>in sync; 1 finding</strong>", "in sync"),
            (State::NeedsAttention(2), "<div class='state bad'><span aria-hidden='true'>!</span>", "2 need attention"),
            (State::Standby, "<strong>standby: another process holds the Lease</strong>", "standby"),
            (State::WaitingForApic, "<div class='state busy'>", "waiting for the APIC"),
        ] {
            let publisher = publisher(state, FabricView::default());
            let (_, text) = get(&publisher, "");
            assert!(text.contains(headline) && text.contains(&format!("<title>{title} \u{b7} aci-sync")), "{text}");
            assert!(!text.contains("OLD"), "{text}");
        }
        let publisher = publisher(State::InSync(0), FabricView::default());
        let made = Instant::now().checked_sub(OLD + Duration::from_secs(1)).unwrap();
        publisher.publish(Snapshot { made, ..Snapshot::empty() });
        let (_, text) = get(&publisher, "");
        assert!(text.contains("<span class='pill bad'>OLD</span>") && text.contains("(16 s ago)"), "{text}");
        publisher.set_stalled(true);
        assert!(get(&publisher, "").1.contains("; the event loop makes no progress"));
    }
}
