//! A replica's end, while others call it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_raft::parts::{TypeConfig, Vote};
use openraft::raft::VoteRequest;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, Replica, pause_by, wait_until};

const CALLERS: u64 = 16;

/// How calls ended; those that were broken off are not counted.
#[derive(Debug, Default)]
struct Answers {
    served: AtomicU64,
    gone: AtomicU64,
}

impl Answers {
    fn count(&self, answer: &reqwest::Result<reqwest::Response>) {
        let counter = match answer {
            Ok(answer) if answer.status() == 200 => &self.served,
            Err(error) if error.is_connect() => &self.gone,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts openraft's panics from now on: they end a request's task and nothing else.
fn count_panics() -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let (counted, before) = (Arc::clone(&count), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|place| place.file().contains("openraft")) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        before(panic);
    }));
    count
}

/// A candidate's request of long ago: it is answered and changes nothing.
fn stale_vote(cluster: &Cluster, sender: u64, receiver: u64) -> Value {
    let [sender_status, receiver_status] = [cluster.status(sender), cluster.status(receiver)];
    let vote = Vote::new(0, sender_status.member);
    let request: VoteRequest<TypeConfig> = VoteRequest::new(vote, None);
    json!({
        "protocol": 1,
        "cluster": receiver_status.cluster,
        "sender": sender_status.member,
        "replica": sender,
        "receiver": receiver_status.member,
        "body": request,
    })
}

/// Stops a replica; where `broken_off` as one that is dropped in the middle of it, as a process' last moments may.
fn stop(replica: &Replica, broken_off: bool) {
    let mut stopping = replica.group.shutdown();
    replica.runtime.block_on(async {
        if broken_off {
            let _ = futures::poll!(&mut stopping);
        } else {
            stopping.await;
        }
    });
}

#[test]
fn who_calls_a_replica_that_stops_does_not_panic_in_it() {
    let mut cluster = Cluster::start(3);
    let index = cluster.commit(&pause_by("before"));
    cluster.wait_until_equal(index);
    let (leader, _) = cluster.leader(PATIENCE);
    let panics = count_panics();
    let answers = Arc::new(Answers::default());
    let client = reqwest::Client::new();
    let callers = tokio::runtime::Runtime::new().unwrap();
    for (replica, broken_off) in cluster.others(leader).into_iter().zip([true, false]) {
        let url = format!("http://{}/raft/v1/vote", cluster.peers[&replica].raft);
        let request = stale_vote(&cluster, leader, replica);
        let calling: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (url, request) = (url.clone(), request.clone());
                let (client, answers) = (client.clone(), Arc::clone(&answers));
                callers.spawn(async move {
                    // Some hang up early, some wait.
                    let patience = Duration::from_millis(2 + 10_000 * (number % 2));
                    loop {
                        let call = client.post(&url).timeout(patience).json(&request);
                        answers.count(&call.send().await);
                    }
                })
            })
            .collect();
        let served = answers.served.load(Ordering::Relaxed);
        wait_until("calls are served", || answers.served.load(Ordering::Relaxed) > served + 100);
        let gone = answers.gone.load(Ordering::Relaxed);
        let ending = cluster.replicas.remove(&replica).unwrap();
        stop(&ending, broken_off);
        wait_until("all know", || answers.gone.load(Ordering::Relaxed) > gone + 100);
        calling.iter().for_each(tokio::task::JoinHandle::abort);
    }
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}
