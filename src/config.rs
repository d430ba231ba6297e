//! Checked configuration values.
