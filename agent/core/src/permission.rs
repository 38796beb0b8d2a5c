//! What the API server has to let an agent do. What is not granted is better known of before it is needed.

use drover_common::id::NodeName;
use serde_json::{Value, json};

/// One thing that an agent does. Kubernetes grants kubelets' identities all of them, and the shipped manifests the service account; the permission to read
/// a kubelet's metrics is left out, for few agents ask for those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// To read its Node before a drain.
    GetNode,
    /// To see its Node.
    ListNode,
    /// To follow its Node.
    WatchNode,
    /// To cordon its Node.
    PatchNode,
    /// To see the pods on it.
    ListPods,
    /// To follow them.
    WatchPods,
    /// To evict them.
    EvictPods,
    /// To delete those that a budget holds when their time is over.
    DeletePods,
    /// To tell of notices and drains where no leader does.
    CreateEvents,
}

impl Permission {
    /// All of them.
    pub const ALL: [Permission; 9] = [
        Permission::GetNode,
        Permission::ListNode,
        Permission::WatchNode,
        Permission::PatchNode,
        Permission::ListPods,
        Permission::WatchPods,
        Permission::EvictPods,
        Permission::DeletePods,
        Permission::CreateEvents,
    ];

    /// As a rule of a Role would say it.
    pub fn name(self) -> &'static str {
        match self {
            Permission::GetNode => "get nodes",
            Permission::ListNode => "list nodes",
            Permission::WatchNode => "watch nodes",
            Permission::PatchNode => "patch nodes",
            Permission::ListPods => "list pods",
            Permission::WatchPods => "watch pods",
            Permission::EvictPods => "create pods/eviction",
            Permission::DeletePods => "delete pods",
            Permission::CreateEvents => "create events in namespace default",
        }
    }

    /// The `resourceAttributes` of a SelfSubjectAccessReview that asks for it. What a kubelet's identity may list and
    /// watch it may only by its own Node's name.
    pub fn attributes(self, node: &NodeName) -> Value {
        let of_node = |verb: &str| json!({"verb": verb, "resource": "nodes", "name": node});
        let of_pods = |verb: &str| {
            let own = json!({"key": "spec.nodeName", "operator": "In", "values": [node]});
            json!({"verb": verb, "resource": "pods", "fieldSelector": {"requirements": [own]}})
        };
        match self {
            Permission::GetNode => of_node("get"),
            Permission::ListNode => of_node("list"),
            Permission::WatchNode => of_node("watch"),
            Permission::PatchNode => of_node("patch"),
            Permission::ListPods => of_pods("list"),
            Permission::WatchPods => of_pods("watch"),
            Permission::EvictPods => {
                json!({"verb": "create", "resource": "pods", "subresource": "eviction"})
            }
            Permission::DeletePods => json!({"verb": "delete", "resource": "pods"}),
            Permission::CreateEvents => {
                json!({"verb": "create", "resource": "events", "namespace": "default"})
            }
        }
    }
}

/// Several in words.
pub fn names<'a>(permissions: impl IntoIterator<Item = &'a Permission>) -> String {
    permissions.into_iter().map(|one| one.name()).collect::<Vec<_>>().join(", ")
}
