//! Probes: `GET /ready`, which Mimir answers with 503 while it starts and from the moment that it
//! is told to stop.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::error::is_ours;
use super::health::Probed;
use super::instance::Instance;
use super::socket::Socket;
use crate::backoff::spread;
use crate::config::{HealthConfig, UpstreamTls};
use crate::net::TcpStream;

/// Probes one instance immediately and then at every interval, for ever.
pub(super) async fn run(instance: Arc<Instance>, config: Arc<HealthConfig>) {
    loop {
        if let Some(found) = probe(&instance, config.ready_timeout, config.tls.as_ref()).await {
            instance.probed(found);
        }
        sleep(pause(&instance, &config)).await;
    }
}

/// Jittered, because all copies of the proxy probe all instances. An ejected instance is probed
/// more often, so that it returns soon.
fn pause(instance: &Instance, config: &HealthConfig) -> Duration {
    let interval = config.ready_interval;
    let often = interval.min(Duration::from_secs(1).max(interval / 5));
    let pause = if instance.is_ejected() { often } else { interval };
    spread(pause)
}

/// Whether an instance is ready; `None` if it could not be asked.
async fn probe(
    instance: &Instance,
    ready_timeout: Duration,
    tls: Option<&UpstreamTls>,
) -> Option<Probed> {
    let stream = match timeout(ready_timeout, TcpStream::connect(instance.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_ours(&error) => return None,
        _ => return Some(Probed::Unreachable),
    };
    let (address, authority) = (instance.address, &instance.authority);
    let tls = tls.map(UpstreamTls::client);
    let secured = Socket::secured(stream, address, authority, tls);
    let Ok(Ok(stream)) = timeout(ready_timeout, secured).await else {
        return Some(Probed::Unreachable);
    };
    match timeout(ready_timeout, ask(instance, stream)).await {
        // So does a port with TLS answer plain HTTP.
        Ok(Ok(400)) => Some(Probed::NotReady),
        // Something without this page is not Mimir itself, but it works.
        Ok(Ok(status)) if status < 500 => Some(Probed::Ready),
        _ => Some(Probed::NotReady),
    }
}

async fn ask(instance: &Instance, stream: Socket) -> Result<u16, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from_static("/ready");
    let agent = concat!("mimir-tenant-proxy/", env!("CARGO_PKG_VERSION"));
    request.headers_mut().insert(header::HOST, instance.authority.clone());
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(agent));
    Ok(sender.send_request(request).await?.status().as_u16())
}
