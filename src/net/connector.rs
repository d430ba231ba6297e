//! The TLS layer of an agent: ureq's transport chain with our own handshake. Everything that depends on ureq's
//! unversioned API is in this file, for which ureq's version is pinned.

use std::fmt;
use std::io::{Read, Write};

use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
};

use super::{ConnectError, Tls, TlsStream};

/// Wraps every connection in TLS.
pub(super) struct TlsLayer(Tls);

impl TlsLayer {
    /// TCP with TLS on it, and nothing else: no proxy, no plain HTTP.
    pub(super) fn chain(tls: Tls) -> impl Connector {
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
pub(super) struct TlsTransport {
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
