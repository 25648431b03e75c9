//! TLS to etcd: the authority's certificate says which cluster is meant, and a certificate of our own
//! who we are.

use std::{path::Path, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::{Access, address::Endpoint};
use crate::error::{Error, Result};

pub struct Tls(TlsConnector);

impl Tls {
    pub fn new(access: &Access) -> Result<Tls> {
        let Some(ca) = &access.ca else {
            return Err(Error::usage("etcds:// needs the certificate of the authority that signed the cluster's")
                .hint("--store-ca FILE; for public ones that is the system's list, such as /etc/ssl/certs/ca-certificates.crt"));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| unusable(ca, &error))?;
        }
        let cannot = |error: rustls::Error| Error::failed(format!("cannot use TLS: {error}"));
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(cannot)?
            .with_root_certificates(roots);
        let mut config = match (&access.cert, &access.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
                config.with_client_auth_cert(certificates(cert)?, private).map_err(|error| unusable(cert, &error))?
            }
            _ => return Err(Error::usage("--store-cert and --store-key belong together: one of them is missing")),
        };
        // gRPC is spoken over HTTP/2 only.
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        stream: TcpStream,
    ) -> std::result::Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| error.to_string())?;
        self.0.connect(name, stream).await.map_err(|error| error.to_string())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    match read.map_err(|error| unreadable(path, &error))? {
        none if none.is_empty() => Err(Error::usage(format!("{} holds no certificate", path.display()))
            .hint("a certificate in PEM begins with -----BEGIN CERTIFICATE-----")),
        certificates => Ok(certificates),
    }
}

fn unreadable(path: &Path, error: &rustls::pki_types::pem::Error) -> Error {
    match error {
        rustls::pki_types::pem::Error::Io(error) => Error::io(format!("cannot read {}", path.display()), error),
        rustls::pki_types::pem::Error::NoItemsFound => Error::usage(format!("{} holds no private key", path.display())),
        error => Error::usage(format!("{} is not PEM: {error}", path.display())),
    }
}

fn unusable(path: &Path, error: &rustls::Error) -> Error {
    Error::usage(format!("{} cannot be used: {error}", path.display()))
}
