//! The binding annotation: JSON that names the tenant, the L3Out and the external EPG (D1).

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use super::dn::{EpgDn, L3outDn, Name};
use super::rules::Exposed;

/// The longest annotation value that is read, in bytes.
pub const MAX_LENGTH: usize = 4096;

/// A valid annotation value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The external EPG that the workload's addresses belong to.
    pub epg: EpgDn,
    /// What it exposes, if it says so (D2).
    pub expose: Option<Exposed>,
    /// Keys that are not known: a finding, not an error (D2).
    pub unknown_keys: UnknownKeys,
}

/// Keys that are not known: the first three, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownKeys {
    first: Vec<Box<str>>,
    count: usize,
}

impl UnknownKeys {
    /// How many are named, and at how many characters each is cut.
    const NAMED: usize = 3;
    const MAX_LENGTH: usize = 64;

    /// One more.
    pub fn push(&mut self, key: &str) {
        self.count += 1;
        if self.first.len() < UnknownKeys::NAMED {
            self.first.push(key.chars().take(UnknownKeys::MAX_LENGTH).collect());
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for UnknownKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, key) in self.first.iter().enumerate() {
            write!(f, "{}{key:?}", if n == 0 { "" } else { ", " })?;
        }
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Reads an annotation value. Without `tenant` and `l3out` it means the default L3Out, if there is one (J2). The error is for
/// people, and quotes nothing of the value unescaped.
pub fn parse(value: &str, default: Option<&L3outDn>) -> Result<Binding, String> {
    if value.len() > MAX_LENGTH {
        return Err(format!("longer than {MAX_LENGTH} bytes"));
    }
    let Pairs(pairs) = serde_json::from_str(value).map_err(|error| json_error(value, &error))?;
    let (mut tenant, mut l3out, mut epg) = (None, None, None);
    let mut expose = None;
    let mut unknown_keys = UnknownKeys::default();
    for (key, value) in &pairs {
        let slot = match key.as_str() {
            "tenant" => &mut tenant,
            "l3out" => &mut l3out,
            "epg" => &mut epg,
            "expose" if expose.is_some() => return Err("expose is given twice".to_owned()),
            "expose" => {
                expose = Some(exposed(value).ok_or("expose is not a list out of \"pods\" and \"services\"")?);
                continue;
            }
            _ => {
                unknown_keys.push(key);
                continue;
            }
        };
        let Value::String(text) = value else { return Err(format!("{key} is not a string")) };
        if slot.replace(text).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    let name = |key: &str, text: Option<&String>, check: fn(&str) -> Result<Name, String>| {
        let text = text.ok_or_else(|| {
            let similar = pairs.iter().find(|(it, _)| it.trim().eq_ignore_ascii_case(key));
            let hint = similar.map(|(it, _)| format!(", but there is {it:?}; keys are lower case"));
            let hint = hint.or_else(|| (key != "epg" && epg.is_some()).then(|| hint_about_default(default)));
            format!("{key} is missing{}", hint.unwrap_or_default())
        })?;
        check(text).map_err(|why| format!("{key} {text:?} {why}"))
    };
    let is_named = |key: &str| pairs.iter().any(|(it, _)| it.trim().eq_ignore_ascii_case(key));
    let l3out = match default {
        Some(default) if !is_named("tenant") && !is_named("l3out") => default.clone(),
        _ => L3outDn { tenant: name("tenant", tenant, Name::tenant)?, l3out: name("l3out", l3out, Name::object)? },
    };
    Ok(Binding { epg: l3out.epg(name("epg", epg, Name::object)?), expose, unknown_keys })
}

/// J2: when the names of the L3Out may be left out.
fn hint_about_default(default: Option<&L3outDn>) -> String {
    match default {
        Some(default) => format!("; leave out both tenant and l3out for the default L3Out {default}, or none"),
        None => "; without --default-l3out both tenant and l3out are needed".to_owned(),
    }
}

/// What is wrong with a value that is not a JSON object; for the usual mistakes, what to write instead.
fn json_error(value: &str, error: &serde_json::Error) -> String {
    let text = value.trim();
    let why = if text.is_empty() {
        "empty value"
    } else if text.starts_with('{') && text.contains('\'') && !text.contains('"') {
        "single quotes are not JSON"
    } else if error.to_string().starts_with("trailing comma") {
        "trailing comma"
    } else if !text.starts_with(['{', '[', '"']) && text.contains(':') {
        "YAML is not JSON"
    } else {
        return format!("not a JSON object ({error})");
    };
    format!(r#"{why}; expected {{"tenant":"T","l3out":"L","epg":"E"}}"#)
}

/// D2: the value of `expose`.
fn exposed(value: &Value) -> Option<Exposed> {
    let words: Vec<&str> = value.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    Exposed::of(words).ok()
}

/// A JSON object as the pairs that were written: a map would hide that a key is given twice.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the keys tenant, l3out and epg")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}
