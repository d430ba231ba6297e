//! `query-target-filter` and `rsp-subtree-filter`: the APIC's prefix notation, parsed and evaluated.

use super::error::ApiError;
use super::tree::Mo;

/// An expression over one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// `true()`
    True,
    /// `false()`
    False,
    /// `and(a,b,…)`
    And(Vec<Filter>),
    /// `or(a,b,…)`
    Or(Vec<Filter>),
    /// `xor(a,b,…)`
    Xor(Vec<Filter>),
    /// `not(a)`
    Not(Box<Filter>),
    /// `eq(class.property,"value")` and its kin; `bw` has two values.
    Compare {
        /// The word.
        op: Op,
        /// Only objects of this class can match.
        class: String,
        /// The property, or `dn`.
        property: String,
        /// What it is compared with.
        values: Vec<String>,
    },
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Greater.
    Gt,
    /// Less or equal.
    Le,
    /// Greater or equal.
    Ge,
    /// Between two values, both included.
    Bw,
    /// Contains the text.
    Wcard,
    /// Has one of the flags.
    Anybit,
}

/// Expressions deeper than this are refused.
const DEPTH: usize = 32;

impl Filter {
    /// Parses an expression.
    pub fn parse(text: &str) -> Result<Filter, ApiError> {
        let mut parser = Parser { rest: text };
        let filter = parser.expression(0);
        filter.filter(|_| parser.rest.is_empty()).ok_or_else(|| {
            ApiError::bad(400, format!("Unable to process the query, filter expression is invalid: {text}"))
        })
    }

    /// Whether the object satisfies it.
    pub fn matches(&self, dn: &str, mo: &Mo) -> bool {
        match self {
            Filter::True => true,
            Filter::False => false,
            Filter::And(all) => all.iter().all(|it| it.matches(dn, mo)),
            Filter::Or(any) => any.iter().any(|it| it.matches(dn, mo)),
            Filter::Xor(odd) => odd.iter().filter(|it| it.matches(dn, mo)).count() % 2 == 1,
            Filter::Not(it) => !it.matches(dn, mo),
            // A filter on a class other than the object's never matches.
            Filter::Compare { op, class, property, values } => {
                let value = match property.as_str() {
                    "dn" => dn,
                    other => mo.get(other),
                };
                mo.class.name == class && compare(*op, value, values)
            }
        }
    }
}

fn compare(op: Op, value: &str, with: &[String]) -> bool {
    let order = |other: &str| match (value.parse::<f64>(), other.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => value.cmp(other),
    };
    let first = with.first().map_or("", String::as_str);
    match op {
        Op::Eq => value == first,
        Op::Ne => value != first,
        Op::Lt => order(first).is_lt(),
        Op::Gt => order(first).is_gt(),
        Op::Le => order(first).is_le(),
        Op::Ge => order(first).is_ge(),
        Op::Bw => order(first).is_ge() && with.get(1).is_some_and(|last| order(last).is_le()),
        Op::Wcard => value.contains(first),
        Op::Anybit => first.split(',').any(|flag| value.split(',').any(|it| it == flag)),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn expression(&mut self, depth: usize) -> Option<Filter> {
        if depth > DEPTH {
            return None;
        }
        let word = self.word();
        self.expect('(')?;
        let several = |it: &mut Self| it.list(depth).filter(|it| !it.is_empty());
        let filter = match word.as_str() {
            "true" => Filter::True,
            "false" => Filter::False,
            "and" => Filter::And(several(self)?),
            "or" => Filter::Or(several(self)?),
            "xor" => Filter::Xor(several(self)?),
            "not" => Filter::Not(Box::new(self.expression(depth + 1)?)),
            other => self.comparison(op(other)?)?,
        };
        self.expect(')')?;
        Some(filter)
    }

    fn list(&mut self, depth: usize) -> Option<Vec<Filter>> {
        let mut list = vec![self.expression(depth + 1)?];
        while self.rest.starts_with(',') {
            self.expect(',')?;
            list.push(self.expression(depth + 1)?);
        }
        Some(list)
    }

    fn comparison(&mut self, op: Op) -> Option<Filter> {
        let class = self.word();
        self.expect('.')?;
        let property = self.word();
        let mut values = Vec::new();
        for _ in 0..if op == Op::Bw { 2 } else { 1 } {
            self.expect(',')?;
            values.push(self.value()?);
        }
        let named = !class.is_empty() && !property.is_empty();
        named.then_some(Filter::Compare { op, class, property, values })
    }

    fn word(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn expect(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(c)?;
        Some(())
    }

    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', ')']).unwrap_or(self.rest.len());
            let (value, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(value.to_owned());
        };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

fn op(word: &str) -> Option<Op> {
    Some(match word {
        "eq" => Op::Eq,
        "ne" => Op::Ne,
        "lt" => Op::Lt,
        "gt" => Op::Gt,
        "le" => Op::Le,
        "ge" => Op::Ge,
        "bw" => Op::Bw,
        "wcard" => Op::Wcard,
        "anybit" => Op::Anybit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::apic::classes::Class;

    #[test]
    fn expressions_match_as_they_say() {
        let class = Class::named("l3extSubnet").unwrap();
        let attributes = [("ip", "10.0.0.1/32"), ("scope", "import-security,shared-rtctrl"), ("name", "a\"b")];
        let attributes = attributes.map(|(name, value)| (name, value.to_owned())).into();
        let mo = Mo {
            class,
            parent: String::new(),
            rn: String::new(),
            attributes,
            sequence: 0,
            born: Duration::ZERO,
            transaction: 0,
        };
        let table = [
            (r#"eq(l3extSubnet.ip,"10.0.0.1/32")"#, true),
            (r#"eq(l3extInstP.ip,"10.0.0.1/32")"#, false),
            (r#"ne(l3extSubnet.ip,"10.0.0.1/32")"#, false),
            (r#"wcard(l3extSubnet.ip,"0.0.1")"#, true),
            (r#"wcard(l3extSubnet.dn,"instP-E")"#, true),
            (r#"anybit(l3extSubnet.scope,"shared-rtctrl,shared-security")"#, true),
            (r#"eq(l3extSubnet.name,"a\"b")"#, true),
            (r#"and(eq(l3extSubnet.ip,"x"),true())"#, false),
            (r#"or(eq(l3extSubnet.ip,"x"),true())"#, true),
            (r#"not(or(false(),eq(l3extSubnet.ip,"x")))"#, true),
            (r#"xor(true(),true())"#, false),
            (r#"bw(l3extSubnet.ip,"10","11")"#, true),
        ];
        for (text, expected) in table {
            assert_eq!(Filter::parse(text).unwrap().matches("uni/tn-T/out-L/instP-E/x", &mo), expected, "{text}");
        }
        for text in ["", "eq", "eq()", "eq(ip,\"x\")", "contains(a.b,\"x\")", "eq(a.b,\"x\")x", "eq(a.b,\"x", "and()"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
