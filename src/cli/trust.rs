//! TLS for the HTTP client of `explain`: which certificates it trusts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::exit::{DATAERR, OrExit, USAGE};

/// Where systems have the certificates that they trust: FreeBSD and its ports, Debian, Fedora.
const SYSTEM: [&str; 5] = [
    "/usr/local/etc/ssl/cert.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// Makes TLS connections of TCP connections to one host.
pub(super) struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
}

/// A connector to `host` that trusts the certificates in `file`, or else those that the system trusts.
///
/// # Errors
/// There are none, or `file` holds something else.
pub(super) fn connector(file: Option<&Path>, host: &str) -> anyhow::Result<Connector> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| anyhow!("no certificate can be for {host:?}: give a name or an address"))
        .or_exit(USAGE)?;
    let trusted = certificates(file)?;
    let mut roots = RootCertStore::empty();
    // The system's file may hold one that is not understood; one that was named must be.
    for certificate in &trusted {
        let added = roots.add(certificate.clone());
        if let Some(file) = file {
            added.with_context(|| unusable(file)).or_exit(DATAERR)?;
        }
    }
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    // Only a file that was named can hold the exporter's own certificate.
    let pinned = if file.is_some() { trusted } else { vec![] };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { verifier, pinned }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Connector { tls: TlsConnector::from(Arc::new(config)), name })
}

fn unusable(file: &Path) -> String {
    format!("{}, which --ca-file names, has no usable certificate in PEM form", file.display())
}

fn certificates(file: Option<&Path>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let (file, pem) = match file {
        Some(file) => {
            let named = || format!("cannot read {}, which --ca-file names", file.display());
            (file, std::fs::read(file).with_context(named)?)
        }
        None => {
            let read = |file| Some((Path::new(file), std::fs::read(file).ok()?));
            SYSTEM.into_iter().find_map(read).context(
                "this system has no list of trusted certificates: name the exporter's certificate with --ca-file",
            )?
        }
    };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .with_context(|| unusable(file))
        .or_exit(DATAERR)?;
    if certificates.is_empty() {
        return Err(anyhow!(unusable(file))).or_exit(DATAERR);
    }
    Ok(certificates)
}

impl Connector {
    /// # Errors
    /// The server speaks no TLS, or its certificate is not trusted.
    pub(super) async fn connect(&self, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
        self.tls.connect(self.name.clone(), stream).await.map_err(|error| {
            let advice = advice(&error);
            anyhow!("{error}{advice}")
        })
    }
}

/// What to do about a handshake that failed.
fn advice(error: &io::Error) -> &'static str {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    match error {
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "; give the URL with a name or an address that its certificate has",
        Some(Error::InvalidCertificate(_)) => {
            "; name its certificate, or that of its authority, with --ca-file"
        }
        Some(Error::InvalidMessage(_)) => "; does it want http?",
        _ => "",
    }
}

/// What the certificates' authorities vouch for; and a certificate that was itself named.
#[derive(Debug)]
struct Verifier {
    verifier: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let vouched = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        // A self-signed certificate is its own authority's, as `openssl req -x509` makes it, and no authority may serve:
        // webpki refuses it. It was named on the command line, so its dates are not checked; its name is.
        if vouched.is_err() && self.pinned.iter().any(|pinned| pinned == end_entity) {
            let certificate = webpki::EndEntityCert::try_from(end_entity)
                .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
            if certificate.verify_is_valid_for_subject_name(server_name).is_ok() {
                return Ok(ServerCertVerified::assertion());
            }
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        vouched
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
