//! A string that must not be seen: passwords, tokens, the websocket's path (rule A4).

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Holds a secret. It has no `Display`, and its `Debug` shows nothing of the value, so that a secret cannot
/// slip into a log line or an error by way of formatting.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that came from outside.
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

/// A4: from now on the kernel writes no core file of this process, and other processes of the same user see nothing of its
/// memory and environment.
pub fn keep_out_of_core_files() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Where a secret comes from, read anew.
type Source = dyn Fn() -> Result<Secret, String> + Send + Sync;

/// A secret that is replaced now and then: a token that is refreshed, a password that is read again. Clones share it.
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

    /// The same, with a place to read it again from.
    pub fn with_source(self, source: Arc<Source>) -> Self {
        Renewable { source: Some(source), ..self }
    }

    /// The value that counts now.
    pub fn get(&self) -> Secret {
        self.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this value counts.
    pub fn set(&self, secret: Secret) {
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    /// Reads it again; whether it is another one now. What cannot be read leaves the old one.
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

    /// A4: a debug print shows nothing of the value.
    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[secret]");
        assert_eq!(format!("{:?}", Renewable::new(Secret::new("hunter2"))), "[secret]");
    }

    /// A4: what the kernel is told.
    #[test]
    fn core_files_are_forbidden() {
        keep_out_of_core_files().unwrap();
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
