//! What is watched while it's needed at once.

use super::*;

/// A watch of pods against a script.
struct Watched {
    urgent: newest::Sender<bool>,
    events: mpsc::Receiver<ClusterEvent>,
    began: Instant,
}

impl Watched {
    async fn start(urgent: bool, answers: Vec<Scripted>) -> Self {
        let script = Script::default();
        script.answers.lock().unwrap().extend(answers);
        let (_same, clients) = newest::channel(client_of(&script).await);
        let (urgent, urgently) = newest::channel(urgent);
        let (sender, events) = mpsc::channel(100);
        let watch = watch_by(clients, urgently, Kind::Pod, None, Limits::NODE, sender);
        tokio::spawn(watch);
        Self { urgent, events, began: Instant::now() }
    }

    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut short = Vec::new();
        while short.len() < count {
            let event = tokio::time::timeout(Duration::from_secs(40), self.events.recv()).await;
            short.push(in_short(event.unwrap_or_else(|_| panic!("too few: {short:?}")).unwrap()));
        }
        short
    }

    fn took(&self, range: std::ops::Range<u64>) {
        let took = self.began.elapsed();
        assert!(range.contains(&took.as_secs()), "{took:?}");
    }
}

#[tokio::test]
async fn a_list_that_is_not_answered_is_asked_for_again_soon() {
    let answers = vec![never(), never(), list("5", &["a"]), events(&[], true)];
    let mut watched = Watched::start(true, answers).await;
    assert_eq!(watched.next(3).await, ["restarted", "+a", "synced"]);
    watched.took(15..19);
}

#[tokio::test]
async fn what_is_waited_for_calmly_is_waited_for_no_longer_once_it_is_urgent() {
    let answers = vec![never(), list("5", &[]), events(&[("ADDED", pod("b", "6"))], true)];
    let mut watched = Watched::start(false, answers).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    watched.urgent.send_replace(true);
    assert_eq!(watched.next(3).await, ["restarted", "synced", "+b"]);
    watched.took(6..9);
}
