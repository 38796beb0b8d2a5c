//! The eviction subresource: disruption budgets are checked and charged, then the pod is deleted.

use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use jiff::Timestamp;
use serde_json::Value;

use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::{POD_DISRUPTION_BUDGETS, PODS, Resource};
use crate::world::store::selector::Selector;
use crate::world::store::{DeleteOptions, Deleted, Store};

/// Kubernetes' limit of evictions that a budget's status may hold before its controller saw them.
const MOST_DISRUPTED_PODS: usize = 2000;

/// Evicts a pod.
///
/// # Errors
/// 403 for a budget whose status can't be right, 404, 409 for preconditions, 429 with cause DisruptionBudget, 500 for
/// overlapping budgets.
pub fn evict(
    store: &mut Store,
    key: &ObjectKey,
    options: &DeleteOptions,
    now: Timestamp,
) -> ApiResult<Deleted> {
    let pod = Arc::clone(store.require(&PODS, key)?);
    let settled =
        matches!(object::text(&pod, "/status/phase"), "Succeeded" | "Failed" | "Pending" | "")
            || object::is_deleting(&pod);
    if settled {
        return store.delete(&PODS, key, options, now);
    }
    // Preconditions come before the budget, so that nothing is charged for the wrong pod.
    let trial = DeleteOptions { dry_run: true, ..options.clone() };
    store.delete(&PODS, key, &trial, now)?;
    let budgets = covering_budgets(store, &pod);
    if budgets.len() > 1 {
        return Err(ApiFailure::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    if let Some(budget) = budgets.first() {
        charge(store, budget, &pod, options.dry_run, now)?;
    }
    store.delete(&PODS, key, options, now)
}

fn covering_budgets(store: &Store, pod: &Value) -> Vec<Arc<Value>> {
    store
        .iter_namespace(&POD_DISRUPTION_BUDGETS, object::namespace(pod))
        .filter(|(_, budget)| {
            Selector::from_label_selector(budget.pointer("/spec/selector"))
                .is_some_and(|selector| selector.matches(pod))
        })
        .map(|(_, budget)| Arc::clone(budget))
        .collect()
}

/// 403 about the budget, not the pod, which an API server calls by its kind.
fn stuck(budget: &str, detail: &str) -> Box<ApiFailure> {
    ApiFailure::forbidden(&Resource::named("policy", "poddisruptionbudget"), budget, detail)
}

/// Takes one allowed disruption from a budget, unless the pod is not healthy and may go anyway.
fn charge(
    store: &mut Store,
    budget: &Value,
    pod: &Value,
    dry_run: bool,
    now: Timestamp,
) -> ApiResult<()> {
    let name = object::name(budget);
    let number = |pointer: &str| object::integer(budget, pointer).unwrap_or(0);
    let (healthy, desired) = (number("/status/currentHealthy"), number("/status/desiredHealthy"));
    let ready = object::condition(pod, "Ready") == "True";
    if !ready {
        let always = object::text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return Ok(());
        }
    }
    if number("/status/observedGeneration") < number("/metadata/generation") {
        let mut failure = ApiFailure::disruption_budget(format!(
            "The disruption budget {name} is still being processed by the server."
        ));
        failure.retry_after_seconds = Some(10);
        return Err(failure);
    }
    let allowed = number("/status/disruptionsAllowed");
    let disrupted = budget
        .pointer("/status/disruptedPods")
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len);
    // No wait for a replacement mends these two: its controller has to.
    if allowed < 0 {
        return Err(stuck(name, "disruptionsAllowed is negative"));
    }
    if disrupted > MOST_DISRUPTED_PODS {
        return Err(stuck(name, "disruptedPods holds too many evictions unseen by its controller"));
    }
    if allowed == 0 {
        return Err(ApiFailure::disruption_budget(format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        )));
    }
    if dry_run {
        return Ok(());
    }
    let pod_name = object::name(pod).to_owned();
    store.update_status(&POD_DISRUPTION_BUDGETS, &object::key(budget), now, |status| {
        object::set(status, &["disruptionsAllowed"], allowed - 1);
        object::set(status, &["disruptedPods", &pod_name], object::seconds(now));
    })?;
    Ok(())
}
