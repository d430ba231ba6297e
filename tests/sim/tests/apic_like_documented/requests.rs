//! Runs `tests/apic_requests.txt` and `tests/apic_writes.txt`: some hundred requests, what each is answered, and which
//! source says so.
//!
//! A row has seven columns: method, target, body, HTTP status, error code, shape of the answer, source. Each group of
//! rows begins with the same small fabric, an open session and no websocket. The shapes are explained in the first
//! file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sim::apic::{SimApic, WriteAnswer};

use crate::client::{Answer, Client, Socket, apic};

const TABLES: [(&str, &str); 2] = [
    ("apic_requests.txt", include_str!("../apic_requests.txt")),
    ("apic_writes.txt", include_str!("../apic_writes.txt")),
];

/// The keys of the sources, as the table's head explains them.
const SOURCES: &[&str] =
    &["AC", "AG", "AIM", "ANS", "AT", "ATK", "CAP", "CG", "CT", "NW", "ORIG", "PU", "TF", "TT", "YAP", "inferred"];

struct Run {
    apic: SimApic,
    client: Client,
    sockets: Vec<Socket>,
    /// What stands for what in targets, bodies and shapes.
    names: BTreeMap<String, String>,
}

#[test]
fn each_request_is_answered_as_its_row_says() {
    let (mut failures, mut rows) = (Vec::new(), 0);
    let mut run = Run::new();
    let lines = TABLES.iter().flat_map(|(file, text)| (1..).zip(text.lines()).map(move |it| (file, it.0, it.1)));
    for (file, number, line) in lines {
        let line = line.trim_end();
        let result = match line.split_once(' ') {
            _ if line.is_empty() || line.starts_with('#') => continue,
            Some(("==", _)) => {
                run = Run::new();
                continue;
            }
            Some(("!", directive)) => run.direct(directive),
            _ => {
                rows += 1;
                run.row(line)
            }
        };
        if let Err(why) = result {
            failures.push(format!("{file}:{number}: {why}\n    {line}"));
        }
    }
    assert!(failures.is_empty(), "{} of {rows} rows:\n{}", failures.len(), failures.join("\n"));
    assert!(rows >= 400, "the tables have {rows} rows only");
}

impl Run {
    fn new() -> Run {
        let apic = apic(|variants| variants.login_throttle = None);
        apic.setup_tenant("U", "V", &["L"]).unwrap();
        let mark = "orchestrator:aci-sync:c1";
        let e = json!({"l3extInstP": {"attributes": {"name": "E", "annotation": mark, "descr": "web"}, "children": [
            {"l3extSubnet": {"attributes": {"ip": "10.0.0.1/32", "name": "pod-a", "annotation": mark}}},
            {"l3extSubnet": {"attributes": {"ip": "10.0.0.2/32", "scope": "import-security,shared-rtctrl"}}},
            {"fvRsCons": {"attributes": {"tnVzBrCPName": "C"}}},
            {"tagAnnotation": {"attributes": {"key": "k", "value": "v"}}},
        ]}});
        let f = json!({"l3extInstP": {"attributes": {"name": "F"}, "children": [
            {"l3extSubnet": {"attributes": {"ip": "2001:db8::1/128"}}},
        ]}});
        apic.set("uni/tn-T/brc-C", "vzBrCP", &[("name", "C")]).unwrap();
        apic.admin_post("uni/tn-T/out-L", &e).unwrap();
        apic.admin_post("uni/tn-T/out-M", &f).unwrap();
        let client = Client::logged_in(&apic);
        let names = [
            ("L", "uni/tn-T/out-L"),
            ("M", "uni/tn-T/out-M"),
            ("E", "uni/tn-T/out-L/instP-E"),
            ("F", "uni/tn-T/out-M/instP-F"),
            ("S1", "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]"),
            ("S2", "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.2/32]"),
            ("S6", "uni/tn-T/out-M/instP-F/extsubnet-[2001:db8::1/128]"),
            ("password", apic.password()),
        ];
        let mut names: BTreeMap<String, String> =
            names.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        for length in [63, 64, 65, 128, 129, 2048, 2049, 9000] {
            names.insert(format!("a*{length}"), "a".repeat(length));
        }
        Run { apic, client, sockets: Vec::new(), names }
    }

    /// What is done between two rows.
    fn direct(&mut self, directive: &str) -> Result<(), String> {
        let directive = self.filled(directive);
        match directive.split_once(' ').unwrap_or((&directive, "")) {
            ("socket", "") => self.sockets.push(self.client.socket()),
            ("close", "sockets") => {
                self.apic.drop_websockets();
                self.sockets.clear();
            }
            ("no", "socket") if self.client.try_socket().is_none() => {}
            ("login", "") => drop(self.client.login(self.apic.username(), self.apic.password())),
            ("cookie", cookie) => self.client.cookie = cookie.to_owned(),
            ("header", header) => self.client.headers = format!("{header}\r\n"),
            ("advance", seconds) => self.apic.advance(Duration::from_secs(seconds.parse().unwrap())),
            ("expire", "tokens") => self.apic.expire_tokens(),
            ("forbid", dn) => self.apic.forbid(dn, None),
            ("allow", "") => self.apic.allow(),
            ("refuse-subscriptions", text) => self.apic.refuse_subscriptions(text),
            ("busy", times) => self.apic.busy_json(times.parse().unwrap()),
            ("variant", variant) => return self.switch(variant),
            _ => return Err("unknown directive, or it did not do".to_owned()),
        }
        Ok(())
    }

    fn switch(&self, variant: &str) -> Result<(), String> {
        let mut known = true;
        let (name, value) = variant.split_once(' ').unwrap_or((variant, ""));
        self.apic.variants(|variants| match (name, value) {
            ("write_answer", "empty") => variants.write_answer = WriteAnswer::Empty,
            ("write_answer", "flat") => variants.write_answer = WriteAnswer::Flat,
            ("write_answer", "nested") => variants.write_answer = WriteAnswer::Nested,
            ("write_answer", "partial") => variants.write_answer = WriteAnswer::Partial,
            ("bare_root", value) => variants.bare_root = value == "yes",
            ("unknown_property_code", value) => variants.unknown_property_code = value.parse().unwrap(),
            ("children_first_code", value) => variants.children_first_code = value.parse().unwrap(),
            ("validation_names_dn", value) => variants.validation_names_dn = value == "yes",
            ("modified_upserts", value) => variants.modified_upserts = value == "yes",
            ("html_forbidden", value) => variants.html_forbidden = value == "yes",
            ("expired_status", value) => variants.expired_status = value.parse().unwrap(),
            ("refresh_timeout_known", value) => variants.refresh_timeout_known = value == "yes",
            ("result_limit", value) => variants.result_limit = value.parse().unwrap(),
            _ => known = false,
        });
        if known { Ok(()) } else { Err("unknown switch".to_owned()) }
    }

    fn row(&mut self, line: &str) -> Result<(), String> {
        let columns: Vec<String> = line.split(" | ").map(|it| self.filled(it.trim())).collect();
        let [method, target, body, status, code, shape, source] = columns.as_slice() else {
            return Err(format!("{} columns", columns.len()));
        };
        if !source.split([' ', ',', ':', ';']).any(|it| SOURCES.contains(&it)) {
            return Err(format!("no source: {source}"));
        }
        let target = target.replace(' ', "%20").replace('"', "%22");
        let answer = self.client.send(method, &target, if body == "-" { "" } else { body });
        let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let error = &json["imdata"][0]["error"]["attributes"]["code"];
        let got = (answer.status.to_string(), error.as_str().unwrap_or("-").to_owned());
        if (&got.0, &got.1) != (status, code) {
            return Err(format!("{} {}: {}", got.0, got.1, answer.body));
        }
        let login = &json["imdata"][0]["aaaLogin"]["attributes"];
        for (name, value) in
            [("id", &json["subscriptionId"]), ("token", &login["token"]), ("challenge", &login["urlToken"])]
        {
            if let Some(value) = value.as_str() {
                self.names.insert(name.to_owned(), value.to_owned());
            }
        }
        shape.split(" ; ").try_for_each(|it| check(it, &answer, &json))
    }

    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            text = text.replace(&format!("<{name}>"), value);
        }
        text
    }
}

/// One property of an answer, as the head of the table explains them.
fn check(shape: &str, answer: &Answer, json: &Value) -> Result<(), String> {
    let imdata = json["imdata"].as_array().cloned().unwrap_or_default();
    let text = json["imdata"][0]["error"]["attributes"]["text"].as_str().unwrap_or_default();
    let ok = match shape.split_once('=').unwrap_or((shape, "")) {
        ("ok", "") => imdata.is_empty() || imdata[0].get("error").is_none(),
        ("empty", "") => imdata.is_empty() && json["totalCount"] == "0",
        ("html", "") => answer.body.starts_with("<html>") && answer.head.contains("text/html"),
        ("id", "") => json["subscriptionId"].as_str().is_some_and(|it| it.len() == 17),
        ("cookie", "") => answer.head.contains("Set-Cookie: APIC-cookie="),
        ("n", count) => imdata.len().to_string() == count,
        ("total", count) => json["totalCount"] == count,
        ("text", expected) => return same(text.trim_end(), expected),
        ("dns", expected) => return same(&listed(&imdata, "dn"), expected),
        ("rns", expected) => return same(&listed(&children(imdata.first().unwrap_or(&Value::Null)), "rn"), expected),
        ("classes", expected) => return same(&imdata.iter().map(class).collect::<Vec<_>>().join(","), expected),
        (path, expected) => match path.rsplit_once('.') {
            Some((place, name)) => {
                let object = object(&imdata, place).ok_or_else(|| format!("nothing at {place}: {}", answer.body))?;
                let (name, absent) = name.strip_suffix('!').map_or((name, false), |it| (it, true));
                let value = match name {
                    "class" => Some(class(&object)),
                    "children" => Some(children(&object).len().to_string()),
                    _ => attributes(&object)[name].as_str().map(str::to_owned),
                };
                match (absent, value) {
                    (true, value) => value.is_none(),
                    (false, value) => {
                        return same(&value.unwrap_or_else(|| format!("none in {}", answer.body)), expected);
                    }
                }
            }
            None => return Err(format!("unknown shape {shape}")),
        },
    };
    if ok { Ok(()) } else { Err(format!("not {shape}: {} {}", answer.head, answer.body)) }
}

fn same(got: &str, expected: &str) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("got {got}\n    for {expected}")) }
}

/// `0/1`: of the first object of the answer the second child.
fn object(imdata: &[Value], place: &str) -> Option<Value> {
    let mut level = imdata.to_vec();
    let mut found = None;
    for index in place.split('/') {
        let object = level.get(index.parse::<usize>().ok()?)?.clone();
        level = children(&object);
        found = Some(object);
    }
    found
}

fn class(object: &Value) -> String {
    object.as_object().and_then(|it| it.keys().next()).cloned().unwrap_or_default()
}

fn attributes(object: &Value) -> &Value {
    &object[class(object)]["attributes"]
}

fn children(object: &Value) -> Vec<Value> {
    object[class(object)]["children"].as_array().cloned().unwrap_or_default()
}

fn listed(objects: &[Value], name: &str) -> String {
    objects.iter().map(|it| attributes(it)[name].as_str().unwrap_or("none")).collect::<Vec<_>>().join(",")
}
