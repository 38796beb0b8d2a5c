//! Agents among the rest: they look around, are told what leaders want, ask for things and report.

use drover_common::call::{Call, Outcome};
use drover_common::ec2::InstanceState;
use drover_common::id::{InstanceId, NodeName};
use drover_common::protocol::{Directive, Report, ReportAnswer};
use drover_core::control::Input;

use super::node_agent::NodeAgent;
use super::{AGENT_TIMEOUT, Event, Simulation, node_agent};

impl Simulation {
    /// Agents of new instances start, those of dead ones stop, and all look around.
    pub(super) fn wake_agents(&mut self) {
        let now = self.agenda.now();
        let running: Vec<_> = self
            .world
            .cloud
            .instances()
            .filter(|instance| instance.state == InstanceState::Running)
            .cloned()
            .collect();
        self.agents.retain(|id, _| running.iter().any(|instance| instance.id.0 == *id));
        for instance in running {
            let id = instance.id.to_string();
            let agent =
                self.agents.entry(id.clone()).or_insert_with(|| NodeAgent::start(&instance, now));
            let mut effects = agent.observe(&self.world, &instance, now);
            let node = NodeName::from(agent.node());
            if let Some(directives) = self.directives(&node, &instance.id)
                && let Some(agent) = self.agents.get_mut(&id)
            {
                effects.extend(agent.direct(directives, now));
            }
            self.agent_effects(&id, effects);
        }
    }

    /// What the leader's long poll would say, if there is a leader and the answer arrives.
    fn directives(&mut self, node: &NodeName, instance: &InstanceId) -> Option<Vec<Directive>> {
        if self.dice.chance(self.weather.report_lost) {
            return None;
        }
        let (replica, _) = self.leader()?;
        let brain = self.replicas.get(replica)?.as_ref()?;
        Some(brain.control().directives(brain.state(), node, Some(instance)))
    }

    fn agent_effects(&mut self, instance: &str, effects: Vec<node_agent::Wish>) {
        for effect in effects {
            let delay = self.dice.millis(1, 30);
            let event = match effect {
                node_agent::Wish::Call(key, call) => Event::AgentRequest {
                    instance: instance.to_owned(),
                    key,
                    call: Box::new(Call::Kubernetes(call)),
                },
                node_agent::Wish::Report(report) => Event::Report { report },
                node_agent::Wish::Save(_)
                | node_agent::Wish::PowerOff(_)
                | node_agent::Wish::AllowShutdown
                | node_agent::Wish::Tell(_) => continue,
            };
            self.agenda.after(delay, event);
        }
    }

    pub(super) fn agent_request(&mut self, instance: String, key: node_agent::Key, call: &Call) {
        let (delay, outcome) = self.carry(call, AGENT_TIMEOUT);
        self.agenda.after(delay, Event::AgentAnswer { instance, key, outcome });
    }

    pub(super) fn agent_answer(&mut self, instance: &str, key: node_agent::Key, outcome: Outcome) {
        let now = self.agenda.now();
        let Outcome::Kubernetes(outcome) = outcome else { return };
        let Some(agent) = self.agents.get_mut(instance) else { return };
        let effects = agent.outcome(key, outcome, now);
        self.agent_effects(instance, effects);
    }

    pub(super) fn deliver_report(&mut self, report: Box<Report>) {
        if self.dice.chance(self.weather.report_lost) {
            return;
        }
        let Some((replica, life)) = self.leader() else { return };
        let instance = report.instance.clone();
        let (node, sequence) = (report.node.clone(), report.sequence);
        let notices = !report.notices.is_empty();
        self.input(replica, life, Input::Report(report));
        // The shell answers a notice after its commit, which here takes at most a few messages: the
        // agent repeats the report until then.
        let now = self.agenda.now();
        let Some(instance) = instance else { return };
        let Some(Some(brain)) = self.replicas.get(replica) else { return };
        let committed = !notices || brain.state().notices.contains_key(&instance);
        let directives = brain.control().directives(brain.state(), &node, Some(&instance));
        let answer = ReportAnswer { committed, directives, ..ReportAnswer::default() };
        if let Some(agent) = self.agents.get_mut(instance.as_str()) {
            let effects = agent.answered(sequence, answer, now);
            self.agent_effects(&instance.0, effects);
        }
    }
}
