//! What a value of a property must look like, and how it is stored. Sets of characters and lengths are those of the
//! 6.0(9c) schema.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::variants::{HostBits, Variants};

/// What may be written to a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: the fabric writes it.
    ReadOnly,
    /// Letters, digits, `_`, `.`, `-`, and `:` where allowed; of limited length.
    Name {
        /// The minimum of characters.
        min: usize,
        /// The maximum of characters.
        max: usize,
        /// Whether `:` may be in it.
        colon: bool,
    },
    /// A description with a maximum of characters.
    Text(usize),
    /// The value of an annotation: anything but angle brackets.
    TagValue(usize),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A comma list of these words; read back in alphabetical order.
    Flags(&'static [&'static str]),
    /// An address with a prefix length.
    Prefix,
}

/// Why a value is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The property is the fabric's (code 120 here; the real one is not established).
    ReadOnly,
    /// Not one of the words: code 120.
    Unknown,
    /// Length or characters: code 801.
    Validation,
}

impl Rule {
    /// The value as the fabric stores it.
    pub fn stored(&self, value: &str, variants: &Variants) -> Result<String, Refusal> {
        let length = value.chars().count();
        let ok = match *self {
            Rule::ReadOnly => return Err(Refusal::ReadOnly),
            Rule::Name { min, max, colon } => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c) || (colon && c == ':');
                (min..=max).contains(&length) && value.chars().all(allowed)
            }
            Rule::Text(max) => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "\\!#$%()*,-./:;@ _{|}~?&+".contains(c);
                length <= max && value.chars().all(allowed)
            }
            Rule::TagValue(max) => length <= max && !value.contains(['<', '>']),
            Rule::OneOf(words) => {
                return if words.contains(&value) { Ok(value.to_owned()) } else { Err(Refusal::Unknown) };
            }
            Rule::Flags(words) => return flags(value, words),
            Rule::Prefix => return prefix(value, variants).ok_or(Refusal::Validation),
        };
        if ok { Ok(value.to_owned()) } else { Err(Refusal::Validation) }
    }
}

fn flags(value: &str, words: &[&str]) -> Result<String, Refusal> {
    let mut flags: Vec<&str> = value.split(',').filter(|it| !it.is_empty()).collect();
    if flags.iter().any(|it| !words.contains(it)) {
        return Err(Refusal::Unknown);
    }
    flags.sort_unstable();
    flags.dedup();
    Ok(flags.join(","))
}

/// A prefix as the fabric keeps it; `None` if it is none.
pub fn prefix(value: &str, variants: &Variants) -> Option<String> {
    let (address, length) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let plain = !length.is_empty() && length.len() <= 3 && length.bytes().all(|it| it.is_ascii_digit());
    let length: u32 = if plain { length.parse().ok().filter(|it| *it <= bits)? } else { return None };
    let network = network(address, length);
    let address = match variants.host_bits {
        HostBits::Refused if network != address => return None,
        HostBits::Cleared => network,
        _ => address,
    };
    let as_written = value.split_once('/')?.0;
    let text = match address {
        IpAddr::V6(_) if !variants.ipv6_canonical && address == as_written.parse::<IpAddr>().ok()? => {
            as_written.to_owned()
        }
        other => other.to_string(),
    };
    Some(format!("{text}/{length}"))
}

fn network(address: IpAddr, length: u32) -> IpAddr {
    match address {
        IpAddr::V4(it) => Ipv4Addr::from_bits(it.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into(),
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_kept_as_the_switches_say() {
        let canonical = Variants::default();
        let literal = Variants { ipv6_canonical: false, ..Variants::default() };
        let table = [
            ("10.1.2.3/32", &canonical, Some("10.1.2.3/32")),
            ("FD00:0::1/128", &canonical, Some("fd00::1/128")),
            ("FD00:0::1/128", &literal, Some("FD00:0::1/128")),
            ("0.0.0.0/0", &canonical, Some("0.0.0.0/0")),
            ("::/0", &canonical, Some("::/0")),
            ("10.1.2.3/33", &canonical, None),
            ("10.1.2.3/+8", &canonical, None),
            ("10.1.2.3", &canonical, None),
            ("10.1.2.300/32", &canonical, None),
            ("fd00::1/129", &canonical, None),
        ];
        for (value, variants, expected) in table {
            assert_eq!(prefix(value, variants).as_deref(), expected, "{value}");
        }
        for (host_bits, expected) in
            [(HostBits::Kept, Some("10.1.2.3/24")), (HostBits::Cleared, Some("10.1.2.0/24")), (HostBits::Refused, None)]
        {
            let variants = Variants { host_bits, ..Variants::default() };
            assert_eq!(prefix("10.1.2.3/24", &variants).as_deref(), expected, "{host_bits:?}");
        }
    }

    #[test]
    fn values_are_checked_like_the_schema_says() {
        let variants = Variants::default();
        let annotation = Rule::Name { min: 0, max: 128, colon: true };
        let flags = Rule::Flags(super::super::classes::SCOPE);
        let long = "a".repeat(129);
        let table = [
            (annotation, "orchestrator:aci-sync:x", Ok("orchestrator:aci-sync:x")),
            (annotation, "a,b", Err(Refusal::Validation)),
            (annotation, long.as_str(), Err(Refusal::Validation)),
            (flags, "shared-rtctrl,import-security", Ok("import-security,shared-rtctrl")),
            (flags, "", Ok("")),
            (flags, "import", Err(Refusal::Unknown)),
            (Rule::Text(128), "a [b]", Err(Refusal::Validation)),
            (Rule::OneOf(&["yes", "no"]), "maybe", Err(Refusal::Unknown)),
            (Rule::ReadOnly, "1", Err(Refusal::ReadOnly)),
        ];
        for (rule, value, expected) in table {
            assert_eq!(rule.stored(value, &variants).as_deref(), expected.as_ref().map(|it| *it), "{value}");
        }
    }
}
