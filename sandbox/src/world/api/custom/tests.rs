mod karpenter;

use serde_json::{Value, json};

use super::*;

fn widgets(schema: Value) -> Value {
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema}}}}],
        },
    })
}

fn admit(schema: Value, new: Value, old: Option<Value>) -> (Value, Findings) {
    let definition = definition_of(&widgets(schema)).unwrap();
    let mut value = json!({"metadata": {"name": "a"}, "spec": new});
    let old = old.map(|old| json!({"metadata": {"name": "a"}, "spec": old}));
    let findings = definition.custom.unwrap().admit("v1", &mut value, old.as_ref());
    (value["spec"].take(), findings)
}

fn refusals(schema: Value, new: Value, old: Option<Value>) -> Vec<String> {
    let (_, findings) = admit(schema, new, old);
    let shown = findings.causes.iter();
    shown.map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

#[test]
fn defaults_are_filled_and_unknown_fields_dropped() {
    let schema = json!({"type": "object", "properties": {
        "size": {"type": "integer", "default": 3},
        "inner": {"type": "object", "default": {}, "properties": {"on": {"type": "boolean", "default": true}}},
    }});
    let (value, findings) = admit(schema, json!({"colour": 1, "inner": {"odd": 2}}), None);
    assert_eq!(value, json!({"size": 3, "inner": {"on": true}}));
    assert_eq!(findings.unknown, ["spec.colour", "spec.inner.odd"]);
}

#[test]
fn a_refusal_names_field_value_and_reason() {
    let schema = json!({"type": "object", "required": ["name"], "properties": {
        "weight": {"type": "integer", "minimum": 1, "maximum": 100},
        "mode": {"type": "string", "enum": ["On", "Off"]},
        "zone": {"type": "string", "pattern": "^[a-z]+$"},
        "list": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }});
    let value = json!({"weight": 101, "mode": "Auto", "zone": "A1", "list": ["a", 2], "labels": {"a.b": 1}});
    assert_eq!(
        refusals(schema, value, None),
        [
            "spec.name: Required value",
            "spec.labels[a.b]: Invalid value: \"integer\": spec.labels[a.b] in body must be of type string: \"integer\"",
            "spec.list: Too many: 2: must have at most 1 items",
            "spec.list[1]: Invalid value: \"integer\": spec.list[1] in body must be of type string: \"integer\"",
            "spec.mode: Unsupported value: \"Auto\": supported values: \"On\", \"Off\"",
            "spec.weight: Invalid value: 101: spec.weight in body should be less than or equal to 100",
            "spec.zone: Invalid value: \"A1\": spec.zone in body should match '^[a-z]+$'",
        ]
    );
}

#[test]
fn rules_see_self_and_transitions_old_self() {
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "namespace": {"type": "string"},
    }, "x-kubernetes-validations": [
        {"rule": "!has(self.replicas) || self.replicas < 5", "messageExpression": "'too many: ' + string(self.replicas)"},
        {"rule": "has(self.replicas) == has(oldSelf.replicas)", "message": "replicas can't come or go"},
        {"rule": "!has(self.__namespace__) || self.__namespace__.startsWith('a')", "message": "a first"},
    ]});
    let none: Vec<String> = Vec::new();
    assert_eq!(refusals(schema.clone(), json!({"replicas": 1, "namespace": "ab"}), None), none);
    assert_eq!(
        refusals(schema.clone(), json!({"replicas": 7, "namespace": "b"}), None),
        [
            "spec: Invalid value: \"object\": too many: 7",
            "spec: Invalid value: \"object\": a first"
        ]
    );
    assert_eq!(
        refusals(schema, json!({}), Some(json!({"replicas": 1}))),
        ["spec: Invalid value: \"object\": replicas can't come or go"]
    );
}

#[test]
fn a_rule_that_does_not_compile_is_refused_with_its_place() {
    let broken = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.("}]});
    let causes = definition_of(&widgets(broken)).unwrap_err();
    assert_eq!(
        causes[0].field,
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule"
    );
}

#[test]
fn karpenters_definitions_compile_and_judge() {
    for value in drover_common::crd::values() {
        definition_of(&value).unwrap_or_else(|causes| panic!("{causes:?}"));
    }
    let pools = definition_of(&drover_common::crd::values()[0]).unwrap();
    let mut pool = json!({"metadata": {"name": "a"}, "spec": {"weight": 101, "template": {"spec": {
        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
        "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}],
    }}}});
    let custom = pools.custom.unwrap();
    let findings = custom.admit("v1", &mut pool.clone(), None);
    assert_eq!(findings.causes.len(), 1, "{findings:?}");
    assert_eq!(findings.causes[0].field, "spec.weight");
    pool["spec"]["weight"] = json!(1);
    pool["spec"]["template"]["spec"]["requirements"][0] =
        json!({"key": "karpenter.sh/nodepool", "operator": "Exists"});
    let findings = custom.admit("v1", &mut pool, None);
    assert!(
        findings.causes.iter().any(|cause| cause.field == "spec.template.spec.requirements[0].key"
            && cause.message.contains("restricted")),
        "{findings:?}"
    );
}
