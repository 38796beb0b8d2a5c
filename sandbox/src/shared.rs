//! A world that several faces and a ticking task use at once.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::world::{World, WorldOptions};

/// A world behind a lock, with word of every new revision. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedWorld {
    world: Arc<Mutex<World>>,
    revision: Arc<watch::Sender<u64>>,
}

impl SharedWorld {
    /// A new world that starts now.
    pub fn new(options: WorldOptions) -> Self {
        let world = World::new(options, Timestamp::now());
        let (revision, _) = watch::channel(world.store.revision());
        Self { world: Arc::new(Mutex::new(world)), revision: Arc::new(revision) }
    }

    /// Does something with the world, at the present time, while nobody else does.
    pub fn with<T>(&self, action: impl FnOnce(&mut World, Timestamp) -> T) -> T {
        // A panic elsewhere must not take every face down: the world's data stay readable.
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = action(&mut world, Timestamp::now());
        let revision = world.store.revision();
        drop(world);
        self.revision.send_if_modified(|known| {
            let changed = *known != revision;
            *known = revision;
            changed
        });
        answer
    }

    /// Lets everything happen that is due now.
    pub fn tick(&self) {
        self.with(|world, now| {
            if world.is_due(now) {
                world.tick(now);
            }
        });
    }

    /// The store's revision, as it changes.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}
