//! The cluster as the tour sees it: lists over the Kubernetes API, folded to the figures it tells.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use drover_common::call::Kind;
use drover_common::cluster::{Node, Pod};
use drover_common::crd::NodeClaim;
use drover_common::labels;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;

/// A client of the cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: kube::Client,
}

/// Pods, nodes and claims at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) pods: Vec<Pod>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) claims: Vec<NodeClaim>,
}

impl Cluster {
    /// Connects with the kubeconfig at `path`.
    pub(crate) async fn connect(path: &Path) -> anyhow::Result<Self> {
        let client = drover_kubernetes::connect(Some(path), None).await.context("kubeconfig")?;
        Ok(Self { client })
    }

    /// The client.
    pub(crate) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Reads everything the tour looks at.
    pub(crate) async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let (pods, nodes, claims) = tokio::try_join!(
            self.list(Kind::Pod),
            self.list(Kind::Node),
            self.list(Kind::NodeClaim)
        )?;
        Ok(Snapshot { pods, nodes, claims })
    }

    /// Sets a Deployment's replicas, as `kubectl scale` does.
    pub(crate) async fn scale(&self, name: &str, replicas: u32) -> anyhow::Result<()> {
        let resource = ApiResource {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            plural: "deployments".to_owned(),
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), "default", &resource);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        api.patch_scale(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("cannot scale deployment {name}"))?;
        Ok(())
    }

    async fn list<T: DeserializeOwned>(&self, kind: Kind) -> anyhow::Result<Vec<T>> {
        let endpoint = kind.endpoint();
        let resource = ApiResource {
            group: endpoint.group.to_owned(),
            version: endpoint.version.to_owned(),
            api_version: kind.api_version(),
            kind: endpoint.kind.to_owned(),
            plural: endpoint.plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let list = api
            .list(&ListParams::default())
            .await
            .with_context(|| format!("cannot list {}", endpoint.plural))?;
        list.items
            .into_iter()
            .map(|object| {
                let value = serde_json::to_value(object)?;
                serde_json::from_value(value).with_context(|| format!("unreadable {kind:?}"))
            })
            .collect()
    }
}

impl Snapshot {
    /// Pods of workloads (not of DaemonSets) that are neither finished nor leaving.
    pub(crate) fn workload(&self) -> impl Iterator<Item = &Pod> {
        self.pods
            .iter()
            .filter(|pod| !pod.is_node_bound() && !pod.is_terminal() && !pod.is_terminating())
    }

    /// Workload pods that are leaving.
    pub(crate) fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| !pod.is_node_bound() && pod.is_terminating()).count()
    }

    /// How many workload pods there are, and how many of them are ready.
    pub(crate) fn readiness(&self) -> (usize, usize) {
        let total = self.workload().count();
        (total, self.workload().filter(|pod| pod.is_ready()).count())
    }

    /// Workload pods with the label `app`.
    pub(crate) fn app(&self, name: &str) -> impl Iterator<Item = &Pod> {
        let name = name.to_owned();
        self.workload().filter(move |pod| pod.metadata.labels.get("app") == Some(&name))
    }

    /// Nodes that a NodePool owns.
    pub(crate) fn managed_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.metadata.labels.contains_key(labels::NODEPOOL))
    }

    /// The node's pods that a drain would move.
    pub(crate) fn movable_on(&self, node: &str) -> usize {
        self.pods
            .iter()
            .filter(|pod| pod.spec.node_name == node && !pod.is_node_bound() && !pod.is_terminal())
            .count()
    }

    /// Seconds from creation to readiness, of every workload pod that is ready.
    pub(crate) fn seconds_to_ready(&self) -> Vec<f64> {
        let mut seconds: Vec<f64> = self
            .workload()
            .filter(|pod| pod.is_ready())
            .filter_map(|pod| {
                let ready = pod.status.conditions.iter().find(|c| c.kind == "Ready")?;
                let waited =
                    ready.last_transition_time?.duration_since(pod.metadata.creation_timestamp?);
                Some(waited.as_secs_f64())
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    /// Managed nodes counted by type and capacity type, e.g. `2 × m5.xlarge (spot)`.
    pub(crate) fn fleet(&self) -> String {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for node in self.managed_nodes() {
            let label = |key: &str| node.metadata.labels.get(key).cloned().unwrap_or_default();
            *counts
                .entry((label(labels::INSTANCE_TYPE), label(labels::CAPACITY_TYPE)))
                .or_default() += 1;
        }
        let parts: Vec<String> = counts
            .into_iter()
            .map(|((instance_type, capacity), count)| {
                format!("{count} × {instance_type} ({capacity})")
            })
            .collect();
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    }
}
