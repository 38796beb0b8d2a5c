//! Which calls a drain may make at all.

use drover_common::call::KubernetesCall;
use drover_common::drain::DrainKey;

use super::plan::PodPlan;
use super::story::Grounds;

/// What the world knows of the pod that is to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) pod: &'a PodPlan,
    /// Whether it was made to leave before.
    pub(super) is_leaving: bool,
    /// Whether pods that aren't critical are, as far as the watch has told, still to leave.
    pub(super) others_remain: bool,
    pub(super) now: i64,
}

/// Whether a call may be made: `possible` is what the agent may have for true.
pub(super) fn judge(
    key: &DrainKey,
    call: &KubernetesCall,
    scene: &Scene<'_>,
    possible: &[Grounds],
) -> Result<(), String> {
    let objections: Vec<&str> =
        possible.iter().filter_map(|grounds| object(key, call, scene, grounds).err()).collect();
    if objections.len() < possible.len() {
        return Ok(());
    }
    Err(format!("{call:?} at {} ms: {objections:?}; {scene:?}; {possible:?}", scene.now))
}

fn object(
    key: &DrainKey,
    call: &KubernetesCall,
    scene: &Scene<'_>,
    grounds: &Grounds,
) -> Result<(), &'static str> {
    let Scene { pod, is_leaving, others_remain, now } = *scene;
    let law = |holds: bool, words| if holds { Ok(()) } else { Err(words) };
    law(pod.stays.is_none(), "it has to stay")?;
    law(grounds.is_any(), "there is no reason")?;
    let end = grounds.budgets_end();
    let left = end.map(|end| ((end - now) / 1000).max(1));
    match call {
        KubernetesCall::Evict { uid, grace_seconds, .. } => {
            law(*uid == key.uid, "another pod may bear the name")?;
            if let Some(grace) = grace_seconds.map(i64::from) {
                law(left == Some(grace), "not the grace that is left")?;
                law(grace < pod.grace, "its own grace fits in")?;
            }
            if !grounds.may_press(pod, now) {
                law(!pod.is_shy(now), "it asks not to be disrupted")?;
                law(!pod.critical || !others_remain, "others may need it")?;
            }
            Ok(())
        }
        KubernetesCall::Delete { uid, grace_seconds, .. } => {
            law(uid.as_ref() == Some(&key.uid), "another pod may bear the name")?;
            let (Some(end), Some(left)) = (end, left) else {
                return Err("nothing passes budgets");
            };
            law(is_leaving || now >= pod.last_moment(end), "too early to pass budgets")?;
            let due = left.min(pod.grace.max(1));
            law(grace_seconds.map(i64::from) == Some(due), "not the grace that is left")
        }
        _ => Err("no drain does that"),
    }
}
