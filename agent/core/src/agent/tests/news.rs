//! What is told on the Node while no leader hears the agent, and that it is told once.

use super::*;

/// An agent's world, second by second.
pub(super) struct Scene {
    pub(super) agent: Agent,
    pub(super) node: Value,
    pub(super) now: i64,
    /// What a leader says to reports: whether notices are in its log. `None`: there is no leader.
    pub(super) leader: Option<bool>,
    /// Whether it leaves it to the agent to tell people.
    untold: bool,
    /// When reports went out, in milliseconds.
    reported: Vec<i64>,
    /// What the API server says to events, and to evictions.
    events: Result<(), KubernetesFailureKind>,
    pub(super) evictions: Result<(), KubernetesFailureKind>,
    /// Whether it answers anything.
    pub(super) up: bool,
    asked: Vec<Value>,
    failed: u32,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::of(settled())
    }

    pub(super) fn of(agent: Agent) -> Self {
        Self {
            agent,
            node: node(json!({})),
            now: 0,
            leader: None,
            untold: false,
            reported: Vec::new(),
            events: Ok(()),
            evictions: Ok(()),
            up: true,
            asked: Vec::new(),
            failed: 0,
        }
    }

    pub(super) fn run(&mut self, seconds: i64) {
        for _ in 0..seconds * 4 {
            self.now += 250;
            self.step(Input::Tick);
        }
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.agent.step(input, at(self.now)) {
                match effect {
                    Effect::Call(key, call) => {
                        let outcome = self.answer(&call);
                        inputs.push(Input::Outcome(key, outcome));
                    }
                    Effect::Report(report) => {
                        self.reported.push(self.now);
                        if let Some(committed) = self.leader {
                            let mut answer = json!({"committed": committed, "directives": []});
                            if self.untold {
                                answer["untold"] = json!(true);
                            }
                            let answer = serde_json::from_value(answer).unwrap();
                            inputs.push(Input::Answered(report.sequence, answer));
                        }
                    }
                    Effect::Tell(Fact::EventFailed(_)) => self.failed += 1,
                    _ => {}
                }
            }
        }
    }

    fn answer(&mut self, call: &KubernetesCall) -> Result<Value, KubernetesFailure> {
        let failure = |kind| KubernetesFailure { kind, ..failure() };
        if let KubernetesCall::Create { object, .. } = call {
            self.asked.push(object.clone());
        }
        match call {
            _ if !self.up => Err(failure(KubernetesFailureKind::Unreachable)),
            KubernetesCall::Create { .. } => self.events.map(|()| Value::Null).map_err(failure),
            KubernetesCall::MergePatch { patch, .. } => {
                merge(&mut self.node, patch.clone());
                Ok(self.node.clone())
            }
            KubernetesCall::Get { .. } => Ok(self.node.clone()),
            _ => self.evictions.map(|()| Value::Null).map_err(failure),
        }
    }

    fn told(&self) -> Vec<&str> {
        self.asked.iter().map(|event| event["message"].as_str().unwrap()).collect()
    }
}

const NOTICE: &str = "Spot interruption warning was triggered";

#[test]
fn without_a_leader_the_agent_tells_what_one_would() {
    let mut scene = Scene::new();
    scene.evictions = Err(KubernetesFailureKind::DisruptionBudget);
    scene.step(spot("terminate", 110_000));
    assert_eq!(scene.node["spec"]["unschedulable"], true, "that comes first");
    assert!(scene.asked.is_empty(), "a leader may yet");
    scene.run(9);
    let event = scene.asked[0].clone();
    assert_eq!((&event["reason"], &event["type"]), (&json!("SpotInterrupted"), &json!("Warning")));
    assert_eq!(event["involvedObject"]["uid"], "u");
    assert_eq!(event["metadata"]["namespace"], "default");
    scene.run(20);
    assert_eq!(scene.told().len(), 2, "{:?}", scene.told());
    let blocked = scene.told()[1];
    assert!(blocked.starts_with("Failed to drain node, 1 pods are waiting to be evicted: d/web ("));
    scene.evictions = Ok(());
    scene.run(10);
    scene.step(Input::Cluster(ClusterEvent::Deleted(Kind::Pod, ObjectKey::new("d", "web"))));
    scene.run(40);
    let drained = "Drained: 1 pods evicted, 0 deleted past a budget, 0 with less than their grace";
    assert_eq!(scene.told()[2..], [drained]);
    assert_eq!(scene.asked[2]["type"], "Normal");
}

#[test]
fn a_leader_that_hears_tells_by_itself() {
    let mut scene = Scene::new();
    scene.leader = Some(true);
    scene.evictions = Err(KubernetesFailureKind::DisruptionBudget);
    scene.step(spot("terminate", 110_000));
    scene.run(100);
    assert_eq!(scene.told(), Vec::<&str>::new());
    // One that can't keep what it hears has told nobody.
    let mut scene = Scene::new();
    scene.leader = Some(false);
    scene.step(spot("terminate", 110_000));
    scene.run(9);
    assert_eq!(scene.told(), [NOTICE]);
}

#[test]
fn what_a_leader_hears_and_tells_nobody_the_agent_tells() {
    let run = |untold: bool| {
        let mut scene = Scene::new();
        scene.leader = Some(true);
        scene.untold = untold;
        scene.evictions = Err(KubernetesFailureKind::DisruptionBudget);
        scene.run(30);
        scene.step(spot("terminate", 90_000));
        scene.run(1);
        assert_eq!(scene.told().len(), usize::from(untold), "the answer says whose part it is");
        scene.run(60);
        scene
    };
    let (heard, alone) = (run(false), run(true));
    assert_eq!(heard.told(), Vec::<&str>::new());
    let told = alone.told();
    assert_eq!((told[0], told.len()), (NOTICE, 3), "{told:?}");
    assert!(told[1].starts_with("Failed to drain node"), "{told:?}");
    assert_eq!(told[2], "The time of its notice ran out with 1 pods left: d/web");
    assert_eq!(alone.reported, heard.reported, "it is heard: nothing is reported for this");
    assert!(alone.agent.teller.is_heard(at(alone.now).into()));
}

#[test]
fn what_was_left_to_the_agent_it_tells_though_a_leader_tells_the_next() {
    for works_again in [true, false] {
        let mut scene = Scene::new();
        scene.leader = Some(true);
        scene.untold = true;
        scene.events = Err(KubernetesFailureKind::ServerError);
        let rebalance = format!("{{\"noticeTime\":\"{}\"}}", at(0));
        scene.step(Input::Notice(NoticePath::Rebalance, Answer::Body(rebalance)));
        scene.run(5);
        scene.untold = false;
        scene.run(10);
        if works_again {
            scene.events = Ok(());
        }
        scene.run(60);
        assert_eq!((scene.asked.len(), scene.failed), (3, u32::from(!works_again)));
        scene.step(spot("terminate", 90_000 + scene.now));
        scene.run(60);
        assert_eq!(scene.asked.len(), 3, "the leader tells again");
    }
}

#[test]
fn what_was_told_is_not_told_again_when_leaders_come_and_go() {
    let mut scene = Scene::new();
    scene.leader = Some(true);
    scene.run(30);
    scene.leader = None;
    scene.step(spot("terminate", 110_000));
    scene.run(6);
    assert_eq!(scene.told(), [NOTICE]);
    scene.leader = Some(true);
    scene.run(15);
    scene.leader = None;
    scene.run(9);
    assert_eq!(scene.told(), [NOTICE]);
}

/// A scene in which the last report was lost six seconds ago, and there is a leader again since.
fn after_a_lost_report() -> Scene {
    let mut scene = Scene::new();
    scene.leader = Some(true);
    scene.run(30);
    scene.leader = None;
    let sequence = scene.agent.sequence;
    while scene.agent.sequence == sequence {
        scene.now += 250;
        scene.step(Input::Tick);
    }
    scene.leader = Some(true);
    scene.run(6);
    assert_eq!(scene.agent.sequence, sequence + 1);
    scene
}

#[test]
fn a_report_that_was_lost_before_says_nothing_of_who_hears_the_next() {
    let mut scene = after_a_lost_report();
    scene.evictions = Err(KubernetesFailureKind::DisruptionBudget);
    scene.step(spot("terminate", 60_000 + scene.now));
    scene.run(80);
    assert_eq!(scene.told(), Vec::<&str>::new());
    // Nor is anything told sooner than a leader may take it.
    let mut scene = after_a_lost_report();
    scene.leader = None;
    scene.step(spot("terminate", 60_000 + scene.now));
    scene.run(4);
    assert_eq!(scene.told(), Vec::<&str>::new());
    scene.run(2);
    assert_eq!(scene.told(), [NOTICE]);
}

#[test]
fn what_is_found_between_two_reports_is_reported_at_once_where_nobody_may_hear() {
    let mut scene = Scene::new();
    scene.leader = Some(true);
    scene.evictions = Err(KubernetesFailureKind::DisruptionBudget);
    scene.step(spot("terminate", 60_000));
    scene.run(50);
    scene.leader = None;
    scene.agent.report_interval = SignedDuration::from_mins(5);
    scene.step(pod("db"));
    scene.run(14);
    assert_eq!(scene.told(), Vec::<&str>::new(), "a leader may take it yet");
    scene.run(2);
    assert_eq!(scene.told(), ["The time of its notice ran out with 2 pods left: d/db, d/web"]);
}

#[test]
fn what_was_told_before_a_restart_has_the_same_name_after_it() {
    let mut scene = Scene::new();
    scene.step(spot("terminate", 110_000));
    scene.run(6);
    let saved = scene.agent.saved.clone();
    let mut restarted = agent(Some(saved));
    restarted.step(applied(Kind::Node, scene.node.clone()), at(7_000));
    let mut again = Scene { now: 7_000, node: scene.node.clone(), ..Scene::of(restarted) };
    again.events = Err(KubernetesFailureKind::AlreadyExists);
    again.run(9);
    assert_eq!(again.asked[0]["metadata"], scene.asked[0]["metadata"]);
    assert_eq!((again.told().first(), again.failed), (Some(&NOTICE), 0));
}

#[test]
fn what_can_not_be_told_is_soon_left() {
    for (kind, tries) in [
        (KubernetesFailureKind::Forbidden, 1),
        (KubernetesFailureKind::ServerError, 3),
        (KubernetesFailureKind::Unreachable, 3),
    ] {
        let mut scene = Scene::new();
        scene.events = Err(kind);
        let rebalance = format!("{{\"noticeTime\":\"{}\"}}", at(0));
        scene.step(Input::Notice(NoticePath::Rebalance, Answer::Body(rebalance)));
        scene.run(90);
        assert_eq!((scene.asked.len(), scene.failed), (tries, 1), "{kind:?}");
        assert!(scene.agent.cut_off_since.is_none(), "an event's failure ends no machine");
    }
}

#[test]
fn an_api_server_that_is_silent_is_told_nothing_until_it_answers() {
    let mut scene = Scene::new();
    scene.up = false;
    scene.step(spot("terminate", 110_000));
    scene.run(30);
    assert!(scene.asked.is_empty(), "{:?}", scene.told());
    scene.up = true;
    scene.run(4);
    assert_eq!(scene.told().first(), Some(&NOTICE));
}

#[test]
fn pods_that_are_left_at_the_end_are_told() {
    let mut scene = Scene::new();
    scene.step(spot("terminate", 60_000));
    scene.run(59);
    assert!(scene.told().iter().all(|note| !note.contains("ran out")));
    scene.run(20);
    let left = "The time of its notice ran out with 1 pods left: d/web";
    assert_eq!(scene.told().iter().filter(|note| **note == left).count(), 1);
}
