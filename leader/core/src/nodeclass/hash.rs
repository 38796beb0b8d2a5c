//! Static drift: hashes of what a node was made from. They differ from Karpenter's, so they bear
//! a version of their own: where a claim has another version, nothing is concluded from its hash.

use std::fmt::Write as _;

use drover_common::crd::{Ec2NodeClass, NodePool};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The version to write beside a hash.
pub const HASH_VERSION: &str = "drover-v1";
/// Bytes of a hash that are kept.
const HASH_BYTES: usize = 8;

/// The hash of a pool's template. Requirements are left out: a node drifts from those when its
/// labels no longer fulfil them.
pub fn node_pool_hash(pool: &NodePool) -> String {
    let mut template = to_value(&pool.spec.template);
    remove(&mut template, "/spec", &["requirements"]);
    sort_list(&mut template, "/spec/taints");
    sort_list(&mut template, "/spec/startupTaints");
    hash(&template)
}

/// The hash of what a class fixes by itself. Selectors are left out: a node drifts from those when
/// its subnet, security groups or image are no longer among what they resolve to.
pub fn node_class_hash(class: &Ec2NodeClass) -> String {
    let mut spec = to_value(&class.spec);
    let dynamic = [
        "subnetSelectorTerms",
        "securityGroupSelectorTerms",
        "capacityReservationSelectorTerms",
        "amiSelectorTerms",
        "ipPrefixCount",
    ];
    remove(&mut spec, "", &dynamic);
    // The API server writes this default out: it says the same as nothing.
    if class.spec.detailed_monitoring == Some(false) {
        remove(&mut spec, "", &["detailedMonitoring"]);
    }
    if let (Value::Object(map), Some(family)) = (&mut spec, class.spec.family()) {
        map.insert("amiFamily".to_owned(), to_value(&family));
    }
    hash(&spec)
}

fn to_value(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).expect("specs have text keys alone")
}

fn remove(value: &mut Value, pointer: &str, keys: &[&str]) {
    if let Some(Value::Object(map)) = value.pointer_mut(pointer) {
        for key in keys {
            map.remove(*key);
        }
    }
}

/// The order of taints means nothing.
fn sort_list(value: &mut Value, pointer: &str) {
    if let Some(Value::Array(list)) = value.pointer_mut(pointer) {
        list.sort_by_key(Value::to_string);
    }
}

fn hash(value: &Value) -> String {
    // Keys of a JSON map are in order, so equal contents have equal texts.
    let digest = Sha256::digest(value.to_string().as_bytes());
    digest.iter().take(HASH_BYTES).fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
