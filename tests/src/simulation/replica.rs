//! One leader replica: the pure parts of a leader, without its shell.

use std::collections::BTreeMap;

use drover_common::call::Kind;
use drover_common::cluster::{ClusterEvent, ClusterObject, ObjectKey};
use drover_core::command::Command;
use drover_core::control::{Control, Effect, Input, Settings};
use drover_core::state::{Applied, State};
use drover_sandbox::world::World;
use drover_sandbox::world::resource::Resource;
use drover_sandbox::world::store::ChangeKind;
use jiff::Timestamp;

/// A replica that runs.
#[derive(Debug)]
pub struct Replica {
    control: Control,
    state: State,
    applied: usize,
    watched: u64,
    /// Counts its lives: what was sent in an earlier one is not heard in this one.
    pub life: u64,
}

/// The kinds a leader watches, by resource.
fn watched_kinds() -> BTreeMap<Resource, Kind> {
    Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_watched())
        .map(|kind| (Resource::new(kind.endpoint().group, kind.endpoint().plural), kind))
        .collect()
}

impl Replica {
    /// A replica that starts with a disk of its own (the log replays into an empty state) and an
    /// empty view.
    pub fn start(
        settings: Settings,
        world: &World,
        log: &[Command],
        life: u64,
        now: Timestamp,
    ) -> Self {
        let mut replica = Self {
            control: Control::new(settings),
            state: State::default(),
            applied: 0,
            watched: world.store.revision(),
            life,
        };
        replica.catch_up(log, now);
        for (resource, kind) in watched_kinds() {
            replica.see(ClusterEvent::Restarted(kind), now);
            let objects: Vec<_> =
                world.store.iter(&resource).map(|(_, object)| object.as_ref().clone()).collect();
            for object in objects {
                let object = ClusterObject::from_json(kind, object)
                    .expect("the world's objects are readable");
                replica.see(ClusterEvent::Applied(object), now);
            }
            replica.see(ClusterEvent::Synced(kind), now);
        }
        replica
    }

    /// Applies what the log has more, and tells the brain what of it the state refused.
    pub fn catch_up(&mut self, log: &[Command], now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        for command in log.iter().skip(self.applied) {
            self.applied += 1;
            let applied = self.state.apply(self.applied as u64, command);
            if matches!(applied, Applied::Rejected { .. }) {
                effects.extend(self.step(Input::CommandRefused(Box::new(command.clone())), now));
            }
        }
        effects
    }

    /// Feeds the changes of the world since the last look.
    pub fn watch(&mut self, world: &World, now: Timestamp) -> Vec<Effect> {
        let kinds = watched_kinds();
        let changes = world.events_since(self.watched).expect("the log reaches back a second");
        let events: Vec<ClusterEvent> = changes
            .filter_map(|change| {
                let kind = *kinds.get(&change.resource)?;
                Some(match change.kind {
                    ChangeKind::Deleted => {
                        let key =
                            ObjectKey::new(change.key.namespace.clone(), change.key.name.clone());
                        ClusterEvent::Deleted(kind, key)
                    }
                    ChangeKind::Added | ChangeKind::Modified => {
                        let object = ClusterObject::from_json(kind, change.object.as_ref().clone());
                        ClusterEvent::Applied(object.expect("the world's objects are readable"))
                    }
                })
            })
            .collect();
        self.watched = world.store.revision();
        events.into_iter().flat_map(|event| self.see(event, now)).collect()
    }

    /// One step of the brain.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        self.control.step(&self.state, input, now)
    }

    /// The replica's state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The brain.
    pub fn control(&self) -> &Control {
        &self.control
    }

    fn see(&mut self, event: ClusterEvent, now: Timestamp) -> Vec<Effect> {
        self.step(Input::Cluster(event), now)
    }
}
