//! `query-target-filter` and `rsp-subtree-filter`: the APIC's prefix notation, parsed and evaluated.

use super::classes::Class;
use super::error::ApiError;
use super::rules::Rule;
use super::tree::Mo;
use super::variants::Variants;

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
    /// Parses an expression and checks the names and values in it.
    pub fn parse(text: &str, variants: &Variants) -> Result<Filter, ApiError> {
        let mut parser = Parser { rest: text.trim() };
        let filter = parser.expression(0);
        let filter = filter.filter(|_| parser.rest.is_empty()).ok_or_else(|| {
            ApiError::bad(400, format!("Unable to process the query, filter expression is invalid: {text}"))
        })?;
        if let Some(limit) = variants.filter_limit.filter(|it| filter.size() - 1 > *it) {
            let text = format!("Number of filter expressions cannot exceed maximum allowed ({limit})");
            return Err(ApiError::bad(301, text));
        }
        filter.check()?;
        Ok(filter)
    }

    /// How many expressions it holds, itself included.
    fn size(&self) -> usize {
        1 + match self {
            Filter::And(all) | Filter::Or(all) | Filter::Xor(all) => all.iter().map(Filter::size).sum(),
            Filter::Not(it) => it.size(),
            Filter::True | Filter::False | Filter::Compare { .. } => 0,
        }
    }

    /// Whether the classes and properties exist and the values can be theirs. Of classes without objects here only
    /// the name is known.
    fn check(&self) -> Result<(), ApiError> {
        match self {
            Filter::And(all) | Filter::Or(all) | Filter::Xor(all) => all.iter().try_for_each(Filter::check),
            Filter::Not(it) => it.check(),
            Filter::True | Filter::False => Ok(()),
            Filter::Compare { class, .. } if !Class::is_known(class) => {
                Err(ApiError::bad(122, format!("class {class} not found")))
            }
            Filter::Compare { property, .. } if matches!(property.as_str(), "dn" | "rn") => Ok(()),
            Filter::Compare { op, class, property, values } => {
                let Some(known) = Class::named(class) else { return Ok(()) };
                let Some(prop) = known.prop(property) else {
                    let text = format!("Prop '{property}' not found in class '{class}' property table");
                    return Err(ApiError::bad(121, text));
                };
                let can_be = |value: &String| match prop.rule {
                    _ if *op == Op::Wcard => true,
                    Rule::OneOf(words) => words.contains(&value.as_str()),
                    Rule::Flags(words) => value.split(',').all(|it| it.is_empty() || words.contains(&it)),
                    _ if class == "faultInst" && property == "code" => is_fault_code(value),
                    _ => true,
                };
                match values.iter().find(|it| !can_be(it)) {
                    None => Ok(()),
                    Some(value) => {
                        let text =
                            format!("Incorrect filter format for {class}.{property}, value '{value}' is not valid");
                        Err(ApiError::bad(301, text))
                    }
                }
            }
        }
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

/// `F0467`, and never `F999999`.
fn is_fault_code(value: &str) -> bool {
    value.strip_prefix('F').is_some_and(|it| it.len() == 4 && it.bytes().all(|it| it.is_ascii_digit()))
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
        while self.expect(',').is_some() {
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
        self.skip_space();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    /// Clients put spaces after commas.
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn expect(&mut self, c: char) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(c)?;
        Some(())
    }

    fn value(&mut self) -> Option<String> {
        self.skip_space();
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', ')']).unwrap_or(self.rest.len());
            let (value, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(value.trim_end().to_owned());
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
            (r#"eq(l3extInstP.name,"a")"#, false),
            (r#" eq( l3extSubnet.ip , "10.0.0.1/32" ) "#, true),
            (r#"and( wcard(l3extSubnet.ip, "0.0.1"), not( false() ) )"#, true),
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
            assert_eq!(
                Filter::parse(text, &Variants::default()).unwrap().matches("uni/tn-T/out-L/instP-E/x", &mo),
                expected,
                "{text}"
            );
        }
        let refused = |text: &str| Filter::parse(text, &Variants::default()).unwrap_err().code;
        let many = |count: usize| format!("or({})", vec!["true()"; count].join(","));
        for (text, code) in [
            (r#"eq(faultInst.cod,"F0467")"#, 121),
            (r#"not(eq(faultIns.code,"F0467"))"#, 122),
            (r#"eq(faultInst.code,"F999999")"#, 301),
            (r#"eq(l3extInstP.prefGrMemb,"maybe")"#, 301),
            (r#"anybit(l3extSubnet.scope,"import-security,import")"#, 301),
            (&many(21), 301),
        ] {
            assert_eq!(refused(text), code, "{text}");
        }
        assert!(Filter::parse(&many(20), &Variants::default()).is_ok());
        for text in ["", "eq", "eq()", "eq(ip,\"x\")", "contains(a.b,\"x\")", "eq(a.b,\"x\")x", "eq(a.b,\"x", "and()"] {
            assert!(Filter::parse(text, &Variants::default()).is_err(), "{text}");
        }
    }
}
