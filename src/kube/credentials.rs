//! The credentials for the API server: the present ones, and their renewal (K3, F35). The client asks for them; how a
//! plugin is run is in `plugin`.
//!
//! Facts: client-go `transport/token_source.go` (a token file is read once a minute) and
//! `plugin/pkg/client/auth/exec/exec.go` (a plugin runs when its credential expires, and once after a 401).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use log::{info, warn};

use super::error::ConfigError;
use super::kubeconfig::ClusterConfig;
use super::plugin::{Credential, Plugin};
use super::token::{Token, end_of, read_token};
use crate::backoff::Backoff;
use crate::metrics;
use crate::net::{Tls, TlsSettings};
use crate::secret::Secret;

/// How long a token of a file is used before the file is read again.
const FILE_LIFE: Duration = Duration::from_secs(60);

/// The pauses between the runs of a plugin that fails, or whose credentials are rejected.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// After so long without a failure or a rejection the pauses start over.
const HEALTHY: Duration = Duration::from_secs(120);

/// Reads the configuration again.
pub type Reload = dyn Fn() -> Result<ClusterConfig, ConfigError> + Send + Sync;

/// What a request is sent with.
#[derive(Clone)]
pub(super) struct Auth {
    /// Trust and client certificate. Connections made with others are not used.
    pub(super) tls: Tls,
    /// The bearer token.
    pub(super) token: Option<Secret>,
    /// Each auth that differs from the one before has the next number.
    pub(super) number: u64,
}

/// The present credentials and their source.
pub(super) struct Credentials {
    reload: Option<Box<Reload>>,
    known: Mutex<Current>,
    /// Held while a new auth is made, so that no plugin runs twice at a time.
    renewal: Mutex<Renewal>,
    close: Mutex<Option<Sender<()>>>,
    closed: Receiver<()>,
}

/// The present state. Its lock is never held during reading or waiting.
struct Current {
    config: ClusterConfig,
    /// The settings of the auth's TLS.
    settings: TlsSettings,
    auth: Auth,
    /// When the auth has to be renewed.
    until: Option<Instant>,
}

/// The last runs of the plugin.
struct Renewal {
    plugin: Option<Plugin>,
    backoff: Backoff,
    /// It does not run before then: after a failure not at all, after a success not because of a rejection.
    not_before: Instant,
    failed: Option<ConfigError>,
}

impl Credentials {
    /// No plugin runs yet. `reload` is called when the credentials are rejected, and on demand.
    pub(super) fn new(config: &ClusterConfig, reload: Option<Box<Reload>>) -> Result<Credentials, ConfigError> {
        let (tls, now) = (tls(&config.tls)?, Instant::now());
        let (token, until) = match &config.token {
            None => (None, None),
            Some(Token::Fixed(token)) => (Some(token.clone()), None),
            Some(Token::File(file)) => (Some(read_token(file)?), Some(now + FILE_LIFE)),
            Some(Token::Plugin(_)) => (None, Some(now)),
        };
        let (config, settings, auth) = (config.clone(), config.tls.clone(), Auth { tls, token, number: 0 });
        note_ends(&config, &auth);
        let (close, closed) = bounded(0);
        Ok(Credentials {
            reload,
            known: Mutex::new(Current { config, settings, auth, until }),
            renewal: Mutex::new(Renewal::of(None)),
            close: Mutex::new(Some(close)),
            closed,
        })
    }

    /// The present auth, valid or not.
    pub(super) fn first(&self) -> Auth {
        self.current_state().auth.clone()
    }

    /// The auth for the next request, renewed if it has expired; that takes as long as a plugin takes.
    pub(super) fn current(&self) -> Result<Auth, ConfigError> {
        if let Some(auth) = self.valid() {
            return Ok(auth);
        }
        let mut renewal = self.renewal();
        // Another thread may have renewed it in the meantime.
        if let Some(auth) = self.valid() {
            return Ok(auth);
        }
        let (config, old) = self.both();
        let is_file = matches!(config.token, Some(Token::File(_)));
        match self.make(&mut renewal, config, false) {
            Err(error) if is_file => {
                warn!(error:%; "failed to renew the token; keeping the old one");
                self.current_state().until = Some(Instant::now() + FILE_LIFE);
                Ok(old)
            }
            made => made,
        }
    }

    /// An auth was rejected (401). Returns another one if there is one, perhaps made by another thread.
    pub(super) fn after_rejection(&self, rejected: &Auth) -> Result<Option<Auth>, ConfigError> {
        let mut renewal = self.renewal();
        let (config, auth) = self.both();
        if auth.number != rejected.number {
            return Ok(Some(auth));
        }
        if self.is_closed() {
            return Ok(None);
        }
        let config = self.reloaded()?.unwrap_or(config);
        let auth = self.make(&mut renewal, config, true)?;
        Ok((auth.number != rejected.number).then_some(auth))
    }

    /// Reads everything again, now. If that fails, the old credentials stay in use. A plugin does not run, since its
    /// credential has an expiry; a plugin that is new runs at the next request.
    pub(super) fn read_again(&self) -> Result<Option<Auth>, ConfigError> {
        let config = self.reloaded()?.unwrap_or_else(|| self.current_state().config.clone());
        if matches!(config.token, Some(Token::Plugin(_))) {
            tls(&config.tls)?;
            let mut known = self.current_state();
            if known.config != config {
                (known.config, known.until) = (config, Some(Instant::now()));
            }
            return Ok(None);
        }
        self.make(&mut self.renewal(), config, false).map(Some)
    }

    /// Ends a running plugin, and lets no other begin.
    pub(super) fn close(&self) {
        self.close.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn is_closed(&self) -> bool {
        self.closed.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn current_state(&self) -> MutexGuard<'_, Current> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn both(&self) -> (ClusterConfig, Auth) {
        let known = self.current_state();
        (known.config.clone(), known.auth.clone())
    }

    fn renewal(&self) -> MutexGuard<'_, Renewal> {
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The auth if it is still valid. After the close it always counts as valid.
    fn valid(&self) -> Option<Auth> {
        let known = self.current_state();
        (self.is_closed() || known.until.is_none_or(|it| Instant::now() < it)).then(|| known.auth.clone())
    }

    /// The configuration, read again if possible. The server in it must not change: the lists of another cluster would look
    /// as if everything had been deleted.
    fn reloaded(&self) -> Result<Option<ClusterConfig>, ConfigError> {
        let Some(reload) = &self.reload else { return Ok(None) };
        let (config, server) = (reload()?, self.current_state().config.server.clone());
        if config.server != server {
            return Err(ConfigError(format!(
                "the kubeconfig names another server, {}; restart to use it",
                config.server
            )));
        }
        Ok(Some(config))
    }

    /// Makes and keeps the auth of a configuration. If that fails, the old one stays.
    fn make(&self, renewal: &mut Renewal, config: ClusterConfig, rejected: bool) -> Result<Auth, ConfigError> {
        let (mut settings, mut token, mut until) = (config.tls.clone(), None, None);
        match &config.token {
            None => {}
            Some(Token::Fixed(fixed)) => token = Some(fixed.clone()),
            Some(Token::File(file)) => {
                token = Some(read_token(file)?);
                until = Some(Instant::now() + FILE_LIFE);
            }
            Some(Token::Plugin(plugin)) => {
                let Some(credential) = renewal.run(plugin, rejected, &self.closed)? else {
                    return Ok(self.current_state().auth.clone());
                };
                until = credential.life().map(|it| Instant::now() + it);
                settings.identity = credential.identity;
                token = credential.token;
            }
        }
        let new = if self.current_state().settings == settings { None } else { Some(tls(&settings)?) };
        let mut known = self.current_state();
        if new.is_some() || known.auth.token != token {
            if new.is_some() {
                info!("using a new client certificate or CA for the API server");
            }
            let tls = new.unwrap_or_else(|| known.auth.tls.clone());
            known.auth = Auth { tls, token, number: known.auth.number + 1 };
        }
        note_ends(&config, &known.auth);
        (known.config, known.settings, known.until) = (config, settings, until);
        Ok(known.auth.clone())
    }
}

impl Renewal {
    fn of(plugin: Option<Plugin>) -> Renewal {
        let backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        Renewal { plugin, backoff, not_before: Instant::now(), failed: None }
    }

    /// Runs the plugin, or returns its last failure. `None` if its last answer is too new to be replaced.
    fn run(
        &mut self,
        plugin: &Plugin,
        rejected: bool,
        closed: &Receiver<()>,
    ) -> Result<Option<Credential>, ConfigError> {
        if self.plugin.as_ref() != Some(plugin) {
            *self = Renewal::of(Some(plugin.clone()));
        }
        let now = Instant::now();
        if now >= self.not_before + HEALTHY {
            self.backoff.reset();
        }
        match &self.failed {
            Some(error) if now < self.not_before => return Err(error.clone()),
            None if rejected && now < self.not_before => return Ok(None),
            _ => {}
        }
        let done = plugin.run(closed);
        self.failed = done.as_ref().err().cloned();
        if self.failed.is_some() || rejected {
            self.not_before = Instant::now() + self.backoff.pause();
        }
        done.map(Some)
    }
}

/// T10: the ends of credentials that no program renews by itself, as an exec plugin does.
fn note_ends(config: &ClusterConfig, auth: &Auth) {
    let is_renewed = matches!(config.token, Some(Token::Plugin(_)));
    let certificate = auth.tls.own_end().filter(|_| !is_renewed);
    metrics::credential_ends(metrics::Credential::KubernetesClientCertificate, certificate);
    let token = auth.token.as_ref().zip(config.token.as_ref()).and_then(|(token, source)| end_of(token, source));
    metrics::credential_ends(metrics::Credential::KubernetesToken, token);
}

fn tls(settings: &TlsSettings) -> Result<Tls, ConfigError> {
    Tls::new(settings).map_err(|error| ConfigError(format!("kubeconfig: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K3: a token file is read again after a minute; if that fails, the old token stays in use for another minute.
    #[test]
    fn a_token_file_is_read_once_a_minute() {
        let file = std::env::temp_dir().join(format!("aci-sync-token-{}", std::process::id()));
        std::fs::write(&file, "one\n").unwrap();
        let token = Some(Token::File(file.clone()));
        let config = ClusterConfig { server: "https://h".to_owned(), tls: TlsSettings::default(), token };
        let credentials = Credentials::new(&config, None).unwrap();
        let token = || credentials.current().unwrap().token.unwrap().expose().to_owned();
        let is_fresh = || {
            let left = credentials.current_state().until.unwrap().saturating_duration_since(Instant::now());
            left > FILE_LIFE / 2 && left <= FILE_LIFE
        };
        std::fs::write(&file, "two\n").unwrap();
        assert_eq!((token().as_str(), is_fresh()), ("one", true));
        for (text, expected) in [("two", "two"), ("not a token", "two"), ("three", "three")] {
            std::fs::write(&file, text).unwrap();
            credentials.current_state().until = Some(Instant::now());
            assert_eq!((token().as_str(), is_fresh()), (expected, true));
        }
        std::fs::remove_file(&file).unwrap();
        credentials.current_state().until = Some(Instant::now());
        assert_eq!((token().as_str(), is_fresh()), ("three", true));
    }
}
