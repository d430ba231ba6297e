//! An object as a write sends it. The APIC demands `attributes` before `children`, an order that JSON itself does not have
//! (reference: "tag 'attributes' must be specified first"). It also demands strings for all values: of a number it loses
//! the first digit. Both hold here by construction.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// `{class: {"attributes": {...}, "children": [...]}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub(super) class: Cow<'static, str>,
    pub(super) inner: Inner,
}

/// The fields are written in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Inner {
    pub(super) attributes: BTreeMap<Cow<'static, str>, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) children: Vec<Body>,
}

impl Body {
    /// An object of this class without attributes.
    pub fn new(class: &'static str) -> Body {
        Body { class: Cow::Borrowed(class), inner: Inner::default() }
    }

    /// The same with one more attribute.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Body {
        self.inner.attributes.insert(Cow::Borrowed(name), value.into());
        self
    }

    /// The same with this attribute, if there is a value.
    pub fn with_some(self, name: &'static str, value: Option<impl Into<String>>) -> Body {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The same with more children.
    pub fn with_children(mut self, children: impl IntoIterator<Item = Body>) -> Body {
        self.inner.children.extend(children);
        self
    }
}

/// An object as the APIC answers it.
impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Body, D::Error> {
        let mut objects = BTreeMap::<Cow<'static, str>, Inner>::deserialize(deserializer)?.into_iter();
        match (objects.next(), objects.next()) {
            (Some((class, inner)), None) => Ok(Body { class, inner }),
            _ => Err(D::Error::custom("not one object")),
        }
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&*self.class, &self.inner)?;
        map.end()
    }
}

/// The JSON that is sent.
impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W2: attributes come before children at every level, whatever the names are, and every value is a string.
    #[test]
    fn attributes_come_first() {
        let child = Body::new("l3extSubnet").with("ip", "10.0.0.1/32").with_some("name", None::<&str>);
        let root = Body::new("l3extInstP").with_children([child]).with("name", "E").with_some("annotation", Some("7"));
        assert_eq!(
            root.to_string(),
            r#"{"l3extInstP":{"attributes":{"annotation":"7","name":"E"},"children":[{"l3extSubnet":{"attributes":{"ip":"10.0.0.1/32"}}}]}}"#
        );
    }
}
