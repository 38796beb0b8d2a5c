//! Objects made and removed inside the simulated world, past its HTTP face.

use anyhow::bail;
use drover_common::call::{Call, KubernetesCall, Outcome, Target};
use drover_sandbox::SharedWorld;
use serde_json::Value;

/// Creates an object; returns it as it is stored.
pub(crate) fn create(world: &SharedWorld, target: Target, object: Value) -> anyhow::Result<Value> {
    perform(world, KubernetesCall::Create { target, object })
}

/// Deletes an object.
pub(crate) fn delete(world: &SharedWorld, target: Target) -> anyhow::Result<()> {
    perform(world, KubernetesCall::Delete { target, uid: None, grace_seconds: None }).map(drop)
}

fn perform(world: &SharedWorld, call: KubernetesCall) -> anyhow::Result<Value> {
    let call = Call::Kubernetes(call);
    match world.with(|world, now| world.apply(&call, now)) {
        Outcome::Kubernetes(Ok(object)) => Ok(object),
        other => bail!("the API server answered {other:?}"),
    }
}
