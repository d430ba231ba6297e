//! The APIC's errors: HTTP status, code and the recorded texts.

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

    /// A class where it cannot be.
    pub fn misplaced(child: &str, parent: &str) -> ApiError {
        ApiError::bad(121, format!("Invalid request. Cannot contain child {child} under parent {parent}"))
    }

    /// A class that the catalogue does not have.
    pub fn unknown_class(class: &str) -> ApiError {
        ApiError::bad(122, format!("unknown managed object class {class}"))
    }

    /// Length or characters of a value.
    pub fn failed_validation(property: &str, rn: &str, value: &str) -> ApiError {
        ApiError::bad(801, format!("property {property} of {rn} failed validation for value '{value}'"))
    }

    /// A body without the wrappers `attributes` and `children`.
    pub fn incomplete() -> ApiError {
        ApiError::bad(400, "incomplete node at line 1")
    }

    /// A token that is not known, or not any more.
    pub fn token(status: u16) -> ApiError {
        ApiError::new(status, status.into(), TOKEN_TIMEOUT)
    }

    /// Whether it is that.
    pub fn is_about_token(&self) -> bool {
        self.text == TOKEN_TIMEOUT
    }

    /// No token at all.
    pub fn no_cookie() -> ApiError {
        let text = "Need a valid webtoken cookie (named APIC-Cookie) or a signed request with signature in the cookie \
                    APIC-Request-Signature for all REST API requests";
        ApiError::new(403, 403, text)
    }
}
