//! The TLS layer of an agent: ureq's transport chain with our own handshake. Everything that depends on ureq's
//! unversioned API is in this file, for which ureq's version is pinned.

use std::fmt;
use std::io::{Read, Write};

use ureq::Error;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
};

use super::deadline_stream::CONNECT_TIMEOUT;
use super::tls::{ConnectError, Tls, TlsStream};

impl Tls {
    /// A new HTTP agent: https only, no proxy, no redirects, and no error for an HTTP status.
    /// `Agent::shutdown` ends its blocked reads, for good.
    pub fn agent(&self) -> ureq::Agent {
        let config = ureq::config::Config::builder()
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("aci-sync/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_response_header_size(64 * 1024)
            // Each connection keeps two of both: a little more than the longest header, and a TLS record.
            .input_buffer_size(72 * 1024)
            .output_buffer_size(16 * 1024)
            .build();
        ureq::Agent::with_parts(config, TlsLayer::chain(self.clone()), DefaultResolver::default())
    }
}

/// Wraps every connection in TLS.
struct TlsLayer(Tls);

impl TlsLayer {
    /// TCP with TLS on it, and nothing else: no proxy, no plain HTTP.
    fn chain(tls: Tls) -> impl Connector {
        ().chain(TcpConnector::default()).chain(TlsLayer(tls))
    }
}

impl<In: Transport> Connector<In> for TlsLayer {
    type Out = TlsTransport;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<TlsTransport>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        let host = details.uri.host().unwrap_or_default();
        let mut adapter = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        adapter.set_timeout(details.timeout);
        let stream = self.0.connect(host, adapter).map_err(|error| match (error, details.addrs.first()) {
            (ConnectError::Io(error), _) => Error::Io(error),
            (error, Some(address)) => Error::Other(Box::new(self.0.explain(error, host, *address))),
            (error, None) => Error::Other(Box::new(error)),
        })?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(TlsTransport { buffers, stream }))
    }
}

impl fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsLayer")
    }
}

/// One connection with TLS on it.
struct TlsTransport {
    buffers: LazyBuffers,
    stream: TlsStream<TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}
