//! Deterministic simulation: three leaders' brains and an agent per node in one thread on virtual
//! time, over the sandbox's world and a model of an ordered, fenced log. A seed decides every fault;
//! the same seed gives the same run.
//!
//! First the storm: requests, answers and reports get lost, proposals are refused, leaders crash.
//! Safety is checked all along. Then the storm ends, and everything must come to rest.

pub mod agenda;
mod agents;
mod books;
pub mod drains;
pub mod fenced_log;
pub mod node_agent;
pub mod oracle;
pub mod replica;
pub mod weather;
mod workload;

use std::collections::BTreeMap;

use drover_common::call::{Call, KubernetesFailure, KubernetesFailureKind, Outcome};
use drover_common::ec2::{Ec2Failure, Ec2FailureKind};
use drover_common::protocol::Report;
use drover_core::command::Command;
use drover_core::control::{CallKey, Effect, Input, Settings};
use drover_core::nodeclass::ClusterSettings;
use drover_core::planner::RepackSettings;
use drover_sandbox::world::{World, WorldOptions};
use jiff::{SignedDuration, Timestamp};

use agenda::Agenda;
use drains::{DrainCounts, DrainOracle};
use fenced_log::FencedLog;
use node_agent::NodeAgent;
use oracle::Oracle;
use replica::Replica;
use weather::{Dice, Fate, Weather};

const REPLICAS: usize = 3;
const CLUSTER: &str = "simulation";
/// How often the world, the brains and the agents are woken.
const WORLD_PERIOD: SignedDuration = SignedDuration::from_millis(100);
const BRAIN_PERIOD: SignedDuration = SignedDuration::from_millis(250);
const AGENT_PERIOD: SignedDuration = SignedDuration::from_millis(500);
/// A run ends when all has been at rest for so long; longer than any notice that is still to end.
const REST: SignedDuration = SignedDuration::from_secs(130);
/// A request that is not answered is given up after this long.
const REQUEST_TIMEOUT: SignedDuration = SignedDuration::from_secs(10);
/// The same for an agent, which has less time.
const AGENT_TIMEOUT: SignedDuration = SignedDuration::from_secs(2);

/// What can happen.
#[derive(Debug)]
enum Event {
    World,
    Brain { replica: usize },
    Agents,
    Proposal { replica: usize, life: u64, term: u64, command: Box<Command> },
    Request { replica: usize, life: u64, key: CallKey, call: Box<Call> },
    Answer { replica: usize, life: u64, key: CallKey, outcome: Box<Outcome> },
    AgentRequest { instance: String, key: node_agent::Key, call: Box<Call> },
    AgentAnswer { instance: String, key: node_agent::Key, outcome: Box<Outcome> },
    Report { report: Box<Report> },
    Crash,
    Restart { replica: usize },
    Election,
    Interruption,
    Deletion,
    Shrink,
}

/// One run.
#[derive(Debug)]
pub struct Simulation {
    agenda: Agenda<Event>,
    dice: Dice,
    weather: Weather,
    world: World,
    log: FencedLog,
    replicas: Vec<Option<Replica>>,
    lives: u64,
    agents: BTreeMap<String, NodeAgent>,
    oracle: Oracle,
    drains: DrainOracle,
    trace: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Broken safety rules, with the virtual second at which each was seen.
    pub broken: Vec<String>,
    /// What had not come to rest at the end.
    pub unfinished: Vec<String>,
    /// Commands committed.
    pub committed: usize,
    /// Consolidations whose drain began.
    pub consolidated: usize,
    /// What drains did.
    pub drains: DrainCounts,
    /// Instances ever launched.
    pub launched: u64,
    /// A hash over everything committed: equal for equal seeds.
    pub trace: u64,
}

impl Simulation {
    /// A world with the workload applied, replicas and no nodes.
    pub fn new(seed: u64) -> Self {
        let start = Timestamp::from_second(1_800_000_000).expect("a valid time");
        let options = WorldOptions {
            seed,
            cluster_name: CLUSTER.to_owned(),
            boot_delay: SignedDuration::from_secs(8),
            ..WorldOptions::default()
        };
        let mut simulation = Self {
            agenda: Agenda::new(start),
            dice: Dice::new(seed),
            weather: Weather::STORM,
            world: World::new(options, start),
            log: FencedLog::default(),
            replicas: Vec::new(),
            lives: 0,
            agents: BTreeMap::new(),
            oracle: Oracle::default(),
            drains: DrainOracle::default(),
            trace: 0xCBF2_9CE4_8422_2325,
        };
        workload::apply(&mut simulation.world, seed, start);
        for replica in 0..REPLICAS {
            simulation.replicas.push(None);
            simulation.restart(replica);
            let offset = simulation.dice.millis(0, 250);
            simulation.agenda.after(offset, Event::Brain { replica });
        }
        simulation.agenda.after(SignedDuration::ZERO, Event::World);
        simulation.agenda.after(SignedDuration::from_millis(700), Event::Election);
        simulation.agenda.after(AGENT_PERIOD, Event::Agents);
        simulation
    }

    /// Runs the storm and the calm after it.
    pub fn run(mut self, storm: SignedDuration, calm: SignedDuration) -> Verdict {
        let mut broken = Vec::new();
        self.schedule_storm(storm);
        let start = self.agenda.now();
        let storm_ends = start + storm;
        let end = storm_ends + calm;
        let mut restless = storm_ends;
        while self.agenda.now() < end && broken.is_empty() {
            let now = self.agenda.now();
            if now >= storm_ends {
                self.weather = Weather::CALM;
            }
            let Some(event) = self.agenda.advance() else { break };
            let is_world = matches!(event, Event::World);
            self.happen(event);
            if !is_world {
                continue;
            }
            let second = now.duration_since(start).as_secs();
            let mut found = self.oracle.safety(&self.world);
            self.drains.watch(&self.world);
            found.extend(self.drains.broken().iter().cloned());
            broken.extend(found.into_iter().map(|rule| format!("after {second} s: {rule}")));
            if now < storm_ends || !self.unfinished().is_empty() {
                restless = restless.max(now);
            } else if now.duration_since(restless) >= REST {
                break;
            }
        }
        let unfinished = self.unfinished();
        Verdict {
            broken,
            unfinished,
            committed: self.log.entries().len(),
            consolidated: self.oracle.consolidated(),
            drains: self.drains.counts(),
            launched: self.world.cloud.audit().launches,
            trace: self.trace,
        }
    }

    fn unfinished(&self) -> Vec<String> {
        self.oracle.unfinished(&self.world)
    }

    /// Crashes of leaders and interruptions of nodes, scattered over the storm.
    fn schedule_storm(&mut self, storm: SignedDuration) {
        let millis = u64::try_from(storm.as_millis()).unwrap_or(0);
        for _ in 0..4 {
            let at = self.dice.millis(1_000, millis);
            self.agenda.after(at, Event::Crash);
        }
        for _ in 0..3 {
            let at = self.dice.millis(millis / 2, millis);
            self.agenda.after(at, Event::Interruption);
        }
        let at = self.dice.millis(millis / 2, millis);
        self.agenda.after(at, Event::Deletion);
        // What is left after this fits on fewer nodes, while leaders still crash.
        let at = self.dice.millis(millis / 4, millis / 2);
        self.agenda.after(at, Event::Shrink);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::World => {
                self.world.tick(self.agenda.now());
                self.agenda.after(WORLD_PERIOD, Event::World);
            }
            Event::Brain { replica } => {
                self.think(replica);
                self.agenda.after(BRAIN_PERIOD, Event::Brain { replica });
            }
            Event::Agents => {
                self.wake_agents();
                self.agenda.after(AGENT_PERIOD, Event::Agents);
            }
            Event::Proposal { replica, life, term, command } => {
                self.propose(replica, life, term, command);
            }
            Event::Request { replica, life, key, call } => self.request(replica, life, key, &call),
            Event::Answer { replica, life, key, outcome } => {
                self.input(replica, life, Input::Answer { key, outcome: *outcome });
            }
            Event::AgentRequest { instance, key, call } => self.agent_request(instance, key, &call),
            Event::AgentAnswer { instance, key, outcome } => {
                self.agent_answer(&instance, key, *outcome);
            }
            Event::Report { report } => self.deliver_report(report),
            Event::Crash => self.crash(),
            Event::Restart { replica } => self.restart(replica),
            Event::Election => self.elect(),
            Event::Interruption => self.interrupt(),
            Event::Deletion => self.delete_claim(),
            Event::Shrink => workload::shrink(&mut self.world, self.agenda.now()),
        }
    }

    /// A replica sees what changed, applies what was committed, and thinks.
    fn think(&mut self, replica: usize) {
        let now = self.agenda.now();
        let Some(Some(brain)) = self.replicas.get_mut(replica) else { return };
        let life = brain.life;
        let mut effects = brain.catch_up(self.log.entries(), now);
        effects.extend(brain.watch(&self.world, now));
        effects.extend(brain.step(Input::Tick, now));
        self.send(replica, life, effects);
    }

    fn input(&mut self, replica: usize, life: u64, input: Input) {
        let now = self.agenda.now();
        let Some(Some(brain)) = self.replicas.get_mut(replica) else { return };
        if brain.life != life {
            return;
        }
        let mut effects = brain.catch_up(self.log.entries(), now);
        // Inputs are only taken in; the shell ticks when none waits.
        effects.extend(brain.step(input, now));
        effects.extend(brain.step(Input::Tick, now));
        self.send(replica, life, effects);
    }

    fn send(&mut self, replica: usize, life: u64, effects: Vec<Effect>) {
        for effect in effects {
            let delay = self.dice.millis(1, 30);
            let event = match effect {
                Effect::Propose(command) => {
                    Event::Proposal { replica, life, term: self.log.term(), command }
                }
                Effect::Call { key, call } => Event::Request { replica, life, key, call },
            };
            self.agenda.after(delay, event);
        }
    }

    fn propose(&mut self, replica: usize, life: u64, term: u64, command: Box<Command>) {
        let refused = self.dice.chance(self.weather.proposal_refused);
        let text = serde_json::to_string(&command).expect("commands are JSON");
        let outcome = if refused { Err(command) } else { self.log.propose(replica, term, command) };
        match outcome {
            Ok(()) => {
                self.oracle.read(self.log.entries());
                for byte in text.bytes() {
                    self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
                }
                self.input(replica, life, Input::Tick);
            }
            Err(command) => self.input(replica, life, Input::ProposalRejected(command)),
        }
    }

    /// Lets a call meet its fate: what its caller hears, and when; lost words are heard as silence
    /// once `patience` is over.
    fn carry(&mut self, call: &Call, patience: SignedDuration) -> (SignedDuration, Box<Outcome>) {
        let fate = self.weather.fate(&mut self.dice);
        let now = self.agenda.now();
        let (delay, outcome) = match fate {
            Fate::RequestLost => (patience, silence(call)),
            Fate::Delivered => (self.dice.millis(1, 60), self.apply(call, now)),
            Fate::AnswerLost => {
                self.apply(call, now);
                (patience, silence(call))
            }
        };
        (delay, Box::new(outcome))
    }

    /// Has the world do what a call asks for, under the eyes of the oracle.
    fn apply(&mut self, call: &Call, now: Timestamp) -> Outcome {
        let asked = self.drains.ask(&self.world, self.oracle.drains(), call, now);
        let outcome = self.world.apply(call, now);
        self.drains.see(&self.world, call, now);
        if let Some(asked) = asked {
            self.drains.done(&self.world, asked);
        }
        outcome
    }

    fn request(&mut self, replica: usize, life: u64, key: CallKey, call: &Call) {
        let (delay, outcome) = self.carry(call, REQUEST_TIMEOUT);
        self.agenda.after(delay, Event::Answer { replica, life, key, outcome });
    }

    fn leader(&mut self) -> Option<(usize, u64)> {
        let replica = self.log.leader()?;
        let life = self.replicas.get(replica)?.as_ref()?.life;
        Some((replica, life))
    }

    fn crash(&mut self) {
        let Some((replica, _)) = self.leader() else { return };
        if let Some(slot) = self.replicas.get_mut(replica) {
            *slot = None;
        }
        self.log.depose();
        let election = self.dice.millis(1_000, 2_500);
        self.agenda.after(election, Event::Election);
        let back = self.dice.millis(2_000, 8_000);
        self.agenda.after(back, Event::Restart { replica });
    }

    fn restart(&mut self, replica: usize) {
        self.lives += 1;
        let settings = Settings {
            cluster: ClusterSettings {
                name: CLUSTER.to_owned(),
                endpoint: "https://simulation".to_owned(),
                kubernetes_version: "1.34".to_owned(),
                ..ClusterSettings::default()
            },
            region: "us-east-1".to_owned(),
            repack: RepackSettings {
                min_node_age: SignedDuration::from_secs(20),
                ..RepackSettings::default()
            },
            disruption_poll: SignedDuration::from_secs(3),
            ..Settings::default()
        };
        let started = Replica::start(
            settings,
            &self.world,
            self.log.entries(),
            self.lives,
            self.agenda.now(),
        );
        if let Some(slot) = self.replicas.get_mut(replica) {
            *slot = Some(started);
        }
    }

    fn elect(&mut self) {
        let alive: Vec<usize> =
            (0..REPLICAS).filter(|i| self.replicas.get(*i).is_some_and(Option::is_some)).collect();
        let draw = self.dice.below(alive.len() as u64);
        let Some(replica) = usize::try_from(draw).ok().and_then(|i| alive.get(i)).copied() else {
            self.agenda.after(SignedDuration::from_secs(1), Event::Election);
            return;
        };
        if let Some((old, life)) = self.leader() {
            self.input(old, life, Input::Deposed);
        }
        let term = self.log.elect(replica);
        if let Some((replica, life)) = self.leader() {
            self.input(replica, life, Input::Leading { term });
        }
    }

    fn interrupt(&mut self) {
        let now = self.agenda.now();
        let running: Vec<_> = self
            .world
            .cloud
            .instances()
            .filter(|instance| !instance.state.is_gone())
            .map(|instance| instance.id.clone())
            .collect();
        let draw = usize::try_from(self.dice.below(running.len() as u64)).unwrap_or(0);
        if let Some(instance) = running.get(draw) {
            // An instance that went in the meantime needs no notice.
            let _ = self.world.cloud.interrupt(instance, now, SignedDuration::from_secs(120));
        }
    }

    /// A user deletes one of the NodeClaims whose nodes are up.
    fn delete_claim(&mut self) {
        let claims = workload::claims_of_nodes(&self.world);
        let draw = usize::try_from(self.dice.below(claims.len() as u64)).unwrap_or(0);
        if let Some(claim) = claims.get(draw) {
            workload::delete_claim(&mut self.world, claim, self.agenda.now());
        }
    }
}

/// What a caller makes of an answer that never comes.
fn silence(call: &Call) -> Outcome {
    match call {
        Call::Kubernetes(_) => Outcome::Kubernetes(Err(KubernetesFailure {
            kind: KubernetesFailureKind::Unreachable,
            message: "no answer".to_owned(),
            retry_after_seconds: None,
        })),
        Call::Ec2(_) => Outcome::Ec2(Err(Ec2Failure {
            kind: Ec2FailureKind::Unknown,
            code: "Timeout".to_owned(),
            message: "no answer".to_owned(),
        })),
    }
}
