//! Writing JSON as the APIC does: envelopes, errors, events. Answers may hold ten thousand objects, so they are
//! written straight to text.

use super::error::ApiError;
use super::tree::Change;
use super::variants::Variants;

/// Writes `"name":"value"` pairs, separated by commas.
pub fn members<'a>(out: &mut String, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    for (index, (name, value)) in pairs.enumerate() {
        if index > 0 {
            out.push(',');
        }
        text(out, name);
        out.push(':');
        text(out, value);
    }
}

/// Writes a JSON string.
pub fn text(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The envelope around what an answer holds.
pub fn envelope(total: usize, imdata: &str, subscription: Option<u64>, variants: &Variants) -> String {
    let total = if variants.numeric_total { total.to_string() } else { format!("\"{total}\"") };
    let subscription = subscription.map(|id| format!("\"subscriptionId\":\"{id}\",")).unwrap_or_default();
    format!("{{{subscription}\"totalCount\":{total},\"imdata\":[{imdata}]}}")
}

/// The body of a refusal.
pub fn error(error: &ApiError, variants: &Variants) -> String {
    let mut quoted = String::new();
    if variants.unescaped_quotes {
        quoted = format!("\"{}\"", error.text);
    } else {
        text(&mut quoted, &error.text);
    }
    if variants.escaped_slashes {
        quoted = quoted.replace('/', "\\/");
    }
    let body = format!("{{\"error\":{{\"attributes\":{{\"code\":\"{}\",\"text\":{quoted}}}}}}}", error.code);
    envelope(1, &body, None, variants)
}

/// The web server's own page, for what never reached the APIC's program.
pub fn html(status: u16) -> String {
    let reason = match status {
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        _ => "Error",
    };
    format!(
        "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
}

/// The object of an event: a new one with all its properties, a changed one with what changed, a deleted one with
/// next to nothing.
pub fn event_object(change: &Change, mod_ts: &str) -> String {
    let mo = change.mo();
    let mut pairs: Vec<(&str, &str)> = vec![("childAction", ""), ("dn", change.dn())];
    match change {
        Change::Created { .. } => {
            let own = mo.attributes.iter().map(|(name, value)| (*name, value.as_str()));
            pairs.extend(own.filter(|(name, _)| !matches!(*name, "childAction" | "status")));
            pairs.extend([("rn", ""), ("status", "created")]);
        }
        Change::Modified { changed, .. } => {
            pairs.extend(changed.iter().map(|name| (*name, mo.get(name))));
            pairs.extend([("modTs", mod_ts), ("rn", ""), ("status", "modified")]);
        }
        Change::Deleted { .. } => pairs.extend([("modTs", mod_ts), ("rn", ""), ("status", "deleted")]),
    }
    let mut out = format!("{{\"{}\":{{\"attributes\":{{", mo.class.name);
    members(&mut out, pairs.into_iter());
    out.push_str("}}}");
    out
}

/// The message to subscriptions about one changed object.
pub fn event(ids: &[u64], object: &str) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!("{{\"subscriptionId\":[{}],\"imdata\":[{object}]}}", ids.join(","))
}
