//! The connection to the API server: in a pod by its service account, elsewhere by a kubeconfig file.
//!
//! The token file is read again as kubelet renews it. Requests that the server asks to repeat later (429, 503 with Retry-After) are
//! repeated by the client; what still fails is for the caller to try again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// No answer for this long, and the connection counts as dead. A quiet watch ends after 290 seconds, so a living one is never cut.
const SILENCE: Duration = Duration::from_mins(5);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the kubeconfig {} cannot be used: {error}; correct it, or give another --kubeconfig", path.display())]
    Kubeconfig {
        path: PathBuf,
        #[source]
        error: kube::config::KubeconfigError,
    },
    #[error("this is no pod with a service account ({0}); run in the cluster, or give --kubeconfig")]
    NotInCluster(#[source] kube::config::InClusterError),
    #[error("the credentials cannot be used: {0}")]
    Credentials(#[source] kube::Error),
    #[error("the client cannot be started: {0}")]
    Runtime(#[source] std::io::Error),
}

/// A client for the cluster of `kubeconfig`, or for the one that this process runs in. Nothing is sent yet. Must be called inside of
/// the runtime that will use it.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => read(path).await.map_err(|error| ConnectError::Kubeconfig { path: path.to_owned(), error })?,
        None => Config::incluster().map_err(ConnectError::NotInCluster)?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    if config.cluster_url.scheme_str() == Some("http") {
        // Without a list the client wants the system's authorities, of which a machine or an image need not have any.
        config.root_cert.get_or_insert_default();
    }
    Client::try_from(config).map_err(ConnectError::Credentials)
}

async fn read(path: &Path) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}
