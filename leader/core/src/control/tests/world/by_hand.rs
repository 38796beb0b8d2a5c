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

    /// What a kubelet says of its Node anew.
    pub(in super::super) fn change_status(&mut self, kind: Kind, name: &str, patch: &Value) {
        self.patch(&(kind, String::new(), name.to_owned()), true, patch).unwrap();
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
        self.patch_pod(pod, &json!({"metadata": {"annotations": {key: text}}}));
    }

    pub(in super::super) fn patch_pod(&mut self, pod: &str, patch: &Value) {
        let name = (Kind::Pod, "default".to_owned(), pod.to_owned());
        let mut object = self.objects[&name].clone();
        super::merge(&mut object, patch);
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

    /// What the API server's controller counts of that budget anew.
    pub(in super::super) fn count_budget(&mut self, patch: &Value) {
        let name = (Kind::PodDisruptionBudget, "default".to_owned(), "all".to_owned());
        self.patch(&name, true, patch).unwrap();
    }

    /// A NodeClaim without a pool; `spec` is merged into one that asks for a CPU.
    pub(in super::super) fn add_claim_by_hand(&mut self, name: &str, spec: &Value) {
        let mut claim = json!({
            "metadata": {"name": name, "labels": {"team": "own"}},
            "spec": {
                "requirements": [],
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                "nodeClassRef": {
                    "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default",
                },
            },
        });
        merge(&mut claim["spec"], spec);
        self.put(Kind::NodeClaim, claim);
    }

    /// Another program's finalizer on a NodeClaim.
    pub(in super::super) fn hold(&mut self, claim: &str, finalizer: &str) {
        let name = (Kind::NodeClaim, String::new(), claim.to_owned());
        let patch = json!({"metadata": {"finalizers": [finalizer]}});
        self.patch(&name, false, &patch).unwrap();
    }

    /// Takes every finalizer off a NodeClaim.
    pub(in super::super) fn release(&mut self, claim: &str) {
        let name = (Kind::NodeClaim, String::new(), claim.to_owned());
        self.patch(&name, false, &json!({"metadata": {"finalizers": []}})).unwrap();
    }

    /// Another driver's launch of a claim: its instance and the claim's status.
    pub(in super::super) fn launched_elsewhere(&mut self, claim: &str, id: &str) {
        let id = InstanceId::from(id);
        self.instances.insert(
            id.clone(),
            Instance {
                instance: id.clone(),
                instance_type: "m5.large".to_owned(),
                zone: "us-east-1a".to_owned(),
                state: InstanceState::Running,
                capacity_type: drover_common::instance_type::CapacityType::OnDemand,
                reservation: None,
                image: "ami-1".to_owned(),
                subnet: "subnet-1".to_owned(),
                private_dns_name: format!("{id}.ec2.internal"),
                launch_time: self.now,
                tags: Tags::from([
                    (labels::NODEPOOL.to_owned(), String::new()),
                    (labels::CLUSTER_NAME_TAG.to_owned(), "test".to_owned()),
                    (labels::NODECLAIM_TAG.to_owned(), claim.to_owned()),
                ]),
            },
        );
        let name = (Kind::NodeClaim, String::new(), claim.to_owned());
        let mut object = self.objects[&name].clone();
        object["metadata"]["finalizers"] = json!([labels::TERMINATION_FINALIZER]);
        object["status"] = json!({"providerID": provider_id("us-east-1a", &id)});
        self.stamp(&name, object);
    }

    /// A volume is attached to a Node, for the pod that claims it if one is named.
    pub(in super::super) fn attach_volume(&mut self, volume: &str, node: &str, pod: Option<&str>) {
        self.put(Kind::PersistentVolume, json!({"metadata": {"name": volume}}));
        self.put(
            Kind::VolumeAttachment,
            json!({
                "metadata": {"name": format!("attach-{volume}")},
                "spec": {
                    "attacher": "ebs.csi.aws.com",
                    "nodeName": node,
                    "source": {"persistentVolumeName": volume},
                },
            }),
        );
        let Some(pod) = pod else { return };
        self.put(
            Kind::PersistentVolumeClaim,
            json!({
                "metadata": {"name": volume, "namespace": "default"},
                "spec": {"volumeName": volume},
            }),
        );
        let name = (Kind::Pod, "default".to_owned(), pod.to_owned());
        let mut object = self.objects[&name].clone();
        object["spec"]["volumes"] =
            json!([{"name": "data", "persistentVolumeClaim": {"claimName": volume}}]);
        self.stamp(&name, object);
    }

    /// Gives every NodeClaim a terminationGracePeriod, as its pool would have.
    pub(in super::super) fn set_termination_grace(&mut self, period: &str) {
        let claims: Vec<Name> =
            self.objects.keys().filter(|(kind, ..)| *kind == Kind::NodeClaim).cloned().collect();
        for name in claims {
            let mut claim = self.objects[&name].clone();
            claim["spec"]["terminationGracePeriod"] = json!(period);
            self.stamp(&name, claim);
        }
    }

    /// Lets a pod tolerate everything.
    pub(in super::super) fn tolerate_all(&mut self, pod: &str) {
        let name = (Kind::Pod, "default".to_owned(), pod.to_owned());
        let mut object = self.objects[&name].clone();
        object["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        self.stamp(&name, object);
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
