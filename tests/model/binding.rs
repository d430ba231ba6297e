//! D1, D2: which annotation values are taken, and what is said of the others.

use aci_sync::model::binding::{self, Binding, MAX_LENGTH};
use aci_sync::model::dn::L3outDn;

fn parse(value: &str) -> Result<Binding, String> {
    binding::parse(value, None)
}

/// D1: the annotation of the README, with any white space and order of keys.
#[test]
fn a_valid_value_names_the_epg() {
    for value in [
        r#"{"tenant":"TEN_K8_C1","l3out":"L3O_K8_C1","epg":"EPG_K8_APP_MCAST"}"#,
        r#"{ "epg": "EPG_K8_APP_MCAST", "tenant":"TEN_K8_C1", "l3out": "L3O_K8_C1"  }"#,
    ] {
        let binding = parse(value).unwrap();
        assert_eq!(binding.epg.to_string(), "uni/tn-TEN_K8_C1/out-L3O_K8_C1/instP-EPG_K8_APP_MCAST");
        assert!(binding.unknown_keys.is_empty());
    }
}

/// D2: an unknown key is reported, and changes nothing else; of many three are named, and a long one is cut
/// (X3).
#[test]
fn an_unknown_key_is_no_error() {
    let keys = |more: &str| {
        let binding = parse(&format!(r#"{{"tenant":"T","l3out":"L","epg":"E"{more}}}"#)).unwrap();
        assert_eq!(binding.epg.to_string(), "uni/tn-T/out-L/instP-E");
        binding.unknown_keys.to_string()
    };
    assert_eq!(keys(r#","colour":{"a":[1]}"#), r#""colour""#);
    assert_eq!(keys(r#","a":1,"b":2,"c":3"#), r#""a", "b", "c""#);
    assert_eq!(keys(r#","a\n":1,"b":2,"c":3,"d":4,"e":5"#), r#""a\n", "b", "c" and 2 more"#);
    assert_eq!(keys(&format!(r#","{}":1"#, "\u{e9}".repeat(1000))), format!("{:?}", "\u{e9}".repeat(64)));
}

/// D1, F30: what is not a valid value is refused with the reason, and nothing of it becomes a name.
#[test]
fn invalid_values_are_refused() {
    let long = format!(r#"{{"tenant":"T","l3out":"L","epg":"E","x":"{}"}}"#, "y".repeat(MAX_LENGTH));
    let deep = format!(r#"{{"x":{}}}"#, "[".repeat(1000));
    for (value, reason) in [
        ("", "empty value"),
        ("null", "not a JSON object"),
        (" ", "empty value; expected {\"tenant\":"),
        ("{'tenant':'T','l3out':'L','epg':'E'}", "single quotes are not JSON; expected {"),
        (r#"{"tenant":"T","l3out":"L","epg":"E",}"#, "trailing comma; expected {"),
        ("tenant: T\nl3out: L\nepg: E\n", "YAML is not JSON; expected {"),
        (r#"{"Tenant":"T","l3out":"L","epg":"E"}"#, r#"tenant is missing, but there is "Tenant"; keys are lower case"#),
        (r#"{"tenant":"T","l3out":"L","EPG ":"E"}"#, r#"epg is missing, but there is "EPG "; keys are lower case"#),
        ("[]", "not a JSON object"),
        (r#"{"tenant":"T","l3out":"L","epg":"E"} x"#, "not a JSON object"),
        (r#"{"tenant":"T","l3out":"L"}"#, "epg is missing"),
        (r#"{"tenant":"T","l3out":"L","epg":7}"#, "not a string"),
        (r#"{"tenant":"T","l3out":"L","epg":null}"#, "not a string"),
        (r#"{"tenant":"T","l3out":"L","epg":["E"]}"#, "not a string"),
        (r#"{"tenant":"T","tenant":"T","l3out":"L","epg":"E"}"#, "tenant is given twice"),
        (r#"{"tenant":"T:x","l3out":"L","epg":"E"}"#, "may have only"),
        (r#"{"tenant":"a/../b","l3out":"L","epg":"E"}"#, "may have only"),
        (r#"{"tenant":"T","l3out":"L","epg":"x]"}"#, "may have only"),
        (r#"{"tenant":"T","l3out":"L","epg":"\u0000"}"#, "may have only"),
        (r#"{"tenant":"T","l3out":"L","epg":""}"#, "1 to 64"),
        (long.as_str(), "longer than"),
        (deep.as_str(), "not a JSON object"),
    ] {
        let error = parse(value).unwrap_err();
        assert!(error.contains(reason), "{value:.60}: {error}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
}

/// J2: `tenant` and `l3out` may be left out together, if there is a default L3Out; half of them is never combined with it, nor
/// is one whose key is misspelt by its case.
#[test]
fn a_short_annotation_needs_the_default_l3out() {
    let default = L3outDn::parse("TEN/L3O").unwrap();
    let with_default = |value: &str| binding::parse(value, Some(&default)).map(|it| it.epg.to_string());
    for (value, expected) in [
        (r#"{"epg":"E"}"#, Ok("uni/tn-TEN/out-L3O/instP-E")),
        (r#"{"epg":"E","expose":["pods"]}"#, Ok("uni/tn-TEN/out-L3O/instP-E")),
        (r#"{"tenant":"T","l3out":"L","epg":"E"}"#, Ok("uni/tn-T/out-L/instP-E")),
        (
            r#"{"tenant":"T","epg":"E"}"#,
            Err("l3out is missing; leave out both tenant and l3out for the default L3Out uni/tn-TEN/out-L3O, or none"),
        ),
        (
            r#"{"l3out":"L","epg":"E"}"#,
            Err("tenant is missing; leave out both tenant and l3out for the default L3Out uni/tn-TEN/out-L3O, or none"),
        ),
        (r#"{"Tenant":"T","epg":"E"}"#, Err(r#"tenant is missing, but there is "Tenant"; keys are lower case"#)),
        (r#"{"tenant":"","epg":"E"}"#, Err("tenant \"\" must have 1 to 63")),
        (r#"{"tenant":null,"l3out":null,"epg":"E"}"#, Err("tenant is not a string")),
        ("{}", Err("epg is missing")),
    ] {
        match (with_default(value), expected) {
            (Ok(epg), Ok(expected)) => assert_eq!(epg, expected, "{value}"),
            (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{value}: {error}"),
            (result, _) => panic!("{value}: {result:?}"),
        }
    }
    let error = parse(r#"{"epg":"E"}"#).unwrap_err();
    assert_eq!(error, "tenant is missing; without --default-l3out both tenant and l3out are needed");
}
