//! Instances that are stopped and started again: they keep id, address and Node, and boot anew.

use drover_common::ec2::{Ec2Failure, InstanceState};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use jiff::Timestamp;

use super::instance::SimulatedInstance;
use super::notice::NoticeError;
use super::{Cloud, refuse, unknown_instance};

/// EC2's state reason of an instance that somebody stopped.
const STOPPED_BY_USER: &str = "Client.UserInitiatedShutdown";

impl Cloud {
    /// Stops instances, as `StopInstances` does; one that stops already is let be.
    ///
    /// # Errors
    /// One is unknown, a spot instance or on its way out: then none is stopped.
    pub fn stop_instances(
        &mut self,
        instances: &[InstanceId],
        now: Timestamp,
    ) -> Result<(), Ec2Failure> {
        self.check_power(instances, "stopped", |state| !state.is_gone())?;
        for id in instances {
            if let Some(instance) = self.instances.get_mut(id).filter(|it| it.is_up()) {
                instance.stop(STOPPED_BY_USER, now);
            }
        }
        Ok(())
    }

    /// Starts stopped instances, as `StartInstances` does; one that is up already is let be.
    ///
    /// # Errors
    /// One is unknown, a spot instance, still stopping or on its way out: then none is started.
    pub fn start_instances(
        &mut self,
        instances: &[InstanceId],
        now: Timestamp,
    ) -> Result<(), Ec2Failure> {
        let startable = |state: InstanceState| !state.is_gone() && state != InstanceState::Stopping;
        self.check_power(instances, "started", startable)?;
        for id in instances {
            let stopped = |it: &&mut SimulatedInstance| it.state == InstanceState::Stopped;
            if let Some(instance) = self.instances.get_mut(id).filter(stopped) {
                instance.start(now);
            }
        }
        Ok(())
    }

    /// Starts a stopped instance, spot instances too: EC2 itself does so when it has room for one again that it stopped.
    ///
    /// # Errors
    /// There is no such instance, or it is not stopped.
    pub fn resume(&mut self, instance: &InstanceId, now: Timestamp) -> Result<(), NoticeError> {
        let missing = || NoticeError::NoSuchInstance(instance.to_string());
        let instance = self.instances.get_mut(instance).ok_or_else(missing)?;
        if instance.state != InstanceState::Stopped {
            return Err(NoticeError::NotStopped(instance.id.to_string()));
        }
        instance.start(now);
        Ok(())
    }

    /// Fleets of type `instant` make spot requests for one time, whose instances only EC2 stops and starts.
    fn check_power(
        &self,
        instances: &[InstanceId],
        what: &str,
        allows: impl Fn(InstanceState) -> bool,
    ) -> Result<(), Ec2Failure> {
        for id in instances {
            let instance = self.instances.get(id).ok_or_else(|| unknown_instance(id))?;
            if instance.capacity_type == CapacityType::Spot {
                let message = format!(
                    "You can't have the Spot Instance '{id}' {what}: its Spot request is a one-time one"
                );
                return Err(refuse("UnsupportedOperation", message));
            }
            if !allows(instance.state) {
                let message =
                    format!("The instance '{id}' is not in a state in which it can be {what}.");
                return Err(refuse("IncorrectInstanceState", message));
            }
        }
        Ok(())
    }
}
