//! What may be done to the cloud by command, and never by a call: notices, shortages, failures.

use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use jiff::{SignedDuration, Timestamp};

use super::doom::Doomed;
use super::instance::{SimulatedInstance, after};
use super::market::CapacityRule;
use super::notice::{MaintenanceEvent, NoticeError, SpotNotice};
use super::{Cloud, SPOT_TERMINATION};

impl Cloud {
    /// Gives a spot instance its interruption notice: its metadata service says so at once, and it
    /// terminates after `lead`. A second notice changes nothing. Returns the deadline.
    ///
    /// # Errors
    /// No such live instance, or not a spot instance.
    pub fn interrupt(
        &mut self,
        instance: &InstanceId,
        now: Timestamp,
        lead: SignedDuration,
    ) -> Result<Timestamp, NoticeError> {
        let instance = self.live(instance)?;
        if instance.capacity_type != CapacityType::Spot {
            return Err(NoticeError::NotSpot(instance.id.to_string()));
        }
        // IMDS tells whole seconds.
        let deadline = after(now, lead);
        let deadline = Timestamp::from_second(deadline.as_second()).unwrap_or(deadline);
        let notice = instance
            .notices
            .spot
            .get_or_insert(SpotNotice { action: "terminate".to_owned(), time: deadline });
        let deadline = notice.time;
        if instance.ends.is_none_or(|(at, _)| at > deadline) {
            instance.ends = Some((deadline, SPOT_TERMINATION));
        }
        Ok(deadline)
    }

    /// Recommends a rebalance to an instance.
    ///
    /// # Errors
    /// No such live instance.
    pub fn recommend_rebalance(
        &mut self,
        instance: &InstanceId,
        now: Timestamp,
    ) -> Result<(), NoticeError> {
        self.live(instance)?.notices.rebalance.get_or_insert(now);
        Ok(())
    }

    /// Schedules maintenance of an instance; an event of the same id is replaced.
    ///
    /// # Errors
    /// No such live instance.
    pub fn schedule_maintenance(
        &mut self,
        instance: &InstanceId,
        event: MaintenanceEvent,
    ) -> Result<(), NoticeError> {
        let events = &mut self.live(instance)?.notices.maintenance;
        events.retain(|old| old.event_id != event.event_id);
        events.push(event);
        Ok(())
    }

    /// Limits how many more instances of some offerings can be had.
    pub fn limit_capacity(&mut self, rule: CapacityRule) {
        self.market.limit(rule);
    }

    /// The capacity limits in force, newest first.
    pub fn capacity_rules(&self) -> &[CapacityRule] {
        self.market.rules()
    }

    /// The next `count` instances to be launched terminate by themselves, `after` their launch.
    pub fn doom_launches(&mut self, count: u32, after: SignedDuration) {
        self.doomed = Doomed::new(count, after);
    }

    /// Terminates an instance without notice, as a failing host does.
    ///
    /// # Errors
    /// No such live instance.
    pub fn fail_instance(
        &mut self,
        instance: &InstanceId,
        now: Timestamp,
    ) -> Result<(), NoticeError> {
        self.live(instance)?.shut_down("Server.InternalError", now);
        Ok(())
    }

    fn live(&mut self, instance: &InstanceId) -> Result<&mut SimulatedInstance, NoticeError> {
        self.instances
            .get_mut(instance)
            .filter(|instance| !instance.state.is_gone())
            .ok_or_else(|| NoticeError::NoSuchInstance(instance.to_string()))
    }
}
