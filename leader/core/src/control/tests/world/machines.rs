//! Instances and their kubelets.

use super::*;

impl World {
    /// Instances on their way out go; kubelets of all others register, ready and warmed up.
    pub(in super::super) fn tick(&mut self, boots: bool) {
        let all: Vec<Instance> = self.instances.values().cloned().collect();
        for instance in all {
            match instance.state {
                InstanceState::ShuttingDown => self.end_instance(&instance.instance),
                InstanceState::Running
                    if boots && self.booted.insert(instance.instance.clone()) =>
                {
                    self.register_node(&instance);
                }
                InstanceState::Running if self.warms_up => self.warm_up(&instance),
                _ => {}
            }
        }
        self.schedule();
    }

    fn register_node(&mut self, instance: &Instance) {
        let resources = match instance.instance_type.as_str() {
            "m5.4xlarge" => json!({"cpu": "15800m", "memory": "58Gi", "pods": "234"}),
            _ => json!({"cpu": "1900m", "memory": "6Gi", "pods": "29"}),
        };
        self.put(
            Kind::Node,
            json!({
                "metadata": {
                    "name": instance.private_dns_name,
                    "labels": {
                        "kubernetes.io/hostname": instance.private_dns_name,
                        "kubernetes.io/arch": "amd64",
                        "kubernetes.io/os": "linux",
                        "node.kubernetes.io/instance-type": instance.instance_type,
                        "topology.kubernetes.io/zone": instance.zone,
                    },
                },
                "spec": {
                    "providerID": provider_id(&instance.zone, &instance.instance),
                    "taints": [{"key": labels::UNREGISTERED_TAINT, "effect": "NoExecute"}],
                },
                "status": {
                    "capacity": resources, "allocatable": resources,
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }),
        );
    }

    /// The startup taint's owner removes it once the node is registered.
    fn warm_up(&mut self, instance: &Instance) {
        let name = (Kind::Node, String::new(), instance.private_dns_name.clone());
        let Some(node) = self.objects.get(&name) else { return };
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let left: Vec<&Value> =
            taints.iter().filter(|taint| taint["key"] != "example.com/warming").collect();
        if left.len() != taints.len() {
            let patch = json!({"spec": {"taints": left}});
            self.patch(&name, false, &patch).unwrap();
        }
    }

    fn schedule(&mut self) {
        let milli = |object: &Value, pointer: &str| -> i64 {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .map_or(0, |t| t.trim_end_matches('m').parse().unwrap())
        };
        let request = "/spec/containers/0/resources/requests/cpu";
        let mut room: BTreeMap<String, i64> = BTreeMap::new();
        for node in self.list(Kind::Node) {
            let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            let tainted = taints.iter().any(|taint| taint["effect"] != "PreferNoSchedule");
            let cordoned = node["spec"]["unschedulable"] == true;
            if !tainted && !cordoned {
                let name = node["metadata"]["name"].as_str().unwrap().to_owned();
                room.insert(name, milli(node, "/status/allocatable/cpu"));
            }
        }
        let mut waiting = Vec::new();
        for ((kind, namespace, name), pod) in &self.objects {
            if *kind != Kind::Pod {
                continue;
            }
            match pod["spec"]["nodeName"].as_str() {
                Some(node) => {
                    if let Some(left) = room.get_mut(node) {
                        *left -= milli(pod, request);
                    }
                }
                None => {
                    waiting.push(((*kind, namespace.clone(), name.clone()), milli(pod, request)))
                }
            }
        }
        for (name, wanted) in waiting {
            let place = room.iter_mut().find(|(_, left)| **left >= wanted);
            if let Some((node, left)) = place {
                *left -= wanted;
                let mut pod = self.objects[&name].clone();
                pod["spec"]["nodeName"] = json!(node);
                pod["status"] = json!({
                    "phase": "Running",
                    "conditions": [
                        {"type": "PodScheduled", "status": "True"},
                        {"type": "Ready", "status": "True"},
                    ],
                });
                self.stamp(&name, pod);
            }
        }
    }
}
