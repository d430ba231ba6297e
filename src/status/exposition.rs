//! `/metrics`: the families of `metrics.rs` in the text form 0.0.4 of Prometheus (T4).

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::metrics::{FAMILIES, Family, Label, Values, View};
use super::process::Process;
use super::snapshot::{Identity, Snapshot};
use crate::metrics::{self as counters, Histogram};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole text.
pub fn exposition(identity: &Identity, snapshot: &Snapshot) -> String {
    let view = View { identity, snapshot, process: Process::read() };
    let mut text = String::with_capacity(32 * 1024);
    for family in FAMILIES {
        let Family { name, kind, help, .. } = family;
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        match &family.values {
            Values::Cells(cells) => {
                for (labels, cell) in combinations(family.labels).iter().zip(*cells) {
                    line(&mut text, name, labels, cell.load(Ordering::Relaxed));
                }
            }
            Values::Histograms(series) => {
                for (labels, histogram) in combinations(family.labels).into_iter().zip(*series) {
                    write_histogram(&mut text, name, labels, histogram);
                }
            }
            Values::Now(now) => now(&view).iter().for_each(|it| line(&mut text, name, &it.labels, it.value)),
        }
    }
    text
}

/// All combinations of the labels' values; those of the last label change fastest.
fn combinations(labels: &[Label]) -> Vec<Vec<(&'static str, String)>> {
    let mut all = vec![Vec::new()];
    for label in labels {
        let mut longer = Vec::new();
        for before in &all {
            for value in label.values {
                let mut labels = before.clone();
                labels.push((label.name, (*value).to_owned()));
                longer.push(labels);
            }
        }
        all = longer;
    }
    all
}

fn write_histogram(text: &mut String, name: &str, labels: Vec<(&'static str, String)>, histogram: &Histogram) {
    let bounds = counters::BOUNDS.iter().map(|(text, _)| *text).chain(["+Inf"]);
    let mut count = 0;
    for (bound, bucket) in bounds.zip(&histogram.buckets) {
        count += bucket.load(Ordering::Relaxed);
        let mut labels = labels.clone();
        labels.push(("le", bound.to_owned()));
        line(text, &format!("{name}_bucket"), &labels, count);
    }
    let sum = histogram.sum.load(Ordering::Relaxed) as f64 / 1e6;
    line(text, &format!("{name}_sum"), &labels, sum);
    line(text, &format!("{name}_count"), &labels, count);
}

fn line(text: &mut String, name: &str, labels: &[(&'static str, String)], value: impl std::fmt::Display) {
    text.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let begin = if index == 0 { '{' } else { ',' };
        let _ = write!(text, "{begin}{label}=\"{value}\"");
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(text, "{end} {value}");
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::model::finding::{Code, Finding};
    use crate::status::snapshot::{FabricView, State, Totals};

    fn identity() -> Identity {
        let controllers = vec!["apic1.example.net:443".to_owned(), "192.0.2.1:443".to_owned()];
        Identity {
            controllers,
            policy: "sync".to_owned(),
            started: 1000,
            lease: Some("kube-system/aci-sync".to_owned()),
            ..Identity::default()
        }
    }

    /// The series of an exposition and their values; every line is checked.
    fn series(text: &str) -> BTreeMap<String, f64> {
        let (mut all, mut described, mut typed) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(described.insert(name) && !help.is_empty(), "{line}");
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(described.contains(name) && typed.insert(name, kind).is_none(), "{line}");
                continue;
            }
            let (id, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = match id.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
                None => (id, ""),
            };
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family = of_histogram.filter(|family| typed.get(family) == Some(&"histogram")).unwrap_or(name);
            assert!(typed.contains_key(family), "{line}: no TYPE before it");
            for label in labels.split_terminator("\",") {
                let (label, value) = label.split_once("=\"").unwrap();
                assert!(label.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{line}");
                assert!(!value.contains('\\'), "{line}");
            }
            let value: f64 = value.parse().unwrap();
            assert!(all.insert(id.to_owned(), value).is_none(), "{line}: twice");
        }
        all
    }

    /// T4: the text can be parsed, and every series of every family is there from the start.
    #[test]
    fn every_series_exists_from_the_start() {
        let identity = identity();
        let empty = exposition(&identity, &Snapshot::empty());
        let before = series(&empty);
        for Family { name, kind, labels, values, .. } in FAMILIES {
            let count = before.keys().filter(|id| id.split('{').next() == Some(name)).count();
            let expected: usize = labels.iter().map(|label| label.values.len().max(1)).product();
            match values {
                Values::Histograms(series) => {
                    assert_eq!((*kind, series.len()), ("histogram", expected), "{name}");
                    let buckets = before.keys().filter(|id| id.starts_with(&format!("{name}_bucket"))).count();
                    assert_eq!(buckets, expected * (counters::BOUNDS.len() + 1), "{name}");
                }
                Values::Cells(cells) => assert_eq!((cells.len(), count), (expected, expected), "{name}"),
                Values::Now(_) => assert!(count >= expected, "{name}"),
            }
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
        }
        assert_eq!(before["aci_sync_last_in_sync_timestamp_seconds"], 1000.0);
        assert_eq!(before["aci_sync_state{state=\"waiting_for_kubernetes\"}"], 1.0);
        assert_eq!(before["aci_sync_apic_session_up{apic=\"2\"}"], 0.0);

        let finding = Finding::new(Code::DeletionsBlocked, "APIC", "x \" \\ \n");
        let fabric = FabricView {
            findings: [(finding, 7)].into(),
            totals: vec![Totals { class: "l3extSubnet", desired: 3, missing: 1, foreign: 2, ..Totals::default() }],
            ..FabricView::default()
        };
        let controller = Some("192.0.2.1:443".to_owned());
        let snapshot =
            Snapshot { fabric: Arc::new(fabric), controller, state: State::NeedsAttention(1), ..Snapshot::empty() };
        let text = exposition(&identity, &snapshot);
        let after = series(&text);
        assert!(before.keys().eq(after.keys()), "no series comes or goes");
        for (id, value) in [
            ("aci_sync_state{state=\"needs_attention\"}", 1.0),
            ("aci_sync_findings{code=\"DeletionsBlocked\"}", 1.0),
            ("aci_sync_open_findings", 1.0),
            ("aci_sync_desired_objects{class=\"l3extSubnet\"}", 3.0),
            ("aci_sync_fabric_objects{class=\"l3extSubnet\",owner=\"foreign\"}", 2.0),
            ("aci_sync_apic_session_up{apic=\"2\"}", 1.0),
        ] {
            assert_eq!(after[id], value, "{id}");
        }
        for forbidden in ["example", "192.0.2", "uni/", "x \""] {
            assert!(!text.contains(forbidden), "{forbidden}");
        }
    }

    /// T4: what would end a label or a line is escaped.
    #[test]
    fn labels_are_escaped() {
        let mut text = String::new();
        line(&mut text, "a", &[("b", "x\"y\\z\n".to_owned()), ("c", "1".to_owned())], 0.5);
        assert_eq!(text, "a{b=\"x\\\"y\\\\z\\n\",c=\"1\"} 0.5\n");
    }
}
