//! Certificates and kubeconfigs of one cluster, made anew at each start.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

use crate::error::{Doing as _, Error, Result};

/// A certificate authority, and the folder in which it puts what it signs.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Who a certificate is for: common name, organisation, and the names and addresses it may serve under.
pub(crate) struct Subject<'a> {
    pub file: &'a str,
    pub name: &'a str,
    pub organization: Option<&'a str>,
    pub hosts: &'a [&'a str],
    pub addresses: &'a [IpAddr],
}

impl Authority {
    /// Makes a new authority that writes `ca.crt`, `ca.key`, and later everybody's `<file>.crt` and `<file>.key`.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).doing(format!("make the folder {}", folder.display()))?;
        let key = KeyPair::generate().map_err(made)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished("rig-ca", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(made)?.pem();
        let authority = Self {
            folder: folder.to_owned(),
            certificate: certificate.clone(),
            issuer: Issuer::new(params, key),
        };
        authority.write("ca.crt", &certificate)?;
        authority.write("ca.key", &authority.issuer.key().serialize_pem())?;
        Ok(authority)
    }

    /// Signs a certificate for both ends of TLS.
    pub fn sign(&self, subject: &Subject<'_>) -> Result<()> {
        let key = KeyPair::generate().map_err(made)?;
        let mut params =
            CertificateParams::new(subject.hosts.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(made)?;
        params.subject_alt_names.extend(subject.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.distinguished_name = distinguished(subject.name, subject.organization);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(made)?;
        self.write(&format!("{}.crt", subject.file), &certificate.pem())?;
        self.write(&format!("{}.key", subject.file), &key.serialize_pem())
    }

    /// Writes the kubeconfig of somebody who was [signed](Self::sign).
    pub fn kubeconfig(&self, file: &str, server: &str, to: &Path) -> Result<()> {
        let read = |end: &str| {
            let path = self.folder.join(format!("{file}.{end}"));
            fs::read_to_string(&path).doing(format!("read {}", path.display()))
        };
        // JSON is YAML, and needs no indentation of the embedded files.
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "rig",
            "clusters": [{"name": "rig", "cluster": {"server": server, "certificate-authority-data": base64(&self.certificate)}}],
            "users": [{"name": file, "user": {"client-certificate-data": base64(&read("crt")?), "client-key-data": base64(&read("key")?)}}],
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": file}}],
        });
        write_private(to, &format!("{config:#}\n"))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        write_private(&self.folder.join(name), text)
    }
}

/// The keys that sign and verify service account tokens; kept where there are some, or the tokens of running pods would
/// end with them.
pub(crate) fn service_account_keys(folder: &Path) -> Result<()> {
    let public = folder.join("service-accounts.pub");
    if public.exists() {
        return Ok(());
    }
    let key = KeyPair::generate().map_err(made)?;
    write_private(&folder.join("service-accounts.key"), &key.serialize_pem())?;
    write_private(&public, &key.public_key_pem())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let _ = fs::remove_file(path);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .doing(format!("write {}", path.display()))
}

fn distinguished(name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        dn.push(DnType::OrganizationName, organization);
    }
    dn
}

fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

// Takes the error by value to be a `map_err` argument.
#[allow(clippy::needless_pass_by_value)]
fn made(error: rcgen::Error) -> Error {
    Error::Needs(format!("failed to make a certificate: {error}"))
}
