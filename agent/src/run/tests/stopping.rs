//! An agent that is asked to stop: how long it stays, and for what.

use std::time::Instant;

use super::world::RunningAgent;
use super::*;

/// An agent that may stay for so long, whose pods a budget holds, on a machine that is up.
async fn staying(grace: Duration) -> (World, FakeMachine, RunningAgent) {
    let world = World::new(&["web-0", "web-1"]).await;
    world.state().budget_blocks = true;
    let machine = FakeMachine::start(&world.host());
    let config = Config { stop_grace: grace, ..world.config("") };
    let agent = world.start_agent_with(config);
    world
        .until("the agent watches and delays", |state| state.watches >= 2 && machine.locks() == 1)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    (world, machine, agent)
}

#[tokio::test]
async fn it_stays_for_the_drain_while_systemd_stops_and_ends_when_that_is_done() {
    let grace = Duration::from_secs(30);
    let (world, machine, agent) = staying(grace).await;
    machine.stop_units();
    agent.ask_to_stop();
    let began = Instant::now();
    world.until("both pods may not go", |state| state.refused >= 2).await;
    assert_eq!(world.state().node["spec"]["unschedulable"], true, "no pod comes to it any more");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!agent.has_ended(), "there are pods yet");
    world.state().budget_blocks = false;
    world.until("both pods are evicted", |state| state.evicted.len() == 2).await;
    agent.ended(grace / 2).await;
    assert!(began.elapsed() < grace / 2, "done, it stayed for {:?}", began.elapsed());
}

#[tokio::test]
async fn it_ends_when_its_grace_does_whoever_is_left() {
    let (world, machine, agent) = staying(Duration::from_secs(4)).await;
    machine.stop_units();
    agent.ask_to_stop();
    world.until("both pods may not go", |state| state.refused >= 2).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!agent.has_ended(), "there is time yet");
    agent.ended(Duration::from_secs(4)).await;
    // A shutdown passes no budget.
    let state = world.state();
    assert_eq!((state.evicted.len(), state.deleted.len()), (0, 0));
}

#[tokio::test]
async fn it_ends_at_once_where_the_machine_stays() {
    let (world, _machine, agent) = staying(Duration::from_secs(30)).await;
    agent.ask_to_stop();
    agent.ended(Duration::from_secs(3)).await;
    assert_eq!(world.state().refused, 0, "a mere restart drains nothing");
    assert_ne!(world.state().node["spec"]["unschedulable"], true);
}
