//! Bodies in `application/vnd.kubernetes.protobuf`, which clients built on Kubernetes' own types send
//! for built-in kinds: `kubectl create deployment` does.
//!
//! Messages are decoded by descriptors and turned into the JSON that the same client would have sent.
//! Answers are always JSON: such clients accept both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;

mod json;

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

const ENVELOPE: &str = "k8s.io.apimachinery.pkg.runtime.Unknown";
const DELETE_OPTIONS: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions";

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let packed = include_bytes!("../../../data/protobuf/descriptors.binpb.gz");
    let mut bytes = Vec::new();
    let unpacked = GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes);
    // The file is part of the program, and a test reads it; without it bodies are refused as unknown.
    unpacked.ok().and_then(|_| DescriptorPool::decode(bytes.as_slice()).ok()).unwrap_or_default()
});

static FACTS: LazyLock<BTreeMap<&'static str, JsonFacts>> =
    LazyLock::new(|| facts(include_str!("../../../data/protobuf/json.txt")));

/// How a message's JSON differs from what its descriptor suggests.
#[derive(Debug, Default)]
struct JsonFacts {
    /// Members that are written into their parent.
    inlined: BTreeSet<&'static str>,
    /// Scalars that are written even when they are zero.
    kept: BTreeSet<&'static str>,
    /// Names in JSON that are not the field's.
    renamed: BTreeMap<&'static str, &'static str>,
}

fn facts(table: &'static str) -> BTreeMap<&'static str, JsonFacts> {
    let mut all = BTreeMap::new();
    for line in table.lines() {
        let mut words = line.split(' ');
        let Some(message) = words.next() else { continue };
        let mut own = JsonFacts::default();
        for word in words {
            if let Some(field) = word.strip_prefix('>') {
                own.inlined.insert(field);
            } else if let Some(field) = word.strip_prefix('!') {
                own.kept.insert(field);
            } else if let Some((field, name)) = word.split_once('=') {
                own.renamed.insert(field, name);
            }
        }
        all.insert(message, own);
    }
    all
}

/// Reads a body as JSON.
///
/// # Errors
/// 415 for kinds that have no protobuf form (custom resources), 400 for bytes that can't be read.
pub(super) fn decode(body: &[u8]) -> ApiResult<Value> {
    let content = body.strip_prefix(MAGIC).ok_or_else(|| refuse("it has no protobuf prefix"))?;
    let envelope = read(message_named(ENVELOPE)?, content)?;
    let envelope = json::of_message(&envelope)?;
    let kind = object::text(&envelope, "/typeMeta/kind");
    let api_version = object::text(&envelope, "/typeMeta/apiVersion");
    if !object::text(&envelope, "/contentEncoding").is_empty() {
        return Err(refuse("its content is encoded once more"));
    }
    let raw = json::bytes_of(envelope.get("raw"))?;
    let mut value = json::of_message(&read(message_of(api_version, kind)?, &raw)?)?;
    object::set(&mut value, &["apiVersion"], api_version);
    object::set(&mut value, &["kind"], kind);
    Ok(value)
}

fn read(descriptor: MessageDescriptor, bytes: &[u8]) -> ApiResult<DynamicMessage> {
    DynamicMessage::decode(descriptor, bytes).map_err(|error| refuse(&error.to_string()))
}

/// The message of a kind: `apps/v1` `Deployment` is `k8s.io.api.apps.v1.Deployment`.
fn message_of(api_version: &str, kind: &str) -> ApiResult<MessageDescriptor> {
    if kind == "DeleteOptions" {
        return message_named(DELETE_OPTIONS);
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let package = match group.split('.').next().unwrap_or_default() {
        "" => "core",
        short => short,
    };
    message_named(&format!("k8s.io.api.{package}.{version}.{kind}"))
}

fn message_named(name: &str) -> ApiResult<MessageDescriptor> {
    POOL.get_message_by_name(name)
        .ok_or_else(|| ApiFailure::unsupported_media_type("application/json, application/yaml"))
}

fn refuse(detail: &str) -> Box<ApiFailure> {
    ApiFailure::bad_request(format!("the object provided is unrecognized: {detail}"))
}

#[cfg(test)]
mod tests;
