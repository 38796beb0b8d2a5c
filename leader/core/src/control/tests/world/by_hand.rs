//! What people and other programs do to the world.

use super::*;

impl World {
    /// Binds a pod past all taints, as a scheduler does that has not seen them yet.
    pub(in super::super) fn bind(&mut self, pod: &str, node: &str) {
        let name = (Kind::Pod, "default".to_owned(), pod.to_owned());
        let mut object = self.objects[&name].clone();
        object["spec"]["nodeName"] = json!(node);
        object["status"] = json!({"phase": "Running"});
        self.stamp(&name, object);
    }

    /// A user's patch of an object.
    pub(in super::super) fn change(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) {
        self.patch(&(kind, namespace.to_owned(), name.to_owned()), false, patch).unwrap();
    }

    /// A user's deletion of an object in a namespace.
    pub(in super::super) fn delete_object(&mut self, kind: Kind, namespace: &str, name: &str) {
        self.delete(&(kind, namespace.to_owned(), name.to_owned()));
    }

    /// Makes the n-th Node Ready or not.
    pub(in super::super) fn set_ready(&mut self, position: usize, ready: bool) {
        let nodes: Vec<Name> =
            self.objects.keys().filter(|(kind, ..)| *kind == Kind::Node).cloned().collect();
        let mut node = self.objects[&nodes[position]].clone();
        let status = if ready { "True" } else { "False" };
        node["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        self.stamp(&nodes[position], node);
    }

    /// Changes the pool's disruption settings.
    pub(in super::super) fn set_disruption(&mut self, disruption: Value) {
        let name = (Kind::NodePool, String::new(), "general".to_owned());
        let mut object = self.objects[&name].clone();
        object["spec"]["disruption"] = disruption;
        self.stamp(&name, object);
    }

    /// Marks a pod with an annotation.
    pub(in super::super) fn annotate_pod(&mut self, pod: &str, key: &str, text: &str) {
        let name = (Kind::Pod, "default".to_owned(), pod.to_owned());
        let mut object = self.objects[&name].clone();
        object["metadata"]["annotations"][key] = json!(text);
        self.stamp(&name, object);
    }

    /// A PodDisruptionBudget over all pods of the namespace.
    pub(in super::super) fn budget_pods(&mut self, allowed: i32) {
        self.put(
            Kind::PodDisruptionBudget,
            json!({
                "metadata": {"name": "all", "namespace": "default"},
                "spec": {"selector": {}},
                "status": {"disruptionsAllowed": allowed},
            }),
        );
    }

    /// A NodeClaim without a pool.
    pub(in super::super) fn add_claim_by_hand(&mut self, name: &str) {
        self.put(
            Kind::NodeClaim,
            json!({
                "metadata": {"name": name},
                "spec": {"requirements": [], "nodeClassRef": {
                    "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default",
                }},
            }),
        );
    }

    /// Another tool takes the lease.
    pub(in super::super) fn seize_lease(&mut self, holder: &str) {
        let name = (Kind::Lease, "kube-system".to_owned(), "karpenter-leader-election".to_owned());
        let mut lease = self.objects[&name].clone();
        lease["spec"]["holderIdentity"] = json!(holder);
        lease["spec"]["renewTime"] = json!(self.now);
        self.stamp(&name, lease);
    }
}
