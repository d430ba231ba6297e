//! What an APIC sends, through the decoders: answers, refusals and websocket messages in the documented shapes.

use aci_sync::apic::Error;
use aci_sync::apic::decode::*;
use aci_sync::apic::envelope::{self, Login};
use aci_sync::model::mo::{Attributes, Status};
use aci_sync::model::observed::faults_by_epg;
use aci_sync::secret::Secret;

/// T6: what the answer to a login says about the APIC and the user, in the shape of captured answers.
#[test]
fn a_login_says_what_the_user_may_write() {
    let body = r#"{"totalCount":"1","imdata":[{"aaaLogin":{"attributes":{"token":"t","version":"5.2(7f)","changePassword":"yes"},"children":[
        {"aaaUserDomain":{"attributes":{"name":"all"},"children":[{"aaaReadRoles":{"attributes":{}}},
            {"DnDomainMapEntry":{"attributes":{"dn":"uni/tn-deep","writePrivileges":"ops"}}}]}},
        {"DnDomainMapEntry":{"attributes":{"dn":"uni/tn-common","readPrivileges":"admin","writePrivileges":"admin"}}},
        {"DnDomainMapEntry":{"attributes":{"dn":"uni/tn-mute"}}},
        {"other":{"attributes":{"dn":"uni/tn-x","writePrivileges":"admin"}}}]}}]}"#;
    let answer = answer(body.as_bytes()).unwrap();
    let login = answer.login.unwrap();
    assert_eq!((login.version.as_str(), login.must_change_password), ("5.2(7f)", true));
    let expected = [("uni/tn-deep", "ops"), ("uni/tn-common", "admin")].map(|(dn, it)| (dn.to_owned(), it.to_owned()));
    assert_eq!(login.write_privileges, expected);
    assert!(answer.mos.is_empty());
}

/// Reads: `totalCount` is a string, and children carry an `rn`, which may have a slash in brackets.
#[test]
fn an_answer_is_flattened() {
    let body = br#"{"totalCount":"7","subscriptionId":"72059075820650497","imdata":[{"l3extInstP":{"attributes":
        {"dn":"uni/tn-T/out-L/instP-E","annotation":"x","childAction":"","status":""},"children":[
        {"l3extSubnet":{"attributes":{"rn":"extsubnet-[10.0.0.1/32]","name":"a"}}},
        {"l3extSubnet":{"attributes":{"name":"nowhere"}}}]}}]}"#;
    let answer = answer(body).unwrap();
    assert_eq!((answer.total, answer.top_level), (7, 1));
    assert_eq!(answer.subscription.as_deref(), Some("72059075820650497"));
    let dns: Vec<&str> = answer.mos.iter().map(|it| it.dn.as_str()).collect();
    assert_eq!(dns, ["uni/tn-T/out-L/instP-E", "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]"]);
    assert_eq!(answer.mos[0].attributes, Attributes { annotation: Some("x".into()), ..Attributes::default() });
}

/// A1: the answer to a login carries no DN.
#[test]
fn a_login_is_read() {
    let body = br#"{"totalCount":"1","imdata":[{"aaaLogin":{"attributes":{"token":"abc","refreshTimeoutSeconds":"600"},
        "children":[{"aaaUserDomain":{"attributes":{"name":"all","rn":"userdomain-all"}}}]}}]}"#;
    let answer = answer(body).unwrap();
    let login =
        Login { token: Secret::new("abc"), refresh_timeout: Some(600), maximum_lifetime: None, ..Login::default() };
    assert_eq!((answer.login, answer.mos), (Some(login), Vec::new()));
}

/// A missing object is an empty answer, with the count as a string or as a number.
#[test]
fn a_missing_object_is_an_empty_answer() {
    for body in [&br#"{"totalCount":"0","imdata":[]}"#[..], br#"{"totalCount":0,"imdata":[]}"#] {
        assert_eq!(answer(body), Ok(Answer::default()));
    }
    for body in [&b""[..], b"<html>", b"{", br#"{"imdata":{}}"#, b"[]", b"\xff\xfe"] {
        assert!(matches!(answer(body), Err(Error::Malformed(_))), "{body:?}");
    }
}

/// X3: children below a very long name do not repeat it without a limit; an answer of 64 MiB would become terabytes.
#[test]
fn dns_are_bounded() {
    let child = r#"{"l3extSubnet":{"attributes":{"rn":"x"}}}"#;
    let body = |rn: usize, children: usize| {
        let (rn, children) = ("x".repeat(rn), vec![child; children].join(","));
        format!(
            r#"{{"imdata":[{{"a":{{"attributes":{{"dn":"uni"}},"children":[{{"b":{{"attributes":{{"rn":"{rn}"}},
            "children":[{children}]}}}}]}}}}]}}"#
        )
    };
    assert_eq!(answer(body(4000, 3).as_bytes()).unwrap().mos.len(), 5);
    assert!(matches!(answer(body(4093, 3).as_bytes()), Err(Error::Malformed(_))), "the child's DN is too long");
    assert!(matches!(answer(body(10_000, 1000).as_bytes()), Err(Error::Malformed(_))));
}

/// W3, W8: what each refusal leads to.
#[test]
fn errors_are_classified() {
    let body = |code: &str, text: &str| {
        format!(r#"{{"totalCount":"1","imdata":[{{"error":{{"attributes":{{"code":"{code}","text":"{text}"}}}}}}]}}"#)
    };
    let word = |http: u16, body: &str, is_write: bool| match refusal(http, body.as_bytes(), is_write) {
        Error::Unreachable(_) => "unreachable".to_owned(),
        Error::Busy(_) => "busy".to_owned(),
        Error::Unauthorized(_) => "login".to_owned(),
        Error::Forbidden(_) => "forbidden".to_owned(),
        Error::Rejected { code, .. } => format!("rejected {code}"),
        Error::AnswerLost(_) => "lost".to_owned(),
        Error::NotSent => "not sent".to_owned(),
        Error::Malformed(_) => "malformed".to_owned(),
    };
    let html = "<html><h1>503 Service Temporarily Unavailable</h1></html>";
    for (http, body, is_write, decision) in [
        (401, body("401", "Username or password is incorrect - FAILED local authentication"), false, "login"),
        (403, body("403", "Token was invalid (Error: Token timeout)"), true, "login"),
        (403, body("403", "Need a valid webtoken cookie (named APIC-Cookie) or ..."), false, "login"),
        (403, body("403", "User has insufficient privileges"), true, "forbidden"),
        (403, "<html>".to_owned(), true, "login"),
        (403, r#"{"message": "forbidden"}"#.to_owned(), false, "login"),
        (405, body("405", "unable to locate opened web socket"), false, "login"),
        (400, body("102", "configured object ((Dn0)) not found Dn0=uni, "), true, "rejected 102"),
        (400, body("103", "Cannot create; object uni\\/tn-T already exists."), true, "rejected 103"),
        (
            400,
            "{\"imdata\":[{\"error\":{\"attributes\":{\"text\":\"an \"unescaped\" quote\"}}}]}".to_owned(),
            true,
            "rejected 400",
        ),
        (400, body("103", r#"object "x" already exists."#), true, "rejected 103"),
        (403, body("403", r#"Token was invalid ("timeout")"#), false, "login"),
        (403, body("403", r#"no privilege for "x""#), true, "forbidden"),
        (414, html.to_owned(), false, "rejected 414"),
        (429, String::new(), true, "busy"),
        (503, html.to_owned(), true, "busy"),
        (503, html.to_owned(), false, "busy"),
        (503, body("503", "Unable to deliver the message, Resolve timeout"), false, "busy"),
        (503, body("503", "Unable to deliver the message, Resolve timeout"), true, "lost"),
        (400, body("1", "transient system error"), true, "rejected 1"),
        (400, body("105", "object transient"), true, "rejected 105"),
        (400, body("822", "naming property ('l3extSubnet.ip') is not set."), true, "rejected 822"),
        (504, html.to_owned(), true, "lost"),
        (502, html.to_owned(), false, "busy"),
        (404, html.to_owned(), false, "malformed"),
    ] {
        assert_eq!(word(http, &body, is_write), decision, "{http} {body}");
    }
    assert_eq!(
        refusal(400, body("103", "object uni\\/tn-T exists\\nnow").as_bytes(), true),
        Error::Rejected { code: 103, text: "object uni/tn-T exists now".to_owned() }
    );
    let broken = r#"{"totalCount":"1","imdata":[{"error":{"attributes":{"code":"801","text":"value 'a"b' is bad"}}}]}"#;
    assert_eq!(
        refusal(400, broken.as_bytes(), true),
        Error::Rejected { code: 801, text: "value 'a\"b' is bad".to_owned() }
    );
}

/// Websocket events in the recorded shapes: created carries all, modified what changed, deleted nothing.
#[test]
fn messages() {
    let body = br#"{"subscriptionId":["1","2"],"imdata":[{"l3extSubnet":{"attributes":{"childAction":"",
        "dn":"uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]","modTs":"x","rn":"","status":"modified","scope":"a,b"}}},
        {"l3extOut":{"attributes":{"dn":"uni/tn-T/out-L","status":"deleted"}}},{"odd":{}}]}"#;
    let message = message(body).unwrap();
    assert_eq!(message.subscriptions, ["1", "2"]);
    assert_eq!(message.changes.len(), 2);
    assert_eq!(message.changes[0].status, Status::Modified);
    assert_eq!(message.changes[0].mo.attributes.scope.as_deref(), Some("a,b"));
    assert_eq!(message.changes[1].status, Status::Deleted);
}

/// A6: the answer to a write with `rsp-subtree=modified` in each of the shapes that are documented: nested under the
/// posted root, side by side, and empty. An object that only leads to a change is not one.
#[test]
fn answers_to_writes() {
    let epg = "uni/tn-T/out-L/instP-E";
    let subnet = format!("{epg}/extsubnet-[10.0.0.1/32]");
    let nested = format!(
        r#"{{"totalCount":"1","imdata":[{{"l3extInstP":{{"attributes":{{"dn":"{epg}","rn":"","status":""}},"children":[
        {{"l3extSubnet":{{"attributes":{{"rn":"extsubnet-[10.0.0.1/32]","status":"created"}}}}}},
        {{"fvRsCustQosPol":{{"attributes":{{"rn":"rscustQosPol"}}}}}},
        {{"odd":{{"attributes":{{"status":"created"}}}}}}]}}}}]}}"#
    );
    let flat = format!(
        r#"{{"totalCount":"2","imdata":[{{"l3extInstP":{{"attributes":{{"dn":"{epg}","rn":"","status":"modified"}}}}}},
        {{"l3extSubnet":{{"attributes":{{"dn":"{subnet}","rn":"","status":"deleted"}}}}}}]}}"#
    );
    let deep = r#"{"imdata":[{"l3extOut":{"attributes":{"dn":"uni/tn-T/out-L"},"children":[{"l3extInstP":{"attributes":
        {"rn":"instP-E","status":"created"},"children":[{"l3extSubnet":{"attributes":
        {"rn":"extsubnet-[10.0.0.1/32]","status":"created"}}}]}}]}}]}"#
        .to_owned();
    for (body, expected) in [
        (nested, vec![(Status::Created, subnet.clone())]),
        (flat, vec![(Status::Modified, epg.to_owned()), (Status::Deleted, subnet.clone())]),
        (deep, vec![(Status::Created, epg.to_owned()), (Status::Created, subnet.clone())]),
        (r#"{"totalCount":"0","imdata":[]}"#.to_owned(), vec![]),
    ] {
        let changes = written(200, body.as_bytes()).unwrap();
        let shown: Vec<(Status, String)> = changes.into_iter().map(|it| (it.status, it.mo.dn)).collect();
        assert_eq!(shown, expected, "{body}");
    }
    assert!(matches!(written(200, b"<html>"), Err(Error::AnswerLost(_))));
}

/// X3: reading an answer with more objects than any APIC sends ends early, at any depth; and so does joining DNs that
/// are far longer than the answer.
#[test]
fn answers_are_bounded() {
    let objects = |count: usize, object: &str| vec![object; count].join(",");
    let nested =
        |inner: String| format!(r#"{{"a":{{"attributes":{{"dn":"{}"}},"children":[{inner}]}}}}"#, "d".repeat(4000));
    let body = |inner: String| format!(r#"{{"imdata":[{inner}]}}"#);
    let count = |body: String| answer(body.as_bytes()).map(|it| it.mos.len());
    let object = r#"{"a":{"attributes":{"dn":"d"}}}"#;
    assert_eq!(count(body(objects(envelope::MAX_OBJECTS - 1, object))), Ok(envelope::MAX_OBJECTS - 1));
    let too_many = Err(Error::Malformed("more than 200000 objects in one answer".to_owned()));
    assert_eq!(count(body(objects(envelope::MAX_OBJECTS, r#"{"a":{}}"#))), too_many);
    assert_eq!(count(body(nested(objects(envelope::MAX_OBJECTS, r#"{"a":{}}"#)))), too_many);
    let classes: Vec<String> = (0..=envelope::MAX_OBJECTS).map(|n| format!(r#""c{n}":{{}}"#)).collect();
    assert_eq!(count(body(format!("{{{}}}", classes.join(",")))), too_many);
    let ids = format!(r#"{{"subscriptionId":[{}],"imdata":[]}}"#, objects(envelope::MAX_OBJECTS, r#""1""#));
    assert!(matches!(message(ids.as_bytes()), Err(Error::Malformed(_))));
    let child = r#"{"b":{"attributes":{"rn":"x"}}}"#;
    assert_eq!(count(body(nested(objects(10_000, child)))), Ok(10_001));
    assert!(matches!(count(body(nested(objects(20_000, child)))), Err(Error::Malformed(_))));
}

/// What an answer says does not depend on how its JSON is arranged.
#[test]
fn json_layout_does_not_matter() {
    for (body, dns) in [
        (
            r#"{"imdata":[{"a":{"children":[{"b":{"attributes":{"rn":"c"}}}],"attributes":{"dn":"d"}}}],"totalCount":"1"}"#,
            "d d/c",
        ),
        (r#"{"imdata":[{"b":{"attributes":{"dn":"2"}},"a":{"attributes":{"dn":"1"}}}]}"#, "1 2"),
        (r#"{"imdata":[{"a":{"attributes":{"dn":"1"}},"a":{"attributes":{"dn":"2"}}}]}"#, "2"),
        (r#"{"imdata":[{"a":{"attributes":{"dn":"1","dn":"2","x":[{"y":{}}]},"z":{"dn":"3"}}}],"more":[1]}"#, "2"),
        (r#"{"imdata":[{"a":{"attributes":{"dn":7}}},{"a":{"attributes":{"dn":["x"]}}},{}]}"#, "7"),
    ] {
        let answer = answer(body.as_bytes()).unwrap();
        let found: Vec<&str> = answer.mos.iter().map(|it| it.dn.as_str()).collect();
        assert_eq!(found.join(" "), dns, "{body}");
    }
    let body =
        r#"{"imdata":[{"a":{"attributes":{"tDn":"t","x":"x","name":8,"annotation":true,"scope":null,"dn":"d"}}}]}"#;
    let expected = Attributes {
        annotation: Some("true".into()),
        name: Some("8".into()),
        scope: Some("null".into()),
        target_dn: Some("t".into()),
        ..Attributes::default()
    };
    assert_eq!(answer(body.as_bytes()).unwrap().mos[0].attributes, expected);
    for bad in [
        r#"{"imdata":null}"#,
        r#"{"imdata":[null]}"#,
        r#"{"imdata":[{"a":null}]}"#,
        r#"{"imdata":[{"a":{"attributes":[]}}]}"#,
        r#"{"imdata":[{"a":{"attributes":{},"attributes":{}}}]}"#,
        r#"{"imdata":[],"imdata":[]}"#,
        r#"{"imdata":[]} x"#,
    ] {
        assert!(matches!(answer(bad.as_bytes()), Err(Error::Malformed(_))), "{bad}");
    }
}

/// S3: F0467 has many causes, and stays for a while when it is over. It counts if `changeSet` or `descr` names the prefix and
/// nothing says that it is over. Both texts of Cisco's examples count: older releases have no debug message.
#[test]
fn only_a_standing_fault_about_a_prefix_counts() {
    const OLD: &str =
        r#""changeSet":"configQual:prefix-entry-already-in-use, configSt:failed-to-apply, temporaryError:no""#;
    const NEW: &str = r#""descr":"Configuration failed for uni/tn-T/out-L/instP-E due to Prefix Entry Already Used in Another EPG, debug message: prefix-entry-already-in-use: Prefix entry sys/ctx-[vxlan-2621440]/pfx-[10.0.0.1/32] is in use;""#;
    let other = OLD.replace("prefix-entry", "encap");
    for (attributes, counts) in [
        (OLD.to_owned(), true),
        (NEW.to_owned(), true),
        (format!(r#"{OLD},{NEW},"severity":"minor","lc":"raised""#), true),
        (format!(r#""lc":"soaking",{OLD},"descr":"""#), true),
        (format!(r#"{OLD},"severity":"minor","lc":"raised-clearing""#), true),
        (format!(r#"{OLD},"severity":"cleared","lc":"retaining""#), false),
        (format!(r#""severity":"cleared",{NEW}"#), false),
        (format!(r#"{NEW},"lc":"retaining""#), false),
        (other, false),
        (r#""severity":"minor","lc":"raised""#.to_owned(), false),
    ] {
        let dn = "topology/pod-1/node-101/local/svc-policyelem-id-0/uni/epp/rtd-[uni/tn-T/out-L/instP-E]/nwissues";
        let object = format!(r#"{{"faultInst":{{"attributes":{{"dn":"{dn}/fault-F0467",{attributes}}}}}}}"#);
        let answer = answer(format!(r#"{{"imdata":[{object}]}}"#).as_bytes()).unwrap();
        let found = faults_by_epg(&answer.mos).into_values().sum::<usize>();
        assert_eq!(found, usize::from(counts), "{attributes}");
    }
}

/// A4: an APIC may repeat what it was sent. No error holds a secret, in whatever form it comes, even if the text is
/// cut.
#[test]
fn secrets_are_not_repeated() {
    let secrets = [Secret::new("eyJ0-token"), Secret::new(r#"pass"word\1"#), Secret::new("")];
    let body = |text: &str| {
        let error = serde_json::json!({"error": {"attributes": {"code": "1", "text": text}}});
        serde_json::json!({"imdata": [error]}).to_string()
    };
    let broken = r#"{"imdata":[{"error":{"attributes":{"code":"1","text":"an "x" eyJ0-token pass\"word\\1"}}}]}"#;
    let long = format!("{}eyJ0-token", "x".repeat(395));
    for (body, shown) in [
        (body("cookie eyJ0-token of pass\"word\\1, eyJ0-token"), "cookie [secret] of [secret], [secret]".to_owned()),
        (body("Token was invalid: eyJ0-token"), "Token was invalid: [secret]".to_owned()),
        (
            body(
                "no signed request with APIC-Request-Signature: APIC-Request-Signature=aB/+9==; APIC-Certificate-DN=d",
            ),
            "no signed request with APIC-Request-Signature: APIC-Request-Signature=[secret]; APIC-Certificate-DN=d"
                .to_owned(),
        ),
        (body(&long), format!("{}[secr", "x".repeat(395))),
        (broken.to_owned(), "an \"x\" [secret] [secret]".to_owned()),
    ] {
        for http in [200, 400, 403, 500] {
            for error in [
                read_hiding(http, body.as_bytes(), &secrets).unwrap_err(),
                written_hiding(http, body.as_bytes(), &secrets).unwrap_err(),
            ] {
                let text = error.to_string();
                // With a success a body that is not JSON is not looked at for an error.
                assert!(text.contains(&shown) || (http == 200 && body == broken), "{http} {text}");
                assert!(!text.contains("eyJ0") && !text.contains("word"), "{http} {text}");
            }
        }
    }
}
