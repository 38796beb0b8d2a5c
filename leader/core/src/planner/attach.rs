//! Volumes that CSI drivers can attach: each driver's limit is one more resource of a node, so that
//! every way of placing pods minds it.
//!
//! What a node's driver reports (CSINode) holds for it. A node that is yet to come is taken to be
//! like those of its type that are there, or where none is, like the least of any type; where no node
//! reports, nothing limits it.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{ObjectKey, VolumeSpec};
use drover_common::id::NodeName;
use drover_common::labels;
use drover_common::resources::{ResourceName, Resources};

use super::dimension::{Amounts, Dimensions};
use crate::view::{PodShape, ShapeVolume, View};

/// What Kubernetes calls the attachments of a driver where it counts them as a resource.
const PREFIX: &str = "attachable-volumes-csi-";
/// What attaches EBS volumes, those of the in-tree plugin, too.
const EBS_DRIVER: &str = "ebs.csi.aws.com";
/// Room where nothing is known to limit.
const UNLIMITED: i64 = i64::MAX / 4;

/// Limits by driver.
type ByDriver = BTreeMap<String, i64>;

/// The attach limits of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct AttachLimits {
    by_node: BTreeMap<NodeName, ByDriver>,
    by_type: BTreeMap<String, ByDriver>,
    /// The least that any type has.
    least: ByDriver,
    drivers: BTreeSet<String>,
}

/// The driver behind a resource name of attachments.
pub(super) fn driver_of(name: &ResourceName) -> Option<&str> {
    name.as_str().strip_prefix(PREFIX)
}

/// Requests without attachments, which are no resource of a NodeClaim.
pub(super) fn without_attachments(requests: &Resources) -> Resources {
    let own = requests.iter().filter(|(name, _)| driver_of(name).is_none());
    own.map(|(name, amount)| (name.clone(), amount)).collect()
}

impl AttachLimits {
    pub(super) fn of(view: &View) -> Self {
        let mut limits = Self::default();
        for (name, object) in view.csi_nodes() {
            let reported: ByDriver = object
                .spec
                .drivers
                .iter()
                .filter_map(|driver| {
                    let count = driver.allocatable.as_ref()?.count?;
                    Some((driver.name.clone(), i64::from(count)))
                })
                .collect();
            limits.drivers.extend(reported.keys().cloned());
            let node = view.nodes().get(name);
            if let Some(kind) = node.and_then(|n| n.metadata.labels.get(labels::INSTANCE_TYPE)) {
                let of_type = limits.by_type.entry(kind.clone()).or_default();
                for (driver, count) in &reported {
                    for known in [&mut *of_type, &mut limits.least] {
                        let least = known.entry(driver.clone()).or_insert(*count);
                        *least = (*least).min(*count);
                    }
                }
            }
            limits.by_node.insert(name.clone(), reported);
        }
        limits
    }

    /// What a pod asks of the drivers that are limited somewhere. A volume that pods share counts
    /// for each of them.
    pub(super) fn requests(&self, view: &View, pod: &ObjectKey, shape: &PodShape) -> Resources {
        let mut requests = Resources::new();
        if self.drivers.is_empty() {
            return requests;
        }
        for volume in &shape.volumes {
            let (_, driver) = claim_and_driver(view, pod, volume);
            if let Some(driver) = driver.filter(|driver| self.drivers.contains(driver)) {
                add_one(&mut requests, &driver);
            }
        }
        requests
    }

    /// Sets the room for attachments on a node.
    pub(super) fn set_node_room(&self, name: &NodeName, names: &Dimensions, room: &mut Amounts) {
        set_room(self.by_node.get(name), names, room);
    }

    /// The same for a node that has just joined: until its drivers report it is like others of its type.
    pub(super) fn set_joined_room(&self, name: &NodeName, names: &Dimensions, room: &mut Amounts) {
        if self.by_node.contains_key(name) {
            self.set_node_room(name, names, room);
        }
    }

    /// Sets the room for attachments on a node to come.
    pub(super) fn set_type_room(&self, kind: Option<&str>, names: &Dimensions, room: &mut Amounts) {
        let known = kind.and_then(|kind| self.by_type.get(kind));
        set_room(Some(known.unwrap_or(&self.least)), names, room);
    }

    /// Volumes attached to a node, or about to be for the pods bound to it; each once.
    pub(super) fn used_on(&self, view: &View, node: &NodeName) -> Resources {
        let mut volumes: BTreeSet<(String, String)> = BTreeSet::new();
        if self.drivers.is_empty() {
            return Resources::new();
        }
        for pod in view.pods_on(node).filter(|pod| !pod.is_terminal()) {
            let key = ObjectKey::from(&pod.metadata);
            for volume in PodShape::of(pod).volumes {
                if let (claim, Some(driver)) = claim_and_driver(view, &key, &volume) {
                    volumes.insert((driver, claim));
                }
            }
        }
        for attachment in view.attachments().values() {
            let spec = &attachment.spec;
            if spec.node_name == node.as_str()
                && let Some(volume) = &spec.source.persistent_volume_name
            {
                volumes.insert((spec.attacher.clone(), volume.clone()));
            }
        }
        let mut used = Resources::new();
        for (driver, _) in volumes {
            add_one(&mut used, &driver);
        }
        used
    }
}

fn set_room(limits: Option<&ByDriver>, names: &Dimensions, room: &mut Amounts) {
    for (name, room) in names.names().iter().zip(room) {
        if let Some(driver) = driver_of(name) {
            let limit = limits.and_then(|limits| limits.get(driver));
            *room = limit.copied().unwrap_or(UNLIMITED);
        }
    }
}

fn add_one(amounts: &mut Resources, driver: &str) {
    let name = ResourceName::from(format!("{PREFIX}{driver}").as_str());
    let one: Resources = [(name, 1)].into_iter().collect();
    amounts.add(&one);
}

/// What names a pod's volume (the bound volume, or its claim), and the driver that attaches it.
fn claim_and_driver(
    view: &View,
    pod: &ObjectKey,
    volume: &ShapeVolume,
) -> (String, Option<String>) {
    let (name, class) = match volume {
        ShapeVolume::Claim(name) => (name.clone(), None),
        ShapeVolume::Ephemeral { volume, class } => {
            (format!("{}-{volume}", pod.name), class.clone())
        }
    };
    let key = ObjectKey::new(pod.namespace.clone(), name);
    let claim = view.volume_claims().get(&key);
    if let Some(bound) = claim.filter(|claim| !claim.spec.volume_name.is_empty()) {
        let name = bound.spec.volume_name.clone();
        let driver = view.volumes().get(&name).and_then(|volume| driver_of_volume(&volume.spec));
        return (name, driver.map(str::to_owned));
    }
    let class = claim.and_then(|claim| claim.spec.storage_class_name.clone()).or(class);
    let class = super::volume::class_of(view, class.as_deref());
    (key.to_string(), class.map(|class| driver_name(&class.provisioner).to_owned()))
}

/// What attaches a volume that is there.
fn driver_of_volume(spec: &VolumeSpec) -> Option<&str> {
    let in_tree = spec.aws_elastic_block_store.as_ref().map(|_| EBS_DRIVER);
    spec.csi.as_ref().map(|csi| csi.driver.as_str()).or(in_tree)
}

/// The in-tree EBS plugin is carried out by the CSI driver.
fn driver_name(provisioner: &str) -> &str {
    if provisioner == "kubernetes.io/aws-ebs" { EBS_DRIVER } else { provisioner }
}
