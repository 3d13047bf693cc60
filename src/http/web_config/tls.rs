//! TLS for the server by rustls: certificates, client certificates and allowed names from the web configuration.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::file::{self, ClientAuth, TlsVersion};
use crate::plain_file;

/// Makes TLS connections of TCP connections.
#[derive(Clone)]
pub(in crate::http) struct Tls {
    pub(in crate::http) acceptor: TlsAcceptor,
    allowed_sans: Arc<[String]>,
}

impl Tls {
    /// # Errors
    /// What is wrong with the certificate, the key or what they are to be used for.
    pub(super) fn new(config: &file::TlsConfig, folder: &Path) -> Result<Tls, String> {
        let pem = |field, inline: &Option<String>, file: &Option<PathBuf>| {
            read(field, inline.as_deref(), file.as_deref(), folder)
        };
        let chain = pem("cert", &config.cert, &config.cert_file)?.ok_or("no cert or cert_file")?;
        let key = pem("key", &config.key, &config.key_file)?.ok_or("no key or key_file")?;
        let client_ca = pem("client_ca", &config.client_ca, &config.client_ca_file)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("key: {e}"))?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(config)?)
            .map_err(|e| e.to_string())?;
        let builder = match client_verifier(config, client_ca.as_deref(), provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder
            .with_single_cert(certificates("cert", &chain)?, key)
            .map_err(|e| format!("cert and key: {e}"))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            allowed_sans: config.client_allowed_sans.iter().map(|san| san.0.clone()).collect(),
        })
    }

    /// Whether this (verified) client certificate bears a name that may come in.
    pub(in crate::http) fn admits(&self, certificates: Option<&[CertificateDer<'_>]>) -> bool {
        if self.allowed_sans.is_empty() {
            return true;
        }
        let Some(certificate) = certificates.and_then(|chain| chain.first()) else { return false };
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
        self.allowed_sans.iter().any(|san| match san.parse::<IpAddr>() {
            Ok(ip) => {
                let name = ServerName::IpAddress(ip.into());
                certificate.verify_is_valid_for_subject_name(&name).is_ok()
            }
            Err(_) => {
                certificate.valid_dns_names().any(|name| name == san)
                    || certificate.valid_uri_names().any(|name| name == san)
            }
        })
    }
}

/// The files that must be watched for a new certificate.
pub(super) fn files(config: &file::TlsConfig, folder: &Path) -> Vec<PathBuf> {
    let files = [&config.cert_file, &config.key_file, &config.client_ca_file];
    files.into_iter().flatten().map(|file| folder.join(file)).collect()
}

fn versions(config: &file::TlsConfig) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let min = config.min_version.unwrap_or(TlsVersion::Tls12);
    let max = config.max_version.unwrap_or(TlsVersion::Tls13);
    let all = [(TlsVersion::Tls12, &TLS12), (TlsVersion::Tls13, &TLS13)];
    let versions: Vec<_> =
        all.into_iter().filter(|(v, _)| (min..=max).contains(v)).map(|(_, v)| v).collect();
    if versions.is_empty() {
        return Err("min_version is above max_version".into());
    }
    Ok(versions)
}

fn client_verifier(
    config: &file::TlsConfig,
    client_ca: Option<&[u8]>,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let client_ca = match (config.client_auth_type, client_ca) {
        (ClientAuth::None, None) if config.client_allowed_sans.is_empty() => return Ok(None),
        (ClientAuth::None, _) => {
            return Err("client_ca and client_allowed_sans need a client_auth_type".into());
        }
        (_, None) => return Err("client_auth_type needs client_ca or client_ca_file".into()),
        (_, Some(pem)) => certificates("client_ca", pem)?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in client_ca {
        roots.add(certificate).map_err(|e| format!("client_ca: {e}"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = match config.client_auth_type {
        ClientAuth::IfGiven => verifier.allow_unauthenticated(),
        _ => verifier,
    };
    Ok(Some(verifier.build().map_err(|e| format!("client_ca: {e}"))?))
}

fn certificates(field: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{field}: no certificate in it"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{field}: {error}")),
    }
}

/// The PEM text of a field that is given inline or as a file beside the configuration.
fn read(
    field: &str,
    inline: Option<&str>,
    file: Option<&Path>,
    folder: &Path,
) -> Result<Option<Vec<u8>>, String> {
    match (inline, file) {
        (Some(_), Some(_)) => Err(format!("{field} and {field}_file exclude each other")),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(file)) => {
            let path = folder.join(file);
            let why = |error: io::Error| format!("{field}_file {}: {error}", path.display());
            plain_file::read(&path).map(Some).map_err(why)
        }
        (None, None) => Ok(None),
    }
}
