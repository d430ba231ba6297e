//! Texts of HTTP errors.

/// The text of a request's error. It has no URL, which could hold a token.
pub fn describe_error(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(phase) => format!("no answer in time ({phase})"),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Other(error) => error.to_string(),
        ureq::Error::HostNotFound => "host name not found".to_owned(),
        ureq::Error::ConnectionFailed => "connection failed".to_owned(),
        ureq::Error::BodyExceedsLimit(limit) => format!("the answer is larger than {limit} bytes"),
        ureq::Error::LargeResponseHeader(_, limit) => format!("the answer's head is larger than {limit} bytes"),
        ureq::Error::Protocol(error) => format!("invalid HTTP: {error}"),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "invalid HTTP request".to_owned(),
        other => other.to_string(),
    }
}

/// The text of an I/O error; it may wrap an error of ureq.
pub fn describe_io_error(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<ureq::Error>());
    inner.map_or_else(|| error.to_string(), describe_error)
}
