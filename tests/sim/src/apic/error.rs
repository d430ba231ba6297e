//! The APIC's errors: HTTP status, code and the recorded texts.

use super::variants::Variants;

const TOKEN_TIMEOUT: &str = "Token was invalid (Error: Token timeout)";

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The APIC's code.
    pub code: u32,
    /// The APIC's sentence.
    pub text: String,
}

impl ApiError {
    /// Any refusal.
    pub fn new(status: u16, code: u32, text: impl Into<String>) -> ApiError {
        ApiError { status, code, text: text.into() }
    }

    /// 400 with this code.
    pub fn bad(code: u32, text: impl Into<String>) -> ApiError {
        ApiError::new(400, code, text)
    }

    /// A parent is missing; the text names the object that was posted.
    pub fn missing_parent(code: u32, dn: &str) -> ApiError {
        ApiError::bad(code, format!("configured object ((Dn0)) not found Dn0={dn}, "))
    }

    /// `status=created` on what is there.
    pub fn exists(label: &str, class: &str, dn: &str) -> ApiError {
        ApiError::bad(103, format!("Cannot create {label} ({class}); object {dn} already exists."))
    }

    /// A DN that cannot be one.
    pub fn bad_dn(dn: &str, rn: &str, position: usize) -> ApiError {
        ApiError::bad(104, format!("Invalid DN {dn} wrong rn prefix {rn} at position {position}"))
    }

    /// What is there may not be deleted.
    pub fn permanent(label: &str, class: &str, dn: &str) -> ApiError {
        ApiError::bad(
            107,
            format!("Cannot delete object {label} ({class}) {dn}; make sure it's not used before deleting it"),
        )
    }

    /// A word that is none of the property's.
    pub fn unknown_value(value: &str, name: &str, class: &str) -> ApiError {
        ApiError::bad(120, format!("unknown property value {value}, name {name}, class {class} [(Dn0)] Dn0=, "))
    }

    /// A `dn` that names no object of this class.
    pub fn wrong_dn(dn: &str, class: &str) -> ApiError {
        ApiError::unknown_value(dn, "dn", class)
    }

    /// A relative name whose value is malformed.
    pub fn bad_rn(rn: &str) -> ApiError {
        ApiError::bad(104, format!("Invalid RN {rn}"))
    }

    /// An attribute that the class does not have; which code is not established for all releases.
    pub fn unknown_attribute(name: &str, class: &str, variants: &Variants) -> ApiError {
        match variants.unknown_property_code {
            400 => ApiError::bad(400, format!("unknown attribute '{name}' in element '{class}'")),
            code => ApiError::bad(code, format!("unknown property {name}, class {class} [(Dn0)] Dn0=, ")),
        }
    }

    /// An object where it cannot be.
    pub fn misplaced(rn: &str, parent: &str) -> ApiError {
        ApiError::bad(400, format!("Invalid request. Can not contain child '{rn}' under parent '{parent}'"))
    }

    /// A new object without the property that names it.
    pub fn naming_missing(class: &str, name: &str) -> ApiError {
        ApiError::bad(822, format!("naming property ('{class}.{name}') is not set."))
    }

    /// A class that an APIC has, and that has no objects here.
    pub fn not_simulated(class: &str) -> ApiError {
        ApiError::bad(1, format!("objects of class {class} are not simulated"))
    }

    /// A class that the catalogue does not have.
    pub fn unknown_class(class: &str) -> ApiError {
        ApiError::bad(122, format!("unknown managed object class {class}"))
    }

    /// Length or characters of a value.
    pub fn failed_validation(property: &str, object: &str, value: &str) -> ApiError {
        ApiError::bad(801, format!("property {property} of {object} failed validation for value '{value}'"))
    }

    /// A body without the wrappers `attributes` and `children`.
    pub fn incomplete(line: usize) -> ApiError {
        ApiError::bad(400, format!("incomplete node at line {line}"))
    }

    /// A token that is not known, or not any more.
    pub fn token(status: u16) -> ApiError {
        ApiError::new(status, status.into(), TOKEN_TIMEOUT)
    }

    /// Whether it is that.
    pub fn is_about_token(&self) -> bool {
        self.text == TOKEN_TIMEOUT
    }

    /// A session with a `urlToken`, and a request without it. The text is not established.
    pub fn challenge() -> ApiError {
        ApiError::new(403, 403, "Need a valid APIC-challenge header, as the session was opened with gui-token-request")
    }

    /// A request that is signed for a certificate that no user has. The text that names it is not established.
    pub fn unknown_certificate(variants: &Variants) -> ApiError {
        if variants.certificate_flaws_named {
            return ApiError::new(403, 403, "User certificate not found");
        }
        ApiError::no_cookie()
    }

    /// No token at all.
    pub fn no_cookie() -> ApiError {
        let text = "Need a valid webtoken cookie (named APIC-Cookie) or a signed request with signature in the cookie \
                    APIC-Request-Signature for all REST API requests";
        ApiError::new(403, 403, text)
    }
}
