//! Findings about the annotations of a workload (D1 to D3, W6).

use super::binding::UnknownKeys;
use super::finding::{Code, Finding};
use super::inventory::ManagedWorkload;
use super::kubernetes::{BINDING_ANNOTATION, PAUSE_ANNOTATION};
use super::rules::Rules;

/// What is wrong with the annotations of a managed workload. If its namespace may not use what it names, nothing else
/// about it matters (W6).
pub(super) fn annotation_findings(managed: &ManagedWorkload, rules: &Rules) -> Vec<Finding> {
    let subject = managed.workload();
    if let Some(why) = not_allowed(managed, rules) {
        return vec![Finding::new(Code::NotAllowed, subject, why)];
    }
    let mut findings = Vec::new();
    let invalid = invalid(managed);
    if !invalid.is_empty() {
        findings.push(Finding::new(Code::InvalidAnnotation, subject, invalid.join("; ")));
    }
    let unknown = unknown(managed);
    if !unknown.is_empty() {
        findings.push(Finding::new(Code::UnknownKey, subject, unknown.join("; ")));
    }
    if let Some(epg) = managed.bound_epg(rules).filter(|_| managed.record.paused) {
        let text =
            format!("addresses in {epg} are not added, removed or repaired while the {} is paused", subject.kind);
        findings.push(Finding::new(Code::Paused, subject, text));
    }
    findings
}

/// W6: why the workload may not use the EPG that it names.
fn not_allowed(managed: &ManagedWorkload, rules: &Rules) -> Option<String> {
    let epg = &managed.binding.as_ref()?.epg;
    let namespace = &managed.key().namespace;
    if managed.bound_epg(rules).is_some() {
        None
    } else if rules.allow.is_empty() {
        let tenant = &epg.l3out.tenant;
        Some(format!("tenant {tenant} belongs to the fabric itself, and no --allow rule names it; annotation ignored"))
    } else {
        Some(format!("namespace {namespace} may not use {epg}: no --allow rule matches; annotation ignored"))
    }
}

/// D2, D3: values that are not valid.
fn invalid(managed: &ManagedWorkload) -> Vec<String> {
    let mut invalid = Vec::new();
    if let Err(why) = &managed.annotation {
        let meanwhile = match &managed.binding {
            Some(last) => format!("keeping the last valid binding ({})", last.epg),
            None => format!("nothing is created for the {} until it is corrected", managed.workload().kind),
        };
        invalid.push(format!("invalid annotation: {why}; {meanwhile}"));
    }
    if let Some(value) = &managed.record.invalid_pause {
        let kind = managed.workload().kind;
        invalid.push(format!("{PAUSE_ANNOTATION} is {value:?}, neither true nor false; treating the {kind} as paused"));
    }
    invalid
}

/// D2: keys that are not known, in the binding and among the annotations.
fn unknown(managed: &ManagedWorkload) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Ok(binding) = &managed.annotation
        && !binding.unknown_keys.is_empty()
    {
        unknown.push(format!("unknown annotation keys ignored: {}", binding.unknown_keys));
    }
    if !managed.record.unknown_keys.is_empty() {
        unknown.push(unknown_annotations(&managed.record.unknown_keys));
    }
    unknown
}

/// D2: annotations with the prefix of aci-sync's that are not known.
pub(super) fn unknown_annotations(keys: &UnknownKeys) -> String {
    format!("unknown annotations ignored: {keys}; aci-sync reads {BINDING_ANNOTATION} and {PAUSE_ANNOTATION}")
}
