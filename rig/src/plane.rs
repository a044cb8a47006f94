//! A control plane without a node: etcd, kube-apiserver and controller manager as plain processes, without root.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::OnceCell;

use crate::control_plane::{self, ControlPlane};
use crate::error::{Doing as _, Error, Result};
use crate::program::Program;
use crate::scratch::Scratch;
use crate::supervisor::Supervisor;

/// How long a control plane may take on a busy machine.
const START: Duration = Duration::from_secs(60);

/// How often a start is tried when somebody takes a port between our look and its use.
const TRIES: u32 = 4;

/// A running control plane. It ends, and its state is removed, when this is dropped or when this process ends,
/// however it ends.
#[derive(Debug)]
pub struct Plane {
    // Dropped first: the supervisor removes the folder, and the lock says until then that it is in use.
    supervisor: Supervisor,
    program: Program,
    scratch: Scratch,
    server: String,
}

impl Plane {
    /// Starts a control plane of its own, on free ports. Several can run side by side.
    ///
    /// # Errors
    /// The program cannot be built, or a component dies: the error shows the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Like [`Plane::start`], with more options for kube-apiserver, for example `--audit-log-path=…`.
    ///
    /// # Errors
    /// As for [`Plane::start`].
    pub async fn start_with(apiserver_options: &[&str]) -> Result<Self> {
        let program = Program::get().await?;
        let mut tries = 1;
        loop {
            match Self::try_start(&program, apiserver_options).await {
                Err(Error::Died { tail, .. }) if tries < TRIES && tail.contains("address already in use") => {
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    /// The control plane that the tests of one binary share: give each test a [namespace](Self::namespace) of its own.
    ///
    /// # Errors
    /// As for [`Plane::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Plane> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    async fn try_start(program: &Program, apiserver_options: &[&str]) -> Result<Self> {
        let scratch = Scratch::new("plane")?;
        let [api_port, etcd_port, etcd_peer_port] = free_ports()?;
        let plane = ControlPlane {
            address: Ipv4Addr::LOCALHOST,
            api_port,
            etcd_port,
            etcd_peer_port,
            services: "10.96.0.0/12".into(),
            first_service: Ipv4Addr::new(10, 96, 0, 1),
            home: scratch.path().to_owned(),
            programs: program.folder().to_owned(),
            logs: scratch.path().to_owned(),
        };
        plane.credentials(scratch.path(), None)?;
        let mut supervisor = Supervisor::local(&program.named("supervise"), scratch.path(), scratch.path())?;
        supervisor.start(&plane.etcd())?;
        // No endpoint of `kubernetes.default`: a slice refuses the loopback address, and no pod runs here to use it.
        let own =
            ["--bind-address=127.0.0.1", "--endpoint-reconciler-type=none", "--authorization-mode=RBAC"];
        supervisor.start(&plane.apiserver(&[&own, apiserver_options].concat()))?;
        let client = control_plane::client(&scratch.path().join("admin.kubeconfig")).await?;
        supervisor.until("the API server's start", START, control_plane::api_ready(&client)).await?;
        supervisor
            .start(&plane.controllers(&["--secure-port=0", "--controllers=*,-nodeipam,-nodelifecycle"]))?;
        let ready = control_plane::namespace_ready(&client, "default");
        supervisor.until("the controllers' start", START, ready).await?;
        supervisor.tell_deaths();
        Ok(Self { supervisor, program: program.clone(), scratch, server: plane.server() })
    }

    /// The address of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.scratch.path().join("admin.kubeconfig")
    }

    /// The folder of state and logs; it goes with the control plane.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// A client with an administrator's rights. Make one per test: it belongs to the runtime that it is made in.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub async fn client(&self) -> Result<kube::Client> {
        control_plane::client(&self.kubeconfig()).await
    }

    /// A command that runs kubectl against this control plane.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(self.program.named("kubectl"));
        kubectl.env("KUBECONFIG", self.kubeconfig());
        kubectl
    }

    /// Waits for the first component that dies. That one died is also told on standard error, with the end of its log.
    pub async fn death(&self) -> Error {
        self.supervisor.death().await
    }

    /// Makes a namespace that no other test has, and waits until it can take pods.
    ///
    /// # Errors
    /// The API server refuses it, or the controllers are gone.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let client = self.client().await?;
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .map_err(|e| Error::kubernetes(format!("make the namespace {name}"))(Box::new(e)))?;
        let ready = control_plane::namespace_ready(&client, &name);
        self.supervisor.until("the namespace's service account", START, ready).await?;
        Ok(name)
    }
}

/// Ports that are free now, below those that the kernel gives to outgoing connections.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    for _ in 0..10_000 {
        if listeners.len() == N {
            break;
        }
        let port = 20_000 + u16::try_from(random() % 12_000).unwrap_or_default();
        listeners.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().doing("read a port")?.port();
    }
    if listeners.len() < N {
        return Err(Error::Needs("no free port was found between 20000 and 32000 on 127.0.0.1".into()));
    }
    Ok(ports)
}

/// A number that differs between processes that start at the same moment.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_listened_on() {
        let ports = free_ports::<3>().unwrap();
        let listeners: Vec<_> =
            ports.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port))).collect();
        assert!(listeners.iter().all(Result::is_ok), "{ports:?}: {listeners:?}");
    }
}
