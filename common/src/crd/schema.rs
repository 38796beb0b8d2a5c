//! Schemas that no derive can express, and the final touch on generated definitions.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::labels::aws_labels;

/// Label keys: an optional DNS prefix and a name.
pub(super) const LABEL_KEY_PATTERN: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(\/))?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";

/// Label values.
pub(super) const LABEL_VALUE_PATTERN: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// The longest key of a label: a prefix of 253, a slash, a name of 63, less one.
const LABEL_KEY_LENGTH: u32 = 316;

/// The longest value of a label.
const LABEL_VALUE_LENGTH: u32 = 63;

/// `x-kubernetes-validations` of rules and their messages.
pub(super) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// An RFC 3339 time.
pub(super) fn timestamp(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Which keys of Karpenter's own domains users may name, as CEL over a key. The first list is for
/// keys that are labels of a template or requirements of a pool.
fn key_rules(subject: &str, core: &str) -> Vec<Value> {
    let aws: Vec<String> = aws_labels().iter().map(|key| format!("'{key}'")).collect();
    let aws = aws.join(", ");
    [
        (
            format!("{subject} in [{core}] || !{subject}.matches('^[^/]*karpenter\\\\.sh(/|$)')"),
            "the label domain karpenter.sh is restricted",
        ),
        (
            format!(
                "{subject} in [{aws}] || !{subject}.matches('^[^/]*karpenter\\\\.k8s\\\\.aws(/|$)')"
            ),
            "the label domain karpenter.k8s.aws is restricted",
        ),
        (
            format!("{subject} != 'kubernetes.io/hostname'"),
            "the label kubernetes.io/hostname is restricted",
        ),
    ]
    .into_iter()
    .map(|(rule, message)| json!({"rule": rule, "message": message}))
    .collect()
}

/// The labels of a NodePool's template.
pub(super) fn template_labels(_: &mut SchemaGenerator) -> Schema {
    let mut validations: Vec<Value> = key_rules("x", "'karpenter.sh/capacity-type'")
        .into_iter()
        .map(|rule| {
            let text = rule["rule"].as_str().unwrap_or_default();
            json!({"rule": format!("self.all(x, {text})"), "message": rule["message"]})
        })
        .collect();
    validations.insert(
        0,
        json!({
            "rule": "self.all(x, x != 'karpenter.sh/nodepool')",
            "message": "the label karpenter.sh/nodepool is restricted",
        }),
    );
    json_schema!({
        "type": "object",
        "maxProperties": 100,
        "additionalProperties": {
            "type": "string",
            "maxLength": LABEL_VALUE_LENGTH,
            "pattern": LABEL_VALUE_PATTERN,
        },
        "x-kubernetes-validations": validations,
    })
}

/// Requirements of a NodePool's template.
pub(super) fn pool_requirements(_: &mut SchemaGenerator) -> Schema {
    let mut keys = key_rules("self", "'karpenter.sh/capacity-type'");
    keys.push(json!({
        "rule": "self != 'karpenter.sh/nodepool'",
        "message": "the label karpenter.sh/nodepool is restricted",
    }));
    requirement_list(keys)
}

/// Requirements of a NodeClaim.
pub(super) fn claim_requirements(_: &mut SchemaGenerator) -> Schema {
    requirement_list(key_rules("self", "'karpenter.sh/capacity-type', 'karpenter.sh/nodepool'"))
}

/// Requirements of a NodeOverlay: of any label, without `minValues`.
pub(super) fn overlay_requirements(_: &mut SchemaGenerator) -> Schema {
    let mut schema = requirement_list(Vec::new());
    if let Some(items) = schema.pointer_mut("/items/properties").and_then(Value::as_object_mut) {
        items.remove("minValues");
    }
    schema.insert(
        "x-kubernetes-validations".to_owned(),
        rules(&[
            (
                "self.all(x, x.operator == 'In' ? has(x.values) && x.values.size() >= 1 : true)",
                "the operator In needs a value",
            ),
            (
                "self.all(x, x.operator in ['Gt', 'Lt', 'Gte', 'Lte'] ? has(x.values) && \
                 x.values.size() == 1 && int(x.values[0]) >= 0 : true)",
                "the operators Gt, Lt, Gte and Lte need exactly one integer that is not negative",
            ),
        ]),
    );
    schema
}

/// Requirements in a status: written by the controller, not limited.
pub(super) fn status_requirements(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["key", "operator"],
            "properties": {
                "key": {"type": "string"},
                "operator": {"type": "string"},
                "values": {"type": "array", "items": {"type": "string"}},
                "minValues": {"type": "integer"},
            },
        },
    })
}

fn requirement_list(key_rules: Vec<Value>) -> Schema {
    let validations = rules(&[
        (
            "self.all(x, x.operator == 'In' ? has(x.values) && x.values.size() >= 1 : true)",
            "the operator In needs a value",
        ),
        (
            "self.all(x, x.operator in ['Gt', 'Lt', 'Gte', 'Lte'] ? has(x.values) && \
             x.values.size() == 1 && int(x.values[0]) >= 0 : true)",
            "the operators Gt, Lt, Gte and Lte need exactly one integer that is not negative",
        ),
        (
            "self.all(x, x.operator == 'In' && has(x.minValues) ? has(x.values) && \
             x.values.size() >= x.minValues : true)",
            "a requirement with minValues needs at least as many values",
        ),
    ]);
    json_schema!({
        "type": "array",
        "maxItems": 100,
        "items": {
            "type": "object",
            "description": "What the value of one label must be.",
            "required": ["key", "operator"],
            "properties": {
                "key": {
                    "type": "string",
                    "description": "The label's key.",
                    "maxLength": LABEL_KEY_LENGTH,
                    "pattern": LABEL_KEY_PATTERN,
                    "x-kubernetes-validations": key_rules,
                },
                "operator": {
                    "type": "string",
                    "description": "How the values are meant.",
                    "enum": ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte"],
                },
                "values": {
                    "type": "array",
                    "description": "The values; one integer for Gt, Lt, Gte and Lte.",
                    "items": {
                        "type": "string",
                        "maxLength": LABEL_VALUE_LENGTH,
                        "pattern": LABEL_VALUE_PATTERN,
                    },
                },
                "minValues": {
                    "type": "integer",
                    "description": "At least this many distinct values must stay possible.",
                    "minimum": 1,
                    "maximum": 50,
                },
            },
        },
        "x-kubernetes-validations": validations,
    })
}

/// A list of taints.
pub(super) fn taints(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "description": "A taint.",
            "required": ["key", "effect"],
            "properties": {
                "key": {
                    "type": "string",
                    "description": "Its key.",
                    "minLength": 1,
                    "pattern": LABEL_KEY_PATTERN,
                },
                "value": {
                    "type": "string",
                    "description": "Its value.",
                    "pattern": LABEL_VALUE_PATTERN,
                },
                "effect": {
                    "type": "string",
                    "description": "What happens to pods that do not tolerate it.",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                },
                "timeAdded": {
                    "type": "string",
                    "description": "When it was added.",
                    "format": "date-time",
                },
            },
        },
    })
}

/// Tags of a selector term.
pub(super) fn selector_tags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {"type": "string"},
        "x-kubernetes-validations": rules(&[(
            "self.all(k, k != '' && self[k] != '')",
            "tags have neither empty keys nor empty values",
        )]),
    })
}

/// Tags of what is made for a class.
pub(super) fn resource_tags(_: &mut SchemaGenerator) -> Schema {
    let mut validations = vec![
        json!({"rule": "self.all(k, k != '')", "message": "tags have no empty keys"}),
        json!({
            "rule": "self.all(k, !k.startsWith('kubernetes.io/cluster'))",
            "message": "tags that begin with kubernetes.io/cluster are restricted",
        }),
    ];
    for key in [
        "eks:eks-cluster-name",
        "karpenter.sh/nodepool",
        "karpenter.sh/nodeclaim",
        "karpenter.k8s.aws/ec2nodeclass",
    ] {
        validations.push(json!({
            "rule": format!("self.all(k, k != '{key}')"),
            "message": format!("the tag {key} is restricted"),
        }));
    }
    json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string"},
        "x-kubernetes-validations": validations,
    })
}

/// Sizes of EBS volumes: Gi, G, Ti or T within EC2's range; a bare number is bytes.
pub(super) fn volume_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": r"^(([1-9][0-9]{0,3}|[1-4][0-9]{4}|5[0-8][0-9]{3}|59000)Gi|([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-3][0-9]{3}|64000)G|([1-9]|[1-4][0-9]|5[0-8])Ti|([1-9]|[1-5][0-9]|6[0-4])T)$",
        "x-kubernetes-int-or-string": true,
    })
}

/// Amounts set aside, by resource.
pub(super) fn reserved(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "pattern": super::quantity::QUANTITY_PATTERN},
        "x-kubernetes-validations": rules(&[
            (
                "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage', 'pid'])",
                "only cpu, memory, ephemeral-storage and pid can be reserved",
            ),
            ("self.all(k, !self[k].startsWith('-'))", "a reserved amount is not negative"),
        ]),
    })
}

/// Eviction thresholds or their grace periods, by signal.
pub(super) fn by_eviction_signal(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string"},
        "x-kubernetes-validations": rules(&[(
            "self.all(k, k in ['memory.available', 'nodefs.available', 'nodefs.inodesFree', \
             'imagefs.available', 'imagefs.inodesFree', 'pid.available'])",
            "unknown eviction signal",
        )]),
    })
}

/// Removes what generators add and Kubernetes does not want: `nullable` (a null is then pruned or
/// refused, as for Karpenter's own definitions), defaults that say nothing, unknown formats.
pub(super) fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            unwrap_optional(map);
            map.remove("nullable");
            // A schema's title is a text; a property of that name is a schema.
            if map.get("title").is_some_and(Value::is_string) {
                map.remove("title");
            }
            if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                map.remove("anyOf");
            }
            if let Some(Value::Array(values)) = map.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            for bound in ["minimum", "maximum"] {
                if let Some(number) = map.get(bound).and_then(whole) {
                    map.insert(bound.to_owned(), json!(number));
                }
            }
            let says_nothing = map.get("default").is_some_and(|default| match default {
                Value::Null => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            });
            if says_nothing {
                map.remove("default");
            }
            let unknown =
                |format: &Value| format.as_str().is_some_and(|text| text.contains("uint"));
            if map.get("format").is_some_and(unknown) {
                map.remove("format");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// An integer that was written as a fraction.
fn whole(value: &Value) -> Option<i64> {
    let number = value.as_f64()?;
    let exact = number.fract() == 0.0 && number.abs() < 1e15;
    #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    exact.then_some(number as i64)
}

/// `anyOf: [X, null]` is X.
fn unwrap_optional(map: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = map.get("anyOf") else { return };
    let is_null = |branch: &Value| {
        branch.get("enum") == Some(&json!([null])) || branch.get("type") == Some(&json!("null"))
    };
    let [first, second] = branches.as_slice() else { return };
    if is_null(second)
        && let Value::Object(first) = first.clone()
    {
        map.remove("anyOf");
        for (key, value) in first {
            map.entry(key).or_insert(value);
        }
    }
}
