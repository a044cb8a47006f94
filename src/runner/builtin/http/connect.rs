//! Connections of http nodes: which are kept, which are refused, and whom TLS trusts.

use std::fmt;
use std::future::ready;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::Service;

use super::address::Rules;

/// How long a connection may take, the handshake of TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection that is not used is kept: less than the five seconds after which common servers close it, so
/// that no request is sent into one that is about to be closed.
const IDLE: Duration = Duration::from_secs(4);
/// How many of them are kept for each server.
const IDLE_PER_HOST: usize = 16;
/// The most bytes of an answer's head.
const HEAD: usize = 64 << 10;

/// What sends requests. Connections are shared by all that hold a copy of it.
pub(super) type Sender = Client<TimeoutConnector<HttpsConnector<Gate>>, Full<Bytes>>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there are no certificates to trust.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read the certificates in {0}")]
    Unreadable(PathBuf, #[source] rustls::pki_types::pem::Error),
    /// There is nothing in it.
    #[error("there is no certificate in {0}")]
    Empty(PathBuf),
    /// TLS is impossible.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Makes a sender; TLS trusts the common roots, and those in a file.
pub(super) fn sender(rules: Rules, file: Option<&Path>) -> Result<Sender, RootsError> {
    let rules = Arc::new(rules);
    let mut http = HttpConnector::new_with_resolver(Names { rules: Arc::clone(&rules) });
    // https passes through it too.
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT));
    http.set_nodelay(true);
    let mut connector = TimeoutConnector::new(HttpsConnector::from((Gate { rules, http }, tls(file)?)));
    connector.set_connect_timeout(Some(CONNECT));
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(HEAD)
        .build(connector))
}

fn tls(file: Option<&Path>) -> Result<ClientConfig, RootsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = file {
        let unreadable = |error| RootsError::Unreadable(file.into(), error);
        let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(unreadable)?.collect();
        // A bundle may hold some that nobody understands any more.
        let (added, _) = roots.add_parsable_certificates(found.map_err(unreadable)?);
        if added == 0 {
            return Err(RootsError::Empty(file.into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Makes connections, but to no address that is refused. Names are resolved behind it, by [`Names`]; hosts that are
/// addresses already never get there, so that they are looked at here.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    rules: Arc<Rules>,
    http: HttpConnector<Names>,
}

impl Service<Uri> for Gate {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if let Some(refused) = literal(&uri).and_then(|address| self.rules.check(address).err()) {
            return Box::pin(ready(Err(refused.into())));
        }
        let connecting = self.http.call(uri);
        Box::pin(async move { Ok(connecting.await?) })
    }
}

/// The host of an address, where it is none that has to be resolved.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Resolves names, to addresses that may be reached only: to these the connection is made, and to no others that the
/// same name may have a moment later.
#[derive(Clone, Debug)]
struct Names {
    rules: Arc<Rules>,
}

/// A name that has no address.
#[derive(Debug)]
struct Unknown {
    name: String,
    why: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name {} has no address ({})", self.name, self.why)
    }
}

impl std::error::Error for Unknown {}

impl Service<Name> for Names {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let rules = Arc::clone(&self.rules);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            Ok(reachable(&rules, name.as_str(), found.map(Iterator::collect))?.into_iter())
        })
    }
}

/// Those of a name's addresses that may be reached; that there is none but others is a refusal.
fn reachable(
    rules: &Rules,
    name: &str,
    found: io::Result<Vec<SocketAddr>>,
) -> Result<Vec<SocketAddr>, BoxError> {
    let unknown = |why: String| Unknown { name: name.into(), why };
    let found = found.map_err(|error| unknown(error.to_string()))?;
    let (mut good, mut refused) = (Vec::new(), None);
    for address in found {
        match rules.check(address.ip()) {
            Ok(()) => good.push(address),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(refused) if good.is_empty() => Err(refused.into()),
        _ if good.is_empty() => Err(unknown("none was given".into()).into()),
        _ => Ok(good),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(found: io::Result<&[&str]>) -> Result<Vec<String>, String> {
        let found = found.map(|all| all.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect());
        reachable(&Rules::default(), "erp.example", found)
            .map(|all| all.iter().map(|address| address.ip().to_string()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn of_the_addresses_of_a_name_only_those_are_used_that_may_be_reached() {
        assert_eq!(
            reached(Ok(&["::1", "10.0.0.1", "127.0.0.1", "10.0.0.2"])),
            Ok(vec!["10.0.0.1".into(), "10.0.0.2".into()])
        );
        assert!(reached(Ok(&["::1", "127.0.0.1"])).unwrap_err().starts_with("::1 is a loopback address"));
    }

    #[test]
    fn a_name_without_an_address_says_so() {
        let unknown = |why| Err(format!("the name erp.example has no address ({why})"));
        assert_eq!(reached(Ok(&[])), unknown("none was given"));
        assert_eq!(reached(Err(io::Error::other("no such host"))), unknown("no such host"));
    }

    #[test]
    fn a_host_that_is_an_address_is_known_as_one() {
        let literal = |text: &'static str| literal(&Uri::from_static(text)).map(|ip| ip.to_string());
        assert_eq!(literal("http://127.0.0.1:80/a"), Some("127.0.0.1".into()));
        assert_eq!(literal("http://[::ffff:7f00:1]/"), Some("::ffff:127.0.0.1".into()));
        assert_eq!(literal("http://localhost/"), None);
    }

    #[test]
    fn certificates_that_cannot_be_had_are_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(tls(Some(file.path())), Err(RootsError::Empty(_))));
        assert!(matches!(tls(Some(Path::new("/nowhere"))), Err(RootsError::Unreadable(..))));
        assert!(tls(None).is_ok());
    }
}
