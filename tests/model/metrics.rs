//! The metrics' table, the document that is made from it, and the alerts and the dashboard that use it.

use std::collections::HashSet;

use aci_sync::model::finding::Code;
use aci_sync::status::State;
use aci_sync::status::metrics::{self, FAMILIES};
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

/// T4: docs/metrics.md shows the table of families; `BLESS=1` writes it.
#[test]
fn the_metrics_page_has_the_table() {
    let page = read("docs/metrics.md");
    let (before, rest) = page.split_once("<!-- metrics -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /metrics -->").unwrap();
    let right = format!("{before}<!-- metrics -->\n{}<!-- /metrics -->{after}", metrics::markdown());
    if page != right && std::env::var_os("BLESS").is_some() {
        return std::fs::write(format!("{ROOT}/docs/metrics.md"), right).unwrap();
    }
    assert_eq!(page, right, "BLESS=1 writes it");
}

/// T4: the metric of findings has a series for every code.
#[test]
fn every_code_of_a_finding_has_a_series() {
    let source = read("src/model/finding.rs");
    let codes = source.split("pub enum Code {").nth(1).unwrap().split("\n}").next().unwrap();
    let declared: HashSet<String> =
        codes.lines().filter_map(|it| it.trim().strip_suffix(',')).map(str::to_owned).collect();
    let all: HashSet<String> = Code::ALL.iter().map(ToString::to_string).collect();
    assert_eq!((&all, all.len()), (&declared, Code::ALL.len()));
}

/// The metrics that a text names, with the label matchers that follow each.
fn named_metrics(text: &str) -> Vec<(&str, &str)> {
    let is_of_name = |it: char| it.is_ascii_lowercase() || it == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(is_of_name) {
        rest = &rest[begin..];
        let (name, after) = rest.split_at(rest.find(|it| !is_of_name(it)).unwrap_or(rest.len()));
        if ["aci_sync_", "leader_election_", "process_"].iter().any(|prefix| name.starts_with(prefix)) {
            let matchers = after.strip_prefix('{').and_then(|it| it.split('}').next()).unwrap_or_default();
            found.push((name, matchers));
        }
        rest = after;
    }
    found
}

/// Fails if a metric, a label or a label's value does not exist.
fn check_metrics(text: &str) -> usize {
    let found = named_metrics(text);
    for (name, matchers) in &found {
        let named = |name: &str| FAMILIES.iter().find(|family| family.name == name);
        let of_histogram = name.strip_suffix("_bucket").and_then(named).filter(|family| family.kind == "histogram");
        let family = named(name).or(of_histogram).unwrap_or_else(|| panic!("{name} in {text}"));
        for matcher in matchers.split_terminator(',') {
            let (label, value) = matcher.split_once('=').unwrap();
            if matches!(label, "job" | "instance") {
                continue;
            }
            let label =
                family.labels.iter().find(|it| it.name == label).unwrap_or_else(|| panic!("{matcher} in {text}"));
            let codes = Code::ALL.map(|code| code.to_string());
            let is_known = |value: &str| match (family.name, label.name) {
                ("aci_sync_findings", "code") => codes.iter().any(|code| code == value),
                ("aci_sync_config_info", "policy") => ["sync", "upsert-only", "observe"].contains(&value),
                _ => label.values.contains(&value),
            };
            assert!(value.trim_matches(['~', '"']).split('|').all(is_known), "{matcher} in {text}");
        }
    }
    found.len()
}

/// T4: every metric, label and value that the alerts use exists.
#[test]
fn the_alerts_use_what_exists() {
    let rules = read("deploy/prometheus/aci-sync.rules.yaml");
    let count: usize = rules.lines().filter(|line| !line.trim().starts_with('#')).map(check_metrics).sum();
    assert!(count > 8, "only {count} metrics were found");
    let page = read("docs/metrics.md");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(page.contains(&format!("| `{alert}` |")), "docs/metrics.md: {alert}");
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/aci-sync.json")).unwrap()
}

/// The panels that show something, with their expressions.
fn panels(dashboard: &Value) -> Vec<(&Value, Vec<&str>)> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        all.push((panel, targets.iter().map(|target| target["expr"].as_str().unwrap()).collect()));
    }
    all
}

/// T4: every metric, label and value of the dashboard exists, and each panel follows the variables at its top.
#[test]
fn the_dashboard_uses_what_exists() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    assert!(panels.len() > 25, "only {} panels", panels.len());
    for (panel, expressions) in panels {
        assert!(!expressions.is_empty(), "{panel}");
        for text in &expressions {
            assert!(check_metrics(text) > 0, "{text}");
            for (name, matchers) in named_metrics(text) {
                assert!(matchers.starts_with(r#"job="$job",instance=~"$instance""#), "{name} in {text}");
            }
        }
        for source in panel["targets"].as_array().unwrap().iter().chain([panel]) {
            assert_eq!(source["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}), "{panel}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    for variable in &variables[1..] {
        assert_eq!(check_metrics(variable["query"]["query"].as_str().unwrap()), 1, "{variable}");
    }
}

/// T4: what a panel calls a state is that state.
#[test]
fn the_dashboard_names_every_state() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    let (panel, expressions) = panels.iter().find(|(panel, _)| panel["title"] == "State").unwrap();
    let names = &panel["fieldConfig"]["defaults"]["mappings"][0]["options"];
    assert_eq!(names.as_object().unwrap().len(), State::NAMES.len());
    for (index, state) in State::NAMES.iter().enumerate() {
        let number = (index + 1).to_string();
        let term = format!(r#"{number} * aci_sync_state{{job="$job",instance=~"$instance",state="{state}"}}"#);
        assert!(expressions[0].contains(&term), "{term}");
        let words = names[&number]["text"].as_str().unwrap();
        assert_eq!(words.to_lowercase().replace(' ', "_"), *state);
    }
}

/// T4: Grafana can import the dashboard: fixed names, unique ids, no panel on another, nothing from elsewhere.
#[test]
fn the_dashboard_can_be_imported() {
    let dashboard = dashboard();
    assert_eq!((&dashboard["uid"], &dashboard["schemaVersion"]), (&json!("aci-sync"), &json!(39)));
    assert_eq!((&dashboard["id"], &dashboard["__inputs"][0]["pluginId"]), (&Value::Null, &json!("prometheus")));
    let input = format!("${{{}}}", dashboard["__inputs"][0]["name"].as_str().unwrap());
    assert_eq!(dashboard["templating"]["list"][0]["current"]["value"], input);
    let all = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> =
        all.iter().filter(|panel| panel["type"] == "row").map(|panel| panel["title"].as_str().unwrap()).collect();
    assert_eq!(rows, ["Now", "Changes", "Peers", "Process"]);

    let required: HashSet<&str> =
        dashboard["__requires"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    let (mut ids, mut cells) = (HashSet::new(), HashSet::new());
    for panel in all {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the id {}", panel["id"]);
        let kind = panel["type"].as_str().unwrap();
        assert!(kind == "row" || required.contains(kind), "{kind} is not in __requires");
        // All of them come with Grafana.
        assert!(["row", "stat", "table", "timeseries", "state-timeline", "heatmap"].contains(&kind), "{kind}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{} is on another panel at {cell:?}", panel["title"]);
        }
    }
    let text = read("deploy/grafana/aci-sync.json");
    for forbidden in ["://", "<script", "<img"] {
        assert!(!text.contains(forbidden), "{forbidden}");
    }
}
