//! What may be done to the cloud by command, and never by a call: notices, shortages, failures.

use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use jiff::{SignedDuration, Timestamp};

use super::Cloud;
use super::doom::Doomed;
use super::instance::{SimulatedInstance, after};
use super::market::CapacityRule;
use super::notice::{MaintenanceEvent, NoticeError, SpotAction, SpotNotice, TargetLifecycleState};

impl Cloud {
    /// Gives a spot instance the notice that it will be terminated after `lead`, as
    /// [`Self::announce`] does. Returns the deadline.
    ///
    /// # Errors
    /// No such live instance, or not a spot instance.
    pub fn interrupt(
        &mut self,
        instance: &InstanceId,
        now: Timestamp,
        lead: SignedDuration,
    ) -> Result<Timestamp, NoticeError> {
        self.announce(instance, SpotAction::Terminate, now, lead).map(|notice| notice.time)
    }

    /// Gives a spot instance its interruption notice: its metadata service says so at once, and EC2
    /// acts after `lead`. A second notice changes nothing. Returns the one in force.
    ///
    /// # Errors
    /// No such live instance, or not a spot instance.
    pub fn announce(
        &mut self,
        instance: &InstanceId,
        action: SpotAction,
        now: Timestamp,
        lead: SignedDuration,
    ) -> Result<SpotNotice, NoticeError> {
        let instance = self.live(instance)?;
        if instance.capacity_type != CapacityType::Spot {
            return Err(NoticeError::NotSpot(instance.id.to_string()));
        }
        // IMDS tells whole seconds.
        let time = after(now, lead);
        let time = Timestamp::from_second(time.as_second()).unwrap_or(time);
        Ok(instance.notices.spot.get_or_insert(SpotNotice { action, time }).clone())
    }

    /// Takes a spot notice back: EC2 lets the instance live.
    ///
    /// # Errors
    /// No such live instance, or no notice.
    pub fn withdraw_interruption(&mut self, instance: &InstanceId) -> Result<(), NoticeError> {
        let taken = self.live(instance)?.notices.spot.take();
        taken.map(drop).ok_or_else(|| no_notice(instance, "spot notice"))
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

    /// Takes a rebalance recommendation back.
    ///
    /// # Errors
    /// No such live instance, or no recommendation.
    pub fn withdraw_rebalance(&mut self, instance: &InstanceId) -> Result<(), NoticeError> {
        let taken = self.live(instance)?.notices.rebalance.take();
        taken.map(drop).ok_or_else(|| no_notice(instance, "rebalance recommendation"))
    }

    /// Schedules maintenance of an instance; an event of the same id is replaced. It is told, and
    /// nothing is done to the instance.
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

    /// Takes a maintenance event back, or all of an instance's, as if there had never been any.
    ///
    /// # Errors
    /// No such live instance, or no such event.
    pub fn withdraw_maintenance(
        &mut self,
        instance: &InstanceId,
        event_id: Option<&str>,
    ) -> Result<(), NoticeError> {
        let events = &mut self.live(instance)?.notices.maintenance;
        let before = events.len();
        events.retain(|event| event_id.is_some_and(|id| event.event_id != id));
        if events.len() < before {
            return Ok(());
        }
        let notice = event_id.map(|id| format!("maintenance event {id}"));
        Err(no_notice(instance, notice.as_deref().unwrap_or("maintenance event")))
    }

    /// Says what an Auto Scaling group is making of an instance, or (`None`) that it is in no group.
    ///
    /// # Errors
    /// No such live instance, or it is in no group already.
    pub fn set_target_lifecycle_state(
        &mut self,
        instance: &InstanceId,
        state: Option<TargetLifecycleState>,
    ) -> Result<(), NoticeError> {
        let old =
            std::mem::replace(&mut self.live(instance)?.notices.target_lifecycle_state, state);
        if old.is_none() && state.is_none() {
            return Err(no_notice(instance, "target lifecycle state"));
        }
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
            .filter(|instance| instance.is_up())
            .ok_or_else(|| NoticeError::NoSuchInstance(instance.to_string()))
    }
}

fn no_notice(instance: &InstanceId, notice: &str) -> NoticeError {
    NoticeError::NoSuchNotice { instance: instance.to_string(), notice: notice.to_owned() }
}
