//! EC2NodeClasses and a leader's flags.

use serde_json::{Value, json};

use super::{catalog_of_two, cluster, dump_of, pod, pool};
use crate::offline::{InstanceTypes, NodeFlags};

fn class(terms: Value) -> Value {
    json!({"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {"name": "default"},
        "spec": {"amiSelectorTerms": [{"alias": "al2023@latest"}], "role": "r",
            "subnetSelectorTerms": [{"id": "subnet-1"}],
            "securityGroupSelectorTerms": [{"id": "sg-1"}],
            "capacityReservationSelectorTerms": terms}})
}

#[test]
fn reserved_capacity_that_is_left_out_is_told_of() {
    let terms = json!([{"id": "cr-0123"}]);
    let resolved = |reservations: Value| {
        let mut class = class(terms.clone());
        class["status"] = json!({"capacityReservations": reservations});
        class
    };
    let one = json!([{"id": "cr-0123", "availabilityZone": "us-east-1a",
        "instanceType": "x.large", "ownerID": "1", "instanceMatchCriteria": "targeted"}]);
    let told = "EC2NodeClass default selects capacity reservations, and does not tell what room they have: \
                reserved capacity is left out, which a leader would use first";
    let warnings =
        |class: &Value| cluster(&[pool("default"), class.clone(), pod("a", "1")]).warnings;
    assert_eq!(warnings(&resolved(one.clone())), [told]);
    assert_eq!(warnings(&class(terms.clone())), [told]);
    for silent in [class(json!([])), resolved(json!([]))] {
        assert_eq!(warnings(&silent), Vec::<String>::new());
    }
    // A leader whose gate is closed uses none.
    let closed = NodeFlags { reserved_capacity: false, ..NodeFlags::default() };
    let dump = dump_of(&[pool("default"), resolved(one)]);
    let cluster = dump.into_cluster(&catalog_of_two(), &closed, None);
    assert_eq!(cluster.warnings, Vec::<String>::new());
}

#[test]
fn nodes_are_like_a_leaders_with_the_same_flags() {
    let of_m5 = |objects: &[Value], flags: &NodeFlags| {
        let cluster = dump_of(objects).into_cluster(&InstanceTypes::built_in(), flags, None);
        let kinds = &cluster.catalogs["default"].instance_types;
        kinds.iter().find(|kind| kind.name == "m5.large").unwrap().capacity.clone()
    };
    let other =
        NodeFlags { vm_memory_overhead_ppm: 200_000, reserved_enis: 1, ..NodeFlags::default() };
    for objects in [vec![pool("default")], vec![pool("default"), class(json!([]))]] {
        let (usual, other) = (of_m5(&objects, &NodeFlags::default()), of_m5(&objects, &other));
        let (memory, pods) = ("memory".into(), "pods".into());
        assert_eq!((usual.get(&pods), other.get(&pods)), (29, 20));
        assert_eq!(usual.get(&memory) >> 20, 7577);
        assert_eq!(other.get(&memory) >> 20, 8192 * 8 / 10);
    }
}
