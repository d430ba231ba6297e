//! The body of a POST, read as the APIC reads it: members in the order in which they are written, strings only, and a
//! number misread. Source of the texts: the integration tests of the Ansible collection `cisco.aci`.

use super::classes::Class;
use super::error::ApiError;
use super::rules::Refusal;
use super::variants::Variants;

/// An object of a posted body, its wrappers taken off.
#[derive(Debug)]
pub struct Node {
    /// Its class.
    pub class: &'static Class,
    /// Its attributes, in the order in which they are written.
    pub attributes: Vec<(String, String)>,
    /// What is to be below it.
    pub children: Vec<Node>,
}

/// Objects deeper than this are refused.
const DEPTH: usize = 32;

impl Node {
    /// Reads a body.
    pub fn parse(body: &[u8], variants: &Variants) -> Result<Node, ApiError> {
        let text = std::str::from_utf8(body).map_err(|_| ApiError::incomplete(1))?;
        let mut parser = Parser { text, at: 0, variants };
        let node = parser.node(0)?;
        parser.skip_space();
        if parser.at < text.len() { Err(parser.incomplete()) } else { Ok(node) }
    }

    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The value of an attribute that is not empty.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|it| !it.is_empty())
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    variants: &'a Variants,
}

impl Parser<'_> {
    fn node(&mut self, depth: usize) -> Result<Node, ApiError> {
        if depth > DEPTH {
            return Err(self.incomplete());
        }
        self.expect('{')?;
        let name = self.string()?;
        let class = Class::named(&name).ok_or_else(|| match Class::is_known(&name) {
            true => ApiError::not_simulated(&name),
            false => ApiError::unknown_class(&name),
        })?;
        self.expect(':')?;
        let mut node = Node { class, attributes: Vec::new(), children: Vec::new() };
        let mut attributes_seen = false;
        self.members(|parser, name| match name {
            "attributes" => {
                attributes_seen = true;
                node.attributes = parser.attributes(class)?;
                Ok(())
            }
            "children" if !attributes_seen => Err(parser.attributes_missing(class)),
            "children" => {
                node.children = parser.children(depth)?;
                Ok(())
            }
            _ => Err(parser.incomplete()),
        })?;
        self.expect('}')?;
        Ok(node)
    }

    fn attributes(&mut self, class: &'static Class) -> Result<Vec<(String, String)>, ApiError> {
        let mut attributes = Vec::new();
        self.members(|parser, name| {
            let value = if parser.peek() == Some('"') { parser.string()? } else { parser.misread(class, name)? };
            attributes.push((name.to_owned(), value));
            Ok(())
        })?;
        Ok(attributes)
    }

    fn children(&mut self, depth: usize) -> Result<Vec<Node>, ApiError> {
        let mut children = Vec::new();
        self.expect('[')?;
        if self.accept(']') {
            return Ok(children);
        }
        loop {
            children.push(self.node(depth + 1)?);
            if self.accept(']') {
                return Ok(children);
            }
            self.expect(',')?;
        }
    }

    /// Reads an object; `member` reads what follows the colon after each name.
    fn members(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<(), ApiError>) -> Result<(), ApiError> {
        self.expect('{')?;
        if self.accept('}') {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.expect(':')?;
            self.skip_space();
            member(self, &name)?;
            if self.accept('}') {
                return Ok(());
            }
            self.expect(',')?;
        }
    }

    /// A value without quotes: the APIC takes its first character for the quote and reads on to the next one.
    fn misread(&self, class: &'static Class, name: &str) -> Result<String, ApiError> {
        if matches!(self.peek(), Some('{' | '[') | None) {
            return Err(self.incomplete());
        }
        let prop = class.prop(name).ok_or_else(|| ApiError::unknown_attribute(name, class.name, self.variants))?;
        let rest: String = self.text[self.at..].chars().skip(1).collect();
        let Some((value, _)) = rest.split_once('"') else { return Err(self.incomplete_value()) };
        Err(match prop.rule.stored(value, self.variants) {
            Err(Refusal::Unknown) => ApiError::unknown_value(value, name, class.name),
            Err(Refusal::Validation) => ApiError::failed_validation(name, class.name, value),
            // What an APIC makes of the rest then is not established.
            Err(Refusal::ReadOnly) | Ok(_) => self.incomplete_value(),
        })
    }

    fn string(&mut self) -> Result<String, ApiError> {
        self.skip_space();
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let inner = rest.strip_prefix('"').ok_or_else(|| self.incomplete())?;
        let end = inner.char_indices().find(|(_, c)| {
            let is_end = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            is_end
        });
        let (end, _) = end.ok_or_else(|| self.incomplete())?;
        let raw = &rest[..end + 2];
        let value = serde_json::from_str(raw).map_err(|_| self.incomplete())?;
        self.at += raw.len();
        Ok(value)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        self.at += self.text[self.at..].len() - self.text[self.at..].trim_start().len();
    }

    fn accept(&mut self, c: char) -> bool {
        self.skip_space();
        let is_there = self.peek() == Some(c);
        self.at += if is_there { c.len_utf8() } else { 0 };
        is_there
    }

    fn expect(&mut self, c: char) -> Result<(), ApiError> {
        if self.accept(c) { Ok(()) } else { Err(self.incomplete()) }
    }

    fn line(&self) -> usize {
        1 + self.text[..self.at].matches('\n').count()
    }

    fn incomplete(&self) -> ApiError {
        ApiError::incomplete(self.line())
    }

    fn incomplete_value(&self) -> ApiError {
        ApiError::bad(400, format!("JSON parsing failed - incomplete attribute value at line: {}", self.line()))
    }

    fn attributes_missing(&self, class: &'static Class) -> ApiError {
        match (self.variants.children_first_code, class.naming()) {
            (822, Some(name)) => ApiError::naming_missing(class.name, name),
            (code, _) => ApiError::bad(
                code,
                format!(
                    "invalid data at line '{}'. Attributes are missing, tag 'attributes' must be specified first, \
                     before any other tag",
                    self.line()
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> (u32, String) {
        let error = Node::parse(body.as_bytes(), &Variants::default()).unwrap_err();
        (error.code, error.text)
    }

    #[test]
    fn a_body_is_read_with_its_order_and_its_children() {
        let body = r#" {"l3extInstP" : {"attributes":{"name":"a\"b\\","descr":"\u00e4"} ,
            "children":[{"l3extSubnet":{}}, {"tagTag":{"attributes":{}}}] } } "#;
        let node = Node::parse(body.as_bytes(), &Variants::default()).unwrap();
        assert_eq!((node.get("name"), node.get("descr"), node.given("x")), (Some("a\"b\\"), Some("ä"), None));
        assert_eq!(node.children.iter().map(|it| it.class.name).collect::<Vec<_>>(), ["l3extSubnet", "tagTag"]);
    }

    #[test]
    fn what_is_no_body_is_refused() {
        for body in [
            "",
            "{",
            "[]",
            "{}",
            "null",
            r#"{"l3extInstP":{}"#,
            r#"{"l3extInstP":{}}x"#,
            r#"{"l3extInstP":[]}"#,
            r#"{"l3extInstP":{"attributes":{"name":"x}}}"#,
            r#"{"l3extInstP":{"attributes":{"name":{}}}}"#,
            r#"{"l3extInstP":{"attributes":{},"children":{}}}"#,
            r#"{"l3extInstP":{"name":"E"}}"#,
        ] {
            assert_eq!(refusal(body), (400, "incomplete node at line 1".to_owned()), "{body}");
        }
        let deep = r#"{"fvTenant":{"attributes":{},"children":["#.repeat(40);
        assert_eq!(refusal(&deep).0, 400);
    }

    /// The recorded cases, with the classes that are here.
    #[test]
    fn a_number_is_misread_and_its_first_digit_eaten() {
        let table = [
            (
                r#"{"l3extInstP":{"attributes":{"prio": 32768, "descr":"test"}}}"#,
                120,
                "unknown property value 2768, , name prio, class l3extInstP [(Dn0)] Dn0=, ",
            ),
            (
                r#"{"l3extInstP":{"attributes":{"descr":"test","prio": 32768}}}"#,
                400,
                "JSON parsing failed - incomplete attribute value at line: 1",
            ),
        ];
        for (body, code, text) in table {
            assert_eq!(refusal(body), (code, text.to_owned()), "{body}");
        }
    }
}
