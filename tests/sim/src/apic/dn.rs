//! Distinguished names: slashes outside brackets separate relative names, brackets nest.

use super::classes::Class;
use super::error::ApiError;
use super::rules::{self, Rule};
use super::variants::Variants;

/// A DN of the policy universe, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The DN as the fabric writes it.
    pub dn: String,
    /// The class of the object there.
    pub class: &'static str,
    /// The value of its naming property, as the fabric stores it; empty for classes without one.
    pub value: String,
}

/// The relative names of a DN; `None` if brackets do not match or a name is empty.
pub fn rns(dn: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (at, c) in dn.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.checked_sub(1)?,
            '/' if depth == 0 => {
                names.push(&dn[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    names.push(&dn[start..]);
    (depth == 0 && names.iter().all(|it| !it.is_empty())).then_some(names)
}

/// The DN above, and the last relative name.
pub fn split(dn: &str) -> Option<(&str, &str)> {
    let last = rns(dn)?.pop()?;
    let above = dn.len().checked_sub(last.len() + 1)?;
    Some((&dn[..above], last))
}

/// Beginnings of relative names of objects that an APIC has and that are not simulated: a read finds nothing there.
const UNSIMULATED: &[&str] = &[
    "AbsGraph-",
    "any",
    "bgpCtxP-",
    "bgpExtP",
    "bgpInstP-",
    "cif-",
    "controller",
    "crtrn",
    "domain-",
    "eigrpExtP",
    "esg-",
    "fabric",
    "fc-",
    "flt-",
    "health",
    "infra",
    "ipslaMonitoringPol-",
    "l2dom-",
    "l2out-",
    "l3dom-",
    "lDevVip-",
    "ldevCtx-",
    "leakroutes",
    "mgmtp-",
    "monepg-",
    "oobbrc-",
    "ospfCtxP-",
    "ospfExtP",
    "phys-",
    "pimextp",
    "prof-",
    "protPol",
    "qoscustom-",
    "rs",
    "rt",
    "snmpctx-",
    "subj-",
    "svcCont",
    "taboo-",
    "userext",
    "vmmp-",
];

/// Whether an APIC may have objects there although there are none here.
pub fn is_unsimulated(dn: &str) -> bool {
    let Some(names) = rns(dn) else { return false };
    if names[0] != "uni" {
        return matches!(names[0], "topology" | "sys" | "comp" | "acct" | "expcont" | "fwrepo" | "subj" | "uribv4");
    }
    let mut class = "polUni";
    for rn in &names[1..] {
        match child_of(class, rn) {
            Some((child, _)) => class = child.name,
            None => return UNSIMULATED.iter().any(|it| rn.starts_with(it)),
        }
    }
    false
}

/// A DN as clients write it in a path: slashes too many are left out.
pub fn tidy(dn: &str) -> String {
    let mut depth = 0usize;
    let mut tidied = String::with_capacity(dn.len());
    for c in dn.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '/' if depth == 0 && (tidied.is_empty() || tidied.ends_with('/')) => continue,
            _ => {}
        }
        tidied.push(c);
    }
    tidied.truncate(tidied.trim_end_matches('/').len());
    tidied
}

/// Whether an object is below another.
pub fn is_below(dn: &str, root: &str) -> bool {
    dn.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

/// The tenant's DN of a DN in the policy universe.
pub fn tenant(dn: &str) -> Option<String> {
    let names = rns(dn)?;
    (names.first() == Some(&"uni") && names.get(1)?.starts_with("tn-")).then(|| names[..2].join("/"))
}

/// Finds classes and canonical spelling of a DN below `uni`.
pub fn place(dn: &str, variants: &Variants) -> Result<Place, ApiError> {
    let names = rns(dn).ok_or_else(|| ApiError::bad_dn(dn, dn, 0))?;
    if names[0] != "uni" {
        return Err(ApiError::bad_dn(dn, names[0], 0));
    }
    let mut place = Place { dn: "uni".to_owned(), class: "polUni", value: String::new() };
    for (position, rn) in names.iter().enumerate().skip(1) {
        let (class, value) = child_of(place.class, rn).ok_or_else(|| ApiError::bad_dn(dn, rn, position))?;
        if is_prefix(class) && rules::prefix(value, variants).is_none() {
            return Err(ApiError::bad_rn(rn));
        }
        place = below(&place.dn, class, value, variants);
    }
    Ok(place)
}

/// The place of a child below `parent`.
pub fn below(parent: &str, class: &'static Class, value: &str, variants: &Variants) -> Place {
    let value = match rules::prefix(value, variants) {
        Some(canonical) if is_prefix(class) => canonical,
        _ => value.to_owned(),
    };
    Place { dn: format!("{parent}/{}", class.rn(&value)), class: class.name, value }
}

/// Whether objects of a class are named by a prefix.
fn is_prefix(class: &Class) -> bool {
    class.naming().and_then(|it| class.prop(it)).is_some_and(|it| it.rule == Rule::Prefix)
}

/// The class and naming value of a relative name below an object of class `parent`. Of two prefixes that fit, the
/// longer one is meant (`rscons-` and `rsconsIf-` never fit both, `out-` and `ou-` might).
fn child_of<'a>(parent: &str, rn: &'a str) -> Option<(&'static Class, &'a str)> {
    let parent = Class::named(parent)?;
    let fits = |class: &'static Class| Some((class, class.value_in(rn)?));
    Class::all()
        .filter(|class| parent.children.contains(&class.name))
        .filter_map(fits)
        .min_by_key(|(_, value)| value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_in_brackets_do_not_separate() {
        let table = [
            ("uni/tn-T/out-L", Some(vec!["uni", "tn-T", "out-L"])),
            (
                "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]",
                Some(vec!["uni", "tn-T", "out-L", "instP-E", "extsubnet-[10.0.0.1/32]"]),
            ),
            ("a/rtd-[uni/x-[y/z]]/nwissues", Some(vec!["a", "rtd-[uni/x-[y/z]]", "nwissues"])),
            ("uni/x]", None),
            ("uni/[x", None),
            ("uni//x", None),
            ("", None),
        ];
        for (dn, expected) in table {
            assert_eq!(rns(dn), expected, "{dn}");
        }
        assert_eq!(split("a/b-[c/d]"), Some(("a", "b-[c/d]")));
        assert_eq!(tenant("uni/tn-T/out-L"), Some("uni/tn-T".to_owned()));
        assert_eq!(tenant("uni"), None);
    }

    #[test]
    fn what_is_not_simulated_differs_from_what_cannot_be() {
        for dn in ["topology/pod-1", "uni/infra", "uni/tn-T/flt-F/e-E", "uni/tn-T/out-L/bgpExtP"] {
            assert!(is_unsimulated(dn), "{dn}");
        }
        for dn in ["uni", "uni/tn-T/out-L", "uni/x-T", "xyz/tn-T", "uni/[x"] {
            assert!(!is_unsimulated(dn), "{dn}");
        }
    }

    #[test]
    fn slashes_too_many_are_left_out() {
        let table = [
            ("", ""),
            ("/", ""),
            ("/uni//tn-T/", "uni/tn-T"),
            ("uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]/", "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]"),
            ("uni/x-[a//b]", "uni/x-[a//b]"),
        ];
        for (written, tidied) in table {
            assert_eq!(tidy(written), tidied);
        }
    }

    #[test]
    fn dns_are_understood_and_spelled_one_way() {
        let table = [
            ("uni", "polUni", "uni"),
            ("uni/tn-T", "fvTenant", "uni/tn-T"),
            ("uni/tn-[T]/out-[L]", "l3extOut", "uni/tn-T/out-L"),
            ("uni/tn-T/out-L/rsectx", "l3extRsEctx", "uni/tn-T/out-L/rsectx"),
            (
                "uni/tn-T/out-L/instP-E/extsubnet-[FD00::0/128]",
                "l3extSubnet",
                "uni/tn-T/out-L/instP-E/extsubnet-[fd00::/128]",
            ),
            ("uni/tn-T/out-L/annotationKey-a:b", "tagAnnotation", "uni/tn-T/out-L/annotationKey-[a:b]"),
            ("uni/tn-T/out-L/instP-E/rscons-C", "fvRsCons", "uni/tn-T/out-L/instP-E/rscons-C"),
            (
                "uni/tn-T/out-L/lnodep-N/lifp-I/vlifp-[topology/pod-1/node-101]-[vlan-100]/peerP-[10.1.1.11]",
                "bgpPeerP",
                "uni/tn-T/out-L/lnodep-N/lifp-I/vlifp-[topology/pod-1/node-101]-[vlan-100]/peerP-[10.1.1.11]",
            ),
        ];
        for (dn, class, canonical) in table {
            let place = place(dn, &Variants::default()).unwrap();
            assert_eq!((place.class, place.dn.as_str()), (class, canonical), "{dn}");
        }
        for dn in [
            "",
            "xyz",
            "uni/out-L",
            "uni/tn-T/instP-E",
            "uni/tn-T/out-L/instP-E/extsubnet-10.0.0.1/32",
            "topology/pod-1",
        ] {
            assert_eq!(place(dn, &Variants::default()).unwrap_err().code, 104, "{dn}");
        }
    }
}
