//! The command lines of the control plane, the same for a [plane](crate::Plane) and for a [node](crate::Node).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::error::{Error, Result};
use crate::pki::{Authority, Subject, service_account_keys};
use crate::supervisor::Component;

/// The addresses and ports of a control plane.
pub(crate) struct ControlPlane {
    /// The address that the API server tells others; slices of endpoints refuse a loopback one.
    pub address: Ipv4Addr,
    pub api_port: u16,
    pub etcd_port: u16,
    pub etcd_peer_port: u16,
    /// Cluster addresses, as a CIDR, and the first of them, which is the API server's own.
    pub services: String,
    pub first_service: Ipv4Addr,
    /// The folder of all state, as the components see it.
    pub home: PathBuf,
    /// The folder with the programs, as the components see it.
    pub programs: PathBuf,
    /// The folder of the logs, as the supervisor sees it.
    pub logs: PathBuf,
}

impl ControlPlane {
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.address, self.api_port)
    }

    /// Makes keys, certificates and kubeconfigs under `home`, which is where this process sees the folder of state.
    pub fn credentials(&self, home: &Path, node: Option<&str>) -> Result<()> {
        let authority = Authority::new(&home.join("pki"))?;
        let addresses = [Ipv4Addr::LOCALHOST.into(), self.address.into(), self.first_service.into()];
        authority.sign(&Subject {
            file: "apiserver",
            name: "kube-apiserver",
            organization: None,
            hosts: &["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"],
            addresses: &addresses,
        })?;
        let kubelet = node.map(|node| format!("system:node:{node}"));
        let clients = [
            Some(("admin", "admin", Some("system:masters"))),
            Some(("scheduler", "system:kube-scheduler", None)),
            kubelet.as_deref().map(|name| ("kubelet", name, Some("system:nodes"))),
        ];
        for (file, name, organization) in clients.into_iter().flatten() {
            let hosts: &[&str] = node.as_slice();
            authority.sign(&Subject { file, name, organization, hosts, addresses: &addresses })?;
            authority.kubeconfig(file, &self.server(), &home.join(format!("{file}.kubeconfig")))?;
        }
        service_account_keys(&home.join("pki"))
    }

    /// The store. Without fsync: what a killed process wrote, the kernel still has; only a power cut loses it.
    pub fn etcd(&self) -> Component {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer_port);
        self.component(
            "etcd",
            &[
                &format!("--data-dir={}", self.path("etcd")),
                "--unsafe-no-fsync",
                "--log-level=warn",
                &format!("--listen-client-urls={client}"),
                &format!("--advertise-client-urls={client}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={peer}"),
                &format!("--initial-cluster=default={peer}"),
            ],
        )
    }

    pub fn apiserver(&self, extra: &[&str]) -> Component {
        let pki = self.path("pki");
        let options = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--advertise-address={}", self.address),
            format!("--secure-port={}", self.api_port),
            format!("--service-cluster-ip-range={}", self.services),
            format!("--tls-cert-file={pki}/apiserver.crt"),
            format!("--tls-private-key-file={pki}/apiserver.key"),
            format!("--client-ca-file={pki}/ca.crt"),
            format!("--service-account-key-file={pki}/service-accounts.pub"),
            format!("--service-account-signing-key-file={pki}/service-accounts.key"),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--cert-dir={pki}/auto"),
            "--allow-privileged=true".into(),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        self.component("kube-apiserver", &options)
    }

    /// The controllers, with an administrator's rights: with accounts of their own they take four seconds more to start.
    pub fn controllers(&self, extra: &[&str]) -> Component {
        let pki = self.path("pki");
        let kubeconfig = self.path("admin.kubeconfig");
        let options = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            format!("--root-ca-file={pki}/ca.crt"),
            format!("--service-account-private-key-file={pki}/service-accounts.key"),
            format!("--cluster-signing-cert-file={pki}/ca.crt"),
            format!("--cluster-signing-key-file={pki}/ca.key"),
            "--leader-elect=false".into(),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        self.component("kube-controller-manager", &options)
    }

    /// Any of the programs, with the folder of state as its working directory.
    pub fn component(&self, name: &str, options: &[&str]) -> Component {
        let program = self.programs.join(name).display().to_string();
        Component {
            name: name.to_owned(),
            argv: std::iter::once(program).chain(options.iter().map(ToString::to_string)).collect(),
            env: Vec::new(),
            dir: self.home.clone(),
            log: self.logs.join(format!("{name}.log")),
        }
    }

    pub fn path(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }
}

/// A client that fails at once rather than retry behind the caller's back: tests and readiness want the answer.
pub(crate) async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let doing = || format!("use {}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).map_err(|e| Error::kubernetes(doing())(Box::new(e)))?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|e| Error::kubernetes(doing())(Box::new(e)))?;
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|e| Error::kubernetes(doing())(Box::new(e)))
}

/// How often a condition that cannot be awaited is looked at.
pub(crate) const GLANCE: Duration = Duration::from_millis(40);

/// Waits until the API server says that it is ready.
pub(crate) async fn api_ready(client: &kube::Client) -> Result<()> {
    while get(client, "/readyz").await.is_err() {
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// Waits until a namespace can take pods: the controllers have made its service account.
pub(crate) async fn namespace_ready(client: &kube::Client, namespace: &str) -> Result<()> {
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    while get(client, &account).await.is_err() {
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

async fn get(client: &kube::Client, path: &str) -> Result<String> {
    let request =
        http::Request::get(path).body(Vec::new()).map_err(|e| Error::kubernetes(path)(Box::new(e)))?;
    client.request_text(request).await.map_err(|e| Error::kubernetes(format!("get {path}"))(Box::new(e)))
}

/// Waits until a server answers a plain HTTP request with 200.
pub(crate) async fn answers(address: Ipv4Addr, port: u16, path: &str) -> Result<()> {
    while !answers_now(address, port, path).await.unwrap_or(false) {
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

async fn answers_now(address: Ipv4Addr, port: u16, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((address, port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_whitespace().nth(1) == Some("200"))
}
