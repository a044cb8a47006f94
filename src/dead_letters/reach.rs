//! How the command reaches the broker: in the operator's pod and from anywhere with a kubeconfig alike.

use anyhow::Context as _;
use clap::Args;
use kube::{Client, Config};

use crate::broker::dead_letters::DeadLetters;
use crate::broker::{self, BrokerArgs, Credentials};
use crate::controllers::foundation::{self, Auth};

/// How the broker is reached, and with whose rights. The variables are those of the operator's pod.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct ReachArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// How the broker knows who is who
    #[arg(long, env = "MILLRACE_NATS_AUTH", value_name = "HOW", default_value = "jwt")]
    nats_auth: Auth,
    /// Secret with the broker's keys: the operator's credentials in it are used where no file is given
    #[arg(long, env = "MILLRACE_BROKER_SECRET", value_name = "NAME", default_value = "millrace-broker")]
    broker_secret: String,
    /// Namespace of the install, where that Secret is
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "millrace-system")]
    install_namespace: String,
}

impl ReachArgs {
    /// Opens the dead letters of the install.
    ///
    /// # Errors
    /// The credentials cannot be had, or the broker cannot be reached now.
    pub async fn open(&self) -> anyhow::Result<DeadLetters> {
        let credentials = self.credentials().await?;
        let broker = broker::connect_now(&self.broker, credentials, "millrace-dead-letters").await?;
        Ok(DeadLetters::open(broker).await?)
    }

    async fn credentials(&self) -> anyhow::Result<Credentials> {
        if let Some(file) = &self.broker.nats_credentials {
            return Ok(Credentials::File(file.clone()));
        }
        if self.nats_auth == Auth::None {
            return Ok(Credentials::None);
        }
        let (namespace, name) = (&self.install_namespace, &self.broker_secret);
        let read = async { foundation::operator(&client().await?, namespace, name).await };
        let read = read.await.context(
            "cannot get the broker's credentials: give --nats-credentials FILE, or --nats-auth none where it asks for none",
        );
        Ok(Credentials::Text(read?.into()))
    }
}

async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context("cannot find the Kubernetes API: set KUBECONFIG")?;
    // Somebody waits: what does not work is said at once.
    config.default_retry = false;
    Client::try_from(config).context("cannot make a client of the Kubernetes API")
}
