//! The leader's brain: inputs in, commands and calls out, nothing else.
//!
//! It is level-triggered. Every step compares what the group agreed on ([`State`]), what the cluster
//! looks like ([`View`]) and what EC2 last showed, and emits what is missing. Nothing it remembers
//! is needed to be right: a new leader starts with an empty memory and comes to the same end.
//!
//! ```text
//!   watches, agents, answers ──► step ──► Propose(command) ──► Raft log ──► State ──┐
//!                                 ▲  └──► Call(key, call)  ──► shell ──► Answer     │
//!                                 └─────────────────────────────────────────────────┘
//! ```
//!
//! Nothing is emitted while this replica does not lead. A leader without the lease, or whose view is
//! not complete, only reads.

mod adopt;
mod agents;
mod answer;
mod assignment;
mod batch;
mod binding;
mod buffer;
mod by_hand;
mod calls;
mod claim_status;
mod class;
mod clocks;
mod cloud;
mod consolidate;
mod discovery;
mod disrupt;
mod drain;
mod drain_news;
mod events;
mod garbage;
mod gather;
mod grace_period;
mod haste;
mod intent;
mod lapse;
mod last_look;
mod launch;
mod lease;
mod leave;
mod lifecycle;
mod node_patch;
mod object;
mod out_of_service;
mod overlay;
mod pool;
mod pool_usage;
mod problem;
mod provisioning;
mod queue;
mod rebalance;
mod refusal;
mod replace;
mod settings;
mod soundness;
mod static_pool;
mod status;
mod templates;
mod undecided;
mod volumes;

#[cfg(test)]
mod tests;

use drover_common::call::Outcome;
use drover_common::cluster::ClusterEvent;
use drover_common::protocol::Report;
use jiff::Timestamp;

use crate::command::{Change, Command};
use crate::state::State;
use crate::view::View;

pub use calls::CallKey;
pub use consolidate::ConsolidationCounts;
pub use queue::QueueCounts;
pub use settings::{LeaseSettings, Settings};
pub use soundness::{PlanChecks, PlanPurpose};
pub use status::{NodeSummary, Status};

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// This replica leads, and has applied every entry of earlier terms.
    Leading {
        /// The Raft term.
        term: u64,
    },
    /// This replica no longer leads.
    Deposed,
    /// Time passed or State changed.
    Tick,
    /// A watch reported something.
    Cluster(ClusterEvent),
    /// An agent reported; the shell has verified who it is.
    Report(Box<Report>),
    /// A call was answered.
    Answer {
        /// Its key.
        key: CallKey,
        /// The answer.
        outcome: Outcome,
    },
    /// The log did not take a command, and will not. Of one that may yet be committed nothing is told.
    ProposalRejected(Box<Command>),
    /// A command is in the log, and State refused it.
    CommandRefused(Box<Command>),
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put a command into the log.
    Propose(Box<Command>),
    /// Make a call and bring its outcome back under the same key.
    Call {
        /// The key.
        key: CallKey,
        /// The call.
        call: Box<drover_common::call::Call>,
    },
}

/// A time of leading.
#[derive(Clone, Copy, Debug)]
struct Reign {
    term: u64,
    since: Timestamp,
}

/// The brain of one replica. It follows the watches whether it leads or not, so that a new leader
/// starts warm.
#[derive(Debug)]
pub struct Control {
    settings: Settings,
    view: View,
    reign: Option<Reign>,
    calls: calls::CallTable,
    lease: lease::Lease,
    discovery: discovery::Discovery,
    cloud: cloud::CloudView,
    agents: agents::Agents,
    launches: launch::Launches,
    drains: drain::Drains,
    provisioning: provisioning::Provisioning,
    soundness: soundness::Soundness,
    activity: lifecycle::PodActivity,
    consolidation: consolidate::Consolidation,
    assignments: assignment::Assignments,
    queue: queue::Queue,
    undecided: undecided::Undecided,
    rebalances: rebalance::Rebalances,
    refusals: refusal::Refusals,
    suspicions: garbage::Suspicions,
    templates: templates::Templates,
    events: events::Recorder,
    problems: problem::Problems,
    dirty_since: Option<Timestamp>,
}

/// When everything is looked at after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Now,
    Soon,
    AtTheUsualTime,
}

impl Control {
    /// A replica that has seen nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            view: View::default(),
            reign: None,
            calls: calls::CallTable::default(),
            lease: lease::Lease::default(),
            discovery: discovery::Discovery::default(),
            cloud: cloud::CloudView::default(),
            agents: agents::Agents::default(),
            launches: launch::Launches::default(),
            drains: drain::Drains::default(),
            provisioning: provisioning::Provisioning::default(),
            soundness: soundness::Soundness::default(),
            activity: lifecycle::PodActivity::default(),
            consolidation: consolidate::Consolidation::default(),
            assignments: assignment::Assignments::default(),
            queue: queue::Queue::default(),
            undecided: undecided::Undecided::default(),
            rebalances: rebalance::Rebalances::default(),
            refusals: refusal::Refusals::default(),
            suspicions: garbage::Suspicions::default(),
            templates: templates::Templates::default(),
            events: events::Recorder::default(),
            problems: problem::Problems::default(),
            dirty_since: None,
        }
    }

    /// Takes in what happened and says what to do. Step with [`Input::Tick`] after entries were
    /// applied, when [`Control::next_wakeup`] has come and no other input waits, and at least every
    /// 250 ms.
    pub fn step(&mut self, state: &State, input: Input, now: Timestamp) -> Vec<Effect> {
        match self.take_in(state, input, now) {
            Look::Now => {
                self.dirty_since = None;
                self.reconcile(state, now);
            }
            Look::Soon => drop(self.dirty_since.get_or_insert(now)),
            Look::AtTheUsualTime => {}
        }
        self.calls.take_effects()
    }

    /// When the next [`Input::Tick`] is due; `None`: not before the usual one.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let settings = &self.settings;
        let batch = self.provisioning.batches.ends(settings.batch_idle, settings.batch_max);
        self.reign?;
        [self.dirty_since, batch].into_iter().flatten().min()
    }

    /// The cluster as the watches tell it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The term this replica leads.
    pub fn term(&self) -> Option<u64> {
        self.reign.map(|reign| reign.term)
    }

    /// Takes an input in; returns when everything is to be looked at. Bursts (watches, answers) are taken
    /// in one by one and looked at together at the next tick; that agents are well changes nothing.
    fn take_in(&mut self, state: &State, input: Input, now: Timestamp) -> Look {
        match input {
            Input::Leading { term } => self.begin_reign(term, now),
            Input::Deposed => self.end_reign(),
            Input::Tick => {}
            Input::Cluster(event) => {
                self.activity.observe(&self.view, &event, now);
                self.view.apply(event);
                return Look::Soon;
            }
            Input::Report(report) => {
                let is_news = self.take_report(state, *report, now);
                return if is_news { Look::Now } else { Look::AtTheUsualTime };
            }
            Input::Answer { key, outcome } => {
                self.take_answer(state, &key, outcome, now);
                return Look::Soon;
            }
            Input::ProposalRejected(command) => {
                self.calls.proposal_rejected(&command.change);
                self.stop_expecting(&command.change);
            }
            Input::CommandRefused(command) => self.stop_expecting(&command.change),
        }
        Look::Now
    }

    fn begin_reign(&mut self, term: u64, now: Timestamp) {
        self.end_reign();
        self.reign = Some(Reign { term, since: now });
    }

    /// Forgets everything that only holds while leading: what is under way and what EC2 showed.
    fn end_reign(&mut self) {
        self.reign = None;
        self.agents.end_reign();
        self.calls = calls::CallTable::default();
        self.lease = lease::Lease::default();
        self.cloud = cloud::CloudView::default();
        self.launches = launch::Launches::default();
        self.drains = drain::Drains::default();
        self.provisioning = provisioning::Provisioning::default();
        self.consolidation = consolidate::Consolidation::default();
        self.assignments = assignment::Assignments::default();
        self.queue = queue::Queue::default();
        self.undecided = undecided::Undecided::default();
        self.rebalances = rebalance::Rebalances::default();
        self.refusals = refusal::Refusals::default();
        self.suspicions = garbage::Suspicions::default();
        self.templates = templates::Templates::default();
        self.discovery.forget_calls();
        self.problems.clear();
    }

    fn reconcile(&mut self, state: &State, now: Timestamp) {
        if self.reign.is_none() {
            return;
        }
        self.calls.expire(now);
        self.keep_lease(now);
        self.discover(now);
        self.read_instances(state, now);
        if !self.may_act(now) {
            return;
        }
        self.undecided.follow(state);
        self.heed_queue(state, now);
        self.end_hibernations(state, now);
        self.lapse_notices(state, now);
        self.adopt_claims(state, now);
        self.launch_claims_by_hand(state, now);
        self.execute_launches(state, now);
        self.follow_claims(state, now);
        self.lead_out(state, now);
        self.drain_for_silent_agents(state, now);
        self.count_left(state, now);
        self.collect_garbage(state, now);
        self.keep_static_pools(state, now);
        self.sweep_templates(state, now);
        self.provision(state, now);
        self.rebalance(state, now);
        self.consolidate(state, now);
        self.forget_gone_pools();
        self.forget_problems(state, now);
        self.report_pools(state, now);
        self.report_overlays(state, now);
        self.report_buffers(now);
        self.report_classes(now);
    }

    /// Whether this replica may change anything outside its own State.
    fn may_act(&self, now: Timestamp) -> bool {
        self.reign.is_some()
            && self.view.is_synced()
            && self.lease.is_held(self.settings.lease.as_ref(), now)
    }

    /// The cluster's uid: that of the kube-system namespace.
    fn cluster_uid(&self) -> Option<String> {
        self.view.namespaces().get("kube-system").map(|namespace| namespace.metadata.uid.clone())
    }

    fn propose(&mut self, change: Change, now: Timestamp) -> bool {
        self.calls.propose(change, now)
    }

    /// What was proposed will not be in State.
    fn stop_expecting(&mut self, change: &Change) {
        match change {
            Change::CreateIntent { intent } => self.provisioning.stop_expecting(&intent.id),
            Change::CommitDisruption { disruption, intents } => {
                for intent in intents {
                    self.provisioning.stop_expecting(&intent.id);
                }
                self.undecided.stop_expecting(&disruption.claims);
            }
            _ => {}
        }
    }
}
