//! Turns to the kubelet when pods can't be measured here, and back.

use drover_agent_core::usage::KubeletUse;
use drover_common::protocol::UsageDigest;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::kubelet::{self, KubeletSettings};
use super::pod_names::PodNamesQuestion;
use crate::config::SourceChoice;

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
