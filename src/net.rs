//! TLS and HTTP agents for both sides.
