//! The one table of commands, flags and variables.
