//! The class table: which classes there are, how their RNs look, what may be below them, their properties with
//! defaults and rules. What a value must look like is checked in `rules.rs`.
//!
//! Source: the class catalogue of APIC 6.0(9c) for the part that aci-sync and its users meet.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::applications::APPLICATIONS;
use super::interfaces::INTERFACES;
use super::rules::Rule;

/// How the relative name of an object is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rn {
    /// Always the same text; there is one such object under a parent.
    Fixed(&'static str),
    /// A prefix, then the value of the naming property.
    Named(&'static str, &'static str),
    /// A prefix, then the value of the naming property in brackets.
    Bracketed(&'static str, &'static str),
    /// A prefix, then the values of two naming properties, each in brackets.
    Paired(&'static str, &'static str, &'static str),
}

/// What is between the two values of [`Rn::Paired`], which count as one text.
const BETWEEN: &str = "]-[";

/// A property: name, value of a new object, what may be written to it.
#[derive(Debug)]
pub struct Prop {
    /// Its name.
    pub name: &'static str,
    /// What a new object has there.
    pub default: &'static str,
    /// What may be written.
    pub rule: Rule,
}

/// A class of managed objects.
#[derive(Debug)]
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// Its label in the texts of errors.
    pub label: &'static str,
    /// How its relative names are made.
    pub rn: Rn,
    /// Classes that may be below it.
    pub children: &'static [&'static str],
    /// Made with every new object, by the fabric itself.
    pub implicit: &'static [&'static str],
    /// Made by the fabric, and cannot be deleted.
    pub permanent: bool,
    /// Its properties besides those that every object has.
    pub props: &'static [Prop],
}

/// The read-only properties of every object.
pub const COMMON: &[Prop] = &[
    ro("childAction", ""),
    ro("extMngdBy", ""),
    ro("lcOwn", "local"),
    ro("modTs", ""),
    ro("monPolDn", ""),
    ro("status", ""),
    ro("uid", ""),
];

pub(super) const fn ro(name: &'static str, default: &'static str) -> Prop {
    Prop { name, default, rule: Rule::ReadOnly }
}

pub(super) const fn rw(name: &'static str, default: &'static str, rule: Rule) -> Prop {
    Prop { name, default, rule }
}

pub(super) const fn key(name: &'static str, rule: Rule) -> Prop {
    Prop { name, default: "", rule }
}

pub(super) const NAME_63: Rule = Rule::Name { min: 1, max: 63, colon: false };
pub(super) const NAME_64: Rule = Rule::Name { min: 1, max: 64, colon: true };
pub(super) const TARGET: Rule = Rule::Name { min: 0, max: 64, colon: true };
pub(super) const ANNOTATION: Prop = rw("annotation", "", Rule::Name { min: 0, max: 128, colon: true });
pub(super) const ALIAS: Prop = rw("nameAlias", "", Rule::Name { min: 0, max: 63, colon: false });
pub(super) const DESCR: Prop = rw("descr", "", Rule::Text(128));
pub(super) const OWNER_KEY: Prop = rw("ownerKey", "", Rule::Text(128));
pub(super) const OWNER_TAG: Prop = rw("ownerTag", "", Rule::Text(64));
pub(super) const USERDOM: Prop = rw("userdom", ":all:", Rule::Text(1024));
pub(super) const PRIO: Prop = rw(
    "prio",
    "unspecified",
    Rule::OneOf(&["unspecified", "level1", "level2", "level3", "level4", "level5", "level6"]),
);
pub(super) const MATCH_T: Prop = rw("matchT", "AtleastOne", Rule::OneOf(&["All", "AtleastOne", "AtmostOne", "None"]));
const DSCP: Prop = rw(
    "targetDscp",
    "unspecified",
    Rule::OneOf(&[
        "unspecified",
        "CS0",
        "CS1",
        "CS2",
        "CS3",
        "CS4",
        "CS5",
        "CS6",
        "CS7",
        "AF11",
        "AF21",
        "AF31",
        "AF41",
        "EF",
        "VA",
    ]),
);
/// A relation's read-only side: where it points to once the fabric has resolved it.
pub(super) const T_DN: Prop = ro("tDn", "");
pub(super) const T_STATE: Prop = ro("state", "missing-target");

/// The flags of `l3extSubnet.scope`.
pub const SCOPE: &[&str] = &["import-rtctrl", "export-rtctrl", "import-security", "shared-security", "shared-rtctrl"];

pub(super) const fn class(
    name: &'static str,
    label: &'static str,
    rn: Rn,
    children: &'static [&'static str],
    props: &'static [Prop],
) -> Class {
    Class { name, label, rn, children, implicit: &[], permanent: false, props }
}

pub(super) const fn relation(name: &'static str, label: &'static str, rn: Rn, props: &'static [Prop]) -> Class {
    class(name, label, rn, &["tagAnnotation"], props)
}

pub(super) const fn implicit(
    name: &'static str,
    label: &'static str,
    rn: &'static str,
    props: &'static [Prop],
) -> Class {
    Class { name, label, rn: Rn::Fixed(rn), children: &[], implicit: &[], permanent: true, props }
}

/// The classes that aci-sync meets.
static CLASSES: &[Class] = &[
    Class { permanent: true, ..class("polUni", "Policy Universe", Rn::Fixed("uni"), &["fvTenant"], &[]) },
    Class {
        implicit: &["fvRsTenantMonPol"],
        ..class(
            "fvTenant",
            "Tenant",
            Rn::Named("tn-", "name"),
            &["fvAp", "fvBD", "fvCtx", "l3extOut", "vzBrCP", "fvRsTenantMonPol", "tagAnnotation", "tagTag"],
            &[key("name", NAME_63), ANNOTATION, DESCR, ALIAS, OWNER_KEY, OWNER_TAG, USERDOM],
        )
    },
    class(
        "fvCtx",
        "VRF",
        Rn::Named("ctx-", "name"),
        &["tagAnnotation", "tagTag"],
        &[
            key("name", NAME_64),
            ANNOTATION,
            DESCR,
            ALIAS,
            OWNER_KEY,
            OWNER_TAG,
            USERDOM,
            rw("pcEnfPref", "enforced", Rule::OneOf(&["enforced", "unenforced"])),
            rw("pcEnfDir", "ingress", Rule::OneOf(&["ingress", "egress"])),
            rw("bdEnforcedEnable", "no", Rule::OneOf(&["yes", "no"])),
            ro("pcTag", "any"),
            ro("scope", "2621440"),
            ro("seg", "2621440"),
        ],
    ),
    Class {
        implicit: &["l3extRsEctx"],
        ..class(
            "l3extOut",
            "L3 Outside",
            Rn::Named("out-", "name"),
            &["l3extInstP", "l3extLNodeP", "l3extRsEctx", "tagAnnotation", "tagTag"],
            &[
                key("name", NAME_64),
                ANNOTATION,
                DESCR,
                ALIAS,
                OWNER_KEY,
                OWNER_TAG,
                USERDOM,
                DSCP,
                rw("enforceRtctrl", "export", Rule::Flags(&["export", "import"])),
                rw("mplsEnabled", "no", Rule::OneOf(&["yes", "no"])),
            ],
        )
    },
    Class {
        permanent: true,
        ..relation(
            "l3extRsEctx",
            "Relation to VRF",
            Rn::Fixed("rsectx"),
            &[
                rw("tnFvCtxName", "", TARGET),
                ANNOTATION,
                USERDOM,
                T_DN,
                T_STATE,
                ro("tCl", "fvCtx"),
                ro("tType", "name"),
                ro("rType", "mo"),
                ro("forceResolve", "yes"),
            ],
        )
    },
    Class {
        implicit: &["fvRsCustQosPol"],
        ..class(
            "l3extInstP",
            "External Network Instance Profile",
            Rn::Named("instP-", "name"),
            &[
                "l3extSubnet",
                "fvRsCons",
                "fvRsProv",
                "fvRsConsIf",
                "fvRsProtBy",
                "fvRsIntraEpg",
                "fvRsCustQosPol",
                "tagAnnotation",
                "tagTag",
            ],
            &[
                key("name", NAME_64),
                ANNOTATION,
                DESCR,
                ALIAS,
                rw("exceptionTag", "", Rule::Text(64)),
                rw("floodOnEncap", "disabled", Rule::OneOf(&["enabled", "disabled"])),
                MATCH_T,
                rw("pcEnfPref", "unenforced", Rule::OneOf(&["enforced", "unenforced"])),
                rw("prefGrMemb", "exclude", Rule::OneOf(&["include", "exclude"])),
                PRIO,
                DSCP,
                USERDOM,
                ro("configIssues", ""),
                ro("configSt", "not-applied"),
                ro("isSharedSrvMsiteEPg", "no"),
                ro("mcast", "0.0.0.0"),
                ro("pcTag", "0"),
                ro("pcTagAllocSrc", "idmanager"),
                ro("scope", "0"),
                ro("triggerSt", "triggerable"),
                ro("txId", "0"),
            ],
        )
    },
    class(
        "l3extSubnet",
        "Subnet",
        Rn::Bracketed("extsubnet-", "ip"),
        &["tagAnnotation", "tagTag"],
        &[
            key("ip", Rule::Prefix),
            rw("aggregate", "", Rule::Flags(&["import-rtctrl", "export-rtctrl", "shared-rtctrl"])),
            rw("scope", "import-security", Rule::Flags(SCOPE)),
            rw("name", "", TARGET),
            ANNOTATION,
            DESCR,
            ALIAS,
            USERDOM,
        ],
    ),
    relation(
        "fvRsCons",
        "Consumed Contract",
        Rn::Named("rscons-", "tnVzBrCPName"),
        &[key("tnVzBrCPName", NAME_64), ANNOTATION, PRIO, USERDOM, T_DN, T_STATE],
    ),
    relation(
        "fvRsProv",
        "Provided Contract",
        Rn::Named("rsprov-", "tnVzBrCPName"),
        &[key("tnVzBrCPName", NAME_64), ANNOTATION, PRIO, MATCH_T, USERDOM, T_DN, T_STATE],
    ),
    relation(
        "fvRsConsIf",
        "Consumed Contract Interface",
        Rn::Named("rsconsIf-", "tnVzCPIfName"),
        &[key("tnVzCPIfName", NAME_64), ANNOTATION, PRIO, USERDOM, T_DN, T_STATE],
    ),
    relation(
        "fvRsProtBy",
        "Taboo Contract Association",
        Rn::Named("rsprotBy-", "tnVzTabooName"),
        &[key("tnVzTabooName", NAME_64), ANNOTATION, USERDOM, T_DN, T_STATE],
    ),
    relation(
        "fvRsIntraEpg",
        "Intra EPg Contract",
        Rn::Named("rsintraEpg-", "tnVzBrCPName"),
        &[key("tnVzBrCPName", NAME_64), ANNOTATION, USERDOM, T_DN, T_STATE],
    ),
    class(
        "vzBrCP",
        "Contract",
        Rn::Named("brc-", "name"),
        &["tagAnnotation", "tagTag"],
        &[
            key("name", NAME_64),
            ANNOTATION,
            DESCR,
            ALIAS,
            OWNER_KEY,
            OWNER_TAG,
            USERDOM,
            PRIO,
            DSCP,
            rw("intent", "install", Rule::OneOf(&["install", "estimate_add", "estimate_delete"])),
            rw("scope", "context", Rule::OneOf(&["application-profile", "context", "global", "tenant"])),
        ],
    ),
    class(
        "tagAnnotation",
        "Annotation",
        Rn::Bracketed("annotationKey-", "key"),
        &[],
        &[
            key("key", Rule::Name { min: 1, max: 128, colon: true }),
            rw("value", "", Rule::TagValue(2048)),
            ro("userdom", "all"),
        ],
    ),
    class(
        "tagTag",
        "Policy Tag",
        Rn::Named("tagKey-", "key"),
        &[],
        &[key("key", NAME_64), rw("value", "", Rule::Name { min: 0, max: 128, colon: true }), ro("userdom", "all")],
    ),
    implicit(
        "fvRsCustQosPol",
        "Custom QoS Policy",
        "rscustQosPol",
        &[rw("tnQosCustomPolName", "", TARGET), ANNOTATION, T_DN, ro("state", "formed")],
    ),
    implicit(
        "fvRsTenantMonPol",
        "Tenant Monitoring Policy",
        "rsTenantMonPol",
        &[rw("tnMonEPGPolName", "", TARGET), ANNOTATION, T_DN, ro("state", "formed")],
    ),
    // Its objects live in the topology, outside the policy universe.
    Class {
        permanent: true,
        ..class(
            "faultInst",
            "Fault",
            Rn::Named("fault-", "code"),
            &[],
            &[
                ro("code", ""),
                ro("ack", "no"),
                ro("cause", "configuration-failed"),
                ro("changeSet", ""),
                ro("created", ""),
                ro("delegated", "yes"),
                ro("descr", ""),
                ro("domain", "tenant"),
                ro("highestSeverity", "minor"),
                ro("lastTransition", ""),
                ro("lc", "raised"),
                ro("occur", "1"),
                ro("origSeverity", "minor"),
                ro("prevSeverity", "minor"),
                ro("rule", "fv-nw-issues-config-failed"),
                ro("severity", "minor"),
                ro("subject", "management"),
                ro("type", "config"),
            ],
        )
    },
];

/// Classes that exist in the catalogue and have no object here: a query for them is fine and finds nothing. They are
/// those that clients ask for: Terraform's provider and its client, aci-containers, the Ansible collection, acitoolkit.
static KNOWN: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("known_classes.txt").split_ascii_whitespace().collect());

impl Class {
    /// All classes that can have objects here.
    pub fn all() -> impl Iterator<Item = &'static Class> {
        CLASSES.iter().chain(APPLICATIONS).chain(INTERFACES)
    }

    /// The class of this name.
    pub fn named(name: &str) -> Option<&'static Class> {
        Class::all().find(|class| class.name == name)
    }

    /// Whether the catalogue has a class of this name, with objects here or not.
    pub fn is_known(name: &str) -> bool {
        Class::named(name).is_some() || KNOWN.contains(name)
    }

    /// The property that names its objects; of two the first.
    pub fn naming(&self) -> Option<&'static str> {
        match self.rn {
            Rn::Fixed(_) => None,
            Rn::Named(_, prop) | Rn::Bracketed(_, prop) | Rn::Paired(_, prop, _) => Some(prop),
        }
    }

    /// The properties that name an object, with their values.
    pub fn names<'a>(&self, value: &'a str) -> Vec<(&'static str, &'a str)> {
        match self.rn {
            Rn::Paired(_, first, second) => {
                let (one, other) = value.split_once(BETWEEN).unwrap_or((value, ""));
                vec![(first, one), (second, other)]
            }
            _ => self.naming().map(|prop| (prop, value)).into_iter().collect(),
        }
    }

    /// The value that names an object with these properties; the name of one that is not given.
    pub fn value_of(&self, get: impl Fn(&str) -> Option<String>) -> Result<String, &'static str> {
        match self.rn {
            Rn::Fixed(_) => Ok(String::new()),
            Rn::Named(_, prop) | Rn::Bracketed(_, prop) => get(prop).ok_or(prop),
            Rn::Paired(_, first, second) => {
                Ok(format!("{}{BETWEEN}{}", get(first).ok_or(first)?, get(second).ok_or(second)?))
            }
        }
    }

    /// The relative name of an object with this value of the naming property.
    pub fn rn(&self, value: &str) -> String {
        match self.rn {
            Rn::Fixed(rn) => rn.to_owned(),
            Rn::Named(prefix, _) => format!("{prefix}{value}"),
            Rn::Bracketed(prefix, _) | Rn::Paired(prefix, ..) => format!("{prefix}[{value}]"),
        }
    }

    /// The value of the naming property in a relative name of this class; `None` if it is not of this class.
    /// Brackets may be left out of a `tagAnnotation`'s name, as older clients do, and put around a plain one.
    pub fn value_in<'a>(&self, rn: &'a str) -> Option<&'a str> {
        match self.rn {
            Rn::Fixed(fixed) => (rn == fixed).then_some(""),
            Rn::Named(prefix, _) => {
                let value = rn.strip_prefix(prefix)?;
                let inner = value.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
                Some(inner.unwrap_or(value))
            }
            Rn::Bracketed(prefix, _) => {
                let value = rn.strip_prefix(prefix)?;
                let inner = value.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
                if self.name == "tagAnnotation" { Some(inner.unwrap_or(value)) } else { inner }
            }
            Rn::Paired(prefix, ..) => {
                let inner = rn.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')?;
                inner.contains(BETWEEN).then_some(inner)
            }
        }
    }

    /// All properties, the common ones included.
    pub fn all_props(&self) -> impl Iterator<Item = &'static Prop> {
        let own: &'static [Prop] = self.props;
        COMMON.iter().chain(own)
    }

    /// The property of this name.
    pub fn prop(&self, name: &str) -> Option<&'static Prop> {
        self.all_props().find(|prop| prop.name == name)
    }
}
