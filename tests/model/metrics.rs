//! The metrics' table and the documents that are made from it.

use std::collections::HashSet;

use aci_sync::model::finding::Code;
use aci_sync::status::metrics::{self, FAMILIES};

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

/// T4: every metric that the alerts use is in the table.
#[test]
fn the_alerts_use_what_exists() {
    let names: HashSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let is_of_name = |it: char| it.is_ascii_lowercase() || it == '_';
    let mut count = 0;
    for line in read("deploy/prometheus/aci-sync.rules.yaml").lines().filter(|line| !line.trim().starts_with('#')) {
        for word in line.split(|it| !is_of_name(it)).filter(|it| it.starts_with("aci_sync_")) {
            let family = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(names.contains(family), "{word}");
            count += 1;
        }
    }
    assert!(count > 8, "only {count} metrics were found");
}
