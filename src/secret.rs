//! Strings that must not be shown: passwords, tokens, the path of the websocket (A4).

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Holds a secret. It has no `Display`, and its `Debug` hides the value, so formatting cannot put it into a log line or an
/// error.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself, for the one place that sends it to its peer.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A4: from now on the kernel writes no core file of this process, and other processes of the same user cannot read its
/// memory and environment.
pub fn keep_out_of_core_files() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Reads a secret again.
type Source = dyn Fn() -> Result<Secret, String> + Send + Sync;

/// A secret that is replaced: a token that is refreshed, a password that is read again. Clones share it.
#[derive(Clone)]
pub struct Renewable {
    value: Arc<RwLock<Secret>>,
    source: Option<Arc<Source>>,
}

impl Renewable {
    /// Wraps the first value.
    pub fn new(secret: Secret) -> Self {
        Renewable { value: Arc::new(RwLock::new(secret)), source: None }
    }

    /// The same, with a source to read it from again.
    pub fn with_source(self, source: Arc<Source>) -> Self {
        Renewable { source: Some(source), ..self }
    }

    /// The present value.
    pub fn get(&self) -> Secret {
        self.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value.
    pub fn set(&self, secret: Secret) {
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    /// Reads it again; whether it has changed. If that fails, the old value stays.
    pub fn renew(&self) -> Result<bool, String> {
        let Some(source) = &self.source else { return Ok(false) };
        let (new, old) = (source()?, self.get());
        self.set(new.clone());
        Ok(new != old)
    }
}

impl fmt::Debug for Renewable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A4: a debug print hides the value.
    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[secret]");
        assert_eq!(format!("{:?}", Renewable::new(Secret::new("hunter2"))), "[secret]");
    }

    /// A4: the kernel is asked for no core files.
    #[test]
    fn core_files_are_forbidden() {
        keep_out_of_core_files().unwrap();
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
