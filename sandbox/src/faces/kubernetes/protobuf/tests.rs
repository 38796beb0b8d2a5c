use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A body as a client would make it from the message's fields.
fn body(api_version: &str, kind: &str, fill: impl FnOnce(&mut DynamicMessage)) -> Vec<u8> {
    use prost_reflect::prost::Message as _;
    let mut message = DynamicMessage::new(message_of(api_version, kind).unwrap());
    fill(&mut message);
    let mut envelope = DynamicMessage::new(message_named(ENVELOPE).unwrap());
    let mut meta =
        DynamicMessage::new(message_named("k8s.io.apimachinery.pkg.runtime.TypeMeta").unwrap());
    meta.set_field_by_name("apiVersion", prost_reflect::Value::String(api_version.to_owned()));
    meta.set_field_by_name("kind", prost_reflect::Value::String(kind.to_owned()));
    envelope.set_field_by_name("typeMeta", prost_reflect::Value::Message(meta));
    envelope.set_field_by_name("raw", prost_reflect::Value::Bytes(message.encode_to_vec().into()));
    [MAGIC, &envelope.encode_to_vec()].concat()
}

#[test]
fn every_kind_and_every_fact_is_described() {
    assert!(POOL.all_messages().count() > 400);
    for (message, facts) in FACTS.iter() {
        let descriptor = POOL.get_message_by_name(message).unwrap_or_else(|| panic!("{message}"));
        for field in facts.inlined.iter().chain(&facts.kept).chain(facts.renamed.keys()) {
            // What is inlined into a time has no field of its own.
            let is_time = message.ends_with("Time") && *field == "time";
            assert!(is_time || descriptor.get_field_by_name(field).is_some(), "{message} {field}");
        }
    }
}

#[test]
fn what_kubectl_sends_becomes_its_json() {
    // `kubectl create namespace foo`, as kubectl 1.32 sends it.
    let sent = b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12\x1b\n\x13\n\x03foo\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00\x12\x00\x1a\x02\n\x00\x1a\x00\"\x00";
    let wanted = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "foo"}, "spec": {}, "status": {},
    });
    assert_eq!(decode(sent).unwrap(), wanted);
}

#[test]
fn zeros_that_mean_something_are_kept_and_others_are_not() {
    let replicas = |replicas: i32| {
        body("apps/v1", "Deployment", |message| {
            let mut spec =
                DynamicMessage::new(message_named("k8s.io.api.apps.v1.DeploymentSpec").unwrap());
            spec.set_field_by_name("replicas", prost_reflect::Value::I32(replicas));
            spec.set_field_by_name("minReadySeconds", prost_reflect::Value::I32(0));
            message.set_field_by_name("spec", prost_reflect::Value::Message(spec));
        })
    };
    assert_eq!(decode(&replicas(0)).unwrap()["spec"], json!({"replicas": 0}));
    assert_eq!(decode(&replicas(3)).unwrap()["spec"], json!({"replicas": 3}));
}

#[test]
fn members_are_written_where_json_has_them() {
    let sent = body("v1", "Pod", |pod| {
        let new = |name: &str| DynamicMessage::new(message_named(name).unwrap());
        let text = |text: &str| prost_reflect::Value::String(text.to_owned());
        let message = prost_reflect::Value::Message;
        let mut reference = new("k8s.io.api.core.v1.SecretVolumeSource");
        reference.set_field_by_name("secretName", text("s"));
        let mut source = new("k8s.io.api.core.v1.VolumeSource");
        source.set_field_by_name("secret", message(reference));
        let mut volume = new("k8s.io.api.core.v1.Volume");
        volume.set_field_by_name("name", text("v"));
        volume.set_field_by_name("volumeSource", message(source));
        let mut spec = new("k8s.io.api.core.v1.PodSpec");
        spec.set_field_by_name("volumes", prost_reflect::Value::List(vec![message(volume)]));
        pod.set_field_by_name("spec", message(spec));
        let mut time = new("k8s.io.apimachinery.pkg.apis.meta.v1.Time");
        time.set_field_by_name("seconds", prost_reflect::Value::I64(1_700_000_000));
        let mut metadata = new("k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        metadata.set_field_by_name("creationTimestamp", message(time));
        pod.set_field_by_name("metadata", message(metadata));
    });
    let value = decode(&sent).unwrap();
    assert_eq!(value["spec"]["volumes"], json!([{"name": "v", "secret": {"secretName": "s"}}]));
    assert_eq!(value["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
}

#[test]
fn custom_kinds_have_no_protobuf_form() {
    assert_eq!(message_of("karpenter.sh/v1", "NodePool").unwrap_err().code, 415);
    assert_eq!(decode(b"{}").unwrap_err().code, 400);
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = decode(&[MAGIC, &bytes].concat());
        let mut deployment = body("apps/v1", "Deployment", |_| {});
        deployment.extend(bytes);
        let _ = decode(&deployment);
    }
}
