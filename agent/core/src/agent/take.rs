//! What inputs change in the state.

use drover_common::call::Kind;
use drover_common::cluster::{ClusterEvent, ClusterObject, Node, ObjectKey, Pod};
use drover_common::drain;
use drover_common::id::InstanceId;
use drover_common::protocol::{Directive, NoticeKind};
use jiff::{SignedDuration, Timestamp};

use super::{Agent, Effect, Fact};
use crate::moment::Moment;
use crate::node;
use crate::notice::{Answer, NoticePath, Notices, PROBLEM_HOLDS, after};

/// No node has so many pods that have not ended; an API server that tells more is broken.
const MOST_PODS: usize = 2_000;
/// What is kept of a pod takes a kilobyte or two; the longest names, ids and owners that an API server lets
/// through, for some fifty containers, take less than this as JSON.
const MOST_POD_BYTES: usize = 16 << 10;
/// A node has one disruption at a time; a leader that names more than this is broken.
const MOST_DIRECTIVES: usize = 16;
/// Characters of a name that are told; Kubernetes' have 253 at most.
const MOST_NAMED: usize = 253;
/// A directive counts for so long. Leaders name it in each answer to a report or a poll, which is
/// several times in this time.
const DIRECTIVE_HOLDS: SignedDuration = SignedDuration::from_secs(90);

impl Agent {
    pub(super) fn take_instance(&mut self, instance: InstanceId) {
        if self.instance.as_ref() != Some(&instance) {
            // What was kept belonged to another instance with, by some copy, the same boot.
            self.notices = Notices::default();
            self.told_foreign = false;
            self.instance = Some(instance);
        }
    }

    pub(super) fn take_notice(&mut self, path: NoticePath, answer: &Answer, now: Moment) {
        let Some(instance) = self.instance.clone() else { return };
        match self.notices.observe(path, answer, &instance, &self.identity.boot, now) {
            Ok(changed) => {
                self.unreadable.remove(&path);
                if path == NoticePath::SpotAction {
                    self.hearing.hear(now);
                }
                if changed {
                    self.tell_notices();
                }
            }
            Err(error) => {
                let reason = error.to_string();
                if self.unreadable.get(&path) != Some(&reason) {
                    self.unreadable.insert(path, reason.clone());
                    self.tell(Fact::UnreadableNotice { path, reason });
                }
            }
        }
    }

    fn tell_notices(&mut self) {
        self.told_cordoned = false;
        self.cordoned_at = None;
        let facts: Vec<Fact> = self.notices.list().into_iter().map(Fact::NoticeInForce).collect();
        if facts.is_empty() {
            self.tell(Fact::NoticesGone);
        }
        facts.into_iter().for_each(|fact| self.tell(fact));
    }

    /// Sets or withdraws what the machine itself tells. Without an instance id there is nothing that
    /// a notice could be about.
    fn set_notice(&mut self, kind: NoticeKind, told: Option<Option<Timestamp>>, now: Timestamp) {
        let Some(instance) = self.instance.clone() else { return };
        if self.notices.set(kind, told, &instance, &self.identity.boot, now) {
            self.tell_notices();
        }
    }

    pub(super) fn take_shutdown(&mut self, waits: Option<SignedDuration>, now: Timestamp) {
        self.holds_shutdown = waits.is_some();
        self.set_notice(NoticeKind::Shutdown, waits.map(|time| Some(after(now, time))), now);
    }

    pub(super) fn allow_shutdown(&mut self) {
        if std::mem::replace(&mut self.holds_shutdown, false) {
            self.effects.push(Effect::AllowShutdown);
        }
    }

    /// A Node's conditions, held for a while, make a notice.
    pub(super) fn watch_conditions(&mut self, now: Moment) {
        // Before the Node was seen a restarted agent knows what it knew.
        if self.node.is_none() && !self.node_fresh {
            return;
        }
        let broken = self.is_broken();
        if !broken {
            self.problem_since = None;
            self.set_notice(NoticeKind::Problem, None, now.wall);
            return;
        }
        let since = *self.problem_since.get_or_insert(now.steady);
        if now.is_past(since, PROBLEM_HOLDS) {
            self.set_notice(NoticeKind::Problem, Some(None), now.wall);
        }
    }

    /// Whether the own Node says that it is.
    pub(super) fn is_broken(&mut self) -> bool {
        self.node.as_ref().is_some_and(node::is_broken) && self.owns_node()
    }

    pub(super) fn take_event(&mut self, event: ClusterEvent, now: Moment) {
        if !matches!(event, ClusterEvent::Stale(_)) {
            self.hear_api(now, true);
        }
        match event {
            ClusterEvent::Applied(ClusterObject::Node(node)) => {
                self.take_node(*node);
            }
            ClusterEvent::Deleted(Kind::Node, key) if key.name == self.identity.node.as_str() => {
                self.lose_node();
            }
            ClusterEvent::Restarted(Kind::Node) => self.node_listed = false,
            ClusterEvent::Synced(Kind::Node) => self.take_node_list(),
            ClusterEvent::Stale(Kind::Node) => self.node_fresh = false,
            ClusterEvent::Applied(ClusterObject::Pod(pod)) => self.take_pod(*pod),
            ClusterEvent::Deleted(Kind::Pod, key) => {
                self.pods.remove(&key);
            }
            ClusterEvent::Restarted(Kind::Pod) => {
                self.unlisted = Some(self.pods.keys().cloned().collect());
            }
            ClusterEvent::Synced(Kind::Pod) => {
                for key in self.unlisted.take().unwrap_or_default() {
                    self.pods.remove(&key);
                }
                self.pods_complete = true;
            }
            ClusterEvent::Stale(Kind::Pod) => self.pods_complete = false,
            _ => {}
        }
    }

    /// A pod that has ended is one that is gone: Jobs may leave thousands behind.
    fn take_pod(&mut self, pod: Pod) {
        let key = ObjectKey::from(&pod.metadata);
        if let Some(unlisted) = &mut self.unlisted {
            unlisted.remove(&key);
        }
        if pod.is_terminal() {
            self.pods.remove(&key);
        } else if self.pods.len() < MOST_PODS || self.pods.contains_key(&key) {
            self.keep_pod(key, Box::new(drain::reduced(pod)));
        } else if !std::mem::replace(&mut self.told_too_many, true) {
            self.tell(Fact::TooManyPods(MOST_PODS));
        }
    }

    /// What is too large for any pod is passed by; what was known of it before stays.
    fn keep_pod(&mut self, key: ObjectKey, pod: Box<Pod>) {
        if has_bytes(&pod, MOST_POD_BYTES) {
            self.pods.insert(key, pod);
        } else if !std::mem::replace(&mut self.told_too_large, true) {
            let start = |text: &str| text.chars().take(MOST_NAMED).collect::<String>();
            let pod = ObjectKey::new(start(&key.namespace), start(&key.name));
            self.tell(Fact::PodTooLarge { pod, most_bytes: MOST_POD_BYTES });
        }
    }

    /// Returns whether it's the agent's.
    pub(super) fn take_node(&mut self, node: Node) -> bool {
        let is_own = node.metadata.name == self.identity.node.as_str();
        if is_own {
            self.node = Some(node);
            self.node_listed = true;
            self.node_suspect = false;
            self.told_missing = false;
        }
        is_own
    }

    /// A list of Nodes is complete.
    fn take_node_list(&mut self) {
        self.node_fresh = true;
        if !self.node_listed {
            self.lose_node();
        }
    }

    /// There is no Node of the agent's name (any more).
    pub(super) fn lose_node(&mut self) {
        self.node = None;
        self.node_listed = false;
        self.node_read_at = None;
        self.node_suspect = false;
        if !std::mem::replace(&mut self.told_missing, true) {
            self.tell(Fact::NoNode(self.identity.node.clone()));
        }
    }

    pub(super) fn take_directives(&mut self, directives: Vec<Directive>, now: Moment) {
        // What is named once more is no news.
        self.directives
            .retain(|known, _| directives.iter().any(|named| named.disruption == *known));
        self.add_directives(directives, now);
    }

    pub(super) fn add_directives(&mut self, directives: Vec<Directive>, now: Moment) {
        // By when, the Node says, which is watched, and read while the watch is broken.
        for Directive { disruption, deadline: _ } in directives {
            if !self.directives.contains_key(&disruption) {
                if self.directives.len() >= MOST_DIRECTIVES {
                    continue;
                }
                // News: the Node is to be read at once, whatever the pace was.
                self.read_node.reset();
            }
            self.directives.insert(disruption, now.steady);
        }
    }

    /// Drops what no leader has repeated for long. A disruption that the Node bears needs no leader's
    /// word: it ends with the Node's marks.
    pub(super) fn forget_directives(&mut self, now: Moment) {
        let borne = self.verified.as_ref();
        self.directives
            .retain(|id, told_at| Some(id) == borne || !now.is_past(*told_at, DIRECTIVE_HOLDS));
    }
}

/// Whether something takes so many bytes as JSON at most.
fn has_bytes(value: &impl serde::Serialize, most: usize) -> bool {
    /// Room that is left.
    struct Room(usize);
    impl std::io::Write for Room {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let left = self.0.checked_sub(bytes.len());
            self.0 = left.ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Room(most), value).is_ok()
}
