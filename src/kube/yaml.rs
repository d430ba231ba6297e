//! The part of YAML that kubeconfig files use, as a JSON value. Anchors, tags and duplicate keys are rejected.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The remedy for most files that cannot be read.
pub(super) const PLAIN: &str = "`kubectl config view --raw --flatten` writes a plain one";

/// The deepest nesting that is read; a kubeconfig has about six levels.
const DEEPEST: usize = 64;

/// A parsed file.
#[derive(Debug, PartialEq)]
pub struct Document {
    /// The first document.
    pub value: Value,
    /// There is another document that is not empty.
    pub has_more: bool,
}

/// Reads the first document, as kubectl does. JSON is YAML, too.
pub fn parse(text: &str) -> Result<Document, String> {
    let mut events = Parser::new_from_str(text);
    let mut value = None;
    loop {
        let event = match next(&mut events) {
            // Errors after the first document do not matter.
            Err(_) if value.is_some() => return Ok(Document { value: value.unwrap_or_default(), has_more: true }),
            event => event?,
        };
        match event {
            None => return Ok(Document { value: value.unwrap_or_default(), has_more: false }),
            Some(
                Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing,
            ) => {}
            Some(Event::Scalar(text, style, ..)) if value.is_some() && scalar(&text, style).is_null() => {}
            Some(_) if value.is_some() => {
                return Ok(Document { value: value.unwrap_or_default(), has_more: true });
            }
            Some(event) => value = Some(node(event, &mut events, 0)?),
        }
    }
}

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

fn next<'a>(events: &mut Events<'a>) -> Result<Option<Event<'a>>, String> {
    match events.next_event() {
        None => Ok(None),
        Some(Ok((event, _))) => Ok(Some(event)),
        Some(Err(error)) => {
            Err(format!("invalid YAML (line {}, column {})", error.marker().line(), error.marker().col()))
        }
    }
}

fn node(event: Event<'_>, events: &mut Events<'_>, depth: usize) -> Result<Value, String> {
    if depth > DEEPEST {
        return Err("nested too deeply".to_owned());
    }
    let end = || "unexpected end".to_owned();
    match event {
        Event::Scalar(text, style, 0, None) => Ok(scalar(&text, style)),
        Event::SequenceStart(0, None) => {
            let mut items = Vec::new();
            loop {
                match next(events)?.ok_or_else(end)? {
                    Event::SequenceEnd => return Ok(items.into()),
                    event => items.push(node(event, events, depth + 1)?),
                }
            }
        }
        Event::MappingStart(0, None) => {
            let mut map = Map::new();
            loop {
                let key = match next(events)?.ok_or_else(end)? {
                    Event::MappingEnd => return Ok(map.into()),
                    Event::Scalar(key, _, 0, None) => key.into_owned(),
                    _ => return Err("a key is not plain text".to_owned()),
                };
                let event = next(events)?.ok_or_else(end)?;
                let value = node(event, events, depth + 1)?;
                if map.contains_key(&key) {
                    return Err(format!("duplicate key {key:?}"));
                }
                map.insert(key, value);
            }
        }
        _ => Err(format!("anchors, aliases and tags are not supported; {PLAIN}")),
    }
}

/// Plain `null`, `true` and `false` get their types; everything else, also a number, stays text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        (ScalarStyle::Plain, "true" | "True" | "TRUE") => true.into(),
        (ScalarStyle::Plain, "false" | "False" | "FALSE") => false.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// K3: what kubeconfig files are made of.
    #[test]
    fn documents_are_read() {
        for (text, value) in [
            ("", Value::Null),
            ("a: b\nc:\n- d: 'true'\n  e: true\n- ~\n", json!({"a": "b", "c": [{"d": "true", "e": true}, null]})),
            ("{\"a\": [1, \"x\"], \"b\": {}}", json!({"a": ["1", "x"], "b": {}})),
            ("key: |\n  one\n  two\n", json!({"key": "one\ntwo\n"})),
            ("---\napiVersion: v1 # comment\n...\n", json!({"apiVersion": "v1"})),
        ] {
            assert_eq!(parse(text), Ok(Document { value, has_more: false }), "{text}");
        }
    }

    /// K3: as kubectl does, the first document counts; a second one with nothing in it is nothing.
    #[test]
    fn the_first_document_counts() {
        for (text, has_more) in [
            ("a: b\n---\n", false),
            ("a: b\n---\n# nothing\n...\n---\n~\n", false),
            ("---\na: b\n---\nc: d\n", true),
            ("a: b\n---\n'x'\n", true),
            ("a: b\n---\nc: [", true),
            ("a: b\n---\n\t: broken: [", true),
        ] {
            assert_eq!(parse(text), Ok(Document { value: json!({"a": "b"}), has_more }), "{text}");
        }
    }

    /// X3: what could be larger, deeper or other than it looks is refused.
    #[test]
    fn tricks_are_refused() {
        let deep = "[".repeat(1000);
        for text in ["a: 1\na: 2", "a: &x 1\nb: *x", "!!binary x", "a: [", "? [a]\n: b", deep.as_str(), "a: b: c"] {
            assert!(parse(text).is_err(), "{text:.40}");
        }
    }
}
