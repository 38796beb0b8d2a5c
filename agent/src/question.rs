//! What only the deciding loop knows: of pods, whose use it is that is told by names and of which containers, and what
//! the page of metrics tells.

use drover_agent_core::usage::{ContainerNames, PodNames};
use tokio::sync::{mpsc, oneshot};

/// Asks the deciding loop for something. Nothing is kept for those who don't ask.
#[derive(Debug)]
pub(crate) struct Question<T>(mpsc::Sender<oneshot::Sender<T>>);

/// Which pods run here?
pub(crate) type PodNamesQuestion = Question<PodNames>;
/// Which containers do they have?
pub(crate) type ContainersQuestion = Question<ContainerNames>;

impl<T> Clone for Question<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Question<T> {
    /// The question, and where it arrives.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<oneshot::Sender<T>>) {
        let (sender, receiver) = mpsc::channel(2);
        (Self(sender), receiver)
    }

    /// The answer; nothing where the agent ends.
    pub(crate) async fn ask(&self) -> T {
        let (answer, answered) = oneshot::channel();
        match self.0.send(answer).await {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_agent_ends) => T::default(),
        }
    }
}
