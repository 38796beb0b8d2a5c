//! Whose use it is that is told by the names of pods: only the deciding loop knows.

use drover_agent_core::usage::PodNames;
use tokio::sync::{mpsc, oneshot};

/// Asks the deciding loop for the pods that run here. Nothing is kept for those who don't ask.
#[derive(Clone, Debug)]
pub(crate) struct PodNamesQuestion(mpsc::Sender<oneshot::Sender<PodNames>>);

impl PodNamesQuestion {
    /// The question, and where it arrives.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<oneshot::Sender<PodNames>>) {
        let (sender, receiver) = mpsc::channel(2);
        (Self(sender), receiver)
    }

    /// The pods that run; none where the agent ends.
    pub(crate) async fn ask(&self) -> PodNames {
        let (answer, answered) = oneshot::channel();
        match self.0.send(answer).await {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_agent_ends) => PodNames::new(),
        }
    }
}
