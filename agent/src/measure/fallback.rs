//! Turns to the kubelet when pods can't be measured here, and back.

use drover_agent_core::usage::KubeletUse;
use drover_common::protocol::UsageDigest;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::kubelet::{self, KubeletSettings};
use crate::config::SourceChoice;
use crate::question::PodNamesQuestion;

/// After so many digests without sight of pods that run the kubelet is asked: groups may be made anew.
const PATIENCE: u32 = 2;

/// What the kernel let us see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// The node and pods.
    Pods,
    /// The node, and no pod.
    Node,
    /// Nothing.
    Nothing,
}

/// Who is asked, and the kubelet while it is.
pub(super) struct Fallback {
    choice: SourceChoice,
    settings: KubeletSettings,
    pod_names: PodNamesQuestion,
    blind_for: u32,
    asking: Option<Asking>,
}

/// The task that asks ends when this is dropped, and its connection with it.
struct Asking {
    told: watch::Receiver<Option<KubeletUse>>,
    _task: AbortOnDropHandle<()>,
}

impl Fallback {
    pub(super) fn new(
        choice: SourceChoice,
        settings: KubeletSettings,
        pod_names: PodNamesQuestion,
    ) -> Self {
        Self { choice, settings, pod_names, blind_for: 0, asking: None }
    }

    /// Decides, before each digest, whether the kubelet is to be asked.
    pub(super) async fn look(&mut self, sight: Sight) {
        match (self.choice, sight) {
            (SourceChoice::Cgroup, _) => return,
            (SourceChoice::Kubelet, _) => {
                if self.asking.is_none() {
                    tracing::info!("The kubelet is asked for the node's and pods' use.");
                    self.start();
                }
                return;
            }
            (SourceChoice::Auto, Sight::Pods) => {
                self.blind_for = 0;
                if self.asking.take().is_some() {
                    tracing::info!(
                        "Pods' control groups can be read again; the kubelet is left alone."
                    );
                }
                return;
            }
            // A node without pods shows none, and that is all there is to know.
            (SourceChoice::Auto, Sight::Node) if self.pod_names.ask().await.is_empty() => return,
            (SourceChoice::Auto, Sight::Node | Sight::Nothing) => {}
        }
        self.blind_for = self.blind_for.saturating_add(1);
        if self.blind_for >= PATIENCE && self.asking.is_none() {
            tracing::warn!(
                "Pods' control groups can't be read; the kubelet is asked for their use."
            );
            self.start();
        }
    }

    fn start(&mut self) {
        let (sender, told) = watch::channel(None);
        let task =
            tokio::spawn(kubelet::follow(self.settings.clone(), self.pod_names.clone(), sender));
        self.asking = Some(Asking { told, _task: AbortOnDropHandle::new(task) });
    }

    /// The kernel's digest with what the kubelet tells, where it is asked.
    pub(super) fn complete(&self, kernel: Option<UsageDigest>) -> Option<UsageDigest> {
        match self.asking.as_ref().and_then(|asking| asking.told.borrow().clone()) {
            Some(told) => told.complete(kernel),
            None => kernel,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use clap::Parser;
    use drover_agent_core::usage::PodNames;
    use drover_common::cluster::ObjectKey;

    use super::*;
    use crate::kubeconfig::Way;
    use crate::{Args, Config};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    /// A fallback of a node on which a pod runs or not.
    fn fallback(source: &str, runs: &Arc<AtomicBool>) -> Fallback {
        drover_kubernetes::install_crypto_provider();
        let flags = ["drover-agent", "--node-name=n", "--usage-source", source];
        let config = Config::try_from(Command::parse_from(flags).args).unwrap();
        let (pod_names, mut asked) = PodNamesQuestion::channel();
        let runs = Arc::clone(runs);
        tokio::spawn(async move {
            while let Some(answer) = asked.recv().await {
                let web = (ObjectKey::new("d", "web"), Arc::from("u-web"));
                let pods = runs.load(Ordering::Relaxed).then_some(web);
                let _nobody_asks = answer.send(PodNames::from_iter(pods));
            }
        });
        let settings = KubeletSettings::of(&config, Way::of(&config), watch::channel(None).1, None);
        Fallback::new(config.usage_source, settings, pod_names)
    }

    #[tokio::test]
    async fn the_kubelet_is_asked_while_pods_run_that_are_not_seen() {
        let runs = Arc::new(AtomicBool::new(false));
        let mut fallback = fallback("auto", &runs);
        let mut see = async |sight| {
            fallback.look(sight).await;
            fallback.asking.is_some()
        };
        for _ in 0..5 {
            assert!(!see(Sight::Node).await, "no pod runs that could be seen");
        }
        runs.store(true, Ordering::Relaxed);
        assert!(!see(Sight::Node).await, "once may be chance");
        assert!(!see(Sight::Pods).await);
        assert!(!see(Sight::Node).await, "it is counted anew");
        assert!(see(Sight::Node).await);
        runs.store(false, Ordering::Relaxed);
        assert!(see(Sight::Node).await, "that its pods ended does not make it see");
        assert!(!see(Sight::Pods).await, "and back");
        assert!(!see(Sight::Nothing).await);
        assert!(see(Sight::Nothing).await);
    }

    #[tokio::test]
    async fn who_is_told_whom_to_ask_asks_nobody_else() {
        let runs = Arc::new(AtomicBool::new(true));
        let mut cgroup = fallback("cgroup", &runs);
        let mut kubelet = fallback("kubelet", &runs);
        for _ in 0..5 {
            cgroup.look(Sight::Nothing).await;
            kubelet.look(Sight::Pods).await;
            assert!(cgroup.asking.is_none() && kubelet.asking.is_some());
        }
    }
}
