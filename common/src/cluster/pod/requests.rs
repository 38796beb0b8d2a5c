//! What a pod asks of its node, as the kube-scheduler counts it.

use super::{Container, Pod, ResourceRequirements};
use crate::resources::{ResourceName, Resources, format_amount};

impl Pod {
    /// The room it takes on a node, `pods: 1` included.
    ///
    /// Containers add up; an init container needs its own room beside the sidecars started before
    /// it (Kubernetes KEP-753), and the larger of the two counts. Pod-level resources replace that
    /// (KEP-2837), overhead comes on top. While a container is being resized in place, the largest
    /// of its spec, its allocated and its actual resources counts (KEP-1287), and so for the pod as a
    /// whole (KEP-5419).
    pub fn requests(&self) -> Resources {
        let infeasible = self.status.conditions.iter().any(|condition| {
            condition.kind == "PodResizePending" && condition.reason == "Infeasible"
        });
        let mut running = Resources::new();
        for container in &self.spec.containers {
            running.add(&self.container_requests(container, infeasible));
        }
        let mut sidecars = Resources::new();
        let mut starting = Resources::new();
        for container in &self.spec.init_containers {
            let own = self.container_requests(container, infeasible);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&own);
                starting = starting.maximum(&sidecars);
            } else {
                let mut beside_sidecars = own;
                beside_sidecars.add(&sidecars);
                starting = starting.maximum(&beside_sidecars);
            }
        }
        running.add(&sidecars);
        let mut requests = running.maximum(&starting);
        if let Some(pod_level) = &self.spec.resources {
            replace_by_pod_level(&mut requests, pod_level);
            self.keep_pod_level_resize(&mut requests, pod_level, infeasible);
        }
        requests.add(&self.spec.overhead);
        requests.set(ResourceName::Pods, 1);
        requests
    }

    /// What asks for less than nothing, in words: no API server lets such a pod in.
    pub fn negative_request(&self) -> Option<String> {
        let containers = self.spec.containers.iter().chain(&self.spec.init_containers);
        let mut of_containers = containers.filter_map(|container| {
            let found = negative(&container.resources)?;
            Some(format!("container {} requests {found}", container.name))
        });
        let whole = || negative(self.spec.resources.as_ref()?);
        let overhead = || self.spec.overhead.iter().find(|(_, amount)| *amount < 0);
        of_containers
            .next()
            .or_else(|| Some(format!("the pod as a whole requests {}", whole()?)))
            .or_else(|| Some(format!("its overhead is {}", told(overhead()?))))
    }

    /// What the pod as a whole holds while it is resized. Other names than its spec's are containers' own.
    fn keep_pod_level_resize(
        &self,
        requests: &mut Resources,
        pod_level: &ResourceRequirements,
        resize_infeasible: bool,
    ) {
        let actual = self.status.resources.as_ref().map(|actual| actual.requests.clone());
        let held = self.status.allocated_resources.maximum(&actual.unwrap_or_default());
        for (name, amount) in held.iter().filter(|(name, _)| pod_level.requests.contains(name)) {
            let wanted = if resize_infeasible { 0 } else { requests.get(name) };
            requests.set(name.clone(), amount.max(wanted));
        }
    }

    fn container_requests(&self, container: &Container, resize_infeasible: bool) -> Resources {
        let wanted = effective_requests(&container.resources);
        // Names are unique over both lists.
        let mut statuses =
            self.status.container_statuses.iter().chain(&self.status.init_container_statuses);
        let status = statuses.find(|status| status.name == container.name);
        let Some(status) = status else { return wanted };
        let actual = status.resources.as_ref().map(|actual| &actual.requests);
        let held = actual.map_or_else(
            || status.allocated_resources.clone(),
            |actual| status.allocated_resources.maximum(actual),
        );
        // A resize that can never happen on this node takes no room on it.
        if resize_infeasible && !held.is_empty() { held } else { wanted.maximum(&held) }
    }
}

/// An amount below zero, with limits standing in for requests that are missing.
fn negative(resources: &ResourceRequirements) -> Option<String> {
    let ResourceRequirements { requests, limits } = resources;
    let limits = limits.iter().filter(|(name, _)| !requests.contains(name));
    requests.iter().chain(limits).find(|(_, amount)| *amount < 0).map(told)
}

fn told((name, amount): (&ResourceName, i64)) -> String {
    format!("{} {name}", format_amount(name, amount))
}

/// Requests, with limits standing in for those that are missing.
fn effective_requests(resources: &ResourceRequirements) -> Resources {
    let mut requests = resources.requests.clone();
    for (name, limit) in resources.limits.iter() {
        if !requests.contains(name) {
            requests.set(name.clone(), limit);
        }
    }
    requests
}

/// Pod-level requests win; a pod-level limit stands in only where no container asks for any.
fn replace_by_pod_level(requests: &mut Resources, pod_level: &ResourceRequirements) {
    for (name, amount) in pod_level.requests.iter() {
        requests.set(name.clone(), amount);
    }
    for (name, limit) in pod_level.limits.iter() {
        if !pod_level.requests.contains(name) && !requests.contains(name) {
            requests.set(name.clone(), limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requests(pod: Value) -> Value {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        serde_json::to_value(pod.requests()).unwrap()
    }

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
    }

    fn sidecar(name: &str, cpu: &str) -> Value {
        json!({"name": name, "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn less_than_nothing_is_told_by_who_asks_for_it() {
        let told = |spec: Value| {
            let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
            pod.negative_request()
        };
        let own = json!({"containers": [container("a", "1"), container("b", "-500m")]});
        assert_eq!(told(own).as_deref(), Some("container b requests -500m cpu"));
        let init = json!({"containers": [container("a", "1")], "initContainers": [
            {"name": "i", "resources": {"limits": {"memory": "-1Gi"}}}]});
        assert_eq!(told(init).as_deref(), Some("container i requests -1Gi memory"));
        let whole = json!({"containers": [], "resources": {"requests": {"cpu": "-2"}}});
        assert_eq!(told(whole).as_deref(), Some("the pod as a whole requests -2 cpu"));
        let overhead = json!({"containers": [], "overhead": {"cpu": "-1m"}});
        assert_eq!(told(overhead).as_deref(), Some("its overhead is -1m cpu"));
        assert_eq!(told(json!({"containers": [container("a", "0")]})), None);
    }

    #[test]
    fn containers_add_up_and_limits_stand_in() {
        let pod = json!({"spec": {"containers": [
            container("a", "100m"),
            {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "200m"}}},
        ], "overhead": {"memory": "64Mi"}}});
        assert_eq!(requests(pod), json!({"cpu": "300m", "memory": "1088Mi", "pods": "1"}));
        assert_eq!(requests(json!({})), json!({"pods": "1"}));
    }

    #[test]
    fn init_containers_need_room_beside_earlier_sidecars() {
        let pod = |init: Value| json!({"spec": {"containers": [container("a", "1")], "initContainers": init}});
        for (init, expected) in [
            (json!([container("i", "500m")]), "1"),
            (json!([container("i", "3"), container("j", "2")]), "3"),
            (json!([sidecar("s", "500m")]), "1500m"),
            (json!([sidecar("s", "500m"), container("i", "2")]), "2500m"),
            (json!([container("i", "2"), sidecar("s", "500m")]), "2"),
            (json!([sidecar("s", "1"), sidecar("t", "1"), container("i", "1")]), "3"),
        ] {
            assert_eq!(
                requests(pod(init.clone())),
                json!({"cpu": expected, "pods": "1"}),
                "{init}"
            );
        }
    }

    #[test]
    fn a_resize_of_the_pod_as_a_whole_counts_while_it_lasts() {
        let pod = |conditions: Value| {
            json!({"spec": {"containers": [container("a", "1")], "resources": {"requests": {"cpu": "2"}}},
                "status": {"conditions": conditions, "allocatedResources": {"cpu": "1500m", "memory": "1Gi"},
                    "resources": {"requests": {"cpu": "1"}}}})
        };
        assert_eq!(requests(pod(json!([]))), json!({"cpu": "2", "pods": "1"}));
        let never = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        assert_eq!(requests(pod(never))["cpu"], "1500m");
        let mut shrinking = pod(json!([]));
        shrinking["spec"]["resources"]["requests"]["cpu"] = json!("1");
        assert_eq!(requests(shrinking)["cpu"], "1500m");
    }

    #[test]
    fn pod_level_resources_replace_those_of_containers() {
        let pod = |resources: Value| json!({"spec": {"containers": [container("a", "1")], "resources": resources, "overhead": {"cpu": "100m"}}});
        assert_eq!(requests(pod(json!({"requests": {"cpu": "3"}})))["cpu"], "3100m");
        let limits = requests(pod(json!({"limits": {"cpu": "3", "memory": "2Gi"}})));
        assert_eq!(limits, json!({"cpu": "1100m", "memory": "2Gi", "pods": "1"}));
    }

    #[test]
    fn a_sidecar_is_resized_like_a_container() {
        let pod = json!({
            "spec": {"containers": [container("a", "1")], "initContainers": [sidecar("s", "1")]},
            "status": {"initContainerStatuses": [
                {"name": "s", "resources": {"requests": {"cpu": "3"}}}]},
        });
        assert_eq!(requests(pod), json!({"cpu": "4", "pods": "1"}));
    }

    #[test]
    fn a_resize_counts_the_largest_of_spec_allocated_and_actual() {
        let pod = |conditions: Value| {
            json!({
                "spec": {"containers": [container("a", "4")]},
                "status": {"conditions": conditions, "containerStatuses": [{
                    "name": "a",
                    "allocatedResources": {"cpu": "1"},
                    "resources": {"requests": {"cpu": "2"}},
                }]},
            })
        };
        assert_eq!(requests(pod(json!([])))["cpu"], "4");
        let infeasible =
            json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        assert_eq!(requests(pod(infeasible))["cpu"], "2");
    }
}
