//! The way to the API server, and what is watched by it.

use std::time::Duration;

use drover_common::call::Kind;
use drover_common::cluster::ClusterEvent;
use drover_common::id::NodeName;
use drover_kubernetes::{Client, ConnectError, EksIdentity, Limits, Sources};
use tokio::sync::{mpsc, watch};

use crate::kubeconfig::Way;

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it's looked whether there are other certificates: old ones count for hours yet when they come.
const LOOKS_EVERY: Duration = Duration::from_secs(10);

/// Connects, for as long as it takes (a kubeconfig may appear only once the kubelet has joined), and watches
/// the own Node and its pods. Connects anew when the kubeconfig or a file that it names is another: a kubelet's
/// certificate is followed by its next while the agent runs. While it is `urgent` no watch is believed to be
/// alive for long that says nothing.
pub(crate) async fn follow(
    node: NodeName,
    access: Access,
    client: watch::Sender<Option<Client>>,
    urgent: watch::Receiver<bool>,
    events: mpsc::Sender<ClusterEvent>,
) {
    let (own, pods) = (format!("metadata.name={node}"), format!("spec.nodeName={node}"));
    let (connected, sources) = access.connect_at_last().await;
    client.send_replace(Some(connected.clone()));
    let (newest, clients) = watch::channel(connected);
    let watch = |kind, fields| {
        let (clients, urgent, events) = (clients.clone(), urgent.clone(), events.clone());
        drover_kubernetes::watch_by(clients, urgent, kind, Some(fields), Limits::NODE, events)
    };
    let give_out = |connected: Client| {
        client.send_replace(Some(connected.clone()));
        newest.send_replace(connected);
    };
    tokio::join!(watch(Kind::Node, own), watch(Kind::Pod, pods), access.renew(sources, give_out));
}

/// By what the agent is let in.
pub(crate) struct Access {
    pub(crate) way: Way,
    pub(crate) context: Option<String>,
    pub(crate) identity: EksIdentity,
}

/// Why there is no new client.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The environment led to a kubeconfig and would lead to the pod's service account, or the other way round.
    #[error(
        "it would be somebody else's connection: what the environment names is missing, unreadable or new"
    )]
    SomebodyElse,
}

impl Access {
    async fn connect(&self) -> Result<(Client, Sources), ConnectError> {
        let (chosen, context) = (self.way.kubeconfig()?, self.context.as_deref());
        let kubeconfig = chosen.as_deref();
        // What changes in between is found changed.
        let sources = Sources::read(kubeconfig, context).await;
        let identity = Some(&self.identity);
        let client = drover_kubernetes::connect_as(kubeconfig, context, identity).await?;
        self.way.keep(chosen);
        Ok((client, sources))
    }

    async fn connect_at_last(&self) -> (Client, Sources) {
        let mut told = false;
        loop {
            match self.connect().await {
                Ok(connected) => return connected,
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "Kubernetes API can't be connected to; retrying.");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connect_again(&self, before: &Sources) -> Result<(Client, Sources), RenewError> {
        let (client, sources) = self.connect().await?;
        if sources.have_kubeconfig() == before.have_kubeconfig() {
            Ok((client, sources))
        } else {
            Err(RenewError::SomebodyElse)
        }
    }

    /// Never returns.
    async fn renew(&self, mut sources: Sources, give_out: impl Fn(Client)) {
        let mut told = false;
        loop {
            tokio::time::sleep(LOOKS_EVERY).await;
            if !sources.changed().await {
                continue;
            }
            match self.connect_again(&sources).await {
                Ok((connected, read)) => {
                    (sources, told) = (read, false);
                    give_out(connected);
                    tracing::info!("Connected to the Kubernetes API by other certificates.");
                }
                // The old ones are kept. New ones may be half written, or their key not there yet.
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "New certificates are unusable; retrying.");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drover_kubernetes::{EksCluster, SignEksToken, TokenFuture};

    use super::*;
    use crate::kubeconfig::tests::{PLUGIN, kubelets};

    #[derive(Debug)]
    struct NoRole;

    impl SignEksToken for NoRole {
        fn token<'a>(&'a self, _cluster: &'a EksCluster) -> TokenFuture<'a> {
            Box::pin(async { Err("no role".to_owned()) })
        }
    }

    fn access(of_kubelet: &std::path::Path) -> Access {
        let identity = EksIdentity { signer: Arc::new(NoRole), cluster: None };
        Access { way: Way::auto(of_kubelet), context: None, identity }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_half_written_at_the_first_look_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = kubelets(folder.path(), PLUGIN);
        let whole = std::fs::read_to_string(&path).unwrap();
        let access = access(&path);
        // Without it, this would be what the environment leads to.
        for end in [0, 10, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..end]).unwrap();
            let failed = access.connect().await.err().unwrap();
            let named = failed.to_string();
            assert!(named.contains(path.to_str().unwrap()), "{named}");
        }
        let connecting = tokio::time::timeout(5 * PAUSE, access.connect_at_last());
        let writing = async {
            tokio::time::sleep(PAUSE / 2).await;
            std::fs::write(&path, &whole).unwrap();
        };
        let (connected, ()) = tokio::join!(connecting, writing);
        assert!(connected.unwrap().1.have_kubeconfig());
        assert_eq!(access.way.kubeconfig().unwrap(), Some(path));
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_half_written_makes_the_agent_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = kubelets(folder.path(), PLUGIN);
        let access = access(&path);
        let (_, sources) = access.connect().await.unwrap();
        let (given, mut newer) = mpsc::unbounded_channel();
        let renewing = access.renew(sources, |client| given.send(client).unwrap());
        let story = async {
            std::fs::write(&path, "apiVersion: v1\nclus").unwrap();
            let waits = LOOKS_EVERY + Duration::from_secs(2);
            let early = tokio::time::timeout(waits, newer.recv()).await;
            assert!(early.is_err(), "by what, if not by the environment?");
            let failed = access.connect().await.err().unwrap();
            assert!(matches!(failed, ConnectError::Kubeconfig { .. }), "{failed}");
            kubelets(folder.path(), &PLUGIN.replace("one", "two"));
            let renewed = tokio::time::timeout(waits, newer.recv()).await;
            assert!(renewed.is_ok(), "the finished file was not noticed");
        };
        tokio::select! {
            () = renewing => {}
            () = story => {}
        }
    }
}
