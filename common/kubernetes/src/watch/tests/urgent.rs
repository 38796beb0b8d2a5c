//! What is watched while it's needed at once.

use super::*;

/// A watch of pods against a script.
struct Watched {
    script: Script,
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
        Self { script, urgent, events, began: Instant::now() }
    }

    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut short = Vec::new();
        while short.len() < count {
            let event = tokio::time::timeout(Duration::from_secs(40), self.events.recv()).await;
            short.push(in_short(event.unwrap_or_else(|_| panic!("too few: {short:?}")).unwrap()));
        }
        short
    }

    fn seen(&self) -> Vec<String> {
        self.script.seen.lock().unwrap().clone()
    }

    /// How long the watch of this number was to last, in seconds.
    fn asked_to_last(&self, number: usize) -> u64 {
        let seen = self.seen();
        let after = seen[number].split("timeoutSeconds=").nth(1).unwrap();
        after.split('&').next().unwrap().parse().unwrap()
    }

    fn took(&self, range: std::ops::Range<u64>) {
        let took = self.began.elapsed();
        assert!(range.contains(&took.as_secs()), "{took:?}");
    }
}

#[tokio::test]
async fn a_watch_that_died_silently_is_found_out() {
    // Neither the first watch nor the second ever says anything more; then the server is gone.
    let known = [("ADDED", pod("b", "6"))];
    let answers = vec![list("5", &["a"]), events(&known, true), events(&[], true), status(503)];
    let mut watched = Watched::start(false, answers).await;
    assert_eq!(watched.next(4).await, ["restarted", "+a", "synced", "+b"]);
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(watched.seen().len(), 2, "there is time yet");
    assert_eq!(watched.asked_to_last(1), 290);
    watched.urgent.send_replace(true);
    watched.began = Instant::now();
    // The first has been silent for too long already; the second is, three seconds after its end.
    assert_eq!(watched.next(1).await, ["stale"]);
    let lasts = watched.asked_to_last(2);
    assert!((8..=12).contains(&lasts), "{lasts} s");
    watched.took(lasts + 3..lasts + 20);
    assert!(watched.seen()[2].contains("resourceVersion=6"));
}

#[tokio::test]
async fn a_watch_is_short_and_the_next_begins_at_its_last_bookmark() {
    let answers = vec![
        list("5", &[]),
        events(&[("BOOKMARK", pod("", "90"))], false),
        events(&[("ADDED", pod("b", "91"))], true),
    ];
    let mut watched = Watched::start(true, answers).await;
    assert_eq!(watched.next(3).await, ["restarted", "synced", "+b"]);
    assert!(watched.seen()[2].contains("resourceVersion=90"), "{:?}", watched.seen());
    assert!((1..=2).all(|number| (8..=12).contains(&watched.asked_to_last(number))));
}

#[tokio::test]
async fn a_watch_that_does_not_open_in_time_is_opened_again_where_it_was() {
    let answers = vec![
        list("5", &["a"]),
        never(),
        events(&[("ADDED", pod("b", "6"))], false),
        never(),
        never(),
        never(),
        list("7", &[]),
        events(&[], true),
    ];
    let mut watched = Watched::start(true, answers).await;
    assert_eq!(watched.next(4).await, ["restarted", "+a", "synced", "+b"]);
    watched.took(5..20);
    watched.began = Instant::now();
    // Each has more time than the one before it.
    assert_eq!(watched.next(3).await, ["stale", "restarted", "synced"]);
    watched.took(30..60);
    let seen = watched.seen();
    let version = |version: &str| format!("resourceVersion={version}");
    assert!(seen[1..3].iter().all(|uri| uri.contains(&version("5"))), "{seen:?}");
    assert!(seen[3..6].iter().all(|uri| uri.contains(&version("6"))), "{seen:?}");
}

#[tokio::test]
async fn a_list_that_is_not_answered_is_asked_for_again_soon() {
    let answers = vec![never(), never(), list("5", &["a"]), events(&[], true)];
    let mut watched = Watched::start(true, answers).await;
    assert_eq!(watched.next(3).await, ["restarted", "+a", "synced"]);
    watched.took(15..28);
}

#[tokio::test]
async fn what_is_waited_for_calmly_is_waited_for_no_longer_once_it_is_urgent() {
    for answers in [
        vec![never(), list("5", &[]), events(&[("ADDED", pod("b", "6"))], true)],
        vec![list("5", &[]), never(), events(&[("ADDED", pod("b", "6"))], true)],
    ] {
        let mut watched = Watched::start(false, answers).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        watched.urgent.send_replace(true);
        assert_eq!(watched.next(3).await, ["restarted", "synced", "+b"]);
        watched.took(6..25);
    }
}
