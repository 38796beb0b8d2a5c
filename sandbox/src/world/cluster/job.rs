//! Jobs: pods until enough of them have succeeded.

use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use serde_json::Value;

use super::{Turn, replica_set, template};
use crate::world::object;
use crate::world::resource::{JOBS, PODS};
use crate::world::store::WriteOptions;

/// Failed pods after which a Job gives up, if it does not say.
const BACKOFF_LIMIT: i64 = 6;

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(job) = turn.store.get(&JOBS, key).cloned() else { return };
    if object::is_deleting(&job) || is_over(&job) {
        return;
    }
    let count = |turn: &Turn<'_>, phase: &str| {
        let pods = turn.index.controlled_pods(object::uid(&job));
        let held = pods.iter().filter(|entry| match phase {
            "" => template::is_active(&entry.pod),
            phase => entry.pod.status.phase == phase,
        });
        i64::try_from(held.count()).unwrap_or(i64::MAX)
    };
    let (active, succeeded, failed) =
        (count(turn, ""), count(turn, "Succeeded"), count(turn, "Failed"));
    let parallelism = object::integer(&job, "/spec/parallelism").unwrap_or(1).max(0);
    let completions = object::integer(&job, "/spec/completions");
    let done = match completions {
        Some(completions) => succeeded >= completions,
        // A work queue is done when one pod has succeeded and none is left.
        None => succeeded > 0 && active == 0,
    };
    let limit = object::integer(&job, "/spec/backoffLimit").unwrap_or(BACKOFF_LIMIT);
    let given_up = failed > limit;
    let suspended = object::flag(&job, "/spec/suspend");
    let wanted = match completions {
        _ if done || given_up || suspended => 0,
        Some(completions) => parallelism.min(completions.saturating_sub(succeeded)),
        None if succeeded > 0 => active,
        None => parallelism,
    };
    if active < wanted {
        create(turn, &job, key, wanted - active);
    } else {
        let surplus = usize::try_from(active - wanted).unwrap_or(0);
        let pods = turn.index.controlled_pods(object::uid(&job));
        for entry in pods.iter().filter(|entry| template::is_active(&entry.pod)).take(surplus) {
            replica_set::delete(turn, &entry.pod);
        }
    }
    turn.index.absorb(turn.store);
    let active = count(turn, "");
    write_status(turn, &job, key, [active, succeeded, failed], done, given_up);
}

fn is_over(job: &Value) -> bool {
    ["Complete", "Failed"].iter().any(|kind| object::condition(job, kind) == "True")
}

fn create(turn: &mut Turn<'_>, job: &Arc<Value>, key: &ObjectKey, count: i64) {
    for _ in 0..count {
        let mut pod = template::pod(job, job.pointer("/spec/template").unwrap_or(&Value::Null));
        object::set(&mut pod, &["metadata", "generateName"], format!("{}-", key.name));
        for (label, value) in [
            ("job-name", key.name.as_str()),
            ("batch.kubernetes.io/job-name", key.name.as_str()),
            ("controller-uid", object::uid(job)),
            ("batch.kubernetes.io/controller-uid", object::uid(job)),
        ] {
            object::set(&mut pod, &["metadata", "labels", label], value);
        }
        let created = turn.store.create(&PODS, pod, &WriteOptions::default(), turn.now);
        if turn.written(created, &JOBS, key).is_none() {
            return;
        }
    }
}

fn write_status(
    turn: &mut Turn<'_>,
    job: &Arc<Value>,
    key: &ObjectKey,
    [active, succeeded, failed]: [i64; 3],
    done: bool,
    given_up: bool,
) {
    let mut changed = Value::clone(job);
    let status = object::entry(&mut changed, "status");
    template::set_counts(
        status,
        &[],
        &[("active", active), ("ready", 0), ("succeeded", succeeded), ("failed", failed)],
    );
    object::set_default(status, &["startTime"], object::seconds(turn.now));
    if done {
        object::set(status, &["completionTime"], object::seconds(turn.now));
        let reason = "CompletionsReached";
        object::set_condition(&mut changed, "SuccessCriteriaMet", "True", reason, "", turn.now);
        object::set_condition(&mut changed, "Complete", "True", reason, "", turn.now);
    } else if given_up {
        let message = "Job has reached the specified backoff limit";
        let reason = "BackoffLimitExceeded";
        object::set_condition(&mut changed, "Failed", "True", reason, message, turn.now);
    }
    let status = changed.get("status").cloned().unwrap_or_default();
    if template::differs(job, &status) {
        let written = turn.store.update_status(&JOBS, key, turn.now, |own| *own = status);
        turn.written(written, &JOBS, key);
    }
}
