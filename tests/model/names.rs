//! D1, P2: names, DNs and prefixes.

use aci_sync::model::dn::*;

fn epg() -> EpgDn {
    let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
    l3out.epg(Name::object("E").unwrap())
}

/// D1, F30, I14: the names that the APIC takes, and none that could leave its place in a DN, a URL or a filter.
#[test]
fn names_are_checked() {
    for good in ["a", "TEN_K8_C1", "a.b-c_d", &"x".repeat(63)] {
        assert!(Name::tenant(good).is_ok(), "{good}");
    }
    assert!(Name::tenant("a:b").is_err());
    assert!(Name::object("a:b").is_ok());
    assert!(Name::tenant(&"x".repeat(64)).is_err());
    assert!(Name::object(&"x".repeat(64)).is_ok());
    for bad in [
        "",
        "..",
        "a/../b",
        "T/out-X/instP-Y",
        "x]",
        "[x",
        "a\"",
        "a'",
        "a\nb",
        "a%2fb",
        "a?query-target=subtree",
        "a&x=y",
        "a#b",
        "a,b",
        "a)or(",
        &"x".repeat(65),
        "\u{430}bc",
        "a\0",
        " a",
        "a ",
        "__ui_x",
        "__int_x",
    ] {
        assert!(Name::object(bad).is_err(), "{bad:?}");
        assert!(Name::tenant(bad).is_err(), "{bad:?}");
    }
}

/// What is written is read back, brackets and all.
#[test]
fn dns_are_read_back() {
    let epg = epg();
    assert_eq!(ParsedDn::parse(&epg.l3out.to_string()), Some(ParsedDn::L3out(epg.l3out.clone())));
    assert_eq!(ParsedDn::parse(&epg.to_string()), Some(ParsedDn::Epg(epg.clone())));
    for ip in ["10.0.0.1/32", "fd00::1/128"] {
        assert_eq!(ParsedDn::parse(&epg.subnet(ip)), Some(ParsedDn::Subnet(epg.clone(), ip.to_owned())));
    }
    let below = format!("{}/annotationKey-[a/b]", epg.subnet("10.0.0.1/32"));
    assert_eq!(ParsedDn::parse(&below), Some(ParsedDn::BelowEpg(epg.clone())));
    assert_eq!(ParsedDn::parse("uni/tn-T/out-L/rsectx"), Some(ParsedDn::BelowL3out(epg.l3out)));
    for other in ["", "uni", "uni/tn-T", "uni/tn-T/ctx-V", "topology/pod-1", "uni/tn-T/out-L/instP-a b"] {
        assert_eq!(ParsedDn::parse(other), None, "{other}");
    }
}

/// P2: IPv4 as /32, IPv6 as /128 in RFC 5952 form; spelling does not matter for equality.
#[test]
fn prefixes_have_one_form() {
    assert_eq!(Prefix::host("10.244.1.16".parse().unwrap()).to_string(), "10.244.1.16/32");
    let v6 = Prefix::host("FD00:10:244:1:0:0:0:C8".parse().unwrap());
    assert_eq!(v6.to_string(), "fd00:10:244:1::c8/128");
    assert_eq!("fd00:10:244:1:0::c8/128".parse(), Ok(v6));
    for bad in ["10.0.0.1", "10.0.0.1/33", "fd00::/129", "x/1", "10.0.0.1/", "10.0.0/8", "10.0.0.1/+32"] {
        assert!(bad.parse::<Prefix>().is_err(), "{bad}");
    }
}
