//! What the page lists: peers and credentials, findings, blocked deletions, EPGs, reconciles.

use super::html::{Html, duration, seconds};
use super::{BAD, BUSY, GOOD, IDLE, NOTE, Page, Tone};
use crate::model::finding::{Code, Finding, counted};
use crate::model::plan::Tally;
use crate::status::credentials::NEAR;
use crate::status::{EpgView, ReconcileEntry};
use crate::time;

/// The most findings and blocked deletions that are shown, and the most EPGs.
pub(super) const MAX_FINDINGS: usize = 200;
pub(super) const MAX_EPGS: usize = 500;

impl Page<'_> {
    /// The heading of a section, and how much of it the filter leaves.
    fn heading(&self, page: &mut Html, heading: &'static str, shown: usize, total: usize) {
        page.raw(heading);
        if !self.filter.is_empty() {
            page.within(" <span class='pill idle'>", shown, " of ").text(total).raw(" match</span>");
        }
        page.raw("</h2>\n");
    }

    pub(super) fn findings(&self, page: &mut Html) {
        let findings = &self.fabric().findings;
        let matches = |(finding, _): &(&Finding, &u64)| self.filter.matches(|| finding.to_string());
        let mut listed: Vec<(&Finding, &u64)> = findings.iter().filter(matches).collect();
        listed.sort_by_key(|(finding, _)| rank(finding.code));
        page.raw("<section aria-labelledby='findings'>\n");
        self.heading(page, "<h2 id='findings'>Findings", listed.len(), findings.len());
        if listed.is_empty() {
            page.raw(if findings.is_empty() { "<p class='none'>No findings.</p>\n" } else { NO_MATCH });
        } else {
            page.raw("<ul class='list'>\n");
            listed.iter().take(MAX_FINDINGS).for_each(|(finding, since)| self.finding(page, finding, **since));
            page.raw("</ul>\n");
        }
        more(page, listed.len(), MAX_FINDINGS);
        page.raw("</section>\n");
    }

    fn finding(&self, page: &mut Html, finding: &Finding, since: u64) {
        let Finding { code, subject, text, .. } = finding;
        let (tone, word) = match rank(*code) {
            0 => (BAD, "needs attention"),
            1 => (NOTE, "finding"),
            _ => (IDLE, "notice"),
        };
        page.within("<li class='", tone.0, "'>\n<p class='what'><span class='pill'>").text(tone.1).text(" ");
        page.within("", word, "</span> <strong>").text(code).within("</strong> <code>", subject, "</code></p>\n");
        page.within("<p class='words'>", text, "</p>\n<p><strong>To do:</strong> ").text(code.remedy());
        page.raw("</p>\n<p class='since'>since ").time(since, self.now).raw("</p>\n</li>\n");
    }

    pub(super) fn blocked(&self, page: &mut Html) {
        let blocked = &self.fabric().blocked;
        if blocked.is_empty() {
            return;
        }
        let listed: Vec<_> = blocked.iter().filter(|object| self.filter.matches(|| object.to_string())).collect();
        page.raw("<section aria-labelledby='blocked'>\n");
        self.heading(page, "<h2 id='blocked'>Blocked deletions", listed.len(), blocked.len());
        page.raw(
            "<div class='box'>\n<p>A full sync called for more deletions than <code>--max-deletes</code> allows. ",
        );
        page.raw("Nothing of them is sent until you approve. Check that this is the right, complete cluster; then ");
        page.raw("approve on this machine with</p>\n<pre tabindex='0'><code>");
        page.raw("sudo systemctl kill --kill-who=main --signal=USR2 aci-sync</code></pre>\n");
        if listed.is_empty() {
            page.raw(NO_MATCH);
        } else {
            page.raw("<div class='scroll' role='region' aria-label='Their DNs' tabindex='0'><ul>\n");
            for object in listed.iter().take(MAX_FINDINGS) {
                page.within("<li><code>", object, "</code></li>\n");
            }
            page.raw("</ul></div>\n");
        }
        more(page, listed.len(), MAX_FINDINGS);
        page.raw("</div>\n</section>\n");
    }

    pub(super) fn epgs(&self, page: &mut Html) {
        let epgs = &self.fabric().epgs;
        let listed: Vec<&EpgView> = epgs.iter().filter(|epg| self.filter.matches(|| searchable(epg))).collect();
        page.raw("<section aria-labelledby='epgs'>\n");
        self.heading(page, "<h2 id='epgs'>EPGs", listed.len(), epgs.len());
        if listed.is_empty() {
            page.raw(if epgs.is_empty() { "<p class='none'>No EPGs.</p>\n" } else { NO_MATCH });
        } else {
            page.raw("<div class='scroll' role='region' aria-label='Table of EPGs' tabindex='0'>\n<table>\n<caption>");
            page.raw("EPGs that workloads name or that hold something of aci-sync</caption>\n");
            page.raw("<thead><tr><th scope='col'>State</th><th scope='col'>EPG</th>");
            page.raw("<th scope='col' class='number'>Subnets present</th>");
            page.raw("<th scope='col' class='number'>Contracts</th><th scope='col'>Owner</th>");
            page.raw("<th scope='col'>Workloads</th></tr></thead>\n<tbody>\n");
            listed.iter().take(MAX_EPGS).for_each(|epg| self.epg(page, epg));
            page.raw("</tbody>\n</table>\n</div>\n");
        }
        more(page, listed.len(), MAX_EPGS);
        page.raw("</section>\n");
    }

    fn epg(&self, page: &mut Html, epg: &EpgView) {
        let (tone, words) = state_of(epg);
        page.within("<tr><td><span class='mark ", tone.0, "'>").within("", tone.1, " ").within("", words, "</span>");
        if let Some(until) = epg.grace_until.map(time::unix_of) {
            page.within(", <time datetime='", time::rfc3339(until), "'>");
            page.text(duration(until.saturating_sub(self.now))).raw(" left</time>");
        }
        page.within("</td><th scope='row'><code><span>", &epg.dn.l3out, "</span><wbr><span>/instP-");
        page.text(&epg.dn.name);
        page.within("</span></code></th><td class='number'>", epg.present, " of ").text(epg.desired);
        page.within("</td><td class='number'>", epg.contracts, "</td><td>");
        page.text(epg.owner.map_or("\u{2013}", |owner| owner.name()).replace('_', " ")).raw("</td><td class='wide'>");
        for (index, workload) in epg.workloads.iter().enumerate() {
            page.raw(if index == 0 { "" } else { ", " }).within("<code>", workload, "</code>");
        }
        if epg.workloads_total > epg.workloads.len() {
            page.within(" and ", epg.workloads_total - epg.workloads.len(), " more");
        }
        page.raw("</td></tr>\n");
    }

    /// Who leads, the peers, and when credentials end.
    pub(super) fn facts(&self, page: &mut Html) {
        let (snapshot, identity) = (self.snapshot, self.identity);
        page.raw("<dl class='facts'>\n<dt>Leader</dt><dd>");
        match (&identity.lease, snapshot.leader) {
            (None, _) => mark(page, GOOD, "yes, without leader election"),
            (Some(lease), true) => mark(page, GOOD, "yes, Lease ").text(lease),
            (Some(lease), false) => mark(page, IDLE, "no, standby for the Lease ").text(lease),
        };
        page.within("; policy ", &identity.policy, "; cluster id ");
        page.text(snapshot.cluster_id.as_deref().unwrap_or("not known yet"));
        page.raw("</dd>\n<dt>Kubernetes</dt><dd>");
        mark(page, if snapshot.incomplete.is_empty() { GOOD } else { BUSY }, &identity.server);
        for &(kind, count) in &snapshot.objects {
            page.text("; ").text(counted(count, &kind.to_string()));
            page.raw(if snapshot.incomplete.contains(&kind) { " (incomplete)" } else { "" });
        }
        page.raw("</dd>\n<dt>APIC</dt><dd>");
        match &snapshot.controller {
            Some(controller) => mark(page, GOOD, "session at ").text(controller),
            None if !snapshot.leader => mark(page, IDLE, "no session on a standby"),
            None => mark(page, BAD, "no session; controllers: ").text(identity.controllers.join(", ")),
        };
        let l3outs = &self.fabric().l3outs;
        page.text("; ").text(counted(l3outs.len(), "L3Out"));
        let missing = l3outs.iter().filter(|l3out| l3out.epgs.is_none()).count();
        if missing > 0 {
            page.within(" (", missing, " not found)");
        }
        page.raw("</dd>\n");
        let moments = [
            ("Last full sync", snapshot.activity.last_full_sync),
            ("Last in sync", snapshot.activity.last_in_sync),
            ("Started", Some(identity.started)),
        ];
        for (name, time) in moments {
            page.within("<dt>", name, "</dt><dd>");
            match time {
                Some(seconds) => page.time(seconds, self.now),
                None => page.raw("not yet"),
            };
            page.raw("</dd>\n");
        }
        self.credentials(page);
        page.raw("</dl>\n");
    }

    /// The nearest end first.
    fn credentials(&self, page: &mut Html) {
        let credentials = self.snapshot.credentials.iter();
        let mut ends: Vec<(u64, &str)> = credentials.filter_map(|(name, end)| Some((end?, name))).collect();
        ends.sort_unstable();
        page.raw("<dt>Credentials</dt><dd>");
        for (end, name) in &ends {
            let is_near = *end < self.now + NEAR;
            page.raw("<span class='line'>");
            mark(page, if is_near { BAD } else { GOOD }, name.replace('_', " "));
            page.raw(if *end < self.now { " ended " } else { " ends " }).text(time::distance(*end, self.now));
            page.within(", <time datetime='", time::rfc3339(*end), "'>");
            page.text(time::rfc3339(*end).get(..10).unwrap_or_default()).raw("</time></span>");
        }
        page.raw(if ends.is_empty() { "none that ends</dd>\n" } else { "</dd>\n" });
    }

    pub(super) fn reconciles(&self, page: &mut Html) {
        let reconciles = &self.snapshot.activity.reconciles;
        page.raw("<section aria-labelledby='reconciles'>\n<h2 id='reconciles'>Reconciles</h2>\n");
        if reconciles.is_empty() {
            page.raw("<p class='none'>No reconcile has ended yet.</p>\n</section>\n");
            return;
        }
        page.raw("<div class='scroll' role='region' aria-label='Table of reconciles' tabindex='0'>\n<table>\n");
        page.raw("<caption>The last 20, the latest first</caption>\n");
        page.raw("<thead><tr><th scope='col'>End</th><th scope='col'>Cause</th>");
        page.raw("<th scope='col'>Outcome</th><th scope='col' class='number'>Took</th></tr></thead>\n<tbody>\n");
        for ReconcileEntry { at, took, why, changes, error } in reconciles.iter().rev() {
            page.raw("<tr><th scope='row'>").time(*at, self.now);
            page.within("</th><td>", why.name().replace('_', " "), "</td><td class='wide'>");
            match error {
                Some(error) => mark(page, BAD, "failed: ").within("<span class='words'>", error, "</span>"),
                None => page.text(outcome(changes)),
            };
            page.within("</td><td class='number'>", seconds(*took), "</td></tr>\n");
        }
        page.raw("</tbody>\n</table>\n</div>\n</section>\n");
    }
}

const NO_MATCH: &str = "<p class='none'>Nothing matches the filter.</p>\n";

/// What holds something back comes first, and what only says what goes on last.
fn rank(code: Code) -> u8 {
    match (code.is_open(), code.is_notice()) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    }
}

/// The state of an EPG in words; its tone is that of its rank.
fn state_of(epg: &EpgView) -> (Tone, String) {
    match epg {
        _ if epg.grace_until.is_some() => (BUSY, "in grace".to_owned()),
        _ if !epg.is_desired() => (IDLE, "no longer desired".to_owned()),
        EpgView { owner: None, .. } => (BAD, "EPG missing".to_owned()),
        _ if epg.present < epg.desired => (BAD, format!("{} missing", epg.desired - epg.present)),
        _ if epg.surplus > 0 => (BUSY, format!("{} surplus", epg.surplus)),
        _ => (GOOD, "in sync".to_owned()),
    }
}

/// What the filter looks at.
fn searchable(epg: &EpgView) -> String {
    let owner = epg.owner.map_or("", |owner| owner.name());
    let workloads: Vec<String> = epg.workloads.iter().map(ToString::to_string).collect();
    format!("{} {owner} {} {}", epg.dn, state_of(epg).1, workloads.join(" "))
}

/// Words with their sign.
fn mark(page: &mut Html, tone: Tone, words: impl std::fmt::Display) -> &mut Html {
    page.within("<span class='mark ", tone.0, "'>").within("", tone.1, "</span> ").text(words)
}

/// What a reconcile changed.
fn outcome(changes: &Tally) -> String {
    let counts = [(changes.created, "created"), (changes.updated, "updated"), (changes.deleted, "deleted")];
    let parts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() { "no changes".to_owned() } else { parts.join(", ") }
}

/// How many a list leaves out.
fn more(page: &mut Html, listed: usize, most: usize) {
    if listed > most {
        page.within("<p class='note'>", listed - most, " more: <code>aci-sync status -o json</code></p>\n");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{get, publisher};
    use super::*;
    use crate::model::dn::{L3outDn, Name};
    use crate::model::kubernetes::{Key, Kind, Workload};
    use crate::model::owner::Ownership;
    use crate::status::credentials::CredentialEnds;
    use crate::status::{FabricView, Snapshot, State};

    fn epg(name: &str, owner: Option<Ownership>, present: usize) -> EpgView {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        EpgView {
            dn: l3out.epg(Name::object(name).unwrap()),
            owner,
            workloads: vec![Workload { kind: Kind::Deployment, key: Key::new("shop", name) }],
            workloads_total: 1,
            desired: 2,
            present,
            surplus: 0,
            contracts: 0,
            grace_until: None,
        }
    }

    fn finding(number: usize) -> (Finding, u64) {
        let code = if number == 7 { Code::Rejected } else { Code::UnknownKey };
        (Finding::new(code, (Kind::Deployment, &Key::new("shop", &format!("d{number:03}"))), "a text"), 0)
    }

    /// T9, T10: the credential that ends first is named first, and marked if it ends within 30 days.
    #[test]
    fn credentials_that_end() {
        let publisher = publisher(State::InSync(0), FabricView::default());
        assert!(get(&publisher, "").1.contains("<dt>Credentials</dt><dd>none that ends</dd>"));
        let now = time::unix_now();
        let credentials = CredentialEnds([now + 40 * 86_400 + 60, 0, 0, 0, now + 11 * 86_400 + 60, now - 2 * 86_400]);
        publisher.publish(Snapshot { credentials, ..Snapshot::empty() });
        let (_, text) = get(&publisher, "");
        let lines: Vec<&str> = text.split("<span class='line'>").skip(1).collect();
        for (line, parts) in lines.iter().zip([
            ["mark bad'>!</span>", " kubernetes token ended 2 days ago, <time datetime='20"],
            ["mark bad'>!</span>", " kubernetes client certificate ends in 11 days, "],
            ["mark good'>\u{2713}</span>", " apic certificate ends in 40 days, "],
        ]) {
            assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} in {line}");
        }
        assert_eq!(lines.len(), 3);
    }

    /// T9: what is wrong comes first, the lists have an end that is named, and the filter looks at everything.
    #[test]
    fn lists_are_ordered_limited_and_filtered() {
        let mut epgs = vec![epg("LATE", None, 0)];
        epgs.extend((0..MAX_EPGS).map(|number| epg(&format!("E{number:03}"), Some(Ownership::Owned), 2)));
        let findings = (0..MAX_FINDINGS + 2).map(finding).collect();
        let fabric = FabricView { findings, epgs: Arc::new(epgs), ..FabricView::default() };
        let publisher = publisher(State::NeedsAttention(1), fabric);
        let (_, text) = get(&publisher, "");
        assert!(text.contains("<title>1 needs attention \u{b7} aci-sync master-1</title>"));
        assert_eq!((text.matches("<li class='b").count(), text.matches("<th scope='row'>").count()), (200, 500));
        assert!(text.find("shop/d007").unwrap() < text.find("shop/d000").unwrap(), "it needs attention");
        assert!(text.find("instP-LATE").unwrap() < text.find("instP-E000").unwrap(), "it is missing");
        for more in ["<p class='note'>2 more: <code>aci-sync status -o json", "<p class='note'>1 more: <code>aci-sync"]
        {
            assert!(text.contains(more), "{more}");
        }
        for (query, findings, epgs) in [
            ("q=D201", 1, 0),
            ("q=+late++shop%2F", 0, 1),
            ("q=missing", 0, 1),
            ("q=late+E001", 0, 0),
            ("q=rejected", 1, 0),
        ] {
            let (_, text) = get(&publisher, query);
            let count = |part: &str| text.matches(part).count();
            assert_eq!((count("<li class='b"), count("<th scope='row'>")), (findings, epgs), "{query}");
            assert!(text.contains(&format!("{epgs} of 501 match")), "{query}");
        }
        let (_, text) = get(&publisher, "q=%22%3E%3Cscript%3E&refresh=10");
        assert!(text.contains("value='&quot;&gt;&lt;script&gt;'") && !text.contains("<script"), "{text}");
    }
}
