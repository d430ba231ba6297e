//! The class table, continued: applications and bridge domains, which aci-sync never touches and other clients do.

use super::classes::Rn;
use super::classes::{
    ALIAS, ANNOTATION, Class, DESCR, MATCH_T, NAME_64, OWNER_KEY, OWNER_TAG, PRIO, T_DN, T_STATE, TARGET, USERDOM,
    class, implicit, key, ro, rw,
};
use super::rules::Rule;

const YES_NO: Rule = Rule::OneOf(&["yes", "no"]);

/// The classes.
pub static APPLICATIONS: &[Class] = &[
    class(
        "fvAp",
        "Application Profile",
        Rn::Named("ap-", "name"),
        &["fvAEPg", "tagAnnotation", "tagTag"],
        &[key("name", NAME_64), ANNOTATION, DESCR, ALIAS, OWNER_KEY, OWNER_TAG, PRIO, USERDOM],
    ),
    Class {
        implicit: &["fvRsBd", "fvRsCustQosPol"],
        ..class(
            "fvAEPg",
            "Application EPG",
            Rn::Named("epg-", "name"),
            &[
                "fvRsBd",
                "fvRsCons",
                "fvRsProv",
                "fvRsConsIf",
                "fvRsProtBy",
                "fvRsIntraEpg",
                "fvRsCustQosPol",
                "fvSubnet",
                "tagAnnotation",
                "tagTag",
            ],
            &[
                key("name", NAME_64),
                ANNOTATION,
                DESCR,
                ALIAS,
                MATCH_T,
                PRIO,
                USERDOM,
                rw("floodOnEncap", "disabled", Rule::OneOf(&["enabled", "disabled"])),
                rw("isAttrBasedEPg", "no", YES_NO),
                rw("pcEnfPref", "unenforced", Rule::OneOf(&["enforced", "unenforced"])),
                rw("prefGrMemb", "exclude", Rule::OneOf(&["include", "exclude"])),
                rw("shutdown", "no", YES_NO),
                ro("configSt", "not-applied"),
                ro("pcTag", "0"),
                ro("scope", "0"),
            ],
        )
    },
    implicit("fvRsBd", "Bridge Domain", "rsbd", &[rw("tnFvBDName", "", TARGET), ANNOTATION, USERDOM, T_DN, T_STATE]),
    Class {
        implicit: &["fvRsCtx"],
        ..class(
            "fvBD",
            "Bridge Domain",
            Rn::Named("BD-", "name"),
            &["fvRsCtx", "fvSubnet", "tagAnnotation", "tagTag"],
            &[
                key("name", NAME_64),
                ANNOTATION,
                DESCR,
                ALIAS,
                OWNER_KEY,
                OWNER_TAG,
                USERDOM,
                rw("arpFlood", "no", YES_NO),
                rw("unicastRoute", "yes", YES_NO),
                rw("limitIpLearnToSubnets", "yes", YES_NO),
                ro("pcTag", "0"),
                ro("scope", "0"),
                ro("seg", "0"),
            ],
        )
    },
    implicit(
        "fvRsCtx",
        "Private Network",
        "rsctx",
        &[rw("tnFvCtxName", "", TARGET), ANNOTATION, USERDOM, T_DN, T_STATE],
    ),
    class(
        "fvSubnet",
        "Subnet",
        Rn::Bracketed("subnet-", "ip"),
        &["tagAnnotation", "tagTag"],
        &[
            key("ip", Rule::Prefix),
            ANNOTATION,
            DESCR,
            ALIAS,
            USERDOM,
            rw("ctrl", "", Rule::Flags(&["unspecified", "querier", "nd", "no-default-gateway"])),
            rw("preferred", "no", YES_NO),
            rw("scope", "private", Rule::Flags(&["private", "public", "shared"])),
            rw("virtual", "no", YES_NO),
        ],
    ),
];
